//! Advisory locks (`flock`): released by the kernel when their holder dies, never deleted.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
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
    // A pipe in its place is not waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    how.custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(path)
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

/// Notes in a lock that is held which one it is, and where it stands, for [`is_copied`].
pub fn note_place(file: &File, path: &Path) -> Result<(), PathError> {
    let here = path.canonicalize().at("examine", path)?;
    let note = [name_of(file).at("examine", path)?.as_bytes(), b" ", here.as_os_str().as_bytes()].concat();
    file.write_all_at(&note, 0).at("write", path)?;
    file.set_len(note.len() as u64).at("write", path)
}

/// Whether a lock that is held now is a copy of another one, which came here with a copy of its repository: the other
/// one is held as well, or stands where it was made. What it guards is not here then. One that was moved is the same
/// file, or has left nothing behind.
pub fn is_copied(file: &File, path: &Path) -> Result<bool, PathError> {
    let length = file.metadata().at("examine", path)?.len();
    let mut note = vec![0; usize::try_from(length).unwrap_or(0).min(1 << 16)];
    file.read_exact_at(&mut note, 0).at("read", path)?;
    let mut parts = note.splitn(2, |b| *b == b' ');
    // Its maker was killed before it could say.
    let (Some(name), Some(there)) = (parts.next(), parts.next()) else { return Ok(false) };
    if name == name_of(file).at("examine", path)?.as_bytes() {
        return Ok(false);
    }
    let (name, there) = (String::from_utf8_lossy(name), Path::new(OsStr::from_bytes(there)));
    let held = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let is_held = held.split_whitespace().any(|word| word == name);
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let mine = file.metadata().at("examine", path)?;
    Ok(is_held || std::fs::symlink_metadata(there).is_ok_and(|other| !same(&mine, &other)))
}

/// What the kernel calls the file of a lock that is held (proc(5), `/proc/locks` and `/proc/pid/fdinfo`): file systems
/// may tell another device in their metadata. Where it does not say, device and inode.
fn name_of(file: &File) -> io::Result<String> {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("lock:"));
    let is_name = |word: &&str| word.split(':').filter(|part| !part.is_empty()).count() == 3;
    if let Some(name) = line.and_then(|line| line.split_whitespace().find(is_name)) {
        return Ok(name.to_owned());
    }
    let meta = file.metadata()?;
    Ok(format!("{}:{}", meta.dev(), meta.ino()))
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
    let waiting = move || {
        let locked = same.lock();
        if send.send(locked).is_err() {
            // Nobody waits any more.
            let _ = same.unlock();
        }
    };
    super::thread(waiting)?;
    match receive.recv_timeout(patience) {
        Ok(locked) => Ok(locked.at("lock", path)?),
        Err(_) => Err(Fault::busy(format!("{} is held by another process for {patience:?}", path.display()))
            .fix("see `vnx ps`; the lock is free as soon as its holder ends")),
    }
}

/// Blocks until nobody holds the lock exclusively: the kernel wakes us. Now and then it asks whether to wait on.
pub fn wait_until_free(
    path: &Path,
    every: Duration,
    mut go_on: impl FnMut() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let file = open(path)?;
    if file.try_lock_shared().is_ok() {
        return Ok(());
    }
    let (send, receive) = std::sync::mpsc::channel();
    super::thread(move || {
        // The lock goes with the file.
        let _ = send.send(file.lock_shared());
    })?;
    loop {
        match receive.recv_timeout(every) {
            Ok(locked) => return Ok(locked.at("lock", path)?),
            Err(_) => go_on()?,
        }
    }
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
        let copied = |path: &Path| is_copied(&try_exclusive(path).unwrap().unwrap(), path).unwrap();
        let path = folder("one");
        let held = try_exclusive(&path).unwrap().unwrap();
        note_place(&held, &path).unwrap();
        assert!(!is_copied(&held, &path).unwrap());
        let (copy, moved) = (folder("two"), folder("three"));
        std::fs::copy(&path, &copy).unwrap();
        assert!(copied(&copy));
        // Wherever the original is, its work goes on, also where it is deleted and a copy of it stands in its place.
        std::fs::rename(&path, &moved).unwrap();
        assert!(!is_copied(&held, &moved).unwrap() && copied(&copy));
        std::fs::remove_file(&moved).unwrap();
        std::fs::copy(&copy, &path).unwrap();
        assert!(copied(&path) && copied(&copy));
        drop(held);
        // Nothing goes on: one of them is in its place, and the other one is not.
        assert!(!copied(&path) && copied(&copy));
        // Moved to another disk.
        std::fs::remove_file(&path).unwrap();
        assert!(!copied(&copy));
        for text in ["", "1", "1:2:3"] {
            std::fs::write(&copy, text).unwrap();
            assert!(!copied(&copy), "{text:?}: nothing is said yet");
        }
    }
}
