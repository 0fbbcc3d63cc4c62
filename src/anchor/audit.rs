//! The whole verification: the chain by itself, then against its anchors and the witness.

use std::path::Path;

use serde::Serialize;

use super::{ANCHORS, Anchor, AnchorError, allowed_signers, read, repository, resume, witness};
use crate::domain::checkpoint::Checkpoint;
use crate::git::Git;
use crate::ledger::verify::{self, Flaw, Report, Since, Status};
use crate::project::Project;

const UNSIGNED: &str = "the last anchor is not signed by anybody in .vnx/allowed_signers";

/// What to hold the ledger against.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The full name of the ref with the anchors.
    pub reference: &'a str,
    /// Do not parse payloads.
    pub quick: bool,
    /// Nothing may lie after the last anchor, and there must be one.
    pub require: bool,
    /// Go on from the last anchor, which must be signed by somebody who is trusted.
    pub since: bool,
    /// An anchor that nobody trusted has signed is as good: for whoever is about to sign one.
    pub unsigned: bool,
    /// Hears how many bytes are done.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { reference: ANCHORS, quick: false, require: false, since: false, unsigned: false, progress: None }
    }
}

/// What the ledger was held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchored {
    /// The ref.
    pub reference: String,
    /// How many anchors.
    pub count: u64,
    /// How many receipts the last one covers.
    pub size: u64,
    /// Its commit.
    pub commit: Option<String>,
    /// Who signed it, of those who are trusted to.
    pub signer: Option<String>,
    /// How many receipts the witness has seen.
    pub witness: Option<u64>,
    /// Receipts that no anchor covers, without the one that tells of the last anchor.
    pub unanchored: u64,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The chain, and what came of everything together.
    #[serde(flatten)]
    pub report: Report,
    /// The anchors.
    pub anchors: Anchored,
}

/// Verifies the ledger of a project against everything that is known of it.
pub fn audit(project: &Project, options: &Options<'_>) -> Audit {
    let repository = repository(project);
    let mut anchors = Anchored {
        reference: options.reference.to_owned(),
        count: 0,
        size: 0,
        commit: None,
        signer: None,
        witness: None,
        unanchored: 0,
    };
    let list = read(&repository, options.reference);
    let newest = list.as_ref().ok().and_then(|l| l.first());
    let signers = allowed_signers(project);
    let signed = match (newest, &signers) {
        (Some(anchor), Some(signers)) => repository.signer(&anchor.commit, signers).map_err(AnchorError::from),
        _ => Ok(None),
    };
    if let Some(anchor) = newest {
        anchors.count = list.as_ref().map_or(0, |l| l.len() as u64);
        anchors.size = anchor.checkpoint.size;
        anchors.commit = Some(anchor.commit.clone());
        anchors.signer = signed.as_ref().ok().cloned().flatten();
    }
    let since = if options.since { start(&repository, newest, anchors.signer.as_deref()).map(Some) } else { Ok(None) };
    let origin = project.ledger().created().map(|c| Checkpoint::origin_of(&c.ledger));
    let seen = origin.as_ref().map_or(Ok(None), |origin| witness::read(origin));
    anchors.witness = seen.as_ref().ok().and_then(|s| s.as_ref().map(|c| c.size));

    let known = list.as_ref().map_or(&[][..], Vec::as_slice).iter().map(|a| &a.checkpoint);
    let known: Vec<&Checkpoint> = known.chain(seen.as_ref().ok().into_iter().flatten()).collect();
    let sizes = sizes_of(&known);
    let mut report = verify::verify(
        project.ledger().folder(),
        &verify::Options {
            project: Some(project.id()),
            quick: options.quick,
            roots: Some(&sizes),
            since: since.as_ref().ok().and_then(Option::as_ref),
            progress: options.progress,
        },
    );
    let covered = u64::from(
        report
            .last_anchor
            .as_ref()
            .is_some_and(|(seq, a)| *seq + 1 == report.receipts && Some(&a.commit) == anchors.commit.as_ref()),
    );
    anchors.unanchored = report.receipts.saturating_sub(anchors.size).saturating_sub(covered);
    // A chain that is broken in itself needs no further reason.
    if matches!(report.status, Status::Broken | Status::Unreadable) {
        return Audit { report, anchors };
    }
    let bad = |report: &mut Report, why: String| {
        report.fail(Status::AnchorMismatch, Flaw::BadAnchor, why);
    };
    match (&list, &signed, &since, &seen) {
        (Err(e), ..) | (_, Err(e), ..) => bad(&mut report, e.to_string()),
        (_, _, Err(why), _) => {
            report.fail(Status::Undecided, Flaw::Unanchored, why.as_str());
        }
        (.., Err(why)) => bad(&mut report, why.clone()),
        (Ok(list), ..) => {
            let from = since.as_ref().ok().and_then(Option::as_ref).map_or(0, |s| s.tree.end());
            compare(&mut report, &known, from);
            if report.status != Status::AnchorMismatch {
                missing(&mut report, list, options);
            }
        }
    }
    if report.status == Status::Verified {
        let unsigned = newest.is_some() && signers.is_some() && anchors.signer.is_none() && !options.unsigned;
        let why = match (anchors.count, anchors.unanchored) {
            _ if unsigned => UNSIGNED.to_owned(),
            (0, _) if options.require => format!("there is no anchor at {}", options.reference),
            (_, n) if options.require && n > 0 => {
                format!("{n} receipts lie after the last anchor, which covers {}", anchors.size)
            }
            _ => return Audit { report, anchors },
        };
        report.fail(Status::Undecided, Flaw::Unanchored, why);
    }
    Audit { report, anchors }
}

