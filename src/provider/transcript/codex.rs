//! Codex's rollout files.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Told, lines, text};
use crate::domain::event::{Event, Usage};

/// The worktree of a dispatch is its own, so the folder names the session.
pub(super) fn ran_in(path: &Path, cwd: &str) -> bool {
    let first = lines(path).next();
    first.is_some_and(|line| line.pointer("/payload/cwd").and_then(Value::as_str) == Some(cwd))
}

/// Codex writes the thread's total after every answer, and what became of each turn.
pub(super) fn read(path: &Path) -> Told {
    let mut told = Told::default();
    for line in lines(path) {
        let kind = text(&line, "/type").unwrap_or_default();
        match (kind.as_str(), text(&line, "/payload/type").unwrap_or_default().as_str()) {
            ("session_meta", _) => told.session = text(&line, "/payload/id"),
            ("token_usage_record", _) => {
                let usage =
                    line.pointer("/payload/thread_token_usage").map(crate::provider::codex::usage).unwrap_or_default();
                told.usage = Usage { source: Some("codex:rollout".to_owned()), ..usage };
            }
            ("event_msg", "task_complete") => {
                told.report = text(&line, "/payload/last_agent_message");
                told.error = text(&line, "/payload/error/message").map(|message| Event::Error {
                    class: None,
                    fields: BTreeMap::from([("message".to_owned(), message.clone())]),
                    message,
                    retrying: false,
                });
            }
            _ => {}
        }
    }
    told
}
