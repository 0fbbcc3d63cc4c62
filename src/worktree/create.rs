//! Creating a worktree: registration under one short lock, files outside of it, and nothing
//! left behind when it fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{PLACES, Pool, Tree, removal, submodules};
use crate::domain::Fault;
use crate::domain::setup::Setup;
use crate::git::{FOR_DISPATCH, Git};
use crate::sys::files::{self, At};
use crate::sys::folder::FolderId;
use crate::sys::lock;

/// A worktree that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its own git folder.
    pub git_dir: PathBuf,
}

/// Creates the worktree on a new branch at its base. `alive` is the dispatch's lock: git holds
/// it too, so that nobody recovers this dispatch while an orphaned git is still writing.
pub fn create(tree: &Tree<'_>, setup: &Setup, alive: Option<&File>) -> Result<Made, Fault> {
    if tree.path.exists() {
        return Err(Fault::environment(format!("{} exists already", tree.path.display()))
            .fix("move it away; vnx does not touch what it did not make"));
    }
    let repository = tree.repository();
    let held = || alive.and_then(|lock| lock.try_clone().ok());
    // Fails if the branch exists; from here on it is ours.
    repository.create_branch(&tree.branch_ref(), tree.base, FOR_DISPATCH, held()).map_err(|e| {
        Fault::environment(format!("branch {} cannot be made: {e}", tree.branch()))
            .fix("delete it, or choose another name")
    })?;
    let pool = Pool { common_dir: tree.common_dir, root: tree.root(), paths: tree.paths };
    let made = match pool.take(tree, setup, held) {
        Ok(Some(git_dir)) => is_found_by_git(tree.path).map(|()| Made { git_dir }),
        Ok(None) => add(tree, held).and_then(|()| fill(tree, setup, held)),
        Err(fault) => Err(fault),
    };
    let made = made.and_then(|made| {
        let git = Git::tree(&made.git_dir, tree.path);
        git.begin_reflog(tree.base)?;
        git.remember_checkout()?;
        Ok(made)
    });
    if made.is_err() {
        // Nobody but us has been here yet. The error that brought us here is the one to report.
        let _ = discard(tree, |_| Ok(None)).and_then(|_| drop_branch(tree));
    }
    made
}

/// Refuses a worktree in which a worker's git would work on other files: settings can name another folder for all
/// worktrees (`core.worktree` beside `extensions.worktreeConfig`).
pub fn is_found_by_git(path: &Path) -> Result<(), Fault> {
    let (_, _, _, top) = Git::examine(path)?;
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if same(&top, path) {
        return Ok(());
    }
    Err(Fault::environment(format!("git in the worktree {} would work on the files in {}", path.display(), top.display()))
        .fix("git config --show-origin --get-all core.worktree names the setting; move it to the main worktree with `git config --worktree core.worktree PATH`"))
}

fn add(tree: &Tree<'_>, held: impl Fn() -> Option<File>) -> Result<(), Fault> {
    let _guard = tree.locked()?;
    files::private_folder(tree.root())?;
    Ok(tree.repository().worktree_add_bare(tree.path, &tree.branch(), &tree.lock_reason(), held)?)
}

fn fill(tree: &Tree<'_>, setup: &Setup, held: impl Fn() -> Option<File>) -> Result<Made, Fault> {
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?.ok_or_else(|| {
        Fault::environment("git registered the worktree under another name")
            .fix("run `git worktree prune`, then try again")
    })?;
    let git = Git::tree(&git_dir, tree.path);
    if !setup.sparse.is_empty() {
        let _held = tree.locked()?;
        git.sparse(&setup.sparse, &held)?;
    }
    let (written, found) = std::thread::scope(|scope| {
        let found = crate::sys::beside(scope, || is_found_by_git(tree.path));
        let written = git.populate(tree.common_dir, tree.base, setup.lfs, held());
        (written, found.join().unwrap_or_else(|_| Err(Fault::internal("asking git ended early"))))
    });
    found?;
    written?;
    if setup.submodules {
        submodules::populate(tree, &git_dir, setup.lfs, &held)?;
    }
    Ok(Made { git_dir })
}

/// What became of a tree that may be half made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discarded {
    /// Nothing of it is left, or nothing of it was ever ours.
    Gone,
    /// It stands: something in it was not written by vnx.
    Holds(String),
}

/// Takes away what a creation that did not finish has left: folder, registration, and the branch if it is still at
/// its base. Nothing goes unless it is proved that vnx wrote it: a record that is missing does not say that no worker
/// ran. What somebody else made there is left alone.
pub fn discard_half_made(tree: &Tree<'_>, setup: &Setup) -> Result<Discarded, Fault> {
    discard(tree, |at| super::half_made::foreign(tree, setup, at))
}

/// Takes away what a hook or a copy of ours wrote into a tree in which nobody else has been.
pub fn discard_own(tree: &Tree<'_>) -> Result<(), Fault> {
    discard(tree, |_| Ok(None)).map(drop)
}

fn discard(tree: &Tree<'_>, foreign: impl Fn(&Path) -> Result<Option<String>, Fault>) -> Result<Discarded, Fault> {
    // git calls its folder by the last part of the path.
    let own = tree.common_dir.join("worktrees").join(tree.path.file_name().unwrap_or_default());
    // The lock is written before the folder stands, by git and by the pool; first of all stands an empty folder of git's.
    let is_ours = files::read_text(&own.join("locked")).is_ok_and(|reason| tree.is_our_lock(&reason));
    let is_begun = is_ours || own.exists() && !own.join("gitdir").exists();
    let stands = tree.path.symlink_metadata().is_ok();
    if stands && !is_ours || own.exists() && !is_begun {
        return Ok(Discarded::Gone);
    }
    let mut gone = None;
    if stands {
        let folder = FolderId::of(tree.path).at("examine", tree.path)?;
        let aside = removal::put_aside(tree.paths, tree.root(), tree.path, folder)?;
        if let Some(what) = foreign(&aside.path).unwrap_or_else(|fault| Some(fault.what)) {
            aside.put_back()?;
            return Ok(Discarded::Holds(what));
        }
        gone = Some(aside.condemn()?);
    } else if let Some(what) = foreign(tree.path)? {
        return Ok(Discarded::Holds(what));
    }
    if is_begun {
        tree.forget()?;
    }
    drop_branch(tree)?;
    gone.map_or(Ok(()), removal::Aside::delete)?;
    leave(tree.root(), &tree.paths.repo_lock());
    Ok(Discarded::Gone)
}

fn drop_branch(tree: &Tree<'_>) -> Result<(), Fault> {
    let repository = tree.repository();
    if repository.ref_commit(&tree.branch_ref())?.as_deref() == Some(tree.base) {
        repository.delete_ref(&tree.branch_ref(), tree.base)?;
    }
    Ok(())
}

/// Takes the folder of the worktrees away if it is empty: not empty means that others work there.
/// Whoever creates a worktree makes that folder under the same lock, so it never goes between its
/// making and its use.
pub fn leave(root: &Path, repo_lock: &Path) {
    if let Ok(_held) = lock::exclusive(repo_lock, Duration::from_secs(10)) {
        let _ = std::fs::remove_dir(root.join(PLACES));
        let _ = std::fs::remove_dir(root);
    }
}

/// Whether a folder of ours for worktrees or checkouts stands there empty: somebody died before it was taken away.
pub fn is_left_behind(root: &Path) -> bool {
    let is_empty = |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    is_empty(root) || is_empty(&root.join(PLACES))
}
