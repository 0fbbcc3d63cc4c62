//! Copies that share their bytes with the original until one of them is written to (reflinks).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::files::open_regular;

/// Whether a file must share its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// It must: where the file system cannot, that is an error of the kind `Unsupported`.
    Shared,
    /// Where it cannot, they are written again.
    SharedOrCopied,
}

/// Copies a regular file to a name that must be free, with this mode and the time of the original.
pub fn file(from: &Path, to: &Path, mode: u32, bytes: Bytes) -> io::Result<()> {
    let mut source = open_regular(from)?;
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    let filled = fill(&mut source, &mut target, bytes);
    if filled.is_err() {
        let _ = fs::remove_file(to);
    }
    filled?;
    // Build tools go by it.
    source.metadata()?.modified().and_then(|at| target.set_modified(at))
}

fn fill(source: &mut File, target: &mut File, bytes: Bytes) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(&*target, &*source) {
        Ok(()) => Ok(()),
        Err(_) if bytes == Bytes::SharedOrCopied => io::copy(source, target).map(drop),
        // Another file system, or one without reflinks: each says so in its own way.
        Err(e) => Err(io::Error::new(io::ErrorKind::Unsupported, io::Error::from(e))),
    }
}

/// Copies a folder to a name that must be free. Links are copied as links and never followed; what is
/// neither file, folder nor link (a socket) is left out.
pub fn folder(from: &Path, to: &Path, bytes: Bytes) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, from, to) = (entry.file_type()?, entry.path(), to.join(entry.file_name()));
        if kind.is_dir() {
            folder(&from, &to, bytes)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_file() {
            file(&from, &to, entry.metadata()?.permissions().mode() & 0o777, bytes)?;
        }
    }
    // Last: a folder without write permission takes nothing in.
    fs::set_permissions(to, fs::symlink_metadata(from)?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_as_it_is_and_its_links_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("from/deep")).unwrap();
        fs::write(at("from/deep/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("from/deep/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("from/empty"), "").unwrap();
        std::os::unix::fs::symlink("/etc", at("from/etc")).unwrap();
        fs::set_permissions(at("from/deep"), fs::Permissions::from_mode(0o555)).unwrap();
        folder(&at("from"), &at("to"), Bytes::SharedOrCopied).unwrap();
        let meta = |name: &str| fs::symlink_metadata(at(name)).unwrap();
        assert_eq!(fs::read(at("to/deep/run")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(meta("to/deep/run").permissions().mode() & 0o777, 0o755);
        assert_eq!(meta("to/deep").permissions().mode() & 0o777, 0o555);
        assert_eq!(meta("to/deep/run").modified().unwrap(), meta("from/deep/run").modified().unwrap());
        assert_eq!(fs::read_link(at("to/etc")).unwrap(), Path::new("/etc"));
        // Where the file system cannot share, it says so in one way, and no half file is left.
        match file(&at("from/deep/run"), &at("shared"), 0o600, Bytes::Shared) {
            Ok(()) => assert_eq!(fs::read(at("shared")).unwrap(), b"#!/bin/sh\n"),
            Err(e) => assert!(e.kind() == io::ErrorKind::Unsupported && !at("shared").exists(), "{e}"),
        }
        assert!(file(&at("from/empty"), &at("to/empty"), 0o600, Bytes::SharedOrCopied).is_err(), "nothing is replaced");
        for folder in ["from/deep", "to/deep"] {
            fs::set_permissions(at(folder), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}
