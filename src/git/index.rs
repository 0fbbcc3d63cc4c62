//! The index, read directly, because two questions about it are cheaper asked of the file than
//! of git (format: gitformat-index(5); the race: git's `racy-git` document).
//!
//! git compares timestamps in whole seconds. An index that was written in the same second as a
//! file cannot tell whether the file changed afterwards, so git reads such files again: in a
//! fresh worktree all of them, at every call. The index stores nanoseconds too, and with them
//! nearly every file is proven unchanged by its `lstat` alone.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::status::Hidden;
use crate::sys::files;

/// Larger indexes are left to git.
const CAP: u64 = 1 << 30;
/// Bytes of `lstat` data at the start of an entry; the mode is among them.
const STAT: usize = 40;
const HEADER: usize = 12;
pub(super) const GITLINK: u32 = 0o160_000;

/// A timestamp as the index stores it: seconds (modulo 2^32), nanoseconds.
type Stamp = (u32, u32);

/// An index in one of the plain forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Bytes of an object name.
    hash: usize,
    /// When it was written, by the clock of its file system; never later than now.
    written: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Where it begins, where its path begins and ends.
    at: usize,
    path: (usize, usize),
    assume_unchanged: bool,
    skip_worktree: bool,
    /// Not one side of a conflict.
    merged: bool,
}

impl Index {
    /// Reads the index at `path`; object names have `hash` bytes. `None` for every form that only
    /// git should read: version 4, split or sparse, or anything that does not add up to its last
    /// byte.
    pub(super) fn read(path: &Path, hash: usize) -> Option<Self> {
        let written = modified(&std::fs::symlink_metadata(path).ok()?);
        let bytes = files::read_capped(path, CAP).ok()??;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let now = (truncate(now.as_secs()), now.subsec_nanos());
        let entries = parse(&bytes, hash)?;
        Some(Self { bytes, entries, hash, written: written.min(now) })
    }

    /// The entries that `git status` does not look behind.
    pub(super) fn hidden(&self) -> Hidden {
        let mut hidden = Hidden::default();
        for entry in &self.entries {
            let list = if self.mode(entry) == GITLINK {
                &mut hidden.gitlinks
            } else if entry.assume_unchanged || entry.skip_worktree {
                &mut hidden.flagged
            } else {
                continue;
            };
            list.push(self.path(entry).to_owned());
        }
        hidden
    }

    /// Every entry with the name of its object.
    pub(super) fn objects(&self) -> Vec<(PathBuf, String)> {
        let name = |entry: &Entry| {
            let bytes = self.bytes.get(entry.at + STAT..entry.at + STAT + self.hash).unwrap_or_default();
            bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        };
        self.entries.iter().map(|entry| (self.path(entry).to_owned(), name(entry))).collect()
    }

    /// Whether something stands in a folder, or in its place.
    pub(super) fn has_below(&self, folder: &Path) -> bool {
        self.entries.iter().any(|entry| self.path(entry).starts_with(folder))
    }

    /// The files that say in what form files stand on disk.
    pub(super) fn attributes(&self) -> Vec<PathBuf> {
        let named = |e: &&Entry| self.path(e).file_name().is_some_and(|name| name == ".gitattributes");
        self.entries.iter().filter(named).map(|e| self.path(e).to_owned()).collect()
    }

    /// Files that are not as they were when `first` was written: all, if there is none, or if it does not name them.
    pub(super) fn written_since(&self, first: Option<&Self>, tree: &Path) -> Vec<PathBuf> {
        let known: BTreeMap<&Path, (&Self, &Entry)> = first
            .into_iter()
            .flat_map(|first| first.entries.iter().map(move |e| (first.path(e), (first, e))))
            .collect();
        let is_as_it_was = |path: &Path| {
            let Some((first, entry)) = known.get(path) else { return false };
            std::fs::symlink_metadata(tree.join(path)).is_ok_and(|meta| first.is_of(entry, &meta))
        };
        self.plain().map(|e| self.path(e)).filter(|path| !is_as_it_was(path)).map(Path::to_owned).collect()
    }

