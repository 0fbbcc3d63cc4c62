//! Reading the facts. Every answer that is not understood is `unknown`, with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Tree;
use super::baseline::{Baseline, Gone};
use super::branch::{Branch, own_work};
use super::ignored::Ignored;
use super::nested::Beyond;
use super::rescue::{Seen, is_passing};
use crate::domain::Digest;
use crate::domain::receipt::DiffStat;
use crate::domain::tree::{TreeFacts, Tri};
use crate::git::{
    self, Attributes, Forms, Git, GitConfig, GitError, HeadAt, Hidden, IgnoreRules, OwnWork, SharedFile, SharedFiles,
    Status,
};
use crate::sys::folder::{FileTime, FolderId};
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
    /// The commits of the dispatch branch that are its own, and what they stand on.
    pub work: Option<OwnWork>,
    /// The change of these commits.
    pub diff: Option<DiffStat>,
    /// Whether HEAD, where it is not on the tip, has commits of its own.
    pub own_at_head: Tri,
    /// A commit of another repository that the change points to and that is nowhere to be found, as `path: commit`.
    pub unresolved: Option<String>,
    /// Refs of others that lost what they led to.
    pub lost: Vec<Gone>,
    /// Settings of git that changed meanwhile, by their names.
    pub settings: Vec<String>,
    /// Files that hold for all worktrees and say something else than what counted when it began.
    pub shared_changed: Vec<SharedFile>,
    /// What they say now; `None` if that could not be read.
    pub shared: Option<SharedFiles>,
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
    /// The folder that was looked at.
    pub folder: Option<FolderId>,
    /// What was changed from then on may not be in the facts.
    pub read_at: FileTime,
    /// Ignored files and folders that a build makes again: nobody looks at what becomes of them.
    pub worthless: BTreeSet<PathBuf>,
    /// Nothing of git's may be called there: it would wait for ever. Then the tree is left as it is.
    pub out_of_reach: bool,
}

impl Collected {
    /// How many commits of the dispatch branch are its own.
    pub fn commits(&self) -> Option<u64> {
        self.work.as_ref().map(|work| work.commits.len() as u64)
    }

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
            work: None,
            diff: None,
            own_at_head: Tri::Unknown,
            unresolved: None,
            lost: Vec::new(),
            settings: Vec::new(),
            shared_changed: Vec::new(),
            shared: None,
            stray: Vec::new(),
            rescue_first: true,
            seen: None,
            uncommitted: Tri::Unknown,
            garbage: true,
            folder: None,
            read_at: FileTime::now(),
            worthless: BTreeSet::new(),
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
    collect_in(tree, &git_dir)
}

/// The same, of a tree that may stand elsewhere than git has it on record.
pub(super) fn collect_in(tree: &Tree<'_>, git_dir: &Path) -> Collected {
    let Ok(folder) = FolderId::of(tree.path) else {
        return Collected::unknown(vec![format!("the folder {} is gone, or a link", tree.path.display())]);
    };
    let begun = FileTime::now();
    let git = Git::tree(git_dir, tree.path);
    let repository = tree.repository();
    let baseline = Baseline::load(tree.scratch);
    let (garbage, read_at, look, stray, branch) = std::thread::scope(|scope| {
        // What all worktrees share is read while the clock moves on: what the worker wrote at the last moment is then
        // told from what is written later.
        let config = crate::sys::beside(scope, || git.config());
        let attributes = crate::sys::beside(scope, || git.attributes(tree.common_dir));
        let branch = crate::sys::beside(scope, || {
            let garbage = git::anyone_collects();
            (garbage, Branch::read(tree, &git, &repository, baseline.as_ref()))
        });
        let read_at = begun.next();
        let config = || config.join().unwrap_or_else(|_| Err(lost("config")));
        let attributes = || attributes.join().unwrap_or_else(|_| Err(lost("var"))).ok();
        let look = Look::take(tree, &git, baseline.as_ref(), config, attributes);
        let (garbage, branch) = branch.join().unwrap_or_else(|_| (true, Branch::unread()));
        let known = branch.work.as_ref().map(|work| work.commits.as_slice()).unwrap_or_default();
        let stray = stray(tree, &git, known);
        (garbage, read_at, look, stray, branch)
    });
    let Look { status, hidden, newly_hidden, shared } = look;
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
        Ok((hidden, (beyond, ignored))) => {
            let untracked = status.as_ref().map(|s| s.untracked.as_slice()).unwrap_or_default();
            let unseen = unseen(tree, git_dir, &hidden, &beyond, untracked, &mut unknown);
            Some((hidden, beyond, ignored, unseen))
        }
        Err(e) => {
            unknown.push(format!("index: {e}"));
            None
        }
    };
    let newly_hidden = newly_hidden.map_err(|e| unknown.push(format!("ignored files: {e}"))).ok();
    let (settings, shared) = shared.map_or((None, None), |(settings, shared)| (Some(settings), shared.ok()));
    let settings = baseline.as_ref().zip(settings).map(|(baseline, now)| baseline.changed_settings(&now));
    let read = Read {
        git_dir,
        git: &git,
        repository,
        baseline: baseline.as_ref(),
        status,
        forms,
        stray,
        hidden,
        newly_hidden,
        branch,
        settings: settings.unwrap_or_default(),
        shared,
        unknown,
    };
    Collected { garbage, folder: Some(folder), read_at, ..assemble(tree, read) }
}

