//! Linked worktrees: the registration half. What may be removed is decided elsewhere.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Git, GitError, Result, expect, refused, unreadable};
use crate::sys::files;

impl Git {
    /// Creates a branch that must not exist yet. `self` is the repository.
    pub fn create_branch(&self, full_name: &str, commit: &str, held: Option<File>) -> Result<()> {
        // The empty old value means "must not exist".
        let args = ["update-ref", "--no-deref", "-m", "vnx: dispatch", full_name, commit, ""];
        expect("update-ref", self.cmd().args(args).holding(held).run()?).map(drop)
    }

    /// Registers a worktree on an existing branch with a lock, without files. Short: runs under
    /// the repository lock. `self` is the repository.
    pub fn worktree_add_bare(&self, path: &Path, branch: &str, reason: &str, held: Option<File>) -> Result<()> {
        let output = self
            .cmd()
            .args(["worktree", "add", "--quiet", "--no-checkout", "--lock", "--reason", reason, "--"])
            .arg(path)
            .arg(branch)
            .holding(held)
            .run()?;
        expect("worktree", output).map(drop)
    }

    /// Registers a worktree on a commit with a lock, without files. `self` is the repository.
    pub fn worktree_add_detached(&self, path: &Path, commit: &str, reason: &str) -> Result<()> {
        let args = ["worktree", "add", "--quiet", "--no-checkout", "--detach", "--lock", "--reason", reason, "--"];
        expect("worktree", self.cmd().args(args).arg(path).arg(commit).run()?).map(drop)
    }

    /// Puts HEAD on a branch, whatever it was on; no file changes. `self` is the worktree.
    pub fn set_head(&self, branch: &str) -> Result<()> {
        let args = ["symbolic-ref", "-m", "vnx: dispatch", "HEAD", branch];
        expect("symbolic-ref", self.cmd().args(args).run()?).map(drop)
    }

    /// Puts HEAD on a commit and on no branch; no file changes. `self` is the worktree.
    pub fn detach(&self, commit: &str) -> Result<()> {
        expect("update-ref", self.cmd().args(["update-ref", "--no-deref", "HEAD", commit]).run()?).map(drop)
    }

    /// Leaves out everything but these folders and the files on the way to them, before any file is
    /// written. git notes it in the worktree's own configuration, which it may have to switch on for the
    /// repository: runs under the repository lock. `self` is the worktree.
    pub fn sparse(&self, folders: &[String], held: impl Fn() -> Option<File>) -> Result<()> {
        // Two calls: before git 2.35 `set` does not know cones by itself.
        for args in [["init", "--cone"].map(str::to_owned).as_slice(), &[&["set".to_owned()], folders].concat()] {
            let cmd = self.cmd().arg("sparse-checkout").args(args);
            expect("sparse-checkout", cmd.holding(held()).run()?)?;
        }
        Ok(())
    }

    /// Drops the registration of a worktree whose folder is already gone, as `git worktree remove`
    /// does, but without a process, and also when git was cut off while it wrote it. Refused
    /// where the registration names another folder. `self` is the repository.
    pub fn worktree_forget(&self, path: &Path) -> Result<()> {
        let name = path.file_name().ok_or_else(|| unreadable("worktree"))?;
        let own = self.git_dir.join("worktrees").join(name);
        let recorded = std::fs::read_to_string(own.join("gitdir")).unwrap_or_default();
        let elsewhere = Path::new(recorded.trim_end()).parent().is_some_and(|p| !same_folder(&own.join(p), path));
        if elsewhere || files::delete_tree(&own).is_err() {
            return Err(unreadable("worktree"));
        }
        // The folder above stays, even if it is empty now: git may be about to use it.
        Ok(())
    }

    /// Locks a worktree with a reason; one that is locked already gets the new reason.
    pub fn worktree_lock(&self, path: &Path, reason: &str) -> Result<()> {
        let lock = |git: &Self| git.cmd().args(["worktree", "lock", "--reason", reason, "--"]).arg(path).run();
        let output = lock(self)?;
        if output.ok() {
            return Ok(());
        }
        let unlocked = self.cmd().args(["worktree", "unlock", "--"]).arg(path).run()?;
        if !unlocked.ok() {
            return Err(refused("worktree", &output));
        }
        expect("worktree", lock(self)?).map(drop)
    }

    /// Takes the lock from a worktree.
    pub fn worktree_unlock(&self, path: &Path) -> Result<()> {
        expect("worktree", self.cmd().args(["worktree", "unlock", "--"]).arg(path).run()?).map(drop)
    }

    /// The git folder of the worktree at `path`, found by what the repository itself has on
    /// record: the folder's own `.git` file belongs to the worker and is not asked.
    pub fn worktree_git_dir(common_dir: &Path, path: &Path) -> Result<Option<PathBuf>> {
        let name = path.file_name().ok_or_else(|| unreadable("worktree"))?;
        let own = common_dir.join("worktrees").join(name);
        match std::fs::read_to_string(own.join("gitdir")) {
            Ok(text) => {
                let recorded = Path::new(text.trim_end_matches('\n'));
                let recorded = if recorded.is_absolute() { recorded.to_owned() } else { own.join(recorded) };
                let same = recorded.parent().is_some_and(|p| same_folder(p, path));
                if same { Ok(Some(own)) } else { Err(unreadable("worktree")) }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(GitError::Unreadable { verb: "worktree".into() }),
        }
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(x), Ok(y)) if x == y)
}
