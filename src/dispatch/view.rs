//! Reading dispatches back: which there are, what became of them, what they are doing now.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::claim::refuse_swapped;
use super::guard;
use super::request::Request;
use super::supervise::read_plan;
use crate::anchor;
use crate::domain::event::{StateSource, WorkerState};
use crate::domain::id::meant;
use crate::domain::line::summary;
use crate::domain::plan::{Lane, Plan};
use crate::domain::receipt::{Body, DispatchClosed, Kind};
use crate::domain::{DispatchId, Fault, Name, Timestamp};
use crate::ledger::{Ledger, LedgerError, Receipt, format};
use crate::project::Project;
use crate::state::{State as Projections, StateError};
use crate::sys::{files, lock, path};
use crate::worker;
use crate::worker::control::{self, Answer};

/// A dispatch that is not closed.
#[derive(Debug, Clone, Serialize)]
pub struct Live {
    /// Its id.
    pub id: DispatchId,
    /// The role.
    pub agent: String,
    /// The CLI.
    pub provider: String,
    /// When it was claimed.
    pub since: Timestamp,
    /// What the worker is doing.
    pub state: WorkerState,
    /// Its supervisor says so itself; otherwise it is what the files tell. A supervisor that prepares or tidies
    /// up has no time to answer.
    pub answering: bool,
    /// Where that is known from.
    pub source: StateSource,
    /// Since when.
    pub state_since: Timestamp,
    /// What it waits for, in the CLI's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it said last that it does: a tool that it calls, or its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// The first line of its instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How it is connected.
    pub lane: Lane,
    /// The worker's process id.
    pub pid: Option<u32>,
    /// Bytes of output so far; 0 for a worker whose supervisor does not answer.
    pub output_bytes: u64,
    /// The pane, as `session %pane`.
    pub pane: Option<String>,
    /// The worktree.
    pub worktree: String,
}

/// Resolves an id, an abbreviation of one ([`meant`]), or `@last`.
pub fn resolve(project: &Project, text: &str) -> Result<DispatchId, Fault> {
    let id = named(project, text)?;
    refuse_swapped(&project.paths, &id)?;
    Ok(id)
}

fn named(project: &Project, text: &str) -> Result<DispatchId, Fault> {
    let names = files::names(&project.paths.dispatches())?;
    let mut ids: Vec<DispatchId> = names.iter().filter_map(|n| DispatchId::parse(n).ok()).collect();
    if text == "@last" {
        // Ids that people chose do not sort by time, and clocks go back: the order is the ledger's.
        ids.retain(|id| !of_gate(project, id).exists());
        if let Some(last) = last_requested(project, &ids) {
            return Ok(last);
        }
        let made = |id: &DispatchId| {
            std::fs::metadata(project.paths.dispatch(id).join("plan.json")).and_then(|m| m.modified()).ok()
        };
        ids.sort_by_key(|id| (made(id), id.clone()));
        return ids.pop().ok_or_else(|| {
            Fault::input("there is no dispatch yet").fix("start one: `vnx dispatch-agent --agent hello-world`")
        });
    }
    meant(ids, |id| id.as_str(), &text.to_ascii_lowercase()).map_err(|several| match several.first() {
        None => Fault::input(format!("there is no dispatch {text:?}"))
            .fix("see `vnx ps` and `vnx receipts list`, or use @last"),
        Some(first) => Fault::input(format!("{text:?} means {} dispatches, the first is {first}", several.len()))
            .fix("give more of the id"),
    })
}

