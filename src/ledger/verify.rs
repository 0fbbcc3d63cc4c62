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

use super::chunk::{Chunk, End, Part, Source};
use super::format;
use super::opened::Files;
pub use super::report::{Fault, Flaw, Options, Position, Report, Since, Status};
use super::segment;
use super::{Head, append, import};
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{AnchorWritten, Body, Kind, LedgerImported};
use crate::domain::{Digest, DispatchId};

/// How often a ledger that somebody writes is read again before it is called bad.
const PATIENCE: u32 = 2;

/// Verifies the ledger at `path`: a folder with its segments, or one file.
pub fn verify(path: &Path, options: &Options<'_>) -> Report {
    let mut tries = 0;
    loop {
        let report = Report::new(options);
        let files = match Files::open(path) {
            Ok(Some(files)) => files,
            Ok(None) => {
                let reason = format!("there is no ledger at {}", path.display());
                return failed(report, Status::Undecided, Flaw::Missing, reason);
            }
            Err(e) => {
                let reason = format!("cannot read {}: {e}", path.display());
                return failed(report, Status::Unreadable, Flaw::Unreadable, reason);
            }
        };
        let report = files.verify(path, report, options);
        // A writer that cuts off a torn tail and goes on leaves a line of halves to who reads at that moment.
        if report.first_bad.is_none() || tries == PATIENCE || !files.have_changed() {
            return report;
        }
        tries += 1;
    }
}

/// Verifies a segment that was read already, as what follows the receipt before `seq`.
pub(super) fn verify_bytes(bytes: &[u8], seq: u64, prev: Digest, options: &Options<'_>) -> Report {
    let mut report = Report::new(options);
    (report.receipts, report.head) = (seq, (seq > 0).then_some(prev));
    report.tree = Some(CompactRange::empty(seq));
    let options = Options { roots: Some(&[]), ..*options };
    let part = Part { segment: 0, name: None, reader: Box::new(bytes), whole: true };
    run(Source::new([part]), report, &options, bytes.len() as u64, true).0
}

fn incomplete(bytes: usize) -> String {
    format!("the last {bytes} bytes are an incomplete line")
}

fn failed(mut report: Report, status: Status, kind: Flaw, reason: String) -> Report {
    report.fail(status, kind, reason);
    report
}

impl Files {
    fn verify(&self, path: &Path, mut report: Report, options: &Options<'_>) -> Report {
        let (number, offset) = options.since.map_or((0, 0), |s| (s.segment, s.offset));
        let Some(sealed) = options.since.map_or(Some(false), |since| self.ends_at(since)) else {
            let why = "the receipt that the anchor ends with does not stand where it stood";
            report.fail(Status::AnchorMismatch, Flaw::Rewritten, why);
            return report;
        };
        if let Some(since) = options.since {
            report.position = self.within(since);
        }
        let parts = match self.parts(number, offset) {
            Ok(parts) => parts,
            Err(e) => return failed(report, Status::Unreadable, Flaw::Unreadable, e.to_string()),
        };
        let (mut report, doubt, imports) = run(Source::new(parts), report, options, self.len(), sealed);
        if let Some(seq) = doubt {
            self.settle(&mut report, seq);
        }
        if let Some(rest) = self.torn(&report) {
            let lost =
                rest.contains(&0).then(|| "the last bytes were never written: a crash lost sectors of them".to_owned());
            let reason = lost.unwrap_or_else(|| incomplete(rest.len()));
            report.fail(Status::TornTail, Flaw::Torn, reason);
        }
        if report.receipts == 0 && report.first_bad.is_none() {
            let reason = "the ledger is empty; a ledger has at least its first receipt";
            report.fail(Status::Undecided, Flaw::Missing, reason);
        }
        if report.first_bad.is_none() && path.is_dir() {
            self.ends_open(path, &mut report);
        }
        // A file that was copied alone has no imported ones beside it.
        if matches!(report.status, Status::Verified | Status::TornTail) && path.is_dir() {
            check_imports(path, &mut report, imports);
        }
        report
    }

    /// A ledger ends with an open segment that has a line: nothing else shows that its last receipts are there.
    fn ends_open(&self, folder: &Path, report: &mut Report) {
        let Some((last, _, len)) = self.0.last() else { return };
        if last.name().is_none() && (*len > 0 || self.0.len() == 1) {
            return;
        }
        if last.name().is_some() && folder.join(segment::NEXT).exists() {
            let reason = "a new segment was begun and not finished; the next writer does it";
            report.fail(Status::TornTail, Flaw::Torn, reason);
            return;
        }
        let what = if last.name().is_some() { "is not there" } else { "is empty" };
        let reason = format!("the open segment {what}: {}", folder.join(segment::OPEN).display());
        report.fail(Status::Broken, Flaw::Missing, reason);
    }

