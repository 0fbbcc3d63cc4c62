//! `terminal.cast`: what an interactive worker drew, as an asciicast v2 recording
//! (<https://docs.asciinema.org/manual/asciicast/v2/>), secrets replaced, with a bound on its size.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::domain::Fault;
use crate::domain::redact::Redactor;
use crate::sys::files::At;
use crate::sys::pty::Size;

/// Output that comes within this time goes into one event.
const FRAME: Duration = Duration::from_millis(50);
/// Output beyond this size does not wait for more.
const LARGE: usize = 32 << 10;
/// What may be the beginning of a secret is held back up to this size.
const WORD: usize = 4 << 10;

/// Writes the recording.
#[derive(Debug)]
pub(super) struct Cast {
    file: BufWriter<File>,
    redactor: Redactor,
    started: Instant,
    left: u64,
    over: bool,
    pending: Vec<u8>,
    /// When the first pending byte came.
    since: Instant,
}

impl Cast {
    /// Starts a recording of at most `limit` bytes.
    pub(super) fn create(path: &Path, limit: u64, size: Size, redactor: Redactor) -> Result<Self, Fault> {
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).at("create", path)?;
        let began = crate::sys::now().to_string();
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({"version": 2, "width": size.cols, "height": size.rows, "timestamp": seconds,
            "title": format!("vnx {began}"), "env": {"TERM": "xterm-256color"}});
        let now = Instant::now();
        let mut cast = Self {
            file: BufWriter::new(file),
            redactor,
            started: now,
            left: limit,
            over: false,
            pending: Vec::new(),
            since: now,
        };
        cast.write(&header);
        Ok(cast)
    }

    /// Adds output.
    pub(super) fn output(&mut self, bytes: &[u8]) {
        if self.over {
            return;
        }
        if self.pending.is_empty() {
            self.since = Instant::now();
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= LARGE {
            self.cut();
        }
    }

    /// The size changed.
    pub(super) fn resized(&mut self, size: Size) {
        self.finish();
        if !self.over {
            let at = self.at(Instant::now());
            self.write(&json!([at, "r", format!("{}x{}", size.cols, size.rows)]));
        }
    }

    /// When what is pending wants to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then(|| self.since + FRAME)
    }

    /// Writes what is due and makes it visible to readers.
    pub(super) fn flush(&mut self) {
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.cut();
            // What is held back gets its turn: a prompt is not followed by anything.
            self.since = Instant::now();
            self.over |= self.file.flush().is_err();
        }
    }

    /// Writes everything.
    pub(super) fn finish(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.event(&pending);
        self.over |= self.file.flush().is_err();
    }

    /// Writes up to the last place where no secret can begin; a second call in a row writes all.
    fn cut(&mut self) {
        let is_edge = |b: &u8| b.is_ascii_whitespace() || *b == 0x1b;
        let edge = self.pending.iter().rposition(is_edge).map_or(0, |at| at + usize::from(self.pending[at] != 0x1b));
        let held = self.pending.len() - edge;
        let at = if edge == 0 || held > WORD { whole_characters(&self.pending) } else { edge };
        let rest = self.pending.split_off(at);
        let cut = std::mem::replace(&mut self.pending, rest);
        self.event(&cut);
    }

    fn event(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.over {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let clean: Cow<'_, str> = self.redactor.redact(&text);
        let at = self.at(self.since);
        let line = json!([at, "o", clean]);
        let length = line.to_string().len() as u64;
        if length > self.left {
            self.write(&json!([at, "o", "\r\nthe recording ends here: its size limit (limits.record) is reached\r\n"]));
            self.over = true;
            return;
        }
        self.left -= length;
        self.write(&line);
    }

    fn at(&self, moment: Instant) -> f64 {
        (moment.saturating_duration_since(self.started).as_secs_f64() * 1e6).round() / 1e6
    }

    /// A disk that is full ends the recording, never the worker.
    fn write(&mut self, value: &serde_json::Value) {
        let written = serde_json::to_writer(&mut self.file, value).is_ok() && self.file.write_all(b"\n").is_ok();
        self.over |= !written;
    }
}

/// What was drawn, in one line of a recording; `None` for its head and for a change of size.
pub fn drawn(line: &[u8]) -> Option<String> {
    let (_at, kind, text) = serde_json::from_slice::<(f64, String, String)>(line).ok()?;
    (kind == "o").then_some(text)
}

/// The length without an unfinished UTF-8 character at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_is_an_asciicast_without_secrets_or_broken_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("terminal.cast");
        let redactor = Redactor::new(vec![("TOKEN".into(), "hunter2hunter2".into())]);
        let mut cast = Cast::create(&path, 1 << 20, Size { cols: 80, rows: 24 }, redactor).unwrap();
        for byte in "a b hunter2hunter2 c 漢字\r\n".bytes() {
            cast.output(&[byte]);
        }
        cast.resized(Size { cols: 100, rows: 30 });
        cast.output(b"end");
        cast.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&lines[0]["version"], &lines[0]["width"]), (&json!(2), &json!(80)));
        assert!(text.contains("漢字") && !text.contains("hunter2") && text.contains("[redacted"), "{text}");
        let read: String = text.lines().filter_map(|line| drawn(line.as_bytes())).collect();
        assert!(read.starts_with("a b [redacted") && read.ends_with(" c 漢字\r\nend"), "{read:?}");
        assert_eq!(lines[2].as_array().unwrap()[1..], [json!("r"), json!("100x30")]);
    }

    #[test]
    fn the_recording_ends_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("terminal.cast");
        let mut cast = Cast::create(&path, 100_000, Size::UNWATCHED, Redactor::default()).unwrap();
        (0..100).for_each(|_| cast.output(&[b'x'; 10_000]));
        cast.finish();
        let length = std::fs::metadata(&path).unwrap().len();
        assert!((50_000..120_000).contains(&length), "{length}");
    }
}
