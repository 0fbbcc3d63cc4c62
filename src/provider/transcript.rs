//! Usage from the transcripts that CLIs keep: what an interactive worker used stands nowhere else.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::domain::event::Usage;
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
    pub(super) error: Option<String>,
}

/// Reads the transcript of a worker that ran in `cwd`. Unknown is `None`: a transcript that is not
/// there says nothing.
pub(super) fn read(
    dialect: Dialect,
    transcript: Option<&str>,
    env: &BTreeMap<String, String>,
    cwd: &str,
) -> Option<Told> {
    match dialect {
        Dialect::Claude => claude(Path::new(transcript?)).map(|usage| Told { usage, ..Told::default() }),
        Dialect::Codex => {
            let home = env.get("CODEX_HOME").map(PathBuf::from);
            let home = home.or_else(|| env.get("HOME").map(|home| Path::new(home).join(".codex")))?;
            let mut left = MOST;
            find(&home.join("sessions"), DEPTH, &mut left, &|path| codex_ran_in(path, cwd)).map(|path| codex(&path))
        }
        Dialect::Gemini | Dialect::Kimi => None,
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

/// The worktree of a dispatch is its own, so the folder names the session.
fn codex_ran_in(path: &Path, cwd: &str) -> bool {
    let first = lines(path).next();
    first.is_some_and(|line| line.pointer("/payload/cwd").and_then(Value::as_str) == Some(cwd))
}

fn lines(path: &Path) -> impl Iterator<Item = Value> {
    let file = std::fs::File::open(path).ok().map(BufReader::new);
    let lines = file.into_iter().flat_map(|file| file.lines().map_while(Result::ok));
    lines.filter_map(|line| serde_json::from_str(&line).ok())
}

/// Claude Code adds a total when it ends. Without one (it was killed) the messages are counted,
/// each once: every block of a message repeats its usage.
fn claude(path: &Path) -> Option<Usage> {
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
                    .and_then(super::claude::micro_usd),
                source: Some("claude:transcript".to_owned()),
                ..Usage::default()
            });
        }
    }
    if total.is_none() && messages.is_empty() {
        return None;
    }
    total.or_else(|| {
        let all = |of: fn(&Usage) -> Option<u64>| messages.values().map(of).sum::<Option<u64>>();
        Some(Usage {
            input_tokens: all(|u| u.input_tokens),
            output_tokens: all(|u| u.output_tokens),
            cache_read_tokens: all(|u| u.cache_read_tokens),
            cache_write_tokens: all(|u| u.cache_write_tokens),
            source: Some("claude:transcript".to_owned()),
            ..Usage::default()
        })
    })
}

/// Codex writes the thread's total after every answer, and what became of each turn.
fn codex(path: &Path) -> Told {
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let mut told = Told::default();
    for line in lines(path) {
        let kind = text(&line, "/type").unwrap_or_default();
        match (kind.as_str(), text(&line, "/payload/type").unwrap_or_default().as_str()) {
            ("session_meta", _) => told.session = text(&line, "/payload/id"),
            ("token_usage_record", _) => {
                let usage = line.pointer("/payload/thread_token_usage").map(super::codex::usage).unwrap_or_default();
                told.usage = Usage { source: Some("codex:rollout".to_owned()), ..usage };
            }
            ("event_msg", "task_complete") => {
                told.report = text(&line, "/payload/last_agent_message");
                told.error = text(&line, "/payload/error/message");
            }
            _ => {}
        }
    }
    told
}
