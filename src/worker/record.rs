//! The recording: `events.ndjson`, one line for each line of the worker, original text kept,
//! secrets replaced, with a bound on its size.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::domain::Fault;
use crate::domain::event::{Event, StateSource, WorkerState};
use crate::domain::redact::Redactor;
use crate::sys::files::{self, At};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The worker's standard output.
    Out,
    /// The worker's standard error.
    Err,
    /// What vnx told a worker that speaks a protocol.
    In,
    /// What the worker told its terminal.
    Terminal,
    /// What the CLI gave a hook.
    Hook,
    /// vnx itself.
    Vnx,
}

/// One line of the recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded<'a> {
    /// Milliseconds since the worker was started.
    pub t: u64,
    /// Where it came from.
    pub src: Source,
    /// The original line, redacted.
    pub raw: Cow<'a, str>,
    /// What it amounted to; texts shortened, the original line has them whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// Longest text of an event in the recording, in characters.
const EVENT_TEXT: usize = 500;

/// Writes the recording.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    redactor: Redactor,
    started: Instant,
    left: u64,
    /// Who is in the middle of a private key, which has many lines.
    in_key: Vec<Source>,
    full: bool,
    fresh: bool,
    failed: bool,
}

impl Recorder {
    /// Starts a recording of at most `limit` bytes.
    pub fn create(path: &Path, limit: u64, redactor: Redactor) -> Result<Self, Fault> {
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).at("create", path)?;
        Ok(Self {
            file: BufWriter::with_capacity(64 << 10, file),
            redactor,
            started: Instant::now(),
            left: limit,
            in_key: Vec::new(),
            full: false,
            fresh: false,
            failed: false,
        })
    }

    /// Adds a line. A disk that is full ends the recording, never the worker.
    pub fn line(&mut self, src: Source, raw: &str, events: Vec<Event>) {
        if self.full || self.failed {
            return;
        }
        if raw.len() as u64 > self.left {
            self.full = true;
            self.write(Source::Vnx, "the recording ends here: its size limit (limits.record) is reached", Vec::new());
            return;
        }
        self.left -= raw.len() as u64;
        self.write(src, raw, events);
    }

    fn write(&mut self, src: Source, raw: &str, mut events: Vec<Event>) {
        for event in &mut events {
            shorten(event, &self.redactor);
        }
        let t = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let raw = self.without_keys(src, raw);
        let recorded = Recorded { t, src, raw, events };
        let written = serde_json::to_writer(&mut self.file, &recorded).is_ok() && self.file.write_all(b"\n").is_ok();
        self.failed = !written;
        self.fresh = true;
    }

    /// The line without its secrets, as far as they are known by what came before, too.
    fn without_keys<'t>(&mut self, src: Source, raw: &'t str) -> Cow<'t, str> {
        let ends = raw.contains("-----END ");
        if self.in_key.contains(&src) {
            let text = raw.trim();
            let is_body = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
            let is_head = text.starts_with("Proc-Type:") || text.starts_with("DEK-Info:");
            if ends || !is_body && !is_head {
                self.in_key.retain(|other| *other != src);
            }
            if ends || is_body || is_head {
                return Cow::Borrowed("[redacted:private-key]");
            }
        }
        if raw.contains("-----BEGIN ") && raw.contains("PRIVATE KEY-----") && !ends {
            self.in_key.push(src);
        }
        self.redactor.redact(raw)
    }

    /// Makes what was added visible to readers.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.failed |= self.file.flush().is_err();
        }
    }

    /// The redactor, for texts that are stored elsewhere.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

/// How far back the last state is looked for, in bytes.
const LOOK_BACK: u64 = 1 << 20;

/// A state that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastState {
    /// Milliseconds from the worker's start to it.
    pub t: u64,
    /// The state.
    pub state: WorkerState,
    /// Where it was known from.
    pub source: StateSource,
    /// What it waited for.
    pub detail: Option<String>,
}

/// The last state in a recording, for when nobody can be asked.
pub fn last_state(path: &Path) -> Option<LastState> {
    let end = files::read_end(path, LOOK_BACK).ok()?;
    let told = |line: &[u8]| {
        memchr::memmem::find(line, b"\"state\"")?;
        let recorded: Recorded<'_> = serde_json::from_slice(line).ok()?;
        recorded.events.into_iter().rev().find_map(|event| match event {
            Event::State { state, source, detail } => Some(LastState { t: recorded.t, state, source, detail }),
            _ => None,
        })
    };
    end.rsplit(|b| *b == b'\n').find_map(told)
}

fn shorten(event: &mut Event, redactor: &Redactor) {
    let text = match event {
        Event::Text { text }
        | Event::Thinking { text }
        | Event::ToolResult { text, .. }
        | Event::Result { text, .. } => text,
        Event::ToolUse { input, .. } => input,
        Event::Error { message, fields, .. } => {
            fields.clear();
            message
        }
        Event::State { detail: Some(detail), .. } => detail,
        Event::Init { .. } | Event::Usage(_) | Event::Denied { .. } | Event::State { .. } => return,
    };
    if let Some((cut, _)) = text.char_indices().nth(EVENT_TEXT) {
        text.truncate(cut);
        text.push('…');
    }
    if let Cow::Owned(clean) = redactor.redact(text) {
        *text = clean;
    }
}
