//! Undoing a removal: the worktree as its rescue or its branch has it.
//!
//! It is made aside and takes its place by one rename when it is whole: what stands at its path is never
//! half a worktree, and never ours to take away.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::rescue::{OTHER_FORM, STATE, State};
use super::{Tree, nested, removal};
use crate::domain::Fault;
use crate::domain::line::quoted;
use crate::domain::setup::Lfs;
use crate::git::{Entry, FOR_DISPATCH, Git, WriteError};
use crate::sys::files::{self, At};
use crate::sys::folder;

/// What a removed worktree is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Its rescue commit.
    Rescue(String),
    /// The files of a commit.
    Commit {
        /// What HEAD said: `ref: refs/heads/…`, or a commit.
        head: String,
        /// Where the dispatch branch pointed, if it is to be made again.
        tip: Option<String>,
    },
}

/// Makes the worktree again. Fails, and leaves nothing, when something stands at its path.
pub fn restore(tree: &Tree<'_>, source: &Source) -> Result<(), Fault> {
    let aside = aside(tree);
    clear(tree, &aside)?;
    if tree.path.symlink_metadata().is_ok() {
        return Err(Fault::input(format!("{} exists", tree.path.display()))
            .fix("the worktree is there; if something else is, move it away first"));
    }
    let recorded = Git::worktree_git_dir(tree.common_dir, tree.path).map_err(|_| {
        Fault::input(format!("git has the worktree {} on record at another place", tree.id))
            .fix(format!("it was moved: `vnx worktree gc {}` says how it comes back", tree.id))
    })?;
    if recorded.is_some() {
        // Its index, its HEAD and its reflog may be of a folder that somebody moved and works in.
        let path = tree.path.display().to_string();
        return Err(Fault::input(format!("the folder {path} is gone, but git has it on record")).fix(format!(
            "if it was moved: `git worktree repair NEW_PATH`; if it was deleted: `git worktree unlock {}` and \
             `git worktree prune` give up what git keeps of it, then undo again",
            quoted(&path)
        )));
    }
    is_free(tree, &tree.branch_ref())?;
    // What a removal that was cut off has left of git's folder, which git itself no more takes for one.
    tree.forget()?;
    files::replace(&mark(tree), b"")?;
    let made = match source {
        Source::Rescue(commit) => from_rescue(tree, &aside, commit),
        Source::Commit { head, tip } => from_commit(tree, &aside, head, tip.as_deref()),
    };
    let placed = made.and_then(|()| {
        files::remove(&mark(tree))?;
        folder::rename_new(&aside, tree.path)?;
        removal::release(tree.paths, &aside)
    });
    if placed.is_err() {
        // The error that brought us here is the one to report.
        let _ = clear(tree, &aside);
    }
    placed
}

/// One branch is checked out in one worktree: commits of two would be each other's changes.
fn is_free(tree: &Tree<'_>, branch: &str) -> Result<(), Fault> {
    let Some(other) = tree.repository().checked_out(branch)? else { return Ok(()) };
    let name = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    Err(Fault::input(format!("branch {name} is checked out in {}", other.display()))
        .fix("check out another branch there (`git checkout -`), then undo again"))
}

/// Where it is made: nobody works there, so whoever finds it knows that it is ours and not whole.
fn aside(tree: &Tree<'_>) -> PathBuf {
    tree.path.with_file_name(format!(".undo-{}", tree.id))
}

/// Stands from before git knows of the worktree until it is whole, and never while one stands at its path
/// in which somebody could work.
fn mark(tree: &Tree<'_>) -> PathBuf {
    tree.scratch.join("undo")
}

/// Takes away what an attempt that was cut off has left; nothing of a worktree that stood.
fn clear(tree: &Tree<'_>, aside: &Path) -> Result<(), Fault> {
    let marked = mark(tree).exists();
    if !marked && aside.symlink_metadata().is_err() {
        return Ok(());
    }
    // Registered, and not aside yet: a folder with nothing in it but the link to git's.
    if marked && files::names(tree.path)? == [".git"] && std::fs::remove_file(tree.path.join(".git")).is_ok() {
        std::fs::remove_dir(tree.path).at("remove", tree.path)?;
        removal::release(tree.paths, aside)?;
    }
    if tree.path.symlink_metadata().is_err() {
        tree.forget()?;
    }
    let cleared = removal::clear(tree.paths, tree.root(), aside).map_err(|fault| {
        fault.fix(format!("see what {} is: vnx made nothing there, or it was replaced", aside.display()))
    })?;
    cleared.map_or(Ok(()), removal::Aside::delete)?;
    Ok(files::remove(&mark(tree))?)
}

/// Registers the worktree under its path, and puts its empty folder aside.
fn register(tree: &Tree<'_>, aside: &Path, commit: &str) -> Result<PathBuf, Fault> {
    let _held = tree.locked()?;
    files::private_folder(tree.root())?;
    tree.repository().worktree_add_detached(tree.path, commit, &format!("{}: undone", tree.lock_reason()))?;
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?
        .ok_or_else(|| Fault::environment("git registered the worktree under another name"))?;
    removal::record_as(tree.paths, tree.path, aside)?;
    folder::rename_new(tree.path, aside)?;
    Ok(git_dir)
}

