//! `vnx undo`, `vnx worktree gc` and `vnx worktree rescue`.

use serde::Serialize;

use super::Context;
use super::args::{DropArgs, GcArgs, RescueCommand, UndoArgs, WorktreeCommand};
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::{Fit, table};
use super::worktree;
use crate::dispatch::trees::{self, Kept, LandedBranch, RescueRow, Wanted};
use crate::dispatch::view;
use crate::domain::Fault;
use crate::domain::span::human_millis;
use crate::git::Git;
use crate::sys;

pub(super) fn undo(context: &Context, args: &UndoArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &args.id)?;
    let undone = trees::undo(&project, &id)?;
    if args.json {
        context.screen.json(&serde_json::json!({ "schema": "vnx.undo/1", "undone": undone }));
    } else {
        context.screen.answer(&undone.worktree.display().to_string());
        let what = if undone.rescue { "from its rescue, with what was not committed" } else { "from its branch" };
        context.screen.story(&format!("{id} stands again, {what}; `vnx worktree gc --apply {id}` takes it away"));
    }
    Ok(Answer::Good)
}

pub(super) fn give_up(context: &Context, args: &DropArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let ids = view::resolve_all(&project, &args.ids)?;
    let mut dropped = Vec::new();
    for id in ids {
        let one = trees::give_up(&project, &id, args.reason.clone())?;
        if !args.json {
            let what = match (one.worktree, &one.commit) {
                (true, Some(_)) => "its worktree and its branch are",
                (true, None) => "its worktree is",
                (false, _) => "its branch is",
            };
            context.screen.answer(&format!("{id} is given up: {what} gone; `vnx undo {id}` brings that back"));
        }
        dropped.push(one);
    }
    if args.json {
        context.screen.json(&serde_json::json!({ "schema": "vnx.drop/1", "dropped": dropped }));
    }
    Ok(Answer::Good)
}

pub(super) fn run(context: &Context, command: &WorktreeCommand) -> Result<Answer, Fault> {
    match command {
        WorktreeCommand::List(args) => worktree::list(context, args),
        WorktreeCommand::New(args) => worktree::new(context, args),
        WorktreeCommand::Gc(args) => gc(context, args),
        WorktreeCommand::Rescue(command) => rescue(context, command),
    }
}

#[derive(Serialize)]
struct Collected {
    schema: &'static str,
    applied: bool,
    reclaimed_bytes: u64,
    worktrees: Vec<Kept>,
    branches: Vec<LandedBranch>,
}

fn gc(context: &Context, args: &GcArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let age = args.older_than.unwrap_or(project.config.worktree.keep);
    // Whole names, as this takes something away; the last one is one.
    let whole = |name: &String| match name.as_str() {
        "@last" => view::resolve(&project, name).map(|id| id.to_string()),
        _ => Ok(name.clone()),
    };
    let wanted_names = args.names.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let wanted = Wanted { names: wanted_names, age, most: args.max_total, apply: args.apply };
    // Those of worktrees that stand are theirs.
    let branches = trees::landed_branches(&project, &wanted)?;
    let rows = trees::collect_garbage(&project, &wanted)?;
    let reclaimed = rows.iter().filter(|row| row.removed).map(|row| row.bytes).sum();
    if args.json {
        let schema = "vnx.worktree-gc/1";
        let collected =
            Collected { schema, applied: args.apply, reclaimed_bytes: reclaimed, worktrees: rows, branches };
        context.screen.json(&collected);
        return Ok(Answer::Good);
    }
    let mut lines = Vec::new();
    for row in &rows {
        let (tone, word) = match (row.removed, row.reclaim) {
            (true, _) => (Tone::Good, "removed"),
            (false, true) => (Tone::Doubt, "may go"),
            (false, false) => (Tone::Dim, "stays"),
        };
        let class = row.class.map_or("-", |class| class.word());
        lines.push(vec![
            toned(tone, word),
            printable(&row.name),
            class.to_owned(),
            size(row.bytes),
            row.since.map_or_else(|| "-".to_owned(), |at| human_millis(sys::now().millis_since(at))),
            printable(&row.because),
        ]);
    }
    for one in &branches {
        let (tone, word) = if one.dropped { (Tone::Good, "removed") } else { (Tone::Doubt, "may go") };
        let because = format!("the branch {}: {} has all of it", one.branch, printable(&one.target));
        lines.push(vec![
            toned(tone, word),
            one.id.to_string(),
            "-".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            because,
        ]);
    }
    let lines = table(&lines);
    let (of_rows, of_branches) = lines.split_at(rows.len());
    for (line, row) in of_rows.iter().zip(&rows) {
        context.screen.answer(line);
        if let Some(facts) = &row.facts {
            let named = facts.named().into_iter().filter(|(_, fact)| *fact != crate::domain::tree::Tri::No);
            let named: Vec<String> = named.map(|(name, fact)| format!("{name} {}", fact.word())).collect();
            context.screen.detail(&format!("  {}", named.join(", ")));
        }
    }
    for line in of_branches {
        context.screen.answer(line);
    }
    let may_go = rows.iter().filter(|row| row.reclaim && !row.removed).count() + branches.len();
    if lines.is_empty() {
        context.screen.story("there is no worktree to look at");
    } else if args.apply {
        let back = rows.iter().any(|row| row.removed && row.rescue.is_some());
        let back = if back { "; `vnx undo ID` brings a dispatch's worktree back" } else { "" };
        context.screen.story(&format!("{} reclaimed{back}", size(reclaimed)));
    } else if may_go > 0 {
        let back = if rows.iter().any(|row| row.reclaim && row.class.is_some()) {
            "; `vnx undo ID` would bring a dispatch's worktree back"
        } else {
            ""
        };
        context.screen.story(&format!("nothing was done; --apply does it{back}"));
    }
    Ok(Answer::Good)
}

