//! From a commit back to everything that let it land.

use super::trailers_of;
use crate::dispatch::gates::{self, Looked};
use crate::domain::gate::check::{Applied, Code, GateCheck, Proof, Reason, check};
use crate::domain::gate::{GateStatus, Phase, Work};
use crate::domain::receipt::{Body, Kind, MergeLanded, Strategy};
use crate::domain::{Fault, Name};
use crate::git::Git;
use crate::ledger::{LedgerError, Receipt, format};
use crate::project::Project;

/// Whether a commit landed as it should have: its trailers lead to a dispatch, and everything that held it then is
/// still there and says the same.
pub fn trace(project: &Project, name: &str) -> Result<GateCheck, Fault> {
    let repository = Git::repository(&project.located.common_dir);
    let commit = repository.resolve(name)?.ok_or_else(|| {
        Fault::input(format!("--commit {name:?} does not name a commit of this repository")).fix("see `git log`")
    })?;
    let read = repository.raw_commits(std::slice::from_ref(&commit))?.pop();
    let trailers = read.as_ref().and_then(|c| trailers_of(&c.message)).ok_or_else(|| {
        Fault::refused(format!("{commit} has no trailers of vnx, so no gate is known to have seen it"))
            .fix("land it with `vnx merge`, or look at how it came there")
    })?;
    let id = &trailers.dispatch;
    match project.ledger().head() {
        Err(LedgerError::Missing(_)) => {
            return Err(Fault::environment("this clone has no ledger to hold the commit against")
                .fix("set VNX_STATE_DIR to a copy of the state folder (`vnx path state` where it was merged)"));
        }
        other => drop(other?),
    }
    let receipts = project.ledger().of_dispatch(id)?;
    let landed = receipts.iter().find_map(|r| match &r.body {
        Body::MergeLanded(m) if m.commit == commit => Some(m.clone()),
        _ => None,
    });
    let landed = landed.ok_or_else(|| {
        Fault::refused(format!("the ledger does not know that {id} landed as {commit}"))
            .fix("ask where it was merged: another clone has a ledger of its own, and trailers can be copied")
    })?;
    let started = receipts.iter().find_map(|r| match &r.body {
        Body::MergeStarted(m) if m.nonce == landed.nonce => Some(m.clone()),
        _ => None,
    });
    let started = started.ok_or_else(|| {
        Fault::refused("the ledger does not know how that merge began").fix("run `vnx audit-chain verify`")
    })?;
    let looked = gates::look_back(project, id, &started)?;
    let mut checked = check(&looked.situation);
    if started.strategy == Strategy::Revert {
        // What is taken back needed nothing to have passed before, and what persons said was about what had landed.
        checked.reasons.retain(|r| matches!(r.code, Code::Ledger | Code::Contract));
        checked.go = checked.reasons.is_empty();
        checked.gates.clear();
        checked.approvals.clear();
        checked.overrides.clear();
    }
    checked.subject.head.clone_from(&commit);
    checked.subject.tree.clone_from(&landed.tree);
    let unproven = unproven(project, &looked, &receipts, &landed, &checked)?;
    let mut hold = |what: &str| {
        let clear = "run `vnx audit-chain verify`; nothing sets this aside".to_owned();
        checked.reasons.push(Reason { code: Code::Ledger, about: "commit".to_owned(), what: what.to_owned(), clear });
        checked.go = false;
    };
    if started.strategy != Strategy::Revert
        && let Some(path) = looked.beyond(&repository, &started.base, &commit)?
    {
        hold(&format!("it changes {path:?}, which the branch did not, so nobody was asked about it"));
    }
    for gate in unproven {
        hold(&format!("gate {gate} is not known to have passed on what landed"));
    }
    let (seq, hash) = trailers.receipt;
    if !receipts.iter().any(|r| r.seq == seq && r.hash == hash && r.body.kind() == Kind::DispatchClosed) {
        hold("its Vnx-Receipt is not the receipt that closed the dispatch");
    }
    let checkpoint = &trailers.checkpoint;
    let wanted = |line: &[u8]| format::links(line).is_ok_and(|l| l.says(Kind::AnchorWritten));
    let anchors = project.ledger().last_matching(usize::MAX, wanted)?;
    let same =
        |body: &Body| matches!(body, Body::AnchorWritten(a) if a.size == checkpoint.size && a.root == checkpoint.root);
    if (started.size, started.root) != (checkpoint.size, checkpoint.root) || !anchors.iter().any(|r| same(&r.body)) {
        hold("its Vnx-Checkpoint is none that the ledger was anchored at");
    }
    if repository.tree_of(&commit)? != landed.tree {
        hold("its tree is not the one that landed");
    }
    Ok(checked)
}

/// Required gates that had to pass on the very tree that landed, and of which nothing sound says so.
fn unproven(
    project: &Project,
    looked: &Looked,
    receipts: &[Receipt],
    landed: &MergeLanded,
    checked: &GateCheck,
) -> Result<Vec<Name>, Fault> {
    let id = &looked.situation.dispatch;
    let runs = gates::runs(&project.paths.dispatch(id), id, receipts)?;
    let other = landed.tree != looked.situation.subject.tree;
    let asks_the_tree = |a: &Applied| matches!(a.gate.work(), Some(Work::Command(_) | Work::Probe(_)));
    let aside = |a: &Applied| checked.overrides.iter().any(|word| word.scope == a.name.as_str());
    let had_to =
        |a: &&Applied| a.required && !aside(a) && (a.gate.phase == Phase::PostMerge || other && asks_the_tree(a));
    let passed = |a: &Applied| {
        runs.iter().any(|run| {
            let said = run.result.as_ref().is_some_and(|said| said.status == GateStatus::Pass);
            let here = run.binding.gate == a.name && run.binding.tree == landed.tree && run.phase == Phase::PostMerge;
            here && said && run.proof == Proof::Sound
        })
    };
    let all = looked.situation.gates.iter().filter(had_to).filter(|a| !passed(a));
    Ok(all.map(|a| a.name.clone()).collect())
}
