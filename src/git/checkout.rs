//! The files of a new worktree, by git or, where nothing but their bytes is asked for, by ourselves.
//!
//! git writes one file after the other, or hands them to helpers one by one. In a large repository most
//! of the time goes into making files, which several threads do at once.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::content::Entry;
use super::forms::{Attributes, asks_for_another_form};
use super::index::{self, GITLINK};
use super::objects::hash;
use super::{Git, GitConfig, Result, expect, unreadable};
use crate::domain::setup::Lfs;

/// From this size on of the main checkout's index (about 80 bytes a file) several threads are worth their start.
const LARGE: u64 = 100_000;

/// How many processes git uses in a large one.
fn workers(large: bool) -> usize {
    if large { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 }
}

impl Git {
    /// Writes the files of HEAD, which is `commit`, into a worktree that git has just registered. `self`
    /// is the worktree.
    pub fn populate(&self, common_dir: &Path, commit: &str, lfs: Lfs, held: Option<File>) -> Result<()> {
        let large = std::fs::metadata(common_dir.join("index")).is_ok_and(|m| m.len() > LARGE);
        // Where our own way ends early, git goes all of it, and says what is wrong.
        if large && self.write_plain(common_dir, commit).is_ok_and(|done| done) {
            return Ok(());
        }
        self.checkout_files(workers(large), lfs, held)
    }

    /// Writes the files of HEAD into a registered worktree, whatever is there. `self` is the worktree.
    pub fn checkout_files(&self, workers: usize, lfs: Lfs, held: Option<File>) -> Result<()> {
        // Of a partial clone, what is missing is fetched, as git does for whoever checks out by hand.
        let mut cmd = self.cmd().env("GIT_NO_LAZY_FETCH", "0");
        if lfs == Lfs::Skip {
            cmd = cmd.env("GIT_LFS_SKIP_SMUDGE", "1");
        }
        let output = cmd
            .args(["-c", &format!("checkout.workers={workers}")])
            .args(["reset", "--hard", "--quiet", "--no-recurse-submodules", "HEAD", "--"])
            .limit(Duration::from_mins(30))
            .holding(held)
            .run()?;
        expect("reset", output).map(drop)
    }

    /// A tracked file for each filter without which git writes none of those that it is for, but git-lfs's (which
    /// [`Lfs`] is about). `self` is a worktree that has its files.
    pub fn filtered_files(&self, config: &GitConfig) -> Result<Vec<PathBuf>> {
        let first_of = |filter: &str| {
            let of_filter = format!(":(top,attr:filter={filter})");
            let listed = expect("ls-files", self.cmd().args(["ls-files", "-z", "--", &of_filter]).run()?)?;
            let first = listed.stdout.split(|b| *b == 0).find(|path| !path.is_empty());
            Ok(first.map(|path| PathBuf::from(OsStr::from_bytes(path))))
        };
        let filters = config.required_filters().filter(|filter| *filter != "lfs");
        filters.filter_map(|filter| first_of(filter).transpose()).collect()
    }

    /// Writes some files of a commit, with an index of all of it: that has the attributes. `self` is the worktree.
    pub fn checkout_some(&self, commit: &str, paths: &[PathBuf]) -> Result<()> {
        expect("read-tree", self.cmd().args(["read-tree", commit]).run()?)?;
        expect("checkout-index", self.cmd().args(["checkout-index", "--quiet", "--"]).args(paths).run()?).map(drop)
    }

    /// Writes the files of a commit as they are stored, with an index that says so. `false` where git would
    /// write them in another form, or not all of them, or none with such a name.
    pub(super) fn write_plain(&self, common_dir: &Path, commit: &str) -> Result<bool> {
        let tree = self.work_tree.as_deref().ok_or_else(|| unreadable("checkout"))?;
        if self.git_dir.join("info").exists() {
            return Ok(false);
        }
        let (config, places, root, listed) = std::thread::scope(|scope| {
            let config = crate::sys::beside(scope, || self.config());
            let places = crate::sys::beside(scope, || self.attributes(common_dir));
            let root = crate::sys::beside(scope, || self.tree_of(commit));
            let listed = self.files_and_folders_of(commit);
            (config.join(), places.join(), root.join(), listed)
        });
        let (Ok(config), Ok(places), Ok(root)) = (config, places, root) else {
            return Err(unreadable("checkout"));
        };
        let (config, places, root, listed) = (config?, places?, root?, listed?);
        if config.writes_otherwise() || !listed.iter().all(is_plain) || self.has_other_forms(&places, &listed)? {
            return Ok(false);
        }
        let wanted: Vec<(&Entry, PathBuf)> =
            listed.iter().filter(|e| !e.is_folder()).map(|entry| (entry, tree.join(&entry.path))).collect();
        let Ok(metas) = self.write_out(&wanted) else { return Ok(false) };
        let written: Vec<(&Entry, Option<Metadata>)> = wanted.iter().map(|(entry, _)| *entry).zip(metas).collect();
        self.write_index(&written, &folders(&root, &listed)).map(|()| true)
    }

