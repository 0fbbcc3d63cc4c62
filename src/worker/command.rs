//! A command of the project's own, contained as a worker is: its own session, a deadline, and
//! whatever it starts ends with it.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::record::Recorder;
use super::run::{Ended, Job, run};
use crate::domain::Fault;
use crate::domain::event::{Heard, Listener, Notice, Permit};
use crate::domain::gate::counts::{Counter, Tests};
use crate::domain::line::summary;
use crate::domain::outcome::Outcome;
use crate::domain::plan::Limits;
use crate::domain::redact::Redactor;
use crate::domain::span::{Size, Span};
use crate::domain::verdict::End;

/// How much of its output is recorded, in bytes.
const RECORD: u64 = 1 << 20;

/// A program to run.
#[derive(Debug)]
pub struct CommandJob<'a> {
    /// Its executable.
    pub program: &'a str,
    /// Its arguments.
    pub args: Vec<String>,
    /// It is ended after this long.
    pub timeout: Span,
    /// How much of what it says is kept beside the recording, in bytes.
    pub keep: usize,
    /// What it is called: its recording gets that name.
    pub name: &'a str,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub cwd: &'a Path,
    /// Between SIGTERM and SIGKILL.
    pub grace: Span,
    /// The folder for its recording.
    pub folder: &'a Path,
    /// Secrets that must not be written down.
    pub redactor: &'a Redactor,
    /// Where it can be cancelled.
    pub control: UnixListener,
}

/// What a program said, redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The last line: what went wrong stands on standard error, what came of it on standard output.
    pub last: Option<String>,
    /// Both streams as they came, line by line; its middle is left out where it is too long.
    pub text: String,
    /// Standard output alone, as far as it was kept.
    pub stdout: String,
    /// What a test runner counted.
    pub tests: Option<Tests>,
}

/// The program that reads command lines, and its arguments for one.
pub fn shell(line: &str) -> (&'static str, Vec<String>) {
    ("/bin/sh", vec!["-c".to_owned(), line.to_owned()])
}

/// Runs it to its end.
pub fn run_command(job: CommandJob<'_>) -> Result<(Ended, Spoken), Fault> {
    let file = |ending: &str| job.folder.join(format!("{}.{ending}", job.name));
    let mut recorder = Recorder::create(&file("ndjson"), RECORD, job.redactor.clone())?;
    let mut lines = Lines { keep: job.keep, ..Lines::default() };
    let limits = Limits {
        deadline: job.timeout,
        // Its deadline is the only one: a build that is silent is not idle.
        idle: Span(job.timeout.0.saturating_add(job.timeout.0)),
        grace: job.grace,
        record: Size(RECORD),
    };
    let work = Job {
        vnx: crate::sys::path::own_executable()?,
        program: job.program.to_owned(),
        args: job.args,
        env: job.env,
        cwd: job.cwd.to_owned(),
        prompt: None,
        stdin: Vec::new(),
        limits,
        linger: job.grace,
        acp: None,
        terminal: None,
        note: file("note"),
        cancels_late: true,
    };
    let ended = run(work, &mut lines, &mut recorder, job.control, |_| Ok(()))?;
    let good = ended.end == (End::Exited { code: 0 });
    let (first, second) = if good { (&lines.out, &lines.err) } else { (&lines.err, &lines.out) };
    let last = summary(&job.redactor.redact(if first.is_empty() { second } else { first }));
    let redact = |text: &str| job.redactor.redact(text).into_owned();
    let (text, stdout, tests) = (redact(&lines.text()), redact(&lines.stdout), lines.counter.tests());
    Ok((ended, Spoken { last: (!last.is_empty()).then_some(last), text, stdout, tests }))
}

/// Keeps what was said last, and as much of the rest as is asked for.
#[derive(Debug, Default)]
struct Lines {
    out: String,
    err: String,
    keep: usize,
    /// The first half of what is kept.
    begin: String,
    /// The second half, oldest first.
    end: VecDeque<String>,
    end_bytes: usize,
    /// How many bytes are in neither.
    lost: usize,
    stdout: String,
    counter: Counter,
}

impl Lines {
    fn hear(&mut self, line: &str, is_error: bool) -> Heard {
        if !line.trim().is_empty() {
            line.clone_into(if is_error { &mut self.err } else { &mut self.out });
        }
        if self.keep == 0 {
            return Heard::default();
        }
        self.counter.line(line);
        let bytes = line.len() + 1;
        if !is_error && self.stdout.len() + bytes <= self.keep {
            self.stdout.push_str(line);
            self.stdout.push('\n');
        }
        if self.end.is_empty() && self.begin.len() + bytes <= self.keep / 2 {
            self.begin.push_str(line);
            self.begin.push('\n');
        } else {
            self.end.push_back(line.to_owned());
            self.end_bytes += bytes;
            while self.end_bytes > self.keep / 2 {
                let Some(gone) = self.end.pop_front() else { break };
                self.end_bytes -= gone.len() + 1;
                self.lost += gone.len() + 1;
            }
        }
        Heard::default()
    }

    fn text(&self) -> String {
        let mut text = self.begin.clone();
        if self.lost > 0 {
            text.push('[');
            text.push_str(&self.lost.to_string());
            text.push_str(" bytes are left out]\n");
        }
        for line in &self.end {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

impl Listener for Lines {
    fn stdout_line(&mut self, line: &str) -> Heard {
        self.hear(line, false)
    }
    fn stderr_line(&mut self, line: &str) -> Heard {
        self.hear(line, true)
    }
    fn notice(&mut self, _: &Notice) -> Heard {
        Heard::default()
    }
    fn drew(&mut self) -> Heard {
        Heard::default()
    }
    fn hook(&mut self, _: &str) -> Heard {
        Heard::default()
    }
    fn screen(&mut self, _: &str) -> Heard {
        Heard::default()
    }
    fn asks(&self, _: &str) -> bool {
        false
    }
    fn begin(&mut self) -> Vec<String> {
        Vec::new()
    }
    fn say(&mut self, _: &str) -> Option<(Vec<String>, bool)> {
        None
    }
    fn cancel(&mut self) -> Vec<String> {
        Vec::new()
    }
    fn permit(&mut self, _: bool, _: bool) -> Permit {
        Permit::Nothing
    }
    fn asks_next(&self) -> Option<String> {
        None
    }
    fn gave_up(&mut self, _: Outcome, _: &str) {}
}
