//! Ignored files of the main checkout in a worktree: put there before the worker starts, taken back before
//! anything is read, so that they neither count as work nor are rescued. What a worker changed is its work,
//! and stays.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Tree, submodules};
use crate::domain::setup::{Moment, Setup, Uncloned};
use crate::domain::{Digest, Fault};
use crate::git::Git;
use crate::sys::clone::{self, Bytes};
use crate::sys::files::{self, At};

/// Where it stands what was put there.
const NOTE: &str = "supplies.json";
/// The largest file that is compared by its content; a larger one is known by its metadata.
const COMPARED: u64 = 4 << 20;

/// One path that was put there, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supplied {
    /// Relative to the worktree.
    pub path: String,
    /// What was done.
    #[serde(flatten)]
    pub how: How,
}

/// What was done with a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum How {
    /// It is a symbolic link to the main checkout.
    Linked,
    /// It is a copy, which looks like this as long as nobody touched it. Without a digest it is nothing that
    /// counts as work anyway.
    Copied {
        /// Of its content, or of the metadata of everything in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
    },
    /// It was left out.
    Left {
        /// Why.
        why: String,
    },
}

/// Puts everything there that the plan names. What fails takes back what was put there before.
pub fn supply(tree: &Tree<'_>, setup: &Setup) -> Result<Vec<Supplied>, Fault> {
    let mut done = Vec::new();
    let all = setup.links.iter().map(|path| (path, true)).chain(setup.copies.iter().map(|path| (path, false)));
    for (path, link) in all {
        match one(tree, setup, path, link) {
            Ok(how) => done.push(Supplied { path: path.clone(), how }),
            Err(fault) => {
                return Err(undone(tree, setup, &done, fault.during(&format!("{path} of the main checkout"))));
            }
        }
    }
    if let Err(fault) = are_ignored(tree, &done) {
        return Err(undone(tree, setup, &done, fault));
    }
    note(tree, &done)?;
    Ok(done)
}

fn undone(tree: &Tree<'_>, setup: &Setup, done: &[Supplied], fault: Fault) -> Fault {
    for supplied in done {
        // What stays counts when the facts are read.
        let _ = back(tree, setup, supplied);
    }
    fault
}

/// Notes what stands there now: hooks may have changed a copy, and that is no work of the worker's either.
pub fn settle(tree: &Tree<'_>, setup: &Setup, done: Vec<Supplied>) -> Result<(), Fault> {
    if setup.hooks.at(Moment::PostCreate).is_empty() {
        return Ok(());
    }
    if setup.submodules {
        submodules::settle(tree)?;
    }
    let again = done.into_iter().map(|supplied| match supplied.how {
        How::Copied { digest: Some(_) } => Supplied { how: copied(tree, &supplied.path), ..supplied },
        _ => supplied,
    });
    note(tree, &again.collect::<Vec<_>>())
}

fn note(tree: &Tree<'_>, done: &[Supplied]) -> Result<(), Fault> {
    if done.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_vec(done).map_err(|e| Fault::internal(format!("the supplies cannot be noted: {e}")))?;
    Ok(files::replace(&tree.scratch.join(NOTE), &json)?)
}

/// Takes everything back that is still as it was put there. What cannot be taken back stays and counts.
pub fn take_back(tree: &Tree<'_>, setup: &Setup) {
    if setup.submodules {
        submodules::take_back(tree);
    }
    if setup.links.is_empty() && setup.copies.is_empty() {
        return;
    }
    let noted = files::read_capped(&tree.scratch.join(NOTE), 16 << 20).ok().flatten();
    let noted: Vec<Supplied> = noted.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    // The note lies where a worker could write; the plan says which paths are meant.
    for supplied in noted.iter().filter(|s| setup.links.contains(&s.path) || setup.copies.contains(&s.path)) {
        let _ = back(tree, setup, supplied);
    }
}

