//! The one renderer of rows: aligned columns that fit the terminal. Into a file or a pipe everything goes whole.

use anstream::adapter::strip_str;
use unicode_width::UnicodeWidthStr;

use crate::domain::DispatchId;

/// The blanks between two columns.
const GAP: usize = 2;
/// The narrowest that a last column becomes.
const NARROW: usize = 20;

/// Terminals with fewer columns show of an id what is not its time.
const FOR_WHOLE_IDS: usize = 110;

/// Whether a terminal has no room for whole ids.
pub(super) fn is_narrow(columns: Option<usize>) -> bool {
    columns.is_some_and(|columns| columns < FOR_WHOLE_IDS)
}

/// An id without the time with which vnx begins one; whatever else it is, as it is.
pub(super) fn without_time(id: &str) -> String {
    let parsed = DispatchId::parse(id).ok();
    parsed.and_then(|id| id.without_time().map(|rest| format!("…{rest}"))).unwrap_or_else(|| id.to_owned())
}

/// What gives way where a row is wider than the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// The last column goes on below itself: nothing is left out.
    Wrap,
    /// The last column ends early, with an ellipsis: a row is a line.
    Cut,
    /// The last columns are left out: a row is a line, and its cells are whole.
    Drop,
}

/// Rows as lines with aligned columns; the last one is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> Vec<String> {
    fitted(rows, Fit::Wrap, None)
}

/// The same within so many columns of a terminal.
pub(super) fn fitted(rows: &[Vec<String>], fit: Fit, columns: Option<usize>) -> Vec<String> {
    // A terminal makes of a tab what it likes.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.replace('\t', " ")).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| width(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(widest).collect();
    let Some(room) = columns.filter(|room| widths.iter().sum::<usize>() + GAP * count.saturating_sub(1) > *room) else {
        return rows.iter().map(|row| line(row, &widths)).collect();
    };
    if fit == Fit::Drop {
        let fits = |n: &usize| widths[..*n].iter().sum::<usize>() + GAP * (n - 1) <= room;
        let kept = (1..count).rev().find(fits).unwrap_or(1);
        return rows.iter().map(|row| line(&row[..row.len().min(kept)], &widths)).collect();
    }
    let before: usize = widths[..count - 1].iter().map(|w| w + GAP).sum();
    let room = room.saturating_sub(before).max(NARROW);
    let mut lines = Vec::new();
    for mut row in rows {
        let Some(last) = row.get_mut(count - 1) else {
            lines.push(line(&row, &widths));
            continue;
        };
        let mut parts = if fit == Fit::Cut { vec![cut(last, room)] } else { wrapped(last, room) }.into_iter();
        *last = parts.next().unwrap_or_default();
        lines.push(line(&row, &widths));
        lines.extend(parts.map(|part| " ".repeat(before) + &part));
    }
    lines
}

/// How many columns a text takes on a terminal, its colours aside.
pub(super) fn width(text: &str) -> usize {
    strip_str(text).to_string().width()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (c, cell) in row.iter().enumerate() {
        text.push_str(cell);
        if c + 1 < row.len() {
            text.push_str(&" ".repeat(widths[c] - width(cell) + GAP));
        }
    }
    text.trim_end().to_owned()
}

/// A cell of one colour as what stands before its text, the text, and what stands behind.
fn parts(cell: &str) -> Option<(&str, String, &str)> {
    let plain = strip_str(cell).to_string();
    let at = cell.find(&plain)?;
    Some((&cell[..at], plain.clone(), &cell[at + plain.len()..]))
}

/// What fits, and an ellipsis. A cell of several colours stays whole.
fn cut(cell: &str, room: usize) -> String {
    let Some((before, text, after)) = parts(cell).filter(|_| width(cell) > room) else { return cell.to_owned() };
    let head = head(&text, room - 1);
    format!("{before}{}…{after}", head.trim_end())
}

/// As much from the beginning as fits.
fn head(text: &str, room: usize) -> &str {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| text[..*end].width() <= room).last().unwrap_or(0);
    &text[..end]
}

