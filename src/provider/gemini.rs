//! Gemini CLI's `--output-format stream-json`, as 0.61.0 writes it.
//!
//! The closing event is `type=result`; its `status` is the verdict. An error has one structured
//! field, the text `[API Error: …]`, which quotes the API's JSON answer where the CLI has no words
//! of its own. Messages come in pieces, which [`super::Stream`] joins.

use serde_json::{Deserializer, Value};

use super::json::{count_at, field, fields, text_at};
use crate::domain::event::{Event, Usage};

pub(super) fn parse(line: &str) -> Vec<Event> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    match text_at(&value, "/type") {
        "init" => vec![Event::Init { session: field(&value, "/session_id"), model: field(&value, "/model") }],
        // The prompt comes back as a message of the user's.
        "message" if text_at(&value, "/role") == "assistant" => {
            vec![Event::Text { text: text_at(&value, "/content").to_owned() }]
        }
        "tool_use" => vec![Event::ToolUse {
            name: text_at(&value, "/tool_name").to_owned(),
            input: value.get("parameters").map(Value::to_string).unwrap_or_default(),
        }],
        "tool_result" => tool_result(&value),
        // A warning, or what an answer that cannot be used amounts to; the closing event follows.
        "error" => {
            let message = text_at(&value, "/message").to_owned();
            let fields = fields(&[("message", Some(message.clone()))]);
            vec![Event::Error { class: None, message, retrying: false, fields }]
        }
        "result" => result(&value),
        _ => Vec::new(),
    }
}

/// A command's exit code is not told: `error` means that the tool itself failed.
fn tool_result(value: &Value) -> Vec<Event> {
    let result =
        Event::ToolResult { ok: text_at(value, "/status") == "success", text: text_at(value, "/output").to_owned() };
    let refused = text_at(value, "/error/type") == "policy_violation";
    std::iter::once(result).chain(refused.then_some(Event::Denied { count: 1 })).collect()
}

fn result(value: &Value) -> Vec<Event> {
    let ok = text_at(value, "/status") == "success";
    let mut events = vec![Event::Usage(usage(value))];
    if !ok && value.get("error").is_some() {
        events.push(failure(text_at(value, "/error/message")));
    }
    events.push(Event::Result { ok, text: String::new() });
    events
}

/// The error that a turn ended with: below the last message, on the screen of its TUI. A chat of
/// which nothing came is removed from its files when it leaves.
pub(super) fn on_screen(screen: &str) -> Option<Event> {
    let lines: Vec<&str> = screen.lines().collect();
    let at = lines.iter().rposition(|line| line.starts_with("✕ "))?;
    let below = &lines[at + 1..];
    let is_message = |line: &&str| line.strip_prefix(" > ").is_some_and(|said| said.starts_with(|c| c != ' '));
    if below.iter().any(is_message) {
        return None;
    }
    let wrapped = below.iter().take_while(|line| line.starts_with("  ")).map(|line| line.trim());
    let said: Vec<&str> = std::iter::once(lines[at].trim_start_matches("✕ ")).chain(wrapped).collect();
    Some(failure(&said.join(" ")))
}

fn failure(said: &str) -> Event {
    let cause = said.strip_prefix("[API Error: ").unwrap_or(said);
    let answer = Deserializer::from_str(cause).into_iter::<Value>().next().and_then(Result::ok).unwrap_or(Value::Null);
    // After the bracket stands the advice that goes with every 429.
    let (words, hint) = cause.rsplit_once("]\n").map_or((cause, None), |(words, hint)| (words, Some(hint.to_owned())));
    let words = words.strip_suffix(']').unwrap_or(words).to_owned();
    let message = field(&answer, "/error/message").unwrap_or(words);
    let fields = fields(&[
        ("status", field(&answer, "/error/code")),
        ("error", field(&answer, "/error/status")),
        ("message", Some(message.clone())),
        ("hint", hint),
    ]);
    Event::Error { class: None, message, retrying: false, fields }
}

/// `input` is without what came from the cache. `output_tokens` is without the thoughts, which
/// only the total has.
fn usage(value: &Value) -> Usage {
    let (total, read) = (count_at(value, "/stats/total_tokens"), count_at(value, "/stats/input_tokens"));
    Usage {
        input_tokens: count_at(value, "/stats/input"),
        output_tokens: total.zip(read).map(|(total, read)| total.saturating_sub(read)),
        cache_read_tokens: count_at(value, "/stats/cached"),
        cache_write_tokens: None,
        source: Some("gemini:result".to_owned()),
        ..Usage::default()
    }
}
