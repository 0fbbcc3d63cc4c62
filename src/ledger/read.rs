//! Reading without a lock: complete lines never change, so a reader stops at the last line feed.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::format::{self, Receipt};
use super::{Head, Ledger, LedgerError};
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
        match self.from(0)?.next_receipt()?.map(|r| r.body) {
            Some(Body::LedgerCreated(created)) => Ok(created),
            _ => Err(broken()),
        }
    }

    /// Re-hashes the last complete line. The cheap health check of every dispatch.
    pub fn head(&self) -> Result<Head, LedgerError> {
        let file = self.open_read()?;
        self.read_tail(&file).map(|tail| tail.head)
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

    /// All receipts of one dispatch, oldest first. Stops at the one that requested it.
    pub fn of_dispatch(&self, id: &DispatchId) -> Result<Vec<Receipt>, LedgerError> {
        let needle = format!("\"dispatch\":\"{id}\"");
        let mut found: Vec<Receipt> = Vec::new();
        self.backwards(|line| {
            // The member stands within the first bytes of the line.
            if line[..line.len().min(400)].windows(needle.len()).any(|w| w == needle.as_bytes()) {
                found.push(parse(line)?);
            }
            Ok(found.last().is_some_and(|r| r.body.kind() == Kind::DispatchRequested))
        })?;
        found.reverse();
        Ok(found)
    }

    /// Hands out complete lines, last first, until `enough` says so or the file begins.
    fn backwards(&self, mut enough: impl FnMut(&[u8]) -> Result<bool, LedgerError>) -> Result<(), LedgerError> {
        let path = self.file();
        let file = self.open_read()?;
        let mut end = file.metadata().at("examine", &path)?.len();
        let mut carry: Vec<u8> = Vec::new();
        let mut complete = false;
        while end > 0 {
            let start = end.saturating_sub(256 << 10);
            let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
            file.read_exact_at(&mut block, start).at("read", &path)?;
            block.append(&mut carry);
            // Everything after the first line feed of the block is whole lines; what stands
            // before it goes with the block before.
            let cut =
                if start == 0 { 0 } else { block.iter().position(|b| *b == b'\n').map_or(block.len(), |p| p + 1) };
            let rest = block.split_off(cut);
            carry = block;
            let mut lines: Vec<&[u8]> = rest.split(|b| *b == b'\n').collect();
            if !complete && !lines.is_empty() {
                // What follows the last line feed of the file: nothing, or a line being written.
                lines.pop();
                complete = !rest.is_empty();
            }
            for line in lines.into_iter().rev().filter(|l| !l.is_empty()) {
                if enough(line)? {
                    return Ok(());
                }
            }
            end = start;
        }
        Ok(())
    }

    /// All receipts of the file from byte `offset` on, which must be the start of a line.
    pub fn from(&self, offset: u64) -> Result<Follow, LedgerError> {
        let path = self.file();
        let mut file = self.open_read()?;
        file.seek(SeekFrom::Start(offset)).at("read", &path)?;
        Ok(Follow { reader: BufReader::with_capacity(256 << 10, file), partial: Vec::new() })
    }
}

fn parse(line: &[u8]) -> Result<Receipt, LedgerError> {
    format::parse(line).map_err(|reason| LedgerError::BrokenHead { reason })
}

/// Reads receipts forward; after the end it can be asked again when the file has grown.
#[derive(Debug)]
pub struct Follow {
    reader: BufReader<File>,
    partial: Vec<u8>,
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
        let read = self.reader.read_until(b'\n', &mut self.partial);
        read.map_err(|source| LedgerError::NotWritten { source })?;
        if self.partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.partial.pop();
        Ok(Some(std::mem::take(&mut self.partial)))
    }
}
