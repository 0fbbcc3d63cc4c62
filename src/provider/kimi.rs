//! Kimi Code's `--output-format stream-json`, as 2.1.0 writes it.
//!
//! The last line of a success is the hint how to resume the session. A failure has no closing
//! event: it is exit code 1 and one line on standard error, which the failure table knows. There
//! are no token counts on standard output, so usage stays unknown.

use serde_json::Value;

use super::json::{field, fields, text_at};
use crate::domain::event::Event;

pub(super) fn parse(line: &str) -> Vec<Event> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    match (text_at(&value, "/role"), text_at(&value, "/type")) {
        ("assistant", _) => assistant(&value),
        // Whether a tool succeeded is not told.
        ("tool", _) => vec![Event::ToolResult { ok: true, text: text_at(&value, "/content").to_owned() }],
        ("meta", "turn.step.retrying") => vec![retrying(&value)],
        ("meta", "session.resume_hint") => vec![
            Event::Init { session: field(&value, "/session_id"), model: None },
            Event::Result { ok: true, text: String::new() },
        ],
        _ => Vec::new(),
    }
}

fn assistant(value: &Value) -> Vec<Event> {
    let text = field(value, "/content").map(|text| Event::Text { text });
    let calls = value.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    let calls = calls.map(|call| Event::ToolUse {
        name: text_at(call, "/function/name").to_owned(),
        input: text_at(call, "/function/arguments").to_owned(),
    });
    text.into_iter().chain(calls).collect()
}

fn retrying(value: &Value) -> Event {
    let message = text_at(value, "/error_message").to_owned();
    let fields = fields(&[
        ("status", field(value, "/status_code")),
        ("error", field(value, "/error_name")),
        ("message", Some(message.clone())),
    ]);
    Event::Error { class: None, message: format!("retrying after {message}"), retrying: true, fields }
}
