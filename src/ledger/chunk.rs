//! Reading a ledger in chunks of whole lines, for many threads at once.
//!
//! Reads, not mmap: a file that shrinks under a map raises SIGBUS. Whoever is free takes the next
//! chunk under a lock and works on it outside, so memory does not grow with the ledger.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::format::MAX_LINE;

/// How much is read at a time: a chunk and the hash state of a thread fit into its cache.
const CHUNK: usize = 256 << 10;

/// Whole lines of one file of a ledger.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Its place among the chunks.
    pub(super) index: u64,
    /// The number of its segment; 0 where that is not known.
    pub(super) segment: u32,
    /// The name of its segment, if it is a sealed one.
    pub(super) name: Option<String>,
    /// Its first line is the first of the file.
    pub(super) begins: bool,
    /// The lines, each with its line feed.
    pub(super) bytes: Vec<u8>,
    /// What follows the last line feed.
    pub(super) end: End,
}

/// How a chunk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum End {
    /// Another one follows, or nothing.
    #[default]
    Clean,
    /// The last file ends with this many bytes that are no whole line.
    Torn(usize),
    /// The same in a file that another one follows.
    Cut(usize),
    /// The next line is longer than a line may be.
    Endless,
}

/// One file of a ledger, as far as it is to be read.
pub(super) struct Part<'a> {
    pub(super) segment: u32,
    pub(super) name: Option<String>,
    pub(super) reader: Box<dyn Read + Send + 'a>,
    /// It is read from its beginning.
    pub(super) whole: bool,
}

/// Where chunks come from.
pub(super) struct Source<'a> {
    parts: VecDeque<Part<'a>>,
    /// The beginning of a line whose end was not read yet.
    carry: Vec<u8>,
    index: u64,
    /// Nothing of the first part was read yet.
    fresh: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(parts: impl IntoIterator<Item = Part<'a>>) -> Self {
        Self { parts: parts.into_iter().collect(), carry: Vec::new(), index: 0, fresh: true }
    }

    /// Fills `chunk` with the next lines; `false` when there are none.
    pub(super) fn next(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        chunk.bytes.clear();
        let Some(part) = self.parts.front_mut() else { return Ok(false) };
        chunk.index = self.index;
        self.index += 1;
        (chunk.segment, chunk.name) = (part.segment, part.name.clone());
        chunk.begins = std::mem::take(&mut self.fresh) && part.whole;
        chunk.end = End::Clean;
        chunk.bytes.append(&mut self.carry);
        loop {
            let room = CHUNK.saturating_sub(chunk.bytes.len()).max(CHUNK / 4);
            let before = chunk.bytes.len();
            part.reader.by_ref().take(room as u64).read_to_end(&mut chunk.bytes)?;
            let read = chunk.bytes.len() - before;
            if let Some(feed) = memchr::memrchr(b'\n', &chunk.bytes[before..]) {
                self.carry.extend_from_slice(&chunk.bytes[before + feed + 1..]);
                chunk.bytes.truncate(before + feed + 1);
                if read == room {
                    return Ok(true);
                }
            } else {
                self.carry.append(&mut chunk.bytes);
            }
            if read < room {
                self.parts.pop_front();
                self.fresh = true;
                chunk.end = match self.carry.len() {
                    0 => End::Clean,
                    n if n > MAX_LINE => End::Endless,
                    n if self.parts.is_empty() => End::Torn(n),
                    n => End::Cut(n),
                };
                return Ok(true);
            }
            // A line that goes on: what there is of it stays in front.
            chunk.bytes.append(&mut self.carry);
            if chunk.bytes.len() > MAX_LINE + 1 {
                self.parts.clear();
                chunk.end = End::Endless;
                chunk.bytes.clear();
                return Ok(true);
            }
        }
    }
}
