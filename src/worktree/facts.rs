//! Reading the facts. Every answer that is not understood is `unknown`, with its reason.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Tree;
use super::nested::Beyond;
use super::rescue::{Seen, is_passing};
use crate::domain::receipt::DiffStat;
use crate::domain::tree::{TreeFacts, Tri};
use crate::git::{self, Forms, Git, GitError, HeadAt, Hidden, Status};
use crate::sys::{files, process};

/// How long a remote may take to say what it has.
const REMOTE_LIMIT: Duration = Duration::from_secs(10);

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The facts.
    pub facts: TreeFacts,
    /// Why facts are unknown.
    pub unknown_because: Vec<String>,
    /// HEAD of the worktree.
    pub head: Option<String>,
    /// The branch that HEAD is on, as a full ref.
    pub on: Option<String>,
    /// Where the dispatch branch points.
    pub tip: Option<String>,
    /// Commits on the dispatch branch since the base.
    pub commits: Option<u64>,
    /// The change from base to the branch's tip.
    pub diff: Option<DiffStat>,
    /// Commits that only this worktree reaches.
    pub stray: Vec<String>,
    /// There is more to it than its commits, although nothing of it is a change: a sparse checkout, settings of
    /// its own, files in another form than git would write; or its content is in the target and its commits are not.
    pub rescue_first: bool,
    /// What differs from HEAD; `None` if that could not be read.
    pub seen: Option<Seen>,
    /// Whether tracked or untracked files are uncommitted: what the verdict cares about.
    pub uncommitted: Tri,
    /// Somebody may have been collecting garbage before its objects were looked at.
    pub garbage: bool,
    /// Nothing of git's may be called there: it would wait for ever. Then the tree is left as it is.
    pub out_of_reach: bool,
}

impl Collected {
    pub(super) fn out_of_reach(why: String) -> Self {
        Self { out_of_reach: true, ..Self::unknown(vec![why]) }
    }

    pub(super) fn unknown(reasons: Vec<String>) -> Self {
        Self {
            facts: TreeFacts::UNKNOWN,
            unknown_because: reasons,
            head: None,
            on: None,
            tip: None,
            commits: None,
            diff: None,
            stray: Vec::new(),
            rescue_first: true,
            seen: None,
            uncommitted: Tri::Unknown,
            garbage: true,
            out_of_reach: false,
        }
    }
}

/// Reads everything about a worktree whose processes are gone.
pub(super) fn collect(tree: &Tree<'_>) -> Collected {
    let git_dir = match Git::worktree_git_dir(tree.common_dir, tree.path) {
        Ok(Some(git_dir)) => git_dir,
        Ok(None) => {
            return Collected::unknown(vec!["git has no worktree of this dispatch on record".into()]);
        }
        Err(e) => return Collected::unknown(vec![e.to_string()]),
    };
    if !tree.path.is_dir() {
        return Collected::unknown(vec![format!("the folder {} is gone", tree.path.display())]);
    }
    let garbage = git::anyone_collects();
    let git = Git::tree(&git_dir, tree.path);
    let repository = tree.repository();
    let ((status, hidden), stray, (tip, commits, diff)) = std::thread::scope(|scope| {
        let look = crate::sys::beside(scope, || {
            // git status runs what the configuration names; a changed one is not trusted.
            let config = crate::sys::beside(scope, || git.config());
            let attributes = crate::sys::beside(scope, || git.attributes(tree.common_dir));
            let staged = git.staged(tree.base.len() / 2);
            let config = config.join().unwrap_or_else(|_| Err(lost("config")));
            let attributes = attributes.join().unwrap_or_else(|_| Err(lost("var"))).ok();
            let status = match (config, &staged) {
                (Ok(config), _) if config.risk() != *tree.git_risk => Ok(None),
                (Ok(config), Ok(staged)) => {
                    git.status(staged).map(|s| Some((s, git.forms(staged, &config, attributes.as_ref()))))
                }
                (Ok(_), Err(_)) => Err(lost("status")),
                (Err(e), _) => Err(e),
            };
            let hidden = staged.map(|s| s.hidden);
            let beyond = match (&status, &hidden) {
                (Ok(Some((status, _))), Ok(hidden)) => {
                    let gitlinks = hidden.gitlinks.iter().map(PathBuf::as_path).collect();
                    let skip = status.ignored.iter().map(PathBuf::as_path).collect();
                    Beyond::look(tree.path, &git_dir, &gitlinks, &skip)
                }
                _ => Beyond::default(),
            };
            (status, hidden.map(|hidden| (hidden, beyond)))
        });
        let own = own_commits(tree, &repository);
        let stray = stray(tree, &git, own.1.as_deref().unwrap_or_default());
        (look.join().unwrap_or_else(|_| (Err(lost("status")), Err(lost("status")))), stray, own)
    });
    let mut unknown: Vec<String> = Vec::new();
    let mut forms = Forms { others: true, touched: Vec::new() };
    let status = match status {
        Ok(Some((status, read))) => {
            forms = read;
            Some(status)
        }
        Ok(None) => {
            unknown
                .push("git settings that may run programs were changed since it began, so its tree is not read".into());
            None
        }
        Err(e) => {
            unknown.push(format!("status: {e}"));
            None
        }
    };
    let stray = stray.map_err(|e| unknown.push(format!("reflog: {e}"))).ok();
    let hidden = match hidden {
        Ok((hidden, beyond)) => {
            let untracked = status.as_ref().map(|s| s.untracked.as_slice()).unwrap_or_default();
            let unseen = unseen(tree, &git_dir, &hidden, &beyond, untracked, &mut unknown);
            Some((hidden, beyond, unseen))
        }
        Err(e) => {
            unknown.push(format!("index: {e}"));
            None
        }
    };
    let tip = tip.unwrap_or_else(|e| {
        unknown.push(format!("branch: {e}"));
        None
    });
    let commits = commits.map_err(|e| unknown.push(format!("commits: {e}"))).ok().map(|list| list.len() as u64);
    let diff = diff.map_err(|e| unknown.push(format!("diff: {e}"))).ok().flatten();
    let read = Read { git_dir: &git_dir, repository, status, forms, stray, hidden, tip, commits, diff, unknown };
    Collected { garbage, ..assemble(tree, read) }
}

