//! The snapshot: everything that a plan depends on, read once. `vnx doctor` shows the same
//! reads, so it cannot be green where a dispatch would be refused.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Access, access};

use super::budget::{Used, within_budget};
use super::request::Request;
use super::supplies::{Supplies, supplies};
use crate::domain::agent::{Agent, Skill};
use crate::domain::constraint::Constraints;
use crate::domain::endpoint::{Endpoint, resolve};
use crate::domain::line::quoted;
use crate::domain::plan::{Base, Lane};
use crate::domain::{Digest, Fault, Name, Timestamp};
use crate::git::{Git, GitConfig, MIN_VERSION};
use crate::ledger::Head;
use crate::project::Project;
use crate::prompt;
use crate::provider;
use crate::provider::{Manifest, environment};
use crate::sys::files::Exposed;
use crate::sys::path::Found;
use crate::sys::{self, files, path};

/// A provider and where its executable is.
#[derive(Debug, Clone)]
pub struct ProviderSeen {
    /// The manifest.
    pub manifest: Manifest,
    /// The executable.
    pub found: Found,
    /// Why this provider, for the plan's reasons.
    pub because: String,
    /// Where it is reached, moved by its environment and its own settings.
    pub endpoint: Option<Endpoint>,
    /// Its own login pays: no key for it is in the environment.
    pub login: bool,
    /// A variable that it must have, and the one of the caller's that is to give it and does not.
    pub unset: Option<(String, String)>,
    /// The executables of lanes that have one of their own.
    pub lanes: BTreeMap<Lane, Found>,
    /// Its version, if that is older than the oldest that is supported.
    pub too_old: Option<String>,
}

impl ProviderSeen {
    fn new(project: &Project, manifest: Manifest, because: String, env_file: Option<&str>) -> Result<Self, Fault> {
        let found = look_up(&manifest);
        let allowed = environment::allowed(&manifest);
        // Values are looked at and forgotten; a plan names variables only.
        let env = environment::build(&allowed, &manifest.env.set, &manifest.env.from, env_file)?;
        let said = |name: &String| env.get(name).filter(|value| !value.is_empty());
        let login = !manifest.keys.iter().any(|name| said(name).is_some());
        let endpoint = manifest.endpoint.as_ref();
        let endpoint = endpoint.map(|spec| resolve(spec, &env, login, provider::moved_in(spec, &env)));
        let unset = manifest.env.from.iter().find(|(target, _)| said(target).is_none());
        let unset = unset.map(|(target, source)| (target.clone(), source.clone()));
        let own = manifest.lanes.iter().filter(|(_, spec)| !spec.binaries.is_empty());
        let lanes = own.map(|(lane, spec)| (*lane, look_up_any(&spec.binaries))).collect();
        // What a clone brings is not even asked before somebody has accepted it.
        let may_ask = !manifest.is_of_project || project.untrusted.is_empty();
        let too_old = match (&found, &manifest.version_probe) {
            (Found::At(program), Some(probe)) if may_ask => provider::too_old(probe, program, &env),
            _ => None,
        };
        Ok(Self { manifest, found, because, endpoint, login, unset, lanes, too_old })
    }
}

/// What was read. Each part that can fail on its own is a result of its own.
#[derive(Debug)]
pub struct Snapshot {
    /// The moment.
    pub now: Timestamp,
    /// Randomness for the id.
    pub random: u32,
    /// git's version, checked against the oldest that works.
    pub git: Result<String, Fault>,
    /// The base commit.
    pub base: Result<Base, Fault>,
    /// The repository's configuration.
    pub git_config: Result<GitConfig, Fault>,
    /// The digest of what a merge runs and says beside it.
    pub git_hooks: Option<Digest>,
    /// What the worktrees take, checked against their budget; `None` where they have none.
    pub budget: Result<Option<Used>, Fault>,
    /// Ignored files that the worktree gets.
    pub supplies: Result<Supplies, Fault>,
    /// The agent and its skills.
    pub agent: Result<(Agent, Vec<Skill>), Fault>,
    /// The provider.
    pub provider: Result<ProviderSeen, Fault>,
    /// The constraints.
    pub constraints: Result<Constraints, Fault>,
    /// The ledger's last receipt.
    pub ledger: Result<Head, Fault>,
    /// State and worktrees can be written.
    pub writable: Result<(), Fault>,
    /// Bytes free where worktrees go, checked against the floor.
    pub disk: Result<u64, Fault>,
}

