//! A command of the project's own, contained as a worker is: its own session, a deadline, and
//! whatever it starts ends with it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::record::Recorder;
use super::run::{Ended, Job, run};
use crate::domain::Fault;
use crate::domain::event::{Heard, Listener, Notice, Permit};
use crate::domain::line::summary;
use crate::domain::outcome::Outcome;
use crate::domain::plan::Limits;
use crate::domain::redact::Redactor;
use crate::domain::setup::Hook;
use crate::domain::span::{Size, Span};
use crate::domain::verdict::End;

/// How much of its output is recorded, in bytes.
const RECORD: u64 = 1 << 20;

/// A command to run.
#[derive(Debug)]
pub struct HookJob<'a> {
    /// The command and its deadline.
    pub hook: &'a Hook,
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

/// Runs it to its end; returns how it ended and the last line that it said: what went wrong stands on
/// standard error, what came of it on standard output.
pub fn run_hook(job: HookJob<'_>) -> Result<(Ended, Option<String>), Fault> {
    let file = |ending: &str| job.folder.join(format!("{}.{ending}", job.name));
    let mut recorder = Recorder::create(&file("ndjson"), RECORD, job.redactor.clone())?;
    let mut last = LastLines::default();
    let limits = Limits {
        deadline: job.hook.timeout,
        // Its deadline is the only one: a build that is silent is not idle.
        idle: Span(job.hook.timeout.0.saturating_add(job.hook.timeout.0)),
        grace: job.grace,
        record: Size(RECORD),
    };
    let work = Job {
        vnx: crate::sys::path::own_executable()?,
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), job.hook.run.clone()],
        env: job.env,
        cwd: job.cwd.to_owned(),
        prompt: None,
        stdin: Vec::new(),
        limits,
        linger: job.grace,
        acp: None,
        terminal: None,
        note: file("note"),
    };
    let ended = run(work, &mut last, &mut recorder, job.control, |_| Ok(()))?;
    let good = ended.end == (End::Exited { code: 0 });
    let (first, second) = if good { (&last.out, &last.err) } else { (&last.err, &last.out) };
    let said = summary(&job.redactor.redact(if first.is_empty() { second } else { first }));
    Ok((ended, (!said.is_empty()).then_some(said)))
}

/// Keeps what was said last, and understands nothing.
#[derive(Debug, Default)]
struct LastLines {
    out: String,
    err: String,
}

fn keep(place: &mut String, line: &str) -> Heard {
    if !line.trim().is_empty() {
        line.clone_into(place);
    }
    Heard::default()
}

impl Listener for LastLines {
    fn stdout_line(&mut self, line: &str) -> Heard {
        keep(&mut self.out, line)
    }
    fn stderr_line(&mut self, line: &str) -> Heard {
        keep(&mut self.err, line)
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
    fn permit(&mut self, _: bool) -> Permit {
        Permit::Nothing
    }
    fn gave_up(&mut self, _: Outcome, _: &str) {}
}
