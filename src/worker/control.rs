//! `control.sock`: how other vnx processes talk to a supervisor. One JSON line each way; after
//! an `attach` the connection carries frames.
//!
//! The socket is bound and reached through `/proc/self/fd/<folder>/control.sock`, because a
//! socket address ends at 108 bytes and a repository may lie deeper than that. Its folder is
//! 0700, and the supervisor checks the peer's user id as well.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use super::refusal::Refusal;
use crate::domain::event::{StateSource, WorkerState};
use crate::domain::{Fault, Timestamp};
use crate::sys::files::At;
use crate::sys::pty::Size;

/// The longest request: a hook's payload holds whole files.
pub(super) const MAX_REQUEST: u64 = 16 << 20;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What is the worker doing?
    Status,
    /// End the worker.
    Cancel {
        /// Skip the grace period.
        now: bool,
    },
    /// Show the worker's screen on this connection.
    Attach {
        /// The viewer's size.
        size: Size,
        /// Its keys are not for the worker, and its size does not count.
        read_only: bool,
    },
    /// Give the worker a text, as one message.
    Send {
        /// The text.
        text: String,
    },
    /// Answer what the worker waits for a permission for.
    Permit {
        /// The answer.
        allow: bool,
    },
    /// A hook of the CLI was called.
    Hook {
        /// What it was given, one JSON object.
        payload: String,
    },
}

/// What became of a text that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The worker took it as a message: it said so itself.
    Delivered,
    /// It stands in the worker's input or waits for its turn, and nothing proves yet that the worker took it.
    Queued,
    /// Nothing was given to the worker.
    Refused,
    /// It was written, and the worker ended before anything could be seen.
    Unknown,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// What the worker is doing.
    pub state: WorkerState,
    /// Where that is known from.
    pub source: StateSource,
    /// Since when.
    pub since: Timestamp,
    /// What it waits for, in the CLI's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it said last that it does: a tool that it calls, or its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// The worker's process id, once it runs.
    pub pid: Option<u32>,
    /// The request was taken on.
    pub accepted: bool,
    /// Bytes of output so far.
    pub output_bytes: u64,
    /// What became of a text that was sent, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<(Delivery, String)>,
    /// Why nothing was given to the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// What a hook is to print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
}

/// The kinds of frames after an `attach`: one byte, the payload's length in four (big endian),
/// the payload.
pub(super) mod frame {
    /// To the viewer: output.
    pub(in crate::worker) const OUTPUT: u8 = b'o';
    /// To the worker: what was typed.
    pub(in crate::worker) const INPUT: u8 = b'i';
    /// To the supervisor: the viewer's new size, columns and rows in two bytes each.
    pub(in crate::worker) const RESIZE: u8 = b'r';
    /// The longest payload.
    pub(in crate::worker) const MAX: usize = 1 << 20;

    /// The head of a frame.
    pub(in crate::worker) fn head(kind: u8, length: usize) -> [u8; 5] {
        let [a, b, c, d] = u32::try_from(length).unwrap_or(0).to_be_bytes();
        [kind, a, b, c, d]
    }
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

/// Connects to a supervisor; `None` when nobody listens.
pub(super) fn connect(dispatch: &Path) -> Option<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    // Open until it is connected: its number is part of the address.
    let folder = folder(dispatch).ok()?;
    let address = SocketAddrUnix::new(address(&folder)).ok()?;
    // One that accepts nobody, because it is stopped, has a queue; behind that a connect would wait for ever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &address).ok()?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false).ok()?;
    Some(stream)
}

/// Writes a request and reads the line that answers it, byte by byte, so that what follows stays
/// in the socket.
pub(super) fn talk(stream: &UnixStream, request: &Request, limit: Duration) -> std::io::Result<String> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    let mut stream = stream;
    stream.write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    let mut one = BufReader::with_capacity(1, stream.take(MAX_REQUEST));
    one.read_until(b'\n', &mut answer)?;
    String::from_utf8(answer).map_err(std::io::Error::other)
}

/// Asks a supervisor; `Ok(None)` when nobody answers in time.
pub fn ask(dispatch: &Path, request: &Request, limit: Duration) -> Result<Option<Answer>, Fault> {
    let answer = connect(dispatch).and_then(|stream| talk(&stream, request, limit).ok());
    Ok(answer.and_then(|answer| serde_json::from_str(&answer).ok()))
}
