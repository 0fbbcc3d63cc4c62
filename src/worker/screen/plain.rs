//! What a program wrote to its terminal, as lines of plain text.
//!
//! Most lines are text and colours, and are read with the sequences cut out. A line in which the cursor
//! moved (a progress bar, an edited line) is drawn, and read from the screen.

use super::Screen;
use super::scan::{Piece, Scanner};
use crate::sys::pty::Size;

/// Longest line that is held back; a program that fills the screen writes no line feeds.
const MAX: usize = 64 << 10;
/// Makes a terminal new (RIS).
const RESET: &[u8] = b"\x1bc";

/// Reads lines.
#[derive(Debug)]
pub struct Plain {
    scanner: Scanner,
    screen: Screen,
    /// The line so far: as it was written, and without its sequences.
    written: Vec<u8>,
    text: Vec<u8>,
    /// A sequence in it did more than to colour.
    moved: bool,
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            scanner: Scanner::default(),
            screen: Screen::new(Size::UNWATCHED),
            written: Vec::new(),
            text: Vec::new(),
            moved: false,
        }
    }
}

impl Plain {
    /// Takes output and hands out every line that ends in it.
    pub fn take(&mut self, output: &str, mut each: impl FnMut(&str)) {
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.take(output.as_bytes(), |piece| match piece {
            Piece::Text(text) => {
                for part in text.split_inclusive(|b| *b == b'\n') {
                    self.written.extend_from_slice(part);
                    self.text.extend_from_slice(part);
                    if part.ends_with(b"\n") || self.written.len() >= MAX {
                        self.finish(&mut each);
                    }
                }
            }
            Piece::Sequence(sequence) => {
                self.written.extend_from_slice(sequence);
                self.moved |= !only_colours(sequence);
                if self.written.len() >= MAX {
                    self.finish(&mut each);
                }
            }
        });
        self.scanner = scanner;
    }

    /// Hands out what stands after the last line feed.
    pub fn finish(&mut self, mut each: impl FnMut(&str)) {
        let text = self.text.trim_ascii_end();
        if self.moved || text.iter().any(|b| matches!(b, b'\r' | 0x08 | 0x0b | 0x0c)) {
            self.screen.feed(RESET);
            self.screen.feed(self.written.trim_ascii_end());
            let drawn = self.screen.text();
            drawn.lines().for_each(&mut each);
        } else if !text.is_empty() || self.written.ends_with(b"\n") {
            each(&String::from_utf8_lossy(text).replace(|c: char| c.is_control() && c != '\t', ""));
        }
        self.written.clear();
        self.text.clear();
        self.moved = false;
    }
}

/// Whether a sequence sets colours (SGR) or tells the terminal something that is not drawn (OSC).
fn only_colours(sequence: &[u8]) -> bool {
    sequence.starts_with(b"\x1b[") && sequence.ends_with(b"m") || sequence.starts_with(b"\x1b]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(output: &str, chunk: usize) -> Vec<String> {
        let (mut plain, mut lines) = (Plain::default(), Vec::new());
        let characters: Vec<char> = output.chars().collect();
        for chunk in characters.chunks(chunk) {
            plain.take(&chunk.iter().collect::<String>(), |line| lines.push(line.to_owned()));
        }
        plain.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn what_was_drawn_is_read_as_lines() {
        let output = "plain\r\n\r\n\x1b[1;32mgreen\x1b[0m 漢字\ta\x07\r\n\x1b]0;title\x07\
            10%\r\x1b[K50%\r\x1b[K100%\r\nabc\x08\x08X\r\n\x1b[2J\x1b[3;4Hhere\r\nend?";
        let want = ["plain", "", "green 漢字\ta", "100%", "aXc", "", "", "   here", "end?"];
        for chunk in [1, 2, 7, 1000] {
            assert_eq!(lines(output, chunk), want, "chunks of {chunk}");
        }
        assert_eq!(lines("", 1), Vec::<String>::new());
    }

    #[test]
    fn a_program_without_line_feeds_is_read_all_the_same() {
        let output = "\x1b[?1049h".to_owned() + &"\x1b[5;5Hdrawn again".repeat(10_000);
        let lines = lines(&output, 4096);
        assert!(lines.len() < 50 && lines.contains(&"    drawn again".to_owned()), "{lines:?}");
    }
}
