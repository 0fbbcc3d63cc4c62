//! A checkout whose index is held while a branch that it has checked out moves, and which is brought along then.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::merging::{CheckedOut, LIMIT, is_on};
use super::rests::{Rests, differing};
use super::{Git, Result, expect};
use crate::domain::line::quoted;
use crate::sys::cmd::{Cmd, Output};
use crate::sys::files::{self, At, PathError};

/// Its index is ours for as long as this lives: other gits wait or give up, as they do for each other.
#[derive(Debug)]
pub struct Held<'a> {
    place: &'a CheckedOut,
    git: Git,
    /// git has it too while it writes, so that nobody finishes our work before an orphaned git has ended.
    lock: &'a File,
    released: bool,
}

/// Why a checkout cannot be brought along.
#[derive(Debug, thiserror::Error)]
pub enum BehindError {
    /// git did not do it.
    #[error(transparent)]
    Git(#[from] super::GitError),
    /// A file could not be read or written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Somebody works there.
    #[error("{0}")]
    InUse(String),
    /// The index is where it should be, and some files are not.
    #[error("not every file could be written in {}: {why}", place.display())]
    Unwritten {
        /// Where.
        place: PathBuf,
        /// What was said.
        why: String,
    },
}

impl BehindError {
    /// What a person does to bring a checkout along from one commit to another.
    pub fn by_hand(&self, path: &Path, from: &str, to: &str) -> String {
        let path = path.display().to_string();
        let place = quoted(&path);
        match self {
            Self::Unwritten { .. } => format!(
                "`git -C {place} diff --name-status` shows what was not written; `git -C {place} restore FILE` writes it"
            ),
            _ => format!("bring it along with `git -C {place} read-tree -m -u {from} {to}`"),
        }
    }
}

impl<'a> Held<'a> {
    /// Takes the index of a checkout. `word` stands in the lock, so that it is known for ours when we are killed.
    pub fn take(
        place: &'a CheckedOut,
        branch: &str,
        word: &str,
        merge_lock: &'a File,
    ) -> std::result::Result<Self, BehindError> {
        let lock = place.git_dir.join("index.lock");
        let git = Git::tree(&place.git_dir, &place.path);
        let busy = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "sequencer"];
        if let Some(what) = busy.iter().find(|what| place.git_dir.join(what).exists()) {
            return Err(BehindError::InUse(format!("{} is in the middle of something ({what})", place.path.display())));
        }
        // In one step: a lock without our word in it would be anybody's.
        let (own, text) = (place.git_dir.join("index.vnx.word"), format!("vnx {word}\n"));
        files::replace(&own, text.as_bytes())?;
        let linked = std::fs::hard_link(&own, &lock);
        files::remove(&own)?;
        match linked {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Err(BehindError::InUse(format!("another git works in {} (index.lock)", place.path.display())))
            }
            other => {
                other.at("create", &lock)?;
                let held = Self { place, git, lock: merge_lock, released: false };
                // Whoever switched to another branch had the index until now.
                if !is_on(&place.git_dir, branch) {
                    let place = place.path.display();
                    return Err(BehindError::InUse(format!("{place} went to another branch at that very moment")));
                }
                Ok(held)
            }
        }
    }

    /// Takes over what a killed process of ours has left; `None` where it left nothing, or somebody else holds it.
    pub fn take_over(
        place: &'a CheckedOut,
        word: &str,
        merge_lock: &'a File,
    ) -> std::result::Result<Option<Self>, BehindError> {
        files::remove(&place.git_dir.join("index.vnx.word"))?;
        let held = files::read_capped(&place.git_dir.join("index.lock"), 256)?;
        let ours = held.is_some_and(|text| text == format!("vnx {word}\n").as_bytes());
        let git = Git::tree(&place.git_dir, &place.path);
        Ok(ours.then_some(Self { place, git, lock: merge_lock, released: false }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    fn copy(&self) -> PathBuf {
        self.place.git_dir.join("index.vnx")
    }

    /// What a git that was killed has left of the copy's own lock.
    fn unlock_copy(&self) -> std::result::Result<(), PathError> {
        files::remove(&self.place.git_dir.join("index.vnx.lock"))
    }

    fn with_copy(&self) -> Cmd {
        // Nobody else works on the copy; where this fails, git says so.
        let _ = self.unlock_copy();
        self.git.cmd().env("GIT_INDEX_FILE", self.copy()).holding(self.lock.try_clone().ok()).limit(LIMIT)
    }

    fn fresh_copy(&self) -> std::result::Result<(), BehindError> {
        let (index, copy) = (self.place.git_dir.join("index"), self.copy());
        files::remove(&copy)?;
        if index.exists() {
            // With its time: git takes a file for unchanged whose own time is older than that of the index.
            files::copy_with_time(&index, &copy)?;
            // What was only touched is in nobody's way. Its exit code tells that something is changed.
            self.with_copy().args(["update-index", "-q", "--refresh"]).run().map_err(super::GitError::from)?;
        }
        Ok(())
    }

    /// Whether it could go from one commit to another without anything there being lost; nothing is changed.
    pub fn try_forward(&self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        let args = ["read-tree", "-m", "-u", "-n", "--end-of-options", from, to];
        let output = self.with_copy().args(args).run().map_err(super::GitError::from)?;
        if !output.ok() {
            let said = self.changed_in(from, to)?.unwrap_or_else(|| output.complaint());
            return Err(BehindError::InUse(format!(
                "what is not committed in {} is in the way: {said}",
                self.place.path.display()
            )));
        }
        // git may write over what it ignores.
        let tracked = self.tracked()?;
        match self.added(from, to)?.iter().find_map(|path| self.in_the_way(path, &tracked)) {
            None => Ok(()),
            Some(path) => {
                let (path, place) = (path.display(), self.place.path.display());
                Err(BehindError::InUse(format!("{path} would be written over, which is in {place} and not in git")))
            }
        }
    }

    /// What nobody tracks and a new file at `path` would take the place of: a file there or above it, or one below it.
    fn in_the_way(&self, path: &Path, tracked: &BTreeSet<PathBuf>) -> Option<PathBuf> {
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            let there = self.place.path.join(above).symlink_metadata();
            if there.is_ok_and(|meta| !meta.is_dir()) {
                return (!tracked.contains(above)).then(|| above.to_owned());
            }
        }
        let there = self.place.path.join(path).symlink_metadata().ok()?;
        if !there.is_dir() {
            return (!tracked.contains(path)).then(|| path.to_owned());
        }
        let mut folders = vec![path.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(self.place.path.join(&folder)).into_iter().flatten().flatten() {
                let inner = folder.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(inner),
                    _ if tracked.contains(&inner) => {}
                    _ => return Some(inner),
                }
            }
        }
        None
    }

    /// The paths that are changed there and between two commits, in words.
    fn changed_in(&self, from: &str, to: &str) -> Result<Option<String>> {
        let args = ["diff-index", "--name-only", "-z", "--no-renames", "--ignore-submodules=none", from, "--"];
        let here: BTreeSet<PathBuf> =
            paths_of(&expect("diff-index", self.with_copy().args(args).run()?)?).into_iter().collect();
        let differing = differing(&self.git, from, to)?;
        let mut both = differing.iter().filter(|d| here.contains(&d.path));
        let first = both.next().map(|d| d.path.display().to_string());
        let more = both.count();
        Ok(first.map(|path| if more == 0 { path } else { format!("{path} and {more} more") }))
    }

    /// Paths that the second commit has and the first has not.
    fn added(&self, from: &str, to: &str) -> Result<Vec<PathBuf>> {
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=A", from, to, "--"];
        Ok(paths_of(&expect("diff-tree", self.git.cmd().args(args).run()?)?))
    }

    fn tracked(&self) -> Result<BTreeSet<PathBuf>> {
        let output = expect("ls-files", self.with_copy().args(["ls-files", "-z"]).run()?)?;
        Ok(paths_of(&output).into_iter().collect())
    }

    /// Brings files and index from one commit to another; what is changed there beside them stays.
    pub fn forward(self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        let args = ["read-tree", "-m", "-u", "--end-of-options", from, to];
        let output = self.with_copy().args(args).run().map_err(super::GitError::from)?;
        if output.ok() {
            return self.release();
        }
        // One that refuses has written nothing. One that was killed, or could not write, may be anywhere.
        if output.code.is_some() && !Rests::of(&self.git, &self.place.path, from, to)?.begun {
            expect("read-tree", output)?;
        }
        self.finish(from, to)
    }

    /// Does what is left to do where nobody of us holds the index any more: nothing, if the index is where it should be;
    /// everything, if it is where it was.
    pub fn catch_up(self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        let staged = self.staged()?;
        let differing = differing(&self.git, from, to)?;
        if differing.iter().all(|d| staged.get(&d.path) == d.new.as_ref()) {
            return Ok(());
        }
        if differing.iter().all(|d| staged.get(&d.path) == d.old.as_ref()) {
            return self.finish(from, to);
        }
        Err(BehindError::InUse(format!("somebody has changed what is staged in {}", self.place.path.display())))
    }

    /// What the copy has: mode and object, by path.
    fn staged(&self) -> Result<HashMap<PathBuf, (String, String)>> {
        let output = expect("ls-files", self.with_copy().args(["ls-files", "-s", "-z"]).run()?)?;
        let entries = output.stdout.split(|b| *b == 0).filter_map(|entry| {
            let tab = memchr::memchr(b'\t', entry)?;
            let meta = String::from_utf8_lossy(&entry[..tab]);
            let mut words = meta.split(' ').map(str::to_owned);
            Some((PathBuf::from(OsStr::from_bytes(&entry[tab + 1..])), (words.next()?, words.next()?)))
        });
        Ok(entries.collect())
    }

    /// Paths that are in the index and shall not be in the worktree (git-sparse-checkout(1)).
    fn left_out(&self) -> Result<BTreeSet<Vec<u8>>> {
        let output = expect("ls-files", self.with_copy().args(["ls-files", "-t", "-z"]).run()?)?;
        let entries = output.stdout.split(|b| *b == 0);
        Ok(entries.filter_map(|entry| Some(entry.strip_prefix(b"S ")?.to_vec())).collect())
    }

    /// Brings along where another process has done a part of it, whatever part: what is as the first commit has it, or
    /// half written, is written; what somebody has changed since stays, as a change beside the second one.
    pub fn finish(self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        let rests = Rests::of(&self.git, &self.place.path, from, to)?;
        let left_out = self.left_out()?;
        let git = super::GitError::from;
        let told = self.with_copy().args(["update-index", "-z", "--index-info"]).stdin(rests.index);
        expect("update-index", told.run().map_err(git)?)?;
        let (skip, write): (Vec<&[u8]>, Vec<&[u8]>) =
            rests.write.split(|b| *b == 0).filter(|path| !path.is_empty()).partition(|path| left_out.contains(*path));
        let list =
            |paths: &[&[u8]]| paths.iter().flat_map(|path| [path, b"\0".as_slice()].concat()).collect::<Vec<u8>>();
        if !skip.is_empty() {
            let told = self.with_copy().args(["update-index", "-z", "--skip-worktree", "--stdin"]).stdin(list(&skip));
            expect("update-index", told.run().map_err(git)?)?;
        }
        let mut failed = None;
        for path in rests.gone {
            let path = self.place.path.join(path);
            if let Err(e) = files::remove(&path) {
                failed = Some(e.to_string());
            }
            for above in path.ancestors().skip(1).take_while(|above| *above != self.place.path) {
                if std::fs::remove_dir(above).is_err() {
                    break;
                }
            }
        }
        let args = ["checkout-index", "-f", "-q", "-z", "--stdin"];
        let output = self.with_copy().args(args).stdin(list(&write)).run().map_err(git)?;
        if !output.ok() {
            failed = Some(output.complaint());
        }
        // What could not be written is a change beside a commit that is there, and shows as one.
        let place = self.place.path.clone();
        self.release()?;
        failed.map_or(Ok(()), |why| Err(BehindError::Unwritten { place, why }))
    }

    fn release(mut self) -> std::result::Result<(), BehindError> {
        // Its exit code only tells whether something is changed there.
        let _ = self.with_copy().args(["update-index", "-q", "--refresh"]).run();
        files::rename(&self.copy(), &self.place.git_dir.join("index"))?;
        self.unlock_copy()?;
        self.released = true;
        Ok(files::remove(&self.place.git_dir.join("index.lock"))?)
    }
}

fn paths_of(output: &Output) -> Vec<PathBuf> {
    let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.released {
            let _ = files::remove(&self.copy());
            let _ = self.unlock_copy();
            let _ = files::remove(&self.place.git_dir.join("index.lock"));
        }
    }
}
