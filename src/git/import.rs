//! Commits made of files as they stand on disk, byte for byte, in one call (git-fast-import(1)).
//!
//! No filter, no attribute and no line-end conversion comes between: what is read back is what was
//! there, and nothing that the repository's configuration names is run.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::objects::SYNCED;
use super::{Git, Result, expect, unreadable};
use crate::sys::files::{self, At, PathError};
use crate::sys::folder::{Folder, Stands};

/// More parents than this go into commits of their own.
const PARENTS: usize = 12;

/// What comes in is a pack, however small (fastimport.unpackLimit). `git prune` leaves packs alone, and git-fast-import(1)
/// holds its own with a `.keep` until the ref stands; a loose object is lost to a prune that had read the refs before.
const PACKED: [&str; 2] = ["-c", "fastimport.unpackLimit=0"];

/// A stream for `git fast-import` that is being written.
#[derive(Debug)]
pub struct Import {
    file: BufWriter<File>,
    /// Where the stream is, for errors: it has no name that a kill could leave.
    folder: PathBuf,
    /// How many bytes more it may have.
    left: u64,
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
    /// A file that is too large, or mostly holes: it is not in the commit.
    TooLarge,
}

impl Import {
    /// Begins a stream of at most `most` bytes in `folder`, whose last commit will stand at `reference`.
    pub fn begin(folder: &Path, most: u64, reference: &str, seconds: u64) -> Result<Self, PathError> {
        let file = BufWriter::new(files::nameless(folder)?);
        let (folder, reference) = (folder.to_owned(), reference.to_owned());
        let mut import = Self { file, folder, left: most, reference, seconds, marks: 0 };
        import.say("feature done\n")?;
        Ok(import)
    }

    fn say(&mut self, text: &str) -> Result<(), PathError> {
        self.put(text.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PathError> {
        let length = bytes.len() as u64;
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
            .at("write", &self.folder)?;
        self.file.write_all(bytes).at("write", &self.folder)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), PathError> {
        self.say(&format!("data {}\n", bytes.len()))?;
        self.put(bytes)?;
        self.say("\n")
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

    /// Puts what stands below a folder at a path of the commit, as it is: nothing is read through a link. A file that
    /// changes while it is read is an error, and one that leaves no room for others is left out.
    pub fn file(&mut self, folder: &Folder, on_disk: &Path, path: &Path) -> Result<Found, PathError> {
        let file = match folder.look(on_disk).at("read", on_disk)? {
            Stands::Nothing | Stands::Folder => return Ok(Found::Nothing),
            Stands::Special => return Ok(Found::Special),
            Stands::Link(target) => {
                self.say(&format!("M 120000 inline {}\n", quoted(path)))?;
                self.data(target.to_bytes())?;
                return Ok(Found::Content);
            }
            Stands::File(file) => file,
        };
        let meta = file.metadata().at("examine", on_disk)?;
        // What git itself says about so large a file, and the end of the stream, fit in the rest.
        if meta.len() > self.left.saturating_sub(SPARE) || files::is_sparse(&file, &meta).at("examine", on_disk)? {
            return Ok(Found::TooLarge);
        }
        let mode = if meta.permissions().mode() & 0o100 == 0 { "100644" } else { "100755" };
        self.say(&format!("M {mode} inline {}\ndata {}\n", quoted(path), meta.len()))?;
        self.left -= meta.len();
        let copied = io::copy(&mut file.take(meta.len()), &mut self.file).at("read", on_disk)?;
        if copied != meta.len() {
            return Err(io::Error::other("it changed while it was read")).at("read", on_disk);
        }
        self.say("\n")?;
        Ok(Found::Content)
    }
}

/// So much of a stream is for what is not the content of files.
const SPARE: u64 = 1 << 20;

impl Git {
    /// Runs a stream: its commits and its ref stand in the repository, or nothing does. Returns the last
    /// commit. `self` is the repository.
    pub fn import(&self, mut import: Import) -> Result<String> {
        import.say("done\n").map_err(|_| unreadable("fast-import"))?;
        let Import { file, reference, .. } = import;
        let mut read = file.into_inner().map_err(|_| unreadable("fast-import"))?;
        read.rewind().map_err(|_| unreadable("fast-import"))?;
        // It and the ref are on the disk before anything is removed.
        let cmd = self.cmd().args(SYNCED).args(PACKED).args(["fast-import", "--force", "--quiet"]);
        let output = cmd.reading(read).limit(Duration::from_mins(30)).run()?;
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
