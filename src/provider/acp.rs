//! The Agent Client Protocol (<https://agentclientprotocol.com>, version 1): JSON-RPC 2.0, one message a line.
//!
//! A pure state machine: lines of the agent in, events and lines for the agent out. `end_turn` alone
//! proves nothing (two of four agents say it after a failed request), so a turn without a word and
//! without a tool, or with the failure flag of an agent's extension, is a failure.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value, json};

use super::json::{count_at, text_at};
use super::stream::{MAX_REPORT, tail};
use crate::domain::agent::Otherwise;
use crate::domain::event::{Event, Heard, Permit, StateSource, Usage, WorkerState};
use crate::domain::plan::{AcpPlan, ModelBy};

/// What a request of ours was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Initialize,
    Open,
    Mode,
    Model,
    Prompt,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Open => "open",
            Self::Mode => "mode",
            Self::Model => "model",
            Self::Prompt => "prompt",
        }
    }
}

/// How many questions wait at the same time; an agent that asks more is denied.
const MAX_QUESTIONS: usize = 100;
/// How many calls of tools are remembered.
const MAX_TOOLS: usize = 10_000;

/// A permission that the agent waits for.
#[derive(Debug)]
struct Question {
    id: Value,
    /// What is asked, for people.
    asked: String,
    allow: Option<String>,
    reject: Option<String>,
}

/// One agent's session.
#[derive(Debug, Default)]
pub(super) struct Acp {
    plan: AcpPlan,
    cwd: String,
    resume: Option<String>,
    session: Option<String>,
    asked: BTreeMap<u64, Step>,
    next: u64,
    questions: Vec<Question>,
    /// Texts for the agent, the first prompt among them.
    queue: VecDeque<String>,
    /// The message that is being written.
    text: String,
    /// A tool was called or something was said since the prompt.
    moved: bool,
    /// Names of tools, and what they are used on, by the id of their call.
    tools: BTreeMap<String, (String, String)>,
    cost_micro_usd: Option<u64>,
}

impl Acp {
    pub(super) fn new(plan: AcpPlan, cwd: String, prompt: String, resume: Option<String>) -> Self {
        Self { plan, cwd, resume, queue: VecDeque::from([prompt]), ..Self::default() }
    }

    /// What to write when the agent has started.
    pub(super) fn begin(&mut self) -> Vec<String> {
        let mut capabilities = json!({"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false});
        merge(&mut capabilities, &Value::from(self.plan.initialize.clone()));
        let client = json!({"name": "vnx", "title": "vnx", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities, "clientInfo": client});
        vec![self.ask(Step::Initialize, "initialize", &params)]
    }

    fn ask(&mut self, step: Step, method: &str, params: &Value) -> String {
        self.next += 1;
        self.asked.insert(self.next, step);
        json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params}).to_string()
    }

    fn is_busy(&self) -> bool {
        self.asked.values().any(|step| *step == Step::Prompt)
    }

