//! What is known of a ledger beside its own files.
//!
//! A chain that is sound shows nothing of receipts that are missing at its end, and nothing of lines that somebody
//! chained to it. Two kinds of marks do, for nothing: neither is synced, and each is one small write.
//!
//! - `ledger.written`, beside the ledger's folder, says before each write where the ledger ends and where it will end.
//!   While the machine runs, it ends at one of the two or between them. After a new start the mark says nothing: a crash
//!   may have taken what was never synced.
//! - `ledger.synced`, beside it, and `place-….head` in the user's state folder (the witness) say up to which receipt the
//!   disk has confirmed the ledger. They are written after the sync and never go back, so no crash makes them wrong.
//!
//! A copy of a repository is another one, and goes on by itself: see [`Known::counts`].

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Head, Ledger, LedgerError, disk, format};
use crate::domain::Digest;
use crate::sys::files::{self, At, PathError};
use crate::sys::{folder, lock};

/// How the ledger is not the one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Differs {
    /// Receipts are missing at its end.
    #[error("{known} receipts were written, and {here} are here")]
    Truncated {
        /// How many there must be at least.
        known: u64,
        /// How many there are.
        here: u64,
    },
    /// Other receipts stand there.
    #[error("the first {size} receipts are not those that were written")]
    Rewritten {
        /// Up to where they are known.
        size: u64,
    },
    /// Somebody else chained receipts to it.
    #[error("{known} receipts were written, and {here} are here: something else than vnx added to them")]
    Inserted {
        /// How many there may be at most.
        known: u64,
        /// How many there are.
        here: u64,
    },
}

/// Where a ledger ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extent {
    /// How many receipts.
    size: u64,
    /// The hash of the last one.
    hash: Digest,
    /// Where its line ends in its segment.
    end: u64,
}

impl Extent {
    fn of(head: &Head) -> Self {
        Self { size: head.seq + 1, hash: head.hash, end: head.end }
    }
}

/// The mark that is made before a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    repository: String,
    boot: String,
    /// How many receipts there were before.
    from: u64,
    /// What there is after it.
    to: Extent,
}

/// The mark that is made after a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Synced {
    ledger: String,
    repository: String,
    at: Extent,
}

/// The marks of one ledger.
#[derive(Debug)]
pub(super) struct Known {
    written: PathBuf,
    synced: PathBuf,
    /// None for a user without a home.
    witness: Option<PathBuf>,
    /// Which repository it is, whatever its place is called.
    repository: String,
    boot: String,
}

/// What the marks say.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    written: Option<Written>,
    synced: Vec<Extent>,
}

/// `$XDG_STATE_HOME/vnx/witness`; `None` for a user without a home.
pub fn witness_folder() -> Option<PathBuf> {
    Some(crate::sys::path::user_state()?.join("witness"))
}

impl Known {
    /// The marks of the ledger in `<repository>/<state>/<folder>`.
    fn of(folder: &Path, witness: Option<&Path>) -> Self {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let beside = |name| folder.with_file_name(name);
        let place = Digest::of(folder.as_os_str().as_bytes());
        let repository = folder.ancestors().nth(2).and_then(folder::lasting_id);
        Self {
            written: beside("ledger.written"),
            synced: beside("ledger.synced"),
            witness: witness.map(|witness| witness.join(format!("place-{}.head", place.short()))),
            repository: repository.unwrap_or_default(),
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        }
    }

    /// Whether a mark is of this ledger: the one rule of what a copy is. A copy of a repository is another repository,
    /// whose marks came with it and say nothing. In the witness, at the same place, another repository is one that was
    /// put back (its ledger is the same: the mark counts) or made anew (it is not).
    fn counts(&self, mark: &Synced, in_witness: bool, ledger: &Ledger) -> bool {
        mark.repository == self.repository
            || in_witness && ledger.created().is_ok_and(|created| created.ledger == mark.ledger)
    }

    fn written(&self) -> Option<Written> {
        let is_now = |w: &Written| w.repository == self.repository && w.boot == self.boot && !w.boot.is_empty();
        load(&self.written).filter(is_now)
    }

    fn marks(&self, ledger: &Ledger) -> Marks {
        let places = [(Some(&self.synced), false), (self.witness.as_ref(), true)];
        let read = |(path, in_witness): (Option<&PathBuf>, bool)| {
            load(path?).filter(|mark| self.counts(mark, in_witness, ledger)).map(|mark: Synced| mark.at)
        };
        Marks { written: self.written(), synced: places.into_iter().filter_map(read).collect() }
    }
}

