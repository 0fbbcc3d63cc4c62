//! The guard: `vnx __guard <state> <dispatch> [<gate run>]`, the parent of a supervisor or of a gate's runner.
//!
//! Whatever a worker leaves is its supervisor's child. When the supervisor is killed, the kernel gives these orphans to
//! the next child subreaper above it, and that is the guard: it kills them all before it ends, but first waits up to ten
//! seconds for the supervisor's own git. It has the dispatch's lock as standard input too, so nobody takes the dispatch
//! for lost, and recovers it, before they are gone. A guard that is killed takes the supervisor with it ([`watch_guard`]).

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use rustix::process::{Pid, Signal, set_child_subreaper, set_parent_process_death_signal, setsid};

use crate::domain::{DispatchId, Fault};
use crate::project::Paths;
use crate::sys::path;
use crate::sys::process::{self, Process, is_own_program};
use crate::worker::{KILL_WITHIN, sweep_around};

/// The hidden subcommand.
pub const GUARD: &str = "__guard";
/// The subcommand of a supervisor.
const SUPERVISE: &str = "supervise";

/// Starts what it guards, waits for it, and ends what that leaves when it is killed.
pub fn guard(args: impl Iterator<Item = OsString>) -> ExitCode {
    const ENVIRONMENT: u8 = 5;
    let args: Vec<OsString> = args.collect();
    let (subcommand, [state, rest @ ..]) = (if args.len() > 2 { "__gate-runner" } else { SUPERVISE }, &*args) else {
        return ExitCode::from(70);
    };
    // Away from the terminal of whoever started us; already a leader is as good.
    let _ = setsid();
    // What is meant for all of vnx is the supervisor's to answer, in its own time; the guard ends after it.
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let _ = signal_hook::flag::register(signal, std::sync::Arc::default());
    }
    // Where there is no subreaper, no worker is started either: the supervisor needs it too, and says so.
    let _ = set_child_subreaper(Pid::from_raw(1));
    let child = path::own_executable().map_err(|fault| fault.what).and_then(|vnx| {
        let mut command = Command::new(vnx);
        command.arg(subcommand).arg("--state").arg(state).args(rest).spawn().map_err(|e| e.to_string())
    });
    let ended = child.and_then(|mut child| Ok((child.id(), child.wait().map_err(|e| e.to_string())?)));
    match ended {
        Ok((supervisor, status)) => {
            if status.signal().is_some() {
                // The supervisor leads a session of its own; no worker and no command of a gate is in it.
                sweep_around(i32::try_from(supervisor).unwrap_or(0), KILL_WITHIN);
            }
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(70))
        }
        Err(why) => {
            // Standard error is the supervisor's log.
            let _ = writeln!(std::io::stderr(), "cannot start the supervisor: {why}");
            ExitCode::from(ENVIRONMENT)
        }
    }
}

/// The guard and the supervisor of a dispatch, by their arguments: whoever hangs cannot be asked. A worker that calls
/// its own process so is taken for one of them, and can only be ended by that.
fn owners(paths: &Paths, id: &DispatchId) -> Vec<Process> {
    let state = paths.state();
    let is_owner = |process: &Process| {
        let args = process.args();
        let of = |program: &str| args.get(1).is_some_and(|arg| arg == program);
        let named = |at: usize| args.get(at).is_some_and(|arg| arg == state) && args[at + 1..] == [id.as_str()];
        (of(GUARD) && named(2) || of(SUPERVISE) && named(3)) && is_own_program(process.pid)
    };
    let all = process::all().unwrap_or_default().into_values();
    all.filter(|process| process.name.starts_with("vnx") && !process.zombie && is_owner(process)).collect()
}

/// Says so where the guard or the supervisor of a dispatch is stopped: nothing goes on before somebody continues it.
pub(super) fn is_running(paths: &Paths, id: &DispatchId) -> Result<(), Fault> {
    let Some(stopped) = owners(paths, id).into_iter().find(|process| process.stopped) else { return Ok(()) };
    let pid = stopped.pid;
    Err(Fault::busy(format!("the supervisor of {id} is stopped (process {pid})"))
        .fix(format!("`kill -CONT {pid}` lets it go on; `vnx cancel --now {id}` ends it and its worker")))
}

/// Continues what is stopped of them.
pub(super) fn go_on(paths: &Paths, id: &DispatchId) {
    for owner in owners(paths, id).iter().filter(|owner| owner.stopped) {
        owner.signal(Signal::CONT);
    }
}

/// Kills the supervisor of a dispatch. Its guard lives on, and ends what it leaves.
pub(super) fn kill_supervisor(paths: &Paths, id: &DispatchId) {
    let is_supervisor = |owner: &&Process| owner.args().get(1).is_some_and(|arg| arg == SUPERVISE);
    for owner in owners(paths, id).iter().filter(is_supervisor) {
        owner.signal(Signal::KILL);
    }
}

/// Ends this process, which is guarded, when its guard dies; while there is a worker, that is killed first.
pub(super) fn watch_guard() {
    // `worker::run` handles the signal. It is only refused where the kernel does not know it, and all do.
    let _ = set_parent_process_death_signal(Some(Signal::USR1));
}
