//! Recovery: a dispatch that is open and whose lock is free has lost its supervisor. Whoever
//! notices takes the lock and finishes the story from the receipts.
//!
//! The scan costs one folder listing when nothing is open.

use std::path::Path;
use std::time::Duration;

use super::claim;
use super::finish::{Finish, NotRun, or_kept, tear_down};
use super::hooks;
use super::plan::{Planned, RUN};
use super::supervise::{read_plan, secrets};
use super::surroundings;
use super::{gates, own, pool, trees, view};
use crate::anchor;
use crate::domain::event::Claim as Said;
use crate::domain::outcome::Outcome;
use crate::domain::plan::Plan;
use crate::domain::receipt::{
    Body, DispatchClaimed, DispatchClosed, DispatchExited, DispatchJudged, DispatchStarted, Entry, Kind, WorktreeHook,
};
use crate::domain::redact::Redactor;
use crate::domain::tree::{TreeClass, TreeFate, classify};
use crate::domain::trust::of_hooks;
use crate::domain::verdict::{Containment, End, Verdict};
use crate::domain::{Decision, Digest, DispatchId, Fault};
use crate::git::Git;
use crate::ledger::{Ledger, Receipt};
use crate::project::trust::standing;
use crate::project::{Paths, Project};
use crate::provider::environment;
use crate::sys::files::HeldFolder;
use crate::sys::process::Process;
use crate::sys::{files, lock};
use crate::worker::{Traces, sweep_lost};
use crate::worktree::{self, Discarded, Done, Tree};

/// What every command does first: finishes what lost its supervisor, and deletes what a killed
/// supervisor had removed but not deleted yet.
pub fn tidy(project: &Project) -> Vec<(DispatchId, Result<(), Fault>)> {
    let finished = recover_all(&project.paths);
    trees::finish_removals(project);
    own::tidy(project);
    gates::tidy(project);
    pool::tidy(project);
    let worktrees = project.worktrees();
    if worktree::anything_removed(&project.paths) || worktree::is_left_behind(&worktrees) {
        // Disk space only: whoever comes next tries again.
        let _ = worktree::delete_removed(&project.paths, &worktrees, Duration::ZERO);
    }
    finished
}

/// Finishes every dispatch that lost its supervisor; returns their ids. One that cannot be
/// finished now stays open and is named in the error of the command that needs it.
pub fn recover_all(paths: &Paths) -> Vec<(DispatchId, Result<(), Fault>)> {
    let Ok(open) = files::names(&paths.open()) else {
        return Vec::new();
    };
    let ids = open.iter().filter_map(|name| DispatchId::parse(name).ok());
    ids.filter_map(|id| match recover_one(paths, &id) {
        Ok(true) => Some((id, Ok(()))),
        Ok(false) => None,
        Err(fault) => Some((id, Err(fault))),
    })
    .collect()
}

