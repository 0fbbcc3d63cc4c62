//! Containment: ending a process tree and proving that nothing is left of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::domain::verdict::Containment;
use crate::sys::process::{self, Process};

/// What is below a live supervisor, and how it is ended.
#[derive(Debug)]
pub struct Sweep {
    me: i32,
    seen: BTreeMap<i32, String>,
    proof: Containment,
}

impl Sweep {
    /// A sweep for the tree below this process.
    pub fn new() -> Self {
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        Self { me, seen: BTreeMap::new(), proof: Containment::default() }
    }

    /// Everything alive below us, after reaping what has died. `None` when it cannot be read.
    pub fn alive(&self, worker: Option<i32>) -> Option<Vec<Process>> {
        process::reap_adopted(worker);
        Some(process::descendants(self.me)?.into_iter().filter(|p| !p.zombie).collect())
    }

    /// Signals everything alive below us; returns how many were reached.
    pub fn signal(&mut self, signal: Signal, worker: Option<i32>) -> usize {
        let alive = self.alive(worker).unwrap_or_default();
        let sent = alive.iter().filter(|p| p.signal(signal)).count();
        let counter = if signal == Signal::KILL { &mut self.proof.sigkill } else { &mut self.proof.sigterm };
        *counter += u32::try_from(sent).unwrap_or(u32::MAX);
        sent
    }

    /// Notes who outlived the worker.
    pub fn note_survivors(&mut self, survivors: &[Process]) {
        for process in survivors {
            self.seen.insert(process.pid, process.label());
        }
    }

    /// The worker's output stayed open after it had exited.
    pub fn note_leak(&mut self) {
        self.proof.leaky = true;
    }

    /// The proof: reads the tree once more.
    pub fn prove(mut self) -> Containment {
        self.proof.empty = self.alive(None).is_some_and(|left| left.is_empty());
        self.proof.survivors = self.seen.into_values().take(50).collect();
        self.proof
    }
}

/// Ends everything below this process at once: for a supervisor whose worker could not be watched.
pub fn sweep_all() -> Containment {
    let (mut sweep, begun) = (Sweep::new(), Instant::now());
    while sweep.signal(Signal::KILL, None) > 0 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(2));
    }
    sweep.prove()
}

impl Default for Sweep {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends what a dead supervisor left behind. Its worker died with it (parent death signal); the
/// worker's children are found by an assignment in their environment that only they have, and by the
/// worker's session.
pub fn sweep_lost(marker: Option<&str>, session: Option<i32>, grace: Duration) -> Containment {
    let spare = process::own_line();
    // Ours, and whether somebody could not be told from ours.
    let find = || {
        let all = process::all()?;
        let others: Vec<Process> = all.into_values().filter(|p| !spare.contains(&p.pid) && !p.zombie).collect();
        let (ours, rest): (Vec<Process>, Vec<Process>) =
            others.into_iter().partition(|p| Some(p.session) == session || marker.is_some_and(|mark| p.has_env(mark)));
        Some((ours, rest.iter().any(Process::is_between_programs)))
    };
    let mut proof = Containment::default();
    let Some((mut left, mut unsure)) = find() else { return proof };
    proof.survivors = left.iter().map(Process::label).take(50).collect();
    let started = Instant::now();
    let (mut asked, mut seen_empty) = (false, 0);
    // A listing is no snapshot: a child that is born behind it, of a parent that is gone before it is
    // looked at, is in none. Two empty ones in a row are empty.
    while seen_empty < 2 && started.elapsed() < grace + Duration::from_secs(5) {
        let kill = started.elapsed() >= grace;
        if !left.is_empty() && (kill || !asked) {
            let signal = if kill { Signal::KILL } else { Signal::TERM };
            let sent = u32::try_from(left.iter().filter(|p| p.signal(signal)).count()).unwrap_or(u32::MAX);
            *(if kill { &mut proof.sigkill } else { &mut proof.sigterm }) += sent;
            asked = true;
        }
        // Not our children, so nothing wakes us; the loop is bounded.
        std::thread::sleep(Duration::from_millis(2));
        (left, unsure) = find().unwrap_or((left, unsure));
        // Programs start within milliseconds; what stays unreadable is somebody else's.
        let unsure = unsure && started.elapsed() < Duration::from_secs(1);
        seen_empty = if left.is_empty() && !unsure { seen_empty + 1 } else { 0 };
    }
    proof.empty = left.is_empty();
    proof
}
