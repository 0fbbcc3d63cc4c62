//! What an agent and a skill are. How they are found and read is the business of `prompt`.

use serde::{Deserialize, Serialize};

use super::id::Name;
use super::span::Span;

/// What a worker may do without being asked, mapped to each CLI's own modes by its manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Read files and history; change nothing.
    Read,
    /// Edit, run commands and commit, within what the CLI's own sandbox allows.
    #[default]
    Work,
    /// Everything the CLI can do, its own checks off.
    Full,
}

impl Permissions {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Work => "work",
            Self::Full => "full",
        }
    }
}

/// What a dispatch must leave behind to be accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Deliverable {
    /// Commits on the dispatch branch.
    #[default]
    Commit,
    /// A report, and an untouched tree.
    Report,
}

/// The front matter of an `AGENT.md`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentHead {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for lists.
    pub description: String,
    /// Provider to use when the command line names none.
    #[serde(default)]
    pub provider: Option<Name>,
    /// Model to use when the command line names none.
    #[serde(default)]
    pub model: Option<String>,
    /// Skills injected into the prompt, in this order.
    #[serde(default)]
    pub skills: Vec<Name>,
    /// What the worker may do.
    #[serde(default)]
    pub permissions: Permissions,
    /// What it must deliver.
    #[serde(default)]
    pub delivers: Deliverable,
    /// Total deadline.
    #[serde(default)]
    pub deadline: Option<Span>,
    /// Idle deadline.
    #[serde(default)]
    pub idle: Option<Span>,
    /// For the `shell` provider: the script to run when no instruction is given.
    #[serde(default)]
    pub command: Option<String>,
}

/// An agent: its front matter and its instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The front matter.
    pub head: AgentHead,
    /// The instructions, as Markdown.
    pub body: String,
    /// Where it was found: `embedded` or a path in the project.
    pub origin: String,
}

/// The front matter of a `SKILL.md`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkillHead {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for lists.
    pub description: String,
}

/// A file beside a `SKILL.md`, listed in the prompt and read by the worker when it needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Path that the worker can open.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// First line, as a hint of what it holds.
    pub first_line: String,
}

/// A skill: its front matter, its method and its resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// The front matter.
    pub head: SkillHead,
    /// The method, as Markdown.
    pub body: String,
    /// Files beside it.
    pub resources: Vec<Resource>,
}
