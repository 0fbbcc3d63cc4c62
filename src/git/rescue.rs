//! The rescue commit: everything a teardown could lose, as one commit.
//!
//! Its tree is the worktree as it stands (tracked, untracked and chosen ignored files, through
//! a temporary index that leaves the worker's own index alone); its parents are the branch
//! head, HEAD and every commit that only this worktree reached.

use std::path::Path;

use super::objects::as_vnx;
use super::{Git, Result, expect};

/// What to put into a rescue commit.
#[derive(Debug, Clone, Copy)]
pub struct Rescue<'a> {
    /// Commits that must stay reachable; the first is the first parent.
    pub parents: &'a [String],
    /// Ignored paths to include.
    pub ignored: &'a [String],
    /// The commit message.
    pub message: &'a str,
    /// The worker's own index hides changes and is not used.
    pub fresh_index: bool,
    /// A path for the temporary index, in a folder of ours.
    pub index: &'a Path,
}

impl Git {
    /// Writes the commit and returns its id. `self` is the worktree.
    pub fn write_rescue(&self, rescue: Rescue<'_>) -> Result<String> {
        let with_index = |args: &[&str]| self.cmd().env("GIT_INDEX_FILE", rescue.index).args(args);
        if rescue.fresh_index {
            // Flags that hide changes must not come along: begin from the commit.
            expect("read-tree", with_index(&["read-tree", "HEAD"]).run()?)?;
        } else {
            // The worker's index as a start: its stat cache spares reading unchanged files.
            let _ = std::fs::copy(self.git_dir.join("index"), rescue.index);
        }
        expect("add", with_index(&["-c", "advice.addEmbeddedRepo=false", "add", "--all", "--", ":/"]).run()?)?;
        if !rescue.ignored.is_empty() {
            let paths = rescue.ignored.join("\0");
            let cmd =
                with_index(&["--literal-pathspecs", "add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul"]);
            expect("add", cmd.stdin(paths).run()?)?;
        }
        let tree = expect("write-tree", with_index(&["write-tree"]).run()?)?.text();
        let _ = std::fs::remove_file(rescue.index);
        let mut cmd = self.cmd().args(["commit-tree", &tree]);
        for parent in rescue.parents {
            cmd = cmd.args(["-p", parent]);
        }
        Ok(expect("commit-tree", as_vnx(cmd).stdin(rescue.message).run()?)?.text())
    }
}
