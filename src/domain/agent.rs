//! What an agent and a skill are. How they are found and read is the business of `prompt`.

use serde::{Deserialize, Serialize};

use super::id::Name;
use super::plan::EndPolicy;
use super::span::Span;

/// What a worker may do without being asked, mapped to each CLI's own modes by its manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Read files and history; change nothing.
    Read,
    /// Edit, run commands and commit, within what the CLI's own sandbox allows.
    #[default]
    Work,
    /// Edit; for everything else that needs a permission the CLI asks. Not in the headless lane, where
    /// nobody can answer.
    Ask,
    /// Everything the CLI can do, its own checks off.
    Full,
}

impl Permissions {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Work => "work",
            Self::Ask => "ask",
            Self::Full => "full",
        }
    }
}

/// What is done when a CLI asks for a permission that its own modes neither give nor refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Questions {
    /// Tools that are allowed without asking anybody: `WebFetch`, `Bash(cargo *)`.
    pub allow: Vec<ToolRule>,
    /// What is done with everything else.
    pub otherwise: Otherwise,
    /// How long a person may take.
    pub within: Span,
}

impl Default for Questions {
    fn default() -> Self {
        Self { allow: Vec::new(), otherwise: Otherwise::default(), within: Span(600_000) }
    }
}

/// What is done with a question that no rule answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// It waits for a person: `vnx permit`.
    #[default]
    Ask,
    /// It is refused.
    Deny,
}

/// A tool, or a tool with what it may be used on: `Bash(cargo *)`. A `*` at the end stands for
/// anything, but never for a second command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ToolRule {
    tool: String,
    on: Option<String>,
}

impl TryFrom<String> for ToolRule {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no tool rule; write Tool or Tool(pattern *)");
        let (tool, on) = match text.split_once('(') {
            Some((tool, rest)) => (tool, Some(rest.strip_suffix(')').ok_or_else(wrong)?)),
            None => (text.as_str(), None),
        };
        let named = !tool.is_empty() && tool.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
        let starred = on.is_some_and(|on| on.is_empty() || on.trim_end_matches('*').contains('*'));
        if !named || starred {
            return Err(wrong());
        }
        Ok(Self { tool: tool.to_owned(), on: on.map(str::to_owned) })
    }
}

impl From<ToolRule> for String {
    fn from(rule: ToolRule) -> Self {
        rule.on.map_or_else(|| rule.tool.clone(), |on| format!("{}({on})", rule.tool))
    }
}

impl ToolRule {
    /// Whether the rule covers a tool that is used on `subject`: a command line, a path, an address.
    pub fn covers(&self, tool: &str, subject: &str) -> bool {
        let Some(on) = &self.on else { return tool == self.tool };
        // What a shell would take for more than one command is covered by no pattern.
        let several = subject.contains(['\n', ';', '|', '&', '`', '<', '>', '(', ')', '$']);
        let matches = match on.strip_suffix('*') {
            Some(prefix) => subject.starts_with(prefix) && !several && !subject.contains(".."),
            None => subject == on,
        };
        tool == self.tool && matches
    }
}

/// What a dispatch must leave behind to be accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Deliverable {
    /// Commits on the dispatch branch.
    #[default]
    Commit,
    /// A report, and an untouched tree.
    Report,
}

/// The front matter of an `AGENT.md`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentHead {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for lists.
    pub description: String,
    /// Provider to use when the command line names none.
    #[serde(default)]
    pub provider: Option<Name>,
    /// Model to use when the command line names none.
    #[serde(default)]
    pub model: Option<String>,
    /// Skills injected into the prompt, in this order.
    #[serde(default)]
    pub skills: Vec<Name>,
    /// What the worker may do.
    #[serde(default)]
    pub permissions: Permissions,
    /// What it must deliver.
    #[serde(default)]
    pub delivers: Deliverable,
    /// Total deadline.
    #[serde(default)]
    pub deadline: Option<Span>,
    /// Idle deadline.
    #[serde(default)]
    pub idle: Option<Span>,
    /// When an interactive worker is asked to leave.
    #[serde(default)]
    pub end: Option<EndPolicy>,
    /// What is done when the CLI asks for a permission.
    #[serde(default)]
    pub questions: Questions,
    /// Folders of the repository that are checked out for it; none: as in the main checkout.
    #[serde(default)]
    pub sparse: Vec<String>,
    /// Providers to try, in this order, where the first one is the obstacle.
    #[serde(default)]
    pub fallbacks: Vec<Name>,
    /// For the `shell` provider: the script to run when no instruction is given.
    #[serde(default)]
    pub command: Option<String>,
    /// What kind of work it does, for gates that are there for some kinds only.
    #[serde(default)]
    pub class: Option<Name>,
}

/// An agent: its front matter and its instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The front matter.
    pub head: AgentHead,
    /// The instructions, as Markdown.
    pub body: String,
    /// Where it was found: `embedded` or a path in the project.
    pub origin: String,
}

/// The front matter of a `SKILL.md`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkillHead {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for lists.
    pub description: String,
}

/// A file beside a `SKILL.md`, listed in the prompt and read by the worker when it needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Path that the worker can open.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// First line, as a hint of what it holds.
    pub first_line: String,
}

/// A skill: its front matter, its method and its resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// The front matter.
    pub head: SkillHead,
    /// The method, as Markdown.
    pub body: String,
    /// Files beside it.
    pub resources: Vec<Resource>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_rule_covers_what_it_names_and_nothing_that_hides_behind_it() {
        let rule = |text: &str| ToolRule::try_from(text.to_owned()).unwrap();
        assert!(rule("WebFetch").covers("WebFetch", "https://example.org"));
        assert!(!rule("WebFetch").covers("Bash", "WebFetch"));
        let cargo = rule("Bash(cargo *)");
        assert!(cargo.covers("Bash", "cargo test --all"));
        for bad in [
            "cargo",
            "cargotest",
            "cargo test; rm -rf /",
            "cargo test && x",
            "cargo $(x)",
            "cargo `x`",
            "cargo a\nb",
            "cargo x > y",
            "cargo ../x",
        ] {
            assert!(!cargo.covers("Bash", bad), "{bad}");
        }
        assert!(
            rule("Bash(git status)").covers("Bash", "git status")
                && !rule("Bash(git status)").covers("Bash", "git status -s")
        );
        for wrong in ["", "Bash(", "Bash()", "Bash(a*b)", "Ba sh", "Bash(*x*)"] {
            assert!(ToolRule::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(String::from(cargo), "Bash(cargo *)");
    }

    #[test]
    fn words_are_those_of_the_files() {
        for permissions in [Permissions::Read, Permissions::Work, Permissions::Ask, Permissions::Full] {
            assert_eq!(serde_json::to_string(&permissions).unwrap(), format!("{:?}", permissions.word()));
        }
    }
}
