//! Gemini CLI's chats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Told, lines, text, total};
use crate::domain::event::Usage;
use crate::provider::json::count_at;

/// The newest session of a folder. Each folder that it ever ran in has a name of its own.
pub(super) fn session(home: &Path, cwd: &str) -> Option<PathBuf> {
    let projects: Value = serde_json::from_slice(&crate::sys::files::read(&home.join("projects.json")).ok()?).ok()?;
    let name = projects.get("projects")?.get(cwd)?.as_str()?;
    let chats = std::fs::read_dir(home.join("tmp").join(name).join("chats")).ok()?;
    let files = chats.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
    // Their names begin with the time. Those of its subagents are folders.
    files.max()
}

/// Each message has its figures, and comes again, under the same id, when a tool has answered.
pub(super) fn read(path: &Path) -> Told {
    let mut told = Told::default();
    let mut messages: BTreeMap<String, Usage> = BTreeMap::new();
    for line in lines(path) {
        told.session = text(&line, "/sessionId").or(told.session);
        if line["type"] == "gemini" {
            told.report = text(&line, "/content").filter(|said| !said.is_empty()).or(told.report);
            if let Some((id, usage)) = text(&line, "/id").zip(line.get("tokens").map(usage)) {
                messages.insert(id, usage);
            }
        }
    }
    if !messages.is_empty() {
        told.usage = total(messages.values(), "gemini:chat");
    }
    told
}

/// `input` is with what came from the cache, `output` without the thoughts.
fn usage(tokens: &Value) -> Usage {
    let count = |pointer: &str| count_at(tokens, pointer);
    Usage {
        input_tokens: count("/input").map(|all| all.saturating_sub(count("/cached").unwrap_or(0))),
        output_tokens: count("/output").map(|said| said + count("/thoughts").unwrap_or(0)),
        cache_read_tokens: count("/cached"),
        ..Usage::default()
    }
}
