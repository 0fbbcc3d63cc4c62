//! Whether the change of a branch is in another one although its commits are not: squashed, rebased or
//! cherry-picked. Nothing is merged for that, because a merge runs what attributes and settings name.

use std::collections::BTreeSet;
use std::fs::File;

use super::{Git, Result, expect, refused, unreadable};

/// More commits of the target than this are not looked through.
const COMMITS: &str = "--max-count=2000";
/// A patch as git-patch-id(1) wants it, by nobody's settings.
const PATCH: [&str; 8] = [
    "-p",
    "--binary",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--full-index",
    "--diff-algorithm=default",
    "--ignore-submodules=none",
];

impl Git {
    /// Whether `target` has everything that `tip` changed since they parted. A branch without a change of content
    /// is never said to be there: its commits are all it is.
    pub fn has_change_of(&self, target: &str, tip: &str) -> Result<bool> {
        let Some(fork) = self.merge_base(target, tip)? else { return Ok(false) };
        let changed = self.differing(&fork, tip)?;
        if changed.is_empty() {
            return Ok(false);
        }
        // Most targets have gone on elsewhere, or not at all: there the files are as they were.
        if self.differing(&fork, target)?.is_disjoint(&changed) {
            return Ok(false);
        }
        if self.differing(tip, target)?.is_disjoint(&changed) {
            return Ok(true);
        }
        // The target has gone on in these files; then one of its commits, or several, are the same change.
        // Taken back later, it is not there any more.
        let whole = |reverse| self.patch_ids(&["diff-tree", "-r"], reverse, &[fork.as_str(), tip]);
        let log = ["log", "--no-merges", COMMITS, "--format=commit %H"];
        let single = |reverse, end: &str| self.patch_ids(&log, reverse, &[&format!("{fork}..{end}")]);
        let theirs = single(false, target)?;
        let holds = |change: &dyn Fn(bool) -> Result<BTreeSet<String>>| -> Result<bool> {
            let there = change(false)?;
            Ok(!there.is_empty() && there.is_subset(&theirs) && change(true)?.is_disjoint(&theirs))
        };
        if holds(&whole)? {
            return Ok(true);
        }
        // A merge has a change of its own that no patch shows.
        Ok(holds(&|reverse| single(reverse, tip))? && !self.has_merges(&format!("{fork}..{tip}"))?)
    }

    fn merge_base(&self, a: &str, b: &str) -> Result<Option<String>> {
        let output = self.cmd().args(["merge-base", "--all", a, b]).run()?;
        match output.code {
            // Several: what was changed since is not told by one of them.
            Some(0) if output.text().lines().count() > 1 => Ok(None),
            Some(0) => Ok(Some(output.text())),
            Some(1) => Ok(None),
            _ => Err(refused("merge-base", &output)),
        }
    }

    /// Paths whose content or mode differs.
    fn differing(&self, a: &str, b: &str) -> Result<BTreeSet<Vec<u8>>> {
        let args = [
            "diff-tree",
            "-r",
            "-z",
            "--name-only",
            "--no-renames",
            "--no-ext-diff",
            "--ignore-submodules=none",
            a,
            b,
            "--",
        ];
        let output = expect("diff-tree", self.cmd().args(args).run()?)?;
        Ok(output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn has_merges(&self, range: &str) -> Result<bool> {
        let output = self.cmd().args(["rev-list", "--merges", "--max-count=1", range, "--"]).run()?;
        Ok(!expect("rev-list", output)?.text().is_empty())
    }

    /// What identifies the patches that a call prints, or their inverses, whatever their lines' numbers are. Before
    /// git 2.39 blanks did not count, and neither did the content of binary files: then there are none.
    fn patch_ids(&self, call: &[&str], reverse: bool, of: &[&str]) -> Result<BTreeSet<String>> {
        // `-R` swaps the prefixes too, and they are part of what is identified.
        let way: &[&str] = if reverse {
            &["-R", "--src-prefix=b/", "--dst-prefix=a/"]
        } else {
            &["--src-prefix=a/", "--dst-prefix=b/"]
        };
        let args = call.iter().chain(&PATCH).chain(way).chain(of).chain(&["--"]);
        let broken = |_| unreadable("patch-id");
        let mut patches = tempfile::tempfile().map_err(broken)?;
        let copy: File = patches.try_clone().map_err(broken)?;
        expect("log", self.cmd().args(args).writing(copy).run()?)?;
        std::io::Seek::rewind(&mut patches).map_err(broken)?;
        let output = self.cmd().args(["patch-id", "--verbatim"]).reading(patches).run()?;
        if !output.ok() {
            return Ok(BTreeSet::new());
        }
        Ok(output.text().lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }
}
