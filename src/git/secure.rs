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

/// Whether somebody may be collecting garbage, in whatever repository. One that begins after this sees the references of
/// this moment.
pub fn anyone_collects() -> bool {
    process::anyone("git", may_collect) != Some(false)
}

/// Whether the words of a git's command line have a housekeeper among them, in whatever place: which option takes a word
/// after it is git's to know, and a pack too many costs less than one too few.
fn may_collect(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == 0).map(|word| std::str::from_utf8(word).unwrap_or_default());
    let own = words.next().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    own.strip_prefix("git-").into_iter().chain(words).any(|word| HOUSEKEEPERS.contains(&word))
}

impl Git {
    /// Puts everything that commits have beyond those `known` into a pack of its own, if somebody may be collecting
    /// garbage, or did (`collected`) since before they were made. References to them stand already. `self` is the repository.
    ///
    /// # Errors
    /// Something of them is not there any more, or the pack could not be written.
    pub fn secure(&self, commits: &[&str], known: &[&str], collected: bool) -> Result<()> {
        let wanted: Vec<&str> = commits.iter().copied().filter(|commit| !known.contains(commit)).collect();
        if wanted.is_empty() || !(collected || anyone_collects()) {
            return Ok(());
        }
        let revisions = format!("{}\n--not\n{}\n", wanted.join("\n"), known.join("\n"));
        let pack = self.git_dir.join("objects/pack/pack");
        // What a partial clone can fetch again is not here, and need not be.
        let args = ["pack-objects", "--revs", "--exclude-promisor-objects", "--non-empty", "--quiet", "--window=0"];
        let cmd = self.cmd().args(super::objects::SYNCED).args(args).arg(pack);
        expect("pack-objects", cmd.stdin(revisions).limit(Duration::from_mins(30)).run()?).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::may_collect;

    #[test]
    fn who_may_collect_garbage_is_known_by_a_word() {
        for (line, may) in [
            ("git gc", true),
            ("git -c a.b=c -C /x --no-pager prune --expire=now", true),
            ("git --attr-source HEAD prune", true),
            ("/usr/lib/git-core/git --git-dir /x repack -a", true),
            ("/usr/lib/git-core/git-prune --expire=now", true),
            ("git-gc", true),
            ("git worktree prune", true),
            ("git commit -m why", false),
            ("/srv/gc/git status", false),
            ("git", false),
            ("", false),
        ] {
            assert_eq!(may_collect(line.replace(' ', "\0").as_bytes()), may, "{line}");
        }
    }
}
