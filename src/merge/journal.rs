//! What a merge is in the middle of, so that a crash at any moment leaves something that can be finished.
//!
//! There is one question: has the target got the commit? If so it has landed, and what is left is to bring its
//! checkouts along and to say so; if not, nothing has happened.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal_file;
use crate::domain::gate::check::{Subject, short};
use crate::domain::receipt::{Body, Entry, MergeLanded, MergeRefused, Strategy};
use crate::domain::{DispatchId, Fault};
use crate::git::{CheckedOut, Git, Held};
use crate::project::Project;
use crate::sys::{files, lock};
use crate::worktree::Place;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    path: PathBuf,
}

/// What stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    v: u32,
    dispatch: DispatchId,
    nonce: String,
    target: String,
    base: String,
    /// The commit of the branch, which is done with when it has landed; absent where something is taken back.
    head: Option<String>,
    /// The commit that the target is about to be moved to; absent before that.
    commit: Option<String>,
    /// Path and git folder of who has it checked out.
    places: Vec<(PathBuf, PathBuf)>,
}

impl Journal {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn write(&self, entry: &Note) -> Result<(), Fault> {
        let json = serde_json::to_vec_pretty(entry).map_err(|e| Fault::internal(format!("the journal: {e}")))?;
        Ok(files::replace(&self.path, &json)?)
    }

    fn read(&self) -> Result<Option<Note>, Fault> {
        let Some(bytes) = files::read_capped(&self.path, 1 << 20)? else { return Ok(None) };
        let broken = |e: serde_json::Error| {
            Fault::io(format!("{} cannot be read: {e}", self.path.display()))
                .fix("look at the target (`git log`), then delete that file")
        };
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }
}

/// A merge under way.
#[derive(Debug)]
pub(super) struct Merging<'a> {
    project: &'a Project,
    journal: Journal,
    entry: Note,
}

fn keeper(nonce: &str) -> String {
    format!("refs/vnx/merging/{nonce}")
}

impl<'a> Merging<'a> {
    pub(super) fn begin(
        project: &'a Project,
        id: &DispatchId,
        nonce: &str,
        subject: &Subject,
        strategy: Strategy,
    ) -> Result<Self, Fault> {
        let entry = Note {
            v: 1,
            dispatch: id.clone(),
            nonce: nonce.to_owned(),
            target: subject.target.clone(),
            base: subject.base.clone(),
            head: (strategy != Strategy::Revert).then(|| subject.head.clone()),
            commit: None,
            places: Vec::new(),
        };
        let journal = journal_file(project);
        journal.write(&entry)?;
        Ok(Self { project, journal, entry })
    }

    pub(super) fn nonce(&self) -> &str {
        &self.entry.nonce
    }

    /// Keeps the commit alive, which no branch has yet.
    pub(super) fn integrated(&self, repository: &Git, commit: &str) -> Result<(), Fault> {
        Ok(repository.set_ref(&keeper(&self.entry.nonce), commit, "vnx: to be merged")?)
    }

    /// From the next step on the target may have the commit.
    pub(super) fn about_to_move(&mut self, commit: &str, places: &[CheckedOut]) -> Result<(), Fault> {
        self.entry.commit = Some(commit.to_owned());
        self.about_to_hold(places)
    }

    /// From the next step on our locks may stand there.
    pub(super) fn about_to_hold(&mut self, places: &[CheckedOut]) -> Result<(), Fault> {
        self.entry.places = places.iter().map(|p| (p.path.clone(), p.git_dir.clone())).collect();
        self.journal.write(&self.entry)
    }

    pub(super) fn refused(&self, project: &Project, reason: &str) -> Result<(), Fault> {
        let reason = crate::domain::line::summary(reason);
        let body = MergeRefused { nonce: self.entry.nonce.clone(), reason };
        project.ledger().append(&[Entry::of(&self.entry.dispatch, Body::MergeRefused(body))])?;
        self.clear()
    }

    pub(super) fn landed(&self, project: &Project, landed: MergeLanded) -> Result<(), Fault> {
        project.ledger().append(&[Entry::of(&self.entry.dispatch, Body::MergeLanded(landed))])?;
        put_branch_away(project, &self.entry)?;
        self.clear()
    }

    /// Takes away what only the merge needed.
    pub(super) fn clear(&self) -> Result<(), Fault> {
        clear(self.project, &self.entry, false)
    }
}

fn clear(project: &Project, entry: &Note, is_copied: bool) -> Result<(), Fault> {
    let root = project.worktrees();
    let repository = Git::repository(&project.located.common_dir);
    if is_copied {
        // Git's record of the checkout came along, and the checkout did not.
        let _held = lock::exclusive(&project.paths.repo_lock(), Duration::from_mins(1))?;
        let _ = repository.worktree_drop(&project.located.common_dir.join("worktrees").join(&entry.nonce));
    } else {
        let place =
            Place { common_dir: &project.located.common_dir, root: &root, paths: &project.paths, name: &entry.nonce };
        // What cannot be deleted is only disk space, and no reason to hold every other merge.
        let _ = place.clear();
    }
    let keeper = keeper(&entry.nonce);
    if let Some(commit) = repository.ref_commit(&keeper)? {
        repository.delete_ref(&keeper, &commit)?;
    }
    Ok(files::remove(&project.paths.merging())?)
}

