//! The files of a ledger as a verification reads them, and where a proven state ends in them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::chunk::Part;
use super::format::{self, MAX_LINE};
use super::report::{Position, Since};
use super::segment::{self, Segment};
use crate::domain::receipt::Kind;

/// The files of a ledger, opened once: what is sealed or appended meanwhile changes nothing.
pub(super) struct Files(pub(super) Vec<(Segment, File, u64)>);

impl Files {
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let all = if path.is_dir() {
            segment::open_all(path)?
        } else {
            let packed = path.extension().is_some_and(|e| e == "zst");
            let only = Segment { number: 0, path: path.to_owned(), packed };
            match only.open() {
                Ok(file) => Some(vec![(only, file)]),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            }
        };
        let Some(all) = all else { return Ok(None) };
        let measured = all.into_iter().map(|(s, f)| f.metadata().map(|m| (s, f, m.len())));
        measured.collect::<io::Result<Vec<_>>>().map(|files| Some(Self(files)))
    }

    /// Whether anybody wrote since they were opened, as far as their lengths tell.
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(_, file, len)| file.metadata().map_or(true, |now| now.len() != *len))
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(_, _, len)| len).sum()
    }

    /// What is to be read, from byte `offset` of segment `number` on.
    pub(super) fn parts(&self, number: u32, offset: u64) -> io::Result<Vec<Part<'_>>> {
        let from = self.0.iter().filter(|(s, ..)| s.number >= number);
        from.map(|(segment, file, len)| {
            let skip = if segment.number == number { offset } else { 0 };
            let mut file = file.try_clone()?;
            file.seek(SeekFrom::Start(if segment.packed { 0 } else { skip }))?;
            let reader: Box<dyn Read + Send> = if segment.packed {
                let mut reader = segment::unpacked(file, true)?;
                io::copy(&mut reader.by_ref().take(skip), &mut io::sink())?;
                reader
            } else {
                Box::new(file.take(len.saturating_sub(skip)))
            };
            Ok(Part { segment: segment.number, name: segment.name(), reader, whole: skip == 0 })
        })
        .collect()
    }

    /// Where a proven state ends, with its file and what lies before that.
    pub(super) fn within(&self, since: &Since) -> Position {
        let name = self.0.iter().find(|(s, ..)| s.number == since.segment).and_then(|(s, ..)| s.name());
        let first = || {
            let part = self.parts(since.segment, 0).ok()?.into_iter().next()?;
            let mut line = Vec::new();
            BufReader::new(part.reader.take(MAX_LINE as u64)).read_until(b'\n', &mut line).ok()?;
            Some(format::links(line.strip_suffix(b"\n")?).ok()?.seq)
        };
        Position { segment: since.segment, name, offset: since.offset, before: first().unwrap_or_default() }
    }

    /// Whether what is proven ends with a segment; `None` if the line before where it ends is not the last that is proven.
    /// Where it ends with a file, the first line of the next one has to follow it, as everywhere.
    pub(super) fn ends_at(&self, since: &Since) -> Option<bool> {
        if since.offset == 0 {
            return Some(true);
        }
        let start = since.offset.saturating_sub(MAX_LINE as u64 + 2);
        let mut before = Vec::new();
        let part = self.parts(since.segment, start).ok()?.into_iter().find(|p| p.segment == since.segment)?;
        part.reader.take(since.offset - start).read_to_end(&mut before).ok()?;
        let whole = before.strip_suffix(b"\n").filter(|_| before.len() as u64 == since.offset - start)?;
        let links = format::links(&whole[memchr::memrchr(b'\n', whole).map_or(0, |at| at + 1)..]).ok()?;
        let proven = links.seq + 1 == since.tree.end() && links.sound_hash() == Ok(since.head);
        proven.then(|| links.says(Kind::LedgerSealed))
    }
}
