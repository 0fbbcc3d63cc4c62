//! Creating a worktree: registration under one short lock, files outside of it, and nothing
//! left behind when it fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Tree;
use crate::domain::Fault;
use crate::git::Git;
use crate::sys::files::{self, At};
use crate::sys::lock;

/// A worktree that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its own git folder.
    pub git_dir: PathBuf,
}

/// Creates the worktree on a new branch at its base.
pub fn create(tree: &Tree<'_>, repo_lock: &Path) -> Result<Made, Fault> {
    if tree.path.exists() {
        return Err(Fault::environment(format!("{} exists already", tree.path.display()))
            .fix("move it away; vnx does not touch what it did not make"));
    }
    let root = tree.path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(root).at("create", root)?;
    let repository = tree.repository();
    let guard = lock::exclusive(repo_lock, Duration::from_mins(1))?;
    repository.worktree_add_bare(tree.path, &tree.id.branch(), tree.base, &tree.lock_reason())?;
    drop(guard);
    let filled = fill(tree);
    if filled.is_err() {
        // Only what this call made a moment ago, and only while it is still at its base.
        undo(tree, &repository);
    }
    filled
}

fn fill(tree: &Tree<'_>) -> Result<Made, Fault> {
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?.ok_or_else(|| {
        Fault::environment("git registered the worktree under another name")
            .fix("run `git worktree prune`, then try again")
    })?;
    // More workers than cores: checking out waits for the file system.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Git::tree(&git_dir, tree.path).checkout_files((cores * 2).min(8))?;
    Ok(Made { git_dir })
}

fn undo(tree: &Tree<'_>, repository: &Git) {
    // Each step may find nothing to do; the error that brought us here is the one to report.
    let _ = files::delete_tree(tree.path);
    let _ = repository.worktree_forget(tree.path);
    let _ = repository.delete_ref(&tree.id.branch_ref(), tree.base);
    let _ = tree.path.parent().map(std::fs::remove_dir);
}
