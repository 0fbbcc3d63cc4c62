//! Worktrees by owner: those of dispatches, and those that a person made with `vnx worktree new`.
//!
//! A person's worktree is on record in `<state>/trees/<id>/`: nothing of vnx removes it. While it is being
//! made, a lock is held there; a free one means that its maker died, and the next command takes away what
//! it left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hooks::{self, Place};
use super::plan::setup;
use super::snapshot::{base, disk, git_version, writable};
use super::supervise::read_plan;
use super::{budget, supplies, surroundings};
use crate::domain::plan::{Base, TeardownPolicy};
use crate::domain::redact::Redactor;
use crate::domain::setup::{Moment, Setup};
use crate::domain::span::Span;
use crate::domain::{Digest, DispatchId, Fault, Name, Timestamp};
use crate::git::Git;
use crate::project::{Paths, Project};
use crate::provider::{self, environment};
use crate::sys::{self, files, lock, path};
use crate::worker::control;
use crate::worktree::{self, Discarded, POOL, Pool, Tree};

/// The record of a person's worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// Format version, 1.
    pub v: u32,
    /// Its branch.
    pub branch: String,
    /// Where it began.
    pub base: Base,
    /// Its folder.
    pub path: String,
    /// When it was made.
    pub made: Timestamp,
}

/// Whose a worktree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A dispatch.
    Dispatch,
    /// A person.
    Person,
    /// Nobody yet: it was made ahead.
    Pool,
    /// Not known: nothing on record names it.
    Unknown,
}

/// What is going on in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    /// Its dispatch is not closed.
    Running,
    /// Its dispatch is closed, and it was kept.
    Kept,
    /// It is a person's.
    Yours,
    /// It is being made.
    Making,
    /// It waits for a dispatch.
    Ready,
    /// Not known.
    Unknown,
}

/// One worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The dispatch's id, or the name of its folder.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// The branch that it was made on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What is going on in it.
    pub state: Stands,
    /// Why it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// The folder.
    pub path: PathBuf,
    /// When it was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

fn folder_of(paths: &Paths, id: &DispatchId) -> PathBuf {
    paths.trees().join(id.as_str())
}

/// The record of a person's worktree, if there is one of this name.
pub fn own(paths: &Paths, id: &DispatchId) -> Option<Own> {
    let bytes = files::read_capped(&folder_of(paths, id).join("record.json"), 1 << 20).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// The folder for a branch: an id, so that it is safe as a name everywhere.
fn folder_name(branch: &str) -> Result<DispatchId, Fault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let sound = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && !part.ends_with(['.', '-']);
    let usable = branch.chars().all(allowed)
        && branch.split('/').all(|part| sound(part) && part.rsplit('.').next() != Some("lock"))
        && !branch.contains("..")
        && !branch.eq_ignore_ascii_case("head")
        && !["vnx/", "refs/"].iter().any(|begin| branch.starts_with(begin));
    let id: String = branch.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if usable && let Ok(id) = DispatchId::parse(&id) {
        return Ok(id);
    }
    Err(Fault::input(format!("{branch:?} cannot name a branch and a folder"))
        .fix("use letters, digits, . _ - and /, at most 63, and not the vnx/ of dispatches"))
}

/// Makes a worktree for a person: the same steps as for a dispatch.
pub fn new(project: &Project, branch: &str, asked: Option<&str>) -> Result<Own, Fault> {
    let id = folder_name(branch)?;
    project.require_trust()?;
    git_version()?;
    let git = Git::tree(&project.located.git_dir, &project.located.top);
    let base = base(&git, asked)?;
    writable(project)?;
    disk(project)?;
    budget::within_budget(project)?;
    let setup = setup(project, &[], supplies::supplies(project)?, &mut Vec::new())?;
    let folder = folder_of(&project.paths, &id);
    let path = project.worktrees().join(id.as_str());
    let own = Own { v: 1, branch: branch.to_owned(), base, path: path::text(&path)?, made: sys::now() };
    refuse_what_stands(project, &own)?;
    let lock = claim(&project.paths, &folder, &own)?;
    let making = Making { project, own: &own, id: &id, folder: &folder, setup: &setup };
    let made = making.create(&lock);
    if let Err(fault) = made {
        // It has taken away what it made, and what it found there is somebody else's.
        let _ = files::delete_tree(&folder);
        return Err(fault);
    }
    if let Err(fault) = making.furnish() {
        // The error that brought us here is the one to report.
        let _ = take_away(project, &id, &own);
        return Err(fault);
    }
    files::remove(&folder.join("making"))?;
    Ok(own)
}

