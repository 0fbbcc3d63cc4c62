//! OpenAI Chat Completions, as Kimi Code uses it.

use serde_json::{Value, json};

use super::FailKind::{self, Context, UsageLimit};
use super::{Answer, Piece, Tool, Turn, halves, openai};

/// Messages; a tool result is a message of its own.
pub(super) fn read(body: &Value) -> Turn<'_> {
    let tools = body["tools"].as_array().into_iter().flatten().filter_map(|tool| {
        let function = &tool["function"];
        Some(Tool { name: function["name"].as_str()?, schema: &function["parameters"], free_form: false })
    });
    let mut turn = Turn { tools: tools.collect(), ..Turn::default() };
    for message in body["messages"].as_array().into_iter().flatten() {
        match message["role"].as_str() {
            Some("tool") => turn.tool_answered(message["tool_call_id"].as_str().unwrap_or("")),
            Some("assistant") => turn.model_spoke(),
            Some("user") => {
                let parts = message["content"].as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
                let texts = parts.iter().filter_map(|part| part["text"].as_str().or(part["content"].as_str()));
                texts.for_each(|text| turn.user_said(text));
            }
            _ => {}
        }
    }
    turn
}

pub(super) fn error(status: u16, kind: FailKind, model: &str) -> Value {
    let (code, message) = match kind {
        Context => (
            "context_length_exceeded",
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 250000 tokens.",
        ),
        UsageLimit => {
            ("insufficient_quota", "You exceeded your current quota, please check your plan and billing details.")
        }
        FailKind::Plain => return openai::error(status, kind, model),
    };
    json!({ "error": { "message": message, "type": code, "param": null, "code": code } })
}

fn usage() -> Value {
    json!({ "prompt_tokens": 1200, "completion_tokens": 34, "total_tokens": 1234,
        "prompt_tokens_details": { "cached_tokens": 100 }, "completion_tokens_details": { "reasoning_tokens": 8 } })
}

/// The parts of a message, one for each event of its stream, and the reason why it ends.
fn parts(answer: &Answer) -> (Vec<Value>, &'static str) {
    match &answer.piece {
        Piece::Text(text) => (halves(text).map(|half| json!({ "content": half })).into(), "stop"),
        Piece::Call { tool, input } => {
            let function = json!({ "name": tool, "arguments": input.to_string() });
            let call = json!({ "index": 0, "id": format!("call_{}", answer.id), "type": "function",
                "function": function });
            (vec![json!({ "tool_calls": [call] })], "tool_calls")
        }
    }
}

pub(super) fn completion(answer: &Answer) -> Value {
    let (parts, reason) = parts(answer);
    let mut message = json!({ "role": "assistant", "content": null });
    match &answer.piece {
        Piece::Text(text) => message["content"] = json!(text),
        Piece::Call { .. } => message["tool_calls"] = parts[0]["tool_calls"].clone(),
    }
    json!({ "id": format!("chatcmpl-{}", answer.id), "object": "chat.completion", "created": 0, "model": answer.model,
        "choices": [{ "index": 0, "message": message, "finish_reason": reason }], "usage": usage() })
}

pub(super) fn events(answer: &Answer) -> Vec<Value> {
    let (mut parts, reason) = parts(answer);
    parts.insert(0, json!({ "role": "assistant", "content": "" }));
    let chunk = |delta: Value, reason: Value, usage: Value| {
        json!({ "id": format!("chatcmpl-{}", answer.id), "object": "chat.completion.chunk", "created": 0,
            "model": answer.model, "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }],
            "usage": usage })
    };
    let mut chunks: Vec<Value> = parts.into_iter().map(|part| chunk(part, Value::Null, Value::Null)).collect();
    chunks.push(chunk(json!({}), json!(reason), usage()));
    chunks
}
