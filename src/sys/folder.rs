//! Folders by what they are, not by what they are called: device and inode, opened step by step beneath a
//! descriptor, through no link and into no other file system.
//!
//! Every folder that vnx deletes goes through [`delete`]. A worker may write beside its worktree, so whatever has
//! a name there may have been replaced by anything else since the name was looked up.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::files::{At, PathError};

/// So many levels are held open; what lies deeper is moved up before it is deleted.
const DEPTH: usize = 100;

/// Which folder it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderId {
    dev: u64,
    ino: u64,
}

impl FolderId {
    /// The folder at a path. A link to one is none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::open(path, FOLDER.union(OFlags::PATH), Mode::empty())?;
        Ok(place(folder.as_fd())?.id)
    }
}

/// Which folder it is, whatever its name, also after the machine was started anew (a device may have another number
/// then); a copy is another one. An inode alone is given to the next folder when this one is deleted, so the time of
/// birth is part of it where the file system keeps that. `None` where there is no folder.
pub fn lasting_id(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    let born = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Some(format!("{}:{}", found.ino(), born.as_nanos()))
}

/// Where a folder is: a bind mount has the device of what it shows, and a mount id of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    id: FolderId,
    /// 0 where the kernel does not tell (before Linux 5.8).
    mount: u64,
}

impl Place {
    fn is_with(self, other: Self) -> bool {
        self.id.dev == other.id.dev && self.mount == other.mount
    }
}

fn place(folder: BorrowedFd<'_>) -> io::Result<Place> {
    let stat = rustix::fs::fstat(folder)?;
    let wanted = StatxFlags::MNT_ID;
    let mount = match rustix::fs::statx(folder, c"", AtFlags::EMPTY_PATH, wanted) {
        Ok(told) if StatxFlags::from_bits_retain(told.stx_mask).contains(wanted) => told.stx_mnt_id,
        _ => 0,
    };
    Ok(Place { id: FolderId { dev: stat.st_dev, ino: stat.st_ino }, mount })
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the folder at a path, through links on the way to it and through none at its end.
fn open_top(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FOLDER, Mode::empty())?)
}

/// Renames what stands at a path, where nothing stands at the other.
pub fn rename_new(from: &Path, to: &Path) -> Result<(), PathError> {
    let cwd = rustix::fs::CWD;
    let renamed = match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        // Not every file system can promise that; then a look before is what there is.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => rustix::fs::rename(from, to),
        other => other,
    };
    renamed.map_err(io::Error::from).at("rename", from)
}

/// Deletes the folder at `path` with everything in it, read-only folders included, if it is `known`; without that
/// only what lies in our own state, which is ours whatever it is. Links are deleted as links, and what is mounted
/// below stays, with the folders that lead to it. A missing folder is fine.
pub fn delete(path: &Path, known: Option<FolderId>) -> Result<(), PathError> {
    delete_at(path, known).at("delete", path)
}

fn delete_at(path: &Path, known: Option<FolderId>) -> io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let above = match rustix::fs::open(above, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let name = CString::new(name.as_bytes())?;
    let top = match open_inner(&above, &name) {
        Err(Errno::NOENT) => return Ok(()),
        // In our own state a link is ours as well, and what it leads to is not.
        Err(Errno::NOTDIR | Errno::LOOP) if known.is_none() => return unlink(&above, &name, AtFlags::empty()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(io::Error::other("it is no folder, or a link to one")),
        other => other?,
    };
    let at = place(top.as_fd())?;
    if known.is_some_and(|known| known != at.id) {
        return Err(io::Error::other("it is not the folder that is on record"));
    }
    if !at.is_with(place(above.as_fd())?) {
        return Err(io::Error::other("another file system is mounted there"));
    }
    let mut deletion = Deletion { top: top.try_clone()?, at, moved: 0, failed: None };
    loop {
        let before = deletion.moved;
        deletion.empty(&top, 0);
        if deletion.moved == before || deletion.failed.is_some() {
            break;
        }
    }
    deletion.failed.map_or(Ok(()), Err)?;
    unlink(&above, &name, AtFlags::REMOVEDIR)
}

/// Opens a folder in a folder; one that may not be read is made readable, as whoever deletes it owns it.
fn open_inner(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(folder, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let it = rustix::fs::openat(folder, name, FOLDER.union(OFlags::PATH), Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&it)), Mode::RWXU)?;
            rustix::fs::openat(folder, name, FOLDER, Mode::empty())
        }
        other => other,
    }
}

