//! One event model for all providers. Parsers translate; nothing after them knows a vendor's words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// Token counts and money of one dispatch. Unknown stays `None`, it is never 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Usage"))]
#[serde(deny_unknown_fields)]
pub struct Usage<S = String> {
    /// Input tokens that were not read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Output tokens, reasoning included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Input tokens served from the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    /// Input tokens written to the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
    /// Cost in millionths of a US dollar, as the CLI itself reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// Where the figures come from, for example `claude:result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<S>,
}

/// Something a worker's stream said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The session began.
    Init {
        /// The CLI's own session id, for a later resume.
        session: Option<String>,
        /// The model that answers.
        model: Option<String>,
    },
    /// Text for people.
    Text {
        /// The text.
        text: String,
    },
    /// Reasoning.
    Thinking {
        /// The text.
        text: String,
    },
    /// The worker calls a tool.
    ToolUse {
        /// The tool's name.
        name: String,
        /// Its input, shortened for display.
        input: String,
    },
    /// A tool answered.
    ToolResult {
        /// It reported success.
        ok: bool,
        /// The output, shortened for display.
        text: String,
    },
    /// Token counts and cost, cumulative for the session.
    Usage(Usage),
    /// Something went wrong; `class` is set where a structured field says what.
    Error {
        /// The outcome this error stands for.
        class: Option<Outcome>,
        /// What the CLI said.
        message: String,
        /// The CLI tries again by itself.
        retrying: bool,
        /// The structured fields that the failure table of the manifest looks at.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        fields: BTreeMap<String, String>,
    },
    /// Tools that the CLI refused to run.
    Denied {
        /// How many.
        count: u64,
    },
    /// The closing event: success is claimed or denied here and nowhere else.
    Result {
        /// The CLI says the turn succeeded.
        ok: bool,
        /// The final message.
        text: String,
    },
}

impl Event {
    /// Whether the worker moved forward. Retries and errors are not progress: a CLI that
    /// reconnects for an hour is idle.
    pub fn is_progress(&self) -> bool {
        !matches!(self, Self::Error { .. })
    }
}

/// What the stream claimed, folded from its events. A claim is evidence of nothing but itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The closing event's verdict on itself, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// The CLI's session id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Usage, if the CLI reported any.
    #[serde(default)]
    pub usage: Usage,
    /// What the CLI's own failure signals amount to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// An error is the last thing that was heard: nothing got better after it.
    #[serde(default)]
    pub stuck_on_error: bool,
    /// Tools that were refused.
    #[serde(default)]
    pub denied: u64,
    /// Length of the final report in bytes.
    #[serde(default)]
    pub report_bytes: u64,
}

/// A classified failure of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What it amounts to; `None` when no structured field and no pattern says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The CLI's words, one line, redacted.
    pub message: String,
}

/// What one line of output amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// The events in it.
    pub events: Vec<Event>,
    /// The worker moved forward: the idle deadline starts again.
    pub progress: bool,
    /// It was the closing event: the process should leave soon.
    pub closing: bool,
}

/// Whoever understands a worker's output. The supervisor only moves bytes.
pub trait Listener {
    /// One line of standard output, without its line feed.
    fn stdout_line(&mut self, line: &str) -> Heard;
    /// One line of standard error.
    fn stderr_line(&mut self, line: &str) -> Heard;
}
