//! Worktrees of dispatches that are over: bringing one back, and reclaiming those that were kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::gates::{self, actor};
use super::presence::{Decision, attest};
use super::{own, view};
use crate::domain::authority::{Deciding, Presence};
use crate::domain::gate::check::{short, short_ref};
use crate::domain::line::quoted;
use crate::domain::receipt::{
    Attestation, Body, BranchDropped, DispatchClosed, Entry, RescueDropped, TreeEnd, WorktreeRemoved, WorktreeRescued,
    WorktreeUndone,
};
use crate::domain::span::{Size, Span};
use crate::domain::tree::{TreeClass, TreeFacts, TreeFate, classify};
use crate::domain::{DispatchId, Fault, Timestamp};
use crate::gate::standing;
use crate::git::{Git, same_folder};
use crate::ledger::Receipt;
use crate::project::Project;
use crate::sys::files::At;
use crate::sys::folder::{self, FolderId};
use crate::sys::{self, files, lock};
use crate::worktree::{self, Source, Tree};

/// A worktree that stands again.
#[derive(Debug, Clone, Serialize)]
pub struct Undone {
    /// The dispatch.
    pub id: DispatchId,
    /// The folder.
    pub worktree: PathBuf,
    /// The commit it was made from.
    pub commit: String,
    /// From a rescue: also what was not committed is there.
    pub rescue: bool,
}

/// Makes the worktree of a dispatch that is over again.
pub fn undo(project: &Project, id: &DispatchId) -> Result<Undone, Fault> {
    let over = Over::read(project, id)?;
    let plan = view::plan(project, id)?;
    let tree = Tree::of(&plan, &over.folder, &project.paths);
    let repository = Git::repository(&plan.git_common_dir);
    let (source, commit) = match repository.ref_commit(&id.rescue_ref())? {
        Some(commit) => (Source::Rescue(commit.clone()), commit),
        None => over.last_commit()?,
    };
    worktree::restore(&tree, &source)?;
    let rescue = matches!(source, Source::Rescue(_));
    let body = WorktreeUndone { commit: commit.clone(), rescue };
    project.ledger().append(&[Entry::again(id, over.round, Body::WorktreeUndone(body))])?;
    // What was given up is not any more: a later undo goes by where the branch is then.
    if let Some(dropped) = repository.ref_commit(&id.dropped_ref())?
        && repository.is_ancestor(&dropped, &id.branch_ref()).unwrap_or(false)
    {
        repository.delete_ref(&id.dropped_ref(), &dropped)?;
    }
    Ok(Undone { id: id.clone(), worktree: tree.path.to_owned(), commit, rescue })
}

/// A dispatch that is closed, held by its lock so that only one of us works on it.
struct Over {
    folder: PathBuf,
    receipts: Vec<Receipt>,
    closed: DispatchClosed,
    /// How often something was done to its worktree, and this time.
    round: u32,
    /// When something was last done to it.
    since: Timestamp,
    _lock: std::fs::File,
}

impl Over {
    fn read(project: &Project, id: &DispatchId) -> Result<Self, Fault> {
        let folder = project.paths.dispatch(id);
        let busy = || Fault::busy(format!("{id} is not over, or another command works on it")).fix("see `vnx ps`");
        let lock = lock::try_exclusive(&folder.join("lock"))?.ok_or_else(busy)?;
        let receipts = view::receipts(project, id)?;
        let closed =
            receipts.iter().find_map(|r| if let Body::DispatchClosed(c) = &r.body { Some(c.clone()) } else { None });
        let closed = closed.filter(|_| !project.paths.open_marker(id).exists()).ok_or_else(busy)?;
        let of_tree =
            |r: &&Receipt| r.body.kind().word().starts_with("worktree.") || matches!(r.body, Body::BranchDropped(_));
        let round = 1 + receipts.iter().filter(of_tree).map(|r| r.attempt).max().unwrap_or(0);
        let since = receipts.last().map(|r| r.ts).ok_or_else(busy)?;
        Ok(Self { folder, receipts, closed, round, since, _lock: lock })
    }