struct Read<'a> {
    git_dir: &'a Path,
    repository: Git,
    status: Option<Status>,
    forms: Forms,
    stray: Option<Vec<String>>,
    /// What the index hides, and whether it hides anything that is there.
    hidden: Option<(Hidden, Beyond, bool)>,
    tip: Option<String>,
    commits: Option<u64>,
    diff: Option<DiffStat>,
    unknown: Vec<String>,
}

fn assemble(tree: &Tree<'_>, read: Read<'_>) -> Collected {
    let Read { git_dir, repository, status, forms, stray, hidden, tip, commits, diff, mut unknown } = read;
    let ignored: Option<Vec<PathBuf>> =
        status.as_ref().map(|s| s.ignored.iter().filter(|p| !tree.is_reproducible(p)).cloned().collect());
    let head = status.as_ref().and_then(|s| s.commit.clone());
    let branch = tree.id.branch();
    let attached = |test: &dyn Fn(&str) -> bool| match status.as_ref().map(|s| &s.head) {
        Some(HeadAt::Branch(name)) => test(name).into(),
        Some(HeadAt::Detached) => Tri::No,
        None => Tri::Unknown,
    };
    // HEAD elsewhere than the tip: those commits are on another ref or stray; both are own work.
    let moved = match (&head, &tip) {
        (Some(head), Some(tip)) => (head != tip && head != tree.base).into(),
        (Some(head), None) => (head != tree.base).into(),
        (None, _) => Tri::Unknown,
    };
    let own = match (commits.map(|n| n > 0), moved) {
        (Some(true), _) | (_, Tri::Yes) => Tri::Yes,
        (Some(false), Tri::No) => Tri::No,
        _ => Tri::Unknown,
    };
    let uncommitted_parts =
        [has(status.as_ref().map(|s| s.changed.len())), has(status.as_ref().map(|s| s.untracked.len()))];
    // Where the index hides changes, "no" is not proven.
    let hides = hidden.as_ref().is_none_or(|(_, _, hides)| *hides);
    let uncommitted_parts = uncommitted_parts.map(|part| if hides && part == Tri::No { Tri::Unknown } else { part });
    let uncommitted = if uncommitted_parts.contains(&Tri::Yes) {
        Tri::Yes
    } else if uncommitted_parts.contains(&Tri::Unknown) {
        Tri::Unknown
    } else {
        Tri::No
    };
    // Neither is asked by settings that may run programs.
    let is_trusted = status.is_some();
    let asked = || integrated(tree, &repository, own, tip.as_deref(), commits);
    let (integrated, only_content) = if is_trusted { asked() } else { (Tri::Unknown, false) };
    let on_remote = if is_trusted {
        on_remote(&repository, own, tip.as_deref(), head.as_deref(), &mut unknown)
    } else {
        Tri::Unknown
    };
    let facts = TreeFacts {
        tracked_changes: uncommitted_parts[0],
        untracked: uncommitted_parts[1],
        ignored_kept: has(ignored.as_ref().map(Vec::len)),
        own_commits: own,
        stray_commits: has(stray.as_ref().map(Vec::len)),
        in_progress: in_progress(git_dir).into(),
        on_own_branch: attached(&|name| name == branch),
        on_foreign_branch: attached(&|name| name != branch && name.starts_with("vnx/")),
        integrated,
        on_remote,
        foreign_lock: foreign_lock(tree, git_dir),
        occupied: occupied(tree.path),
    };
    let on = status.as_ref().and_then(|s| match &s.head {
        HeadAt::Branch(name) => Some(format!("refs/heads/{name}")),
        HeadAt::Detached => None,
    });
    let own_settings = has_settings(tree, git_dir);
    let rescue_first = only_content || !forms.touched.is_empty() || own_settings;
    let seen = status.zip(hidden).zip(ignored).map(|((status, (hidden, beyond, _)), ignored)| Seen {
        beyond,
        onto: status.commit,
        changed: status.changed,
        unsure: [hidden.flagged, forms.touched].concat(),
        other_forms: forms.others,
        untracked: status.untracked,
        ignored,
    });
    Collected {
        facts,
        unknown_because: unknown,
        head,
        on,
        tip,
        commits,
        diff,
        stray: stray.unwrap_or_default(),
        rescue_first,
        seen,
        uncommitted,
        garbage: true,
        out_of_reach: false,
    }
}

