//! The rescue: everything of a worktree that its removal could lose, as one commit.
//!
//! Its tree is the worktree as it stands on disk, byte for byte. Its parents are the branch, HEAD,
//! every commit that only this worktree reached, and last a commit with what git keeps for the
//! worktree alone: HEAD, index, reflogs, operations that are half done, and what is staged. With it
//! `restore` makes the worktree again.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ignored::Ignored;
use super::nested::{self, Beyond};
use super::restore::is_same;
use super::teardown::GOING;
use super::{Collected, Tree};
use crate::domain::Fault;
use crate::domain::span::Size;
use crate::git::{Changed, Entry, FIRST_INDEX, Found, Git, Import};
use crate::sys::files;
use crate::sys::folder::{Folder, Stands};

/// What `git status` and the index say, as far as a rescue depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The commit whose files everything else is a change of.
    pub(super) onto: Option<String>,
    /// Tracked files that differ.
    pub(super) changed: Vec<Changed>,
    /// Files of which git does not tell whether they differ.
    pub(super) unsure: Vec<PathBuf>,
    /// git writes some files in another form than it stores them.
    pub(super) other_forms: bool,
    /// Files that git does not track.
    pub(super) untracked: Vec<PathBuf>,
    /// Ignored files and folders that are not reproducible.
    pub(super) ignored: Vec<PathBuf>,
    /// What git says nothing about.
    pub(super) beyond: Beyond,
}

/// A rescue that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Its ref and its commit.
    pub reference: String,
    /// The commit.
    pub commit: String,
    /// What is not in it: ignored files over the budget, and what cannot be read.
    pub left_out: Vec<String>,
    /// Pipes, sockets and devices: nothing in them can be lost.
    pub no_files: Vec<String>,
    /// What it was made from.
    pub(super) what: What,
}

/// What a rescue is made from, by name. What appears later is in no rescue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct What {
    seen: Seen,
    taken: Taken,
    /// What git keeps for the worktree alone.
    private: BTreeSet<PathBuf>,
    /// Where the dispatch branch and HEAD point, and what else only this worktree reaches.
    commits: Vec<String>,
}

impl What {
    pub(super) fn read(tree: &Tree<'_>, collected: &Collected, git_dir: &Path) -> Result<Self, Fault> {
        let seen = collected.seen.clone().map_or_else(|| everything(tree, git_dir), Ok)?;
        let mut taken = Taken::default();
        taken.ignored(tree, &seen.ignored);
        taken.nested(tree, &seen.beyond.nested);
        taken.left_out.extend(seen.beyond.unread.iter().map(|path| path.display().to_string()));
        taken.files.extend(paths(&seen).map(Path::to_owned));
        let private = Git::tree(git_dir, tree.path).own_files(is_passing)?.into_iter().collect();
        let named = [&collected.tip, &collected.head].into_iter().flatten();
        let commits = named.chain(&collected.stray).cloned().collect();
        Ok(Self { seen, taken, private, commits })
    }
}

/// What the state commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Format version, 1.
    pub(super) v: u32,
    /// Where the dispatch branch pointed; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tip: Option<String>,
    /// HEAD's commit; absent on an unborn branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<String>,
}

/// Repositories below a tree with more bytes than this are not in its rescue.
const NESTED_MAX: u64 = 1 << 30;

/// The list of files in another form, in a state commit.
pub(super) const OTHER_FORM: &str = "other-form";

/// The first line of the message of a state commit.
pub(super) const STATE: &str = "vnx state of dispatch";

