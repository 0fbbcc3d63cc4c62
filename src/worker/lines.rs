//! Bytes to lines, with a bound: a worker that never writes a line feed must not fill memory.

/// Longest line that is kept whole; longer ones are cut into pieces.
const MAX: usize = 4 << 20;

/// Splits a stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes and hands out every complete line in them.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&str)) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(at);
            bytes = &rest[1..];
            if self.partial.is_empty() {
                each(&String::from_utf8_lossy(line));
            } else {
                self.partial.extend_from_slice(line);
                each(&String::from_utf8_lossy(&self.partial));
                self.partial.clear();
            }
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() >= MAX {
            self.finish(each);
        }
    }

    /// What stands after the last line feed, once the stream has ended.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            each(&String::from_utf8_lossy(&self.partial));
            self.partial = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_any_chunking() {
        let text = "a\n\nbä\nlong line without end";
        for size in 1..text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            text.as_bytes().chunks(size).for_each(|c| lines.take(c, |l| got.push(l.to_owned())));
            lines.finish(|l| got.push(l.to_owned()));
            assert_eq!(got, ["a", "", "bä", "long line without end"], "chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (mut lines, mut longest) = (Lines::default(), 0);
        for _ in 0..200 {
            lines.take(&[b'x'; 64 << 10], |l| longest = longest.max(l.len()));
        }
        assert!((MAX..=MAX + (64 << 10)).contains(&longest));
    }
}