    /// Where HEAD was when the tree was removed without a rescue.
    fn last_commit(&self) -> Result<(Source, String), Fault> {
        if self.closed.teardown.tree == TreeEnd::None {
            return Err(Fault::input("there was no worktree to bring back").fix("see `vnx show` for what became of it"));
        }
        let collected = self
            .receipts
            .iter()
            .rev()
            .find_map(|r| if let Body::DispatchCollected(c) = &r.body { Some(c) } else { None });
        let head = collected.and_then(|c| c.head.clone());
        let commit = head.or_else(|| self.closed.head.clone()).ok_or_else(|| {
            Fault::environment("the receipts do not say where HEAD was").fix("see `git log --all` for its commits")
        })?;
        let head = match collected.and_then(|c| c.on.clone()) {
            Some(name) => format!("ref: {name}"),
            None => commit.clone(),
        };
        let deleted = self.receipts.iter().rev().find_map(|r| match &r.body {
            Body::WorktreeRemoved(removed) => Some(removed.branch_deleted),
            _ => None,
        });
        let tip = self.closed.head.clone().filter(|_| deleted == Some(true));
        Ok((Source::Commit { head, tip }, commit))
    }
}

/// What is to become of one folder among the worktrees.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// Its name: of a dispatch, the id.
    pub name: String,
    /// The folder.
    pub worktree: PathBuf,
    /// Its class; absent where it is not of a dispatch that is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<TreeClass>,
    /// Every fact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<TreeFacts>,
    /// When something was last done to it by vnx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Bytes on disk.
    pub bytes: u64,
    /// It goes, or would go with `--apply`.
    pub reclaim: bool,
    /// It is gone.
    pub removed: bool,
    /// Why it goes or stays.
    pub because: String,
    /// The rescue that holds it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescue: Option<String>,
}

/// What is collected.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Only these, by name; a folder of nobody goes only when it is named.
    pub names: Vec<String>,
    /// Kept trees that nothing was done to for at least this long; one that is named is old enough.
    pub age: Span,
    /// The oldest of the others go too, until all together take no more than this.
    pub most: Option<Size>,
    /// Really do it.
    pub apply: bool,
}

/// Looks at every folder among the worktrees, and reclaims what may go.
pub fn collect_garbage(project: &Project, wanted: &Wanted) -> Result<Vec<Kept>, Fault> {
    let mut names = files::names(&project.worktrees())?;
    names.extend(gone(project));
    if let Some(unknown) = wanted.names.iter().find(|name| !names.contains(name)) {
        return Err(Fault::input(format!("there is no worktree {unknown:?} below {}", project.worktrees().display()))
            .fix("`vnx worktree gc` without names lists what is there"));
    }
    let chosen = |name: &&String| !name.starts_with('.') && (wanted.names.is_empty() || wanted.names.contains(name));
    let look = |wanted: &Wanted| names.iter().filter(chosen).map(|name| look_at(project, name, wanted)).collect();
    let rows: Vec<Kept> = match wanted.most {
        Some(most) => {
            let seen: Vec<Kept> = look(&Wanted { apply: false, ..wanted.clone() });
            let oldest = too_much(&seen, most);
            look(&Wanted { names: [wanted.names.clone(), oldest].concat(), ..wanted.clone() })
        }
        None => look(wanted),
    };
    if wanted.apply {
        worktree::delete_removed(&project.paths, &project.worktrees(), Duration::from_mins(1))?;
    }
    Ok(rows)
}

/// Worktrees of ours that git has on record, and whose folders are not where they belong.
fn gone(project: &Project) -> Vec<String> {
    let (common_dir, root) = (&project.located.common_dir, project.worktrees());
    let recorded = files::names(&common_dir.join("worktrees")).unwrap_or_default();
    let stands = |name: &String| root.join(name).symlink_metadata().is_ok();
    let is_ours = |name: &String| {
        let at = Git::worktree_recorded(common_dir, name.as_ref()).ok().flatten();
        at.is_some_and(|at| at == root.join(name)) || moved(project, name).is_some()
    };
    let open = |name: &String| DispatchId::parse(name).is_ok_and(|id| project.paths.open_marker(&id).exists());
    recorded.into_iter().filter(|name| !stands(name) && !open(name) && is_ours(name)).collect()
}

