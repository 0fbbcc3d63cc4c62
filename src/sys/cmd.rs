//! Helper programs (git, tmux, version probes): one type runs them all.
//!
//! Argument vectors only, never a shell string. The environment is empty except for what was
//! listed. Every call has a time limit and a cap on what it may print.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

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
    /// The first non-empty line of standard error, for messages.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no error message");
        line.chars().filter(|c| !c.is_control()).take(300).collect()
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
    /// Gives the program a file as standard input that it never reads: a lock that shall stay
    /// held until the program ends, even if we do not live to see it.
    #[must_use]
    pub fn holding(mut self, lock: Option<File>) -> Self {
        self.held = lock;
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
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(match (self.stdin.is_some(), self.held) {
            (true, _) => Stdio::piped(),
            (false, Some(lock)) => Stdio::from(lock),
            (false, None) => Stdio::null(),
        });
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn().map_err(|source| match source.kind() {
            // The same error stands for a working folder that is gone.
            std::io::ErrorKind::NotFound if self.cwd.as_ref().is_none_or(|c| c.is_dir()) => {
                CmdError::Missing { program: program.clone() }
            }
            _ => CmdError::Spawn { program: program.clone(), source },
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = self.stdin.unwrap_or_default();
        let cap = self.cap;
        let mut late = false;
        let (out, err) = std::thread::scope(|scope| {
            if let Some(mut pipe) = stdin {
                // A program that stops reading its input says so by its exit code.
                scope.spawn(move || drop(pipe.write_all(&input)));
            }
            let err = scope.spawn(move || stderr.map(|p| drain(p, 256 << 10)).unwrap_or_default());
            let out = scope.spawn(move || stdout.map(|p| drain(p, cap)).unwrap_or_default());
            late = !ends_within(child.id(), self.limit);
            (out.join().unwrap_or_default(), err.join().unwrap_or_default())
        });
        let status = child.wait().map_err(|source| CmdError::Spawn { program, source })?;
        if late {
            return Err(CmdError::TimedOut { call, limit: self.limit });
        }
        Ok(Output { code: status.code(), stdout: out.0, stderr: err.0, truncated: out.1 })
    }
}

/// Waits on the pidfd; kills the child when the time is up. `true` when it ended by itself.
fn ends_within(pid: u32, limit: Duration) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return true;
    };
    // It is our child and not reaped yet, so the pid is still its own.
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let started = Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => {
                // It may have ended in this instant; then the signal goes nowhere.
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                return false;
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Reads to the end, keeps at most `cap` bytes; the flag says that more was thrown away.
fn drain(mut pipe: impl Read, cap: usize) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let full = pipe.by_ref().take(cap as u64).read_to_end(&mut kept).is_ok() && kept.len() == cap;
    let mut sink = [0; 64 << 10];
    let mut more = false;
    while full && matches!(pipe.read(&mut sink), Ok(n) if n > 0) {
        more = true;
    }
    (kept, more)
}
