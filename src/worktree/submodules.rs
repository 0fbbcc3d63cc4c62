//! Submodules in a worktree: populated from the main repository's objects, and taken back before anything
//! is read where nobody touched them. In one that somebody touched may lie commits that are nowhere else,
//! so it stays, and keeps the tree.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Tree;
use super::supply::{list, place};
use crate::domain::setup::Lfs;
use crate::domain::{Digest, Fault};
use crate::git::Git;
use crate::sys::files::{self, At};

/// Where it stands which ones were populated.
const NOTE: &str = "submodules.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Populated {
    name: String,
    path: String,
    /// What it looks like as long as nobody touches it.
    digest: Digest,
}

/// Populates those that the main repository has. `git_dir` is the worktree's own.
pub(super) fn populate(
    tree: &Tree<'_>,
    git_dir: &Path,
    lfs: Lfs,
    held: impl Fn() -> Option<File>,
) -> Result<(), Fault> {
    let mut done = Vec::new();
    for submodule in Git::tree(git_dir, tree.path).submodules()? {
        let source = tree.common_dir.join("modules").join(&submodule.name);
        // One that is not there in the main checkout either would need the network.
        if !is_plain(&submodule.name) || !is_plain(&submodule.path) || !source.join("objects").is_dir() {
            continue;
        }
        let own = git_dir.join("modules").join(&submodule.name);
        let folder = own.parent().unwrap_or(git_dir);
        std::fs::create_dir_all(folder).at("create", folder)?;
        let path = tree.path.join(&submodule.path);
        let populated = Git::clone_submodule(&source, &own, &path, &submodule.commit, held())
            .and_then(|git| git.checkout_files(1, lfs, held()));
        populated.map_err(|e| {
            Fault::environment(format!("submodule {}: {e}", submodule.path))
                .fix("run `git submodule update --init` in the main checkout, so that it has the commit")
        })?;
        let digest = looks_like(&path, &own).at("read", &path)?;
        done.push(Populated { name: submodule.name, path: submodule.path, digest });
    }
    note(tree, &done)
}

fn note(tree: &Tree<'_>, done: &[Populated]) -> Result<(), Fault> {
    let json = serde_json::to_vec(done).map_err(|e| Fault::internal(format!("the submodules cannot be noted: {e}")))?;
    Ok(files::replace(&tree.scratch.join(NOTE), &json)?)
}

fn noted(tree: &Tree<'_>) -> Vec<Populated> {
    let noted = files::read_capped(&tree.scratch.join(NOTE), 16 << 20).ok().flatten();
    let noted: Vec<Populated> = noted.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    // The note lies where a worker could write.
    noted.into_iter().filter(|one| is_plain(&one.name) && is_plain(&one.path)).collect()
}

fn own(tree: &Tree<'_>, name: &str) -> Option<PathBuf> {
    Some(Git::worktree_git_dir(tree.common_dir, tree.path).ok()??.join("modules").join(name))
}

/// Notes what they look like now: what hooks built in them is no work of the worker's.
pub(super) fn settle(tree: &Tree<'_>) -> Result<(), Fault> {
    let mut all = noted(tree);
    for one in &mut all {
        if let Some(own) = own(tree, &one.name) {
            let path = tree.path.join(&one.path);
            one.digest = looks_like(&path, &own).at("read", &path)?;
        }
    }
    note(tree, &all)
}

/// Takes those back that nobody touched. What cannot be taken back stays and counts.
pub(super) fn take_back(tree: &Tree<'_>) {
    for one in noted(tree) {
        let (Some(path), Some(own)) = (place(tree.path, &one.path), own(tree, &one.name)) else { continue };
        if looks_like(&path, &own).is_ok_and(|now| now == one.digest) {
            // An empty folder is how git has a submodule that is not populated.
            let _ = files::delete_tree(&path).map(|()| std::fs::create_dir(&path));
            let _ = files::delete_tree(&own);
            let _ = own.parent().map(std::fs::remove_dir);
        }
    }
}

/// A relative path without `..`.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Its files and everything in its repository but the index, which a mere look at its status refreshes.
fn looks_like(path: &Path, own: &Path) -> std::io::Result<Digest> {
    let mut text = Vec::new();
    list(path, &mut text)?;
    let mut inside: Vec<PathBuf> = std::fs::read_dir(own)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    inside.sort();
    inside.iter().filter(|path| !path.ends_with("index")).try_for_each(|path| list(path, &mut text))?;
    Ok(Digest::of(&text))
}
