//! The claim: from here on a dispatch exists, and every command can see whether it is alive.
//!
//! The id is taken by two exclusive creations (marker, folder); life is an `flock` that passes
//! without a gap from the foreground command to its supervisor and that the kernel releases
//! when the last holder dies.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Planned;
use super::request::Request;
use crate::domain::receipt::{Attestation, Body, DispatchClaimed, DispatchRequested, Entry, OverrideUsed};
use crate::domain::{Digest, DispatchId, Fault};
use crate::project::{Paths, Project};
use crate::sys::files;
use crate::sys::lock;

/// A dispatch that is ours.
#[derive(Debug)]
pub struct Claim {
    /// Its id.
    pub id: DispatchId,
    /// Its folder.
    pub folder: PathBuf,
    /// The lock that says it is alive.
    pub lock: File,
}

/// Claims the id of a plan and records it.
pub fn claim(
    project: &Project,
    request: &Request,
    planned: &Planned,
    attested: Option<&Attestation>,
) -> Result<Claim, Fault> {
    let paths = &project.paths;
    let id = planned.plan.id.clone();
    let folder = paths.dispatch(&id);
    let guard = lock::exclusive(&paths.claim_lock(), Duration::from_secs(30))?;
    let open = files::names(&paths.open())?.len();
    let limit = project.config.limits.parallel;
    if open >= limit as usize {
        let what = if open == 1 { "1 dispatch is".to_owned() } else { format!("{open} dispatches are") };
        return Err(Fault::refused(format!("{what} running, and limits.parallel is {limit}"))
            .fix("wait for one to end (--wait-slot does), or raise limits.parallel"));
    }
    let taken = || Fault::input(format!("dispatch id {id} is taken")).fix("choose another --id, or leave it out");
    if folder.exists() {
        return Err(taken());
    }
    if files::create_new(&paths.open_marker(&id), b"").is_err() {
        return Err(if paths.open_marker(&id).exists() {
            taken()
        } else {
            Fault::environment(format!("{} cannot be written", paths.open().display())).fix("run `vnx doctor`")
        });
    }
    let filled = take(&folder).and_then(|lock| {
        // Held now: recovery no longer takes this folder for one that was abandoned.
        drop(guard);
        fill(project, request, planned, attested, &folder).map(|()| lock)
    });
    if filled.is_err() {
        // Nothing was recorded, so nothing may stay.
        let _ = files::delete_tree(&folder);
        let _ = files::remove(&paths.open_marker(&id));
    }
    filled.map(|lock| Claim { id, folder, lock })
}

fn take(folder: &Path) -> Result<File, Fault> {
    if !files::claim_folder(folder)? {
        return Err(Fault::internal("a new dispatch has a folder already"));
    }
    // Whoever looks for lost dispatches may hold it for a moment.
    let path = folder.join("lock");
    let lock = lock::exclusive(&path, Duration::from_secs(30))?;
    lock::note_place(&lock, &path)?;
    Ok(lock)
}

fn fill(
    project: &Project,
    request: &Request,
    planned: &Planned,
    attested: Option<&Attestation>,
    folder: &Path,
) -> Result<(), Fault> {
    let yaml = request.to_yaml()?;
    files::create_new(&folder.join("request.yaml"), yaml.as_bytes())?;
    files::create_new(&folder.join("prompt.md"), planned.prompt.as_bytes())?;
    // Last, because recovery takes a folder with a plan for a claim that was meant.
    files::create_new(&folder.join("plan.json"), planned.json.as_bytes())?;
    let ledger = project.ledger();
    ledger.append(&entries(planned, Digest::of(yaml.as_bytes()), attested))?;
    // It may have been used up; the plan has seen that there is space again.
    ledger.fill_reserve();
    Ok(())
}

/// Refuses a dispatch in the place of whose folder something else stands: what is written through a link lands
/// elsewhere, and what is read there is not the dispatch's.
pub(in crate::dispatch) fn refuse_swapped(paths: &Paths, id: &DispatchId) -> Result<(), Fault> {
    let folder = paths.dispatch(id);
    if std::fs::symlink_metadata(&folder).map_or(true, |meta| meta.is_dir()) {
        return Ok(());
    }
    Err(Fault::environment(format!(
        "{} is not the folder that was made for {id}, and nothing is read or written there",
        folder.display()
    ))
    .fix("look at what stands there, and put the folder back"))
}

/// The receipts of a claim. `attested` says how surely a person set its constraints aside.
pub(super) fn entries(planned: &Planned, request: Digest, attested: Option<&Attestation>) -> Vec<Entry> {
    let plan = &planned.plan;
    let claimed = DispatchClaimed {
        plan: planned.digest,
        agent: plan.agent.clone(),
        provider: plan.provider.clone(),
        model: plan.model.clone(),
        lane: plan.lane,
        permissions: plan.permissions,
        delivers: plan.delivers,
        base: plan.base.clone(),
        branch: plan.branch.clone(),
        worktree: plan.worktree.clone(),
    };
    let requested = DispatchRequested { request, agent: plan.agent.clone() };
    let mut entries = vec![
        Entry::of(&plan.id, Body::DispatchRequested(requested)),
        Entry::of(&plan.id, Body::DispatchClaimed(claimed)),
    ];
    for used in &plan.overrides {
        let (constraint, reason) = (used.id.clone(), used.reason.clone());
        let body = OverrideUsed { constraint, reason, gate: None, attestation: attested.cloned() };
        entries.push(Entry::of(&plan.id, Body::OverrideUsed(body)));
    }
    entries
}
