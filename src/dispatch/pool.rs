//! Worktrees that are made ahead: who fills the pool, when, and with what.

use std::path::Path;

use super::budget;
use super::plan::setup;
use super::snapshot::disk;
use super::supplies::Supplies;
use crate::domain::Fault;
use crate::domain::plan::Base;
use crate::git::Git;
use crate::project::Project;
use crate::worktree::Pool;

/// Brings the pool to what the main checkout's configuration says, at the commit where `base` is now.
pub(super) fn fill(main: &Path, base: &Base) -> Result<(), Fault> {
    let project = Project::open(main)?;
    let (common_dir, root) = (&project.located.common_dir, project.worktrees());
    let now = Git::repository(common_dir).ref_commit(&base.name).ok().flatten();
    let commit = now.filter(|_| base.name.starts_with("refs/heads/")).unwrap_or_else(|| base.commit.clone());
    // What comes from the main checkout beside its commits is given to a worktree when it is taken.
    let setup = setup(&project, &[], Supplies::default(), &mut Vec::new())?;
    let fits = || disk(&project).is_ok() && budget::within_budget(&project).is_ok();
    let pool = Pool { common_dir, root: &root, paths: &project.paths };
    pool.fill(&project.paths.pool_lock(), &setup, &commit, project.config.worktree.pool, fits)
}

/// What every command does: takes away what a filler left that died.
pub(super) fn tidy(project: &Project) {
    let (common_dir, root) = (&project.located.common_dir, project.worktrees());
    let pool = Pool { common_dir, root: &root, paths: &project.paths };
    // Whoever comes next tries again.
    let _ = pool.tidy(&project.paths.pool_lock());
}
