//! Ignored files: which of them a build makes again, and which are somebody's.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Tree;
use super::nested;

/// The ignored paths of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ignored {
    /// What its removal would lose.
    pub(super) kept: Vec<PathBuf>,
    /// What a build makes again.
    pub(super) worthless: BTreeSet<PathBuf>,
}

impl Ignored {
    /// Divides what git ignores, a folder as one with a slash at its end. `tracks_below` says whether git tracks
    /// something in a folder; where that cannot be told, it does.
    pub(super) fn of(tree: &Tree<'_>, ignored: &[PathBuf], tracks_below: impl Fn(&Path) -> bool) -> Self {
        let mut found = Self::default();
        let known: RefCell<HashMap<PathBuf, bool>> = RefCell::default();
        let tracks_below = |folder: &Path| {
            let before = known.borrow().get(folder).copied();
            before.unwrap_or_else(|| {
                let tracks = tracks_below(folder);
                known.borrow_mut().insert(folder.to_owned(), tracks);
                tracks
            })
        };
        for path in ignored {
            let full = tree.path.join(path);
            // A link in the place of such a folder holds nothing itself.
            let is_folder = path.as_os_str().as_bytes().ends_with(b"/")
                || tree.policy.names_folder(path) && full.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
            match tree.policy.reproducible_part(path, is_folder, tracks_below) {
                Some(part) => {
                    // Without the slash, as it is met by whoever walks through folders.
                    found.worthless.insert(part.components().collect());
                }
                None if is_folder && holds_nothing(&full) => {}
                None => found.kept.push(path.clone()),
            }
        }
        // No build makes commits again.
        found.kept.extend(found.worthless.iter().flat_map(|path| nested::repositories(tree.path, path)));
        found
    }
}

impl Ignored {
    /// Takes paths that only new rules hide for work, and tells how many there are. What a build makes again is none,
    /// unless somebody else than the project's own rules has hidden it; and neither are empty folders.
    pub(super) fn count_as_work(&mut self, hidden: &[PathBuf], even_worthless: bool) -> usize {
        let mut count = 0;
        for path in hidden {
            if self.kept.contains(path) {
                count += 1;
            } else if even_worthless && self.worthless.iter().any(|part| path.starts_with(part)) {
                self.worthless.retain(|part| !path.starts_with(part));
                self.kept.push(path.clone());
                count += 1;
            }
        }
        count
    }
}

/// Whether there are only folders in a folder. What cannot be read may hold something.
fn holds_nothing(folder: &Path) -> bool {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { return false };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.path()))) {
                Ok((true, inner)) => folders.push(inner),
                _ => return false,
            }
        }
    }
    true
}

impl Tree<'_> {
    /// Whether a path is a folder that a build makes again, by its name.
    pub(super) fn is_reproducible_folder(&self, path: &Path) -> bool {
        self.policy.names_folder(path) && self.path.join(path).symlink_metadata().is_ok_and(|meta| meta.is_dir())
    }
}
