//! The witness: the last checkpoint of each ledger that this user has sealed, outside of the
//! repository, and which ledger each repository has. Two rules, as for any witness of a
//! transparency log: it never goes back, and it is held against the ledger whenever that is
//! verified.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::domain::checkpoint::Checkpoint;
use crate::sys::files::{self, PathError};

/// `$XDG_STATE_HOME/vnx/witness`; `None` for a user without a home.
fn folder() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local/state")))?;
    Some(state.join("vnx/witness"))
}

/// `<ledger id>` in that folder.
fn file(origin: &str) -> Option<PathBuf> {
    let id = origin.strip_prefix("vnx/").filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(folder()?.join(id))
}

/// `repository-<digest of its path>` in that folder: without it, another ledger in the place of
/// this one would be one that the witness has never seen.
fn place(repository: &Path) -> Option<PathBuf> {
    let path = repository.canonicalize().unwrap_or_else(|_| repository.to_owned());
    Some(folder()?.join(format!("repository-{}", Digest::of(path.as_os_str().as_bytes()).short())))
}

fn load(path: &Path) -> Result<Option<Checkpoint>, String> {
    let Some(bytes) = files::read_capped(path, 4096).map_err(|e| e.to_string())? else { return Ok(None) };
    let checkpoint = String::from_utf8(bytes).ok().and_then(|text| Checkpoint::parse(&text));
    checkpoint.map(Some).ok_or_else(|| format!("the witness file {} is not a checkpoint", path.display()))
}

/// What it remembers of the ledger of a repository, which it knows to be `origin`. A file that
/// cannot be understood is an error, not a blank.
pub(super) fn read(repository: &Path, origin: Option<&str>) -> Result<Vec<Checkpoint>, String> {
    let mut known = Vec::new();
    for path in [place(repository), origin.and_then(file)].into_iter().flatten() {
        known.extend(load(&path)?);
    }
    known.dedup();
    Ok(known)
}

/// Where it remembers which ledger a repository has, for messages.
pub(super) fn place_of(repository: &Path) -> String {
    place(repository).map(|p| p.display().to_string()).unwrap_or_default()
}

/// What the files of the sealed segments were when all of a ledger was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    /// How many receipts there were.
    pub(super) size: u64,
    /// Their root.
    pub(super) root: Digest,
    /// SHA-256 of each file, oldest first.
    pub(super) digests: Vec<Digest>,
}

/// `<ledger id>.files` in that folder.
fn of_files(origin: &str) -> Option<PathBuf> {
    Some(file(origin)?.with_extension("files"))
}

/// What it remembers of the files of a ledger. Without it, or if it cannot be understood, everything is read.
pub(super) fn files_of(origin: &str) -> Option<Files> {
    let bytes = files::read_capped(&of_files(origin)?, 1 << 20).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// Remembers what the files were. It was proven, with this checkpoint, that they hold what they should.
pub(super) fn remember_files(checkpoint: &Checkpoint, digests: Vec<Digest>) -> Result<(), PathError> {
    let Some(path) = of_files(&checkpoint.origin) else { return Ok(()) };
    let known = Files { size: checkpoint.size, root: checkpoint.root, digests };
    if files_of(&checkpoint.origin).is_some_and(|old| old.digests == known.digests && old.size >= known.size) {
        return Ok(());
    }
    let text = serde_json::to_string(&known).unwrap_or_default();
    files::replace(&path, text.as_bytes())
}

/// Remembers a checkpoint whose consistency with the last one was proven. `false` where there is
/// no place for it.
pub(super) fn remember(repository: &Path, checkpoint: &Checkpoint) -> Result<bool, PathError> {
    let (Some(folder), Some(by_id), Some(by_place)) = (folder(), file(&checkpoint.origin), place(repository)) else {
        return Ok(false);
    };
    files::private_folder(&folder)?;
    for path in [by_id, by_place] {
        let is_older = |known: &Checkpoint| known.origin == checkpoint.origin && known.size >= checkpoint.size;
        if !matches!(load(&path), Ok(Some(known)) if is_older(&known)) {
            files::replace(&path, checkpoint.to_text().as_bytes())?;
        }
    }
    Ok(true)
}
