//! What stands beside the worktrees and may be deleted, on record by device and inode; and the one way to delete it.
//!
//! Workers write where their user may, so a folder beside theirs can be replaced by a link or by another folder at
//! any time, and one with a name like ours can be a person's. A record therefore stands before its folder can be
//! mistaken: a checkout of ours is on record as soon as it is made, and what goes is on record before it is renamed
//! aside. After that rename nobody finds it by its name, so a look at what is in it then is the last word.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Fault, FaultKind};
use crate::project::Paths;
use crate::sys::files::{self, At};
use crate::sys::folder::{self, FileTime, FolderId};
use crate::sys::{lock, process};

/// How the names of folders begin that were renamed aside.
const ASIDE: &str = ".gone-";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Format version, 1.
    v: u32,
    path: PathBuf,
    folder: FolderId,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
enum Stage {
    /// Made by vnx, and nobody's work is in it.
    Made,
    /// Renamed aside from where it stood, and not looked at since: it goes back unless it is given up.
    Aside { from: PathBuf },
    /// Given up, unless it was changed since then outside of what is worthless anyway.
    GivenUp { since: FileTime, worthless: BTreeSet<PathBuf> },
    /// To be deleted, perhaps in part already.
    Going,
}

fn file(paths: &Paths, path: &Path) -> Result<PathBuf, Fault> {
    let name = path.file_name().ok_or_else(|| Fault::internal(format!("{} has no name", path.display())))?;
    Ok(paths.folders_of_ours().join(name))
}

fn write(paths: &Paths, record: &Record) -> Result<(), Fault> {
    let json = serde_json::to_vec(record).map_err(|e| Fault::internal(format!("the record of a folder: {e}")))?;
    files::private_folder(&paths.folders_of_ours())?;
    Ok(files::replace(&file(paths, &record.path)?, &json)?)
}

fn read(file: &Path) -> Option<Record> {
    serde_json::from_slice(&files::read_capped(file, 16 << 20).ok()??).ok()
}

fn all(paths: &Paths) -> impl Iterator<Item = Record> {
    let folder = paths.folders_of_ours();
    files::names(&folder).unwrap_or_default().into_iter().filter_map(move |name| read(&folder.join(name)))
}

/// Makes an empty folder and puts it on record.
pub(super) fn make(paths: &Paths, path: &Path) -> Result<(), Fault> {
    std::fs::create_dir(path).at("create", path)?;
    record_as(paths, path, path)
}

/// Puts a folder on record that vnx has just made, under the path that it will have.
pub(super) fn record_as(paths: &Paths, path: &Path, will_be: &Path) -> Result<(), Fault> {
    let folder = FolderId::of(path).at("examine", path)?;
    write(paths, &Record { v: 1, path: will_be.to_owned(), folder, stage: Stage::Made })
}

/// Takes a folder off the record: it is somebody's now.
pub(super) fn release(paths: &Paths, path: &Path) -> Result<(), Fault> {
    Ok(files::remove(&file(paths, path)?)?)
}

/// Which folder vnx made at a path, if that is on record.
pub(super) fn made(paths: &Paths, path: &Path) -> Option<FolderId> {
    let record = read(&file(paths, path).ok()?).filter(|r| r.path == path && r.stage == Stage::Made)?;
    Some(record.folder)
}

/// Takes a folder away that was made and is on record, if one is there: it waits in `root` for its deletion. Of those
/// that are not on record only an empty one goes: a kill came between its making and its record.
pub(super) fn clear<'a>(paths: &'a Paths, root: &Path, path: &Path) -> Result<Option<Aside<'a>>, Fault> {
    if path.symlink_metadata().is_err() {
        return release(paths, path).map(|()| None);
    }
    let Some(folder) = made(paths, path) else {
        std::fs::remove_dir(path).at("remove", path)?;
        return Ok(None);
    };
    let aside = put_aside(paths, root, path, folder)?.condemn()?;
    release(paths, path)?;
    Ok(Some(aside))
}

/// A folder that was renamed aside.
#[derive(Debug)]
pub(super) struct Aside<'a> {
    paths: &'a Paths,
    from: PathBuf,
    pub(super) path: PathBuf,
    folder: FolderId,
}

/// Renames a folder into `root`, if it is the one that is meant; first of all that is on record.
pub(super) fn put_aside<'a>(paths: &'a Paths, root: &Path, from: &Path, folder: FolderId) -> Result<Aside<'a>, Fault> {
    let name = from.file_name().unwrap_or_default().to_string_lossy();
    let path = root.join(format!("{ASIDE}{name}-{}", crate::sys::now().micros()));
    let aside = Aside { paths, from: from.to_owned(), path, folder };
    aside.note(Stage::Aside { from: from.to_owned() })?;
    if let Err(e) = folder::rename_new(from, &aside.path) {
        release(paths, &aside.path)?;
        return Err(e.into());
    }
    if FolderId::of(&aside.path).is_ok_and(|there| there == folder) {
        return Ok(aside);
    }
    aside.put_back()?;
    Err(Fault::environment(format!("{} is not the folder that was looked at", from.display()))
        .fix("see what stands there; vnx deletes only what it knows"))
}

