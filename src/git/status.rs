//! `git status --porcelain=v2 -z`: one call that tells HEAD, changes, untracked and ignored files.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::index::Index;
use super::{Git, GitError, Result, expect, unreadable};
use crate::sys::files;

/// Where HEAD is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadAt {
    /// On this branch (short name).
    Branch(String),
    /// On no branch.
    Detached,
}

/// A tracked file that differs from HEAD, in the index or on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The file, below the worktree.
    pub path: PathBuf,
    /// Objects that the index names for it and HEAD does not.
    pub staged: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// HEAD's commit; `None` on an unborn branch.
    pub commit: Option<String>,
    /// Where HEAD is.
    pub head: HeadAt,
    /// Tracked files that differ from HEAD.
    pub changed: Vec<Changed>,
    /// Files that are neither tracked nor ignored; a repository within ends in a slash.
    pub untracked: Vec<PathBuf>,
    /// Ignored files and folders.
    pub ignored: Vec<PathBuf>,
}

/// What `git status` does not look behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Files under assume-unchanged or skip-worktree: their changes are not reported.
    pub flagged: Vec<PathBuf>,
    /// Submodules and nested repositories that stand in the index.
    pub gitlinks: Vec<PathBuf>,
}

/// The index of a worktree, as far as a status depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// What a status would overlook.
    pub hidden: Hidden,
    /// The index as it was read, if we read it ourselves.
    pub(super) index: Option<Index>,
    /// The index for the status, if git's own would make it read every file again.
    settled: Option<Vec<u8>>,
}

impl Git {
    /// Reads the index and the timestamps of the files in it; runs nothing that the repository
    /// names. `hash` is the length of an object name in bytes.
    pub fn staged(&self, hash: usize) -> Result<Staged> {
        let tree = self.work_tree.as_deref().ok_or_else(|| unreadable("status"))?;
        match Index::read(&self.git_dir.join("index"), hash) {
            Some(index) => Ok(Staged { hidden: index.hidden(), settled: index.settled(tree), index: Some(index) }),
            None => Ok(Staged { hidden: self.hidden()?, settled: None, index: None }),
        }
    }

    /// Reads the status of the worktree; settings of the repository cannot hide anything.
    pub fn status(&self, staged: &Staged) -> Result<Status> {
        let args = [
            "status",
            "--porcelain=v2",
            "--branch",
            "-z",
            "--untracked-files=all",
            "--ignored=matching",
            // Not into them: what they configure would run.
            "--ignore-submodules=dirty",
            "--no-renames",
            "--no-ahead-behind",
        ];
        let cmd = self.cmd().args(args);
        // Dated ahead, so that git trusts what has been settled. Where it cannot be written, git
        // reads more files and says the same.
        let later = SystemTime::now() + Duration::from_secs(2);
        let scratch = staged.settled.as_ref().and_then(|b| files::scratch(&self.git_dir, b, later).ok());
        let output = match &scratch {
            Some(file) => cmd.env("GIT_INDEX_FILE", file.path()).run()?,
            None => cmd.run()?,
        };
        parse(&expect("status", output)?.stdout)
    }

    /// Whether nothing is in the worktree but the files of its index, as they were when that was written: nothing
    /// untracked and nothing ignored either.
    pub fn is_untouched(&self, hash: usize) -> Result<bool> {
        let tree = self.work_tree.as_deref().ok_or_else(|| unreadable("status"))?;
        if let Some(index) = Index::read(&self.git_dir.join("index"), hash) {
            return Ok(index.is_all_of(tree));
        }
        let status = self.status(&self.staged(hash)?)?;
        Ok(status.changed.is_empty() && status.untracked.is_empty() && status.ignored.is_empty())
    }

