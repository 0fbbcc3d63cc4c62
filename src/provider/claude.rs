//! Claude Code's `--output-format stream-json --verbose`, as 2.1.329 writes it.
//!
//! The closing event is `type=result`; its `subtype` says "success" even on an API error, so
//! only `is_error` counts. Assistant events repeat the usage of the message's start: usage is
//! taken from the closing event alone.

use serde_json::Value;

use super::json::{count_at, field, fields, text_at};
use crate::domain::event::{Event, Usage};

pub(super) fn parse(line: &str) -> Vec<Event> {
    // A line that is not JSON is a stray print of some tool: recorded, but no event.
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    match text_at(&value, "/type") {
        "system" => system(&value),
        "assistant" => assistant(&value),
        "user" => tool_results(&value),
        "result" => result(&value),
        _ => Vec::new(),
    }
}

/// What an answer was cut off by: the context window or the output limit.
fn cut(value: &Value) -> Option<String> {
    field(value, "/api_error_params/cut")
}

fn system(value: &Value) -> Vec<Event> {
    match text_at(value, "/subtype") {
        "init" => vec![Event::Init { session: field(value, "/session_id"), model: field(value, "/model") }],
        "api_retry" => {
            let (status, error) = (field(value, "/error_status"), field(value, "/error"));
            let message =
                format!("retrying after {} ({})", status.as_deref().unwrap_or("?"), error.as_deref().unwrap_or("?"));
            let fields = fields(&[("status", status), ("error", error)]);
            vec![Event::Error { class: None, message, retrying: true, fields }]
        }
        _ => Vec::new(),
    }
}

fn assistant(value: &Value) -> Vec<Event> {
    let Some(blocks) = value.pointer("/message/content").and_then(Value::as_array) else {
        return Vec::new();
    };
    let failed = value.get("is_api_error_message").and_then(Value::as_bool) == Some(true);
    let mut events = Vec::new();
    for block in blocks {
        match text_at(block, "/type") {
            "text" if failed => {
                let message = text_at(block, "/text").to_owned();
                let fields = fields(&[
                    ("error", field(value, "/error")),
                    ("cut", cut(value)),
                    ("message", Some(message.clone())),
                ]);
                events.push(Event::Error { class: None, message, retrying: false, fields });
            }
            "text" => events.push(Event::Text { text: text_at(block, "/text").to_owned() }),
            "thinking" => events.push(Event::Thinking { text: text_at(block, "/thinking").to_owned() }),
            "tool_use" => events.push(Event::ToolUse {
                name: text_at(block, "/name").to_owned(),
                input: block.get("input").map(Value::to_string).unwrap_or_default(),
            }),
            _ => {}
        }
    }
    events
}

fn tool_results(value: &Value) -> Vec<Event> {
    let Some(blocks) = value.pointer("/message/content").and_then(Value::as_array) else {
        return Vec::new();
    };
    let results = blocks.iter().filter(|b| text_at(b, "/type") == "tool_result");
    results
        .map(|block| Event::ToolResult {
            ok: block.get("is_error").and_then(Value::as_bool) != Some(true),
            text: match block.get("content") {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            },
        })
        .collect()
}

fn result(value: &Value) -> Vec<Event> {
    let ok = value.get("is_error").and_then(Value::as_bool) == Some(false);
    // An answer that was held to a schema stands beside the words.
    let structured = value.get("structured_output").filter(|answer| answer.is_object());
    let text = structured.map_or_else(|| text_at(value, "/result").to_owned(), Value::to_string);
    let mut events = vec![Event::Usage(usage(value))];
    let denied = value.get("permission_denials").and_then(Value::as_array).map_or(0, Vec::len);
    if denied > 0 {
        events.push(Event::Denied { count: denied as u64 });
    }
    if !ok {
        let fields = fields(&[
            ("status", field(value, "/api_error_status")),
            ("api_error", field(value, "/api_error")),
            ("api_error_type", field(value, "/api_error_type")),
            ("terminal_reason", field(value, "/terminal_reason")),
            ("cut", cut(value)),
            ("subtype", field(value, "/subtype")),
            ("message", Some(text.clone())),
        ]);
        events.push(Event::Error { class: None, message: text.clone(), retrying: false, fields });
    }
    events.push(Event::Result { ok, text });
    events
}

fn usage(value: &Value) -> Usage {
    Usage {
        input_tokens: count_at(value, "/usage/input_tokens"),
        output_tokens: count_at(value, "/usage/output_tokens"),
        cache_read_tokens: count_at(value, "/usage/cache_read_input_tokens"),
        cache_write_tokens: count_at(value, "/usage/cache_creation_input_tokens"),
        cost_micro_usd: value.get("total_cost_usd").and_then(Value::as_f64).and_then(micro_usd),
        source: Some("claude:result".to_owned()),
        ..Usage::default()
    }
}

/// Dollars as the CLI prints them to whole millionths.
pub(super) fn micro_usd(dollars: f64) -> Option<u64> {
    let micros = (dollars * 1e6).round();
    // Exact below 2^53, which is nine thousand million dollars.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..9e15).contains(&micros).then_some(micros as u64)
}
