//! The view: a tmux window that shows a dispatch. Losing it loses nothing.
//!
//! tmux expands `#(command)` in window names, session names, folders and formats, so only ids
//! of our own rule ever reach `-n`, `-s` and `-t`; the command goes as separate arguments after
//! `--`, which tmux runs without a shell; and the client gets a short environment, because it
//! hands everything it has to a server that it starts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::Name;
use crate::sys::cmd::{Cmd, CmdError, Output};

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// The user's own server.
    Default,
    /// `tmux -L <name>`.
    Named(Name),
    /// `tmux -S <path>`.
    At(PathBuf),
}

impl Socket {
    /// The server to use: a configured one, the one we are inside of, or the user's own.
    pub fn choose(configured: Option<&Name>) -> Self {
        if let Some(name) = configured {
            return Self::Named(name.clone());
        }
        // $TMUX is `<socket path>,<pid>,<session>`.
        let inside = std::env::var("TMUX").ok().and_then(|v| v.split(',').next().map(PathBuf::from));
        inside.filter(|p| p.exists()).map_or(Self::Default, Self::At)
    }
}

/// Where a pane goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Into a window of its own.
    Window,
    /// Into a tiled window with at most so many others.
    Tiled(usize),
}

/// tmux could not do it.
#[derive(Debug, thiserror::Error)]
pub enum TmuxError {
    /// The call could not be made.
    #[error(transparent)]
    Call(#[from] CmdError),
    /// tmux refused.
    #[error("tmux {verb} failed: {complaint}")]
    Refused {
        /// The command.
        verb: &'static str,
        /// Its complaint.
        complaint: String,
    },
}

/// A tmux server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmux {
    socket: Socket,
}

impl Tmux {
    /// The server behind `socket`.
    pub fn on(socket: Socket) -> Self {
        Self { socket }
    }

    fn cmd(&self) -> Cmd {
        let mut cmd = Cmd::new("tmux").limit(Duration::from_secs(10)).cwd("/");
        if let Some(folder) = std::env::var_os("TMUX_TMPDIR") {
            cmd = cmd.env("TMUX_TMPDIR", folder);
        }
        match &self.socket {
            Socket::Default => cmd,
            Socket::Named(name) => cmd.args(["-L", name.as_str()]),
            Socket::At(path) => cmd.arg("-S").arg(path),
        }
    }

    /// `tmux -V`, for example `3.3a`.
    pub fn version() -> Result<String, TmuxError> {
        let output = Cmd::new("tmux").arg("-V").limit(Duration::from_secs(10)).run()?;
        Ok(expect("-V", output)?.text().trim_start_matches("tmux ").to_owned())
    }

    /// Opens a pane for `name` in session `session`, as the layout says, and runs `command` in it.
    /// Returns its id (`%7`).
    pub fn open_pane(
        &self,
        session: &Name,
        name: &Name,
        layout: Layout,
        command: &[String],
    ) -> Result<String, TmuxError> {
        let Layout::Tiled(most) = layout else { return self.open_window(session, name, command) };
        // Windows of ours that have room, by what the server shows now; another may be faster, and
        // then this window gets one more or a window of its own.
        let standing = self.panes(session)?;
        for window in 1_u32..100 {
            let tiled = Name::parse("window", &format!("workers-{window}"))
                .map_err(|e| TmuxError::Refused { verb: "split-window", complaint: e.what })?;
            let count = standing.iter().filter(|(_, n)| n.split(' ').next() == Some(tiled.as_str())).count();
            if count == 0 {
                let pane = self.open_window(session, &tiled, command)?;
                return self.named(pane, name);
            }
            if count >= most {
                continue;
            }
            let target = format!("={session}:={tiled}");
            // A full window is made room in first: tmux refuses a split of a pane that is too small.
            self.cmd().args(["select-layout", "-t", &target, "tiled"]).run()?;
            let args = ["split-window", "-d", "-P", "-F", "#{pane_id}", "-t", &target, "--"];
            let output = self.cmd().args(args).args(command).run()?;
            if output.ok() {
                self.cmd().args(["select-layout", "-t", &target, "tiled"]).run()?;
                return self.named(output.text(), name);
            }
        }
        self.open_window(session, name, command)
    }

