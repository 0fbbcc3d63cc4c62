//! What a branch has that nobody else has: the commits of a worker, and the change that they are.
//!
//! `.git` is within the worker's reach, so what decides here is computed from the objects themselves: each is held
//! against its own name, and the parents of a commit are those in its own bytes. What stands in for them (grafts,
//! `refs/replace`, a list of shallow commits, a commit-graph) can hide history from `git rev-list`; the last step finds
//! that out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::content::stream;
use super::diff::Change;
use super::objects::ObjectHasher;
use super::{Git, GitError, Result, expect, unreadable};
use crate::sys::cmd::CmdError;
use crate::sys::files;

/// How long git may take to look at every object of a change.
const EVERY_OBJECT: Duration = Duration::from_mins(30);

/// Parents are read from commits and not from a file that is made of them (gitformat-commit-graph(5)).
const NO_GRAPH: [&str; 2] = ["-c", "core.commitGraph=false"];

/// The work of one branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnWork {
    /// Its commits, newest first.
    pub commits: Vec<String>,
    /// What they stand on: commits of others, none of which is an ancestor of another.
    pub onto: Vec<String>,
    /// The base is among the ancestors of the branch, or is its tip.
    pub has_base: bool,
    /// What its merges have brought along: every parent of theirs but the first.
    pub merged: BTreeSet<String>,
}

