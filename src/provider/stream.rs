//! From lines to events to one claim: parser, failure table and fold together.

use std::collections::{BTreeMap, VecDeque};

use super::acp::Acp;
use super::failures::FailureTable;
use super::turns::Turns;
use super::{claude, codex, gemini, kimi, transcript};
use crate::domain::event::{Claim, Event, Failure, Heard, Listener, Notice, Permit, StateSource, Usage, WorkerState};
use crate::domain::line::{drawn, summary};
use crate::domain::outcome::Outcome;
use crate::domain::patch::{self, Offer};
use crate::domain::plan::{AcpPlan, Dialect, EndPolicy, FailureRule, Interactive, ParserKind};
use crate::domain::verdict::End;

/// The longest report that is kept, in bytes.
pub(super) const MAX_REPORT: usize = 256 << 10;
/// The first line of a report that was longer.
const BEGINNING_LEFT_OUT: &str = "[the beginning is left out; what came is in `vnx logs --raw`]\n";
/// How many of the last lines of standard error are looked at for a failure.
const STDERR_LINES: usize = 20;

/// Understands one worker's output.
#[derive(Debug)]
pub struct Stream {
    kind: ParserKind,
    table: FailureTable,
    claim: Claim,
    report: String,
    /// The report was longer than what is kept: its beginning is gone.
    cut: bool,
    /// The pieces of a message that is still coming.
    pieces: String,
    stderr: VecDeque<String>,
    /// Fields of the errors since the last progress: one failure is often told in pieces.
    trouble: BTreeMap<String, String>,
    turns: Turns,
    acp: Option<Acp>,
    end: EndPolicy,
    /// Why vnx itself ended the worker: what the CLI says on its way out does not change it.
    gave_up: Option<Failure>,
}

impl Stream {
    /// A stream for a parser and a failure table (which was checked when the manifest was read).
    pub fn new(kind: ParserKind, failures: &[FailureRule]) -> Self {
        Self {
            kind,
            table: FailureTable::compile(failures).unwrap_or_default(),
            turns: Turns::default(),
            acp: None,
            end: EndPolicy::default(),
            claim: Claim::default(),
            report: String::new(),
            cut: false,
            pieces: String::new(),
            stderr: VecDeque::new(),
            trouble: BTreeMap::new(),
            gave_up: None,
        }
    }

    /// The same for the interactive lane.
    #[must_use]
    pub fn interactive(mut self, interactive: Option<&Interactive>, prompt: &str) -> Self {
        self.turns = interactive.map(|plan| Turns::new(plan, prompt)).unwrap_or_default();
        self.end = interactive.map(|i| i.end).unwrap_or_default();
        self
    }

    /// The same for the acp lane.
    #[must_use]
    pub fn acp(mut self, plan: Option<&AcpPlan>, cwd: &str, prompt: &str, resume: Option<&str>) -> Self {
        if let Some(plan) = plan {
            self.end = plan.end;
            self.turns.dialect = plan.dialect;
            self.acp = Some(Acp::new(plan.clone(), cwd.to_owned(), prompt.to_owned(), resume.map(str::to_owned)));
        }
        self
    }

    fn take(&mut self, mut events: Vec<Event>) -> Heard {
        let mut heard = Heard::default();
        for event in &mut events {
            heard.progress |= event.is_progress();
            heard.closing |= matches!(event, Event::Result { .. });
            self.fold(event);
        }
        heard.events = events;
        heard
    }

    /// The same for an interactive worker: its turn's end is its last word only if the plan says so.
    fn take_turn(&mut self, mut heard: Heard) -> Heard {
        let mut taken = self.take(std::mem::take(&mut heard.events));
        taken.closing &= match self.end {
            EndPolicy::AfterTurn => true,
            EndPolicy::AfterReport => !self.report.trim().is_empty() || self.claim.ok == Some(false),
            EndPolicy::Manual => false,
        };
        Heard { reply: heard.reply, keys: heard.keys, writes: heard.writes, ..taken }
    }

