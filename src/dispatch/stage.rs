//! Dispatches that somebody proposes and a person lets begin: an agent that plans work does not start it.

use std::time::Duration;

use serde::Serialize;

use super::door::{Opened, Options, open, plan_only};
use super::gates::actor;
use super::plan::Refusal;
use super::presence::{Decision, attest};
use super::request::Request;
use crate::domain::authority::{Deciding, Presence};
use crate::domain::id::meant;
use crate::domain::receipt::{Attestation, Body, Entry, Kind, StagePromoted, StageProposed};
use crate::domain::{Digest, DispatchId, Fault};
use crate::gate;
use crate::ledger::format;
use crate::project::{Project, yaml};
use crate::sys::{files, lock};

/// A proposal that nobody has promoted yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Staged {
    /// The id that the dispatch will have.
    pub id: DispatchId,
    /// What is proposed.
    pub request: Request,
    /// Its file was edited since, so it cannot be promoted.
    pub edited: bool,
}

const FILE: &str = "request.yaml";

/// Puts a request on record without starting anything. It must be one that the door would take.
pub fn propose(project: &Project, request: &Request) -> Result<DispatchId, Fault> {
    let planned = match plan_only(project, request) {
        Ok(planned) => planned,
        Err(Refusal::Fault(fault) | Refusal::Policy { fault, .. }) => return Err(fault),
    };
    let id = planned.plan.id;
    if !proposed_as(project, &id)?.is_empty() {
        return Err(Fault::input(format!("{id} was proposed before")).fix("leave --id out, or choose another"));
    }
    let request = Request { id: Some(id.clone()), ..request.clone() };
    let text = serde_json::to_vec_pretty(&request).map_err(|e| Fault::internal(format!("a request: {e}")))?;
    files::private_folder(&project.paths.staged())?;
    let folder = project.paths.staged().join(id.as_str());
    if project.paths.dispatch(&id).exists() || !files::claim_folder(&folder)? {
        return Err(Fault::input(format!("{id} is taken")).fix("leave --id out, or choose another"));
    }
    files::replace(&folder.join(FILE), &text)?;
    let from = std::env::var("VNX_DISPATCH_ID").ok().and_then(|id| DispatchId::parse(&id).ok());
    let body = StageProposed { proposal: id.clone(), request: Digest::of(&text), agent: request.agent, from };
    project.ledger().append(&[Entry::ledger(Body::StageProposed(body))])?;
    Ok(id)
}

/// What is proposed, oldest first.
pub fn staged(project: &Project) -> Result<Vec<Staged>, Fault> {
    let names = files::names(&project.paths.staged())?;
    let ids = names.iter().filter_map(|name| DispatchId::parse(name).ok());
    Ok(ids.filter_map(|id| read(project, &id).ok()).map(|(staged, _)| staged).collect())
}

/// How many are proposed, without a look at whether they can be promoted.
pub fn waiting(project: &Project) -> Result<usize, Fault> {
    let names = files::names(&project.paths.staged())?;
    let is_one = |name: &&String| {
        DispatchId::parse(name).is_ok() && project.paths.staged().join(name.as_str()).join(FILE).exists()
    };
    Ok(names.iter().filter(is_one).count())
}

fn read(project: &Project, id: &DispatchId) -> Result<(Staged, Digest), Fault> {
    let path = project.paths.staged().join(id.as_str()).join(FILE);
    let none = || Fault::input(format!("nothing is proposed as {id}")).fix("`vnx promote` lists what is");
    let bytes = files::read_capped(&path, 4 << 20)?.ok_or_else(none)?;
    let request: Request = yaml::parse(&path, &bytes)?;
    let digest = Digest::of(&bytes);
    let edited = request.id.as_ref() != Some(id) || proposed_as(project, id)? != [digest];
    Ok((Staged { id: id.clone(), request, edited }, digest))
}

/// What was proposed under an id, by the ledger: the digests of the requests.
fn proposed_as(project: &Project, id: &DispatchId) -> Result<Vec<Digest>, Fault> {
    let wanted = |line: &[u8]| format::links(line).is_ok_and(|l| l.says(Kind::StageProposed));
    let all = project.ledger().last_matching(usize::MAX, wanted)?;
    let digest =
        |body: &Body| if let Body::StageProposed(p) = body { (p.proposal == *id).then_some(p.request) } else { None };
    Ok(all.iter().filter_map(|r| digest(&r.body)).collect())
}

