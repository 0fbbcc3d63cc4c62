//! Bringing a branch into its target: in a checkout of our own, and then into whoever has the target checked out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::objects::SYNCED;
use super::own_work::git_folder_of;
use super::worktree::same_folder;
use super::{FATAL, Git, GitConfig, Result, expect, refused, unreadable};
use crate::sys::cmd::Output;
use crate::sys::files;

/// How long git may take for one of these.
pub(super) const LIMIT: Duration = Duration::from_mins(30);

/// Settings that do something beside a merge's work, or decide what comes of it: a conflict is one whatever they say.
/// The repository's are not asked, as a worker may have written them.
pub const PINNED: [&str; 10] = [
    // Of the user's attributes, which could let one side of a conflict win, none counts: other machines have others.
    "core.attributesFile=/dev/null",
    "rebase.updateRefs=false",
    "rebase.autoSquash=false",
    "rebase.autoStash=false",
    "rerere.enabled=false",
    "merge.autoStash=false",
    "merge.default=text",
    "merge.directoryRenames=conflict",
    "merge.renormalize=false",
    "merge.renames=true",
];

/// A worktree that has a branch checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOut {
    /// Its files.
    pub path: PathBuf,
    /// Its own git folder.
    pub git_dir: PathBuf,
}

impl CheckedOut {
    /// Whether a git works there at this moment.
    pub fn is_locked(&self) -> bool {
        self.git_dir.join("index.lock").exists()
    }

    /// Whether it still has this branch checked out, by its full name.
    pub fn is_on(&self, branch: &str) -> bool {
        is_on(&self.git_dir, branch)
    }
}

/// What came of a call that may find a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It is done.
    Clean,
    /// These paths are in conflict.
    Conflict(Vec<String>),
}

/// What a merge would come to, by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreseen {
    /// This tree, or nearly: attributes and drivers for merges may make it another one.
    Tree(String),
    /// A conflict, unless attributes know better.
    Conflict,
}

impl Git {
    /// What a merge of two commits would come to, without a checkout; `None` where git is older than 2.38 or cannot say.
    pub fn foresee(&self, base: &str, head: &str) -> Option<Foreseen> {
        let settings = PINNED.iter().flat_map(|setting| ["-c", setting]);
        let args = ["merge-tree", "--write-tree", "--name-only", "--no-messages", base, head];
        let output = self.cmd().args(settings).args(args).limit(LIMIT).run().ok()?;
        match output.code {
            Some(0) => Some(Foreseen::Tree(output.text())),
            Some(1) => Some(Foreseen::Conflict),
            _ => None,
        }
    }

    /// Whether git has a path in its index, or would take it when asked with these flags (git-add(1)). `self` is the
    /// worktree.
    pub fn would_add(&self, flags: &[&str], path: &str) -> bool {
        let is_ok = |args: &[&str]| self.cmd().args(args).args(["--", path]).run().is_ok_and(|output| output.ok());
        is_ok(&["ls-files", "--error-unmatch"]) || is_ok(&[&["add", "--dry-run"], flags].concat())
    }

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
        let call = || {
            let mut cmd = self.cmd();
            for setting in PINNED {
                cmd = cmd.args(["-c", setting]);
            }
            let mut cmd = cmd.args(args).limit(LIMIT);
            for (name, value) in env {
                cmd = cmd.env(name, value);
            }
            cmd.run()
        };
        let mut output = call()?;
        // A commit that could not be stored changes nothing, and older git cannot store it while others collect garbage.
        if args[0] == "commit" && output.code == Some(FATAL) {
            output = call()?;
        }
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

    /// Whether anybody has this branch checked out, by its full name. Reads files: git fails over a worktree that goes
    /// while it looks. What cannot be read counts as in use. `self` is the repository.
    pub fn is_in_use(&self, branch: &str) -> bool {
        let linked = self.git_dir.join("worktrees");
        let Ok(names) = files::names(&linked) else { return true };
        let places = names.iter().map(|name| linked.join(name)).chain([self.git_dir.clone()]);
        let is_unread = |place: &Path| place.join("HEAD").symlink_metadata().is_ok() && head_of(place).is_none();
        places.into_iter().any(|place| is_on(&place, branch) || is_unread(&place))
    }

    /// Whether HEAD names a commit and no branch: what is done there moves nothing else. `self` is the worktree.
    pub fn is_detached(&self) -> bool {
        let head = head_of(&self.git_dir).unwrap_or_default();
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

    /// Puts the checkout back to a commit, by its object name, whatever was begun in it. `self` is the worktree.
    pub fn start_again(&self, commit: &str) -> Result<()> {
        // `reset` knows no `--end-of-options` before git 2.43.1.
        let reset = self.cmd().args(["reset", "--hard", "--quiet", commit, "--"]).limit(LIMIT);
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
        let on_it = |git_dir: &Path| is_on(git_dir, branch);
        let mut found = Vec::new();
        let is_own = |folder: PathBuf| same_folder(&folder, &self.git_dir);
        if git_folder_of(main).is_some_and(is_own) && on_it(&self.git_dir) {
            found.push(CheckedOut { path: main.to_owned(), git_dir: self.git_dir.clone() });
        }
        for git_dir in names.into_iter().map(|name| linked.join(name)).filter(|git_dir| on_it(git_dir)) {
            let recorded = files::read(&git_dir.join("gitdir")).map_err(|_| unreadable("worktree"))?;
            let file = git_dir.join(OsStr::from_bytes(recorded.trim_ascii_end()));
            let path = file.parent().ok_or_else(|| unreadable("worktree"))?.to_owned();
            // One whose folder is gone is only waiting to be pruned.
            if path.exists() && !Self::is_of_another(&path, &self.git_dir) {
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
            let said = files.iter().filter_map(|file| files::read_text(&git_dir.join(file)).ok());
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
        expect("update-ref", self.cmd().args(SYNCED).args(args).run()?).map(drop)
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
        // Before 1973 seconds are only taken for such behind an `@` (git-commit(1)).
        let args = ["log", "-1", "--format=%an%x00%ae%x00@%ad", "--date=raw", commit, "--"];
        let text = expect("log", self.cmd().args(args).run()?)?.text();
        let names = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE"];
        Ok(names.iter().zip(text.split('\0')).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect())
    }
}

/// Whether HEAD names this branch.
pub(super) fn is_on(git_dir: &Path, branch: &str) -> bool {
    let head = head_of(git_dir).unwrap_or_default();
    head.strip_prefix(b"ref: ").is_some_and(|name| name.trim_ascii_end() == branch.as_bytes())
}

/// What HEAD says, in the form of its file; `None` if that cannot be read. Where references are kept in tables that file says nothing, for every git
/// that knows no tables (gitrepository-layout(5)), and git is asked.
fn head_of(git_dir: &Path) -> Option<Vec<u8>> {
    let head = files::read(&git_dir.join("HEAD")).ok()?;
    if head.trim_ascii_end() != b"ref: refs/heads/.invalid" {
        return Some(head);
    }
    let git = Git::repository(git_dir);
    let ask = |args: &[&str]| git.cmd().args(args).run().ok().filter(Output::ok).map(|said| said.text());
    let name = ask(&["symbolic-ref", "--quiet", "HEAD"]).map(|name| format!("ref: {name}"));
    name.or_else(|| ask(&["rev-parse", "--verify", "--quiet", "HEAD"])).map(String::into_bytes)
}

pub(super) fn home(rest: &str) -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from(rest), |home| PathBuf::from(home).join(rest))
}
