//! The one writer.
//!
//! Lock, re-read and re-hash the tail, repair it if a crash tore it, leave out what was written
//! before, build the lines, one `write`, unlock, then wait for the disk where the kinds ask for
//! it. Unlocking before the sync is safe because the file only grows: a later writer's sync
//! covers all earlier bytes, and writers that wait at the same time share it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{self, Draft, MAX_LINE};
use super::known::{Differs, Marks};
use super::{Head, Ledger, LedgerError, PATIENCE, disk};
use crate::domain::receipt::{
    Body, Durability, Entry, Kind, LedgerCreated, LedgerIoError, LedgerLost, LedgerRecovered,
};
use crate::domain::{Digest, Name};
use crate::sys::files::{self, At};
use crate::sys::{self, lock};

/// Space that is given back when the disk is full, so that what must be said still fits.
const RESERVE: u64 = 1 << 20;

/// How much of the end is read to begin with; more only if no line is that short.
const TAIL: u64 = 64 << 10;

/// A receipt that was written, now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence number.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    /// Where its line begins in the file.
    pub offset: u64,
    /// It stood there already; nothing was written.
    pub repeated: bool,
}

/// The end of a ledger as its file shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) head: Head,
    /// Where the last line begins.
    pub(super) begin: u64,
    /// Something follows that is no whole line.
    pub(super) torn: bool,
    /// The last line seals its segment.
    pub(super) sealed: bool,
}

/// What a write came to.
struct Wrote {
    file: Arc<File>,
    head: Head,
    done: Vec<Appended>,
}

/// What a search for an earlier receipt came to.
enum Looked {
    /// It stands in this block, at this place of it; the block begins here in the file.
    At(Vec<u8>, usize, u64),
    /// The dispatch begins in this file, and the receipt is not there.
    Never,
    /// The dispatch does not begin in this file.
    NotHere,
}

impl Ledger {
    /// Creates the ledger with its first receipt; an existing one is left alone (`false`).
    pub fn create(&self, project: &Name) -> Result<bool, LedgerError> {
        files::private_folder(&self.folder)?;
        files::private_folder(&self.quarantine())?;
        let guard = lock::exclusive(&self.lock_file(), PATIENCE).map_err(LedgerError::Lock)?;
        if self.file().exists() || !self.sealed()?.is_empty() {
            return Ok(false);
        }
        if let Some(known) = self.marks().size() {
            return Err(LedgerError::Differs(Differs::Truncated { known, here: 0 }));
        }
        self.begin_new(project)?;
        drop(guard);
        self.fill_reserve();
        Ok(true)
    }

    /// Writes the first receipt of a ledger of which there is none. Only under the lock.
    fn begin_new(&self, project: &Name) -> Result<(), LedgerError> {
        let random: [u8; 16] = sys::random().map_err(LedgerError::Lock)?;
        let ledger = format!("{:032x}", u128::from_be_bytes(random));
        let body = LedgerCreated { ledger, project: project.clone(), vnx: env!("CARGO_PKG_VERSION").to_owned() };
        let entry = Entry::ledger(Body::LedgerCreated(body));
        let built = format::build(&entry, &Digest::ZERO, 0, sys::now(), &self.redactor);
        let (line, hash) = built.map_err(|reason| LedgerError::Unfit { reason })?;
        let head = Head { seq: 0, hash, end: line.len() as u64 + 1 };
        self.announce(0, &head)?;
        // The file appears with its first line or not at all.
        disk::publish(&self.file(), format!("{line}\n").as_bytes())
            .map_err(|source| LedgerError::NotWritten { source })?;
        self.confirmed(&head);
        Ok(())
    }

