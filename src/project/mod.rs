//! Where the project is, what its configuration says, where its state lives.

pub mod config;
mod init;
mod locate;
pub mod paths;
pub mod trust;
pub mod yaml;

use std::path::{Path, PathBuf};

pub use config::Config;
pub use init::{InitReport, Scaffold, Written, init};
pub use locate::{Located, locate};
pub use paths::Paths;

use crate::domain::setup::Hooks;
use crate::domain::trust::Brought;
use crate::domain::{Fault, Name};
use crate::ledger::Ledger;
use crate::sys::files;

/// The largest configuration file that is read.
pub const MAX_CONFIG: u64 = 256 << 10;

/// A path without `.` and `..`, by its text: the folder need not exist yet.
fn lexically(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// The configuration, from the checkout's root.
const CONFIG: &str = ".vnx/config.yaml";

/// Reads the configuration of a checkout, whatever it says.
fn read_config(located: &Located) -> Result<Config, Fault> {
    let file = located.top.join(CONFIG);
    let Some(bytes) = files::read_capped(&file, MAX_CONFIG)? else {
        return Err(Fault::environment(format!("{} is not a vnx project: it has no {CONFIG}", located.top.display()))
            .fix("run `vnx init` in it"));
    };
    let config: Config = yaml::parse(&file, &bytes)?;
    config.check(&file)?;
    Ok(config)
}

/// A repository that was initialised for vnx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The repository.
    pub located: Located,
    /// Where state lives.
    pub paths: Paths,
    /// The configuration, without what nobody has accepted of it.
    pub config: Config,
    /// What the checkout brings that would be run, and nobody has accepted here.
    pub untrusted: Vec<Brought>,
}

impl Project {
    /// Finds the project that `from` lies in and reads its configuration.
    pub fn open(from: &Path) -> Result<Self, Fault> {
        let located = locate(from)?;
        let file = located.top.join(CONFIG);
        let mut config = read_config(&located)?;
        let paths = Paths::of(&located)?;
        let standing = trust::standing(&paths);
        let untrusted =
            if standing.made_here { Vec::new() } else { standing.untrusted(trust::brought(&located, &config)?) };
        if !untrusted.is_empty() {
            // Whoever only looks has nothing to run and no folder that a stranger has chosen.
            config.worktree.hooks = Hooks::default();
            if untrusted.iter().any(|one| one.what == trust::ROOT) {
                config.worktree.root = None;
            }
        }
        let project = Self { located, paths, config, untrusted };
        let root = project.worktrees();
        if lexically(&root).starts_with(project.located.main_top())
            || lexically(&root).starts_with(&project.located.common_dir)
        {
            return Err(Fault::input(format!(
                "{}: worktree.root {} lies inside the repository",
                file.display(),
                root.display()
            ))
            .fix("name a folder outside of it, for example ../worktrees"));
        }
        if project.located.main_top().starts_with(lexically(&root)) {
            return Err(Fault::input(format!(
                "{}: worktree.root {} contains the repository itself",
                file.display(),
                root.display()
            ))
            .fix("name a folder of its own, for example ../worktrees"));
        }
        Ok(project)
    }

    /// The project that `from` lies in, as its ledger knows it: where the configuration cannot be read, what runs can
    /// still be looked at and ended.
    pub fn without_config(from: &Path) -> Option<Self> {
        let located = locate(from).ok()?;
        let file = located.top.join(CONFIG);
        let paths = Paths::of(&located).ok()?;
        let id = paths.ledger().created().ok().filter(|_| file.exists())?.project;
        let config = yaml::parse(&file, format!("version: 1\nproject_id: {id}\n").as_bytes()).ok()?;
        Some(Self { located, paths, config, untrusted: Vec::new() })
    }

    /// The project's id.
    pub fn id(&self) -> &Name {
        &self.config.project_id
    }

    /// Refuses where something of the checkout would be run that nobody has accepted here.
    pub fn require_trust(&self) -> Result<(), Fault> {
        trust::refusal(&self.untrusted).map_or(Ok(()), Err)
    }

    /// The same for what stands elsewhere, as in a commit.
    pub fn require_trust_in(&self, brought: Vec<Brought>) -> Result<(), Fault> {
        self.require_trust()?;
        trust::refusal(&trust::standing(&self.paths).untrusted(brought)).map_or(Ok(()), Err)
    }

    /// The project's ledger.
    pub fn ledger(&self) -> Ledger {
        self.paths.ledger()
    }

    /// The folder that holds the worktrees of dispatches.
    pub fn worktrees(&self) -> PathBuf {
        match &self.config.worktree.root {
            Some(root) => lexically(&self.located.beside().join(root)),
            None => self.located.default_worktrees(),
        }
    }

    /// `.vnx/` of the checkout that the command runs in.
    pub fn folder(&self) -> PathBuf {
        self.located.top.join(".vnx")
    }
}
