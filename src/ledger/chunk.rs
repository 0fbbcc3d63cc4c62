//! Reading a ledger in chunks of whole lines, for many threads at once.
//!
//! Reads, not mmap: a file that shrinks under a map raises SIGBUS. Whoever is free takes the next
//! chunk under a lock and works on it outside, so memory does not grow with the ledger.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::format::MAX_LINE;

/// How much is read at a time: a chunk and the hash state of a thread fit into its cache.
const CHUNK: usize = 256 << 10;

/// Whole lines of a ledger.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Its place among the chunks.
    pub(super) index: u64,
    /// The lines, each with its line feed.
    pub(super) bytes: Vec<u8>,
    /// What follows the last line feed of the file.
    pub(super) end: End,
}

/// How a chunk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum End {
    /// Another one follows.
    #[default]
    More,
    /// The file is over.
    Clean,
    /// The file ends with this many bytes that are no whole line.
    Torn(usize),
    /// The next line is longer than a line may be.
    Endless,
}

/// Where chunks come from.
#[derive(Debug)]
pub(super) struct Source {
    file: io::Take<File>,
    /// The beginning of a line whose end was not read yet.
    carry: Vec<u8>,
    index: u64,
    over: bool,
}

impl Source {
    /// Everything from byte `offset` up to where the file ends now: what is appended later is
    /// none of this reader's business.
    pub(super) fn new(mut file: File, offset: u64) -> io::Result<Self> {
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file: file.take(len.saturating_sub(offset)), carry: Vec::new(), index: 0, over: false })
    }

    /// Fills `chunk` with the next lines; `false` when there are none.
    pub(super) fn next(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        chunk.bytes.clear();
        if self.over {
            return Ok(false);
        }
        chunk.index = self.index;
        self.index += 1;
        chunk.bytes.append(&mut self.carry);
        loop {
            let room = CHUNK.saturating_sub(chunk.bytes.len()).max(CHUNK / 4);
            let before = chunk.bytes.len();
            self.file.by_ref().take(room as u64).read_to_end(&mut chunk.bytes)?;
            let read = chunk.bytes.len() - before;
            if let Some(feed) = memchr::memrchr(b'\n', &chunk.bytes[before..]) {
                self.carry.extend_from_slice(&chunk.bytes[before + feed + 1..]);
                chunk.bytes.truncate(before + feed + 1);
                if read == room {
                    chunk.end = End::More;
                    return Ok(true);
                }
            } else {
                self.carry.append(&mut chunk.bytes);
            }
            if read < room {
                self.over = true;
                chunk.end = match self.carry.len() {
                    0 => End::Clean,
                    n if n > MAX_LINE => End::Endless,
                    n => End::Torn(n),
                };
                return Ok(true);
            }
            // A line that goes on: what there is of it stays in front.
            chunk.bytes.append(&mut self.carry);
            if chunk.bytes.len() > MAX_LINE + 1 {
                (self.over, chunk.end) = (true, End::Endless);
                chunk.bytes.clear();
                return Ok(true);
            }
        }
    }
}