/// Finishes one dispatch if it is open and nobody owns it; `true` when something was done.
pub fn recover_one(paths: &Paths, id: &DispatchId) -> Result<bool, Fault> {
    let marker = paths.open_marker(id);
    let folder = paths.dispatch(id);
    if !marker.exists() {
        return Ok(false);
    }
    claim::refuse_swapped(paths, id)?;
    if !folder.join("lock").exists() {
        return recover_unborn(paths, id, &folder);
    }
    // A look first, which is all that a dispatch that is alive costs.
    if lock::try_exclusive(&folder.join("lock"))?.is_none() {
        return Ok(false);
    }
    // Free may also mean newborn: its claim has made the lock file and is about to take it. A
    // claim does both under the claim lock, so with that in hand free means dead.
    let newborn = lock::exclusive(&paths.claim_lock(), Duration::from_secs(30))?;
    let Some(lock) = lock::try_exclusive(&folder.join("lock"))? else { return Ok(false) };
    drop(newborn);
    // Its supervisor may have closed it between our two looks.
    if !marker.exists() {
        return Ok(false);
    }
    let ledger = paths.ledger();
    // Nothing is done by a ledger that was cut: what it does not say any more may have happened.
    ledger.head()?;
    let required = anchor::required(paths, id);
    let receipts = ledger.of_dispatch(id)?;
    let is_copied = lock::is_copied(&lock, &folder.join("lock"))?;
    let is_broken = view::is_broken(required, &receipts);
    if is_broken && !view::is_accepted(&ledger, id)? {
        return Err(view::broken(id));
    }
    if receipts.iter().any(|r| r.body.kind() == Kind::DispatchClosed) {
        if !is_copied {
            surroundings::clear(&folder, id);
        }
        files::remove(&marker)?;
        return Ok(true);
    }
    if is_copied {
        return close_untouched(paths, id, &ledger, &receipts, &Untouched::COPIED);
    }
    let Ok((plan, plan_digest)) = read_plan(&folder) else {
        // Without a plan nobody knows the mark of its processes.
        surroundings::clear(&folder, id);
        return close_untouched(paths, id, &ledger, &receipts, &Untouched::NO_PLAN);
    };
    let lost =
        Lost { lock: &lock, paths, ledger: &ledger, plan: &plan, plan_digest, folder: &folder, receipts: &receipts };
    if is_broken {
        lost.claim_again()?;
        lost.sweep(None, None);
        return close_untouched(paths, id, &ledger, &ledger.of_dispatch(id)?, &Untouched::NO_RECEIPTS);
    }
    lost.finish()?;
    if let Some(worktrees) = Path::new(&plan.worktree).parent() {
        // Disk space only: whoever comes next tries again.
        let _ = worktree::delete_removed(paths, worktrees, Duration::from_mins(1));
    }
    Ok(true)
}

/// A claim that got no further than its marker or its empty folder. The claim lock makes sure
/// that nobody is in the middle of it.
fn recover_unborn(paths: &Paths, id: &DispatchId, folder: &Path) -> Result<bool, Fault> {
    let Some(_guard) = lock::try_exclusive(&paths.claim_lock())? else {
        return Ok(false);
    };
    if folder.join("lock").exists() || !paths.open_marker(id).exists() {
        return Ok(false);
    }
    // No lock file was ever made, so no plan, no receipt and no supervisor.
    let _ = std::fs::remove_dir(folder);
    files::remove(&paths.open_marker(id))?;
    Ok(true)
}

/// What only the processes of this dispatch have in their environment; `None` for a plan of an older vnx, whose
/// processes cannot be told from those of another project.
fn marker(plan: &Plan) -> Option<String> {
    plan.launch.env_set.get(RUN).map(|run| format!("{RUN}={run}"))
}

/// In the folder of a dispatch: where the process ids in its receipts count.
pub(super) const PIDS: &str = "pids";

/// The boot and the pid namespace: only there a process id means what it meant.
pub(super) fn where_pids_count() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), space.display())
}

/// What stands in the folder of a dispatch before its worker is started, beside temporary files.
const BEFORE_A_RUN: [&str; 12] = [
    worktree::BASELINE,
    "lock",
    "request.yaml",
    "prompt.md",
    "plan.json",
    "supervisor.log",
    "pane",
    "tmpdir",
    "control.sock",
    "supplies.json",
    "submodules.json",
    "hooks",
];

/// Whether anything in the folder of a dispatch says that its worker was, or may have been, started.
fn was_run(folder: &Path) -> bool {
    let is_before = |name: &String| BEFORE_A_RUN.contains(&name.as_str()) || name.starts_with(files::TEMPORARY);
    files::names(folder).map_or(true, |names| !names.iter().all(is_before))
}

struct Lost<'a> {
    lock: &'a std::fs::File,
    paths: &'a Paths,
    ledger: &'a Ledger,
    plan: &'a Plan,
    plan_digest: Digest,
    folder: &'a Path,
    receipts: &'a [Receipt],
}

