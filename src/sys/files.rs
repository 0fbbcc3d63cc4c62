//! Files: capped reads, whole-file replacement, private folders.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::domain::Fault;

/// How the names of our temporary files begin, for whoever finds what a kill has left.
pub const TEMPORARY: &str = "vnx-tmp-";

/// An I/O error with its path and what was attempted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {source}", path.display())]
pub struct PathError {
    /// `read`, `write`, `create` …
    pub verb: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl From<PathError> for Fault {
    fn from(error: PathError) -> Self {
        let fault = match error.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                return Self::environment(error.to_string()).fix("free disk space; nothing was lost");
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::environment(error.to_string()),
            _ => Self::io(error.to_string()),
        };
        fault.fix("check the path and its permissions, then `vnx doctor`")
    }
}

/// Adds the path to an I/O result.
pub trait At<T> {
    /// `verb` completes "cannot …".
    fn at(self, verb: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, verb: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { verb, path: path.to_owned(), source })
    }
}

/// Opens a regular file for reading. Anything else is refused without waiting for it: a named
/// pipe in the place of a file would hang every command.
pub fn open_regular(path: &Path) -> io::Result<fs::File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Reads a whole file that others may have put anything in the place of: a regular one, and no larger than 256 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    const CAP: u64 = 256 << 20;
    let bytes = read_capped(path, CAP).map_err(|error| error.source)?;
    bytes.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The same of a text.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}

/// Copies a file with the time of its last change: who compares times must not take the copy for younger than what
/// it tells of.
pub fn copy_with_time(from: &Path, to: &Path) -> Result<(), PathError> {
    // As `fs::copy`, which would wait for the other end of a pipe.
    let mut opened = open_regular(from).at("copy", from)?;
    let meta = opened.metadata().at("examine", from)?;
    let mut copy = fs::OpenOptions::new();
    let mut copy = copy.write(true).create(true).truncate(true).mode(meta.mode()).open(to).at("copy", to)?;
    io::copy(&mut opened, &mut copy).at("copy", from)?;
    let modified = meta.modified().at("examine", from)?;
    copy.set_modified(modified).at("write", to)
}

/// Whether a file and a stream have the same bytes; a read that fails makes them differ.
pub fn same_bytes(mut file: fs::File, stream: &mut dyn Read) -> bool {
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let Ok(n) = stream.read(&mut a) else { return false };
        if n == 0 {
            return matches!(file.read(&mut b), Ok(0));
        }
        if file.read_exact(&mut b[..n]).is_err() || a[..n] != b[..n] {
            return false;
        }
    }
}

/// Whether a stream begins with all of a file; a read that fails makes them differ.
pub fn is_beginning(mut file: fs::File, stream: &mut dyn Read) -> bool {
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let Ok(n) = file.read(&mut a) else { return false };
        if n == 0 {
            return true;
        }
        if stream.read_exact(&mut b[..n]).is_err() || a[..n] != b[..n] {
            return false;
        }
    }
}

/// Reads a whole file of at most `cap` bytes; `Ok(None)` when it does not exist.
pub fn read_capped(path: &Path, cap: u64) -> Result<Option<Vec<u8>>, PathError> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("read", path),
    };
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > cap {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {cap} bytes"))).at("read", path);
    }
    Ok(Some(bytes))
}

/// The last bytes of a file, at most so many; none when it does not exist.
pub fn read_end(path: &Path, most: u64) -> Result<Vec<u8>, PathError> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("read", path),
    };
    let length = file.metadata().at("examine", path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most))).at("read", path)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).at("read", path)?;
    Ok(bytes)
}

/// Replaces a file as a whole: a temporary file in the same folder, then a rename. Mode 0600.
/// It does not sync: what must survive power loss stands in the ledger.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    replaced(path, bytes, 0o600, false)
}

/// The same, and waits until it is on the disk.
pub fn replace_synced(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    replaced(path, bytes, 0o600, true)
}

/// The same for a file that others may read: its mode is what the umask leaves of 0666.
pub fn replace_shared(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    replaced(path, bytes, 0o666, true)
}

