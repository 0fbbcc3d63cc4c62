//! The only place that writes to the terminal. Standard output carries the answer, standard
//! error the story; colour appears only on a terminal and never where `NO_COLOR` is set.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::exit::fault_code;
use super::table::{Fit, fitted};
use crate::domain::line::{drawn, shows_itself};
use crate::domain::outcome::Decision;
use crate::domain::redact::Redactor;
use crate::domain::{Fault, FaultKind};
use crate::sys::reader;

/// A terminal, or what stands in for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    quiet: bool,
    verbose: bool,
}

/// How a word is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Doubt,
    Bad,
    Dim,
    Strong,
    /// A line that came, and one that went.
    Added,
    Removed,
}

impl Tone {
    pub(super) fn of(decision: Decision) -> Self {
        match decision {
            Decision::Accept => Self::Good,
            Decision::Unproven => Self::Doubt,
            Decision::Reject => Self::Bad,
        }
    }

    fn style(self) -> Style {
        let colour = |c: AnsiColor| Style::new().fg_color(Some(c.into()));
        match self {
            Self::Good => colour(AnsiColor::Green).bold(),
            Self::Doubt => colour(AnsiColor::Yellow).bold(),
            Self::Bad => colour(AnsiColor::Red).bold(),
            Self::Added => colour(AnsiColor::Green),
            Self::Removed => colour(AnsiColor::Red),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// A word in its tone; the codes are taken out again where no terminal is.
pub(super) fn toned(tone: Tone, text: &str) -> String {
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// The time zone in which people read times: `TZ`, or the system's.
pub(super) fn zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(TimeZone::system)
}

/// The columns of the terminal that the answer goes to, if it goes to one.
pub(super) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The rows of that terminal.
pub(super) fn rows() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

/// Why an answer could not be printed.
static UNPRINTED: OnceLock<String> = OnceLock::new();

/// Whether a reader closed its end: it has seen enough.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// What is kept word by word is shown without its secrets: those of whoever looks, and what has the shape of one.
static REDACTOR: OnceLock<Redactor> = OnceLock::new();

/// Says which variables hold secrets although their names do not say so. Before anything is shown of a project.
pub(super) fn know_secrets(names: &[String]) {
    let own = std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    // A path that is there is no secret, whatever its variable is called (`KEYS_DIR`).
    let own: BTreeMap<String, String> = own.filter(|(_, value)| !is_path(value)).collect();
    // What was said first stays: one process shows one project.
    let _ = REDACTOR.set(Redactor::new(Redactor::secrets(&own, names)));
}

fn is_path(value: &str) -> bool {
    value.starts_with('/') && std::path::Path::new(value).exists()
}

fn redactor() -> &'static Redactor {
    if REDACTOR.get().is_none() {
        know_secrets(&[]);
    }
    REDACTOR.get_or_init(Redactor::default)
}

fn wrote(result: std::io::Result<()>) {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => UNHEARD.store(true, Ordering::Relaxed),
        Err(e) => drop(UNPRINTED.set(e.to_string())),
        Ok(()) => {}
    }
}

/// Whether nobody reads the answer any more: its reader closed the pipe, or the terminal is gone.
pub(super) fn unheard() -> bool {
    let stdout = std::io::stdout();
    let mut out = [PollFd::new(&stdout, PollFlags::empty())];
    let asked = rustix::event::poll(&mut out, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let gone = asked.is_ok() && out[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    gone || UNHEARD.load(Ordering::Relaxed) || UNPRINTED.get().is_some()
}

/// What happened to the answer, if it is not where it was sent: whoever sent it to a file relies on that.
pub(super) fn unprinted() -> Option<Fault> {
    wrote(std::io::stdout().lock().flush());
    let why = UNPRINTED.get()?;
    Some(Fault::io(format!("the answer could not be printed: {why}")).fix("free disk space, then ask again"))
}

#[expect(clippy::unused_self, reason = "whoever prints must hold the screen")]
impl Screen {
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose }
    }

    /// A line of the answer.
    pub(super) fn answer(self, line: &str) {
        // Whoever reads a pipe may need every byte, as of a path.
        let line = redactor().redact(line);
        let line = if std::io::stdout().is_terminal() { harmless(&line) } else { line };
        wrote(writeln!(anstream::stdout().lock(), "{line}"));
    }

    /// Rows of the answer.
    pub(super) fn table(self, rows: &[Vec<String>], fit: Fit) {
        for line in fitted(rows, fit, columns()) {
            self.answer(&line);
        }
    }

    /// JSON, without any styling.
    pub(super) fn json<T: serde::Serialize>(self, value: &T) {
        let mut out = std::io::stdout().lock();
        let written = serde_json::to_string(value).map_err(std::io::Error::from);
        wrote(written.and_then(|text| writeln!(out, "{}", redactor().redact(&text))));
    }

    /// Lines over those that were shown before, from the top of a terminal; `first` clears it.
    pub(super) fn redraw(self, lines: &[String], first: bool) {
        // Only colours are a matter of taste; what moves the cursor goes past their filter.
        self.bytes(if first { b"\x1b[2J\x1b[H" } else { b"\x1b[H" });
        for line in lines {
            wrote(write!(anstream::stdout().lock(), "{}", harmless(&redactor().redact(line))));
            self.bytes(b"\x1b[K\r\n");
        }
        self.bytes(b"\x1b[J");
    }

    /// Bytes as they are.
    pub(super) fn bytes(self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        wrote(out.write_all(bytes).and_then(|()| out.flush()));
    }

    /// Text from elsewhere: as it is into a file or a pipe, harmless on a terminal.
    pub(super) fn text(self, bytes: &[u8]) {
        let bytes = &redactor().redact_bytes(bytes);
        if std::io::stdout().is_terminal() {
            String::from_utf8_lossy(bytes).lines().for_each(|line| self.answer(&printable(line)));
        } else {
            self.bytes(bytes);
        }
    }

    /// The same as the whole answer, each line in the tone that `tone` gives it: with a pager, which takes the
    /// place of vnx, where it is longer than the terminal.
    pub(super) fn read(self, bytes: &[u8], tone: impl Fn(&str) -> Option<Tone>) {
        let bytes = &redactor().redact_bytes(bytes);
        if !std::io::stdout().is_terminal() {
            self.bytes(bytes);
            // What comes next begins on a line of its own.
            if bytes.last().is_some_and(|last| *last != b'\n') {
                self.bytes(b"\n");
            }
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        // Every byte shows: in a diff nothing may hide behind what is drawn over it.
        let line = |line: &str| tone(line).map_or_else(|| printable(line), |tone| toned(tone, &printable(line)));
        let lines: Vec<String> = text.split_terminator('\n').map(line).collect();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !is_dumb && rows().is_some_and(|rows| lines.len() >= rows) {
            let coloured = AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
            let all = lines.join("\n") + "\n";
            reader::page(if coloured { all } else { strip_str(&all).to_string() }.as_bytes());
        }
        for line in &lines {
            self.answer(line);
        }
    }

    /// A line of the story.
    pub(super) fn story(self, line: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr().lock(), "{}", harmless(&redactor().redact(line)));
        }
    }