    /// One line of the agent.
    pub(super) fn line(&mut self, line: &str) -> Heard {
        // A stray print of some library: recorded, but no message.
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return Heard::default();
        };
        let id = message.get("id");
        match (message.get("method").and_then(Value::as_str), id) {
            (Some("session/update"), _) => self.update(message.pointer("/params/update").unwrap_or(&Value::Null)),
            (Some("session/request_permission"), Some(id)) => self.permission(id.clone(), &message),
            (Some(_), Some(id)) => {
                let error = json!({"code": -32601, "message": "this client does not do that"});
                let answer = json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string();
                Heard { writes: vec![answer], ..Heard::default() }
            }
            (Some(_), None) => Heard::default(),
            (None, _) => match id.and_then(Value::as_u64).and_then(|id| self.asked.remove(&id)) {
                Some(step) => match (message.get("result"), message.get("error")) {
                    (_, Some(error)) => self.failed(step, error),
                    (result, None) => self.done(step, result.unwrap_or(&Value::Null)),
                },
                None => Heard::default(),
            },
        }
    }

    fn done(&mut self, step: Step, result: &Value) -> Heard {
        let mut heard = Heard { progress: true, ..Heard::default() };
        match step {
            Step::Initialize => {
                let (method, mut params) = match &self.resume {
                    Some(session) => ("session/load", json!({"sessionId": session})),
                    None => ("session/new", json!({})),
                };
                merge(&mut params, &json!({"cwd": self.cwd, "mcpServers": []}));
                merge(&mut params, &Value::from(self.plan.new_session.clone()));
                heard.writes.push(self.ask(Step::Open, method, &params));
            }
            Step::Open => {
                let session = result.get("sessionId").and_then(Value::as_str).map(str::to_owned);
                self.session = session.or_else(|| self.resume.clone());
                let model = self.plan.model.clone();
                heard.events.push(Event::Init { session: self.session.clone(), model: model.clone() });
                heard.events.push(state(WorkerState::Ready, None));
                let session = self.session.clone();
                if let (Some(model), ModelBy::ConfigOption) = (model, self.plan.model_by) {
                    let params = json!({"sessionId": session, "configId": "model", "value": model});
                    heard.writes.push(self.ask(Step::Model, "session/set_config_option", &params));
                }
                if let Some(mode) = self.plan.mode.clone() {
                    let params = json!({"sessionId": session, "modeId": mode});
                    heard.writes.push(self.ask(Step::Mode, "session/set_mode", &params));
                }
                heard.writes.extend(self.prompt_if_free(&mut heard.events));
            }
            Step::Mode | Step::Model => heard.writes.extend(self.prompt_if_free(&mut heard.events)),
            Step::Prompt => self.turn_over(result, &mut heard),
        }
        heard
    }

    /// The next text, once nothing is under way: a mode counts only if it was set before.
    fn prompt_if_free(&mut self, events: &mut Vec<Event>) -> Option<String> {
        if !self.asked.is_empty() || self.session.is_none() {
            return None;
        }
        let text = self.queue.pop_front()?;
        self.text.clear();
        self.moved = false;
        events.push(state(WorkerState::Working, None));
        let prompt = json!([{"type": "text", "text": text}]);
        Some(self.ask(Step::Prompt, "session/prompt", &json!({"sessionId": self.session, "prompt": prompt})))
    }

    fn turn_over(&mut self, result: &Value, heard: &mut Heard) {
        heard.events.push(Event::Usage(self.usage(result)));
        let text = std::mem::take(&mut self.text);
        let reason = text_at(result, "/stopReason");
        let flag = result.pointer("/_meta/jetbrains/air/sessionFailure");
        let failure = flag.filter(|f| text_at(f, "/severity") == "error").map(|f| text_at(f, "/title").to_owned());
        let failure = failure.or_else(|| match reason {
            "end_turn" if !self.moved => Some("the turn ended without a word and without a tool".to_owned()),
            "end_turn" => None,
            other => Some(format!("the turn ended: {other}")),
        });
        if let Some(message) = &failure {
            let fields = [("message", message.as_str()), ("stop", reason)];
            let fields = fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            heard.events.push(Event::Error { class: None, message: message.clone(), retrying: false, fields });
        }
        heard.events.push(state(WorkerState::Idle, Some(reason.to_owned())));
        heard.writes.extend(self.prompt_if_free(&mut heard.events));
        if self.is_busy() {
            // Somebody has sent more meanwhile.
            heard.events.push(Event::Text { text });
        } else {
            if !text.is_empty() {
                heard.events.push(Event::Text { text: text.clone() });
            }
            heard.events.push(Event::Result { ok: failure.is_none(), text });
        }
    }

    fn usage(&self, result: &Value) -> Usage {
        let (usage, quota) = ("/usage", "/_meta/quota/token_count");
        let of = |one: &str, other: &str| {
            count_at(result, &format!("{usage}/{one}")).or_else(|| count_at(result, &format!("{quota}/{other}")))
        };
        let input = of("inputTokens", "input_tokens");
        Usage {
            input_tokens: input,
            output_tokens: of("outputTokens", "output_tokens"),
            cache_read_tokens: of("cachedReadTokens", "cached_input_tokens"),
            cache_write_tokens: of("cachedWriteTokens", "cache_write_input_tokens"),
            cost_micro_usd: self.cost_micro_usd,
            source: input.map(|_| "acp:prompt".to_owned()),
            ..Usage::default()
        }
    }

    fn failed(&mut self, step: Step, error: &Value) -> Heard {
        let message = text_at(error, "/message");
        let message = message.strip_prefix("Internal error: ").unwrap_or(message);
        // Some agents hand on the API's answer as it came.
        let inner = serde_json::from_str::<Value>(message).ok();
        let inner = inner.as_ref().map(|v| text_at(v, "/error/message")).filter(|m| !m.is_empty());
        let message = inner.unwrap_or(message).to_owned();
        let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
        let mut fields = BTreeMap::from([
            ("message".to_owned(), message.clone()),
            ("code".to_owned(), code.to_string()),
            ("during".to_owned(), step.word().to_owned()),
        ]);
        if (400..600).contains(&code) {
            fields.insert("status".to_owned(), code.to_string());
        }
        if let Some(kind) = error.pointer("/data/errorKind").and_then(Value::as_str) {
            fields.insert("error".to_owned(), kind.to_owned());
        }
        let text = std::mem::take(&mut self.text);
        let events = vec![
            Event::Error { class: None, message, retrying: false, fields },
            state(WorkerState::Idle, None),
            Event::Result { ok: false, text },
        ];
        Heard { events, progress: true, ..Heard::default() }
    }

    fn update(&mut self, update: &Value) -> Heard {
        // Loading a session plays its history, and setting a mode prints a line: neither is work.
        if !self.is_busy() {
            if text_at(update, "/sessionUpdate") == "usage_update" {
                self.note_cost(update);
            }
            return Heard::default();
        }
        let mut heard = Heard { progress: true, ..Heard::default() };
        match text_at(update, "/sessionUpdate") {
            "agent_message_chunk" => {
                self.moved = true;
                self.text.push_str(text_at(update, "/content/text"));
                if self.text.len() > 4 * MAX_REPORT {
                    // The report has its end only, and says so.
                    self.text = tail(&self.text, 2 * MAX_REPORT).to_owned();
                }
            }
            "agent_thought_chunk" => {
                heard.events.push(Event::Thinking { text: text_at(update, "/content/text").to_owned() });
            }
            "tool_call" => {
                self.moved = true;
                // What was said before a tool is no report.
                let text = std::mem::take(&mut self.text);
                if !text.is_empty() {
                    heard.events.push(Event::Text { text });
                }
                let name = tool(update);
                if self.tools.len() >= MAX_TOOLS {
                    self.tools.clear();
                }
                self.tools.insert(text_at(update, "/toolCallId").to_owned(), (name.clone(), subject(update)));
                heard.events.push(Event::ToolUse { name, input: subject(update) });
            }
            "tool_call_update" => {
                // What a tool is used on may become known piece by piece.
                if update.get("rawInput").is_some()
                    && let Some((_, on)) = self.tools.get_mut(text_at(update, "/toolCallId"))
                {
                    *on = subject(update);
                }
                if let ok @ ("completed" | "failed") = text_at(update, "/status") {
                    let text = update.get("rawOutput").map(as_text).unwrap_or_default();
                    heard.events.push(Event::ToolResult { ok: ok == "completed", text });
                }
            }
            "usage_update" => {
                self.note_cost(update);
                heard.progress = false;
            }
            "session_info_update" => {
                heard.progress = false;
                let warning = update.pointer("/_meta/jetbrains/air/sessionFailure");
                let message = warning.map(|w| text_at(w, "/title")).unwrap_or_default();
                if message.starts_with("Reconnecting") || message.starts_with("Retrying") {
                    let fields = BTreeMap::from([("message".to_owned(), message.to_owned())]);
                    heard.events.push(Event::Error {
                        class: None,
                        message: message.to_owned(),
                        retrying: true,
                        fields,
                    });
                }
            }
            _ => heard.progress = false,
        }
        heard
    }

    fn note_cost(&mut self, update: &Value) {
        let dollars = update.pointer("/cost/amount").and_then(Value::as_f64);
        if text_at(update, "/cost/currency") == "USD" {
            self.cost_micro_usd = dollars.and_then(super::claude::micro_usd).or(self.cost_micro_usd);
        }
    }

    fn permission(&mut self, id: Value, message: &Value) -> Heard {
        let call = message.pointer("/params/toolCall").unwrap_or(&Value::Null);
        let option = |kind: &str| {
            let options = message.pointer("/params/options").and_then(Value::as_array)?;
            let one = options.iter().find(|o| text_at(o, "/kind") == kind)?;
            Some(text_at(one, "/optionId").to_owned())
        };
        let kind = text_at(call, "/kind");
        let known = self.tools.get(text_at(call, "/toolCallId")).cloned();
        let (name, before) = known.unwrap_or_else(|| (tool(call), String::new()));
        let now = subject(call);
        // What it was called with says more than a title.
        let exact = call.get("rawInput").is_some() || before.is_empty() || before == name;
        let on = if exact { now } else { before };
        let rules = &self.plan.questions.allow;
        let allowed = self.plan.allow_kinds.iter().any(|k| k == kind)
            || [name.as_str(), alias(kind)].iter().any(|tool| rules.iter().any(|rule| rule.covers(tool, &on)));
        let asked = format!("{name}: {on}");
        let question = Question { id, asked, allow: option("allow_once"), reject: option("reject_once") };
        let mut heard = Heard { progress: true, ..Heard::default() };
        match (allowed, self.plan.questions.otherwise) {
            (true, _) => heard.writes.push(decide(&question, true)),
            (false, otherwise) if otherwise == Otherwise::Deny || self.questions.len() >= MAX_QUESTIONS => {
                heard.writes.push(decide(&question, false));
                heard.events.push(Event::Denied { count: 1 });
            }
            (false, _) => {
                // One after the other: what is shown is what is answered.
                if self.questions.is_empty() {
                    heard.events.push(state(WorkerState::WaitingPermission, Some(question.asked.clone())));
                }
                self.questions.push(question);
            }
        }
        heard
    }

    /// A person decided: the oldest question is answered.
    pub(super) fn permit(&mut self, allow: bool) -> Permit {
        if self.questions.is_empty() {
            return Permit::Nothing;
        }
        Permit::Lines(vec![decide(&self.questions.remove(0), allow)])
    }

    /// What is asked now.
    pub(super) fn asks_next(&self) -> Option<String> {
        self.questions.first().map(|question| question.asked.clone())
    }

    /// A message: what to write now, and whether it has to wait for the turn to end.
    pub(super) fn say(&mut self, text: &str) -> (Vec<String>, bool) {
        self.queue.push_back(text.to_owned());
        let line = self.prompt_if_free(&mut Vec::new());
        let waits = line.is_none();
        (line.into_iter().collect(), waits)
    }

    /// What ends the turn: a notice to the agent, and an answer to all that it waits for.
    pub(super) fn cancel(&mut self) -> Vec<String> {
        self.queue.clear();
        let Some(session) = &self.session else { return Vec::new() };
        let notice = json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}});
        let cancelled =
            |q: Question| json!({"jsonrpc": "2.0", "id": q.id, "result": {"outcome": {"outcome": "cancelled"}}});
        let answers = self.questions.drain(..).map(|q| cancelled(q).to_string());
        std::iter::once(notice.to_string()).chain(answers).collect()
    }
}

