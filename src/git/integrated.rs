//! Whether the change of a branch is in another one although its commits are not: squashed, rebased or
//! cherry-picked. Nothing is merged for that, because a merge runs what attributes and settings name.

use std::collections::BTreeSet;
use std::fs::File;

use super::{Git, Result, expect, refused, unreadable};

/// More commits of the target than this are not looked through.
const COMMITS: &str = "--max-count=2000";
/// A patch as git-patch-id(1) wants it, by nobody's settings.
const PATCH: [&str; 6] =
    ["-p", "--no-ext-diff", "--no-textconv", "--no-renames", "--full-index", "--diff-algorithm=default"];

impl Git {
    /// Whether `target` has everything that `tip` changed since they parted. A branch without a change of content
    /// is never said to be there: its commits are all it is.
    pub fn has_change_of(&self, target: &str, tip: &str) -> Result<bool> {
        let Some(fork) = self.merge_base(target, tip)? else { return Ok(false) };
        let changed = self.differing(&fork, tip)?;
        if changed.is_empty() {
            return Ok(false);
        }
        if self.differing(tip, target)?.is_disjoint(&changed) {
            return Ok(true);
        }
        // The target has gone on in these files; then one of its commits, or several, are the same change.
        let ours = ["diff-tree", "-r"].iter().chain(&PATCH).copied().chain([fork.as_str(), tip, "--"]);
        let whole = self.patch_ids(ours)?;
        let range = format!("{fork}..{target}");
        let log = ["log", "--no-merges", COMMITS, "--format=commit %H"];
        let theirs = self.patch_ids(log.iter().chain(&PATCH).copied().chain([range.as_str(), "--"]))?;
        if !whole.is_empty() && whole.is_subset(&theirs) {
            return Ok(true);
        }
        let range = format!("{fork}..{tip}");
        let single = self.patch_ids(log.iter().chain(&PATCH).copied().chain([range.as_str(), "--"]))?;
        // A merge has a change of its own that no patch shows.
        Ok(!single.is_empty() && single.is_subset(&theirs) && !self.has_merges(&range)?)
    }

    fn merge_base(&self, a: &str, b: &str) -> Result<Option<String>> {
        let output = self.cmd().args(["merge-base", a, b]).run()?;
        match output.code {
            Some(0) => Ok(output.text().lines().next().map(str::to_owned)),
            Some(1) => Ok(None),
            _ => Err(refused("merge-base", &output)),
        }
    }

    /// Paths whose content or mode differs.
    fn differing(&self, a: &str, b: &str) -> Result<BTreeSet<Vec<u8>>> {
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", a, b, "--"];
        let output = expect("diff-tree", self.cmd().args(args).run()?)?;
        Ok(output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn has_merges(&self, range: &str) -> Result<bool> {
        let output = self.cmd().args(["rev-list", "--merges", "--max-count=1", range, "--"]).run()?;
        Ok(!expect("rev-list", output)?.text().is_empty())
    }

    /// What identifies the patches that a call prints, whatever their lines' numbers are.
    fn patch_ids<'a>(&self, args: impl Iterator<Item = &'a str>) -> Result<BTreeSet<String>> {
        let broken = |_| unreadable("patch-id");
        let mut patches = tempfile::tempfile().map_err(broken)?;
        let copy: File = patches.try_clone().map_err(broken)?;
        expect("log", self.cmd().args(args).writing(copy).run()?)?;
        std::io::Seek::rewind(&mut patches).map_err(broken)?;
        let output = expect("patch-id", self.cmd().args(["patch-id", "--stable"]).reading(patches).run()?)?;
        Ok(output.text().lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }
}
