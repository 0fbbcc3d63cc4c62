//! What persons say: approvals, and gates that are set aside. Never a worker, whatever it calls itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::look::Looked;
use crate::anchor;
use crate::domain::gate::nonce;
use crate::domain::receipt::{Actor, ApprovalGiven, Body, Entry, GateOverride, OverrideUsed, Scope};
use crate::domain::span::Span;
use crate::domain::{Digest, DispatchId, Fault, Name, Timestamp};
use crate::git::Git;
use crate::project::Project;
use crate::sys::cmd::Cmd;
use crate::sys::process;
use crate::sys::{self, files};

/// What a signature of an approval is for (ssh-keygen, `-n`).
pub(super) const NAMESPACE: &str = "vnx-approval";

/// What a person says.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// Why.
    pub reason: String,
    /// For how long; `None`: as the target says.
    pub holds: Option<Span>,
    /// It is signed with the key that git signs with.
    pub sign: bool,
}

/// Refuses whoever runs below another vnx: a worker, a gate, a hook, or something that one of them started, says
/// nothing for persons. Supervisors adopt what loses its parent, so nobody gets out from below.
pub fn refuse_workers() -> Result<(), Fault> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let below = process::own_line().into_iter().any(|pid| pid != me && process::is_own_program(pid));
    let told = ["VNX_DISPATCH_ID", "VNX_GATE_RUN", "VNX_MERGE"].iter().any(|name| std::env::var_os(name).is_some());
    if !below && !told {
        return Ok(());
    }
    Err(Fault::refused("a worker cannot speak for a person").fix("run it in a terminal of your own"))
}

/// Who speaks: git's identity.
pub fn actor(project: &Project) -> Result<Actor, Fault> {
    refuse_workers()?;
    let config = Git::tree(&project.located.git_dir, &project.located.top).config()?;
    let value = |key: &str| config.value(key).filter(|v| !v.trim().is_empty()).map(str::to_owned);
    let (Some(name), Some(email)) = (value("user.name"), value("user.email")) else {
        return Err(Fault::environment("git does not know who you are")
            .fix("git config --global user.name NAME; git config --global user.email ADDRESS"));
    };
    Ok(Actor { name, email })
}

fn until(holds: Span) -> Result<Timestamp, Fault> {
    let micros = i64::try_from(holds.0).ok().and_then(|ms| ms.checked_mul(1000));
    let end = micros.and_then(|more| sys::now().micros().checked_add(more)).and_then(Timestamp::from_micros);
    end.ok_or_else(|| Fault::input("--for is longer than time is counted").fix("for example 7d"))
}

fn scope(looked: &Looked, spoken: &Spoken) -> Result<Scope, Fault> {
    let seen = &looked.situation;
    if spoken.reason.trim().is_empty() {
        return Err(Fault::input("--reason says nothing").fix("say why, so that a reader understands it later"));
    }
    if let Some(why) = seen.ledger.as_ref().or(seen.contract.as_ref()).or(seen.nothing.as_ref()) {
        return Err(Fault::refused(why.as_str()).fix(format!("see `vnx gate-check {}`", seen.dispatch)));
    }
    let holds = spoken.holds.unwrap_or(looked.policy.merge.approval);
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
    spoken: &Spoken,
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
        reason: spoken.reason.trim().to_owned(),
        scope: scope(looked, spoken)?,
        settles,
        run,
        nonce: nonce(sys::random::<16>()?),
        text: None,
        signature: None,
    };
    if spoken.sign {
        let place = project.paths.dispatch(id).join("approvals").join(&given.nonce);
        sign(project, id, &mut given, &place)?;
    }
    project.ledger().append(&[Entry::of(id, Body::ApprovalGiven(given.clone()))])?;
    seal(project)?;
    Ok(given)
}