/// Lines that fit, broken between words; in a word only where it is longer than a line. What may be a command stays
/// whole: a terminal breaks it so that it can still be copied.
fn wrapped(cell: &str, room: usize) -> Vec<String> {
    let breaks = |text: &str| width(text) > room && !text.contains('`') && !text.starts_with("fix: ");
    let Some((before, text, after)) = parts(cell).filter(|(_, text, _)| breaks(text)) else {
        return vec![cell.to_owned()];
    };
    let mut lines = Vec::new();
    let mut rest = text.as_str();
    while rest.width() > room {
        let most = head(rest, room);
        // A blank right behind what fits is as good as one in it.
        let whole = rest[most.len()..].starts_with(' ').then_some(most.len());
        let at = whole.or_else(|| most.rfind(' ').filter(|at| !most[..*at].trim().is_empty())).unwrap_or(most.len());
        lines.push(format!("{before}{}{after}", rest[..at].trim_end()));
        rest = rest[at..].trim_start();
    }
    lines.push(format!("{before}{rest}{after}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::screen::{Tone, toned};
    use super::*;

    fn plain(rows: &[Vec<String>], fit: Fit, columns: usize) -> Vec<String> {
        fitted(rows, fit, Some(columns)).iter().map(|l| strip_str(l).to_string()).collect()
    }

    #[test]
    fn columns_align_whatever_their_colour_and_script() {
        let rows = vec![
            vec![toned(Tone::Good, "a"), "x".into()],
            vec!["long".into(), "y".into()],
            vec!["漢字".into(), "z".into()],
        ];
        let lines: Vec<String> = table(&rows).iter().map(|l| strip_str(l).to_string()).collect();
        assert_eq!(lines, ["a     x", "long  y", "漢字  z"]);
    }

    #[test]
    fn what_is_too_wide_wraps_is_cut_or_dropped() {
        let text = "one two three four five six seven eight";
        let rows = vec![vec!["PASS".into(), toned(Tone::Dim, text)], vec!["x".into()]];
        assert_eq!(plain(&rows, Fit::Wrap, 26), ["PASS  one two three four", "      five six seven eight", "x"]);
        assert_eq!(plain(&rows, Fit::Cut, 26), ["PASS  one two three four…", "x"]);
        assert_eq!(plain(&rows, Fit::Drop, 26), ["PASS", "x"]);
        assert_eq!(plain(&rows, Fit::Wrap, 200)[0], format!("PASS  {text}"));
        // Each line has its colour.
        assert!(fitted(&rows, Fit::Wrap, Some(26))[1].contains("\u{1b}[2m"));
    }

    #[test]
    fn a_word_that_is_longer_than_a_line_is_broken() {
        let rows = vec![vec!["a".to_owned(), "漢".repeat(30)]];
        let lines = plain(&rows, Fit::Wrap, 24);
        assert!(lines.iter().all(|l| l.width() <= 24), "{lines:?}");
        assert_eq!(lines.concat().matches('漢').count(), 30);
        assert_eq!(plain(&rows, Fit::Cut, 24)[0].width(), 24);
    }

    #[test]
    fn a_command_stays_whole() {
        let rows = vec![vec!["a".to_owned(), toned(Tone::Dim, "fix: rm '/a folder/with blanks/index.lock'")]];
        assert_eq!(plain(&rows, Fit::Wrap, 30).len(), 1);
        let rows = vec![vec!["a".to_owned(), "see `vnx worktree list`, and `vnx worktree gc`".to_owned()]];
        assert_eq!(plain(&rows, Fit::Wrap, 30).len(), 1);
    }

    #[test]
    fn no_width_is_too_small() {
        let rows = vec![vec!["abc".to_owned(), "de fg".to_owned(), "漢".to_owned()], vec![]];
        for columns in 0..40 {
            for fit in [Fit::Wrap, Fit::Cut, Fit::Drop] {
                plain(&rows, fit, columns);
            }
        }
    }
}
