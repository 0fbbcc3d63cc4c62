//! OpenAI Responses, as Codex uses it.

use serde_json::{Value, json};

use super::FailKind::{self, Context, UsageLimit};
use super::{Answer, LIMIT_RESET, Piece, Tool, Turn};

/// A list of items; a tool call and its output are items without a role.
pub(super) fn read(body: &Value) -> Turn<'_> {
    let tools = body["tools"].as_array().into_iter().flatten().filter_map(|tool| {
        let free_form = tool["type"] == "custom";
        Some(Tool { name: tool["name"].as_str()?, schema: &tool["parameters"], free_form })
    });
    let mut turn = Turn { tools: tools.collect(), ..Turn::default() };
    for item in body["input"].as_array().into_iter().flatten() {
        let kind = item["type"].as_str().unwrap_or("");
        if kind.ends_with("_output") {
            turn.tool_answered(item["call_id"].as_str().unwrap_or(""));
        } else if item["role"] == "assistant" || kind.ends_with("_call") {
            turn.model_spoke();
        } else if item["role"] == "user" {
            let parts = item["content"].as_array().map_or(std::slice::from_ref(item), Vec::as_slice);
            let texts = parts.iter().filter_map(|part| part["text"].as_str().or(part["content"].as_str()));
            texts.for_each(|text| turn.user_said(text));
        }
    }
    turn
}

pub(super) fn error(status: u16, kind: FailKind, model: &str) -> Value {
    if kind == UsageLimit {
        return json!({ "error": { "type": "usage_limit_reached", "plan_type": "plus",
            "message": "The usage limit has been reached", "resets_at": LIMIT_RESET, "resets_in_seconds": 3600 } });
    }
    let no_model = format!("The model `{model}` does not exist or you do not have access to it.");
    let (code, message) = match (kind, status) {
        (Context, _) => ("context_length_exceeded", "Your input exceeds the context window of this model."),
        (_, 400) => ("invalid_request", "stub bad request"),
        (_, 401) => ("invalid_api_key", "Incorrect API key provided: sk-test."),
        (_, 404) => ("model_not_found", &*no_model),
        (_, 429) => ("rate_limit_exceeded", "Rate limit reached for requests"),
        _ => ("server_error", "The server had an error while processing your request"),
    };
    let name = if status < 429 { "invalid_request_error" } else { "server_error" };
    json!({ "error": { "message": message, "type": name, "param": null, "code": code } })
}

/// The stream of one answer. No deltas: Codex acts on whole items only.
pub(super) fn events(answer: &Answer) -> Vec<Value> {
    let (id, call_id) = (answer.id, format!("toolu_{}", answer.id));
    let mut item = match &answer.piece {
        Piece::Text(text) => json!({ "type": "message", "role": "assistant",
            "content": [{ "type": "output_text", "text": text, "annotations": [] }] }),
        Piece::Call { tool, input: Value::String(input) } => {
            json!({ "type": "custom_tool_call", "call_id": call_id, "name": tool, "input": input })
        }
        Piece::Call { tool, input } => {
            json!({ "type": "function_call", "call_id": call_id, "name": tool, "arguments": input.to_string() })
        }
    };
    item["id"] = json!(format!("item_{id}"));
    let response = |status: &str, output: Value, usage: Value| {
        json!({ "id": format!("resp_{id}"), "object": "response", "created_at": 0, "model": answer.model,
            "status": status, "output": output, "usage": usage })
    };
    let usage = json!({ "input_tokens": 1200, "input_tokens_details": { "cached_tokens": 100 }, "output_tokens": 34,
        "output_tokens_details": { "reasoning_tokens": 8 }, "total_tokens": 1234 });
    vec![
        json!({ "type": "response.created", "response": response("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
        json!({ "type": "response.completed", "response": response("completed", json!([item]), usage) }),
    ]
}
