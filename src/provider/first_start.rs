//! A CLI's first start without its questions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::domain::Fault;
use crate::domain::plan::{FirstStart, KeyQuestion};
use crate::sys::files;

/// The longest configuration file that is read.
const MAX: u64 = 64 << 20;

/// Makes a configuration folder of the dispatch's own and names it in the worker's environment,
/// if the user's own would make the CLI ask.
pub fn prepare(first: &FirstStart, env: &mut BTreeMap<String, String>, dispatch: &Path) -> Result<(), Fault> {
    let usual = || env.get("HOME").map(|home| Path::new(home).join(&first.usual));
    let theirs = env.get(&first.variable).map(|folder| PathBuf::from(folder).join(&first.file)).or_else(usual);
    let Some(theirs) = theirs else { return Ok(()) };
    let text = files::read_capped(&theirs, MAX)?;
    // A file that the CLI itself could not read counts as one that answers nothing.
    let mut known: Value = text.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| json!({}));
    let key = first.key.as_ref().and_then(|question| unasked(question, env, &known));
    let missing = first.answers.iter().any(|(pointer, value)| known.pointer(pointer) != Some(value));
    if !missing && key.is_none() {
        return Ok(());
    }
    for (pointer, value) in &first.answers {
        set(&mut known, pointer, value.clone());
    }
    if let Some((question, tail)) = key {
        set(&mut known, &question.approved, json!([tail]));
    }
    let folder = dispatch.join("config");
    files::private_folder(&folder)?;
    files::replace(&folder.join(&first.file), known.to_string().as_bytes())?;
    env.insert(first.variable.clone(), crate::sys::path::text(&folder)?);
    Ok(())
}

/// The end of a key that the CLI would ask about.
fn unasked<'q>(
    question: &'q KeyQuestion,
    env: &BTreeMap<String, String>,
    known: &Value,
) -> Option<(&'q KeyQuestion, String)> {
    let key = env.get(&question.variable).filter(|key| !key.is_empty())?;
    let start = key.char_indices().rev().nth(question.tail.saturating_sub(1)).map_or(0, |(at, _)| at);
    let tail = key[start..].to_owned();
    let lists =
        |pointer: &str| known.pointer(pointer).and_then(Value::as_array).is_some_and(|l| l.contains(&json!(tail)));
    let asked = lists(&question.approved) || lists(&question.rejected);
    (!asked).then_some((question, tail))
}

/// Sets what a JSON pointer (RFC 6901, without escapes) names, making the objects on its way.
fn set(root: &mut Value, pointer: &str, value: Value) {
    let mut place = root;
    for name in pointer.trim_start_matches('/').split('/') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> FirstStart {
        FirstStart {
            variable: "TOOL_HOME".into(),
            file: "tool.json".into(),
            usual: ".tool.json".into(),
            answers: BTreeMap::from([("/welcomed".into(), json!(true))]),
            key: Some(KeyQuestion {
                variable: "KEY".into(),
                tail: 4,
                approved: "/keys/yes".into(),
                rejected: "/keys/no".into(),
            }),
        }
    }

    fn run(theirs: Option<&str>, key: Option<&str>) -> Option<Value> {
        let home = tempfile::tempdir().unwrap();
        let mut env = BTreeMap::from([("HOME".to_owned(), home.path().to_str().unwrap().to_owned())]);
        env.extend(key.map(|k| ("KEY".to_owned(), k.to_owned())));
        let file = home.path().join(".tool.json");
        if let Some(text) = theirs {
            std::fs::write(&file, text).unwrap();
        }
        prepare(&first(), &mut env, home.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).ok().as_deref(), theirs, "the user's own is left alone");
        let made = env.get("TOOL_HOME").map(|folder| std::fs::read(Path::new(folder).join("tool.json")).unwrap());
        made.map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn the_users_own_folder_is_used_where_it_answers_everything() {
        assert_eq!(run(Some(r#"{"welcomed":true}"#), None), None);
        assert_eq!(run(Some(r#"{"welcomed":true,"keys":{"yes":["6789"]}}"#), Some("0123456789")), None);
        assert_eq!(run(Some(r#"{"welcomed":true,"keys":{"no":["6789"]}}"#), Some("0123456789")), None, "a no is a no");
    }

    #[test]
    fn what_would_be_asked_is_answered_beforehand() {
        let made = run(None, Some("0123456789")).unwrap();
        assert_eq!(made, json!({"welcomed": true, "keys": {"yes": ["6789"]}}));
        let made = run(Some(r#"{"theme":"dark"}"#), None).unwrap();
        assert_eq!(made, json!({"theme": "dark", "welcomed": true}));
        assert_eq!(run(Some("not JSON"), None).unwrap(), json!({"welcomed": true}));
    }
}
