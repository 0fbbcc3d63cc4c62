//! Worktrees: facts with three values, the class that follows, the action that the class allows.
//!
//! The one rule that everything here serves: **unknown never authorises deletion**.

use serde::{Deserialize, Serialize};

/// Yes, no, or we could not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Tri {
    /// Proven true.
    Yes,
    /// Proven false.
    No,
    /// Not proven either way. Never read as `No`.
    Unknown,
}

impl Tri {
    /// The word used in receipts and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

impl From<bool> for Tri {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// What is true of a worktree, read after its process tree is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TreeFacts {
    /// Tracked files differ from HEAD, in the index or on disk.
    pub tracked_changes: Tri,
    /// Files that git does not track and does not ignore.
    pub untracked: Tri,
    /// Ignored files that are not declared reproducible.
    pub ignored_kept: Tri,
    /// Commits made since the base that HEAD or the dispatch branch reaches.
    pub own_commits: Tri,
    /// Commits that only this worktree's HEAD or reflog reaches.
    pub stray_commits: Tri,
    /// A rebase, merge, cherry-pick, revert, bisect or am is under way.
    pub in_progress: Tri,
    /// HEAD is attached to the dispatch's own branch.
    pub on_own_branch: Tri,
    /// HEAD is attached to the branch of another dispatch.
    pub on_foreign_branch: Tri,
    /// All own commits are in the target (same commit, ancestor, equal tree, patch id).
    pub integrated: Tri,
    /// All own commits are on a remote ref that was just read.
    pub on_remote: Tri,
    /// Somebody else locked or claimed the tree.
    pub foreign_lock: Tri,
    /// A process that is not ours has its working directory inside.
    pub occupied: Tri,
}

impl TreeFacts {
    /// Nothing could be read.
    pub const UNKNOWN: Self = Self {
        tracked_changes: Tri::Unknown,
        untracked: Tri::Unknown,
        ignored_kept: Tri::Unknown,
        own_commits: Tri::Unknown,
        stray_commits: Tri::Unknown,
        in_progress: Tri::Unknown,
        on_own_branch: Tri::Unknown,
        on_foreign_branch: Tri::Unknown,
        integrated: Tri::Unknown,
        on_remote: Tri::Unknown,
        foreign_lock: Tri::Unknown,
        occupied: Tri::Unknown,
    };

    /// Every fact with its name, in a fixed order, for `show` and for receipts.
    pub fn named(&self) -> [(&'static str, Tri); 12] {
        [
            ("tracked_changes", self.tracked_changes),
            ("untracked", self.untracked),
            ("ignored_kept", self.ignored_kept),
            ("own_commits", self.own_commits),
            ("stray_commits", self.stray_commits),
            ("in_progress", self.in_progress),
            ("on_own_branch", self.on_own_branch),
            ("on_foreign_branch", self.on_foreign_branch),
            ("integrated", self.integrated),
            ("on_remote", self.on_remote),
            ("foreign_lock", self.foreign_lock),
            ("occupied", self.occupied),
        ]
    }

    /// Anything uncommitted: yes as soon as one is, no only when all are proven no.
    pub fn uncommitted(&self) -> Tri {
        any([self.tracked_changes, self.untracked, self.ignored_kept])
    }
}

fn any<const N: usize>(facts: [Tri; N]) -> Tri {
    if facts.contains(&Tri::Yes) {
        Tri::Yes
    } else if facts.contains(&Tri::Unknown) {
        Tri::Unknown
    } else {
        Tri::No
    }
}

/// What kind of worktree it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TreeClass {
    /// Every fact no, HEAD at the base.
    Clean,
    /// All work is in the target.
    Merged,
    /// All work is on a remote ref that we just read.
    Pushed,
    /// Work is on local refs only.
    Committed,
    /// Something is uncommitted.
    Dirty,
    /// A git operation is half done.
    InProgress,
    /// Somebody else's lock, branch or process.
    Foreign,
    /// A fact that matters is unknown.
    Unknown,
}

impl TreeClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Clean,
        Self::Merged,
        Self::Pushed,
        Self::Committed,
        Self::Dirty,
        Self::InProgress,
        Self::Foreign,
        Self::Unknown,
    ];

    /// The word used in receipts and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Merged => "merged",
            Self::Pushed => "pushed",
            Self::Committed => "committed",
            Self::Dirty => "dirty",
            Self::InProgress => "in_progress",
            Self::Foreign => "foreign",
            Self::Unknown => "unknown",
        }
    }

    /// What teardown may do with a tree of this class.
    pub fn action(self) -> TreeAction {
        let (tree, branch, rescue) = match self {
            Self::Clean | Self::Merged | Self::Pushed => (TreeFate::Remove, BranchFate::Delete, false),
            Self::Committed => (TreeFate::Remove, BranchFate::Keep, false),
            Self::Dirty | Self::InProgress | Self::Unknown => (TreeFate::KeepLocked, BranchFate::Keep, true),
            Self::Foreign => (TreeFate::LeaveAlone, BranchFate::Keep, false),
        };
        TreeAction { tree, branch, rescue }
    }
}

/// What happens to the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TreeFate {
    /// Renamed into the trash, then deleted.
    Remove,
    /// Stays, with a git worktree lock that names the reason.
    KeepLocked,
    /// Not touched at all.
    LeaveAlone,
}

/// What happens to `vnx/<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BranchFate {
    /// Deleted, with its expected old value.
    Delete,
    /// Stays.
    Keep,
}

