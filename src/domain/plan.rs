//! The plan: everything that one dispatch will do, decided before anything happens.
//!
//! It is stored as `plan.json`; its digest is over the exact bytes of that file and stands in
//! the ledger. The supervisor and the recovery read nothing else, so what was planned is what runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::agent::{Deliverable, Permissions};
use super::digest::Digest;
use super::id::{DispatchId, Name};
use super::outcome::Outcome;
use super::span::{Size, Span};
use super::time::Timestamp;

/// How the worker is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Pipes and an event stream.
    #[default]
    Headless,
    /// The CLI's own TUI on a pty.
    Interactive,
    /// Agent Client Protocol over stdio.
    Acp,
}

impl Lane {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Headless => "headless",
            Self::Interactive => "interactive",
            Self::Acp => "acp",
        }
    }
}

/// How the first prompt reaches the worker. Never by typing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// On standard input, which is then closed.
    Stdin,
    /// As the last argument; at most 120,000 bytes.
    Argument,
    /// As a file whose path replaces `{prompt_file}` in the arguments.
    File,
}

/// Which parser reads the worker's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParserKind {
    /// Plain lines: the text is the report and there is no closing event.
    Text,
    /// Claude Code's `--output-format stream-json`.
    ClaudeStreamJson,
    /// Codex's `exec --json`.
    CodexJson,
}

impl ParserKind {
    /// The stream ends with an event that claims success or failure.
    pub fn has_closing_event(self) -> bool {
        match self {
            Self::Text => false,
            Self::ClaudeStreamJson | Self::CodexJson => true,
        }
    }
}

/// The commit that the dispatch starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Base"))]
#[serde(deny_unknown_fields)]
pub struct Base<S = String> {
    /// How it was named: a branch, a tag, `HEAD`.
    pub name: S,
    /// The commit it stood for when the plan was made.
    pub commit: S,
}

/// One row of a failure table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRule {
    /// What it amounts to.
    pub outcome: Outcome,
    /// Field → regular expression, anchored at the start.
    pub when: BTreeMap<String, String>,
}

/// The process to start. Names of variables only; values never reach a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Absolute path of the executable.
    pub program: String,
    /// Arguments; `{prompt_file}` and the like are already filled in.
    pub args: Vec<String>,
    /// How the prompt is handed over.
    pub prompt_by: PromptBy,
    /// Who reads the output.
    pub parser: ParserKind,
    /// Names of variables that pass from the caller's environment; `PREFIX_*` passes a family.
    pub env_pass: Vec<String>,
    /// Variables that vnx sets.
    pub env_set: BTreeMap<String, String>,
    /// A file of `NAME=value` lines that is read when the worker starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// How long the process may stay after its closing event.
    pub linger: Span,
    /// How its failures are told apart.
    pub failures: Vec<FailureRule>,
    /// Variables whose values are secrets although their names do not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
}

/// The limits of one dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Total deadline of the worker.
    pub deadline: Span,
    /// Longest time without progress.
    pub idle: Span,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Span,
    /// How much of the worker's output is recorded.
    pub record: Size,
}

/// What teardown may treat as worthless and how much it rescues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeardownPolicy {
    /// Names of ignored files and folders that a build makes again.
    pub reproducible: Vec<String>,
    /// Ignored files up to this many bytes together go into a rescue commit.
    pub rescue_ignored_max: Size,
}

/// A constraint that was set aside on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The constraint's id.
    pub id: Name,
    /// Why, in the words of whoever dispatched.
    pub reason: String,
}

/// Everything that one dispatch will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format version, 1.
    pub v: u32,
    /// The dispatch.
    pub id: DispatchId,
    /// The moment of the snapshot.
    pub made: Timestamp,
    /// The project.
    pub project: Name,
    /// The role.
    pub agent: Name,
    /// The CLI.
    pub provider: Name,
    /// The model, if one was chosen; the CLI's default otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How it is connected.
    pub lane: Lane,
    /// What it may do.
    pub permissions: Permissions,
    /// What it must deliver.
    pub delivers: Deliverable,
    /// Where it starts.
    pub base: Base,
    /// Its branch, without `refs/heads/`.
    pub branch: String,
    /// Its folder, absolute.
    pub worktree: String,
    /// The repository's common git folder, absolute.
    pub git_common_dir: String,
    /// Path globs that the change must stay within; empty means everywhere.
    pub paths: Vec<String>,
    /// The process.
    pub launch: Launch,
    /// SHA-256 of `prompt.md`.
    pub prompt: Digest,
    /// Bytes of the prompt that are not the assignment.
    pub prompt_overhead: u64,
    /// The limits.
    pub limits: Limits,
    /// The teardown policy.
    pub teardown: TeardownPolicy,
    /// Digest of the git configuration that could run code; collect refuses a changed one.
    pub git_risk: Digest,
    /// Constraints set aside.
    pub overrides: Vec<Override>,
    /// Why each choice was made, for people.
    pub reasons: Vec<String>,
}
