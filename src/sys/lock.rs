//! Advisory locks (`flock`): released by the kernel when their holder dies, never deleted.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use super::files::{At, PathError};
use crate::domain::Fault;

/// Opens (and, if needed, creates) a lock file without following a link.
pub fn open(path: &Path) -> Result<File, PathError> {
    opened(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600)).at("open", path)
}

fn opened(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    how.custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)).open(path)
}

/// Takes the lock now, or says that somebody holds it.
pub fn try_exclusive(path: &Path) -> Result<Option<File>, PathError> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).at("lock", path),
    }
}

/// Notes in a lock file that was made for one piece of work where it stands.
pub fn note_place(file: &File, path: &Path) -> Result<(), PathError> {
    let meta = file.metadata().at("examine", path)?;
    let here = path.canonicalize().at("examine", path)?;
    let note = [format!("{} {} ", meta.dev(), meta.ino()).as_bytes(), here.as_os_str().as_bytes()].concat();
    file.write_all_at(&note, 0).at("write", path)
}

/// Whether a lock file is a copy of one that stands in another place, where its work may go on: it came here with a copy
/// of its repository. One that was moved is the same file, or has left nothing behind.
pub fn is_copied(file: &File, path: &Path) -> Result<bool, PathError> {
    let meta = file.metadata().at("examine", path)?;
    let mut note = vec![0; usize::try_from(meta.len()).unwrap_or(0).min(1 << 16)];
    file.read_exact_at(&mut note, 0).at("read", path)?;
    let mut parts = note.splitn(3, |b| *b == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (dev, ino) = (number(), number());
    // Its maker was killed before it could say.
    let Some(there) = parts.next() else { return Ok(false) };
    let is_the_one = |file: &Metadata| (Some(file.dev()), Some(file.ino())) == (dev, ino);
    let original = std::fs::symlink_metadata(Path::new(OsStr::from_bytes(there)));
    Ok(!is_the_one(&meta) && original.is_ok_and(|file| is_the_one(&file)))
}

/// Takes the lock, waiting up to `patience`. A lock file that was replaced meanwhile is not the
/// one that others will take: then the new one is.
pub fn exclusive(path: &Path, patience: Duration) -> Result<File, Fault> {
    loop {
        let file = open(path)?;
        exclusive_file(&file, path, patience)?;
        let (held, named) = (file.metadata().at("examine", path)?, std::fs::symlink_metadata(path));
        if named.is_ok_and(|n| (n.dev(), n.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}

/// The same for an open file; `path` is its name in messages. The kernel has no timed `flock`, so
/// whoever does not get it soon lets a thread wait for it, in the kernel's own queue.
pub fn exclusive_file(file: &File, path: &Path, patience: Duration) -> Result<(), Fault> {
    // Locks here are held for microseconds to milliseconds, and a thread costs as much as many tries.
    for _ in 0..100 {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path).map_err(Fault::from),
        }
    }
    let (send, receive) = std::sync::mpsc::channel();
    // The lock belongs to the open file, not to the descriptor: what the thread gets is ours.
    let same = file.try_clone().at("lock", path)?;
    std::thread::spawn(move || {
        let locked = same.lock();
        if send.send(locked).is_err() {
            // Nobody waits any more.
            let _ = same.unlock();
        }
    });
    match receive.recv_timeout(patience) {
        Ok(locked) => Ok(locked.at("lock", path)?),
        Err(_) => Err(Fault::busy(format!("{} is held by another process for {patience:?}", path.display()))
            .fix("see `vnx ps`; the lock is free as soon as its holder ends")),
    }
}

/// Blocks until nobody holds the lock exclusively. Event-driven: the kernel wakes us.
pub fn wait_until_free(path: &Path) -> Result<(), PathError> {
    open(path)?.lock_shared().at("lock", path)
}

/// Whether nobody holds the lock at this moment.
pub fn is_free(path: &Path) -> Result<bool, PathError> {
    // One that is opened for writing wakes whoever waits for a change of its folder, and that may be who looks.
    let file = match opened(path, OpenOptions::new().read(true)) {
        // Nobody holds what is not there.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        other => other.at("open", path)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e).at("lock", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_lock_is_told_from_one_that_was_moved() {
        let temp = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = temp.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            folder.join("lock")
        };
        let copied = |path: &Path| is_copied(&open(path).unwrap(), path).unwrap();
        let path = folder("one");
        let file = open(&path).unwrap();
        assert!(!copied(&path), "nothing is said yet");
        note_place(&file, &path).unwrap();
        assert!(!copied(&path));
        let copy = folder("two");
        std::fs::copy(&path, &copy).unwrap();
        assert!(copied(&copy));
        let moved = folder("three");
        std::fs::rename(&path, &moved).unwrap();
        // To another disk, or brought back from a backup, which is another file in the place of the first.
        assert!(!copied(&moved) && !copied(&copy), "nothing is where it was");
        std::fs::copy(&copy, &path).unwrap();
        assert!(!copied(&path) && !copied(&copy));
        std::fs::write(&path, "1 2").unwrap();
        assert!(!copied(&path));
    }
}
