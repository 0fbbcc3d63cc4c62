//! A clean checkout of one commit, on no branch, for a gate or a merge: nobody's work is in it, so it goes
//! as it came.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::Fault;
use crate::domain::setup::Lfs;
use crate::git::Git;
use crate::sys::files;
use crate::sys::lock;

/// The folder of all of them, below that of the worktrees.
pub const PLACES: &str = ".gates";

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The repository's common git folder.
    pub common_dir: &'a Path,
    /// The folder of the worktrees.
    pub root: &'a Path,
    /// Held for a moment by whoever adds or drops a worktree.
    pub repo_lock: &'a Path,
    /// What it is called: a nonce, so that it is nobody else's.
    pub name: &'a str,
}

impl Place<'_> {
    /// Its folder.
    pub fn path(&self) -> PathBuf {
        self.root.join(PLACES).join(self.name)
    }

    /// Its files, and its own git folder.
    pub fn git(&self) -> Git {
        Git::tree(self.git_dir(), self.path())
    }

    fn git_dir(&self) -> PathBuf {
        self.common_dir.join("worktrees").join(self.name)
    }

    /// Makes it.
    pub fn make(&self, commit: &str, lfs: Lfs, held: impl Fn() -> Option<File>) -> Result<Git, Fault> {
        let path = self.path();
        if path.exists() || self.git_dir().exists() {
            return Err(Fault::internal(format!("{} is taken", path.display())));
        }
        let guard = lock::exclusive(self.repo_lock, Duration::from_mins(1))?;
        files::private_folder(&self.root.join(PLACES))?;
        Git::repository(self.common_dir).worktree_add_detached(&path, commit, "vnx gate")?;
        // All of the commit, whatever the main checkout leaves out.
        files::delete_tree(&self.git_dir().join("info"))?;
        drop(guard);
        let git = self.git();
        git.populate(self.common_dir, commit, lfs, held())?;
        Ok(git)
    }

    /// Takes it away, whatever of it there is.
    pub fn clear(&self) -> Result<(), Fault> {
        let path = self.path();
        let repository = Git::repository(self.common_dir);
        let guard = lock::exclusive(self.repo_lock, Duration::from_mins(1))?;
        // Deleting takes time, and others wait for the lock.
        let gone = self.root.join(PLACES).join(format!("gone-{}", self.name));
        if path.symlink_metadata().is_ok() {
            files::rename(&path, &gone)?;
        }
        if self.git_dir().exists() {
            repository.worktree_drop(&self.git_dir())?;
        }
        drop(guard);
        // What somebody put there who may do more than we is only disk space, and tried again later.
        let _ = files::delete_tree(&gone);
        let guard = lock::exclusive(self.repo_lock, Duration::from_mins(1))?;
        // Not empty means that others work there.
        let _ = std::fs::remove_dir(self.root.join(PLACES));
        drop(guard);
        super::create::leave(self.root, self.repo_lock);
        Ok(())
    }
}

/// Deletes what could not be deleted before.
pub fn empty_places(root: &Path, repo_lock: &Path) {
    let places = root.join(PLACES);
    let gone = files::names(&places).unwrap_or_default();
    let gone: Vec<&String> = gone.iter().filter(|name| name.starts_with("gone-")).collect();
    if !gone.is_empty() && gone.iter().all(|name| files::delete_tree(&places.join(name)).is_ok()) {
        let _ = std::fs::remove_dir(&places);
        super::create::leave(root, repo_lock);
    }
}
