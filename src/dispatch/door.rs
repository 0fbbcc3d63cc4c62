//! The door: the single function through which every dispatch starts.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use super::claim::{Claim, claim};
use super::guard::GUARD;
use super::plan::{Planned, Refusal, compile};
use super::request::Request;
use super::snapshot::snapshot;
use super::{caller, panes, view};
use crate::domain::authority::{Agents, Deciding, Operation, Presence};
use crate::domain::receipt::{Attestation, Body, DispatchClosed, DispatchRefused, Entry};
use crate::domain::verdict::{End, Verdict};
use crate::domain::{DispatchId, Fault, Name};
use crate::project::Project;
use crate::sys::files::HeldFolder;
use crate::sys::path;
use crate::sys::watch::FolderWatch;
use crate::worker::control;

/// What a supervisor tells whoever started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// Worktree and prompt stand.
    Prepared {
        /// Milliseconds since the claim.
        took_ms: u64,
    },
    /// The worker runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The worker ended.
    Exited {
        /// How.
        end: End,
        /// Milliseconds it ran.
        ran_ms: u64,
    },
    /// The verdict is given.
    Judged {
        /// The verdict.
        verdict: Verdict,
    },
    /// The receipt is written and the lock is free.
    Closed,
}

/// Plans without doing anything.
pub fn plan_only(project: &Project, request: &Request) -> Result<Planned, Refusal> {
    compile(project, request, snapshot(project, request))
}

/// How a dispatch is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A private tmux socket instead of the configured one.
    pub socket: Option<Name>,
    /// No pane, whatever the configuration says.
    pub no_pane: bool,
    /// Wait for a free place when `limits.parallel` is reached.
    pub wait_slot: bool,
    /// Hears why, once, if it does.
    pub on_wait: Option<fn(&str)>,
    /// Nobody will watch: the claim is on the disk before this returns.
    pub detach: bool,
    /// How surely a person stands behind the overrides of the request; absent: they are asked.
    pub attested: Option<Attestation>,
}

/// A dispatch that is under way.
#[derive(Debug)]
pub struct Opened {
    /// Its id.
    pub id: DispatchId,
    /// Its plan.
    pub planned: Planned,
    /// How surely a person set constraints aside for it, if any were.
    pub attested: Option<Attestation>,
    supervisor: Child,
    pane: Option<JoinHandle<()>>,
}

/// Opens a dispatch: plan, claim, supervisor, pane.
pub fn open(project: &Project, request: &Request, options: &Options) -> Result<Opened, Fault> {
    let planned = match plan_only(project, request) {
        Ok(planned) => planned,
        Err(Refusal::Fault(fault)) => return Err(fault),
        Err(Refusal::Policy { rule, fault }) => {
            let body = DispatchRefused { agent: request.agent.clone(), rule, reason: fault.what.clone() };
            project.ledger().append(&[Entry::ledger(Body::DispatchRefused(body))])?;
            return Err(fault);
        }
    };
    let attested = match &planned.plan.overrides[..] {
        [] => None,
        _ => Some(options.attested.clone().map_or_else(set_aside, Ok)?),
    };
    let claim = claim_when_free(project, request, &planned, options, attested.as_ref())?;
    let id = claim.id.clone();
    if options.detach {
        project.ledger().sync()?;
    }
    // Before there is a worker that could put something else in its place.
    let held = HeldFolder::open(&claim.folder)?;
    let supervisor = start_supervisor(project, claim, options.detach)?;
    let pane = panes::beside(project, &id, held, options);
    Ok(Opened { id, planned, attested, supervisor, pane })
}

/// Constraints are a person's to set aside. Scripts of persons do it too, so nobody is asked for a code.
fn set_aside() -> Result<Attestation, Fault> {
    caller::require(Operation::Decide(Deciding::Override), || Ok(Agents::default()))?;
    Ok(Attestation { presence: Presence::None, signed: None })
}