impl Aside<'_> {
    fn note(&self, stage: Stage) -> Result<(), Fault> {
        write(self.paths, &Record { v: 1, path: self.path.clone(), folder: self.folder, stage })
    }

    /// Gives it its name again.
    pub(super) fn put_back(self) -> Result<(), Fault> {
        folder::rename_new(&self.path, &self.from).map_err(|e| {
            Fault::from(e).fix(format!("the worktree is whole at {}: move it back", self.path.display()))
        })?;
        release(self.paths, &self.path)
    }

    /// It may be deleted unless something in it is changed from now on, outside of what is worthless.
    pub(super) fn give_up(self, since: FileTime, worthless: BTreeSet<PathBuf>) -> Result<(), Fault> {
        let worthless = worthless.into_iter().filter(|path| path.to_str().is_some()).collect();
        self.note(Stage::GivenUp { since, worthless })
    }

    /// From now on it is deleted, by whoever comes next if not by us.
    pub(super) fn condemn(self) -> Result<Self, Fault> {
        self.note(Stage::Going)?;
        Ok(self)
    }

    /// Deletes it, whatever became of it.
    pub(super) fn delete(self) -> Result<(), Fault> {
        let Self { paths, path, folder, .. } = self;
        delete(paths, &Record { v: 1, path, folder, stage: Stage::Going })
    }
}

/// Gives a folder its name again that was renamed aside by somebody who died before the look that comes after.
/// Whoever calls this holds what its remover held.
pub fn put_back(paths: &Paths, path: &Path) -> Result<(), Fault> {
    for Record { path: aside, folder, stage, .. } in all(paths) {
        if let Stage::Aside { from } = stage
            && from == path
        {
            if FolderId::of(&aside).is_ok_and(|there| there == folder) && folder::rename_new(&aside, path).is_err() {
                // Something else stands there by now.
                show(paths, path.parent().unwrap_or(path), &aside)?;
            }
            release(paths, &aside)?;
        }
    }
    Ok(())
}

/// Whether something waits to be deleted.
pub fn anything_removed(paths: &Paths) -> bool {
    all(paths).any(|record| matches!(record.stage, Stage::GivenUp { .. } | Stage::Going))
}

/// Deletes what was given up, then the folder of the worktrees if it is empty. A crash in between is finished by
/// the next one. Who gave something up waits for its turn, so that nothing is left when the last one is done; a
/// passer-by (`patience` zero) leaves it to who is at it.
pub fn delete_removed(paths: &Paths, root: &Path, patience: Duration) -> Result<(), Fault> {
    if anything_removed(paths) {
        let guard = match lock::exclusive(&paths.trash_lock(), patience) {
            Err(fault) if fault.kind == FaultKind::Busy => return Ok(()),
            other => other?,
        };
        // One that cannot be deleted does not keep the others. What is beside other worktrees is of another
        // configuration, or of the repository of which this one is a copy.
        let here = |record: &Record| record.path.parent() == Some(root);
        let deleted: Vec<_> = all(paths).filter(here).map(|record| delete(paths, &record)).collect();
        deleted.into_iter().collect::<Result<(), _>>()?;
        drop(guard);
    }
    super::create::leave(root, &paths.repo_lock());
    Ok(())
}

fn delete(paths: &Paths, record: &Record) -> Result<(), Fault> {
    let Record { path, folder, stage, .. } = record;
    if let Stage::Made | Stage::Aside { .. } = stage {
        return Ok(());
    }
    match FolderId::of(path) {
        Ok(there) if there == *folder => {}
        // Gone, or something else took its place, of which nothing is known.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Err(e).at("examine", path)?,
        _ => return release(paths, path),
    }
    if let Stage::GivenUp { since, worthless } = stage {
        // Whoever has something open in it may still write.
        if process::anyone_holds(path) != Some(false) {
            return Ok(());
        }
        if !matches!(folder::changed_since(path, *since, worthless), Ok(None)) {
            return show_forgotten(paths, path.parent().unwrap_or(path), path);
        }
        write(paths, &Record { stage: Stage::Going, ..record.clone() })?;
    }
    folder::delete(path, Some(*folder))?;
    release(paths, path)
}

/// Shows a worktree that git has forgotten: without the file that leads to what git had of it.
pub(super) fn show_forgotten(paths: &Paths, root: &Path, path: &Path) -> Result<(), Fault> {
    let link = path.join(".git");
    if link.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        files::remove(&link)?;
    }
    show(paths, root, path)
}

