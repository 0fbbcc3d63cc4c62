//! The last step before the worker: `vnx __launch <parent> <note> <pipes|terminal> program args…`.
//!
//! It runs between fork and exec without `pre_exec` (which would forbid the cheap
//! `posix_spawn`): own session, death with the supervisor, then `exec`. If the exec fails, the
//! reason goes into a note file, so that it cannot be mistaken for the worker's own exit code.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};

/// The hidden subcommand.
pub const LAUNCH: &str = "__launch";

/// Becomes the worker; returns only when that failed.
pub fn launch(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let [parent, note, connection, program, rest @ ..] = args.as_slice() else {
        return ExitCode::from(70);
    };
    let parent = parent.to_str().and_then(|p| p.parse().ok()).and_then(Pid::from_raw);
    // Already a session leader is as good; nothing else can fail here.
    let _ = setsid();
    // Only a session leader without a terminal can take one: standard input becomes its own.
    if connection == "terminal" && rustix::process::ioctl_tiocsctty(std::io::stdin()).is_err() {
        return ExitCode::from(70);
    }
    let tied = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    // The supervisor may have died before the tie was made; then nobody would end this process.
    if !tied || getppid() != parent {
        return ExitCode::from(70);
    }
    let error = Command::new(program).args(rest).exec();
    let text = format!("cannot start {}: {error}", program.to_string_lossy());
    // The note is the only channel; without it the supervisor still sees exit code 127.
    let _ = crate::sys::files::create_new(std::path::Path::new(note), text.as_bytes());
    ExitCode::from(127)
}
