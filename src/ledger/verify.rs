//! `verify`: reads every byte, trusts none.
//!
//! For each line: its format, its own hash, its link to the line before, its sequence number,
//! and a strict parse of the payload. The first fault ends it: what stands after a broken
//! receipt proves nothing. Every line proves itself and each link is between two neighbours, so
//! the lines are checked by several threads and the pieces are joined in order.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::append::TAIL;
use super::chunk::{Chunk, End, Source};
use super::format::{self, MAX_LINE};
pub use super::report::{Fault, Flaw, Options, Report, Since, Status};
use crate::domain::Digest;
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{AnchorWritten, Body, Kind};
use crate::sys::files;

/// Verifies the file at `path`.
pub fn verify(path: &Path, options: &Options<'_>) -> Report {
    let mut report = Report::new(options);
    if options.since.is_some_and(|since| !stands_at(path, since)) {
        let why = "the receipt that the anchor ends with does not stand where it stood";
        report.fail(Status::AnchorMismatch, Flaw::Rewritten, why);
        return report;
    }
    let source = match open(path).and_then(|file| Source::new(file, report.bytes)) {
        Ok(source) => source,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let reason = format!("there is no ledger at {}", path.display());
            report.fail(Status::Undecided, Flaw::Missing, reason);
            return report;
        }
        Err(e) => {
            report.fail(Status::Unreadable, Flaw::Unreadable, format!("cannot read {}: {e}", path.display()));
            return report;
        }
    };
    let joiner = Joiner { report, options, waiting: BTreeMap::new(), next: 0, doubt: None };
    let (source, joiner) = (Mutex::new(source), Mutex::new(joiner));
    let over = AtomicBool::new(false);
    let work = || {
        let mut chunk = Chunk::default();
        while !over.load(Ordering::Relaxed) {
            let next = source.lock().unwrap_or_else(PoisonError::into_inner).next(&mut chunk);
            let piece = match next {
                Ok(false) => break,
                Ok(true) => Piece::of(&chunk, options),
                Err(e) => Piece::unreadable(&chunk, format!("cannot read {}: {e}", path.display())),
            };
            let mut joiner = joiner.lock().unwrap_or_else(PoisonError::into_inner);
            if !joiner.take(chunk.index, piece) {
                over.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let others = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        // A short ledger is read before a second thread would have begun.
        let large = std::fs::metadata(path).is_ok_and(|m| m.len() > 1 << 20);
        for _ in 0..if large { others } else { 0 } {
            scope.spawn(work);
        }
        work();
    });
    let Joiner { mut report, doubt, .. } = joiner.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(seq) = doubt {
        settle(path, &mut report, seq);
    }
    if is_torn(path, &report) {
        let reason = "the last bytes were never written: a crash lost sectors of them";
        report.fail(Status::TornTail, Flaw::Torn, reason);
    }
    if report.receipts == 0 && report.first_bad.is_none() {
        let reason = "the ledger is empty; a ledger has at least its first receipt";
        report.fail(Status::Undecided, Flaw::Missing, reason);
    }
    report
}

/// Whether the line before `since.offset` is the last one that is proven.
fn stands_at(path: &Path, since: &Since) -> bool {
    use std::os::unix::fs::FileExt;
    let start = since.offset.saturating_sub(MAX_LINE as u64 + 2);
    let mut before = vec![0; usize::try_from(since.offset - start).unwrap_or(0)];
    let read = open(path).and_then(|file| file.read_exact_at(&mut before, start));
    let line = before.strip_suffix(b"\n").map(|b| &b[memchr::memrchr(b'\n', b).map_or(0, |at| at + 1)..]);
    let links = line.and_then(|line| format::links(line).ok());
    read.is_ok() && links.is_some_and(|l| l.seq + 1 == since.tree.end() && l.sound_hash() == Ok(since.head))
}

/// A regular file and no link, for the verifier as for everybody else.
fn open(path: &Path) -> io::Result<std::fs::File> {
    if path.is_symlink() {
        return Err(io::Error::other("it is a symbolic link"));
    }
    files::open_regular(path)
}

