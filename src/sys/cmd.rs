//! Helper programs (git, tmux, version probes): one type runs them all.
//!
//! Argument vectors only, never a shell string. The environment is empty except for what was
//! listed. Every call has a time limit and a cap on what it may print.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::path::{self, Found};
use crate::domain::line::summary;

/// Variables that helper programs get from ours. Nothing that names a repository, a session
/// or a secret.
const HELPER_ENV: [&str; 13] = [
    "HOME",
    "PATH",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// A call that could not be made or did not end.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// The program is not in `PATH`.
    #[error("{program} is not installed or not in PATH")]
    Missing {
        /// The program.
        program: String,
    },
    /// The program could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ran longer than allowed and was killed.
    #[error("{call} did not end within {limit:?}")]
    TimedOut {
        /// The call, shortened.
        call: String,
        /// The limit.
        limit: Duration,
    },
}

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output, capped.
    pub stdout: Vec<u8>,
    /// Standard error, capped.
    pub stderr: Vec<u8>,
    /// Standard output was longer than the cap: the answer is incomplete.
    pub truncated: bool,
}

impl Output {
    /// Exit code 0 and a complete answer.
    pub fn ok(&self) -> bool {
        self.code == Some(0) && !self.truncated
    }
    /// Standard output as text without the final newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
    /// The line of standard error that says what went wrong, by its prefix or else the first, for messages; and what a hook
    /// or a filter said where one is the reason.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let said = |starts: &'static [&'static str]| {
            text.lines().find(move |l| !l.trim().is_empty() && starts.iter().any(|s| l.starts_with(s)))
        };
        let line = said(&["fatal:", "error:"]).or_else(|| said(&[""])).map(summary).unwrap_or_default();
        // gitattributes(5), `filter`: one that is required and fails ends git.
        if line.ends_with("by hook") || line.contains(" filter ") && line.contains(" failed") {
            let other = said(&[""]).map(summary).filter(|said| *said != line);
            return other.map_or_else(|| line.clone(), |said| format!("{line}: {said}"));
        }
        if line.is_empty() { "no error message".to_owned() } else { line }
    }
}

/// A call in the making.
#[derive(Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    held: Option<File>,
    out: Option<File>,
    limit: Duration,
    cap: usize,
}

impl Cmd {
    /// A call of `program` with the helper environment.
    pub fn new(program: impl Into<OsString>) -> Self {
        let env = HELPER_ENV.iter().filter_map(|n| std::env::var_os(n).map(|v| (OsString::from(n), v))).collect();
        Self {
            program: program.into(),
            args: Vec::new(),
            env,
            cwd: None,
            stdin: None,
            held: None,
            out: None,
            limit: Duration::from_mins(2),
            cap: 64 << 20,
        }
    }
    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }
    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }
    /// Sets one variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }
    /// Replaces the whole environment.
    #[must_use]
    pub fn only_env(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env = env.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        self
    }
    /// Sets the working folder.
    #[must_use]
    pub fn cwd(mut self, path: impl AsRef<Path>) -> Self {
        self.cwd = Some(path.as_ref().to_owned());
        self
    }
    /// Feeds standard input; without it the program reads `/dev/null`.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }
    /// Gives the program a lock as standard input, which stays held until the program ends, even if we do not live to
    /// see it. Where it is to read something too ([`Self::stdin`]), that goes into the lock's file.
    #[must_use]
    pub fn holding(mut self, lock: Option<File>) -> Self {
        self.held = lock;
        self
    }
    /// Gives the program a file to read as standard input.
    #[must_use]
    pub fn reading(self, file: File) -> Self {
        self.holding(Some(file))
    }
    /// Standard output goes into a file, whatever its size.
    #[must_use]
    pub fn writing(mut self, file: File) -> Self {
        self.out = Some(file);
        self
    }
    /// Sets the time limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn call(&self) -> String {
        let program = Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        let verb = self.args.iter().map(|a| a.to_string_lossy()).find(|a| !a.starts_with('-') && !a.contains('='));
        format!("{program} {}", verb.unwrap_or_default())
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<Output, CmdError> {
        let call = self.call();
        let program = self.program.to_string_lossy().into_owned();
        // By its full path: a name that is looked up in a changed environment makes the standard
        // library fork, which costs three times as much as posix_spawn.
        let search = self.env.iter().rev().find(|(n, _)| n == "PATH").map(|(_, v)| v.clone()).unwrap_or_default();
        let path = match path::find(&program, &search) {
            Found::At(path) | Found::NotExecutable(path) => path,
            Found::Missing => return Err(CmdError::Missing { program }),
        };
        let mut command = Command::new(path);
        command.args(&self.args).env_clear().envs(self.env);
        command.stdout(self.out.map_or_else(Stdio::piped, Stdio::from)).stderr(Stdio::piped());
        let failed = |source| CmdError::Spawn { program: program.clone(), source };
        let (stdin, input) = match (self.held, self.stdin) {
            // The lock's own file takes what is to be read, so that the program holds it by reading.
            (Some(lock), Some(input)) => (Stdio::from(filled(lock, &input).map_err(failed)?), Vec::new()),
            (Some(lock), None) => (Stdio::from(lock), Vec::new()),
            (None, Some(input)) => (Stdio::piped(), input),
            (None, None) => (Stdio::null(), Vec::new()),
        };
        command.stdin(stdin);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn().map_err(failed)?;
        let pidfd = pidfd(&child).map_err(|e| {
            let _ = child.kill().and_then(|()| child.wait());
            failed(e.into())
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Drain::new(stdout, self.cap), Drain::new(stderr, 256 << 10));
        let ended = std::thread::scope(|scope| {
            if let Some(mut pipe) = stdin {
                // A program that stops reading its input says so by its exit code.
                let write = move || drop(pipe.write_all(&input));
                if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, write) {
                    // Without its input its answer would be one to another question.
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                    return Err(error);
                }
            }
            let ended = ends_within(&pidfd, &mut out, &mut err, self.limit);
            if !ended {
                // It may have ended in this instant; then the signal goes nowhere.
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
            Ok(ended)
        });
        let status = child.wait().map_err(failed)?;
        if !ended.map_err(failed)? {
            return Err(CmdError::TimedOut { call, limit: self.limit });
        }
        Ok(Output { code: status.code(), stdout: out.kept, stderr: err.kept, truncated: out.more })
    }
}

