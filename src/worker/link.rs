//! What connects a supervisor with its worker: two pipes or a terminal.

use super::pipes::Pipes;
use super::record::Recorder;
use super::terminal::Terminal;
use crate::domain::event::{Event, Heard, Listener, Reply, StateSource, WorkerState};
use crate::domain::line::summary;

/// What came.
#[derive(Debug)]
pub(super) enum Got {
    /// So many bytes of standard output; 0 is its end.
    Out(usize),
    /// The same of standard error.
    Err(usize),
    /// The same of a terminal.
    Terminal(usize),
    /// The worker has read all that it was given.
    Written,
}

/// What it amounted to, for the loop.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The idle deadline starts again.
    pub(super) progress: bool,
    /// The worker said its last word.
    pub(super) closing: bool,
    /// The last thing that was heard is an error that the CLI tries again after.
    pub(super) trouble: bool,
    /// That error, in the CLI's words.
    pub(super) error: Option<String>,
    /// What it said last that it does.
    pub(super) doing: Option<String>,
    /// The states it went through, in order, and what it waits for in each.
    pub(super) states: Vec<(WorkerState, StateSource, Option<String>)>,
    /// Keys that answer a dialog.
    pub(super) keys: Option<String>,
    /// Lines for the worker to read.
    pub(super) writes: Vec<String>,
    /// What a hook prints.
    pub(super) reply: Option<Reply>,
}

impl Told {
    /// Adds what was heard next.
    pub(super) fn add(&mut self, heard: Heard) {
        let errors = heard.events.iter();
        let error =
            errors.filter_map(|e| if let Event::Error { message, .. } = e { Some(summary(message)) } else { None });
        self.error = error.rev().find(|text| !text.is_empty()).or(self.error.take());
        let trouble = heard.events.iter().any(|e| matches!(e, Event::Error { .. }));
        self.trouble = trouble || self.trouble && !heard.progress;
        self.progress |= heard.progress;
        // A turn that goes on was not over.
        let goes_on = |e: &Event| matches!(e, Event::State { state, .. } if state.is_within_a_turn());
        self.closing = heard.closing || self.closing && !heard.events.iter().any(goes_on);
        self.writes.extend(heard.writes);
        self.keys = heard.keys.or(self.keys.take());
        self.reply = heard.reply.or(self.reply.take());
        self.doing = heard.events.iter().rev().find_map(doing).or(self.doing.take());
        self.states.extend(heard.events.into_iter().filter_map(|event| match event {
            Event::State { state, source, detail } => Some((state, source, detail)),
            _ => None,
        }));
    }
}

/// What an event tells of what a worker does: the tool that it calls, or its own words.
fn doing(event: &Event) -> Option<String> {
    let text = match event {
        Event::ToolUse { name, input } => summary(&format!("{name} {input}")),
        Event::Text { text } => summary(text),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// The connection.
#[derive(Debug)]
pub(super) enum Link {
    /// Of the headless lane.
    Pipes(Pipes),
    /// Of the interactive lane.
    Terminal(Box<Terminal>),
}

impl Link {
    /// Somebody still holds the other end.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Pipes(pipes) => pipes.is_open(),
            Self::Terminal(terminal) => terminal.is_open(),
        }
    }

    /// Waits for something to happen on it. Cancel-safe.
    pub(super) async fn next(&mut self) -> Got {
        match self {
            Self::Pipes(pipes) => pipes.next().await,
            Self::Terminal(terminal) => terminal.next().await,
        }
    }

    /// Hands what was got to whoever understands it.
    pub(super) fn take(&mut self, got: &Got, listener: &mut dyn Listener, recorder: &mut Recorder) -> Told {
        match self {
            Self::Pipes(pipes) => pipes.take(got, listener, recorder),
            Self::Terminal(terminal) => terminal.take(got, listener, recorder),
        }
    }

    /// What was held back, once the worker is gone.
    pub(super) fn finish(&mut self, listener: &mut dyn Listener, recorder: &mut Recorder) {
        match self {
            Self::Pipes(pipes) => pipes.finish(listener, recorder),
            Self::Terminal(terminal) => terminal.finish(listener),
        }
    }

    /// Bytes of standard output (or of the terminal) and of standard error.
    pub(super) fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Pipes(pipes) => pipes.bytes(),
            Self::Terminal(terminal) => (terminal.bytes(), 0),
        }
    }

    /// The terminal, in the lane that has one.
    pub(super) fn terminal(&mut self) -> Option<&mut Terminal> {
        match self {
            Self::Pipes(_) => None,
            Self::Terminal(terminal) => Some(terminal),
        }
    }
}
