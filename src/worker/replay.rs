//! The text of a recording: what a terminal has shown of it in the end, with what had scrolled off, and the last of a full
//! screen that was left again.

use std::num::NonZeroU16;

use crate::sys::pty::Size;

/// How many rows that have scrolled off are kept.
const SCROLLED: usize = 5_000;

/// How programs leave the alternate screen (xterm's control sequences, DECRST).
const LEAVES: [&str; 3] = ["\x1b[?1049l", "\x1b[?1047l", "\x1b[?47l"];

/// A recording that is played, line by line.
#[derive(Default)]
pub struct Replay {
    emulator: Option<vt100::Parser>,
    /// What stood on full screens that were left.
    left: Vec<String>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("left", &self.left.len()).finish_non_exhaustive()
    }
}

/// Rows and columns, within what a terminal can have.
fn cells(cols: u64, rows: u64) -> (NonZeroU16, NonZeroU16) {
    let number = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    let size = Size { cols: number(cols), rows: number(rows) }.sane();
    (NonZeroU16::new(size.rows).unwrap_or(NonZeroU16::MIN), NonZeroU16::new(size.cols).unwrap_or(NonZeroU16::MIN))
}

fn emulator(cols: u64, rows: u64) -> vt100::Parser {
    let (rows, cols) = cells(cols, rows);
    vt100::Parser::new(rows, cols, SCROLLED)
}

impl Replay {
    /// Plays a line of the recording: its head, an output, or a change of size (asciicast v2).
    pub fn take(&mut self, line: &[u8]) {
        if let Ok((_at, kind, text)) = serde_json::from_slice::<(f64, String, String)>(line) {
            let usual = Size::UNWATCHED;
            let emulator = self.emulator.get_or_insert_with(|| emulator(usual.cols.into(), usual.rows.into()));
            match (kind.as_str(), text.split_once('x')) {
                ("o", _) => play(emulator, &text, &mut self.left),
                ("r", Some((cols, rows))) => {
                    let number = |text: &str| text.parse().unwrap_or(0);
                    let (rows, cols) = cells(number(cols), number(rows));
                    emulator.screen_mut().set_size(rows, cols);
                }
                _ => {}
            }
        } else if let Ok(head) = serde_json::from_slice::<serde_json::Value>(line) {
            let number = |key: &str| head[key].as_u64().unwrap_or(0);
            self.emulator = Some(emulator(number("width"), number("height")));
        }
    }

    /// The lines, without those at the end that are empty.
    pub fn lines(self) -> Vec<String> {
        let mut lines = self.left;
        if let Some(mut emulator) = self.emulator {
            lines.extend(shown(&mut emulator));
        }
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        lines
    }
}

/// Plays an output; a full screen that it leaves is looked at before it goes.
fn play(emulator: &mut vt100::Parser, text: &str, left: &mut Vec<String>) {
    let mut rest = text;
    while let Some(at) = LEAVES.iter().filter_map(|leave| rest.find(leave)).min() {
        emulator.process(&rest.as_bytes()[..at]);
        if emulator.screen().alternate_screen() {
            left.extend(shown(emulator));
        }
        let end = at + rest[at..].find('l').map_or(1, |l| l + 1);
        emulator.process(&rest.as_bytes()[at..end]);
        rest = &rest[end..];
    }
    emulator.process(rest.as_bytes());
}

/// What has scrolled off, oldest first, and the screen.
fn shown(emulator: &mut vt100::Parser) -> Vec<String> {
    let screen = emulator.screen_mut();
    let (rows, cols) = screen.size();
    let page = usize::from(rows.get());
    let mut lines = Vec::new();
    let mut above = screen.scrollback_len();
    loop {
        screen.set_scrollback(above);
        // The screen moves up by a page at a time; the last step may be shorter.
        let new = if above == 0 { page } else { above.min(page) };
        lines.extend(screen.rows(0, cols.get()).take(new));
        if above == 0 {
            break;
        }
        above -= new;
    }
    screen.set_scrollback(0);
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn played(outputs: &[&str]) -> Vec<String> {
        let mut replay = Replay::default();
        replay.take(json!({"version": 2, "width": 20, "height": 4}).to_string().as_bytes());
        for text in outputs {
            replay.take(json!([0.5, "o", text]).to_string().as_bytes());
        }
        replay.lines()
    }

    #[test]
    fn what_has_scrolled_off_comes_first_and_what_was_drawn_over_is_gone() {
        let many = (1..=11).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\r\n") + "\r\n";
        let lines = played(&[&many, "draft\rfinal\x1b[K"]);
        let wanted: Vec<String> = (1..=11).map(|n| format!("line {n}")).chain(["final".to_owned()]).collect();
        assert_eq!(lines, wanted);
    }

    #[test]
    fn a_full_screen_is_told_as_it_was_when_it_was_left() {
        let lines = played(&["before\r\n\x1b[?1049h\x1b[H", "on it", "\x1b[?1049lafter"]);
        assert_eq!(lines, ["on it", "before", "after"]);
        assert_eq!(played(&["x\x1b[?1049h\x1b[H", "still on it"]), ["still on it"]);
    }
}
