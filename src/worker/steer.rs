//! Steering an interactive worker: texts, keys, permissions, hooks.
//!
//! A text is pasted in brackets, Enter follows as an event of its own, and then the worker has
//! to say that it took it: by a status report, a hook or a title. Without that word Enter is
//! pressed once more, and a few times more while the text is still to be seen; after that the
//! text is reported as `queued`.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::control::{Answer, Delivery, Refusal, Request};
use super::ending::Cause;
use super::link::Told;
use super::pipes::note;
use super::record::Source;
use super::run::Watch;
use super::serve::Ask;
use super::terminal::Terminal;
use crate::domain::event::{Event, Permit, Reply, StateSource, WorkerState};
use crate::domain::outcome::Outcome;
use crate::domain::plan::Interactive;

/// How long a worker may take to say that it took a text.
const PROOF: Duration = Duration::from_secs(2);
/// How much longer, if the text is no more to be seen.
const LATE: Duration = Duration::from_secs(8);
/// How long a program may take to take a text in.
const TAKEN_IN: Duration = Duration::from_secs(10);
/// How often Enter is pressed for a text, and for one that can still be seen.
const PRESSES: u32 = 2;
const PRESSES_SEEN: u32 = 5;
/// How soon a program that takes a text in is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(30);
/// How long a question must stand still before it is answered, and when it is answered at the latest: a program that
/// still draws it may throw away what is typed.
const STILL: Duration = Duration::from_millis(150);
const STILL_AT_LAST: Duration = Duration::from_secs(2);
/// Between two keys of one answer: programs take what comes at once for a paste.
const KEY_GAP: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum Stage {
    /// The worker has not read it all.
    Writing,
    /// Enter follows then; the text was written at the second moment.
    Enter(Instant, Instant),
    /// Enter was pressed so many times; the proof must come until then.
    Proof(Instant, u32),
}

#[derive(Debug)]
struct Sending {
    stage: Stage,
    /// The worker's state when the text came.
    state: WorkerState,
    /// How the text ends, to find it on the screen.
    tail: String,
    reply: oneshot::Sender<Answer>,
}

/// A permission that is answered by a key.
#[derive(Debug)]
struct Pressed {
    /// When to look: whether the question stands still, then what became of the answer.
    look: Instant,
    /// When it is pressed at the latest.
    latest: Instant,
    /// The screen before.
    screen: String,
    key: String,
    /// How often it was pressed.
    times: u32,
    /// What was asked for.
    asked: Option<String>,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Steering {
    sending: Option<Sending>,
    /// The worker said that it took a text.
    proven: Option<StateSource>,
    /// Keys to press, each at its time.
    keys: VecDeque<(Instant, Vec<u8>)>,
    /// An answer of which nothing has been heard yet.
    pressed: Option<Pressed>,
    /// Hooks that wait for a decision, and what each asks. The first one is what is shown, and what is answered.
    held: VecDeque<(Option<String>, oneshot::Sender<Answer>)>,
    /// What becomes of the first prompt.
    prompt: Option<oneshot::Receiver<Answer>>,
}

impl Steering {
    /// The state changed: a worker that begins to work has taken what it was given.
    pub(super) fn saw(&mut self, before: WorkerState, after: WorkerState, source: StateSource) {
        if after == WorkerState::Working && before != WorkerState::Working {
            self.proven = Some(source);
        }
        // What was not pressed yet is held against the screen: this report may be older than the question.
        if after != WorkerState::WaitingPermission {
            self.pressed.take_if(|pressed| pressed.times > 0);
        }
    }

    /// What was asked is settled: hooks that wait go on without an answer.
    pub(super) fn release(&mut self) {
        self.held.clear();
    }

    /// Presses keys, one after the other.
    pub(super) fn press(&mut self, keys: &[String]) {
        let mut at = self.keys.back().map_or_else(Instant::now, |(at, _)| *at + KEY_GAP);
        for key in keys {
            self.keys.push_back((at, key.clone().into_bytes()));
            at += KEY_GAP;
        }
    }

