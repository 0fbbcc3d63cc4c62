//! What it takes to know whether a branch may land: the change, and what a commit says of it.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Git, GitConfig, Result, expect, refused, unreadable};
use crate::domain::Digest;
use crate::sys::files;

impl Git {
    /// The content of plain files of a commit, by path; what is not there, or no plain file, is left out. One
    /// that is larger than `cap` bytes is an error.
    pub fn files_at(&self, commit: &str, paths: &[&'static str], cap: u64) -> Result<BTreeMap<&'static str, Vec<u8>>> {
        let cmd = self.cmd().args(["ls-tree", "-z", "-l", "--full-tree", commit, "--"]);
        let output = expect("ls-tree", cmd.args(paths).run()?)?;
        let mut found = BTreeMap::new();
        for line in output.stdout.split(|b| *b == 0).filter(|line| !line.is_empty()) {
            let text = String::from_utf8_lossy(line);
            let (words, name) = text.split_once('\t').ok_or_else(|| unreadable("ls-tree"))?;
            let words: Vec<&str> = words.split_whitespace().collect();
            let [mode, _, oid, size] = words[..] else { continue };
            let Some(path) = paths.iter().find(|path| **path == name) else { continue };
            if !mode.starts_with("100") {
                continue;
            }
            if size.parse::<u64>().map_or(true, |size| size > cap) {
                return Err(unreadable("ls-tree"));
            }
            let blob = expect("cat-file", self.cmd().args(["cat-file", "blob", oid]).run()?)?;
            found.insert(*path, blob.stdout);
        }
        Ok(found)
    }

    /// A digest of what a merge runs and says beside the settings: hooks (names and contents of what is no sample), and
    /// who commits where the repository says so itself. `main` are the files of the main checkout, `self` is the
    /// repository.
    pub fn hooks_digest(&self, config: &GitConfig, main: &Path) -> Digest {
        let folder = self.hooks_folder(config, main);
        let mut text = Vec::new();
        for name in files::names(&folder).unwrap_or_default().iter().filter(|name| !name.ends_with(".sample")) {
            let content = files::read_capped(&folder.join(name), 16 << 20).ok().flatten();
            let digest = Digest::of(&content.unwrap_or_default());
            text.extend_from_slice(format!("{name}\0{digest}\n").as_bytes());
        }
        text.extend_from_slice(config.own_identity().to_string().as_bytes());
        Digest::of(&text)
    }

    /// Where two commits parted: nowhere where they have nothing in common, and in several places after merges in
    /// both directions.
    pub fn fork_points(&self, a: &str, b: &str) -> Result<Vec<String>> {
        let output = self.cmd().args(["merge-base", "--all", a, b]).run()?;
        match output.code {
            Some(0) => Ok(output.text().lines().map(str::to_owned).collect()),
            Some(1) => Ok(Vec::new()),
            _ => Err(refused("merge-base", &output)),
        }
    }

    /// Paths that differ between two commits; both names of one that was renamed.
    pub fn changed_paths(&self, from: &str, to: &str) -> Result<Vec<String>> {
        let args =
            ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=none"];
        let output = expect("diff-tree", self.cmd().args(args).args([from, to, "--"]).run()?)?;
        let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
        Ok(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    /// Files of a commit that are not on disk as it has them, whatever the worktree's own index says: that one
    /// can be told to look away. `index` is a path for an index of ours. `self` is the worktree.
    pub fn not_as_committed(&self, commit: &str, index: &Path) -> Result<Vec<String>> {
        let with_index = |args: &[&str]| self.cmd().env("GIT_INDEX_FILE", index).args(args);
        let looked = || {
            expect("read-tree", with_index(&["read-tree", "--end-of-options", commit]).run()?)?;
            // Every file is read: this index has no times. Its exit code tells what the next call names.
            with_index(&["update-index", "-q", "--ignore-submodules", "--really-refresh"]).run()?;
            let args = ["diff-files", "-z", "--name-only", "--no-ext-diff", "--ignore-submodules=dirty"];
            expect("diff-files", with_index(&args).run()?)
        };
        let output = looked();
        let _ = std::fs::remove_file(index);
        let output = output?;
        let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
        Ok(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }
}
