//! Claude Code's transcripts.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::lines;
use crate::domain::event::Usage;

/// Claude Code adds a total when it ends. Without one (it was killed) the messages are counted,
/// each once: every block of a message repeats its usage.
pub(super) fn read(path: &Path) -> Option<Usage> {
    let count = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
    let mut messages: BTreeMap<String, Usage> = BTreeMap::new();
    let mut total = None;
    for line in lines(path) {
        if let Some(usage) = line.pointer("/message/usage") {
            let id = line.pointer("/message/id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let one = Usage {
                input_tokens: count(usage, "input_tokens"),
                output_tokens: count(usage, "output_tokens"),
                cache_read_tokens: count(usage, "cache_read_input_tokens"),
                cache_write_tokens: count(usage, "cache_creation_input_tokens"),
                ..Usage::default()
            };
            messages.insert(id, one);
        }
        if let Some(models) = line.get("modelUsage").and_then(Value::as_object).filter(|models| !models.is_empty()) {
            let all = |key: &str| models.values().map(|model| count(model, key)).sum::<Option<u64>>();
            let priced = line.get("hasUnknownModelCost") == Some(&Value::Bool(false));
            total = Some(Usage {
                input_tokens: all("inputTokens"),
                output_tokens: all("outputTokens"),
                cache_read_tokens: all("cacheReadInputTokens"),
                cache_write_tokens: all("cacheCreationInputTokens"),
                cost_micro_usd: line
                    .get("totalCostUSD")
                    .and_then(Value::as_f64)
                    .filter(|_| priced)
                    .and_then(crate::provider::claude::micro_usd),
                source: Some("claude:transcript".to_owned()),
                ..Usage::default()
            });
        }
    }
    if total.is_none() && messages.is_empty() {
        return None;
    }
    Some(total.unwrap_or_else(|| super::total(messages.values(), "claude:transcript")))
}
