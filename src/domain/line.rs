//! What other programs say, as one line for people.

use std::borrow::Cow;

use anstream::adapter::strip_str;

/// The longest line, in characters.
const MAX: usize = 300;

/// Whether a character takes no place of its own on a screen: `Default_Ignorable_Code_Point` of Unicode 16
/// (DerivedCoreProperties.txt), among them what turns the direction of the text around it.
pub fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character shows itself and nothing else: no control character, and none that hides. The two that say
/// how the emoji before them looks may stand.
pub fn shows_itself(c: char) -> bool {
    !c.is_control() && (!is_ignorable(c) || matches!(c, '\u{fe0e}' | '\u{fe0f}'))
}

/// A text as one line: without control sequences, blanks as one, what was no text as one mark, cut. Empty
/// when there is nothing to read in it: whoever asks has better words than the bytes of a binary file.
pub fn summary(text: &str) -> String {
    let shown = strip_str(text).flat_map(str::chars).map(|c| if c.is_whitespace() { ' ' } else { c });
    let (mut line, mut last, mut unread) = (String::new(), ' ', 0);
    for c in shown.filter(|c| shows_itself(*c)) {
        unread += usize::from(c == char::REPLACEMENT_CHARACTER);
        if c != last || !matches!(c, ' ' | char::REPLACEMENT_CHARACTER) {
            line.push(c);
        }
        last = c;
        if line.len() >= MAX && line.chars().count() >= MAX {
            break;
        }
    }
    let readable = line.chars().filter(|c| c.is_alphanumeric()).count();
    if readable == 0 || readable < 2 * unread { String::new() } else { line.trim().to_owned() }
}

/// What a terminal shows of a line in the end: without colours, and of what was drawn over (a spinner has no
/// line feed of its own) the last.
pub fn drawn(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = ["\r", "\x1b[1G"].iter().fold(line, |line, home| line.rsplit(home).next().unwrap_or(line));
    strip_str(line).to_string()
}

/// A word for a shell (sh(1)): as it is where nothing in it means anything to one, otherwise in single quotes.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_said_becomes_one_printable_line() {
        let lossy = |bytes: &[u8]| summary(&String::from_utf8_lossy(bytes));
        for (said, line) in [
            (&b"fatal: no such file"[..], "fatal: no such file"),
            (b"\x1b[1;31merror\x1b[0m:\tit is\r\n  over\x07\x1b]0;title\x07", "error: it is over"),
            (b"caf\xe9 is closed until Monday", "caf\u{fffd} is closed until Monday"),
            ("größer als 漢字 \u{202e}x".as_bytes(), "größer als 漢字 x"),
            (b"\x1f\x8b\x08\x00\x00\xff\xd5abc\xfe\xfe", ""),
            (b" \x00\x01 -- \x1b[2K", ""),
            (b"", ""),
        ] {
            assert_eq!(lossy(said), line, "{said:?}");
        }
        for (line, last) in [
            ("\x1b[32mgreen\x1b[0m and \x1b[1;4mbold\x1b[m\r", "green and bold"),
            ("10 %\r20 %\r100 %\r\r", "100 %"),
            ("- wait\x1b[1G\x1b[0Kerror: no", "error: no"),
            ("\x1b]8;;http://x\x07a link\x1b]8;;\x07", "a link"),
            ("", ""),
        ] {
            assert_eq!(drawn(line), last, "{line:?}");
        }
        assert_eq!(summary(&"ä".repeat(5000)), "ä".repeat(MAX));
        assert!(summary("1234").len() == 4 && shows_itself('漢') && !shows_itself('\u{9b}'));
        for hides in ['\u{ad}', '\u{61c}', '\u{200b}', '\u{202e}', '\u{2060}', '\u{3164}', '\u{fe01}', '\u{e0041}'] {
            assert!(is_ignorable(hides) && !shows_itself(hides), "{hides:?}");
        }
        assert!(['\u{fe0f}', 'é', '\u{301}', '⚠'].into_iter().all(shows_itself));
    }

    #[test]
    fn a_line_is_cut_at_its_length_and_what_cannot_be_read_is_left_out() {
        for (length, kept) in [(MAX - 1, MAX - 1), (MAX, MAX), (MAX + 1, MAX)] {
            assert_eq!(summary(&"a".repeat(length)).len(), kept);
        }
        // As many marks as half of the letters are still to be read.
        let mixed = |letters: usize, marks: usize| "a".repeat(letters) + &"\u{fffd}b".repeat(marks);
        assert!(!summary(&mixed(3, 3)).is_empty());
        assert!(summary(&"\u{fffd}a\u{fffd}".repeat(3)).is_empty());
    }

    #[test]
    fn a_word_for_a_shell_is_quoted_where_it_must_be() {
        for (word, quoted_word) in [
            ("a/b.c_d-e+f=g:h@i%j,k", "a/b.c_d-e+f=g:h@i%j,k"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(word), quoted_word);
        }
    }
}
