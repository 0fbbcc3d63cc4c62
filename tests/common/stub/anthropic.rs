//! Anthropic Messages, as Claude Code uses it.

use serde_json::{Value, json};

use super::FailKind::{self, Context, Plain, UsageLimit};
use super::{Answer, Piece, Tool, Turn};

/// Messages made of blocks; a tool result is a block of the user's.
pub(super) fn read(body: &Value) -> Turn<'_> {
    let tools = body["tools"].as_array().into_iter().flatten().filter_map(|tool| {
        Some(Tool { name: tool["name"].as_str()?, schema: &tool["input_schema"], free_form: false })
    });
    let mut turn = Turn { tools: tools.collect(), ..Turn::default() };
    for message in body["messages"].as_array().into_iter().flatten() {
        for block in message["content"].as_array().map_or(std::slice::from_ref(message), Vec::as_slice) {
            if block["type"] == "tool_result" {
                turn.tool_answered(block["tool_use_id"].as_str().unwrap_or(""));
            } else if message["role"] == "assistant" {
                turn.model_spoke();
            } else if let Some(text) = block["text"].as_str().or(block["content"].as_str())
                && message["role"] == "user"
            {
                turn.user_said(text);
            }
        }
    }
    turn
}

pub(super) fn error(status: u16, kind: FailKind, model: &str) -> Value {
    let (name, message) = match (kind, status) {
        (Context, _) => ("invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
        (UsageLimit, _) => {
            ("rate_limit_error", "This request would exceed your account's rate limit. Please try again later.")
        }
        (Plain, 400) => ("invalid_request_error", "stub bad request"),
        (Plain, 401) => ("authentication_error", "invalid x-api-key"),
        (Plain, 403) => ("permission_error", "Internal server error"),
        (Plain, 404) => ("not_found_error", &*format!("model: {model}")),
        (Plain, 429) => ("rate_limit_error", "This request would exceed your organization's rate limit"),
        (Plain, 529) => ("overloaded_error", "Overloaded"),
        (Plain, _) => ("api_error", "Internal server error"),
    };
    json!({ "type": "error", "error": { "type": name, "message": message } })
}

pub(super) fn message(answer: &Answer) -> Value {
    let (block, stop) = match &answer.piece {
        Piece::Text(text) => (json!({ "type": "text", "text": text }), "end_turn"),
        Piece::Call { tool, input } => (
            json!({ "type": "tool_use", "id": format!("toolu_{}", answer.id), "name": tool, "input": input }),
            "tool_use",
        ),
    };
    json!({ "id": format!("msg_{}", answer.id), "type": "message", "role": "assistant", "model": answer.model,
        "content": [block], "stop_reason": stop, "stop_sequence": null, "usage": { "input_tokens": 1200,
        "output_tokens": 34, "cache_creation_input_tokens": 50, "cache_read_input_tokens": 100 } })
}

/// The stream that builds up the message.
pub(super) fn events(answer: &Answer) -> Vec<Value> {
    let message = message(answer);
    let (mut start, mut block) = (message.clone(), message["content"][0].clone());
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let delta = if block["type"] == "text" {
        json!({ "type": "text_delta", "text": std::mem::replace(&mut block["text"], json!("")) })
    } else {
        let input = std::mem::replace(&mut block["input"], json!({}));
        json!({ "type": "input_json_delta", "partial_json": input.to_string() })
    };
    let end = json!({ "stop_reason": message["stop_reason"], "stop_sequence": null });
    vec![
        json!({ "type": "message_start", "message": start }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": end, "usage": message["usage"] }),
        json!({ "type": "message_stop" }),
    ]
}