/// The default action of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TreeAction {
    /// The folder.
    pub tree: TreeFate,
    /// The dispatch branch.
    pub branch: BranchFate,
    /// A rescue commit is written first.
    pub rescue: bool,
}

/// The class of a worktree. Pure and total; the order of the tests is the rule:
/// what belongs to others first, then what could be lost, then what is proven safe.
pub fn classify(facts: &TreeFacts) -> TreeClass {
    let foreign = any([facts.foreign_lock, facts.on_foreign_branch, facts.occupied]);
    let uncommitted = facts.uncommitted();
    if foreign == Tri::Yes {
        return TreeClass::Foreign;
    }
    if facts.in_progress == Tri::Yes {
        return TreeClass::InProgress;
    }
    if uncommitted == Tri::Yes {
        return TreeClass::Dirty;
    }
    let must_know =
        [foreign, facts.in_progress, uncommitted, facts.own_commits, facts.stray_commits, facts.on_own_branch];
    if any(must_know) == Tri::Unknown || must_know.contains(&Tri::Unknown) {
        return TreeClass::Unknown;
    }
    // From here on nothing is uncommitted and everything that matters is known.
    if facts.own_commits == Tri::No && facts.stray_commits == Tri::No {
        return TreeClass::Clean;
    }
    // Stray commits are on no ref that stays: they are never covered by `merged` or `pushed`.
    if facts.stray_commits == Tri::No && facts.integrated == Tri::Yes {
        return TreeClass::Merged;
    }
    if facts.stray_commits == Tri::No && facts.on_remote == Tri::Yes {
        return TreeClass::Pushed;
    }
    TreeClass::Committed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLEAN: TreeFacts = TreeFacts {
        tracked_changes: Tri::No,
        untracked: Tri::No,
        ignored_kept: Tri::No,
        own_commits: Tri::No,
        stray_commits: Tri::No,
        in_progress: Tri::No,
        on_own_branch: Tri::Yes,
        on_foreign_branch: Tri::No,
        integrated: Tri::No,
        on_remote: Tri::No,
        foreign_lock: Tri::No,
        occupied: Tri::No,
    };

    #[test]
    fn the_plain_states() {
        let table = [
            (CLEAN, TreeClass::Clean),
            (TreeFacts { own_commits: Tri::Yes, ..CLEAN }, TreeClass::Committed),
            (TreeFacts { own_commits: Tri::Yes, on_remote: Tri::Yes, ..CLEAN }, TreeClass::Pushed),
            (TreeFacts { own_commits: Tri::Yes, on_remote: Tri::Unknown, ..CLEAN }, TreeClass::Committed),
            (TreeFacts { own_commits: Tri::Yes, integrated: Tri::Yes, ..CLEAN }, TreeClass::Merged),
            (
                TreeFacts { own_commits: Tri::Yes, integrated: Tri::Yes, stray_commits: Tri::Yes, ..CLEAN },
                TreeClass::Committed,
            ),
            (TreeFacts { untracked: Tri::Yes, own_commits: Tri::Unknown, ..CLEAN }, TreeClass::Dirty),
            (TreeFacts { tracked_changes: Tri::Yes, in_progress: Tri::Yes, ..CLEAN }, TreeClass::InProgress),
            (TreeFacts { untracked: Tri::Yes, foreign_lock: Tri::Yes, ..CLEAN }, TreeClass::Foreign),
            (TreeFacts { own_commits: Tri::Unknown, ..CLEAN }, TreeClass::Unknown),
            (TreeFacts { occupied: Tri::Unknown, ..CLEAN }, TreeClass::Unknown),
            (TreeFacts::UNKNOWN, TreeClass::Unknown),
        ];
        for (facts, class) in table {
            assert_eq!(classify(&facts), class, "{facts:?}");
        }
    }

    fn tri() -> impl Strategy<Value = Tri> {
        prop_oneof![Just(Tri::Yes), Just(Tri::No), Just(Tri::Unknown)]
    }

    proptest! {
        /// Whatever the facts: a tree is removed only when nothing uncommitted is possible, and a
        /// branch is deleted only when every commit is proven to be elsewhere.
        #[test]
        fn unknown_never_authorises_deletion(f in proptest::array::uniform12(tri())) {
            let facts = TreeFacts {
                tracked_changes: f[0], untracked: f[1], ignored_kept: f[2], own_commits: f[3],
                stray_commits: f[4], in_progress: f[5], on_own_branch: f[6], on_foreign_branch: f[7],
                integrated: f[8], on_remote: f[9], foreign_lock: f[10], occupied: f[11],
            };
            let action = classify(&facts).action();
            if action.tree == TreeFate::Remove {
                for fact in [facts.tracked_changes, facts.untracked, facts.ignored_kept,
                             facts.in_progress, facts.foreign_lock, facts.occupied, facts.on_foreign_branch] {
                    prop_assert_eq!(fact, Tri::No);
                }
                prop_assert_ne!(facts.own_commits, Tri::Unknown);
                prop_assert_ne!(facts.stray_commits, Tri::Unknown);
            }
            if action.branch == BranchFate::Delete {
                prop_assert_eq!(facts.stray_commits, Tri::No);
                let elsewhere = facts.integrated == Tri::Yes || facts.on_remote == Tri::Yes;
                prop_assert!(facts.own_commits == Tri::No || elsewhere);
            }
        }
    }
}
