//! Why a supervisor does not give its worker a text or an answer, and what to do then.

use serde::{Deserialize, Serialize};

use crate::domain::DispatchId;
use crate::domain::event::WorkerState;

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", content = "of", rename_all = "snake_case")]
pub enum Refusal {
    /// The worker has ended; its dispatch is about to close.
    Ended,
    /// Its lane takes no messages.
    Lane,
    /// Another message is on its way.
    Sending,
    /// The CLI is not ready yet.
    Starting,
    /// It waits for a permission, not for a text.
    Permission,
    /// It shows something that vnx cannot answer.
    Blocked,
    /// There is nothing in the text.
    Empty,
    /// A character that would act on the CLI instead of being read by it.
    Control(char),
    /// The program takes no pasted text.
    OneLine,
    /// The CLI takes a text that begins like this for a command.
    Command(char),
    /// There is no terminal to write to.
    NoTerminal,
    /// It waits for no permission; this is what it does.
    NotAsking(WorkerState),
    /// The hook that asked is gone, or the CLI has no key for this answer.
    NoWay,
}

impl Refusal {
    /// What stands against it.
    pub fn why(self) -> String {
        match self {
            Self::Ended => "the worker has ended".to_owned(),
            Self::Lane => "only the interactive and acp lanes take messages".to_owned(),
            Self::Sending => "another message is on its way".to_owned(),
            Self::Starting => "the CLI is not ready yet".to_owned(),
            Self::Permission => "the worker waits for a permission".to_owned(),
            Self::Blocked => "the worker is blocked".to_owned(),
            Self::Empty => "the text is empty".to_owned(),
            Self::Control(c) => format!("the text contains the control character U+{:04X}", u32::from(c)),
            Self::OneLine => {
                "the worker's program does not take pasted text (bracketed paste is off), so only one line can be sent"
                    .to_owned()
            }
            Self::Command(c) => format!("a message that begins with {c:?} is a command of this CLI"),
            Self::NoTerminal => "the worker has no terminal".to_owned(),
            Self::NotAsking(state) => format!("the worker waits for no permission, it is {}", state.word()),
            Self::NoWay => "the question cannot be answered from here any more".to_owned(),
        }
    }

    /// What to do next.
    pub fn fix(self, id: &DispatchId) -> String {
        match self {
            Self::Ended => format!("`vnx wait {id}` tells how it came out"),
            Self::Lane | Self::NoTerminal => {
                "messages need a dispatch with --lane interactive or --lane acp; `vnx logs -f` follows this one"
                    .to_owned()
            }
            Self::Sending => "send again when the other `vnx send` has returned".to_owned(),
            Self::Starting => "send again when `vnx ps` no longer says starting".to_owned(),
            Self::Permission => format!("answer it first: `vnx permit {id} allow|deny`"),
            Self::Blocked => format!("look at its screen and answer there: `vnx attach {id}`"),
            Self::Empty => "give a text with something in it".to_owned(),
            Self::Control(_) => format!("leave it out; keys can be pressed in `vnx attach {id}`"),
            Self::OneLine => format!("send one line at a time, or type it in `vnx attach {id}`"),
            Self::Command(_) => format!("give it in `vnx attach {id}`, or begin with another word"),
            Self::NotAsking(_) => "`vnx ps` shows what each worker waits for".to_owned(),
            Self::NoWay => format!("answer it on its screen: `vnx attach {id}`"),
        }
    }
}
