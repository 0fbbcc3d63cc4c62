//! From a branch that may land to a target that has it: one at a time, whole or not at all.
//!
//! The target moves in one step, by compare-and-swap, after everything else has been proven on the very commit
//! that it moves to. Until then it is what it was; what a crash leaves is finished by the next command.

mod foresee;
mod integrate;
mod journal;
mod pr;
mod revert;
mod trace;
mod trailers;

use std::fs::File;
use std::time::Duration;

use serde::Serialize;

use integrate::{Integrate, Integrated};
pub use journal::tidy;
use journal::{Journal, Merging};
pub use pr::{Requested, request};
pub use revert::revert;
pub use trace::trace;
pub use trailers::{Trailers, trailers_of};

use crate::anchor::{self, Sealed};
use crate::dispatch::gates::{self, Looked, Ran, Wanted};
use crate::domain::gate::check::{Code, GateCheck, Reason, Situation, Subject, check, short_ref};
use crate::domain::gate::nonce;
use crate::domain::receipt::{Body, Entry, MergeLanded, MergeStarted, Strategy};
use crate::domain::{DispatchId, Fault};
use crate::git::{self, BehindError, CheckedOut, Git, Held};
use crate::project::Project;
use crate::sys::{self, lock};

/// How long a merge waits for another one.
const PATIENCE: Duration = Duration::from_mins(1);

/// How it is merged.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Another branch than the one that is configured.
    pub into: Option<String>,
    /// Another way than the one that is configured.
    pub strategy: Option<Strategy>,
    /// Run the gates that are stale or missing first.
    pub run_gates: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Merged {
    /// The target has it.
    Landed(Landed),
    /// It was held before anything was tried.
    Held(Box<GateCheck>),
    /// It was tried, and did not land.
    Refused(Refused),
}

/// A merge that landed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Landed {
    /// The dispatch.
    pub dispatch: DispatchId,
    /// How.
    pub strategy: Strategy,
    /// The branch.
    pub target: String,
    /// Where it was.
    pub base: String,
    /// Where it is.
    pub commit: String,
    /// Where the target is checked out and could not be brought along, and how that is done by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// Why it could not be brought to its end; the next command of vnx does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
    /// How many receipts the anchor covers that was written after it; absent: none could be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchored: Option<u64>,
}

/// A merge that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The dispatch.
    pub dispatch: DispatchId,
    /// Why, in one line.
    pub reason: String,
    /// What to do next.
    pub clear: String,
    /// The target is known to be what it was.
    pub untouched: bool,
}

/// Why a try ended: for people, and what they can do.
#[derive(Debug)]
struct Ended {
    reason: String,
    clear: String,
}

impl Ended {
    fn because(reason: impl Into<String>, clear: impl Into<String>) -> Self {
        Self { reason: reason.into(), clear: clear.into() }
    }

    /// Nothing lands that somebody meant to stop, whether the gate that was ended is required or not.
    fn cancelled() -> Self {
        Self::because("it was cancelled", "merge it again when you are ready")
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self { clear: fault.next().to_owned(), reason: fault.what }
    }
}

/// Merges a dispatch. `tell` hears gates as they end.
pub fn merge(
    project: &Project,
    id: &DispatchId,
    options: &Options,
    mut tell: impl FnMut(&Ran),
) -> Result<Merged, Fault> {
    let one = alone(project)?;
    let into = options.into.as_deref();
    let mut looked = gates::look(project, id, into)?;
    project.require_trust_in(looked.policy.brought(&looked.situation.subject.target))?;
    let strategy = options.strategy.unwrap_or(looked.policy.merge.strategy);
    if options.run_gates && runnable(&check(&looked.situation)) {
        if let Some(merged) = foresee::refused(project, &looked, strategy, &one)? {
            return Ok(merged);
        }
        let ran = gates::run(project, &looked, &Wanted::default(), &mut tell)?;
        if ran.iter().any(|ran| ran.cancelled) {
            let Ended { reason, clear } = Ended::cancelled();
            return Ok(Merged::Refused(Refused { dispatch: id.clone(), reason, clear, untouched: true }));
        }
        looked = gates::look(project, id, into)?;
    }
    if let Some(held) = strictly(project, &mut looked) {
        return Ok(Merged::Held(Box::new(held)));
    }
    let checked = check(&looked.situation);
    if !checked.go {
        return Ok(Merged::Held(Box::new(checked)));
    }
    let Ok(sealed) = anchor::seal(project)? else { return Ok(Merged::Held(Box::new(broken(&looked)))) };
    let landing = Landing { project, looked: &looked, strategy, sealed: &sealed, lock: &one };
    landing.run(&mut tell, |integrate| integrate.branch(strategy))
}

