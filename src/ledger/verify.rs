//! `verify`: reads every byte, trusts none.
//!
//! For each line: its format, its own hash, its link to the line before, its sequence number,
//! and a strict parse whose result must agree with the fixed offsets. The first fault ends it:
//! what stands after a broken receipt proves nothing.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Serialize;

use super::format::{self, MAX_LINE};
use crate::domain::receipt::{Body, Kind};
use crate::domain::{Digest, Name};
use crate::sys::files;

/// What the verification came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every line is what it was when it was written, up to the end of the file.
    Verified,
    /// A line was changed, inserted, removed or moved.
    Broken,
    /// Everything is sound except an incomplete last line; the next writer repairs that.
    TornTail,
    /// There is nothing that could be verified.
    NoLedger,
    /// The file could not be read.
    Unreadable,
}

impl Status {
    /// The exit code of `audit-chain verify`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Broken => 1,
            Self::TornTail => 4,
            Self::NoLedger => 5,
            Self::Unreadable => 74,
        }
    }
}

/// The first fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Line number, from 1.
    pub line: u64,
    /// Byte offset at which the line begins.
    pub offset: u64,
    /// `edited`, `unlinked`, `sequence`, `format` or `project`.
    pub kind: &'static str,
    /// One line for people.
    pub reason: String,
    /// What should stand there, where that can be said.
    pub expected: Option<String>,
    /// What stands there.
    pub found: Option<String>,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Format of this report.
    pub schema: &'static str,
    /// What it came to.
    pub status: Status,
    /// Sound receipts, from the first on.
    pub receipts: u64,
    /// Sound bytes.
    pub bytes: u64,
    /// The ledger's random id, from its first receipt.
    pub ledger: Option<String>,
    /// The hash of the last sound receipt.
    pub head: Option<Digest>,
    /// How many torn tails were recovered in its history.
    pub recoveries: u64,
    /// The first fault.
    pub first_bad: Option<Fault>,
}

/// Verifies the file at `path`. With `project`, a ledger of another project is a fault.
pub fn verify(path: &Path, project: Option<&Name>) -> Report {
    let mut report = Report {
        schema: "vnx.verify/1",
        status: Status::Verified,
        receipts: 0,
        bytes: 0,
        ledger: None,
        head: None,
        recoveries: 0,
        first_bad: None,
    };
    let unreadable = |report: &mut Report, e: &std::io::Error| {
        report.status = Status::Unreadable;
        report.first_bad = Some(fault(report, "unreadable", format!("cannot read {}: {e}", path.display())));
    };
    let refused = path.is_symlink().then(|| std::io::Error::other("it is a symbolic link"));
    let file = match refused.map_or_else(|| files::open_regular(path), Err) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            report.status = Status::NoLedger;
            report.first_bad = Some(fault(&report, "missing", format!("there is no ledger at {}", path.display())));
            return report;
        }
        Err(e) => {
            unreadable(&mut report, &e);
            return report;
        }
    };
    // Reads, not mmap: a file that shrinks under a map raises SIGBUS.
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line that never ends must not fill the memory.
        match reader.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => {
                unreadable(&mut report, &e);
                return report;
            }
        }
        if line.pop_if(|b| *b == b'\n').is_none() {
            if line.len() > MAX_LINE {
                report.status = Status::Broken;
                report.first_bad = Some(fault(&report, "format", "the line is longer than the format allows".into()));
            } else {
                report.status = Status::TornTail;
                report.first_bad =
                    Some(fault(&report, "torn", format!("the last {} bytes are an incomplete line", line.len())));
            }
            return report;
        }
        if let Err(bad) = check(&mut report, &line, project) {
            report.status = Status::Broken;
            report.first_bad = Some(bad);
            return report;
        }
    }
    if report.receipts == 0 {
        report.status = Status::NoLedger;
        report.first_bad =
            Some(fault(&report, "missing", "the ledger is empty; a ledger has at least its first receipt".into()));
    }
    report
}

fn fault(report: &Report, kind: &'static str, reason: String) -> Fault {
    Fault { line: report.receipts + 1, offset: report.bytes, kind, reason, expected: None, found: None }
}

fn check(report: &mut Report, line: &[u8], project: Option<&Name>) -> Result<(), Fault> {
    let differs = |kind, reason: &str, expected: String, found: String| Fault {
        expected: Some(expected),
        found: Some(found),
        ..fault(report, kind, reason.to_owned())
    };
    let links = format::links(line).map_err(|reason| fault(report, "format", reason))?;
    if links.hash != links.computed {
        return Err(differs(
            "edited",
            "the receipt was edited: its hash does not fit its bytes",
            links.computed.to_string(),
            links.hash.to_string(),
        ));
    }
    let prev = report.head.unwrap_or(Digest::ZERO);
    if links.prev != prev {
        let reason =
            "the receipt does not follow the one before it: something was removed, inserted, moved or rewritten";
        return Err(differs("unlinked", reason, prev.to_string(), links.prev.to_string()));
    }
    if links.seq != report.receipts {
        return Err(differs(
            "sequence",
            "the sequence number is wrong",
            report.receipts.to_string(),
            links.seq.to_string(),
        ));
    }
    let receipt = format::parse(line).map_err(|reason| fault(report, "format", reason))?;
    match &receipt.body {
        Body::LedgerCreated(created) if links.seq == 0 => {
            if let Some(project) = project.filter(|p| **p != created.project) {
                return Err(differs(
                    "project",
                    "the ledger belongs to another project",
                    project.to_string(),
                    created.project.to_string(),
                ));
            }
            report.ledger = Some(created.ledger.clone());
        }
        body if (body.kind() == Kind::LedgerCreated) != (links.seq == 0) => {
            return Err(fault(report, "format", "the first receipt, and no other, must be ledger.created".into()));
        }
        Body::LedgerRecovered(_) => report.recoveries += 1,
        _ => {}
    }
    report.head = Some(links.hash);
    report.receipts += 1;
    report.bytes += line.len() as u64 + 1;
    Ok(())
}
