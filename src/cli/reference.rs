//! The reference pages of the book, `docs/reference-*.md`: made from the command line, the schemas and the outcomes
//! that there are.
//!
//! `VNX_BLESS=1 cargo test --lib reference` writes them anew.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Arg, Command};
use serde_json::Value;

use super::args;
use crate::domain::Outcome;
use crate::domain::outcome::Retry;
use crate::domain::receipt::Kind;
use crate::project::Config;

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Compares a file with what it must hold, or writes it.
fn is_written(name: &str, text: &str) {
    let path = docs().join(name);
    if std::env::var_os("VNX_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "{} differs; VNX_BLESS=1 cargo test --lib reference writes it", path.display());
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn commands() {
    let mut page = "# Commands\n\nWhat `vnx COMMAND --help` prints. The exit codes are those of [the table](reference-outcomes.md).\n".to_owned();
    let mut top = args::command();
    top.build();
    page += "\nEvery command takes:\n\n| flag | what |\n|---|---|\n";
    for arg in top.get_arguments().filter(|arg| is_everywhere(arg)) {
        let short = arg.get_short().map(|c| format!("`-{c}`, ")).unwrap_or_default();
        let long = arg.get_long().unwrap_or_default();
        writeln!(page, "| {short}`--{long}` | {} |", arg.get_help().map(ToString::to_string).unwrap_or_default())
            .unwrap();
    }
    write_commands(&mut page, "vnx", &top);
    is_written("reference-commands.md", &page);
}

/// A flag of every command.
fn is_everywhere(arg: &Arg) -> bool {
    ["project", "quiet", "verbose", "help", "version"].contains(&arg.get_id().as_str())
}

fn write_commands(page: &mut String, name: &str, command: &Command) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("{name} {}", sub.get_name());
        let own = |arg: Arg| if is_everywhere(&arg) { arg.hide(true) } else { arg };
        let help = sub.clone().mut_args(own).bin_name(&name).term_width(110).render_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        writeln!(page, "\n## {name}\n\n```text\n{}\n```", help.join("\n").trim_end()).unwrap();
        write_commands(page, &name, sub);
    }
}

/// The definition that a schema refers to, beside what it says itself.
fn resolved<'a>(schema: &'a Value, all: &'a Value) -> &'a Value {
    let name = |s: &'a Value| s["$ref"].as_str().and_then(|r| r.rsplit('/').next());
    // `Option` of another type.
    let inner = schema["anyOf"].as_array().and_then(|any| any.first()).unwrap_or(schema);
    name(inner).map_or(inner, |name| &all[name])
}

/// What may stand there, in words.
fn form(schema: &Value, all: &Value) -> String {
    let inner = schema["anyOf"].as_array().and_then(|any| any.first()).unwrap_or(schema);
    let named = inner["$ref"].as_str().and_then(|r| r.rsplit('/').next());
    let found = resolved(schema, all);
    let words: Vec<&str> =
        found["oneOf"].as_array().into_iter().flatten().filter_map(|v| v["const"].as_str()).collect();
    let words = if words.is_empty() {
        found["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    } else {
        words
    };
    if !words.is_empty() {
        return words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
    }
    let kind = match &found["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or(""),
        one => one.as_str().unwrap_or(""),
    };
    match kind {
        "array" => format!("list of {}", form(&found["items"], all)),
        "object" if found["properties"].is_null() => {
            let patterns = found["patternProperties"].as_object().and_then(|all| all.values().next());
            format!("map of {}", form(patterns.unwrap_or(&found["additionalProperties"]), all))
        }
        "object" => format!("[{}](#{})", named.unwrap_or("object"), named.unwrap_or("object").to_lowercase()),
        "string" => match named {
            Some("Span") => "duration (`90s`, `10m`)".to_owned(),
            Some("Size") => "size (`64MiB`)".to_owned(),
            Some(name) => name.to_lowercase(),
            None => "text".to_owned(),
        },
        "boolean" => "`true`, `false`".to_owned(),
        "integer" => "number".to_owned(),
        other => other.to_owned(),
    }
}

/// A table of an object's members, and the tables of the objects in it that were not told of yet.
fn write_object(page: &mut String, heading: &str, schema: &Value, all: &Value, told: &mut Vec<String>, defaults: bool) {
    let mut next = Vec::new();
    if let Some(text) = schema["description"].as_str() {
        writeln!(page, "\n{heading}\n\n{text}").unwrap();
    } else {
        writeln!(page, "\n{heading}").unwrap();
    }
    let columns = if defaults {
        ("| key | type | default | what |", "|---|---|---|---|")
    } else {
        ("| member | type | | what |", "|---|---|---|---|")
    };
    writeln!(page, "\n{}\n{}", columns.0, columns.1).unwrap();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, member) in schema["properties"].as_object().into_iter().flatten() {
        let must = required.contains(&key.as_str());
        let default = match &member["default"] {
            _ if must && defaults => "required".to_owned(),
            Value::Null if !defaults => {
                if must {
                    String::new()
                } else {
                    "optional".to_owned()
                }
            }
            Value::Null if resolved(member, all)["properties"].is_object() => String::new(),
            Value::Null => "none".to_owned(),
            Value::Object(_) => String::new(),
            other => format!("`{other}`"),
        };
        let what = member["description"].as_str().or(resolved(member, all)["description"].as_str()).unwrap_or("");
        writeln!(page, "| `{key}` | {} | {} | {} |", form(member, all), cell(&default), cell(what)).unwrap();
        collect(member, all, &mut next);
    }
    for name in next {
        if !told.contains(&name) {
            told.push(name.clone());
            write_object(page, &format!("### {name}"), &all[&name], all, told, defaults);
        }
    }
}