    /// What stands as a file on disk.
    fn plain(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.merged && !e.skip_worktree && self.mode(e) != GITLINK)
    }

    /// Whether a file is the one that was looked at when the entry was written, as it was then.
    fn is_of(&self, entry: &Entry, meta: &Metadata) -> bool {
        let recorded = |field| self.field(entry, field);
        (recorded(8), recorded(12)) == modified(meta)
            && (recorded(0), recorded(4)) == changed(meta)
            && recorded(20) == truncate(meta.ino())
            && recorded(36) == truncate(meta.size())
    }

    /// Whether `tree` holds the files of this index as they were when it was written, and no other file, ignored ones
    /// included. Submodules are as git leaves them: an empty folder.
    pub(super) fn is_all_of(&self, tree: &Path) -> bool {
        let there = self.entries.iter().filter(|e| e.merged && !e.skip_worktree);
        let known: HashMap<&[u8], &Entry> = there.map(|entry| (self.name(entry), entry)).collect();
        let (mut folders, mut seen) = (vec![PathBuf::new()], 0);
        while !folders.is_empty() {
            let looked = in_parts(&folders, 16, |part| -> Option<Vec<_>> {
                part.iter().map(|below| self.look_into(tree, below, &known)).collect()
            });
            let Some(looked) = looked.into_iter().collect::<Option<Vec<_>>>() else { return false };
            folders.clear();
            for (files, inside) in looked.into_iter().flatten() {
                seen += files;
                folders.extend(inside);
            }
        }
        seen == known.len()
    }

    /// How many of `known` stand in the folder `below`, and the folders in it; `None` if there is anything else.
    fn look_into(&self, tree: &Path, below: &Path, known: &HashMap<&[u8], &Entry>) -> Option<(usize, Vec<PathBuf>)> {
        let (mut files, mut folders) = (0, Vec::new());
        for entry in std::fs::read_dir(tree.join(below)).ok()? {
            let entry = entry.ok()?;
            let path = below.join(entry.file_name());
            if path.as_os_str() == ".git" {
                continue;
            }
            if entry.file_type().ok()?.is_dir() {
                // One in which its next worker could not write is not as git made it.
                if entry.metadata().ok()?.mode() & 0o700 != 0o700 {
                    return None;
                }
                folders.push(path);
            } else {
                let known = known.get(path.as_os_str().as_bytes())?;
                files += usize::from(self.is_of(known, &entry.metadata().ok()?));
            }
        }
        if files == 0 && folders.is_empty() && below != Path::new("") {
            // git makes no other empty folder, so one of those belongs to somebody.
            let link = known.get(below.as_os_str().as_bytes())?;
            files = (self.mode(link) == GITLINK).then_some(1)?;
        }
        Some((files, folders))
    }

    /// Bytes of an object name.
    pub(super) fn hash(&self) -> usize {
        self.hash
    }

    /// The same index with every doubt about timestamps settled, for one `git status`, as the
    /// bytes of an index file that must be dated later than now. `None` when there is no doubt.
    ///
    /// A file is proven unchanged when all that `lstat` tells equals the entry to the
    /// nanosecond and its last change is older than the index. Every other doubtful entry gets
    /// the state that `git read-tree` leaves, without `lstat` data, so that git reads the file.
    pub(super) fn settled(&self, tree: &Path) -> Option<Vec<u8>> {
        let doubtful: Vec<&Entry> = self.entries.iter().filter(|e| self.is_doubtful(e)).collect();
        if doubtful.is_empty() {
            return None;
        }
        let unproven = in_parts(&doubtful, 1000, |part| -> Vec<usize> {
            part.iter().filter(|e| !self.is_proven(e, tree)).map(|e| e.at).collect()
        });
        let end = self.entries.last().map_or(HEADER, Entry::end);
        let mut bytes = self.bytes.get(..end)?.to_vec();
        for at in unproven.into_iter().flatten() {
            // All but the mode.
            bytes.get_mut(at..at + 24)?.fill(0);
            bytes.get_mut(at + 28..at + STAT)?.fill(0);
        }
        // Extensions are optional and none of them is evidence. A checksum of zeros means that
        // it was not computed (index.skipHash).
        bytes.resize(end + self.hash, 0);
        Some(bytes)
    }

    /// git itself would read the file, or the conflict that it is part of, whatever `lstat` says.
    fn is_doubtful(&self, entry: &Entry) -> bool {
        entry.merged && self.mode(entry) != GITLINK && self.field(entry, 8) >= self.written.0
    }

    fn is_proven(&self, entry: &Entry, tree: &Path) -> bool {
        let Ok(meta) = std::fs::symlink_metadata(tree.join(self.path(entry))) else {
            return false;
        };
        let mode = match meta.mode() & 0o170_000 {
            0o120_000 => 0o120_000,
            0o100_000 if meta.mode() & 0o100 != 0 => 0o100_755,
            0o100_000 => 0o100_644,
            _ => return false,
        };
        let recorded = |field| self.field(entry, field);
        (recorded(0), recorded(4)) == changed(&meta)
            && (recorded(8), recorded(12)) == modified(&meta)
            && modified(&meta) < self.written
            && recorded(20) == truncate(meta.ino())
            && recorded(24) == mode
            && (recorded(28), recorded(32)) == (meta.uid(), meta.gid())
            && recorded(36) == truncate(meta.size())
    }

    /// How many entries have no `lstat` data.
    #[cfg(test)]
    pub(super) fn without_stat(&self) -> usize {
        self.entries.iter().filter(|e| self.field(e, 20) == 0).count()
    }

    fn field(&self, entry: &Entry, offset: usize) -> u32 {
        number(&self.bytes, entry.at + offset).unwrap_or(0)
    }
    fn mode(&self, entry: &Entry) -> u32 {
        self.field(entry, 24)
    }
    fn name(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.path.0..entry.path.1).unwrap_or_default()
    }
    fn path(&self, entry: &Entry) -> &Path {
        Path::new(OsStr::from_bytes(self.name(entry)))
    }
}

