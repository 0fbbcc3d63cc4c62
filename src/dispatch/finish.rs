//! From a worker that has ended to a closed dispatch: collect, judge, teardown, close.
//!
//! One path for supervisors and for recovery. Each step is recorded before the next, and each
//! can be done again, so a crash between two of them costs nothing but time.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::gates::of_report;
use super::hooks::Running;
use super::surroundings;
use crate::anchor;
use crate::domain::agent::Deliverable;
use crate::domain::event::{Claim as Said, Usage};
use crate::domain::gate::check::{short, short_ref};
use crate::domain::patch::{Offer, Patched};
use crate::domain::plan::{Base, Plan};
use crate::domain::receipt::{
    Body, DispatchClosed, DispatchCollected, DispatchJudged, Durations, Entry, LostRef, Teardown, TreeEnd,
    WorktreeHook, WorktreeKept, WorktreeRemoved, WorktreeRescued,
};
use crate::domain::redact::Redactor;
use crate::domain::rules::{self, Asked};
use crate::domain::tree::{TreeClass, TreeFate, Tri, classify};
use crate::domain::verdict::{Containment, End, Evidence, GitEvidence, Verdict, judge};
use crate::domain::{Decision, Digest, Fault, Outcome};
use crate::git::Git;
use crate::ledger::{Appended, Ledger, LedgerError};
use crate::project::Paths;
use crate::provider::environment;
use crate::sys::files::{self, HeldFolder};
use crate::worktree::{self, Answer, Collected, Done, Tree};

/// The file that says how a verdict came about.
pub(super) const WHY: &str = "verdict.json";

/// A verdict and what came of each rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// `vnx.why/1`.
    pub schema: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Every rule, in order.
    pub rules: Vec<Asked>,
}

/// Why the hooks of a plan are not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRun {
    /// Somebody changed the plan.
    #[error("the plan is not the one that was claimed")]
    NotClaimed,
    /// The repository came with it.
    #[error("nobody has accepted the hooks of the plan here (`vnx trust`)")]
    Untrusted,
}

/// What is known when a worker has ended.
#[derive(Debug)]
pub(super) struct Finish<'a> {
    pub(super) paths: &'a Paths,
    /// The dispatch's folder, as it was when it was claimed.
    pub(super) held: &'a HeldFolder,
    /// The dispatch's lock: what we start holds it on if we die.
    pub(super) lock: &'a std::fs::File,
    pub(super) ledger: &'a Ledger,
    pub(super) redactor: &'a Redactor,
    pub(super) plan: &'a Plan,
    pub(super) plan_digest: Digest,
    pub(super) end: End,
    pub(super) containment: Containment,
    pub(super) said: Said,
    /// The worktree was made; otherwise there is nothing to look at.
    pub(super) has_tree: bool,
    pub(super) prepare_ms: u64,
    pub(super) run_ms: u64,
    pub(super) recovered: bool,
    /// What a preparation that was cut off has left and why.
    pub(super) left_over: Option<String>,
    /// An earlier process recorded its facts; the receipt stands once.
    pub(super) already_collected: bool,
    /// Receipts of hooks that stand already, or why its hooks are not run.
    pub(super) hooks: Result<Vec<WorktreeHook>, NotRun>,
    /// Variables of what the dispatch had for itself; nothing when its supervisor is gone.
    pub(super) surroundings: Vec<(String, String)>,
}

/// A teardown that failed keeps what is there; the story is closed all the same and says why.
pub(super) fn or_kept(done: Result<Done, Fault>) -> Done {
    done.unwrap_or_else(|fault| Done { kept_because: Some(format!("teardown failed: {fault}")), ..Done::default() })
}

/// Does what the class allows. A hook that failed keeps a tree that would go, and never the other way round.
pub(super) fn tear_down(tree: &Tree<'_>, class: TreeClass, read: &Collected, held: Option<String>) -> Done {
    match held {
        Some(why) if class.action().tree == TreeFate::Remove => worktree::keep(tree, why),
        _ => or_kept(worktree::teardown(tree, class, read)),
    }
}

