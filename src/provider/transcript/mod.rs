//! The transcripts that CLIs keep: what an interactive worker used, said last and failed with often
//! stands nowhere else.

mod claude;
mod codex;
mod gemini;
mod kimi;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::domain::event::{Event, Usage};
use crate::domain::plan::Dialect;

/// How deep below its session folder a CLI may keep a transcript: year, month, day.
const DEPTH: usize = 4;
/// How many transcripts are looked at, the newest first.
const MOST: usize = 500;

/// What a transcript told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) session: Option<String>,
    pub(super) usage: Usage,
    /// The last message of the last turn.
    pub(super) report: Option<String>,
    /// What the CLI says that went wrong in the last turn.
    pub(super) error: Option<Event>,
}

/// Reads the transcript of a worker that ran in `cwd`. Unknown is `None`: a transcript that is not
/// there says nothing.
pub(super) fn read(
    dialect: Dialect,
    transcript: Option<&str>,
    env: &BTreeMap<String, String>,
    cwd: &str,
) -> Option<Told> {
    let folder = |variable: &str, usual: &str| {
        let named = env.get(variable).map(PathBuf::from);
        named.or_else(|| env.get("HOME").map(|home| Path::new(home).join(usual)))
    };
    match dialect {
        Dialect::Claude => claude::read(Path::new(transcript?)).map(|usage| Told { usage, ..Told::default() }),
        Dialect::Codex => {
            let sessions = folder("CODEX_HOME", ".codex")?.join("sessions");
            let mut left = MOST;
            find(&sessions, DEPTH, &mut left, &|path| codex::ran_in(path, cwd)).map(|path| codex::read(&path))
        }
        Dialect::Gemini => {
            let home = env.get("GEMINI_CLI_HOME").or_else(|| env.get("HOME"))?;
            gemini::session(&Path::new(home).join(".gemini"), cwd).map(|path| gemini::read(&path))
        }
        Dialect::Kimi => kimi::session(&folder("KIMI_CODE_HOME", ".kimi-code")?, cwd).map(|path| kimi::read(&path)),
    }
}

/// The newest file below `folder` that `is_it`; at most `left` are looked at.
fn find(folder: &Path, depth: usize, left: &mut usize, is_it: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    // Names begin with the time.
    entries.sort_unstable_by(|a, b| b.cmp(a));
    for path in entries {
        if path.is_dir() && depth > 0 {
            if let Some(found) = find(&path, depth - 1, left, is_it) {
                return Some(found);
            }
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            *left = left.checked_sub(1)?;
            if is_it(&path) {
                return Some(path);
            }
        }
    }
    None
}

/// Whether figures are of a whole session, with what it used before it was continued: those of transcripts are, and
/// `codex exec` tells its thread's.
pub fn counts_the_session(usage: &Usage) -> bool {
    let of_sessions = ["claude:transcript", "codex:rollout", "codex:turn.completed", "gemini:chat", "kimi:wire"];
    usage.source.as_deref().is_some_and(|source| of_sessions.contains(&source))
}

/// What stands behind a JSON pointer, if it is text.
fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// Adds figures up; the sum of what is not known is not known.
fn total<'u>(all: impl Iterator<Item = &'u Usage>, source: &str) -> Usage {
    let all: Vec<&Usage> = all.collect();
    let sum = |of: fn(&Usage) -> Option<u64>| all.iter().map(|usage| of(usage)).sum::<Option<u64>>();
    Usage {
        input_tokens: sum(|u| u.input_tokens),
        output_tokens: sum(|u| u.output_tokens),
        cache_read_tokens: sum(|u| u.cache_read_tokens),
        cache_write_tokens: sum(|u| u.cache_write_tokens),
        source: Some(source.to_owned()),
        ..Usage::default()
    }
}

/// The lines of a file that are JSON: the last one may be cut.
fn lines(path: &Path) -> impl Iterator<Item = Value> + use<> {
    let file = crate::sys::files::open_regular(path).ok().map(BufReader::new);
    let lines = file.into_iter().flat_map(|file| file.lines().map_while(Result::ok));
    lines.filter_map(|line| serde_json::from_str(&line).ok())
}
