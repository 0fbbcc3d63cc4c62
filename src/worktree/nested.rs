//! Repositories below a worktree: submodules, and what a worker cloned or made.
//!
//! Nothing is asked of them, because their configuration is a worker's. Their files go into a rescue like
//! all others, and those of git itself beside them, under a name that git takes.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::sys::files::{self, PathError};

/// What `git status` says nothing about, and with exit code 0: found by a look of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// Folders that are repositories, and those that git takes for a submodule's and does not look into.
    pub(super) nested: Vec<PathBuf>,
    /// What cannot be read, or leads out of the tree, so that no rescue has all of it.
    pub(super) unread: Vec<PathBuf>,
}

impl Beyond {
    /// Looks into every folder below `root`, of which `git_dir` is git's, but those in `skip`.
    pub(super) fn look(root: &Path, git_dir: &Path, gitlinks: &BTreeSet<&Path>, skip: &BTreeSet<&Path>) -> Self {
        let mut found = Self::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let is_root = below == Path::new("");
            let Ok((names, inner)) = entries(&root.join(&below)) else {
                found.unread.push(if is_root { PathBuf::from(".") } else { below });
                continue;
            };
            let (git, has_git) = (below.join(".git"), names.iter().any(|name| name == ".git"));
            // At the top stands a file that leads to git's own; one that leads nowhere holds nothing.
            if has_git && if is_root { root.join(&git).is_dir() } else { !leads_inside(root, git_dir, &git) } {
                found.unread.push(git);
            }
            if !is_root && (has_git || gitlinks.contains(below.as_path()) && !names.is_empty()) {
                found.nested.push(below);
                continue;
            }
            let inner = inner.into_iter().filter(|name| name != ".git").map(|name| below.join(name));
            folders.extend(inner.filter(|path| !skip.contains(path.as_path())));
        }
        found.nested.sort();
        found.unread.sort();
        found
    }
}

/// Repositories at or below a folder of which nothing else is kept. What cannot be read may be one.
pub(super) fn repositories(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    if !root.join(folder).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        return found;
    }
    while let Some(below) = folders.pop() {
        let Ok((names, inner)) = entries(&root.join(&below)) else {
            found.push(below);
            continue;
        };
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let is_bare = || has("HEAD") && has("objects") && has("refs");
        if has(".git") && leads_somewhere(&root.join(&below).join(".git")) || is_bare() {
            found.push(below);
        } else {
            folders.extend(inner.into_iter().map(|name| below.join(name)));
        }
    }
    found
}

/// Whether a `.git` is a repository's, or a file that leads to one: packages come with files that lead nowhere.
fn leads_somewhere(git: &Path) -> bool {
    let Ok(Some(to)) = led_to(git) else { return git.is_dir() };
    to.exists()
}

/// Where a `.git` file leads (gitrepository-layout(5): `gitdir: <path>`).
fn led_to(git: &Path) -> Result<Option<PathBuf>, PathError> {
    let bytes = files::read_capped(git, 64 << 10)?.unwrap_or_default();
    let to = bytes.strip_prefix(b"gitdir: ").map(|to| OsStr::from_bytes(to.trim_ascii_end()));
    Ok(to.map(|to| git.with_file_name("").join(to)))
}

/// What stands in a folder: all names, and those of folders.
fn entries(folder: &Path) -> std::io::Result<(Vec<OsString>, Vec<OsString>)> {
    let (mut names, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.file_name());
        }
        names.push(entry.file_name());
    }
    Ok((names, folders))
}

/// Whether a `.git` is a folder, or a file that leads to one below the tree or among git's own files for it.
fn leads_inside(root: &Path, git_dir: &Path, git: &Path) -> bool {
    let path = root.join(git);
    let Ok(meta) = path.symlink_metadata() else { return false };
    if meta.is_dir() {
        return true;
    }
    // A file that says nothing to git leads nowhere.
    let Some(to) = led_to(&path).ok().flatten().filter(|_| meta.is_file()) else { return meta.is_file() };
    let is_in = |place: &Path| to.canonicalize().is_ok_and(|to| place.canonicalize().is_ok_and(|p| to.starts_with(p)));
    !to.exists() || is_in(root) || is_in(git_dir)
}

/// Whether git itself keeps this, and would refuse to store it.
pub(super) fn is_of_git(path: &Path) -> bool {
    path.iter().any(|part| part.eq_ignore_ascii_case(".git"))
}

/// Where it stands in the state commit. Every part that git could refuse, or that looks like one of these,
/// begins with a `%` more.
pub(super) fn stored(path: &Path) -> PathBuf {
    let part = |part: &OsStr| match part.as_bytes() {
        bytes if bytes.eq_ignore_ascii_case(b".git") || bytes.starts_with(b"%") => {
            OsString::from_vec([b"%", bytes].concat())
        }
        bytes => OsString::from_vec(bytes.to_vec()),
    };
    Path::new("nested").join(path.iter().map(part).collect::<PathBuf>())
}

/// The path that is stored under this one, if it is one of ours.
pub(super) fn of_stored(path: &Path) -> Option<PathBuf> {
    let part = |part: &OsStr| {
        let bytes = part.as_bytes();
        OsString::from_vec(bytes.strip_prefix(b"%").unwrap_or(bytes).to_vec())
    };
    Some(path.strip_prefix("nested").ok()?.iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for name in ["a/.git/config", "%git/x", "%/%%a/.GIT", "plain"] {
            let stored = stored(Path::new(name));
            assert!(!is_of_git(&stored), "{stored:?}");
            assert_eq!(of_stored(&stored).unwrap(), Path::new(name));
        }
    }
}
