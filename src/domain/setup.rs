//! What is done to a worktree beside its checkout: before its worker starts, and before it goes.
//!
//! It is part of the plan, so a worker that edits the project's configuration changes nothing of
//! what runs for itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::span::Span;

/// The longest command of a hook, in bytes: one argument ends at 128 KiB on Linux.
const MAX_COMMAND: usize = 64 << 10;
/// How many hooks a moment may have.
const MAX_HOOKS: usize = 20;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The worktree stands, its worker has not started.
    PostCreate,
    /// Its branch is about to be merged.
    PreMerge,
    /// The worker has ended; what becomes of the worktree is not decided yet.
    PreRemove,
}

impl Moment {
    /// Every moment.
    pub const ALL: [Self; 3] = [Self::PostCreate, Self::PreMerge, Self::PreRemove];
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::PostCreate => "post_create",
            Self::PreMerge => "pre_merge",
            Self::PreRemove => "pre_remove",
        }
    }
}

/// One of the project's own commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The command, for `sh -c`.
    pub run: String,
    /// How long until the command is stopped.
    #[serde(default = "a_minute")]
    pub timeout: Span,
}

fn a_minute() -> Span {
    Span(60_000)
}

/// The hooks of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Commands that run before the worker starts. One that fails ends the dispatch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_create: Vec<Hook>,
    /// Commands that run before a merge. One that fails blocks the merge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_merge: Vec<Hook>,
    /// Commands that run when the worker has ended. One that fails keeps the worktree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_remove: Vec<Hook>,
}

impl Hooks {
    /// Those of one moment, in order.
    pub fn at(&self, moment: Moment) -> &[Hook] {
        match moment {
            Moment::PostCreate => &self.post_create,
            Moment::PreMerge => &self.pre_merge,
            Moment::PreRemove => &self.pre_remove,
        }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        Moment::ALL.iter().all(|moment| self.at(*moment).is_empty())
    }

    /// What is wrong with them, if anything is.
    pub fn fault(&self) -> Option<String> {
        Moment::ALL.iter().find_map(|moment| {
            let (word, hooks) = (moment.word(), self.at(*moment));
            if hooks.len() > MAX_HOOKS {
                return Some(format!("worktree.hooks.{word} has more than {MAX_HOOKS} entries"));
            }
            hooks.iter().zip(1..).find_map(|(hook, nth)| {
                let wrong = |what: &str| Some(format!("worktree.hooks.{word}, entry {nth}: {what}"));
                match hook {
                    Hook { run, .. } if run.trim().is_empty() => wrong("`run` is empty"),
                    Hook { run, .. } if run.len() > MAX_COMMAND => wrong("`run` is longer than 64 KiB"),
                    Hook { run, .. } if run.contains('\0') => wrong("`run` holds a NUL byte"),
                    Hook { timeout: Span(0), .. } => wrong("`timeout` must be longer than 0s"),
                    _ => None,
                }
            })
        })
    }
}

/// Whether the large files of git LFS are fetched for the checkout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lfs {
    /// As git is configured.
    #[default]
    Git,
    /// The pointers stay in place of the files.
    Skip,
}

/// What is wrong with a folder of a sparse checkout, if anything is.
pub fn sparse_fault(folder: &str) -> Option<&'static str> {
    let text = folder.trim_end_matches('/');
    if text.is_empty() || text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("it must be a folder below the repository's root, without `..`");
    }
    if text.starts_with('-') {
        return Some("git would take it for an option");
    }
    let special = |c: char| c.is_control() || "*?[]\\!#\"".contains(c);
    text.contains(special).then_some("a folder is named as it is, without patterns")
}

/// What happens to a folder that the file system cannot clone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Uncloned {
    /// It is copied, byte by byte.
    Copy,
    /// The worktree does without it.
    #[default]
    Skip,
    /// The worktree gets a link to it.
    Link,
}

/// What is done to one worktree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    /// The main checkout, absolute.
    pub main: String,
    /// The project's own commands.
    #[serde(skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// Ignored paths of the main checkout that are copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    /// Ignored paths of the main checkout that are linked to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// What is done with folders that cannot be cloned.
    pub uncloned: Uncloned,
    /// Folders that are checked out; empty: as in the main checkout.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sparse: Vec<String>,
    /// Whether large files are fetched.
    pub lfs: Lfs,
    /// Submodules are populated from the main repository's objects.
    pub submodules: bool,
    /// Variables that name folders which all worktrees share, absolute.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_checkout_names_folders() {
        for good in ["src", "a/b", "a/b/", "ä b"] {
            assert_eq!(sparse_fault(good), None, "{good}");
        }
        for bad in ["", "/", "/a", "-x", "../a", "a/../b", "a//b", "*.rs", "!a", "a\nb", "a\"b", "a\\b"] {
            assert!(sparse_fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let hook = |run: &str, ms| Hook { run: run.to_owned(), timeout: Span(ms) };
        let hooks = |list: Vec<Hook>| Hooks { pre_remove: list, ..Hooks::default() };
        assert_eq!(hooks(vec![hook("true", 1)]).fault(), None);
        for (bad, what) in [
            (hook(" \n", 1), "is empty"),
            (hook("true", 0), "longer than 0s"),
            (hook("a\0b", 1), "NUL"),
            (hook(&"x".repeat(MAX_COMMAND + 1), 1), "64 KiB"),
        ] {
            let fault = hooks(vec![hook("true", 1), bad]).fault().unwrap();
            assert!(fault.contains("worktree.hooks.pre_remove, entry 2") && fault.contains(what), "{fault}");
        }
        assert!(Hooks::default().is_empty() && !hooks(vec![hook("true", 1)]).is_empty());
        assert_eq!(hooks(vec![hook(&"x".repeat(MAX_COMMAND), 1); MAX_HOOKS]).fault(), None, "at the limits");
        assert!(hooks(vec![hook("true", 1); MAX_HOOKS + 1]).fault().unwrap().contains("more than"));
    }
}