    /// Appends receipts in one write and returns when they are as durable as their kinds ask.
    ///
    /// A receipt that stands there already, with the same key and payload, is not written again.
    ///
    /// # Errors
    /// The same key with another payload is [`LedgerError::Conflict`]. A ledger that does not end as it is known to
    /// ([`LedgerError::Differs`]) is not written to. After any error nothing that this call was to write is
    /// acknowledged.
    pub fn append(&self, entries: &[Entry]) -> Result<Vec<Appended>, LedgerError> {
        // What was mended is told also by the second try.
        let (mut notes, marks) = (Vec::new(), self.marks());
        let wrote = match self.write(entries, &mut notes, Some(&marks)) {
            Err(LedgerError::NotWritten { source }) if is_full(&source) && self.free_reserve() => {
                self.write(entries, &mut notes, Some(&marks))?
            }
            other => other?,
        };
        if entries.iter().chain(&notes).any(|e| e.body.kind().durability() == Durability::Wait) {
            self.confirm(&wrote.file)?;
            self.confirmed(&wrote.head);
        }
        Ok(wrote.done)
    }

    /// Appends the receipt that says what is missing, and takes the ledger for whole from here on. One that is gone
    /// altogether begins anew.
    pub fn append_loss(&self, project: &Name, lost: LedgerLost) -> Result<(), LedgerError> {
        let guard = lock::exclusive(&self.lock_file(), PATIENCE).map_err(LedgerError::Lock)?;
        if !self.file().exists() && self.sealed()?.is_empty() {
            self.begin_new(project)?;
        }
        drop(guard);
        let wrote = self.write(&[Entry::ledger(Body::LedgerLost(lost))], &mut Vec::new(), None)?;
        self.confirm(&wrote.file)?;
        self.forget()?;
        self.confirmed(&wrote.head);
        Ok(())
    }

    /// Mends what a crash or a failed sync has left behind, with the receipt of it.
    pub fn settle(&self) -> Result<(), LedgerError> {
        let wrote = self.write(&[], &mut Vec::new(), Some(&self.marks()))?;
        self.confirm(&wrote.file)?;
        self.confirmed(&wrote.head);
        Ok(())
    }

    /// Waits until everything that is in the file now is on the disk.
    pub fn sync(&self) -> Result<(), LedgerError> {
        self.confirm(&self.open()?)
    }

    /// A failed sync is not tried again: the kernel forgets the pages that it could not write,
    /// and the second try would succeed without them. The mark makes the next writer copy the file.
    pub(super) fn confirm(&self, file: &File) -> Result<(), LedgerError> {
        disk::sync(file).map_err(|source| {
            let _ = files::replace(&self.poisoned(), source.to_string().as_bytes());
            LedgerError::NotSynced { source }
        })
    }

