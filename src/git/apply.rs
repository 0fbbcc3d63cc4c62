//! A patch becomes a commit without the worktree being touched; then the worktree follows.
//!
//! git applies it to a temporary index: whole or not at all, and only below the top of the tree,
//! outside of `.git` and not through a symbolic link.

use std::fs::File;
use std::path::Path;

use super::objects::stored;
use super::{Git, Result, expect};
use crate::sys::files;

/// A patch and the commit that it becomes.
#[derive(Debug, Clone, Copy)]
pub struct NewPatch<'a> {
    /// The patch.
    pub patch: &'a str,
    /// The commit that it is applied to.
    pub parent: &'a str,
    /// The message.
    pub message: &'a str,
    /// Variables of the identity, where the configuration has none.
    pub identity: &'a [(String, String)],
    /// A path for the temporary index, in a folder of ours.
    pub index: &'a Path,
}

impl Git {
    /// Writes the commit and returns its id; no ref is moved. `self` is the worktree.
    pub fn write_patch(&self, new: NewPatch<'_>) -> Result<String> {
        let with_index = |args: &[&str]| self.cmd().env("GIT_INDEX_FILE", new.index).args(args);
        // Whoever had it before is gone, and may have left its lock.
        let clear = || [new.index, &new.index.with_extension("index.lock")].map(files::remove);
        clear().into_iter().collect::<Result<(), _>>()?;
        let written = || {
            expect("read-tree", with_index(&["read-tree", "--end-of-options", new.parent]).run()?)?;
            // Configuration may change neither what matches nor what is written.
            let apply = ["apply", "--cached", "--whitespace=nowarn", "--no-ignore-whitespace", "--", "-"];
            stored("apply", || with_index(&apply).stdin(new.patch))?;
            stored("write-tree", || with_index(&["write-tree"]))
        };
        let tree = written();
        let _ = clear();
        let tree = tree?;
        stored("commit-tree", || {
            let cmd = self.cmd().args(["commit-tree", &tree, "-p", new.parent]).stdin(new.message);
            new.identity.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value))
        })
    }

    /// Takes a branch and the worktree that it is checked out in from one commit to another. What the
    /// worktree holds beside them stays, or nothing is done. `self` is the worktree; `held` stays
    /// locked for as long as git works on it, even if we do not live to see the end.
    pub fn go_forward(&self, branch: &str, from: &str, to: &str, held: Option<&File>) -> Result<()> {
        let held = || held.and_then(|lock| lock.try_clone().ok());
        let cmd = self.cmd().args(["read-tree", "-m", "-u", "--end-of-options", from, to]);
        expect("read-tree", cmd.holding(held()).run()?)?;
        let args = ["update-ref", "--no-deref", "-m", "vnx: the diff in the answer", branch, to, from];
        expect("update-ref", self.cmd().args(args).holding(held()).run()?).map(drop)
    }
}