impl Lost<'_> {
    fn has(&self, kind: Kind) -> bool {
        self.receipts.iter().any(|r| r.body.kind() == kind)
    }

    fn find<T>(&self, pick: impl Fn(&Body) -> Option<T>) -> Option<T> {
        self.receipts.iter().find_map(|r| pick(&r.body))
    }

    fn finish(self) -> Result<(), Fault> {
        let id = &self.plan.id;
        let tree = Tree::of(self.plan, self.folder, self.paths);
        let registered = Git::worktree_git_dir(tree.common_dir, tree.path).map_or(true, |d| d.is_some());
        // Its remover may have died before it looked at what it had renamed.
        worktree::put_back(self.paths, tree.path)?;
        let exists = registered || tree.path.exists();
        if !self.has(Kind::DispatchClaimed) {
            if !exists && !was_run(self.folder) {
                // The crash came before the first receipt: nothing was recorded, nothing was done.
                files::delete_tree(self.folder)?;
                return Ok(files::remove(&self.paths.open_marker(id))?);
            }
            self.claim_again()?;
        }
        let started = self.find(|b| if let Body::DispatchStarted(s) = b { Some(s.clone()) } else { None });
        let exited = self.find(|b| if let Body::DispatchExited(e) = b { Some(e.clone()) } else { None });
        let containment = self.sweep(started.as_ref(), exited.as_ref());
        let judged = self.find(|b| if let Body::DispatchJudged(j) = b { Some(j.clone()) } else { None });
        // Without this receipt on the disk no worker is ever started; but the disk, or a hand, can lose it.
        let mut may_have_run = self.has(Kind::DispatchPrepared) || was_run(self.folder);
        // A hook writes what vnx did not; what it left is looked at as a worker's would be.
        let mut has_tree = may_have_run || hooks::begun(self.folder);
        let mut left_over = None;
        if !has_tree {
            worktree::take_back(&tree, &self.plan.setup);
            match worktree::discard_half_made(&tree, &self.plan.setup) {
                Ok(Discarded::Gone) => {}
                // Somebody else has been there, and nobody says who: it is looked at as a worker's.
                Ok(Discarded::Holds(_)) => (may_have_run, has_tree) = (true, true),
                // A git that was killed can leave a lock of its own behind, which is not ours to break:
                // then the story is closed all the same, and says what is left.
                Err(fault) => left_over = Some(format!("not all of it could be taken away: {fault}")),
            }
        }
        let said = self.said();
        let run_ms = exited.as_ref().map_or(0, |e| e.ran_ms);
        let held = HeldFolder::open(self.folder)?;
        let redactor = self.redactor();
        let finish = Finish {
            paths: self.paths,
            held: &held,
            lock: self.lock,
            ledger: self.ledger,
            redactor: &redactor,
            plan: self.plan,
            plan_digest: self.plan_digest,
            end: Self::end(may_have_run, exited),
            containment,
            said,
            has_tree,
            prepare_ms: 0,
            run_ms,
            recovered: true,
            left_over,
            already_collected: self.has(Kind::DispatchCollected),
            hooks: self.may_run_hooks().map(|()| self.hooks_on_record()),
            surroundings: Vec::new(),
        };
        match judged {
            Some(judged) => self.finish_teardown(&finish, &tree, exists, judged)?,
            None => finish.run(|_| {})?,
        };
        Ok(())
    }

    fn end(may_have_run: bool, exited: Option<DispatchExited>) -> End {
        match exited {
            Some(exited) => exited.end,
            None if may_have_run => End::Lost,
            None => End::NeverStarted {
                outcome: Outcome::SupervisorLost,
                reason: "the supervisor died before the worker was started".to_owned(),
            },
        }
    }

    /// A plan that came with the repository was neither made nor accepted here.
    fn may_run_hooks(&self) -> Result<(), NotRun> {
        if !hooks::is_claimed(self.receipts, self.plan_digest) {
            return Err(NotRun::NotClaimed);
        }
        let brought = of_hooks("plan.json", &self.plan.setup.hooks);
        if standing(self.paths).untrusted(brought).is_empty() { Ok(()) } else { Err(NotRun::Untrusted) }
    }

    fn hooks_on_record(&self) -> Vec<WorktreeHook> {
        let hook = |body: &Body| if let Body::WorktreeHook(hook) = body { Some(hook.clone()) } else { None };
        self.receipts.iter().filter_map(|r| hook(&r.body)).collect()
    }

    /// What the worker's environment would be now: its own is gone, and it had the same secrets unless they changed.
    fn redactor(&self) -> Redactor {
        let launch = &self.plan.launch;
        let env = environment::build(&launch.env_pass, &launch.env_set, &launch.env_from, launch.env_file.as_deref());
        Redactor::new(env.map(|env| secrets(self.plan, &env)).unwrap_or_default())
    }

    /// What the worker said, if that was stored before the crash.
    fn said(&self) -> Said {
        let bytes = files::read_capped(&self.folder.join("claim.json"), 4 << 20).ok().flatten();
        let mut said: Said = bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        said.fit();
        said
    }

    fn sweep(&self, started: Option<&DispatchStarted>, exited: Option<&DispatchExited>) -> Containment {
        // A pid that was reused since (other start time, other boot) names somebody else's session.
        let there = files::read_capped(&self.folder.join(PIDS), 4096).ok().flatten();
        let started = started.filter(|_| there.is_some_and(|text| text == where_pids_count().as_bytes()));
        let is_reused = |pid: i32, start: u64| Process::read(pid).is_some_and(|now| now.start_ticks != start);
        let worktree =
            Path::new(&self.plan.worktree).canonicalize().unwrap_or_else(|_| self.plan.worktree.clone().into());
        let worker = started.and_then(|s| Some((i32::try_from(s.pid).ok()?, s.start_ticks, worktree.as_path())));
        let worker = worker.filter(|(pid, start, _)| !is_reused(*pid, *start));
        let grace = self.plan.limits.grace.duration().min(Duration::from_secs(2));
        let marker = marker(self.plan);
        let mut containment = sweep_lost(Traces { marker: marker.as_deref(), worker }, grace);
        surroundings::clear(&self.paths.dispatch(&self.plan.id), &self.plan.id);
        // Processes that shed their environment and their session would not have been found:
        // only the supervisor, which is gone, could have proven that none is left.
        containment.empty &= exited.is_some_and(|e| e.containment.empty);
        if let Some(exited) = exited {
            containment.sigterm += exited.containment.sigterm;
            containment.sigkill += exited.containment.sigkill;
            containment.leaky |= exited.containment.leaky;
            containment.survivors.extend(exited.containment.survivors.iter().cloned());
        }
        containment
    }

    /// A power cut can lose the unsynced first receipts although the tree was made: they are
    /// written again, so that every tree has a claim in the ledger.
    fn claim_again(&self) -> Result<(), Fault> {
        let request = files::read_capped(&self.folder.join("request.yaml"), 4 << 20)?.unwrap_or_default();
        let planned =
            Planned { plan: self.plan.clone(), json: String::new(), digest: self.plan_digest, prompt: String::new() };
        self.ledger.append(&claim::entries(&planned, Digest::of(&request), None))?;
        Ok(())
    }

    /// The verdict stands; only the teardown is open.
    fn finish_teardown(
        &self,
        finish: &Finish<'_>,
        tree: &Tree<'_>,
        exists: bool,
        judged: DispatchJudged,
    ) -> Result<DispatchClosed, Fault> {
        if !finish.has_tree {
            return finish.close(None, judged.verdict, judged.class, None, 0);
        }
        if let Ok(Some(tip)) = Git::repository(tree.common_dir).ref_commit(&tree.id.branch_ref()) {
            let onto = self.find(|b| if let Body::DispatchCollected(c) = b { Some(c.onto.clone()) } else { None });
            finish.write_patch(&onto.unwrap_or_default(), &tip);
        }
        if exists && tree.path.exists() {
            // Read again: time has passed since, and only what is true now may be acted on.
            let held = finish.before_facts();
            let collected = worktree::collect(tree);
            let class = classify(&collected.facts);
            let done = tear_down(tree, class, &collected, held);
            return finish.close(Some(&collected), judged.verdict, class, Some(done), 0);
        }
        if judged.class.action().tree != TreeFate::Remove {
            // Not by us: a person moved it, or its disk is not there. What git has of it stays.
            let done = Done { kept_because: Some("its folder is gone".to_owned()), ..Done::default() };
            return finish.close(None, judged.verdict, judged.class, Some(done), 0);
        }
        // The folder had been removed: what is left is the registration and the branch. The
        // branch goes only if it still points where the verdict saw it.
        let tip = self.find(|b| if let Body::DispatchCollected(c) = b { c.head.clone() } else { None });
        let done = or_kept(worktree::kept_tree_gone(tree, judged.class, tip.as_deref()));
        finish.close(None, judged.verdict, judged.class, Some(done), 0)
    }
}