    /// `notes` are receipts of what was mended on the way, which come first; `marks` is what was known of the ledger
    /// before, unless somebody has accepted that it differs.
    fn write(&self, entries: &[Entry], notes: &mut Vec<Entry>, marks: Option<&Marks>) -> Result<Wrote, LedgerError> {
        let draft = |entry| Draft::of(entry, &self.redactor).map_err(|reason| LedgerError::Unfit { reason });
        // All that needs no lock comes before it.
        let mut drafts = entries.iter().map(|e| Ok((e, draft(e)?))).collect::<Result<Vec<_>, LedgerError>>()?;
        let mut writing = self.begin()?;
        if self.poisoned().exists() {
            notes.push(self.heal(&writing.file)?);
            drop(writing);
            writing = self.begin()?;
        }
        // What a crash may have left is looked for until this process has written itself; after that the end is what we
        // made it.
        let window = if self.looked.load(Ordering::Relaxed) { 4 << 10 } else { TAIL };
        let mut tail = tail_of(&writing.file, writing.len, window, &self.file())?;
        if let Some(marks) = marks {
            self.expect(marks, &writing.file, &tail.head)?;
        }
        if tail.torn {
            notes.push(self.repair(&writing.file, tail.head)?);
        } else if self.rotate(&mut writing, &tail)? {
            drop(writing);
            writing = self.begin()?;
            tail = tail_of(&writing.file, writing.len, window, &self.file())?;
        }
        let (mut head, start) = (tail.head, tail.head.end);
        let mut bytes = Vec::new();
        let mut done: Vec<(String, Appended)> = Vec::new();
        let own = notes.len();
        let first = notes.iter().map(|e| Ok((e, draft(e)?))).collect::<Result<Vec<_>, LedgerError>>()?;
        drafts.splice(0..0, first);
        for (n, (entry, draft)) in drafts.iter().enumerate() {
            let key = entry.key();
            if let Some(known) = self.known(&writing.file, entry, start, &bytes)? {
                done.push((key, known));
                continue;
            }
            let (line, hash) = draft.line(&head.hash, head.seq + 1, sys::now());
            let written = Appended { seq: head.seq + 1, hash, offset: start + bytes.len() as u64, repeated: false };
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            head = Head { seq: head.seq + 1, hash, end: start + bytes.len() as u64 };
            if n >= own {
                done.push((key, written));
            }
        }
        let file = &writing.file;
        if !bytes.is_empty() {
            self.announce(tail.head.seq + 1, &head)?;
        }
        // One write: a crash tears at most the end, and the next writer sees that it is torn.
        let result = if bytes.is_empty() { Ok(0) } else { disk::append(file, &bytes) };
        if !matches!(result, Ok(n) if n == bytes.len()) {
            let rolled_back = disk::truncate(file, start);
            let source = match (result, rolled_back) {
                (Err(e), _) | (Ok(_), Err(e)) => e,
                (Ok(_), Ok(())) => std::io::Error::new(std::io::ErrorKind::StorageFull, "short write"),
            };
            return Err(LedgerError::NotWritten { source });
        }
        self.looked.store(true, Ordering::Relaxed);
        Ok(Wrote { file: Arc::clone(file), head, done: done.into_iter().map(|(_, a)| a).collect() })
    }

    /// The receipt that was written before under the key of `entry`, in the file up to `end` or
    /// among the lines of this call.
    fn known(&self, file: &File, entry: &Entry, end: u64, new: &[u8]) -> Result<Option<Appended>, LedgerError> {
        // Receipts of the ledger itself tell of moments, which do not repeat.
        let Some(dispatch) = &entry.dispatch else { return Ok(None) };
        let member = |key: &str| format!(",\"key\":\"{key}\",");
        let (key, first) = (entry.key(), format!("{dispatch}/{}/{}", Kind::DispatchRequested.word(), 1));
        let (wanted, stop) = (member(&key), member(&first));
        let found = match memchr::memmem::find(new, wanted.as_bytes()) {
            Some(at) => Some((new.to_vec(), at, end)),
            // A dispatch begins with its request, and its id is claimed once: that one is new.
            None if key == first || memchr::memmem::find(new, stop.as_bytes()).is_some() => None,
            None => match self.look_back(file, end, wanted.as_bytes(), stop.as_bytes())? {
                Looked::At(block, at, offset) => Some((block, at, offset)),
                Looked::Never => None,
                // It may have begun in a segment that is sealed by now.
                Looked::NotHere => self.look_in_sealed(wanted.as_bytes(), stop.as_bytes())?,
            },
        };
        let Some((block, at, offset)) = found else { return Ok(None) };
        let begin = memchr::memrchr(b'\n', &block[..at]).map_or(0, |p| p + 1);
        let length = memchr::memchr(b'\n', &block[begin..]).unwrap_or(block.len() - begin);
        let receipt =
            format::parse(&block[begin..begin + length]).map_err(|reason| LedgerError::BrokenHead { reason })?;
        if format::payload(&receipt.body, &self.redactor) == format::payload(&entry.body, &self.redactor) {
            let (seq, hash) = (receipt.seq, receipt.hash);
            return Ok(Some(Appended { seq, hash, offset: offset + begin as u64, repeated: true }));
        }
        Err(LedgerError::Conflict { key, seq: receipt.seq })
    }

