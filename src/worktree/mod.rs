//! The one worktree manager: create, commit what an answer offers, read facts, tear down, delete for good.
//!
//! What is safe is decided by `domain::tree::classify`; nothing here decides it again.

mod answer;
mod baseline;
mod branch;
mod create;
mod facts;
mod half_made;
mod ignored;
mod keep;
mod nested;
mod place;
mod pool;
mod removal;
mod rescue;
mod restore;
mod shared_rules;
mod submodules;
mod supply;
mod teardown;
mod watched;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

pub use answer::{Answer, commit_answer};
pub use baseline::{BASELINE, Baseline, Gone, keep_lost};
pub use create::{Discarded, Made, create, discard_half_made, discard_own, is_found_by_git, is_left_behind};
pub use facts::Collected;
pub use keep::keep;
pub use place::{PLACES, Place};
pub use pool::{POOL, Pool};
pub use removal::{anything_removed, delete_removed, put_back};
pub use rescue::{Rescued, Seen};
pub use restore::{Source, restore};
pub use shared_rules::{accept, note_changes, suspects};
pub use supply::{Supplied, settle, supply, take_back};
pub use teardown::{Done, GOING, going, kept_tree_gone, reclaim, teardown};
pub use watched::{READ_WITHIN, collect};

use crate::domain::plan::{Plan, TeardownPolicy};
use crate::domain::{Digest, DispatchId, Fault};
use crate::git::Git;
use crate::project::Paths;
use crate::sys::lock;

/// One dispatch's worktree and what is known of it from the plan.
#[derive(Debug, Clone)]
pub struct Tree<'a> {
    /// The dispatch.
    pub id: &'a DispatchId,
    /// The branch of a person's worktree; that of a dispatch has its id.
    pub own_branch: Option<&'a str>,
    /// The repository's common git folder.
    pub common_dir: &'a Path,
    /// The folder.
    pub path: &'a Path,
    /// The commit it started from.
    pub base: &'a str,
    /// How the base was named: a full branch ref, or what was given.
    pub base_name: &'a str,
    /// What teardown may treat as worthless.
    pub policy: &'a TeardownPolicy,
    /// The digest of risky git settings at the start.
    pub git_risk: &'a Digest,
    /// A folder of ours for temporary files.
    pub scratch: &'a Path,
    /// Where state is: locks, and the records of what may be deleted.
    pub paths: &'a Paths,
}

impl<'a> Tree<'a> {
    /// The tree of a plan.
    pub fn of(plan: &'a Plan, scratch: &'a Path, paths: &'a Paths) -> Self {
        Self {
            id: &plan.id,
            own_branch: None,
            common_dir: Path::new(&plan.git_common_dir),
            path: Path::new(&plan.worktree),
            base: &plan.base.commit,
            base_name: &plan.base.name,
            policy: &plan.teardown,
            git_risk: &plan.git_risk,
            scratch,
            paths,
        }
    }

    fn root(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn locked(&self) -> Result<File, Fault> {
        lock::exclusive(&self.paths.repo_lock(), Duration::from_mins(1))
    }

    /// Has git forget the worktree, whose folder is gone.
    fn forget(&self) -> Result<(), Fault> {
        let _held = self.locked()?;
        Ok(self.repository().worktree_forget(self.path)?)
    }

    fn repository(&self) -> Git {
        Git::repository(self.common_dir)
    }

    /// The lock reason that marks the tree as ours.
    pub fn lock_reason(&self) -> String {
        let owner = if self.own_branch.is_some() { "worktree" } else { "dispatch" };
        format!("vnx {owner} {}", self.id)
    }

    /// Whether a lock is ours: our reason, and after a colon why the tree stays.
    fn is_our_lock(&self, reason: &str) -> bool {
        let more = reason.trim().strip_prefix(&self.lock_reason());
        more.is_some_and(|more| more.is_empty() || more.starts_with(':'))
    }

    fn branch(&self) -> String {
        self.own_branch.map_or_else(|| self.id.branch(), str::to_owned)
    }

    fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.branch())
    }
}