/// The branch is made again where it is gone; one that stands elsewhere now is somebody's work.
fn branch(tree: &Tree<'_>, tip: Option<&str>) -> Result<(), Fault> {
    let (repository, name) = (tree.repository(), tree.id.branch_ref());
    if repository.ref_commit(&name)?.is_some() {
        return Ok(());
    }
    // Given up last, or put away by a merge when it had landed.
    let tip = match (repository.ref_commit(&tree.id.dropped_ref())?, tip) {
        (Some(dropped), _) => Some(dropped),
        (None, Some(tip)) => Some(tip.to_owned()),
        (None, None) => repository.ref_commit(&tree.id.landed_ref())?,
    };
    if let Some(tip) = tip {
        repository.create_branch(&name, &tip, FOR_DISPATCH, None)?;
    }
    Ok(())
}

fn from_commit(tree: &Tree<'_>, aside: &Path, head: &str, tip: Option<&str>) -> Result<(), Fault> {
    branch(tree, tip)?;
    let repository = tree.repository();
    let name = head.strip_prefix("ref: ");
    let commit = match name {
        Some(name) => {
            is_free(tree, name)?;
            repository.ref_commit(name)?
        }
        None => repository.resolve(head)?,
    };
    let Some(commit) = commit else {
        return Err(Fault::environment(format!("what HEAD was on is gone: {head}"))
            .fix(format!("give it a branch again, as `git branch {} COMMIT`", tree.id.branch())));
    };
    let git_dir = register(tree, aside, &commit)?;
    if name.is_some() {
        let path = git_dir.join("HEAD");
        std::fs::write(&path, format!("{head}\n")).at("write", &path)?;
    }
    let git = Git::tree(&git_dir, aside);
    git.checkout_files(1, Lfs::Git, None)?;
    Ok(git.remember_checkout()?)
}

fn from_rescue(tree: &Tree<'_>, aside: &Path, commit: &str) -> Result<(), Fault> {
    let repository = tree.repository();
    let read = repository.raw_commits(&[commit.to_owned()])?;
    let parents = read.first().map(|c| c.parents.clone()).unwrap_or_default();
    let last = parents.last().cloned().into_iter().collect::<Vec<_>>();
    let state = repository.raw_commits(&last)?.into_iter().find(|c| c.message.starts_with(STATE));
    let Some(state) = state else {
        return Err(Fault::environment("the rescue is of an older vnx and does not say what state git was in")
            .fix(format!("its files: git restore --source {commit} --worktree ., in a worktree of your own")));
    };
    let (private, files) = (repository.files_of(&state.id)?, repository.files_of(commit)?);
    let kept = Kept::read(&repository, &private)?;
    if let Some(name) = head_branch(&repository, &private)? {
        is_free(tree, &name)?;
    }
    branch(tree, kept.state.tip.as_deref())?;
    let onto = kept.state.head.as_deref().unwrap_or(tree.base);
    let git_dir = register(tree, aside, onto)?;
    let of_git = private.iter().filter_map(|e| Some((e, git_dir.join(e.path.strip_prefix("git").ok()?))));
    write(&repository, &of_git.collect::<Vec<_>>())?;
    let of_nested = private.iter().filter_map(|e| Some((e, aside.join(nested::of_stored(&e.path)?))));
    let of_nested: Vec<_> = of_nested.collect();
    write(&repository, &of_nested)?;
    whole_folders(
        of_nested
            .iter()
            .map(|(_, path)| path.as_path())
            .chain(of_modules(&private, &git_dir).iter().map(PathBuf::as_path)),
    )?;
    let plain = files.iter().filter(|e| !kept.other_form.contains(&e.path));
    write(&repository, &plain.map(|e| (e, aside.join(&e.path))).collect::<Vec<_>>())?;
    let git = Git::tree(&git_dir, aside);
    git.write_as_configured(&kept.other_form)?;
    if git_dir.join("index").exists() {
        git.remember_checkout()?;
    }
    for (mode, path) in kept.modes {
        let path = aside.join(path);
        if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).at("set the mode of", &path)?;
        }
    }
    Ok(())
}

/// The branch that HEAD was on.
fn head_branch(repository: &Git, private: &[Entry]) -> Result<Option<String>, Fault> {
    let head = private.iter().find(|e| e.path == Path::new("git/HEAD"));
    let mut text = String::new();
    repository.contents(head.map(|e| e.oid.as_str()), |_, content| content.read_to_string(&mut text).map(drop))?;
    Ok(text.trim_end().strip_prefix("ref: ").map(str::to_owned))
}

/// Files of submodules that git keeps with the worktree.
fn of_modules(private: &[Entry], git_dir: &Path) -> Vec<PathBuf> {
    let path = |e: &Entry| e.path.strip_prefix("git").ok().map(|path| git_dir.join(path));
    private.iter().filter(|e| e.path.starts_with("git/modules")).filter_map(path).collect()
}