    /// The rest of the ledger if the first fault is a line that a crash tore: as the writer sees it, who repairs it.
    fn torn(&self, report: &Report) -> Option<Vec<u8>> {
        let (last, file, len) = self.0.last()?;
        let head = Head { seq: report.receipts.saturating_sub(1), hash: report.head?, end: report.position.offset };
        let may_be = matches!(report.first_bad.as_ref()?.kind, Flaw::Format | Flaw::Edited);
        let is_open = last.number == report.position.segment && !last.packed;
        (may_be && is_open).then(|| append::torn(file, *len, head, &last.path)).flatten()
    }

    /// Whether receipts are missing or only elsewhere shows in the rest of the ledger.
    fn settle(&self, report: &mut Report, seq: u64) {
        let needle = format!("\",\"seq\":{seq},\"ts\":\"");
        let Ok(parts) = self.parts(report.position.segment, report.position.offset) else { return };
        let Some(bad) = &mut report.first_bad else { return };
        let (mut source, mut chunk) = (Source::new(parts), Chunk::default());
        while matches!(source.next(&mut chunk), Ok(true)) {
            if memchr::memmem::find(&chunk.bytes, needle.as_bytes()).is_some() {
                bad.kind = Flaw::Reordered;
                bad.reason = format!("receipt {seq} should stand here; it stands further down");
                return;
            }
        }
    }
}