fn replaced(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> Result<(), PathError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).permissions(fs::Permissions::from_mode(mode));
    let mut file = builder.tempfile_in(folder).at("write", path)?;
    file.write_all(bytes).at("write", path)?;
    if file.as_file().metadata().at("examine", path)?.len() != bytes.len() as u64 {
        return Err(io::Error::other("it has another length than was written")).at("write", path);
    }
    if sync {
        file.as_file().sync_all().at("sync", path)?;
    }
    file.persist(path).map_err(|e| e.error).at("write", path)?;
    if sync {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)?;
    }
    Ok(())
}

/// A file without a name, in a folder: a kill leaves nothing of it.
pub fn nameless(folder: &Path) -> Result<fs::File, PathError> {
    tempfile::tempfile_in(folder).at("write", folder)
}

/// Whether a file of some size is mostly holes, which a copy would write out. Of a file system that compresses, the
/// blocks alone would say so of any file.
pub fn is_sparse(mut file: &fs::File, meta: &fs::Metadata) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    if meta.len() <= 1 << 20 || meta.blocks() * 512 >= meta.len() / 2 {
        return Ok(false);
    }
    let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0));
    file.rewind()?;
    Ok(hole.is_ok_and(|hole| hole < meta.len()))
}

/// A temporary file with a modification time of its own; it goes when the value does.
pub fn scratch(folder: &Path, bytes: &[u8], modified: SystemTime) -> Result<tempfile::NamedTempFile, PathError> {
    let mut file = tempfile::NamedTempFile::with_prefix_in(TEMPORARY, folder).at("write", folder)?;
    file.write_all(bytes).at("write", folder)?;
    file.as_file().set_modified(modified).at("write", folder)?;
    Ok(file)
}

/// Writes a new file with mode 0600 in a folder that nobody else writes to; fails if it exists.
pub fn create_new(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).at("create", path)?;
    file.write_all(bytes).at("write", path)
}

/// Makes an empty file with mode 0600 where there is none.
pub fn private_file(path: &Path) -> Result<(), PathError> {
    match create_new(path, b"") {
        Err(e) if e.source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Creates a folder and its parents with mode 0700; an existing one stays as it is.
pub fn private_folder(path: &Path) -> Result<(), PathError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("create", path)
}

/// Creates a folder exclusively with mode 0700: the winner of a race gets `true`.
pub fn claim_folder(path: &Path) -> Result<bool, PathError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e).at("create", path),
    }
}

/// Gives a file another name, in place of what has it, once its bytes are on the disk.
pub fn rename(from: &Path, to: &Path) -> Result<(), PathError> {
    fs::File::open(from).and_then(|file| file.sync_all()).at("sync", from)?;
    fs::rename(from, to).at("rename", from)
}

/// Removes a file; a missing one is fine.
pub fn remove(path: &Path) -> Result<(), PathError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

/// Every file at or below a path, links as such; nothing where nothing is.
pub fn below(path: &Path) -> Result<Vec<PathBuf>, PathError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("examine", path),
        Ok(meta) if !meta.is_dir() => return Ok(vec![path.to_owned()]),
        Ok(_) => {}
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path).at("list", path)? {
        all.extend(below(&entry.at("list", path)?.path())?);
    }
    Ok(all)
}

/// Names in a folder, sorted; a missing folder is empty.
pub fn names(path: &Path) -> Result<Vec<String>, PathError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("list", path),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.at("list", path)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Bytes free for an unprivileged user on the file system of `path`, or of its nearest
/// existing parent.
pub fn disk_free(path: &Path) -> Result<u64, PathError> {
    let stat = nearest(path, |place| rustix::fs::statvfs(place)).at("examine", path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Asks about a path, or about its nearest parent that exists at that moment: a folder that
/// others take away in between is none.
pub fn nearest<T>(path: &Path, ask: impl Fn(&Path) -> rustix::io::Result<T>) -> io::Result<T> {
    let mut answer = Err(rustix::io::Errno::NOENT);
    for place in path.ancestors() {
        answer = ask(place);
        if !matches!(answer, Err(rustix::io::Errno::NOENT)) {
            break;
        }
    }
    Ok(answer?)
}

/// Whether this user may write to a folder, or to its nearest parent where it does not exist yet.
pub fn writable(path: &Path) -> io::Result<()> {
    nearest(path, |place| rustix::fs::access(place, rustix::fs::Access::WRITE_OK))
}

/// Bytes that a folder tree takes on disk; what cannot be read counts nothing, no link is followed.
pub fn disk_usage(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| disk_usage(&entry.path())).sum::<u64>() + own
}

/// Whether something of this name is in a folder tree; a tree that cannot be read may hold it. No link is followed.
pub fn holds(path: &Path, name: &str) -> bool {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return false;
    }
    let Ok(mut entries) = fs::read_dir(path) else { return true };
    entries.any(|entry| entry.map_or(true, |e| e.file_name() == *name || holds(&e.path(), name)))
}

