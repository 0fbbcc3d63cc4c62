//! Segments: a ledger is a row of files. `0001.ndjson`, `0002.ndjson` … are sealed, perhaps
//! compressed (`.zst`), and `ledger.ndjson` is the open one. The chain and the tree run through
//! all of them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::append::Tail;
use super::format;
use super::verify::{self, Options, Status};
use super::writing::Writing;
use super::{Head, Ledger, LedgerError, disk};
use crate::domain::Digest;
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{Body, Entry, LedgerOpened, LedgerSealed};
use crate::sys::files::{self, At};
use crate::sys::{self, lock};

/// When a segment is sealed: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of the file.
    pub bytes: u64,
    /// Receipts in it.
    pub receipts: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { bytes: 64 << 20, receipts: 100_000 }
    }
}

/// One file of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its number, from 1.
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) packed: bool,
}

impl Segment {
    /// Opens it for reading: a regular file and no link, for readers as for the writer.
    pub(super) fn open(&self) -> io::Result<File> {
        if self.path.is_symlink() {
            return Err(io::Error::other("it is a symbolic link"));
        }
        files::open_regular(&self.path)
    }
    /// Its name in messages; none for the open one.
    pub(super) fn name(&self) -> Option<String> {
        let name = self.path.file_name()?.to_string_lossy().into_owned();
        (name != OPEN).then_some(name)
    }
    /// The lines of a sealed segment, unpacked.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        unpacked(self.open()?, self.packed)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The name of the open segment.
pub(super) const OPEN: &str = "ledger.ndjson";
/// The next one, until it takes its place. While it stands, the open one may be missing.
pub(super) const NEXT: &str = "ledger.next";
/// How often a listing is tried again, and while a segment is being sealed.
const TRIES: u32 = 50;
const TRIES_SEALING: u32 = 400;

/// What a file holds, whether it is compressed or not.
pub(super) fn unpacked(file: File, packed: bool) -> io::Result<Box<dyn Read + Send>> {
    Ok(if packed { Box::new(zstd::stream::read::Decoder::new(file)?) } else { Box::new(file) })
}

/// The segments in a folder, oldest first, each opened, so that a writer that seals one meanwhile
/// takes nothing away. `None` for a folder without any.
pub(super) fn open_all(folder: &Path) -> io::Result<Option<Vec<(Segment, File)>>> {
    let numbers = |all: &[Segment]| all.iter().map(|s| s.number).collect::<Vec<_>>();
    let mut tries = 0;
    let sealing = || folder.join(NEXT).exists();
    loop {
        let before = sealing();
        let segments = list(folder)?;
        let opened: io::Result<Vec<_>> = segments.iter().map(|s| s.open().map(|f| (s.clone(), f))).collect();
        // A listing is no snapshot: a file that is renamed meanwhile may be in it once, twice or not
        // at all. Two equal ones without a gap are.
        let whole = segments.last().is_some_and(|last| last.name().is_none() && last.number as usize == segments.len());
        match opened {
            Ok(all) if whole && numbers(&list(folder)?) == numbers(&segments) => return Ok(Some(all)),
            _ if tries < TRIES_SEALING && (before || sealing()) => {}
            Ok(all) if tries > TRIES => return Ok(Some(all).filter(|all| !all.is_empty())),
            Err(e) if tries > TRIES || e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        tries += 1;
        if tries > TRIES {
            std::thread::sleep(Duration::from_millis(2));
        } else {
            std::thread::yield_now();
        }
    }
}

fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found: Vec<Segment> = Vec::new();
    for name in files::names(folder).map_err(|e| e.source)? {
        let (stem, packed) = name.strip_suffix(".zst").map_or((name.as_str(), false), |stem| (stem, true));
        let number = stem.strip_suffix(".ndjson").filter(|n| n.len() >= 4).and_then(|n| n.parse::<u32>().ok());
        let Some(number) = number else { continue };
        // Names are sorted: the plain file comes before its compressed copy, and counts.
        if found.last().is_none_or(|last| last.number != number) {
            found.push(Segment { number, path: folder.join(&name), packed });
        }
    }
    let open = folder.join(OPEN);
    if open.symlink_metadata().is_ok() {
        let number = found.last().map_or(1, |s| s.number + 1);
        found.push(Segment { number, path: open, packed: false });
    }
    Ok(found)
}

impl Ledger {
    /// The sealed segments, oldest first.
    pub(super) fn sealed(&self) -> Result<Vec<Segment>, LedgerError> {
        let mut all = list(&self.folder).at("list", &self.folder)?;
        all.retain(|s| s.name().is_some());
        Ok(all)
    }