    /// Gives a pane its title, for its border and for lists.
    fn named(&self, pane: String, name: &Name) -> Result<String, TmuxError> {
        self.cmd().args(["set-option", "-p", "-t", &pane, "@vnx", name.as_str()]).run()?;
        Ok(pane)
    }

    /// Opens a window named `window` in session `session`, creating the session if needed, and
    /// runs `command` in it. Returns the pane's id (`%7`). Safe against others doing the same. Whatever the user's own
    /// settings are, a session stays while nobody is attached, and a window goes when its command has ended.
    fn open_window(&self, session: &Name, window: &Name, command: &[String]) -> Result<String, TmuxError> {
        let (target, its_window) = (format!("={session}:"), format!("={session}:={window}"));
        let goes = [";", "set-option", "-w", "-t", &its_window, "remain-on-exit", "off"];
        let stays = [";", "set-option", "-t", &target, "destroy-unattached", "off"];
        // New windows are the common case; both sides of a race to create the session win here
        // on their second try.
        for _ in 0..5 {
            let args = ["new-window", "-d", "-P", "-F", "#{pane_id}", "-t", &target, "-n", window.as_str(), "--"];
            let output = self.cmd().args(args).args(command).args(goes).run()?;
            if output.ok() {
                return Ok(output.text());
            }
            let args = ["new-session", "-d", "-P", "-F", "#{pane_id}", "-x", "200", "-y", "50"];
            let call = self.cmd().args(args).args(["-s", session.as_str(), "-n", window.as_str(), "--"]);
            let second = call.args(command).args(stays).args(goes).run()?;
            if second.ok() {
                return Ok(second.text());
            }
            let complaint = second.complaint();
            if !complaint.contains("duplicate session")
                && !complaint.contains("server exited")
                && !complaint.contains("lost server")
            {
                return Err(TmuxError::Refused { verb: "new-session", complaint });
            }
        }
        Err(TmuxError::Refused { verb: "new-window", complaint: "the session appears and disappears".to_owned() })
    }

    /// The panes of a session as `(pane id, window name and, in a tiled one, the pane's own)`; empty
    /// when there is none.
    pub fn panes(&self, session: &Name) -> Result<Vec<(String, String)>, TmuxError> {
        let target = format!("={session}:");
        let output =
            self.cmd().args(["list-panes", "-s", "-F", "#{pane_id} #{window_name} #{@vnx}", "-t", &target]).run()?;
        if !output.ok() {
            return Ok(Vec::new());
        }
        Ok(output
            .text()
            .lines()
            .filter_map(|l| l.split_once(' '))
            .map(|(p, w)| (p.to_owned(), w.trim_end().to_owned()))
            .collect())
    }

    /// The text of a pane.
    pub fn capture(&self, pane: &str) -> Result<String, TmuxError> {
        let output = self.cmd().args(["capture-pane", "-p", "-t", pane]).run()?;
        Ok(expect("capture-pane", output)?.text())
    }

    /// Ends a server that was started for one purpose (the demo's). Never the user's own.
    pub fn end_private_server(&self) -> Result<(), TmuxError> {
        match self.socket {
            Socket::Default => Ok(()),
            Socket::Named(_) | Socket::At(_) => self.cmd().arg("kill-server").run().map(drop).map_err(TmuxError::from),
        }
    }

    /// Whether tmux is installed, by looking only.
    pub fn installed(search: &std::ffi::OsStr) -> bool {
        matches!(crate::sys::path::find("tmux", search), crate::sys::path::Found::At(_))
    }

    /// The socket's file, for a named server.
    pub fn socket(&self) -> Option<&Path> {
        if let Socket::At(path) = &self.socket { Some(path) } else { None }
    }
}

fn expect(verb: &'static str, output: Output) -> Result<Output, TmuxError> {
    if output.ok() { Ok(output) } else { Err(TmuxError::Refused { verb, complaint: output.complaint() }) }
}