    /// Something that is no fault yet and will be one.
    pub(super) fn note(self, fault: Option<&Fault>) {
        if let Some(fault) = fault {
            self.story(&format!("{} {}\n     fix: {}", toned(Tone::Doubt, "note:"), fault.what, fault.next()));
        }
    }

    /// Tells why something waits, if anybody listens.
    pub(super) fn teller(self) -> Option<fn(&str)> {
        (!self.quiet).then_some(|why| {
            let _ = writeln!(anstream::stderr().lock(), "waiting   {}", harmless(&redactor().redact(why)));
        })
    }

    /// Replaces the line that tells how far something is; an empty one takes it away. Only where
    /// somebody watches.
    pub(super) fn progress(self, line: &str) {
        use std::io::IsTerminal;
        let mut err = std::io::stderr().lock();
        if !self.quiet && err.is_terminal() {
            let _ = write!(err, "\r\u{1b}[K{line}").and_then(|()| err.flush());
        }
    }

    /// Whether only the answer is wanted.
    pub(super) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether `--verbose` asks for more.
    pub(super) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// A line that only `--verbose` shows.
    pub(super) fn detail(self, line: &str) {
        if self.verbose {
            self.story(line);
        }
    }

    /// An obstacle: what, and what to do. Never quiet.
    pub(super) fn fault(self, fault: &Fault) -> ExitCode {
        let mut err = anstream::stderr().lock();
        let _ = writeln!(err, "{} {}", toned(Tone::Bad, "vnx:"), printable(&redactor().redact(&fault.what)));
        let _ = writeln!(err, "     {} {}", toned(Tone::Dim, "fix:"), printable(&redactor().redact(fault.next())));
        if fault.kind == FaultKind::Internal {
            let _ =
                writeln!(err, "     this is a bug in vnx; please report it with the line above and `vnx --version`");
        }
        ExitCode::from(fault_code(fault.kind))
    }
}

/// Text from elsewhere on one line, without anything that a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\t' || shows_itself(c) { c } else { '\u{fffd}' }).collect()
}

/// What was put together here, whoever's words are in it: of all that a terminal obeys only colours and new lines.
fn harmless(text: &str) -> Cow<'_, str> {
    let shows = |c: char| matches!(c, '\n' | '\t') || shows_itself(c);
    if text.chars().all(shows) {
        return text.into();
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let length = colour(rest).unwrap_or(c.len_utf8());
        let is_safe = length > c.len_utf8() || shows(c);
        out.push_str(if is_safe { &rest[..length] } else { "\u{fffd}" });
        rest = &rest[length..];
    }
    out.into()
}

/// How long the sequence that sets colours is with which a text begins (ECMA-48, SGR).
fn colour(text: &str) -> Option<usize> {
    let args = text.strip_prefix("\u{1b}[")?;
    let end = args.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    args[end..].starts_with('m').then_some(end + 3)
}

/// A line of what a program said, as it showed it: without its colours and without what it drew over. Not for
/// what somebody has to judge: that is [`printable`].
pub(super) fn said(line: &str) -> String {
    printable(&drawn(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let nasty = "a\u{1b}]0;title\u{7}b\u{1b}[2K\rc\u{202e}d\u{9b}e";
        assert!(printable(nasty).chars().all(|c| !c.is_control() && c != '\u{202e}'));
        let own = toned(Tone::Bad, "x");
        let shown = harmless(&format!("{own}\t\n{nasty}\u{1b}[31mé\u{1b}[3")).into_owned();
        let words = "\t\na\u{fffd}]0;title\u{fffd}b\u{fffd}[2K\u{fffd}c\u{fffd}d\u{fffd}e\u{1b}[31mé\u{fffd}[3";
        assert_eq!(shown, format!("{own}{words}"));
    }
}
