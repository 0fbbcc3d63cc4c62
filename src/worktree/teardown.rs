//! Teardown: from class to action, each step idempotent so that a crash in between is finished
//! by the next command.
//!
//! Removal is a rename aside, then a look at whether the tree is still what the facts say, then git's registration
//! goes, then the branch if its class allows; the deletion of the files comes last and can wait.

use std::collections::BTreeSet;
use std::path::Path;

use super::rescue::{Rescued, What, rescue};
use super::{Collected, Tree, removal};
use crate::domain::Fault;
use crate::domain::tree::{BranchFate, TreeClass, TreeFate, Tri, classify};
use crate::git::Git;
use crate::sys::files;
use crate::sys::folder::{self, FileTime};

/// In git's folder of a worktree that goes, with its class, from before the folder goes until git forgets it.
pub const GOING: &str = "vnx-going";

/// How often a removed tree is looked at: each look takes longer than a tick of the clock of files.
const LOOKS: usize = 8;

/// What teardown did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The rescue ref and its commit.
    pub rescue: Option<(String, String)>,
    /// Ignored files over the budget, which stay in the kept tree only.
    pub left_out: Vec<String>,
    /// The folder is gone.
    pub removed: bool,
    /// The branch was deleted.
    pub branch_deleted: bool,
    /// Why the tree stays, if it does.
    pub kept_because: Option<String>,
}

/// Does what the class allows.
pub fn teardown(tree: &Tree<'_>, class: TreeClass, collected: &Collected) -> Result<Done, Fault> {
    let action = class.action();
    let mut done = Done::default();
    if collected.out_of_reach {
        return Ok(Done { kept_because: Some(reason(class, collected)), ..done });
    }
    let more = collected.facts.stray_commits == Tri::Yes || collected.rescue_first;
    if action.rescue || more && action.tree == TreeFate::Remove {
        match rescue(tree, collected) {
            Ok(Rescued { reference, commit, left_out, no_files, .. }) => {
                if action.tree == TreeFate::Remove {
                    done.kept_because = left_out.first().map(|first| format!("{first} is not in the rescue"));
                }
                done.left_out = left_out.into_iter().chain(no_files).collect();
                done.rescue = Some((reference, commit));
            }
            // A tree that stays is its own rescue; one that would go, stays now.
            Err(fault) => {
                done.kept_because = Some(format!("{}; no rescue commit: {fault}", class.word()));
            }
        }
    }
    // Also of a tree that stays: its rescue and its branch lead to commits that a collection may not have seen.
    if action.tree != TreeFate::LeaveAlone && done.kept_because.is_none() {
        let held = secure(tree, collected, done.rescue.as_ref().map(|(_, commit)| commit));
        let goes = action.tree == TreeFate::Remove;
        let because = || if goes { class.word().to_owned() } else { reason(class, collected) };
        done.kept_because = held.err().map(|fault| format!("{}; {fault}", because()));
    }
    if action.tree == TreeFate::Remove && done.kept_because.is_none() {
        let same = |_: &Tree<'_>, now: &Collected| {
            let is =
                |c: &Collected| (classify(&c.facts), c.head.clone(), c.tip.clone(), c.stray.clone(), c.seen.clone());
            Ok(is(now) == is(collected))
        };
        done.kept_because = remove(tree, &AsItWas { collected, same: &same })?;
    }
    if action.tree == TreeFate::Remove && done.kept_because.is_none() {
        done.removed = true;
        if action.branch == BranchFate::Delete
            && let Some(tip) = &collected.tip
        {
            done.branch_deleted = delete_branch(tree, tip)?;
        }
        return Ok(done);
    }
    let because = done.kept_because.get_or_insert_with(|| reason(class, collected)).clone();
    if action.tree != TreeFate::LeaveAlone && tree.path.exists() {
        // Without the lock the tree is still kept: nothing of ours removes it.
        let _ = tree.repository().worktree_lock(tree.path, &format!("{}: kept, {because}", tree.lock_reason()));
    }
    Ok(done)
}

