//! Manifests: what a CLI is called, how it is started and how it says that it failed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::failures::FailureTable;
use crate::domain::agent::Permissions;
use crate::domain::endpoint::EndpointSpec;
use crate::domain::plan::{Apply, Dialect, FailureRule, FirstStart, Interactive, Lane, ModelBy, ParserKind, PromptBy};
use crate::domain::span::Span;
use crate::domain::{Fault, Name};
use crate::project::{MAX_CONFIG, Project, yaml};
use crate::sys::files;

const EMBEDDED: [(&str, &str); 10] = [
    ("claude", include_str!("../../providers/claude.yaml")),
    ("claude-ollama", include_str!("../../providers/claude-ollama.yaml")),
    ("codex", include_str!("../../providers/codex.yaml")),
    ("codex-oss", include_str!("../../providers/codex-oss.yaml")),
    ("deepseek", include_str!("../../providers/deepseek.yaml")),
    ("gemini", include_str!("../../providers/gemini.yaml")),
    ("glm", include_str!("../../providers/glm.yaml")),
    ("kimi", include_str!("../../providers/kimi.yaml")),
    ("ollama", include_str!("../../providers/ollama.yaml")),
    ("shell", include_str!("../../providers/shell.yaml")),
];

/// How to start a CLI in one lane.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSpec {
    /// Arguments before those of the permissions and the model.
    pub args: Vec<String>,
    /// Arguments after them.
    #[serde(default)]
    pub last_args: Vec<String>,
    /// Arguments after them when a session is continued: `{session}`. Without any it cannot be.
    #[serde(default)]
    pub resume_args: Vec<String>,
    /// How the prompt is handed over.
    pub prompt_by: PromptBy,
    /// Who reads the output.
    pub parser: ParserKind,
    /// What is done with its answer; only where plain text is all that it can give.
    #[serde(default)]
    pub apply: Option<Apply>,
    /// How long the process may stay after its closing event.
    #[serde(default = "five_seconds")]
    pub linger: Span,
    /// What the interactive lane needs to know beside.
    #[serde(default)]
    pub interactive: Option<Interactive>,
    /// What the acp lane needs to know beside.
    #[serde(default)]
    pub acp: Option<AcpSpec>,
    /// Names of the executable of this lane, where it is another: an adapter. `{program}` is the CLI's own.
    #[serde(default)]
    pub binaries: Vec<String>,
    /// Arguments that hold the answer to a JSON Schema: `{answer_schema}` is the schema itself, and
    /// `{files}/answer.schema.json` a file with it.
    #[serde(default)]
    pub answer_args: Vec<String>,
    /// Events for which the CLI calls a hook of ours.
    #[serde(default)]
    pub hook_events: Vec<String>,
    /// Settings that go with the hooks, in the CLI's own form.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// Variables that are set in this lane.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The same, when a model was chosen: `{model}`.
    #[serde(default)]
    pub env_with_model: BTreeMap<String, String>,
    /// Arguments for levels of permissions, where this lane needs others.
    #[serde(default)]
    pub permissions: BTreeMap<Permissions, Vec<String>>,
}

/// How a session of the Agent Client Protocol is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcpSpec {
    /// Merged into the client's capabilities.
    pub initialize: Map<String, Value>,
    /// Merged into what every session is opened with.
    pub new_session: Map<String, Value>,
    /// What makes a level of permissions.
    pub levels: BTreeMap<Permissions, AcpLevel>,
    /// How a model is chosen.
    pub model_by: ModelBy,
    /// Where its transcript is, for what the protocol does not tell.
    pub dialect: Option<Dialect>,
}

/// A level of permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcpLevel {
    /// The session's mode.
    pub mode: Option<String>,
    /// Merged into what the session is opened with.
    pub new_session: Map<String, Value>,
    /// Kinds of tools that are allowed without asking anybody.
    pub allow_kinds: Vec<String>,
    /// Whatever is asked for beyond is refused, not asked for.
    pub refuse: bool,
}