/// The merge lock: one merge at a time, and none before the last one is finished.
fn alone(project: &Project) -> Result<File, Fault> {
    let path = project.paths.merge_lock();
    let lock = lock::exclusive(&path, PATIENCE)?;
    journal::recover(project, &lock)?;
    lock::note_place(&lock, &path)?;
    Ok(lock)
}

/// Only gates are missing, so that running them could help. One that has looked and could not say yes is not asked until
/// it does: where reviewers disagree a person decides.
fn runnable(checked: &GateCheck) -> bool {
    let helps =
        |code| matches!(code, Code::Missing | Code::Stale | Code::Evidence | Code::GateRunning | Code::Approval);
    checked.reasons.iter().all(|r| helps(r.code)) && checked.reasons.iter().any(|r| r.code != Code::Approval)
}

/// Reads the ledger as an audit does, payloads and all. What it says if it does not hold.
fn strictly(project: &Project, looked: &mut Looked) -> Option<GateCheck> {
    looked.situation.ledger = Some(anchor::disbelieved(project, false)?);
    Some(check(&looked.situation))
}

fn broken(looked: &Looked) -> GateCheck {
    let mut checked = check(&looked.situation);
    let what = "the ledger was changed while it was looked at";
    checked.hold(Code::Ledger, "ledger", what, "run `vnx audit-chain verify`; nothing sets this aside");
    checked
}

fn begin<'a>(project: &'a Project, looked: &Looked, strategy: Strategy) -> Result<Merging<'a>, Fault> {
    let name = nonce(sys::random::<16>()?);
    Merging::begin(project, &looked.situation.dispatch, &name, &looked.situation.subject, strategy)
}

/// One try.
struct Landing<'a> {
    project: &'a Project,
    looked: &'a Looked,
    strategy: Strategy,
    sealed: &'a Sealed,
    /// The merge lock.
    lock: &'a File,
}