fn back(tree: &Tree<'_>, setup: &Setup, supplied: &Supplied) -> std::io::Result<()> {
    let Some(path) = place(tree.path, &supplied.path) else { return Ok(()) };
    take_away(setup, supplied, &path)?;
    // An empty folder that git ignores would count too.
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != tree.path) {
        if std::fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

fn take_away(setup: &Setup, supplied: &Supplied, path: &Path) -> std::io::Result<()> {
    match &supplied.how {
        // The link goes; what it leads to is not looked at.
        How::Linked if std::fs::read_link(path)? == target(setup, &supplied.path) => std::fs::remove_file(path),
        How::Copied { digest: Some(digest) } if looks_like(path)? == *digest => {
            if path.symlink_metadata()?.is_dir() {
                files::delete_tree(path).map_err(|e| e.source)
            } else {
                std::fs::remove_file(path)
            }
        }
        _ => Ok(()),
    }
}

fn target(setup: &Setup, path: &str) -> PathBuf {
    Path::new(&setup.main).join(path)
}

fn one(tree: &Tree<'_>, setup: &Setup, path: &str, link: bool) -> Result<How, Fault> {
    let source = target(setup, path);
    let main = Path::new(&setup.main);
    // Looked at again: the plan may have waited for a free place.
    let real = match source.canonicalize() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(How::Left { why: "it is gone".to_owned() }),
        real => real.at("open", &source)?,
    };
    if !real.starts_with(main.canonicalize().at("open", main)?) {
        return Err(Fault::environment("a symbolic link leads out of the main checkout"));
    }
    let to = make_place(tree.path, path)?;
    if to.symlink_metadata().is_ok() {
        return Ok(How::Left { why: "it stands there already".to_owned() });
    }
    let to_link = || std::os::unix::fs::symlink(&source, &to).at("create", &to).map(|()| How::Linked);
    if link {
        return Ok(to_link()?);
    }
    let meta = real.metadata().at("examine", &real)?;
    if !meta.is_dir() {
        let mode = if meta.permissions().mode() & 0o100 == 0 { 0o600 } else { 0o700 };
        clone::file(&real, &to, mode, Bytes::SharedOrCopied).at("copy", &real)?;
        return Ok(copied(tree, path));
    }
    let whole = |bytes| {
        clone::folder(&real, &to, bytes).inspect_err(|_| {
            let _ = files::delete_tree(&to);
        })
    };
    match (whole(Bytes::Shared), setup.uncloned) {
        (Err(e), Uncloned::Skip) if e.kind() == ErrorKind::Unsupported => {
            return Ok(How::Left { why: "the file system cannot clone it (worktree.uncloned)".to_owned() });
        }
        (Err(e), Uncloned::Link) if e.kind() == ErrorKind::Unsupported => return Ok(to_link()?),
        (Err(e), Uncloned::Copy) if e.kind() == ErrorKind::Unsupported => {
            whole(Bytes::SharedOrCopied).at("copy", &real)?;
        }
        (other, _) => other.at("copy", &real)?,
    }
    Ok(copied(tree, path))
}

fn copied(tree: &Tree<'_>, path: &str) -> How {
    // What a build makes again never counts, and looking through it would cost as much as copying it.
    let counts = !tree.is_reproducible_folder(Path::new(path));
    // One that cannot be read stays, and counts.
    How::Copied { digest: counts.then(|| looks_like(&tree.path.join(path)).ok()).flatten() }
}

/// The place of a path in a worktree; `None` where a link stands on the way to it.
pub(super) fn place(top: &Path, path: &str) -> Option<PathBuf> {
    let full = top.join(path);
    let folders = full.ancestors().skip(1).take_while(|folder| *folder != top);
    let plain = |folder: &Path| folder.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    folders.into_iter().all(plain).then_some(full)
}

/// The same, its folders made.
fn make_place(top: &Path, path: &str) -> Result<PathBuf, Fault> {
    let mut folder = top.to_owned();
    for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match std::fs::create_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => made.at("create", &folder)?,
        }
        if !folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(Fault::environment(format!("{} is no folder in this commit", folder.display())));
        }
    }
    Ok(top.join(path))
}

/// At another base git may ignore less. A pattern that ends with a slash ignores a folder and not a link.
fn are_ignored(tree: &Tree<'_>, done: &[Supplied]) -> Result<(), Fault> {
    let there = |s: &&Supplied| !matches!(s.how, How::Left { .. });
    let paths: Vec<String> = done.iter().filter(there).map(|s| s.path.clone()).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?
        .ok_or_else(|| Fault::environment("git has no worktree of this dispatch on record"))?;
    let seen = Git::tree(&git_dir, tree.path).not_ignored(&paths)?;
    let Some(path) = seen.first() else { return Ok(()) };
    let linked = done.iter().any(|s| s.path == *path && s.how == How::Linked);
    let because = if linked {
        format!("the link {path} would not be ignored: write its line in .gitignore without a slash at the end")
    } else {
        format!("{path} is not ignored at {}: a worker could commit it", tree.base_name)
    };
    Err(Fault::environment(because).fix("correct .gitignore, or worktree.copy and worktree.link in .vnx/config.yaml"))
}

/// What tells whether somebody touched a path: the content of a small file; else of everything its kind,
/// place, size, inode and the time of its last change, which nobody can set.
fn looks_like(path: &Path) -> std::io::Result<Digest> {
    let meta = path.symlink_metadata()?;
    if meta.is_file() && meta.len() <= COMPARED {
        return Ok(Digest::of(&files::read(path)?));
    }
    let mut text = Vec::new();
    list(path, &mut text)?;
    Ok(Digest::of(&text))
}

pub(super) fn list(path: &Path, text: &mut Vec<u8>) -> std::io::Result<()> {
    let meta = path.symlink_metadata()?;
    text.extend_from_slice(path.as_os_str().as_encoded_bytes());
    if !meta.is_dir() {
        let (size, inode, mode) = (meta.len(), meta.ino(), meta.mode());
        return write!(text, "\0{size} {inode} {mode} {}.{}\0", meta.ctime(), meta.ctime_nsec());
    }
    // A folder's own time changes with what lies in it, which is listed.
    write!(text, "\0{}\0", meta.mode())?;
    let mut below: Vec<PathBuf> = std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    below.sort();
    below.iter().try_for_each(|path| list(path, text))
}