    /// Presses the keys that make a CLI leave; nothing that is under way comes before them.
    pub(super) fn quit(&mut self, keys: &[String]) {
        self.keys.clear();
        self.press(keys);
    }

    /// When something wants to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        let stage = self.sending.as_ref().and_then(|s| match s.stage {
            Stage::Writing => None,
            Stage::Enter(at, _) | Stage::Proof(at, _) => Some(at),
        });
        let look = self.pressed.as_ref().map(|pressed| pressed.look);
        stage.into_iter().chain(self.keys.front().map(|(at, _)| *at)).chain(look).min()
    }
}

/// Why a text cannot be pasted; `None` when it can.
fn unfit(text: &str, brackets: bool) -> Option<Refusal> {
    if text.trim().is_empty() {
        return Some(Refusal::Empty);
    }
    // Anything below a blank but tab and line feed would act on the CLI, and ESC could end the
    // bracketed paste (threat T-12).
    let bad = text.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
    bad.map(Refusal::Control).or_else(|| (!brackets && text.contains('\n')).then_some(Refusal::OneLine))
}

/// Whether a pasted text stands on the screen: its end, or what the CLI shows in its place.
fn is_shown(tail: &str, mark: Option<&str>, terminal: &Terminal) -> bool {
    let screen = terminal.screen().text();
    screen.contains(tail) || mark.is_some_and(|mark| screen.contains(mark))
}

