//! `vnx audit-chain verify | seal | accept | import | prove`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Context;
use super::args::AuditCommand;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use crate::anchor::{self, ANCHORS, Audit, Sealed};
use crate::dispatch::gates;
use crate::domain::Fault;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::receipt::{ImportStatus, LedgerImported};
use crate::domain::span::counted;
use crate::ledger::verify::{Flaw, Report, Status};
use crate::sys::files;

pub(super) fn run(context: &Context, command: &AuditCommand) -> Result<Answer, Fault> {
    match command {
        AuditCommand::Verify { file: Some(file), against, quick, require_anchor, json, .. } => {
            let progress = progress(context, "verifying", file);
            let options = anchor::Options {
                quick: *quick,
                require: *require_anchor,
                progress: Some(&progress),
                ..anchor::Options::default()
            };
            verify_file(context, file, against, &options, *json)
        }
        AuditCommand::Verify { quick, since_anchor, require_anchor, anchor_ref, allowed_signers, json, .. } => {
            let project = context.project_as_it_is()?;
            let reference = anchor_ref.as_deref().map(full_name).transpose()?;
            let progress = progress(context, "verifying", &project.ledger().file());
            let audit = anchor::audit(
                &project,
                &anchor::Options {
                    reference: reference.as_deref().filter(|r| *r != ANCHORS),
                    signers: allowed_signers.as_deref(),
                    packed: false,
                    quick: *quick,
                    require: *require_anchor,
                    since: *since_anchor,
                    unsigned: false,
                    lost: false,
                    progress: Some(&progress),
                },
            );
            context.screen.progress("");
            Ok(show(context, &audit, *json))
        }
        AuditCommand::Seal { lost, json } => {
            let project = context.project_as_it_is()?;
            let sealed = if *lost { anchor::seal_lost(&project)? } else { anchor::seal(&project)? };
            Ok(told(context, sealed, "no anchor was written: the ledger does not verify", *json))
        }
        AuditCommand::Accept { reason, json } => {
            let project = context.project_as_it_is()?;
            let accepted = gates::accept_loss(&project, reason.clone())?;
            Ok(told(context, accepted, "nothing was accepted: no receipts are gone that could be", *json))
        }
        AuditCommand::Import { file, json } => import(context, file, *json),
        AuditCommand::Prove { seq } => {
            context.screen.json(&anchor::prove(&context.project_as_it_is()?, *seq)?);
            Ok(Answer::Good)
        }
    }
}

fn full_name(reference: &str) -> Result<String, Fault> {
    let full = if reference.starts_with("refs/") { reference.to_owned() } else { format!("refs/remotes/{reference}") };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    if full.chars().all(plain) && !full.contains("..") && !full.ends_with(['/', '.']) {
        return Ok(full);
    }
    Err(Fault::input(format!("--anchor-ref {reference:?} is not the name of a ref"))
        .fix("for example refs/vnx/anchors, or origin/vnx/anchors"))
}

fn import(context: &Context, file: &Path, json: bool) -> Result<Answer, Fault> {
    let project = context.project()?;
    let ledger = project.ledger();
    let own = ledger.created()?.project;
    if own != *project.id() {
        return Err(Fault::refused(format!("the ledger belongs to the project {own}, not to {}", project.id()))
            .fix("run `vnx audit-chain verify`; nothing was imported"));
    }
    let progress = progress(context, "importing", file);
    let (imported, written) = ledger.import(file, &progress)?;
    context.screen.progress("");
    if json {
        context.screen.json(&serde_json::json!({
            "schema": "vnx.import/1",
            "seq": written.seq,
            "new": !written.repeated,
            "imported": imported,
        }));
        return Ok(Answer::Good);
    }
    let word = if written.repeated { "imported already" } else { "imported" };
    context.screen.answer(&format!("{}  {}, as receipt {}", toned(Tone::Good, word), older(&imported), written.seq));
    if let Some(bad) = &imported.first_bad {
        let more =
            if imported.violations > 1 { format!(" (the first of {})", imported.violations) } else { String::new() };
        context.screen.answer(&format!("  line {}: {}{more}", bad.line, printable(&bad.reason)));
    }
    if imported.status != ImportStatus::Broken {
        context.screen.story(
            "its rules bind an entry only to the one before it; from here on this ledger's chain binds all of it",
        );
    }
    Ok(Answer::Good)
}