    fn sealed_path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:04}.ndjson"))
    }

    /// Seals the open segment if it is as long as one may be, and begins the next one. Only under
    /// the lock. Each step can be cut off: the next writer goes on from what it finds.
    pub(super) fn rotate(&self, writing: &mut Writing<'_>, tail: &Tail) -> Result<bool, LedgerError> {
        let sealed = tail.sealed;
        if !sealed && tail.head.end < self.limit.bytes {
            let first = writing.first(|file| {
                let mut start = [0; 120];
                let length = usize::try_from(tail.head.end).unwrap_or(usize::MAX).min(start.len());
                disk::read(file, &mut start[..length], 0).map(|()| format::seq_of(&start))
            });
            if first.at("read", &self.file())?.is_some_and(|first| tail.head.seq - first < self.limit.receipts) {
                return Ok(false);
            }
        }
        let first = self.first_links(&writing.file)?;
        let number = self.sealed()?.last().map_or(1, |s| s.number + 1);
        let broken = |reason: &str| LedgerError::BrokenHead { reason: reason.to_owned() };
        // The tree so far, from what the disk has.
        let mut tree = match &first.1.body {
            Body::LedgerCreated(_) => CompactRange::empty(0),
            Body::LedgerOpened(opened) => CompactRange::from_nodes(first.0, &opened.nodes)
                .ok_or_else(|| broken("the segment's beginning has no tree"))?,
            _ => return Err(broken("the segment has no beginning")),
        };
        let mut bytes = self.bytes_of(&writing.file, tail.head.end)?;
        let options = Options { quick: true, ..Options::default() };
        let own = verify::verify_bytes(&bytes, tree.end(), first.2, &options);
        if own.status != Status::Verified {
            return Err(broken(&own.first_bad.map_or_else(String::new, |bad| bad.reason)));
        }
        if !own.tree.is_some_and(|own| tree.join(&own)) {
            return Err(broken("the segment does not follow the one before it"));
        }
        let mut head = tail.head;
        if !sealed {
            let body = LedgerSealed { segment: number, size: tree.end(), root: tree.root() };
            let line = self.line(&Entry::ledger(Body::LedgerSealed(body)), &head)?;
            let end = head.end + line.0.len() as u64;
            self.announce(head.seq + 1, &Head { seq: head.seq + 1, hash: line.1, end })?;
            let result = disk::append(&writing.file, line.0.as_bytes());
            if !matches!(result, Ok(n) if n == line.0.len()) {
                let back = disk::truncate(&writing.file, head.end);
                let full = || io::Error::new(io::ErrorKind::StorageFull, "short write");
                return Err(LedgerError::NotWritten { source: result.err().or(back.err()).unwrap_or_else(full) });
            }
            bytes.extend_from_slice(line.0.as_bytes());
            tree.push(line.1);
            head = Head { seq: head.seq + 1, hash: line.1, end: bytes.len() as u64 };
        }
        // Also where somebody else has sealed it, who may not have lived to wait for the disk.
        self.confirm(&writing.file)?;
        self.begin_next(number, &bytes, &tree, head)?;
        Ok(true)
    }

    /// Puts a new open segment in the place of a sealed one.
    fn begin_next(&self, number: u32, bytes: &[u8], tree: &CompactRange, head: Head) -> Result<(), LedgerError> {
        let opened = LedgerOpened {
            segment: number + 1,
            bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
            nodes: tree.nodes(),
        };
        let (line, hash) = self.line(&Entry::ledger(Body::LedgerOpened(opened)), &head)?;
        self.announce(head.seq + 1, &Head { seq: head.seq + 1, hash, end: line.len() as u64 })?;
        let failed = |source| LedgerError::NotWritten { source };
        let next = self.folder.join(NEXT);
        disk::publish(&next, line.as_bytes()).map_err(failed)?;
        if self.file().exists() {
            disk::rename(&self.file(), &self.sealed_path(number)).map_err(failed)?;
        }
        disk::rename(&next, &self.file()).map_err(failed)?;
        disk::sync_folder(&self.folder).map_err(failed)
    }

    /// A writer that was cut off between the two renames has left no open segment. `false` when
    /// that is not what happened.
    pub(super) fn finish_rotation(&self) -> Result<bool, LedgerError> {
        let _lock = lock::exclusive(&self.lock_file(), super::PATIENCE).map_err(LedgerError::Lock)?;
        let Some(last) = self.sealed()?.pop().filter(|_| !self.file().exists()) else {
            return Ok(self.file().exists());
        };
        let broken = |reason: String| LedgerError::BrokenHead { reason };
        if !self.folder.join(NEXT).exists() {
            let what = "the open segment, which no crash takes away; put it back from a copy";
            return Err(broken(format!("{} is gone: {what}", self.file().display())));
        }
        let bytes = last.read().at("read", &last.path)?;
        let text = bytes.strip_suffix(b"\n").unwrap_or_default();
        let line = &text[memchr::memrchr(b'\n', text).map_or(0, |p| p + 1)..];
        let receipt = format::parse(line).map_err(broken)?;
        let Body::LedgerSealed(sealed) = &receipt.body else {
            return Err(broken(format!("segment {} is not sealed, and no segment is open", last.number)));
        };
        let first = format::parse(text.split(|b| *b == b'\n').next().unwrap_or_default()).map_err(broken)?;
        let nodes = match &first.body {
            Body::LedgerOpened(opened) => opened.nodes.clone(),
            _ => Vec::new(),
        };
        let own = verify::verify_bytes(&bytes, first.seq, first.prev, &Options { quick: true, ..Options::default() });
        let mut tree = CompactRange::from_nodes(first.seq, &nodes).unwrap_or_else(|| CompactRange::empty(0));
        if own.status != Status::Verified || !own.tree.is_some_and(|own| tree.join(&own)) {
            return Err(broken(format!("segment {} does not verify", last.number)));
        }
        let head = Head { seq: receipt.seq, hash: receipt.hash, end: bytes.len() as u64 };
        self.begin_next(sealed.segment, &bytes, &tree, head)?;
        Ok(true)
    }

    fn line(&self, entry: &Entry, head: &Head) -> Result<(String, Digest), LedgerError> {
        let built = format::build(entry, &head.hash, head.seq + 1, sys::now(), &self.redactor);
        built.map(|(line, hash)| (line + "\n", hash)).map_err(|reason| LedgerError::Unfit { reason })
    }

    fn bytes_of(&self, file: &File, len: u64) -> Result<Vec<u8>, LedgerError> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        disk::read(file, &mut bytes, 0).at("read", &self.file())?;
        Ok(bytes)
    }

    /// The first receipt of the open segment: its place, itself, and what it follows.
    fn first_links(&self, file: &File) -> Result<(u64, Entry, Digest), LedgerError> {
        let mut length = 4096;
        loop {
            let end = file.metadata().at("examine", &self.file())?.len().min(length);
            let bytes = self.bytes_of(file, end)?;
            if let Some(feed) = memchr::memchr(b'\n', &bytes) {
                let read = format::parse(&bytes[..feed]).map_err(|reason| LedgerError::BrokenHead { reason })?;
                return Ok((
                    read.seq,
                    Entry { dispatch: read.dispatch, attempt: read.attempt, body: read.body },
                    read.prev,
                ));
            }
            if end < length {
                return Err(LedgerError::BrokenHead { reason: "there is no complete line".to_owned() });
            }
            length *= 16;
        }
    }
}