impl Watch<'_> {
    /// Answers a connection.
    pub(super) fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Request(request, reply) => self.requested(request, reply),
            Ask::Attached(newcomer, reply) => {
                let answer = self.answer(self.state != WorkerState::Exited && self.interactive.is_some());
                // Whoever asked may be gone.
                let rings = self.state.needs_somebody();
                if reply.send(answer).is_ok()
                    && let Some(terminal) = self.link.terminal()
                {
                    terminal.attach(newcomer, rings);
                }
            }
            Ask::Typed(viewer, bytes) => {
                if let Some(terminal) = self.link.terminal() {
                    terminal.typed(viewer, &bytes);
                }
                // A person has taken over: it is not closed under their fingers.
                self.goes_on();
            }
            Ask::Resized(viewer, size) => {
                if let Some(terminal) = self.link.terminal() {
                    terminal.resized(viewer, size);
                }
            }
            Ask::Drained(viewer) => {
                if let Some(terminal) = self.link.terminal() {
                    terminal.drained(viewer);
                }
            }
            Ask::Left(viewer) => {
                if let Some(terminal) = self.link.terminal() {
                    terminal.left(viewer);
                }
            }
        }
    }

    fn requested(&mut self, request: Request, reply: oneshot::Sender<Answer>) {
        let answer = match request {
            Request::Status => self.answer(true),
            Request::Cancel { now } => {
                let accepted = self.cancel(now);
                self.answer(accepted)
            }
            // Answered where the connection is kept.
            Request::Attach { .. } => self.answer(false),
            Request::Send { text } => return self.send(&text, reply),
            Request::Permit { allow } => self.permit(allow),
            Request::Hook { payload } => return self.hook(&payload, reply),
        };
        let _ = reply.send(answer);
    }

    fn hook(&mut self, payload: &str, reply: oneshot::Sender<Answer>) {
        let mut told = Told::default();
        told.add(note(self.listener.hook(payload), self.recorder, Source::Hook, payload));
        let words = told.reply.take();
        self.heard(told);
        match words {
            Some(Reply::Held) => {
                self.steering.held.retain(|(_, held)| !held.is_closed());
                self.steering.held.push_back((self.detail.clone(), reply));
                if self.state == WorkerState::WaitingPermission
                    && let Some((first, _)) = self.steering.held.front()
                {
                    let first = first.clone();
                    self.go(WorkerState::WaitingPermission, StateSource::Hook, first);
                }
            }
            Some(Reply::Now(text)) => drop(reply.send(Answer { reply: Some(text), ..self.answer(true) })),
            None => drop(reply.send(self.answer(true))),
        }
    }

    fn permit(&mut self, allow: bool) -> Answer {
        if self.state != WorkerState::WaitingPermission {
            let ended = matches!(self.state, WorkerState::Exited | WorkerState::Ending);
            return self.refuse(if ended { Refusal::Ended } else { Refusal::NotAsking(self.state) });
        }
        self.steering.held.retain(|(_, held)| !held.is_closed());
        match self.listener.permit(allow, self.steering.held.len() > 1) {
            Permit::Hook(text) => {
                let answer = Answer { reply: Some(text), ..self.answer(true) };
                let told = self.steering.held.pop_front().is_some_and(|(_, held)| held.send(answer).is_ok());
                if !told {
                    return self.refuse(Refusal::NoWay);
                }
            }
            Permit::Keys(keys) => {
                let screen = self.link.terminal().map(|t| t.screen().text()).unwrap_or_default();
                let (now, asked) = (Instant::now(), self.detail.clone());
                let (look, latest) = (now + STILL, now + STILL_AT_LAST);
                self.steering.pressed = Some(Pressed { look, latest, screen, key: keys, times: 0, asked });
            }
            Permit::Lines(lines) => self.write_lines(lines),
            Permit::Nothing => return self.refuse(Refusal::NoWay),
        }
        self.go(WorkerState::Working, StateSource::Process, None);
        let answer = self.answer(true);
        let next = self.steering.held.front().map(|(asked, _)| (StateSource::Hook, asked.clone()));
        let next = next.or_else(|| self.listener.asks_next().map(|asked| (StateSource::Events, Some(asked))));
        if let Some((source, asked)) = next {
            self.go(WorkerState::WaitingPermission, source, asked);
        }
        answer
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        Answer { refusal: Some(refusal), ..self.answer(false) }
    }

    /// Why a text would be a command of the CLI.
    fn command_of(&self, text: &str) -> Option<Refusal> {
        let first = text.trim_start().chars().next()?;
        let is_command = self.interactive.as_ref().is_some_and(|i| i.refuse_before.contains(first));
        is_command.then_some(Refusal::Command(first))
    }

    /// Pastes the first prompt, once the CLI is ready for it.
    pub(super) fn paste_prompt(&mut self) {
        if self.state == WorkerState::Ready
            && let Some(text) = self.prompt.take()
        {
            let (reply, answer) = oneshot::channel();
            self.steering.prompt = Some(answer);
            self.send(&text, reply);
            self.check_prompt();
        }
    }

    /// A worker that was not given its prompt has nothing to do.
    fn check_prompt(&mut self) {
        let Some(Ok(answer)) = self.steering.prompt.as_mut().map(oneshot::Receiver::try_recv) else { return };
        self.steering.prompt = None;
        match answer.delivery {
            Some((Delivery::Queued | Delivery::Refused, why)) if self.ending.is_none() && self.closing.is_none() => {
                self.listener.gave_up(Outcome::PromptNotDelivered, &format!("the first prompt: {why}"));
                self.end(Cause::Unanswered);
            }
            // Whatever else ended the worker is told already.
            _ => {}
        }
    }

    fn send(&mut self, text: &str, reply: oneshot::Sender<Answer>) {
        let text = text.replace("\r\n", "\n");
        let text = text.trim_end_matches('\n');
        // Such a text would not be a message but a command of the CLI: `!` runs a shell.
        let blank = |i: &Interactive| text.trim_start().starts_with(|c| i.blank_before.contains(c));
        let guarded = self.interactive.as_ref().is_some_and(blank).then(|| format!(" {text}"));
        let text = guarded.as_deref().unwrap_or(text);
        let state = self.state;
        let brackets = self.link.terminal().is_some_and(|t| t.screen().brackets_paste());
        let refused = match state {
            WorkerState::Exited | WorkerState::Ending | WorkerState::Lost => Some(Refusal::Ended),
            _ if !self.is_steerable() => Some(Refusal::Lane),
            _ if self.steering.sending.is_some() => Some(Refusal::Sending),
            WorkerState::Starting => Some(Refusal::Starting),
            WorkerState::WaitingPermission => Some(Refusal::Permission),
            WorkerState::Blocked => Some(Refusal::Blocked),
            _ if self.say.is_some() => text.trim().is_empty().then_some(Refusal::Empty),
            _ => unfit(text, brackets).or_else(|| self.command_of(text)),
        };
        if refused.is_none()
            && let Some((lines, waits)) = self.listener.say(text)
        {
            self.write_lines(lines);
            self.goes_on();
            let (delivery, why) = if waits {
                (Delivery::Queued, "it follows when the turn is over")
            } else {
                self.go(WorkerState::Working, StateSource::Events, None);
                (Delivery::Delivered, "as a message of the protocol")
            };
            drop(reply.send(Answer { delivery: Some((delivery, why.to_owned())), ..self.answer(true) }));
            return;
        }
        let terminal = match (refused, self.link.terminal()) {
            (None, Some(terminal)) => terminal,
            (why, _) => {
                let why = why.unwrap_or(Refusal::NoTerminal);
                let delivery = Some((Delivery::Refused, why.why()));
                drop(reply.send(Answer { delivery, ..self.refuse(why) }));
                return;
            }
        };
        if brackets {
            terminal.write(b"\x1b[200~");
            terminal.write(text.as_bytes());
            terminal.write(b"\x1b[201~");
        } else {
            terminal.write(text.as_bytes());
        }
        self.goes_on();
        self.steering.proven = None;
        let last: Vec<char> = text.lines().last().unwrap_or_default().trim().chars().collect();
        let tail = last[last.len().saturating_sub(8)..].iter().collect();
        self.steering.sending = Some(Sending { stage: Stage::Writing, state, tail, reply });
        self.deliver();
    }

    /// Takes what is under way one step further, as far as it is time.
    pub(super) fn deliver(&mut self) {
        self.step();
        self.check_prompt();
    }

    /// Answers a question as soon as it stands still, then looks what became of the answer. While nothing at all has
    /// changed on the screen the key was swallowed and is pressed again: another question would look different. A
    /// question that still stands waits as before.
    fn press_again(&mut self, now: Instant) {
        let Some(pressed) = self.steering.pressed.take_if(|pressed| pressed.look <= now) else { return };
        let Some(terminal) = self.link.terminal() else { return };
        let screen = terminal.screen().text();
        let unchanged = screen == pressed.screen;
        let asks = self.listener.asks(&screen);
        if pressed.times == 0 {
            // What is still being drawn grows; anything else may be another question, which nobody has answered.
            let is_there = |line: &str| screen.lines().any(|now| now.starts_with(line.trim_end()));
            let grew = pressed.screen.lines().all(is_there);
            if !unchanged && grew && now < pressed.latest {
                self.steering.pressed = Some(Pressed { look: now + STILL, screen, ..pressed });
            } else if !unchanged && !grew {
                if asks {
                    self.ask_again(pressed.asked, "what is asked has changed before it was answered");
                }
            } else {
                terminal.write(pressed.key.as_bytes());
                self.steering.pressed = Some(Pressed { look: now + PROOF, times: 1, screen, ..pressed });
                if self.state == WorkerState::WaitingPermission {
                    self.go(WorkerState::Working, StateSource::Process, None);
                }
            }
        } else if self.state != WorkerState::Working {
            // What it asks now is another question, or it has ended.
        } else if unchanged && pressed.times < PRESSES_SEEN {
            terminal.write(pressed.key.as_bytes());
            self.steering.pressed = Some(Pressed { look: now + PROOF, times: pressed.times + 1, ..pressed });
        } else if unchanged || asks {
            self.ask_again(pressed.asked, "the answer had no effect");
        }
    }

    /// It waits for a person again.
    fn ask_again(&mut self, asked: Option<String>, why: &str) {
        if let Some(terminal) = self.link.terminal() {
            terminal.ring();
        }
        let (state, source) = (WorkerState::WaitingPermission, StateSource::Screen);
        let event = Event::State { state, source, detail: asked.clone() };
        self.recorder.line(Source::Vnx, why, vec![event]);
        self.go(state, source, asked);
    }

    fn step(&mut self) {
        let now = Instant::now();
        self.press_again(now);
        let gap = self.interactive.as_ref().map_or(Duration::ZERO, |i| i.submit_gap.duration());
        let mark = self.interactive.as_ref().and_then(|i| i.pasted.as_deref());
        let (state, over) = (self.state, matches!(self.state, WorkerState::Ending | WorkerState::Exited));
        let Some(terminal) = self.link.terminal() else { return };
        while self.steering.keys.front().is_some_and(|(at, _)| *at <= now) {
            terminal.write(&self.steering.keys.pop_front().map(|(_, keys)| keys).unwrap_or_default());
        }
        let Some(sending) = &mut self.steering.sending else { return };
        match sending.stage {
            Stage::Writing if terminal.is_written() => sending.stage = Stage::Enter(now + gap, now),
            // Enter would answer what came up meanwhile.
            Stage::Enter(..) if over || state != sending.state && state.needs_somebody() => {
                let why = "a question came up before it was submitted; it stands in the input".to_owned();
                self.delivered(Delivery::Queued, why);
            }
            // It is still taking the text in, and would swallow Enter: a long one takes it seconds.
            Stage::Enter(at, since)
                if at <= now
                    && now < since + TAKEN_IN
                    && mark.is_some()
                    && !is_shown(&sending.tail, mark, terminal) =>
            {
                sending.stage = Stage::Enter(now + LOOK_AGAIN.max(gap), since);
            }
            Stage::Enter(at, _) if at <= now => {
                terminal.write(b"\r");
                sending.stage = Stage::Proof(now + PROOF, 1);
            }
            // In another state Enter would answer something else.
            Stage::Proof(at, presses)
                if at <= now
                    && self.state == sending.state
                    && sending.state != WorkerState::Working
                    && (presses < PRESSES || presses < PRESSES_SEEN && is_shown(&sending.tail, mark, terminal)) =>
            {
                terminal.write(b"\r");
                sending.stage = Stage::Proof(now + PROOF, presses + 1);
            }
            // The text is gone from where it stood: Enter was taken, and a busy machine makes the word late.
            Stage::Proof(at, presses)
                if at <= now
                    && self.state == sending.state
                    && sending.state != WorkerState::Working
                    && presses < PRESSES_SEEN
                    && !is_shown(&sending.tail, mark, terminal) =>
            {
                sending.stage = Stage::Proof(now + LATE, PRESSES_SEEN);
            }
            Stage::Proof(at, _) if at <= now => {
                let why = if sending.state == WorkerState::Working {
                    "the worker is busy; its CLI has it in its input"
                } else {
                    "nothing shows that it was submitted"
                };
                self.delivered(Delivery::Queued, why.to_owned());
            }
            Stage::Writing | Stage::Enter(..) | Stage::Proof(..) => {}
        }
    }

    /// Looks whether the worker said that it took the text.
    pub(super) fn settle_delivery(&mut self) {
        let waits = matches!(self.steering.sending, Some(Sending { stage: Stage::Proof(..), .. }));
        match (waits, self.steering.proven.take()) {
            (true, Some(source)) => self.delivered(Delivery::Delivered, format!("known by {}", source.word())),
            (false, Some(source)) if self.steering.sending.is_some() => self.steering.proven = Some(source),
            _ => {}
        }
        self.deliver();
    }

    fn delivered(&mut self, delivery: Delivery, why: String) {
        if let Some(sending) = self.steering.sending.take() {
            let delivery = Some((delivery, why));
            drop(sending.reply.send(Answer { delivery, ..self.answer(true) }));
        }
    }

    /// The worker is gone: nobody waits for anything any more.
    pub(super) fn worker_is_gone(&mut self) {
        self.delivered(Delivery::Unknown, "the worker ended meanwhile".to_owned());
        self.steering.held.clear();
        self.steering.keys.clear();
    }
}
