//! The terminal of this process: the controlling one, where whoever sits there is asked directly, whatever standard input
//! and output are; and the one that standard input is, key by key.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, isatty, tcflush, tcgetattr, tcgetpgrp, tcgetsid, tcsetattr,
};

/// How much of a line is read.
const LONGEST: usize = 256;

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    file: File,
}

impl Terminal {
    /// Opens it. `None` where there is none, or where this process is in its background and must not read from it.
    pub fn controlling() -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?);
        (tcgetpgrp(&file).ok()? == getpgrp()).then_some(Self { file })
    }

    /// The processes whose terminal it is: the leader of its session and of the group in its foreground.
    pub fn owners(&self) -> Vec<i32> {
        let both = [tcgetsid(&self.file), tcgetpgrp(&self.file)];
        both.into_iter().flatten().map(|pid| pid.as_raw_nonzero().get()).collect()
    }

    /// Shows a text and reads one line, for at most `limit`. What was typed before the text was there does not count.
    pub fn ask(&mut self, text: &str, limit: Duration) -> io::Result<Option<String>> {
        tcflush(&self.file, QueueSelector::IFlush)?;
        self.file.write_all(text.as_bytes())?;
        let (until, mut line) = (Instant::now() + limit, Vec::new());
        while !line.contains(&b'\n') && line.len() < LONGEST {
            let left = until.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) => {
                    self.file.write_all(b"\n")?;
                    return Ok(None);
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut bytes = [0; LONGEST];
            match rustix::io::read(&self.file, &mut bytes)? {
                0 => break,
                n => line.extend_from_slice(&bytes[..n]),
            }
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

/// The terminal of standard input in raw mode, put back when it is dropped.
#[derive(Debug)]
pub struct Raw {
    stdin: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Sets the mode. An error where standard input is no terminal.
    pub fn on() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to put back.
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// Whether what is typed on the terminal of standard input is for this process: it is in the foreground there.
pub fn is_typed_for_us() -> bool {
    let stdin = io::stdin();
    isatty(&stdin) && tcgetpgrp(&stdin).is_ok_and(|group| group == getpgrp())
}

/// Throws away what was typed on standard input and not read yet: it was typed before what it would answer.
pub fn forget_typed() {
    // Where there is no terminal nothing was typed.
    let _ = tcflush(io::stdin(), QueueSelector::IFlush);
}

/// How somebody leaves a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// With `q`, or because the terminal is gone.
    Done,
    /// With Ctrl-C.
    Interrupted,
}

const CTRL_C: u8 = 3;

/// Reads the keys of a screen that is left open, beside whoever draws it.
#[derive(Debug)]
pub struct Keys {
    _raw: Raw,
    /// The key that leaves; 0 before there is one.
    pressed: Arc<AtomicU8>,
}

impl Keys {
    /// Begins to read; `wake` is called when somebody leaves. `None` where standard input is no terminal, or this process
    /// is in its background.
    pub fn read(wake: impl Fn() + Send + 'static) -> Option<Self> {
        if !is_typed_for_us() {
            return None;
        }
        let raw = Raw::on().ok()?;
        let pressed = Arc::new(AtomicU8::new(0));
        let tells = Arc::clone(&pressed);
        let reads = std::thread::Builder::new().spawn(move || {
            let leaving =
                io::stdin().lock().bytes().map(|byte| byte.unwrap_or(b'q')).find(|b| matches!(b, b'q' | &CTRL_C));
            tells.store(leaving.unwrap_or(b'q'), Ordering::Relaxed);
            wake();
        });
        reads.ok().map(|_| Self { _raw: raw, pressed })
    }

    /// How somebody has left, if they have.
    pub fn left(&self) -> Option<Leave> {
        match self.pressed.load(Ordering::Relaxed) {
            0 => None,
            CTRL_C => Some(Leave::Interrupted),
            _ => Some(Leave::Done),
        }
    }
}
