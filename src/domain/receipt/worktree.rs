//! What is done to a worktree on somebody's behalf: commands of the project, and undoing.

use serde::{Deserialize, Serialize};

use crate::domain::verdict::{Containment, End};

/// Payload of `worktree.hook`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorktreeHook {
    /// Which one: its moment and its place in the plan's list, as in `post_create-1`.
    pub hook: String,
    /// How it ended.
    pub end: End,
    /// The proof that nothing is left of it.
    pub containment: Containment,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
    /// The last line that it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// Payload of `worktree.undone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorktreeUndone {
    /// The commit that it was made from: its rescue, or where HEAD was.
    pub commit: String,
    /// It was made from a rescue.
    pub rescue: bool,
}
