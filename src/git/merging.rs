//! Bringing a branch into its target: in a checkout of our own, and then into whoever has the target checked out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rests::Rests;
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
        // What these do beside their work would move or decide something that nobody has asked for.
        let without =
            ["rebase.updateRefs", "rebase.autoSquash", "rebase.autoStash", "rerere.enabled", "merge.autoStash"];
        let mut cmd = self.cmd();
        for setting in without {
            cmd = cmd.args(["-c", &format!("{setting}=false")]);
        }
        let mut cmd = cmd.args(args).limit(LIMIT);
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

    /// Whether HEAD names a commit and no branch: what is done there moves nothing else. `self` is the worktree.
    pub fn is_detached(&self) -> bool {
        let head = std::fs::read(self.git_dir.join("HEAD")).unwrap_or_default();
        let name = head.trim_ascii_end();
        matches!(name.len(), 40 | 64) && name.iter().all(u8::is_ascii_hexdigit)
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

    /// The worktrees that have a branch checked out, by git's own files: their paths can be anything. `self` is the
    /// repository.
    pub fn who_has(&self, branch: &str, main: &Path) -> Result<Vec<CheckedOut>> {
        let linked = self.git_dir.join("worktrees");
        let names = files::names(&linked).map_err(|_| unreadable("worktree"))?;
        let on_it = |git_dir: &Path| {
            let head = std::fs::read(git_dir.join("HEAD")).unwrap_or_default();
            head.strip_prefix(b"ref: ").is_some_and(|name| name.trim_ascii_end() == branch.as_bytes())
        };
        let mut found = Vec::new();
        if main.join(".git").exists() && on_it(&self.git_dir) {
            found.push(CheckedOut { path: main.to_owned(), git_dir: self.git_dir.clone() });
        }
        for git_dir in names.into_iter().map(|name| linked.join(name)).filter(|git_dir| on_it(git_dir)) {
            let recorded = std::fs::read(git_dir.join("gitdir")).map_err(|_| unreadable("worktree"))?;
            let file = git_dir.join(OsStr::from_bytes(recorded.trim_ascii_end()));
            let path = file.parent().ok_or_else(|| unreadable("worktree"))?.to_owned();
            // One whose folder is gone is only waiting to be pruned.
            if path.exists() {
                found.push(CheckedOut { path, git_dir });
            }
        }
        Ok(found)
    }

    /// The worktree in which a rebase or a bisection will come back to a branch. `self` is the repository.
    pub fn will_come_back_to(&self, branch: &str) -> Option<PathBuf> {
        let linked = self.git_dir.join("worktrees");
        let all = files::names(&linked).unwrap_or_default().into_iter().map(|name| linked.join(name));
        let short = branch.strip_prefix("refs/heads/").unwrap_or(branch);
        let names_it = |git_dir: &PathBuf| {
            let files = ["rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"];
            let said = files.iter().filter_map(|file| std::fs::read_to_string(git_dir.join(file)).ok());
            said.into_iter().any(|text| text.trim() == branch || text.trim() == short)
        };
        std::iter::once(self.git_dir.clone()).chain(all).find(names_it)
    }

    /// Moves a branch if it still is where it was. The project's own hooks may refuse it (reference-transaction).
    /// `self` is the repository.
    pub fn land(&self, branch: &str, new: &str, old: &str, why: &str, hooks: &Path) -> Result<()> {
        // A later setting counts.
        let hooks = format!("core.hooksPath={}", hooks.display());
        let args = ["-c", &hooks, "update-ref", "--no-deref", "-m", why, branch, new, old];
        expect("update-ref", self.cmd().args(args).run()?).map(drop)
    }

    /// Where the project's hooks are: a path of its own counts from the main checkout.
    pub fn hooks_folder(&self, config: &GitConfig, main: &Path) -> PathBuf {
        match config.value("core.hookspath").filter(|path| !path.is_empty()) {
            Some(path) => main.join(path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), home)),
            None => self.git_dir.join("hooks"),
        }
    }

    /// Pushes a ref, never by force; the project's `pre-push` hook may refuse it. `self` is the repository.
    pub fn push(&self, remote: &str, refspec: &str, hooks: &Path, limit: Duration) -> Result<()> {
        let hooks = format!("core.hooksPath={}", hooks.display());
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
}

impl<'a> Held<'a> {
    /// Takes the index of a checkout. `word` stands in the lock, so that it is known for ours when we are killed.
    pub fn take(place: &'a CheckedOut, word: &str, merge_lock: &'a File) -> std::result::Result<Self, BehindError> {
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
                Ok(Self { place, git, lock: merge_lock, released: false })
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
            let said = output.complaint();
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
        if output.code.is_none() {
            // It was killed, wherever it was; one that refuses has written nothing.
            return self.finish(from, to);
        }
        expect("read-tree", output)?;
        self.release()
    }

    /// The same where another process has done a part of it, whatever part: what is as the first commit has it, or
    /// half written, is written; what somebody has changed since stays, as a change beside the second one.
    pub fn finish(self, from: &str, to: &str) -> std::result::Result<(), BehindError> {
        self.fresh_copy()?;
        let rests = Rests::of(&self.git, &self.place.path, from, to)?;
        let git = super::GitError::from;
        let told = self.with_copy().args(["update-index", "-z", "--index-info"]).stdin(rests.index);
        expect("update-index", told.run().map_err(git)?)?;
        for path in rests.gone {
            let path = self.place.path.join(path);
            files::remove(&path)?;
            for above in path.ancestors().skip(1).take_while(|above| *above != self.place.path) {
                if std::fs::remove_dir(above).is_err() {
                    break;
                }
            }
        }
        let args = ["checkout-index", "-f", "-q", "-z", "--stdin"];
        expect("checkout-index", self.with_copy().args(args).stdin(rests.write).run().map_err(git)?)?;
        self.release()
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

fn home(rest: &str) -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from(rest), |home| PathBuf::from(home).join(rest))
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