    /// Looks for a line that holds `wanted`, from the end on, until one holds `stop`.
    fn look_back(&self, file: &File, end: u64, wanted: &[u8], stop: &[u8]) -> Result<Looked, LedgerError> {
        let (mut end, mut size) = (end, 16_u64 << 10);
        while end > 0 {
            let start = end.saturating_sub(size);
            let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
            disk::read(file, &mut block, start).at("read", &self.file())?;
            // Only whole lines count; the rest goes with the block before.
            let cut = if start == 0 { 0 } else { memchr::memchr(b'\n', &block).map_or(block.len(), |p| p + 1) };
            if cut == block.len() {
                size *= 4;
                continue;
            }
            if let Some(at) = memchr::memmem::rfind(&block[cut..], wanted) {
                return Ok(Looked::At(block, cut + at, start));
            }
            if memchr::memmem::rfind(&block[cut..], stop).is_some() {
                return Ok(Looked::Never);
            }
            end = start + cut as u64;
            size = (size * 4).min(4 << 20);
        }
        Ok(Looked::NotHere)
    }

    fn look_in_sealed(&self, wanted: &[u8], stop: &[u8]) -> Result<Option<(Vec<u8>, usize, u64)>, LedgerError> {
        for segment in self.sealed()?.iter().rev() {
            let bytes = segment.read().at("read", &segment.path)?;
            if let Some(at) = memchr::memmem::rfind(&bytes, wanted) {
                return Ok(Some((bytes, at, 0)));
            }
            if memchr::memmem::rfind(&bytes, stop).is_some() {
                break;
            }
        }
        Ok(None)
    }

    /// The last complete line, re-hashed, and whether a torn fragment follows it.
    pub(super) fn read_tail(&self, file: &File) -> Result<Tail, LedgerError> {
        tail_of(file, file.metadata().at("examine", &self.file())?.len(), TAIL, &self.file())
    }

    /// Moves a torn fragment into quarantine and cuts it off. Only under the lock.
    fn repair(&self, file: &File, head: Head) -> Result<Entry, LedgerError> {
        let path = self.file();
        let fragment = fragment(file, head, &path)?;
        let sha256 = Digest::of(&fragment);
        let name = format!("{}-{}.part", head.end, sha256.short());
        files::private_folder(&self.quarantine())?;
        let kept = disk::publish(&self.quarantine().join(&name), &fragment);
        kept.map_err(|source| LedgerError::NotWritten { source })?;
        disk::truncate(file, head.end).at("cut", &path)?;
        let body = LedgerRecovered { offset: head.end, bytes: fragment.len() as u64, sha256, quarantine: name };
        Ok(Entry::ledger(Body::LedgerRecovered(body)))
    }

    /// After a failed sync nobody knows which pages are on the disk: the file is written anew, from
    /// what can be read, and takes the old one's place. Only under the lock.
    fn heal(&self, file: &File) -> Result<Entry, LedgerError> {
        let path = self.file();
        let error = files::read_text(&self.poisoned()).unwrap_or_default();
        let len = file.metadata().at("examine", &path)?.len();
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        disk::read(file, &mut bytes, 0).at("read", &path)?;
        disk::publish(&path, &bytes).map_err(|source| LedgerError::NotWritten { source })?;
        files::remove(&self.poisoned())?;
        Ok(Entry::ledger(Body::LedgerIoError(LedgerIoError { bytes: len, error })))
    }

    /// Sets space aside for the moment when the disk is full. Best effort: without it only the
    /// receipts of that moment are missing.
    pub fn fill_reserve(&self) {
        let path = self.folder.join("RESERVE");
        if std::fs::metadata(&path).is_ok_and(|m| m.len() >= RESERVE) {
            return;
        }
        if let Ok(file) = lock::open(&path) {
            let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE);
        }
    }

    /// `true` when there was something to give back.
    fn free_reserve(&self) -> bool {
        let path = self.folder.join("RESERVE");
        let had = std::fs::metadata(&path).is_ok_and(|m| m.len() > 0);
        had && std::fs::remove_file(&path).is_ok()
    }

    fn poisoned(&self) -> std::path::PathBuf {
        self.folder.join("POISONED")
    }
}

