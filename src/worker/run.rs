//! The supervisor's loop: one worker, its two pipes, its deadlines, its control socket.
//!
//! Two phases. While the worker lives, everything that can happen is one `select!`. Once it has
//! exited, what is left below us is given a moment, asked to go, then killed, until the tree is
//! proven empty. Nothing in the loop waits for a reader of the recording or for a pane.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::contain::Sweep;
use super::control::{Answer, Request, State};
use super::launch::LAUNCH;
use super::lines::Lines;
use super::record::{Recorder, Source};
use crate::domain::event::{Event, Heard, Listener};
use crate::domain::outcome::Outcome;
use crate::domain::plan::Limits;
use crate::domain::span::Span;
use crate::domain::verdict::{Containment, End};
use crate::domain::{Fault, Timestamp};
use crate::sys::process::{Process, uid};

/// How long what outlives the worker may take to leave by itself.
const LEAVE: Duration = Duration::from_millis(150);

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
    /// The limits.
    pub limits: Limits,
    /// How long it may stay after its closing event.
    pub linger: Span,
    /// Where the launcher leaves a note if it fails.
    pub note: PathBuf,
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

/// Why the worker is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Deadline,
    Idle,
    Cancel,
    /// It stayed after its closing event.
    Linger,
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

struct Stream<R> {
    pipe: Option<R>,
    buffer: Vec<u8>,
    lines: Lines,
    bytes: u64,
}

impl<R: AsyncReadExt + Unpin> Stream<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { pipe, buffer: vec![0; 64 << 10], lines: Lines::default(), bytes: 0 }
    }
    /// Bytes read, 0 at the end; never ready again after the end. Cancel-safe.
    async fn read(&mut self) -> usize {
        match &mut self.pipe {
            Some(pipe) => pipe.read(&mut self.buffer).await.unwrap_or(0),
            None => std::future::pending().await,
        }
    }
    fn open(&self) -> bool {
        self.pipe.is_some()
    }
}

type Ask = (Request, oneshot::Sender<Answer>);

struct Watch<'a> {
    child: Child,
    pid: u32,
    out: Stream<ChildStdout>,
    err: Stream<ChildStderr>,
    listener: &'a mut dyn Listener,
    recorder: &'a mut Recorder,
    limits: Limits,
    linger: Span,
    note: PathBuf,
    started: Instant,
    progress: Instant,
    state: State,
    since: Timestamp,
    closing: Option<Instant>,
    ending: Option<(Cause, Instant)>,
    killed: bool,
    sweep: Sweep,
}

