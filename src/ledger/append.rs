//! The one writer.
//!
//! Lock, re-read and re-hash the tail, repair it if a crash tore it, build the lines, one
//! `write`, unlock, then wait for the disk where the kinds ask for it. Unlocking before the
//! sync is safe because the file only grows: a later writer's sync covers all earlier bytes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use rustix::fs::OFlags;

use super::format::{self, MAX_LINE};
use super::{Head, Ledger, LedgerError, PATIENCE};
use crate::domain::receipt::{Body, Durability, Entry, LedgerCreated, LedgerRecovered};
use crate::domain::{Digest, Name};
use crate::sys::files::{self, At};
use crate::sys::{self, lock};

/// A receipt that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence number.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    /// Where its line begins in the file.
    pub offset: u64,
}

impl Ledger {
    /// Creates the ledger with its first receipt; an existing one is left alone (`false`).
    pub fn create(&self, project: &Name) -> Result<bool, LedgerError> {
        files::private_folder(&self.folder)?;
        files::private_folder(&self.quarantine())?;
        let guard = lock::exclusive(&self.lock_file(), PATIENCE).map_err(LedgerError::Lock)?;
        if self.file().exists() {
            return Ok(false);
        }
        let random: [u8; 16] = sys::random().map_err(LedgerError::Lock)?;
        let ledger = format!("{:032x}", u128::from_be_bytes(random));
        let body = LedgerCreated { ledger, project: project.clone(), vnx: env!("CARGO_PKG_VERSION").to_owned() };
        let entry = Entry::ledger(Body::LedgerCreated(body));
        let built = format::build(&entry, &Digest::ZERO, 0, sys::now(), &self.redactor);
        let (line, _) = built.map_err(|reason| LedgerError::Unfit { reason })?;
        // The file appears with its first line or not at all.
        files::replace(&self.file(), format!("{line}\n").as_bytes())?;
        let sync = |path| File::open(path).and_then(|f| f.sync_all());
        sync(self.file()).map_err(|source| LedgerError::NotSynced { source })?;
        sync(self.folder.clone()).map_err(|source| LedgerError::NotSynced { source })?;
        drop(guard);
        Ok(true)
    }

    /// Appends receipts in one write and returns when they are as durable as their kinds ask.
    pub fn append(&self, entries: &[Entry]) -> Result<Vec<Appended>, LedgerError> {
        let wait = entries.iter().any(|e| e.body.kind().durability() == Durability::Wait);
        let (file, done) = self.write(entries)?;
        if wait {
            file.sync_data().map_err(|source| LedgerError::NotSynced { source })?;
        }
        Ok(done)
    }

    /// Waits until everything that is in the file now is on the disk.
    pub fn sync(&self) -> Result<(), LedgerError> {
        let file = self.open()?;
        file.sync_data().map_err(|source| LedgerError::NotSynced { source })
    }