/// The end of the ledger in a file of this length, of which the last `window` bytes are read at first.
fn tail_of(file: &File, len: u64, mut window: u64, path: &Path) -> Result<Tail, LedgerError> {
    let broken = |reason: &str| LedgerError::BrokenHead { reason: reason.to_owned() };
    loop {
        let from = len.saturating_sub(window);
        let mut tail = vec![0; usize::try_from(len - from).unwrap_or(0)];
        disk::read(file, &mut tail, from).at("read", path)?;
        tail.truncate(format::written(&tail, from));
        let last_feed = memchr::memrchr(b'\n', &tail);
        let before = last_feed.and_then(|end| memchr::memrchr(b'\n', &tail[..end]));
        match (last_feed, before) {
            (Some(end), Some(start)) => {
                let found = tail_at(&tail[start + 1..end], from + start as u64 + 1, len)?;
                return follows(&tail[..start], &tail[start + 1..end], found);
            }
            (Some(end), None) if from == 0 => {
                return tail_at(&tail[..end], 0, len);
            }
            _ if from == 0 => return Err(broken("there is no complete line")),
            // A line and a fragment of the longest kind fit into this much.
            _ if window > 4 * MAX_LINE as u64 => {
                return Err(broken("a line is longer than the format allows"));
            }
            _ => window *= 4,
        }
    }
}

/// What follows the last sound line. An error if it is more than a crash may have torn: a dispatch
/// is refused then, and `vnx doctor` says so.
pub(super) fn fragment(file: &File, head: Head, path: &Path) -> Result<Vec<u8>, LedgerError> {
    let len = file.metadata().at("examine", path)?.len();
    let mut fragment = vec![0; usize::try_from(len.saturating_sub(head.end)).unwrap_or(0)];
    disk::read(file, &mut fragment, head.end).at("read", path)?;
    let anchor = format!("\"kind\":\"{}\"", Kind::AnchorWritten.word());
    // A line that was not written to its end was never acknowledged.
    let whole = &fragment[..memchr::memrchr(b'\n', &fragment).map_or(0, |at| at + 1)];
    if memchr::memmem::find(whole, anchor.as_bytes()).is_some() {
        let reason = "what follows the last sound line was anchored, so it is not cut off".to_owned();
        return Err(LedgerError::BrokenHead { reason });
    }
    Ok(fragment)
}

/// What follows this head if a crash tore it, so that the next writer repairs it: the verifier asks the same.
pub(super) fn torn(file: &File, len: u64, head: Head, path: &Path) -> Option<Vec<u8>> {
    let tail = tail_of(file, len, TAIL, path).ok()?;
    fragment(file, head, path).ok().filter(|_| tail.torn && tail.head == head)
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn tail_at(line: &[u8], begin: u64, len: u64) -> Result<Tail, LedgerError> {
    let broken = |reason| LedgerError::BrokenHead { reason };
    let links = format::links(line).map_err(broken)?;
    let hash = links.sound_hash().map_err(|_| broken(format!("receipt {} has the wrong hash", links.seq)))?;
    let end = begin + line.len() as u64 + 1;
    let sealed = links.says(Kind::LedgerSealed);
    Ok(Tail { head: Head { seq: links.seq, hash, end }, begin, torn: end < len, sealed })
}

/// The last line must also follow the one before it, where that one is in reach.
fn follows(before: &[u8], last: &[u8], found: Tail) -> Result<Tail, LedgerError> {
    let Some(at) = memchr::memrchr(b'\n', before) else { return Ok(found) };
    let broken = |reason: String| LedgerError::BrokenHead { reason };
    let (last, before) = (format::links(last).map_err(broken)?, format::links(&before[at + 1..]).map_err(broken)?);
    if before.sound_hash().is_err() || last.prev != before.hash || last.seq != before.seq + 1 {
        return Err(broken(format!("receipt {} does not follow the one before it", last.seq)));
    }
    Ok(found)
}
