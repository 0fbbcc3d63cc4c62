//! The policy that counts: what the target branch itself says.

use std::collections::BTreeMap;
use std::path::Path;

use super::setup::how_to_add;
use crate::domain::authority::{Agents, PresencePolicy};
use crate::domain::gate::check::short_ref;
use crate::domain::gate::{Gate, strict_links};
use crate::domain::setup::{Hook, Hooks};
use crate::domain::trust::{Brought, of_gates, of_hooks};
use crate::domain::{Fault, Name};
use crate::git::Git;
use crate::project::config::Merge;
use crate::project::{Config, Located, MAX_CONFIG, Project, yaml};

/// What a branch says about what lands on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The gates, by name.
    pub gates: BTreeMap<Name, Gate>,
    /// How branches land.
    pub merge: Merge,
    /// The least presence that decisions need.
    pub presence: PresencePolicy,
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

pub(super) const CONFIG: &str = ".vnx/config.yaml";
const SIGNERS: &str = ".vnx/allowed_signers";

/// What a branch says about who decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authority {
    /// What agents may.
    pub agents: Agents,
    /// The least presence that decisions need.
    pub presence: PresencePolicy,
    /// The keys that are trusted to sign (ssh-keygen, ALLOWED SIGNERS), where there is such a file.
    pub signers: Option<Vec<u8>>,
}

/// What counts where work lands: on the branch with this full name, otherwise on the one that the main checkout's branch
/// names as `merge.target`, otherwise on that branch itself. Read from commits alone, and never where a worker stands: its
/// own branch, and files that nobody has committed, decide nothing.
pub fn standing(project: &Project, target: Option<&str>) -> Result<Authority, Fault> {
    let repository = Git::repository(&project.located.common_dir);
    // What a commit says, and where it says that work lands. One that says nothing leaves everything as it is by default.
    let read = |name: &str, commit: &str| -> Result<(Authority, Option<String>), Fault> {
        let mut files = repository.files_at(commit, &[CONFIG, SIGNERS], MAX_CONFIG)?;
        let Some(bytes) = files.remove(CONFIG) else { return Ok((Authority::default(), None)) };
        let Config { agents, presence, merge, .. } = parse(&format!("{}:{CONFIG}", short_ref(name)), &bytes)?;
        Ok((Authority { agents, presence, signers: files.remove(SIGNERS) }, merge.target))
    };
    let at = |name: &str| match repository.ref_commit(name)? {
        Some(commit) => Ok(read(name, &commit)?.0),
        None => Ok(Authority::default()),
    };
    if let Some(target) = target {
        return at(target);
    }
    let Some((head, branch)) = repository.head()? else { return Ok(Authority::default()) };
    match read(branch.as_deref().unwrap_or("HEAD"), &head)? {
        (_, Some(target)) => at(&format!("refs/heads/{}", short_ref(&target))),
        (authority, None) => Ok(authority),
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Config, Fault> {
    let config: Config = yaml::parse(Path::new(name), bytes)?;
    config.check(Path::new(name))?;
    Ok(config)
}

/// Reads the policy of a commit of the target. `checkout` is where somebody would commit one that is missing.
pub fn policy(repository: &Git, target: &str, commit: &str, checkout: &Located) -> Result<Policy, Fault> {
    let mut files = repository.files_at(commit, &[CONFIG, SIGNERS], MAX_CONFIG)?;
    let plain = short_ref(target);
    let Some(bytes) = files.remove(CONFIG) else {
        return Err(Fault::refused(format!("{plain} has no {CONFIG}, so nothing says what may land on it"))
            .fix(format!("commit it there: {} && git commit -m 'vnx' (on {plain})", how_to_add(checkout))));
    };
    let config = parse(&format!("{plain}:{CONFIG}"), &bytes)?;
    let links: BTreeMap<String, String> = repository.links_of(commit)?;
    let paths: Vec<String> = links.keys().cloned().collect();
    let linked = strict_links(&paths, &config.merge.strict, |wanted| {
        let objects = wanted.iter().filter_map(|link| links.get(*link)).map(String::as_str);
        repository.texts(objects).ok().filter(|texts| texts.len() == wanted.len())
    });
    Ok(Policy {
        gates: config.gates,
        merge: config.merge,
        presence: config.presence,
        pre_merge: config.worktree.hooks.pre_merge,
        caches: config.worktree.caches,
        secret_names: config.redact.names,
        linked,
        signers: files.remove(SIGNERS),
    })
}
