//! `gate run`: asks the gates that are not answered yet, side by side as far as they do not wait for each other.
//!
//! Each runs in a process of its own, which contains what it starts, writes down what came of it, and goes on
//! when nobody watches any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::items::claim_of;
use super::job::Job;
use super::look::{Looked, runs};
use crate::anchor;
use crate::dispatch::GUARD;
use crate::domain::gate::check::{Applied, Proof, Standing, Subject, check, short_ref};
use crate::domain::gate::{Binding, GateStatus, Phase, Work, nonce};
use crate::domain::receipt::{Body, Entry, GateRequested, GateResulted};
use crate::domain::{DispatchId, Fault, Name};
use crate::gate;
use crate::project::Project;
use crate::provider::{self, environment};
use crate::sys::{self, files, lock, path};
use crate::worker::control;

/// Which gates are run.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// These, whatever they said before; empty: those that do not stand well.
    pub names: Vec<Name>,
    /// Also those that passed.
    pub all: bool,
    /// How many at a time; 0: as many as there are processors.
    pub jobs: usize,
}

/// What came of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ran {
    /// The gate.
    pub gate: Name,
    /// It holds the merge.
    pub required: bool,
    /// What it said; `None`: it was not run.
    pub result: Option<GateResulted>,
    /// Why it was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Somebody had it ended.
    #[serde(skip)]
    pub cancelled: bool,
}

impl Ran {
    /// It said yes.
    pub fn passed(&self) -> bool {
        self.result.as_ref().is_some_and(|r| r.status == GateStatus::Pass)
    }
}

/// Runs gates of a dispatch on its branch as it is. `tell` hears each as it ends.
pub fn run(project: &Project, looked: &Looked, wanted: &Wanted, mut tell: impl FnMut(&Ran)) -> Result<Vec<Ran>, Fault> {
    let seen = &looked.situation;
    project.require_trust_in(looked.policy.brought(&seen.subject.target))?;
    let holds = |why: &String| Fault::refused(why.as_str()).fix(format!("see `vnx gate-check {}`", seen.dispatch));
    if let Some(why) = seen.ledger.as_ref().or(seen.contract.as_ref()).or(seen.nothing.as_ref()) {
        return Err(holds(why));
    }
    if seen.verdict.is_none() {
        return Err(holds(&"the dispatch is not closed".to_owned()));
    }
    let known: BTreeSet<&Name> = seen.gates.iter().map(|a| &a.name).collect();
    if let Some(name) = wanted.names.iter().find(|name| !known.contains(*name)) {
        let what =
            if looked.policy.gates.contains_key(name) { "does not apply to this change" } else { "is not configured" };
        return Err(Fault::input(format!("gate {name} {what}")).fix("see `vnx gate list`"));
    }
    let rows: BTreeMap<Name, Standing> = check(seen).gates.into_iter().map(|row| (row.gate, row.standing)).collect();
    let stands = |name: &Name| matches!(rows.get(name), Some(Standing::Pass | Standing::SetAside));
    let is_wanted = |a: &&Applied| {
        let named = wanted.names.contains(&a.name);
        let runs = a.gate.phase == Phase::PreMerge && !matches!(a.gate.work(), Some(Work::Human(_)));
        runs && (named || wanted.names.is_empty() && (wanted.all || !stands(&a.name)))
    };
    let is_running = |a: &Applied| rows.get(&a.name) == Some(&Standing::Running);
    let (running, gates): (Vec<&Applied>, Vec<&Applied>) =
        seen.gates.iter().filter(is_wanted).partition(|a| is_running(a));
    // Two of the same would get into each other's way.
    let skip = |a: &&Applied| {
        let skipped = Some("it is being run already".to_owned());
        Ran { gate: a.name.clone(), required: a.required, result: None, skipped, cancelled: false }
    };
    let mut skipped: Vec<Ran> = running.iter().map(skip).collect();
    let named = |a: &&Applied| wanted.names.contains(&a.name);
    for Applied { name, required, gate, .. } in seen.gates.iter().filter(named).filter(|a| !is_wanted(a)) {
        let why = match gate.work() {
            Some(Work::Human(human)) => {
                let sign = if human.signed { " --sign" } else { "" };
                format!("a person says it: `vnx approve {}{sign} --reason WHY`", seen.dispatch)
            }
            _ => "it is asked of what the target becomes: `vnx merge` runs it".to_owned(),
        };
        skipped.push(Ran {
            gate: name.clone(),
            required: *required,
            result: None,
            skipped: Some(why),
            cancelled: false,
        });
    }
    skipped.iter().for_each(&mut tell);
    let before = seen.gates.iter().filter(|a| stands(&a.name)).map(|a| a.name.clone()).collect();
    let fork = looked.fork.clone().unwrap_or_else(|| seen.subject.base.clone());
    let asking = Asking { project, looked, subject: &seen.subject, fork, phase: Phase::PreMerge, before };
    if !gates.is_empty() {
        // What a gate runs was written by a worker, which could cut off what no anchor covers.
        settle(project)?;
    }
    let mut ran = asking.all(&gates, wanted.jobs, tell)?;
    settle(project)?;
    ran.extend(skipped);
    Ok(ran)
}

