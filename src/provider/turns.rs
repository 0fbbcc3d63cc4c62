//! An interactive worker's turns: what its status reports, hooks, titles and screen amount to.
//!
//! The surest source counts. A CLI that reports its status (OSC 7501, the Program Status
//! Protocol) is believed; its hooks say more (the report, background tasks, the permission that
//! is asked for); titles count for a CLI without reports; the screen only for what nothing else tells.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::{gemini, transcript};
use crate::domain::agent::{Otherwise, Questions};
use crate::domain::event::{Event, Heard, Notice, Permit, Reply, StateSource, WorkerState};
use crate::domain::outcome::Outcome;
use crate::domain::plan::{Dialect, Dialog, Interactive};

/// Understands one interactive worker.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) dialect: Option<Dialect>,
    questions: Questions,
    allow_keys: Option<String>,
    deny_keys: Option<String>,
    dialogs: Vec<(Regex, Dialog)>,
    titles: Vec<(Regex, WorkerState)>,
    /// Its progress bar tells whether it works.
    progress: bool,
    /// Its progress bar is gone: between two steps, for a question, or because its turn is over.
    stopped: bool,
    /// Dialogs that were answered, by their place in the table.
    answered: BTreeSet<usize>,
    /// It reports its status: titles and the screen tell nothing more about it.
    reports: bool,
    /// A turn has begun and is not over.
    working: bool,
    /// A first turn has begun.
    begun: bool,
    /// Known so far.
    state: Option<WorkerState>,
    /// A hook waits for a decision.
    asked_by_hook: bool,
    /// How many tasks went on when its last turn ended.
    background: usize,
    /// What the screen said that a permission is asked for.
    about: Option<String>,
    /// A permission was denied by key, which ends the turn of those who are told so.
    denied: bool,
    /// The error that the turn ended with is told.
    failed: bool,
    /// Where the CLI writes its transcript, if a hook said so.
    transcript: Option<String>,
}

impl Turns {
    /// The tables of a plan; they were checked when the manifest was read. A dialog whose words are in the prompt is
    /// not looked for: a CLI shows what it was asked.
    pub(super) fn new(plan: &Interactive, prompt: &str) -> Self {
        let compile = |pattern: &str| RegexBuilder::new(pattern).multi_line(true).build().ok();
        let known = |d: &Dialog| Some((compile(&d.screen)?, d.clone()));
        let dialogs = plan.dialogs.iter().filter_map(known).filter(|(words, _)| !words.is_match(prompt)).collect();
        let titles =
            plan.titles.iter().filter_map(|t| Some((compile(&format!("\\A(?:{})", t.title))?, t.state))).collect();
        Self {
            dialect: plan.dialect,
            questions: plan.questions.clone(),
            allow_keys: plan.allow_keys.clone(),
            deny_keys: plan.deny_keys.clone(),
            dialogs,
            titles,
            progress: plan.progress,
            ..Self::default()
        }
    }

    /// What the CLI's own transcript says.
    pub(super) fn transcript(&self, env: &BTreeMap<String, String>, cwd: &str) -> Option<transcript::Told> {
        transcript::read(self.dialect?, self.transcript.as_deref(), env, cwd)
    }

    fn to(&mut self, state: WorkerState, source: StateSource, detail: Option<String>) -> Event {
        self.state = Some(state);
        self.failed &= state != WorkerState::Working;
        self.begun |= matches!(state, WorkerState::Working | WorkerState::WaitingPermission | WorkerState::Idle);
        self.working = match state {
            WorkerState::Working => true,
            WorkerState::Idle | WorkerState::Ready => false,
            _ => self.working,
        };
        Event::State { state, source, detail: detail.filter(|d| !d.is_empty()) }
    }

    /// Something that it told its terminal.
    pub(super) fn notice(&mut self, notice: &Notice) -> Heard {
        let mut heard = Heard { events: self.told(notice), ..Heard::default() };
        self.refuse(&mut heard);
        heard
    }

    /// Without a hook that could answer, a question of a CLI that is to be refused is refused by key.
    fn refuse(&mut self, heard: &mut Heard) {
        let asks = |e: &Event| matches!(e, Event::State { state: WorkerState::WaitingPermission, .. });
        if self.questions.otherwise == Otherwise::Deny
            && heard.events.iter().any(asks)
            && !self.asked_by_hook
            && self.dialect != Some(Dialect::Claude)
        {
            heard.keys.clone_from(&self.deny_keys);
            self.denied = self.ends_when_denied();
            heard.events.push(Event::Denied { count: 1 });
        }
    }

