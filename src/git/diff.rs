//! The change between two commits.

use std::collections::BTreeMap;

use super::{Git, Result, expect, unreadable};
use crate::domain::receipt::DiffStat;

/// How many paths a receipt names.
const PATHS: usize = 100;

/// Nothing in the repository decides what is left out, and no program of its own what is shown.
const PLAIN: [&str; 3] = ["--no-ext-diff", "--no-textconv", "--ignore-submodules=none"];

/// A path that a change changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// Lines added and removed; a binary file has none.
    added: u64,
    removed: u64,
    /// The commit of another repository that it points to afterwards.
    pub gitlink: Option<String>,
}

/// What a receipt says of a change.
pub fn stat(changes: &[Change]) -> DiffStat {
    DiffStat {
        files: changes.len() as u64,
        added: changes.iter().map(|change| change.added).sum(),
        removed: changes.iter().map(|change| change.removed).sum(),
        paths: changes.iter().take(PATHS).map(|change| change.path.clone()).collect(),
    }
}

impl Git {
    /// Files and lines changed from `base` to `head`.
    pub fn changes(&self, base: &str, head: &str) -> Result<Vec<Change>> {
        let args = ["diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--numstat", "--no-renames"];
        let output = expect("diff-tree", self.cmd().args(args).args(PLAIN).args([base, head, "--"]).run()?)?;
        let (mut gitlinks, mut changes) = (BTreeMap::new(), Vec::new());
        let mut entries = output.stdout.split(|b| *b == 0).filter(|e| !e.is_empty());
        while let Some(entry) = entries.next() {
            let text = String::from_utf8_lossy(entry);
            if let Some(modes) = text.strip_prefix(':') {
                // `:<mode> <mode> <object> <object> <letter>`, then the path.
                let path = entries.next().ok_or_else(|| unreadable("diff-tree"))?;
                let words: Vec<&str> = modes.split(' ').collect();
                let (Some(mode), Some(oid)) = (words.get(1), words.get(3)) else { return Err(unreadable("diff-tree")) };
                if *mode == "160000" {
                    gitlinks.insert(String::from_utf8_lossy(path).into_owned(), (*oid).to_owned());
                }
                continue;
            }
            let mut fields = text.splitn(3, '\t');
            let (Some(added), Some(removed), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(unreadable("diff-tree"));
            };
            // Binary files have "-" for both.
            let count = |field: &str| field.parse::<u64>().unwrap_or(0);
            let gitlink = gitlinks.remove(path);
            changes.push(Change { path: path.to_owned(), added: count(added), removed: count(removed), gitlink });
        }
        Ok(changes)
    }

    /// The change as a patch that `git apply` takes.
    pub fn patch(&self, base: &str, head: &str) -> Result<Vec<u8>> {
        let args = ["diff-tree", "-r", "-p", "--binary", "--full-index"];
        Ok(expect("diff-tree", self.cmd().args(args).args(PLAIN).args([base, head, "--"]).run()?)?.stdout)
    }

    /// The change as it is read: every byte of it, whatever attributes call binary.
    pub fn shown(&self, base: &str, head: &str) -> Result<Vec<u8>> {
        let args = ["diff-tree", "-r", "-p", "--text", "--full-index", "--no-renames"];
        Ok(expect("diff-tree", self.cmd().args(args).args(PLAIN).args([base, head, "--"]).run()?)?.stdout)
    }

    /// Changed paths from `base` to `head` that none of `globs` covers.
    pub fn changed_outside(&self, base: &str, head: &str, globs: &[String]) -> Result<Vec<String>> {
        let mut args = vec!["diff".to_owned(), "--name-only".into(), "-z".into(), "--no-renames".into()];
        args.extend(PLAIN.map(str::to_owned));
        args.extend([base.to_owned(), head.to_owned(), "--".into(), ":(top)".into()]);
        args.extend(globs.iter().map(|g| format!(":(top,exclude,glob){g}")));
        let output = expect("diff", self.cmd().args(args).run()?)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect())
    }
}