/// Where git has a worktree of ours on record, if that is another place than where it belongs: somebody moved it, or the
/// repository.
fn moved(project: &Project, name: &str) -> Option<PathBuf> {
    let common_dir = &project.located.common_dir;
    let id = own::holder(common_dir, name)?;
    let at = Git::worktree_recorded(common_dir, name.as_ref()).ok()??;
    let is_here = || Git::worktree_git_dir(common_dir, &project.worktrees().join(name)).is_ok();
    (project.paths.dispatch(&id).is_dir() && !is_here()).then_some(at)
}

/// Those that are not where git has them on record, and what is to be done for the first one; absent where there are none.
pub(super) fn misplaced(project: &Project) -> Option<(String, String)> {
    let recorded = files::names(&project.located.common_dir.join("worktrees")).unwrap_or_default();
    let all: Vec<String> = recorded.into_iter().filter(|name| moved(project, name).is_some()).collect();
    let first = all.first()?;
    let more = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
    let way = way_back(project, first, &moved(project, first)?);
    Some((format!("{first}{more}: not where git has it on record, so nothing of it can be told"), way))
}

/// How the folder of a worktree and git's record of it come together again.
fn way_back(project: &Project, name: &str, at: &Path) -> String {
    let here = project.worktrees().join(name);
    let said = |path: &Path| quoted(&path.display().to_string()).into_owned();
    let repair = format!("`git worktree repair {}`", said(&here));
    if here.exists() {
        return format!("it was moved, and git does not know: {repair}");
    }
    if Git::is_of_another(at, &project.located.common_dir) {
        return format!("{} is of the repository that this one is a copy of: it stays there", said(at));
    }
    if at.exists() {
        let (root, from, to) = (said(&project.worktrees()), said(at), said(&here));
        return format!("git has it at {from}: `mkdir -p {root}`, `mv {from} {to}` and {repair}");
    }
    let path = said(&here);
    format!(
        "its folder is gone: `git worktree repair PATH` if it was moved, else `git worktree unlock {path}` and `git worktree prune`"
    )
}

/// The oldest kept ones of which there are too many bytes.
fn too_much(rows: &[Kept], Size(most): Size) -> Vec<String> {
    let mut left: u64 = rows.iter().filter(|row| !row.reclaim).map(|row| row.bytes).sum();
    let is_kept = |row: &&Kept| !row.reclaim && row.class.is_some_and(|c| c.action().tree == TreeFate::KeepLocked);
    let mut kept: Vec<&Kept> = rows.iter().filter(is_kept).collect();
    kept.sort_by_key(|row| row.since);
    let mut names = Vec::new();
    for row in kept {
        if left <= most {
            break;
        }
        left -= row.bytes;
        names.push(row.name.clone());
    }
    names
}

fn look_at(project: &Project, name: &str, wanted: &Wanted) -> Kept {
    let worktree = project.worktrees().join(name);
    let mut row = Kept {
        name: name.to_owned(),
        bytes: files::disk_usage(&worktree),
        worktree,
        class: None,
        facts: None,
        since: None,
        reclaim: false,
        removed: false,
        because: String::new(),
        rescue: None,
    };
    let moved = moved(project, name);
    if moved.is_some() || row.worktree.symlink_metadata().is_err() {
        row.because = way_back(project, name, &moved.unwrap_or_else(|| row.worktree.clone()));
        return row;
    }
    let looked = match own::holder(&project.located.common_dir, name) {
        Some(id) if own::own(&project.paths, &id).is_some() => {
            row.because.push_str("it is a person's: `git worktree remove` is for it");
            Ok(())
        }
        Some(id) if project.paths.dispatch(&id).is_dir() => of_dispatch(project, &id, wanted, &mut row),
        _ => of_nobody(project, wanted, &mut row),
    };
    if let Err(fault) = looked {
        row.reclaim = false;
        row.because = fault.what;
    }
    row
}

