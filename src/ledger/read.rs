//! Reading without a lock: complete lines never change, so a reader stops at the last line feed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::format::{self, Receipt};
use super::segment::{self, Segment};
use super::{Head, Ledger, LedgerError, append};
use crate::domain::DispatchId;
use crate::domain::receipt::{Body, Kind, LedgerCreated};
use crate::sys::files::{self, At};

impl Ledger {
    /// Opens the file for reading: a regular file and no link, for readers as for the writer.
    fn open_read(&self) -> Result<File, LedgerError> {
        let path = self.file();
        if path.is_symlink() {
            return Err(std::io::Error::other("it is a symbolic link")).at("open", &path).map_err(LedgerError::from);
        }
        match files::open_regular(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(LedgerError::Missing(path)),
            other => Ok(other.at("open", &path)?),
        }
    }

    /// The first receipt, which says which ledger this is.
    pub fn created(&self) -> Result<LedgerCreated, LedgerError> {
        let broken = || LedgerError::BrokenHead { reason: "the first line is no ledger.created".to_owned() };
        match self.all()?.next_receipt()?.map(|r| r.body) {
            Some(Body::LedgerCreated(created)) => Ok(created),
            _ => Err(broken()),
        }
    }

    /// Re-hashes the last complete line and holds it against what is known of it. The cheap health check of every
    /// dispatch.
    pub fn head(&self) -> Result<Head, LedgerError> {
        let marks = self.marks();
        let file = match self.open_read() {
            // A writer was cut off while it began a new segment.
            Err(LedgerError::Missing(_)) if !self.sealed()?.is_empty() => {
                self.finish_rotation()?;
                self.open_read()?
            }
            other => other?,
        };
        let tail = self.read_tail(&file)?;
        if tail.torn {
            // The next writer repairs it, if it is one that may be.
            append::fragment(&file, tail.head, &self.file())?;
        }
        self.expect(&marks, &file, &tail.head)?;
        Ok(tail.head)
    }

    /// The last `n` receipts, oldest first. Reads backwards, so the cost does not grow with
    /// the ledger.
    pub fn last(&self, n: usize) -> Result<Vec<Receipt>, LedgerError> {
        self.last_matching(n, |_| true)
    }

