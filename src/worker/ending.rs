//! When a worker is ended: by its deadlines, after its last word, or because what it waits for
//! does not come.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::record::Source;
use super::run::Watch;
use crate::domain::event::{StateSource, WorkerState};
use crate::domain::outcome::Outcome;
use crate::domain::plan::EndPolicy;
use crate::domain::span::Span;

/// How long a protocol's agent may take to end its turn when it is told to.
const POLITE: Duration = Duration::from_secs(1);

/// Why the worker is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Deadline,
    Idle,
    Cancel,
    /// It stayed after its closing event.
    Linger,
    /// It waited for something that did not come.
    Unanswered,
}

/// The worker's last word, and what has been done about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub(super) since: Instant,
    /// It was asked to leave.
    pub(super) asked: bool,
}

impl Watch<'_> {
    pub(super) fn next_deadline(&mut self) -> Instant {
        let own = match (self.ending, self.closing) {
            (Some((_, kill_at)), _) => kill_at,
            (None, _) if self.cancelled.is_some() => self.cancelled.unwrap_or(self.started),
            (None, Some(closing)) => self.leaves_at(closing),
            (None, None) => self.limit().0,
        };
        let due = self.link.terminal().and_then(|t| t.due()).map(Instant::from_std);
        due.into_iter().chain(self.steering.due()).fold(own, Instant::min)
    }

    /// How long the worker may stay after its last word.
    fn patience(&self, closing: Closing) -> Duration {
        match &self.interactive {
            Some(interactive) if !closing.asked => interactive.settle.duration(),
            // Updates may come after the answer.
            None if self.say.is_some() => Duration::from_millis(300),
            _ => self.linger.duration(),
        }
    }

    /// When a worker that has said its last word is asked, then told to leave. It may say another one, again and again,
    /// but not after its deadline.
    fn leaves_at(&self, closing: Closing) -> Instant {
        let at = closing.since + self.patience(closing);
        if closing.asked { at } else { at.min(self.started + self.limits.deadline.duration()) }
    }

    /// How long a worker that can be steered may wait for others and be blocked, and when it leaves.
    fn patiences(&self) -> Option<(Span, Span, EndPolicy)> {
        let acp = self.acp.as_ref().map(|(within, end)| (*within, self.limits.idle, *end));
        self.interactive.as_ref().map(|i| (i.questions.within, i.blocked_within, i.end)).or(acp)
    }

    /// The limit that comes first while the worker works, and what it means.
    fn limit(&self) -> (Instant, Cause) {
        let total = (self.started + self.limits.deadline.duration(), Cause::Deadline);
        let idle = (self.progress + self.limits.idle.duration(), Cause::Idle);
        let Some((questions_within, blocked_within, end)) = self.patiences() else {
            return std::cmp::min_by_key(total, idle, |l| l.0);
        };
        let within = |span: Span, cause| (self.since_instant + span.duration(), cause);
        let other = match self.state {
            WorkerState::WaitingPermission | WorkerState::WaitingInput => within(questions_within, Cause::Unanswered),
            WorkerState::Blocked => within(blocked_within, Cause::Unanswered),
            WorkerState::Starting => std::cmp::min_by_key(idle, within(blocked_within, Cause::Unanswered), |l| l.0),
            WorkerState::Idle | WorkerState::Ready if end == EndPolicy::Manual => total,
            // Its turn was over: that it stayed is no failure.
            WorkerState::Idle => (idle.0, Cause::Linger),
            _ => idle,
        };
        std::cmp::min_by_key(total, other, |l| l.0)
    }

    pub(super) fn on_deadline(&mut self) {
        let now = Instant::now();
        if let Some(terminal) = self.link.terminal() {
            let told = terminal.on_due(self.listener, self.recorder);
            self.heard(told);
        }
        self.deliver();
        if let Some((_, kill_at)) = self.ending {
            if now >= kill_at {
                self.kill();
            }
        } else if let Some(at) = self.cancelled {
            if now >= at {
                self.end(Cause::Cancel);
            }
        } else if let Some(closing) = self.closing {
            if now >= self.leaves_at(closing) {
                self.ask_to_leave(closing);
            }
        } else {
            let (at, cause) = self.limit();
            if now < at {
                return;
            }
            if cause == Cause::Unanswered {
                self.give_up();
            }
            self.end(cause);
        }
    }

    /// Says what the worker waited for in vain.
    fn give_up(&mut self) {
        let screen = self.link.terminal().map(|t| t.screen().text()).unwrap_or_default();
        let seen = if screen.trim().is_empty() { "empty".to_owned() } else { format!("\n{screen}") };
        self.recorder.line(Source::Vnx, &format!("gave up; the screen is {seen}"), Vec::new());
        let (outcome, what) = match self.state {
            WorkerState::WaitingPermission => {
                (Outcome::PermissionBlocked, "nobody answered what it asked a permission for")
            }
            WorkerState::Starting => (Outcome::DialogBlocked, "the CLI did not become ready; its screen shows"),
            _ => (Outcome::DialogBlocked, "nobody answered what it asked"),
        };
        let seen = || screen.lines().find(|l| l.chars().any(char::is_alphanumeric)).map(|l| l.trim().to_owned());
        let detail = self.detail.clone().or_else(seen).unwrap_or_else(|| "nothing".to_owned());
        self.listener.gave_up(outcome, &format!("{what}: {detail}"));
    }

    /// Its last word is said: first it is asked in its own way, then signalled.
    fn ask_to_leave(&mut self, closing: Closing) {
        if self.say.take().is_some() {
            // The end of its input is how a protocol's agent is told to leave.
            self.closing = Some(Closing { since: Instant::now(), asked: true });
            self.go(WorkerState::Ending, StateSource::Process, None);
            return;
        }
        let quit = self.interactive.as_ref().map(|i| i.quit.clone()).unwrap_or_default();
        if closing.asked || quit.is_empty() || self.link.terminal().is_none() {
            self.end(Cause::Linger);
            return;
        }
        self.closing = Some(Closing { since: Instant::now(), asked: true });
        self.go(WorkerState::Ending, StateSource::Process, None);
        self.steering.quit(&quit);
        self.deliver();
    }

    pub(super) fn end(&mut self, cause: Cause) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some((cause, Instant::now() + self.limits.grace.duration()));
        self.go(WorkerState::Ending, StateSource::Process, None);
        self.sweep.signal(Signal::TERM);
    }

    fn kill(&mut self) {
        self.killed = true;
        self.sweep.signal(Signal::KILL);
        // Again soon, should something have been forked in between.
        if let Some((_, at)) = &mut self.ending {
            *at = Instant::now() + Duration::from_millis(100);
        }
    }

    /// Ends the worker on request; `false` when it is gone already.
    pub(super) fn cancel(&mut self, now: bool) -> bool {
        if self.state == WorkerState::Exited {
            if self.cancels_late {
                self.ending = Some((Cause::Cancel, Instant::now()));
                self.killed |= now;
            }
            return self.cancels_late;
        }
        let lines = self.listener.cancel();
        if !lines.is_empty() && !now && self.ending.is_none() {
            // The agent ends its turn in order; the signals follow when it has, or soon.
            self.write_lines(lines);
            self.cancelled = Some(Instant::now() + POLITE);
            return true;
        }
        self.end(Cause::Cancel);
        if now {
            self.kill();
        }
        true
    }
}
