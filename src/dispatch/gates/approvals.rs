//! Approvals and overrides: what persons decide about a commit that shall land.

use super::look::Looked;
use crate::anchor::{self, Audit, Sealed};
use crate::dispatch::presence::{Decision, attest};
use crate::domain::authority::{Deciding, Presence, PresencePolicy};
use crate::domain::gate::check::{short, short_ref};
use crate::domain::gate::nonce;
use crate::domain::receipt::{Actor, ApprovalGiven, Attestation, Body, Entry, GateOverride, OverrideUsed, Scope};
use crate::domain::span::Span;
use crate::domain::{Fault, Name, Timestamp};
use crate::git::Git;
use crate::project::Project;
use crate::sys;

/// How a person decides.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Why.
    pub reason: String,
    /// For how long; `None`: as the target says.
    pub holds: Option<Span>,
    /// It is signed with the key that git signs with.
    pub sign: bool,
}

/// Who decides: git's identity.
pub fn actor(project: &Project) -> Result<Actor, Fault> {
    let config = Git::tree(&project.located.git_dir, &project.located.top).config()?;
    let value = |key: &str| config.value(key).filter(|v| !v.trim().is_empty()).map(str::to_owned);
    let (Some(name), Some(email)) = (value("user.name"), value("user.email")) else {
        return Err(Fault::environment("git does not know who you are")
            .fix("git config --global user.name NAME; git config --global user.email ADDRESS"));
    };
    Ok(Actor { name, email })
}

/// Accepts that the ledger is what it is now, and not what was written.
pub fn accept_loss(project: &Project, reason: String) -> Result<Result<Sealed, Audit>, Fault> {
    anchor::accept(project, actor(project)?, reason, |line| accepted(project, line))
}

/// Has a person accept what was changed or lost.
pub(in crate::dispatch) fn accepted(project: &Project, line: &str) -> Result<Attestation, Fault> {
    let deciding = Deciding::Accept;
    let minimum = PresencePolicy::default().minimum(deciding);
    attest(project, &Decision { deciding, line, statement: None, sign: false, minimum, signers: None })
}

fn until(holds: Span) -> Result<Timestamp, Fault> {
    let micros = i64::try_from(holds.0).ok().and_then(|ms| ms.checked_mul(1000));
    let end = micros.and_then(|more| sys::now().micros().checked_add(more)).and_then(Timestamp::from_micros);
    end.ok_or_else(|| Fault::input("--for is longer than time is counted").fix("for example 7d"))
}

fn scope(looked: &Looked, terms: &Terms) -> Result<Scope, Fault> {
    let seen = &looked.situation;
    if terms.reason.trim().is_empty() {
        return Err(Fault::input("--reason says nothing").fix("say why, so that a reader understands it later"));
    }
    if let Some(why) = seen.ledger.as_ref().or(seen.contract.as_ref()).or(seen.nothing.as_ref()) {
        return Err(Fault::refused(why.as_str()).fix(format!("see `vnx gate-check {}`", seen.dispatch)));
    }
    let holds = terms.holds.unwrap_or(looked.policy.merge.approval);
    if holds == Span(0) {
        return Err(Fault::input("--for must be longer than 0s").fix("for example 7d"));
    }
    let subject = &seen.subject;
    let (target, head, tree) = (subject.target.clone(), subject.head.clone(), subject.tree.clone());
    Ok(Scope { target, head, tree, until: until(holds)? })
}

/// Approves a dispatch's commit; `settles` names a review whose reviewers disagree.
pub fn approve(
    project: &Project,
    looked: &Looked,
    terms: &Terms,
    settles: Option<Name>,
) -> Result<ApprovalGiven, Fault> {
    let (id, by) = (&looked.situation.dispatch, actor(project)?);
    if let Some(name) = &settles
        && !looked.situation.gates.iter().any(|a| a.name == *name && a.gate.review.is_some())
    {
        return Err(
            Fault::input(format!("{name} is no review of this dispatch")).fix(format!("see `vnx gate-check {id}`"))
        );
    }
    let run = settles.as_ref().and_then(|name| looked.situation.split(name)).map(|run| run.binding.nonce.clone());
    if let Some(name) = settles.as_ref().filter(|_| run.is_none()) {
        return Err(Fault::refused(format!("the reviewers of {name} do not disagree: there is nothing to settle"))
            .fix(format!(
                "`vnx gate run {id} {name}` asks them, `vnx gate override {id} {name} --reason WHY` does without them"
            )));
    }
    let mut given = ApprovalGiven {
        by,
        reason: terms.reason.trim().to_owned(),
        scope: scope(looked, terms)?,
        settles,
        run,
        nonce: nonce(sys::random::<16>()?),
        attestation: UNDECIDED,
    };
    let line = about(&format!("approve {id}"), &given.scope, &given.reason);
    let statement = given.statement(id);
    given.attestation = decide(project, looked, Deciding::Approve, &line, &statement, terms.sign)?;
    project.ledger().append(&[Entry::of(id, Body::ApprovalGiven(given.clone()))])?;
    seal(project)?;
    Ok(given)
}

/// What stands in a receipt until its decision is made: nobody sees it.
const UNDECIDED: Attestation = Attestation { presence: Presence::None, signed: None };

/// What is decided about a commit, in one line.
fn about(what: &str, scope: &Scope, reason: &str) -> String {
    format!("{what} ({}) for {}: {reason}", short(&scope.head), short_ref(&scope.target))
}

fn decide(
    project: &Project,
    looked: &Looked,
    deciding: Deciding,
    line: &str,
    statement: &str,
    sign: bool,
) -> Result<Attestation, Fault> {
    let minimum = looked.policy.presence.minimum(deciding);
    let (statement, signers) = (Some(statement), looked.policy.signers.as_deref());
    attest(project, &Decision { deciding, line, statement, sign, minimum, signers })
}

/// Sets a gate aside for this commit: its name, or `verdict`, `strict`, `items`, `no-gate`, `git-config`.
pub fn override_gate(project: &Project, looked: &Looked, name: &Name, terms: &Terms) -> Result<OverrideUsed, Fault> {
    const OTHERS: [&str; 5] = ["verdict", "strict", "items", "no-gate", "git-config"];
    let (seen, by) = (&looked.situation, actor(project)?);
    if !OTHERS.contains(&name.as_str()) && !seen.gates.iter().any(|a| a.name == *name) {
        return Err(Fault::input(format!(
            "{name} is neither a gate of this dispatch nor one of {}",
            OTHERS.join(", ")
        ))
        .fix(format!("see `vnx gate-check {}`", seen.dispatch)));
    }
    let scope = scope(looked, terms)?;
    let line = about(&format!("override {name} of {}", seen.dispatch), &scope, terms.reason.trim());
    let gate = Some(GateOverride { by, scope, nonce: nonce(sys::random::<16>()?) });
    let mut used =
        OverrideUsed { constraint: name.clone(), reason: terms.reason.trim().to_owned(), gate, attestation: None };
    let statement = used.statement(&seen.dispatch).unwrap_or_default();
    used.attestation = Some(decide(project, looked, Deciding::Override, &line, &statement, terms.sign)?);
    project.ledger().append(&[Entry::of(&seen.dispatch, Body::OverrideUsed(used.clone()))])?;
    seal(project)?;
    Ok(used)
}

/// A person's word is anchored at once. Where it cannot be, it stands all the same, and the merge says why.
fn seal(project: &Project) -> Result<(), Fault> {
    anchor::seal(project).map(drop)
}
