//! One typed front to the git CLI: machine output in, facts out.
//!
//! Every call names its repository explicitly (`GIT_DIR`, `GIT_WORK_TREE`), so that a worker
//! that swaps a `.git` file cannot aim us elsewhere; hooks, fsmonitor and automatic maintenance
//! are off, `GIT_*` of the caller never passes, and names from outside go after
//! `--end-of-options` or as full ref names. Branch on exit codes, never on messages.

mod apply;
mod checkout;
mod commits;
mod config;
mod content;
mod diff;
mod error;
mod forms;
mod held;
mod ignored;
mod import;
mod index;
mod integrated;
mod landing;
mod merging;
mod objects;
mod own_work;
mod refs;
mod rests;
mod secure;
mod shape;
mod shared_files;
mod signing;
mod status;
mod submodules;
#[cfg(test)]
mod tests;
mod worktree;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use apply::NewPatch;
pub use config::GitConfig;
pub use content::{Entry, WriteError};
pub use diff::{Change, stat as diff_stat};
pub use error::GitError;
pub use forms::{Attributes, FIRST_INDEX, Forms};
pub use held::{BehindError, Held};
pub use import::{Found, Import};
pub use merging::{CheckedOut, Foreseen, Joined, PINNED};
pub use objects::{Commit, NewCommit};
pub use own_work::OwnWork;
pub use refs::{Refs, STASH};
pub use secure::anyone_collects;
pub use shared_files::{IgnoreRules, SharedFile, SharedFiles};
pub use signing::SigningKey;
pub use status::{Changed, HeadAt, Hidden, Staged, Status};
pub use submodules::Submodule;
pub use worktree::{FOR_DISPATCH, same_folder};

use crate::sys::cmd::{Cmd, Output};
use crate::sys::files::{self, At, PathError};

/// The oldest git that was run. What is used came with 2.33 at the latest (`worktree add --reason`).
pub const MIN_VERSION: (u32, u32) = (2, 34);

/// The exit code of git where it could not do what it was told, as against one that says no.
const FATAL: i32 = 128;

/// What a call comes to.
pub type Result<T, E = GitError> = std::result::Result<T, E>;

/// A repository, or one worktree of it, addressed by its folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    git_dir: PathBuf,
    work_tree: Option<PathBuf>,
}

impl Git {
    /// The repository behind `git_dir` without a worktree.
    pub fn repository(git_dir: impl Into<PathBuf>) -> Self {
        Self { git_dir: git_dir.into(), work_tree: None }
    }
    /// One worktree: its own git folder and its files.
    pub fn tree(git_dir: impl Into<PathBuf>, work_tree: impl Into<PathBuf>) -> Self {
        Self { git_dir: git_dir.into(), work_tree: Some(work_tree.into()) }
    }

    /// The files of a worktree whose own configuration is not trusted, or whose index cannot be read: an
    /// empty git folder of ours over them, with a copy of their index.
    pub fn room(folder: &Path, index: &Path, work_tree: &Path, objects: &Path, hash: usize) -> Result<Self, PathError> {
        files::private_folder(&folder.join("refs"))?;
        files::private_folder(&folder.join("objects/info"))?;
        files::replace(&folder.join("objects/info/alternates"), &[objects.as_os_str().as_bytes(), b"\n"].concat())?;
        files::replace(&folder.join("HEAD"), b"ref: refs/heads/none\n")?;
        let format = if hash == 32 { "\n[extensions]\n\tobjectFormat = sha256" } else { "" };
        let version = u8::from(hash == 32);
        let config = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = false{format}\n");
        files::replace(&folder.join("config"), config.as_bytes())?;
        let copy = folder.join("index");
        if files::copy_with_time(index, &copy).is_err() {
            files::remove(&copy)?;
        }
        Ok(Self { git_dir: folder.to_owned(), work_tree: Some(work_tree.to_owned()) })
    }

