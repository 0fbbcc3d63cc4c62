//! Finding executables, and paths as text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::domain::Fault;

/// What a look-up in `PATH` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An executable file, absolute.
    At(PathBuf),
    /// A file of that name that may not be executed.
    NotExecutable(PathBuf),
    /// Nothing.
    Missing,
}

/// Looks `name` up as `execvp` would; a name with a slash is taken as a path.
pub fn find(name: &str, search: &OsStr) -> Found {
    let mut refused = None;
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        std::env::split_paths(search).filter(|p| p.is_absolute()).map(|p| p.join(name)).collect()
    };
    for candidate in candidates {
        if !candidate.is_file() {
            continue;
        }
        if access(&candidate, Access::EXEC_OK).is_ok() {
            return Found::At(candidate);
        }
        refused.get_or_insert(candidate);
    }
    refused.map_or(Found::Missing, Found::NotExecutable)
}

/// A path as UTF-8 text; receipts cannot hold any other.
pub fn text(path: &Path) -> Result<String, Fault> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Fault::environment(format!("the path {} is not UTF-8", path.display()))
            .fix("rename the folder, or clone the repository elsewhere")
    })
}

/// The running executable, for re-exec: where its file was replaced meanwhile, what took its place.
pub fn own_executable() -> Result<PathBuf, Fault> {
    let path = std::env::current_exe()
        .map_err(|e| Fault::environment(format!("cannot find the vnx executable: {e}")).fix("install vnx again"))?;
    // The kernel tells of a file that is gone (proc_pid_exe(5)).
    let replaced =
        path.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(|path| PathBuf::from(OsStr::from_bytes(path)));
    Ok(replaced.filter(|path| path.is_file()).unwrap_or(path))
}

/// `$XDG_STATE_HOME/vnx`, where this user's own state lies; `None` for a user without a home.
pub fn user_state() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local/state")))?;
    Some(state.join("vnx"))
}
