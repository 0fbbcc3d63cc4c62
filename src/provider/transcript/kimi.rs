//! Kimi Code's wire files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Told, lines, text, total};
use crate::domain::event::{Event, Usage};
use crate::provider::json::count_at;

/// The newest session of a folder.
pub(super) fn session(home: &Path, cwd: &str) -> Option<PathBuf> {
    let ran_here =
        lines(&home.join("session_index.jsonl")).filter(|line| text(line, "/workDir").as_deref() == Some(cwd));
    ran_here.last().and_then(|line| text(&line, "/sessionDir")).map(PathBuf::from)
}

/// Every agent of a session has a file: the main one tells what was said, all of them what was used.
pub(super) fn read(session: &Path) -> Told {
    let mut told = Told { session: session.file_name().map(|n| n.to_string_lossy().into_owned()), ..Told::default() };
    let agents = std::fs::read_dir(session.join("agents")).into_iter().flatten().flatten();
    let mut used = Vec::new();
    for agent in agents {
        let main = agent.file_name() == "main";
        for line in lines(&agent.path().join("wire.jsonl")) {
            match line.get("type").and_then(Value::as_str) {
                Some("usage.record") => used.extend(line.get("usage").map(usage)),
                Some("context.append_loop_event") if main => {
                    let said = text(&line, "/event/part/text").filter(|_| line["event"]["part"]["type"] == "text");
                    told.report = said.or(told.report);
                }
                Some("turn.ended") if main => told.error = failure(&line),
                _ => {}
            }
        }
    }
    if !used.is_empty() {
        told.usage = total(used.iter(), "kimi:wire");
    }
    told
}

/// How a turn failed, in the words that `kimi -p` has for it: one table serves both lanes.
fn failure(ended: &Value) -> Option<Event> {
    let message = format!("{}: {}", text(ended, "/error/code")?, text(ended, "/error/message").unwrap_or_default());
    let fields = BTreeMap::from([("stderr".to_owned(), format!("error: failed to run prompt: {message}"))]);
    Some(Event::Error { class: None, message, retrying: false, fields })
}

fn usage(value: &Value) -> Usage {
    Usage {
        input_tokens: count_at(value, "/inputOther"),
        output_tokens: count_at(value, "/output"),
        cache_read_tokens: count_at(value, "/inputCacheRead"),
        cache_write_tokens: count_at(value, "/inputCacheCreation"),
        ..Usage::default()
    }
}