    /// Whether attributes may ask for another form of any file.
    fn has_other_forms(&self, places: &Attributes, listed: &[Entry]) -> Result<bool> {
        let of_tree = listed.iter().filter(|e| e.path.file_name().is_some_and(|name| name == ".gitattributes"));
        let oids: Vec<&str> = of_tree.filter(|e| !e.is_gitlink() && !e.is_folder()).map(|e| e.oid.as_str()).collect();
        let mut found = places.ask_for_another_form();
        self.contents(oids, |_, content| {
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            found |= asks_for_another_form(&text);
            Ok(())
        })?;
        Ok(found)
    }

    /// Writes the index of files that have just been written (format: gitformat-index(5), version 2).
    fn write_index(&self, written: &[(&Entry, Option<Metadata>)], folders: &[u8]) -> Result<()> {
        let bad = || unreadable("index");
        let mut bytes = index::header(written.len()).ok_or_else(bad)?;
        for (entry, meta) in written {
            let oid = raw(&entry.oid).ok_or_else(bad)?;
            let mode = match entry.mode {
                0o120_000 | GITLINK => entry.mode,
                mode if mode & 0o100 != 0 => 0o100_755,
                _ => 0o100_644,
            };
            index::entry(&mut bytes, meta.as_ref(), mode, &oid, entry.path.as_os_str().as_bytes());
        }
        bytes.extend_from_slice(b"TREE");
        bytes.extend_from_slice(&u32::try_from(folders.len()).map_err(|_| bad())?.to_be_bytes());
        bytes.extend_from_slice(folders);
        let length = written.first().map_or(20, |(entry, _)| entry.oid.len() / 2);
        let sum = hash(&[&bytes], length).ok_or_else(bad)?;
        // As git does it: whoever finds the lock waits or is refused.
        let (lock, path) = (self.git_dir.join("index.lock"), self.git_dir.join("index"));
        let mut file = File::create_new(&lock).map_err(|_| bad())?;
        let done = file.write_all(&bytes).and_then(|()| file.write_all(&sum));
        done.and_then(|()| std::fs::rename(&lock, &path)).map_err(|_| {
            let _ = std::fs::remove_file(&lock);
            bad()
        })
    }
}

/// No name that git refuses, or might: its own folder in whatever spelling, and links in the place of its files.
fn is_plain(entry: &Entry) -> bool {
    entry.path.as_os_str().as_bytes().split(|b| *b == b'/').all(|part| {
        let dot_git = part.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b".git"));
        let refused =
            dot_git && (entry.is_link() || part.get(4).is_none_or(|b| !(b.is_ascii_alphanumeric() || *b == b'-')));
        let short = part.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"git~"));
        !(matches!(part, b"" | b"." | b"..") || refused || short)
    })
}

/// The index's cached tree: every folder with how many files and folders are in it, and its object.
fn folders(root: &str, listed: &[Entry]) -> Vec<u8> {
    struct Folder<'a> {
        path: &'a Path,
        oid: &'a str,
        files: usize,
        folders: usize,
    }
    let mut all = vec![Folder { path: Path::new(""), oid: root, files: 0, folders: 0 }];
    // The folders that the present place is in, the nearest last.
    let mut within = vec![0];
    for entry in listed {
        while within.len() > 1 && within.last().is_some_and(|at| !entry.path.starts_with(all[*at].path)) {
            within.pop();
        }
        if entry.is_folder() {
            if let Some(above) = within.last() {
                all[*above].folders += 1;
            }
            within.push(all.len());
            all.push(Folder { path: &entry.path, oid: &entry.oid, files: 0, folders: 0 });
        } else {
            for at in &within {
                all[*at].files += 1;
            }
        }
    }
    let mut bytes = Vec::new();
    for folder in all {
        bytes.extend_from_slice(folder.path.file_name().unwrap_or_default().as_bytes());
        bytes.extend_from_slice(format!("\0{} {}\n", folder.files, folder.folders).as_bytes());
        bytes.extend(raw(folder.oid).unwrap_or_default());
    }
    bytes
}

/// A name of an object as bytes.
fn raw(oid: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| u8::from_str_radix(oid.get(at..at + 2)?, 16).ok();
    (0..oid.len()).step_by(2).map(digit).collect()
}