/// Writes the rescue and sets its ref.
pub(super) fn rescue(tree: &Tree<'_>, collected: &Collected) -> Result<Rescued, Fault> {
    let git_dir = Git::worktree_git_dir(tree.common_dir, tree.path)?
        .ok_or_else(|| Fault::environment("git has no worktree of this dispatch on record"))?;
    let repository = tree.repository();
    let what = What::read(tree, collected, &git_dir)?;
    let What { seen, taken, .. } = &what;
    let mut left_out = taken.left_out.clone();
    let mut no_files = Vec::new();
    let reference = tree.id.rescue_ref();
    let seconds = crate::sys::now().micros().cast_unsigned() / 1_000_000;
    let mut import = Import::begin(tree.scratch, room(tree)?, &reference, seconds)?;
    let folder = Folder::open(tree.path)?;
    let state = write_state(&mut import, tree, collected, &what, &git_dir, &mut left_out)?;
    for path in &taken.of_git {
        if import.file(&folder, path, &nested::stored(path))? == Found::TooLarge {
            left_out.push(path.display().to_string());
        }
    }
    import.bytes(&modes(tree, taken), Path::new("modes"))?;
    import.bytes(&in_other_form(tree, &repository, seen)?, Path::new(OTHER_FORM))?;
    let message = format!("vnx rescue of dispatch {}\n\nEverything its worktree held.\n", tree.id);
    let earlier = repository.ref_commit(&reference)?;
    import.commit(&parents(tree, collected, earlier, state), &message)?;
    if let Some(commit) = &seen.onto {
        import.start_from(&repository.tree_of(commit)?)?;
    }
    // First all that is gone: a folder may stand where a file was.
    for path in &taken.files {
        if matches!(folder.look(path), Ok(Stands::Nothing | Stands::Folder)) {
            import.remove(path)?;
        }
    }
    for path in &taken.files {
        match import.file(&folder, path, path)? {
            Found::Special => no_files.push(path.display().to_string()),
            Found::TooLarge => left_out.push(path.display().to_string()),
            Found::Content | Found::Nothing => {}
        }
    }
    let commit = repository.import(import)?;
    Ok(Rescued { reference, commit, left_out, no_files, what })
}

/// How many bytes a rescue may take: first they stand in a stream and then, at worst as many, in a pack, and after
/// that so much of the disk is free as the configuration wants.
fn room(tree: &Tree<'_>) -> Result<u64, Fault> {
    let Size(floor) = tree.policy.disk_floor;
    let free = files::disk_free(tree.scratch)?.min(files::disk_free(tree.common_dir)?);
    Ok(free.saturating_sub(floor) / 2)
}

fn paths(seen: &Seen) -> impl Iterator<Item = &Path> {
    let changed = seen.changed.iter().map(|c| c.path.as_path());
    changed.chain(seen.unsure.iter().map(PathBuf::as_path)).chain(seen.untracked.iter().map(PathBuf::as_path))
}

/// Everything that must stay reachable, the state last. An earlier rescue is among it: it goes by nobody's
/// oversight, only when somebody drops it.
fn parents(tree: &Tree<'_>, collected: &Collected, earlier: Option<String>, state: String) -> Vec<String> {
    let mut parents: Vec<String> = Vec::new();
    let known = [collected.tip.clone(), collected.head.clone(), earlier].into_iter().flatten();
    for commit in known.chain(collected.stray.iter().cloned()) {
        if !parents.contains(&commit) {
            parents.push(commit);
        }
    }
    if parents.is_empty() {
        parents.push(tree.base.to_owned());
    }
    parents.push(state);
    parents
}

/// The commit with what git keeps for this worktree alone.
fn write_state(
    import: &mut Import,
    tree: &Tree<'_>,
    collected: &Collected,
    what: &What,
    git_dir: &Path,
    left_out: &mut Vec<String>,
) -> Result<String, Fault> {
    let mark = import.commit(&[], &format!("{STATE} {}\n", tree.id))?;
    let state = State { v: 1, tip: collected.tip.clone(), head: collected.head.clone() };
    let json = serde_json::to_vec(&state).map_err(|e| Fault::io(format!("the state cannot be written: {e}")))?;
    import.bytes(&json, Path::new("state.json"))?;
    let folder = Folder::open(git_dir)?;
    for path in &what.private {
        if import.file(&folder, path, &Path::new("git").join(path))? == Found::TooLarge {
            left_out.push(git_dir.join(path).display().to_string());
        }
    }
    let staged: BTreeSet<&String> = what.seen.changed.iter().flat_map(|c| &c.staged).collect();
    for oid in staged {
        import.object("100644", oid, &Path::new("staged").join(oid))?;
    }
    Ok(mark)
}

/// In the worktree's own git folder: what only says where things are, and what is ours or half written.
pub(super) fn is_passing(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let where_only = ["gitdir", "commondir", "locked", GOING, FIRST_INDEX].iter().any(|name| path == Path::new(name));
    where_only
        || name.as_bytes().starts_with(files::TEMPORARY.as_bytes())
        || path.extension().is_some_and(|e| e == "lock")
}

/// Permissions that git does not store: `<octal> <path>NUL` for each file that has other ones than it gives.
fn modes(tree: &Tree<'_>, taken: &Taken) -> Vec<u8> {
    let mut list = Vec::new();
    for path in taken.files.iter().chain(&taken.of_git) {
        let Ok(meta) = tree.path.join(path).symlink_metadata() else { continue };
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_file() && !matches!(mode, 0o644 | 0o755) {
            list.extend_from_slice(format!("{mode:o} ").as_bytes());
            list.extend_from_slice(path.as_os_str().as_bytes());
            list.push(0);
        }
    }
    list
}