/// A file with this in it, at its beginning.
fn filled(mut file: File, bytes: &[u8]) -> std::io::Result<File> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// It is our child and not reaped yet, so the pid is still its own.
fn pidfd(child: &Child) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// Reads both outputs until they and the process have ended; `false` when the time was up first.
fn ends_within(
    pidfd: &OwnedFd,
    out: &mut Drain<impl Read + AsFd>,
    err: &mut Drain<impl Read + AsFd>,
    limit: Duration,
) -> bool {
    let started = Instant::now();
    let mut running = true;
    while running || out.pipe.is_some() || err.pipe.is_some() {
        let timeout = Timespec::try_from(limit.saturating_sub(started.elapsed())).ok();
        // What has ended already is asked about nothing.
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let sources = [out.fd(), err.fd(), running.then(|| pidfd.as_fd())];
        let mut polled: Vec<PollFd<'_>> = sources.iter().flatten().map(|fd| watch(*fd)).collect();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return false,
        }
        let mut answers = polled.iter().map(|p| !p.revents().is_empty());
        let mut ready = sources.map(|source| source.is_some() && answers.next().unwrap_or(false)).into_iter();
        let (out_ready, err_ready, over) = (ready.next(), ready.next(), ready.next());
        if out_ready == Some(true) {
            out.read();
        }
        if err_ready == Some(true) {
            err.read();
        }
        running &= over != Some(true);
    }
    true
}

/// One output: at most `cap` bytes are kept, the rest is read and thrown away.
struct Drain<P> {
    /// Gone at its end.
    pipe: Option<P>,
    cap: usize,
    kept: Vec<u8>,
    more: bool,
}

impl<P: Read + AsFd> Drain<P> {
    fn new(pipe: Option<P>, cap: usize) -> Self {
        Self { pipe, cap, kept: Vec::new(), more: false }
    }
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }
    /// Takes what is there; never waits after the pipe was reported ready.
    fn read(&mut self) {
        let mut buffer = [0; 64 << 10];
        match self.pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
            Some(Ok(n)) if n > 0 => {
                let room = n.min(self.cap - self.kept.len());
                self.kept.extend_from_slice(&buffer[..room]);
                self.more |= room < n;
            }
            Some(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => self.pipe = None,
        }
    }
}
