//! `compile`: request and snapshot in, plan out. Pure: no clock, no file, no process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::launch::{Place, launch, steer};
use super::request::Request;
use super::snapshot::{ProviderSeen, Snapshot};
use super::supplies::Supplies;
use crate::domain::agent::{Agent, Deliverable, Permissions};
use crate::domain::constraint::{Constraints, Ruling, Taken, rule};
use crate::domain::endpoint::Endpoint;
use crate::domain::plan::{Apply, CommitAnswer, Lane, Limits, Plan, PromptBy, TeardownPolicy};
use crate::domain::setup::Setup;
use crate::domain::{Digest, DispatchId, Fault, Name};
use crate::git::GitConfig;
use crate::project::Project;
use crate::prompt::{Assignment, compose, go_on};
use crate::provider::Manifest;
use crate::sys::path;

/// The longest prompt that goes as an argument: one argument ends at 128 KiB on Linux.
const MAX_ARGUMENT: usize = 120_000;
/// The longest first line of a commit's message, in characters.
const MAX_SUBJECT: usize = 72;

/// A plan and the prompt it names by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// `plan.json`, byte for byte.
    pub json: String,
    /// The digest of those bytes.
    pub digest: Digest,
    /// What the worker is told.
    pub prompt: String,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Something is missing or wrong; nothing is recorded.
    Fault(Fault),
    /// Policy says no; this is recorded.
    Policy {
        /// The constraint's id.
        rule: String,
        /// What to tell the user.
        fault: Fault,
    },
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Compiles a plan. The first thing that is missing refuses, in the order in which a person
/// would fix them.
pub fn compile(project: &Project, request: &Request, seen: Snapshot) -> Result<Planned, Refusal> {
    request.check()?;
    if let Err(fault) = project.require_trust() {
        return Err(Refusal::Policy { rule: "untrusted".to_owned(), fault });
    }
    let (agent, skills) = seen.agent?;
    seen.git?;
    let git_config = seen.git_config?;
    let base = seen.base?;
    let provider = seen.provider?;
    let constraints = seen.constraints?;
    seen.ledger?;
    seen.writable?;
    seen.disk?;
    seen.budget?;
    let supplies = seen.supplies?;

    let id = match &request.id {
        Some(id) => id.clone(),
        None => DispatchId::compose(seen.now, &agent.head.name, seen.random)?,
    };
    let manifest = &provider.manifest;
    let usual = || manifest.default_lane.or_else(|| manifest.lanes.keys().next().copied()).unwrap_or_default();
    let lane = request.lane.or(project.config.defaults.lane).unwrap_or_else(usual);
    let model = request.model.clone().or_else(|| agent.head.model.clone()).or_else(|| manifest.default_model.clone());
    let taken = Taken {
        provider: &manifest.name,
        model: model.as_deref(),
        lane,
        agent: &agent.head.name,
        endpoint: provider.endpoint.as_ref(),
        login: provider.login,
        ambient_mcp: manifest.ambient_mcp,
    };
    known_overrides(request, &constraints)?;
    let ruling = rule(&constraints, taken, &request.overrides);
    refuse_if_ruled_out(&ruling, provider.endpoint.as_ref())?;
    refuse_without_its_key(&provider)?;
    refuse_too_old(&provider)?;

    let branch = id.branch();
    let by_answer = commits_answer(manifest, lane, &agent);
    let (prompt, overhead) = prompt_for(&agent, &skills, &provider, request, &branch, by_answer)?;
    let worktree = match &request.resume {
        Some(resume) => PathBuf::from(&resume.worktree),
        None => project.worktrees().join(id.as_str()),
    };
    let worktree_text = path::text(&worktree)?;
    let common = path::text(&project.located.common_dir)?;
    let (resume, answers) = (request.resume.as_ref(), request.answers.as_deref());
    let place = Place { common: &common, worktree: &worktree, resume, answers };
    let mut launch = launch(project, &agent, &provider, lane, model.as_deref(), &place, &id)?;
    steer(&mut launch, request, &agent)?;
    launch.env_file.clone_from(&request.env_file);
    launch.secret_names.clone_from(&project.config.redact.names);
    launch.env_set.extend(names(&id, &agent, (seen.now.micros(), seen.random, &worktree_text)));
    launch.env_set.extend(no_housekeeping());
    if launch.prompt_by == PromptBy::Argument {
        launch.args.push(argument(&prompt, lane, &provider.manifest.name, &project.paths.dispatch(&id))?);
    }
    launch.env_set.extend(lent_identity(&git_config, provider.manifest.hides_git_identity));
    let commit_answer = by_answer.then(|| answer_commit(request, &provider, model.as_deref(), &agent, &id));
    let mut reasons = reasons(request, &provider, &base.name, git_config.has_identity(), &ruling, by_answer);
    let setup = setup(project, &agent.head.sparse, supplies, &mut reasons)?;
    launch.env_set.extend(setup.caches.clone());
    let plan = Plan {
        v: 1,
        made: seen.now,
        project: project.id().clone(),
        agent: agent.head.name.clone(),
        class: agent.head.class.clone(),
        track: request.track.clone(),
        provider: provider.manifest.name.clone(),
        model,
        lane,
        permissions: agent.head.permissions,
        delivers: agent.head.delivers,
        base,
        resume: request.resume.clone(),
        branch,
        worktree: worktree_text,
        git_common_dir: common,
        paths: request.paths.clone(),
        launch,
        endpoint: provider.endpoint,
        commit_answer,
        prompt: Digest::of(prompt.as_bytes()),
        prompt_overhead: overhead,
        limits: limits(project, request, &agent),
        setup,
        teardown: teardown_policy(project),
        git_risk: git_config.risk(),
        git_hooks: seen.git_hooks,
        overrides: ruling.used,
        reasons,
        id,
    };
    let json =
        serde_json::to_string_pretty(&plan).map_err(|e| Fault::internal(format!("the plan cannot be written: {e}")))?;
    let digest = Digest::of(json.as_bytes());
    Ok(Planned { plan, json, digest, prompt })
}