    fn open(&self) -> Result<File, LedgerError> {
        let path = self.file();
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        match OpenOptions::new().read(true).append(true).custom_flags(flags).open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(LedgerError::Missing(path)),
            other => Ok(other.at("open", &path)?),
        }
    }

    fn write(&self, entries: &[Entry]) -> Result<(File, Vec<Appended>), LedgerError> {
        if !self.file().exists() {
            return Err(LedgerError::Missing(self.file()));
        }
        let guard = lock::exclusive(&self.lock_file(), PATIENCE).map_err(LedgerError::Lock)?;
        let mut file = self.open()?;
        let path = self.file();
        let (opened, named) =
            (file.metadata().at("examine", &path)?, std::fs::symlink_metadata(&path).at("examine", &path)?);
        if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
            return Err(LedgerError::Replaced);
        }
        let (mut head, torn) = self.read_head(&file)?;
        let recovered = if torn { Some(self.repair(&file, head)?) } else { None };

        let mut bytes = Vec::new();
        let mut done = Vec::new();
        let start = head.end;
        for entry in recovered.iter().chain(entries) {
            let built = format::build(entry, &head.hash, head.seq + 1, sys::now(), &self.redactor);
            let (line, hash) = built.map_err(|reason| LedgerError::Unfit { reason })?;
            done.push(Appended { seq: head.seq + 1, hash, offset: start + bytes.len() as u64 });
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            head = Head { seq: head.seq + 1, hash, end: start + bytes.len() as u64 };
        }
        // One write: a crash tears at most the end, and the next writer sees that it is torn.
        let result = file.write(&bytes);
        if !matches!(result, Ok(n) if n == bytes.len()) {
            let rolled_back = file.set_len(start);
            let source = match (result, rolled_back) {
                (Err(e), _) | (Ok(_), Err(e)) => e,
                (Ok(_), Ok(())) => std::io::Error::new(std::io::ErrorKind::StorageFull, "short write"),
            };
            return Err(LedgerError::NotWritten { source });
        }
        drop(guard);
        Ok((file, done.split_off(usize::from(recovered.is_some()))))
    }

    /// The last complete line, re-hashed, and whether a torn fragment follows it.
    pub(super) fn read_head(&self, file: &File) -> Result<(Head, bool), LedgerError> {
        let broken = |reason: &str| LedgerError::BrokenHead { reason: reason.to_owned() };
        let len = file.metadata().at("examine", &self.file())?.len();
        let mut window = 64_u64 << 10;
        loop {
            let from = len.saturating_sub(window);
            let mut tail = vec![0; usize::try_from(len - from).unwrap_or(0)];
            file.read_exact_at(&mut tail, from).at("read", &self.file())?;
            let last_feed = tail.iter().rposition(|b| *b == b'\n');
            let before = last_feed.and_then(|end| tail[..end].iter().rposition(|b| *b == b'\n'));
            match (last_feed, before) {
                (Some(end), Some(start)) => {
                    let head = head_of(&tail[start + 1..end], from + end as u64 + 1, len)?;
                    return follows(&tail[..start], &tail[start + 1..end], head);
                }
                (Some(end), None) if from == 0 => {
                    return head_of(&tail[..end], end as u64 + 1, len);
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

    /// Moves a torn fragment into quarantine and cuts it off. Only under the lock.
    fn repair(&self, file: &File, head: Head) -> Result<Entry, LedgerError> {
        let path = self.file();
        let len = file.metadata().at("examine", &path)?.len();
        let mut fragment = vec![0; usize::try_from(len - head.end).unwrap_or(0)];
        file.read_exact_at(&mut fragment, head.end).at("read", &path)?;
        let sha256 = Digest::of(&fragment);
        let name = format!("{}-{}.part", head.end, sha256.short());
        let kept = self.quarantine().join(&name);
        files::private_folder(&self.quarantine())?;
        files::replace(&kept, &fragment)?;
        File::open(&kept).and_then(|f| f.sync_all()).map_err(|source| LedgerError::NotSynced { source })?;
        file.set_len(head.end).at("cut", &path)?;
        let body = LedgerRecovered { offset: head.end, bytes: fragment.len() as u64, sha256, quarantine: name };
        Ok(Entry::ledger(Body::LedgerRecovered(body)))
    }
}

fn head_of(line: &[u8], end: u64, len: u64) -> Result<(Head, bool), LedgerError> {
    let broken = |reason| LedgerError::BrokenHead { reason };
    let links = format::links(line).map_err(broken)?;
    let hash = links.sound_hash().map_err(|_| broken(format!("receipt {} has the wrong hash", links.seq)))?;
    Ok((Head { seq: links.seq, hash, end }, end < len))
}

/// The last line must also follow the one before it, where that one is in reach.
fn follows(before: &[u8], last: &[u8], head: (Head, bool)) -> Result<(Head, bool), LedgerError> {
    let Some(at) = before.iter().rposition(|b| *b == b'\n') else { return Ok(head) };
    let broken = |reason: String| LedgerError::BrokenHead { reason };
    let (last, before) = (format::links(last).map_err(broken)?, format::links(&before[at + 1..]).map_err(broken)?);
    if before.sound_hash().is_err() || last.prev != before.hash || last.seq != before.seq + 1 {
        return Err(broken(format!("receipt {} does not follow the one before it", last.seq)));
    }
    Ok(head)
}
