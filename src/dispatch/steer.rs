//! Giving a running worker something: an end, a text, an answer. Where that is refused, why and what to do.

use std::time::{Duration, Instant};

use super::guard;
use super::view::{closed, is_closed, last_known, plan};
use crate::domain::event::WorkerState;
use crate::domain::{DispatchId, Fault};
use crate::project::Project;
use crate::worker::control::{self, Answer, Delivery, Refusal, Request};

/// Why a worker was not given something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What stands against it.
    pub why: String,
    /// What to do next.
    pub fix: String,
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Whether the worker took it.
    pub delivery: Delivery,
    /// How that is known, or why not.
    pub why: String,
    /// What to do next, if it was not delivered for a reason that is known.
    pub fix: Option<String>,
}

impl Refused {
    fn of(id: &DispatchId, refusal: Refusal) -> Self {
        Self { why: refusal.why(), fix: refusal.fix(id) }
    }

    /// The dispatch is closed.
    fn over(project: &Project, id: &DispatchId) -> Self {
        let outcome = closed(project, id).ok().flatten().map(|c| format!(" ({})", c.verdict.outcome));
        Self {
            why: format!("dispatch {id} is over{}", outcome.unwrap_or_default()),
            fix: format!("`vnx show {id}` tells how it went; `vnx resume {id}` continues its session, if it has one"),
        }
    }

    /// Its supervisor says nothing: it has closed it meanwhile, is about to, or hangs.
    fn unanswered(project: &Project, id: &DispatchId) -> Self {
        if is_closed(project, id) {
            return Self::over(project, id);
        }
        if has_exited(project, id) {
            return Self::of(id, Refusal::Ended);
        }
        Self {
            why: format!("the supervisor of {id} gave no answer"),
            fix: "try again; `vnx ps` shows whether it answers".to_owned(),
        }
    }
}

fn has_exited(project: &Project, id: &DispatchId) -> bool {
    plan(project, id).is_ok_and(|plan| last_known(project, id, plan.made, true).state == WorkerState::Exited)
}

/// How long one that should answer may take before it is looked at.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks a supervisor to end its worker. `false` when there was nothing to end any more.
///
/// One that does not answer is not waited for: where it is stopped, that is said; with `now` it is continued and asked
/// again, and at last ended itself, with all that it has started.
pub fn cancel(project: &Project, id: &DispatchId, now: bool) -> Result<bool, Fault> {
    if is_closed(project, id) {
        return Ok(false);
    }
    let until = Instant::now() + if now { 3 * ANSWER } else { Duration::from_mins(1) };
    loop {
        // Before it is asked: what it is asked while it is stopped, it does when it goes on.
        if now {
            guard::go_on(&project.paths, id);
        } else {
            guard::is_running(&project.paths, id)?;
        }
        // A supervisor that is still preparing answers when the worktree stands.
        match control::ask(&project.paths.dispatch(id), &Request::Cancel { now }, ANSWER)? {
            Some(answer) => return Ok(answer.accepted),
            None if is_closed(project, id) => return Ok(false),
            None => {}
        }
        if has_exited(project, id) && guard::is_running(&project.paths, id).is_ok() {
            return Ok(false);
        }
        if Instant::now() >= until {
            break;
        }
        // It is lost, or is being born, or its worker has just ended and nobody listens for a moment.
        super::recover_one(&project.paths, id)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    if now {
        return end(project, id);
    }
    let refused = Refused::unanswered(project, id);
    Err(Fault::busy(refused.why).fix(format!("`vnx cancel --now {id}` ends it and its worker")))
}

/// Ends a supervisor that does not answer; its guard ends what it leaves, and recovery tells its story to the end.
fn end(project: &Project, id: &DispatchId) -> Result<bool, Fault> {
    guard::kill_supervisor(&project.paths, id);
    super::view::wait(project, id)?;
    Ok(true)
}

/// Gives a worker a text as one message, and says what became of it.
pub fn send(project: &Project, id: &DispatchId, text: &str) -> Result<Sent, Fault> {
    let not = |delivery, refused: Refused| Sent { delivery, why: refused.why, fix: Some(refused.fix) };
    if is_closed(project, id) {
        return Ok(not(Delivery::Refused, Refused::over(project, id)));
    }
    guard::is_running(&project.paths, id)?;
    let request = Request::Send { text: text.to_owned() };
    let answer = control::ask(&project.paths.dispatch(id), &request, Duration::from_mins(5))?;
    Ok(match answer {
        Some(Answer { delivery: Some((delivery, why)), refusal, .. }) => {
            Sent { delivery, why, fix: refusal.map(|r| r.fix(id)) }
        }
        Some(_) | None => not(Delivery::Unknown, Refused::unanswered(project, id)),
    })
}

/// Answers what a worker waits for a permission for; returns what that was.
pub fn permit(project: &Project, id: &DispatchId, allow: bool) -> Result<Result<String, Refused>, Fault> {
    if is_closed(project, id) {
        return Ok(Err(Refused::over(project, id)));
    }
    let folder = project.paths.dispatch(id);
    let limit = Duration::from_secs(10);
    let asked = control::ask(&folder, &Request::Status, limit)?.and_then(|answer| answer.detail);
    let answer = control::ask(&folder, &Request::Permit { allow }, limit)?;
    Ok(match answer {
        Some(Answer { accepted: true, .. }) => Ok(asked.unwrap_or_default()),
        Some(Answer { refusal, state, .. }) => Err(Refused::of(id, refusal.unwrap_or(Refusal::NotAsking(state)))),
        None => Err(Refused::unanswered(project, id)),
    })
}