/// What the files of the worktree show.
struct Look {
    status: Result<Option<(Status, Forms)>, GitError>,
    hidden: Result<(Hidden, (Beyond, Ignored)), GitError>,
    newly_hidden: Result<Vec<PathBuf>, GitError>,
    shared: Option<(BTreeMap<String, Digest>, Result<SharedFiles, GitError>)>,
}

impl Look {
    /// Reads them; `config` and `attributes` are being read already.
    fn take(
        tree: &Tree<'_>,
        git: &Git,
        baseline: Option<&Baseline>,
        config: impl FnOnce() -> Result<GitConfig, GitError>,
        attributes: impl FnOnce() -> Option<Attributes>,
    ) -> Self {
        let staged = git.staged(tree.base.len() / 2);
        // git status runs what the configuration names; a changed one is not trusted.
        let config = config();
        let shared = config.as_ref().ok().map(|config| {
            let config = config.shared();
            (config.digests(), SharedFiles::read(tree.common_dir, &config))
        });
        let status = match (config, &staged) {
            (Ok(config), _) if config.risk() != *tree.git_risk => Ok(None),
            (Ok(config), Ok(staged)) => git.status(staged).map(|status| {
                let attributes = attributes();
                Some((status, git.forms(staged, &config, attributes.as_ref())))
            }),
            (Ok(_), Err(_)) => Err(lost("status")),
            (Err(e), _) => Err(e),
        };
        let newly_hidden = match (&status, &staged, baseline, &shared) {
            (Ok(Some((status, _))), Ok(staged), Some(baseline), Some((_, Ok(now)))) => {
                let rules = IgnoreRules { base: tree.base, counted: &baseline.shared, now };
                git.newly_hidden(rules, staged, status, tree.scratch)
            }
            (Ok(Some(_)), Ok(_), Some(_), _) => Err(lost("check-ignore")),
            // Without a baseline, and without a status, nothing is taken for ignored work.
            _ => Ok(Vec::new()),
        };
        let looked = match (&status, &staged) {
            (Ok(Some((status, _))), Ok(staged)) => {
                let gitlinks = staged.hidden.gitlinks.iter().map(PathBuf::as_path).collect();
                let skip = status.ignored.iter().map(PathBuf::as_path).collect();
                let beyond = Beyond::look(tree.path, git.git_dir(), &gitlinks, &skip);
                (beyond, Ignored::of(tree, &status.ignored, |folder| git.tracks_below(staged, folder)))
            }
            _ => Default::default(),
        };
        Self { status, hidden: staged.map(|staged| (staged.hidden, looked)), newly_hidden, shared }
    }
}

struct Read<'a> {
    git_dir: &'a Path,
    git: &'a Git,
    repository: Git,
    baseline: Option<&'a Baseline>,
    status: Option<Status>,
    forms: Forms,
    stray: Option<Vec<String>>,
    /// What the index hides, and whether it hides anything that is there.
    hidden: Option<(Hidden, Beyond, Ignored, bool)>,
    /// Ignored paths that only new rules hide.
    newly_hidden: Option<Vec<PathBuf>>,
    branch: Branch,
    settings: Vec<String>,
    shared: Option<SharedFiles>,
    unknown: Vec<String>,
}