fn five_seconds() -> Span {
    Span(5000)
}

/// How to ask a CLI for its version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionProbe {
    /// Arguments.
    pub args: Vec<String>,
    /// The oldest version that is supported.
    pub min: String,
    /// The version that the manifest was verified with. Absent: it was written from the documentation
    /// and never held against the program.
    #[serde(default)]
    pub tested: Option<String>,
}

/// A question to a CLI: exit 0 means yes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Arguments.
    pub args: Vec<String>,
}

/// The worker's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvSpec {
    /// Names that pass from the caller; `PREFIX_*` passes a family.
    pub pass: Vec<String>,
    /// Names that never pass, even if a family covers them.
    pub never: Vec<String>,
    /// Variables that are set.
    pub set: BTreeMap<String, String>,
    /// Variables that get the value of another one of the caller's, which must be set.
    pub from: BTreeMap<String, String>,
}

/// A provider that is another one with a few things changed: the same CLI on another endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    version: u32,
    name: Name,
    title: String,
    extends: Name,
    /// The model to ask for when nobody names one.
    #[serde(default)]
    default_model: Option<String>,
    /// Arguments after those of every lane.
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: EnvSpec,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    endpoint: Option<EndpointSpec>,
}

/// Enough to see what kind of file it is.
#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(default)]
    extends: Option<Name>,
}

impl Extension {
    fn apply(self, base: Manifest) -> Manifest {
        let mut manifest = base;
        manifest.version = self.version;
        manifest.name = self.name;
        manifest.title = self.title;
        // Nobody gets another endpoint without asking for it by name.
        manifest.coding = false;
        manifest.extends = Some(self.extends);
        // The login of the CLI is not the one of this endpoint.
        manifest.login_probe = None;
        manifest.log_in = None;
        manifest.default_model = self.default_model.or(manifest.default_model);
        manifest.endpoint = match (self.endpoint, manifest.endpoint) {
            (Some(own), Some(base)) => Some(own.over(base)),
            (own, base) => own.or(base),
        };
        manifest.keys = self.keys;
        manifest.env.pass.extend(self.env.pass);
        manifest.env.never.extend(self.env.never);
        manifest.env.set.extend(self.env.set);
        manifest.env.from.extend(self.env.from);
        for lane in manifest.lanes.values_mut() {
            lane.args.extend(self.args.iter().cloned());
        }
        manifest
    }
}

/// A provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version, 1.
    pub version: u32,
    /// Its name.
    pub name: Name,
    /// What people call it.
    pub title: String,
    /// The provider that it is a variant of.
    #[serde(skip)]
    pub extends: Option<Name>,
    /// The repository brings it, or what it is a variant of.
    #[serde(skip)]
    pub is_of_project: bool,
    /// The model to ask for when nobody names one.
    #[serde(default)]
    pub default_model: Option<String>,
    /// The lane to take when nobody names one; the first of `headless`, `interactive`, `acp` otherwise.
    #[serde(default)]
    pub default_lane: Option<Lane>,
    /// Where it is reached.
    #[serde(default)]
    pub endpoint: Option<EndpointSpec>,
    /// MCP servers of the user's own configuration come along, because nothing turns them off.
    #[serde(default)]
    pub ambient_mcp: bool,
    /// It edits code by itself, so `auto` may choose it.
    #[serde(default)]
    pub coding: bool,
    /// Names of its executable, in order of preference.
    pub binaries: Vec<String>,
    /// It runs the assignment itself; no prompt is composed around it.
    #[serde(default)]
    pub runs_assignment: bool,
    /// How to ask for its version.
    #[serde(default)]
    pub version_probe: Option<VersionProbe>,
    /// How to ask whether it is logged in.
    #[serde(default)]
    pub login_probe: Option<Probe>,
    /// The command by which a person logs it in.
    #[serde(default)]
    pub log_in: Option<String>,
    /// How to ask whether the server that does its work answers.
    #[serde(default)]
    pub server_probe: Option<Probe>,
    /// How to ask whether a model is there: `{model}`. For a CLI that would fetch what is missing; it
    /// is asked before every start, and has to be told a model.
    #[serde(default)]
    pub model_probe: Option<Probe>,
    /// The lanes it has.
    pub lanes: BTreeMap<Lane, LaneSpec>,
    /// Arguments that choose a model; `{model}` is replaced.
    #[serde(default)]
    pub model_args: Vec<String>,
    /// Arguments for each level of permissions.
    pub permissions: BTreeMap<Permissions, Vec<String>>,
    /// Files that it is given, by name: `{files}` in the arguments is their folder.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Empty folders on which its sandbox mounts something. A sandbox that finds one missing makes it and takes
    /// it away again, and so spoils the sandboxes of other workers in the same repository that mount there.
    #[serde(default)]
    pub mount_points: Vec<String>,
    /// It hides the user's git configuration from its commands, and the identity with it.
    #[serde(default)]
    pub hides_git_identity: bool,
    /// What its first start in a terminal would ask.
    #[serde(default)]
    pub first_start: Option<FirstStart>,
    /// Variables that it sets in its tools' shells, by which an agent is told from a person.
    #[serde(default)]
    pub marks: Vec<String>,
    /// The environment.
    #[serde(default)]
    pub env: EnvSpec,
    /// Variables with one of which it is paid by the token; without any, its own login pays.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The failure table.
    #[serde(default)]
    pub failures: Vec<FailureRule>,
}

