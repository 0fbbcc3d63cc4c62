//! The terminal behind an interactive worker: it answers device queries with nobody attached,
//! keeps the current screen, and hears the status reports that CLIs make to their terminal.

mod plain;
mod reply;
mod scan;

use std::collections::BTreeMap;
use std::num::NonZeroU16;

pub use plain::Plain;
use scan::{Piece, Scanner};

use crate::domain::event::Notice;
use crate::sys::pty::Size;

/// What became of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// What the worker gets to read: answers to its queries.
    pub replies: Vec<u8>,
    /// What viewers get to see: everything but the queries, which their terminals would answer too.
    pub shown: Vec<u8>,
    /// What was told.
    pub notices: Vec<Notice>,
}

/// A terminal.
pub struct Screen {
    scanner: Scanner,
    emulator: vt100::Parser,
    /// Private modes that the emulator does not keep and a viewer's terminal must be put into.
    modes: BTreeMap<u16, bool>,
    /// Flags of the kitty keyboard protocol, as pushed (`CSI > flags u`).
    keyboard: Vec<u16>,
    title: String,
    /// A progress bar is shown.
    progress: bool,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("size", &self.size()).field("title", &self.title).finish_non_exhaustive()
    }
}

/// Modes that a viewer's terminal needs and vt100 does not keep: focus events, sideways wheel,
/// colour scheme reports.
const KEPT: [u16; 3] = [1004, 1007, 2031];

/// Puts a terminal back as it was before a viewer attached.
pub const RESTORE: &[u8] = b"\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1004l\x1b[?1007l\
\x1b[?2004l\x1b[?2031l\x1b[?1l\x1b>\x1b[<9u\x1b[>4m\x1b[0 q\x1b[r\x1b[0m\x1b[?25h\x1b[999;1H\r\n";

fn cells(size: Size) -> (NonZeroU16, NonZeroU16) {
    let size = size.sane();
    (NonZeroU16::new(size.rows).unwrap_or(NonZeroU16::MIN), NonZeroU16::new(size.cols).unwrap_or(NonZeroU16::MIN))
}

impl Screen {
    /// An empty screen. No lines are kept above it: the recording has them.
    pub fn new(size: Size) -> Self {
        let (rows, cols) = cells(size);
        Self {
            scanner: Scanner::default(),
            emulator: vt100::Parser::new(rows, cols, 0),
            modes: BTreeMap::new(),
            keyboard: Vec::new(),
            title: String::new(),
            progress: false,
        }
    }

    /// Its size.
    pub fn size(&self) -> Size {
        let (rows, cols) = self.emulator.screen().size();
        Size { cols: cols.get(), rows: rows.get() }
    }

    /// Changes the size.
    pub fn resize(&mut self, size: Size) {
        let (rows, cols) = cells(size);
        self.emulator.set_size(rows, cols);
    }

    /// Whether pasted text is to be bracketed (DECSET 2004).
    pub fn brackets_paste(&self) -> bool {
        self.emulator.screen().bracketed_paste()
    }

    /// The visible text, one line a row, blanks at the ends cut.
    pub fn text(&self) -> String {
        let cols = self.size().cols;
        let rows: Vec<String> = self.emulator.screen().rows(0, cols).map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }

    /// Takes the worker's output.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut fed = Fed { shown: Vec::with_capacity(bytes.len()), ..Fed::default() };
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.take(bytes, |piece| match piece {
            Piece::Text(text) => {
                if memchr::memchr(0x07, text).is_some() {
                    fed.notices.push(Notice::Bell);
                }
                self.emulator.process(text);
                fed.shown.extend_from_slice(text);
            }
            Piece::Sequence(sequence) => self.sequence(sequence, &mut fed),
        });
        self.scanner = scanner;
        fed
    }

    fn sequence(&mut self, sequence: &[u8], fed: &mut Fed) {
        if let Some(reply) = reply::to(sequence, self.emulator.screen(), self.keyboard.last().copied().unwrap_or(0)) {
            fed.replies.extend_from_slice(&reply);
            return;
        }
        if let Some(rest) = sequence.strip_prefix(b"\x1b]")
            && !self.operating_system_command(rest, fed)
        {
            return;
        }
        if sequence.starts_with(b"\x1b[") {
            self.keep_modes(sequence);
        }
        self.emulator.process(sequence);
        fed.shown.extend_from_slice(sequence);
    }

    /// Whether viewers see it.
    fn operating_system_command(&mut self, rest: &[u8], fed: &mut Fed) -> bool {
        let body = rest.strip_suffix(b"\x1b\\").or_else(|| rest.strip_suffix(b"\x07")).unwrap_or(rest);
        let text = String::from_utf8_lossy(body);
        let Some((number, value)) = text.split_once(';') else { return true };
        match number {
            "7501" => {
                fed.notices.push(Notice::Status(value.to_owned()));
                return false;
            }
            "0" | "2" if self.title != value => {
                value.clone_into(&mut self.title);
                fed.notices.push(Notice::Title(value.to_owned()));
            }
            // `9;4;…` is a progress bar, repeated as long as it is there; 0 takes it away.
            "9" if value.starts_with("4;") => {
                let on = value != "4;0" && !value.starts_with("4;0;");
                if std::mem::replace(&mut self.progress, on) != on {
                    fed.notices.push(Notice::Progress(on));
                }
            }
            "9" | "777" => fed.notices.push(Notice::Notification(value.to_owned())),
            _ => {}
        }
        true
    }

    fn keep_modes(&mut self, sequence: &[u8]) {
        let Ok(text) = std::str::from_utf8(&sequence[2..]) else { return };
        let numbers = |list: &str| list.split(';').filter_map(|n| n.parse::<u16>().ok()).collect::<Vec<_>>();
        if let Some(list) = text.strip_prefix('?').and_then(|t| t.strip_suffix(['h', 'l'])) {
            let kept = numbers(list).into_iter().filter(|mode| KEPT.contains(mode));
            self.modes.extend(kept.map(|mode| (mode, text.ends_with('h'))));
        } else if let Some(flags) = text.strip_prefix('>').and_then(|t| t.strip_suffix('u')) {
            // Bounded as in terminals: the oldest entry goes.
            if self.keyboard.len() == 8 {
                self.keyboard.remove(0);
            }
            self.keyboard.push(flags.parse().unwrap_or(0));
        } else if let Some(count) = text.strip_prefix('<').and_then(|t| t.strip_suffix('u')) {
            let left = self.keyboard.len().saturating_sub(count.parse().unwrap_or(1));
            self.keyboard.truncate(left);
        }
    }

    /// What a terminal of another size needs to show the part that it has room for, changed rows only:
    /// `shown` holds what it shows now, empty for a terminal that is new to this.
    pub fn cropped(&self, size: Size, shown: &mut Vec<String>) -> Vec<u8> {
        let screen = self.emulator.screen();
        let mut frame = Vec::new();
        if shown.is_empty() {
            frame.extend_from_slice(b"\x1b[?1049h\x1b[r\x1b[0m\x1b[2J");
            frame.extend_from_slice(screen.input_mode_formatted().as_bytes());
        }
        let width = size.cols.min(self.size().cols);
        let rows: Vec<String> = screen.rows_formatted(0, width).take(size.rows.into()).collect();
        for (at, row) in rows.iter().enumerate().filter(|(at, row)| shown.get(*at) != Some(row)) {
            frame.extend_from_slice(format!("\x1b[{};1H\x1b[0m\x1b[2K{row}\x1b[0m", at + 1).as_bytes());
        }
        if frame.is_empty() && *shown == rows {
            return frame;
        }
        *shown = rows;
        let (row, col) = screen.cursor_position();
        let visible = !screen.hide_cursor() && row < size.rows && col < size.cols;
        let cursor = if visible { format!("\x1b[{};{}H\x1b[?25h", row + 1, col + 1) } else { "\x1b[?25l".to_owned() };
        [b"\x1b[?2026h", frame.as_slice(), cursor.as_bytes(), b"\x1b[?2026l"].concat()
    }

    /// Everything that a terminal needs to show the current state, as one frame.
    pub fn snapshot(&self) -> Vec<u8> {
        let screen = self.emulator.screen();
        // Synchronised output, so that the frame appears at once where terminals know it.
        let mut frame = b"\x1b[?2026h".to_vec();
        if screen.alternate_screen() {
            frame.extend_from_slice(b"\x1b[?1049h");
        }
        frame.extend_from_slice(screen.state_formatted().as_bytes());
        let title: String = self.title.chars().filter(|c| !c.is_control()).collect();
        if !title.is_empty() {
            frame.extend_from_slice(format!("\x1b]2;{title}\x1b\\").as_bytes());
        }
        for (mode, on) in &self.modes {
            frame.extend_from_slice(format!("\x1b[?{mode}{}", if *on { 'h' } else { 'l' }).as_bytes());
        }
        for flags in &self.keyboard {
            frame.extend_from_slice(format!("\x1b[>{flags}u").as_bytes());
        }
        frame.extend_from_slice(b"\x1b[?2026l");
        frame
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn screen() -> Screen {
        Screen::new(Size { cols: 40, rows: 5 })
    }

    #[test]
    fn queries_are_answered_and_not_shown() {
        let mut screen = screen();
        let fed = screen.feed(b"ab\x1b[6n\x1b]7501;?\x1b\\\x1b[cc\x1b[31m");
        assert_eq!(fed.replies, b"\x1b[1;3R\x1b]7501;?\x1b\\\x1b[?62;22c");
        assert_eq!(fed.shown, b"abc\x1b[31m");
        assert_eq!(fed.notices, []);
        assert_eq!(screen.text(), "abc");
    }

    #[test]
    fn reports_and_titles_are_heard() {
        let fed =
            screen().feed(b"\x1b]7501;state=working:app=claude\x1b\\\x1b]0;hello\x07\x07\x1b]777;notify;a;b\x1b\\");
        let want = [
            Notice::Status("state=working:app=claude".into()),
            Notice::Title("hello".into()),
            Notice::Bell,
            Notice::Notification("notify;a;b".into()),
        ];
        assert_eq!(fed.notices, want);
        assert_eq!(fed.shown, b"\x1b]0;hello\x07\x07\x1b]777;notify;a;b\x1b\\");
    }

    #[test]
    fn a_progress_bar_is_told_when_it_comes_and_when_it_goes() {
        let fed = screen().feed(b"\x1b]9;4;0\x07\x1b]9;4;3\x07\x1b]9;4;1;50\x07\x1b]9;4;0;0\x07\x1b]9;words\x07");
        let want = [Notice::Progress(true), Notice::Progress(false), Notice::Notification("words".into())];
        assert_eq!(fed.notices, want);
    }

    /// A panic here would end a supervisor, and with it the worker.
    #[test]
    fn fuzz_a_terminal() {
        let samples = crate::domain::fuzz::samples_in("fuzz/seeds/screen");
        let mut screen = screen();
        crate::domain::fuzz::fuzz(&samples, |bytes| {
            let size = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(9));
            screen.feed(bytes);
            screen.resize(Size { cols: size(0) % 90, rows: size(1) % 40 });
            let mut other = Screen::new(screen.size());
            other.feed(&screen.snapshot());
            assert_eq!(other.text().len(), screen.text().len());
            screen.cropped(Size { cols: size(2), rows: size(3) }, &mut Vec::new());
        });
    }

    #[test]
    fn a_snapshot_makes_the_same_screen() {
        let mut one = screen();
        one.feed(
            "\x1b[?1049h\x1b[?2004h\x1b[?1004h\x1b[>1u\x1b[2;3H\x1b[1;38;2;1;2;3mbold 漢\x1b[0m\x1b[?25l".as_bytes(),
        );
        let mut two = screen();
        two.feed(&one.snapshot());
        assert_eq!(two.text(), one.text());
        assert_eq!(two.snapshot(), one.snapshot());
        assert!(two.brackets_paste());
    }

    proptest! {
        /// A panic here would end a supervisor, and with it the worker.
        #[test]
        fn no_stream_and_no_size_makes_it_panic(
            parts in proptest::collection::vec((proptest::collection::vec(prop_oneof![
                Just(b"\x1b[".to_vec()), Just(b";".to_vec()), Just(b"9999".to_vec()), Just(b"\x1b]".to_vec()), Just(b"\x1b[?1049h".to_vec()),
                Just(b"\x1b[?6h\x1b[2;4r".to_vec()), Just(b"\x1b[?1049l".to_vec()), Just("漢🙂\u{301}".as_bytes().to_vec()),
                proptest::collection::vec(any::<u8>(), 0..4), proptest::collection::vec(0x40_u8..0x7f, 1..2)
            ], 0..40), 0_u16..30, 0_u16..30), 0..6)
        ) {
            let mut screen = screen();
            for (stream, cols, rows) in parts {
                screen.feed(&stream.concat());
                screen.resize(Size { cols, rows });
                let snapshot = screen.snapshot();
                let mut other = Screen::new(screen.size());
                other.feed(&snapshot);
                screen.text();
            }
        }
    }
}
