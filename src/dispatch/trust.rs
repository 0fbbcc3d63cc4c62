//! Accepting what a repository brings: a person's decision, once for each thing that would be run.

use serde::Serialize;

use super::gates::{accepted, actor};
use super::presence::{Decision, attest};
use crate::domain::authority::{Deciding, PresencePolicy};
use crate::domain::gate::check::short_ref;
use crate::domain::receipt::Actor;
use crate::domain::trust::Brought;
use crate::domain::{DispatchId, Fault};
use crate::gate;
use crate::git::{Git, SharedFiles};
use crate::project::{Project, trust};
use crate::worktree;

/// One thing that the repository brings, and whether it may be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The thing.
    #[serde(flatten)]
    pub brought: Brought,
    /// It may be run here.
    pub trusted: bool,
}

/// Everything that would be run: of this checkout, and of the commit whose gates count.
pub fn examine(project: &Project) -> Result<Vec<Seen>, Fault> {
    let mut all = trust::of_checkout(project)?;
    for one in of_target(project) {
        if !all.iter().any(|known| known.digest == one.digest) {
            all.push(one);
        }
    }
    let standing = trust::standing(&project.paths);
    Ok(all.into_iter().map(|brought| Seen { trusted: standing.covers(&brought), brought }).collect())
}

/// What the branch that dispatches land on says. One that says nothing, or cannot be read, has nothing that is run.
fn of_target(project: &Project) -> Vec<Brought> {
    let tree = Git::tree(&project.located.git_dir, &project.located.top);
    let target = match &project.config.merge.target {
        Some(target) => Some(format!("refs/heads/{}", short_ref(target))),
        None => tree.head().ok().flatten().and_then(|(_, branch)| branch),
    };
    let repository = Git::repository(&project.located.common_dir);
    let policy = target.and_then(|target| {
        let commit = repository.ref_commit(&target).ok()??;
        Some((gate::policy(&repository, &target, &commit, &project.located).ok()?, target))
    });
    policy.map(|(policy, target)| policy.brought(&target)).unwrap_or_default()
}

/// Accepts what was shown, in the name of the person who types the code.
pub fn accept(project: &Project, shown: &[Seen]) -> Result<Actor, Fault> {
    let by = actor(project)?;
    let new: Vec<&str> = shown.iter().filter(|seen| !seen.trusted).map(|seen| seen.brought.what.as_str()).collect();
    let line = format!("run here what this repository brings: {}", new.join(", "));
    let (deciding, minimum) = (Deciding::Trust, PresencePolicy::default().minimum(Deciding::Trust));
    attest(project, &Decision { deciding, line: &line, statement: None, sign: false, minimum, signers: None })?;
    let brought: Vec<Brought> = shown.iter().map(|seen| seen.brought.clone()).collect();
    trust::accept(&project.paths, &brought)?;
    Ok(by)
}

/// Files that git reads for all worktrees and that were changed while a dispatch ran, by their names, each with that
/// dispatch.
pub fn changed_files(project: &Project) -> Result<Vec<(&'static str, DispatchId)>, Fault> {
    let all = worktree::suspects(&project.paths, &shared_files(project)?)?;
    Ok(all.into_iter().map(|(file, by)| (file.name(), by)).collect())
}

/// Lets these files count as they are now.
pub fn accept_changed_files(project: &Project) -> Result<(), Fault> {
    let names: Vec<&str> = changed_files(project)?.into_iter().map(|(name, _)| name).collect();
    accepted(project, &format!("let these count as they are now: {}", names.join(", ")))?;
    worktree::accept(&project.paths, &shared_files(project)?)
}

fn shared_files(project: &Project) -> Result<SharedFiles, Fault> {
    let common_dir = &project.located.common_dir;
    Ok(SharedFiles::read(common_dir, &Git::repository(common_dir).config()?.shared())?)
}