/// Reads the snapshot for a request.
pub fn snapshot(project: &Project, request: &Request) -> Snapshot {
    let tree = Git::tree(&project.located.git_dir, &project.located.top);
    std::thread::scope(|scope| {
        // Three short git processes side by side; everything else happens meanwhile.
        let version = crate::sys::beside(scope, git_version);
        let base = crate::sys::beside(scope, || {
            let base = base(&tree, request.base.as_deref())?;
            let start = request.resume.as_ref().and_then(|resume| resume.start.clone());
            Ok(Base { commit: start.unwrap_or(base.commit), ..base })
        });
        let config = crate::sys::beside(scope, || {
            let config = tree.config().map_err(Fault::from);
            let hooks = config.as_ref().ok().map(|config| hooks_digest(project, config));
            (config, hooks)
        });
        let budget = crate::sys::beside(scope, || within_budget(project));
        let supplies = crate::sys::beside(scope, || supplies(project));
        let agent = agent(project, &request.agent);
        let chosen = agent.as_ref().ok().and_then(|(a, _)| a.head.provider.as_ref());
        let provider = choose_provider(project, request, chosen);
        let random = sys::random::<4>().map(u32::from_le_bytes);
        let mut seen = Snapshot {
            now: sys::now(),
            // Without randomness the id can collide, and a collision is a refused claim.
            random: random.unwrap_or(0),
            agent,
            provider,
            constraints: provider::constraints::load(&project.folder()),
            ledger: project.ledger().head().map_err(Fault::from),
            writable: writable(project),
            disk: disk(project),
            git: version.join().unwrap_or_else(|_| Err(Fault::internal("the version probe ended early"))),
            base: base.join().unwrap_or_else(|_| Err(Fault::internal("the base probe ended early"))),
            budget: budget.join().unwrap_or_else(|_| Err(Fault::internal("measuring the worktrees ended early"))),
            supplies: supplies
                .join()
                .unwrap_or_else(|_| Err(Fault::internal("the look for ignored files ended early"))),
            git_config: Err(Fault::internal("the config probe ended early")),
            git_hooks: None,
        };
        if let Ok((config, hooks)) = config.join() {
            (seen.git_config, seen.git_hooks) = (config, hooks);
        }
        seen
    })
}

/// A digest of what a merge runs and says beside git's settings ([`Git::hooks_digest`]).
pub(super) fn hooks_digest(project: &Project, config: &GitConfig) -> Digest {
    Git::repository(&project.located.common_dir).hooks_digest(&config.shared(), &project.located.main_top())
}

/// git's version, if it is new enough.
pub fn git_version() -> Result<String, Fault> {
    let (major, minor, text) = Git::version()?;
    if (major, minor) < MIN_VERSION {
        let (x, y) = MIN_VERSION;
        return Err(Fault::environment(format!("git {text} is too old; {x}.{y} is the oldest that works"))
            .fix("install a newer git"));
    }
    Ok(text)
}

pub(super) fn base(tree: &Git, asked: Option<&str>) -> Result<Base, Fault> {
    if let Some(name) = asked {
        let commit = tree.resolve(name)?.ok_or_else(|| {
            Fault::input(format!("--base {name:?} does not name a commit of this repository"))
                .fix("see `git branch --all` and `git tag`")
        })?;
        // A branch is remembered by its full name, so that `merged` can be told later.
        let full = format!("refs/heads/{name}");
        let is_branch = tree.resolve(&full)?.is_some();
        return Ok(Base { name: if is_branch { full } else { name.to_owned() }, commit });
    }
    match tree.head()? {
        Some((commit, branch)) => Ok(Base { name: branch.unwrap_or_else(|| "HEAD".to_owned()), commit }),
        None => Err(Fault::environment("there is no commit here yet to start from")
            .fix("make the first commit of this branch: git add . && git commit; or name another base: --base REF")),
    }
}

fn agent(project: &Project, name: &Name) -> Result<(Agent, Vec<Skill>), Fault> {
    let agent = prompt::agent(&project.folder(), name)?;
    let skills = prompt::skills_of(&project.folder(), &agent)?;
    Ok((agent, skills))
}

/// Looks a provider's executable up in the `PATH` that the worker will get.
pub fn look_up(manifest: &Manifest) -> Found {
    look_up_any(&manifest.binaries)
}

