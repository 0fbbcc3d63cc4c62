//! `.vnx/config.yaml`: few keys, each with a default that works; an unknown key is an error.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::authority::{Agents, PresencePolicy};
use crate::domain::gate::{self, Gate};
use crate::domain::glob::Glob;
use crate::domain::plan::Lane;
use crate::domain::receipt::Strategy;
use crate::domain::setup::{Hooks, Lfs, Uncloned};
use crate::domain::span::{Size, Span};
use crate::domain::variable::{is_name, may_pass};
use crate::domain::{Fault, Name};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The format version, 1.
    pub version: u32,
    /// The project's id, also used in the name of its tmux session (`vnx-<id>`).
    pub project_id: Name,
    /// What a dispatch uses when neither the command line nor the agent says otherwise.
    #[serde(default)]
    pub defaults: Defaults,
    /// Settings for worktrees.
    #[serde(default)]
    pub worktree: Worktree,
    /// Settings for tmux panes.
    #[serde(default)]
    pub tmux: Tmux,
    /// Limits on dispatches and recordings.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Settings for providers, by their names.
    #[serde(default)]
    pub providers: BTreeMap<Name, ProviderConfig>,
    /// Settings for the redaction of secrets.
    #[serde(default)]
    pub redact: Redact,
    /// The gates that a dispatch's branch must pass before it lands. The gates in the target's commit count.
    #[serde(default)]
    pub gates: BTreeMap<Name, Gate>,
    /// How branches land.
    #[serde(default)]
    pub merge: Merge,
    /// What agents may do beside looking and proposing. The target's commit counts.
    #[serde(default)]
    pub agents: Agents,
    /// The least presence of a person that a decision needs: `none`, `tty`, `key` or `touch`, for all or by decision. The
    /// target's commit counts.
    #[serde(default)]
    pub presence: PresencePolicy,
}

/// How branches land.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Merge {
    /// The branch that dispatches land on; `null`: the one that each dispatch began on.
    pub target: Option<String>,
    /// How a branch is combined with the target.
    #[serde(deserialize_with = "way")]
    #[cfg_attr(test, schemars(with = "Way"))]
    pub strategy: Strategy,
    /// Agents whose work may land even if no required gate applies; `*` stands for all agents.
    pub ungated: Vec<String>,
    /// Strict paths beside the built-in ones. A change of one has to pass every gate and needs a person.
    pub strict: Vec<String>,
    /// How long an approval or an override counts, unless it says otherwise.
    pub approval: Span,
    /// The remote that `vnx pr` pushes to.
    pub remote: String,
}

impl Default for Merge {
    fn default() -> Self {
        Self {
            target: None,
            strategy: Strategy::Merge,
            ungated: Vec::new(),
            strict: Vec::new(),
            approval: Span(7 * 86_400_000),
            remote: "origin".to_owned(),
        }
    }
}

/// The strategies that a branch lands by.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Way {
    /// A merge commit with both as parents.
    Merge,
    /// One commit with the whole change.
    Squash,
    /// The branch's commits, on top of the target.
    Rebase,
}

fn way<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Strategy, D::Error> {
    Way::deserialize(from).map(|way| match way {
        Way::Merge => Strategy::Merge,
        Way::Squash => Strategy::Squash,
        Way::Rebase => Strategy::Rebase,
    })
}

impl Merge {
    fn fault(&self) -> Option<String> {
        if self.approval == Span(0) {
            return Some("approval must be longer than 0s".to_owned());
        }
        let name = |text: &String| text == "*" || Name::parse("agent", text).is_ok();
        if let Some(text) = self.ungated.iter().find(|text| !name(text)) {
            return Some(format!("ungated, {text:?}: it is neither an agent's name nor *"));
        }
        let names = [self.target.as_ref().map(|t| ("target", t)), Some(("remote", &self.remote))];
        if let Some((key, text)) = names.into_iter().flatten().find(|(_, text)| !is_branch(text)) {
            return Some(format!("{key}, {text:?}: it cannot be the name of a branch or a remote"));
        }
        self.strict.iter().find_map(|path| Some(format!("strict, {path:?}: {}", Glob::parse(path).err()?)))
    }
}

