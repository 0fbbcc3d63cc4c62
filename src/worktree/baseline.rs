//! The repository as it was when a worker was about to begin: later, what it says and what it has done to others is
//! held against this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Tree, shared_rules};
use crate::domain::receipt::LostRef;
use crate::domain::{Digest, Fault};
use crate::git::{Git, GitError, OwnWork, Refs, STASH, SharedFiles};
use crate::sys::files;

/// In the folder of a dispatch; it stands there before a worker does.
pub const BASELINE: &str = "baseline.json";

/// Files of git that decide which history there is: shallow commits (gitrepository-layout(5)), and other stores.
const HISTORY: [&str; 2] = ["shallow", "objects/info/alternates"];

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Format version, 1.
    v: u32,
    /// What had a name.
    refs: Refs,
    /// The files that decide which history there is.
    history: Digest,
    /// What git's shared files said, as far as it counts.
    pub(super) shared: SharedFiles,
    /// Each setting of git that applied to all worktrees, with a digest of its values.
    settings: BTreeMap<String, Digest>,
}

/// A ref of others that does not lead any more to what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its full name; a stash below the newest one is `refs/stash` too.
    pub name: String,
    /// What it named, which no ref reaches now.
    pub commit: String,
}

impl Baseline {
    /// Reads the repository. No worker runs yet.
    pub fn take(tree: &Tree<'_>) -> Result<Self, Fault> {
        let repository = tree.repository();
        let config = repository.config()?.shared();
        let shared = shared_rules::counted(tree.paths, tree.id, &SharedFiles::read(tree.common_dir, &config)?)?;
        let refs = repository.refs(tree.base.len() / 2)?;
        Ok(Self { v: 1, refs, history: history(tree.common_dir)?, shared, settings: config.digests() })
    }

    /// Stores it for whoever finishes the dispatch.
    pub fn store(&self, folder: &Path) -> Result<(), Fault> {
        let json = serde_json::to_vec(self).map_err(|e| Fault::internal(format!("the baseline: {e}")))?;
        Ok(files::replace(&folder.join(BASELINE), &json)?)
    }

