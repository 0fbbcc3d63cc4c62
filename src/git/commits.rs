//! Which commits there are that others do not have, and whether all of them is there.

use std::time::Duration;

use super::{Git, Result, expect};

/// How long git may take to look at every object of a change.
const EVERY_OBJECT: Duration = Duration::from_mins(30);

impl Git {
    /// The commits of `tip` that `base` does not reach. An error if anything of them is not there, and a partial clone
    /// cannot fetch it again.
    pub fn commits_since(&self, base: &str, tip: &str) -> Result<Vec<String>> {
        let listed = expect("rev-list", self.cmd().args(["rev-list", tip, "--not", base, "--"]).run()?)?;
        let commits: Vec<String> = listed.text().lines().map(str::to_owned).collect();
        if !commits.is_empty() {
            let args = ["rev-list", "--objects", "--quiet", "--missing=allow-promisor", tip, "--not", base, "--"];
            expect("rev-list", self.cmd().args(args).limit(EVERY_OBJECT).run()?)?;
        }
        Ok(commits)
    }

    /// Commits among `tips` (and their ancestors) that no branch, tag or remote ref reaches. A rescue does not count:
    /// the next one of the same worktree takes its place, and another one may be dropped.
    pub fn unreachable_from_refs(&self, tips: &[String]) -> Result<Vec<String>> {
        let mut input = String::new();
        for tip in tips {
            input.push_str(tip);
            input.push('\n');
        }
        let options = ["--not", "--branches", "--tags", "--remotes"];
        let output = expect("rev-list", self.cmd().args(["rev-list", "--stdin"]).args(options).stdin(input).run()?)?;
        Ok(output.text().lines().map(str::to_owned).collect())
    }
}

/// Whether git complains of an object that ought to be there.
pub(super) fn is_loss(complaint: &str) -> bool {
    [
        "missing blob",
        "missing object",
        "missing tree object",
        "missing commit object",
        "bad object",
        "bad tree object",
        "unable to read tree",
        "Not a valid commit name",
        "Blob not found",
    ]
    .iter()
    .any(|words| complaint.contains(words))
}
