//! The warm pool: worktrees that were made ahead, detached and locked, below `<root>/.pool`. One of them
//! becomes a dispatch's own by two renames, whatever its size.
//!
//! Each is on record with git under its own name. A mark in git's folder says that it is whole; whoever
//! takes that away, under the repository's lock, has it. What is on record as made, and stands there without a mark,
//! is nobody's: no worker ever ran in it. One that is not, to the file, as it was made is handed to nobody, and shown
//! to people: somebody wrote in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place::private_real_folder;
use super::{Tree, half_made, removal};
use crate::domain::setup::Setup;
use crate::domain::{Digest, Fault};
use crate::git::Git;
use crate::project::Paths;
use crate::sys::files::{self, At};
use crate::sys::folder::{self, FolderId};
use crate::sys::lock;

/// The folder of the pool below that of the worktrees.
pub const POOL: &str = ".pool";
/// How git calls them.
const PREFIX: &str = "pool-";
/// In git's folder of one that is whole, with what it is.
const READY: &str = "vnx-ready";
/// In its place while it changes hands.
const TAKEN: &str = "vnx-taken";
const REASON: &str = "vnx pool";

/// What a worktree of the pool is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ready {
    /// The commit whose files it has.
    commit: String,
    /// How it was made.
    form: Digest,
    /// Its folder and its index, as they were when it was whole.
    stamp: String,
}

/// Where a pool is.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// The repository's common git folder.
    pub common_dir: &'a Path,
    /// The folder of the worktrees.
    pub root: &'a Path,
    /// Where state is.
    pub paths: &'a Paths,
}

