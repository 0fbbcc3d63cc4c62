//! The supervisor's loop: one worker, its pipes or its terminal, its deadlines, its control socket.
//!
//! Two phases. While the worker lives, everything that can happen is one `select!`. Once it has
//! exited, what is left below us is given a moment, asked to go, then killed, until the tree is
//! proven empty. Nothing in the loop waits for a reader of the recording or for a pane.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::cast::Cast;
use super::contain::{KILL_WITHIN, Sweep};
use super::ending::{Cause, Closing};
use super::launch::LAUNCH;
use super::link::{Got, Link, Told};
use super::pipes::Pipes;
use super::record::{Recorder, Source};
use super::serve::{Ask, serve};
use super::steer::Steering;
use super::terminal::Terminal;
use crate::domain::event::{Listener, StateSource, WorkerState};
use crate::domain::line::summary;
use crate::domain::outcome::Outcome;
use crate::domain::plan::{EndPolicy, Interactive, Limits};
use crate::domain::span::Span;
use crate::domain::verdict::{Containment, End};
use crate::domain::{Fault, Timestamp};
use crate::sys::process::Process;
use crate::sys::pty::{Pty, Size};

/// How long what outlives the worker may take to leave by itself.
const LEAVE: Duration = Duration::from_millis(150);
/// How long viewers may take to read the worker's last words.
const FAREWELL: Duration = Duration::from_millis(200);
/// How much a pipe holds, in bytes: what Linux gives everybody by default (pipe(7)).
const PIPE: usize = 1 << 20;

/// What to run.
#[derive(Debug)]
pub struct Job {
    /// The vnx executable, for the launcher.
    pub vnx: PathBuf,
    /// The worker's executable.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// What it reads on standard input, which is then closed.
    pub stdin: Vec<u8>,
    /// It speaks a protocol, so standard input stays open: how long a question may wait, and when the
    /// worker is asked to leave.
    pub acp: Option<(Span, EndPolicy)>,
    /// What is pasted into its terminal once it is ready.
    pub prompt: Option<String>,
    /// The limits.
    pub limits: Limits,
    /// How long it may stay after its closing event.
    pub linger: Span,
    /// It gets a terminal, which is recorded in this file.
    pub terminal: Option<(Interactive, PathBuf)>,
    /// Where the launcher leaves a note if it fails.
    pub note: PathBuf,
    /// A cancel counts also after its exit, while what it left behind is ended: something follows that must not begin.
    pub cancels_late: bool,
}

/// The worker that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its process id, also its session.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The end.
    pub end: End,
    /// The containment proof.
    pub containment: Containment,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
    /// Bytes on standard output.
    pub stdout_bytes: u64,
    /// Bytes on standard error.
    pub stderr_bytes: u64,
}

/// Runs the worker to its end. `on_start` is called once it runs; an error there ends it.
pub fn run(
    job: Job,
    listener: &mut dyn Listener,
    recorder: &mut Recorder,
    control: std::os::unix::net::UnixListener,
    on_start: impl FnOnce(Started) -> Result<(), Fault>,
) -> Result<Ended, Fault> {
    // The parent death signal is tied to the thread that spawns: a current-thread runtime on
    // the main thread, which lives as long as the supervisor.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fault::io(format!("cannot start the event loop: {e}")))?;
    runtime.block_on(async {
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
            .map_err(|e| Fault::environment(format!("cannot become a child subreaper: {e}")))?;
        let control = UnixListener::from_std(control).map_err(|e| Fault::io(format!("control socket: {e}")))?;
        Watch::start(job, listener, recorder, on_start)?.watch(control).await
    })
}

pub(super) struct Watch<'a> {
    child: Child,
    pub(super) pid: u32,
    pub(super) link: Link,
    pub(super) listener: &'a mut dyn Listener,
    pub(super) recorder: &'a mut Recorder,
    pub(super) limits: Limits,
    pub(super) linger: Span,
    pub(super) interactive: Option<Interactive>,
    /// Of the acp lane: how long a question may wait, and when the worker is asked to leave.
    pub(super) acp: Option<(Span, EndPolicy)>,
    note: PathBuf,
    pub(super) started: Instant,
    pub(super) progress: Instant,
    pub(super) state: WorkerState,
    source: StateSource,
    pub(super) detail: Option<String>,
    /// What it said last that it does.
    doing: Option<String>,
    since: Timestamp,
    pub(super) since_instant: Instant,
    pub(super) closing: Option<Closing>,
    pub(super) ending: Option<(Cause, Instant)>,
    pub(super) killed: bool,
    /// A protocol's agent was told to end its turn; until then it may take to do so.
    pub(super) cancelled: Option<Instant>,
    pub(super) sweep: Sweep,
    pub(super) steering: Steering,
    /// What a worker that speaks a protocol is to read; closed when it is to leave.
    pub(super) say: Option<mpsc::UnboundedSender<Vec<u8>>>,
    pub(super) prompt: Option<String>,
    pub(super) cancels_late: bool,
}

