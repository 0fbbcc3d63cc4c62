//! What a terminal answers to the questions that programs ask it.
//!
//! Sources: ECMA-48 (DA, DSR), the xterm control sequences document (XTVERSION, DECRQM, window
//! operations, OSC colour queries), the kitty keyboard protocol and the Program Status Protocol
//! (OSC 7501). The rule: say little, say it at once, and claim nothing that a viewer's terminal
//! may not have. The terminal's name (XTVERSION) is not told: programs draw conclusions from it.

use std::fmt::Write;

/// The answer, if this sequence is a question: empty for one that is better not answered.
pub(super) fn to(sequence: &[u8], screen: &vt100::Screen, keyboard: u16) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(sequence).ok()?;
    if let Some(body) = text.strip_prefix("\x1b[") {
        // The kitty keyboard protocol: its flags as they are now.
        if body == "?u" {
            return Some(format!("\x1b[?{keyboard}u").into_bytes());
        }
        return control(body, screen).map(String::into_bytes);
    }
    if let Some(body) = text.strip_prefix("\x1b]") {
        // The Program Status Protocol: a terminal that hears reports says the question back. The question alone: what
        // else a worker shows would be typed into it.
        if matches!(body, "7501;?\x07" | "7501;?\x1b\\") {
            return Some(sequence.to_vec());
        }
        return command(body.strip_suffix("\x1b\\").or_else(|| body.strip_suffix('\x07'))?).map(String::into_bytes);
    }
    if let Some(body) = text.strip_prefix("\x1bP") {
        // XTGETTCAP and DECRQSS: known to few, answered with "invalid".
        return match body.get(..2)? {
            "+q" => Some(b"\x1bP0+r\x1b\\".to_vec()),
            "$q" => Some(b"\x1bP0$r\x1b\\".to_vec()),
            _ => None,
        };
    }
    None
}

fn control(body: &str, screen: &vt100::Screen) -> Option<String> {
    let (row, col) = screen.cursor_position();
    let (row, col) = (row.saturating_add(1), col.saturating_add(1));
    let (rows, cols) = screen.size();
    let answer = match body {
        // A VT220 with colour: what tmux and most others say.
        "c" | "0c" => "\x1b[?62;22c".to_owned(),
        ">c" | ">0c" => "\x1b[>1;0;0c".to_owned(),
        "=c" | "=0c" => "\x1bP!|00000000\x1b\\".to_owned(),
        "5n" => "\x1b[0n".to_owned(),
        "6n" => format!("\x1b[{row};{col}R"),
        "?6n" => format!("\x1b[?{row};{col};1R"),
        // The colour scheme is dark.
        "?996n" => "\x1b[?997;1n".to_owned(),
        "14t" => format!("\x1b[4;{};{}t", u32::from(rows.get()) * 20, u32::from(cols.get()) * 10),
        "16t" => "\x1b[6;20;10t".to_owned(),
        "18t" => format!("\x1b[8;{rows};{cols}t"),
        ">q" | ">0q" | "20t" | "21t" => String::new(),
        _ => {
            let mode = body.strip_prefix('?')?.strip_suffix("$p")?;
            let is_number = (1..=5).contains(&mode.len()) && mode.bytes().all(|b| b.is_ascii_digit());
            if !is_number {
                return None;
            }
            format!("\x1b[?{mode};{}$y", mode_state(mode, screen))
        }
    };
    Some(answer)
}

/// DECRPM: 0 not recognised, 1 set, 2 reset.
fn mode_state(mode: &str, screen: &vt100::Screen) -> u8 {
    let flag = |on: bool| if on { 1 } else { 2 };
    match mode {
        "25" => flag(!screen.hide_cursor()),
        "1049" => flag(screen.alternate_screen()),
        "2004" => flag(screen.bracketed_paste()),
        // Synchronised output: frames go to viewers whole.
        "2026" => 2,
        _ => 0,
    }
}

fn command(body: &str) -> Option<String> {
    let (number, value) = body.split_once(';')?;
    match (number, value) {
        ("10" | "12", "?") => Some(format!("\x1b]{number};rgb:d0d0/d0d0/d0d0\x1b\\")),
        ("11", "?") => Some("\x1b]11;rgb:1e1e/1e1e/1e1e\x1b\\".to_owned()),
        ("4", list) if list.ends_with(";?") => Some(palette(list)),
        // A worker does not read the clipboard of whoever watches.
        ("52", value) if value.ends_with(";?") => Some(String::new()),
        _ => None,
    }
}

/// OSC 4: `index;?` pairs, answered with xterm's default palette.
fn palette(list: &str) -> String {
    let parts: Vec<&str> = list.split(';').collect();
    let mut answer = String::new();
    for pair in parts.chunks(2).take(256) {
        let [index, "?"] = pair else { continue };
        let Some([r, g, b]) = index.parse().ok().map(colour) else { continue };
        // Writing to a String cannot fail.
        let _ = write!(answer, "\x1b]4;{index};rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}\x1b\\");
    }
    answer
}

fn colour(index: u8) -> [u8; 3] {
    let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
    match index {
        0..=7 => std::array::from_fn(|bit| if index >> bit & 1 == 1 { 205 } else { 0 }),
        8..=15 => std::array::from_fn(|bit| if index >> bit & 1 == 1 { 255 } else { 127 }),
        16..=231 => [level((index - 16) / 36), level((index - 16) / 6 % 6), level((index - 16) % 6)],
        232..=255 => [8 + 10 * (index - 232); 3],
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn every_question_has_its_answer() {
        let size = |n| NonZeroU16::new(n).unwrap();
        let parser = vt100::Parser::new(size(50), size(200), 0);
        let ask = |q: &str| to(q.as_bytes(), parser.screen(), 0).map(|a| String::from_utf8(a).unwrap());
        for (question, answer) in [
            ("\x1b[0c", "\x1b[?62;22c"),
            ("\x1b[?2026$p", "\x1b[?2026;2$y"),
            ("\x1b[?2027$p", "\x1b[?2027;0$y"),
            ("\x1b[18t", "\x1b[8;50;200t"),
            ("\x1b]11;?\x07", "\x1b]11;rgb:1e1e/1e1e/1e1e\x1b\\"),
            ("\x1b]4;0;?;231;?\x1b\\", "\x1b]4;0;rgb:0000/0000/0000\x1b\\\x1b]4;231;rgb:ffff/ffff/ffff\x1b\\"),
            ("\x1bP+q544e\x1b\\", "\x1bP0+r\x1b\\"),
            ("\x1b[?u", "\x1b[?0u"),
            ("\x1b[>0q", ""),
            ("\x1b]7501;?\x07", "\x1b]7501;?\x07"),
            ("\x1b]7501;?\x1b\\", "\x1b]7501;?\x1b\\"),
            ("\x1b]52;c;?\x07", ""),
        ] {
            assert_eq!(ask(question).as_deref(), Some(answer), "{question:?}");
        }
        for statement in [
            "\x1b[31m",
            "\x1b[?25h",
            "\x1b]0;a?\x07",
            "\x1b]11;#fff\x07",
            "\x1b[8;3;4t",
            "\x1bPq#0\x1b\\",
            "\x1b7",
            "\x1b]7501;?\rls\r\x1b\\",
            "\x1b[?1\r2004$p",
            "\x1b[?$p",
        ] {
            assert_eq!(ask(statement), None, "{statement:?}");
        }
    }
}
