//! One event model for all providers. Parsers translate; nothing after them knows a vendor's words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::patch::Offer;

/// The largest count that every reader of JSON keeps (RFC 8259, section 6).
pub const MAX_COUNT: u64 = (1 << 53) - 1;
/// The longest name of a session or a model that is believed, in bytes.
const MAX_NAME: usize = 512;

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
    /// Cost in millionths of a US dollar. Under a login it is what the tokens would cost by the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// Where the cost comes from: the CLI, or a price table and its date. Absent: the same as `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_source: Option<S>,
    /// How it is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_by: Option<PaidBy>,
    /// Where the figures come from, for example `claude:result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<S>,
}

impl Usage {
    /// Both together. What is known of neither is not known.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        let add = |a: Option<u64>, b: Option<u64>| a.or(b).map(|_| a.unwrap_or(0).saturating_add(b.unwrap_or(0)));
        Self { source: more.source.clone().or(self.source.clone()), ..self.with(more, add) }
    }

    /// What came after `before`, of figures that count a whole session. Where nothing is known of what was before,
    /// nothing is known of this; figures that are smaller began anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if before.source.is_none() {
            return Self::default();
        }
        let began_anew = before.output_tokens > self.output_tokens;
        let sub = |now: Option<u64>, then: Option<u64>| now.map(|now| now.saturating_sub(then.unwrap_or(0)));
        if began_anew { self.clone() } else { Self { source: self.source.clone(), ..self.with(before, sub) } }
    }

    fn with(&self, other: &Self, both: impl Fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        Self {
            input_tokens: both(self.input_tokens, other.input_tokens),
            output_tokens: both(self.output_tokens, other.output_tokens),
            cache_read_tokens: both(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens: both(self.cache_write_tokens, other.cache_write_tokens),
            cost_micro_usd: both(self.cost_micro_usd, other.cost_micro_usd),
            cost_source: self.cost_source.clone(),
            paid_by: self.paid_by,
            source: None,
        }
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// The worktree and the prompt are being prepared, or the CLI is starting.
    Starting,
    /// An interactive CLI takes input and has not been given any yet.
    Ready,
    /// It moves.
    Working,
    /// It wants to do something that it needs a permission for.
    WaitingPermission,
    /// It asked a question.
    WaitingInput,
    /// It shows something that vnx cannot answer.
    Blocked,
    /// The CLI reports errors and tries again by itself.
    Limited,
    /// Its turn is over.
    Idle,
    /// It is being ended.
    Ending,
    /// It is gone; its work is being collected and judged.
    Exited,
    /// Its supervisor is dead and its story could not be finished yet.
    Lost,
    /// Receipts of it are missing from the ledger, so nothing is done to it.
    Broken,
}

impl WorkerState {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Working => "working",
            Self::WaitingPermission => "waiting_permission",
            Self::WaitingInput => "waiting_input",
            Self::Blocked => "blocked",
            Self::Limited => "limited",
            Self::Idle => "idle",
            Self::Ending => "ending",
            Self::Exited => "exited",
            Self::Lost => "lost",
            Self::Broken => "broken",
        }
    }

    /// Whether it goes on only when somebody acts.
    pub fn needs_somebody(self) -> bool {
        matches!(self, Self::WaitingPermission | Self::WaitingInput | Self::Blocked)
    }

    /// Whether a worker in this state is in the middle of a turn, whatever seemed to be before.
    pub fn is_within_a_turn(self) -> bool {
        matches!(self, Self::Working | Self::WaitingPermission)
    }
}

/// Where a state is known from, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateSource {
    /// The dispatch's lock.
    Lock,
    /// The process itself: started, signalled, gone.
    Process,
    /// The CLI's own report to its terminal (OSC 7501).
    StatusReport,
    /// A hook of the CLI.
    Hook,
    /// The event stream.
    Events,
    /// Its progress bar (OSC 9;4).
    Progress,
    /// The title that it gives its terminal.
    Title,
    /// The text on its screen.
    Screen,
}

impl StateSource {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Process => "process",
            Self::StatusReport => "status_report",
            Self::Hook => "hook",
            Self::Events => "events",
            Self::Progress => "progress",
            Self::Title => "title",
            Self::Screen => "screen",
        }
    }
}

/// Something that a worker told its terminal, beside what it draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// OSC 7501, the Program Status Protocol: `key=value` pairs between colons, verbatim.
    Status(String),
    /// OSC 0 or 2.
    Title(String),
    /// OSC 9;4: a progress bar appeared, or went.
    Progress(bool),
    /// BEL.
    Bell,
    /// OSC 9 or 777: a desktop notification.
    Notification(String),
}