impl Git {
    /// The commits of `tip` that neither the base nor any of `others` reaches, with every object that they bring.
    /// An error if anything of them is not there (and no partial clone can fetch it), or is not what its name says.
    /// `self` is the repository.
    pub fn own_work(&self, base: &str, tip: &str, others: &BTreeSet<String>) -> Result<OwnWork> {
        let not: String = others.iter().map(String::as_str).chain([base]).flat_map(|oid| ["^", oid, "\n"]).collect();
        // What a ref named at the claim may be gone since.
        let listed = self.cmd().args(NO_GRAPH).args(["rev-list", "--parents", "--ignore-missing", "--stdin"]);
        let listed = expect("rev-list", listed.stdin(format!("{tip}\n{not}")).run()?)?.text();
        let (mut commits, text) = (Vec::new(), listed);
        let mut listed = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split(' ').map(str::to_owned);
            let commit = words.next().unwrap_or_default();
            commits.push(commit.clone());
            listed.insert(commit, words.collect::<Vec<_>>());
        }
        if commits.is_empty() {
            let has_base = self.reaches(tip, base)?;
            return Ok(OwnWork { onto: vec![tip.to_owned()], has_base, ..OwnWork::default() });
        }
        let below = |parents: &BTreeMap<String, Vec<String>>| -> BTreeSet<String> {
            parents.values().flatten().filter(|parent| !parents.contains_key(*parent)).cloned().collect()
        };
        let proven = self.proven_parents(tip, &below(&listed))?.ok_or(GitError::Contradicted)?;
        // Those that only the commits themselves name were hidden from the list: then they are somebody's, or it lied.
        let hidden: BTreeSet<String> = below(&proven).difference(&below(&listed)).cloned().collect();
        if proven.keys().ne(listed.keys()) || !hidden.is_empty() && !self.are_all_reached(&hidden, &not)? {
            return Err(GitError::Contradicted);
        }
        let onto = below(&proven);
        let onto = if onto.len() > 1 { self.independent(&onto)? } else { onto.into_iter().collect() };
        let has_base = onto.iter().any(|oid| oid == base) || self.reaches(tip, base)?;
        let merged = proven.values().flat_map(|parents| parents.iter().skip(1)).cloned().collect();
        Ok(OwnWork { commits, onto, has_base, merged })
    }

    fn reaches(&self, tip: &str, base: &str) -> Result<bool> {
        let args = ["rev-list", "--count", "--max-count=1", base, "--not", tip, "--"];
        Ok(tip == base || expect("rev-list", self.cmd().args(NO_GRAPH).args(args).run()?)?.text() == "0")
    }

    fn are_all_reached(&self, commits: &BTreeSet<String>, not: &str) -> Result<bool> {
        let input: String = commits.iter().flat_map(|oid| [oid.as_str(), "\n"]).collect();
        let cmd = self.cmd().args(NO_GRAPH).args(["rev-list", "--max-count=1", "--ignore-missing", "--stdin"]);
        Ok(expect("rev-list", cmd.stdin(format!("{input}{not}")).run()?)?.text().is_empty())
    }

    fn independent(&self, commits: &BTreeSet<String>) -> Result<Vec<String>> {
        let args = ["merge-base", "--independent"];
        let output = expect("merge-base", self.cmd().args(NO_GRAPH).args(args).args(commits).run()?)?;
        Ok(output.text().lines().map(str::to_owned).collect())
    }

    /// Reads every object of `tip` that `below` does not have, each held against its name, and tells the parents of
    /// the commits among them; `None` if one is not what its name says.
    fn proven_parents(&self, tip: &str, below: &BTreeSet<String>) -> Result<Option<BTreeMap<String, Vec<String>>>> {
        let not: String = below.iter().flat_map(|oid| ["^", oid, "\n"]).collect();
        let args = ["rev-list", "--objects", "--no-object-names", "--missing=allow-promisor", "--stdin"];
        let (names, to_git) = io::pipe().map_err(|_| unreadable("rev-list"))?;
        let cmd = self.cmd().args(NO_GRAPH).args(args).limit(EVERY_OBJECT).stdin(format!("{tip}\n{not}"));
        let list = cmd.writing(File::from(OwnedFd::from(to_git)));
        let cmd = self.cmd().args(["cat-file", "--batch", "--buffer"]).limit(EVERY_OBJECT);
        let cmd = cmd.reading(File::from(OwnedFd::from(names)));
        let read = |out: &mut BufReader<PipeReader>| {
            let (mut parents, mut header) = (BTreeMap::new(), String::new());
            let mut buffer = vec![0; 64 << 10];
            while out.read_line(&mut header)? > 0 {
                let line = std::mem::take(&mut header);
                let words: Vec<&str> = line.trim_end().split(' ').collect();
                let (oid, kind, size) = match words.as_slice() {
                    // What a partial clone could fetch is not listed: this one is there, and git cannot read it.
                    [_, "missing"] => return Ok(None),
                    [oid, kind, size] => (*oid, *kind, size.parse::<u64>().map_err(io::Error::other)?),
                    _ => return Err(io::Error::other("not a line of cat-file")),
                };
                let mut hasher =
                    ObjectHasher::new(kind, size, oid.len()).ok_or_else(|| io::Error::other("not a name"))?;
                let (mut content, mut raw) = (out.take(size), Vec::new());
                loop {
                    let n = content.read(&mut buffer)?;
                    if n == 0 {
                        break;
                    }
                    hasher.update(&buffer[..n]);
                    if kind == "commit" {
                        raw.extend_from_slice(&buffer[..n]);
                    }
                }
                if hasher.name() != oid {
                    return Ok(None);
                }
                if kind == "commit" {
                    parents.insert(oid.to_owned(), parents_in(&raw));
                }
                out.read_exact(&mut [0])?;
            }
            Ok(Some(parents))
        };
        std::thread::scope(|scope| {
            let listed = std::thread::Builder::new().spawn_scoped(scope, || expect("rev-list", list.run()?));
            let listed = listed.map_err(|source| CmdError::Spawn { program: "git".to_owned(), source })?;
            let parents = stream("cat-file", cmd, read)?;
            // Of what is not what its name says no more is listed.
            if parents.is_some() {
                listed.join().map_err(|_| unreadable("rev-list"))??;
            }
            Ok(parents)
        })
    }

    /// The change that a branch makes to what it stands on. With several commits below it, what differs from each.
    /// `self` is the repository.
    pub fn own_changes(&self, work: &OwnWork, tip: &str) -> Result<Vec<Change>> {
        let mut all = work.onto.iter().map(|onto| self.changes(onto, tip));
        let mut first = all.next().unwrap_or_else(|| Ok(Vec::new()))?;
        for more in all {
            let more: BTreeSet<String> = more?.into_iter().map(|change| change.path).collect();
            first.retain(|change| more.contains(&change.path));
        }
        Ok(first)
    }

    /// Paths of that change that none of `globs` covers.
    pub fn own_changes_outside(&self, work: &OwnWork, tip: &str, globs: &[String]) -> Result<Vec<String>> {
        let mut all = work.onto.iter().map(|onto| self.changed_outside(onto, tip, globs));
        let mut first = all.next().unwrap_or_else(|| Ok(Vec::new()))?;
        for more in all {
            let more = more?;
            first.retain(|path| more.contains(path));
        }
        Ok(first)
    }

    /// The first commit of another repository among these changes that neither a submodule of the repository nor what
    /// stands in its place in the worktree has, as `path: commit`. `self` is the repository, `tree` its worktree.
    pub fn unresolved_gitlink(&self, changes: &[Change], tree: &Path, linked: &Git) -> Option<String> {
        let mut links = changes.iter().filter_map(|change| Some((&change.path, change.gitlink.as_ref()?))).peekable();
        links.peek()?;
        let known: Vec<PathBuf> = [&self.git_dir, &linked.git_dir]
            .into_iter()
            .flat_map(|dir| repositories_below(&dir.join("modules")))
            .collect();
        let mut unresolved = links.filter(|(path, oid)| {
            let in_place = git_folder_of(&tree.join(path));
            !known.iter().chain(&in_place).any(|dir| Self::repository(dir).has_commit(oid))
        });
        unresolved.next().map(|(path, oid)| format!("{path}: {oid}"))
    }

    /// Whether this repository has the commit, with the bytes of its name. `self` is the repository.
    fn has_commit(&self, commit: &str) -> bool {
        self.raw_commits(&[commit.to_owned()]).is_ok_and(|found| found.len() == 1)
    }
}

/// Folders at or below this one that are repositories of git: submodules' own, and those within them.
fn repositories_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        if folder.join("objects").is_dir() && folder.join("HEAD").exists() {
            folders.push(folder.join("modules"));
            found.push(folder);
            continue;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    found
}

/// The git folder of the repository that stands here: `.git`, or where that file leads (gitrepository-layout(5)).
pub(super) fn git_folder_of(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = files::read_capped(&git, 64 << 10).ok()??;
    let to = text.strip_prefix(b"gitdir: ")?.trim_ascii_end();
    Some(folder.join(OsStr::from_bytes(to)))
}

/// The parents in the bytes of a commit (gitformat: lines of the header up to the first empty one).
fn parents_in(raw: &[u8]) -> Vec<String> {
    let lines = raw.split(|b| *b == b'\n').take_while(|line| !line.is_empty());
    let parents = lines.filter_map(|line| line.strip_prefix(b"parent "));
    parents.map(|oid| String::from_utf8_lossy(oid).into_owned()).collect()
}
