//! What the foreground of a dispatch tells while its worker runs: one line that follows what it does, and that somebody
//! has to answer it, which can be done there.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::live::wait_lines;
use super::screen::{Screen, Tone, columns, printable, toned};
use crate::dispatch::steer;
use crate::dispatch::view::{self, Live};
use crate::domain::event::WorkerState;
use crate::domain::{DispatchId, Timestamp};
use crate::project::Project;
use crate::sys::{self, tty};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How much is told of what it does.
const LONGEST: usize = 160;

/// The telling beside a dispatch that runs. It ends when this goes, and says nothing after that; nobody waits for it.
pub(super) struct Follow {
    tell: Sender<DispatchId>,
    over: Arc<Mutex<bool>>,
    screen: Screen,
}

impl Follow {
    /// Starts the thread that tells, unless only the answer is wanted.
    pub(super) fn begin(screen: Screen, project: &Project) -> Self {
        let (tell, told) = channel();
        let over = Arc::new(Mutex::new(screen.is_quiet()));
        if !screen.is_quiet() {
            let (project, over) = (project.clone(), Arc::clone(&over));
            let following = Following { screen, project, over, asked: None };
            // Where no thread can be had, nothing is followed.
            let _ = sys::thread(move || following.run(&told));
        }
        Self { tell, over, screen }
    }

    /// This dispatch runs now.
    pub(super) fn on(&self, id: &DispatchId) {
        // Where nobody follows there is nobody to tell.
        let _ = self.tell.send(id.clone());
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // A thread that panicked tells nothing any more.
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *over, true) {
            self.screen.progress("");
        }
    }
}

struct Following {
    screen: Screen,
    project: Project,
    over: Arc<Mutex<bool>>,
    /// The question that was told last, by when it began.
    asked: Option<Timestamp>,
}

impl Following {
    fn run(mut self, told: &Receiver<DispatchId>) {
        let mut current = None;
        loop {
            match told.recv_timeout(LOOK) {
                Ok(id) => current = Some(id),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let live = current.as_ref().and_then(|id| view::one(&self.project, id));
                    let over = Arc::clone(&self.over);
                    let over = over.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(live) = live.filter(|_| !*over) {
                        self.tell(&live);
                    }
                }
            }
        }
    }

    fn tell(&mut self, live: &Live) {
        let waits = wait_lines(live);
        if waits.is_empty() {
            self.asked = None;
            self.show(live);
            return;
        }
        if self.asked != Some(live.state_since) {
            self.screen.progress("");
            self.asked = Some(live.state_since);
            for line in &waits {
                self.screen.story(line);
            }
            if live.state == WorkerState::WaitingPermission && tty::is_typed_for_us() {
                tty::forget_typed();
                self.screen.story("  or answer here: `allow` or `deny`, and Enter");
            }
        }
        if live.state == WorkerState::WaitingPermission && tty::is_typed_for_us() && is_typed() {
            self.answer(live);
        }
    }

    /// One quiet line, where somebody watches.
    fn show(&self, live: &Live) {
        let Some(doing) = &live.doing else { return };
        let text: String = printable(doing).chars().take(LONGEST).collect();
        let room = columns().unwrap_or(80).saturating_sub(1);
        let told: String = format!("{}  {text}", live.state.word()).chars().take(room).collect();
        self.screen.progress(&toned(Tone::Dim, &told));
    }

    /// What somebody typed, as the answer to what the worker asks.
    fn answer(&self, live: &Live) {
        let mut typed = String::new();
        if std::io::stdin().lock().read_line(&mut typed).is_err() {
            return;
        }
        let allow = match typed.trim() {
            "allow" | "a" | "yes" | "y" => true,
            "deny" | "d" | "no" | "n" => false,
            _ => {
                self.screen.story("  type `allow` or `deny`");
                return;
            }
        };
        // While it was typed the worker may have come to another question.
        if view::one(&self.project, &live.id).is_none_or(|now| Some(now.state_since) != self.asked) {
            self.screen.story("  not given: that question is over");
            return;
        }
        match steer::permit(&self.project, &live.id, allow) {
            Ok(Ok(_)) => self.screen.story(if allow { "  allowed" } else { "  denied" }),
            Ok(Err(refused)) => self.screen.story(&format!("  not given: {}", printable(&refused.why))),
            Err(fault) => self.screen.story(&format!("  not given: {fault}")),
        }
    }
}

/// Whether a line waits on standard input.
fn is_typed() -> bool {
    let stdin = std::io::stdin();
    let mut input = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut input, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
}