/// What is there before the record is written is not ours to take away.
fn refuse_what_stands(project: &Project, own: &Own) -> Result<(), Fault> {
    let repository = Git::repository(&project.located.common_dir);
    if repository.ref_commit(&format!("refs/heads/{}", own.branch))?.is_some() {
        return Err(Fault::input(format!("branch {} exists already", own.branch))
            .fix(format!("choose another name; `git worktree add {} {}` checks it out", own.path, own.branch)));
    }
    let name = Path::new(&own.path).file_name().and_then(|name| name.to_str()).map(DispatchId::parse);
    let is_dispatch = matches!(name, Some(Ok(id)) if project.paths.dispatch(&id).exists());
    if is_dispatch || Path::new(&own.path).exists() {
        return Err(Fault::input(format!("{} exists already, or is a dispatch's", own.path)).fix("choose another name"));
    }
    Ok(())
}

/// Takes the name: from here on it is known that it is being made.
fn claim(paths: &Paths, folder: &Path, own: &Own) -> Result<std::fs::File, Fault> {
    files::private_folder(&paths.trees())?;
    let _guard = lock::exclusive(&paths.claim_lock(), Duration::from_secs(30))?;
    if !files::claim_folder(folder)? {
        return Err(Fault::input(format!("there is a worktree for {} already: {}", own.branch, own.path))
            .fix("see `vnx worktree list`, or choose another name"));
    }
    let json = serde_json::to_vec_pretty(own).map_err(|e| Fault::internal(format!("the record: {e}")))?;
    let making = folder.join("making");
    let lock = lock::exclusive(&making, Duration::from_secs(30))?;
    lock::note_place(&lock, &making)?;
    files::replace(&folder.join("record.json"), &json)?;
    Ok(lock)
}

struct Making<'a> {
    project: &'a Project,
    own: &'a Own,
    id: &'a DispatchId,
    folder: &'a Path,
    setup: &'a Setup,
}

impl Making<'_> {
    fn with_tree<T>(&self, work: impl FnOnce(&Tree<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        work(&tree(self.project, self.own, self.id, self.folder, &policy(self.project)))
    }

    fn create(&self, lock: &std::fs::File) -> Result<(), Fault> {
        self.with_tree(|tree| worktree::create(tree, self.setup, Some(lock)).map(drop))
    }

    fn furnish(&self) -> Result<(), Fault> {
        self.with_tree(|tree| worktree::supply(tree, self.setup).map(drop))?;
        self.hooks()?;
        // The lock kept others away while it was made; it is the person's now.
        Ok(Git::repository(&self.project.located.common_dir).worktree_unlock(Path::new(&self.own.path))?)
    }

    fn hooks(&self) -> Result<(), Fault> {
        let hooks = self.setup.hooks.at(Moment::PostCreate);
        if hooks.is_empty() {
            return Ok(());
        }
        let manifest = provider::load(self.project, &Name::try_from("shell".to_owned())?)?;
        surroundings::make_caches(self.setup)?;
        let mut env = environment::build(&environment::allowed(&manifest), &self.setup.caches, &BTreeMap::new(), None)?;
        env.extend(hooks::variables(self.setup, &self.own.path));
        for (hook, nth) in hooks.iter().zip(1..) {
            let name = format!("{}-{nth}", Moment::PostCreate.word());
            let redactor = Redactor::default();
            let place = Place {
                name: &name,
                env: env.clone(),
                cwd: Path::new(&self.own.path),
                grace: Span(5000),
                folder: self.folder,
                redactor: &redactor,
                control: control::bind(self.folder)?,
            };
            let done = hooks::run(hook, place)?;
            hooks::outcome(hook, &done).map_err(|failed| {
                Fault::environment(failed.why)
                    .fix("correct worktree.hooks in .vnx/config.yaml; nothing was left behind")
            })?;
        }
        Ok(())
    }
}

