//! Where lines stand, for whoever keeps an index of them. A place stays what it is when its segment is
//! sealed and when it is compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::{Ledger, LedgerError, packed, segment};
use crate::sys::files::At;

/// Where a line begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of its segment, from 1.
    pub segment: u32,
    /// The byte in it, as a file that is not compressed.
    pub offset: u64,
}

impl Ledger {
    /// Shows `each` the complete lines from `from` on, each with its place and without its line feed.
    pub fn walk<E: From<LedgerError>>(
        &self,
        from: Place,
        mut each: impl FnMut(Place, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let segments = self.open_segments()?;
        let mut line = Vec::new();
        for (segment, file) in segments.into_iter().filter(|(s, _)| s.number >= from.segment) {
            let skip = if segment.number == from.segment { from.offset } else { 0 };
            let read = |result: io::Result<usize>| result.at("read", &segment.path).map_err(LedgerError::from);
            let mut place = Place { segment: segment.number, offset: skip };
            let reader = skipped(file, segment.packed, skip).at("read", &segment.path).map_err(LedgerError::from)?;
            let mut reader = BufReader::with_capacity(256 << 10, reader);
            loop {
                line.clear();
                let n = read(reader.read_until(b'\n', &mut line))?;
                let Some(text) = line.strip_suffix(b"\n") else { break };
                each(place, text)?;
                place.offset += n as u64;
            }
        }
        Ok(())
    }

    /// The lines at these places, which are ascending; one that is not there is empty.
    pub fn lines_at(&self, places: &[Place]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let segments = self.open_segments()?;
        let mut lines = Vec::with_capacity(places.len());
        for here in places.chunk_by(|a, b| a.segment == b.segment) {
            let found = segments.iter().find(|(s, _)| here.first().is_some_and(|p| p.segment == s.number));
            match found {
                None => lines.extend(here.iter().map(|_| Vec::new())),
                Some((segment, file)) if segment.packed => {
                    let mut packed = Vec::new();
                    let read = (&*file).read_to_end(&mut packed).and_then(|_| packed::lines_at(&packed, here));
                    lines.append(&mut read.at("read", &segment.path)?);
                }
                Some((segment, file)) => {
                    for place in here {
                        lines.push(line_at(file, place.offset).at("read", &segment.path)?);
                    }
                }
            }
        }
        Ok(lines)
    }
}

fn skipped(mut file: File, packed: bool, skip: u64) -> io::Result<Box<dyn Read + Send>> {
    if packed {
        let mut reader = segment::unpacked(file, true)?;
        io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
        return Ok(reader);
    }
    file.seek(SeekFrom::Start(skip))?;
    Ok(Box::new(file))
}

fn line_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let (mut line, mut block) = (Vec::new(), vec![0; 4 << 10]);
    loop {
        let read = file.read_at(&mut block, offset + line.len() as u64)?;
        if let Some(feed) = memchr::memchr(b'\n', &block[..read]) {
            line.extend_from_slice(&block[..feed]);
            return Ok(line);
        }
        if read == 0 || line.len() > super::format::MAX_LINE {
            return Ok(Vec::new());
        }
        line.extend_from_slice(&block[..read]);
    }
}