impl Marks {
    /// The sizes at which a verification must know the hash of the last receipt.
    pub fn sizes(&self) -> Vec<u64> {
        self.synced.iter().map(|at| at.size).collect()
    }

    /// How many receipts are known to be on the disk.
    pub fn size(&self) -> Option<u64> {
        self.synced.iter().map(|at| at.size).max()
    }

    /// How a ledger of so many receipts differs from what is known. These marks were read before it was, `after` when
    /// that was done; `hash` tells that of the last receipt of a size, where it can.
    fn differs(
        &self,
        after: &Self,
        here: u64,
        head: Option<Digest>,
        hash: impl Fn(&Extent) -> Option<Digest>,
    ) -> Option<Differs> {
        let least = self.synced.iter().map(|at| at.size).chain(self.written.iter().map(|w| w.from)).max().unwrap_or(0);
        if here < least {
            return Some(Differs::Truncated { known: least, here });
        }
        let other = self.synced.iter().find(|at| hash(at).is_some_and(|found| found != at.hash));
        if let Some(at) = other {
            return Some(Differs::Rewritten { size: at.size });
        }
        let to = &after.written.as_ref()?.to;
        if here > to.size {
            return Some(Differs::Inserted { known: to.size, here });
        }
        // In between, a write is under way, or was cut off.
        (here == to.size && head != Some(to.hash)).then_some(Differs::Rewritten { size: to.size })
    }
}

impl Ledger {
    /// The same ledger, held against what is known of it beside its files and in the witness, and with each write made
    /// known there.
    #[must_use]
    pub fn witnessed(mut self, witness: Option<&Path>) -> Self {
        self.known = Some(Known::of(&self.folder, witness));
        self
    }

    /// What is known of it.
    pub fn marks(&self) -> Marks {
        self.known.as_ref().map(|known| known.marks(self)).unwrap_or_default()
    }

    /// How it differs from what was known before it was read, if it was read to its end and found sound: so many
    /// receipts, their head, and the hashes at [`Marks::sizes`] as far as they were read.
    pub fn differs(
        &self,
        before: &Marks,
        here: u64,
        head: Option<Digest>,
        hash: impl Fn(u64) -> Option<Digest>,
    ) -> Option<Differs> {
        before.differs(&self.marks(), here, head, |at| hash(at.size))
    }

    /// The same for the end of the open segment.
    pub(super) fn expect(&self, before: &Marks, file: &File, head: &Head) -> Result<(), LedgerError> {
        let Some(known) = &self.known else { return Ok(()) };
        let after = Marks { written: known.written(), synced: Vec::new() };
        let mut start = [0; 120];
        let length = usize::try_from(head.end).unwrap_or(usize::MAX).min(start.len());
        disk::read(file, &mut start[..length], 0).at("read", &self.file())?;
        let first = format::seq_of(&start).unwrap_or(0);
        // What is sealed by now is not here; a verification reads it.
        let hash = |at: &Extent| (at.size > first).then(|| hash_before(file, at.end).unwrap_or(Digest::ZERO));
        let differs = before.differs(&after, head.seq + 1, Some(head.hash), hash);
        differs.map_or(Ok(()), |differs| Err(LedgerError::Differs(differs)))
    }

    /// Says before a write how many receipts there are and where the ledger will end. Only under the lock.
    pub(super) fn announce(&self, from: u64, to: &Head) -> Result<(), LedgerError> {
        let Some(known) = &self.known else { return Ok(()) };
        let mark = Written { repository: known.repository.clone(), boot: known.boot.clone(), from, to: Extent::of(to) };
        // Without it the write would be taken for somebody else's.
        let written = opened(&known.written)?;
        store(&written, &mark).map_err(|source| LedgerError::NotWritten { source })
    }

    /// Notes up to where the disk has confirmed it. Best effort: an older mark only knows of less.
    pub(super) fn confirmed(&self, head: &Head) {
        let Some(known) = &self.known else { return };
        let mut ledger = None;
        for path in [Some(&known.synced), known.witness.as_ref()].into_iter().flatten() {
            let _ = self.note(known, path, head, &mut ledger);
        }
    }

