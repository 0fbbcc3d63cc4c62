//! The files of a commit, and their way out to the disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Git, GitError, Result, expect, refused, unreadable};
use crate::sys::cmd::Cmd;
use crate::sys::files::{At, PathError};

/// Fewer files than this are not worth a second process that reads them.
const PART: usize = 1000;

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its mode as git stores it.
    pub mode: u32,
    /// Its content's object.
    pub oid: String,
    /// Where it stands, below the worktree.
    pub path: PathBuf,
}

impl Entry {
    /// A commit of another repository: a submodule.
    pub fn is_gitlink(&self) -> bool {
        self.mode == 0o160_000
    }
    /// A symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode == 0o120_000
    }
    /// A folder; only [`Git::files_and_folders_of`] lists them.
    pub fn is_folder(&self) -> bool {
        self.mode == 0o040_000
    }
}

/// Files that could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// git does not have them.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The disk does not take them.
    #[error(transparent)]
    Disk(#[from] PathError),
}

impl Git {
    /// Files of a commit with their modes, below every folder; what is no file is a submodule.
    pub fn files_of(&self, commit: &str) -> Result<Vec<Entry>> {
        self.listing(commit, &[])
    }

    /// The same with the folders, each before what is in it.
    pub fn files_and_folders_of(&self, commit: &str) -> Result<Vec<Entry>> {
        self.listing(commit, &["-t"])
    }

    /// The symbolic links of a commit: their objects, by path.
    pub fn links_of(&self, commit: &str) -> Result<BTreeMap<String, String>> {
        let links = self.files_of(commit)?.into_iter().filter(Entry::is_link);
        Ok(links.map(|link| (link.path.to_string_lossy().into_owned(), link.oid)).collect())
    }

    /// What stands in objects, as text, in order.
    pub fn texts<'a>(&self, oids: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        self.contents(oids, |_, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
            Ok(())
        })?;
        Ok(texts)
    }

    fn listing(&self, commit: &str, options: &[&str]) -> Result<Vec<Entry>> {
        let cmd = self.cmd().args(["ls-tree", "-r", "-z", "--full-tree"]).args(options);
        let entry = |line: &[u8]| {
            let tab = line.iter().position(|b| *b == b'\t')?;
            let mut head = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
            let (mode, _kind, oid) = (head.next()?, head.next()?, head.next()?);
            let mode = u32::from_str_radix(mode, 8).ok()?;
            Some(Entry { mode, oid: oid.to_owned(), path: PathBuf::from(OsStr::from_bytes(&line[tab + 1..])) })
        };
        stream("ls-tree", cmd.args(["--end-of-options", commit]), |out| {
            let mut bytes = Vec::new();
            out.read_to_end(&mut bytes)?;
            let lines = bytes.split(|b| *b == 0).filter(|l| !l.is_empty());
            lines.map(|line| entry(line).ok_or_else(|| io::Error::other("not a line of ls-tree"))).collect()
        })
    }

    /// Hands the content of each object to `take`, in order.
    pub fn contents<'a, F>(&self, oids: impl IntoIterator<Item = &'a str>, mut take: F) -> Result<()>
    where
        F: FnMut(usize, &mut dyn Read) -> io::Result<()>,
    {
        let oids: Vec<&str> = oids.into_iter().collect();
        if oids.is_empty() {
            return Ok(());
        }
        let cmd = self.cmd().args(["cat-file", "--batch", "--buffer"]).stdin(oids.join("\n") + "\n");
        stream("cat-file", cmd, |out| {
            let mut header = String::new();
            for (at, oid) in oids.iter().enumerate() {
                header.clear();
                out.read_line(&mut header)?;
                let size = header.trim_end().strip_prefix(oid).and_then(|h| h.strip_prefix(" blob "));
                let size: u64 = size.and_then(|s| s.parse().ok()).ok_or_else(|| io::Error::other("not a blob"))?;
                let mut content = out.take(size);
                take(at, &mut content)?;
                io::copy(&mut content, &mut io::sink())?;
                out.read_exact(&mut [0])?;
            }
            Ok(())
        })
    }

    /// Writes files and links as git stores them, in folders that are made for them; a submodule becomes a
    /// folder. Nothing is written through a link of theirs: links come last, and never take a place. Returns
    /// what the disk says of each file and link.
    pub fn write_out(&self, entries: &[(&Entry, PathBuf)]) -> Result<Vec<Option<Metadata>>, WriteError> {
        let mut found: Vec<Option<Metadata>> = entries.iter().map(|_| None).collect();
        for (_, path) in entries.iter().filter(|(entry, _)| entry.is_gitlink()) {
            std::fs::create_dir_all(path).at("create", path)?;
        }
        let links = |entry: &Entry| entry.is_link();
        let files = |entry: &Entry| !entry.is_link() && !entry.is_gitlink() && !entry.is_folder();
        for kind in [&files as &(dyn Fn(&Entry) -> bool + Sync), &links] {
            let mut wanted: Vec<_> = entries.iter().zip(&mut found).filter(|((entry, _), _)| kind(entry)).collect();
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
            let size = wanted.len().div_ceil(threads).max(PART);
            std::thread::scope(|scope| {
                let parts = wanted.chunks_mut(size).map(|part| crate::sys::beside(scope, || self.write_part(part)));
                let parts: Vec<_> = parts.collect();
                let ended =
                    parts.into_iter().map(|part| part.join().unwrap_or_else(|_| Err(unreadable("cat-file").into())));
                ended.fold(Ok(()), Result::and)
            })?;
        }
        Ok(found)
    }

    fn write_part(&self, part: &mut [(&(&Entry, PathBuf), &mut Option<Metadata>)]) -> Result<(), WriteError> {
        let oids: Vec<String> = part.iter().map(|((entry, _), _)| entry.oid.clone()).collect();
        let mut failed = None;
        let done = self.contents(oids.iter().map(String::as_str), |at, content| {
            let ((entry, path), found) = &mut part[at];
            match put(entry, path, content) {
                Ok(meta) => **found = Some(meta),
                Err(source) => {
                    let kind = source.kind();
                    failed = Some(PathError { verb: "write", path: path.clone(), source });
                    return Err(kind.into());
                }
            }
            Ok(())
        });
        match failed {
            Some(failed) => Err(failed.into()),
            None => Ok(done?),
        }
    }
}

