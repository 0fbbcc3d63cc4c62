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
    process::anyone("git", |line| command(line).is_some_and(|word| HOUSEKEEPERS.contains(&word))) != Some(false)
}

/// The command of a git: the first word that is no option, or what follows `git-` in its own name.
fn command(line: &[u8]) -> Option<&str> {
    let mut words = line.split(|b| *b == 0).map(|word| std::str::from_utf8(word).unwrap_or_default());
    let name = words.next()?.rsplit('/').next()?;
    if let Some(command) = name.strip_prefix("git-") {
        return Some(command);
    }
    loop {
        match words.next()? {
            "-c" | "-C" | "--git-dir" | "--work-tree" | "--namespace" | "--config-env" | "--super-prefix" => {
                words.next()?;
            }
            option if option.starts_with('-') => {}
            command => return Some(command),
        }
    }
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
    use super::command;

    #[test]
    fn the_command_of_a_git_is_its_first_word() {
        for (line, word) in [
            ("git gc", Some("gc")),
            ("git -c a.b=c -C /x --no-pager prune --expire=now", Some("prune")),
            ("/usr/lib/git-core/git --git-dir /x repack -a", Some("repack")),
            ("/usr/lib/git-core/git-prune --expire=now", Some("prune")),
            ("git-gc", Some("gc")),
            ("git commit -m gc", Some("commit")),
            ("git worktree prune", Some("worktree")),
            ("git", None),
            ("", None),
        ] {
            assert_eq!(command(line.replace(' ', "\0").as_bytes()), word, "{line}");
        }
    }
}
