//! What the repository's refs name at one moment, and what a worktree itself has committed by its reflogs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Commit, Git, Result, expect, names_in, unreadable};
use crate::sys::files;

/// More of a reflog than this is not read.
const REFLOG_MAX: u64 = 256 << 20;

/// More of `packed-refs` than this is not read.
const PACKED_MAX: u64 = 1 << 30;

/// The list of stashes; one ref for all worktrees.
pub const STASH: &str = "refs/stash";

/// Everything that names a commit for somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refs {
    /// Full name → object. The HEAD of a worktree that is on no branch stands here too, as `HEAD` or
    /// `worktrees/<name>/HEAD`.
    pub named: BTreeMap<String, String>,
    /// Stashes below the newest one, which is `refs/stash`.
    pub stashes: BTreeSet<String>,
    /// The linked worktrees, by their folders in the repository.
    pub worktrees: BTreeSet<String>,
}

/// One line of a reflog (git-reflog(1)): `<old> <new> <identity> <seconds> <zone>\t<message>`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moved {
    new: String,
    /// Who did it, as `name <address>`, and when, in seconds since 1970.
    by: String,
    at: i64,
    message: String,
}

/// How far the clock of a commit and of its line in a reflog may be apart, in seconds.
const SAME_MOMENT: i64 = 5;

impl Git {
    /// Reads all refs. `self` is the repository; `hash` is the length of an object name in bytes.
    pub fn refs(&self, hash: usize) -> Result<Refs> {
        let mut named =
            if self.git_dir.join("reftable").exists() { self.told_refs()? } else { self.stored_refs(hash)? };
        let linked = self.git_dir.join("worktrees");
        let worktrees: BTreeSet<String> =
            files::names(&linked).map_err(|_| unreadable("worktree"))?.into_iter().collect();
        let heads = worktrees.iter().map(|name| (format!("worktrees/{name}/HEAD"), linked.join(name).join("HEAD")));
        for (name, path) in heads.chain([("HEAD".to_owned(), self.git_dir.join("HEAD"))]) {
            // One that is on a branch names no commit of its own; one that goes at this moment is nobody's.
            let text = files::read_capped(&path, 4096).ok().flatten().unwrap_or_default();
            if let Some(oid) = names_in(&text, hash).pop().filter(|oid| text.trim_ascii() == oid.as_bytes()) {
                named.insert(name, oid);
            }
        }
        let newest = named.get(STASH).cloned();
        let stashes = self.reflog(STASH)?.into_iter().map(|moved| moved.new);
        let stashes = stashes.filter(|oid| newest.is_some() && Some(oid) != newest.as_ref()).collect();
        Ok(Refs { named, stashes, worktrees })
    }

    /// All refs as git lists them.
    fn told_refs(&self) -> Result<BTreeMap<String, String>> {
        let format = "--format=%(objectname) %(refname)";
        let listed = expect("for-each-ref", self.cmd().args(["for-each-ref", format]).run()?)?.text();
        let split = |line: &str| line.split_once(' ').map(|(oid, name)| (name.to_owned(), oid.to_owned()));
        listed.lines().map(|line| split(line).ok_or_else(|| unreadable("for-each-ref"))).collect()
    }