struct Deletion {
    top: OwnedFd,
    at: Place,
    /// How many folders were moved up.
    moved: u64,
    /// What went wrong first. One entry that cannot be deleted does not keep the others.
    failed: Option<io::Error>,
}

impl Deletion {
    fn empty(&mut self, folder: &OwnedFd, depth: usize) {
        let names = match list(folder) {
            Ok(names) => names,
            Err(e) => {
                self.failed.get_or_insert(e);
                return;
            }
        };
        for (name, kind) in names {
            if let Err(e) = self.entry(folder, &name, kind, depth) {
                self.failed.get_or_insert(e);
            }
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &CStr, kind: FileType, depth: usize) -> io::Result<()> {
        let is_folder = match kind {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        if !is_folder {
            return unlink(folder, name, AtFlags::empty());
        }
        let inner = match open_inner(folder, name) {
            // Another command is at it too.
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if !place(inner.as_fd())?.is_with(self.at) {
            let name = String::from_utf8_lossy(name.to_bytes()).into_owned();
            return Err(io::Error::other(format!("another file system is mounted below it, at {name}")));
        }
        if depth >= DEPTH {
            return self.move_up(folder, name, &inner);
        }
        self.empty(&inner, depth + 1);
        // What could not be emptied is told by what went wrong in it.
        match unlink(folder, name, AtFlags::REMOVEDIR) {
            Err(_) if self.failed.is_some() => Ok(()),
            other => other,
        }
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr, inner: &OwnedFd) -> io::Result<()> {
        rustix::fs::fchmod(inner, Mode::RWXU)?;
        loop {
            self.moved += 1;
            let to = format!(".vnx-deep-{}", self.moved);
            match rustix::fs::renameat_with(folder, name, &self.top, to, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
        }
    }
}

fn unlink(folder: &OwnedFd, name: &CStr, how: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, how) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(folder, Mode::RWXU)?;
            Ok(rustix::fs::unlinkat(folder, name, how)?)
        }
        other => Ok(other?),
    }
}

fn list(folder: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            all.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(all)
}

/// A moment by the clock from which the kernel takes the times of files, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileTime(i64);

impl FileTime {
    /// No change that comes later gets an earlier time. One that came just before may have the same.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Self(now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec))
    }

