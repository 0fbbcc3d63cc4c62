//! The witness: the last checkpoint of each ledger that this user has sealed, outside of the
//! repository. Two rules, as for any witness of a transparency log: it never goes back, and it
//! is held against the ledger whenever that is verified.

use std::path::PathBuf;

use crate::domain::checkpoint::Checkpoint;
use crate::sys::files::{self, PathError};

/// `$XDG_STATE_HOME/vnx/witness/<ledger id>`; `None` for a user without a home.
fn file(origin: &str) -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local/state")))?;
    let id = origin.strip_prefix("vnx/").filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(state.join("vnx/witness").join(id))
}

/// What it remembers of a ledger. A file that cannot be understood is an error, not a blank.
pub(super) fn read(origin: &str) -> Result<Option<Checkpoint>, String> {
    let Some(path) = file(origin) else { return Ok(None) };
    let Some(bytes) = files::read_capped(&path, 4096).map_err(|e| e.to_string())? else { return Ok(None) };
    let checkpoint = String::from_utf8(bytes).ok().and_then(|text| Checkpoint::parse(&text));
    match checkpoint.filter(|c| c.origin == origin) {
        Some(checkpoint) => Ok(Some(checkpoint)),
        None => Err(format!("the witness file {} is not a checkpoint of this ledger", path.display())),
    }
}

/// Remembers a checkpoint whose consistency with the last one was proven.
pub(super) fn remember(checkpoint: &Checkpoint) -> Result<(), PathError> {
    let Some(path) = file(&checkpoint.origin) else { return Ok(()) };
    if matches!(read(&checkpoint.origin), Ok(Some(known)) if known.size >= checkpoint.size) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        files::private_folder(folder)?;
    }
    files::replace(&path, checkpoint.to_text().as_bytes())
}