/// The same of several, each once and in the order in which they were named first.
pub fn resolve_all(project: &Project, texts: &[String]) -> Result<Vec<DispatchId>, Fault> {
    let mut ids = texts.iter().map(|text| resolve(project, text)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok(ids)
}

/// What a person types for it: the last part of an id that vnx made, as long as that means this one. That of an id which
/// a person chose (`fix-2`) may be how later ones begin.
pub fn short_name(project: &Project, id: &DispatchId) -> String {
    let last = id.without_time().and_then(|rest| rest.rsplit_once('-')).map(|(_, last)| last);
    let short = last.filter(|last| resolve(project, last).is_ok_and(|meant| meant == *id));
    short.unwrap_or(id.as_str()).to_owned()
}

/// The one of these that was asked for last, if the end of the ledger tells.
fn last_requested(project: &Project, ids: &[DispatchId]) -> Option<DispatchId> {
    let (mut found, mut left) = (None, 20_000);
    let looked = project.ledger().newest_first(|receipt| {
        left -= 1;
        let requested = matches!(receipt.body, Body::DispatchRequested(_)).then_some(receipt.dispatch).flatten();
        found = requested.filter(|id| ids.contains(id));
        found.is_none() && left > 0
    });
    looked.ok().and(found)
}

/// Stands in the folder of a dispatch that a gate asked for.
pub fn of_gate(project: &Project, id: &DispatchId) -> PathBuf {
    project.paths.dispatch(id).join("of-gate")
}

/// The lines of the dispatch that is meant by an id, an abbreviation of one, or `@last`. It need not
/// have a folder any more. Asks the projections; where they cannot be used, the ledger is read.
pub fn lines(project: &Project, text: &str, progress: &dyn Fn(u64)) -> Result<Vec<Vec<u8>>, Fault> {
    let known = Projections::ask(project, progress, |state| {
        let ids = state.dispatches_like(text)?;
        let meant = ids.first().filter(|id| ids.len() == 1 || id.as_str() == text);
        meant.filter(|_| !text.is_empty()).map(|id| state.lines_of(id)).transpose()
    });
    match known {
        Ok(Some(lines)) => Ok(lines),
        Err(StateError::Ledger(error)) if !is_readable(&error) => Err(error.into()),
        // The folders know of more: what is not in the ledger yet, and what is ambiguous.
        Ok(None) | Err(_) => Ok(project.ledger().lines_of(&resolve(project, text)?)?),
    }
}

/// Whether what is left of a ledger can be shown: projections are made only of one that is what it was.
fn is_readable(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Differs(_))
}

/// The line of one receipt, exactly as it stands in the ledger.
pub fn line(project: &Project, seq: u64, progress: &dyn Fn(u64)) -> Result<Option<Vec<u8>>, Fault> {
    match Projections::ask(project, progress, |state| state.line_of(seq)) {
        Err(StateError::Ledger(error)) if !is_readable(&error) => Err(error.into()),
        Err(_) => Ok(project.ledger().line_of(seq)?),
        Ok(line) => Ok(line),
    }
}

/// What the ledger says of a dispatch as a whole.
#[derive(Debug)]
pub enum Standing {
    /// It has no closing receipt yet.
    Open,
    /// Receipts of it are missing ([`anchor::required`]).
    Broken,
    /// Its closing receipt.
    Closed(Box<DispatchClosed>),
}

/// Where a dispatch stands.
pub fn standing(project: &Project, id: &DispatchId) -> Result<Standing, Fault> {
    let required = anchor::required(&project.paths, id);
    let receipts = receipts(project, id)?;
    if is_broken(required, &receipts) {
        return Ok(Standing::Broken);
    }
    let closed = |r: Receipt| if let Body::DispatchClosed(closed) = r.body { Some(closed) } else { None };
    let closed = receipts.into_iter().rev().find_map(closed);
    Ok(closed.map_or(Standing::Open, |closed| Standing::Closed(Box::new(closed))))
}

/// The closing receipt of a dispatch, if it is closed. One whose receipts are missing is an error.
pub fn closed(project: &Project, id: &DispatchId) -> Result<Option<DispatchClosed>, Fault> {
    match standing(project, id)? {
        Standing::Open => Ok(None),
        Standing::Broken => Err(broken(id)),
        Standing::Closed(closed) => Ok(Some(*closed)),
    }
}

