//! `vnx trust`, and the question of `vnx init`.

use std::io::IsTerminal;

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
    let mut changed = trust::changed_files(&project)?;
    if !args.json {
        show(context, &seen);
        for (name, by) in &changed {
            context.screen.answer(&format!("{}  {name}, while {by} ran", toned(Tone::Doubt, "changed")));
        }
    }
    let is_new = |seen: &[Seen]| seen.iter().any(|one| !one.trusted);
    if !args.list && is_new(&seen) {
        let by = trust::accept(&project, &seen)?;
        for one in &mut seen {
            one.trusted = true;
        }
        context
            .screen
            .story(&format!("accepted by {} <{}>; what changes of it later is asked for again", by.name, by.email));
    }
    if !args.list && !changed.is_empty() {
        trust::accept_changed_files(&project)?;
        changed.clear();
        context.screen.story("accepted: they count as they are now");
    }
    let good = !is_new(&seen) && changed.is_empty();
    if args.json {
        let changed: Vec<_> =
            changed.iter().map(|(file, by)| serde_json::json!({ "file": file, "dispatch": by })).collect();
        context.screen.json(
            &serde_json::json!({ "schema": "vnx.trust/1", "trusted": good, "brought": seen, "changed": changed }),
        );
    } else if seen.is_empty() && good {
        context.screen.answer("this repository brings nothing that would be run");
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
    if std::io::stderr().is_terminal() && trust::accept(project, &seen).is_ok() {
        return Ok(());
    }
    context.screen.story("nothing of this is run until a person has accepted it: vnx trust");
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