fn tree<'a>(
    project: &'a Project,
    own: &'a Own,
    id: &'a DispatchId,
    folder: &'a Path,
    policy: &'a TeardownPolicy,
) -> Tree<'a> {
    const UNREAD: &Digest = &Digest::ZERO;
    Tree {
        id,
        own_branch: Some(&own.branch),
        common_dir: &project.located.common_dir,
        path: Path::new(&own.path),
        base: &own.base.commit,
        base_name: &own.base.name,
        policy,
        git_risk: UNREAD,
        scratch: folder,
        paths: &project.paths,
    }
}

/// Takes away what a making that failed has left: nobody but us and the hooks was in it.
fn take_away(project: &Project, id: &DispatchId, own: &Own) -> Result<(), Fault> {
    let folder = folder_of(&project.paths, id);
    worktree::discard_own(&tree(project, own, id, &folder, &policy(project)))?;
    Ok(files::delete_tree(&folder)?)
}

/// Takes away what a maker left that died. In one that holds more than vnx wrote somebody has been, or a hook: it is
/// the person's as it is.
fn take_away_half_made(project: &Project, id: &DispatchId, own: &Own) -> Result<(), Fault> {
    let folder = folder_of(&project.paths, id);
    let setup = setup(project, &[], supplies::supplies(project)?, &mut Vec::new())?;
    match worktree::discard_half_made(&tree(project, own, id, &folder, &policy(project)), &setup)? {
        Discarded::Gone => Ok(files::delete_tree(&folder)?),
        Discarded::Holds(_) => {
            Git::repository(&project.located.common_dir).worktree_unlock(Path::new(&own.path))?;
            Ok(files::remove(&folder.join("making"))?)
        }
    }
}

fn policy(project: &Project) -> TeardownPolicy {
    let config = &project.config.worktree;
    TeardownPolicy {
        reproducible: config.reproducible.clone(),
        rescue_ignored_max: config.rescue_ignored_max,
        disk_floor: config.disk_floor,
    }
}

/// What every command does: mends what a maker left that died, and forgets worktrees that a person removed.
pub(super) fn tidy(project: &Project) {
    let paths = &project.paths;
    for id in files::names(&paths.trees()).unwrap_or_default().iter().filter_map(|n| DispatchId::parse(n).ok()) {
        // What cannot be mended now is tried again by whoever comes next.
        let _ = tidy_one(project, &id);
    }
}

fn tidy_one(project: &Project, id: &DispatchId) -> Result<(), Fault> {
    let folder = folder_of(&project.paths, id);
    let half_made = folder.join("making").exists() || !folder.join("record.json").exists();
    let gone = own(&project.paths, id).is_some_and(|own| !Path::new(&own.path).exists());
    if !half_made && !gone {
        return Ok(());
    }
    // Whoever makes one takes its lock under this one.
    let _guard = lock::exclusive(&project.paths.claim_lock(), Duration::from_secs(30))?;
    let making = folder.join("making");
    let Some(lock) = lock::try_exclusive(&making)? else { return Ok(()) };
    match own(&project.paths, id) {
        // What stands there is the original's.
        Some(_) if half_made && lock::is_copied(&lock, &making)? => Ok(files::delete_tree(&folder)?),
        // Its lock goes last: nothing was left to do but to say so.
        Some(own) if half_made && is_unlocked(project, &own) => Ok(files::remove(&folder.join("making"))?),
        Some(own) if half_made => take_away_half_made(project, id, &own),
        _ => Ok(files::delete_tree(&folder)?),
    }
}