    fn fold(&mut self, event: &mut Event) {
        match event {
            Event::Init { session, model } => {
                self.claim.session = session.take().or(self.claim.session.take());
                self.claim.model = model.take().or(self.claim.model.take());
                *session = self.claim.session.clone();
                *model = self.claim.model.clone();
            }
            Event::Usage(usage) => merge(&mut self.claim.usage, usage),
            Event::Denied { count } => self.claim.denied += *count,
            Event::Error { class, message, fields, .. } => {
                self.trouble.extend(fields.clone());
                *class = class.or_else(|| self.table.classify(&self.trouble));
                // A later word that says less does not hide an earlier one that says more.
                let keep = class.is_none()
                    && self.claim.failure.as_ref().is_some_and(|f| f.outcome.is_some())
                    && self.claim.stuck_on_error;
                if !keep {
                    self.claim.failure = Some(Failure { outcome: *class, message: summary(message) });
                }
                self.claim.stuck_on_error = true;
            }
            Event::Result { ok, text } => {
                // A success closes what was recovered from; a failure is already folded.
                if *ok && self.claim.ok != Some(false) {
                    self.claim.failure = None;
                    self.recovered();
                }
                self.claim.ok = Some(*ok && self.claim.ok != Some(false));
                if !text.is_empty() {
                    self.keep(text);
                }
            }
            Event::Text { text } => {
                // The report of a CLI whose closing event has no text: its last message.
                self.keep(text);
                self.recovered();
            }
            // What looked like the end of a turn was a question.
            Event::State { state: WorkerState::WaitingPermission, .. } => {
                self.claim.ok = self.claim.ok.filter(|ok| !ok);
            }
            // A turn that begins is a new chance.
            Event::State { state: WorkerState::Working, .. }
                if matches!(self.kind, ParserKind::Terminal | ParserKind::Acp) =>
            {
                self.claim.ok = None;
                self.claim.failure = None;
                self.recovered();
            }
            Event::State { .. } => {}
            Event::Thinking { .. } | Event::ToolUse { .. } | Event::ToolResult { .. } => {
                self.recovered();
            }
        }
    }

    /// Holds the pieces of a message back until something else comes; a piece is progress already.
    fn joined(&mut self, events: Vec<Event>) -> Heard {
        let (mut whole, mut progress) = (Vec::new(), false);
        for event in events {
            if let Event::Text { text } = event {
                if self.pieces.len() > 2 * MAX_REPORT {
                    self.pieces = tail(&self.pieces, MAX_REPORT).to_owned();
                }
                self.pieces.push_str(&text);
                progress = true;
            } else {
                whole.extend(self.message());
                whole.push(event);
            }
        }
        let heard = self.take(whole);
        Heard { progress: heard.progress || progress, ..heard }
    }

    fn message(&mut self) -> Option<Event> {
        (!self.pieces.is_empty()).then(|| Event::Text { text: std::mem::take(&mut self.pieces) })
    }

    /// Takes a text as the report; only its end is kept.
    fn keep(&mut self, text: &str) {
        tail(text, MAX_REPORT).clone_into(&mut self.report);
        self.cut = text.len() > MAX_REPORT;
    }

    fn recovered(&mut self) {
        self.claim.stuck_on_error = false;
        self.trouble.clear();
    }

    /// The change in the answer of a text worker that has ended.
    pub fn offer(&self) -> Offer {
        if self.cut {
            return Offer::Unusable("the answer is longer than what is kept of it".to_owned());
        }
        patch::find(&self.report)
    }

