//! What earlier dispatches left behind, and how it is mended: `vnx doctor --fix`.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::doctor::{Check, Level};
use super::view;
use crate::domain::line::quoted;
use crate::domain::{DispatchId, Fault};
use crate::git::Git;
use crate::project::{self, Project, Scaffold};
use crate::provider::constraints;
use crate::sys::{files, lock};
use crate::worktree;

/// Something that doctor can mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What it does.
    pub what: String,
    /// It was done, or why not; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

fn lost(project: &Project) -> Vec<DispatchId> {
    let open = files::names(&project.paths.open()).unwrap_or_default();
    let ids = open.iter().filter_map(|n| DispatchId::parse(n).ok());
    // A free lock, or none at all, means that nobody owns it.
    ids.filter(|id| {
        let path = project.paths.dispatch(id).join("lock");
        !path.exists() || matches!(lock::try_exclusive(&path), Ok(Some(_)))
    })
    .collect()
}

/// A git that was killed leaves its lock files, and every later git that needs them fails.
fn stale_locks(project: &Project) -> Option<Check> {
    let locks = Git::repository(&project.located.common_dir).stale_locks(Duration::from_mins(1));
    let first = locks.first()?;
    let count = locks.len();
    let what =
        format!("lock files of git older than a minute, as a killed one leaves: {count}, first {}", first.display());
    let all: Vec<String> = locks.iter().map(|path| quoted(&path.display().to_string()).into_owned()).collect();
    let fix = format!("if no git runs here, rm {}", all.join(" "));
    Some(Check::new("git locks", Level::Warn, what, fix))
}

/// So many are a matter of git's housekeeping: twice what its own `--auto` waits for (gc.auto, gc.autoPackLimit).
const MANY_LOOSE: usize = 2 * 6700;
const MANY_PACKS: usize = 2 * 50;

/// Neither vnx nor a worker's git does housekeeping; where no person's git does, it adds up.
fn housekeeping(project: &Project) -> Option<Check> {
    let objects = project.located.common_dir.join("objects");
    // One of 256 folders, as git itself estimates.
    let loose = files::names(&objects.join("17")).unwrap_or_default().len() * 256;
    let packs = files::names(&objects.join("pack")).unwrap_or_default();
    let with = |ending: &str| packs.iter().filter(|name| name.ends_with(ending)).count();
    let packs = with(".pack").saturating_sub(with(".keep"));
    let what = match (loose > MANY_LOOSE, packs > MANY_PACKS) {
        (true, true) => format!("about {loose} loose objects and {packs} packs"),
        (true, false) => format!("about {loose} loose objects"),
        (false, true) => format!("{packs} packs"),
        (false, false) => return None,
    };
    Some(Check::new("git objects", Level::Warn, what + ", and every git is slower for it", "git gc"))
}

pub(super) fn leftovers(project: &Project) -> Vec<Check> {
    let mut rows: Vec<Check> = stale_locks(project).into_iter().chain(housekeeping(project)).collect();
    let lost = lost(project);
    if !lost.is_empty() {
        let what = format!("{} dispatches lost their supervisor, first {}", lost.len(), lost[0]);
        rows.push(Check::new(
            "recovery",
            Level::Warn,
            what,
            "any next command finishes them; `vnx doctor --fix --yes` does it now",
        ));
    }
    let kept = view::kept(project).unwrap_or(0);
    let rescues = Git::repository(&project.located.common_dir).refs_below("refs/vnx/rescue").map_or(0, |r| r.len());
    if kept + rescues > 0 {
        let what = format!("{kept} kept worktrees and {rescues} rescue commits");
        rows.push(Check::new(
            "leftovers",
            Level::Pass,
            what,
            "see `vnx worktree list`, `vnx worktree gc` and `vnx worktree rescue list`",
        ));
    }
    rows
}

/// What can be mended; with `apply`, mends it.
pub fn fix(from: &Path, apply: bool) -> Vec<Fix> {
    let mut fixes = Vec::new();
    let mut add = |what: String, work: &dyn Fn() -> Result<(), Fault>| {
        let result = apply.then(|| work().map_or_else(|f| f.to_string(), |()| "done".to_owned()));
        fixes.push(Fix { what, result });
    };
    let scaffold = Scaffold { constraints: constraints::SHIPPED, signer: None, force: false, diff: false };
    let Ok(located) = project::locate(from) else {
        return fixes;
    };
    let Ok(paths) = project::Paths::of(&located) else {
        return fixes;
    };
    let missing = |p: &&str| !located.top.join(".vnx").join(p).exists();
    let absent: Vec<&str> =
        ["config.yaml", "provider_constraints.yaml", ".gitignore"].into_iter().filter(|p| missing(p)).collect();
    if !absent.is_empty()
        || paths.folders().iter().any(|f| !f.is_dir())
        || !paths.receipts().join("ledger.ndjson").exists()
    {
        add(
            format!(
                "write what `vnx init` writes and is missing ({})",
                if absent.is_empty() { "state folders, ledger".to_owned() } else { absent.join(", ") }
            ),
            &|| project::init(from, scaffold).map(drop),
        );
    }
    let Ok(project) = Project::open(from) else {
        return fixes;
    };
    for id in lost(&project) {
        add(format!("finish dispatch {id}, which lost its supervisor"), &|| {
            super::recover_one(&project.paths, &id).map(drop)
        });
    }
    if worktree::anything_removed(&project.paths) {
        add("delete removed worktrees that are still on disk".to_owned(), &|| {
            worktree::delete_removed(&project.paths, &project.worktrees(), Duration::from_mins(1))
        });
    }
    fixes
}
