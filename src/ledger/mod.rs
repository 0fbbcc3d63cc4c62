//! The PAST: an append-only, hash-chained NDJSON file (`receipts/SPEC.md` is the format's home).
//!
//! One function appends (`Ledger::append`), one verifies (`verify::verify`). Whoever reads may
//! read without a lock: a complete line never changes again.

mod append;
mod chunk;
mod disk;
mod filter;
pub mod format;
mod import;
mod known;
pub mod older;
mod opened;
mod pack;
mod packed;
mod place;
mod read;
mod report;
mod segment;
pub mod verify;
mod writing;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use append::Appended;
pub use filter::Filter;
pub use format::Receipt;
pub use known::{Differs, Marks, witness_folder};
pub use place::Place;
pub use read::Follow;
pub use segment::Limit;

use crate::domain::redact::Redactor;
use crate::domain::{Digest, Fault};
use crate::sys::files::PathError;

/// A ledger that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is none.
    #[error("there is no ledger at {}", .0.display())]
    Missing(PathBuf),
    /// A line does not verify. If it is the last one, nothing may be chained to it.
    #[error("the ledger does not verify: {reason}")]
    BrokenHead {
        /// What is wrong with it.
        reason: String,
    },
    /// It is sound in itself, and not the ledger that is known: nothing may be chained to it.
    #[error("the ledger is not what it was: {0}")]
    Differs(Differs),
    /// A receipt that readers would refuse.
    #[error("a receipt was refused: {reason}")]
    Unfit {
        /// What is wrong with it.
        reason: String,
    },
    /// The key was used before, with another payload.
    #[error("receipt {seq} has the key {key} already, with another payload")]
    Conflict {
        /// The key.
        key: String,
        /// The receipt that has it.
        seq: u64,
    },
    /// What was to be imported is no older ledger.
    #[error("{} {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The write failed and was rolled back: the receipt does not exist.
    #[error("the receipt could not be written and was rolled back: {source}")]
    NotWritten {
        /// What the system said.
        source: io::Error,
    },
    /// The sync failed: whether the receipt survives a crash is unknown, and a second sync
    /// would not tell (the kernel forgets failed pages).
    #[error("the disk did not confirm the receipt: {source}")]
    NotSynced {
        /// What the system said.
        source: io::Error,
    },
    /// An I/O error with its path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The lock did not come free.
    #[error("{0}")]
    Lock(Fault),
}

impl From<LedgerError> for Fault {
    fn from(error: LedgerError) -> Self {
        let what = error.to_string();
        match error {
            LedgerError::Missing(_) => Self::environment(what)
                .fix("`vnx init` makes one in a new project; in an old one, restore it from where it went"),
            LedgerError::BrokenHead { .. } => Self::environment(what)
                .fix("`vnx audit-chain verify` says which line it is and what helps; dispatch nothing meanwhile"),
            LedgerError::Differs(_) => Self::refused(what).fix(
                "put it back as it was; `vnx audit-chain verify` says what is missing, and `vnx audit-chain accept --reason WHY` gives up what is gone",
            ),
            LedgerError::NotWritten { source } | LedgerError::NotSynced { source }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::environment(what).fix("free disk space; nothing was lost")
            }
            LedgerError::NotWritten { .. } | LedgerError::NotSynced { .. } => {
                Self::io(what).fix("check the disk, then `vnx audit-chain verify`")
            }
            LedgerError::Foreign { .. } => Self::input(what)
                .fix("name the older ledger's file, for example t0_receipts.ndjson; nothing was imported"),
            LedgerError::Path(error) => error.into(),
            LedgerError::Lock(fault) => fault,
            LedgerError::Unfit { .. } | LedgerError::Conflict { .. } => Self::internal(what),
        }
    }
}

/// How long an append waits for other writers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ledger of one project.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    redactor: Redactor,
    limit: Limit,
    /// This process has looked at the end of the file for what a crash may have left.
    looked: AtomicBool,
    /// What a writer keeps open between writes.
    held: Mutex<Option<writing::Held>>,
    /// What is known of it beside its files; nothing of one that was not [`Ledger::witnessed`].
    known: Option<known::Known>,
}

/// The end of the ledger: what the next receipt chains to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The sequence number of the last receipt.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    /// The length of the file in bytes up to and including its line feed.
    pub end: u64,
}

impl Ledger {
    /// The ledger in `folder`, whether it exists or not.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            redactor: Redactor::default(),
            limit: Limit::default(),
            looked: AtomicBool::new(false),
            held: Mutex::new(None),
            known: None,
        }
    }
    /// The same ledger with a redactor that knows this dispatch's secrets.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }
    /// The same ledger with other limits of its segments.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }
    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// The open segment.
    pub fn file(&self) -> PathBuf {
        self.folder.join(segment::OPEN)
    }
    /// The line of one receipt, exactly as it stands in the file.
    pub fn line_of(&self, seq: u64) -> Result<Option<Vec<u8>>, LedgerError> {
        let needle = format!("\",\"seq\":{seq},\"");
        let wanted = |line: &[u8]| line[..line.len().min(120)].windows(needle.len()).any(|w| w == needle.as_bytes());
        Ok(self.last_lines(1, wanted)?.pop())
    }
    fn lock_file(&self) -> PathBuf {
        self.folder.join("LOCK")
    }
    fn quarantine(&self) -> PathBuf {
        self.folder.join("quarantine")
    }
}

#[cfg(test)]
mod around;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod segments;
#[cfg(test)]
mod tests;