    /// The last `n` receipts whose line passes `wanted`, oldest first. The filter sees raw
    /// bytes, so lines that nobody wants are never parsed.
    pub fn last_matching(&self, n: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Receipt>, LedgerError> {
        self.last_lines(n, wanted)?.iter().map(|line| parse(line)).collect()
    }

    /// The same as lines, exactly as they stand in the file.
    pub fn last_lines(&self, n: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut found = Vec::new();
        self.backwards(|line| {
            if found.len() < n && wanted(line) {
                found.push(line.to_vec());
            }
            Ok(found.len() >= n)
        })?;
        found.reverse();
        Ok(found)
    }

    /// Hands out receipts, last first, as long as somebody wants the next one. One that cannot be read is passed over:
    /// whoever asks so verifies the ledger beside.
    pub fn newest_first(&self, mut wants: impl FnMut(Receipt) -> bool) -> Result<(), LedgerError> {
        self.backwards(|line| Ok(format::read(line).is_ok_and(|receipt| !wants(receipt))))
    }

    /// All receipts of one dispatch, oldest first. Stops at the one that requested it.
    pub fn of_dispatch(&self, id: &DispatchId) -> Result<Vec<Receipt>, LedgerError> {
        self.lines_of(id)?.iter().map(|line| parse(line)).collect()
    }

    /// The same as lines, exactly as they stand in the file.
    pub fn lines_of(&self, id: &DispatchId) -> Result<Vec<Vec<u8>>, LedgerError> {
        self.lines_within(id, u64::MAX).map(|(lines, _)| lines)
    }

    /// The same if all of them stand near the end of the ledger.
    pub fn recent_lines_of(&self, id: &DispatchId) -> Result<Option<Vec<Vec<u8>>>, LedgerError> {
        self.lines_within(id, 1 << 20).map(|(lines, whole)| whole.then_some(lines))
    }

    /// The lines of a dispatch among the last `budget` bytes, and whether its first one is among them.
    fn lines_within(&self, id: &DispatchId, budget: u64) -> Result<(Vec<Vec<u8>>, bool), LedgerError> {
        let needle = format!("\"dispatch\":\"{id}\"");
        let (mut found, mut whole, mut seen) = (Vec::new(), false, 0);
        self.backwards(|line| {
            seen += line.len() as u64;
            if seen > budget {
                return Ok(true);
            }
            // The member stands within the first bytes of the line.
            if memchr::memmem::find(&line[..line.len().min(400)], needle.as_bytes()).is_none() {
                return Ok(false);
            }
            found.push(line.to_vec());
            whole = format::links(line).is_ok_and(|links| links.says(Kind::DispatchRequested));
            Ok(whole)
        })?;
        found.reverse();
        Ok((found, whole))
    }

    /// Hands out complete lines, last first, until `enough` says so or the ledger begins.
    fn backwards(&self, mut enough: impl FnMut(&[u8]) -> Result<bool, LedgerError>) -> Result<(), LedgerError> {
        for (segment, file) in self.open_segments()?.into_iter().rev() {
            let done = if segment.packed {
                let bytes = segment.read().at("read", &segment.path)?;
                let mut done = false;
                for line in bytes.split(|b| *b == b'\n').rev().filter(|l| !l.is_empty()) {
                    done = enough(line)?;
                    if done {
                        break;
                    }
                }
                done
            } else {
                backwards_in(&file, &segment.path, &mut enough)?
            };
            if done {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn open_segments(&self) -> Result<Vec<(Segment, File)>, LedgerError> {
        let all = segment::open_all(&self.folder).at("open", &self.folder)?;
        all.ok_or_else(|| LedgerError::Missing(self.file()))
    }

    /// All receipts of the open segment from byte `offset` on, which must be the start of a line.
    pub fn from(&self, offset: u64) -> Result<Follow, LedgerError> {
        let path = self.file();
        let mut file = self.open_read()?;
        file.seek(SeekFrom::Start(offset)).at("read", &path)?;
        let open = BufReader::with_capacity(256 << 10, file);
        Ok(Follow { path, sealed: VecDeque::new(), open, offset, partial: Vec::new(), last: None })
    }

    /// All receipts from the first on, through all segments.
    pub fn all(&self) -> Result<Follow, LedgerError> {
        let mut sealed = VecDeque::new();
        let mut open = None;
        for (segment, file) in self.open_segments()? {
            if segment.name().is_none() {
                open = Some(file);
            } else {
                let reader = segment::unpacked(file, segment.packed).at("read", &segment.path)?;
                sealed.push_back(BufReader::with_capacity(256 << 10, reader));
            }
        }
        let open = open.ok_or_else(|| LedgerError::Missing(self.file()))?;
        let open = BufReader::with_capacity(256 << 10, open);
        Ok(Follow { path: self.file(), sealed, open, offset: 0, partial: Vec::new(), last: None })
    }
}

/// The same for one file that can be read at any place; `true` when it was enough.
fn backwards_in(
    file: &File,
    path: &Path,
    enough: &mut impl FnMut(&[u8]) -> Result<bool, LedgerError>,
) -> Result<bool, LedgerError> {
    let mut end = file.metadata().at("examine", path)?.len();
    let mut carry: Vec<u8> = Vec::new();
    let mut complete = false;
    while end > 0 {
        let start = end.saturating_sub(256 << 10);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut block, start).at("read", path)?;
        block.append(&mut carry);
        // Everything after the first line feed of the block is whole lines; what stands before
        // it goes with the block before.
        let ended = block.iter().position(|b| *b == b'\n');
        complete |= ended.is_some();
        let cut = if start == 0 { 0 } else { ended.map_or(block.len(), |at| at + 1) };
        let rest = block.split_off(cut);
        carry = block;
        if carry.len() > 2 * format::MAX_LINE {
            if complete {
                let reason = "a line is longer than the format allows".to_owned();
                return Err(LedgerError::BrokenHead { reason });
            }
            // What was never written to its end is nobody's.
            carry.clear();
        }
        // What follows the last line feed is nothing, or a line being written.
        for line in rest.split(|b| *b == b'\n').rev().skip(1).filter(|l| !l.is_empty()) {
            if enough(line)? {
                return Ok(true);
            }
        }
        end = start;
    }
    Ok(false)
}

fn parse(line: &[u8]) -> Result<Receipt, LedgerError> {
    format::read(line).map_err(|reason| LedgerError::BrokenHead { reason })
}

/// Reads receipts forward; after the end it can be asked again when the ledger has grown. It goes
/// on in the next segment when one is sealed, and says so when what it has read is taken away.
pub struct Follow {
    path: PathBuf,
    sealed: VecDeque<BufReader<Box<dyn Read + Send>>>,
    open: BufReader<File>,
    /// Where the next line of the open segment begins.
    offset: u64,
    partial: Vec<u8>,
    /// The last line that was handed out.
    last: Option<Vec<u8>>,
}

impl Follow {
    /// The next complete receipt, or `None` when there is none yet.
    pub fn next_receipt(&mut self) -> Result<Option<Receipt>, LedgerError> {
        self.next_raw()?.map(|line| parse(&line)).transpose()
    }

    /// The same as its sequence number and its line.
    pub fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, LedgerError> {
        let Some(line) = self.next_raw()? else { return Ok(None) };
        let links = format::links(&line).map_err(|reason| LedgerError::BrokenHead { reason })?;
        Ok(Some((links.seq, line)))
    }

    fn next_raw(&mut self) -> Result<Option<Vec<u8>>, LedgerError> {
        loop {
            // One byte more than a line may have.
            let left = (format::MAX_LINE + 2).saturating_sub(self.partial.len()) as u64;
            if left == 0 {
                return Err(LedgerError::BrokenHead { reason: "a line is longer than the format allows".to_owned() });
            }
            let read = match self.sealed.front_mut() {
                Some(reader) => reader.take(left).read_until(b'\n', &mut self.partial),
                None => (&mut self.open).take(left).read_until(b'\n', &mut self.partial),
            };
            let read = read.at("read", &self.path)?;
            if read as u64 == left && self.partial.last() != Some(&b'\n') {
                continue;
            }
            if self.sealed.is_empty() {
                self.offset += read as u64;
            }
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
                let line = std::mem::take(&mut self.partial);
                self.last = Some(line.clone());
                return Ok(Some(line));
            }
            if self.sealed.pop_front().is_some() {
                if !std::mem::take(&mut self.partial).is_empty() {
                    return Err(LedgerError::BrokenHead { reason: "a sealed segment ends within a line".to_owned() });
                }
                continue;
            }
            // A line that has no end yet may be cut off and written anew: it is read again.
            let end = self.offset;
            self.offset -= self.partial.len() as u64;
            self.partial.clear();
            if !self.reopened(end)? {
                self.open.seek(SeekFrom::Start(self.offset)).at("read", &self.path)?;
                return Ok(None);
            }
        }
    }

    /// At the end, all of whose bytes were seen: whether another file has taken the open segment's place, which is then
    /// read on.
    fn reopened(&mut self, end: u64) -> Result<bool, LedgerError> {
        let broken = |reason: &str| LedgerError::BrokenHead { reason: reason.to_owned() };
        let len = self.open.get_ref().metadata().at("examine", &self.path)?.len();
        if len < self.offset {
            return Err(broken("the ledger became shorter while it was followed"));
        }
        let Ok(file) = files::open_regular(&self.path) else { return Ok(false) };
        let (new, old) = (file.metadata().at("examine", &self.path)?, self.open.get_ref().metadata());
        let old = old.at("examine", &self.path)?;
        if (new.dev(), new.ino()) == (old.dev(), old.ino()) || len > end {
            return Ok(false);
        }
        let links = self.last.as_deref().and_then(|line| format::links(line).ok());
        let sealed = links.is_some_and(|links| links.says(Kind::LedgerSealed));
        // A segment that was written anew after a failed sync goes on where the last line of the old one ended.
        self.offset = if sealed { 0 } else { self.offset };
        if new.len() < self.offset {
            return Err(broken("the ledger was replaced by a shorter one while it was followed"));
        }
        self.open = BufReader::with_capacity(256 << 10, file);
        self.open.seek(SeekFrom::Start(self.offset)).at("read", &self.path)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