    /// Reads it back; `None` if there is none, or it cannot be read: then nothing is known of what was there before.
    pub(super) fn load(folder: &Path) -> Option<Self> {
        let bytes = files::read_capped(&folder.join(BASELINE), 256 << 20).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// The work of the branch `own` at `tip`: commits that no other ref named then or names now.
    pub(super) fn work(&self, tree: &Tree<'_>, git: &Git, now: &Refs, tip: &str) -> Result<OwnWork, GitError> {
        if history(tree.common_dir).map_err(|_| GitError::Contradicted)? != self.history {
            return Err(GitError::Contradicted);
        }
        let repository = tree.repository();
        let mut others = self.others(tree, git, now)?;
        let work = repository.own_work(tree.base, tip, &others)?;
        if !work.commits.is_empty() {
            // What a merge has brought along is others', unless it was committed here.
            let merged = &work.merged;
            let made = git.committed_here(tree.common_dir, &self.refs, now, merged)?;
            let known = others.len();
            others.extend(merged.difference(&made).cloned());
            return if others.len() == known { Ok(work) } else { repository.own_work(tree.base, tip, &others) };
        }
        // Two workers that do the same in the same second make the same commit.
        let all: BTreeSet<String> = repository.commits_between(tree.base, tip)?.0.into_iter().collect();
        let made = git.committed_here(tree.common_dir, &self.refs, now, &all)?;
        if made.is_empty() {
            return Ok(work);
        }
        repository.own_work(tree.base, tip, &all.difference(&made).cloned().collect())
    }

    /// What is others': all that was there, and what came since, unless this worker has committed it.
    fn others(&self, tree: &Tree<'_>, git: &Git, now: &Refs) -> Result<BTreeSet<String>, GitError> {
        let repository = tree.repository();
        let mut others: BTreeSet<String> = self.refs.named.values().chain(&self.refs.stashes).cloned().collect();
        let (branch, own) = (tree.branch(), tree.branch_ref());
        let head = format!("worktrees/{}/HEAD", tree.path.file_name().unwrap_or_default().display());
        let is_own = |name: &str| {
            let pushed = name.strip_prefix("refs/remotes/").and_then(|name| name.split_once('/'));
            name == own || name == head || pushed.is_some_and(|(_, name)| name == branch)
        };
        let is_new = |(name, oid): &(&String, &String)| self.refs.named.get(*name) != Some(*oid) && !is_own(name);
        let mut came: BTreeSet<String> = BTreeSet::new();
        for (name, oid) in now.named.iter().filter(is_new) {
            let commit = if name.starts_with("refs/tags/") { repository.resolve(name)? } else { None };
            came.insert(commit.unwrap_or_else(|| oid.clone()));
        }
        came.extend(git.fetched(tree.base.len() / 2)?);
        // Whatever named it may be gone since, and what it was fetched from is nowhere.
        came.extend(git.moved_to()?);
        came.retain(|oid| !others.contains(oid));
        if !came.is_empty() {
            let made = git.committed_here(tree.common_dir, &self.refs, now, &came)?;
            others.extend(came.into_iter().filter(|oid| !made.contains(oid)));
        }
        Ok(others)
    }

    /// Branches, tags and stashes of others that were deleted or set back meanwhile, where no ref reaches what they
    /// led to.
    pub(super) fn lost(&self, tree: &Tree<'_>, now: &Refs) -> Result<Vec<Gone>, GitError> {
        let is_others = |name: &str| {
            let own = name.starts_with("refs/heads/vnx/") || name == tree.branch_ref();
            !own && (name == STASH || ["refs/heads/", "refs/tags/"].iter().any(|below| name.starts_with(below)))
        };
        let stashes_now: BTreeSet<&String> = now.stashes.iter().chain(now.named.get(STASH)).collect();
        let stands = |name: &str, oid: &String| match name {
            STASH => stashes_now.contains(oid),
            _ => now.named.get(name) == Some(oid),
        };
        let named = self.refs.named.iter().map(|(name, oid)| (name.as_str(), oid));
        let stashes = self.refs.stashes.iter().map(|oid| (STASH, oid));
        let gone = named.chain(stashes).filter(|(name, oid)| is_others(name) && !stands(name, oid));
        let gone: Vec<Gone> = gone.map(|(name, oid)| Gone { name: name.to_owned(), commit: oid.clone() }).collect();
        if gone.is_empty() {
            return Ok(gone);
        }
        let tips: Vec<String> = gone.iter().map(|lost| lost.commit.clone()).collect();
        // What this dispatch has kept already, before a crash, is lost all the same.
        let kept = kept_below(tree);
        let named = now.named.iter().filter(|(name, _)| !name.starts_with(&kept)).map(|(_, oid)| oid);
        let lost = tree.repository().unreachable_tips(&tips, named)?;
        Ok(gone.into_iter().filter(|gone| lost.contains(&gone.commit)).collect())
    }

    /// Settings of git that were added, changed or taken away meanwhile, by their names.
    pub(super) fn changed_settings(&self, now: &BTreeMap<String, Digest>) -> Vec<String> {
        let names: BTreeSet<&String> = self.settings.keys().chain(now.keys()).collect();
        names.into_iter().filter(|name| self.settings.get(*name) != now.get(*name)).cloned().collect()
    }
}

fn history(common_dir: &Path) -> Result<Digest, Fault> {
    let mut text = Vec::new();
    for name in HISTORY {
        text.extend(files::read_capped(&common_dir.join(name), 64 << 20)?.unwrap_or_default());
        text.push(0);
    }
    Ok(Digest::of(&text))
}

/// Keeps what refs of others have lost below `refs/vnx/rescue/`, and tells under which names. What was kept there before
/// a crash stays under its name.
pub fn keep_lost(tree: &Tree<'_>, lost: &[Gone]) -> Vec<LostRef> {
    if lost.is_empty() {
        return Vec::new();
    }
    let (repository, below) = (tree.repository(), kept_below(tree));
    let kept = repository.refs_with_objects(&below).unwrap_or_default();
    let mut free = (1..).map(|n| format!("{below}{n}")).filter(|name| !kept.iter().any(|(taken, _)| taken == name));
    let mut keep = |gone: &Gone| {
        let reference = match kept.iter().find(|(_, object)| *object == gone.commit) {
            Some((name, _)) => Some(name.clone()),
            None => free.next().filter(|name| {
                repository.move_ref(name, &gone.commit, None, &format!("vnx: {} had it", gone.name)).is_ok()
            }),
        };
        LostRef { name: gone.name.clone(), commit: gone.commit.clone(), kept: reference }
    };
    lost.iter().map(&mut keep).collect()
}

/// How the names begin under which is kept what a dispatch has taken from others. No id has a dot.
fn kept_below(tree: &Tree<'_>) -> String {
    format!("{}.", tree.id.rescue_ref())
}