    pub(super) fn hidden(&self) -> Result<Hidden> {
        let output = expect("ls-files", self.cmd().args(["ls-files", "-v", "--stage", "-z"]).run()?)?;
        let mut hidden = Hidden::default();
        for entry in output.stdout.split(|b| *b == 0).filter(|e| !e.is_empty()) {
            // `<tag> <mode> <object> <stage>\t<path>`; a lower-case tag is assume-unchanged.
            let (tag, rest) = (entry[0], entry.get(2..).unwrap_or_default());
            let gitlink = rest.starts_with(b"160000 ");
            if tag == b'H' && !gitlink {
                continue;
            }
            let at = rest.iter().position(|b| *b == b'\t').ok_or_else(|| unreadable("ls-files"))?;
            let path = path_of(&rest[at + 1..]);
            if gitlink {
                hidden.gitlinks.push(path);
            } else if tag == b'S' || tag.is_ascii_lowercase() {
                hidden.flagged.push(path);
            }
        }
        Ok(hidden)
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// An entry of `fields` fields and a path; `objects` are the fields with what the index names.
fn changed(entry: &[u8], fields: usize, objects: Range<usize>) -> Option<Changed> {
    let mut parts = entry.splitn(fields + 1, |b| *b == b' ');
    let head: Vec<&[u8]> = parts.by_ref().take(fields).collect();
    let path = path_of(parts.next()?);
    // A submodule's commits are not in this repository.
    let objects = if head.get(1)?.starts_with(b"S") { 0..0 } else { objects };
    let named = head.get(objects)?.iter().filter_map(|oid| std::str::from_utf8(oid).ok());
    let real = |oid: &&str| {
        oid.bytes().any(|b| b != b'0') && Some(oid.as_bytes()) != head.get(5).copied().filter(|_| fields == 7)
    };
    Some(Changed { path, staged: named.filter(real).map(str::to_owned).collect() })
}

/// A name in git that is UTF-8 or unknown to us.
fn text_of(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| unreadable("status"))
}

fn parse(bytes: &[u8]) -> Result<Status> {
    let bad = || -> GitError { unreadable("status") };
    let mut status = Status {
        commit: None,
        head: HeadAt::Detached,
        changed: Vec::new(),
        untracked: Vec::new(),
        ignored: Vec::new(),
    };
    let mut saw_head = false;
    for entry in bytes.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        let (kind, rest) = (entry[0], entry.strip_prefix(&[entry[0], b' ']).ok_or_else(bad)?);
        match kind {
            b'#' => match text_of(rest)?.split_once(' ') {
                Some(("branch.oid", "(initial)")) => {}
                Some(("branch.oid", oid)) => status.commit = Some(oid.to_owned()),
                Some(("branch.head", name)) => {
                    saw_head = true;
                    status.head = if name == "(detached)" { HeadAt::Detached } else { HeadAt::Branch(name.to_owned()) };
                }
                _ => {}
            },
            // Codes, a word on submodules, three modes, HEAD's object and the index's; renames are
            // off, so there is no 2.
            b'1' => status.changed.push(changed(rest, 7, 6..7).ok_or_else(bad)?),
            // A conflict: four modes, three objects in the index.
            b'u' => status.changed.push(changed(rest, 9, 6..9).ok_or_else(bad)?),
            b'?' => status.untracked.push(path_of(rest)),
            b'!' => status.ignored.push(path_of(rest)),
            _ => return Err(bad()),
        }
    }
    if saw_head { Ok(status) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_a_status() {
        let text = b"# branch.oid abc\0# branch.head vnx/x\x001 .M N... 100644 100644 100644 a b src/with blank.rs\0\
                     2 R. N... 100644 100644 100644 a b R100 new\0old\0u UU N... 1 2 3 4 a b c conflict\0? new\nline\0! target/\0";
        crate::domain::fuzz::fuzz(&[text.to_vec()], |bytes| drop(parse(bytes)));
    }

    #[test]
    fn every_kind_of_entry_is_read_and_an_unknown_one_refuses() {
        let text = "# branch.oid abc\0# branch.head vnx/x\x001 .M N... 100644 100644 100644 a b src/with blank.rs\0\
                    u UU N... 1 2 3 4 a b c conflict\0? new\nline\0! target/\0";
        let status = parse(text.as_bytes()).unwrap();
        assert_eq!(status.commit.as_deref(), Some("abc"));
        assert_eq!(status.head, HeadAt::Branch("vnx/x".into()));
        let changed: Vec<_> = status.changed.iter().map(|c| (c.path.to_str().unwrap(), c.staged.join(" "))).collect();
        assert_eq!(changed, [("src/with blank.rs", "b".into()), ("conflict", "a b c".into())]);
        assert_eq!(status.untracked, [PathBuf::from("new\nline")]);
        assert_eq!(status.ignored, [PathBuf::from("target/")]);
        assert!(parse(b"# branch.head x\0Z what\0").is_err());
        assert!(parse(b"").is_err(), "an empty answer is no answer");
    }
}