impl Pool<'_> {
    fn folder(&self) -> PathBuf {
        self.root.join(POOL)
    }
    fn git_dir(&self, name: &str) -> PathBuf {
        self.common_dir.join("worktrees").join(name)
    }
    fn repository(&self) -> Git {
        Git::repository(self.common_dir)
    }
    fn locked(&self) -> Result<File, Fault> {
        lock::exclusive(&self.paths.repo_lock(), Duration::from_mins(1))
    }
    fn ready(&self, name: &str) -> Option<Ready> {
        let bytes = files::read_capped(&self.git_dir(name).join(READY), 4096).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Those that are whole, by name.
    pub fn names(&self) -> Vec<String> {
        let all = files::names(&self.folder()).unwrap_or_default();
        all.into_iter().filter(|name| self.ready(name).is_some()).collect()
    }

    /// What decides how files are written: one made otherwise is not as good as a new one.
    fn form(&self, setup: &Setup) -> Result<Digest, Fault> {
        let repository = self.repository();
        let (config, attributes) = std::thread::scope(|scope| {
            let config = crate::sys::beside(scope, || repository.config());
            let attributes = repository.attributes(self.common_dir);
            (config.join(), attributes)
        });
        let config = config.map_err(|_| Fault::internal("the settings of git could not be read"))?;
        // What an older git does not tell is taken for nothing, then and now.
        let attributes = attributes.map_or(Digest::ZERO, |attributes| attributes.digest());
        let inherited = files::read_capped(&self.common_dir.join("info/sparse-checkout"), 1 << 20)?;
        let inherited = Digest::of(&inherited.unwrap_or_default());
        let said = serde_json::json!([setup.sparse, setup.lfs, config?.risk(), attributes, inherited]);
        Ok(Digest::of(said.to_string().as_bytes()))
    }

    /// Takes one for `tree`, whose branch stands, and makes it its own. Returns its git folder; `None` where
    /// there is none that fits.
    pub(super) fn take(
        &self,
        tree: &Tree<'_>,
        setup: &Setup,
        held: impl Fn() -> Option<File>,
    ) -> Result<Option<PathBuf>, Fault> {
        // Submodules keep in many places where they are.
        if setup.submodules || !self.folder().is_dir() {
            return Ok(None);
        }
        let form = self.form(setup)?;
        let guard = self.locked()?;
        // As git itself would call it: a session that is continued stands where the earlier one stood.
        let Some(name) = tree.path.file_name() else { return Ok(None) };
        let to = self.common_dir.join("worktrees").join(name);
        if to.symlink_metadata().is_ok() {
            return Ok(None);
        }
        let all = self.names();
        let fits = |name: &str, ready: &Ready| {
            ready.form == form && self.is_sound(name, ready) && self.can_move(&ready.commit, tree.base)
        };
        let fitting = all.iter().filter_map(|name| Some((name, self.ready(name).filter(|ready| fits(name, ready))?)));
        // One that has to be moved to another commit is better than none.
        let Some((name, ready)) = fitting.max_by_key(|(_, ready)| ready.commit == tree.base) else { return Ok(None) };
        let moved = self.hand_over(name, &to, tree);
        let mut gone = None;
        if moved.is_err() {
            // git would take what it says by now for the new one.
            gone = self.discard(name)?;
        }
        drop(guard);
        let _ = gone.map(removal::Aside::delete);
        let git = Git::tree(&to, tree.path);
        let finish = || -> Result<bool, Fault> {
            // It has stood beside the worktrees of workers, who can write wherever their user can.
            if !git.is_untouched(tree.base.len() / 2)? {
                return Ok(false);
            }
            if ready.commit != tree.base {
                git.checkout_files(1, setup.lfs, held())?;
            }
            Ok(true)
        };
        if !moved.and_then(|()| finish()).is_ok_and(|done| done) {
            // A new one is made, or that tells what is wrong.
            self.drop_handed_over(&ready.commit, tree)?;
            let _guard = self.locked()?;
            self.repository().worktree_drop(&to)?;
            return Ok(None);
        }
        Ok(Some(to))
    }

    /// Takes one away that was handed over and cannot be used.
    fn drop_handed_over(&self, commit: &str, tree: &Tree<'_>) -> Result<(), Fault> {
        if tree.path.symlink_metadata().is_err() {
            return Ok(());
        }
        if self.is_written(commit, tree.path) && self.is_written(tree.base, tree.path) {
            return removal::show_forgotten(self.paths, self.root, tree.path);
        }
        let folder = FolderId::of(tree.path).at("examine", tree.path)?;
        removal::put_aside(self.paths, self.root, tree.path, folder)?.condemn()?.delete()
    }

    /// Whether something is in a tree of the pool that is not of its commit. What cannot be read may be.
    fn is_written(&self, commit: &str, tree: &Path) -> bool {
        !half_made::foreign_to(&self.repository(), commit, tree).is_ok_and(|foreign| foreign.is_none())
    }

    /// Whether it is still what it was declared to be, as far as that can be seen in no time.
    fn is_sound(&self, name: &str, ready: &Ready) -> bool {
        let head = files::read_text(&self.git_dir(name).join("HEAD"));
        head.is_ok_and(|head| head.trim_end() == ready.commit) && self.stamp(name) == Some(ready.stamp.clone())
    }

    /// What changes when somebody adds or removes something at its top, or writes its index: size and times.
    fn stamp(&self, name: &str) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let folder = self.folder().join(name).symlink_metadata().ok().filter(std::fs::Metadata::is_dir)?;
        let index = self.git_dir(name).join("index").symlink_metadata().ok()?;
        let time = |meta: &std::fs::Metadata| format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
        Some(format!("{} {} {}", time(&folder), time(&index), index.len()))
    }

    /// Whether moving one from commit to commit writes every file that has to be written: where attributes change,
    /// git leaves files of an older form.
    fn can_move(&self, from: &str, to: &str) -> bool {
        from == to || self.repository().same_attributes(from, to).is_ok_and(|same| same)
    }

    /// Makes it that of `tree`, step by step; the rest of one that was cut off is found by whoever fills the
    /// pool, or by whoever takes away what `tree` left.
    fn hand_over(&self, name: &str, to: &Path, tree: &Tree<'_>) -> Result<(), Fault> {
        let from = self.git_dir(name);
        std::fs::rename(from.join(READY), from.join(TAKEN)).at("rename", &from)?;
        let write = |path: PathBuf, text: &str| std::fs::write(&path, format!("{text}\n")).at("write", &path);
        write(from.join("gitdir"), &tree.path.join(".git").to_string_lossy())?;
        write(from.join("locked"), &tree.lock_reason())?;
        write(self.folder().join(name).join(".git"), &format!("gitdir: {}", to.display()))?;
        Git::repository(&from).set_head(&tree.branch_ref())?;
        // What git noted so far is of another time.
        files::delete_tree(&from.join("logs"))?;
        files::remove(&from.join("ORIG_HEAD"))?;
        Git::repository(&from).begin_reflog(tree.base)?;
        std::fs::rename(&from, to).at("rename", &from)?;
        folder::rename_new(&self.folder().join(name), tree.path)?;
        removal::release(self.paths, &self.folder().join(name))?;
        Ok(files::remove(&to.join(TAKEN))?)
    }

    /// Brings the pool to `want` worktrees at `commit`, made as `setup` says; takes away what is too many and what
    /// others left half made. `fits` says whether there is disk for another. One at a time does this.
    pub fn fill(
        &self,
        fill_lock: &Path,
        setup: &Setup,
        commit: &str,
        want: usize,
        fits: impl Fn() -> bool,
    ) -> Result<(), Fault> {
        if want == 0 && !self.folder().is_dir() && !self.has_rests()? {
            return Ok(());
        }
        let Some(_filling) = lock::try_exclusive(fill_lock)? else { return Ok(()) };
        let want = if setup.submodules { 0 } else { want };
        let form = self.form(setup)?;
        let mut kept = 0;
        self.sweep(|ready| {
            let fits = ready.form == form && kept < want && self.can_move(&ready.commit, commit);
            kept += usize::from(fits);
            fits
        })?;
        for name in self.names() {
            if self.ready(&name).is_some_and(|ready| ready.commit != commit) {
                self.freshen(&name, setup, commit, form)?;
            }
        }
        while self.names().len() < want && fits() {
            self.make(setup, commit, form)?;
        }
        if want == 0 {
            let _ = std::fs::remove_dir(self.folder());
            super::create::leave(self.root, &self.paths.repo_lock());
        }
        Ok(())
    }

    /// Takes away what others left half made, unless somebody is at it.
    pub fn tidy(&self, fill_lock: &Path) -> Result<(), Fault> {
        if !self.has_rests()? {
            return Ok(());
        }
        let Some(_filling) = lock::try_exclusive(fill_lock)? else { return Ok(()) };
        self.sweep(|_| true)
    }

    /// Whether something is there that is not whole: of a folder, or of what git has on record.
    fn has_rests(&self) -> Result<bool, Fault> {
        let whole = self.names().len();
        let recorded = files::names(&self.common_dir.join("worktrees"))?;
        Ok(files::names(&self.folder())?.len() != whole
            || recorded.iter().filter(|name| self.is_ours(name)).count() != whole)
    }

    /// Takes away what is not whole, and what is not wanted.
    fn sweep(&self, mut wanted: impl FnMut(&Ready) -> bool) -> Result<(), Fault> {
        if !files::is_own_folder(&self.folder()) {
            return Ok(());
        }
        let guard = self.locked()?;
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for name in files::names(&self.common_dir.join("worktrees"))? {
            if !self.is_ours(&name) {
                continue;
            }
            let whole = self.ready(&name).filter(|ready| self.is_sound(&name, ready));
            if whole.is_some_and(|ready| wanted(&ready)) {
                kept.push(name);
                continue;
            }
            gone.extend(self.discard(&name)?);
        }
        // Those that git has not on record, or no more. Of others nothing is known.
        for name in files::names(&self.folder())?.iter().filter(|n| n.starts_with(PREFIX) && !kept.contains(n)) {
            gone.extend(removal::clear(self.paths, self.root, &self.folder().join(name)).ok().flatten());
        }
        drop(guard);
        // Deleting takes time, and others wait for the lock.
        gone.into_iter().try_for_each(removal::Aside::delete)
    }

    /// Takes one out of the pool, and what git has of it. One that was whole and in which somebody wrote since is put
    /// where people see it.
    fn discard(&self, name: &str) -> Result<Option<removal::Aside<'_>>, Fault> {
        let (path, ready) = (self.folder().join(name), self.ready(name));
        files::remove(&self.git_dir(name).join(READY))?;
        let is_written = |ready: Ready| !self.is_sound(name, &ready) && self.is_written(&ready.commit, &path);
        let gone = if ready.is_some_and(is_written) && path.symlink_metadata().is_ok() {
            removal::show_forgotten(self.paths, self.root, &path).map(|()| None)
        } else {
            removal::clear(self.paths, self.root, &path)
        };
        self.repository().worktree_drop(&self.git_dir(name))?;
        gone
    }

    /// A person may call a worktree as we do; without our words in it, it is theirs.
    fn is_ours(&self, name: &str) -> bool {
        let git_dir = self.git_dir(name);
        let reason = || files::read_text(&git_dir.join("locked")).is_ok_and(|text| text.trim() == REASON);
        name.starts_with(PREFIX) && ([READY, TAKEN].iter().any(|mark| git_dir.join(mark).exists()) || reason())
    }

    fn make(&self, setup: &Setup, commit: &str, form: Digest) -> Result<(), Fault> {
        let name = format!("{PREFIX}{}", crate::sys::now().micros());
        let path = self.folder().join(&name);
        let guard = self.locked()?;
        private_real_folder(&self.folder())?;
        removal::make(self.paths, &path)?;
        self.repository().worktree_add_detached(&path, commit, REASON)?;
        let git = Git::tree(self.git_dir(&name), &path);
        if !setup.sparse.is_empty() {
            git.sparse(&setup.sparse, || None)?;
        }
        drop(guard);
        git.populate(self.common_dir, commit, setup.lfs, None)?;
        self.declare(&name, commit, form)
    }

    /// Moves one that nobody has taken to another commit.
    fn freshen(&self, name: &str, setup: &Setup, commit: &str, form: Digest) -> Result<(), Fault> {
        let guard = self.locked()?;
        let mark = self.git_dir(name).join(READY);
        if !mark.exists() {
            return Ok(());
        }
        files::remove(&mark)?;
        drop(guard);
        let git = Git::tree(self.git_dir(name), self.folder().join(name));
        git.detach(commit)?;
        git.checkout_files(1, setup.lfs, None)?;
        self.declare(name, commit, form)
    }

    fn declare(&self, name: &str, commit: &str, form: Digest) -> Result<(), Fault> {
        let stamp = self.stamp(name).ok_or_else(|| Fault::io(format!("{name} is gone")))?;
        let ready = serde_json::json!(Ready { commit: commit.to_owned(), form, stamp });
        Ok(files::replace(&self.git_dir(name).join(READY), ready.to_string().as_bytes())?)
    }
}
