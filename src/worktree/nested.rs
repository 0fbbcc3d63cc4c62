//! Repositories below a worktree: submodules, and what a worker cloned or made.
//!
//! Nothing is asked of them, because their configuration is a worker's. Their files go into a rescue like
//! all others, and those of git itself beside them, under a name that git takes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The folders among these paths that are repositories.
pub(super) fn among<'a>(root: &Path, paths: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let is_one = |path: &&Path| {
        let folder = root.join(path);
        folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()) && folder.join(".git").symlink_metadata().is_ok()
    };
    paths.filter(is_one).map(Path::to_owned).collect()
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