#[expect(clippy::too_many_lines, reason = "one fact after the other, each from what was read")]
fn assemble(tree: &Tree<'_>, read: Read<'_>) -> Collected {
    let Read {
        git_dir,
        git,
        repository,
        baseline,
        status,
        forms,
        stray,
        mut hidden,
        branch,
        settings,
        mut unknown,
        ..
    } = read;
    let (newly_hidden, shared) = (read.newly_hidden, read.shared);
    let tip = branch.tip.unwrap_or_else(|e| {
        unknown.push(format!("branch: {e}"));
        None
    });
    let now = branch.now.map_err(|e| unknown.push(format!("refs: {e}"))).ok();
    let work = branch.work.map_err(|e| unknown.push(format!("commits: {e}"))).ok();
    let diff = branch.diff.map_err(|e| unknown.push(format!("diff: {e}"))).ok().flatten();
    let others_lost = branch.lost.map_err(|e| unknown.push(format!("refs: {e}"))).unwrap_or_default();
    // What its own `.gitignore` hides and can be made again is what such a file is for.
    let even_worthless = baseline.zip(shared.as_ref()).is_none_or(|(b, now)| !b.shared.excludes_like(now));
    let hidden_work = newly_hidden.map(|paths| match &mut hidden {
        Some((_, _, ignored, _)) => ignored.count_as_work(&paths, even_worthless),
        None => paths.len(),
    });
    let head = status.as_ref().and_then(|s| s.commit.clone());
    let stray = stray.filter(|_| {
        let is_whole = head.as_ref().is_none_or(|head| git.has_whole_reflog(head));
        if !is_whole {
            unknown.push("reflog: it is not whole, so it does not say which commits were made".to_owned());
        }
        is_whole
    });
    let name_of_branch = tree.id.branch();
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
    // Whoever made them: what the branch has beside the base is not lost with its worktree, if all of it was read.
    let has_moved = tip.as_ref().is_some_and(|tip| tip != tree.base);
    let own = match (work.is_some(), moved) {
        (false, _) | (true, Tri::Unknown) => Tri::Unknown,
        (true, moved) => (has_moved || moved == Tri::Yes).into(),
    };
    let own_at_head = match (&head, &now) {
        _ if moved != Tri::Yes => Tri::No,
        (Some(head), Some(now)) => own_work(tree, git, &repository, baseline, now, head)
            .map_or(Tri::Unknown, |work| (!work.commits.is_empty()).into()),
        _ => Tri::Unknown,
    };
    let untracked = match (&status, hidden_work) {
        (Some(status), Some(hidden)) => Some(status.untracked.len() + hidden),
        (Some(status), None) if !status.untracked.is_empty() => Some(status.untracked.len()),
        _ => None,
    };
    let uncommitted_parts = [has(status.as_ref().map(|s| s.changed.len())), has(untracked)];
    // Where the index hides changes, "no" is not proven.
    let hides = hidden.as_ref().is_none_or(|(.., hides)| *hides);
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
    let asked = || integrated(tree, &repository, own, tip.as_deref());
    let (integrated, only_content) = if is_trusted { asked() } else { (Tri::Unknown, false) };
    let on_remote = if is_trusted {
        on_remote(&repository, own, tip.as_deref(), head.as_deref(), &mut unknown)
    } else {
        Tri::Unknown
    };
    let facts = TreeFacts {
        tracked_changes: uncommitted_parts[0],
        untracked: uncommitted_parts[1],
        ignored_kept: has(status.as_ref().and(hidden.as_ref()).map(|(_, _, ignored, _)| ignored.kept.len())),
        own_commits: own,
        stray_commits: has(stray.as_ref().map(Vec::len)),
        in_progress: in_progress(git_dir).into(),
        on_own_branch: attached(&|name| name == name_of_branch),
        on_foreign_branch: attached(&|name| name != name_of_branch && name.starts_with("vnx/")),
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
    let mut worthless = BTreeSet::new();
    let seen = status.zip(hidden).map(|(status, (hidden, beyond, ignored, _))| {
        worthless = ignored.worthless;
        Seen {
            beyond,
            onto: status.commit,
            changed: status.changed,
            unsure: [hidden.flagged, forms.touched].concat(),
            other_forms: forms.others,
            untracked: status.untracked,
            ignored: ignored.kept,
        }
    });
    Collected {
        facts,
        unknown_because: unknown,
        head,
        on,
        tip,
        work,
        diff,
        own_at_head,
        unresolved: branch.unresolved,
        lost: others_lost,
        settings,
        shared_changed: baseline.zip(shared.as_ref()).map(|(b, now)| b.shared.differing(now)).unwrap_or_default(),
        shared,
        stray: stray.unwrap_or_default(),
        rescue_first,
        seen,
        uncommitted,
        garbage: true,
        folder: None,
        read_at: FileTime::now(),
        worthless,
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

/// Whether git keeps more for this worktree alone than every worktree has: settings, refs, what is half done, and
/// repositories of submodules, also of those that the index names no more. Their commits may be nowhere else.
fn has_settings(tree: &Tree<'_>, git_dir: &Path) -> bool {
    let usual = ["HEAD", "index", "logs/HEAD", "ORIG_HEAD", "FETCH_HEAD", "COMMIT_EDITMSG"];
    let is_usual = |path: &Path| is_passing(path) || usual.iter().any(|name| path == Path::new(name));
    Git::tree(git_dir, tree.path).own_files(is_usual).map_or(true, |more| !more.is_empty())
}

fn lost(verb: &str) -> GitError {
    GitError::Unreadable { verb: verb.to_owned() }
}

/// Commits that only this worktree or its stashes reach: amended away, detached, reset, stashed.
pub(super) fn stray(tree: &Tree<'_>, git: &Git, own: &[String]) -> Result<Vec<String>, GitError> {
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
fn integrated(tree: &Tree<'_>, repository: &Git, own: Tri, tip: Option<&str>) -> (Tri, bool) {
    // Where the target still stands at the base, commits beyond the base are not in it.
    let unmoved = || {
        let at = tree.base_name.starts_with("refs/").then(|| repository.ref_commit(tree.base_name).ok().flatten());
        at.flatten().as_deref() == Some(tree.base)
    };
    match (own, tip) {
        (Tri::No, _) => (Tri::No, false),
        (Tri::Yes, Some(tip)) if tip != tree.base && unmoved() => (Tri::No, false),
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