fn of_dispatch(project: &Project, id: &DispatchId, wanted: &Wanted, row: &mut Kept) -> Result<(), Fault> {
    if project.paths.open_marker(id).exists() {
        row.because.push_str("it runs");
        return Ok(());
    }
    let over = Over::read(project, id)?;
    let plan = view::plan(project, id)?;
    let tree = Tree::of(&plan, &over.folder, &project.paths);
    if !same_folder(tree.path, &row.worktree) {
        row.because = format!("that dispatch had its worktree at {}", tree.path.display());
        return Ok(());
    }
    let collected = worktree::collect(&tree);
    let class = classify(&collected.facts);
    (row.class, row.facts, row.since) = (Some(class), Some(collected.facts.clone()), Some(over.since));
    let age = Duration::from_millis(sys::now().millis_since(over.since));
    (row.reclaim, row.because) = match class.action().tree {
        TreeFate::LeaveAlone => (false, "it is locked or used by somebody else".to_owned()),
        TreeFate::Remove => (true, "nothing in it could be lost".to_owned()),
        TreeFate::KeepLocked if age < wanted.age.duration() && !wanted.names.contains(&row.name) => {
            (false, format!("{}, and younger than {}", class.word(), wanted.age))
        }
        TreeFate::KeepLocked => (true, format!("{}, and a rescue will hold it", class.word())),
    };
    if !(row.reclaim && wanted.apply) {
        return Ok(());
    }
    let done = worktree::reclaim(&tree, class, &collected)?;
    let mut entries = Vec::new();
    if let Some((reference, commit)) = done.rescue {
        row.rescue = Some(reference.clone());
        let body = WorktreeRescued { reference, commit, left_out: done.left_out };
        entries.push(Entry::again(id, over.round, Body::WorktreeRescued(body)));
    }
    if done.removed {
        let body = WorktreeRemoved { class, branch_deleted: done.branch_deleted };
        entries.push(Entry::again(id, over.round, Body::WorktreeRemoved(body)));
    }
    project.ledger().append(&entries)?;
    row.removed = done.removed;
    if let Some(why) = done.kept_because {
        (row.reclaim, row.because) = (false, why);
    }
    Ok(())
}

/// A folder that no dispatch of this project made: it goes only when its name is given.
fn of_nobody(project: &Project, wanted: &Wanted, row: &mut Kept) -> Result<(), Fault> {
    let folder = FolderId::of(&row.worktree).at("examine", &row.worktree)?;
    let registered = Git::worktree_git_dir(&project.located.common_dir, &row.worktree);
    let (may, because) = if !matches!(registered, Ok(None)) {
        (false, "a worktree of git that no dispatch made: `git worktree remove` is for it")
    } else if sys::process::anyone_in(&row.worktree) != Some(false) {
        (false, "a process is in it, or that cannot be told")
    } else if files::holds(&row.worktree, ".git") {
        (false, "a git repository is in it, or a worktree that was moved: nothing of vnx removes it")
    } else if wanted.names.contains(&row.name) {
        (true, "it was named; it goes for good")
    } else {
        (false, "nobody is known to own it: give its name to remove it")
    };
    row.reclaim = may;
    row.because.push_str(because);
    if may && wanted.apply {
        folder::delete(&row.worktree, Some(folder))?;
        row.removed = true;
    }
    Ok(())
}

/// Finishes removals that were cut off after the folder went: their rescues stand.
pub(super) fn finish_removals(project: &Project) {
    let linked = project.located.common_dir.join("worktrees");
    for name in files::names(&linked).unwrap_or_default() {
        let cut_off = linked.join(&name).join(worktree::GOING).exists();
        if let Some(id) = own::holder(&project.located.common_dir, &name).filter(|_| cut_off) {
            // Whoever comes next tries again.
            let _ = finish_removal(project, &id, &linked.join(&name));
        }
    }
}

fn finish_removal(project: &Project, id: &DispatchId, git_dir: &Path) -> Result<(), Fault> {
    let over = Over::read(project, id)?;
    let plan = view::plan(project, id)?;
    let tree = Tree::of(&plan, &over.folder, &project.paths);
    worktree::put_back(&project.paths, tree.path)?;
    let Some(class) = worktree::going(&tree) else {
        // The removal never began; later nobody shall take its mark for one that did.
        if tree.path.exists() {
            files::remove(&git_dir.join(worktree::GOING))?;
        }
        return Ok(());
    };
    let tip = Git::repository(&plan.git_common_dir).ref_commit(&id.branch_ref())?;
    let done = worktree::kept_tree_gone(&tree, class, tip.as_deref())?;
    let body = WorktreeRemoved { class, branch_deleted: done.branch_deleted };
    project.ledger().append(&[Entry::again(id, over.round, Body::WorktreeRemoved(body))])?;
    Ok(())
}

