//! What git would open and wait for: a pipe, a socket or a device in the place of a file, or a link to one.
//!
//! git opens its files as they come; a named pipe in the place of an index stops it for ever, a device can be read
//! without an end. A worker can put one there, so this is looked at before git is called.

use std::ffi::OsStr;
use std::fs::{DirEntry, FileType, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::Git;

/// More bytes than any file but an index has; git reads them whole.
const LARGE: u64 = 64 << 20;
/// What is given to the name of a thing that was moved out of git's way.
const ASIDE: &str = "vnx-aside";

impl Git {
    /// Moves out of the way what stands for a file in git's own folder of a worktree and is none; returns what was
    /// moved. Nothing in a pipe, a socket or a device can be lost; a link keeps its target.
    pub fn set_aside(git_dir: &Path) -> std::io::Result<Vec<PathBuf>> {
        // The index is read with a bound of its own, by us and by git.
        // `index`, `sharedindex.…` and our own copy of the first one.
        let is_index = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("index"));
        let is_large = |path: &Path, meta: &Metadata| meta.len() > LARGE && !is_index(path);
        let is_odd = |path: &Path, _| match path.metadata() {
            Ok(meta) => !meta.is_file() && !meta.is_dir() || path.parent() == Some(git_dir) && is_large(path, &meta),
            Err(e) => e.kind() != ErrorKind::NotFound,
        };
        let odd = below(git_dir, |entry| entry.file_name() == "objects", is_odd)?;
        for path in &odd {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{ASIDE}"));
            std::fs::rename(path, path.with_file_name(name))?;
        }
        Ok(odd)
    }

    /// The first thing among what all worktrees share that git would wait for. It is left where it is: another tool's,
    /// or a person's, and what it stood for may be lost. `self` is the repository.
    pub fn odd_shared(&self) -> Option<PathBuf> {
        // What else is there is other tools', who may keep millions of files in it.
        let is_gits = |name: &OsStr| ["info", "logs", "refs"].iter().any(|own| name == *own);
        let skip = |entry: &DirEntry| {
            let is_top = entry.path().parent() == Some(&*self.git_dir);
            is_top && entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_gits(&entry.file_name())
        };
        below(&self.git_dir, skip, is_endless).ok()?.into_iter().next()
    }

    /// The first thing in a checkout, or among the objects of its repository, that git would wait for: it opens what
    /// is called `.gitignore`, `.gitattributes` and the like in any folder. Slow, for who waits already.
    pub fn odd_anywhere(&self) -> Option<PathBuf> {
        let objects = self.git_dir.join("objects");
        let in_objects = || below(&objects, |_| false, is_endless).ok()?.into_iter().next();
        let tree = self.work_tree.as_deref();
        let named = |path: &Path, kind| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".git")) && is_endless(path, kind)
        };
        let in_tree = || below(tree?, |_| false, named).ok()?.into_iter().next();
        in_tree().or_else(in_objects)
    }
}

/// Neither a file nor a folder, also through a link. A link to nothing is nothing.
fn is_endless(path: &Path, kind: FileType) -> bool {
    let is_so = |kind: FileType| kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device();
    !kind.is_file() && path.metadata().is_ok_and(|meta| is_so(meta.file_type()))
}

/// What is below a folder and is no folder, as far as `is_wanted` says yes.
fn below(
    folder: &Path,
    skip: impl Fn(&DirEntry) -> bool,
    is_wanted: impl Fn(&Path, FileType) -> bool,
) -> std::io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // git's own daemon listens there, and no git opens it as a file.
            if skip(&entry) || entry.file_name().as_encoded_bytes().starts_with(b"fsmonitor--daemon") {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if is_wanted(&entry.path(), kind) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
