//! `vnx ps`, `vnx wait`, `vnx cancel`.

use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::args::{CancelArgs, PsArgs, WaitArgs};
use super::exit::{Answer, TIMED_OUT};
use super::screen::{Tone, columns, printable, toned};
use super::table::{Fit, fitted};
use crate::dispatch::steer;
use crate::dispatch::view::{self, Live, Waiting};
use crate::domain::event::WorkerState as State;
use crate::domain::receipt::DispatchClosed;
use crate::domain::span::human_millis;
use crate::domain::{DispatchId, Fault, Name, Outcome, Timestamp};
use crate::project::Project;

#[derive(Serialize)]
struct Ps {
    schema: &'static str,
    dispatches: Vec<Live>,
    /// Closed, and their receipts are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    broken: Vec<DispatchId>,
}

pub(super) fn ps(context: &Context, args: &PsArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    if args.repane {
        let socket = args.tmux_socket.as_deref().map(|s| Name::parse("socket", s)).transpose()?;
        for id in crate::dispatch::repane(&project, socket.as_ref())? {
            context.screen.story(&format!("{id} has a pane again"));
        }
    }
    let (live, broken) = (view::live(&project)?, view::broken_ones(&project));
    if args.json {
        context.screen.json(&Ps { schema: "vnx.ps/1", dispatches: live, broken });
        return Ok(Answer::Good);
    }
    for id in &broken {
        context.screen.story(&view::broken(id).to_string());
    }
    if live.is_empty() {
        context.screen.story("nothing is running; `vnx receipts list` shows what was");
        return Ok(Answer::Good);
    }
    let (lines, waits) = live_lines(&live, crate::sys::now(), columns());
    for line in lines.into_iter().chain(waits) {
        context.screen.answer(&line);
    }
    Ok(Answer::Good)
}

/// What runs, below a header: a row for each, its task and what it does now; and what somebody has to do for some of it.
pub(super) fn live_lines(live: &[Live], now: Timestamp, columns: Option<usize>) -> (Vec<String>, Vec<String>) {
    let (rows, waits) = live_rows(live, now);
    let mut rows = fitted(&rows, Fit::Drop, columns).into_iter();
    let mut lines: Vec<String> = rows.next().into_iter().collect();
    for (row, one) in rows.zip(live) {
        lines.push(row);
        let told: Vec<&str> = one.title.as_deref().into_iter().chain(one.doing.as_deref()).collect();
        if !told.is_empty() {
            let told = vec![vec![toned(Tone::Dim, &format!("  {}", printable(&told.join("  ·  "))))]];
            lines.extend(fitted(&told, Fit::Cut, columns));
        }
    }
    (lines, waits)
}

fn live_rows(live: &[Live], now: Timestamp) -> (Vec<Vec<String>>, Vec<String>) {
    let header = ["DISPATCH", "PROVIDER", "STATE", "FOR", "AGE", "OUTPUT", "PANE"];
    let mut rows = vec![header.iter().map(|h| toned(Tone::Dim, h)).collect::<Vec<_>>()];
    let mut waits = Vec::new();
    for one in live {
        let silent = is_silent(one);
        if silent {
            waits.extend(silent_lines(one));
        }
        waits.extend(wait_lines(one));
        rows.push(vec![
            one.id.to_string(),
            one.provider.clone(),
            toned(tone(one.state), one.state.word()),
            human_millis(now.millis_since(one.state_since)),
            human_millis(now.millis_since(one.since)),
            if silent { "?".to_owned() } else { format!("{} B", one.output_bytes) },
            one.pane.as_deref().map_or_else(|| "-".to_owned(), printable),
        ]);
    }
    (rows, waits)
}

pub(super) fn tone(state: State) -> Tone {
    match state {
        State::Working | State::Starting | State::Ready => Tone::Good,
        State::Limited | State::Ending | State::WaitingPermission | State::WaitingInput => Tone::Doubt,
        State::Exited | State::Idle => Tone::Dim,
        State::Lost | State::Broken | State::Blocked => Tone::Bad,
    }
}

/// Whether a worker runs of which its supervisor tells nothing. One that prepares or tidies up is only busy.
fn is_silent(one: &Live) -> bool {
    !one.answering && !matches!(one.state, State::Starting | State::Exited | State::Lost | State::Broken)
}

fn silent_lines(one: &Live) -> [String; 2] {
    [
        format!("{} does not answer: its state is the last one on record", toned(Tone::Doubt, one.id.as_str())),
        format!("  its supervisor is busy or stopped; ask again, or see `vnx logs {}`", one.id),
    ]
}