/// Whether the first fault is a line that a crash tore: as the writer sees it, who repairs it.
fn is_torn(path: &Path, report: &Report) -> bool {
    use std::os::unix::fs::FileExt;
    if !report.first_bad.as_ref().is_some_and(|bad| matches!(bad.kind, Flaw::Format | Flaw::Edited)) {
        return false;
    }
    let read = || -> io::Result<Vec<u8>> {
        let file = open(path)?;
        let rest = file.metadata()?.len().saturating_sub(report.bytes).min(TAIL);
        let mut bytes = vec![0; usize::try_from(rest).unwrap_or(0)];
        file.read_exact_at(&mut bytes, report.bytes)?;
        Ok(bytes)
    };
    read().is_ok_and(|bytes| (bytes.len() as u64) < TAIL && format::written(&bytes, report.bytes) == 0)
}

/// Whether receipts are missing or only elsewhere shows in the rest of the file.
fn settle(path: &Path, report: &mut Report, seq: u64) {
    let needle = format!("\",\"seq\":{seq},\"ts\":\"");
    let Some(bad) = &mut report.first_bad else { return };
    let Ok(mut source) = open(path).and_then(|file| Source::new(file, bad.offset)) else { return };
    let mut chunk = Chunk::default();
    while matches!(source.next(&mut chunk), Ok(true)) {
        if memchr::memmem::find(&chunk.bytes, needle.as_bytes()).is_some() {
            bad.kind = Flaw::Reordered;
            bad.reason = format!("receipt {seq} should stand here; it stands further down");
            return;
        }
    }
}

/// What one chunk came to.
#[derive(Debug, Default)]
struct Piece {
    /// `prev` and `seq` of its first line: the joiner holds them against the chunk before.
    first: Option<(Vec<u8>, u64)>,
    /// The hash of its last sound line, also as it stands there.
    last: Option<(Digest, [u8; 64])>,
    receipts: u64,
    bytes: u64,
    recoveries: u64,
    ledger: Option<String>,
    last_anchor: Option<(u64, AnchorWritten)>,
    /// The tree over its lines, cut at the sizes whose roots are wanted.
    ranges: Vec<CompactRange>,
    /// A fault after the sound lines.
    fault: Option<PieceFault>,
}

#[derive(Debug)]
struct PieceFault {
    status: Status,
    kind: Flaw,
    reason: String,
    differs: Option<(String, String)>,
    /// The sequence number that is missing, if receipts may be elsewhere.
    doubt: Option<u64>,
}

impl PieceFault {
    fn new(status: Status, kind: Flaw, reason: impl Into<String>) -> Self {
        Self { status, kind, reason: reason.into(), differs: None, doubt: None }
    }
    fn broken(kind: Flaw, reason: impl Into<String>) -> Self {
        Self::new(Status::Broken, kind, reason)
    }
    fn differing(mut self, expected: &dyn Display, found: &dyn Display) -> Self {
        self.differs = Some((expected.to_string(), found.to_string()));
        self
    }
}

impl Piece {
    fn unreadable(chunk: &Chunk, reason: String) -> Self {
        let fault = Some(PieceFault::new(Status::Unreadable, Flaw::Unreadable, reason));
        Self { bytes: chunk.bytes.len() as u64, fault, ..Self::default() }
    }

    fn of(chunk: &Chunk, options: &Options<'_>) -> Self {
        let mut piece = Self::default();
        let mut begin = 0;
        for feed in memchr::memchr_iter(b'\n', &chunk.bytes) {
            if let Err(fault) = piece.line(&chunk.bytes[begin..feed], options) {
                piece.fault = Some(fault);
                return piece;
            }
            begin = feed + 1;
            piece.bytes = begin as u64;
        }
        piece.fault = match chunk.end {
            End::More | End::Clean => None,
            End::Torn(bytes) => Some(PieceFault::new(
                Status::TornTail,
                Flaw::Torn,
                format!("the last {bytes} bytes are an incomplete line"),
            )),
            End::Endless => Some(PieceFault::broken(Flaw::Format, "the line is longer than the format allows")),
        };
        piece
    }