    /// A text worker has no closing event, and some say with exit code 0 that they could do nothing.
    fn read_answer(&mut self, code: &str) {
        let fields = [("answer", self.report.trim()), ("exit", code)].map(|(n, v)| (n.to_owned(), v.to_owned()));
        if let Some(outcome) = self.table.classify(&fields.into()) {
            let line = self.report.trim().lines().next().unwrap_or_default();
            self.claim.failure = Some(Failure { outcome: Some(outcome), message: summary(line) });
            self.claim.ok = Some(false);
        }
    }

    /// The claim and the report, once the worker has ended.
    pub fn finish(mut self, end: &End) -> (Claim, String) {
        if let Some(mut cut) = self.message() {
            self.fold(&mut cut);
        }
        let code = match end {
            End::Exited { code } => code.to_string(),
            End::Signaled { signal } => (128 + signal).to_string(),
            End::NeverStarted { .. } | End::TimedOut | End::Idle | End::Cancelled | End::Lost => String::new(),
        };
        let failed = self.claim.ok != Some(true) && !code.is_empty() && code != "0";
        // Without a closing event the last word is on standard error, whatever was retried before.
        let settled = self.claim.ok.is_some() && self.claim.failure.as_ref().is_some_and(|f| f.outcome.is_some());
        if failed && !settled {
            let said = |line: &String| {
                let fields = BTreeMap::from([("stderr".to_owned(), line.clone()), ("exit".to_owned(), code.clone())]);
                self.table.classify(&fields).map(|outcome| (Some(outcome), summary(line)))
            };
            let last = || self.stderr.iter().rev().map(|l| (None, summary(l))).find(|(_, words)| !words.is_empty());
            if let Some((outcome, message)) = self.stderr.iter().rev().find_map(said).or_else(last)
                && (outcome.is_some() || self.claim.failure.is_none())
            {
                // A closing event's own words say more than a line of a stack trace.
                let told = self.claim.failure.take().filter(|f| self.claim.ok.is_some() && !f.message.is_empty());
                self.claim.failure = Some(Failure { outcome, message: told.map_or(message, |f| f.message) });
            }
        }
        if self.kind == ParserKind::Text && code == "0" {
            self.read_answer(&code);
        }
        if self.gave_up.is_some() {
            self.claim.failure = self.gave_up.take();
            self.claim.stuck_on_error = true;
        }
        let begun = if self.cut { BEGINNING_LEFT_OUT } else { "" };
        let report = format!("{begun}{}", self.report.trim());
        self.claim.report_bytes = report.len() as u64;
        (self.claim, report)
    }
}

impl Listener for Stream {
    fn stdout_line(&mut self, line: &str) -> Heard {
        let events = match self.kind {
            ParserKind::Text => {
                // The output is the report; only its end is kept.
                if self.report.len() + line.len() > 2 * MAX_REPORT {
                    self.report = tail(&self.report, MAX_REPORT).to_owned();
                    self.cut = true;
                }
                self.cut |= line.len() > MAX_REPORT;
                self.report.push_str(tail(line, MAX_REPORT));
                self.report.push('\n');
                return Heard { progress: true, ..Heard::default() };
            }
            ParserKind::Terminal => return Heard::default(),
            ParserKind::Acp => {
                let heard = self.acp.as_mut().map(|acp| acp.line(line)).unwrap_or_default();
                let progress = heard.progress;
                let taken = self.take_turn(heard);
                return Heard { progress: progress || taken.progress, ..taken };
            }
            ParserKind::ClaudeStreamJson => claude::parse(line),
            ParserKind::CodexJson => codex::parse(line),
            ParserKind::GeminiStreamJson => return self.joined(gemini::parse(line)),
            ParserKind::KimiStreamJson => kimi::parse(line),
        };
        self.take(events)
    }

    fn stderr_line(&mut self, line: &str) -> Heard {
        if self.stderr.len() == STDERR_LINES {
            self.stderr.pop_front();
        }
        self.stderr.push_back(drawn(line).chars().take(2000).collect());
        // Noise on standard error is progress only for workers that have no event stream.
        Heard { progress: self.kind == ParserKind::Text, ..Heard::default() }
    }