impl Entry {
    /// Where the next one begins: entries are padded with 1 to 8 zeros to a multiple of 8.
    fn end(&self) -> usize {
        self.at + ((self.path.1 - self.at + 8) & !7)
    }
}

/// What `work` says of every part of `items`, in their order: as many parts as there are processors, but none is smaller
/// than `least`, which is worth a thread.
fn in_parts<T: Sync, R: Send>(items: &[T], least: usize, work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let size = items.len().div_ceil(processors).max(least);
    let (first, rest) = items.split_at(size.min(items.len()));
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> =
            rest.chunks(size).map(|part| (part, crate::sys::beside(scope, move || work(part)))).collect();
        let mut all = vec![work(first)];
        all.extend(others.into_iter().map(|(part, other)| other.join().unwrap_or_else(|_| work(part))));
        all
    })
}

fn parse(bytes: &[u8], hash: usize) -> Option<Vec<Entry>> {
    let version = number(bytes, 4)?;
    if !bytes.starts_with(b"DIRC") || !(2..=3).contains(&version) {
        return None;
    }
    let count = number(bytes, 8)? as usize;
    let mut entries = Vec::with_capacity(count.min(bytes.len() / STAT));
    let mut at = HEADER;
    for _ in 0..count {
        let flags_at = at + STAT + hash;
        let flags = u16::from_be_bytes(bytes.get(flags_at..flags_at + 2)?.try_into().ok()?);
        let extended = flags & 0x4000 != 0;
        if extended && version < 3 {
            return None;
        }
        let begin = flags_at + if extended { 4 } else { 2 };
        let length = bytes.get(begin..)?.iter().position(|b| *b == 0)?;
        // The flags repeat the length as far as it fits.
        if length.min(0xfff) != usize::from(flags & 0xfff) {
            return None;
        }
        let entry = Entry {
            at,
            path: (begin, begin + length),
            assume_unchanged: flags & 0x8000 != 0,
            skip_worktree: extended && bytes.get(flags_at + 2)? & 0x40 != 0,
            merged: flags & 0x3000 == 0,
        };
        at = entry.end();
        entries.push(entry);
    }
    // What follows is extensions up to the checksum. One whose name begins with a small letter
    // changes what the entries mean.
    let end = bytes.len().checked_sub(hash)?;
    while at < end {
        let upper = bytes.get(at)?.is_ascii_uppercase();
        at = at.checked_add(8)?.checked_add(number(bytes, at + 4)? as usize)?;
        if !upper {
            return None;
        }
    }
    (at == end).then_some(entries)
}

