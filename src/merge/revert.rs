//! `vnx revert`: what had landed is taken back, by a commit that passes the same gates.

use super::{Landing, Merged, broken};
use crate::anchor;
use crate::dispatch::gates::{self, Looked, Ran};
use crate::domain::gate::check::{Code, check, short_ref};
use crate::domain::receipt::{Body, MergeLanded, MergeStarted, Strategy};
use crate::domain::{DispatchId, Fault};
use crate::git::Git;
use crate::project::Project;

/// Takes back what a dispatch had landed.
pub fn revert(project: &Project, id: &DispatchId, reason: &str, mut tell: impl FnMut(&Ran)) -> Result<Merged, Fault> {
    if reason.trim().is_empty() {
        return Err(Fault::input("--reason says nothing").fix("say why, so that a reader understands it later"));
    }
    let one = super::alone(project)?;
    let (started, landed) = last(project, id)?;
    let into = short_ref(&started.target).to_owned();
    let mut looked = gates::look(project, id, Some(&into))?;
    let repository = Git::repository(&project.located.common_dir);
    if !repository.is_ancestor(&landed.commit, &looked.situation.subject.base)? {
        return Err(Fault::refused(format!("{into} does not have {} any more", landed.commit))
            .fix("nothing is to be taken back"));
    }
    // What is taken back needs no gate to have passed before; the ledger must be sound all the same.
    if let Some(held) = super::strictly(project, &mut looked) {
        return Ok(Merged::Held(Box::new(held)));
    }
    let Ok(sealed) = anchor::seal(project)? else { return Ok(Merged::Held(Box::new(broken(&looked)))) };
    let mut checked = check(&looked.situation);
    checked.reasons.retain(|r| matches!(r.code, Code::Ledger | Code::Contract | Code::GitConfig));
    if !checked.reasons.is_empty() {
        checked.go = false;
        return Ok(Merged::Held(Box::new(checked)));
    }
    // What was set aside was set aside for the tree that landed.
    looked.situation.overrides.clear();
    looked.about(repository.changed_paths(&started.base, &landed.commit)?)?;
    let looked = Looked { fork: Some(looked.situation.subject.base.clone()), ..looked };
    let landing = Landing { project, looked: &looked, strategy: Strategy::Revert, sealed: &sealed, lock: &one };
    landing.run(&mut tell, |integrate| integrate.revert(&landed.commit, &started.base, reason.trim()))
}

/// The merge of a dispatch that landed last and was not taken back.
fn last(project: &Project, id: &DispatchId) -> Result<(MergeStarted, MergeLanded), Fault> {
    let receipts = project.ledger().of_dispatch(id)?;
    let landed =
        receipts.iter().rev().find_map(|r| if let Body::MergeLanded(m) = &r.body { Some(m.clone()) } else { None });
    let none = || Fault::input(format!("dispatch {id} has not landed")).fix(format!("see `vnx gate-check {id}`"));
    let landed = landed.ok_or_else(none)?;
    let started = receipts.iter().find_map(|r| match &r.body {
        Body::MergeStarted(m) if m.nonce == landed.nonce => Some(m.clone()),
        _ => None,
    });
    let started = started.ok_or_else(none)?;
    if started.strategy == Strategy::Revert {
        return Err(Fault::input(format!("dispatch {id} was taken back already"))
            .fix("dispatch it again, or `git revert` the commit that took it back"));
    }
    Ok((started, landed))
}
