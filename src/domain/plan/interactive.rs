//! What the interactive lane needs to know of a CLI beside its process: its dialogs, titles and keys.

use serde::{Deserialize, Serialize};

use crate::domain::agent::Questions;
use crate::domain::event::WorkerState;
use crate::domain::outcome::Outcome;
use crate::domain::span::Span;

/// When an interactive worker is asked to leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndPolicy {
    /// When its turn is over.
    #[default]
    AfterTurn,
    /// When its turn is over and it has left a report; otherwise it waits for the next message.
    AfterReport,
    /// Never: a person ends it.
    Manual,
}

/// Something that a CLI may show on its screen instead of working, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialog {
    /// What it is called in events: `trust`, `theme`, `usage_limit`.
    pub name: String,
    /// A regular expression that is found on the screen; `^` and `$` match at lines.
    pub screen: String,
    /// The state that it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WorkerState>,
    /// What it is about: the first group of this regular expression, looked for on the screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Typed to answer it, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// The failure that it is. It ends the turn; with a `state` the CLI tries again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// It comes before the first turn or never: later the same words are what the worker reads or writes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_start: bool,
}

/// A title that tells a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TitleRule {
    /// A regular expression, anchored at the start of the title.
    pub title: String,
    /// The state that it means.
    pub state: WorkerState,
}

/// What the interactive lane needs to know beside the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interactive {
    /// When the worker is asked to leave.
    #[serde(default)]
    pub end: EndPolicy,
    /// Typed to make the CLI leave, each entry apart; without any it is signalled.
    #[serde(default)]
    pub quit: Vec<String>,
    /// Between a pasted text and Enter.
    #[serde(default = "fifty")]
    pub submit_gap: Span,
    /// What the CLI shows in the place of a long text. Where it is named, Enter is pressed only when this or
    /// the text's end stands on the screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pasted: Option<String>,
    /// How long the turn must have been over before the CLI is asked to leave.
    #[serde(default = "half_second")]
    pub settle: Span,
    /// What is done when the CLI asks for a permission; the agent says.
    #[serde(default)]
    pub questions: Questions,
    /// How long the CLI may show something that nothing is known about.
    #[serde(default = "half_minute")]
    pub blocked_within: Span,
    /// Typed to allow what the CLI asks a permission for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_keys: Option<String>,
    /// Typed to deny it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_keys: Option<String>,
    /// What its screen may show instead of work.
    #[serde(default)]
    pub dialogs: Vec<Dialog>,
    /// States by title.
    #[serde(default)]
    pub titles: Vec<TitleRule>,
    /// It works exactly as long as it shows a progress bar (OSC 9;4).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub progress: bool,
    /// How it speaks to hooks and where it keeps its transcript; without one it has neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// Characters with which a message would be a command of the CLI, unless a blank goes before.
    #[serde(default)]
    pub blank_before: String,
    /// Characters with which a message would be a command all the same: it is refused.
    #[serde(default)]
    pub refuse_before: String,
}

/// How a CLI speaks to its hooks and where it keeps its transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Kimi Code.
    Kimi,
}

fn fifty() -> Span {
    Span(50)
}

fn half_second() -> Span {
    Span(500)
}

fn half_minute() -> Span {
    Span(30_000)
}
