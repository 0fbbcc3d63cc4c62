//! Commits that stay, whoever was collecting garbage when they came.
//!
//! A `git prune --expire=now` that has read the references before a commit was made takes its loose objects long after a
//! reference to it stands, and a `git repack -a -d` takes the packs that had them already (git-gc(1), NOTES). It leaves
//! packs alone that came after it had begun.

use std::time::Duration;

use super::{Git, Result, expect};
use crate::sys::process;

/// What git calls those who take objects away, or start somebody who does.
const HOUSEKEEPERS: [&str; 4] = ["gc", "maintenance", "prune", "repack"];

impl Git {
    /// Puts everything that commits have beyond those `known` into a pack of its own, if somebody may be collecting
    /// garbage. References to them stand already, so who begins after this sees them. `self` is the repository.
    ///
    /// # Errors
    /// Something of them is not there any more, or the pack could not be written.
    pub fn secure(&self, commits: &[&str], known: &[&str]) -> Result<()> {
        if process::anyone_runs("git", &HOUSEKEEPERS) == Some(false) {
            return Ok(());
        }
        let wanted: Vec<&str> = commits.iter().copied().filter(|commit| !known.contains(commit)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let revisions = format!("{}\n--not\n{}\n", wanted.join("\n"), known.join("\n"));
        let pack = self.git_dir.join("objects/pack/pack");
        // What a partial clone can fetch again is not here, and need not be.
        let args = ["pack-objects", "--revs", "--exclude-promisor-objects", "--quiet", "--window=0"];
        let cmd = self.cmd().args(super::objects::SYNCED).args(args).arg(pack);
        expect("pack-objects", cmd.stdin(revisions).limit(Duration::from_mins(30)).run()?).map(drop)
    }
}