/// What is wrong with a folder that only this user is to write to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exposed {
    /// Others may write to it, or take it away from where it is.
    #[error("others than you may write to {} (mode {mode:04o})", path.display())]
    Writable {
        /// The folder, or one above it.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("{} belongs to user {owner}", path.display())]
    Foreign {
        /// The folder, or one above it.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

/// Whether somebody else could change what lies below `path`, or put something else in its place: by the folder itself
/// or by one above it, where a sticky folder such as `/tmp` is as good as a closed one. A folder that does not exist yet
/// is asked about where it would be made.
pub fn exposed(path: &Path) -> Result<Option<Exposed>, PathError> {
    use std::os::unix::fs::MetadataExt;
    let Some(nearest) = path.ancestors().filter(|place| place.is_dir()).find_map(|place| place.canonicalize().ok())
    else {
        return Ok(None);
    };
    let exists = path.exists();
    let me = crate::sys::process::uid();
    for (above, place) in nearest.ancestors().enumerate() {
        let meta = fs::metadata(place).at("examine", place)?;
        let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
        if owner != me && owner != 0 {
            return Ok(Some(Exposed::Foreign { path: place.to_owned(), owner }));
        }
        let is_itself = above == 0 && exists;
        let is_sticky = mode & 0o1000 != 0 && !is_itself;
        // A group of one's own, as many systems give every user, is nobody else.
        let is_own_group = || !is_itself && mode & 0o002 == 0 && is_private_group(meta.gid());
        if mode & 0o022 != 0 && !is_sticky && !is_own_group() {
            return Ok(Some(Exposed::Writable { path: place.to_owned(), mode }));
        }
    }
    Ok(None)
}

/// Whether a group is this user's primary one and has the user's name, or its number: nobody else is in it (group(5)).
fn is_private_group(gid: u32) -> bool {
    let uid = crate::sys::process::uid();
    if gid != rustix::process::getegid().as_raw() {
        return false;
    }
    let name_of = |file: &str, id: u32| {
        let text = read_text(Path::new(file)).ok()?;
        let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()))?;
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(2).unwrap_or_default().to_owned()))
    };
    match (name_of("/etc/passwd", uid), name_of("/etc/group", gid)) {
        (Some((user, _)), Some((group, members))) => user == group && members.is_empty(),
        _ => gid == uid,
    }
}

/// A folder that stays the one that was opened, whatever takes its name later.
#[derive(Debug)]
pub struct HeldFolder {
    named: PathBuf,
    folder: fs::File,
}

impl HeldFolder {
    /// Opens a folder; a link to one is refused.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let folder = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).at("open", path)?;
        Ok(Self { named: path.to_owned(), folder })
    }

    /// Where it is now. Under its old name, unless somebody has put something else there: then where the kernel knows
    /// it to be, and nowhere if it was deleted.
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::MetadataExt;
        let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (fs::symlink_metadata(&self.named), self.folder.metadata()) {
            (Ok(there), Ok(held)) if same(&there, &held) => self.named.clone(),
            _ => fs::read_link(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
                .unwrap_or_else(|_| PathBuf::from("/nonexistent")),
        }
    }
}

/// Whether a path is a folder of this user, and no link to one.
pub fn is_own_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == crate::sys::process::uid())
}

/// Deletes a folder of our own state for good: no link is followed and no other file system entered. What stands beside
/// worktrees is deleted by [`super::folder::delete`], where a record of ours names it.
pub fn delete_tree(path: &Path) -> Result<(), PathError> {
    super::folder::delete(path, None)
}
