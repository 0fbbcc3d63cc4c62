//! What was asked, validated field by field; an error names the field.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::domain::plan::{EndPolicy, Lane, Override, Resume};
use crate::domain::span::Span;
use crate::domain::{DispatchId, Fault, Name};
use crate::project::{Paths, yaml};
use crate::sys::files;

/// The longest instruction in bytes. Every CLI that takes a prompt on standard input takes this.
pub const MAX_INSTRUCTION: u64 = 1_000_000;

/// A request for one dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The role.
    pub agent: Name,
    /// The instruction; an agent with a command of its own needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// An id that the caller chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DispatchId>,
    /// The provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Name>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// The base ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Total deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// Idle deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
    /// When an interactive worker is asked to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndPolicy>,
    /// The session to continue; `vnx resume` fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// The attempt that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<DispatchId>,
    /// The planned work that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<Name>,
    /// The JSON Schema of the answer, for a CLI that can be held to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
    /// A file of environment variables, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// Path globs that the change must stay within.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Constraints to set aside.
    #[serde(default)]
    pub overrides: Vec<Override>,
}

impl Request {
    /// As it is kept, and shown.
    pub fn to_yaml(&self) -> Result<String, Fault> {
        serde_saphyr::to_string(self).map_err(|e| Fault::internal(format!("the request cannot be written: {e}")))
    }

    /// A request that leaves every choice open.
    pub fn of(agent: Name) -> Self {
        Self {
            agent,
            instruction: None,
            id: None,
            provider: None,
            model: None,
            lane: None,
            base: None,
            deadline: None,
            idle: None,
            end: None,
            resume: None,
            retries: None,
            track: None,
            answers: None,
            env_file: None,
            paths: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// The smallest question that proves that a provider answers.
    pub fn probe(provider: Name) -> Self {
        let agent = Name::try_from("code-reviewer".to_owned()).unwrap_or_else(|_| unreachable!("follows the id rule"));
        Self {
            instruction: Some("Answer with the single word OK. Read nothing and run nothing.".to_owned()),
            provider: Some(provider),
            deadline: Some(Span(120_000)),
            ..Self::of(agent)
        }
    }

    /// What was asked of a dispatch, if that is still known.
    pub fn read(paths: &Paths, id: &DispatchId) -> Option<Self> {
        let file = paths.dispatch(id).join("request.yaml");
        yaml::parse(&file, &files::read_capped(&file, 4 << 20).ok()??).ok()
    }

    /// The first line of the instruction that says something.
    pub fn title(&self) -> Option<String> {
        let lines = self.instruction.as_deref()?.lines();
        lines
            .map(|line| line.trim_start_matches(['#', '*', '-', '>', ' ', '\t']).trim_end())
            .find(|line| !line.is_empty())
            .map(str::to_owned)
    }

    /// Checks every field that types alone do not check.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(text) = &self.instruction {
            check_instruction(text)?;
        }
        if let Some(base) = &self.base {
            check_base(base)?;
        }
        if let Some(model) = &self.model {
            check_model(model)?;
        }
        for (flag, span) in [("--deadline", self.deadline), ("--idle", self.idle)] {
            if span.is_some_and(|s| s.0 == 0) {
                return Err(Fault::input(format!("{flag} must be longer than 0s")).fix("for example 30m"));
            }
        }
        self.paths.iter().try_for_each(|glob| check_path(glob))
    }
}

fn check_instruction(text: &str) -> Result<(), Fault> {
    if text.trim().is_empty() {
        return Err(Fault::input("the instruction is empty").fix("give it with -i TEXT, -f FILE or - (standard input)"));
    }
    if text.len() as u64 > MAX_INSTRUCTION {
        return Err(Fault::input(format!("the instruction has {} bytes; at most {MAX_INSTRUCTION} fit", text.len()))
            .fix("put the material into a file of the repository and name it in a shorter instruction"));
    }
    if text.contains('\0') {
        return Err(Fault::input("the instruction contains a NUL byte").fix("remove it"));
    }
    Ok(())
}

fn check_base(base: &str) -> Result<(), Fault> {
    let bad = base.is_empty()
        || base.starts_with('-')
        || base.chars().any(|c| c.is_control() || c == ' ')
        || base.len() > 1024;
    if bad {
        return Err(
            Fault::input(format!("--base {base:?} is not a commit name")).fix("name a branch, a tag or a commit")
        );
    }
    Ok(())
}

fn check_model(model: &str) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:/@[]".contains(c);
    if model.is_empty() || model.starts_with('-') || model.len() > 200 || !model.chars().all(good) {
        return Err(
            Fault::input(format!("--model {model:?} is not a model name")).fix("use letters, digits and -_.:/@[]")
        );
    }
    Ok(())
}

fn check_path(glob: &str) -> Result<(), Fault> {
    let wrong = |why: &str| {
        Err(Fault::input(format!("--path {glob:?} {why}"))
            .fix("give a glob relative to the repository, for example 'src/**'"))
    };
    let path = Path::new(glob);
    if glob.is_empty() || glob.chars().any(char::is_control) {
        return wrong("is empty or has control characters");
    }
    if glob.starts_with([':', '!']) {
        return wrong("starts with a character that git gives a meaning");
    }
    if !is_glob(glob) {
        return wrong("has a [ without its ], or ends with a \\: git matches nothing with it");
    }
    let stays = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if stays { Ok(()) } else { wrong("leaves the repository") }
}

/// Whether every class is closed and every backslash has something to escape (gitglossary(7), pathspec `glob`).
fn is_glob(text: &str) -> bool {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' if rest.next().is_none() => return false,
            '[' => {
                let mut class = rest.as_str();
                class = class.strip_prefix(['!', '^']).unwrap_or(class);
                // The first one stands for itself.
                let skip = class.chars().next().map_or(0, char::len_utf8);
                let Some(end) = class.get(skip..).and_then(|class| class.find(']')) else { return false };
                rest = class[skip + end + 1..].chars();
            }
            _ => {}
        }
    }
    true
}

/// Parses `ID=REASON`.
pub fn parse_override(text: &str) -> Result<Override, Fault> {
    let fix = "write it as --override CONSTRAINT-ID=REASON, with a reason that a reader understands later";
    match text.split_once('=') {
        Some((id, reason)) if !reason.trim().is_empty() => {
            Ok(Override { id: Name::parse("constraint", id)?, reason: reason.trim().to_owned() })
        }
        _ => Err(Fault::input(format!("--override {text:?} has no reason")).fix(fix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_repository_is_refused() {
        for bad in ["../x", "/etc", "a/../../b", "", ":(top)x", "!x", "a\nb", "src/[a", "a\\", "[]", "[!]x"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        for good in ["src/**", "a b/*.rs", "./x", "README.md", "[a-c]?", "[]]", "[!]]", r"\[a"] {
            assert!(check_path(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn an_override_needs_a_reason() {
        assert!(parse_override("a=because of x").is_ok());
        for bad in ["a", "a=", "a=  ", "A=x"] {
            assert!(parse_override(bad).is_err(), "{bad:?}");
        }
    }
}
