//! Bringing a branch into its target: in a checkout of our own, and then into whoever has the target checked out.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Git, GitConfig, Result, expect, refused, unreadable};
use crate::sys::cmd::{Cmd, Output};
use crate::sys::files::{self, At, PathError};

/// How long git may take for one of these.
const LIMIT: Duration = Duration::from_mins(30);

/// A worktree that has a branch checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOut {
    /// Its files.
    pub path: PathBuf,
    /// Its own git folder.
    pub git_dir: PathBuf,
}

/// What came of a call that may find a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It is done.
    Clean,
    /// These paths are in conflict.
    Conflict(Vec<String>),
}

impl Git {
    /// Whether the project has hooks that git would run: a folder of its own for them, or one that is executable.
    pub fn has_hooks(&self, common_dir: &Path, config: &GitConfig) -> bool {
        use std::os::unix::fs::PermissionsExt;
        if config.value("core.hookspath").is_some_and(|path| !path.is_empty()) {
            return true;
        }
        let listed = std::fs::read_dir(common_dir.join("hooks")).into_iter().flatten().flatten();
        listed.into_iter().any(|entry| {
            let sample = entry.path().extension().is_some_and(|e| e == "sample");
            !sample && std::fs::metadata(entry.path()).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
    }

    /// Runs git in a checkout of ours, without any hook. `self` is the worktree.
    pub fn join(&self, args: &[String], env: &[(String, String)]) -> Result<Joined> {
        let mut cmd = self.cmd().args(args).limit(LIMIT);
        for (name, value) in env {
            cmd = cmd.env(name, value);
        }
        let output = cmd.run()?;
        self.joined(&args[0], &output)
    }

    fn joined(&self, verb: &str, output: &Output) -> Result<Joined> {
        if output.ok() {
            return Ok(Joined::Clean);
        }
        match self.conflicts()? {
            paths if paths.is_empty() => Err(refused(verb, output)),
            paths => Ok(Joined::Conflict(paths)),
        }
    }

    /// Paths that are in conflict. `self` is the worktree.
    pub fn conflicts(&self) -> Result<Vec<String>> {
        let args = ["diff", "--name-only", "-z", "--diff-filter=U", "--no-ext-diff"];
        let output = expect("diff", self.cmd().args(args).run()?)?;
        let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
        Ok(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    /// What is staged, as a tree. `self` is the worktree.
    pub fn staged_tree(&self) -> Result<String> {
        Ok(expect("write-tree", self.cmd().arg("write-tree").run()?)?.text())
    }

    /// Puts the checkout back to a commit, whatever was begun in it. `self` is the worktree.
    pub fn start_again(&self, commit: &str) -> Result<()> {
        let reset = self.cmd().args(["reset", "--hard", "--quiet", "--end-of-options", commit]).limit(LIMIT);
        expect("reset", reset.run()?).map(drop)
    }

    /// The commits between two, oldest first, and whether a merge is among them.
    pub fn commits_between(&self, from: &str, to: &str) -> Result<(Vec<String>, bool)> {
        let range = format!("{from}..{to}");
        let text =
            expect("rev-list", self.cmd().args(["rev-list", "--reverse", "--parents", &range, "--"]).run()?)?.text();
        let merges = text.lines().any(|line| line.split(' ').count() > 2);
        Ok((text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect(), merges))
    }

    /// The worktrees that have a branch checked out. `self` is the repository.
    pub fn who_has(&self, branch: &str, main: &Path) -> Result<Vec<CheckedOut>> {
        let text = expect("worktree", self.cmd().args(["worktree", "list", "--porcelain"]).run()?)?.text();
        let (mut found, mut place) = (Vec::new(), None::<PathBuf>);
        for line in text.lines() {
            if let Some(path) = line.strip_prefix("worktree ") {
                place = Some(PathBuf::from(path));
            } else if line.strip_prefix("branch ") == Some(branch)
                && let Some(path) = place.take()
                && path.exists()
            {
                let git_dir = if path == main || path.join(".git").is_dir() {
                    self.git_dir.clone()
                } else {
                    Self::git_dir_of(&self.git_dir, &path)?
                };
                found.push(CheckedOut { path, git_dir });
            }
        }
        Ok(found)
    }

    /// The own git folder of a linked worktree, by what the repository has on record of it.
    fn git_dir_of(common_dir: &Path, path: &Path) -> Result<PathBuf> {
        let folder = common_dir.join("worktrees");
        let names = files::names(&folder).map_err(|_| unreadable("worktree"))?;
        let all = names.into_iter().map(|name| folder.join(name));
        let mut those = all.filter(|own| {
            let recorded = std::fs::read_to_string(own.join("gitdir")).unwrap_or_default();
            Path::new(recorded.trim_end()).parent().is_some_and(|p| super::worktree::same_folder(&own.join(p), path))
        });
        those.next().ok_or_else(|| unreadable("worktree"))
    }

    /// Moves a branch if it still is where it was. The project's own hooks may refuse it (reference-transaction).
    /// `self` is the repository.
    pub fn land(&self, branch: &str, new: &str, old: &str, why: &str, hooks: Option<&str>) -> Result<()> {
        // A later setting counts.
        let hooks = hooks.map_or_else(|| self.git_dir.join("hooks").display().to_string(), str::to_owned);
        let args =
            ["-c".to_owned(), format!("core.hooksPath={hooks}"), "update-ref".to_owned(), "--no-deref".to_owned()];
        let cmd = self.cmd().args(args).args(["-m", why, branch, new, old]);
        expect("update-ref", cmd.run()?).map(drop)
    }

    /// Pushes a ref, never by force; the project's `pre-push` hook may refuse it. `self` is the repository.
    pub fn push(&self, remote: &str, refspec: &str, limit: Duration) -> Result<()> {
        let hooks = format!("core.hooksPath={}", self.git_dir.join("hooks").display());
        let mut cmd = self.cmd().args(["-c", &hooks, "push", "--quiet", "--", remote, refspec]).limit(limit);
        if let Some(agent) = std::env::var_os("SSH_AUTH_SOCK") {
            cmd = cmd.env("SSH_AUTH_SOCK", agent);
        }
        expect("push", cmd.run()?).map(drop)
    }

    /// A commit's message with trailers added to it (git-interpret-trailers(1)).
    pub fn with_trailers(&self, message: &str, trailers: &[String]) -> Result<String> {
        let mut cmd = self.cmd().args(["-c", "trailer.ifexists=addIfDifferent", "interpret-trailers", "--no-divider"]);
        for trailer in trailers {
            cmd = cmd.args(["--trailer", trailer]);
        }
        let mut text = expect("interpret-trailers", cmd.stdin(message).run()?)?.text();
        text.push('\n');
        Ok(text)
    }

    /// A commit's message.
    pub fn message_of(&self, commit: &str) -> Result<String> {
        let read = self.raw_commits(&[commit.to_owned()])?.pop();
        Ok(read.ok_or_else(|| unreadable("cat-file"))?.message)
    }

    /// The author of a commit, as variables for another one.
    pub fn author_of(&self, commit: &str) -> Result<Vec<(String, String)>> {
        let args = ["log", "-1", "--format=%an%x00%ae%x00%ad", "--date=raw", "--no-show-signature", commit, "--"];
        let text = expect("log", self.cmd().args(args).run()?)?.text();
        let names = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE"];
        Ok(names.iter().zip(text.split('\0')).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect())
    }
}

/// Its index is ours for as long as this lives: other gits wait or give up, as they do for each other.
#[derive(Debug)]
pub struct Held<'a> {
    place: &'a CheckedOut,
    git: Git,
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
}

impl<'a> Held<'a> {
    /// Takes the index of a checkout. `word` stands in the lock, so that it is known for ours when we are killed.
    pub fn take(place: &'a CheckedOut, word: &str) -> std::result::Result<Self, BehindError> {
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
                Ok(Self { place, git, released: false })
            }
        }
    }

    /// Takes over what a killed process of ours has left; `None` where it left nothing, or somebody else holds it.
    pub fn take_over(place: &'a CheckedOut, word: &str) -> std::result::Result<Option<Self>, BehindError> {
        files::remove(&place.git_dir.join("index.vnx.word"))?;
        let held = files::read_capped(&place.git_dir.join("index.lock"), 256)?;
        let ours = held.is_some_and(|text| text == format!("vnx {word}\n").as_bytes());
        let git = Git::tree(&place.git_dir, &place.path);
        Ok(ours.then_some(Self { place, git, released: false }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    fn copy(&self) -> PathBuf {
        self.place.git_dir.join("index.vnx")
    }

    fn with_copy(&self) -> Cmd {
        self.git.cmd().env("GIT_INDEX_FILE", self.copy()).limit(LIMIT)
    }

    fn fresh_copy(&self) -> std::result::Result<(), BehindError> {
        let (index, copy) = (self.place.git_dir.join("index"), self.copy());
        files::remove(&copy)?;
        files::remove(&self.place.git_dir.join("index.vnx.lock"))?;
        if index.exists() {
            std::fs::copy(&index, &copy).at("copy", &index)?;
        }
        Ok(())
    }

    /// Whether it could go from one commit to another without anything there being lost; nothing is changed.
    pub fn try_forward(&self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        let args = ["read-tree", "-m", "-u", "-n", "--end-of-options", from, to];
        let output = self.with_copy().args(args).run().map_err(super::GitError::from)?;
        if !output.ok() {
            let said = output.complaint();
            return Err(BehindError::InUse(format!(
                "what is not committed in {} is in the way: {said}",
                self.place.path.display()
            )));
        }
        // git may write over what it ignores.
        let there: Vec<String> =
            self.added(from, to)?.into_iter().filter(|p| self.place.path.join(p).symlink_metadata().is_ok()).collect();
        let tracked = self.tracked()?;
        if let Some(path) = there.into_iter().find(|path| !tracked.contains(path)) {
            let place = self.place.path.display();
            return Err(BehindError::InUse(format!(
                "{path:?} would be written over, which is in {place} and not in git"
            )));
        }
        Ok(())
    }

    /// Paths that the second commit has and the first has not.
    fn added(&self, from: &str, to: &str) -> Result<Vec<String>> {
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=A", from, to, "--"];
        let output = expect("diff-tree", self.git.cmd().args(args).run()?)?;
        let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
        Ok(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    fn tracked(&self) -> Result<BTreeSet<String>> {
        let output = expect("ls-files", self.with_copy().args(["ls-files", "-z"]).run()?)?;
        let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
        Ok(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    /// Brings files and index from one commit to another; what is changed there beside them stays. `again`: another
    /// process may have done a part of it.
    pub fn forward(mut self, from: &str, to: &str, again: bool) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        if again {
            self.accept_what_is_there(from, to)?;
        }
        let args = ["read-tree", "-m", "-u", "--end-of-options", from, to];
        expect("read-tree", self.with_copy().args(args).run().map_err(super::GitError::from)?)?;
        let _ = self.with_copy().args(["update-index", "-q", "--refresh"]).run();
        files::rename(&self.copy(), &self.place.git_dir.join("index"))?;
        self.released = true;
        Ok(files::remove(&self.place.git_dir.join("index.lock"))?)
    }

    /// Tells the copy of the index which files are as the second commit has them already.
    fn accept_what_is_there(&self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        let args = ["diff-tree", "-r", "-z", "--no-renames", "--raw", "--abbrev=64", from, to, "--"];
        let output = expect("diff-tree", self.git.cmd().args(args).run().map_err(super::GitError::from)?)?;
        let mut fields = output.stdout.split(|b| *b == 0).filter(|f| !f.is_empty());
        let mut input = Vec::new();
        while let (Some(meta), Some(path)) = (fields.next(), fields.next()) {
            let meta = String::from_utf8_lossy(meta).into_owned();
            let words: Vec<&str> = meta.trim_start_matches(':').split(' ').collect();
            let [_, mode, _, oid, status] = words[..] else { return Err(unreadable("diff-tree").into()) };
            let name = String::from_utf8_lossy(path).into_owned();
            let there = self.place.path.join(&name);
            let is_gone = status == "D" && there.symlink_metadata().is_err();
            let is_same = status != "D" && mode.starts_with("100") && there.is_file() && {
                let hashed = self.git.cmd().args(["hash-object", "--path", &name, "--"]).arg(&there).run();
                hashed.is_ok_and(|output| output.ok() && output.text() == oid)
            };
            if is_gone || is_same {
                let mode = if is_gone { "0" } else { mode };
                input.extend_from_slice(format!("{mode} {oid}\t").as_bytes());
                input.extend_from_slice(path);
                input.push(0);
            }
        }
        if input.is_empty() {
            return Ok(());
        }
        let cmd = self.with_copy().args(["update-index", "-z", "--index-info"]).stdin(input);
        expect("update-index", cmd.run().map_err(super::GitError::from)?)?;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.released {
            let _ = files::remove(&self.copy());
            let _ = files::remove(&self.place.git_dir.join("index.vnx.lock"));
            let _ = files::remove(&self.place.git_dir.join("index.lock"));
        }
    }
}