/// Git writes the lock of a worktree before everything else, and only a finished one loses it.
fn is_unlocked(project: &Project, own: &Own) -> bool {
    let git_dir = Git::worktree_git_dir(&project.located.common_dir, Path::new(&own.path));
    git_dir.is_ok_and(|git_dir| git_dir.is_some_and(|git_dir| !git_dir.join("locked").exists()))
}

/// Every worktree below the root.
pub fn list(project: &Project) -> Result<Vec<Listed>, Fault> {
    let root = project.worktrees();
    let names = files::names(&root)?;
    let used = names.iter().filter(|name| !name.starts_with('.')).map(|name| one(project, &root, name));
    let pool = Pool { common_dir: &project.located.common_dir, root: &root, paths: &project.paths };
    let ready = pool.names().into_iter().map(|id| Listed {
        path: root.join(POOL).join(&id),
        id,
        owner: Owner::Pool,
        branch: None,
        state: Stands::Ready,
        because: None,
        since: None,
    });
    Ok(used.chain(ready).collect())
}

fn one(project: &Project, root: &Path, name: &str) -> Listed {
    let paths = &project.paths;
    let blank = Listed {
        id: name.to_owned(),
        owner: Owner::Unknown,
        branch: None,
        state: Stands::Unknown,
        because: None,
        path: root.join(name),
        since: None,
    };
    let Ok(folder_id) = DispatchId::parse(name) else { return blank };
    if let Some(own) = own(paths, &folder_id) {
        let making = folder_of(paths, &folder_id).join("making").exists();
        return Listed {
            owner: Owner::Person,
            branch: Some(own.branch),
            state: if making { Stands::Making } else { Stands::Yours },
            since: Some(own.made),
            ..blank
        };
    }
    // A session that is continued works in the folder of an earlier dispatch; the lock names who is there.
    let (holder, because) = locked_by(&project.located.common_dir, name);
    let id = holder.unwrap_or(folder_id);
    let Ok((plan, _)) = read_plan(&paths.dispatch(&id)) else { return blank };
    let open = paths.open_marker(&id).exists();
    Listed {
        id: id.to_string(),
        owner: Owner::Dispatch,
        branch: Some(plan.branch),
        state: if open { Stands::Running } else { Stands::Kept },
        because: because.filter(|_| !open),
        since: Some(plan.made),
        ..blank
    }
}

/// The dispatch that a worktree of this name is of: its lock says so where a session was continued.
pub(super) fn holder(common_dir: &Path, name: &str) -> Option<DispatchId> {
    locked_by(common_dir, name).0.or_else(|| DispatchId::parse(name).ok())
}

/// Reads `vnx dispatch <id>: kept, <why>`.
fn locked_by(common_dir: &Path, name: &str) -> (Option<DispatchId>, Option<String>) {
    let text = files::read_text(&common_dir.join("worktrees").join(name).join("locked")).unwrap_or_default();
    let Some(rest) = text.trim().strip_prefix("vnx dispatch ") else { return (None, None) };
    let (id, state) = rest.split_once(": ").unwrap_or((rest, ""));
    (DispatchId::parse(id).ok(), state.strip_prefix("kept, ").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_gives_its_folder_a_safe_name() {
        for (branch, folder) in [("fix", "fix"), ("feature/Login_v2.1", "feature-login-v2-1"), ("JIRA-12", "jira-12")] {
            assert_eq!(folder_name(branch).unwrap().as_str(), folder);
        }
        for bad in [
            "",
            "/",
            "a/",
            "-a",
            "HEAD",
            "refs/heads/x",
            "a..b",
            "a b",
            "a.lock",
            "vnx/x",
            "a~1",
            "@{u}",
            "ä",
            ".a",
            "a/.b",
            "x.",
            &"a".repeat(64),
        ] {
            assert!(folder_name(bad).is_err(), "{bad:?}");
        }
    }
}
