//! Sealed segments become small, and whoever knows what their files are need not read them again.

use std::fs::File;
use std::io::{self, Read, Seek};

use super::segment::{self, Segment};
use super::verify::Since;
use super::{Ledger, LedgerError, disk, format, packed};
use crate::domain::Digest;
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::Body;
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
            // A copy that holds something else may be the only sound one: neither is touched, and verification tells.
            if packed_segment.path.symlink_metadata().is_err() {
                disk::publish(&packed_segment.path, &bytes_packed).map_err(failed)?;
            }
            if packed_segment.read().is_ok_and(|packed| packed == bytes) {
                files::remove(&segment.path)?;
            }
        }
        Ok(())
    }

    /// The digests of the files of all sealed segments, oldest first, if all of them are compressed. `None` also where
    /// older ledgers were taken over: their copies are files too.
    pub fn packed_files(&self) -> io::Result<Option<Vec<Digest>>> {
        let Some(all) = segment::open_all(&self.folder)? else { return Ok(None) };
        let Some((_, sealed)) = all.split_last() else { return Ok(None) };
        if sealed.is_empty()
            || !sealed.iter().all(|(segment, _)| segment.packed)
            || self.folder.join("imported").exists()
        {
            return Ok(None);
        }
        sealed.iter().map(|(_, file)| Ok(Digest::of(&all_of(file)?))).collect::<io::Result<_>>().map(Some)
    }

    /// Where a verification may begin if the first `size` receipts are known to be what they are, and the files of all
    /// sealed segments to have held theirs: at the open segment, if that is what the files still are.
    pub fn after_packed(&self, size: u64, files: &[Digest], ledger: &str) -> Option<Since> {
        if self.packed_files().ok()??.as_slice() != files {
            return None;
        }
        let all = segment::open_all(&self.folder).ok()??;
        let (open, file) = all.last().filter(|_| all.len() == files.len() + 1)?;
        let bytes = all_of(file).ok()?;
        let first = format::parse(&bytes[..memchr::memchr(b'\n', &bytes)?]).ok()?;
        let Body::LedgerOpened(opened) = first.body else { return None };
        let tree = CompactRange::from_nodes(first.seq, &opened.nodes).filter(|_| first.seq < size)?;
        Some(Since { tree, head: first.prev, segment: open.number, offset: 0, ledger: ledger.to_owned() })
    }
}

fn all_of(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from_start(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn from_start(file: &File) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
}