fn claim_when_free(
    project: &Project,
    request: &Request,
    planned: &Planned,
    options: &Options,
    attested: Option<&Attestation>,
) -> Result<Claim, Fault> {
    let mut on_wait = options.on_wait;
    // A watch is not free (closing one waits for the kernel), so only who waits has one.
    let watch = options.wait_slot.then(|| FolderWatch::on(&project.paths.open()));
    loop {
        match (claim(project, request, planned, attested), &watch) {
            (Err(fault), Some(watch)) if fault.kind == crate::domain::FaultKind::Refused => {
                if let Some(tell) = on_wait.take() {
                    tell(&fault.what);
                }
                watch.wait();
            }
            (other, _) => return other,
        }
    }
}

/// The lock passes as standard input: there is no moment at which nobody holds it.
fn start_supervisor(project: &Project, claim: Claim, detach: bool) -> Result<Child, Fault> {
    let log = crate::sys::lock::open(&claim.folder.join("supervisor.log"))
        .map_err(|e| Fault::io(format!("cannot write the supervisor's log: {e}")))?;
    let mut command = Command::new(path::own_executable()?);
    command.arg(GUARD).arg(project.paths.state()).arg(claim.id.as_str()).current_dir("/");
    command.stdin(Stdio::from(claim.lock)).stderr(Stdio::from(log));
    command.stdout(if detach { Stdio::null() } else { Stdio::piped() });
    command.spawn().map_err(|e| {
        Fault::environment(format!("cannot start the supervisor: {e}")).fix("the next vnx command closes this dispatch")
    })
}

impl Opened {
    /// Leaves the dispatch to its supervisor.
    pub fn detach(self) {
        if let Some(pane) = self.pane {
            let _ = pane.join();
        }
    }

    /// Watches to the end. Ctrl-C cancels; a second one skips the grace.
    pub fn watch(mut self, project: &Project, mut on_progress: impl FnMut(&Progress)) -> Result<DispatchClosed, Fault> {
        let stdout = self.supervisor.stdout.take();
        let folder = project.paths.dispatch(&self.id);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Fault::io(format!("cannot start the event loop: {e}")))?;
        let closed = runtime.block_on(listen(stdout, &folder, &mut on_progress))?;
        if let Some(pane) = self.pane.take() {
            let _ = pane.join();
        }
        if !closed {
            // The supervisor is gone without a last word: finish its story.
            let _ = self.supervisor.wait();
            view::wait(project, &self.id)?;
        }
        view::closed(project, &self.id)?.ok_or_else(|| {
            Fault::internal(format!("dispatch {} has ended without a receipt", self.id)).fix("run `vnx show` on it")
        })
    }
}

/// Reads the story until its end; `true` when it was told to the end.
async fn listen(
    stdout: Option<std::process::ChildStdout>,
    folder: &Path,
    on_progress: &mut impl FnMut(&Progress),
) -> Result<bool, Fault> {
    let io = |e: std::io::Error| Fault::io(format!("cannot listen to the supervisor: {e}"));
    let Some(stdout) = stdout else {
        return Ok(false);
    };
    let mut lines = BufReader::new(tokio::process::ChildStdout::from_std(stdout).map_err(io)?).lines();
    let mut int = signal(SignalKind::interrupt()).map_err(io)?;
    let mut term = signal(SignalKind::terminate()).map_err(io)?;
    let mut asked = false;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return Ok(false) };
                let Ok(progress) = serde_json::from_str::<Progress>(&line) else { continue };
                on_progress(&progress);
                if progress == Progress::Closed {
                    return Ok(true);
                }
            }
            _ = int.recv() => ask_to_cancel(folder, std::mem::replace(&mut asked, true)),
            _ = term.recv() => ask_to_cancel(folder, std::mem::replace(&mut asked, true)),
        }
    }
}

/// On a thread of its own: a supervisor that is still preparing answers when it is done.
fn ask_to_cancel(folder: &Path, now: bool) {
    let folder = folder.to_owned();
    let _ = crate::sys::thread(move || {
        let _ = control::ask(&folder, &control::Request::Cancel { now }, Duration::from_mins(1));
    });
}