/// All receipts of a dispatch, oldest first.
pub fn receipts(project: &Project, id: &DispatchId) -> Result<Vec<Receipt>, Fault> {
    let lines = match project.ledger().recent_lines_of(id)? {
        Some(lines) => lines,
        None => match Projections::ask(project, &|_| {}, |state| state.lines_of(id)) {
            Err(StateError::Ledger(error)) if !is_readable(&error) => return Err(error.into()),
            Err(_) => project.ledger().lines_of(id)?,
            Ok(lines) => lines,
        },
    };
    let parse = |line: &Vec<u8>| format::read(line).map_err(|why| StateError::Receipt(why).into());
    lines.iter().map(parse).collect()
}

/// The plan of a dispatch; where the repository was moved or copied since, with the places that are its own now.
pub fn plan(project: &Project, id: &DispatchId) -> Result<Plan, Fault> {
    let (mut plan, _) = read_plan(&project.paths.dispatch(id))?;
    let common = &project.located.common_dir;
    let is_here =
        Path::new(&plan.git_common_dir).canonicalize().is_ok_and(|then| Some(then) == common.canonicalize().ok());
    if !is_here && let Some(name) = Path::new(&plan.worktree).file_name() {
        plan.worktree = path::text(&project.worktrees().join(name))?;
        plan.git_common_dir = path::text(common)?;
    }
    Ok(plan)
}

/// A file of a dispatch's folder, if it is there.
pub fn file(project: &Project, id: &DispatchId, name: &str) -> Result<Option<Vec<u8>>, Fault> {
    Ok(files::read_capped(&project.paths.dispatch(id).join(name), 64 << 20)?)
}

/// Everything that is not closed, the one that was claimed last first.
pub fn live(project: &Project) -> Result<Vec<Live>, Fault> {
    let mut live = Vec::new();
    for name in files::names(&project.paths.open())? {
        if let Ok(id) = DispatchId::parse(&name) {
            live.extend(of_open(project, id)?);
        }
    }
    live.sort_by(|a, b| (b.since, &b.id).cmp(&(a.since, &a.id)));
    Ok(live)
}

/// A dispatch that is not closed; none if it is, or it cannot be read now.
pub fn one(project: &Project, id: &DispatchId) -> Option<Live> {
    of_open(project, id.clone()).ok().flatten()
}

fn of_open(project: &Project, id: DispatchId) -> Result<Option<Live>, Fault> {
    // A claim that is being written has neither plan nor receipt yet; it appears in a moment.
    let Some(claim) = Claim::of(project, &id) else { return Ok(None) };
    let folder = project.paths.dispatch(&id);
    let answer = control::ask(&folder, &control::Request::Status, Duration::from_millis(500))?;
    let alive = !lock::is_free(&folder.join("lock"))?;
    if is_closed(project, &id) {
        return Ok(None);
    }
    let answering = answer.is_some();
    let answer = answer.unwrap_or_else(|| last_known(project, &id, claim.made, alive));
    Ok(Some(Live {
        agent: claim.agent,
        provider: claim.provider,
        since: claim.made,
        state: answer.state,
        answering,
        source: answer.source,
        state_since: answer.since,
        detail: answer.detail,
        doing: answer.doing,
        title: title(project, &id),
        lane: claim.lane,
        pid: answer.pid,
        output_bytes: answer.output_bytes,
        pane: pane(&folder)?,
        worktree: claim.worktree,
        id,
    }))
}

/// The pane of a dispatch, as `session %pane`, if it has one by now.
pub fn pane_of(project: &Project, id: &DispatchId) -> Option<String> {
    pane(&project.paths.dispatch(id)).ok().flatten()
}

/// The same of its folder, as `session %pane`; none while it has none.
fn pane(folder: &Path) -> Result<Option<String>, Fault> {
    let pane = files::read_capped(&folder.join("pane"), 4096)?;
    Ok(pane.map(|b| String::from_utf8_lossy(&b).trim().to_owned()).filter(|p| !p.starts_with("none")))
}

