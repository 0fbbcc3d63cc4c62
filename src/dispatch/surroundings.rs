//! What a worker has beside its worktree: a folder for temporary files and a block of ports for
//! itself, which go with the dispatch, also when its supervisor is killed; and the folders that
//! its sandbox shares with others.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::setup::Setup;
use crate::domain::{DispatchId, Fault};
use crate::project::Paths;
use crate::sys::files::{self, At};
use crate::sys::folder::{self, FolderId};
use crate::sys::{self, lock, path};

/// The first port of the first block, and how many blocks of how many ports there are.
const FIRST: u16 = 21_000;
const BLOCKS: u16 = 200;
const PORTS: u16 = 10;
/// How many names are tried for a folder.
const NAMES: u8 = 8;

/// A worker's own folder for temporary files.
///
/// Not in the dispatch's folder: programs put sockets there, and a socket's path ends at 108 bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Temporary {
    path: PathBuf,
    /// Which folder it is; absent from before it is made.
    folder: Option<FolderId>,
}

/// Where the note stands that names it, for a recovery whose own TMPDIR may be another.
fn note(dispatch: &Path) -> PathBuf {
    dispatch.join("tmpdir")
}

impl Temporary {
    /// Makes it: ours alone. Its name is noted before it is made, so that a kill in between leaves nothing that
    /// nobody knows of; what is noted may be deleted, so the name is one that nothing else has: the plain one may
    /// belong to another repository's dispatch of the same id.
    fn make(dispatch: &Path, id: &DispatchId) -> Result<Self, Fault> {
        let place = std::env::temp_dir();
        for _ in 0..NAMES {
            let path = place.join(format!("vnx-{id}-{:08x}", u32::from_le_bytes(sys::random::<4>()?)));
            let mut temporary = Self { path, folder: None };
            temporary.note(dispatch)?;
            if files::claim_folder(&temporary.path)? {
                temporary.folder = Some(FolderId::of(&temporary.path).at("examine", &temporary.path)?);
                temporary.note(dispatch)?;
                return Ok(temporary);
            }
        }
        files::remove(&note(dispatch))?;
        Err(Fault::environment(format!("every name for a folder of {id} in {} is taken", place.display()))
            .fix("set TMPDIR to a folder that only you write to"))
    }

    fn note(&self, dispatch: &Path) -> Result<(), Fault> {
        path::text(&self.path)?;
        let json = serde_json::to_vec(self).map_err(|e| Fault::internal(format!("the note of a folder: {e}")))?;
        Ok(files::replace(&note(dispatch), &json)?)
    }

    /// Deletes it; before it was on record as made, only an empty one.
    fn delete(&self) {
        // What cannot be deleted is only disk space in a folder for temporary files.
        let _ = match self.folder {
            Some(folder) => folder::delete(&self.path, Some(folder)).map_err(Fault::from),
            None => std::fs::remove_dir(&self.path).at("remove", &self.path).map_err(Fault::from),
        };
    }
}

/// Whether a name is one that the folder of `id` can have.
fn is_name(name: &str, id: &DispatchId) -> bool {
    let is_random = |end: &str| end.len() == 8 && end.bytes().all(|b| b.is_ascii_hexdigit());
    let end = name.strip_prefix("vnx-").and_then(|rest| rest.strip_prefix(id.as_str()));
    end.and_then(|end| end.strip_prefix('-')).is_some_and(is_random)
}

/// Deletes what a dispatch whose supervisor is lost has left.
pub(super) fn clear(dispatch: &Path, id: &DispatchId) {
    let Ok(Some(bytes)) = files::read_capped(&note(dispatch), 4096) else { return };
    let Ok(noted) = serde_json::from_slice::<Temporary>(&bytes) else { return };
    // Only a folder of such a name, and of ours: the note lies where a worker could write.
    let name = noted.path.file_name().and_then(|name| name.to_str());
    if noted.path.is_absolute() && name.is_some_and(|name| is_name(name, id)) && files::is_own_folder(&noted.path) {
        noted.delete();
    }
}

/// A block of ports on which nobody listened when it was taken. It is held by an abstract socket (unix(7)), a name that
/// is taken as far as its ports are, for all projects and users, and that the kernel releases with the supervisor.
#[derive(Debug)]
struct Block {
    first: u16,
    _held: UnixListener,
}

impl Block {
    /// Takes a free block; `None` when there is none.
    fn take(id: &DispatchId) -> Option<Self> {
        // Not all from the same end: the first ones are taken in most cases.
        let start = id.as_str().bytes().fold(0_u16, |sum, b| sum.wrapping_mul(31).wrapping_add(u16::from(b)));
        (0..BLOCKS).map(|n| (start % BLOCKS + n) % BLOCKS).find_map(|block| {
            let first = FIRST + block * PORTS;
            let name = SocketAddr::from_abstract_name(format!("vnx-ports-{first}")).ok()?;
            let held = UnixListener::bind_addr(&name).ok()?;
            let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            (first..first + PORTS).all(free).then_some(Self { first, _held: held })
        })
    }

    /// The last port.
    fn last(&self) -> u16 {
        self.first + PORTS - 1
    }
}

/// What a dispatch has for itself, from before its first hook until after its last.
#[derive(Debug)]
pub(super) struct Surroundings {
    temporary: Temporary,
    ports: Option<Block>,
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        self.temporary.delete();
    }
}

impl Surroundings {
    /// Takes them.
    pub(super) fn take(dispatch: &Path, id: &DispatchId) -> Result<Self, Fault> {
        Ok(Self { temporary: Temporary::make(dispatch, id)?, ports: Block::take(id) })
    }

    /// Where they are, for the worker and the hooks.
    pub(super) fn variables(&self) -> Result<Vec<(String, String)>, Fault> {
        let mut all = vec![("TMPDIR".to_owned(), path::text(&self.temporary.path)?)];
        if let Some(block) = &self.ports {
            all.push(("VNX_PORT".to_owned(), block.first.to_string()));
            all.push(("VNX_PORTS".to_owned(), format!("{}-{}", block.first, block.last())));
        }
        Ok(all)
    }
}

/// Makes the folders of caches that worktrees share.
pub(super) fn make_caches(setup: &Setup) -> Result<(), Fault> {
    setup.caches.values().try_for_each(|path| Ok(files::private_folder(Path::new(path))?))
}

/// Makes the folders that the sandbox mounts on, under the lock under which they go. One whose parent
/// is missing is left out: then there is nothing to write to either.
pub(super) fn make_mount_points(points: &[String], paths: &Paths) -> Result<(), Fault> {
    if points.is_empty() {
        return Ok(());
    }
    let _held = lock::exclusive(&paths.repo_lock(), Duration::from_mins(1))?;
    for point in points.iter().map(Path::new).filter(|point| !point.exists()) {
        if point.parent().is_some_and(Path::is_dir) {
            std::fs::create_dir(point).at("create", point)?;
        }
    }
    Ok(())
}

/// Takes them away after the last dispatch. What is left, or not empty, harms nobody.
pub(super) fn remove_mount_points(points: &[String], paths: &Paths) {
    if points.is_empty() {
        return;
    }
    let Ok(_held) = lock::exclusive(&paths.repo_lock(), Duration::from_secs(10)) else { return };
    if files::names(&paths.open()).is_ok_and(|open| open.is_empty()) {
        for point in points {
            let _ = std::fs::remove_dir(point);
        }
    }
}