    fn note(&self, known: &Known, path: &Path, head: &Head, ledger: &mut Option<String>) -> Result<(), LedgerError> {
        let file = match opened(path) {
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), files::private_folder)?;
                opened(path)?
            }
            other => other?,
        };
        // Whoever holds it notes a receipt that is about as new.
        if (0..100).all(|_| file.try_lock().inspect_err(|_| std::thread::yield_now()).is_err()) {
            return Ok(());
        }
        let old = read(&file).filter(|old: &Synced| old.repository == known.repository);
        if old.as_ref().is_some_and(|old| old.at.size > head.seq) {
            return Ok(());
        }
        let id = match old.map(|old| old.ledger).or_else(|| ledger.take()) {
            Some(id) => id,
            None => self.created()?.ledger,
        };
        let mark = Synced { ledger: id.clone(), repository: known.repository.clone(), at: Extent::of(head) };
        *ledger = Some(id);
        store(&file, &mark).at("write", path).map_err(LedgerError::from)
    }

    /// Forgets of which receipts the disk was known to have more, when a receipt says that they are gone.
    pub(super) fn forget(&self) -> Result<(), LedgerError> {
        let Some(known) = &self.known else { return Ok(()) };
        for path in [Some(&known.synced), known.witness.as_ref()].into_iter().flatten() {
            files::remove(path)?;
        }
        Ok(())
    }
}

/// The hash in the line that ends here.
fn hash_before(file: &File, end: u64) -> Option<Digest> {
    let mut tail = [0; 67];
    disk::read(file, &mut tail, end.checked_sub(67)?).ok()?;
    Digest::from_hex(tail.strip_suffix(b"\"}\n")?)
}

/// Opens a mark for writing: a regular file, since a named pipe would keep whoever reads it.
fn opened(path: &Path) -> Result<File, PathError> {
    let file = lock::open(path)?;
    let is_file = file.metadata().at("examine", path)?.is_file();
    if is_file { Ok(file) } else { Err(io::Error::other("not a regular file")).at("open", path) }
}

/// Reads a mark. One that was never finished, or that somebody spoilt, is none.
fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    // It may be written at this moment.
    (0..3).find_map(|_| read(&files::open_regular(path).ok()?))
}

fn read<T: DeserializeOwned>(file: &File) -> Option<T> {
    let mut bytes = [0; 1024];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let (json, check) = std::str::from_utf8(&bytes[..length]).ok()?.lines().next()?.rsplit_once(' ')?;
    (Digest::of(json.as_bytes()).to_string() == check).then(|| serde_json::from_str(json).ok()).flatten()
}