/// What git takes for the name of a branch, as far as it could be taken for something else
/// (git-check-ref-format).
pub fn is_branch(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.rsplit('.').next() != Some("lock");
    !name.starts_with('-')
        && !name.ends_with('.')
        && name != "@"
        && name.split('/').all(part)
        && !["..", "@{"].iter().any(|bad| name.contains(bad))
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}

/// Defaults for a dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// The agent, where the command line names none; `null`: it has to.
    pub agent: Option<Name>,
    /// The name of a provider, or `auto`: the first coding CLI that is installed.
    pub provider: Name,
    /// The lane; `null`: the provider's own default.
    pub lane: Option<Lane>,
    /// The total deadline.
    pub deadline: Span,
    /// The idle deadline.
    pub idle: Span,
    /// The time between SIGTERM and SIGKILL.
    pub grace: Span,
}

impl Default for Defaults {
    fn default() -> Self {
        let auto = Name::try_from("auto".to_owned()).unwrap_or_else(|_| unreachable!("follows the id rule"));
        let minutes = |n: u64| Span(n * 60_000);
        Self { agent: None, provider: auto, lane: None, deadline: minutes(60), idle: minutes(10), grace: Span(5000) }
    }
}

/// More worktrees than this are not made ahead: each takes the disk of a checkout.
const MAX_POOL: usize = 32;

/// Settings for worktrees.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Worktree {
    /// The folder for worktrees, relative to the main checkout; `null`: `../<repo>.worktrees`.
    pub root: Option<String>,
    /// A dispatch is refused when less disk space than this is free; a rescue leaves as much.
    pub disk_floor: Size,
    /// A dispatch is refused when all worktrees together take up this much space; `null`: no limit.
    pub budget: Option<Size>,
    /// What a build can recreate among ignored files: folders in which git tracks nothing, by name or the end of their
    /// path, and files by `*` and their ending.
    pub reproducible: Vec<String>,
    /// Other ignored files go into a rescue commit, up to this size in total.
    pub rescue_ignored_max: Size,
    /// `vnx worktree gc` leaves a kept worktree alone until nothing has been done to it for this long.
    pub keep: Span,
    /// How many worktrees are made ahead, so that a dispatch gets one at once.
    pub pool: usize,
    /// Patterns for ignored files and folders of the main checkout that each worktree gets a copy of.
    pub copy: Vec<String>,
    /// What happens to a folder that the file system cannot clone.
    pub uncloned: Uncloned,
    /// Ignored files and folders of the main checkout that each worktree gets a link to.
    pub link: Vec<String>,
    /// Whether the large files of git LFS are fetched for the checkout.
    pub lfs: Lfs,
    /// Whether submodules are populated, from what the main checkout has of them.
    pub submodules: bool,
    /// Environment variables for workers and hooks. Each gets the path of the named folder, which all worktrees share.
    pub caches: BTreeMap<String, Name>,
    /// Commands that run in a worktree.
    pub hooks: Hooks,
}

impl Default for Worktree {
    fn default() -> Self {
        let names = [
            "target",
            "node_modules",
            "__pycache__",
            ".venv",
            "venv",
            "dist",
            "build",
            "out",
            "coverage",
            ".cache",
            ".pytest_cache",
            ".mypy_cache",
            ".ruff_cache",
            ".tox",
            ".gradle",
            ".next",
            ".nuxt",
            ".turbo",
            ".parcel-cache",
            ".husky/_",
            "*.DS_Store",
            "*.pyc",
            "*.o",
            "*.class",
            "*.log",
        ];
        Self {
            root: None,
            disk_floor: Size(512 << 20),
            budget: None,
            reproducible: names.map(str::to_owned).to_vec(),
            rescue_ignored_max: Size(32 << 20),
            keep: Span(14 * 86_400_000),
            pool: 0,
            copy: Vec::new(),
            uncloned: Uncloned::default(),
            link: Vec::new(),
            lfs: Lfs::default(),
            submodules: false,
            caches: BTreeMap::new(),
            hooks: Hooks::default(),
        }
    }
}

/// Whether dispatches get a pane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Panes {
    /// A window for each dispatch, if tmux is installed.
    #[default]
    Window,
    /// All dispatches in one window.
    Split,
    /// Several dispatches to a window.
    Grid,
    /// No panes.
    Off,
}