/// What is asked of a dispatch, in short: the first line of its instruction that says something.
pub fn title(project: &Project, id: &DispatchId) -> Option<String> {
    let title = Request::read(&project.paths, id)?.title()?;
    Some(summary(&title)).filter(|title| !title.is_empty())
}

/// Dispatches that are not open and whose receipts are missing, where the end of the ledger shows that some may be.
pub fn broken_ones(project: &Project) -> Vec<DispatchId> {
    match project.ledger().head() {
        Err(LedgerError::Differs(_)) => {
            let missing = anchor::believed(project, true).missing;
            missing.into_iter().filter(|id| is_closed(project, id)).collect()
        }
        _ => Vec::new(),
    }
}

/// What does not change while a dispatch is open.
struct Claim {
    agent: String,
    provider: String,
    lane: Lane,
    made: Timestamp,
    worktree: String,
}

impl Claim {
    /// From the plan; where that cannot be read, as one of a newer vnx, from the receipt.
    fn of(project: &Project, id: &DispatchId) -> Option<Self> {
        let named = |agent: &Name, provider: &Name| (agent.to_string(), provider.to_string());
        let ((agent, provider), lane, made, worktree) = match plan(project, id) {
            Ok(plan) => (named(&plan.agent, &plan.provider), plan.lane, plan.made, plan.worktree),
            Err(_) => receipts(project, id).ok()?.into_iter().find_map(|receipt| match receipt.body {
                Body::DispatchClaimed(said) => {
                    Some((named(&said.agent, &said.provider), said.lane, receipt.ts, said.worktree))
                }
                _ => None,
            })?,
        };
        Some(Self { agent, provider, lane, made, worktree })
    }
}

/// What the files tell of a dispatch whose supervisor says nothing.
pub(super) fn last_known(project: &Project, id: &DispatchId, made: Timestamp, alive: bool) -> Answer {
    let mut known = Answer {
        state: if alive { WorkerState::Starting } else { WorkerState::Lost },
        source: StateSource::Lock,
        since: made,
        detail: None,
        doing: None,
        pid: None,
        accepted: true,
        output_bytes: 0,
        delivery: None,
        refusal: None,
        reply: None,
    };
    let required = anchor::required(&project.paths, id);
    let receipts = receipts(project, id).unwrap_or_default();
    if is_broken(required, &receipts) {
        known.state = WorkerState::Broken;
        return known;
    }
    for receipt in receipts.into_iter().filter(|_| alive) {
        let state = match receipt.body {
            Body::DispatchStarted(started) => {
                known.pid = Some(started.pid);
                WorkerState::Working
            }
            Body::DispatchExited(exited) => {
                known.pid = None;
                known.output_bytes = exited.stdout_bytes + exited.stderr_bytes;
                WorkerState::Exited
            }
            _ => continue,
        };
        (known.state, known.source, known.since) = (state, StateSource::Process, receipt.ts);
    }
    // The recording begins when the worker is started.
    if known.state == WorkerState::Working
        && let Some(last) = worker::last_state(&project.paths.dispatch(id).join("events.ndjson"))
    {
        let micros = i64::try_from(last.t).unwrap_or(0).saturating_mul(1000).saturating_add(known.since.micros());
        known.since = Timestamp::from_micros(micros).unwrap_or(known.since);
        (known.state, known.source, known.detail) = (last.state, last.source, last.detail);
    }
    known
}

/// How many worktrees stand in which nobody works.
pub fn kept(project: &Project) -> Result<usize, Fault> {
    // Another project, or a person, may have folders beside.
    let is_over = |id: &DispatchId| is_closed(project, id) && project.paths.dispatch(id).join("plan.json").exists();
    let trees = files::names(&project.worktrees())?;
    Ok(trees.iter().filter_map(|name| DispatchId::parse(name).ok()).filter(is_over).count())
}

/// Blocks until a dispatch has no supervisor any more; refused where that is stopped, which nobody may notice.
pub fn wait_for_end(project: &Project, id: &DispatchId) -> Result<(), Fault> {
    /// How often that is looked at.
    const LOOK: Duration = Duration::from_secs(3);
    let lock = project.paths.dispatch(id).join("lock");
    lock::wait_until_free(&lock, LOOK, || guard::is_running(&project.paths, id))
}

