//! Cutting a terminal stream into text and whole control sequences, whatever the chunks.
//!
//! The grammar is that of ECMA-48 as DEC terminals read it (the state diagram of
//! <https://vt100.net/emu/dec_ansi_parser>), UTF-8 only: no 8-bit controls.

/// Longest control sequence that is held back; a longer one passes in pieces, as text.
const MAX: usize = 64 << 10;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'b> {
    /// Printable bytes and single controls; may end in the middle of a UTF-8 character.
    Text(&'b [u8]),
    /// One whole sequence, its introducer and terminator included.
    Sequence(&'b [u8]),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After ESC, and after its intermediates.
    Escape,
    /// CSI parameters.
    Csi,
    /// OSC, DCS, SOS, PM or APC: ends with ST, OSC also with BEL.
    Text,
    /// After an ESC within one of those.
    TextEscape,
    /// The same two, of a string that was too long to hold.
    Long,
    LongEscape,
}

/// The splitter.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    state: State,
    held: Vec<u8>,
}

impl Scanner {
    /// Takes bytes and hands out what is complete, in order.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            if self.state == State::Ground {
                let at = memchr::memchr(0x1b, bytes).unwrap_or(bytes.len());
                let (text, rest) = bytes.split_at(at);
                if !text.is_empty() {
                    each(Piece::Text(text));
                }
                bytes = rest;
                if let [_, rest @ ..] = bytes {
                    self.held.push(0x1b);
                    self.state = State::Escape;
                    bytes = rest;
                }
                continue;
            }
            let (byte, rest) = (bytes[0], &bytes[1..]);
            if self.restarts(byte) {
                // The sequence is broken off; a terminal ignores it, and so may whoever reads text.
                each(Piece::Text(&self.held));
                self.held.clear();
                self.state = State::Ground;
                if byte != 0x1b {
                    bytes = rest;
                    each(Piece::Text(&[byte]));
                }
                continue;
            }
            bytes = rest;
            self.held.push(byte);
            self.state = self.next(byte);
            let is_long = matches!(self.state, State::Long | State::LongEscape);
            match self.state {
                State::Ground => each(Piece::Sequence(&self.held)),
                _ if is_long || self.held.len() >= MAX => each(Piece::Text(&self.held)),
                _ => continue,
            }
            self.held.clear();
            match self.state {
                State::Text => self.state = State::Long,
                State::TextEscape => self.state = State::LongEscape,
                State::Escape | State::Csi => self.state = State::Ground,
                State::Ground | State::Long | State::LongEscape => {}
            }
        }
    }

    /// CAN and SUB break a sequence off; so does ESC, which begins another one.
    fn restarts(&self, byte: u8) -> bool {
        match self.state {
            State::Escape | State::Csi => matches!(byte, 0x18 | 0x1a | 0x1b),
            State::Text | State::Long => matches!(byte, 0x18 | 0x1a),
            // ESC within a string ends it; with anything but a backslash a new sequence begins.
            State::TextEscape | State::LongEscape | State::Ground => false,
        }
    }

    fn next(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::Escape, b'[') if self.held.len() == 2 => State::Csi,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') if self.held.len() == 2 => State::Text,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Csi, 0x20..=0x3f) => State::Csi,
            (State::Text, 0x07) if self.held.get(1) == Some(&b']') => State::Ground,
            (State::Long, 0x07) => State::Ground,
            (State::Text, 0x1b) => State::TextEscape,
            (State::Long, 0x1b) => State::LongEscape,
            // A control within a sequence acts at once and the sequence goes on: kept together here.
            (State::Escape | State::Csi, 0..=0x1f) | (State::Text | State::Long, _) => self.state,
            _ => State::Ground,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(bytes: &[u8], chunk: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut scanner, mut text, mut sequences) = (Scanner::default(), Vec::new(), Vec::new());
        for chunk in bytes.chunks(chunk) {
            scanner.take(chunk, |piece| match piece {
                Piece::Text(t) => text.extend_from_slice(t),
                Piece::Sequence(s) => sequences.push(s.to_vec()),
            });
        }
        (text, sequences)
    }

    #[test]
    fn sequences_are_whole_whatever_the_chunks() {
        let stream = b"a\x1b[1;31mb\x1b]0;title\x07c\x1b]7501;?\x1b\\d\x1b(0e\x1bP+q544e\x1b\\f\x1b7g\x1b[?2026$p";
        let want: [&[u8]; 7] = [
            b"\x1b[1;31m",
            b"\x1b]0;title\x07",
            b"\x1b]7501;?\x1b\\",
            b"\x1b(0",
            b"\x1bP+q544e\x1b\\",
            b"\x1b7",
            b"\x1b[?2026$p",
        ];
        for chunk in 1..stream.len() {
            let (text, sequences) = pieces(stream, chunk);
            assert_eq!((text.as_slice(), sequences.len()), (&b"abcdefg"[..], 7), "chunks of {chunk}");
            assert_eq!(sequences, want, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_broken_off_sequence_and_an_endless_one_hold_nothing_back() {
        let (text, sequences) = pieces(b"\x1b[12\x18x\x1b[3\x1b[4my", 1);
        assert_eq!((text.as_slice(), sequences), (&b"\x1b[12\x18x\x1b[3y"[..], vec![b"\x1b[4m".to_vec()]));
        let mut endless = b"\x1b]52;c;".to_vec();
        endless.resize(3 * MAX, b'A');
        endless.extend_from_slice(b"\x07after");
        let (text, sequences) = pieces(&endless, 4096);
        assert_eq!(text.len() + sequences.iter().map(Vec::len).sum::<usize>(), endless.len());
        assert!(text.ends_with(b"after"));
    }

    proptest! {
        /// Nothing is lost, doubled or reordered, but what is still held back at the end.
        #[test]
        fn every_byte_comes_out_once(bytes in proptest::collection::vec(prop_oneof![Just(0x1b_u8), Just(b'['), Just(b']'), Just(7), Just(b'\\'), Just(0x18), any::<u8>()], 0..200), chunk in 1_usize..20) {
            let (mut scanner, mut all) = (Scanner::default(), Vec::new());
            for chunk in bytes.chunks(chunk) {
                scanner.take(chunk, |piece| match piece { Piece::Text(b) | Piece::Sequence(b) => all.extend_from_slice(b) });
            }
            all.extend_from_slice(&scanner.held);
            prop_assert_eq!(all, bytes);
        }
    }
}
