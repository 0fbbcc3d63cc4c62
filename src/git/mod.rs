//! One typed front to the git CLI: machine output in, facts out.
//!
//! Every call names its repository explicitly (`GIT_DIR`, `GIT_WORK_TREE`), so that a worker
//! that swaps a `.git` file cannot aim us elsewhere; hooks, fsmonitor and automatic maintenance
//! are off, `GIT_*` of the caller never passes, and names from outside go after
//! `--end-of-options` or as full ref names. Branch on exit codes, never on messages.

mod apply;
mod config;
mod diff;
mod index;
mod objects;
mod rescue;
mod status;
#[cfg(test)]
mod tests;
mod worktree;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use apply::NewPatch;
pub use config::GitConfig;
pub use objects::{Commit, NewCommit};
pub use rescue::Rescue;
pub use status::{HeadAt, Hidden, Staged, Status};

use crate::domain::Fault;
use crate::sys::cmd::{Cmd, CmdError, Output};

/// The oldest git that works (`rev-parse --path-format`).
pub const MIN_VERSION: (u32, u32) = (2, 31);

/// A git call that did not do what was needed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The call could not be made.
    #[error(transparent)]
    Call(#[from] CmdError),
    /// git refused.
    #[error("git {verb} failed (exit {code}): {complaint}")]
    Refused {
        /// The subcommand.
        verb: String,
        /// The exit code, -1 after a signal.
        code: i32,
        /// Its first line of complaint.
        complaint: String,
    },
    /// The answer has a form that we do not know.
    #[error("git {verb} answered in an unknown form")]
    Unreadable {
        /// The subcommand.
        verb: String,
    },
}

impl From<GitError> for Fault {
    fn from(error: GitError) -> Self {
        match &error {
            GitError::Call(CmdError::Missing { .. }) => {
                Self::environment(error.to_string()).fix("install git 2.31 or newer")
            }
            _ => Self::environment(error.to_string()).fix("run `vnx doctor`"),
        }
    }
}

type Result<T> = std::result::Result<T, GitError>;

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
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.quotePath=false"])
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
        if output.code == Some(128) && self.resolve("HEAD")?.is_none() {
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
            Some(1 | 128) => Ok(None),
            _ => Err(refused("rev-parse", &output)),
        }
    }

    /// The commits of `tip` that `base` does not reach.
    pub fn commits_since(&self, base: &str, tip: &str) -> Result<Vec<String>> {
        let output = expect("rev-list", self.cmd().args(["rev-list", tip, "--not", base, "--"]).run()?)?;
        Ok(output.text().lines().map(str::to_owned).collect())
    }

    /// Commits among `tips` (and their ancestors) that no branch, tag, remote or rescue ref reaches.
    pub fn unreachable_from_refs(&self, tips: &[String]) -> Result<Vec<String>> {
        let mut input = String::new();
        for tip in tips {
            input.push_str(tip);
            input.push('\n');
        }
        let options = ["--not", "--branches", "--tags", "--remotes", "--glob=refs/vnx/rescue"];
        let output = expect("rev-list", self.cmd().args(["rev-list", "--stdin"]).args(options).stdin(input).run()?)?;
        Ok(output.text().lines().map(str::to_owned).collect())
    }

    /// Everything this worktree's HEAD has pointed at.
    pub fn head_reflog(&self) -> Result<Vec<String>> {
        // The file tells it even where HEAD now points at nothing; other ref backends have none.
        if let Ok(Some(bytes)) = crate::sys::files::read_capped(&self.git_dir.join("logs/HEAD"), 64 << 20) {
            let text = String::from_utf8_lossy(&bytes);
            let oids = text.lines().flat_map(|l| l.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>());
            let real = |oid: &String| oid.len() >= 40 && oid.bytes().any(|b| b != b'0');
            let mut seen: Vec<String> = oids.filter(real).collect();
            seen.sort();
            seen.dedup();
            return Ok(seen);
        }
        let output = self.cmd().args(["rev-list", "--walk-reflogs", "HEAD", "--"]).run()?;
        let mut seen: Vec<String> = expect("rev-list", output)?.text().lines().map(str::to_owned).collect();
        seen.dedup();
        Ok(seen)
    }

    /// The commit a ref points at, by its full name.
    pub fn ref_commit(&self, full_name: &str) -> Result<Option<String>> {
        // A loose ref is a file with the object's name in it (gitrepository-layout(5)); everything
        // else (packed, symbolic, another backend) is a question for git.
        if let Ok(text) = std::fs::read_to_string(self.git_dir.join(full_name)) {
            let oid = text.trim_end();
            if matches!(oid.len(), 40 | 64) && oid.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Ok(Some(oid.to_owned()));
            }
        }
        self.resolve(full_name)
    }

    /// Full names of the refs below a prefix.
    pub fn refs_below(&self, prefix: &str) -> Result<Vec<String>> {
        let output = self.cmd().args(["for-each-ref", "--format=%(refname)", prefix]).run()?;
        Ok(expect("for-each-ref", output)?.text().lines().map(str::to_owned).collect())
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

fn expect(verb: &str, output: Output) -> Result<Output> {
    if output.ok() { Ok(output) } else { Err(refused(verb, &output)) }
}

fn refused(verb: &str, output: &Output) -> GitError {
    GitError::Refused { verb: verb.to_owned(), code: output.code.unwrap_or(-1), complaint: output.complaint() }
}

fn unreadable(verb: &str) -> GitError {
    GitError::Unreadable { verb: verb.to_owned() }
}