impl Finish<'_> {
    fn folder(&self) -> std::path::PathBuf {
        self.held.path()
    }

    /// Collects, judges, tears down and closes. `tell` hears the verdict before the teardown.
    pub(super) fn run(self, tell: impl FnOnce(&Verdict)) -> Result<DispatchClosed, Fault> {
        let begun = Instant::now();
        let folder = self.folder();
        let tree = Tree::of(self.plan, &folder, self.paths);
        let patched = self.commit_answer(&tree);
        let held = self.before_facts();
        let collected = if self.has_tree { Some(worktree::collect(&tree)) } else { None };
        if let Some((collected, now)) = collected.as_ref().and_then(|c| Some((c, c.shared.as_ref()?))) {
            worktree::note_changes(self.paths, &self.plan.id, &collected.shared_changed, now)?;
        }
        let lost_refs = collected.as_ref().map(|c| worktree::keep_lost(&tree, &c.lost)).unwrap_or_default();
        let class = collected.as_ref().map_or(TreeClass::Clean, |c| classify(&c.facts));
        let (verdict, done) = std::thread::scope(|scope| {
            let _evidence = collected.as_ref().map(|c| crate::sys::beside(scope, || self.write_evidence(c)));
            if let Some(collected) = &collected {
                self.record(collected, &lost_refs)?;
            }
            let verdict = self.judge(collected.as_ref(), patched, &lost_refs);
            let judged = DispatchJudged { verdict: verdict.clone(), class };
            self.ledger.append(&[Entry::of(&self.plan.id, Body::DispatchJudged(judged))])?;
            tell(&verdict);
            let done = match &collected {
                Some(collected) => Some(tear_down(&tree, class, collected, held)),
                None => self.left_over.clone().map(|why| Done { kept_because: Some(why), ..Done::default() }),
            };
            Ok::<_, Fault>((verdict, done))
        })?;
        let close_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.close(collected.as_ref(), verdict, class, done, close_ms)
    }

    /// Puts the facts on record, unless they are.
    fn record(&self, collected: &Collected, lost_refs: &[LostRef]) -> Result<(), Fault> {
        if self.already_collected {
            return Ok(());
        }
        let onto = collected.work.as_ref().map(|work| work.onto.clone()).unwrap_or_default();
        let body = DispatchCollected {
            facts: collected.facts.clone(),
            unknown_because: collected.unknown_because.clone(),
            head: collected.head.clone(),
            on: collected.on.clone(),
            commits: collected.commits(),
            onto: if onto == [self.plan.base.commit.as_str()] { Vec::new() } else { onto },
            diff: collected.diff.clone(),
            lost_refs: lost_refs.to_vec(),
            settings: changed_settings(collected),
        };
        self.ledger.append(&[Entry::of(&self.plan.id, Body::DispatchCollected(body))])?;
        Ok(())
    }

    /// What has to happen before anything is read in the worktree. Why it stays, if it was not to be.
    pub(super) fn before_facts(&self) -> Option<String> {
        if !self.has_tree {
            return None;
        }
        let on_record = match self.hooks.clone() {
            Ok(on_record) => on_record,
            Err(why) => return Some(format!("{why}, so nothing that it says was run")),
        };
        let folder = self.folder();
        let running =
            Running { ledger: self.ledger, plan: self.plan, folder: &folder, on_record, around: &self.surroundings };
        let held = running.pre_remove().err().map(|failed| failed.why);
        worktree::take_back(&Tree::of(self.plan, &folder, self.paths), &self.plan.setup);
        held
    }

    /// Closes with a verdict that an earlier process gave; its teardown is done or finished.
    pub(super) fn close(
        &self,
        collected: Option<&Collected>,
        verdict: Verdict,
        class: TreeClass,
        done: Option<Done>,
        close_ms: u64,
    ) -> Result<DispatchClosed, Fault> {
        let id = &self.plan.id;
        let mut entries = Vec::new();
        let mut rescue = None;
        let (mut tree, mut branch_kept) = (TreeEnd::None, false);
        if let Some(done) = done {
            if let Some((reference, commit)) = done.rescue {
                rescue = Some(reference.clone());
                let body = WorktreeRescued { reference, commit, left_out: done.left_out };
                entries.push(Entry::of(id, Body::WorktreeRescued(body)));
            }
            branch_kept = !done.branch_deleted && collected.is_none_or(|c| c.tip.is_some());
            entries.push(if done.removed {
                tree = TreeEnd::Removed;
                Entry::of(id, Body::WorktreeRemoved(WorktreeRemoved { class, branch_deleted: done.branch_deleted }))
            } else {
                tree = if Path::new(&self.plan.worktree).exists() { TreeEnd::Kept } else { TreeEnd::None };
                let reason = done.kept_because.unwrap_or_else(|| class.word().to_owned());
                Entry::of(id, Body::WorktreeKept(WorktreeKept { class, reason }))
            });
        }
        let read = |name: &str| files::read_capped(&self.folder().join(name), 4 << 20).ok().flatten();
        let closed = DispatchClosed {
            request: read("request.yaml").map(|b| Digest::of(&b)),
            plan: self.plan_digest,
            agent: self.plan.agent.clone(),
            provider: self.plan.provider.clone(),
            model: self.said.model.clone().or_else(|| self.plan.model.clone()),
            lane: self.plan.lane,
            session: self.said.session.clone(),
            base: Base { name: self.plan.base.name.clone(), commit: self.plan.base.commit.clone() },
            branch: self.plan.branch.clone(),
            head: collected.and_then(|c| c.tip.clone().or_else(|| c.head.clone())),
            commits: collected.and_then(Collected::commits),
            diff: collected.and_then(|c| c.diff.clone()),
            end: self.end.clone(),
            containment: self.containment.clone(),
            usage: self.said.usage.clone(),
            verdict,
            teardown: Teardown { class, tree, branch_kept, rescue },
            report: read("report.md").map(|b| Digest::of(&b)),
            took_ms: Durations { prepare: self.prepare_ms, run: self.run_ms, close: close_ms },
            recovered: self.recovered,
        };
        if self.plan.delivers == Deliverable::Commit {
            let report = read("report.md").unwrap_or_default();
            entries.extend(of_report(id, &String::from_utf8_lossy(&report)));
        }
        entries.push(Entry::of(id, Body::DispatchClosed(closed.clone())));
        let (closed, written) = match self.ledger.append(&entries) {
            Ok(written) => (closed, written),
            // A worker can say what no receipt takes; it is closed all the same, without its words.
            Err(e @ (LedgerError::Unfit { .. } | LedgerError::Conflict { .. })) => {
                let closed = self.without_words(closed, &e);
                let written = self.ledger.append(&[Entry::of(id, Body::DispatchClosed(closed.clone()))])?;
                (closed, written)
            }
            Err(e) => return Err(e.into()),
        };
        // A convenience for readers; the ledger has said it already.
        if let Ok(json) = serde_json::to_string_pretty(&closed) {
            let _ = files::replace(&self.folder().join("closed.json"), self.redactor.redact(&json).as_bytes());
        }
        // The ledger is held against this one.
        if let Some(Appended { seq, hash, .. }) = written.last() {
            let _ = anchor::note_closing(&self.folder(), *seq, *hash);
        }
        // Before the mark goes by which a recovery would find it.
        surroundings::clear(&self.folder(), id);
        files::remove(&self.paths.open_marker(id))?;
        let _ = files::remove(&self.folder().join("control.sock"));
        Ok(closed)
    }

    /// What is left of a closing receipt that was refused: nothing in it is the worker's.
    fn without_words(&self, closed: DispatchClosed, why: &LedgerError) -> DispatchClosed {
        let verdict = Verdict {
            decision: Decision::Unproven,
            outcome: Outcome::Unknown,
            reason: format!("its own words were left out: {why}"),
            evidence: Vec::new(),
        };
        let model = self.plan.model.clone();
        DispatchClosed { model, session: None, diff: None, usage: Usage::default(), verdict, ..closed }
    }

    fn judge(&self, collected: Option<&Collected>, patched: Option<Patched>, lost_refs: &[LostRef]) -> Verdict {
        let empty_diff = |c: &Collected| match (&c.diff, c.commits()) {
            (Some(diff), _) => (diff.files == 0).into(),
            (None, Some(0)) => Tri::Yes,
            (None, _) => Tri::Unknown,
        };
        let git = match collected {
            Some(c) => GitEvidence {
                commits: c.commits(),
                has_base: c.work.as_ref().map_or(Tri::Unknown, |work| work.has_base.into()),
                came_along: c.work.as_ref().is_some_and(|work| work.onto != [self.plan.base.commit.as_str()]),
                uncommitted: c.uncommitted,
                in_progress: c.facts.in_progress,
                on_own_branch: c.facts.on_own_branch,
                elsewhere: elsewhere(c),
                empty_diff: empty_diff(c),
                unresolved: c.unresolved.clone(),
                lost_refs: lost_refs.to_vec(),
                settings: changed_settings(c),
            },
            // No tree was made: nothing can be in it.
            None => GitEvidence { on_own_branch: Tri::Unknown, ..GitEvidence::nothing() },
        };
        let seen = Evidence {
            end: self.end.clone(),
            containment: self.containment.clone(),
            claim: self.said.clone(),
            has_closing_event: self.plan.launch.parser.has_closing_event(),
            git,
            delivers: self.plan.delivers,
            patched,
            outside: self.outside(collected),
            // Nobody has asked them yet; `rules::conclude` adds what they say.
            held_by: Vec::new(),
        };
        let mut verdict = judge(&seen);
        // Its words may name a variable that it has missed; what recovers a dispatch has another environment.
        let missed = (verdict.decision != Decision::Accept && !self.recovered)
            .then(|| environment::missed(&self.plan.launch.env_pass, &verdict.reason));
        if let Some(name) = missed.flatten() {
            let key = format!("providers.{}.env.pass", self.plan.provider);
            verdict.reason = format!("{}; {name} is set here and not passed: add it to {key}", verdict.reason);
        }
        let why = Why { schema: "vnx.why/1".to_owned(), verdict: verdict.clone(), rules: rules::why(&seen) };
        if let Ok(json) = serde_json::to_string_pretty(&why) {
            let _ = files::replace(&self.folder().join(WHY), self.redactor.redact(&json).as_bytes());
        }
        verdict
    }

    /// Commits the change in the answer of a worker that has ended well, where the plan wants that.
    fn commit_answer(&self, tree: &Tree<'_>) -> Option<Patched> {
        let planned = self.plan.commit_answer.as_ref()?;
        let ended_well = self.end == End::Exited { code: 0 } && self.said.ok != Some(false);
        if !(ended_well && self.has_tree && self.containment.empty) {
            return None;
        }
        let patch = match self.said.offer.as_ref()? {
            Offer::Nothing => return Some(Patched::Nothing),
            Offer::Unusable(why) => return Some(Patched::Refused(why.clone())),
            Offer::Patch(patch) => patch,
        };
        let is_identity = |name: &str| name.starts_with("GIT_AUTHOR_") || name.starts_with("GIT_COMMITTER_");
        let set = self.plan.launch.env_set.iter().filter(|(name, _)| is_identity(name));
        let identity: Vec<(String, String)> = set.map(|(name, value)| (name.clone(), value.clone())).collect();
        let message = self.redactor.redact(&planned.message);
        let answer = Answer { patch, message: &message, identity: &identity };
        Some(
            worktree::commit_answer(tree, answer, Some(self.lock)).unwrap_or_else(|fault| Patched::Refused(fault.what)),
        )
    }

    /// What was changed outside of the paths that the request gave.
    fn outside(&self, collected: Option<&Collected>) -> Option<String> {
        let (tip, work) = collected.and_then(|c| Some((c.tip.as_ref()?, c.work.as_ref()?)))?;
        if self.plan.paths.is_empty() || work.commits.is_empty() {
            return None;
        }
        let repository = Git::repository(&self.plan.git_common_dir);
        match repository.own_changes_outside(work, tip, &self.plan.paths) {
            Ok(paths) if paths.is_empty() => None,
            Ok(paths) => Some(format!("changes outside the given paths: {}, first {:?}", paths.len(), paths[0])),
            Err(e) => Some(format!("the given paths could not be checked: {e}")),
        }
    }

    /// Files for people and for later commands. The receipts do not depend on them.
    fn write_evidence(&self, collected: &Collected) {
        if let Ok(json) = serde_json::to_string_pretty(&collected.facts) {
            let _ = files::replace(&self.folder().join("facts.json"), self.redactor.redact(&json).as_bytes());
        }
        if let Some(tip) = &collected.tip {
            self.write_patch(collected.work.as_ref().map(|work| work.onto.as_slice()).unwrap_or_default(), tip);
        }
    }

    /// Writes the change of the branch, for readers. It is there before the dispatch is closed.
    pub(super) fn write_patch(&self, onto: &[String], tip: &str) {
        // With several commits below, none of them alone is what it changes.
        let onto = if let [onto] = onto { onto } else { &self.plan.base.commit };
        if tip != self.plan.base.commit
            && let Ok(patch) = Git::repository(&self.plan.git_common_dir).patch(onto, tip)
        {
            let _ = files::replace(&self.folder().join("diff.patch"), &self.redactor.redact_bytes(&patch));
        }
    }

    /// Stores what the worker said, so that a crash after its exit does not make it unheard.
    pub(super) fn store_claim(folder: &Path, redactor: &Redactor, said: &Said, report: &str) {
        if !report.is_empty() {
            let _ = files::replace(&folder.join("report.md"), redactor.redact(report).as_bytes());
        }
        if let Ok(json) = serde_json::to_string(said) {
            let _ = files::replace(&folder.join("claim.json"), redactor.redact(&json).as_bytes());
        }
    }
}

/// Settings and files of git that changed while it ran, by their names.
fn changed_settings(seen: &Collected) -> Vec<String> {
    let files = seen.shared_changed.iter().map(|file| file.name().to_owned());
    seen.settings.iter().cloned().chain(files).collect()
}

/// What is to be said of a dispatch branch that has no commits, where others were made or it is gone.
fn elsewhere(seen: &Collected) -> Option<String> {
    let at = |commit: &String| short(commit).to_owned();
    let place = match (&seen.on, &seen.head, seen.stray.first()) {
        _ if seen.commits() != Some(0) => return None,
        (Some(on), Some(head), _) if seen.own_at_head == Tri::Yes => {
            format!("on {}, at {}", short_ref(on), at(head))
        }
        (_, _, Some(stray)) if seen.facts.stray_commits == Tri::Yes => format!("{}, which is on no branch", at(stray)),
        (_, Some(head), _) if seen.own_at_head == Tri::Yes => at(head),
        _ => return seen.tip.is_none().then(|| "the dispatch branch is gone".to_owned()),
    };
    Some(format!("commits were made, but not on the dispatch branch: {place}"))
}