    /// All refs from the files that git keeps them in (gitrepository-layout(5)): one file each, which counts, or a
    /// line in `packed-refs`. In this order, as one that is packed meanwhile goes from the first to the second.
    fn stored_refs(&self, hash: usize) -> Result<BTreeMap<String, String>> {
        let (mut named, mut links) = (BTreeMap::new(), Vec::new());
        let mut folders = vec!["refs".to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(self.git_dir.join(&folder)) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(|_| unreadable("for-each-ref"))?,
            };
            for entry in entries {
                let entry = entry.map_err(|_| unreadable("for-each-ref"))?;
                let Ok(last) = entry.file_name().into_string() else { return self.told_refs() };
                let name = format!("{folder}/{last}");
                let Ok(kind) = entry.file_type() else { return self.told_refs() };
                // No ref has such a name: another git is about to write one, or it is no file of git's.
                if last.starts_with('.') || Path::new(&last).extension().is_some_and(|end| end == "lock") {
                    continue;
                }
                if kind.is_dir() {
                    folders.push(name);
                    continue;
                }
                if !kind.is_file() && !kind.is_symlink() {
                    // git would wait for a pipe.
                    return Err(unreadable("for-each-ref"));
                }
                // What is not in the form in which git writes it, git may read all the same.
                let text = if kind.is_file() { files::read_capped(&entry.path(), 4096).ok() } else { None };
                let Some(text) = text else { return self.told_refs() };
                let text = text.unwrap_or_default();
                let oid = names_in(&text, hash).pop().filter(|oid| text.trim_ascii_end() == oid.as_bytes());
                match (oid, text.strip_prefix(b"ref: ")) {
                    (Some(oid), _) => _ = named.insert(name, oid),
                    (None, Some(to)) => links.push((name, String::from_utf8_lossy(to.trim_ascii()).into_owned())),
                    (None, None) if text.is_empty() => {}
                    (None, None) => return self.told_refs(),
                }
            }
        }
        let packed = files::read_capped(&self.git_dir.join("packed-refs"), PACKED_MAX);
        let packed = packed.map_err(|_| unreadable("for-each-ref"))?.unwrap_or_default();
        // A line that begins with `^` says what the tag of the line before leads to.
        for line in String::from_utf8_lossy(&packed).lines().filter(|line| !line.starts_with(['#', '^'])) {
            let (oid, name) = line.split_once(' ').ok_or_else(|| unreadable("for-each-ref"))?;
            if !links.iter().any(|(link, _)| link == name) {
                named.entry(name.to_owned()).or_insert_with(|| oid.to_owned());
            }
        }
        // Such as `refs/remotes/origin/HEAD`. One that leads to no ref of these leads elsewhere, or to another one.
        let led: Option<Vec<_>> = links.into_iter().map(|(name, to)| Some((name, named.get(&to)?.clone()))).collect();
        let Some(led) = led else { return self.told_refs() };
        named.extend(led);
        Ok(named)
    }

    /// Those of these commits that were made in this worktree, or in one that was made below it since, as their reflogs
    /// have them; and what the branches have that were made since, where nobody else's HEAD was on it. Whoever made the
    /// commit must be who the reflog says, and then: a reflog's words can be chosen (`GIT_REFLOG_ACTION`). `self` is the
    /// worktree.
    pub fn committed_here(
        &self,
        common_dir: &Path,
        before: &Refs,
        now: &Refs,
        asked: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>> {
        let tree = self.work_tree.as_deref().ok_or_else(|| unreadable("reflog"))?;
        let linked = common_dir.join("worktrees");
        let is_below = |name: &String| {
            let recorded = files::read_text(&linked.join(name).join("gitdir")).unwrap_or_default();
            !before.worktrees.contains(name) && Path::new(recorded.trim_end()).starts_with(tree)
        };
        let own = self.git_dir.file_name().unwrap_or_default();
        let (ours, others): (Vec<&String>, Vec<&String>) =
            now.worktrees.iter().partition(|name| name.as_str() == own || is_below(name));
        let mut made = Vec::new();
        for name in ours {
            made.extend(Self::repository(linked.join(name)).reflog("HEAD")?);
        }
        let repository = Self::repository(common_dir);
        let mut of_others: BTreeSet<String> = repository.reflog("HEAD")?.into_iter().map(|moved| moved.new).collect();
        for name in others {
            of_others.extend(Self::repository(linked.join(name)).reflog("HEAD")?.into_iter().map(|moved| moved.new));
        }
        let is_new = |name: &&String| name.starts_with("refs/heads/") && !before.named.contains_key(*name);
        for name in now.named.keys().filter(is_new) {
            made.extend(repository.reflog(name)?.into_iter().filter(|moved| !of_others.contains(&moved.new)));
        }
        made.retain(|moved| asked.contains(&moved.new) && makes_a_commit(&moved.message));
        let commits: BTreeSet<String> = made.iter().map(|moved| moved.new.clone()).collect();
        if commits.is_empty() {
            return Ok(commits);
        }
        let commits = repository.raw_commits(&commits.into_iter().collect::<Vec<_>>())?;
        let is_made = |commit: &Commit| made.iter().any(|moved| moved.new == commit.id && moved.is_of(commit));
        Ok(commits.into_iter().filter(is_made).map(|commit| commit.id).collect())
    }

    /// Where HEAD of this worktree was moved to without a commit being made. `self` is the worktree.
    pub fn moved_to(&self) -> Result<BTreeSet<String>> {
        let moves = self.reflog("HEAD")?.into_iter().filter(|moved| moves_only(&moved.message));
        Ok(moves.map(|moved| moved.new).collect())
    }

    /// What the last fetch of this worktree brought (git-fetch(1), `FETCH_HEAD`). `self` is the worktree.
    pub fn fetched(&self, hash: usize) -> Result<Vec<String>> {
        let text = files::read_capped(&self.git_dir.join("FETCH_HEAD"), 16 << 20).map_err(|_| unreadable("fetch"))?;
        let text = text.unwrap_or_default();
        Ok(text.split(|b| *b == b'\n').filter_map(|line| names_in(line.get(..2 * hash)?, hash).pop()).collect())
    }

    /// The reflog of a ref, oldest first; empty where there is none.
    fn reflog(&self, name: &str) -> Result<Vec<Moved>> {
        let path: PathBuf = self.git_dir.join("logs").join(name);
        let bytes = match files::read_capped(&path, REFLOG_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(e) if e.source.kind() == ErrorKind::NotADirectory => Vec::new(),
            Err(_) => return Err(unreadable("reflog")),
        };
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(Moved::parse).collect())
    }
}