/// Loads a provider of a project by name: its own shadows the embedded one. What its configuration lets pass passes.
pub fn load(project: &Project, name: &Name) -> Result<Manifest, Fault> {
    let mut manifest = shipped_or_own(&project.folder(), name)?;
    if let Some(settings) = project.config.providers.get(name) {
        manifest.env.pass.extend(settings.env.pass.iter().cloned());
    }
    Ok(manifest)
}

/// The manifest of that name as it is written.
pub fn shipped_or_own(vnx_folder: &Path, name: &Name) -> Result<Manifest, Fault> {
    find(vnx_folder, name, true)
}

fn find(vnx_folder: &Path, name: &Name, may_extend: bool) -> Result<Manifest, Fault> {
    let file = vnx_folder.join("providers").join(format!("{name}.yaml"));
    if let Some(bytes) = files::read_capped(&file, MAX_CONFIG)? {
        let manifest = read(vnx_folder, &file, &bytes, name, may_extend)?;
        return Ok(Manifest { is_of_project: true, ..manifest });
    }
    let embedded = EMBEDDED.iter().find(|(known, _)| *known == name.as_str());
    let Some((_, text)) = embedded else {
        let known = names(vnx_folder)?.join(", ");
        return Err(Fault::input(format!("unknown provider {:?}", name.as_str())).fix(format!("use one of: {known}")));
    };
    read(vnx_folder, Path::new(&format!("providers/{name}.yaml")), text.as_bytes(), name, may_extend)
}