    /// Kimi Code tells its model that a permission was denied, and goes on; the others end their turn.
    fn ends_when_denied(&self) -> bool {
        self.dialect != Some(Dialect::Kimi)
    }

    fn told(&mut self, notice: &Notice) -> Vec<Event> {
        match notice {
            Notice::Status(text) => self.status(text),
            Notice::Title(title) if !self.reports => {
                let state = self.titles.iter().find(|(pattern, _)| pattern.is_match(title)).map(|(_, state)| *state);
                state.map_or_else(Vec::new, |state| self.reached(state, StateSource::Title, None))
            }
            Notice::Progress(on) if self.progress => {
                self.stopped = !on;
                if *on { self.reached(WorkerState::Working, StateSource::Progress, None) } else { Vec::new() }
            }
            Notice::Title(_) | Notice::Progress(_) | Notice::Bell | Notice::Notification(_) => Vec::new(),
        }
    }

    /// A state that says of itself whether a turn is over.
    fn reached(&mut self, state: WorkerState, source: StateSource, detail: Option<String>) -> Vec<Event> {
        let over = state == WorkerState::Idle && self.working;
        if state == WorkerState::Idle && self.background > 0 {
            return Vec::new();
        }
        let fresh = matches!(self.state, None | Some(WorkerState::Starting));
        let state = if state == WorkerState::Idle && fresh { WorkerState::Ready } else { state };
        // What shows that a CLI is ready stays on the screen when it is more than that.
        if self.state == Some(state) || state == WorkerState::Ready && !fresh {
            return Vec::new();
        }
        let mut events = vec![self.to(state, source, detail)];
        if over {
            events.extend(self.turn_over());
        }
        events
    }

    /// The end of a turn of which nothing else is told.
    fn turn_over(&mut self) -> Vec<Event> {
        if !std::mem::take(&mut self.denied) {
            return vec![Event::Result { ok: true, text: String::new() }];
        }
        let message = "a permission was denied, and the CLI ended its turn".to_owned();
        let class = Some(Outcome::PermissionBlocked);
        let error = Event::Error { class, message, retrying: false, fields: BTreeMap::new() };
        vec![error, Event::Result { ok: false, text: String::new() }]
    }

    /// One report: `state=working:app=claude:kind=permission:msg=<base64>`.
    fn status(&mut self, text: &str) -> Vec<Event> {
        self.reports = true;
        let fields: BTreeMap<&str, &str> = text.split(':').filter_map(|pair| pair.split_once('=')).collect();
        // Of a task within the worker, not of itself.
        if fields.contains_key("id") {
            return Vec::new();
        }
        let said = fields.get("msg").and_then(|m| base64::engine::general_purpose::STANDARD.decode(m).ok());
        let said = said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let source = StateSource::StatusReport;
        let kind = fields.get("kind").copied().unwrap_or_default();
        let failed = |this: &mut Self, state| {
            let message = said.clone().unwrap_or_else(|| "the CLI reports an error".to_owned());
            let fields =
                BTreeMap::from([("report".to_owned(), kind.to_owned()), ("message".to_owned(), message.clone())]);
            let error = Event::Error { class: None, message, retrying: false, fields };
            vec![error, Event::Result { ok: false, text: String::new() }, this.to(state, source, said.clone())]
        };
        match (fields.get("state").copied().unwrap_or_default(), kind) {
            ("working", _) => vec![self.to(WorkerState::Working, source, said)],
            ("done", _) if self.background > 0 => Vec::new(),
            ("done", _) => {
                let state = self.to(WorkerState::Idle, source, said);
                vec![state, Event::Result { ok: true, text: String::new() }]
            }
            // After `done`, or after a person interrupted it: the turn is over, and nothing is claimed.
            ("idle", _) if self.working && self.background == 0 => {
                let mut events = vec![self.to(WorkerState::Idle, source, said)];
                if self.denied {
                    events.extend(self.turn_over());
                }
                events
            }
            ("idle", _) if self.state.is_none() => vec![self.to(WorkerState::Ready, source, said)],
            ("blocked", "permission") => vec![self.to(WorkerState::WaitingPermission, source, said)],
            ("blocked", "question") => vec![self.to(WorkerState::WaitingInput, source, said)],
            ("blocked", "auth") => failed(self, WorkerState::Blocked),
            ("blocked", _) => vec![self.to(WorkerState::Blocked, source, said)],
            ("error", _) => failed(self, WorkerState::Idle),
            _ => Vec::new(),
        }
    }

