//! The witness: the last checkpoint of each ledger that this user has sealed, outside of the
//! repository, and which ledger each repository has. Two rules, as for any witness of a
//! transparency log: it never goes back, and it is held against the ledger whenever that is
//! verified. What it knows of the receipts that nobody has sealed is the ledger's own matter
//! (`ledger/known.rs`), because each write is held against that.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::domain::checkpoint::Checkpoint;
use crate::ledger::witness_folder;
use crate::sys::files::{self, PathError};
use crate::sys::folder;

const NO_HOME: &str = "neither HOME nor XDG_STATE_HOME is set";

/// `<ledger id>-<digest of which repository it is>` in that folder: a repository that was moved is the same one, and a
/// copy, which begins with the same ledger and goes on by itself, is another one.
fn file(repository: &Path, origin: &str) -> Option<PathBuf> {
    let id = origin.strip_prefix("vnx/").filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let repository = Digest::of(folder::lasting_id(repository)?.as_bytes());
    Some(witness_folder()?.join(format!("{id}-{}", repository.short())))
}

/// `repository-<digest of its path>` in that folder: without it, another ledger in the place of
/// this one would be one that the witness has never seen.
fn place(repository: &Path) -> Option<PathBuf> {
    let path = repository.canonicalize().unwrap_or_else(|_| repository.to_owned());
    Some(witness_folder()?.join(format!("repository-{}", Digest::of(path.as_os_str().as_bytes()).short())))
}

fn load(path: &Path) -> Result<Option<Checkpoint>, String> {
    let bytes = match files::read_capped(path, 4096) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        // A home that is no folder (`/dev/null`) has nothing in it.
        Err(e) if e.source.kind() == ErrorKind::NotADirectory => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let checkpoint = String::from_utf8(bytes).ok().and_then(|text| Checkpoint::parse(&text));
    checkpoint.map(Some).ok_or_else(|| format!("the witness file {} is not a checkpoint", path.display()))
}

/// What it remembers of the ledger of a repository, which it knows to be `origin`. A file that
/// cannot be understood is an error, not a blank.
pub(super) fn read(repository: &Path, origin: Option<&str>) -> Result<Vec<Checkpoint>, String> {
    let mut known = Vec::new();
    for path in [place(repository), origin.and_then(|origin| file(repository, origin))].into_iter().flatten() {
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

/// The same name with `.files`.
fn of_files(repository: &Path, origin: &str) -> Option<PathBuf> {
    Some(file(repository, origin)?.with_extension("files"))
}

/// What it remembers of the files of a ledger. Without it, or if it cannot be understood, everything is read.
pub(super) fn files_of(repository: &Path, origin: &str) -> Option<Files> {
    let bytes = files::read_capped(&of_files(repository, origin)?, 1 << 20).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// Remembers what the files were. It was proven, with this checkpoint, that they hold what they should.
pub(super) fn remember_files(
    repository: &Path,
    checkpoint: &Checkpoint,
    digests: Vec<Digest>,
) -> Result<(), PathError> {
    let Some(path) = of_files(repository, &checkpoint.origin) else { return Ok(()) };
    let known = Files { size: checkpoint.size, root: checkpoint.root, digests };
    if files_of(repository, &checkpoint.origin)
        .is_some_and(|old| old.digests == known.digests && old.size >= known.size)
    {
        return Ok(());
    }
    let text = serde_json::to_string(&known).unwrap_or_default();
    files::replace(&path, text.as_bytes())
}

/// Remembers a checkpoint whose consistency with the last one was proven. `Some` says why there is no place
/// for it; what is remembered already has to be brought up to date.
pub(super) fn remember(repository: &Path, checkpoint: &Checkpoint) -> Result<Option<String>, PathError> {
    let (Some(folder), Some(by_id), Some(by_place)) =
        (witness_folder(), file(repository, &checkpoint.origin), place(repository))
    else {
        return Ok(Some(NO_HOME.to_owned()));
    };
    let blank = matches!((load(&by_id), load(&by_place)), (Ok(None), Ok(None)));
    match write(&folder, [by_id, by_place], checkpoint) {
        Err(e) if blank && is_no_place(&e) => Ok(Some(e.to_string())),
        written => written.map(|()| None),
    }
}

/// Forgets the ledger of a repository, which a person has given up.
pub(super) fn forget(repository: &Path, ledger: Option<&str>) -> Result<(), PathError> {
    let origin = ledger.map(Checkpoint::origin_of);
    let of_ledger = [file, of_files].map(|path| path(repository, origin.as_deref()?));
    for path in of_ledger.into_iter().chain([place(repository)]).flatten() {
        files::remove(&path)?;
    }
    Ok(())
}

/// A home that this user cannot write to is as good as none.
fn is_no_place(error: &PathError) -> bool {
    use ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.source.kind(), PermissionDenied | ReadOnlyFilesystem | NotADirectory)
}

fn write(folder: &Path, paths: [PathBuf; 2], checkpoint: &Checkpoint) -> Result<(), PathError> {
    files::private_folder(folder)?;
    for path in paths {
        let is_older = |known: &Checkpoint| known.origin == checkpoint.origin && known.size >= checkpoint.size;
        if !matches!(load(&path), Ok(Some(known)) if is_older(&known)) {
            files::replace_synced(&path, checkpoint.to_text().as_bytes())?;
        }
    }
    Ok(())
}

/// Why the witness cannot do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWitness {
    /// There is no place for it, and it remembers nothing: the ledger does without.
    Blank(String),
    /// What it remembers cannot be read or not be brought up to date, so gates and merges wait.
    Stuck(String),
}

/// What keeps the witness from its work for this repository, if anything does.
pub fn no_witness(repository: &Path) -> Option<NoWitness> {
    let Some(folder) = witness_folder() else { return Some(NoWitness::Blank(NO_HOME.to_owned())) };
    let known = match read(repository, None) {
        Ok(known) => known,
        Err(why) => return Some(NoWitness::Stuck(why)),
    };
    let why = files::writable(&folder).err().map(|e| format!("{} cannot be written: {e}", folder.display()))?;
    Some(if known.is_empty() { NoWitness::Blank(why) } else { NoWitness::Stuck(why) })
}