fn has(count: Option<usize>) -> Tri {
    count.map_or(Tri::Unknown, |n| (n > 0).into())
}

/// Whether something in the tree is out of the sight of `git status`; says what.
fn unseen(
    tree: &Tree<'_>,
    git_dir: &Path,
    hidden: &Hidden,
    beyond: &Beyond,
    untracked: &[PathBuf],
    unknown: &mut Vec<String>,
) -> bool {
    // In a sparse checkout skip-worktree is how files are left out; then only a file that is
    // there in spite of it can hide a change.
    let sparse = git_dir.join("info/sparse-checkout").exists();
    let flagged = hidden.flagged.iter().find(|p| !sparse || tree.path.join(p).exists());
    if let Some(path) = flagged {
        unknown.push(format!("{} is marked so that git status does not look at it", path.display()));
    }
    let nested = beyond.nested.iter().find(|path| !untracked.contains(path));
    if let Some(path) = nested {
        unknown.push(format!(
            "{} is a repository of its own, or in the place of one: git does not look into it",
            path.display()
        ));
    }
    if let Some(path) = beyond.unread.first() {
        unknown.push(format!("{} cannot be read, or is not what git made", path.display()));
    }
    flagged.is_some() || nested.is_some() || !beyond.unread.is_empty()
}

/// Whether git keeps more for this worktree alone than every worktree has: settings, refs, what is half done.
fn has_settings(tree: &Tree<'_>, git_dir: &Path) -> bool {
    let usual = ["HEAD", "index", "logs/HEAD", "ORIG_HEAD", "FETCH_HEAD", "COMMIT_EDITMSG"];
    let is_usual = |path: &Path| {
        path == Path::new("modules") || is_passing(path) || usual.iter().any(|name| path == Path::new(name))
    };
    Git::tree(git_dir, tree.path).own_files(is_usual).map_or(true, |more| !more.is_empty())
}

fn lost(verb: &str) -> GitError {
    GitError::Unreadable { verb: verb.to_owned() }
}

type Own = (Result<Option<String>, GitError>, Result<Vec<String>, GitError>, Result<Option<DiffStat>, GitError>);

fn own_commits(tree: &Tree<'_>, repository: &Git) -> Own {
    match repository.ref_commit(&tree.id.branch_ref()) {
        Ok(Some(tip)) if tip == tree.base => (Ok(Some(tip)), Ok(Vec::new()), Ok(None)),
        Ok(Some(tip)) => {
            let commits = repository.commits_since(tree.base, &tip);
            let diff = repository.diff_stat(tree.base, &tip).map(Some);
            (Ok(Some(tip)), commits, diff)
        }
        Ok(None) => (Ok(None), Ok(Vec::new()), Ok(None)),
        Err(e) => (Err(e), Err(lost("rev-list")), Err(lost("rev-list"))),
    }
}

/// Commits that only this worktree or its stashes reach: amended away, detached, reset, stashed.
fn stray(tree: &Tree<'_>, git: &Git, own: &[String]) -> Result<Vec<String>, GitError> {
    let hash = tree.base.len() / 2;
    let mut names: Vec<String> = git.private_names(hash)?.into_iter().collect();
    names.extend(tree.repository().stashes_of(&tree.id.branch(), hash)?);
    // What the dispatch branch reaches needs no question.
    names.retain(|oid| oid != tree.base && !own.contains(oid));
    let tips = git.kinds_of(&names)?.into_iter().filter(|(_, kind)| kind == "commit");
    let tips: Vec<String> = tips.map(|(name, _)| name).collect();
    if tips.is_empty() { Ok(tips) } else { git.unreachable_from_refs(&tips) }
}