    /// A later time: waits until this clock, which moves every few milliseconds, has moved on since this one.
    #[must_use]
    pub fn next(self) -> Self {
        loop {
            let now = Self::now();
            if now != self {
                return now;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// When something was last changed, in content, name or place: nobody can set this time.
    fn of(stat: &Stat) -> Self {
        let nanoseconds = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
        Self(stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }
}

/// The first thing below a folder that was changed at that time or later; none of it within what `skip` names. The
/// folder itself is not among them: it may have been renamed since.
pub fn changed_since(folder: &Path, since: FileTime, skip: &BTreeSet<PathBuf>) -> Result<Option<PathBuf>, PathError> {
    let look = || changed_in(&open_top(folder)?, Path::new(""), since, skip);
    look().at("examine", folder)
}

fn changed_in(
    folder: &OwnedFd,
    below: &Path,
    since: FileTime,
    skip: &BTreeSet<PathBuf>,
) -> io::Result<Option<PathBuf>> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let path = || below.join(OsStr::from_bytes(name.to_bytes()));
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_folder && skip.contains(&path()) {
            continue;
        }
        if FileTime::of(&stat) >= since {
            return Ok(Some(path()));
        }
        if is_folder {
            let inner = rustix::fs::openat(folder, name, FOLDER, Mode::empty())?;
            let found = changed_in(&inner, &path(), since, skip)?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// A folder that is held open: what is read in it is what lies below it, whatever becomes of its name.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// What stands at a path.
#[derive(Debug)]
pub enum Stands {
    /// A regular file, open for reading.
    File(std::fs::File),
    /// A symbolic link and where it leads.
    Link(CString),
    /// A folder.
    Folder,
    /// A socket, a pipe or a device.
    Special,
    /// Nothing; also where a link stands on the way to it.
    Nothing,
}

impl Folder {
    /// Opens the folder at a path; a link to one is none.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        open_top(path).map(Self).at("open", path)
    }

    /// What stands at a path below it. Nothing but a regular file is opened.
    pub fn look(&self, path: &Path) -> io::Result<Stands> {
        let mut parts = path.components().peekable();
        let mut within: Option<OwnedFd> = None;
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
            let folder = within.as_ref().unwrap_or(&self.0);
            if parts.peek().is_none() {
                return look_at(folder, name);
            }
            within = match rustix::fs::openat(folder, name, FOLDER.union(OFlags::PATH), Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Stands::Nothing),
                other => Some(other?),
            };
        }
        Ok(Stands::Folder)
    }
}

fn look_at(folder: &OwnedFd, name: &OsStr) -> io::Result<Stands> {
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Stands::Nothing),
        other => other?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Ok(Stands::Link(rustix::fs::readlinkat(folder, name, Vec::new())?)),
        FileType::Directory => return Ok(Stands::Folder),
        _ => return Ok(Stands::Special),
    }
    // Another thing may stand there by now; a pipe must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok(Stands::File(file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn world() -> (tempfile::TempDir, PathBuf) {
        let world = tempfile::tempdir().unwrap();
        let path = world.path().canonicalize().unwrap();
        (world, path)
    }

    fn file(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "precious").unwrap();
    }

    #[test]
    fn only_the_folder_on_record_goes_and_no_link_is_followed() {
        let (_world, at) = world();
        file(&at.join("victim/p"));
        file(&at.join("ours/a/b"));
        symlink(at.join("victim"), at.join("ours/link")).unwrap();
        let id = FolderId::of(&at.join("ours")).unwrap();
        std::fs::rename(at.join("ours"), at.join("moved")).unwrap();
        file(&at.join("ours/new"));
        assert!(delete(&at.join("ours"), Some(id)).is_err(), "another folder of this name");
        symlink(at.join("moved"), at.join("way")).unwrap();
        assert!(delete(&at.join("way"), Some(id)).is_err(), "a link to it");
        delete(&at.join("moved"), Some(id)).unwrap();
        delete(&at.join("moved"), Some(id)).unwrap();
        assert!(at.join("ours/new").exists() && at.join("victim/p").exists() && !at.join("moved").exists());
    }

    #[test]
    fn folders_that_may_not_be_read_and_very_deep_ones_go_too() {
        let (_world, at) = world();
        file(&at.join("ours/closed/inner/f"));
        for closed in ["ours/closed/inner", "ours/closed"] {
            std::fs::set_permissions(at.join(closed), std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        // Deeper than a path can name.
        let mut deep = open_top(&at.join("ours")).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&deep, "a", Mode::RWXU).unwrap();
            deep = rustix::fs::openat(&deep, "a", FOLDER, Mode::empty()).unwrap();
        }
        drop(deep);
        delete(&at.join("ours"), None).unwrap();
        assert!(!at.join("ours").exists());
    }

    #[test]
    fn a_change_after_a_moment_is_seen_wherever_it_is_and_none_before_it() {
        let (_world, at) = world();
        file(&at.join("t/a/f"));
        file(&at.join("t/target/x"));
        file(&at.join("elsewhere/old"));
        while FileTime::now() <= FileTime::of(&rustix::fs::lstat(at.join("elsewhere/old")).unwrap()) {
            std::thread::yield_now();
        }
        let (since, skip) = (FileTime::now(), BTreeSet::from([PathBuf::from("target")]));
        let changed = || changed_since(&at.join("t"), since, &skip).unwrap();
        file(&at.join("t/target/y"));
        assert_eq!(changed(), None, "what is skipped");
        std::fs::rename(at.join("elsewhere"), at.join("t/a/moved")).unwrap();
        assert!(changed().is_some(), "an old file that came with its folder");
        std::fs::rename(at.join("t/a/moved"), at.join("elsewhere")).unwrap();
        std::fs::write(at.join("t/a/f"), "changed!").unwrap();
        assert!(changed().is_some_and(|path| path.starts_with("a")));
    }

    #[test]
    fn nothing_is_read_through_a_link_and_nothing_waits_for_a_pipe() {
        let (_world, at) = world();
        file(&at.join("secret/f"));
        file(&at.join("t/a/f"));
        rustix::fs::mknodat(rustix::fs::CWD, at.join("t/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let folder = Folder::open(&at.join("t")).unwrap();
        assert!(matches!(folder.look(Path::new("a/f")).unwrap(), Stands::File(_)));
        assert!(matches!(folder.look(Path::new("pipe")).unwrap(), Stands::Special));
        assert!(matches!(folder.look(Path::new("a")).unwrap(), Stands::Folder));
        std::fs::remove_dir_all(at.join("t/a")).unwrap();
        symlink(at.join("secret"), at.join("t/a")).unwrap();
        assert!(matches!(folder.look(Path::new("a/f")).unwrap(), Stands::Nothing));
        assert!(matches!(folder.look(Path::new("a")).unwrap(), Stands::Link(_)));
        assert!(folder.look(Path::new("../secret/f")).is_err());
        assert!(Folder::open(&at.join("t/a")).is_err());
    }
}
