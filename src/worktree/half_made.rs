//! Proof that nothing is in a half-made tree but what vnx wrote there.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Tree, facts};
use crate::domain::Fault;
use crate::domain::plan::TeardownPolicy;
use crate::domain::setup::Setup;
use crate::domain::span::Size;
use crate::git::{Entry, Git};
use crate::sys::files;
use crate::sys::folder::{Folder, Stands};

/// The first thing about a tree, whose folder is `at`, that vnx did not write: a file that is neither the beginning of
/// the base commit's nor of a copy from the main checkout, or a commit.
pub(super) fn foreign(tree: &Tree<'_>, setup: &Setup, at: &Path) -> Result<Option<String>, Fault> {
    let repository = tree.repository();
    if repository.ref_commit(&tree.branch_ref())?.is_some_and(|tip| tip != tree.base) {
        return Ok(Some(format!("commits are on {}", tree.branch())));
    }
    let own = tree.common_dir.join("worktrees").join(tree.path.file_name().unwrap_or_default());
    if own.exists()
        && let Some(commit) = facts::stray(tree, &Git::tree(&own, at), &[])?.first()
    {
        return Ok(Some(format!("commit {commit} is on no branch")));
    }
    if own.join("modules").exists() && !setup.submodules {
        return Ok(Some("submodules were populated".to_owned()));
    }
    if at.symlink_metadata().is_err() {
        return Ok(None);
    }
    foreign_file(&repository, tree.base, tree.policy, setup, at)
}

/// The first file in a folder that is not the beginning of what a commit has there.
pub(super) fn foreign_to(repository: &Git, commit: &str, at: &Path) -> Result<Option<String>, Fault> {
    let policy = TeardownPolicy { reproducible: Vec::new(), rescue_ignored_max: Size(0), disk_floor: Size(0) };
    foreign_file(repository, commit, &policy, &Setup::default(), at)
}

fn foreign_file(
    repository: &Git,
    commit: &str,
    policy: &TeardownPolicy,
    setup: &Setup,
    at: &Path,
) -> Result<Option<String>, Fault> {
    let of_base = repository.files_of(commit)?;
    let known: HashMap<&Path, &Entry> = of_base.iter().map(|entry| (entry.path.as_path(), entry)).collect();
    let folder = Folder::open(at)?;
    let mut found = Vec::new();
    for full in files::below(at)? {
        let path = full.strip_prefix(at).unwrap_or(&full).to_owned();
        let tracks_below = |folder: &Path| of_base.iter().any(|entry| entry.path.starts_with(folder));
        // The link to git's own folder.
        let is_link = path == Path::new(".git") && full.symlink_metadata().is_ok_and(|meta| meta.is_file());
        let is_of_build = || policy.reproducible_part(&path, false, tracks_below).is_some();
        if is_link || is_copy(setup, &folder, &path) || is_of_build() {
            continue;
        }
        match known.get(path.as_path()) {
            Some(entry) if !entry.is_gitlink() => found.push((path, *entry)),
            _ => return Ok(Some(path.display().to_string())),
        }
    }
    let mut foreign = None;
    repository.contents(found.iter().map(|(_, entry)| entry.oid.as_str()), |nth, content| {
        let (path, _) = &found[nth];
        if foreign.is_none() && !is_beginning(&folder, path, content) {
            foreign = Some(path.display().to_string());
        }
        Ok(())
    })?;
    Ok(foreign)
}

/// Whether a file was begun to be written with this content. Where a file is written in another form than it is stored,
/// that is not known.
fn is_beginning(folder: &Folder, path: &Path, content: &mut dyn Read) -> bool {
    match folder.look(path) {
        Ok(Stands::File(file)) => files::is_beginning(file, content),
        Ok(Stands::Link(target)) => {
            let mut whole = Vec::new();
            content.read_to_end(&mut whole).is_ok() && whole == target.to_bytes()
        }
        _ => false,
    }
}

/// Whether a path is what the setup wants to have from the main checkout, as far as it was brought.
fn is_copy(setup: &Setup, folder: &Folder, path: &Path) -> bool {
    let source = || -> PathBuf { Path::new(&setup.main).join(path) };
    if setup.links.iter().any(|link| Path::new(link) == path) {
        let to = source();
        return matches!(folder.look(path), Ok(Stands::Link(target)) if target.to_bytes() == to.as_os_str().as_bytes());
    }
    if !setup.copies.iter().any(|copy| path.starts_with(copy)) {
        return false;
    }
    match folder.look(path) {
        Ok(Stands::File(file)) => {
            files::open_regular(&source()).is_ok_and(|mut source| files::is_beginning(file, &mut source))
        }
        Ok(Stands::Link(target)) => {
            std::fs::read_link(source()).is_ok_and(|to| to.as_os_str().as_bytes() == target.to_bytes())
        }
        _ => false,
    }
}
