//! What a writer holds while it writes: an exclusive lock on `LOCK`, which outlives a replaced ledger
//! file, and one on the file itself, which holds even if somebody deletes `LOCK` meanwhile.
//!
//! The descriptors stay open between writes, because opening costs more than all else that a write
//! does before it waits for the disk. Each time their names are held against them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::{Ledger, LedgerError, PATIENCE};
use crate::sys::files::At;
use crate::sys::lock;

/// Descriptors that stay open.
#[derive(Debug)]
pub(super) struct Held {
    lock: Open,
    file: Open,
    /// `seq` of the first receipt of the file, once somebody has looked.
    first: Option<u64>,
}

/// An open file and which one it is.
#[derive(Debug)]
struct Open {
    file: Arc<File>,
    id: (u64, u64),
}

impl Open {
    fn of(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { file: Arc::new(file), id: (found.dev(), found.ino()) })
    }
    /// The length of the file, if it is the one that has this name.
    fn is_at(&self, path: &Path) -> io::Result<Option<u64>> {
        match std::fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == self.id => Ok(Some(named.len())),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A write in progress: nobody else writes until it is dropped.
pub(super) struct Writing<'a> {
    held: MutexGuard<'a, Option<Held>>,
    pub(super) file: Arc<File>,
    /// The length of the file when the write began.
    pub(super) len: u64,
}

impl Writing<'_> {
    /// `seq` of the first receipt of the file; `find` looks for it once.
    pub(super) fn first(&mut self, find: impl FnOnce(&File) -> io::Result<Option<u64>>) -> io::Result<Option<u64>> {
        let Some(held) = self.held.as_mut() else { return find(&self.file) };
        if held.first.is_none() {
            held.first = find(&self.file)?;
        }
        Ok(held.first)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let unlocked = match self.held.as_ref() {
            Some(held) => held.file.file.unlock().and_then(|()| held.lock.file.unlock()),
            None => Ok(()),
        };
        if unlocked.is_err() {
            // Closing them unlocks them as well.
            *self.held = None;
        }
    }
}

impl Ledger {
    /// Takes both locks.
    pub(super) fn begin(&self) -> Result<Writing<'_>, LedgerError> {
        loop {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.is_none() {
                let lock = lock::open(&self.lock_file())?;
                match self.open() {
                    Ok(file) => {
                        let (lock, file) = (Open::of(lock), Open::of(file));
                        let (lock, file) = (lock.at("examine", &self.lock_file())?, file.at("examine", &self.file())?);
                        *held = Some(Held { lock, file, first: None });
                    }
                    // Perhaps a writer was cut off while it sealed a segment.
                    Err(LedgerError::Missing(path)) if !self.finish_rotation()? => {
                        return Err(LedgerError::Missing(path));
                    }
                    Err(LedgerError::Missing(_)) => continue,
                    Err(other) => return Err(other),
                }
            }
            let Some(open) = held.as_ref() else { continue };
            let (lock, file) = (self.lock_file(), self.file());
            let taken = lock::exclusive_file(&open.lock.file, &lock, PATIENCE)
                .and_then(|()| lock::exclusive_file(&open.file.file, &file, PATIENCE));
            let same = taken.map_err(LedgerError::Lock).and_then(|()| {
                let lock = open.lock.is_at(&lock).at("examine", &lock)?;
                let len = open.file.is_at(&file).at("examine", &file)?;
                Ok(lock.and(len))
            });
            match same {
                Ok(Some(len)) => {
                    let file = Arc::clone(&open.file.file);
                    return Ok(Writing { held, file, len });
                }
                // Another file has this name by now; closing the old ones unlocks them.
                Ok(None) => *held = None,
                Err(error) => {
                    *held = None;
                    return Err(error);
                }
            }
        }
    }

    pub(super) fn open(&self) -> Result<File, LedgerError> {
        let path = self.file();
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        match OpenOptions::new().read(true).append(true).custom_flags(flags).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(LedgerError::Missing(path)),
            other => Ok(other.at("open", &path)?),
        }
    }
}