/// The proposal that is meant by an id, an abbreviation of one, or `@last`.
fn resolve(project: &Project, text: &str) -> Result<DispatchId, Fault> {
    let names = files::names(&project.paths.staged())?;
    let ids = names.iter().filter_map(|name| DispatchId::parse(name).ok());
    if text == "@last" {
        let made =
            |id: &DispatchId| std::fs::metadata(project.paths.staged().join(id.as_str())).and_then(|m| m.modified());
        return ids
            .max_by_key(|id| (made(id).ok(), id.clone()))
            .ok_or_else(|| Fault::input("nothing is proposed").fix("`vnx stage` proposes a dispatch"));
    }
    meant(ids, |id| id.as_str(), text).map_err(|several| {
        Fault::input(match several.len() {
            0 => format!("no proposal is called {text:?}"),
            n => format!("{text:?} means {n} proposals"),
        })
        .fix("`vnx promote` lists what is proposed")
    })
}

/// Lets a proposed dispatch begin, in the name of a person, as it was proposed.
pub fn promote(
    project: &Project,
    text: &str,
    reason: Option<&str>,
    sign: bool,
    options: &Options,
) -> Result<Opened, Fault> {
    let by = actor(project)?;
    let id = resolve(project, text)?;
    let (staged, request) = sound(project, &id)?;
    let reason = reason.map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned);
    // A promotion that was cut off stands already.
    let wanted = |line: &[u8]| format::links(line).is_ok_and(|l| l.says(Kind::StagePromoted));
    let promoted = project.ledger().last_matching(usize::MAX, wanted)?.into_iter().find_map(|r| match r.body {
        Body::StagePromoted(p) if p.proposal == id && p.request == request => Some(p),
        _ => None,
    });
    let is_new = promoted.is_none();
    let body = if let Some(body) = promoted {
        body
    } else {
        let attestation = Attestation { presence: Presence::None, signed: None };
        let mut body = StagePromoted { proposal: id.clone(), request, by, reason, attestation };
        // Nothing is locked while a person reads.
        body.attestation = decide(project, &staged, &body, sign)?;
        body
    };
    let _one = lock::exclusive(&project.paths.locks().join("stage.lock"), Duration::from_secs(30))?;
    let (staged, still) = sound(project, &id)?;
    if still != request {
        return Err(
            Fault::refused(format!("{id} became another proposal while it was decided")).fix("look at it again")
        );
    }
    let attested = Some(body.attestation.clone());
    if is_new {
        project.ledger().append(&[Entry::ledger(Body::StagePromoted(body))])?;
    }
    let opened = open(project, &staged.request, &Options { attested, ..options.clone() })?;
    files::delete_tree(&project.paths.staged().join(id.as_str()))?;
    Ok(opened)
}

/// A proposal as it was proposed.
fn sound(project: &Project, id: &DispatchId) -> Result<(Staged, Digest), Fault> {
    let (staged, request) = read(project, id)?;
    if staged.edited {
        return Err(Fault::refused(format!("{id} is not what was proposed: its request was edited"))
            .fix(format!("propose it again; it lies in {}", project.paths.staged().join(id.as_str()).display())));
    }
    Ok((staged, request))
}

fn decide(project: &Project, staged: &Staged, body: &StagePromoted, sign: bool) -> Result<Attestation, Fault> {
    let Request { agent, overrides, instruction, .. } = &staged.request;
    let without: Vec<&str> = overrides.iter().map(|used| used.id.as_str()).collect();
    let without = if without.is_empty() { String::new() } else { format!(", overriding {}", without.join(", ")) };
    let instruction = instruction.as_deref().unwrap_or_default();
    let line = format!("promote {} ({agent}{without}): {instruction}", staged.id);
    let (deciding, standing, statement) = (Deciding::Promote, gate::standing(project, None)?, body.statement());
    let minimum = standing.presence.minimum(deciding);
    let (statement, signers) = (Some(statement.as_str()), standing.signers.as_deref());
    attest(project, &Decision { deciding, line: &line, statement, sign, minimum, signers })
}

/// Gives a proposal up.
pub fn withdraw(project: &Project, text: &str) -> Result<DispatchId, Fault> {
    let id = resolve(project, text)?;
    files::delete_tree(&project.paths.staged().join(id.as_str()))?;
    Ok(id)
}
