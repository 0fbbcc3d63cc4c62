//! Containment: ending a process tree and proving that nothing is left of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::domain::verdict::Containment;
use crate::sys::process::{self, Process};

/// How long killing may take before a tree counts as not ended.
pub const KILL_WITHIN: Duration = Duration::from_secs(10);
/// How long a round of killing may keep everything else waiting.
const ROUND: Duration = Duration::from_millis(20);
/// How many survivors a proof names.
const NAMED: usize = 50;

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

    /// Whether nothing is left below us, dead or alive. Only after the worker was waited for: it reaps.
    pub fn is_empty(&self) -> bool {
        process::no_child_is_left()
    }

    /// Who is alive below us at about this moment. A listing: what forks and exits may not be in it.
    fn alive(&self) -> Vec<Process> {
        process::descendants(self.me).unwrap_or_default().into_iter().filter(|p| !p.zombie).collect()
    }

    /// Signals everything that is seen alive below us; the worker is left to whoever waits for it.
    pub fn signal(&mut self, signal: Signal) {
        let sent = self.alive().iter().filter(|p| p.signal(signal)).count();
        let counter = if signal == Signal::KILL { &mut self.proof.sigkill } else { &mut self.proof.sigterm };
        *counter = counter.saturating_add(u32::try_from(sent).unwrap_or(u32::MAX));
    }

    /// Kills for a while, as fast as it goes; `true` when nothing is left. Only after the worker was waited for.
    pub fn kill(&mut self) -> bool {
        self.kill_until(Instant::now() + ROUND)
    }

    fn kill_until(&mut self, until: Instant) -> bool {
        let sigkill = &mut self.proof.sigkill;
        process::kill_below(until, || *sigkill = sigkill.saturating_add(1))
    }

    /// Notes who outlived the worker.
    pub fn note_survivors(&mut self) {
        for process in self.alive() {
            if self.seen.len() < NAMED {
                self.seen.insert(process.pid, process.label());
            }
        }
    }

    /// The worker's output stayed open after it had exited.
    pub fn note_leak(&mut self) {
        self.proof.leaky = true;
    }

    /// The proof: asks the kernel once more.
    pub fn prove(mut self) -> Containment {
        self.proof.empty = self.is_empty();
        self.proof.survivors = self.seen.into_values().collect();
        self.proof
    }
}

/// Ends everything below this process at once, or what can be ended within a time.
pub fn sweep_all(within: Duration) -> Containment {
    let mut sweep = Sweep::new();
    sweep.kill_until(Instant::now() + within);
    sweep.prove()
}

/// The same below the guard of a killed supervisor. The git that the supervisor had started, known by its session, first
/// ends what it does, for at most `within`: killed, it leaves its locks and half a checkout behind.
pub fn sweep_around(session: i32, within: Duration) {
    let (sweep, until) = (Sweep::new(), Instant::now() + within);
    loop {
        let (own, others): (Vec<Process>, Vec<Process>) = sweep.alive().into_iter().partition(|p| p.session == session);
        if own.is_empty() || Instant::now() >= until {
            break;
        }
        for process in others {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    sweep_all(KILL_WITHIN);
}

/// Ends everything below this process, after asking for it: waits as long as `grace` for what leaves by itself.
pub fn end_all(grace: Duration) -> Containment {
    let (mut sweep, until) = (Sweep::new(), Instant::now() + grace);
    sweep.signal(Signal::TERM);
    while !sweep.is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    sweep.kill_until(Instant::now() + KILL_WITHIN);
    sweep.prove()
}

impl Default for Sweep {
    fn default() -> Self {
        Self::new()
    }
}

/// What is known of the processes that a dead supervisor has left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traces<'a> {
    /// An assignment in their environment that only they have.
    pub marker: Option<&'a str>,
    /// The worker's pid, which is its session, and its start, where these still count; and its worktree.
    pub worker: Option<(i32, u64, &'a Path)>,
}

impl Traces<'_> {
    /// Whether a process is one of them.
    fn fit(&self, process: &Process, all: &BTreeMap<i32, Process>) -> bool {
        let is_of_worker = |(session, start, worktree): (i32, u64, &Path)| {
            process.session == session || is_orphan(process, start, all) && process.stands_in(worktree)
        };
        self.worker.is_some_and(is_of_worker) || self.marker.is_some_and(|mark| process.has_env(mark))
    }
}

/// Whether a process can have been started by a worker that is gone, and not by a person who looks into its worktree:
/// it is younger, it has no terminal, and so it is with all above it up to the one that adopts what is orphaned.
fn is_orphan(process: &Process, start: u64, all: &BTreeMap<i32, Process>) -> bool {
    if process.terminal != 0 || process.start_ticks < start {
        return false;
    }
    match all.get(&process.parent) {
        // `systemd --user` adopts what a person's session leaves.
        Some(parent) if parent.pid == 1 || parent.start_ticks < start && parent.name == "systemd" => true,
        Some(parent) => parent.pid != process.pid && is_orphan(parent, start, all),
        None => true,
    }
}

/// Ends what a dead supervisor left behind and its guard, which died too, could not end. Its worker died with it (parent
/// death signal); the worker's children are found by what they have of it.
pub fn sweep_lost(traces: Traces<'_>, grace: Duration) -> Containment {
    let spare = process::own_line();
    // Ours, and whether somebody could not be told from ours.
    let find = || {
        let all = process::all()?;
        let others = all.values().filter(|p| !spare.contains(&p.pid) && !p.zombie);
        let (ours, rest): (Vec<&Process>, Vec<&Process>) = others.partition(|p| traces.fit(p, &all));
        let unsure = rest.iter().any(|p| p.is_between_programs());
        Some((ours.into_iter().cloned().collect::<Vec<Process>>(), unsure))
    };
    let mut proof = Containment::default();
    let Some((mut left, mut unsure)) = find() else { return proof };
    proof.survivors = left.iter().map(Process::label).take(50).collect();
    let started = Instant::now();
    let (mut asked, mut seen_empty) = (false, 0);
    // A listing is no snapshot: a child that is born behind it, of a parent that is gone before it is
    // looked at, is in none. Two empty ones in a row are empty.
    while seen_empty < 2 && started.elapsed() < grace + KILL_WITHIN {
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