/// Settings for tmux panes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Tmux {
    /// Whether and how dispatches get a pane.
    pub panes: Panes,
    /// How many panes a window has with `panes: grid`.
    pub grid: u32,
    /// The name of a private socket (`tmux -L <name>`); `null`: the user's own server.
    pub socket: Option<Name>,
}

impl Default for Tmux {
    fn default() -> Self {
        Self { panes: Panes::Window, grid: 4, socket: None }
    }
}

/// Limits on dispatches and recordings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// How many dispatches may run at the same time.
    pub parallel: u32,
    /// How much of a worker's output is recorded.
    pub record: Size,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { parallel: 32, record: Size(64 << 20) }
    }
}

/// Settings for one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// The environment of its workers.
    pub env: EnvConfig,
}

/// The environment of workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EnvConfig {
    /// Variables of yours that they get beside those that its manifest names; `PREFIX_*` stands for a family.
    pub pass: Vec<String>,
}

/// Settings for the redaction of secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Redact {
    /// Environment variables whose values are secrets although their names do not say so.
    pub names: Vec<String>,
}

impl Config {
    /// Checks what the types cannot say.
    pub fn check(&self, file: &Path) -> Result<(), Fault> {
        let wrong = |what: &str| {
            Err(Fault::input(format!("{}: {what}", file.display())).fix("correct the file and run `vnx doctor`"))
        };
        if self.version != 1 {
            return wrong(&format!("version {} is not known to this vnx; it knows 1", self.version));
        }
        if self.defaults.deadline.0 == 0 || self.defaults.idle.0 == 0 {
            return wrong("defaults.deadline and defaults.idle must be longer than 0s");
        }
        if self.limits.parallel == 0 {
            return wrong("limits.parallel must be at least 1");
        }
        if self.worktree.budget == Some(Size(0)) {
            return wrong("worktree.budget must be more than 0B");
        }
        if self.worktree.pool > MAX_POOL {
            return wrong(&format!("worktree.pool must be at most {MAX_POOL}"));
        }
        if self.tmux.grid == 0 {
            return wrong("tmux.grid must be at least 1");
        }
        if let Some(name) = self.worktree.caches.keys().find(|name| !is_free_variable(name)) {
            return wrong(&format!("worktree.caches, {name:?}: it cannot be the name of a variable for a cache"));
        }
        let merge = self.merge.fault().map(|what| format!("merge.{what}"));
        if let Some(what) = self.worktree.hooks.fault().or_else(|| gate::fault(&self.gates)).or(merge) {
            return wrong(&what);
        }
        let patterns =
            self.worktree.copy.iter().map(|p| ("copy", p)).chain(self.worktree.link.iter().map(|p| ("link", p)));
        for (key, pattern) in patterns {
            match Glob::parse(pattern) {
                Err(why) => return wrong(&format!("worktree.{key}, {pattern:?}: {why}")),
                Ok(glob) if key == "link" && !glob.is_literal() => {
                    return wrong(&format!("worktree.link, {pattern:?}: a link needs a name, not a pattern"));
                }
                Ok(_) => {}
            }
        }
        for (name, settings) in &self.providers {
            if let Some(pattern) = settings.env.pass.iter().find(|pattern| !may_pass(pattern)) {
                let what = "it is no name of a variable that can be passed, nor PREFIX_* for such names";
                return wrong(&format!("providers.{name}.env.pass, {pattern:?}: {what}"));
            }
        }
        if self.project_id.as_str().len() > 50 {
            return wrong("project_id is longer than 50 characters");
        }
        Ok(())
    }
}

/// A variable that nobody else gives a worker.
fn is_free_variable(name: &str) -> bool {
    let taken = ["HOME", "PATH", "TMPDIR", "SHELL", "USER", "LOGNAME", "TERM"].contains(&name);
    may_pass(name) && is_name(name) && !taken && !name.starts_with("LD_")
}

