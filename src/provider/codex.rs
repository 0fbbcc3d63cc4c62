//! Codex's `exec --json`, as 0.169.0 writes it.
//!
//! `type=error` is not terminal: retries come as "Reconnecting… 1/5 (why)". The closing events
//! are `turn.completed` and `turn.failed`, whose message is the only error signal there is.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{count_at, text_at};
use crate::domain::event::{Event, Usage};

pub(super) fn parse(line: &str) -> Vec<Event> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    match text_at(&value, "/type") {
        "thread.started" => vec![Event::Init { session: Some(text_at(&value, "/thread_id").to_owned()), model: None }],
        "item.started" => item_started(&value),
        "item.completed" => item_completed(&value),
        "error" => vec![error(text_at(&value, "/message"))],
        "turn.completed" => {
            let usage = value.get("usage").map(usage).unwrap_or_default();
            vec![Event::Usage(usage), Event::Result { ok: true, text: String::new() }]
        }
        "turn.failed" => {
            let message = text_at(&value, "/error/message");
            vec![error(message), Event::Result { ok: false, text: String::new() }]
        }
        _ => Vec::new(),
    }
}

fn error(message: &str) -> Event {
    // "Reconnecting... 4/5 (unexpected status 401 …)" and "Reconnecting... waiting for network (…)".
    let retrying = message.starts_with("Reconnecting...");
    let cause = match (retrying, message.split_once(" (")) {
        (true, Some((_, cause))) => cause.strip_suffix(')').unwrap_or(cause),
        _ => message,
    };
    let fields = BTreeMap::from([("message".to_owned(), cause.to_owned())]);
    Event::Error { class: None, message: message.to_owned(), retrying, fields }
}

fn item_started(value: &Value) -> Vec<Event> {
    match text_at(value, "/item/type") {
        "command_execution" => {
            vec![Event::ToolUse { name: "command".to_owned(), input: text_at(value, "/item/command").to_owned() }]
        }
        _ => Vec::new(),
    }
}

fn item_completed(value: &Value) -> Vec<Event> {
    let text = || text_at(value, "/item/text").to_owned();
    match text_at(value, "/item/type") {
        "agent_message" => vec![Event::Text { text: text() }],
        "reasoning" => vec![Event::Thinking { text: text() }],
        "command_execution" => vec![Event::ToolResult {
            ok: value.pointer("/item/exit_code").and_then(Value::as_i64) == Some(0),
            text: text_at(value, "/item/aggregated_output").to_owned(),
        }],
        "file_change" | "mcp_tool_call" | "web_search" => vec![Event::ToolResult {
            ok: text_at(value, "/item/status") != "failed",
            text: value.pointer("/item").map(Value::to_string).unwrap_or_default(),
        }],
        // A warning such as missing model metadata; the turn goes on.
        _ => Vec::new(),
    }
}

/// `input_tokens` includes what came from the cache.
pub(super) fn usage(value: &Value) -> Usage {
    let cached = count_at(value, "/cached_input_tokens");
    Usage {
        input_tokens: count_at(value, "/input_tokens").map(|n| n.saturating_sub(cached.unwrap_or(0))),
        output_tokens: count_at(value, "/output_tokens"),
        cache_read_tokens: cached,
        cache_write_tokens: count_at(value, "/cache_write_input_tokens"),
        source: Some("codex:turn.completed".to_owned()),
        ..Usage::default()
    }
}