/// The beginning of an index with so many entries.
pub(super) fn header(entries: usize) -> Option<Vec<u8>> {
    let count = u32::try_from(entries).ok()?;
    Some([b"DIRC".as_slice(), &2_u32.to_be_bytes(), &count.to_be_bytes()].concat())
}

/// Adds an entry for a file of which `lstat` said `meta`; without it git looks at the file.
pub(super) fn entry(index: &mut Vec<u8>, meta: Option<&Metadata>, mode: u32, oid: &[u8], path: &[u8]) {
    let at = index.len();
    let mut stat = [0; STAT / 4];
    if let Some(meta) = meta {
        let ((changed, changed_ns), (modified, modified_ns)) = (changed(meta), modified(meta));
        let (device, inode, size) = (truncate(meta.dev()), truncate(meta.ino()), truncate(meta.size()));
        stat = [changed, changed_ns, modified, modified_ns, device, inode, 0, meta.uid(), meta.gid(), size];
    }
    stat[6] = mode;
    index.extend(stat.iter().flat_map(|field| field.to_be_bytes()));
    index.extend_from_slice(oid);
    let length = u16::try_from(path.len()).unwrap_or(u16::MAX).min(0xfff);
    index.extend_from_slice(&length.to_be_bytes());
    index.extend_from_slice(path);
    let end = at + ((index.len() - at + 8) & !7);
    index.resize(end, 0);
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[expect(clippy::cast_possible_truncation, reason = "the index stores the lower 32 bits")]
fn truncate(value: u64) -> u32 {
    value as u32
}

fn modified(meta: &Metadata) -> Stamp {
    (truncate(meta.mtime().cast_unsigned()), truncate(meta.mtime_nsec().cast_unsigned()))
}

fn changed(meta: &Metadata) -> Stamp {
    (truncate(meta.ctime().cast_unsigned()), truncate(meta.ctime_nsec().cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index as git writes it, of this version.
    fn written(version: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| crate::sys::cmd::Cmd::new("git").args(args).cwd(folder.path()).run().unwrap();
        git(&["init", "-q"]);
        for name in ["a", "folder with blanks", "ü", &"long".repeat(60)] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        git(&["add", "-N", "a"]);
        git(&["add", "."]);
        git(&["update-index", "--skip-worktree", "ü"]);
        git(&["update-index", "--index-version", version]);
        std::fs::read(folder.path().join(".git/index")).unwrap()
    }

    #[test]
    fn fuzz_an_index() {
        let samples = [written("2"), written("3")];
        assert!(samples.iter().all(|bytes| parse(bytes, 20).is_some_and(|entries| entries.len() == 4)));
        crate::domain::fuzz::fuzz(&samples, |bytes| {
            for hash in [20, 32] {
                for entry in parse(bytes, hash).unwrap_or_default() {
                    assert!(entry.path.0 <= entry.path.1 && entry.path.1 <= bytes.len());
                }
            }
        });
    }
}