/// What the tree has in commits alone stays when it goes, whoever is collecting garbage.
fn secure(tree: &Tree<'_>, collected: &Collected, rescue: Option<&String>) -> Result<(), Fault> {
    let commits: Vec<&str> =
        [collected.tip.as_ref(), collected.head.as_ref(), rescue].into_iter().flatten().map(String::as_str).collect();
    let held = tree.repository().secure(&commits, &[tree.base], collected.garbage);
    held.map_err(|e| Fault::environment(format!("its commits could not be secured: {e}")))
}

/// Finishes the removal of a tree whose folder is gone already (a crash came between).
/// `tip` is where the branch pointed when the verdict was given.
pub fn kept_tree_gone(tree: &Tree<'_>, class: TreeClass, tip: Option<&str>) -> Result<Done, Fault> {
    if tree.path.symlink_metadata().is_ok() {
        return Err(Fault::internal(format!("{} stands", tree.path.display())));
    }
    if Git::worktree_git_dir(tree.common_dir, tree.path).ok().flatten().is_some() {
        tree.forget()?;
    }
    let mut done = Done { removed: true, ..Done::default() };
    if class.action().branch == BranchFate::Delete
        && let Some(tip) = tip
        && tree.repository().ref_commit(&tree.id.branch_ref())?.as_deref() == Some(tip)
    {
        done.branch_deleted = delete_branch(tree, tip)?;
    }
    Ok(done)
}

/// Deletes the dispatch branch unless it is the last ref that reaches its commit: a worker may
/// have deleted the branch that it started from.
fn delete_branch(tree: &Tree<'_>, tip: &str) -> Result<bool, Fault> {
    let (repository, name) = (tree.repository(), tree.id.branch_ref());
    // Nor where somebody works on it.
    if !repository.kept_by_another_ref(tip, &name)? || repository.is_in_use(&name) {
        return Ok(false);
    }
    repository.delete_ref(&name, tip)?;
    Ok(true)
}

fn reason(class: TreeClass, collected: &Collected) -> String {
    match class {
        TreeClass::Dirty => "uncommitted changes".to_owned(),
        TreeClass::InProgress => "a git operation is half done".to_owned(),
        TreeClass::Foreign => "it is locked or used by somebody else".to_owned(),
        TreeClass::Unknown => match collected.unknown_because.first() {
            Some(why) => format!("not everything could be read: {why}"),
            None => "not everything could be read".to_owned(),
        },
        TreeClass::Clean | TreeClass::Merged | TreeClass::Pushed | TreeClass::Committed => {
            "its work could not be rescued".to_owned()
        }
    }
}

/// Takes a worktree away whose rescue holds everything, with its branch where its class allows. Nothing
/// is removed unless the rescue says the same as the disk now.
pub fn reclaim(tree: &Tree<'_>, class: TreeClass, collected: &Collected) -> Result<Done, Fault> {
    if collected.out_of_reach {
        return Ok(Done { kept_because: Some(reason(class, collected)), ..Done::default() });
    }
    let Rescued { reference, commit, left_out, no_files, what } = rescue(tree, collected)?;
    let kept_because = left_out.first().map(|first| format!("{first} is not in the rescue"));
    let left_out = left_out.into_iter().chain(no_files).collect();
    let mut done = Done { rescue: Some((reference, commit.clone())), left_out, kept_because, ..Done::default() };
    if done.kept_because.is_some() {
        return Ok(done);
    }
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?
        .ok_or_else(|| Fault::environment("git has no worktree of this dispatch on record"))?;
    if let Some(path) = super::restore::unlike(tree, &commit, &git_dir)? {
        done.kept_because = Some(format!("{} is not as the rescue has it", path.display()));
        return Ok(done);
    }
    // The other way round: the disk has nothing that the rescue does not have. Twice, as git may fail over somebody
    // else's housekeeping; what was changed stays changed.
    let same = |tree: &Tree<'_>, now: &Collected| Ok::<_, Fault>(What::read(tree, now, &git_dir)? == what);
    let mut now = super::collect(tree);
    if !same(tree, &now)? {
        now = super::collect(tree);
    }
    if !same(tree, &now)? {
        done.kept_because = Some("it was changed while it was rescued".to_owned());
        return Ok(done);
    }
    secure(tree, collected, Some(&commit))?;
    files::replace(&git_dir.join(GOING), class.word().as_bytes())?;
    done.kept_because = remove(tree, &AsItWas { collected: &now, same: &same })?;
    if done.kept_because.is_some() {
        files::remove(&git_dir.join(GOING))?;
        return Ok(done);
    }
    let gone = kept_tree_gone(tree, class, collected.tip.as_deref())?;
    Ok(Done { removed: true, branch_deleted: gone.branch_deleted, ..done })
}

