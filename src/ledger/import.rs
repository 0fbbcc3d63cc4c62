//! Taking over a ledger of the Python VNX.
//!
//! Its bytes stay as they are, in a file of their own beside the segments (`imported/<sha256>.ndjson`).
//! The receipt `ledger.imported` holds their digest and what their own rules say of them, so from
//! there on they are bound by this ledger's chain.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::older::Walk;
use super::{Appended, Ledger, LedgerError, PATIENCE, disk, format};
use crate::domain::Digest;
use crate::domain::receipt::{Body, Entry, Kind, LedgerImported};
use crate::sys::files::{self, At};
use crate::sys::lock;

/// A line of an older ledger that is longer than this is kept, but not looked at.
const LONGEST: u64 = 16 << 20;
/// How much is read and written at a time.
const BLOCK: usize = 256 << 10;
/// The folder beside the segments.
const FOLDER: &str = "imported";

/// Where the copy of an imported ledger stands.
pub(super) fn place(ledger: &Path, sha256: &Digest) -> PathBuf {
    ledger.join(FOLDER).join(format!("{sha256}.ndjson"))
}

/// The digest and the length of a regular file.
pub(super) fn digest_of(path: &Path) -> io::Result<(Digest, u64)> {
    if path.is_symlink() {
        return Err(io::Error::other("it is a symbolic link"));
    }
    let mut file = files::open_regular(path)?;
    let (mut hasher, mut block, mut bytes) = (Sha256::new(), vec![0; BLOCK], 0);
    loop {
        match file.read(&mut block)? {
            0 => return Ok((Digest::from_bytes(hasher.finalize().into()), bytes)),
            n => {
                hasher.update(&block[..n]);
                bytes += n as u64;
            }
        }
    }
}

/// A copy that is being written.
struct Copying {
    file: File,
    hasher: Sha256,
    /// Bytes that were taken so far.
    bytes: u64,
    /// Those of them that were not written yet.
    waiting: Vec<u8>,
}

impl Copying {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() < BLOCK { Ok(()) } else { self.flush() }
    }
    fn flush(&mut self) -> io::Result<()> {
        let written = disk::append(&self.file, &self.waiting)?;
        let all = written == self.waiting.len();
        self.waiting.clear();
        if all { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl Ledger {
    /// Takes over the older ledger at `source`, which stays where it is. The same bytes are taken
    /// over once; `progress` hears how many are done.
    ///
    /// # Errors
    /// [`LedgerError::Foreign`] if it is no such ledger.
    pub fn import(&self, source: &Path, progress: &dyn Fn(u64)) -> Result<(LedgerImported, Appended), LedgerError> {
        let foreign = |why: &str| LedgerError::Foreign { path: source.to_owned(), why: why.to_owned() };
        let file = match files::open_regular(source) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(foreign("is not there")),
            other => other.at("open", source)?,
        };
        // Nothing is made in the folder of a ledger that is not there.
        self.head()?;
        let folder = self.folder.join(FOLDER);
        files::private_folder(&folder)?;
        let _lock = lock::exclusive(&folder.join("LOCK"), PATIENCE).map_err(LedgerError::Lock)?;
        // An import that was cut off has left its copy behind.
        let part = folder.join("incoming.part");
        files::remove(&part)?;
        let copied = copy(file, source, &part, progress).and_then(|(walk, sha256, bytes)| {
            if walk.objects > 0 { Ok((walk, sha256, bytes)) } else { Err(foreign("has no line that is a JSON object")) }
        });
        if copied.is_err() {
            files::remove(&part)?;
        }
        let (walk, sha256, bytes) = copied?;
        let imported = LedgerImported {
            sha256,
            bytes,
            lines: walk.lines,
            status: walk.status(),
            chained: walk.chained,
            epochs: walk.epochs,
            violations: walk.violations,
            first_bad: walk.first_bad,
            name: source.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let place = place(&self.folder, &sha256);
        let known = self.imported(&sha256)?;
        if known.is_some() && digest_of(&place).is_ok_and(|found| found == (sha256, bytes)) {
            files::remove(&part)?;
        } else {
            // Also where the copy of an earlier import was edited or is gone: these are its bytes.
            let failed = |source| LedgerError::NotWritten { source };
            disk::rename(&part, &place).and_then(|()| disk::sync_folder(&folder)).map_err(failed)?;
        }
        if let Some(known) = known {
            return Ok(known);
        }
        let written = self.append(&[Entry::ledger(Body::LedgerImported(imported.clone()))])?;
        let written = written.into_iter().next_back().ok_or_else(|| foreign("could not be recorded"))?;
        Ok((imported, written))
    }

    /// The receipt of an import.
    fn imported(&self, sha256: &Digest) -> Result<Option<(LedgerImported, Appended)>, LedgerError> {
        // A name cannot look like this: its quotes are escaped.
        let needle = format!("\"sha256\":\"{sha256}\"");
        let is = |line: &[u8]| {
            format::links(line).is_ok_and(|links| links.says(Kind::LedgerImported))
                && memchr::memmem::find(line, needle.as_bytes()).is_some()
        };
        Ok(self.last_matching(1, is)?.pop().and_then(|receipt| match receipt.body {
            Body::LedgerImported(imported) => {
                let known = Appended { seq: receipt.seq, hash: receipt.hash, offset: 0, repeated: true };
                Some((imported, known))
            }
            _ => None,
        }))
    }
}

/// Copies `file` while its lines are checked, waits for the disk, and reads the copy back.
fn copy(file: File, source: &Path, part: &Path, progress: &dyn Fn(u64)) -> Result<(Walk, Digest, u64), LedgerError> {
    let failed = |source| LedgerError::NotWritten { source };
    let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(part);
    let mut copy = Copying { file: made.map_err(failed)?, hasher: Sha256::new(), bytes: 0, waiting: Vec::new() };
    let mut walk = Walk::default();
    let mut reader = BufReader::with_capacity(BLOCK, file);
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        reader.by_ref().take(LONGEST).read_until(b'\n', line).at("read", source)
    };
    while next(&mut line)? > 0 {
        if copy.bytes == 0 && line.starts_with(b"{\"v\":1,\"prev\":\"") {
            let why = "is a ledger of this vnx already; `vnx audit-chain verify --file` reads it".to_owned();
            return Err(LedgerError::Foreign { path: source.to_owned(), why });
        }
        copy.take(&line).map_err(failed)?;
        match line.strip_suffix(b"\n") {
            Some(line) => walk.line(line, true),
            None if (line.len() as u64) < LONGEST => walk.line(&line, false),
            None => {
                walk.too_long();
                while line.last() != Some(&b'\n') && next(&mut line)? > 0 {
                    copy.take(&line).map_err(failed)?;
                }
            }
        }
        progress(copy.bytes);
    }
    copy.flush().and_then(|()| disk::sync(&copy.file)).map_err(failed)?;
    let taken = (Digest::from_bytes(copy.hasher.finalize().into()), copy.bytes);
    if digest_of(part).map_err(failed)? != taken {
        return Err(failed(io::Error::other("the copy reads back as other bytes")));
    }
    Ok((walk, taken.0, taken.1))
}