/// Verifies a file by itself and against checkpoints that were kept elsewhere.
pub fn audit_file(file: &Path, checkpoints: &[Checkpoint], options: &Options<'_>) -> Report {
    let known: Vec<&Checkpoint> = checkpoints.iter().collect();
    let sizes = sizes_of(&known);
    let roots = Some(&sizes[..]).filter(|s| !s.is_empty());
    let (quick, progress, require) = (options.quick, options.progress, options.require);
    let options = verify::Options { quick, roots, progress, ..verify::Options::default() };
    let mut report = verify::verify(file, &options);
    if !matches!(report.status, Status::Broken | Status::Unreadable) {
        compare(&mut report, &known, 0);
    }
    if require && report.status == Status::Verified {
        let size = sizes.last().copied().unwrap_or(0);
        let told = report.last_anchor.as_ref().is_some_and(|(seq, a)| seq + 1 == report.receipts && a.size == size);
        let after = report.receipts - size - u64::from(told);
        if size == 0 || after > 0 {
            let why = format!("{after} receipts lie after what the checkpoints cover, which is {size}");
            report.fail(Status::Undecided, Flaw::Unanchored, why);
        }
    }
    report
}

fn sizes_of(known: &[&Checkpoint]) -> Vec<u64> {
    let mut sizes: Vec<u64> = known.iter().map(|c| c.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Where to go on from.
fn start(repository: &Git, newest: Option<&Anchor>, signer: Option<&str>) -> Result<Since, String> {
    let anchor = newest.ok_or("there is no anchor to go on from")?;
    if signer.is_none() {
        return Err(
            "the last anchor is not signed by anybody in .vnx/allowed_signers, so nothing is built on it".into()
        );
    }
    let found = resume(repository, anchor).map_err(|e| e.to_string())?;
    let (tree, resume) = found
        .and_then(|r| Some((r.tree(&anchor.checkpoint)?, r)))
        .ok_or("the last anchor does not say how to go on from it")?;
    let ledger = anchor.checkpoint.origin.trim_start_matches("vnx/").to_owned();
    Ok(Since { tree, head: resume.head, segment: resume.segment, offset: resume.offset, ledger })
}

/// Every checkpoint must have been true of this ledger. Those up to `from` are proven already.
fn compare(report: &mut Report, known: &[&Checkpoint], from: u64) {
    let mut known = known.to_vec();
    known.sort_by_key(|c| c.size);
    let own = report.ledger.as_ref().map(|id| Checkpoint::origin_of(id));
    for checkpoint in known.into_iter().filter(|c| c.size > from || from == 0) {
        let Checkpoint { origin, size, root } = checkpoint;
        if own.as_ref().is_some_and(|own| own != origin) {
            let why = "the anchors are of another ledger: this one took its place";
            report.fail(Status::AnchorMismatch, Flaw::Rewritten, why).differs(origin, &own.unwrap_or_default());
            return;
        }
        match report.roots.get(size).copied() {
            Some(found) if found == *root => {}
            Some(found) => {
                let why = format!("the first {size} receipts are not those that were anchored");
                report.fail(Status::AnchorMismatch, Flaw::Rewritten, why).differs(root, &found);
                return;
            }
            None => {
                let there = report.receipts;
                let why = format!("{size} receipts were anchored, and {there} are here");
                report.fail(Status::AnchorMismatch, Flaw::Truncated, why).differs(size, &there);
                return;
            }
        }
    }
}

/// An anchor that the ledger tells of must stand in this clone's own ref.
fn missing(report: &mut Report, list: &[Anchor], options: &Options<'_>) {
    let Some((_, told)) = report.last_anchor.clone().filter(|_| options.reference == ANCHORS) else { return };
    if !list.iter().any(|a| a.commit == told.commit) {
        let why = format!(
            "the ledger tells of an anchor of {} receipts, which {ANCHORS} does not have; fetch it from where it was pushed",
            told.size
        );
        report.fail(Status::AnchorMismatch, Flaw::BadAnchor, why).differs(&told.commit, &"nothing");
    }
}
