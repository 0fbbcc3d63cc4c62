//! The situation: everything that the decision depends on, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::items;
use crate::anchor;
use crate::dispatch::presence::{trusted, verify};
use crate::dispatch::snapshot::hooks_digest;
use crate::dispatch::supervise::read_plan;
use crate::domain::authority::Presence;
use crate::domain::gate::check::{
    self, Applied, Approved, GateCheck, Overridden, Proof, Run, Situation, Subject, short_ref,
};
use crate::domain::gate::{Asked, Contract, GateKind, strict_paths};
use crate::domain::plan::{Plan, Resume};
use crate::domain::receipt::{ApprovalGiven, Body, GateRequested, GateResulted, MergeStarted, OverrideUsed, Strategy};
use crate::domain::{Digest, DispatchId, Fault, Timestamp};
use crate::gate::{self, Policy, policy};
use crate::git::{Git, GitConfig, SharedFile, SharedFiles};
use crate::ledger::Receipt;
use crate::project::{Paths, Project};
use crate::sys::{self, files, lock};
use crate::worktree;

/// A situation, and what it was read from.
#[derive(Debug)]
pub struct Looked {
    /// The situation.
    pub situation: Situation,
    /// What the target says.
    pub policy: Policy,
    /// The plan of the dispatch.
    pub plan: Plan,
    /// Where branch and target parted.
    pub fork: Option<String>,
    /// What the change changes: strict paths, gates and reviewers were chosen and asked by these.
    pub paths: Vec<String>,
    /// The contract that its gates are held to.
    pub contract: Contract,
    /// Its receipts.
    pub receipts: Vec<Receipt>,
}

impl Looked {
    /// The gates that apply to another change than the branch's own.
    pub fn about(&mut self, paths: Vec<String>) -> Result<(), Fault> {
        let strict = !strict_paths(&paths, &self.policy.merge.strict, &self.policy.linked).is_empty();
        self.situation.gates = applied(&self.policy, &self.plan, &paths, strict, &self.contract)?;
        self.paths = paths;
        Ok(())
    }

    /// Whether it may land, as far as is known: a merge that was refused for a conflict will be again.
    pub fn decide(&self) -> GateCheck {
        let mut checked = check::check(&self.situation);
        if let Some(what) = self.known_conflict() {
            let clear = by_the_branch(short_ref(&checked.subject.target), &checked.dispatch);
            checked.hold(check::Code::Conflict, "branch", what, clear);
        }
        checked
    }

    /// What the last merge of just this ran into, if git could not join it.
    fn known_conflict(&self) -> Option<&str> {
        let Subject { target, base, head, .. } = &self.situation.subject;
        let refused = self
            .receipts
            .iter()
            .rev()
            .find_map(|r| if let Body::MergeRefused(m) = &r.body { Some(m) } else { None })?;
        let is_this = |m: &MergeStarted| {
            (&m.nonce, &m.target, &m.base, &m.head) == (&refused.nonce, target, base, head)
                && m.strategy == self.policy.merge.strategy
        };
        let of_this = self.receipts.iter().any(|r| matches!(&r.body, Body::MergeStarted(m) if is_this(m)));
        (of_this && refused.reason.starts_with(CONFLICT)).then_some(refused.reason.as_str())
    }

    /// A path that a commit changes in its target, and that nobody was asked about: git may bring a change to where its
    /// file has been moved to meanwhile.
    pub fn beyond(&self, repository: &Git, base: &str, commit: &str) -> Result<Option<String>, Fault> {
        let known: BTreeSet<&String> = self.paths.iter().collect();
        Ok(repository.changed_paths(base, commit)?.into_iter().find(|path| !known.contains(path)))
    }
}

/// Whether a dispatch may land.
pub fn check(project: &Project, id: &DispatchId, into: Option<&str>) -> Result<GateCheck, Fault> {
    Ok(look(project, id, into)?.decide())
}

/// How a reason begins for which a merge refuses what git cannot join.
pub const CONFLICT: &str = "it conflicts with ";

/// What helps where branch and target do not fit together.
pub fn by_the_branch(target: &str, id: &DispatchId) -> String {
    format!(
        "`vnx undo {id}`, `git merge {target}` in the worktree that it brings back, commit; then `vnx gate run {id}`"
    )
}