fn look_up_any(names: &[String]) -> Found {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut best = Found::Missing;
    for name in names {
        match sys::path::find(name, &search) {
            Found::At(path) => return Found::At(path),
            refused @ Found::NotExecutable(_) => best = refused,
            Found::Missing => {}
        }
    }
    best
}

fn choose_provider(project: &Project, request: &Request, agents: Option<&Name>) -> Result<ProviderSeen, Fault> {
    let default = &project.config.defaults.provider;
    let env_file = request.env_file.as_deref();
    let (name, because) = match (request.provider.as_ref(), agents) {
        (Some(name), _) => (name, "--provider says so".to_owned()),
        (None, Some(name)) => (name, "the agent names it".to_owned()),
        (None, None) if default.as_str() != "auto" => (default, "the project's default".to_owned()),
        (None, None) => return first_installed(project, env_file),
    };
    let manifest = provider::load(project, name)?;
    ProviderSeen::new(project, manifest, because, env_file)
}

/// `auto`: the first coding CLI that is installed, in a fixed order.
fn first_installed(project: &Project, env_file: Option<&str>) -> Result<ProviderSeen, Fault> {
    let mut coding: Vec<Manifest> = provider::all(project)?.into_iter().filter(|m| m.coding).collect();
    let rank =
        |m: &Manifest| ["claude", "codex", "gemini", "kimi"].iter().position(|n| *n == m.name.as_str()).unwrap_or(9);
    coding.sort_by_key(|m| (rank(m), m.name.clone()));
    let names: Vec<String> = coding.iter().map(|m| m.name.to_string()).collect();
    for manifest in coding {
        if matches!(look_up(&manifest), Found::At(_)) {
            let because = format!("the first installed of {}", names.join(", "));
            return ProviderSeen::new(project, manifest, because, env_file);
        }
    }
    Err(Fault::environment(format!("no coding CLI is installed; looked for {}", names.join(", ")))
        .fix("install one of them, or name a provider with --provider (shell runs any script)"))
}

pub(super) fn writable(project: &Project) -> Result<(), Fault> {
    let paths = &project.paths;
    for folder in paths.folders() {
        if !folder.is_dir() {
            return Err(
                Fault::environment(format!("the state folder {} is missing", folder.display())).fix("run `vnx init`")
            );
        }
    }
    let must = paths.folders().into_iter().chain([project.ledger().file(), paths.locks()]);
    let must = must.chain([project.located.common_dir.clone()]);
    let may = |place: &Path| access(place, Access::WRITE_OK);
    let mut asked = must.map(|path| (may(&path).map_err(std::io::Error::from), path)).collect::<Vec<_>>();
    asked.push((files::writable(&project.worktrees()), project.worktrees()));
    match asked.into_iter().find_map(|(answer, path)| Some((answer.err()?, path))) {
        None => private(project),
        Some((e, path)) => Err(Fault::environment(format!("{} cannot be written: {e}", path.display()))
            .fix("make it writable for you, or set worktree.root or VNX_STATE_DIR to a place that is")),
    }
}

/// What vnx believes and runs lies where nobody else can write.
fn private(project: &Project) -> Result<(), Fault> {
    let places = project.paths.folders().into_iter().chain([project.worktrees()]).chain(path::user_state());
    for place in places {
        let Some(exposed) = files::exposed(&place)? else { continue };
        let fix = match &exposed {
            Exposed::Writable { path, .. } => format!("chmod go-w {}", quoted(&path.display().to_string())),
            Exposed::Foreign { .. } => {
                "work as that user, or set VNX_STATE_DIR and worktree.root to folders of yours".to_owned()
            }
        };
        return Err(
            Fault::environment(format!("{exposed}, and what vnx keeps there decides what is run and lands")).fix(fix)
        );
    }
    Ok(())
}

pub(super) fn disk(project: &Project) -> Result<u64, Fault> {
    let floor = project.config.worktree.disk_floor;
    for place in [project.worktrees(), project.paths.state().to_owned()] {
        let free = files::disk_free(&place)?;
        if free < floor.0 {
            let free = free >> 20;
            return Err(Fault::environment(format!(
                "only {free} MiB are free at {}, the floor is {floor}",
                place.display()
            ))
            .fix("free disk space, or lower worktree.disk_floor in .vnx/config.yaml"));
        }
    }
    Ok(files::disk_free(&project.worktrees())?)
}