/// An older ledger in half a line.
fn older(imported: &LedgerImported) -> String {
    let tone = match imported.status {
        ImportStatus::Verified | ImportStatus::Segmented => Tone::Good,
        ImportStatus::Unchained => Tone::Doubt,
        ImportStatus::Broken => Tone::Bad,
    };
    let status = toned(tone, imported.status.word());
    let lines = if imported.lines == 1 { "1 line".to_owned() } else { format!("{} lines", imported.lines) };
    format!("{} of {lines}, by its own rules {status}", printable(&imported.name))
}

/// Shows how far it is, on a terminal, when it takes longer than a moment.
fn progress(context: &Context, what: &'static str, file: &Path) -> impl Fn(u64) + Sync + use<> {
    let (screen, total) = (context.screen, std::fs::metadata(file).map_or(0, |m| m.len()).max(1));
    let next = Mutex::new(Instant::now() + Duration::from_millis(500));
    move |done| {
        let Ok(mut next) = next.try_lock() else { return };
        if Instant::now() > *next {
            *next = Instant::now() + Duration::from_millis(100);
            screen.progress(&format!("{what} {:>3} %", done * 100 / total));
        }
    }
}

fn verify_file(
    context: &Context,
    file: &Path,
    against: &[PathBuf],
    options: &anchor::Options<'_>,
    json: bool,
) -> Result<Answer, Fault> {
    let checkpoints: Vec<Checkpoint> = against.iter().map(|path| checkpoint(path)).collect::<Result<_, _>>()?;
    let report = anchor::audit_file(file, &checkpoints, options);
    context.screen.progress("");
    if json {
        context.screen.json(&report);
    } else {
        tell(context, &report, None);
    }
    Ok(Answer::Own(report.status.exit_code()))
}

fn checkpoint(path: &Path) -> Result<Checkpoint, Fault> {
    let bytes = files::read_capped(path, 1 << 20)?
        .ok_or_else(|| Fault::input(format!("there is no file {}", path.display())).fix("check --against"))?;
    String::from_utf8(bytes).ok().and_then(|text| Checkpoint::parse(&text)).ok_or_else(|| {
        Fault::input(format!("{} is not a checkpoint", path.display()))
            .fix("three lines: origin, size, base64 root; as `git show refs/vnx/anchors:checkpoint` prints them")
    })
}

fn show(context: &Context, audit: &Audit, json: bool) -> Answer {
    if json {
        context.screen.json(audit);
    } else {
        tell(context, &audit.report, Some(audit));
    }
    Answer::Own(audit.report.status.exit_code())
}

fn tell(context: &Context, report: &Report, audit: Option<&Audit>) {
    let anchors = audit.map(|audit| &audit.anchors);
    let (tone, word) = match report.status {
        Status::Verified => (Tone::Good, "verified"),
        Status::Broken => (Tone::Bad, "broken"),
        Status::AnchorMismatch => (Tone::Bad, "not what it was"),
        Status::TornTail => (Tone::Doubt, "torn tail"),
        Status::Undecided => (Tone::Bad, "undecided"),
        Status::Unreadable => (Tone::Bad, "unreadable"),
    };
    let head = report.head.map(|h| format!(", head {}", h.short())).unwrap_or_default();
    context.screen.answer(&format!(
        "{}  {} sound{head}",
        toned(tone, word),
        match (report.receipts, report.status) {
            (1, _) => "1 receipt is".to_owned(),
            (n, Status::Broken) => format!("the first {n} receipts are"),
            (n, _) => format!("{n} receipts are"),
        }
    ));
    if let Some(anchors) = anchors {
        let signer = anchors.signer.as_ref().map(|s| format!(", signed by {}", printable(s))).unwrap_or_default();
        context.screen.answer(&match (anchors.count, anchors.unanchored) {
            (0, _) => {
                "  no anchor: only this machine can tell whether it was rewritten (`vnx audit-chain seal`)".to_owned()
            }
            (count, 0) if report.status == Status::Verified => {
                format!("  anchors: {count}, the last one covers all of it{signer}")
            }
            (count, n) => {
                let after = if n > 0 { format!("; after it: {}", counted(n, "receipt")) } else { String::new() };
                format!("  anchors: {count}, the last one covers {}{signer}{after}", anchors.size)
            }
        });
    }
    if anchors.is_some_and(|a| a.count > 0 && a.witness.is_none()) {
        context
            .screen
            .answer("  no witness here has seen it, so only what was pushed tells whether all of it was replaced");
    }
    if anchors.is_some_and(|a| a.skipped > 0) {
        let skipped = anchors.map_or(0, |a| a.skipped);
        context.screen.answer(&format!("  the first {skipped} were not read again: the signed anchor covers them"));
    }
    if report.recoveries > 0 {
        let torn = counted(report.recoveries, "torn tail");
        context.screen.answer(&format!("  recovered in its history: {torn}, each with a receipt"));
    }
    for imported in &report.imported {
        context.screen.answer(&format!("  imported: {}", older(imported)));
    }
    if let Some(bad) = &report.first_bad {
        context.screen.answer(&format!("  line {} (byte {}): {}", bad.line, bad.offset, printable(&bad.reason)));
        for (label, value) in [("expected", &bad.expected), ("found", &bad.found)] {
            if let Some(value) = value {
                context.screen.answer(&format!("  {label:<8} {}", printable(value)));
            }
        }
    }
    if let Some(next) = next(report, audit) {
        context.screen.answer(&toned(Tone::Dim, &format!("  fix: {next}")));
    }
}