    /// What a hook was given, in the dialect that Claude Code and Codex share.
    pub(super) fn hook(&mut self, payload: &str) -> Heard {
        let Ok(value) = serde_json::from_str::<Value>(payload) else {
            return Heard::default();
        };
        if self.dialect == Some(Dialect::Codex) {
            return Heard { events: notified(&value), ..Heard::default() };
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        self.transcript = text("transcript_path").or(self.transcript.take());
        let source = StateSource::Hook;
        let mut heard = Heard { reply: Some(Reply::Now(self.nothing())), ..Heard::default() };
        let as_text = |key: &str| match value.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        heard.events = match text("hook_event_name").unwrap_or_default().as_str() {
            "SessionStart" => vec![Event::Init { session: text("session_id"), model: text("model") }],
            "UserPromptSubmit" | "BeforeAgent" => {
                let init = Event::Init { session: text("session_id"), model: text("model") };
                vec![init, self.to(WorkerState::Working, source, None)]
            }
            "PreToolUse" | "BeforeTool" => {
                vec![Event::ToolUse { name: as_text("tool_name"), input: as_text("tool_input") }]
            }
            "PostToolUse" | "AfterTool" => vec![Event::ToolResult { ok: true, text: as_text("tool_response") }],
            "PermissionRequest" => {
                let (tool, on) = (as_text("tool_name"), subject(value.get("tool_input")));
                let allowed = self.questions.allow.iter().any(|rule| rule.covers(&tool, &on));
                match (allowed, self.questions.otherwise) {
                    (true, _) => heard.reply = Some(Reply::Now(decision(true, ""))),
                    (false, Otherwise::Deny) => {
                        heard.reply =
                            Some(Reply::Now(decision(false, "the agent's policy refuses what needs a permission")));
                        heard.events.push(Event::Denied { count: 1 });
                    }
                    (false, Otherwise::Ask) => {
                        heard.reply = Some(Reply::Held);
                        self.asked_by_hook = true;
                        heard.events.push(self.to(
                            WorkerState::WaitingPermission,
                            source,
                            Some(format!("{tool}: {on}")),
                        ));
                    }
                }
                return heard;
            }
            "Stop" | "AfterAgent" => {
                let report = text("last_assistant_message").or_else(|| text("prompt_response")).unwrap_or_default();
                self.background = value.get("background_tasks").and_then(Value::as_array).map_or(0, Vec::len);
                if self.background > 0 {
                    // It says itself that it is not done: what goes on wakes it again.
                    let detail = Some(format!("{} tasks go on in the background", self.background));
                    vec![Event::Text { text: report }, self.to(WorkerState::Working, source, detail)]
                } else {
                    vec![Event::Result { ok: true, text: report }, self.to(WorkerState::Idle, source, None)]
                }
            }
            "StopFailure" => {
                let (error, message) =
                    (as_text("error"), text("error_message").or_else(|| text("last_assistant_message")));
                let message = message.unwrap_or_else(|| error.clone());
                let fields = BTreeMap::from([("error".to_owned(), error), ("message".to_owned(), message.clone())]);
                let error = Event::Error { class: None, message, retrying: false, fields };
                vec![error, Event::Result { ok: false, text: String::new() }, self.to(WorkerState::Idle, source, None)]
            }
            _ => Vec::new(),
        };
        heard
    }

    /// What a hook prints that has nothing to say.
    fn nothing(&self) -> String {
        match self.dialect {
            Some(Dialect::Gemini) => "{}".to_owned(),
            Some(Dialect::Claude | Dialect::Codex | Dialect::Kimi) | None => String::new(),
        }
    }

    /// What stands on the screen: a dialog is answered, or told.
    pub(super) fn screen(&mut self, text: &str) -> Heard {
        let mut heard = Heard::default();
        let found: Vec<(usize, Dialog)> = self
            .dialogs
            .iter()
            .enumerate()
            .filter(|(_, (_, dialog))| !self.begun || !dialog.at_start)
            .filter(|(_, (pattern, _))| pattern.is_match(text))
            .map(|(at, (_, dialog))| (at, dialog.clone()))
            .collect();
        let asks = found.iter().any(|(_, dialog)| dialog.state.is_some_and(|state| state != WorkerState::Ready));
        for (at, dialog) in found {
            if let Some(outcome) = dialog.outcome {
                if self.answered.insert(at) {
                    let message = format!("the screen says: {}", line_of(&self.dialogs[at].0, text));
                    let retrying = dialog.state.is_some();
                    let error = Event::Error { class: Some(outcome), message, retrying, fields: BTreeMap::new() };
                    heard.events.push(error);
                    heard.events.push(match dialog.state {
                        Some(state) => self.to(state, StateSource::Screen, Some(dialog.name)),
                        None => Event::Result { ok: false, text: String::new() },
                    });
                }
            } else if let Some(keys) = &dialog.keys {
                if self.answered.insert(at) {
                    heard.keys = Some(keys.clone());
                    // One in the middle of its work is no new start.
                    if !self.begun {
                        let detail = Some(format!("answered the dialog {:?}", dialog.name));
                        heard.events.push(self.to(WorkerState::Starting, StateSource::Screen, detail));
                    }
                }
            } else if let Some(state) = dialog.state {
                let about = dialog.detail.as_deref().and_then(|pattern| capture(pattern, text));
                if self.state == Some(state) && about.is_some() && about != self.about {
                    // What is known from elsewhere gets its words from the screen.
                    self.about.clone_from(&about);
                    heard.events.push(Event::State { state, source: StateSource::Screen, detail: about });
                } else if !self.reports || state == WorkerState::Blocked {
                    heard.events.extend(self.reached(state, StateSource::Screen, about.or(Some(dialog.name))));
                    self.refuse(&mut heard);
                }
                break;
            }
        }
        if self.stopped && self.working && !asks {
            heard.events.extend(self.reached(WorkerState::Idle, StateSource::Progress, None));
        }
        if self.dialect == Some(Dialect::Gemini)
            && self.state == Some(WorkerState::Idle)
            && !self.failed
            && let Some(error) = gemini::on_screen(text)
        {
            self.failed = true;
            heard.events.extend([error, Event::Result { ok: false, text: String::new() }]);
        }
        heard
    }

    /// Whether one of its questions for a permission stands on the screen.
    pub(super) fn asks(&self, text: &str) -> bool {
        let asks = |dialog: &Dialog| dialog.state == Some(WorkerState::WaitingPermission);
        self.dialogs.iter().any(|(pattern, dialog)| asks(dialog) && pattern.is_match(text))
    }

    /// A person decided; `more`: another question is held after this one.
    pub(super) fn permit(&mut self, allow: bool, more: bool) -> Permit {
        if std::mem::replace(&mut self.asked_by_hook, more) {
            return Permit::Hook(decision(allow, "denied by a person through vnx"));
        }
        self.about = None;
        self.denied = !allow && self.ends_when_denied();
        let keys = if allow { &self.allow_keys } else { &self.deny_keys };
        keys.clone().map_or(Permit::Nothing, Permit::Keys)
    }
}

/// What a tool is used on, as a person would say it: the command, the file, the address.
fn subject(input: Option<&Value>) -> String {
    let known = ["command", "file_path", "path", "url", "query", "pattern"];
    let text = known.iter().find_map(|key| input?.get(key)?.as_str());
    text.map_or_else(|| input.map(Value::to_string).unwrap_or_default(), str::to_owned)
}

/// The answer of a permission hook, in the form that Claude Code and Codex share.
fn decision(allow: bool, why: &str) -> String {
    let decision = if allow { json!({"behavior": "allow"}) } else { json!({"behavior": "deny", "message": why}) };
    json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}).to_string()
}

/// The first group of a pattern that was checked when the manifest was read.
fn capture(pattern: &str, text: &str) -> Option<String> {
    let pattern = RegexBuilder::new(pattern).multi_line(true).build().ok()?;
    Some(pattern.captures(text)?.get(1)?.as_str().trim().to_owned())
}

/// The line on which a pattern was found.
fn line_of(pattern: &Regex, text: &str) -> String {
    let at = pattern.find(text).map_or(0, |found| found.start());
    let begin = text[..at].rfind('\n').map_or(0, |n| n + 1);
    text[begin..].lines().next().unwrap_or_default().trim().chars().take(200).collect()
}

/// What Codex gives the program that it notifies: a turn is over.
fn notified(value: &Value) -> Vec<Event> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    // It also names its sessions, in a thread of its own.
    let naming = text("/input-messages/0").is_some_and(|m| m.starts_with("Generate a concise, single-line task title"));
    if naming || text("/type").as_deref() != Some("agent-turn-complete") {
        return Vec::new();
    }
    let report = text("/last-assistant-message").unwrap_or_default();
    vec![Event::Init { session: text("/thread-id"), model: None }, Event::Text { text: report }]
}
