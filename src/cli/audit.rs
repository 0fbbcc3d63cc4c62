//! `vnx audit-chain verify`.

use super::Context;
use super::args::AuditCommand;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use crate::domain::Fault;
use crate::ledger::verify::{Options, Status, verify};

pub(super) fn run(context: &Context, command: &AuditCommand) -> Result<Answer, Fault> {
    let AuditCommand::Verify { file, quick, json } = command;
    let options = Options { quick: *quick, ..Options::default() };
    let report = if let Some(file) = file {
        verify(file, &options)
    } else {
        let project = context.project_as_it_is()?;
        verify(&project.ledger().file(), &Options { project: Some(project.id()), ..options })
    };
    let answer = Answer::Own(report.status.exit_code());
    if *json {
        context.screen.json(&report);
        return Ok(answer);
    }
    let (tone, word) = match report.status {
        Status::Verified => (Tone::Good, "verified"),
        Status::Broken => (Tone::Bad, "broken"),
        Status::TornTail => (Tone::Doubt, "torn tail"),
        Status::AnchorMismatch => (Tone::Bad, "not what was anchored"),
        Status::Undecided => (Tone::Bad, "undecided"),
        Status::Unreadable => (Tone::Bad, "unreadable"),
    };
    let head = report.head.map(|h| format!(", head {}", h.short())).unwrap_or_default();
    context.screen.answer(&format!("{}  {} receipts are sound{head}", toned(tone, word), report.receipts));
    if report.recoveries > 0 {
        context
            .screen
            .answer(&format!("  {} torn tails were recovered in its history, each with a receipt", report.recoveries));
    }
    if let Some(bad) = &report.first_bad {
        context.screen.answer(&format!("  line {} (byte {}): {}", bad.line, bad.offset, printable(&bad.reason)));
        for (label, value) in [("expected", &bad.expected), ("found", &bad.found)] {
            if let Some(value) = value {
                context.screen.answer(&format!("  {label:<8} {}", printable(value)));
            }
        }
    }
    Ok(answer)
}