/// The names of the objects with members that a schema leads to.
fn collect(schema: &Value, all: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next())
                && all[name]["properties"].is_object()
                && !found.iter().any(|f| f == name)
            {
                found.push(name.to_owned());
            }
            members.values().for_each(|member| collect(member, all, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, all, found)),
        _ => {}
    }
}

#[test]
fn configuration() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    is_written("config.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
    let mut page = "# Configuration\n\n`.vnx/config.yaml`. An unknown key is an error that names its line. `vnx init` writes the file with every default as a \
         comment.\n\nEditors with a YAML language server complete and check it against [the schema](config.schema.json) if its first line is\n\
         `# yaml-language-server: $schema=PATH/config.schema.json`.\n"
        .to_owned();
    let mut whole = schema.clone();
    whole["description"] = Value::Null;
    write_object(&mut page, "## The file", &whole, &schema["$defs"], &mut Vec::new(), true);
    is_written("reference-config.md", &page);
}

#[test]
fn receipts() {
    let mut page = "# Receipts\n\nEach line of the ledger is one JSON object with `v`, `prev`, `seq`, `ts`, `kind`, `key`, `data` and `hash`; \
         receipts of a dispatch also have\n`dispatch` and `attempt`. The format is specified in `receipts/SPEC.md`, the schemas are in `receipts/schema/`. This page lists what `data` holds, by kind.\n"
        .to_owned();
    page += "\n| kind | what |\n|---|---|\n";
    for kind in Kind::ALL {
        writeln!(page, "| [`{}`](#{}) | {} |", kind.word(), kind.word().replace('.', ""), kind.meaning()).unwrap();
    }
    let mut told = Vec::new();
    for kind in Kind::ALL {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("receipts/schema").join(format!("{}.json", kind.word()));
        let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let data = resolved(&schema["properties"]["data"], &schema["$defs"]);
        let mut data = data.clone();
        if let Some(members) = data.as_object_mut() {
            members.remove("description");
        }
        write_object(&mut page, &format!("## {}", kind.word()), &data, &schema["$defs"], &mut told, false);
    }
    is_written("reference-receipts.md", &page);
}

#[test]
fn outcomes() {
    let mut page = "# Outcomes and exit codes\n\nEvery dispatch ends with one of these outcomes; a receipt with any other word cannot be written.\n\n\
         | outcome | what to do next | retry |\n|---|---|---|\n"
        .to_owned();
    for outcome in Outcome::ALL {
        let again = match outcome.retry() {
            Retry::Never => "no, not unchanged",
            Retry::After(0) => "at once",
            Retry::After(_) => "after a minute",
            Retry::AtReset => "when the limit resets",
            Retry::OtherProvider => "on another provider",
        };
        writeln!(page, "| `{}` | {} | {again} |", outcome.word(), cell(outcome.hint())).unwrap();
    }
    page += "\n## Exit codes\n\n| code | meaning |\n|---|---|\n";
    let help = args::command().render_help().to_string();
    let codes = help.split("Exit codes:").nth(1).unwrap();
    for line in codes.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_digit())) {
        let (code, meaning) = line.split_once(' ').unwrap();
        writeln!(page, "| {code} | {} |", cell(meaning.trim())).unwrap();
    }
    is_written("reference-outcomes.md", &page);
}
