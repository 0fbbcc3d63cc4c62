//! The Gemini API, as Gemini CLI uses it.

use serde_json::{Value, json};

use super::FailKind::{self, Context, Plain, UsageLimit};
use super::{Answer, Piece, Tool, Turn, halves};

/// Contents made of parts; a tool's answer is a part of the user's.
pub(super) fn read(body: &Value) -> Turn<'_> {
    let groups = body["tools"].as_array().into_iter().flatten();
    let tools = groups.filter_map(|group| group["functionDeclarations"].as_array()).flatten().filter_map(|tool| {
        let schema = tool.get("parametersJsonSchema").unwrap_or(&tool["parameters"]);
        Some(Tool { name: tool["name"].as_str()?, schema, free_form: false })
    });
    let mut turn = Turn { tools: tools.collect(), ..Turn::default() };
    for content in body["contents"].as_array().into_iter().flatten() {
        for part in content["parts"].as_array().into_iter().flatten() {
            if part["functionResponse"].is_object() {
                turn.tool_answered(part["functionResponse"]["id"].as_str().unwrap_or(""));
            } else if content["role"] == "model" {
                turn.model_spoke();
            } else if let Some(text) = part["text"].as_str() {
                turn.user_said(text);
            }
        }
    }
    turn
}

pub(super) fn error(status: u16, kind: FailKind, model: &str) -> Value {
    let no_model = format!("models/{model} is not found for API version v1beta");
    let (name, message) = match (kind, status) {
        (Context, _) => (
            "INVALID_ARGUMENT",
            "The input token count (2500000) exceeds the maximum number of tokens allowed (1048576).",
        ),
        (UsageLimit, _) | (Plain, 429) => ("RESOURCE_EXHAUSTED", "You exceeded your current quota"),
        (Plain, 400) => ("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        (Plain, 401) => ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
        (Plain, 403) => ("PERMISSION_DENIED", "Internal error encountered."),
        (Plain, 404) => ("NOT_FOUND", &*no_model),
        (Plain, 503) => ("UNAVAILABLE", "The model is overloaded. Please try again later."),
        (Plain, _) => ("INTERNAL", "Internal error encountered."),
    };
    let mut error = json!({ "code": status, "message": message, "status": name });
    if kind == UsageLimit {
        let quota = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
        error["details"] = json!([{ "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{ "quotaId": quota }] }]);
    }
    json!({ "error": error })
}

fn candidate(answer: &Answer, parts: &Value) -> Value {
    json!({ "candidates": [{ "index": 0, "content": { "role": "model", "parts": parts } }],
        "modelVersion": answer.model, "responseId": answer.id })
}

/// Adds what only the last piece of a stream has. Thoughts are counted beside the output, not in it.
fn closed(mut last: Value) -> Value {
    last["candidates"][0]["finishReason"] = json!("STOP");
    last["usageMetadata"] = json!({ "promptTokenCount": 1200, "cachedContentTokenCount": 100,
        "candidatesTokenCount": 26, "thoughtsTokenCount": 8, "totalTokenCount": 1234 });
    last
}

fn part(answer: &Answer) -> Value {
    match &answer.piece {
        Piece::Text(text) => json!({ "text": text }),
        Piece::Call { tool, input } => json!({ "functionCall": { "id": answer.id, "name": tool, "args": input } }),
    }
}

pub(super) fn response(answer: &Answer) -> Value {
    closed(candidate(answer, &json!([part(answer)])))
}

pub(super) fn events(answer: &Answer) -> Vec<Value> {
    let Piece::Text(text) = &answer.piece else { return vec![response(answer)] };
    let [first, second] = halves(text).map(|half| candidate(answer, &json!([{ "text": half }])));
    vec![first, closed(second)]
}