/// How a provider is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PaidBy {
    /// With a key from the environment: by the token.
    Key,
    /// By the CLI's own login: a subscription or an account.
    Login,
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
    /// The worker's state changed.
    State {
        /// To this.
        state: WorkerState,
        /// Known from there.
        source: StateSource,
        /// In the CLI's words, what it waits for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
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
        !matches!(self, Self::Error { .. } | Self::State { .. })
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
    /// The change in the answer, where the plan wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

impl Claim {
    /// Leaves out what no receipt takes: a CLI may say anything, and the dispatch is closed all the same.
    pub fn fit(&mut self) {
        let Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_micro_usd, .. } =
            &mut self.usage;
        for count in [input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_micro_usd] {
            count.take_if(|count| *count > MAX_COUNT);
        }
        for name in [&mut self.session, &mut self.model] {
            name.take_if(|name| name.len() > MAX_NAME);
        }
    }
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
    /// A hook was called: what it prints, or nothing while somebody has to decide first.
    pub reply: Option<Reply>,
    /// Keys that answer a dialog.
    pub keys: Option<String>,
    /// Lines for the worker to read.
    pub writes: Vec<String>,
}

/// What the CLI gets that called a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This text, at once.
    Now(String),
    /// Nothing until a person has decided.
    Held,
}

/// How a person's decision reaches the CLI that asked for a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// As the answer of the hook that asked.
    Hook(String),
    /// As keys.
    Keys(String),
    /// As lines of the protocol.
    Lines(Vec<String>),
    /// Not at all: nothing was asked.
    Nothing,
}

/// Whoever understands a worker's output. The supervisor only moves bytes.
pub trait Listener {
    /// One line of standard output, without its line feed.
    fn stdout_line(&mut self, line: &str) -> Heard;
    /// One line of standard error.
    fn stderr_line(&mut self, line: &str) -> Heard;
    /// Something that an interactive worker told its terminal.
    fn notice(&mut self, notice: &Notice) -> Heard;
    /// An interactive worker drew something.
    fn drew(&mut self) -> Heard;
    /// What a hook of the CLI was given, one JSON object.
    fn hook(&mut self, payload: &str) -> Heard;
    /// What stands on the screen, once it has come to rest.
    fn screen(&mut self, text: &str) -> Heard;
    /// Whether this screen asks for a permission.
    fn asks(&self, text: &str) -> bool;
    /// What a worker that speaks a protocol is told first.
    fn begin(&mut self) -> Vec<String>;
    /// A message for a worker that speaks a protocol: what to write now, and whether it has to wait for
    /// the turn to end. `None`: it speaks none.
    fn say(&mut self, text: &str) -> Option<(Vec<String>, bool)>;
    /// What makes a worker that speaks a protocol end its turn.
    fn cancel(&mut self) -> Vec<String>;
    /// A person decided what the worker waits for; `more`: another hook waits for a decision after this.
    fn permit(&mut self, allow: bool, more: bool) -> Permit;
    /// What a worker that speaks a protocol asks next.
    fn asks_next(&self) -> Option<String>;
    /// The supervisor gives up on the worker, and why.
    fn gave_up(&mut self, outcome: Outcome, message: &str);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What people see is what files hold.
    #[test]
    fn words_are_those_of_the_files() {
        use StateSource as S;
        use WorkerState as W;
        let states = [
            W::Starting,
            W::Ready,
            W::Working,
            W::WaitingPermission,
            W::WaitingInput,
            W::Blocked,
            W::Limited,
            W::Idle,
            W::Ending,
            W::Exited,
            W::Lost,
            W::Broken,
        ];
        for state in states {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("{:?}", state.word()));
            let waits = matches!(state, W::WaitingPermission | W::WaitingInput | W::Blocked);
            assert_eq!(state.needs_somebody(), waits, "{state:?}");
            assert_eq!(state.is_within_a_turn(), matches!(state, W::Working | W::WaitingPermission), "{state:?}");
        }
        for source in [S::Lock, S::Process, S::StatusReport, S::Hook, S::Events, S::Progress, S::Title, S::Screen] {
            assert_eq!(serde_json::to_string(&source).unwrap(), format!("{:?}", source.word()));
        }
    }

    #[test]
    fn trouble_is_no_progress() {
        let error = Event::Error { class: None, message: String::new(), retrying: true, fields: BTreeMap::default() };
        let state = Event::State { state: WorkerState::Working, source: StateSource::Hook, detail: None };
        assert!(!error.is_progress() && !state.is_progress());
        assert!(Event::Text { text: String::new() }.is_progress());
        assert!(Event::Denied { count: 1 }.is_progress());
    }
}
