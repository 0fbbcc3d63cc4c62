//! `vnx init`.

use super::Context;
use super::args::InitArgs;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::table;
use super::trust;
use crate::anchor;
use crate::domain::Fault;
use crate::gate;
use crate::project::{self, Project, Scaffold, Written};
use crate::provider::constraints;

pub(super) fn run(context: &Context, args: &InitArgs) -> Result<Answer, Fault> {
    let located = project::locate(&context.from)?;
    let signer = gate::own_signer(&located);
    let signer = signer.as_deref();
    let scaffold = Scaffold { constraints: constraints::SHIPPED, signer, force: args.force, diff: args.diff };
    let report = project::init(&context.from, scaffold)?;
    if args.json {
        context.screen.json(&report);
        return Ok(Answer::Good);
    }
    let changed = report.ledger_created || report.items.iter().any(|i| i.written != Written::Unchanged);
    let rows: Vec<Vec<String>> = report
        .items
        .iter()
        .filter(|item| item.written != Written::Unchanged)
        .map(|item| {
            let (tone, word) = match item.written {
                Written::WouldCreate => (Tone::Good, "would create"),
                Written::Created => (Tone::Good, "created"),
                Written::Replaced => (Tone::Doubt, "replaced"),
                Written::Kept => (Tone::Dim, "kept"),
                Written::Unchanged => (Tone::Dim, "unchanged"),
            };
            let note = item.backup.as_ref().map(|b| format!("the old one is {b}"));
            let differs = item.shipped.as_ref().map(|_| "differs from the shipped version".to_owned());
            vec![format!("  {}", toned(tone, word)), item.path.clone(), note.or(differs).unwrap_or_default()]
        })
        .collect();
    for line in table(&rows) {
        context.screen.story(&line);
    }
    if args.diff {
        for item in report.items.iter().filter(|i| i.shipped.is_some()) {
            diff(context, &report.project.join(&item.path), item.shipped.as_deref().unwrap_or_default());
        }
        return Ok(Answer::Good);
    }
    if changed {
        context.screen.answer(&format!(
            "{} is ready in {}",
            toned(Tone::Strong, report.project_id.as_str()),
            report.project.display()
        ));
        let why = "(merges are checked against the committed configuration), then vnx doctor";
        context.screen.story(&match gate::how_to_add(&located) {
            gate::ADD => format!("next: commit .vnx/ {why}"),
            how => format!("next: commit .vnx/, which git does not take unasked: {how} {why}"),
        });
    } else {
        context.screen.answer(&format!(
            "{} is already set up in {}; nothing changed",
            report.project_id,
            report.project.display()
        ));
    }
    let project = Project::open(&context.from)?;
    context.screen.note(anchor::replaced(&project).as_ref());
    trust::after_init(context, &project)?;
    Ok(Answer::Good)
}

/// Lines that stand only in the file (-) or only in the shipped version (+).
fn diff(context: &Context, path: &std::path::Path, shipped: &str) {
    let own = crate::sys::files::read_text(path).unwrap_or_default();
    context.screen.answer(&toned(Tone::Strong, &format!("{} (-) and the shipped version (+)", path.display())));
    for line in own.lines().filter(|l| !shipped.lines().any(|s| s == *l)) {
        context.screen.answer(&format!("- {}", printable(line)));
    }
    for line in shipped.lines().filter(|l| !own.lines().any(|s| s == *l)) {
        context.screen.answer(&format!("+ {}", printable(line)));
    }
}