/// What somebody has to do for a worker before it goes on.
pub(super) fn wait_lines(one: &Live) -> Vec<String> {
    let detail = one.detail.as_ref().map(|d| format!(": {}", printable(d))).unwrap_or_default();
    let detail: String = detail.chars().take(200).collect();
    let (why, next) = match one.state {
        State::WaitingPermission => {
            (format!("asks a permission{detail}"), format!("answer with `vnx permit {} allow|deny`", one.id))
        }
        State::WaitingInput => {
            (format!("asks{detail}"), format!("answer with `vnx send {} TEXT` or in `vnx attach {}`", one.id, one.id))
        }
        State::Blocked => (format!("is blocked{detail}"), format!("look with `vnx attach {}`", one.id)),
        State::Lost => ("lost its supervisor".to_owned(), "any next command finishes it, such as `vnx ps`".to_owned()),
        State::Broken => {
            ("is broken: receipts of it are missing".to_owned(), "see `vnx audit-chain verify`".to_owned())
        }
        _ => return Vec::new(),
    };
    vec![format!("{} {why}", toned(Tone::Doubt, one.id.as_str())), format!("  {next}")]
}

#[derive(Serialize)]
struct Waited {
    schema: &'static str,
    dispatches: Vec<WaitedOne>,
    /// Dispatches that are not closed yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    running: Vec<DispatchId>,
}

#[derive(Serialize)]
struct WaitedOne {
    id: DispatchId,
    closed: DispatchClosed,
}

/// Exit 0 only if every one was accepted; otherwise the code of the first that was not, or that of a time that passed.
pub(super) fn wait(context: &Context, args: &WaitArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let ids = view::resolve_all(&project, &args.ids)?;
    let mut waited = Vec::new();
    let mut answer = Answer::Good;
    let waiting = Waiting { any: args.any, limit: args.timeout.map(|span| Duration::from_millis(span.0)) };
    let ended = view::wait_for(&project, &ids, waiting)?;
    let running: Vec<DispatchId> = ids.into_iter().filter(|id| !ended.contains(id)).collect();
    for id in ended {
        let closed = view::closed(&project, &id)?.ok_or_else(|| {
            Fault::internal(format!("dispatch {id} is closed and has no receipt")).fix("run `vnx audit-chain verify`")
        })?;
        if answer == Answer::Good {
            answer = Answer::of(&closed.verdict);
        }
        waited.push(WaitedOne { id, closed });
    }
    let is_late = !running.is_empty() && (!args.any || waited.is_empty());
    if is_late {
        answer = Answer::Own(TIMED_OUT);
    }
    if args.json {
        context.screen.json(&Waited { schema: "vnx.wait/1", dispatches: waited, running });
        return Ok(answer);
    }
    for one in &waited {
        let verdict = &one.closed.verdict;
        let word = toned(Tone::of(verdict.decision), verdict.decision.word());
        context.screen.answer(&format!("{}  {word}  {}: {}", one.id, verdict.outcome, printable(&verdict.reason)));
    }
    if is_late {
        let ids: Vec<&str> = running.iter().map(DispatchId::as_str).collect();
        context.screen.story(&format!("not closed within the time: {}", ids.join(", ")));
    }
    Ok(answer)
}

#[derive(Serialize)]
struct Cancelled {
    schema: &'static str,
    dispatches: Vec<CancelledOne>,
}

#[derive(Serialize)]
struct CancelledOne {
    id: DispatchId,
    accepted: bool,
    /// Why nothing can be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Exit 0 only if every one is cancelled.
pub(super) fn cancel(context: &Context, args: &CancelArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let ids = view::resolve_all(&project, &args.ids)?;
    // At once: each may take its grace, and one whose supervisor does not answer keeps no other from its end.
    let ended: Vec<Result<bool, Fault>> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            ids.iter().map(|id| crate::sys::beside(scope, || cancelled(&project, id, args.now))).collect();
        let failed = |_| Err(Fault::internal("a thread ended early"));
        asked.into_iter().map(|one| one.join().unwrap_or_else(failed)).collect()
    });
    let (mut dispatches, mut faults) = (Vec::new(), Vec::new());
    for (id, ended) in ids.into_iter().zip(ended) {
        let error = ended.as_ref().err().map(ToString::to_string);
        dispatches.push(CancelledOne { id, accepted: *ended.as_ref().unwrap_or(&false), error });
        faults.extend(ended.err());
    }
    let all = dispatches.iter().all(|one| one.accepted);
    if args.json {
        context.screen.json(&Cancelled { schema: "vnx.cancel/1", dispatches });
    } else {
        for CancelledOne { id, accepted, .. } in dispatches.into_iter().filter(|one| one.error.is_none()) {
            let over = || format!("{id} was over already; `vnx show {id}` tells how");
            context.screen.answer(&if accepted { format!("{id} is cancelled") } else { over() });
        }
    }
    let last = faults.pop();
    for fault in faults {
        let _ = context.screen.fault(&fault);
    }
    match last {
        Some(fault) => Err(fault),
        None => Ok(if all { Answer::Good } else { Answer::No }),
    }
}

fn cancelled(project: &Project, id: &DispatchId, now: bool) -> Result<bool, Fault> {
    let ended = steer::cancel(project, id, now)?;
    if ended {
        view::wait(project, id)?;
    }
    // What ran after a worker that was done can be ended too: the dispatch is what it was.
    let is = |closed: DispatchClosed| closed.verdict.outcome == Outcome::Cancelled;
    Ok(ended && view::closed(project, id)?.is_none_or(is))
}
