//! The policy that counts: what the target branch itself says.

use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::gate::check::short_ref;
use crate::domain::gate::{Gate, strict_links};
use crate::domain::setup::{Hook, Hooks};
use crate::domain::trust::{Brought, of_gates, of_hooks};
use crate::domain::{Fault, Name};
use crate::git::Git;
use crate::project::config::Merge;
use crate::project::{Config, MAX_CONFIG, yaml};

/// What a branch says about what lands on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The gates, by name.
    pub gates: BTreeMap<Name, Gate>,
    /// How branches land.
    pub merge: Merge,
    /// What is asked of a branch before it is merged.
    pub pre_merge: Vec<Hook>,
    /// Variables of caches, for gates that ask for them.
    pub caches: BTreeMap<String, Name>,
    /// Secrets whose names do not say so.
    pub secret_names: Vec<String>,
    /// What its strict paths lead to where they are links.
    pub linked: Vec<String>,
    /// The keys that are trusted to sign (ssh-keygen, ALLOWED SIGNERS), where there is such a file.
    pub signers: Option<Vec<u8>>,
}

impl Policy {
    /// What would be run because of it.
    pub fn brought(&self, target: &str) -> Vec<Brought> {
        let file = format!("{}:{CONFIG}", short_ref(target));
        let hooks = Hooks { pre_merge: self.pre_merge.clone(), ..Hooks::default() };
        [of_hooks(&file, &hooks), of_gates(&file, &self.gates)].concat()
    }
}

const CONFIG: &str = ".vnx/config.yaml";
const SIGNERS: &str = ".vnx/allowed_signers";

/// Reads the policy of a commit of the target.
pub fn policy(repository: &Git, target: &str, commit: &str) -> Result<Policy, Fault> {
    let mut files = repository.files_at(commit, &[CONFIG, SIGNERS], MAX_CONFIG)?;
    let plain = short_ref(target);
    let Some(bytes) = files.remove(CONFIG) else {
        return Err(Fault::refused(format!("{plain} has no {CONFIG}, so nothing says what may land on it"))
            .fix(format!("commit it there: git add .vnx && git commit -m 'vnx' (on {plain})")));
    };
    let name = format!("{plain}:{CONFIG}");
    let config: Config = yaml::parse(Path::new(&name), &bytes)?;
    config.check(Path::new(&name))?;
    let links: BTreeMap<String, String> = repository.links_of(commit)?;
    let paths: Vec<String> = links.keys().cloned().collect();
    let linked = strict_links(&paths, &config.merge.strict, |wanted| {
        let objects = wanted.iter().filter_map(|link| links.get(*link)).map(String::as_str);
        repository.texts(objects).ok().filter(|texts| texts.len() == wanted.len())
    });
    Ok(Policy {
        gates: config.gates,
        merge: config.merge,
        pre_merge: config.worktree.hooks.pre_merge,
        caches: config.worktree.caches,
        secret_names: config.redact.names,
        linked,
        signers: files.remove(SIGNERS),
    })
}