/// What a teardown may treat as worthless, and what it leaves free.
fn teardown_policy(project: &Project) -> TeardownPolicy {
    TeardownPolicy {
        reproducible: project.config.worktree.reproducible.clone(),
        rescue_ignored_max: project.config.worktree.rescue_ignored_max,
        disk_floor: project.config.worktree.disk_floor,
    }
}

/// What is done to the worktree beside its checkout.
pub(super) fn setup(
    project: &Project,
    sparse: &[String],
    supplies: Supplies,
    reasons: &mut Vec<String>,
) -> Result<Setup, Fault> {
    let config = &project.config.worktree;
    let absent = |path: &String| format!("{path}: not in the main checkout, so not in the worktree");
    reasons.extend(supplies.absent.iter().map(absent));
    Ok(Setup {
        main: path::text(&project.located.main_top())?,
        hooks: config.hooks.clone(),
        copies: supplies.copies,
        links: supplies.links,
        uncloned: config.uncloned,
        sparse: sparse.to_vec(),
        lfs: config.lfs,
        submodules: config.submodules,
        caches: caches(project)?,
    })
}

/// Variables and the folders of the state folder that they name.
fn caches(project: &Project) -> Result<BTreeMap<String, String>, Fault> {
    let folder = |name: &Name| path::text(&project.paths.caches().join(name.as_str()));
    let all = &project.config.worktree.caches;
    all.iter().map(|(variable, name)| Ok((variable.clone(), folder(name)?))).collect()
}

/// Whether the worker's change is the diff in its answer: the manifest says how it works, and the
/// agent that there shall be a change.
fn commits_answer(manifest: &Manifest, lane: Lane, agent: &Agent) -> bool {
    manifest.lanes.get(&lane).is_some_and(|spec| spec.apply == Some(Apply::Patch))
        && agent.head.delivers == Deliverable::Commit
        && agent.head.permissions != Permissions::Read
}

/// How that change is committed: the message says what was asked, and who answered.
fn answer_commit(
    request: &Request,
    provider: &ProviderSeen,
    model: Option<&str>,
    agent: &Agent,
    id: &DispatchId,
) -> CommitAnswer {
    let text = request.instruction.as_deref().unwrap_or_default();
    let mut lines = text.lines().map(|line| line.trim_start_matches(['#', '*', '-', '>', ' ', '\t']).trim_end());
    let first = lines.find(|line| !line.is_empty()).unwrap_or("apply an answer");
    let subject: String = first.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect();
    let model = model.map(|m| format!(" ({m})")).unwrap_or_default();
    let (provider, agent) = (&provider.manifest.name, &agent.head.name);
    let by = format!("Written by {provider}{model} as {agent}; vnx applied the diff in its answer.");
    CommitAnswer { message: format!("{}\n\n{by}\n\nVnx-Dispatch: {id}\n", subject.trim_end()) }
}