    fn notice(&mut self, notice: &Notice) -> Heard {
        let heard = self.turns.notice(notice);
        self.take_turn(heard)
    }

    fn drew(&mut self) -> Heard {
        // A program that tells nothing else is at work while it runs, and moves when it draws.
        if self.kind != ParserKind::Text {
            return Heard::default();
        }
        let state = Event::State { state: WorkerState::Working, source: StateSource::Process, detail: None };
        Heard { progress: true, events: vec![state], ..Heard::default() }
    }

    fn hook(&mut self, payload: &str) -> Heard {
        let heard = self.turns.hook(payload);
        self.take_turn(heard)
    }

    fn screen(&mut self, text: &str) -> Heard {
        if self.kind == ParserKind::Text {
            self.keep(text);
        }
        // A CLI that ends with an error writes it where standard error goes as well: to its terminal.
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        let last = lines.len().saturating_sub(STDERR_LINES);
        self.stderr = lines[last..].iter().map(|line| line.chars().take(2000).collect()).collect();
        let heard = self.turns.screen(text);
        self.take_turn(heard)
    }

    fn asks(&self, text: &str) -> bool {
        self.turns.asks(text)
    }

    fn permit(&mut self, allow: bool, more: bool) -> Permit {
        if !allow {
            self.claim.denied += 1;
        }
        match &mut self.acp {
            Some(acp) => acp.permit(allow),
            None => self.turns.permit(allow, more),
        }
    }

    fn asks_next(&self) -> Option<String> {
        self.acp.as_ref().and_then(Acp::asks_next)
    }

    fn begin(&mut self) -> Vec<String> {
        self.acp.as_mut().map(Acp::begin).unwrap_or_default()
    }

    fn say(&mut self, text: &str) -> Option<(Vec<String>, bool)> {
        self.acp.as_mut().map(|acp| acp.say(text))
    }

    fn cancel(&mut self) -> Vec<String> {
        self.acp.as_mut().map(Acp::cancel).unwrap_or_default()
    }

    fn gave_up(&mut self, outcome: Outcome, message: &str) {
        self.gave_up = Some(Failure { outcome: Some(outcome), message: summary(message) });
    }
}

impl Stream {
    /// Reads what the CLI's own transcript says, once the worker that ran in `cwd` is gone.
    pub fn read_transcript(&mut self, env: &BTreeMap<String, String>, cwd: &str) {
        let told = match self.kind {
            ParserKind::Terminal | ParserKind::Acp => self.turns.transcript(env, cwd),
            // Its event stream tells everything but what was used.
            ParserKind::KimiStreamJson => transcript::read(Dialect::Kimi, None, env, cwd)
                .map(|told| transcript::Told { report: None, error: None, ..told }),
            ParserKind::Text | ParserKind::ClaudeStreamJson | ParserKind::CodexJson | ParserKind::GeminiStreamJson => {
                None
            }
        };
        let Some(told) = told else { return };
        merge(&mut self.claim.usage, &told.usage);
        self.claim.session = told.session.or(self.claim.session.take());
        if let Some(report) = told.report {
            self.keep(&report);
        }
        if let Some(mut error) = told.error {
            self.fold(&mut error);
            self.claim.ok = Some(false);
        }
    }
}

fn merge(into: &mut Usage, from: &Usage) {
    into.input_tokens = from.input_tokens.or(into.input_tokens);
    into.output_tokens = from.output_tokens.or(into.output_tokens);
    into.cache_read_tokens = from.cache_read_tokens.or(into.cache_read_tokens);
    into.cache_write_tokens = from.cache_write_tokens.or(into.cache_write_tokens);
    into.cost_micro_usd = from.cost_micro_usd.or(into.cost_micro_usd);
    into.source = from.source.clone().or(into.source.take());
}

/// The last `max` bytes of a text, cut at a character.
pub(super) fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