    /// Everything in the index, as changed files that it names the content of; without one, nothing.
    pub fn index_entries(&self) -> Result<Vec<Changed>> {
        let output = expect("ls-files", self.cmd().args(["ls-files", "--stage", "-z"]).run()?)?;
        let entry = |line: &[u8]| {
            let tab = line.iter().position(|b| *b == b'\t')?;
            let (mode, oid) = std::str::from_utf8(&line[..tab]).ok()?.split_once(' ')?;
            let staged = if mode == "160000" { Vec::new() } else { vec![oid.split(' ').next()?.to_owned()] };
            Some(Changed { path: PathBuf::from(OsStr::from_bytes(&line[tab + 1..])), staged })
        };
        let lines = output.stdout.split(|b| *b == 0).filter(|l| !l.is_empty());
        lines.map(|line| entry(line).ok_or_else(|| unreadable("ls-files"))).collect()
    }

    /// Files that the index does not name: `(not ignored, ignored)`.
    pub fn others(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let list = |more: &[&str]| -> Result<Vec<PathBuf>> {
            let cmd = self.cmd().args(["ls-files", "--others", "--exclude-standard", "-z"]).args(more);
            let output = expect("ls-files", cmd.run()?)?;
            let names = output.stdout.split(|b| *b == 0).filter(|l| !l.is_empty());
            Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
        };
        Ok((list(&[])?, list(&["--ignored", "--directory"])?))
    }

    /// The tree of a commit.
    pub fn tree_of(&self, commit: &str) -> Result<String> {
        let spec = format!("{commit}^{{tree}}");
        Ok(expect("rev-parse", self.cmd().args(["rev-parse", "--verify", "--end-of-options", &spec]).run()?)?.text())
    }

    fn bare_cmd() -> Cmd {
        Cmd::new("git")
            .env("LC_ALL", "C")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            // What the store holds counts, not what stands in for it or could be fetched.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_GRAFT_FILE", "/dev/null")
            .args([
                "-c",
                "advice.graftFileDeprecated=false",
                "-c",
                "core.fsmonitor=false",
                "-c",
                "core.hooksPath=/dev/null",
            ])
            // Two names that differ in capitals are two files here, wherever the configuration came from.
            .args(["-c", "core.ignorecase=false"])
            // A signature is verified by the program that the configuration names.
            .args(["-c", "log.showSignature=false"])
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.quotePath=false"])
            // Somebody else's fetch or gc is waited for; git's own patience is a tenth of a second and a second.
            .args(["-c", "core.filesRefLockTimeout=20000", "-c", "core.packedRefsTimeout=20000"])
    }

    fn cmd(&self) -> Cmd {
        let cmd = Self::bare_cmd().env("GIT_DIR", &self.git_dir);
        match &self.work_tree {
            Some(tree) => cmd.env("GIT_WORK_TREE", tree).cwd(tree),
            None => cmd.cwd(&self.git_dir),
        }
    }

    /// The version as `(major, minor, whole text)`.
    pub fn version() -> Result<(u32, u32, String)> {
        let output = Self::bare_cmd().arg("version").limit(Duration::from_secs(10)).run()?;
        let text = expect("version", output)?.text();
        let number = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let mut parts = number.split('.').map(|p| p.parse::<u32>().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => Ok((major, minor, number)),
            _ => Err(unreadable("version")),
        }
    }

    /// What git itself says of the folder: `(bare, common dir, git dir, toplevel)`.
    /// The only call without an explicit `GIT_DIR`, used to check our own discovery.
    pub fn examine(folder: &Path) -> Result<(bool, PathBuf, PathBuf, PathBuf)> {
        let args = [
            "rev-parse",
            "--path-format=absolute",
            "--is-bare-repository",
            "--git-common-dir",
            "--git-dir",
            "--show-toplevel",
        ];
        let text = expect("rev-parse", Self::bare_cmd().cwd(folder).args(args).run()?)?.text();
        let lines: Vec<&str> = text.lines().collect();
        match lines.as_slice() {
            [bare, common, own, top] => Ok((*bare == "true", common.into(), own.into(), top.into())),
            _ => Err(unreadable("rev-parse")),
        }
    }

