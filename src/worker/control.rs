//! `control.sock`: how other vnx processes talk to a supervisor. One JSON line each way.
//!
//! The socket is bound and reached through `/proc/self/fd/<folder>/control.sock`, because a
//! socket address ends at 108 bytes and a repository may lie deeper than that. Its folder is
//! 0700, and the supervisor checks the peer's user id as well.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::domain::{Fault, Timestamp};
use crate::sys::files::At;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What is the worker doing?
    Status,
    /// End the worker.
    Cancel {
        /// Skip the grace period.
        now: bool,
    },
}

/// What the worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The worktree and the prompt are being prepared, or the CLI is starting.
    Starting,
    /// It moves.
    Working,
    /// The CLI reports errors and tries again by itself.
    Limited,
    /// It is being ended.
    Ending,
    /// It is gone; its work is being collected and judged.
    Exited,
    /// Its supervisor is dead and its story could not be finished yet.
    Lost,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// What the worker is doing.
    pub state: State,
    /// Where that is known from: `process`, `events`.
    pub source: String,
    /// Since when.
    pub since: Timestamp,
    /// The worker's process id, once it runs.
    pub pid: Option<u32>,
    /// The request was taken on.
    pub accepted: bool,
    /// Bytes of output so far.
    pub output_bytes: u64,
}

fn folder(path: &Path) -> Result<OwnedFd, Fault> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    Ok(fd.map_err(std::io::Error::from).at("open", path)?)
}

fn address(folder: &OwnedFd) -> String {
    format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd())
}

/// Binds the socket in a dispatch's folder.
pub fn bind(dispatch: &Path) -> Result<UnixListener, Fault> {
    let fd = folder(dispatch)?;
    // A socket of an earlier supervisor of this dispatch; the lock says that it is dead.
    let _ = std::fs::remove_file(dispatch.join("control.sock"));
    let listener = UnixListener::bind(address(&fd)).at("bind", &dispatch.join("control.sock"))?;
    listener.set_nonblocking(true).at("bind", dispatch)?;
    Ok(listener)
}

/// Asks a supervisor; `Ok(None)` when nobody answers in time.
pub fn ask(dispatch: &Path, request: Request, limit: Duration) -> Result<Option<Answer>, Fault> {
    let Ok(fd) = folder(dispatch) else {
        return Ok(None);
    };
    let Ok(stream) = UnixStream::connect(address(&fd)) else {
        return Ok(None);
    };
    let talk = || -> std::io::Result<String> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut line = serde_json::to_string(&request)?;
        line.push('\n');
        (&stream).write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let Ok(answer) = talk() else { return Ok(None) };
    Ok(serde_json::from_str(&answer).ok())
}
