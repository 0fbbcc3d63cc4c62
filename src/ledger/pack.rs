//! Sealed segments become small, and whoever knows what their files are need not read them again.
//!
//! `ledger.opened` has the digest of the segment before it, and `ledger.packed` those of the compressed files. An
//! anchor that covers such a receipt says of every byte before the open segment what it is, without unpacking it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

use super::segment::{self, Segment};
use super::verify::Since;
use super::{Ledger, LedgerError, disk, format, packed};
use crate::domain::Digest;
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{Body, Entry, Kind, LedgerOpened, LedgerPacked};
use crate::sys::files::{self, At};
use crate::sys::lock;

impl Ledger {
    /// Compresses sealed segments, one after the other; each keeps its bytes, which are compared
    /// before the plain file goes. Costs a listing when there is nothing to do.
    pub fn pack(&self) -> Result<(), LedgerError> {
        let plain: Vec<Segment> = self.sealed()?.into_iter().filter(|s| !s.packed).collect();
        if plain.is_empty() {
            return Ok(());
        }
        let Some(_lock) = lock::try_exclusive(&self.folder.join("PACK"))? else { return Ok(()) };
        for segment in plain {
            let failed = |source| LedgerError::NotWritten { source };
            let bytes = segment.read().at("read", &segment.path)?;
            let bytes_packed = packed::compress(&bytes).map_err(failed)?;
            let mut path = segment.path.clone().into_os_string();
            path.push(".zst");
            let packed_segment = Segment { path: path.into(), packed: true, ..segment.clone() };
            disk::publish(&packed_segment.path, &bytes_packed).map_err(failed)?;
            if packed_segment.read().at("read", &packed_segment.path)? == bytes {
                files::remove(&segment.path)?;
            }
        }
        let Some(files) = self.packed_files().at("read", &self.folder)? else { return Ok(()) };
        let packed = LedgerPacked { segment: u32::try_from(files.len()).unwrap_or(u32::MAX), files };
        match self.append(&[Entry::ledger(Body::LedgerPacked(packed))]) {
            // Compressed anew, and said before: those who hold the files against it read them whole.
            Ok(_) | Err(LedgerError::Conflict { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// The digests of the compressed files, if every sealed segment is one and holds what the segment after it says.
    fn packed_files(&self) -> io::Result<Option<Vec<Digest>>> {
        let Some(all) = segment::open_all(&self.folder)? else { return Ok(None) };
        let mut files = Vec::new();
        for ((segment, file), (after, next)) in all.iter().zip(all.iter().skip(1)) {
            let (bytes, next) = (all_of(file)?, first_line(after, next)?);
            let told = format::parse(&next).ok().map(|receipt| receipt.body);
            let Some(Body::LedgerOpened(LedgerOpened { sha256, .. })) = told else { return Ok(None) };
            if !segment.packed || Digest::of(&zstd::stream::decode_all(&bytes[..])?) != sha256 {
                return Ok(None);
            }
            files.push(Digest::of(&bytes));
        }
        Ok(Some(files).filter(|files| !files.is_empty()))
    }

    /// Where a verification may begin if the first `anchored` receipts are known to be what they are: at the open
    /// segment, where one of these receipts says what the files of all others are, and that is what they are.
    pub fn after_packed(&self, anchored: u64, ledger: &str) -> Option<Since> {
        let all = segment::open_all(&self.folder).ok()??;
        let ((open, file), sealed) = all.split_last()?;
        if sealed.is_empty() || open.packed || !sealed.iter().all(|(segment, _)| segment.packed) {
            return None;
        }
        let bytes = all_of(file).ok()?;
        let first = format::parse(&bytes[..memchr::memchr(b'\n', &bytes)?]).ok()?;
        let Body::LedgerOpened(opened) = first.body else { return None };
        let needle = format!(",\"kind\":\"{}\"", Kind::LedgerPacked.word());
        let told = memchr::memmem::find_iter(&bytes, &needle).filter_map(|at| {
            let begin = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |feed| feed + 1);
            let end = at + memchr::memchr(b'\n', &bytes[at..])?;
            let receipt = format::parse(&bytes[begin..end]).ok().filter(|receipt| receipt.seq < anchored)?;
            if let Body::LedgerPacked(packed) = receipt.body { Some(packed.files) } else { None }
        });
        let files = told.last().filter(|files| files.len() == sealed.len())?;
        for ((_, file), told) in sealed.iter().zip(files) {
            if Digest::of(&all_of(file).ok()?) != told {
                return None;
            }
        }
        let tree = CompactRange::from_nodes(first.seq, &opened.nodes)?;
        Some(Since { tree, head: first.prev, segment: open.number, offset: 0, ledger: ledger.to_owned() })
    }
}

fn all_of(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from_start(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn first_line(segment: &Segment, file: &File) -> io::Result<Vec<u8>> {
    let (mut line, reader) = (Vec::new(), segment::unpacked(from_start(file)?, segment.packed)?);
    BufReader::new(reader.take(format::MAX_LINE as u64 + 1)).read_until(b'\n', &mut line)?;
    line.pop();
    Ok(line)
}

fn from_start(file: &File) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
}
