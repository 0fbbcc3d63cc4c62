//! The plan: everything that one dispatch will do, decided before anything happens.
//!
//! It is stored as `plan.json`; its digest is over the exact bytes of that file and stands in
//! the ledger. The supervisor and the recovery read nothing else, so what was planned is what runs.

mod interactive;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use interactive::{Dialect, Dialog, EndPolicy, Interactive, TitleRule};

use super::agent::{Deliverable, Permissions, Questions};
use super::digest::Digest;
use super::endpoint::Endpoint;
use super::event::Usage;
use super::id::{DispatchId, Name};
use super::outcome::Outcome;
use super::setup::Setup;
use super::span::{Size, Span};
use super::time::Timestamp;

/// How the worker is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Pipes and an event stream.
    #[default]
    Headless,
    /// The CLI's own TUI on a pty.
    Interactive,
    /// Agent Client Protocol over stdio.
    Acp,
}

impl Lane {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Headless => "headless",
            Self::Interactive => "interactive",
            Self::Acp => "acp",
        }
    }
}

/// How the first prompt reaches the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// On standard input, which is then closed.
    Stdin,
    /// As the last argument; at most 120,000 bytes.
    Argument,
    /// As a file whose path replaces `{prompt_file}` in the arguments.
    File,
    /// As a message of the protocol that the lane speaks.
    Message,
    /// Pasted once the CLI is ready, as a message is. For a TUI that knows no other way.
    Paste,
}

/// What is done with the answer of a text worker, beside keeping it as the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// The unified diff in it is applied in the worktree and committed.
    Patch,
}

/// How the change in an answer is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitAnswer {
    /// The commit's message.
    pub message: String,
}

/// Which parser reads the worker's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParserKind {
    /// Plain lines: the text is the report and there is no closing event.
    Text,
    /// The Agent Client Protocol.
    Acp,
    /// A terminal whose program tells its state: reports, hooks, titles.
    Terminal,
    /// Claude Code's `--output-format stream-json`.
    ClaudeStreamJson,
    /// Codex's `exec --json`.
    CodexJson,
    /// Gemini CLI's `--output-format stream-json`.
    GeminiStreamJson,
    /// Kimi Code's `--output-format stream-json`.
    KimiStreamJson,
}

impl ParserKind {
    /// The stream ends with an event that claims success or failure.
    pub fn has_closing_event(self) -> bool {
        match self {
            Self::Text => false,
            Self::Acp
            | Self::Terminal
            | Self::ClaudeStreamJson
            | Self::CodexJson
            | Self::GeminiStreamJson
            | Self::KimiStreamJson => true,
        }
    }
}

/// The commit that the dispatch starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Base"))]
#[serde(deny_unknown_fields)]
pub struct Base<S = String> {
    /// How it was named: a branch, a tag, `HEAD`.
    pub name: S,
    /// The commit it stood for when the plan was made.
    pub commit: S,
}

/// One row of a failure table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRule {
    /// What it amounts to.
    pub outcome: Outcome,
    /// Field → regular expression, anchored at the start.
    pub when: BTreeMap<String, String>,
}

/// How an agent of the Agent Client Protocol is told which model to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelBy {
    /// By the arguments that every lane has.
    #[default]
    Argument,
    /// By the session's option `model`.
    ConfigOption,
    /// By variables of the lane that are set when a model is chosen.
    Environment,
}

/// What a session of the Agent Client Protocol is set up with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcpPlan {
    /// Merged into the client's capabilities: extensions that an agent tells its failures by.
    pub initialize: serde_json::Map<String, serde_json::Value>,
    /// Merged into what `session/new` and `session/load` are given.
    pub new_session: serde_json::Map<String, serde_json::Value>,
    /// The session's mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Kinds of tools that are allowed without asking anybody: `execute`, `edit`.
    pub allow_kinds: Vec<String>,
    /// The model, if one was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How the agent is told.
    pub model_by: ModelBy,
    /// What is done when the agent asks for a permission.
    pub questions: Questions,
    /// When the worker is asked to leave.
    pub end: EndPolicy,
    /// Where its transcript is, for what the protocol does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
}

