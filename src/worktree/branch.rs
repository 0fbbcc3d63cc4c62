//! The branch of a worktree: its work, and what became of the refs of others meanwhile.

use std::collections::BTreeSet;

use super::Tree;
use super::baseline::{Baseline, Gone};
use crate::domain::receipt::DiffStat;
use crate::git::{self, Git, GitError, OwnWork, Refs};

/// The dispatch branch, and what else became of the repository's refs.
pub(super) struct Branch {
    pub(super) tip: Result<Option<String>, GitError>,
    pub(super) now: Result<Refs, GitError>,
    pub(super) work: Result<OwnWork, GitError>,
    pub(super) diff: Result<Option<DiffStat>, GitError>,
    pub(super) unresolved: Option<String>,
    pub(super) lost: Result<Vec<Gone>, GitError>,
}

impl Branch {
    pub(super) fn read(tree: &Tree<'_>, git: &Git, repository: &Git, baseline: Option<&Baseline>) -> Self {
        let tip = repository.ref_commit(&tree.branch_ref());
        let now = repository.refs(tree.base.len() / 2);
        let (work, diff, unresolved) = match (&tip, &now) {
            (Ok(Some(tip)), Ok(now)) if tip != tree.base => {
                // Most branches stand on their base, so this is asked for at the same time.
                let (work, since_base) = std::thread::scope(|scope| {
                    let since_base = crate::sys::beside(scope, || repository.changes(tree.base, tip));
                    (own_work(tree, git, repository, baseline, now, tip), since_base.join())
                });
                let change = |work: &OwnWork| {
                    let changes = match since_base {
                        Ok(changes) if work.onto == [tree.base] => changes?,
                        _ => repository.own_changes(work, tip)?,
                    };
                    let unresolved = repository.unresolved_gitlink(&changes, tree.path, git);
                    Ok((git::diff_stat(&changes), unresolved))
                };
                match work.as_ref().map(change) {
                    Ok(Ok((diff, unresolved))) => (work, Ok(Some(diff)), unresolved),
                    // A change that cannot be read is no work that could be judged, or lost.
                    Ok(Err(e)) => (Err(GitError::Contradicted), Err(e), None),
                    Err(_) => (work, Ok(None), None),
                }
            }
            (Ok(_), Ok(_)) => {
                let onto = vec![tree.base.to_owned()];
                (Ok(OwnWork { onto, has_base: true, ..OwnWork::default() }), Ok(None), None)
            }
            _ => (Err(GitError::Unreadable { verb: "rev-list".to_owned() }), Ok(None), None),
        };
        let lost = match (baseline, &now) {
            (Some(baseline), Ok(now)) => baseline.lost(tree, now),
            _ => Ok(Vec::new()),
        };
        Self { tip, now, work, diff, unresolved, lost }
    }

    /// Nothing could be read.
    pub(super) fn unread() -> Self {
        let lost = || GitError::Unreadable { verb: "rev-list".to_owned() };
        let (work, diff) = (Err(lost()), Err(lost()));
        Self { tip: Err(lost()), now: Err(lost()), work, diff, unresolved: None, lost: Err(lost()) }
    }
}

/// The commits of `tip` that are this worktree's own. A person's worktree has no baseline: there what its branch alone
/// has is its own.
pub(super) fn own_work(
    tree: &Tree<'_>,
    git: &Git,
    repository: &Git,
    baseline: Option<&Baseline>,
    now: &Refs,
    tip: &str,
) -> Result<OwnWork, GitError> {
    match baseline {
        Some(baseline) => baseline.work(tree, git, now, tip),
        None if tree.own_branch.is_some() => repository.own_work(tree.base, tip, &BTreeSet::new()),
        None => Err(GitError::NoBaseline),
    }
}