/// A folder of git's is one only with two folders that may be empty, and so are in no commit.
fn whole_folders<'a>(files: impl Iterator<Item = &'a Path>) -> Result<(), Fault> {
    for folder in files.filter(|path| path.file_name().is_some_and(|n| n == "HEAD")).filter_map(Path::parent) {
        if folder.join("config").is_file() {
            for name in ["refs", "objects"] {
                let path = folder.join(name);
                std::fs::create_dir_all(&path).at("create", &path)?;
            }
        }
    }
    Ok(())
}

/// Whether everything in a rescue is on disk as the rescue has it: the first file that is not.
pub(super) fn unlike(tree: &Tree<'_>, commit: &str, git_dir: &Path) -> Result<Option<PathBuf>, Fault> {
    let repository = tree.repository();
    let read = repository.raw_commits(&[commit.to_owned()])?;
    let state = read.first().and_then(|c| c.parents.last().cloned()).unwrap_or_default();
    let files = repository.files_of(commit)?.into_iter().map(|e| (tree.path.join(&e.path), e));
    let of_state = |e: Entry| match (nested::of_stored(&e.path), e.path.strip_prefix("git")) {
        (Some(path), _) => Some((tree.path.join(path), e)),
        (None, Ok(path)) => Some((git_dir.join(path), e)),
        (None, Err(_)) => None,
    };
    let private = repository.files_of(&state)?;
    let other_form = Kept::read(&repository, &private)?.other_form;
    let state = private.into_iter().filter_map(of_state);
    // What git wrote in a form of its own is as it was if nobody has written it since.
    let touched = Git::tree(git_dir, tree.path).touched(tree.base.len() / 2).filter(|_| !other_form.is_empty());
    let touched: Option<BTreeSet<PathBuf>> = touched.map(BTreeSet::from_iter);
    let is_gits = |path: &Path| {
        let path = path.strip_prefix(tree.path).unwrap_or(path);
        other_form.contains(path) && touched.as_ref().is_some_and(|touched| !touched.contains(path))
    };
    let entries: Vec<_> = files.chain(state).filter(|(_, e)| !e.is_gitlink()).collect();
    let mut differs = None;
    repository.contents(entries.iter().map(|(_, e)| e.oid.as_str()), |at, content| {
        if differs.is_none() && !is_same(&entries[at].0, entries[at].1.mode, content)? && !is_gits(&entries[at].0) {
            differs = Some(entries[at].0.clone());
        }
        Ok(())
    })?;
    Ok(differs)
}

pub(super) fn is_same(path: &Path, mode: u32, content: &mut dyn Read) -> io::Result<bool> {
    if mode == 0o120_000 {
        let mut target = Vec::new();
        content.read_to_end(&mut target)?;
        return Ok(std::fs::read_link(path).is_ok_and(|found| found.as_os_str().as_bytes() == target));
    }
    let executable = |file: &std::fs::File| file.metadata().is_ok_and(|m| m.permissions().mode() & 0o100 != 0);
    Ok(files::open_regular(path)
        .is_ok_and(|file| executable(&file) == (mode & 0o100 != 0) && files::same_bytes(file, content)))
}

/// What the state commit says.
struct Kept {
    state: State,
    modes: Vec<(u32, PathBuf)>,
    /// Files that git writes in another form than it stores them; rescues before did not know them.
    other_form: BTreeSet<PathBuf>,
}

impl Kept {
    fn read(repository: &Git, private: &[Entry]) -> Result<Self, Fault> {
        let bad = || Fault::environment("the state in the rescue cannot be read").fix("`vnx worktree rescue show` it");
        let named = |name: &str| private.iter().find(|e| e.path == Path::new(name)).map(|e| e.oid.as_str());
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        let oids = [named("state.json").ok_or_else(bad)?, named("modes").ok_or_else(bad)?];
        let oids = oids.into_iter().chain(named(OTHER_FORM));
        repository.contents(oids, |at, content| content.read_to_end(&mut found[at]).map(drop))?;
        let state = serde_json::from_slice(&found[0]).map_err(|_| bad())?;
        let mode = |line: &[u8]| {
            let at = line.iter().position(|b| *b == b' ')?;
            let mode = u32::from_str_radix(std::str::from_utf8(&line[..at]).ok()?, 8).ok()?;
            Some((mode, PathBuf::from(std::ffi::OsStr::from_bytes(&line[at + 1..]))))
        };
        let lines = found[1].split(|b| *b == 0).filter(|line| !line.is_empty());
        let modes = lines.map(|line| mode(line).ok_or_else(bad)).collect::<Result<_, _>>()?;
        let paths = found[2].split(|b| *b == 0).filter(|path| !path.is_empty());
        let other_form = paths.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path))).collect();
        Ok(Self { state, modes, other_form })
    }
}

fn write(repository: &Git, entries: &[(&Entry, PathBuf)]) -> Result<(), Fault> {
    repository.write_out(entries).map(drop).map_err(|e| match e {
        WriteError::Disk(e) => Fault::io(e.to_string()).fix("free disk space, then undo again"),
        WriteError::Git(e) => e.into(),
    })
}