/// What a CLI asks when it starts for the first time, and how it is told beforehand: in a
/// configuration folder of the dispatch's own, which is made only where the user's own would ask.
/// The user's is never written to, and a login that stands in it is not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStart {
    /// The variable that names the CLI's configuration folder.
    pub variable: String,
    /// The JSON file in it that remembers answers.
    pub file: String,
    /// Where that file is while the variable is not set, from HOME.
    pub usual: String,
    /// JSON pointers into it and the values that must stand there.
    pub answers: BTreeMap<String, serde_json::Value>,
    /// The question whether a key in the environment may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyQuestion>,
}

/// A CLI asks whether it may use a key that it finds in its environment, and remembers the key's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyQuestion {
    /// The variable that holds the key.
    pub variable: String,
    /// How many of its last characters are remembered.
    pub tail: usize,
    /// The list of those that may be used: a JSON pointer.
    pub approved: String,
    /// The list of those that may not.
    pub rejected: String,
}

/// The process to start. Names of variables only; values never reach a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Absolute path of the executable.
    pub program: String,
    /// Arguments; `{prompt_file}` and the like are already filled in.
    pub args: Vec<String>,
    /// How the prompt is handed over.
    pub prompt_by: PromptBy,
    /// Who reads the output.
    pub parser: ParserKind,
    /// Names of variables that pass from the caller's environment; `PREFIX_*` passes a family.
    pub env_pass: Vec<String>,
    /// Variables that vnx sets.
    pub env_set: BTreeMap<String, String>,
    /// Variables that get the value of another one of the caller's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_from: BTreeMap<String, String>,
    /// Arguments that ask the CLI whether the model is there, before the worker is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub model_probe: Vec<String>,
    /// A file of `NAME=value` lines that is read when the worker starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// Files that the CLI is given, by name; `{files}` in the arguments is their folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Empty folders that stand as long as any worker runs, for its sandbox to mount on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<String>,
    /// How long the process may stay after its closing event.
    pub linger: Span,
    /// How its failures are told apart.
    pub failures: Vec<FailureRule>,
    /// Variables whose values are secrets although their names do not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
    /// Variables with one of which the provider is paid by the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// What the CLI's first start in a terminal would ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_start: Option<FirstStart>,
    /// What the acp lane needs beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acp: Option<AcpPlan>,
    /// What the interactive lane needs beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Interactive>,
}

/// The limits of one dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Total deadline of the worker.
    pub deadline: Span,
    /// Longest time without progress.
    pub idle: Span,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Span,
    /// How much of the worker's output is recorded.
    pub record: Size,
}

/// What teardown may treat as worthless and how much it rescues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeardownPolicy {
    /// What a build makes again, among what git ignores: folders by their name or the end of their path, files by
    /// `*` and the end of their name.
    pub reproducible: Vec<String>,
    /// Ignored files up to this many bytes together go into a rescue commit.
    pub rescue_ignored_max: Size,
    /// So much of the disk is left free by a rescue.
    pub disk_floor: Size,
}

impl TeardownPolicy {
    /// Whether a folder of this path would be one that a build makes again.
    pub fn names_folder(&self, path: &Path) -> bool {
        self.reproducible.iter().any(|pattern| !pattern.starts_with('*') && path.ends_with(pattern))
    }

    /// What of an ignored path a build makes again, if anything: the path itself, or the outermost folder around it
    /// in which git tracks nothing. A secret beside tracked files is nobody's output, whatever the folder is called.
    pub fn reproducible_part<'p>(
        &self,
        path: &'p Path,
        is_folder: bool,
        tracks_below: impl Fn(&Path) -> bool,
    ) -> Option<&'p Path> {
        let mut folders: Vec<&Path> = path.ancestors().skip(usize::from(!is_folder)).collect();
        folders.reverse();
        let worthless = folders.into_iter().find(|folder| self.names_folder(folder) && !tracks_below(folder));
        let is_file = || {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.reproducible.iter().filter_map(|pattern| pattern.strip_prefix('*')).any(|end| name.ends_with(end))
        };
        worthless.or_else(|| (!is_folder && is_file()).then_some(path))
    }
}