fn read(vnx_folder: &Path, file: &Path, bytes: &[u8], name: &Name, may_extend: bool) -> Result<Manifest, Fault> {
    let kind: Kind = yaml::parse(file, bytes)?;
    let manifest: Manifest = if kind.extends.is_none() {
        yaml::parse(file, bytes)?
    } else if may_extend {
        let extension: Extension = yaml::parse(file, bytes)?;
        let base = find(vnx_folder, &extension.extends, false)?;
        extension.apply(base)
    } else {
        // One step only: a chain, and so a circle, cannot be written.
        return Err(Fault::input(format!("{}: {name} is itself a variant and cannot be extended", file.display()))
            .fix("extend the provider that stands behind it"));
    };
    let wrong = |what: String| {
        Err(Fault::input(format!("{}: {what}", file.display())).fix("correct the file and run `vnx doctor`"))
    };
    if manifest.version != 1 {
        return wrong(format!("version {} is not known to this vnx; it knows 1", manifest.version));
    }
    if manifest.name != *name {
        return wrong(format!("name is {:?}, but the file is called {name}.yaml", manifest.name.as_str()));
    }
    if manifest.binaries.is_empty() {
        return wrong("binaries must name at least one executable".to_owned());
    }
    if let Some(name) =
        manifest.files.keys().find(|name| name.is_empty() || name.starts_with('.') || name.contains('/'))
    {
        return wrong(format!("files: {name:?} is not a plain file name"));
    }
    for (lane, spec) in &manifest.lanes {
        if (*lane == Lane::Interactive) != spec.interactive.is_some() {
            return wrong(format!(
                "lane {}: `interactive` belongs to the interactive lane, and to no other",
                lane.word()
            ));
        }
        if (*lane == Lane::Acp) != spec.acp.is_some() {
            return wrong(format!("lane {}: `acp` belongs to the acp lane, and to no other", lane.word()));
        }
        if spec.apply.is_some() && (spec.parser != ParserKind::Text || *lane != Lane::Headless) {
            return wrong(format!("lane {}: `apply` is for the text of a headless lane", lane.word()));
        }
        if spec.prompt_by == PromptBy::Paste && spec.interactive.is_none() {
            return wrong(format!("lane {}: a prompt can only be pasted in the interactive lane", lane.word()));
        }
        if let Some(Err(why)) = spec.interactive.as_ref().map(check_patterns) {
            return wrong(why);
        }
    }
    if let Some(Err(why)) = manifest.endpoint.as_ref().map(EndpointSpec::check) {
        return wrong(why);
    }
    if let Err(why) = FailureTable::compile(&manifest.failures) {
        return wrong(why);
    }
    Ok(manifest)
}

impl Manifest {
    /// How a person gives it what it is paid by.
    pub fn how_to_pay(&self) -> String {
        let keys = || format!("set {}", self.keys.join(" or "));
        match &self.log_in {
            Some(command) if self.keys.is_empty() => format!("run `{command}`"),
            Some(command) => format!("run `{command}`, or {}", keys()),
            None if self.keys.is_empty() => "log it in, or set its key in the environment".to_owned(),
            None => keys(),
        }
    }
}

/// The patterns of the interactive lane are regular expressions, and a dialog says what follows.
fn check_patterns(interactive: &Interactive) -> Result<(), String> {
    for dialog in &interactive.dialogs {
        for pattern in std::iter::once(&dialog.screen).chain(&dialog.detail) {
            regex::Regex::new(pattern).map_err(|e| format!("dialog {:?}: {e}", dialog.name))?;
        }
        if dialog.keys.is_some() == (dialog.state.is_some() || dialog.outcome.is_some()) {
            return Err(format!("dialog {:?} must have either keys, or a state, an outcome or both", dialog.name));
        }
    }
    let bad = |title: &str| regex::Regex::new(title).map_err(|e| format!("title {title:?}: {e}"));
    interactive.titles.iter().try_for_each(|rule| bad(&rule.title).map(drop))
}

/// The marks of the shipped providers: a repository's own manifests do not say who is an agent. Only this one line is read of
/// each, because every command that changes something asks, and a whole manifest takes longer.
pub fn marks() -> Vec<&'static str> {
    let line = |text: &'static str| text.lines().find_map(|line| line.strip_prefix("marks: [")?.strip_suffix(']'));
    EMBEDDED.iter().filter_map(|(_, text)| line(text)).flat_map(|names| names.split(", ")).collect()
}

/// Every provider's name, the project's own and the embedded ones.
pub fn names(vnx_folder: &Path) -> Result<Vec<String>, Fault> {
    let own = files::names(&vnx_folder.join("providers"))?;
    let own = own.iter().filter_map(|n| n.strip_suffix(".yaml")).map(str::to_owned);
    let mut all: Vec<String> = own.chain(EMBEDDED.iter().map(|(n, _)| (*n).to_owned())).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Every provider of a project.
pub fn all(project: &Project) -> Result<Vec<Manifest>, Fault> {
    names(&project.folder())?.into_iter().map(|n| load(project, &Name::parse("provider", &n)?)).collect()
}