/// A branch of a dispatch that is over, all of which is in its target: somebody else than vnx has landed it.
#[derive(Debug, Clone, Serialize)]
pub struct LandedBranch {
    /// The dispatch that it was made for.
    pub id: DispatchId,
    /// The branch.
    pub branch: String,
    /// The branch that has all of it.
    pub target: String,
    /// It is gone; a ref keeps its commits.
    pub dropped: bool,
}

/// Branches that nobody needs any more, by those of the names that are wanted; with `apply` they are given up.
pub fn landed_branches(project: &Project, wanted: &Wanted) -> Result<Vec<LandedBranch>, Fault> {
    let repository = Git::repository(&project.located.common_dir);
    let mut found = Vec::new();
    for (name, commit) in repository.refs_with_objects("refs/heads/vnx/")? {
        let Some(id) = name.strip_prefix("refs/heads/vnx/").and_then(|id| DispatchId::parse(id).ok()) else { continue };
        let is_wanted = wanted.names.is_empty() || wanted.names.iter().any(|name| name == id.as_str());
        if !is_wanted || own_tree(project, &id).is_some() || !matches!(view::closed(project, &id), Ok(Some(_))) {
            continue;
        }
        let Ok(plan) = view::plan(project, &id) else { continue };
        let has_all = |target: &String| repository.is_ancestor(&commit, target).unwrap_or(false);
        // One without a commit of its own has landed nowhere.
        let target = gates::target(project, &plan, None).ok().filter(|_| commit != plan.base.commit);
        let Some(target) = target.filter(has_all) else { continue };
        let (branch, target) = (id.branch(), short_ref(&target).to_owned());
        let dropped = wanted.apply && give_up(project, &id, Some(format!("{target} has all of it"))).is_ok();
        found.push(LandedBranch { id, branch, target, dropped });
    }
    Ok(found)
}

/// What became of a dispatch that was given up.
#[derive(Debug, Clone, Serialize)]
pub struct Dropped {
    /// The dispatch that has nothing left.
    pub id: DispatchId,
    /// Where its branch was; absent where it had none any more.
    pub commit: Option<String>,
    /// The ref that keeps that.
    pub reference: Option<String>,
    /// Its worktree was taken away.
    pub worktree: bool,
    /// The rescue that holds what was in it.
    pub rescue: Option<String>,
}

/// The name of the folder in which a dispatch has its worktree, if that stands and is not of one that continues its session.
fn own_tree(project: &Project, id: &DispatchId) -> Option<String> {
    let worktree = PathBuf::from(view::plan(project, id).ok()?.worktree);
    let name = worktree.file_name()?.to_str()?.to_owned();
    let is_own = own::holder(&project.located.common_dir, &name).is_some_and(|holder| holder == *id);
    (is_own && project.worktrees().join(&name).symlink_metadata().is_ok()).then_some(name)
}

/// Gives up what a dispatch has left: its worktree, with a rescue where something could be lost, and its branch, whose
/// commits a ref keeps. [`undo`] brings both back.
pub fn give_up(project: &Project, id: &DispatchId, reason: Option<String>) -> Result<Dropped, Fault> {
    if project.paths.open_marker(id).exists() {
        return Err(Fault::busy(format!("{id} is not over")).fix(format!("`vnx cancel {id}` ends it; then drop it")));
    }
    let row = match own_tree(project, id) {
        Some(name) => {
            let wanted = Wanted { names: vec![name], age: Span(0), most: None, apply: true };
            collect_garbage(project, &wanted)?.into_iter().next()
        }
        None => None,
    };
    if let Some(row) = row.as_ref().filter(|row| !row.removed) {
        return Err(Fault::refused(format!("the worktree {} stays: {}", row.worktree.display(), row.because))
            .fix("`vnx worktree gc` says what is in its way"));
    }
    let over = Over::read(project, id)?;
    let (repository, branch, reference) =
        (Git::repository(&project.located.common_dir), id.branch_ref(), id.dropped_ref());
    let Some(commit) = repository.ref_commit(&branch)? else {
        if row.is_none() {
            return Err(Fault::input(format!("{id} has neither a worktree nor a branch"))
                .fix(format!("`vnx show {id}` says what became of them")));
        }
        let rescue = row.and_then(|row| row.rescue);
        return Ok(Dropped { id: id.clone(), commit: None, reference: None, worktree: true, rescue });
    };
    if let Some(place) = repository.checked_out(&branch)? {
        return Err(Fault::refused(format!("the branch {} is checked out in {}", id.branch(), place.display()))
            .fix("check out another branch there (`git checkout -`), then drop it again"));
    }
    let by = actor(project)?;
    let body = BranchDropped { commit: commit.clone(), reference: reference.clone(), by, reason };
    // What was given up before under this name stays, unless the branch has it.
    let before = repository.ref_commit(&reference)?.filter(|before| *before != commit);
    if let Some(before) = before.filter(|before| !repository.is_ancestor(before, &commit).unwrap_or(false)) {
        repository.set_ref(&format!("{reference}-{}", short(&before)), &before, "vnx: dropped")?;
    }
    // The ref stands before anything says so, and both before the branch goes.
    repository.set_ref(&reference, &commit, "vnx: dropped")?;
    project.ledger().append(&[Entry::again(id, over.round, Body::BranchDropped(body))])?;
    repository.delete_ref(&branch, &commit)?;
    let rescue = row.as_ref().and_then(|row| row.rescue.clone());
    Ok(Dropped { id: id.clone(), commit: Some(commit), reference: Some(reference), worktree: row.is_some(), rescue })
}