/// Runs a call and reads what it prints while it runs, whatever its size.
pub(super) fn stream<T>(
    verb: &str,
    cmd: Cmd,
    read: impl FnOnce(&mut BufReader<PipeReader>) -> io::Result<T>,
) -> Result<T> {
    let (reader, writer) = io::pipe().map_err(|_| unreadable(verb))?;
    let cmd = cmd.writing(File::from(OwnedFd::from(writer))).limit(Duration::from_mins(30));
    std::thread::scope(|scope| {
        let ended = std::thread::Builder::new().spawn_scoped(scope, || cmd.run());
        let ended = ended.map_err(|source| crate::sys::cmd::CmdError::Spawn { program: "git".to_owned(), source })?;
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let answer = read(&mut reader);
        // A call that has more to say than was wanted ends with its pipe.
        drop(reader);
        let output = ended.join().map_err(|_| unreadable(verb))?;
        match (answer, output) {
            (Ok(answer), output) => expect(verb, output?).map(|_| answer),
            // Its own complaint says more than an answer that ended too early.
            (Err(_), Ok(output)) if output.code.is_some_and(|code| code > 0) => Err(refused(verb, &output)),
            (Err(_), Ok(_)) => Err(unreadable(verb)),
            (Err(_), Err(e)) => Err(e.into()),
        }
    })
}

fn put(entry: &Entry, path: &Path, content: &mut dyn Read) -> io::Result<Metadata> {
    if entry.is_link() {
        let mut target = Vec::new();
        content.read_to_end(&mut target)?;
        in_its_folder(path, || std::os::unix::fs::symlink(OsStr::from_bytes(&target), path))?;
        return path.symlink_metadata();
    }
    let mode = if entry.mode & 0o100 == 0 { 0o666 } else { 0o777 };
    let open = || std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let mut file = in_its_folder(path, open)?;
    io::copy(content, &mut file)?;
    file.metadata()
}

/// Most folders are there already, so they are made only when they were missed.
fn in_its_folder<T>(path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match (make(), path.parent()) {
        (Err(e), Some(folder)) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            make()
        }
        (result, _) => result,
    }
}
