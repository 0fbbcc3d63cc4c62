//! Linked worktrees: the registration half. What may be removed is decided elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Git, Result, expect, refused, unreadable};
use crate::sys::files::{self, At, PathError};

/// How often a worktree is registered again after a failure that left nothing.
const TRIES: u32 = 5;

/// What git's log of a branch says that was made for a dispatch. The ledger must know such a branch.
pub const FOR_DISPATCH: &str = "vnx: dispatch";

impl Git {
    /// Creates a branch that must not exist yet, with a line in its log that says why. `self` is the repository.
    pub fn create_branch(&self, full_name: &str, commit: &str, why: &str, held: Option<File>) -> Result<()> {
        // The empty old value means "must not exist".
        let args = ["update-ref", "--no-deref", "-m", why, full_name, commit, ""];
        expect("update-ref", self.cmd().args(args).holding(held).run()?).map(drop)
    }

    /// Registers a worktree on an existing branch with a lock, without files. Short: runs under
    /// the repository lock. `self` is the repository.
    pub fn worktree_add_bare(
        &self,
        path: &Path,
        branch: &str,
        reason: &str,
        held: impl Fn() -> Option<File>,
    ) -> Result<()> {
        self.worktree_add(&["--lock", "--reason", reason], path, branch, held)
    }

    /// Registers a worktree on a commit with a lock, without files. `self` is the repository.
    pub fn worktree_add_detached(&self, path: &Path, commit: &str, reason: &str) -> Result<()> {
        self.worktree_add(&["--detach", "--lock", "--reason", reason], path, commit, || None)
    }

    /// git looks at all worktrees, and fails over one that somebody else's git takes away at that moment; and a `git
    /// worktree prune` may take away what was just begun. Neither leaves anything but an empty folder.
    fn worktree_add(&self, how: &[&str], path: &Path, what: &str, held: impl Fn() -> Option<File>) -> Result<()> {
        // An empty folder that was made for it stays the one that is on record.
        let (mut tries, was_there) = (0, path.exists());
        let is_empty = || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        loop {
            let cmd = self.cmd().args(["worktree", "add", "--quiet", "--no-checkout"]).args(how);
            let output = cmd.arg("--").arg(path).arg(what).holding(held()).run()?;
            let nothing_left =
                || !path.exists() || if was_there { is_empty() } else { std::fs::remove_dir(path).is_ok() };
            if output.ok() || tries == TRIES || !nothing_left() {
                return expect("worktree", output).map(drop);
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(5) * tries);
        }
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
        let recorded = files::read_text(&own.join("gitdir")).unwrap_or_default();
        let elsewhere = Path::new(recorded.trim_end()).parent().is_some_and(|p| !same_folder(&own.join(p), path));
        if elsewhere || self.worktree_drop(&own).is_err() {
            return Err(unreadable("worktree"));
        }
        Ok(())
    }

    /// Takes git's own folder of a worktree away. In one step: whoever looks at all worktrees at that moment, as
    /// `git worktree add` does, fails over one that is half deleted. The folder above stays, even if it is empty
    /// now: git may be about to use it. `self` is the repository.
    pub fn worktree_drop(&self, own: &Path) -> Result<(), PathError> {
        let gone = self.git_dir.join("vnx-gone");
        let name = own.file_name().unwrap_or_default().to_string_lossy();
        let aside = gone.join(format!("{name}-{}-{}", crate::sys::now().micros(), std::process::id()));
        let mut tries = 0;
        loop {
            files::private_folder(&gone)?;
            if !files::is_own_folder(&gone) {
                return Err(std::io::Error::other("it is a link, or another user's: move it away")).at("use", &gone);
            }
            match std::fs::rename(own, &aside) {
                // Somebody else has just taken the folder of those that go away, or there is nothing to take.
                Err(e) if e.kind() == ErrorKind::NotFound && own.exists() && tries < 100 => tries += 1,
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at("remove", own),
                _ => break,
            }
        }
        // With what others left who were killed here. It is only disk space, and others may be at it too.
        for name in files::names(&gone).unwrap_or_default() {
            let _ = files::delete_tree(&gone.join(name));
        }
        let _ = std::fs::remove_dir(&gone);
        Ok(())
    }

    /// The worktree in which a branch is checked out. `self` is the repository.
    pub fn checked_out(&self, branch: &str) -> Result<Option<PathBuf>> {
        let text = expect("worktree", self.cmd().args(["worktree", "list", "--porcelain"]).run()?)?.text();
        let mut place = None;
        for line in text.lines() {
            if let Some(path) = line.strip_prefix("worktree ") {
                place = Some(PathBuf::from(path));
            } else if line.strip_prefix("branch ") == Some(branch) {
                return Ok(place);
            }
        }
        Ok(None)
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
        match Self::worktree_recorded(common_dir, name)? {
            Some(recorded) if same_folder(&recorded, path) => Ok(Some(common_dir.join("worktrees").join(name))),
            Some(_) => Err(unreadable("worktree")),
            None => Ok(None),
        }
    }

    /// Whether the worktree at `path` says that it is of another repository, which is there: the one at `common_dir`
    /// was copied from it, with its records of worktrees.
    pub fn is_of_another(path: &Path, common_dir: &Path) -> bool {
        let link = files::read_capped(&path.join(".git"), 4096).ok().flatten().unwrap_or_default();
        let Some(to) = link.strip_prefix(b"gitdir: ") else { return false };
        let to = path.join(OsStr::from_bytes(to.trim_ascii_end()));
        // `<common folder>/worktrees/<name>`, by whatever path git was called then.
        to.exists() && !to.ancestors().any(|above| same_folder(above, common_dir))
    }

    /// Where the repository has the worktree of this name on record.
    pub fn worktree_recorded(common_dir: &Path, name: &OsStr) -> Result<Option<PathBuf>> {
        let own = common_dir.join("worktrees").join(name);
        match files::read_text(&own.join("gitdir")) {
            Ok(text) => {
                let recorded = own.join(text.trim_end_matches('\n'));
                recorded.parent().map(|folder| Some(folder.to_owned())).ok_or_else(|| unreadable("worktree"))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(_) => Err(unreadable("worktree")),
        }
    }
}

/// Whether two paths lead to the same folder, through whatever links; also where the folder itself is gone.
pub fn same_folder(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let above = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(above)
    };
    a == b || real(a).is_some_and(|a| real(b) == Some(a))
}