/// Unchanged files whose bytes on disk are not those that git stores (git LFS, line ends): git writes them
/// again as it did. `<path>NUL` for each.
fn in_other_form(tree: &Tree<'_>, repository: &Git, seen: &Seen) -> Result<Vec<u8>, Fault> {
    let mut list = Vec::new();
    let Some(onto) = seen.onto.as_ref().filter(|_| seen.other_forms) else { return Ok(list) };
    let others: BTreeSet<&Path> = paths(seen).collect();
    let mut entries = repository.files_of(onto)?;
    entries.retain(|e| !e.is_gitlink() && !e.is_link() && !others.contains(e.path.as_path()));
    repository.contents(entries.iter().map(|e| e.oid.as_str()), |at, content| {
        let Entry { mode, path, .. } = &entries[at];
        if !is_same(&tree.path.join(path), *mode, content)? {
            list.extend_from_slice(path.as_os_str().as_bytes());
            list.push(0);
        }
        Ok(())
    })?;
    Ok(list)
}

/// Where git cannot be asked about the tree: every file is taken for a change.
fn everything(tree: &Tree<'_>, git_dir: &Path) -> Result<Seen, Fault> {
    let folder = tree.scratch.join("room");
    let objects = tree.common_dir.join("objects");
    let room = Git::room(&folder, &git_dir.join("index"), tree.path, &objects, tree.base.len() / 2)?;
    let (changed, is_known) = if let Ok(changed) = room.index_entries() {
        (changed, true)
    } else {
        // An index that git cannot read: then no file is known to it, and what is ignored may be tracked.
        files::remove(&folder.join("index"))?;
        (Vec::new(), false)
    };
    let (untracked, mut ignored) = room.others()?;
    files::delete_tree(&folder)?;
    let beyond = {
        let skip = ignored.iter().map(PathBuf::as_path).collect();
        let gitlinks = changed.iter().map(|c| c.path.as_path()).collect();
        Beyond::look(tree.path, git_dir, &gitlinks, &skip)
    };
    if is_known {
        let tracks_below = |folder: &Path| changed.iter().any(|c| c.path.starts_with(folder));
        ignored = Ignored::of(tree, &ignored, tracks_below).kept;
    }
    Ok(Seen { onto: None, changed, unsure: Vec::new(), other_forms: false, untracked, ignored, beyond })
}

/// What goes into a rescue, and what does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Taken {
    /// Files of the tree.
    files: BTreeSet<PathBuf>,
    /// Files of git's own in repositories below the tree.
    of_git: BTreeSet<PathBuf>,
    left_out: Vec<String>,
}

impl Taken {
    /// Ignored paths in order, until the budget is used up.
    fn ignored(&mut self, tree: &Tree<'_>, ignored: &[PathBuf]) {
        let Size(mut left) = tree.policy.rescue_ignored_max;
        for path in ignored {
            left -= self.below(tree.path, path, left).unwrap_or(0);
        }
    }

    /// Repositories below the tree, whole.
    fn nested(&mut self, tree: &Tree<'_>, nested: &[PathBuf]) {
        for path in nested {
            let _ = self.below(tree.path, path, NESTED_MAX);
        }
    }

    /// Everything at or below a path, if it has no more than `enough` bytes, which it returns.
    fn below(&mut self, root: &Path, path: &Path, enough: u64) -> Option<u64> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        if !weigh(root, path, enough, &mut found, &mut bytes) {
            self.left_out.push(path.display().to_string());
            return None;
        }
        let (of_git, files): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| nested::is_of_git(path));
        self.files.extend(files);
        self.of_git.extend(of_git);
        Some(bytes)
    }
}

/// The files at or below a path and their bytes; `false` as soon as they exceed `enough` or cannot be read.
fn weigh(root: &Path, path: &Path, enough: u64, files: &mut Vec<PathBuf>, bytes: &mut u64) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(root.join(path)) else { return false };
    if !meta.is_dir() {
        *bytes += meta.len().min(meta.blocks() * 512);
        files.push(path.to_owned());
        return *bytes <= enough;
    }
    let Ok(entries) = std::fs::read_dir(root.join(path)) else { return false };
    entries.map(|entry| entry.map(|e| path.join(e.file_name()))).all(|path| match path {
        Ok(path) => weigh(root, &path, enough, files, bytes),
        Err(_) => false,
    })
}