fn in_progress(git_dir: &Path) -> bool {
    ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG", "rebase-merge", "rebase-apply", "sequencer"]
        .iter()
        .any(|name| git_dir.join(name).exists())
}

fn foreign_lock(tree: &Tree<'_>, git_dir: &Path) -> Tri {
    match files::read_text(&git_dir.join("locked")) {
        Ok(reason) => (!tree.is_our_lock(&reason)).into(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Tri::No,
        Err(_) => Tri::Unknown,
    }
}

fn occupied(path: &Path) -> Tri {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    process::anyone_in(&path).map_or(Tri::Unknown, Tri::from)
}

/// Whether all own work is in the target branch, and whether only its content is: then its commits are on no
/// other ref.
fn integrated(tree: &Tree<'_>, repository: &Git, own: Tri, tip: Option<&str>, commits: Option<u64>) -> (Tri, bool) {
    // Where the target still stands at the base, commits beyond the base are not in it.
    let unmoved = || {
        let at = tree.base_name.starts_with("refs/").then(|| repository.ref_commit(tree.base_name).ok().flatten());
        at.flatten().as_deref() == Some(tree.base)
    };
    match (own, tip) {
        (Tri::No, _) => (Tri::No, false),
        (Tri::Yes, Some(_)) if commits.is_some_and(|n| n > 0) && unmoved() => (Tri::No, false),
        (Tri::Yes, Some(tip)) if tip != tree.base && tree.base_name.starts_with("refs/heads/") => {
            match repository.is_ancestor(tip, tree.base_name) {
                Ok(true) => (Tri::Yes, false),
                Ok(false) => match repository.has_change_of(tree.base_name, tip) {
                    Ok(has) => (has.into(), has),
                    Err(_) => (Tri::Unknown, false),
                },
                Err(_) => (Tri::Unknown, false),
            }
        }
        _ => (Tri::Unknown, false),
    }
}

/// The remote is asked only when a tracking ref says that the work was pushed.
fn on_remote(repository: &Git, own: Tri, tip: Option<&str>, head: Option<&str>, unknown: &mut Vec<String>) -> Tri {
    let (Tri::Yes, Some(tip), Some(head)) = (own, tip, head) else {
        return Tri::No;
    };
    // Without a tracking ref nothing was pushed; "no" keeps the branch, so it is the safe answer.
    let packed = || files::read(&repository.git_dir().join("packed-refs")).unwrap_or_default();
    let mentions_remotes = |bytes: Vec<u8>| bytes.windows(13).any(|w| w == b"refs/remotes/");
    if !repository.git_dir().join("refs/remotes").exists() && !mentions_remotes(packed()) {
        return Tri::No;
    }
    // Work on two tips needs both on the remote; the plain case is one.
    if tip != head {
        return Tri::No;
    }
    let candidates = match repository.tracking_refs_with(tip) {
        Ok(list) => list,
        Err(e) => {
            unknown.push(format!("remote: {e}"));
            return Tri::Unknown;
        }
    };
    for (remote, branch) in &candidates {
        match repository.remote_branch(remote, branch, REMOTE_LIMIT) {
            Ok(Some(commit)) if commit == tip => return Tri::Yes,
            Ok(Some(commit)) if repository.is_ancestor(tip, &commit).unwrap_or(false) => {
                return Tri::Yes;
            }
            Ok(_) => {}
            Err(e) => unknown.push(format!("remote {remote}: {e}")),
        }
    }
    Tri::No
}

impl Tree<'_> {
    /// `target/`, `a/b/__pycache__/`, `x.pyc`: any component that a pattern names.
    pub(super) fn is_reproducible(&self, path: &Path) -> bool {
        is_reproducible(path, &self.policy.reproducible)
    }
}

fn is_reproducible(path: &Path, patterns: &[String]) -> bool {
    path.iter().map(OsStr::to_string_lossy).any(|part| {
        patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some(suffix) => part.ends_with(suffix),
            None => part == *pattern,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reproducible_names_match_whole_components() {
        let patterns = ["target".to_owned(), "*.pyc".to_owned()];
        for yes in ["target/", "a/target/debug/x", "a/b.pyc"] {
            assert!(is_reproducible(Path::new(yes), &patterns), "{yes}");
        }
        for no in [".env", "targets/", "my-target/", "b.pyc.bak"] {
            assert!(!is_reproducible(Path::new(no), &patterns), "{no}");
        }
    }
}