/// The class of a worktree whose rescue stands and whose removal was cut off after its folder went.
pub fn going(tree: &Tree<'_>) -> Option<TreeClass> {
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path).ok()??;
    let word = files::read_capped(&git_dir.join(GOING), 64).ok()??;
    let class = TreeClass::ALL.into_iter().find(|class| class.word().as_bytes() == word);
    class.filter(|_| tree.path.symlink_metadata().is_err())
}

/// Takes the folder away, if there is one, and then git's record of it. Nothing is removed that is not as it was when
/// it was looked at: why it stays, in that case.
fn remove(tree: &Tree<'_>, is_as_it_was: &AsItWas<'_>) -> Result<Option<String>, Fault> {
    if tree.path.symlink_metadata().is_ok() {
        let Some(folder) = is_as_it_was.collected.folder else {
            return Ok(Some("what stands there was not looked at".to_owned()));
        };
        let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?
            .ok_or_else(|| Fault::environment("git has no worktree of this dispatch on record"))?;
        let aside = removal::put_aside(tree.paths, tree.root(), tree.path, folder)?;
        match is_as_it_was.look_again(tree, &git_dir, &aside.path) {
            Ok(since) => aside.give_up(since, is_as_it_was.collected.worthless.clone())?,
            Err(why) => {
                aside.put_back()?;
                return Ok(Some(why));
            }
        }
    }
    if Git::worktree_git_dir(tree.common_dir, tree.path).ok().flatten().is_some() {
        tree.forget()?;
    }
    Ok(None)
}

/// What a removal stands on, and how that is proved again once nobody can find the tree by its name.
struct AsItWas<'a> {
    collected: &'a Collected,
    /// The facts again, if anything was changed at all.
    same: &'a dyn Fn(&Tree<'_>, &Collected) -> Result<bool, Fault>,
}

impl AsItWas<'_> {
    /// Looks at the tree, which is at `moved` now: since when nothing was changed in it, or why it must stay.
    fn look_again(&self, tree: &Tree<'_>, git_dir: &Path, moved: &Path) -> Result<FileTime, String> {
        let tree = Tree { path: moved, ..tree.clone() };
        let mut since = self.collected.read_at;
        for _ in 0..LOOKS {
            let changed = folder::changed_since(moved, since, &self.collected.worthless);
            let changed_git = || folder::changed_since(git_dir, since, &BTreeSet::new());
            if matches!(changed, Ok(None)) && matches!(changed_git(), Ok(None)) {
                return Ok(since);
            }
            // Perhaps just before the facts were read, in the same tick of the clock.
            let now = super::facts::collect_in(&tree, git_dir);
            since = now.read_at;
            match (self.same)(&tree, &now) {
                Ok(true) => {}
                Ok(false) => return Err("it was changed while it was removed".to_owned()),
                Err(fault) => return Err(format!("it was changed while it was removed: {fault}")),
            }
        }
        Err("it was changed again and again while it was removed".to_owned())
    }
}