/// Writes a mark over the old one, of which more may be left behind it: the first line counts.
fn store(file: &File, mark: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_string(mark)?;
    let line = format!("{json} {}\n", Digest::of(json.as_bytes()));
    file.write_all_at(line.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::{Body, DispatchRefused, Entry};
    use crate::ledger::tests::name;

    fn extent(size: u64) -> Extent {
        Extent { size, hash: Digest::of(&size.to_le_bytes()), end: size * 100 }
    }

    /// What each mark demands of a ledger that is `here` receipts long, of which the last one is right or not.
    #[test]
    fn a_ledger_ends_where_the_marks_say() {
        let written = |from, to| {
            let to = extent(to);
            Some(Written { repository: String::new(), boot: String::new(), from, to })
        };
        let hash = |size: u64| Some(extent(size).hash);
        let truncated = |known, here| Some(Differs::Truncated { known, here });
        let (rewritten, inserted) =
            (|size| Some(Differs::Rewritten { size }), |known, here| Some(Differs::Inserted { known, here }));
        let table = [
            // Synced, written, how long it is, whether its receipts are other ones.
            (vec![], None, 7, false, None),
            (vec![5], None, 4, false, truncated(5, 4)),
            (vec![5, 9], None, 8, false, truncated(9, 8)),
            (vec![5], None, 5, false, None),
            (vec![5], None, 8, false, None),
            (vec![5], None, 8, true, rewritten(5)),
            (vec![], written(6, 8), 5, false, truncated(6, 5)),
            // The write did not happen, or not all of it, or all of it.
            (vec![], written(6, 8), 6, true, None),
            (vec![], written(6, 8), 7, true, None),
            (vec![], written(6, 8), 8, false, None),
            (vec![], written(6, 8), 8, true, rewritten(8)),
            (vec![5], written(6, 8), 9, false, inserted(8, 9)),
        ];
        for (synced, written, here, is_other, want) in table {
            let marks = Marks { written, synced: synced.into_iter().map(extent).collect() };
            let found = |size| if is_other { Some(Digest::ZERO) } else { hash(size) };
            assert_eq!(marks.differs(&marks, here, found(here), |at| found(at.size)), want, "{marks:?} {here}");
        }
        // What was written while it was read is not too much.
        let (before, after) = (written(6, 8), written(8, 9));
        let [before, after] = [before, after].map(|written| Marks { written, synced: Vec::new() });
        assert_eq!(before.differs(&after, 9, hash(9), |_| None), None);
    }

    fn state() -> (tempfile::TempDir, Ledger) {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("git/state/receipts");
        std::fs::create_dir_all(&folder).unwrap();
        let ledger = Ledger::at(folder).witnessed(Some(&temp.path().join("witness")));
        assert!(ledger.create(&name()).unwrap());
        (temp, ledger)
    }

    fn append(ledger: &Ledger) -> Result<(), LedgerError> {
        let body = DispatchRefused { agent: name(), rule: "test".into(), reason: "test".into() };
        ledger.append(&[Entry::ledger(Body::DispatchRefused(body))]).map(drop)
    }

    #[test]
    fn a_mark_is_whole_or_none_and_knows_its_repository_and_its_boot() {
        let (_temp, ledger) = state();
        append(&ledger).unwrap();
        let known = ledger.known.as_ref().unwrap();
        assert_eq!((ledger.marks().sizes(), ledger.marks().written.map(|w| w.to.size)), (vec![2, 2], Some(2)));
        // A mark that was torn, spoilt, or left by another boot or another repository says nothing.
        let sound = std::fs::read_to_string(&known.written).unwrap();
        for text in [&sound[..sound.len() - 9], &sound.replace("\"size\":2", "\"size\":9"), "", "\0\0"] {
            std::fs::write(&known.written, text).unwrap();
            assert_eq!(known.written(), None, "{text:?}");
        }
        let written: Written = read_text(&sound);
        for other in [
            Written { boot: "other".into(), ..written.clone() },
            Written { repository: "other".into(), ..written.clone() },
        ] {
            store(&opened(&known.written).unwrap(), &other).unwrap();
            assert_eq!(known.written(), None, "{other:?}");
        }
        // A longer text that was there before changes nothing.
        std::fs::write(&known.written, format!("{sound}{sound}")).unwrap();
        assert_eq!(known.written(), Some(written));
        append(&ledger).unwrap();
        assert_eq!(known.written().unwrap().to.size, 3);
    }

    fn read_text<T: DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text.rsplit_once(' ').unwrap().0).unwrap()
    }

    #[test]
    fn a_mark_of_what_is_synced_never_goes_back() {
        let (_temp, ledger) = state();
        append(&ledger).unwrap();
        let known = ledger.known.as_ref().unwrap();
        ledger.confirmed(&Head { seq: 0, hash: Digest::ZERO, end: 1 });
        assert_eq!(ledger.marks().sizes(), [2, 2]);
        // In the witness, the same ledger counts for whichever repository stands here, and another one does not.
        let witness = known.witness.as_ref().unwrap();
        let mark: Synced = load(witness).unwrap();
        let elsewhere = Synced { repository: "other".into(), ..mark.clone() };
        store(&opened(witness).unwrap(), &elsewhere).unwrap();
        assert_eq!(ledger.marks().sizes(), [2, 2]);
        store(&opened(witness).unwrap(), &Synced { ledger: "other".into(), ..elsewhere.clone() }).unwrap();
        store(&opened(&known.synced).unwrap(), &elsewhere).unwrap();
        assert_eq!(ledger.marks().sizes(), Vec::<u64>::new());
        append(&ledger).unwrap();
        assert_eq!(ledger.marks().sizes(), [3, 3]);
    }

    #[test]
    fn nothing_is_appended_to_a_ledger_that_differs() {
        let (_temp, ledger) = state();
        (0..4).for_each(|_| append(&ledger).unwrap());
        let sound = std::fs::read(ledger.file()).unwrap();
        let lines: Vec<&[u8]> = sound.split_inclusive(|b| *b == b'\n').collect();
        let again = || Ledger::at(ledger.folder()).witnessed(ledger.known.as_ref().unwrap().witness.as_deref());
        for keep in 1..lines.len() {
            std::fs::write(ledger.file(), lines[..keep].concat()).unwrap();
            let known = lines.len() as u64;
            let want = Differs::Truncated { known, here: keep as u64 };
            for ledger in [&ledger, &again()] {
                let (appended, head) = (append(ledger).unwrap_err(), ledger.head().unwrap_err());
                assert!(matches!(appended, LedgerError::Differs(found) if found == want), "{appended}");
                assert!(matches!(head, LedgerError::Differs(found) if found == want), "{head}");
            }
            assert_eq!(std::fs::read(ledger.file()).unwrap(), lines[..keep].concat());
        }
        std::fs::write(ledger.file(), &sound).unwrap();
        // Somebody else's line, chained as it should be.
        let other = Ledger::at(ledger.folder());
        append(&other).unwrap();
        assert!(matches!(append(&ledger).unwrap_err(), LedgerError::Differs(Differs::Inserted { .. })));
        std::fs::write(ledger.file(), &sound).unwrap();
        append(&ledger).unwrap();
    }
}