/// What is signed: everything that the approval says.
pub(super) fn text(id: &DispatchId, given: &ApprovalGiven) -> String {
    let ApprovalGiven { by, reason, scope, settles, run, nonce, .. } = given;
    let settles = settles.iter().map(Name::as_str).chain(run.as_deref()).collect::<Vec<_>>().join(" ");
    let settles = if settles.is_empty() { "-" } else { &settles };
    format!(
        "vnx.approval/1\ndispatch {id}\ntarget {}\nhead {}\ntree {}\nuntil {}\nsettles {settles}\nnonce {nonce}\n\
         by {} <{}>\nreason {reason}\n",
        scope.target, scope.head, scope.tree, scope.until, by.name, by.email
    )
}

fn sign(project: &Project, id: &DispatchId, given: &mut ApprovalGiven, place: &Path) -> Result<(), Fault> {
    let config = Git::tree(&project.located.git_dir, &project.located.top).config()?;
    let key = config.value("user.signingkey").filter(|_| config.value("gpg.format") == Some("ssh"));
    let Some(key) = key else {
        return Err(Fault::environment("git is not configured to sign with an SSH key")
            .fix("git config --global gpg.format ssh; git config --global user.signingkey <public key file>"));
    };
    files::private_folder(place)?;
    let (file, text) = (place.join("approval.txt"), text(id, given));
    files::replace(&file, text.as_bytes())?;
    // A key itself, as git takes it, goes into a file for ssh-keygen.
    let literal = key.strip_prefix("key::").or_else(|| key.starts_with("ssh-").then_some(key));
    let key = match literal {
        Some(key) => {
            let path = place.join("key.pub");
            files::replace(&path, format!("{key}\n").as_bytes())?;
            path
        }
        None => home(key),
    };
    let cmd = Cmd::new("ssh-keygen").args(["-Y", "sign", "-n", NAMESPACE, "-f"]).arg(&key).arg(&file);
    let cmd = match std::env::var_os("SSH_AUTH_SOCK") {
        Some(agent) => cmd.env("SSH_AUTH_SOCK", agent),
        None => cmd,
    };
    let output = cmd.limit(Duration::from_mins(2)).run().map_err(|e| Fault::environment(e.to_string()))?;
    if !output.ok() {
        return Err(Fault::environment(format!("ssh-keygen did not sign: {}", output.complaint()))
            .fix("check user.signingkey, and that the agent has the key"));
    }
    let made = place.join("approval.txt.sig");
    let signature = files::read_capped(&made, 1 << 20)?.ok_or_else(|| Fault::io("ssh-keygen left no signature"))?;
    files::rename(&made, &place.join("approval.sig"))?;
    given.text = Some(Digest::of(text.as_bytes()));
    given.signature = Some(Digest::of(&signature));
    Ok(())
}

fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// Sets a gate aside for this commit: its name, or `verdict`, `strict`, `items`, `no-gate`, `git-config`.
pub fn set_aside(project: &Project, looked: &Looked, about: &Name, spoken: &Spoken) -> Result<OverrideUsed, Fault> {
    const OTHERS: [&str; 5] = ["verdict", "strict", "items", "no-gate", "git-config"];
    let (seen, by) = (&looked.situation, actor(project)?);
    if !OTHERS.contains(&about.as_str()) && !seen.gates.iter().any(|a| a.name == *about) {
        return Err(Fault::input(format!(
            "{about} is neither a gate of this dispatch nor one of {}",
            OTHERS.join(", ")
        ))
        .fix(format!("see `vnx gate-check {}`", seen.dispatch)));
    }
    let scope = scope(looked, spoken)?;
    let gate = Some(GateOverride { by, scope, nonce: nonce(sys::random::<16>()?) });
    let used = OverrideUsed { constraint: about.clone(), reason: spoken.reason.trim().to_owned(), gate };
    project.ledger().append(&[Entry::of(&seen.dispatch, Body::OverrideUsed(used.clone()))])?;
    seal(project)?;
    Ok(used)
}

/// A person's word is anchored at once. Where it cannot be, it stands all the same, and the merge says why.
fn seal(project: &Project) -> Result<(), Fault> {
    anchor::seal(project).map(drop)
}