/// A rescue that is kept.
#[derive(Debug, Clone, Serialize)]
pub struct RescueRow {
    /// The dispatch.
    pub id: String,
    /// The ref.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The commit.
    pub commit: String,
    /// When it was written.
    pub made: Timestamp,
    /// Its worktree still stands.
    pub tree: bool,
}

/// Every rescue, oldest first.
pub fn rescues(project: &Project) -> Result<Vec<RescueRow>, Fault> {
    let listed = Git::repository(&project.located.common_dir).refs_with_times("refs/vnx/rescue")?;
    let row = |(reference, commit, seconds): (String, String, i64)| {
        let id = reference.rsplit('/').next().unwrap_or_default().to_owned();
        let tree = project.worktrees().join(&id).exists();
        Some(RescueRow { id, reference, commit, made: Timestamp::from_micros(seconds.checked_mul(1_000_000)?)?, tree })
    };
    let mut rows: Vec<RescueRow> = listed.into_iter().filter_map(row).collect();
    rows.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
    Ok(rows)
}

/// Gives up a rescue for good: that of a dispatch, by its id, or `<id>.<n>`, what refs of others had lost while it ran.
/// Refused while its dispatch is open.
pub fn drop_rescue(project: &Project, name: &str, sign: bool) -> Result<String, Fault> {
    let (id, nth) = name.split_once('.').map_or((name, None), |(id, nth)| (id, Some(nth)));
    let id = &DispatchId::parse(id)?;
    if nth.is_some_and(|nth| nth.parse::<u32>().is_err()) {
        return Err(Fault::input(format!("{name:?} is no rescue")).fix("`vnx worktree rescue list` lists them"));
    }
    if project.paths.open_marker(id).exists() {
        return Err(Fault::busy(format!("{id} is not over")).fix("wait for it: `vnx wait`"));
    }
    let repository = Git::repository(&project.located.common_dir);
    let reference = nth.map_or_else(|| id.rescue_ref(), |nth| format!("{}.{nth}", id.rescue_ref()));
    let commit = repository.ref_commit(&reference)?.ok_or_else(|| {
        Fault::input(format!("{name} has no rescue"))
            .fix("`vnx worktree rescue list` lists them; drop needs the whole id")
    })?;
    let attestation = Attestation { presence: Presence::None, signed: None };
    let mut body = RescueDropped { commit: commit.clone(), by: actor(project)?, attestation };
    let (deciding, line, standing) = (Deciding::Drop, format!("drop the rescue {name}"), standing(project, None)?);
    let (statement, minimum) = (body.statement(id), standing.presence.minimum(deciding));
    let (statement, signers) = (Some(statement.as_str()), standing.signers.as_deref());
    body.attestation = attest(project, &Decision { deciding, line: &line, statement, sign, minimum, signers })?;
    project.ledger().append(&[Entry::of(id, Body::RescueDropped(body))])?;
    repository.delete_ref(&reference, &commit)?;
    Ok(commit)
}
