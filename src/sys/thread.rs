//! Threads where the system may refuse one: a low limit on processes (`ulimit -u`) counts threads too, and
//! `std::thread::spawn` panics then.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::domain::Fault;

/// Why there is no thread, and what to do.
fn refused(error: &io::Error) -> Fault {
    Fault::environment(format!("cannot start a thread: {error}"))
        .fix("raise the limit on processes (`ulimit -u`), or end some; check free memory")
}

/// Runs it on a thread of its own, which nobody waits for.
pub fn thread(work: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
    Builder::new().spawn(work).map(drop).map_err(|e| refused(&e))
}

/// Work that is done at the same time, or was done at once where no thread could be had.
#[derive(Debug)]
pub enum Beside<'scope, T> {
    /// On a thread of its own.
    Thread(ScopedJoinHandle<'scope, Option<T>>),
    /// It is done.
    Done(Option<T>),
}

impl<T> Beside<'_, T> {
    /// Waits for it; an error when it panicked.
    pub fn join(self) -> std::thread::Result<T> {
        let done = match self {
            Self::Thread(handle) => handle.join()?,
            Self::Done(done) => done,
        };
        done.ok_or_else(|| Box::new("it was not begun") as _)
    }
}

/// Does work beside the caller's, and where no thread can be had, before it. Not for work that waits for the caller.
pub fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Beside<'scope, T> {
    // A thread that cannot be made does not give back what it was to do.
    let kept = Arc::new(Mutex::new(Some(work)));
    let theirs = Arc::clone(&kept);
    let take = |kept: &Mutex<Option<_>>| kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    let handle = Builder::new().spawn_scoped(scope, move || {
        let work = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map(|work| work())
    });
    match handle {
        Ok(handle) => Beside::Thread(handle),
        Err(_) => Beside::Done(take(&kept).map(|work| work())),
    }
}