impl Moved {
    fn parse(line: &str) -> Option<Self> {
        let (head, message) = line.split_once('\t').unwrap_or((line, ""));
        let mut words = head.splitn(3, ' ');
        let new = words.nth(1).filter(|oid| matches!(oid.len(), 40 | 64))?;
        let (by, at) = identity(words.next()?)?;
        Some(Self { new: new.to_owned(), by: by.to_owned(), at, message: message.to_owned() })
    }

    /// Whether the commit was made by who moved the ref, when it was moved.
    fn is_of(&self, commit: &Commit) -> bool {
        let signed = String::from_utf8_lossy(&commit.signed);
        let committer = signed.lines().take_while(|line| !line.is_empty()).find_map(|l| l.strip_prefix("committer "));
        committer.and_then(identity).is_some_and(|(by, at)| by == self.by && (at - self.at).abs() <= SAME_MOMENT)
    }
}

/// Reads `name <address> <seconds> <zone>`.
fn identity(text: &str) -> Option<(&str, i64)> {
    let (rest, _zone) = text.rsplit_once(' ')?;
    let (by, seconds) = rest.rsplit_once(' ')?;
    Some((by, seconds.parse().ok()?))
}

/// Whether git writes this into a reflog when it has made a commit: `commit…:`, `am:`, `cherry-pick:`, `revert:`, a step
/// of a rebase in parentheses, or a merge that is no fast-forward. (sequencer.c, builtin/{commit,am,merge}.c)
fn makes_a_commit(message: &str) -> bool {
    const STEPS: [&str; 7] = ["(pick)", "(reword)", "(edit)", "(squash)", "(fixup)", "(merge)", "(continue)"];
    let Some((action, rest)) = message.split_once(": ") else { return false };
    let verb = action.split(' ').next().unwrap_or_default();
    let is_merge = rest.starts_with("Merge made by") || rest.starts_with("In-index merge");
    matches!(verb, "commit" | "am" | "cherry-pick" | "revert") && !rest.starts_with("Fast-forward")
        || is_merge
        || STEPS.iter().any(|step| action.ends_with(step))
}

/// Whether git writes this into a reflog when it has moved a ref to a commit that was there. What other programs write is
/// neither this nor a commit that was made. (git has no other record of it; a fast-forward ends so whatever the action.)
fn moves_only(message: &str) -> bool {
    let verb = message.split([' ', ':']).next().unwrap_or_default();
    matches!(verb, "reset" | "checkout" | "pull" | "merge" | "rebase" | "fetch") && !makes_a_commit(message)
        || message.ends_with(": Fast-forward")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reflog_tells_commits_from_moves() {
        for made in [
            "commit: x",
            "commit (amend): x: y",
            "commit (initial): first",
            "commit (merge): Merge branch 'a'",
            "cherry-pick: x",
            "revert: Revert \"x\"",
            "am: x",
            "rebase (pick): x",
            "pull -q --rebase origin main (pick): x",
            "rebase -i (squash): x",
            "merge origin/main: Merge made by the 'ort' strategy.",
            "pull: Merge made by the 'recursive' strategy.",
        ] {
            assert!(makes_a_commit(made), "{made}");
        }
        for moved in [
            "",
            "reset: moving to origin/main",
            "checkout: moving from a to b",
            "pull: Fast-forward",
            "merge main: Fast-forward",
            "commit: Fast-forward",
            "pull -q --rebase origin main (start): checkout 1234",
            "pull -q --rebase origin main (finish): returning to refs/heads/x",
            "rebase (abort): updating HEAD",
            "branch: Created from HEAD",
            "fetch origin: fast-forward",
            "update by push",
        ] {
            assert!(!makes_a_commit(moved), "{moved}");
        }
    }
}