/// Blocks until a dispatch is closed; finishes it if its supervisor is lost meanwhile.
pub fn wait(project: &Project, id: &DispatchId) -> Result<(), Fault> {
    while project.paths.open_marker(id).exists() {
        wait_for_end(project, id)?;
        super::recover_one(&project.paths, id)?;
    }
    Ok(())
}

/// Which dispatches are waited for, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// For the first one that is closed, and not for all.
    pub any: bool,
    /// Not longer than this.
    pub limit: Option<Duration>,
}

/// Blocks until all of several dispatches are closed, or as much of that as is wanted. Returns those that are, in the
/// order in which they were given.
pub fn wait_for(project: &Project, ids: &[DispatchId], waiting: Waiting) -> Result<Vec<DispatchId>, Fault> {
    let until = waiting.limit.map(|limit| Instant::now() + limit);
    let is_open = |id: &&DispatchId| project.paths.open_marker(id).exists();
    let (tell, ended) = channel();
    // Who gives up leaves the others waiting: they only look, and end with the process.
    let watch = |id: &DispatchId| {
        let (project, id, tell) = (project.clone(), id.clone(), tell.clone());
        crate::sys::thread(move || {
            let waited = wait_for_end(&project, &id);
            // Who gave up does not listen.
            let _ = tell.send((id, waited));
        })
    };
    let mut open: BTreeSet<&DispatchId> = ids.iter().filter(is_open).collect();
    for id in &open {
        watch(id)?;
    }
    let enough = |open: &BTreeSet<&DispatchId>| open.is_empty() || waiting.any && open.len() < ids.len();
    while !enough(&open) {
        let next = match until {
            Some(until) => ended.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => ended.recv().map_err(RecvTimeoutError::from),
        };
        let Ok((id, waited)) = next else { break };
        waited?;
        super::recover_one(&project.paths, &id)?;
        if is_open(&&id) {
            watch(&id)?;
        } else {
            open.remove(&id);
        }
    }
    Ok(ids.iter().filter(|id| !open.contains(id)).cloned().collect())
}

/// Whether a dispatch was begun, is not closed, and has no supervisor any more.
pub fn is_lost(project: &Project, id: &DispatchId) -> Result<bool, Fault> {
    let folder = project.paths.dispatch(id);
    // Whoever claims it holds its lock before it writes the plan, and closes it before the lock comes free.
    Ok(folder.join("plan.json").exists() && lock::is_free(&folder.join("lock"))? && !is_closed(project, id))
}

/// Whether receipts of a dispatch are missing: what else there is of it, looked at before they were read
/// ([`anchor::required`]), says more than they do. Nothing is done to it, and nothing that is left of them is believed.
pub(super) fn is_broken(required: Option<Kind>, receipts: &[Receipt]) -> bool {
    required.is_some_and(|kind| !receipts.iter().any(|r| r.body.kind() == kind))
}

/// Whether a person has accepted that they are gone. Reads the whole ledger.
pub(super) fn is_accepted(ledger: &Ledger, id: &DispatchId) -> Result<bool, Fault> {
    let told =
        ledger.last_matching(usize::MAX, |line| format::links(line).is_ok_and(|links| links.says(Kind::LedgerLost)))?;
    Ok(told.iter().any(|r| matches!(&r.body, Body::LedgerLost(lost) if lost.dispatches.contains(id))))
}

/// What is said of a dispatch that is broken.
pub fn broken(id: &DispatchId) -> Fault {
    Fault::refused(format!("dispatch {id} is broken: receipts of it are missing from the ledger"))
        .fix("`vnx audit-chain verify` says what is missing; its tree and its branch are left as they are")
}

/// Whether a dispatch is closed.
pub fn is_closed(project: &Project, id: &DispatchId) -> bool {
    !project.paths.open_marker(id).exists()
}