/// Runs those for what the target becomes, on a commit that combines both. Where that is another tree than the
/// branch's, no gate has seen it yet, so commands and probes are asked again.
pub fn post_merge(
    project: &Project,
    looked: &Looked,
    subject: &Subject,
    tell: impl FnMut(&Ran),
) -> Result<Vec<Ran>, Fault> {
    let set_aside: BTreeSet<Name> =
        check(&looked.situation).overrides.into_iter().filter_map(|w| Name::try_from(w.scope).ok()).collect();
    let other = subject.tree != looked.situation.subject.tree;
    let asks_the_tree = |a: &Applied| matches!(a.gate.work(), Some(Work::Command(_) | Work::Probe(_)));
    let is_post =
        |a: &&Applied| (a.gate.phase == Phase::PostMerge || other && asks_the_tree(a)) && !set_aside.contains(&a.name);
    let gates: Vec<&Applied> = looked.situation.gates.iter().filter(is_post).collect();
    let mut before = set_aside.clone();
    before.extend(
        looked.situation.gates.iter().filter(|a| !gates.iter().any(|g| g.name == a.name)).map(|a| a.name.clone()),
    );
    let asking = Asking { project, looked, subject, fork: subject.base.clone(), phase: Phase::PostMerge, before };
    asking.all(&gates, 0, tell)
}

/// What was said is anchored, so that it cannot be rewritten with the end of the ledger.
fn settle(project: &Project) -> Result<(), Fault> {
    match anchor::seal(project)? {
        Ok(_) => Ok(()),
        Err(audit) => {
            let why = audit.report.first_bad.map_or_else(String::new, |bad| format!(": {}", bad.reason));
            Err(Fault::refused(format!("the ledger does not verify, so no anchor covers what the gates said{why}"))
                .fix("run `vnx audit-chain verify`"))
        }
    }
}

struct Asking<'a> {
    project: &'a Project,
    looked: &'a Looked,
    subject: &'a Subject,
    fork: String,
    /// What it is about: the branch, or what the target becomes.
    phase: Phase,
    /// Gates that stand well already.
    before: BTreeSet<Name>,
}