impl Landing<'_> {
    fn id(&self) -> &DispatchId {
        &self.looked.situation.dispatch
    }

    fn repository(&self) -> Git {
        Git::repository(&self.project.located.common_dir)
    }

    fn started(&self, merging: &Merging<'_>) -> Result<(), Fault> {
        let Subject { target, base, head, .. } = self.looked.situation.subject.clone();
        let Sealed { size, root, .. } = *self.sealed;
        let (nonce, strategy) = (merging.nonce().to_owned(), self.strategy);
        let started = MergeStarted { nonce, strategy, target, base, head, size, root };
        Ok(self.project.ledger().append(&[Entry::of(self.id(), Body::MergeStarted(started))]).map(drop)?)
    }

    fn refused(&self, merging: &Merging<'_>, Ended { mut reason, clear }: Ended) -> Result<Merged, Fault> {
        let Subject { target, base, .. } = &self.looked.situation.subject;
        // Something that the merge ran may have done what the merge did not.
        let now = self.repository().ref_commit(target)?.unwrap_or_default();
        let untouched = now == *base;
        if !untouched && !reason.contains("was not moved") {
            let plain = short_ref(target);
            reason = format!("{reason}; and {plain} was moved meanwhile, from {base} to {now}, not by the merge");
        }
        merging.refused(self.project, &reason)?;
        Ok(Merged::Refused(Refused { dispatch: self.id().clone(), reason, clear, untouched }))
    }

    fn run(
        &self,
        tell: &mut impl FnMut(&Ran),
        integrate: impl FnOnce(&Integrate<'_>) -> Result<Integrated, Ended>,
    ) -> Result<Merged, Fault> {
        let Subject { target, base, .. } = self.looked.situation.subject.clone();
        let mut merging = begin(self.project, self.looked, self.strategy)?;
        self.started(&merging)?;
        let landed = match self.tried(&mut merging, tell, integrate) {
            Ok(landed) => landed,
            Err(ended) => return self.refused(&merging, ended),
        };
        // From here on it has landed, whatever else happens.
        let recorded = merging.landed(self.project, landed.clone());
        let MergeLanded { commit, behind, .. } = landed;
        let unrecorded = recorded.err().map(|fault| fault.what);
        let anchored = anchor::seal(self.project).ok().and_then(Result::ok).map(|sealed| sealed.size);
        let (dispatch, strategy) = (self.id().clone(), self.strategy);
        Ok(Merged::Landed(Landed { dispatch, strategy, target, base, commit, behind, unrecorded, anchored }))
    }

    fn tried(
        &self,
        merging: &mut Merging<'_>,
        tell: &mut impl FnMut(&Ran),
        integrate: impl FnOnce(&Integrate<'_>) -> Result<Integrated, Ended>,
    ) -> Result<MergeLanded, Ended> {
        let (project, subject) = (self.project, &self.looked.situation.subject);
        let trailers = Trailers::of(self.looked, self.sealed, project)?;
        let work = Integrate::begin(project, self.looked, merging.nonce(), &trailers, self.strategy)?;
        let collected = git::anyone_collects();
        let integrated = integrate(&work)?;
        merging.integrated(&self.repository(), &integrated.commit)?;
        self.repository().secure(&[&integrated.commit], &[&subject.base], collected).map_err(Fault::from)?;
        if let Some(path) = self.looked.beyond(&self.repository(), &subject.base, &integrated.commit)? {
            return Err(Ended::because(
                format!("it would land in {path:?}, which its branch does not change, so nobody was asked about it"),
                work.by_the_branch(),
            ));
        }
        self.prove(&integrated, tell)?;
        self.still_goes(merging.nonce())?;
        let Subject { target, base, .. } = subject;
        if let Some(place) = self.repository().will_come_back_to(target) {
            let reason = format!("a rebase or a bisection in {} will come back to it", place.display());
            return Err(Ended::because(reason, "finish or abort it there, then merge again"));
        }
        let places = self.repository().who_has(target, &project.located.main_top()).map_err(Fault::from)?;
        merging.about_to_move(&integrated.commit, &places)?;
        let held = hold(&places, target, merging.nonce(), self.lock, base, &integrated.commit)?;
        let why = format!("vnx: {} {}", self.strategy.word(), self.id());
        let moved = self.repository().land(target, &integrated.commit, base, &why, &work.hooks());
        if let Err(e) = moved {
            // What git says of it is not what counts: it may have been ended after it had moved it.
            let now = self.repository().ref_commit(target).map_err(Fault::from)?;
            if now.as_ref() != Some(&integrated.commit) {
                let plain = short_ref(target);
                let other = || format!("it moved meanwhile, or a hook refused it: see `vnx gate-check {}`", self.id());
                let clear = e.about_lock().unwrap_or_else(other);
                return Err(Ended::because(format!("{plain} was not moved: {e}"), clear));
            }
        }
        let behind = self.bring_along(held, integrated.commit.as_str())?;
        let (nonce, commit, tree) = (merging.nonce().to_owned(), integrated.commit, integrated.tree);
        Ok(MergeLanded { nonce, commit, tree, recovered: false, behind })
    }

    /// Every gate that this very tree has to pass.
    fn prove(&self, integrated: &Integrated, tell: &mut impl FnMut(&Ran)) -> Result<(), Ended> {
        let Subject { target, base, .. } = self.looked.situation.subject.clone();
        let subject = Subject { target, base, head: integrated.commit.clone(), tree: integrated.tree.clone() };
        let ran = gates::post_merge(self.project, self.looked, &subject, tell)?;
        if ran.iter().any(|ran| ran.cancelled) {
            return Err(Ended::cancelled());
        }
        let Some(bad) = ran.iter().find(|ran| ran.required && !ran.passed()) else { return Ok(()) };
        let why =
            bad.result.as_ref().map(|said| said.reason.clone()).or_else(|| bad.skipped.clone()).unwrap_or_default();
        let plain = short_ref(&subject.target);
        let id = self.id();
        let next = match self.strategy {
            Strategy::Revert => format!("mend {plain} with another dispatch"),
            _ => format!(
                "`vnx undo {id}`, correct it in the worktree that this brings back and commit, then `vnx gate run {id}`"
            ),
        };
        Err(Ended::because(
            format!("gate {} does not pass on what {plain} would become: {why}", bad.gate),
            format!("read `vnx gate show {id} {}`; {next}", bad.gate),
        ))
    }

    /// What was proven at the beginning must hold after everything that ran since, which was written by a worker; and
    /// what persons and gates said meanwhile counts.
    fn still_goes(&self, nonce: &str) -> Result<(), Ended> {
        let seen = &self.looked.situation;
        let now = gates::look(self.project, self.id(), Some(short_ref(&seen.subject.target)))?;
        let audit = |why: &str| Ended::because(why, "run `vnx audit-chain verify`; nothing sets this aside");
        if let Some(why) = &now.situation.ledger {
            return Err(audit(why));
        }
        if !now.receipts.iter().any(|r| matches!(&r.body, Body::MergeStarted(m) if m.nonce == nonce)) {
            return Err(audit("the ledger has lost what was written to it during the merge"));
        }
        if let Some(why) = now.situation.git_config.as_ref().filter(|_| seen.git_config.is_none()) {
            return Err(Ended::because(why, "look at what the gates and hooks of this merge run"));
        }
        if self.strategy == Strategy::Revert {
            return Ok(());
        }
        // About what is being merged: a target that has moved is refused later, and a branch that goes on stays.
        let Situation { runs, approvals, overrides, items, now, .. } = now.situation;
        let again = check(&Situation { now, runs, approvals, overrides, items, ..seen.clone() });
        match again.reasons.into_iter().next() {
            Some(Reason { what, clear, .. }) => Err(Ended::because(format!("it is held by now: {what}"), clear)),
            None => Ok(()),
        }
    }

    /// Brings along whoever has the target checked out. Where nothing was done there yet, the target goes back.
    fn bring_along(&self, held: Vec<Held<'_>>, commit: &str) -> Result<Option<String>, Ended> {
        let Subject { target, base, .. } = &self.looked.situation.subject;
        let mut behind = None;
        for (nth, place) in held.into_iter().enumerate() {
            let path = place.path().to_owned();
            let untouched = nth == 0 && place.try_forward(base, commit).is_err();
            if untouched {
                let back = self.repository().move_ref(target, base, Some(commit), "vnx: taken back");
                let reason = format!("{} was changed at that very moment", path.display());
                if back.is_ok() {
                    return Err(Ended::because(reason, format!("try again: `vnx merge {}`", self.id())));
                }
            }
            if let Err(e) = place.forward(base, commit) {
                behind = Some(format!("{}: {e}; {}", path.display(), e.by_hand(&path, base, commit)));
            }
        }
        Ok(behind)
    }
}

/// Takes every checkout of the target, each of which must be able to come along.
fn hold<'a>(
    places: &'a [CheckedOut],
    target: &str,
    nonce: &str,
    lock: &'a File,
    base: &str,
    commit: &str,
) -> Result<Vec<Held<'a>>, Ended> {
    let take = |place| {
        let held = Held::take(place, target, nonce, lock)?;
        held.try_forward(base, commit)?;
        Ok::<_, BehindError>(held)
    };
    places.iter().map(take).collect::<Result<_, _>>().map_err(|e| {
        Ended::because(e.to_string(), "commit or stash what is there, then merge again; nothing was changed")
    })
}

/// What is left for later commands to know.
fn journal_file(project: &Project) -> Journal {
    Journal::at(&project.paths.merging())
}
