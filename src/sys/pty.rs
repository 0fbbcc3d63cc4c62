//! Pseudo-terminals: the pair that stands between a supervisor and an interactive worker.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Columns, 1 to 1000.
    pub cols: u16,
    /// Rows, 1 to 1000.
    pub rows: u16,
}

impl Size {
    /// What a worker gets while nobody watches; also the size of a detached tmux window of ours.
    pub const UNWATCHED: Self = Self { cols: 200, rows: 50 };

    /// A size within what programs and emulators bear; 0 is what a terminal says that does not know.
    #[must_use]
    pub fn sane(self) -> Self {
        let or = |given: u16, default: u16| if given == 0 { default } else { given.min(1000) };
        Self { cols: or(self.cols, 80), rows: or(self.rows, 24) }
    }

    fn winsize(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.cols, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The supervisor's end; reads and writes do not block.
    pub master: OwnedFd,
    /// The worker's end. Reads on the master fail with EIO once every copy of it is closed.
    pub slave: OwnedFd,
}

impl Pty {
    /// Opens a pair of a size.
    ///
    /// The worker's end is opened through the master (TIOCGPTPEER, ioctl_tty(2)), so it cannot
    /// be another terminal of the same name in another mount namespace.
    pub fn open(size: Size) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        tcsetwinsize(&master, size.sane().winsize())?;
        let old = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, old | OFlags::NONBLOCK)?;
        Ok(Self { master, slave })
    }
}

/// Changes the size; the kernel tells the foreground process group (SIGWINCH).
pub fn resize(master: &OwnedFd, size: Size) -> io::Result<()> {
    Ok(tcsetwinsize(master, size.sane().winsize())?)
}