/// Why each choice was made, for people.
fn reasons(
    request: &Request,
    provider: &ProviderSeen,
    base: &str,
    identity: bool,
    ruling: &Ruling,
    by_answer: bool,
) -> Vec<String> {
    let because = if request.base.is_some() { "--base says so" } else { "the current checkout" };
    let mut reasons =
        vec![format!("provider {}: {}", provider.manifest.name, provider.because), format!("base {base}: {because}")];
    reasons.extend(provider.endpoint.iter().map(|endpoint| format!("endpoint: {endpoint}")));
    if by_answer {
        let name = &provider.manifest.name;
        reasons.push(format!("{name} only answers: the diff in its answer is applied and committed"));
    }
    if !identity {
        reasons.push("git identity: none is configured, so commits are made as `vnx worker`".to_owned());
    }
    reasons.extend(request.resume.iter().map(|r| format!("session {}: that of dispatch {}", r.session, r.dispatch)));
    reasons.extend(request.retries.iter().map(|id| format!("another attempt at {id}")));
    reasons.extend(ruling.warnings.iter().map(|w| format!("warning: {w}")));
    reasons.extend(ruling.used.iter().map(|o| format!("override of {}: {}", o.id, o.reason)));
    reasons
}

/// The prompt as an argument.
fn argument(prompt: &str, lane: Lane, provider: &Name, dispatch: &Path) -> Result<String, Fault> {
    if prompt.len() <= MAX_ARGUMENT {
        return Ok(prompt.to_owned());
    }
    if lane == Lane::Interactive {
        return pointer(dispatch);
    }
    Err(Fault::input(format!(
        "the prompt has {} bytes, and {provider} takes it as an argument, which ends at {MAX_ARGUMENT}",
        prompt.len()
    ))
    .fix("shorten the instruction, or put the material into a file of the repository"))
}

/// What tells the processes of one dispatch from all others, also from those of another project that uses the same id.
pub(super) const RUN: &str = "VNX_RUN";

/// How a worker knows what it is.
fn names(id: &DispatchId, agent: &Agent, run: impl std::fmt::Debug) -> [(String, String); 3] {
    let run = Digest::of(format!("{run:?}").as_bytes()).to_string()[..32].to_owned();
    let agent = agent.head.name.to_string();
    [("VNX_DISPATCH_ID".to_owned(), id.to_string()), ("VNX_AGENT".to_owned(), agent), (RUN.to_owned(), run)]
}

/// Without it another vendor's login would go to this endpoint.
fn refuse_without_its_key(provider: &ProviderSeen) -> Result<(), Fault> {
    let Some((target, source)) = &provider.unset else { return Ok(()) };
    let what = format!("{} takes {target} from {source}, which is not set", provider.manifest.name);
    Err(Fault::environment(what).fix(format!("export {source}, or name a file with it: --env-file")))
}

/// Its arguments and its output may be others than the manifest says.
fn refuse_too_old(provider: &ProviderSeen) -> Result<(), Fault> {
    let (Some(version), Some(probe)) = (&provider.too_old, &provider.manifest.version_probe) else { return Ok(()) };
    let name = &provider.manifest.name;
    Err(Fault::environment(format!("{name} {version} is older than {}, the oldest that vnx works with", probe.min))
        .fix(format!("update it, or name another provider; `vnx provider check {name}` tells which one is found")))
}

/// What was asked for counts, then what the agent says, then the project.
fn limits(project: &Project, request: &Request, agent: &Agent) -> Limits {
    let defaults = &project.config.defaults;
    Limits {
        deadline: request.deadline.or(agent.head.deadline).unwrap_or(defaults.deadline),
        idle: request.idle.or(agent.head.idle).unwrap_or(defaults.idle),
        grace: defaults.grace,
        record: project.config.limits.record,
    }
}

/// Its git does no housekeeping: what a worker leaves running is ended, so it would begin again with each commit, and
/// never come to its end. In the one variable in which git hands its own `-c` on: of the three that git-config(1) has
/// for it, one is a `KEY`, which whoever hides secrets takes away.
fn no_housekeeping() -> [(String, String); 1] {
    [("GIT_CONFIG_PARAMETERS".to_owned(), "'maintenance.auto=false'".to_owned())]
}

