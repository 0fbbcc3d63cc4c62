//! The JSON Schemas of `receipts/schema/`, made from the types that write and read receipts.
//!
//! `VNX_BLESS=1 cargo test --lib schema` writes them anew.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::receipt::{Kind, schema_of};
use super::span::{Size, Span};
use super::{Digest, DispatchId, Name, Timestamp};

const ID: &str = "^[a-z0-9][a-z0-9-]{0,62}$";
const HASH: &str = "^[0-9a-f]{64}$";

macro_rules! text {
    ($type:ty, $name:literal, $pattern:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}
text!(Digest, "Digest", HASH);
text!(Name, "Name", ID);
text!(DispatchId, "DispatchId", ID);
text!(Span, "Span", r"^[0-9]+(ms|s|m|h|d)$");
text!(Size, "Size", r"^[0-9]+(B|KiB|MiB|GiB)$");
text!(Timestamp, "Timestamp", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d\.\d{6}Z$");

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("receipts/schema")
}

/// The schema of a whole line of this kind.
fn schema(kind: Kind) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let data = schema_of(kind, &mut generator);
    let mut definitions = Value::Object(generator.take_definitions(true));
    without_null(&mut definitions);
    let mut properties = json!({
        "v": { "const": 1 },
        "prev": { "type": "string", "pattern": HASH, "description": "`hash` of the line before; zeros in the first." },
        "seq": { "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_u64 },
        "ts": { "type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d\.\d{6}Z$" },
        "kind": { "const": kind.word() },
        "key": { "type": "string" },
        "redacted": { "type": "integer", "minimum": 1, "description": "How many secrets were replaced in `data`." },
        "data": data,
        "hash": { "type": "string", "pattern": HASH, "description": "SHA-256(0x00 || the line up to `,\"hash\"`)." },
    });
    let mut required = vec!["v", "prev", "seq", "ts", "kind", "key", "data", "hash"];
    if kind.is_of_dispatch() {
        properties["dispatch"] = json!({ "type": "string", "pattern": ID });
        properties["attempt"] = json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
        required.extend(["dispatch", "attempt"]);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.word(),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// What is not there is absent and never null.
fn without_null(schema: &mut Value) {
    let null = json!({ "type": "null" });
    match schema {
        Value::Object(members) => {
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    members.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(any)) = members.get_mut("anyOf") {
                any.retain(|s| *s != null);
                if let [Value::Object(only)] = &any[..] {
                    let only = only.clone();
                    members.remove("anyOf");
                    members.extend(only);
                }
            }
            members.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

#[test]
fn lists_are_where_the_schemas_have_them() {
    fn lists(schema: &Value, found: &mut std::collections::BTreeSet<String>) {
        match schema {
            Value::Object(members) => {
                for (name, inner) in members.get("properties").and_then(Value::as_object).into_iter().flatten() {
                    if inner["type"] == "array" {
                        found.insert(name.clone());
                    }
                }
                members.values().for_each(|inner| lists(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| lists(inner, found)),
            _ => {}
        }
    }
    let mut found = std::collections::BTreeSet::new();
    for kind in Kind::ALL {
        let schema = schema(*kind);
        assert!(!schema.to_string().contains("\"null\""), "{schema}");
        lists(&schema, &mut found);
    }
    assert_eq!(found.len(), 10, "a list that is no more is still allowed: {found:?}");
    assert!(found.iter().all(|name| super::receipt::is_list(name)), "{found:?}");
    assert!(!super::receipt::is_list("reason"));
}

#[test]
fn the_schemas_are_those_of_the_types() {
    let bless = std::env::var_os("VNX_BLESS").is_some();
    for kind in Kind::ALL {
        let path = folder().join(format!("{}.json", kind.word()));
        let text = serde_json::to_string_pretty(&schema(*kind)).unwrap() + "\n";
        if bless {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text, "{} differs; VNX_BLESS=1 cargo test --lib schema writes it", path.display());
    }
    assert_eq!(std::fs::read_dir(folder()).unwrap().count(), Kind::ALL.len(), "a file of no kind");
}

#[test]
fn the_form_of_reviews_is_the_published_one() {
    use super::gate::{GateStatus, review};
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/review.schema.json");
    let schema = review::json_schema(None);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("VNX_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "{} differs; VNX_BLESS=1 cargo test --lib schema writes it", path.display());
    let nonce = "0123456789abcdef0123456789abcdef";
    let finding = json!({ "severity": "nit", "file": "a", "line": 0, "claim": "b", "fix": "c" });
    let good = json!({
        "schema": review::SCHEMA, "nonce": nonce, "verdict": "pass", "summary": "fine", "findings": [finding],
    });
    let passes = |answer: &Value| review::read(&answer.to_string(), nonce).status == GateStatus::Pass;
    assert!(passes(&good));
    // Both refuse what lacks a member or has one more.
    for schema in [schema, review::json_schema(Some(nonce))] {
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(validator.is_valid(&good));
        for member in ["schema", "nonce", "verdict", "summary", "findings"] {
            let mut less = good.clone();
            less.as_object_mut().unwrap().remove(member);
            assert!(!validator.is_valid(&less) && !passes(&less), "{member}");
        }
        let mut more = good.clone();
        more["approved"] = json!(true);
        assert!(!validator.is_valid(&more) && !passes(&more));
    }
}

#[test]
fn receipts_fit_their_schemas_and_tampered_ones_do_not() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("receipts/golden");
    let read = |name: &str| std::fs::read_to_string(golden.join(name)).unwrap();
    let fits = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let kind = value["kind"].as_str().and_then(Kind::from_word);
        kind.is_some_and(|kind| jsonschema::validator_for(&schema(kind)).unwrap().is_valid(&value))
    };
    let mut kinds = std::collections::BTreeSet::new();
    for line in read("sound.ndjson").lines() {
        assert!(fits(line), "{line}");
        kinds.insert(serde_json::from_str::<Value>(line).unwrap()["kind"].to_string());
    }
    assert!(kinds.len() >= 9, "{kinds:?}");
    for (file, line) in [("unknown-kind.ndjson", 1), ("other-version.ndjson", 0)] {
        assert!(!fits(read(file).lines().nth(line).unwrap()), "{file}");
    }
    let closed = read("sound.ndjson").lines().find(|l| l.contains("dispatch.closed")).unwrap().to_owned();
    for (from, to) in [
        ("\"decision\":\"accept\"", "\"decision\":\"blessed\""),
        ("\"outcome\":\"done\"", "\"outcome\":\"well\""),
        ("\"commits\":1", "\"commits\":\"1\""),
        ("\"verdict\":{", "\"verdict\":{\"extra\":1,"),
        ("\"lane\":\"headless\"", "\"lane\":\"fast\""),
    ] {
        assert!(closed.contains(from), "{from}");
        assert!(!fits(&closed.replace(from, to)), "{to}");
    }
}

#[test]
fn words_on_screen_are_those_in_files() {
    use super::plan::{Lane, ParserKind};
    use super::receipt::{Destination, ImportStatus, Strategy};
    for lane in [Lane::Headless, Lane::Interactive, Lane::Acp] {
        assert_eq!(serde_json::to_value(lane).unwrap(), lane.word());
    }
    for tri in [super::tree::Tri::Yes, super::tree::Tri::No, super::tree::Tri::Unknown] {
        assert_eq!(serde_json::to_value(tri).unwrap(), tri.word());
    }
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::Rebase, Strategy::Revert] {
        assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.word());
    }
    for destination in [Destination::Merge, Destination::Later] {
        assert_eq!(serde_json::to_value(destination).unwrap(), destination.word());
    }
    for status in [ImportStatus::Unchained, ImportStatus::Verified, ImportStatus::Segmented, ImportStatus::Broken] {
        assert_eq!(serde_json::to_value(status).unwrap(), status.word());
    }
    for class in super::tree::TreeClass::ALL {
        assert_eq!(serde_json::to_value(class).unwrap(), class.word());
    }
    assert!(!ParserKind::Text.has_closing_event() && ParserKind::CodexJson.has_closing_event());
}
