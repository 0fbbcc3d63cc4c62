//! Effects, thin: the only room that spawns, signals, locks and writes files.
//!
//! Every I/O error that leaves here names its path; every process that leaves here has a
//! cleared environment unless its caller listed what it gets.

pub mod clone;
pub mod cmd;
pub mod editor;
pub mod files;
pub mod folder;
pub mod lock;
pub mod path;
pub mod process;
pub mod pty;
pub mod reader;
mod thread;
pub mod tty;
pub mod watch;

pub use thread::{Beside, beside, thread};

use crate::domain::{Fault, Timestamp};

/// The local clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros)
        .or_else(|| Timestamp::from_micros(0))
        .unwrap_or_else(|| unreachable!("zero is in range"))
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Fault::io(format!("the kernel gave no random bytes: {e}")))?;
    Ok(bytes)
}