/// Checks all chunks of a source and joins what they come to; `sealed`: what stands before them ends a segment.
fn run(
    source: Source<'_>,
    report: Report,
    options: &Options<'_>,
    bytes: u64,
    sealed: bool,
) -> (Report, Option<u64>, Vec<(u64, Position)>) {
    let joiner =
        Joiner { report, options, waiting: BTreeMap::new(), next: 0, doubt: None, sealed, imports: Vec::new() };
    let (source, joiner) = (Mutex::new(source), Mutex::new(joiner));
    let over = AtomicBool::new(false);
    let work = || {
        let mut chunk = Chunk::default();
        while !over.load(Ordering::Relaxed) {
            let next = source.lock().unwrap_or_else(PoisonError::into_inner).next(&mut chunk);
            let piece = match next {
                Ok(false) => break,
                Ok(true) => Piece::of(&chunk, options),
                Err(e) => Piece::unreadable(format!("cannot read on: {e}")),
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
        for _ in 0..if bytes > 1 << 20 { others } else { 0 } {
            crate::sys::beside(scope, work);
        }
        work();
    });
    let Joiner { report, doubt, imports, .. } = joiner.into_inner().unwrap_or_else(PoisonError::into_inner);
    (report, doubt, imports)
}

/// Holds the copies of older ledgers against the receipts that took them over, which stand at these
/// places.
fn check_imports(folder: &Path, report: &mut Report, places: Vec<(u64, Position)>) {
    let found = report.imported.iter().zip(places).find_map(|(imported, place)| {
        let path = import::place(folder, &imported.sha256);
        let name = path.display();
        let (status, kind, reason, found) = match import::digest_of(&path) {
            Ok((sha256, _)) if sha256 == imported.sha256 => return None,
            Ok((sha256, _)) => {
                (Status::Broken, Flaw::Edited, format!("{name} was edited since it was imported"), Some(sha256))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                (Status::Broken, Flaw::Deleted, format!("{name}, which was imported here, is gone"), None)
            }
            Err(e) => (Status::Unreadable, Flaw::Unreadable, format!("cannot read {name}: {e}"), None),
        };
        Some((place, status, kind, reason, imported.sha256, found))
    });
    let Some(((line, place), status, kind, reason, expected, found)) = found else { return };
    let bad = report.fail(status, kind, reason);
    bad.stands_at(line, place);
    if let Some(found) = found {
        bad.differs(&expected, &found);
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
    /// The imports that its lines tell of, with the line and the byte of the chunk.
    imports: Vec<(u64, u64, LedgerImported)>,
    /// The segment it belongs to, its name if that is sealed, and whether it begins it.
    segment: u32,
    name: Option<String>,
    begins: bool,
    /// Its last line seals its segment.
    sealed: bool,
    heads: Vec<(u64, Digest)>,
    seen: Vec<usize>,
    closing: Option<(usize, u64, Digest)>,
    lost: Vec<DispatchId>,
    last_loss: Option<u64>,
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
    fn unreadable(reason: String) -> Self {
        Self { fault: Some(PieceFault::new(Status::Unreadable, Flaw::Unreadable, reason)), ..Self::default() }
    }

    fn of(chunk: &Chunk, options: &Options<'_>) -> Self {
        let mut piece =
            Self { segment: chunk.segment, name: chunk.name.clone(), begins: chunk.begins, ..Self::default() };
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
            End::Clean => None,
            End::Cut(_) => Some(PieceFault::broken(Flaw::Format, "a sealed segment ends in the middle of a line")),
            End::Torn(bytes) => Some(PieceFault::new(Status::TornTail, Flaw::Torn, incomplete(bytes))),
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
        let first = self.begins && self.receipts == 0;
        if self.sealed {
            return Err(bad("a receipt follows the one that seals its segment".into()));
        }
        if !options.quick || first || links.is_structural() {
            match links.check().map_err(bad)? {
                Some(Body::LedgerCreated(created)) if links.seq == 0 => {
                    if let Some(project) = options.project.filter(|p| **p != created.project) {
                        let reason = "the ledger belongs to another project";
                        let fault = PieceFault::broken(Flaw::WrongProject, reason);
                        return Err(fault.differing(project, &created.project));
                    }
                    self.ledger = Some(created.ledger);
                }
                _ if links.says(Kind::LedgerCreated) != (links.seq == 0) => {
                    return Err(bad("the first receipt, and no other, must be ledger.created".into()));
                }
                Some(Body::LedgerOpened(opened)) if first && [0, opened.segment].contains(&self.segment) => {}
                body if first != matches!(body, Some(Body::LedgerOpened(_) | Body::LedgerCreated(_))) => {
                    return Err(bad("a segment begins with ledger.created or ledger.opened, in its order".into()));
                }
                Some(Body::LedgerOpened(_)) => return Err(bad("the segment has another number than its place".into())),
                Some(Body::LedgerSealed(_)) => self.sealed = true,
                Some(Body::LedgerRecovered(_)) => self.recoveries += 1,
                Some(Body::LedgerLost(lost)) => {
                    self.lost.extend(lost.dispatches);
                    self.last_loss = Some(links.seq);
                }
                Some(Body::AnchorWritten(anchor)) => self.last_anchor = Some((links.seq, anchor)),
                Some(Body::LedgerImported(imported)) => self.imports.push((self.receipts, self.bytes, imported)),
                _ => {}
            }
        }
        if options.heads.contains(&(links.seq + 1)) {
            self.heads.push((links.seq + 1, hash));
        }
        if !options.expected.is_empty() {
            let seen = expected(&links, options.expected);
            self.seen.extend(seen);
            let closes = seen.filter(|at| options.expected[*at].1 == Kind::DispatchClosed);
            self.closing = closes.map(|at| (at, links.seq, hash)).or(self.closing);
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

/// Which of the expected receipts this is.
fn expected(links: &format::Links<'_>, expected: &[(DispatchId, Kind)]) -> Option<usize> {
    if !links.says(Kind::DispatchClosed) && !links.says(Kind::DispatchPrepared) {
        return None;
    }
    let subject = links.subject().ok()?;
    let at = expected.binary_search_by(|(id, _)| id.as_str().cmp(subject.dispatch.unwrap_or_default())).ok()?;
    (expected[at].1 == subject.kind).then_some(at)
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
    /// The last line so far seals its segment.
    sealed: bool,
    /// Where the receipts of imports stand.
    imports: Vec<(u64, Position)>,
}

impl Joiner<'_> {
    /// Takes a piece; `false` when nothing after it matters.
    fn take(&mut self, index: u64, piece: Piece) -> bool {
        // Of another thread, which had it in its hands when the first fault was found.
        if self.report.first_bad.is_some() {
            return false;
        }
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
        if piece.begins {
            report.enter(piece.segment, piece.name.as_deref());
        }
        if let Some((prev, seq)) = piece.first {
            follows(&report.head.unwrap_or(Digest::ZERO).hex(), report.receipts, &prev, seq)?;
            // A chain that goes on must do so in the next file, and only after a seal.
            if report.receipts > 0 && self.sealed != piece.begins {
                let reason = "segments end with ledger.sealed, and nothing follows that in the same file";
                return Err(PieceFault::broken(Flaw::Format, reason));
            }
            self.sealed = piece.sealed;
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
        for (receipts, bytes, imported) in piece.imports {
            let Position { segment, name, offset, before } = report.position.clone();
            let line = report.receipts - before + receipts + 1;
            self.imports.push((line, Position { segment, name, offset: offset + bytes, before }));
            report.imported.push(imported);
        }
        report.receipts += piece.receipts;
        report.bytes += piece.bytes;
        report.position.offset += piece.bytes;
        report.recoveries += piece.recoveries;
        report.heads.extend(piece.heads);
        report.seen.extend(piece.seen);
        report.closing = piece.closing.or(report.closing);
        report.lost.extend(piece.lost);
        report.last_loss = piece.last_loss.or(report.last_loss);
        report.head = piece.last.map(|(hash, _)| hash).or(report.head);
        report.ledger = report.ledger.take().or(piece.ledger);
        report.last_anchor = piece.last_anchor.or(report.last_anchor.take());
        if let Some(progress) = self.options.progress {
            progress(report.bytes);
        }
        piece.fault.map_or(Ok(()), Err)
    }
}