/// The branch of what has landed is done with: its commits are the target's, or are kept beside the branches. One that
/// has gone on since is not.
fn put_branch_away(project: &Project, entry: &Note) -> crate::git::Result<()> {
    let (repository, id) = (Git::repository(&project.located.common_dir), &entry.dispatch);
    let branch = format!("refs/heads/{}", id.branch());
    let Some(tip) = repository.ref_commit(&branch)? else { return Ok(()) };
    if entry.head.as_ref() != Some(&tip) || repository.checked_out(&branch)?.is_some() {
        return Ok(());
    }
    let kept = id.landed_ref();
    let kept = match repository.ref_commit(&kept)? {
        Some(other) if other != tip => format!("{kept}-{}", short(&tip)),
        _ => kept,
    };
    repository.set_ref(&kept, &tip, "vnx: landed")?;
    repository.delete_ref(&branch, &tip)
}

/// What every command does: finishes a merge whose process died. One that is under way is left alone.
pub fn tidy(project: &Project) -> Option<Result<String, Fault>> {
    if !project.paths.merging().exists() {
        return None;
    }
    match lock::try_exclusive(&project.paths.merge_lock()) {
        Ok(Some(held)) => recover(project, &held).transpose(),
        Ok(None) => None,
        Err(e) => Some(Err(e.into())),
    }
}

/// Finishes a merge that was cut off; says what came of it. The merge lock is held.
pub(super) fn recover(project: &Project, lock: &File) -> Result<Option<String>, Fault> {
    let Some(entry) = journal_file(project).read()? else { return Ok(None) };
    let is_copied = lock::is_copied(lock, &project.paths.merge_lock())?;
    let repository = Git::repository(&project.located.common_dir);
    let noted = entry.places.iter().map(|(path, git_dir)| CheckedOut { path: path.clone(), git_dir: git_dir.clone() });
    let mut places: Vec<CheckedOut> = noted.collect();
    // What was moved stands elsewhere now, and what was copied is the original's there.
    if places.iter().any(|place| !place.git_dir.starts_with(&project.located.common_dir)) {
        places = repository.who_has(&entry.target, &project.located.main_top())?;
    }
    let there = repository.ref_commit(&entry.target)?;
    let has = match (&entry.commit, &there) {
        (Some(commit), Some(there)) => repository.is_ancestor(commit, there)?,
        _ => false,
    };
    let receipts = project.ledger().of_dispatch(&entry.dispatch)?;
    let started = receipts.iter().any(|r| matches!(&r.body, Body::MergeStarted(m) if m.nonce == entry.nonce));
    let ended = receipts.iter().any(|r| match &r.body {
        Body::MergeLanded(m) => m.nonce == entry.nonce,
        Body::MergeRefused(m) => m.nonce == entry.nonce,
        _ => false,
    });
    let said = if let Some(commit) = entry.commit.as_ref().filter(|_| has) {
        // The target may have been moved on by others since.
        let to = there.as_deref().unwrap_or(commit);
        let behind = bring_along(&places, &entry, to, lock);
        if !ended {
            let (nonce, tree) = (entry.nonce.clone(), repository.tree_of(commit)?);
            let body = MergeLanded { nonce, commit: commit.clone(), tree, recovered: true, behind: behind.clone() };
            project.ledger().append(&[Entry::of(&entry.dispatch, Body::MergeLanded(body))])?;
        }
        match put_branch_away(project, &entry) {
            // Whose lock it is gives it back, or somebody takes it away.
            Err(e) if e.about_lock().is_some() => return Err(e.into()),
            // A branch that stays otherwise is in nobody's way, and no reason to hold every merge.
            _ => {}
        }
        let rest = behind.map(|why| format!("; {why}")).unwrap_or_default();
        format!("the merge of {} had landed, and is finished now{rest}", entry.dispatch)
    } else {
        for place in &places {
            release(place, &entry.nonce, lock);
        }
        if started && !ended {
            let reason = "it was cut off before the target was moved".to_owned();
            let body = MergeRefused { nonce: entry.nonce.clone(), reason };
            project.ledger().append(&[Entry::of(&entry.dispatch, Body::MergeRefused(body))])?;
        }
        format!("the merge of {} was cut off; the target is what it was", entry.dispatch)
    };
    clear(project, &entry, is_copied)?;
    Ok(Some(said))
}

/// Gives an index back that a killed process of ours holds.
fn release(place: &CheckedOut, nonce: &str, lock: &File) {
    drop(Held::take_over(place, nonce, lock));
}

/// Brings along who has the target checked out, as far as nobody else did.
fn bring_along(places: &[CheckedOut], entry: &Note, to: &str, lock: &File) -> Option<String> {
    let mut behind = None;
    for place in places.iter().filter(|place| place.path.exists()) {
        let done = Held::take_over(place, &entry.nonce, lock).and_then(|held| match held {
            Some(held) => held.finish(&entry.base, to),
            // Without our lock it was brought along, or somebody has taken the lock away.
            None if !place.is_on(&entry.target) => Ok(()),
            None => Held::take(place, &entry.target, &entry.nonce, lock)?.catch_up(&entry.base, to),
        });
        if let Err(e) = done {
            let how = e.by_hand(&place.path, &entry.base, to);
            behind = Some(format!("{}: {e}; {how}", place.path.display()));
        }
    }
    behind
}
