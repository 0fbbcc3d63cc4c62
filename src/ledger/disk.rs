//! The system calls of the writer, one function each, so that a test can make the n-th of them
//! fail, tear or be the last one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Appends with one call; says how much of it was taken.
pub(super) fn append(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    match fault::next("write")? {
        None => file.write(bytes),
        // What a crash or a full disk leaves: some of it.
        Some(part) => file.write(&bytes[..bytes.len() * part / 100]),
    }
}

/// Makes the file as long as it was.
pub(super) fn truncate(file: &File, len: u64) -> io::Result<()> {
    fault::next("ftruncate")?;
    file.set_len(len)
}

/// Waits for the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    fault::next("fdatasync")?;
    file.sync_data()
}

/// Waits until a new name is on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    fault::next("fsync")?;
    File::open(folder)?.sync_all()
}

/// Gives a file another name, in place of what has it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::next("rename")?;
    std::fs::rename(from, to)
}

/// Reads the whole buffer.
pub(super) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    fault::next("read")?;
    file.read_exact_at(buffer, offset)
}

/// Writes a new file as a whole and waits until it and its name are on the disk.
pub(super) fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fault::next("open")?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    match fault::next("write")? {
        None => file.write_all(bytes)?,
        Some(part) => {
            file.write_all(&bytes[..bytes.len() * part / 100])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    sync(file.as_file())?;
    // What has a name is what was meant: a file is read back before it gets one.
    let mut back = Vec::new();
    File::open(file.path())?.read_to_end(&mut back)?;
    if back != bytes {
        return Err(io::Error::other(format!("{} reads back as other bytes than were written", path.display())));
    }
    fault::next("rename")?;
    file.persist(path)?;
    sync_folder(folder)
}

#[cfg(not(test))]
mod fault {
    /// Nothing fails on purpose outside of tests.
    #[expect(clippy::unnecessary_wraps, reason = "the twin in tests fails")]
    pub(super) fn next(_call: &str) -> std::io::Result<Option<usize>> {
        Ok(None)
    }
}

/// Faults on purpose, for the thread that asks for them.
#[cfg(test)]
pub(super) mod fault {
    use std::cell::RefCell;
    use std::io;

    /// What happens at the chosen call.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in super::super) enum Fault {
        /// It fails with this error, and later ones work.
        Error(i32),
        /// It and all after it fail, as if the process had ended before it.
        Crash,
        /// A write takes this percentage of its bytes, and then the process has ended.
        Tear(usize),
        /// A write takes this percentage of its bytes and says so.
        Short(usize),
    }

    #[derive(Debug, Default)]
    struct Plan {
        calls: usize,
        at: usize,
        fault: Option<Fault>,
        crashed: bool,
        log: Vec<String>,
    }

    thread_local! {
        static PLAN: RefCell<Plan> = RefCell::default();
    }

    /// Runs `work` with a fault at its `at`-th call, from 1. Says which calls were made and whether the
    /// fault came.
    pub(in super::super) fn inject<T>(at: usize, fault: Fault, work: impl FnOnce() -> T) -> (T, Vec<String>, bool) {
        PLAN.with_borrow_mut(|plan| *plan = Plan { at, fault: Some(fault), ..Plan::default() });
        let result = work();
        let plan = PLAN.take();
        let came = plan.calls >= at;
        (result, plan.log, came)
    }

    /// Called before each system call; a percentage means a write of that much.
    pub(super) fn next(call: &str) -> io::Result<Option<usize>> {
        PLAN.with_borrow_mut(|plan| {
            let Some(fault) = plan.fault else { return Ok(None) };
            let dead = || Err(io::Error::from_raw_os_error(5));
            if plan.crashed {
                return dead();
            }
            plan.calls += 1;
            plan.log.push(call.to_owned());
            if plan.calls != plan.at {
                return Ok(None);
            }
            match fault {
                Fault::Error(code) => Err(io::Error::from_raw_os_error(code)),
                Fault::Tear(part) if call == "write" => {
                    plan.crashed = true;
                    Ok(Some(part))
                }
                Fault::Short(part) if call == "write" => Ok(Some(part)),
                Fault::Crash | Fault::Tear(_) => {
                    plan.crashed = true;
                    dead()
                }
                Fault::Short(_) => Ok(None),
            }
        })
    }
}
