//! `vnx trust`, and the question of `vnx init`.

use std::io::{BufRead, IsTerminal};

use super::Context;
use super::args::TrustArgs;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use crate::dispatch::trust::{self, Seen};
use crate::domain::Fault;
use crate::project::Project;

pub(super) fn run(context: &Context, args: &TrustArgs) -> Result<Answer, Fault> {
    let project = context.project_as_it_is()?;
    let mut seen = trust::examine(&project)?;
    if !args.json {
        show(context, &seen);
    }
    let is_new = |seen: &[Seen]| seen.iter().any(|one| !one.trusted);
    if is_new(&seen) && (args.yes || (!args.json && agreed(context))) {
        let by = trust::accept(&project, &seen)?;
        for one in &mut seen {
            one.trusted = true;
        }
        context
            .screen
            .story(&format!("accepted by {} <{}>; what changes of it later is asked for again", by.name, by.email));
    }
    let good = !is_new(&seen);
    if args.json {
        context.screen.json(&serde_json::json!({ "schema": "vnx.trust/1", "trusted": good, "brought": seen }));
    } else if seen.is_empty() {
        context.screen.answer("this repository brings nothing that would be run");
    } else if !good {
        context.screen.story("nothing was accepted; when you have read it: vnx trust --yes");
    }
    Ok(if good { Answer::Good } else { Answer::No })
}

/// What `vnx init` says, and asks on a terminal, where the repository brought something.
pub(super) fn after_init(context: &Context, project: &Project) -> Result<(), Fault> {
    if project.untrusted.is_empty() {
        return Ok(());
    }
    let seen = trust::examine(project)?;
    show(context, &seen);
    if agreed(context) {
        trust::accept(project, &seen)?;
    } else {
        context.screen.story("nothing of this is run until a person has accepted it: vnx trust");
    }
    Ok(())
}

fn show(context: &Context, seen: &[Seen]) {
    for one in seen {
        let word = if one.trusted { toned(Tone::Good, "trusted") } else { toned(Tone::Doubt, "new") };
        let brought = &one.brought;
        let line = format!("{word}  {}  {}", toned(Tone::Strong, &printable(&brought.what)), printable(&brought.file));
        context.screen.answer(&line);
        brought.runs.lines().for_each(|line| context.screen.answer(&format!("    {}", printable(line))));
    }
}

/// Asks whoever sits at the terminal; nobody there is no yes.
fn agreed(context: &Context) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    context.screen.story("Run these on this machine when vnx works here? Type yes:");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == "yes"
}
