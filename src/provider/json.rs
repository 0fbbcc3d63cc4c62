//! Small readings of a JSON line. A pointer that leads nowhere reads as nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// A text, empty if there is none.
pub(super) fn text_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A count, unknown if there is none.
pub(super) fn count_at(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// A field as text; JSON null is the word `null`, because "no status" is itself a signal.
pub(super) fn field(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null => Some("null".to_owned()),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The fields of an error that are there.
pub(super) fn fields(pairs: &[(&str, Option<String>)]) -> BTreeMap<String, String> {
    pairs.iter().filter_map(|(name, value)| value.clone().map(|v| ((*name).to_owned(), v))).collect()
}