impl Asking<'_> {
    fn id(&self) -> &DispatchId {
        &self.looked.situation.dispatch
    }

    fn all(&self, gates: &[&Applied], jobs: usize, mut tell: impl FnMut(&Ran)) -> Result<Vec<Ran>, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Fault::io(format!("cannot start the event loop: {e}")))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        runtime.block_on(self.schedule(gates, if jobs == 0 { cores } else { jobs }, &mut tell))
    }

    async fn schedule(&self, gates: &[&Applied], jobs: usize, tell: &mut impl FnMut(&Ran)) -> Result<Vec<Ran>, Fault> {
        let io = |e: std::io::Error| Fault::io(format!("cannot wait for gates: {e}"));
        let mut waiting: Vec<&Applied> = gates.to_vec();
        let mut good = self.before.clone();
        good.retain(|name| gates.iter().all(|a| a.name != *name));
        let (mut running, mut nonces, mut done) = (JoinSet::new(), BTreeMap::new(), Vec::new());
        let (mut int, mut term) =
            (signal(SignalKind::interrupt()).map_err(io)?, signal(SignalKind::terminate()).map_err(io)?);
        let mut cancelled = false;
        loop {
            while !cancelled && running.len() < jobs {
                let Some(at) = waiting.iter().position(|a| a.gate.after.iter().all(|b| good.contains(b))) else {
                    break;
                };
                let applied = waiting.remove(at);
                let nonce = self.ask(applied)?;
                let child = self.start(&nonce)?;
                nonces.insert(nonce.clone(), applied);
                running.spawn(async move {
                    let mut child = child;
                    // How it ended is in the ledger.
                    let _ = child.wait().await;
                    nonce
                });
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                ended = running.join_next() => {
                    let Some(Ok(nonce)) = ended else { continue };
                    let Some(applied) = nonces.remove(&nonce) else { continue };
                    let ran = Ran { cancelled, ..self.heard(applied, &nonce)? };
                    if ran.passed() {
                        good.insert(applied.name.clone());
                    }
                    tell(&ran);
                    done.push(ran);
                }
                _ = int.recv() => self.cancel(&nonces, std::mem::replace(&mut cancelled, true)),
                _ = term.recv() => self.cancel(&nonces, std::mem::replace(&mut cancelled, true)),
            }
        }
        for applied in waiting {
            let missing = applied.gate.after.iter().find(|b| !good.contains(*b));
            let why = missing
                .filter(|_| !cancelled)
                .map_or_else(|| "cancelled".to_owned(), |b| format!("gate {b} does not pass"));
            let ran = Ran {
                gate: applied.name.clone(),
                required: applied.required,
                result: None,
                skipped: Some(why),
                cancelled,
            };
            tell(&ran);
            done.push(ran);
        }
        Ok(done)
    }

    /// Puts the question on record, and everything that its runner needs beside it.
    fn ask(&self, applied: &Applied) -> Result<String, Fault> {
        let (project, id) = (self.project, self.id());
        let nonce = nonce(sys::random::<16>()?);
        let binding = Binding {
            gate: applied.name.clone(),
            contract: applied.contract,
            config: applied.config,
            target: self.subject.target.clone(),
            base: self.subject.base.clone(),
            head: self.subject.head.clone(),
            tree: self.subject.tree.clone(),
            nonce: nonce.clone(),
        };
        let shell = provider::load(project, &Name::try_from("shell".to_owned())?)?;
        let mut env_set: BTreeMap<String, String> = [
            ("VNX_DISPATCH_ID", id.as_str()),
            ("VNX_GATE", applied.name.as_str()),
            ("VNX_GATE_RUN", &nonce),
            ("VNX_BASE", &binding.base),
            ("VNX_HEAD", &binding.head),
            ("VNX_TARGET", short_ref(&binding.target)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if applied.gate.caches {
            for (variable, name) in &self.looked.policy.caches {
                // Not those of workers, who could have put anything there.
                let folder = project.paths.caches().join(format!("gates-{name}"));
                files::private_folder(&folder)?;
                env_set.insert(variable.clone(), path::text(&folder)?);
            }
        }
        let job = Job {
            v: 1,
            dispatch: id.clone(),
            binding: binding.clone(),
            phase: self.phase,
            gate: applied.gate.clone(),
            claim: claim_of(applied),
            fork: self.fork.clone(),
            common_dir: path::text(&project.located.common_dir)?,
            main: path::text(&project.located.main_top())?,
            root: path::text(&project.worktrees())?,
            env_pass: environment::allowed(&shell),
            env_set,
            secret_names: self.looked.policy.secret_names.clone(),
            grace: project.config.defaults.grace,
        };
        let folder = self.folder(&nonce)?;
        files::private_folder(&folder)?;
        job.write(&folder)?;
        let asked = GateRequested { binding, kind: applied.gate.kind(), phase: self.phase };
        project.ledger().append(&[Entry::of(id, Body::GateRequested(asked))])?;
        Ok(nonce)
    }

    fn folder(&self, nonce: &str) -> Result<std::path::PathBuf, Fault> {
        let dispatch = self.project.paths.dispatch(self.id());
        gate::folder(&dispatch, nonce).ok_or_else(|| Fault::internal("a nonce has another form"))
    }

    /// The lock passes as standard input: there is no moment at which nobody holds it.
    fn start(&self, nonce: &str) -> Result<tokio::process::Child, Fault> {
        let (paths, folder) = (&self.project.paths, self.folder(nonce)?);
        let path = folder.join("lock");
        let held = lock::exclusive(&path, Duration::from_secs(10))?;
        lock::note_place(&held, &path)?;
        files::private_folder(&paths.open_gates())?;
        files::replace(&paths.open_gates().join(nonce), self.id().as_str().as_bytes())?;
        let log = lock::open(&folder.join("runner.log"))?;
        let mut command = Command::new(path::own_executable()?);
        command.arg(GUARD).arg(paths.state()).args([self.id().as_str(), nonce]).current_dir("/");
        command.stdin(Stdio::from(held)).stdout(Stdio::null()).stderr(Stdio::from(log));
        tokio::process::Command::from(command)
            .spawn()
            .map_err(|e| Fault::environment(format!("cannot start a gate's runner: {e}")).fix("try again"))
    }

    /// What the ledger has of a run that is over.
    fn heard(&self, applied: &Applied, nonce: &str) -> Result<Ran, Fault> {
        super::runner::recover(self.project, nonce)?;
        let receipts = self.project.ledger().of_dispatch(self.id())?;
        let folder = self.project.paths.dispatch(self.id());
        let run = runs(&folder, self.id(), &receipts)?.into_iter().find(|run| run.binding.nonce == nonce);
        let said = run.and_then(|run| match run.proof {
            Proof::Sound => run.result,
            Proof::Broken(why) => {
                let reason = format!("its result does not count: {why}");
                run.result.map(|said| GateResulted { status: GateStatus::Unverified, reason, ..said })
            }
        });
        Ok(Ran {
            gate: applied.name.clone(),
            required: applied.required,
            result: said,
            skipped: None,
            cancelled: false,
        })
    }

    fn cancel(&self, running: &BTreeMap<String, &Applied>, now: bool) {
        for nonce in running.keys() {
            let Ok(folder) = self.folder(nonce) else { continue };
            // On a thread of its own: it may answer late. One that prepares looks for the note before it begins.
            let _ = sys::thread(move || cancel_one(&folder, now));
        }
    }
}

fn cancel_one(folder: &Path, now: bool) {
    let _ = files::replace(&folder.join("cancelled"), b"");
    let _ = control::ask(folder, &control::Request::Cancel { now }, Duration::from_mins(1));
}
