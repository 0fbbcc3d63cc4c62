//! The change in a text worker's answer: applied and committed on the dispatch branch by vnx.

use std::fs::File;

use super::Tree;
use crate::domain::Fault;
use crate::domain::patch::Patched;
use crate::git::{Git, NewPatch};

/// A change and how it is committed.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The patch.
    pub patch: &'a str,
    /// The message.
    pub message: &'a str,
    /// Variables of the identity that the worker would have had.
    pub identity: &'a [(String, String)],
}

/// Applies and commits the patch: whole, or nothing is changed and the fault says why.
///
/// A crash in between can be done again: until the branch moves, which is last, nothing counts; and
/// a branch that has moved is left alone. `alive` is the lock that says that somebody is at it.
pub fn commit_answer(tree: &Tree<'_>, answer: Answer<'_>, alive: Option<&File>) -> Result<Patched, Fault> {
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?
        .ok_or_else(|| Fault::environment("git has no worktree of this dispatch on record"))?;
    let git = Git::tree(&git_dir, tree.path);
    if git.config()?.risk() != *tree.git_risk {
        return Err(Fault::environment("git settings that run programs were changed meanwhile"));
    }
    let branch = tree.id.branch_ref();
    if git.head()? != Some((tree.base.to_owned(), Some(branch.clone()))) {
        return Ok(Patched::Stands);
    }
    let commit = git.write_patch(NewPatch {
        patch: answer.patch,
        parent: tree.base,
        message: answer.message,
        identity: answer.identity,
        index: &tree.scratch.join("answer.index"),
    })?;
    git.go_forward(&branch, tree.base, &commit, alive)?;
    Ok(Patched::Committed(commit))
}