fn rescue(context: &Context, command: &RescueCommand) -> Result<Answer, Fault> {
    let project = context.project()?;
    match command {
        RescueCommand::List { json } => {
            let rows = trees::rescues(&project)?;
            if *json {
                context.screen.json(&serde_json::json!({ "schema": "vnx.rescues/1", "rescues": rows }));
                return Ok(Answer::Good);
            }
            if rows.is_empty() {
                context.screen.story("there is no rescue");
            }
            context.screen.table(&rows.iter().map(rescue_row).collect::<Vec<_>>(), Fit::Wrap);
        }
        RescueCommand::Show { id, json } => {
            let id = view::resolve(&project, id)?;
            let repository = Git::repository(&project.located.common_dir);
            let commit = repository.ref_commit(&id.rescue_ref())?.ok_or_else(|| {
                Fault::input(format!("{id} has no rescue")).fix("`vnx worktree rescue list` lists them")
            })?;
            let files = repository.files_of(&commit)?;
            let names: Vec<String> = files.iter().map(|f| f.path.to_string_lossy().into_owned()).collect();
            if *json {
                let (schema, reference) = ("vnx.rescue/1", id.rescue_ref());
                context.screen.json(
                    &serde_json::json!({ "schema": schema, "id": id, "ref": reference, "commit": commit, "files": names }),
                );
            } else {
                context.screen.answer(&format!("{}  {commit}", id.rescue_ref()));
                for name in &names {
                    context.screen.answer(&printable(name));
                }
            }
        }
        RescueCommand::Drop { id, yes, sign, json } => {
            if !yes && trees::rescues(&project)?.iter().any(|row| row.id == *id) {
                return Err(Fault::input(format!("what is only in the rescue of {id} would be lost"))
                    .fix(format!("look first: `vnx worktree rescue show {id}`; then drop it with --yes")));
            }
            let commit = trees::drop_rescue(&project, id, *sign)?;
            if *json {
                context.screen.json(&serde_json::json!({ "schema": "vnx.dropped/1", "id": id, "commit": commit }));
                return Ok(Answer::Good);
            }
            context
                .screen
                .answer(&format!("dropped {commit}; until git's next gc, `git branch NAME {commit}` brings it back"));
        }
    }
    Ok(Answer::Good)
}

fn rescue_row(row: &RescueRow) -> Vec<String> {
    vec![
        printable(&row.id),
        human_millis(sys::now().millis_since(row.made)),
        if row.tree { "its worktree stands" } else { "its worktree is gone" }.to_owned(),
        row.commit.clone(),
    ]
}

/// A number of bytes with three digits or so.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = units.iter().enumerate().take_while(|(at, _)| bytes >> (10 * at) > 0).count().saturating_sub(1);
    if at == 0 {
        return format!("{bytes} B");
    }
    let tenths = ((bytes >> (10 * (at - 1))) * 10) >> 10;
    format!("{}.{} {}", tenths / 10, tenths % 10, units[at])
}