/// What to do about a ledger that does not verify: the project's own, which was audited, or a file from anywhere.
fn next(report: &Report, audit: Option<&Audit>) -> Option<&'static str> {
    let own = audit.is_some();
    let about_anchor = report.first_bad.as_ref().is_some_and(|bad| bad.kind == Flaw::BadAnchor);
    Some(match (report.status, own) {
        (Status::Verified, _) => return None,
        (Status::Broken, true) => {
            "leave the file as it is, compare it with a backup or a clone, and dispatch nothing meanwhile; nothing is merged until then"
        }
        (Status::AnchorMismatch, true) if about_anchor => {
            "leave the file as it is: its chain is sound, and what is wrong is the anchor; see the line above"
        }
        (Status::AnchorMismatch, true) if audit.is_some_and(Audit::is_acceptable) => {
            "leave the file as it is, find the one that was written (a backup, another machine), and put it back; if it is gone for good, a person accepts that: vnx audit-chain accept --reason WHY"
        }
        (Status::AnchorMismatch, true) => {
            "leave the file as it is, find the one that was anchored (a backup, another machine), and put it back"
        }
        (Status::Broken | Status::AnchorMismatch, false) => {
            "compare it with another copy, and with anchors that were pushed"
        }
        (Status::TornTail, true) if report.receipts == 0 => {
            "nothing was ever recorded in it, or it was replaced: bring it back from where it went, or move it away and run `vnx init`"
        }
        (Status::TornTail, true) => {
            "`vnx audit-chain seal`, or any next dispatch, puts the torn end into quarantine and says so in a receipt"
        }
        (Status::TornTail, false) => "copy it again, while nothing is appended",
        (Status::Undecided, true) => {
            "see the line above; `vnx audit-chain seal` makes an anchor, a ledger that is gone comes from a backup"
        }
        (Status::Undecided | Status::Unreadable, _) => "check the path and its permissions",
    })
}

fn told(context: &Context, sealed: Result<Sealed, Audit>, refused: &str, json: bool) -> Answer {
    let sealed = match sealed {
        Ok(sealed) => sealed,
        Err(audit) => {
            context.screen.story(refused);
            return show(context, &audit, json);
        }
    };
    if json {
        context.screen.json(&sealed);
        return Answer::Good;
    }
    let word = if sealed.new { "anchored" } else { "anchored already" };
    let signed = if sealed.signed { "signed" } else { "unsigned" };
    let commit = &sealed.commit[..sealed.commit.len().min(12)];
    context.screen.answer(&format!(
        "{}  {}, root {}, {signed} commit {commit} on {ANCHORS}",
        toned(Tone::Good, word),
        counted(sealed.size, "receipt"),
        sealed.root.short()
    ));
    if let Some(why) = &sealed.unwitnessed {
        context.screen.story(&format!("no witness was written: {}", printable(why)));
    }
    context.screen.story(&format!("push it, so that others hold it too: git push <remote> {ANCHORS}"));
    Answer::Good
}