/// The identity that the worker's environment gives its commits, where git's own does not reach it.
fn lent_identity(config: &GitConfig, hidden: bool) -> Vec<(String, String)> {
    match (config.has_identity(), hidden) {
        (false, _) => identity(&GitConfig::default()).collect(),
        (true, true) => identity(config).collect(),
        (true, false) => Vec::new(),
    }
}

/// Variables that give commits the identity that is configured.
fn identity(config: &GitConfig) -> impl Iterator<Item = (String, String)> {
    let who = |role: &str, what: &str, without: &str| {
        let value = config.value(&format!("{role}.{what}")).or_else(|| config.value(&format!("user.{what}")));
        let name = format!("GIT_{}_{}", role.to_uppercase(), what.to_uppercase());
        (name, value.filter(|v| !v.is_empty()).unwrap_or(without).to_owned())
    };
    let roles = ["author", "committer"];
    roles.map(|role| [who(role, "name", "vnx worker"), who(role, "email", "worker@vnx.invalid")]).into_iter().flatten()
}

/// What stands for a prompt that is too long: the CLI reads it itself.
pub(super) fn pointer(dispatch: &Path) -> Result<String, Fault> {
    let file = path::text(&dispatch.join("prompt.md"))?;
    Ok(format!("Read the file {file} completely and do what it says."))
}

/// An override of nothing is a typo that would be found out too late.
fn known_overrides(request: &Request, constraints: &Constraints) -> Result<(), Fault> {
    let unknown = request.overrides.iter().find(|o| constraints.constraints.iter().all(|c| c.id != o.id));
    unknown.map_or(Ok(()), |o| {
        Err(Fault::input(format!("--override names {}, which is no constraint of this project", o.id))
            .fix("see .vnx/provider_constraints.yaml for their ids"))
    })
}

fn refuse_if_ruled_out(ruling: &Ruling, endpoint: Option<&Endpoint>) -> Result<(), Refusal> {
    let Some(constraint) = ruling.refused.first() else {
        return Ok(());
    };
    let fix = if constraint.overridable {
        format!("choose another route, or set it aside for once: --override {}=REASON", constraint.id)
    } else {
        "choose another provider, model or lane; this constraint cannot be set aside".to_owned()
    };
    let endpoint = endpoint.filter(|_| constraint.is_about_endpoints());
    let endpoint = endpoint.map(|to| format!(" (the endpoint is {to})")).unwrap_or_default();
    let fault = Fault::refused(format!("constraint {}: {}{endpoint}", constraint.id, constraint.reason)).fix(fix);
    Err(Refusal::Policy { rule: constraint.id.to_string(), fault })
}

fn prompt_for(
    agent: &Agent,
    skills: &[crate::domain::agent::Skill],
    provider: &ProviderSeen,
    request: &Request,
    branch: &str,
    by_answer: bool,
) -> Result<(String, u64), Fault> {
    if provider.manifest.runs_assignment {
        // What is meant for a model is no script.
        if request.instruction.is_some() && agent.head.command.is_some() && request.provider.is_none() {
            let name = &agent.head.name;
            return Err(Fault::input(format!(
                "{name} runs on {0}, which would run the instruction as a script",
                provider.manifest.name
            ))
            .fix(format!(
                "--provider {0} if it is one; else another agent (`vnx agent list`) or --provider NAME",
                provider.manifest.name
            )));
        }
        let script = request.instruction.clone().or_else(|| agent.head.command.clone()).ok_or_else(|| {
            Fault::input(format!("no instruction, and agent {} has no command of its own", agent.head.name))
                .fix("give a script with -i TEXT, -f FILE or - (standard input)")
        })?;
        return Ok((script, 0));
    }
    let text = request.instruction.as_deref().ok_or_else(|| {
        Fault::input("the instruction is missing").fix("give it with -i TEXT, -f FILE or - (standard input)")
    })?;
    let assignment = Assignment { text, branch, paths: &request.paths, by_answer };
    let composed = if request.resume.is_some() { go_on(assignment) } else { compose(agent, skills, assignment) };
    if composed.text.len() as u64 > super::request::MAX_INSTRUCTION + 40_000 {
        return Err(Fault::input(format!("the prompt has {} bytes, more than a CLI takes", composed.text.len()))
            .fix("shorten the instruction or the agent's skills"));
    }
    Ok((composed.text, composed.overhead))
}