    fn line(&mut self, line: &[u8], options: &Options<'_>) -> Result<(), PieceFault> {
        let bad = |reason| PieceFault::broken(Flaw::Format, reason);
        let links = format::links(line).map_err(bad)?;
        let hash = links.sound_hash().map_err(|(computed, found)| {
            let reason = "the receipt was edited: its hash does not fit its bytes";
            PieceFault::broken(Flaw::Edited, reason).differing(&computed, &found)
        })?;
        match (&self.first, &self.last) {
            (Some((_, first)), Some((_, last))) => follows(last, first + self.receipts, links.prev, links.seq)?,
            _ => self.first = Some((links.prev.to_vec(), links.seq)),
        }
        if !options.quick || links.seq == 0 || links.says(Kind::AnchorWritten) {
            let (_, _, entry) = links.entry().map_err(bad)?;
            match entry.body {
                Body::LedgerCreated(created) if links.seq == 0 => {
                    if let Some(project) = options.project.filter(|p| **p != created.project) {
                        let reason = "the ledger belongs to another project";
                        let fault = PieceFault::broken(Flaw::WrongProject, reason);
                        return Err(fault.differing(project, &created.project));
                    }
                    self.ledger = Some(created.ledger);
                }
                body if (body.kind() == Kind::LedgerCreated) != (links.seq == 0) => {
                    return Err(bad("the first receipt, and no other, must be ledger.created".into()));
                }
                Body::LedgerRecovered(_) => self.recoveries += 1,
                Body::AnchorWritten(anchor) => self.last_anchor = Some((links.seq, anchor)),
                _ => {}
            }
        }
        if let Some(sizes) = options.roots {
            match self.ranges.last_mut() {
                Some(range) if sizes.binary_search(&range.end()).is_err() => range.push(hash),
                _ => {
                    let mut range = CompactRange::empty(links.seq);
                    range.push(hash);
                    self.ranges.push(range);
                }
            }
        }
        self.last = links.hash.try_into().ok().map(|hex| (hash, hex));
        self.receipts += 1;
        Ok(())
    }
}

/// Holds a line's links against what came before it.
fn follows(head: &[u8; 64], expected: u64, prev: &[u8], seq: u64) -> Result<(), PieceFault> {
    if seq != expected {
        let (kind, reason) = if seq > expected {
            (Flaw::Deleted, format!("receipts {expected} to {} are gone", seq - 1))
        } else {
            (Flaw::Inserted, format!("receipt {seq} stood before already: a line was inserted here or above"))
        };
        let mut fault = PieceFault::broken(kind, reason).differing(&expected, &seq);
        fault.doubt = (kind == Flaw::Deleted).then_some(expected);
        return Err(fault);
    }
    if head != prev {
        let reason = "the receipt does not follow the one before it: one of them was rewritten or comes from elsewhere";
        return Err(PieceFault::broken(Flaw::Forked, reason)
            .differing(&String::from_utf8_lossy(head), &String::from_utf8_lossy(prev)));
    }
    Ok(())
}

/// Puts the pieces together in their order.
struct Joiner<'a> {
    report: Report,
    options: &'a Options<'a>,
    /// Pieces that came before their turn: at most one of each thread.
    waiting: BTreeMap<u64, Piece>,
    next: u64,
    doubt: Option<u64>,
}

impl Joiner<'_> {
    /// Takes a piece; `false` when nothing after it matters.
    fn take(&mut self, index: u64, piece: Piece) -> bool {
        self.waiting.insert(index, piece);
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.next += 1;
            if let Err(fault) = self.join(piece) {
                let PieceFault { status, kind, reason, differs, doubt } = fault;
                self.doubt = doubt;
                let bad = self.report.fail(status, kind, reason);
                if let Some((expected, found)) = differs {
                    bad.differs(&expected, &found);
                }
                return false;
            }
        }
        true
    }

    fn join(&mut self, piece: Piece) -> Result<(), PieceFault> {
        let report = &mut self.report;
        if let Some((prev, seq)) = piece.first {
            follows(&report.head.unwrap_or(Digest::ZERO).hex(), report.receipts, &prev, seq)?;
        }
        if let Some(tree) = &mut report.tree {
            for range in &piece.ranges {
                if !tree.join(range) {
                    return Err(PieceFault::broken(Flaw::Format, "the tree has a gap"));
                }
                if self.options.roots.is_some_and(|sizes| sizes.binary_search(&tree.end()).is_ok()) {
                    report.roots.insert(tree.end(), tree.root());
                }
            }
        }
        report.receipts += piece.receipts;
        report.bytes += piece.bytes;
        report.recoveries += piece.recoveries;
        report.head = piece.last.map(|(hash, _)| hash).or(report.head);
        report.ledger = report.ledger.take().or(piece.ledger);
        report.last_anchor = piece.last_anchor.or(report.last_anchor.take());
        if let Some(progress) = self.options.progress {
            progress(report.bytes);
        }
        piece.fault.map_or(Ok(()), Err)
    }
}