/// A constraint that was set aside on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The constraint's id.
    pub id: Name,
    /// Why, in the words of whoever dispatched.
    pub reason: String,
}

/// The dispatch whose CLI session is continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// That dispatch.
    pub dispatch: DispatchId,
    /// The CLI's own name of the session.
    pub session: String,
    /// The folder that it ran in, absolute: CLIs remember paths, and some know a session by its folder.
    pub worktree: String,
    /// The commit that its branch ended with, where that has not landed: there this one begins. Else it begins where its
    /// base is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The dispatch in whose configuration folder the session lies, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_of: Option<DispatchId>,
    /// What the session had used by then, in that dispatch and in those before it.
    #[serde(default, skip_serializing_if = "Usage::is_unknown")]
    pub used: Usage,
}

/// Everything that one dispatch will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format version, 1.
    pub v: u32,
    /// The dispatch.
    pub id: DispatchId,
    /// The moment of the snapshot.
    pub made: Timestamp,
    /// The project.
    pub project: Name,
    /// The role.
    pub agent: Name,
    /// What kind of work the role does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Name>,
    /// The planned work that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<Name>,
    /// The CLI.
    pub provider: Name,
    /// The model, if one was chosen; the CLI's default otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How it is connected.
    pub lane: Lane,
    /// What it may do.
    pub permissions: Permissions,
    /// What it must deliver.
    pub delivers: Deliverable,
    /// Where it starts.
    pub base: Base,
    /// The session that it continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// Its branch, without `refs/heads/`.
    pub branch: String,
    /// Its folder, absolute.
    pub worktree: String,
    /// The repository's common git folder, absolute.
    pub git_common_dir: String,
    /// Path globs that the change must stay within; empty means everywhere.
    pub paths: Vec<String>,
    /// The process.
    pub launch: Launch,
    /// Where the provider is reached, if its manifest tells of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The change in the worker's answer is applied and committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_answer: Option<CommitAnswer>,
    /// SHA-256 of `prompt.md`.
    pub prompt: Digest,
    /// Bytes of the prompt that are not the assignment.
    pub prompt_overhead: u64,
    /// The limits.
    pub limits: Limits,
    /// What is done to the worktree beside its checkout.
    #[serde(default)]
    pub setup: Setup,
    /// The teardown policy.
    pub teardown: TeardownPolicy,
    /// Digest of the git configuration that could run code; collect refuses a changed one.
    pub git_risk: Digest,
    /// Digest of git's hooks, and of who commits by the repository's own settings; a merge refuses changed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_hooks: Option<Digest>,
    /// Constraints set aside.
    pub overrides: Vec<Override>,
    /// Why each choice was made, for people.
    pub reasons: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_without_tracked_files_is_reproducible_by_its_name() {
        let size = Size(0);
        let reproducible = ["target", ".husky/_", "*.pyc"].map(str::to_owned).to_vec();
        let policy = TeardownPolicy { reproducible, rescue_ignored_max: size, disk_floor: size };
        // What git ignores, where it tracks something, and what of it a build makes again.
        for (path, tracked, part) in [
            ("target/", "", Some("target")),
            ("a/target/", "", Some("a/target")),
            ("target/secret.env", "target", None),
            ("a/target/b/secret.env", "a/target", None),
            ("a/target/b/target/", "a/target", Some("a/target/b/target")),
            ("target/x.o", "", Some("target")),
            ("target/.gitignore", "", Some("target")),
            ("targets/", "", None),
            ("target", "", None),
            ("a.pyc", "", Some("a.pyc")),
            ("target/a.pyc", "target", Some("target/a.pyc")),
            ("a.pyc/", "", None),
            ("a.pyc/notes", "", None),
            (".husky/_/h", "", Some(".husky/_")),
            ("_/h", "", None),
            (".env", "", None),
        ] {
            let found = policy.reproducible_part(Path::new(path), path.ends_with('/'), |folder| {
                !tracked.is_empty() && Path::new(tracked).starts_with(folder)
            });
            assert_eq!(found, part.map(Path::new), "{path} where {tracked:?} has tracked files");
        }
    }
}
