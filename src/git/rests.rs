//! What is left to do in a checkout that a killed process has brought from one commit to another in part.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::objects::hash;
use super::{Git, Result, expect, unreadable};
use crate::sys::files;

/// What is left.
#[derive(Debug, Default)]
pub(super) struct Rests {
    /// For `update-index -z --index-info`: every path that differs, as the second commit has it.
    pub(super) index: Vec<u8>,
    /// For `checkout-index -z --stdin`: what is to be written.
    pub(super) write: Vec<u8>,
    /// What is to be removed.
    pub(super) gone: Vec<PathBuf>,
    /// Something is as the second commit has it, or on its way there.
    pub(super) begun: bool,
}

/// A path that differs between the commits: its mode and object in each.
pub(super) struct Differs {
    pub(super) path: PathBuf,
    pub(super) old: Option<(String, String)>,
    pub(super) new: Option<(String, String)>,
}

impl Rests {
    pub(super) fn of(git: &Git, tree: &Path, from: &str, to: &str) -> Result<Self> {
        let differing = differing(git, from, to)?;
        let there = there(git, tree, &differing)?;
        let mut rests = Self::default();
        for Differs { path, old, new } in &differing {
            let zero = "0".repeat(from.len());
            let (mode, oid) = new.as_ref().map_or(("0", zero.as_str()), |(mode, oid)| (mode, oid));
            rests.index.extend_from_slice(format!("{mode} {oid}\t").as_bytes());
            rests.index.extend_from_slice(path.as_os_str().as_bytes());
            rests.index.push(0);
            let now = there.get(path).map(String::as_str);
            let untouched = now.is_some() && now == old.as_ref().map(|(_, oid)| oid.as_str());
            let Some((mode, oid)) = new else {
                rests.begun |= tree.join(path).symlink_metadata().is_err();
                if untouched {
                    rests.gone.push(path.clone());
                }
                continue;
            };
            // A commit of another repository is nobody's to write.
            if mode == "160000" {
                continue;
            }
            let is_begun = !untouched && (now == Some(oid) || is_begun(git, tree, path, oid, to)?);
            // What is new was not there before either.
            rests.begun |= is_begun && (old.is_some() || tree.join(path).symlink_metadata().is_ok());
            if untouched || is_begun {
                rests.write.extend_from_slice(path.as_os_str().as_bytes());
                rests.write.push(0);
            }
        }
        Ok(rests)
    }
}

pub(super) fn differing(git: &Git, from: &str, to: &str) -> Result<Vec<Differs>> {
    let args = ["diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", from, to, "--"];
    let output = expect("diff-tree", git.cmd().args(args).run()?)?;
    let mut fields = output.stdout.split(|b| *b == 0).filter(|field| !field.is_empty());
    let mut all = Vec::new();
    while let (Some(meta), Some(path)) = (fields.next(), fields.next()) {
        let meta = String::from_utf8_lossy(meta).into_owned();
        let words: Vec<&str> = meta.trim_start_matches(':').split(' ').collect();
        let [old_mode, mode, old, new, status] = words[..] else { return Err(unreadable("diff-tree")) };
        all.push(Differs {
            path: PathBuf::from(OsStr::from_bytes(path)),
            old: (status != "A").then(|| (old_mode.to_owned(), old.to_owned())),
            new: (status != "D").then(|| (mode.to_owned(), new.to_owned())),
        });
    }
    Ok(all)
}

/// What stands at these paths, as git would store it.
fn there(git: &Git, tree: &Path, differing: &[Differs]) -> Result<HashMap<PathBuf, String>> {
    let (mut found, mut plain) = (HashMap::new(), Vec::new());
    for Differs { path, .. } in differing {
        let Ok(meta) = tree.join(path).symlink_metadata() else { continue };
        if meta.is_symlink() {
            let target = std::fs::read_link(tree.join(path)).unwrap_or_default();
            let length = differing.iter().find_map(|d| d.new.as_ref().map(|(_, oid)| oid.len())).unwrap_or(40);
            let bytes = target.as_os_str().as_bytes();
            let header = format!("blob {}\0", bytes.len());
            let name = hash(&[header.as_bytes(), bytes], length / 2).unwrap_or_default();
            found.insert(path.clone(), name.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
        } else if meta.is_file() && !path.as_os_str().as_bytes().contains(&b'\n') {
            plain.push(path.clone());
        }
    }
    let mut input = Vec::new();
    for path in &plain {
        input.extend_from_slice(path.as_os_str().as_bytes());
        input.push(b'\n');
    }
    let output = expect("hash-object", git.cmd().args(["hash-object", "--stdin-paths"]).stdin(input).run()?)?;
    let names = output.text();
    if names.lines().count() != plain.len() {
        return Err(unreadable("hash-object"));
    }
    found.extend(plain.into_iter().zip(names.lines().map(str::to_owned)));
    Ok(found)
}

/// Whether a file is the beginning of what is to be written there, or is not there at all: git removes a file before it
/// writes it anew, and writes it where it will stand.
fn is_begun(git: &Git, tree: &Path, path: &Path, oid: &str, to: &str) -> Result<bool> {
    let place = tree.join(path);
    let Ok(meta) = place.symlink_metadata() else { return Ok(true) };
    if meta.is_dir() {
        // Empty, it is only what was left of files that had to go.
        return Ok(std::fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_none()));
    }
    if !meta.is_file() {
        return Ok(false);
    }
    let mut spec = to.as_bytes().to_vec();
    spec.push(b':');
    spec.extend_from_slice(path.as_os_str().as_bytes());
    let filtered = git.cmd().args(["cat-file", "--filters"]).arg(OsStr::from_bytes(&spec)).run()?;
    let whole = if filtered.ok() {
        filtered.stdout
    } else {
        expect("cat-file", git.cmd().args(["cat-file", "blob", oid]).run()?)?.stdout
    };
    Ok(files::read(&place).is_ok_and(|bytes| whole.starts_with(&bytes)))
}
