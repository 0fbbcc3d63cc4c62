//! One worker: started, watched, contained, recorded.
//!
//! The supervisor owns the process tree: it is a child subreaper, so whatever the worker starts
//! stays below it, even after `setsid` and a double fork. A start goes through `launch`, which
//! gives the worker its own session and ties its life to the supervisor's.

mod attach;
mod cast;
mod command;
mod contain;
pub mod control;
mod ending;
mod launch;
mod lines;
mod link;
mod pipes;
mod record;
mod refusal;
mod replay;
mod run;
pub mod screen;
mod serve;
mod steer;
mod terminal;
mod viewers;

pub use attach::{Left, attach};
pub use cast::drawn;
pub use command::{CommandJob, Spoken, run_command, shell};
pub use contain::{KILL_WITHIN, Sweep, Traces, end_all, sweep_all, sweep_around, sweep_lost};
pub use launch::{LAUNCH, launch};
pub use record::{LastState, Recorded, Recorder, Source, last_state};
pub use replay::Replay;
pub use run::{Ended, Job, Started, run};
pub use screen::Plain;
