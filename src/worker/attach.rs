//! `vnx attach`: a terminal looks at a worker's terminal, and types into it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{isatty, tcgetwinsize};
use signal_hook::consts::{SIGHUP, SIGTERM, SIGWINCH};

use super::control::{Answer, Request, connect, frame, talk};
use super::screen::RESTORE;
use crate::domain::Fault;
use crate::domain::event::WorkerState;
use crate::sys::pty::Size;
use crate::sys::tty::Raw;

/// Why a viewer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// By the detach key, a signal or the end of its terminal.
    Detached,
    /// The worker is gone.
    Ended,
}

/// A terminal that shows a worker's screen. What that has set is taken back before its mode is.
struct Shown {
    _raw: Raw,
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        // The terminal may be gone; then there is nothing to put back.
        let _ = out.write_all(RESTORE).and_then(|()| out.flush());
    }
}

fn size() -> Size {
    let size = tcgetwinsize(std::io::stdout()).map(|w| Size { cols: w.ws_col, rows: w.ws_row });
    size.unwrap_or(Size::UNWATCHED).sane()
}

/// Shows a worker's screen on this process's terminal until the worker ends or `key` (a control
/// character) is pressed. `None` when there is no screen to show: nobody listens, the worker has
/// ended, or its lane has none.
pub fn attach(dispatch: &Path, read_only: bool, key: u8) -> Result<Option<Left>, Fault> {
    if !isatty(std::io::stdin()) || !isatty(std::io::stdout()) {
        return Err(Fault::input("attach shows a screen and needs a terminal")
            .fix("run it in a terminal; `vnx logs` prints what happened anywhere"));
    }
    let Some(stream) = connect(dispatch) else { return Ok(None) };
    let request = Request::Attach { size: size(), read_only };
    // A supervisor that is still preparing answers when the worker runs.
    let Ok(answer) = talk(&stream, &request, Duration::from_mins(1)) else { return Ok(None) };
    let accepted = serde_json::from_str::<Answer>(&answer).is_ok_and(|a| a.accepted && a.state != WorkerState::Exited);
    if !accepted {
        return Ok(None);
    }
    let io = |e: std::io::Error| Fault::io(format!("the terminal cannot be used: {e}"));
    stream.set_read_timeout(None).map_err(io)?;
    let shown = Shown { _raw: Raw::on().map_err(io)? };
    let left = watch(&stream, read_only, key).map_err(io);
    drop(shown);
    left.map(Some)
}

fn watch(stream: &UnixStream, read_only: bool, key: u8) -> std::io::Result<Left> {
    let signals = Signals::new()?;
    let mut out = std::io::stdout().lock();
    let mut frames = Frames::default();
    let mut typed = [0; 64 << 10];
    // What stood on the terminal moves up instead of being overwritten.
    out.write_all(&vec![b'\n'; usize::from(size().rows)])?;
    loop {
        let (keyboard, worker, told) = wait(stream, &signals)?;
        if told.terminated {
            return Ok(Left::Detached);
        }
        if told.resized {
            let Size { cols, rows } = size();
            let payload = [cols.to_be_bytes(), rows.to_be_bytes()].concat();
            if send(stream, frame::RESIZE, &payload).is_err() {
                return Ok(Left::Ended);
            }
        }
        if worker && !frames.read(stream, &mut out)? {
            return Ok(Left::Ended);
        }
        if keyboard {
            let n = match rustix::io::read(std::io::stdin(), &mut typed) {
                Ok(0) | Err(Errno::IO) => return Ok(Left::Detached),
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let (bytes, detach) = until_key(&typed[..n], key);
            if !read_only && !bytes.is_empty() && send(stream, frame::INPUT, bytes).is_err() {
                return Ok(Left::Ended);
            }
            if detach {
                return Ok(Left::Detached);
            }
        }
    }
}

/// What was typed before the detach key, and whether it was pressed: as a control character or
/// as the kitty keyboard protocol writes it.
fn until_key(bytes: &[u8], key: u8) -> (&[u8], bool) {
    let kitty = format!("\x1b[{};5u", u32::from((key | 0x40).to_ascii_lowercase()));
    let plain = bytes.iter().position(|b| *b == key);
    let long = bytes.windows(kitty.len()).position(|w| w == kitty.as_bytes());
    match plain.into_iter().chain(long).min() {
        Some(at) => (&bytes[..at], true),
        None => (bytes, false),
    }
}

fn send(mut stream: &UnixStream, kind: u8, payload: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&frame::head(kind, payload.len()), payload].concat())
}

#[derive(Debug, Default)]
struct Frames {
    held: Vec<u8>,
}

impl Frames {
    /// Shows what has come; `false` when nothing will come any more.
    fn read(&mut self, mut stream: &UnixStream, out: &mut impl Write) -> std::io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(true),
            Err(_) => return Ok(false),
        };
        self.held.extend_from_slice(&buffer[..n]);
        let mut at = 0;
        while let Some([kind, a, b, c, d]) = self.held.get(at..at + 5) {
            let end = at + 5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let Some(payload) = self.held.get(at + 5..end) else { break };
            if *kind == frame::OUTPUT {
                out.write_all(payload)?;
            }
            at = end;
        }
        self.held.drain(..at);
        out.flush()?;
        Ok(true)
    }
}

/// Signals as something that `poll` can wait for.
struct Signals {
    resized: UnixStream,
    terminated: UnixStream,
    ids: Vec<signal_hook::SigId>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (resized, tell_resized) = UnixStream::pair()?;
        let (terminated, tell_terminated) = UnixStream::pair()?;
        resized.set_nonblocking(true)?;
        terminated.set_nonblocking(true)?;
        let ids = vec![
            signal_hook::low_level::pipe::register(SIGWINCH, tell_resized)?,
            signal_hook::low_level::pipe::register(SIGTERM, tell_terminated.try_clone()?)?,
            signal_hook::low_level::pipe::register(SIGHUP, tell_terminated)?,
        ];
        Ok(Self { resized, terminated, ids })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

struct Told {
    resized: bool,
    terminated: bool,
}

/// Waits for the keyboard, the worker or a signal.
fn wait(stream: &UnixStream, signals: &Signals) -> std::io::Result<(bool, bool, Told)> {
    let stdin = std::io::stdin();
    let mut fds = [
        PollFd::new(&stdin, PollFlags::IN),
        PollFd::new(stream, PollFlags::IN),
        PollFd::new(&signals.resized, PollFlags::IN),
        PollFd::new(&signals.terminated, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let [keyboard, worker, resized, terminated] = fds.map(|fd| !fd.revents().is_empty());
    if resized {
        // Many changes are one.
        let mut drained = [0; 64];
        while matches!((&signals.resized).read(&mut drained), Ok(n) if n > 0) {}
    }
    Ok((keyboard, worker, Told { resized, terminated }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detach_key_is_found_in_both_of_its_forms() {
        assert_eq!(until_key(b"abc", 0x1c), (&b"abc"[..], false));
        assert_eq!(until_key(b"ab\x1cd", 0x1c), (&b"ab"[..], true));
        assert_eq!(until_key(b"a\x1b[92;5ub\x1c", 0x1c), (&b"a"[..], true));
        assert_eq!(until_key(b"\x02", 0x02), (&b""[..], true));
        assert_eq!(until_key(b"x\x1b[98;5u", 0x02), (&b"x"[..], true));
    }
}