/// Puts a folder where somebody wrote who was not meant to among the worktrees: there it is a folder of nobody, which
/// people see in their list, and of which nothing is deleted unasked.
fn show(paths: &Paths, root: &Path, path: &Path) -> Result<(), Fault> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("unknown-{}-{}", name.trim_start_matches(ASIDE), crate::sys::now().micros());
    folder::rename_new(path, &root.join(name))?;
    release(paths, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct World {
        _folder: tempfile::TempDir,
        paths: Paths,
        root: PathBuf,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().canonicalize().unwrap();
        let paths = Paths::at(at.join("state"));
        for made in [paths.locks(), at.join("trees/mine")] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(at.join("trees/mine/f"), "mine").unwrap();
        World { root: at.join("trees"), paths, _folder: folder }
    }

    impl World {
        fn aside(&self) -> Aside<'_> {
            let mine = self.root.join("mine");
            put_aside(&self.paths, &self.root, &mine, FolderId::of(&mine).unwrap()).unwrap()
        }
        fn given_up(&self) -> PathBuf {
            let aside = self.aside();
            let path = aside.path.clone();
            // What was changed in the same tick of the clock would count as changed since.
            let begun = FileTime::now();
            while FileTime::now() == begun {
                std::thread::yield_now();
            }
            aside.give_up(FileTime::now(), BTreeSet::from([PathBuf::from("target")])).unwrap();
            path
        }
        fn tidy(&self) -> bool {
            delete_removed(&self.paths, &self.root, Duration::ZERO).is_ok()
        }
        fn names(&self) -> Vec<String> {
            files::names(&self.root).unwrap()
        }
    }

    #[test]
    fn what_was_given_up_goes_and_nothing_beside_it() {
        let world = world();
        std::fs::create_dir_all(world.root.join(".gone-looks-like-ours")).unwrap();
        std::fs::create_dir_all(world.given_up().join("target/late")).unwrap();
        assert!(world.tidy());
        assert_eq!(world.names(), [".gone-looks-like-ours"]);
        assert!(!anything_removed(&world.paths));
    }

    #[test]
    fn what_is_written_after_the_removal_is_shown_to_people() {
        let world = world();
        std::fs::write(world.given_up().join("late"), "precious").unwrap();
        assert!(world.tidy());
        let names = world.names();
        assert!(names.len() == 1 && names[0].starts_with("unknown-mine-"), "{names:?}");
        assert_eq!(std::fs::read_to_string(world.root.join(&names[0]).join("late")).unwrap(), "precious");
    }

    #[test]
    fn an_open_file_keeps_it_until_it_is_closed() {
        let world = world();
        let path = world.given_up();
        let open = std::fs::File::open(path.join("f")).unwrap();
        assert!(world.tidy() && path.join("f").exists());
        drop(open);
        assert!(world.tidy() && !path.exists());
    }

    #[test]
    fn what_took_its_place_stays() {
        let world = world();
        let path = world.given_up();
        std::fs::rename(&path, world.root.join("moved")).unwrap();
        symlink(world.root.join("moved"), &path).unwrap();
        assert!(world.tidy() && path.is_symlink());
        std::fs::remove_file(&path).unwrap();
        let path = {
            std::fs::rename(world.root.join("moved"), world.root.join("mine")).unwrap();
            world.given_up()
        };
        std::fs::rename(&path, world.root.join("moved")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(world.tidy() && path.is_dir());
        assert_eq!(std::fs::read_to_string(world.root.join("moved/f")).unwrap(), "mine");
    }

    #[test]
    fn only_the_folder_that_was_looked_at_is_put_aside() {
        let world = world();
        let mine = world.root.join("mine");
        let other = FolderId::of(&world.root).unwrap();
        assert!(put_aside(&world.paths, &world.root, &mine, other).is_err());
        assert_eq!(world.names(), ["mine"]);
        assert_eq!(files::names(&world.paths.folders_of_ours()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_nobody_looked_at_again_goes_back_and_is_never_deleted() {
        let world = world();
        let path = world.aside().path;
        assert!(world.tidy() && path.exists());
        put_back(&world.paths, &world.root.join("mine")).unwrap();
        assert_eq!(world.names(), ["mine"]);
        // Its name was taken meanwhile: both stay.
        world.aside();
        std::fs::create_dir(world.root.join("mine")).unwrap();
        put_back(&world.paths, &world.root.join("mine")).unwrap();
        assert!(world.tidy());
        let names = world.names();
        assert!(names.len() == 2 && world.root.join(&names[1]).join("f").exists(), "{names:?}");
    }

    #[test]
    fn of_what_is_not_on_record_as_made_only_an_empty_folder_goes() {
        let world = world();
        let (mine, made) = (world.root.join("mine"), world.root.join("made"));
        assert!(clear(&world.paths, &world.root, &mine).is_err() && mine.exists());
        std::fs::create_dir(&made).unwrap();
        assert!(clear(&world.paths, &world.root, &made).unwrap().is_none() && !made.exists());
        make(&world.paths, &made).unwrap();
        std::fs::write(made.join("f"), "").unwrap();
        clear(&world.paths, &world.root, &made).unwrap().unwrap().delete().unwrap();
        assert_eq!(world.names(), ["mine"]);
    }
}