    /// HEAD's commit and the full name of its branch (`None` when detached).
    /// `Ok(None)` when there is no commit yet.
    pub fn head(&self) -> Result<Option<(String, Option<String>)>> {
        let output = self.cmd().args(["rev-parse", "HEAD^{commit}", "--symbolic-full-name", "HEAD"]).run()?;
        if output.code == Some(FATAL) && self.resolve("HEAD")?.is_none() {
            return Ok(None);
        }
        let text = expect("rev-parse", output)?.text();
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (Some(commit), Some("HEAD") | None) => Ok(Some((commit.to_owned(), None))),
            (Some(commit), Some(name)) => Ok(Some((commit.to_owned(), Some(name.to_owned())))),
            (None, _) => Err(unreadable("rev-parse")),
        }
    }

    /// The commit that a name stands for; `None` when there is no such commit.
    pub fn resolve(&self, name: &str) -> Result<Option<String>> {
        let spec = format!("{name}^{{commit}}");
        let output = self.cmd().args(["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]).run()?;
        match output.code {
            Some(0) => Ok(Some(output.text())),
            Some(1 | FATAL) => Ok(None),
            _ => Err(refused("rev-parse", &output)),
        }
    }

    /// Files that git keeps for this worktree alone, below its own folder, without what `skip` names there.
    /// `self` is the worktree.
    pub fn own_files(&self, skip: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, PathError> {
        let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(below) = folders.pop() {
            let folder = self.git_dir.join(&below);
            for entry in std::fs::read_dir(&folder).at("list", &folder)? {
                let entry = entry.at("list", &folder)?;
                let path = below.join(entry.file_name());
                if skip(&path) {
                    continue;
                }
                let is_dir = entry.file_type().at("examine", &folder)?.is_dir();
                if is_dir { &mut folders } else { &mut found }.push(path);
            }
        }
        Ok(found)
    }

    /// Names of objects in the files that git keeps for this worktree alone: reflogs, refs of its own, operations
    /// that are half done. `hash` is the length of a name in bytes. `self` is the worktree.
    pub fn private_names(&self, hash: usize) -> Result<BTreeSet<String>> {
        let broken = |_| unreadable("reflog");
        let other = |path: &Path| {
            matches!(path.to_str(), Some("modules" | "index"))
                || path.as_os_str().as_bytes().starts_with(b"sharedindex.")
        };
        let mut names = BTreeSet::new();
        for path in self.own_files(other).map_err(broken)? {
            if path.starts_with("reftable") {
                return Err(GitError::Tables);
            }
            let bytes = files::read_capped(&self.git_dir.join(path), 256 << 20).map_err(broken)?;
            names.extend(names_in(&bytes.unwrap_or_default(), hash));
        }
        Ok(names)
    }

    /// Sees to it that this worktree has a reflog of HEAD, which git then continues whatever the configuration says.
    /// `commit` is where HEAD is. `self` is the worktree.
    pub fn begin_reflog(&self, commit: &str) -> Result<(), PathError> {
        let (logs, path) = (self.git_dir.join("logs"), self.git_dir.join("logs/HEAD"));
        if path.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&logs).at("create", &logs)?;
        let (none, seconds) = ("0".repeat(commit.len()), crate::sys::now().micros() / 1_000_000);
        std::fs::write(&path, format!("{none} {commit} vnx <vnx@localhost> {seconds} +0000\tvnx: begin\n"))
            .at("write", &path)
    }

    /// Whether the reflog of HEAD is whole, from the worktree's beginning to where HEAD is: each of its entries begins
    /// where the one before ended. One that is missing, or has gaps, may have named commits. `self` is the worktree.
    pub fn has_whole_reflog(&self, head: &str) -> bool {
        let bytes = files::read_capped(&self.git_dir.join("logs/HEAD"), 256 << 20).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let is_none = |name: &str| name.bytes().all(|digit| digit == b'0');
        let mut at = None;
        for line in text.lines() {
            let mut names = line.split(' ');
            let (Some(old), Some(new)) = (names.next(), names.next()) else { return false };
            // Nothing comes before the first, nor before the first commit of a branch without a beginning.
            if !is_none(old) && at != Some(old) {
                return false;
            }
            at = Some(new);
        }
        at == Some(head)
    }

    /// Stashes made on a branch, or on none, by their reflog. `self` is the repository.
    pub fn stashes_of(&self, branch: &str, hash: usize) -> Result<Vec<String>> {
        let path = self.git_dir.join("logs/refs/stash");
        let bytes = files::read_capped(&path, 256 << 20).map_err(|_| unreadable("stash"))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let here = |line: &&str| {
            let said = line.split_once('\t').map_or("", |(_, said)| said);
            // Git before 2.36 tells the last part of a branch only.
            let last = branch.rsplit('/').next().unwrap_or(branch);
            said.contains(&format!("n {branch}:"))
                || said.contains(&format!("n {last}:"))
                || said.contains("(no branch)")
        };
        let new = |line: &str| line.split(' ').nth(1).and_then(|word| names_in(word.as_bytes(), hash).pop());
        Ok(text.lines().filter(here).filter_map(new).collect())
    }

    /// Which of these names are commits, and which are other objects, with their kinds; those that
    /// are not in the repository are left out.
    pub fn kinds_of(&self, names: &[String]) -> Result<Vec<(String, String)>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let cmd = self.cmd().args(["cat-file", "--batch-check=%(objectname) %(objecttype)"]);
        let text = expect("cat-file", cmd.stdin(names.join("\n") + "\n").run()?)?.text();
        let kind = |line: &str| line.split_once(' ').map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        Ok(text.lines().filter_map(kind).filter(|(_, kind)| kind != "missing").collect())
    }

    /// The commit a ref points at, by its full name.
    pub fn ref_commit(&self, full_name: &str) -> Result<Option<String>> {
        // A loose ref is a file with the object's name in it (gitrepository-layout(5)); everything
        // else (packed, symbolic, another backend) is a question for git.
        let path = self.git_dir.join(full_name);
        match files::read_text(&path) {
            Ok(text) => {
                let oid = text.trim_end();
                if matches!(oid.len(), 40 | 64) && oid.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Ok(Some(oid.to_owned()));
                }
            }
            // git would wait for a pipe.
            Err(_) if path.exists() && !path.is_dir() => return Err(unreadable("rev-parse")),
            Err(_) => {}
        }
        self.resolve(full_name)
    }

    /// Full names of the refs below a prefix.
    pub fn refs_below(&self, prefix: &str) -> Result<Vec<String>> {
        let output = self.cmd().args(["for-each-ref", "--format=%(refname)", prefix]).run()?;
        Ok(expect("for-each-ref", output)?.text().lines().map(str::to_owned).collect())
    }

    /// Refs whose names begin so, as `(name, object)`, after the last `/` too.
    pub fn refs_with_objects(&self, beginning: &str) -> Result<Vec<(String, String)>> {
        let format = "--format=%(objectname) %(refname)";
        let pattern = format!("{beginning}*");
        let listed = expect("for-each-ref", self.cmd().args(["for-each-ref", format, &pattern]).run()?)?.text();
        Ok(listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(oid, name)| (name.into(), oid.into()))
            .collect())
    }

    /// Refs below a prefix as `(name, object, when it was made in seconds)`.
    pub fn refs_with_times(&self, prefix: &str) -> Result<Vec<(String, String, i64)>> {
        let format = "--format=%(refname) %(objectname) %(creatordate:unix)";
        let text = expect("for-each-ref", self.cmd().args(["for-each-ref", format, prefix]).run()?)?.text();
        let split = |line: &str| {
            let mut words = line.split(' ');
            let (name, commit, at) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            Some((name.to_owned(), commit.to_owned(), at))
        };
        text.lines().map(|line| split(line).ok_or_else(|| unreadable("for-each-ref"))).collect()
    }

    /// Whether a ref other than `except` reaches `commit`.
    pub fn kept_by_another_ref(&self, commit: &str, except: &str) -> Result<bool> {
        let args = ["for-each-ref", "--count=2", "--format=%(refname)", &format!("--contains={commit}")];
        let text = expect("for-each-ref", self.cmd().args(args).run()?)?.text();
        Ok(text.lines().any(|name| name != except))
    }

    /// Deletes a ref if it still has the expected value.
    pub fn delete_ref(&self, full_name: &str, expected: &str) -> Result<()> {
        expect("update-ref", self.cmd().args(["update-ref", "--no-deref", "-d", full_name, expected]).run()?).map(drop)
    }

    /// Sets a ref, whatever it was.
    pub fn set_ref(&self, full_name: &str, commit: &str, reason: &str) -> Result<()> {
        expect("update-ref", self.cmd().args(["update-ref", "-m", reason, full_name, commit]).run()?).map(drop)
    }

    /// Remote-tracking refs that contain `commit`, as `(remote, branch)`.
    pub fn tracking_refs_with(&self, commit: &str) -> Result<Vec<(String, String)>> {
        let args = ["for-each-ref", "--format=%(refname)", &format!("--contains={commit}"), "refs/remotes"];
        let text = expect("for-each-ref", self.cmd().args(args).run()?)?.text();
        let split =
            |line: &str| line.strip_prefix("refs/remotes/")?.split_once('/').map(|(r, b)| (r.to_owned(), b.to_owned()));
        Ok(text.lines().filter_map(split).filter(|(_, b)| b != "HEAD").collect())
    }

    /// What the remote itself says now: the commit of one of its branches.
    pub fn remote_branch(&self, remote: &str, branch: &str, limit: Duration) -> Result<Option<String>> {
        let full = format!("refs/heads/{branch}");
        let output = self.cmd().args(["ls-remote", "--end-of-options", remote, &full]).limit(limit).run()?;
        let text = expect("ls-remote", output)?.text();
        Ok(text.split_whitespace().next().map(str::to_owned))
    }

    /// Whether `ancestor` is `commit` or behind it.
    pub fn is_ancestor(&self, ancestor: &str, commit: &str) -> Result<bool> {
        let output = self.cmd().args(["merge-base", "--is-ancestor", ancestor, commit]).run()?;
        match output.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(refused("merge-base", &output)),
        }
    }

    /// Lock files on refs, index and configuration that are older than `age`. Hardly any git call
    /// holds one for long; a git that was killed leaves them. `self` is the repository.
    pub fn stale_locks(&self, age: Duration) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.git_dir.join("refs")];
        let is_stale = |path: &Path| {
            let meta = std::fs::symlink_metadata(path).and_then(|m| m.modified());
            path.extension().is_some_and(|e| e == "lock")
                && meta.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed >= age))
        };
        let listed = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        found.extend(listed(&self.git_dir).filter(|path| is_stale(path)));
        while let Some(folder) = folders.pop() {
            for path in listed(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else if is_stale(&path) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// The folder of this worktree's own git data.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }
}

/// Words of a text that have the form of an object's name.
fn names_in(bytes: &[u8], hash: usize) -> Vec<String> {
    let words = bytes.split(|b| !b.is_ascii_alphanumeric());
    let name = |word: &&[u8]| {
        word.len() == 2 * hash && word.iter().all(u8::is_ascii_hexdigit) && word.iter().any(|b| *b != b'0')
    };
    words.filter(name).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn expect(verb: &str, output: Output) -> Result<Output> {
    if output.ok() { Ok(output) } else { Err(refused(verb, &output)) }
}

fn refused(verb: &str, output: &Output) -> GitError {
    GitError::Refused { verb: verb.to_owned(), code: output.code.unwrap_or(-1), complaint: output.complaint() }
}

fn unreadable(verb: &str) -> GitError {
    GitError::Unreadable { verb: verb.to_owned() }
}