/// The file that `vnx init` writes.
pub fn template(project_id: &Name) -> String {
    let defaults = Worktree::default();
    format!(
        r"# vnx project configuration. Every key is optional except the first two; what is
# commented out shows the default. An unknown key is an error, so a typo cannot hide.
version: 1

# Names this project in its ledger and in tmux (session vnx-<project_id>).
project_id: {project_id}

# What a dispatch uses when neither the command line nor its agent says.
#defaults:
#  agent: null           # the agent of a dispatch that names none
#  provider: auto        # a provider's name, or auto: the first coding CLI that is installed
#  lane: null            # headless or interactive; null: the provider's own default
#  deadline: 60m         # the worker is ended after this long
#  idle: 10m             # ... or after this long without progress; retries are not progress
#  grace: 5s             # between SIGTERM and SIGKILL

#worktree:
#  root: null            # folder for worktrees, relative to the main checkout; null: ../<repo>.worktrees
#  disk_floor: {floor}    # a dispatch is refused when less is free
#  budget: null          # a dispatch is refused when all worktrees together take this much, for example 20GiB
#  rescue_ignored_max: {ignored}   # ignored files up to this size together go into a rescue commit
#  reproducible: [{names}]
#  keep: {keep}             # how long `vnx worktree gc` leaves a kept worktree alone
#  pool: 0               # how many worktrees are made ahead, so that a dispatch has one at once
#  copy: []              # ignored files and folders of the main checkout, as patterns: [.env*, '**/.env', node_modules]
#  uncloned: skip        # a folder that the file system cannot clone (reflink): skip, copy or link it
#  link: []              # ignored files and folders of the main checkout that worktrees share by a link, as names
#  lfs: git              # large files of git LFS: git (as it is configured) or skip (their pointers stay)
#  submodules: false     # true: populate those that the main checkout has, from its objects, without network
#  caches: {{}}            # folders that all worktrees share, by variable: {{CARGO_TARGET_DIR: cargo-target}}
#  hooks:                # commands for `sh -c`, run in the worktree, each {{run: COMMAND, timeout: 60s}}
#    post_create: []     # before the worker starts; one that fails ends the dispatch as setup_failed
#    pre_merge: []       # before a merge, in a clean checkout of the branch; one that fails refuses it
#    pre_remove: []      # when the worker has ended; one that fails keeps the worktree

#tmux:
#  panes: window         # window: one for each dispatch; split: all in one; grid: some to a window; off: none
#  grid: 4               # how many, in a grid
#  socket: null          # a private server (tmux -L <name>); null: your own

#limits:
#  parallel: 32          # how many dispatches may run at the same time
#  record: 64MiB         # how much of a worker's output is recorded

# Variables of yours that workers get beside those that their provider's manifest names; PREFIX_* is a family.
#providers: {{}}          # by name, for example {{codex: {{env: {{pass: [MY_KEY]}}}}}}

#redact:
#  names: []             # variables whose values are secrets although their names do not say so

# What must hold before a branch lands, by name: command, probe, review, human or ci. The gates of
# the branch that it lands on count, so commit this file. docs/gates.md shows every key.
#gates: {{}}               # for example {{tests: {{command: cargo test}}, review: {{review: {{providers: [claude]}}}}}}

#merge:
#  target: null          # the branch that dispatches land on; null: the one that each began on
#  strategy: merge       # merge, squash or rebase
#  ungated: []           # agents whose work may land although no required gate applies; '*' for all
#  strict: []            # paths, beside the built-in ones, whose change needs every gate and a person
#  approval: 7d          # how long an approval holds
#  remote: origin        # where `vnx pr` pushes to

# What an agent that is no worker (T0) may do beside looking and proposing; as committed on the target.
#agents:
#  dispatch: true
#  queue: true
#  merge: false          # land what every gate lets through

# How surely a person stands behind a decision, at least; as committed on the target. none: nobody is asked; tty: a code
# typed back on a terminal; key: --sign, by a key of .vnx/allowed_signers; touch: by one that somebody has to touch.
#presence:               # or one word for all
#  approve: tty
#  override: tty
#  promote: tty
#  drop: tty             # vnx worktree rescue drop
",
        floor = defaults.disk_floor,
        ignored = defaults.rescue_ignored_max,
        keep = defaults.keep,
        names = defaults.reproducible.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", "),
    )
}

#[cfg(test)]
mod tests;
