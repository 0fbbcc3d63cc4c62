//! Commits made of files as they stand on disk, byte for byte, in one call (git-fast-import(1)).
//!
//! No filter, no attribute and no line-end conversion comes between: what is read back is what was
//! there, and nothing that the repository's configuration names is run.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::objects::SYNCED;
use super::{Git, Result, expect, unreadable};
use crate::sys::files::{self, At, PathError};

/// More parents than this go into commits of their own.
const PARENTS: usize = 12;

/// What comes in is a pack, however small (fastimport.unpackLimit). `git prune` leaves packs alone, and git-fast-import(1)
/// holds its own with a `.keep` until the ref stands; a loose object is lost to a prune that had read the refs before.
const PACKED: [&str; 2] = ["-c", "fastimport.unpackLimit=0"];

/// A stream for `git fast-import` that is being written.
#[derive(Debug)]
pub struct Import {
    file: BufWriter<File>,
    path: PathBuf,
    reference: String,
    seconds: u64,
    marks: u32,
}

/// What stood at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A file or a symbolic link: it is in the commit.
    Content,
    /// Nothing, or a folder.
    Nothing,
    /// A socket, a pipe or a device: there is nothing in it to keep.
    Special,
}

impl Import {
    /// Begins a stream in the file `path`, whose last commit will stand at `reference`.
    pub fn begin(path: &Path, reference: &str, seconds: u64) -> Result<Self, PathError> {
        let file = BufWriter::new(File::create(path).at("create", path)?);
        let mut import = Self { file, path: path.to_owned(), reference: reference.to_owned(), seconds, marks: 0 };
        import.say("feature done\n")?;
        Ok(import)
    }

    fn say(&mut self, text: &str) -> Result<(), PathError> {
        self.file.write_all(text.as_bytes()).at("write", &self.path)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), PathError> {
        self.say(&format!("data {}\n", bytes.len()))?;
        self.file.write_all(bytes).and_then(|()| self.file.write_all(b"\n")).at("write", &self.path)
    }

    /// Begins a commit with these parents (commits, or marks of earlier ones); it has no files yet.
    /// Returns its mark.
    pub fn commit(&mut self, parents: &[String], message: &str) -> Result<String, PathError> {
        let mut parents = parents.to_vec();
        while parents.len() > PARENTS {
            let rest = parents.split_off(parents.len() - PARENTS);
            parents.push(self.one_commit(&rest, "vnx: more parents\n")?);
        }
        self.one_commit(&parents, message)
    }

    fn one_commit(&mut self, parents: &[String], message: &str) -> Result<String, PathError> {
        self.marks += 1;
        let mark = format!(":{}", self.marks);
        let (reference, seconds) = (self.reference.clone(), self.seconds);
        self.say(&format!(
            "reset {reference}\ncommit {reference}\nmark {mark}\ncommitter vnx <vnx@localhost> {seconds} +0000\n"
        ))?;
        self.data(message.as_bytes())?;
        for (at, parent) in parents.iter().enumerate() {
            self.say(&format!("{} {parent}\n", if at == 0 { "from" } else { "merge" }))?;
        }
        self.say("deleteall\n")?;
        Ok(mark)
    }

    /// Begins with the files of this tree.
    pub fn start_from(&mut self, tree: &str) -> Result<(), PathError> {
        self.say(&format!("M 040000 {tree} \"\"\n"))
    }

    /// Takes a path away, with whatever is below it.
    pub fn remove(&mut self, path: &Path) -> Result<(), PathError> {
        self.say(&format!("D {}\n", quoted(path)))
    }

    /// Puts an object of the repository at a path.
    pub fn object(&mut self, mode: &str, oid: &str, path: &Path) -> Result<(), PathError> {
        self.say(&format!("M {mode} {oid} {}\n", quoted(path)))
    }

    /// Puts bytes at a path.
    pub fn bytes(&mut self, bytes: &[u8], path: &Path) -> Result<(), PathError> {
        self.say(&format!("M 100644 inline {}\n", quoted(path)))?;
        self.data(bytes)
    }

    /// Puts what stands on disk at a path, as it is. A file that changes while it is read is an error.
    pub fn file(&mut self, on_disk: &Path, path: &Path) -> Result<Found, PathError> {
        let meta = match std::fs::symlink_metadata(on_disk) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Found::Nothing);
            }
            Err(e) => return Err(e).at("examine", on_disk),
        };
        if meta.is_symlink() {
            let target = std::fs::read_link(on_disk).at("read", on_disk)?;
            self.say(&format!("M 120000 inline {}\n", quoted(path)))?;
            self.data(&target.into_os_string().into_vec())?;
            return Ok(Found::Content);
        }
        if !meta.is_file() {
            return Ok(if meta.is_dir() { Found::Nothing } else { Found::Special });
        }
        let file = files::open_regular(on_disk).at("read", on_disk)?;
        let mode = if meta.permissions().mode() & 0o100 == 0 { "100644" } else { "100755" };
        self.say(&format!("M {mode} inline {}\ndata {}\n", quoted(path), meta.len()))?;
        let copied = io::copy(&mut file.take(meta.len()), &mut self.file).at("read", on_disk)?;
        if copied != meta.len() {
            return Err(io::Error::other("it changed while it was read")).at("read", on_disk);
        }
        self.say("\n")?;
        Ok(Found::Content)
    }
}

impl Git {
    /// Runs a stream: its commits and its ref stand in the repository, or nothing does. Returns the last
    /// commit. `self` is the repository.
    pub fn import(&self, mut import: Import) -> Result<String> {
        import.say("done\n").map_err(|_| unreadable("fast-import"))?;
        let Import { file, path, reference, .. } = import;
        let broken = |_| unreadable("fast-import");
        let mut file = file.into_inner().map_err(|_| unreadable("fast-import"))?;
        file.flush().map_err(broken)?;
        let read = File::open(&path).map_err(broken)?;
        // It and the ref are on the disk before anything is removed.
        let cmd = self.cmd().args(SYNCED).args(PACKED).args(["fast-import", "--force", "--quiet"]);
        let output = cmd.reading(read).limit(Duration::from_mins(30)).run()?;
        let _ = std::fs::remove_file(&path);
        expect("fast-import", output)?;
        self.ref_commit(&reference)?.ok_or_else(|| unreadable("fast-import"))
    }
}

/// A path as fast-import reads it whatever is in it.
fn quoted(path: &Path) -> String {
    use std::fmt::Write as _;

    let mut text = String::from("\"");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => {
                let _ = write!(text, "\\{other:03o}");
            }
        }
    }
    text.push('"');
    text
}