fn state(state: WorkerState, detail: Option<String>) -> Event {
    Event::State { state, source: StateSource::Events, detail: detail.filter(|d| !d.is_empty()) }
}

fn decide(question: &Question, allow: bool) -> String {
    let option = if allow { &question.allow } else { &question.reject };
    // An agent that offers no such option is told that the question is off.
    let outcome = match option {
        Some(option) => json!({"outcome": "selected", "optionId": option}),
        None => json!({"outcome": "cancelled"}),
    };
    json!({"jsonrpc": "2.0", "id": question.id, "result": {"outcome": outcome}}).to_string()
}

/// The name of a tool, in the agent's words where it has any.
fn tool(call: &Value) -> String {
    let own = text_at(call, "/name");
    let kind = text_at(call, "/kind");
    if own.is_empty() { alias(kind).to_owned() } else { own.to_owned() }
}

/// What rules call a kind of tool.
fn alias(kind: &str) -> &str {
    match kind {
        "execute" => "Bash",
        "edit" | "delete" | "move" => "Edit",
        "read" | "search" => "Read",
        "fetch" => "WebFetch",
        other => other,
    }
}

/// What a tool is used on: the command, the file, else its title.
fn subject(call: &Value) -> String {
    // A title of one word is only the tool's name.
    let words = if text_at(call, "/title").contains(' ') { "/title" } else { "/content/0/content/text" };
    let places = ["/rawInput/command", "/rawInput/file_path", "/rawInput/path", "/rawInput/url", "/locations/0/path"];
    for place in places.into_iter().chain([words, "/title"]) {
        if let Some(text) = call.pointer(place).and_then(Value::as_str).filter(|t| !t.is_empty()) {
            return text.to_owned();
        }
    }
    String::new()
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Merges objects, the second one winning.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => merge_maps(into, from),
        (into, from) => into.clone_from(from),
    }
}

/// Merges maps, the second one winning; objects within them are merged as well.
pub fn merge_maps(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        merge(into.entry(key.clone()).or_insert(Value::Null), value);
    }
}

/// Fills placeholders in every text of a JSON object.
pub fn fill(map: &Map<String, Value>, with: &dyn Fn(&str) -> String) -> Map<String, Value> {
    fn one(value: &Value, with: &dyn Fn(&str) -> String) -> Value {
        match value {
            Value::String(text) => Value::String(with(text)),
            Value::Array(all) => all.iter().map(|v| one(v, with)).collect(),
            Value::Object(map) => Value::Object(fill(map, with)),
            other => other.clone(),
        }
    }
    map.iter().map(|(key, value)| (key.clone(), one(value, with))).collect()
}