/// The worker's end of what connects it with us, and ours once it runs.
enum Ends {
    Pipes,
    Terminal(OwnedFd),
}

impl<'a> Watch<'a> {
    fn start(
        job: Job,
        listener: &'a mut dyn Listener,
        recorder: &'a mut Recorder,
        on_start: impl FnOnce(Started) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut command = Command::new(&job.vnx);
        command.arg(LAUNCH).arg(std::process::id().to_string()).arg(&job.note);
        command.arg(if job.terminal.is_some() { "terminal" } else { "pipes" }).arg(&job.program).args(&job.args);
        command.env_clear().envs(&job.env).current_dir(&job.cwd);
        // Whatever fails from here on, it does not run on without us.
        command.kill_on_drop(true);
        let ends = connect(&mut command, job.terminal.is_some())?;
        let mut child = command.spawn().map_err(|e| {
            Fault::environment(format!("cannot start the worker: {e}"))
                .fix("check free memory and the process limit (ulimit -u)")
        })?;
        // Our copies of the worker's end go with the command: only the worker holds it then.
        drop(command);
        let pid = child.id().unwrap_or(0);
        let signed = i32::try_from(pid).unwrap_or(0);
        let start_ticks = Process::read(signed).map_or(0, |p| p.start_ticks);
        // A worker that never reads leaves this task waiting; it ends with the runtime. Nothing waits
        // for it: what a conversation says is little, and memory holds it.
        let (say, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
        if let Some(mut pipe) = child.stdin.take() {
            tokio::spawn(async move {
                while let Some(bytes) = said.recv().await {
                    if pipe.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
        let _ = say.send(job.stdin);
        let say = job.acp.is_some().then_some(say);
        let link = match ends {
            Ends::Pipes => {
                let (out, err) = (child.stdout.take(), child.stderr.take());
                // A CLI that ends right after a line longer than the pipe loses what did not fit. A smaller
                // pipe is what a user gets who has very many.
                let _ = out.as_ref().map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE));
                Link::Pipes(Pipes::new(out, err))
            }
            Ends::Terminal(master) => {
                let path = job.terminal.as_ref().map_or(Path::new(""), |(_, path)| path.as_path());
                let cast = Cast::create(path, job.limits.record.0, Size::UNWATCHED, recorder.redactor().clone())?;
                let terminal = Terminal::new(master, Size::UNWATCHED, cast);
                Link::Terminal(Box::new(terminal.map_err(|e| Fault::io(format!("cannot watch the terminal: {e}")))?))
            }
        };
        let now = Instant::now();
        // Whoever has its prompt from the beginning works, however little it says.
        let is_told_later = job.terminal.is_some() || job.acp.is_some();
        let state = if is_told_later { WorkerState::Starting } else { WorkerState::Working };
        let watch = Self {
            child,
            pid,
            link,
            listener,
            recorder,
            limits: job.limits,
            linger: job.linger,
            interactive: job.terminal.map(|(interactive, _)| interactive),
            acp: job.acp,
            note: job.note,
            started: now,
            progress: now,
            state,
            source: StateSource::Process,
            detail: None,
            doing: None,
            since: crate::sys::now(),
            since_instant: now,
            closing: None,
            ending: None,
            killed: false,
            cancelled: None,
            sweep: Sweep::new(),
            steering: Steering::default(),
            say,
            prompt: job.prompt,
            cancels_late: job.cancels_late,
        };
        // Without its receipt a worker does not run on.
        if let Err(fault) = on_start(Started { pid, start_ticks }) {
            let mut watch = watch;
            watch.sweep.signal(Signal::KILL);
            return Err(fault);
        }
        Ok(watch)
    }

    async fn watch(mut self, control: UnixListener) -> Result<Ended, Fault> {
        let signals = |kind| signal(kind).map_err(|e| Fault::io(format!("cannot listen for signals: {e}")));
        let (mut term, mut int, mut chld) =
            (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?, signals(SignalKind::child())?);
        // The parent, which would end what we leave behind if we were killed, is dead (`dispatch::guard`).
        let mut unguarded = signals(SignalKind::user_defined1())?;
        let (asks, mut asked) = mpsc::channel::<Ask>(8);
        let first = self.listener.begin();
        self.write_lines(first);
        if self.interactive.is_some() {
            let mut told = Told::default();
            told.add(self.listener.drew());
            self.heard(told);
        }
        let mut served = JoinSet::new();
        let status = loop {
            let wake = self.next_deadline();
            tokio::select! {
                status = self.child.wait() => break status,
                got = self.link.next(), if self.link.is_open() => self.got(&got),
                Ok((stream, _)) = control.accept() => { served.spawn(serve(stream, asks.clone())); }
                Some(_) = served.join_next() => {}
                Some(ask) = asked.recv() => self.asked(ask),
                _ = term.recv() => self.end(Cause::Cancel),
                _ = int.recv() => self.end(Cause::Cancel),
                _ = unguarded.recv() => drop(self.cancel(true)),
                _ = chld.recv() => crate::sys::process::reap_adopted(i32::try_from(self.pid).ok()),
                () = sleep_until(wake) => self.on_deadline(),
            }
            self.recorder.flush();
        };
        let ran = self.started.elapsed();
        let status = status.map_err(|e| Fault::io(format!("cannot wait for the worker: {e}")))?;
        self.go(WorkerState::Exited, StateSource::Process, None);
        self.worker_is_gone();
        self.after_exit(&mut chld, &mut asked, &control, &asks, &mut served).await;
        self.link.finish(self.listener, self.recorder);
        // Answers and the last output are still on their way.
        drop(asked);
        let _ = tokio::time::timeout(FAREWELL, async { while served.join_next().await.is_some() {} }).await;
        self.recorder.flush();
        let end = self.verdict_of(status);
        let (stdout_bytes, stderr_bytes) = self.link.bytes();
        Ok(Ended {
            end,
            containment: self.sweep.prove(),
            ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
            stdout_bytes,
            stderr_bytes,
        })
    }

    /// Drains what connects us and empties the tree.
    async fn after_exit(
        &mut self,
        chld: &mut tokio::signal::unix::Signal,
        asked: &mut mpsc::Receiver<Ask>,
        control: &UnixListener,
        asks: &mpsc::Sender<Ask>,
        served: &mut JoinSet<()>,
    ) {
        let exited = Instant::now();
        let grace = self.limits.grace.duration();
        let (mut termed, mut silent) = (false, false);
        loop {
            let mut empty = self.sweep.is_empty();
            if empty && !self.link.is_open() {
                return;
            }
            let waited = exited.elapsed();
            if !empty {
                self.sweep.note_survivors();
                if self.killed || waited > LEAVE + grace {
                    empty = self.sweep.kill();
                } else if waited > LEAVE && !termed {
                    termed = true;
                    self.sweep.signal(Signal::TERM);
                }
            }
            if waited > LEAVE + grace + KILL_WITHIN || empty && silent && waited > LEAVE {
                // Somebody outside our tree holds the other end, or the kernel will not let go.
                if self.link.is_open() {
                    self.sweep.note_leak();
                }
                return;
            }
            let tick = Instant::now() + if empty { Duration::from_millis(20) } else { Duration::from_millis(10) };
            tokio::select! {
                // What waits to be read comes first: the last word may be in it.
                biased;
                got = self.link.next(), if self.link.is_open() => { silent = false; self.got(&got); }
                Ok((stream, _)) = control.accept() => { served.spawn(serve(stream, asks.clone())); }
                Some(ask) = asked.recv() => self.asked(ask),
                _ = chld.recv() => {}
                () = sleep_until(tick) => silent = true,
            }
            self.recorder.flush();
        }
    }

    fn got(&mut self, got: &Got) {
        let told = self.link.take(got, self.listener, self.recorder);
        self.heard(told);
    }

    /// Draws the conclusions from what the worker said or did.
    pub(super) fn heard(&mut self, told: Told) {
        if told.progress {
            self.progress = Instant::now();
        }
        self.doing = told.doing.or(self.doing.take());
        for (state, source, detail) in told.states {
            let leaving = self.ending.is_some() || self.closing.is_some_and(|c| c.asked);
            if !leaving && self.state != WorkerState::Exited {
                if state.is_within_a_turn() {
                    self.goes_on();
                }
                if self.state != state
                    && state.needs_somebody()
                    && let Some(terminal) = self.link.terminal()
                {
                    terminal.ring();
                }
                self.steering.saw(self.state, state, source);
                if self.state == WorkerState::WaitingPermission && state != self.state {
                    // A person answered in the CLI itself: the hook that asks is asked for nothing any more.
                    self.steering.release();
                }
                self.go(state, source, detail);
            }
        }
        self.write_lines(told.writes);
        if let Some(keys) = told.keys {
            self.steering.press(&[keys]);
        }
        match self.state {
            WorkerState::Starting | WorkerState::Working | WorkerState::Limited if told.trouble => {
                self.go(WorkerState::Limited, StateSource::Events, told.error);
            }
            WorkerState::Limited if told.progress && !self.is_steerable() => {
                self.go(WorkerState::Working, StateSource::Events, None);
            }
            _ => {}
        }
        if self.cancelled.is_some() && told.closing {
            self.end(Cause::Cancel);
        }
        if told.closing && self.closing.is_none() {
            self.closing = Some(Closing { since: Instant::now(), asked: false });
        }
        self.settle_delivery();
        self.paste_prompt();
    }

    /// Tells a worker that speaks a protocol.
    pub(super) fn write_lines(&mut self, lines: Vec<String>) {
        let Some(say) = &self.say else { return };
        for line in lines {
            self.recorder.line(Source::In, &line, Vec::new());
            // A worker that has closed its input is about to end.
            let _ = say.send(format!("{line}\n").into_bytes());
        }
    }

    /// The last word was not the last one.
    pub(super) fn goes_on(&mut self) {
        if self.closing.is_some_and(|c| !c.asked) && self.is_steerable() {
            self.closing = None;
        }
    }

    pub(super) fn go(&mut self, state: WorkerState, source: StateSource, detail: Option<String>) {
        if self.state != state {
            self.since = crate::sys::now();
            self.since_instant = Instant::now();
            // A wait for others is no idleness; the clock starts anew when they have acted.
            self.progress = self.since_instant;
        }
        (self.state, self.source, self.detail) = (state, source, detail);
    }

    /// It takes messages.
    pub(super) fn is_steerable(&self) -> bool {
        self.interactive.is_some() || self.say.is_some()
    }

    /// What is known at this moment.
    pub(super) fn answer(&self, accepted: bool) -> super::control::Answer {
        let (out, err) = self.link.bytes();
        super::control::Answer {
            state: self.state,
            source: self.source,
            since: self.since,
            detail: self.detail.clone(),
            doing: self.doing.clone(),
            pid: Some(self.pid),
            accepted,
            output_bytes: out + err,
            delivery: None,
            refusal: None,
            reply: None,
        }
    }

    fn verdict_of(&self, status: ExitStatus) -> End {
        if let Ok(Some(why)) = crate::sys::files::read_capped(Path::new(&self.note), 4096) {
            return End::NeverStarted { outcome: Outcome::CliMissing, reason: summary(&String::from_utf8_lossy(&why)) };
        }
        match (self.ending, status.code(), status.signal()) {
            (Some((Cause::Deadline, _)), ..) => End::TimedOut,
            (Some((Cause::Idle | Cause::Unanswered, _)), ..) => End::Idle,
            (Some((Cause::Cancel, _)), ..) => End::Cancelled,
            // It had said its last word; how it left is not held against it.
            (Some((Cause::Linger, _)), ..) => End::Exited { code: 0 },
            (None, ..) if self.closing.is_some_and(|c| c.asked) => End::Exited { code: 0 },
            (None, Some(code), _) => End::Exited { code },
            (None, None, signal) => End::Signaled { signal: signal.unwrap_or(0) },
        }
    }
}

/// Gives the worker its standard streams.
fn connect(command: &mut Command, terminal: bool) -> Result<Ends, Fault> {
    if !terminal {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        return Ok(Ends::Pipes);
    }
    let no_pty = |e: std::io::Error| {
        Fault::environment(format!("cannot open a terminal for the worker: {e}"))
            .fix("check that /dev/pts is mounted and kernel.pty.max is not reached")
    };
    let Pty { master, slave } = Pty::open(Size::UNWATCHED).map_err(no_pty)?;
    command.stdin(Stdio::from(slave.try_clone().map_err(no_pty)?));
    command.stdout(Stdio::from(slave.try_clone().map_err(no_pty)?)).stderr(Stdio::from(slave));
    Ok(Ends::Terminal(master))
}