impl<'a> Watch<'a> {
    fn start(
        job: Job,
        listener: &'a mut dyn Listener,
        recorder: &'a mut Recorder,
        on_start: impl FnOnce(Started) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut command = Command::new(&job.vnx);
        command.arg(LAUNCH).arg(std::process::id().to_string()).arg(&job.note).arg(&job.program).args(&job.args);
        command.env_clear().envs(&job.env).current_dir(&job.cwd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            Fault::environment(format!("cannot start the worker: {e}"))
                .fix("check free memory and the process limit (ulimit -u)")
        })?;
        let pid = child.id().unwrap_or(0);
        let signed = i32::try_from(pid).unwrap_or(0);
        let start_ticks = Process::read(signed).map_or(0, |p| p.start_ticks);
        if let Some(mut pipe) = child.stdin.take() {
            let input = job.stdin;
            // A worker that never reads leaves this task waiting; it ends with the runtime.
            tokio::spawn(async move {
                let _ = pipe.write_all(&input).await;
            });
        }
        let (out, err) = (Stream::new(child.stdout.take()), Stream::new(child.stderr.take()));
        let now = Instant::now();
        let watch = Self {
            child,
            pid,
            out,
            err,
            listener,
            recorder,
            limits: job.limits,
            linger: job.linger,
            note: job.note,
            started: now,
            progress: now,
            state: State::Starting,
            since: crate::sys::now(),
            closing: None,
            ending: None,
            killed: false,
            sweep: Sweep::new(),
        };
        // Without its receipt a worker does not run on.
        if let Err(fault) = on_start(Started { pid, start_ticks }) {
            let mut watch = watch;
            watch.sweep.signal(Signal::KILL, Some(signed));
            return Err(fault);
        }
        Ok(watch)
    }

    async fn watch(mut self, control: UnixListener) -> Result<Ended, Fault> {
        let signals = |kind| signal(kind).map_err(|e| Fault::io(format!("cannot listen for signals: {e}")));
        let (mut term, mut int, mut chld) =
            (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?, signals(SignalKind::child())?);
        let (asks, mut asked) = mpsc::channel::<Ask>(8);
        let status = loop {
            let wake = self.next_deadline();
            tokio::select! {
                status = self.child.wait() => break status,
                n = self.out.read(), if self.out.open() => self.heard_out(n),
                n = self.err.read(), if self.err.open() => self.heard_err(n),
                Ok((stream, _)) = control.accept() => { tokio::spawn(serve(stream, asks.clone())); }
                Some((request, reply)) = asked.recv() => self.answer(request, reply),
                _ = term.recv() => self.end(Cause::Cancel),
                _ = int.recv() => self.end(Cause::Cancel),
                _ = chld.recv() => crate::sys::process::reap_adopted(i32::try_from(self.pid).ok()),
                () = sleep_until(wake) => self.on_deadline(),
            }
            self.recorder.flush();
        };
        let ran = self.started.elapsed();
        let status = status.map_err(|e| Fault::io(format!("cannot wait for the worker: {e}")))?;
        self.go(State::Exited);
        self.after_exit(&mut chld, &mut asked, &control, &asks).await;
        self.out.lines.finish(|line| {
            let _ = note(self.listener.stdout_line(line), self.recorder, Source::Out, line);
        });
        self.err.lines.finish(|line| {
            let _ = note(self.listener.stderr_line(line), self.recorder, Source::Err, line);
        });
        self.recorder.flush();
        let end = self.verdict_of(status);
        Ok(Ended {
            end,
            containment: self.sweep.prove(),
            ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
            stdout_bytes: self.out.bytes,
            stderr_bytes: self.err.bytes,
        })
    }

    /// Drains the pipes and empties the tree.
    async fn after_exit(
        &mut self,
        chld: &mut tokio::signal::unix::Signal,
        asked: &mut mpsc::Receiver<Ask>,
        control: &UnixListener,
        asks: &mpsc::Sender<Ask>,
    ) {
        let exited = Instant::now();
        let grace = self.limits.grace.duration();
        let mut termed = false;
        loop {
            // Not readable counts as not empty: the loop then ends by its own bound.
            let left = self.sweep.alive(None);
            let empty = left.as_ref().is_some_and(Vec::is_empty);
            if empty && !self.out.open() && !self.err.open() {
                return;
            }
            let waited = exited.elapsed();
            if !empty {
                self.sweep.note_survivors(left.as_deref().unwrap_or_default());
                if self.killed || waited > LEAVE + grace {
                    self.sweep.signal(Signal::KILL, None);
                } else if waited > LEAVE && !termed {
                    termed = true;
                    self.sweep.signal(Signal::TERM, None);
                }
            }
            if waited > LEAVE + grace + Duration::from_secs(5) || empty && waited > LEAVE {
                // Somebody outside our tree holds the pipes, or the kernel will not let go.
                if self.out.open() || self.err.open() {
                    self.sweep.note_leak();
                }
                return;
            }
            let tick = Instant::now() + if empty { Duration::from_millis(20) } else { Duration::from_millis(10) };
            tokio::select! {
                n = self.out.read(), if self.out.open() => self.heard_out(n),
                n = self.err.read(), if self.err.open() => self.heard_err(n),
                Ok((stream, _)) = control.accept() => { tokio::spawn(serve(stream, asks.clone())); }
                Some((request, reply)) = asked.recv() => self.answer(request, reply),
                _ = chld.recv() => {}
                () = sleep_until(tick) => {}
            }
            self.recorder.flush();
        }
    }

    fn heard_out(&mut self, n: usize) {
        if n == 0 {
            self.out.pipe = None;
            return;
        }
        self.out.bytes += n as u64;
        let (mut progress, mut closing, mut trouble) = (false, false, false);
        let (listener, recorder) = (&mut *self.listener, &mut *self.recorder);
        self.out.lines.take(&self.out.buffer[..n], |line| {
            let heard = note(listener.stdout_line(line), recorder, Source::Out, line);
            progress |= heard.0;
            closing |= heard.1;
            trouble = heard.2 || trouble && !heard.0;
        });
        self.moved(progress, trouble);
        if closing && self.closing.is_none() {
            self.closing = Some(Instant::now());
        }
    }

    fn heard_err(&mut self, n: usize) {
        if n == 0 {
            self.err.pipe = None;
            return;
        }
        self.err.bytes += n as u64;
        let mut progress = false;
        let (listener, recorder) = (&mut *self.listener, &mut *self.recorder);
        self.err.lines.take(&self.err.buffer[..n], |line| {
            progress |= note(listener.stderr_line(line), recorder, Source::Err, line).0;
        });
        self.moved(progress, false);
    }

    fn moved(&mut self, progress: bool, trouble: bool) {
        if progress {
            self.progress = Instant::now();
        }
        match self.state {
            State::Starting | State::Working | State::Limited if trouble => self.go(State::Limited),
            State::Starting | State::Limited if progress => self.go(State::Working),
            _ => {}
        }
    }

    fn go(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.since = crate::sys::now();
        }
    }

    fn next_deadline(&self) -> Instant {
        match (self.ending, self.closing) {
            (Some((_, kill_at)), _) => kill_at,
            (None, Some(closed)) => closed + self.linger.duration(),
            (None, None) => {
                (self.started + self.limits.deadline.duration()).min(self.progress + self.limits.idle.duration())
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = Instant::now();
        if let Some((_, kill_at)) = self.ending {
            if now >= kill_at {
                self.kill();
            }
        } else if self.closing.is_some() {
            self.end(Cause::Linger);
        } else if now >= self.started + self.limits.deadline.duration() {
            self.end(Cause::Deadline);
        } else if now >= self.progress + self.limits.idle.duration() {
            self.end(Cause::Idle);
        }
    }

    fn worker(&self) -> Option<i32> {
        i32::try_from(self.pid).ok()
    }

    fn end(&mut self, cause: Cause) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some((cause, Instant::now() + self.limits.grace.duration()));
        self.go(State::Ending);
        self.sweep.signal(Signal::TERM, self.worker());
    }

    fn kill(&mut self) {
        self.killed = true;
        self.sweep.signal(Signal::KILL, self.worker());
        // Again soon, should something have been forked in between.
        if let Some((_, at)) = &mut self.ending {
            *at = Instant::now() + Duration::from_millis(100);
        }
    }

    fn answer(&mut self, request: Request, reply: oneshot::Sender<Answer>) {
        let accepted = match request {
            Request::Status => true,
            Request::Cancel { .. } if self.state == State::Exited => false,
            Request::Cancel { now } => {
                self.end(Cause::Cancel);
                if now {
                    self.kill();
                }
                true
            }
        };
        let source = match self.state {
            State::Working | State::Limited => "events",
            State::Starting | State::Ending | State::Exited | State::Lost => "process",
        };
        // Whoever asked may be gone.
        let _ = reply.send(Answer {
            state: self.state,
            source: source.to_owned(),
            since: self.since,
            pid: Some(self.pid),
            accepted,
            output_bytes: self.out.bytes + self.err.bytes,
        });
    }

    fn verdict_of(&self, status: ExitStatus) -> End {
        if let Ok(Some(why)) = crate::sys::files::read_capped(Path::new(&self.note), 4096) {
            return End::NeverStarted {
                outcome: Outcome::CliMissing,
                reason: String::from_utf8_lossy(&why).into_owned(),
            };
        }
        match (self.ending, status.code(), status.signal()) {
            (Some((Cause::Deadline, _)), ..) => End::TimedOut,
            (Some((Cause::Idle, _)), ..) => End::Idle,
            (Some((Cause::Cancel, _)), ..) => End::Cancelled,
            // It had said its last word; how it left is not held against it.
            (Some((Cause::Linger, _)), ..) => End::Exited { code: 0 },
            (None, Some(code), _) => End::Exited { code },
            (None, None, signal) => End::Signaled { signal: signal.unwrap_or(0) },
        }
    }
}

/// Records a line; returns `(progress, closing, trouble)`.
fn note(heard: Heard, recorder: &mut Recorder, source: Source, line: &str) -> (bool, bool, bool) {
    let trouble = heard.events.iter().any(|e| matches!(e, Event::Error { .. }));
    let answer = (heard.progress, heard.closing, trouble);
    recorder.line(source, line, heard.events);
    answer
}

/// One connection: one request, one answer. Another user's connection gets none.
async fn serve(stream: UnixStream, asks: mpsc::Sender<Ask>) {
    if stream.peer_cred().map(|c| c.uid()).ok() != Some(uid()) {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(4096));
    let read = tokio::time::timeout(Duration::from_secs(2), reader.read_line(&mut line));
    if !matches!(read.await, Ok(Ok(n)) if n > 0) {
        return;
    }
    let Ok(request) = serde_json::from_str(&line) else {
        return;
    };
    let (reply, answer) = oneshot::channel();
    if asks.send((request, reply)).await.is_err() {
        return;
    }
    if let Ok(answer) = answer.await
        && let Ok(mut text) = serde_json::to_string(&answer)
    {
        text.push('\n');
        let _ = write.write_all(text.as_bytes()).await;
    }
}
