//! Hooks: how a CLI is told to call vnx when something happens.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::domain::Fault;
use crate::domain::line::quoted;
use crate::sys::path;

/// The hidden subcommand that a CLI calls.
pub const HOOK: &str = "__hook";

/// How long a hook may take, in seconds: as long as a person may take to decide.
const TIMEOUT: u64 = 24 * 60 * 60;

/// The command line, for a shell.
fn command(dispatch: &Path) -> Result<String, Fault> {
    let (own, dispatch) = (path::text(&path::own_executable()?)?, path::text(dispatch)?);
    Ok(format!("{} {HOOK} {}", quoted(&own), quoted(&dispatch)))
}

/// The same as a JSON (and TOML) array of arguments.
pub fn argv(dispatch: &Path) -> Result<String, Fault> {
    Ok(json!([path::text(&path::own_executable()?)?, HOOK, path::text(dispatch)?]).to_string())
}

/// Settings in Claude Code's form: the manifest's own, and a call of us for every one of `events`.
pub fn settings(own: &Map<String, Value>, events: &[String], dispatch: &Path) -> Result<String, Fault> {
    let command = command(dispatch)?;
    let hook = json!([{"hooks": [{"type": "command", "command": command, "timeout": TIMEOUT}]}]);
    let hooks: Map<String, Value> = events.iter().map(|event| (event.clone(), hook.clone())).collect();
    let mut settings = own.clone();
    settings.insert("hooks".to_owned(), hooks.into());
    Ok(Value::from(settings).to_string())
}
