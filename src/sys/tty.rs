//! The controlling terminal of this process: whoever sits there is asked directly, whatever standard input and output are.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::getpgrp;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp, tcgetsid};

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