/// Reads the situation of a dispatch. `into` names another branch than the one that is configured.
pub fn look(project: &Project, id: &DispatchId, into: Option<&str>) -> Result<Looked, Fault> {
    read(project, id, Moment::Now(into))
}

/// Reads the situation that a merge of a dispatch began in: what was known then, and what proves it now.
pub fn look_back(project: &Project, id: &DispatchId, started: &MergeStarted) -> Result<Looked, Fault> {
    read(project, id, Moment::At(started))
}

/// Which situation.
#[derive(Clone, Copy)]
enum Moment<'a> {
    /// As it is, for a branch that is named.
    Now(Option<&'a str>),
    /// As it was when this merge began.
    At(&'a MergeStarted),
}

/// What shall land, or has.
struct Place {
    target: String,
    base: String,
    head: String,
    now: Timestamp,
    /// Why there is nothing to land.
    nothing: Option<String>,
}

fn read(project: &Project, id: &DispatchId, moment: Moment<'_>) -> Result<Looked, Fault> {
    let repository = Git::repository(&project.located.common_dir);
    std::thread::scope(|scope| {
        // It reads every byte of the ledger, beside everything else.
        let ledger = crate::sys::beside(scope, || anchor::disbelieved(project, true));
        // Not the projection: that one can leave out what an anchor covers.
        let receipts = project.ledger().of_dispatch(id).map_err(Fault::from);
        let (receipts, unread) = receipts.map_or_else(|fault| (Vec::new(), Some(fault)), |all| (all, None));
        let mut looked = without_ledger(project, &repository, id, moment, receipts)?;
        looked.situation.ledger = ledger.join().unwrap_or_else(|_| Some("the audit ended early".to_owned()));
        match unread {
            // Where the ledger is what is wrong, it is said as such.
            Some(fault) if looked.situation.ledger.is_none() => Err(fault),
            _ => Ok(looked),
        }
    })
}

/// The full name of the branch that a dispatch lands on.
pub fn target(project: &Project, plan: &Plan, into: Option<&str>) -> Result<String, Fault> {
    let named = into.or(project.config.merge.target.as_deref());
    if let Some(name) = named {
        let name = short_ref(name);
        if crate::project::config::is_branch(name) {
            return Ok(format!("refs/heads/{name}"));
        }
        return Err(Fault::input(format!("--into {name:?} is not the name of a branch")).fix("see `git branch`"));
    }
    if plan.base.name.starts_with("refs/heads/") {
        return Ok(plan.base.name.clone());
    }
    Err(Fault::input(format!("{} began at {:?}, which is no branch", plan.id, plan.base.name))
        .fix("name the branch that it shall land on: --into BRANCH, or merge.target in .vnx/config.yaml"))
}

/// Where a dispatch lands now.
fn place_now(
    project: &Project,
    repository: &Git,
    plan: &Plan,
    into: Option<&str>,
    receipts: &[Receipt],
) -> Result<Place, Fault> {
    let target = target(project, plan, into)?;
    let Some(base) = repository.ref_commit(&target)? else {
        let branch = short_ref(&target);
        return Err(Fault::input(format!("there is no branch {branch}")).fix("name another with --into, or make it"));
    };
    let tip = repository.ref_commit(&format!("refs/heads/{}", plan.branch))?;
    // Landed somewhere else, it can land here too.
    let put_away = repository.ref_commit(&plan.id.landed_ref())?;
    let here = |nonce: &str| {
        let started = |body: &Body| if let Body::MergeStarted(m) = body { Some(m.clone()) } else { None };
        let mut all = receipts.iter().filter_map(|r| started(&r.body));
        all.find(|m| m.nonce == nonce && m.target == target)
    };
    let landed = receipts.iter().rev().find_map(|r| match &r.body {
        Body::MergeLanded(m) => here(&m.nonce).map(|started| (m.commit.clone(), started.strategy)),
        _ => None,
    });
    let nothing = match (&tip, &put_away, landed) {
        (Some(_), ..) | (None, Some(_), None) => None,
        (None, _, Some((commit, Strategy::Revert))) => {
            Some(format!("it had landed, and was taken back by {}", check::short(&commit)))
        }
        (None, _, Some((commit, _))) => Some(format!("it has landed, as {}", check::short(&commit))),
        (None, None, None) => {
            // One that was pushed is taken away with its worktree.
            let is_ours = |r: &Receipt| matches!(&r.body, Body::WorktreeRemoved(removed) if removed.branch_deleted);
            let dropped = repository.ref_commit(&plan.id.dropped_ref())?.is_some();
            let way = if dropped {
                format!(", as it was given up: `vnx undo {}` brings it back", plan.id)
            } else if receipts.iter().any(is_ours) {
                format!(", taken away with its worktree: `vnx undo {}` brings both back", plan.id)
            } else {
                String::new()
            };
            Some(format!("its branch {} is gone{way}", plan.branch))
        }
    };
    let tip = tip.or(put_away);
    let closed =
        receipts.iter().find_map(|r| if let Body::DispatchClosed(c) = &r.body { c.head.clone() } else { None });
    let head = tip.or(closed).unwrap_or_else(|| plan.base.commit.clone());
    Ok(Place { target, base, head, now: sys::now(), nothing })
}

fn without_ledger(
    project: &Project,
    repository: &Git,
    id: &DispatchId,
    moment: Moment<'_>,
    mut receipts: Vec<Receipt>,
) -> Result<Looked, Fault> {
    let folder = project.paths.dispatch(id);
    let (plan, plan_digest) = read_plan(&folder)?;
    let Place { target, base, head, now, mut nothing } = match moment {
        Moment::Now(into) => place_now(project, repository, &plan, into, &receipts)?,
        Moment::At(started) => {
            // What came later was not known.
            let is = |r: &Receipt| matches!(&r.body, Body::MergeStarted(m) if m.nonce == started.nonce);
            let at = receipts.iter().position(is).ok_or_else(|| Fault::internal("a merge without its receipt"))?;
            let now = receipts[at].ts;
            receipts.truncate(at);
            let MergeStarted { target, base, head, .. } = started.clone();
            Place { target, base, head, now, nothing: None }
        }
    };
    let branch = short_ref(&target);
    let policy = policy(repository, &target, &base, &project.located)?;
    let (contract, doubt) = contract(&folder, &plan, plan_digest, &receipts);
    let verdict = receipts
        .iter()
        .find_map(|r| if let Body::DispatchClosed(c) = &r.body { Some(c.verdict.clone()) } else { None });
    let forks = repository.fork_points(&base, &head)?;
    // Before its end it may still commit; that it is not closed is told as such.
    if forks.contains(&head) && verdict.is_some() {
        nothing = nothing.or_else(|| Some(format!("{branch} has all of its commits already")));
    }
    let fork = forks.first().cloned();
    let paths = if let Some(fork) = &fork {
        repository.changed_paths(fork, &head)?
    } else {
        nothing = nothing.or_else(|| Some(format!("it has nothing in common with {branch}")));
        Vec::new()
    };
    if forks.len() > 1 {
        // What it changes is another thing from each of them.
        let what =
            format!("it and {branch} have more than one common ancestor to be compared with: rebase it onto {branch}");
        nothing = nothing.or(Some(what));
    }
    let judged =
        receipts.iter().find_map(|r| if let Body::DispatchClosed(c) = &r.body { c.head.clone() } else { None });
    let judged = judged.filter(|judged| *judged != head);
    let tree = repository.tree_of(&head)?;
    let strict = strict_paths(&paths, &policy.merge.strict, &policy.linked);
    let gates = applied(&policy, &plan, &paths, !strict.is_empty(), &contract)?;
    let unjudged = fork.as_ref().map_or(Ok(None), |fork| unjudged(repository, &plan, judged, fork, &head, &gates))?;
    let subject = Subject { target, base, head, tree };
    let git_config = match moment {
        Moment::Now(_) => git_config(project, &plan)?,
        // What git runs since then ran nothing then.
        Moment::At(_) => None,
    };
    let open = items::open(&receipts);
    let situation = Situation {
        dispatch: id.clone(),
        subject,
        now,
        verdict,
        unjudged,
        ungated: policy.merge.ungated.iter().any(|name| name == "*" || name == plan.agent.as_str()),
        strict,
        gates,
        runs: runs(&folder, id, &receipts)?,
        approvals: approvals(&project.paths, id, &receipts, &policy),
        overrides: overrides(&project.paths, id, &receipts, &policy),
        presence: policy.presence,
        items: open,
        git_config,
        contract: doubt,
        ledger: None,
        nothing,
    };
    Ok(Looked { situation, policy, plan, fork, paths, contract, receipts })
}

/// A branch may go on after its dispatch was judged, and one that goes on from an earlier dispatch was judged without
/// what that one did: gates look at all of it as it is now. What else the verdict says must be said again: that it stays
/// within its paths, and anything at all where no gate looks. `judged` is what was judged, where that is not the head.
fn unjudged(
    repository: &Git,
    plan: &Plan,
    judged: Option<String>,
    fork: &str,
    head: &str,
    gates: &[Applied],
) -> Result<Option<String>, Fault> {
    let what = match (judged, &plan.resume) {
        (Some(judged), _) => {
            let (from, to) = (check::short(&judged), check::short(head));
            format!("the branch went on since it was judged, from {from} to {to}")
        }
        (None, Some(Resume { dispatch, start: Some(_), .. })) => format!("it goes on from what {dispatch} did"),
        _ => return Ok(None),
    };
    if !plan.paths.is_empty()
        && let Some(path) = repository.changed_outside(fork, head, &plan.paths)?.first()
    {
        return Ok(Some(format!("{what}, and changes {path:?} outside of the given paths")));
    }
    Ok(gates.iter().all(|a| !a.required).then(|| format!("{what}, and no required gate looks at it")))
}

/// What was asked, as the ledger has it; and why the files that say it are not believed, if they are not.
fn contract(folder: &Path, plan: &Plan, plan_digest: Digest, receipts: &[Receipt]) -> (Contract, Option<String>) {
    let requested =
        receipts.iter().find_map(|r| if let Body::DispatchRequested(q) = &r.body { Some(q.request) } else { None });
    let claimed =
        receipts.iter().find_map(|r| if let Body::DispatchClaimed(c) = &r.body { Some(c.plan) } else { None });
    let is = |name: &str, digest: Digest| {
        let bytes = files::read_capped(&folder.join(name), 16 << 20).ok().flatten();
        bytes.is_some_and(|bytes| Digest::of(&bytes) == digest)
    };
    let doubt = match (requested, claimed) {
        (_, None) | (None, _) => Some("the ledger does not say what was asked".to_owned()),
        (_, Some(claimed)) if claimed != plan_digest => Some("plan.json is not the plan that was claimed".to_owned()),
        (Some(requested), _) if !is("request.yaml", requested) => {
            Some("request.yaml is not the request that was made".to_owned())
        }
        _ if !is("prompt.md", plan.prompt) => Some("prompt.md is not the prompt of the plan".to_owned()),
        _ => None,
    };
    (Contract { request: requested.unwrap_or(Digest::ZERO), plan: plan_digest, prompt: plan.prompt }, doubt)
}

/// The gates of the target that apply to a change.
fn applied(
    policy: &Policy,
    plan: &Plan,
    paths: &[String],
    strict: bool,
    contract: &Contract,
) -> Result<Vec<Applied>, Fault> {
    let asked = Asked { paths, agent: &plan.agent, track: plan.track.as_ref(), class: plan.class.as_ref(), strict };
    let those = policy.gates.iter().filter(|(_, gate)| gate.when.holds(asked));
    those
        .map(|(name, gate)| {
            let config = gate.digest()?;
            Ok(Applied {
                name: name.clone(),
                gate: gate.clone(),
                required: gate.required || strict,
                contract: contract.hash(name, config),
                config,
            })
        })
        .collect()
}

/// Why git's configuration is not trusted: what git runs in a merge was named by somebody since.
pub fn git_config(project: &Project, plan: &Plan) -> Result<Option<String>, Fault> {
    let (common_dir, main_top) = (&project.located.common_dir, project.located.main_top());
    let config = Git::tree(common_dir, &main_top).config()?;
    if let Some((file, by)) = suspect_file(project, &config, &plan.id)? {
        let what = format!("{} was changed while {by} ran, and nobody has accepted that", file.name());
        return Ok(Some(what));
    }
    if plan.git_hooks.is_some_and(|was| was != hooks_digest(project, &config)) {
        let what = "git's hooks, or who commits by this repository's own settings, were changed since the dispatch";
        return Ok(Some(what.to_owned()));
    }
    let here = || Git::tree(&project.located.git_dir, &project.located.top).config();
    let same = |config: &GitConfig| config.risk() == plan.git_risk;
    if same(&config) || project.located.git_dir != *common_dir && same(&here()?) {
        return Ok(None);
    }
    Ok(Some("git's configuration was changed since the dispatch, in what decides what git reads or runs".to_owned()))
}

/// A file that holds for all worktrees, changed while this dispatch ran; or attributes, which decide what merges come to,
/// whoever changed them.
fn suspect_file(
    project: &Project,
    config: &GitConfig,
    id: &DispatchId,
) -> Result<Option<(SharedFile, DispatchId)>, Fault> {
    let now = SharedFiles::read(&project.located.common_dir, &config.shared())?;
    let mut all = worktree::suspects(&project.paths, &now)?.into_iter();
    Ok(all.find(|(file, by)| by == id || *file == SharedFile::RepositoryAttributes))
}

/// Runs of gates, oldest first.
pub fn runs(folder: &Path, id: &DispatchId, receipts: &[Receipt]) -> Result<Vec<Run>, Fault> {
    let mut results: BTreeMap<&str, Vec<&GateResulted>> = BTreeMap::new();
    for receipt in receipts {
        if let Body::GateResulted(said) = &receipt.body {
            results.entry(&said.nonce).or_default().push(said);
        }
    }
    let asked =
        receipts.iter().filter_map(|r| if let Body::GateRequested(asked) = &r.body { Some(asked) } else { None });
    asked
        .map(|asked| run_of(folder, id, asked, results.get(asked.binding.nonce.as_str()).map_or(&[], Vec::as_slice)))
        .collect()
}

fn run_of(folder: &Path, id: &DispatchId, asked: &GateRequested, said: &[&GateResulted]) -> Result<Run, Fault> {
    let binding = asked.binding.clone();
    let place = gate::folder(folder, &binding.nonce);
    let proof = match said {
        [] => Proof::Sound,
        [one] => gate::proof(folder, id, asked, one),
        _ => Proof::Broken("its request was answered more than once".to_owned()),
    };
    let live = match place.filter(|_| said.is_empty()).map(|place| place.join("lock")).filter(|lock| lock.exists()) {
        Some(lock) => !lock::is_free(&lock)?,
        None => false,
    };
    let result = said.first().map(|said| (*said).clone());
    // Its files are those of the receipt, or the proof is broken.
    let split = asked.kind == GateKind::Review && result.as_ref().is_some_and(|said| gate::is_split(folder, said));
    Ok(Run { binding, phase: asked.phase, result, proof, live, split })
}

/// Approvals, oldest first.
fn approvals(paths: &Paths, id: &DispatchId, receipts: &[Receipt], policy: &Policy) -> Vec<Approved> {
    let signers = policy.signers.as_deref().map(trusted);
    let approved = |given: &ApprovalGiven| {
        let found = verify(paths, &given.attestation, &given.statement(id), signers.as_ref());
        let given = given.clone();
        match found {
            Ok((presence, signer)) => Approved { given, proof: Proof::Sound, presence, signer },
            Err(why) => Approved { given, proof: Proof::Broken(why), presence: Presence::None, signer: None },
        }
    };
    let given =
        receipts.iter().filter_map(|r| if let Body::ApprovalGiven(given) = &r.body { Some(given) } else { None });
    given.map(approved).collect()
}

/// Gates that were overridden, oldest first.
fn overrides(paths: &Paths, id: &DispatchId, receipts: &[Receipt], policy: &Policy) -> Vec<Overridden> {
    let signers = policy.signers.as_deref().map(trusted);
    let overridden = |used: &OverrideUsed| {
        let (gate, statement, attestation) = (used.gate.clone()?, used.statement(id)?, used.attestation.as_ref()?);
        let presence =
            verify(paths, attestation, &statement, signers.as_ref()).map_or(Presence::None, |(level, _)| level);
        Some(Overridden { about: used.constraint.clone(), reason: used.reason.clone(), gate, presence })
    };
    let used = receipts.iter().filter_map(|r| if let Body::OverrideUsed(used) = &r.body { Some(used) } else { None });
    used.filter_map(overridden).collect()
}
