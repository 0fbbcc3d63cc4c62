//! A clean checkout of one commit, on no branch, for a gate or a merge: nobody's work is in it, so it goes
//! as it came.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::removal;
use crate::domain::Fault;
use crate::domain::setup::Lfs;
use crate::git::Git;
use crate::project::Paths;
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
    /// Where state is.
    pub paths: &'a Paths,
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
        let guard = lock::exclusive(&self.paths.repo_lock(), Duration::from_mins(1))?;
        private_real_folder(&self.root.join(PLACES))?;
        removal::make(self.paths, &path)?;
        Git::repository(self.common_dir).worktree_add_detached(&path, commit, "vnx gate")?;
        // All of the commit, whatever the main checkout leaves out.
        files::delete_tree(&self.git_dir().join("info"))?;
        drop(guard);
        let git = self.git();
        git.populate(self.common_dir, commit, lfs, held())?;
        Ok(git)
    }

    /// Takes it away, whatever of it there is, if it is on record as made.
    pub fn clear(&self) -> Result<(), Fault> {
        let guard = lock::exclusive(&self.paths.repo_lock(), Duration::from_mins(1))?;
        // One that was put aside by who died before it was given up needs the folder that it came from.
        private_real_folder(&self.root.join(PLACES))?;
        removal::put_back(self.paths, &self.path())?;
        // Deleting takes time, and others wait for the lock.
        let cleared = removal::clear(self.paths, self.root, &self.path());
        if self.git_dir().exists() {
            Git::repository(self.common_dir).worktree_drop(&self.git_dir())?;
        }
        drop(guard);
        // What cannot be deleted is only disk space, and tried again later.
        let _ = cleared?.map(removal::Aside::delete);
        // With what somebody put aside who died before it was deleted.
        removal::delete_removed(self.paths, self.root, Duration::ZERO)
    }
}

/// Makes a folder of ours beside the worktrees, for us alone. A link to one that somebody put there is none.
pub(super) fn private_real_folder(path: &Path) -> Result<(), Fault> {
    files::private_folder(path)?;
    if files::is_own_folder(path) {
        return Ok(());
    }
    Err(Fault::environment(format!("{} is a link, or another user's", path.display()))
        .fix("move it away; vnx makes the folder itself"))
}
