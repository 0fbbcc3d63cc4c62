//! `vnx worktree list` and `vnx worktree new`.

use serde::Serialize;

use super::Context;
use super::args::{JsonArgs, NewArgs};
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::own::{self, Listed, Own, Owner, Stands};
use crate::domain::Fault;
use crate::domain::span::human_millis;

#[derive(Serialize)]
struct List {
    schema: &'static str,
    worktrees: Vec<Listed>,
}

#[derive(Serialize)]
struct Made {
    schema: &'static str,
    worktree: Own,
}

pub(super) fn new(context: &Context, args: &NewArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let made = own::new(&project, &args.name, args.base.as_deref())?;
    if args.json {
        context.screen.json(&Made { schema: "vnx.worktree/1", worktree: made });
        return Ok(Answer::Good);
    }
    context.screen.story(&format!("branch {} at {}", made.branch, &made.base.commit[..made.base.commit.len().min(12)]));
    context.screen.answer(&printable(&made.path));
    Ok(Answer::Good)
}

pub(super) fn list(context: &Context, args: &JsonArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let worktrees = own::list(&project)?;
    if args.json {
        context.screen.json(&List { schema: "vnx.worktrees/1", worktrees });
        return Ok(Answer::Good);
    }
    if worktrees.is_empty() {
        context.screen.story("there is none; `vnx worktree new NAME` makes one of your own");
        return Ok(Answer::Good);
    }
    let now = crate::sys::now();
    let header = ["WORKTREE", "OWNER", "STATE", "AGE", "BRANCH", "PATH"];
    let mut rows = vec![header.iter().map(|h| toned(Tone::Dim, h)).collect::<Vec<_>>()];
    for one in worktrees {
        let (tone, state) = match one.state {
            Stands::Running => (Tone::Good, "running"),
            Stands::Kept => (Tone::Doubt, "kept"),
            Stands::Yours => (Tone::Good, "yours"),
            Stands::Making => (Tone::Dim, "making"),
            Stands::Ready => (Tone::Dim, "ready"),
            Stands::Unknown => (Tone::Doubt, "unknown"),
        };
        let because = one.because.map(|why| format!(" ({})", printable(&why))).unwrap_or_default();
        let owner = match one.owner {
            Owner::Dispatch => "dispatch",
            Owner::Person => "person",
            Owner::Pool => "pool",
            Owner::Unknown => "unknown",
        };
        rows.push(vec![
            printable(&one.id),
            owner.to_owned(),
            toned(tone, state) + &because,
            one.since.map_or_else(|| "-".to_owned(), |since| human_millis(now.millis_since(since))),
            one.branch.map_or_else(|| "-".to_owned(), |branch| printable(&branch)),
            printable(&one.path.display().to_string()),
        ]);
    }
    context.screen.table(&rows, Fit::Wrap);
    Ok(Answer::Good)
}