/// The plan is gone (power loss, a careless hand): keep everything and say so.
/// Why a dispatch is closed without a look at anything of it.
struct Untouched {
    reason: &'static str,
    evidence: &'static str,
    /// Its worktree, if there is one, is this repository's.
    has_tree: bool,
}

impl Untouched {
    const NO_PLAN: Self = Self {
        reason: "the supervisor and its plan are gone; the tree and the branch were left as they are",
        evidence: "plan.json: missing or unreadable",
        has_tree: true,
    };
    const NO_RECEIPTS: Self = Self {
        reason: "its receipts are gone, and a person has accepted that; the tree and the branch were left as they are",
        evidence: "receipts: missing",
        has_tree: true,
    };
    const COPIED: Self = Self {
        reason: "this repository was copied while it ran; it goes on, or ends, where it was begun",
        evidence: "lock: is a copy of one that stands elsewhere",
        has_tree: false,
    };
}

fn close_untouched(
    paths: &Paths,
    id: &DispatchId,
    ledger: &Ledger,
    receipts: &[Receipt],
    why: &Untouched,
) -> Result<bool, Fault> {
    let claimed = receipts.iter().find_map(|r| match &r.body {
        Body::DispatchClaimed(claimed) => Some(claimed.clone()),
        _ => None,
    });
    let Some(claimed) = claimed else {
        // No plan and no claim: the crash came while the folder was being filled. Where it holds more, receipts and
        // plan were lost, and it is all that is left.
        if !was_run(&paths.dispatch(id)) {
            files::delete_tree(&paths.dispatch(id))?;
        }
        files::remove(&paths.open_marker(id))?;
        return Ok(true);
    };
    let closed = closed_untouched(claimed, why);
    ledger.append(&[Entry::of(id, Body::DispatchClosed(closed))])?;
    files::remove(&paths.open_marker(id))?;
    Ok(true)
}

fn closed_untouched(claimed: DispatchClaimed, why: &Untouched) -> DispatchClosed {
    use crate::domain::receipt::{Durations, Teardown, TreeEnd};
    let tree_exists = why.has_tree && Path::new(&claimed.worktree).exists();
    DispatchClosed {
        request: None,
        plan: claimed.plan,
        agent: claimed.agent,
        provider: claimed.provider,
        model: claimed.model,
        lane: claimed.lane,
        session: None,
        base: claimed.base,
        branch: claimed.branch,
        head: None,
        commits: None,
        diff: None,
        end: End::Lost,
        containment: Containment::default(),
        usage: crate::domain::event::Usage::default(),
        verdict: Verdict {
            decision: Decision::Unproven,
            outcome: Outcome::SupervisorLost,
            reason: why.reason.to_owned(),
            evidence: vec![why.evidence.to_owned()],
        },
        teardown: Teardown {
            class: TreeClass::Unknown,
            tree: if tree_exists { TreeEnd::Kept } else { TreeEnd::None },
            branch_kept: true,
            rescue: None,
        },
        report: None,
        took_ms: Durations::default(),
        recovered: true,
    }
}
