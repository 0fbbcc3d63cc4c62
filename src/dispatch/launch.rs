//! From a manifest's lane to the process of a plan. Pure, like the plan.

use std::collections::BTreeMap;
use std::path::Path;

use super::request::Request;
use super::snapshot::ProviderSeen;
use crate::domain::agent::{Agent, Otherwise, Permissions, Questions};
use crate::domain::plan::{AcpPlan, Lane, Launch, ModelBy, Resume};
use crate::domain::{DispatchId, Fault};
use crate::project::Project;
use crate::provider::{AcpLevel, AcpSpec, LaneSpec, acp, environment, hooks};
use crate::sys::path::{self, Found};

/// The file that holds the schema of an answer.
const ANSWER_SCHEMA: &str = "answer.schema.json";

/// What the agent and the request say of a worker that can be steered.
pub(super) fn steer(launch: &mut Launch, request: &Request, agent: &Agent) -> Result<(), Fault> {
    if let Some(interactive) = &mut launch.interactive {
        interactive.end = request.end.or(agent.head.end).unwrap_or(interactive.end);
        interactive.questions = agent.head.questions.clone();
        if agent.head.permissions == Permissions::Read {
            interactive.questions.otherwise = Otherwise::Deny;
        }
    } else if let Some(acp) = &mut launch.acp {
        acp.end = request.end.or(agent.head.end).unwrap_or_default();
        let refuses = acp.questions.otherwise;
        acp.questions = agent.head.questions.clone();
        if refuses == Otherwise::Deny {
            acp.questions.otherwise = refuses;
        }
    } else if request.end.is_some() {
        return Err(
            Fault::input("--end is for the interactive and the acp lane").fix("add --lane interactive, or --lane acp")
        );
    }
    Ok(())
}

/// The CLI's executable and the one that the lane starts.
fn programs(provider: &ProviderSeen, lane: Lane, spec: &LaneSpec) -> Result<(String, String), Fault> {
    let name = &provider.manifest.name;
    let own = match &provider.found {
        Found::At(path) => path::text(path)?,
        Found::NotExecutable(path) => {
            return Err(Fault::environment(format!(
                "{} is {name}'s executable, but it may not be executed",
                path.display()
            ))
            .fix(format!("chmod +x it, or install {name} again")));
        }
        Found::Missing => {
            return Err(Fault::environment(format!(
                "{name} is not installed: no {} in PATH",
                provider.manifest.binaries.join(" or ")
            ))
            .fix(format!("install {name}, or name another provider with --provider")));
        }
    };
    let program = match provider.lanes.get(&lane) {
        None => own.clone(),
        Some(Found::At(path)) => path::text(path)?,
        Some(_) => {
            return Err(Fault::environment(format!(
                "{name} needs {} for its {} lane, and there is none in PATH",
                spec.binaries.join(" or "),
                lane.word()
            ))
            .fix("install that adapter, or take another lane"));
        }
    };
    Ok((own, program))
}

/// How a session of the Agent Client Protocol is set up, its placeholders filled.
fn acp_plan(
    spec: &AcpSpec,
    level: Option<&AcpLevel>,
    model: Option<&str>,
    fill: &impl Fn(&String) -> String,
) -> AcpPlan {
    let with = |text: &str| fill(&text.to_owned());
    let mut new_session = acp::fill(&spec.new_session, &with);
    if let Some(level) = level {
        acp::merge_maps(&mut new_session, &acp::fill(&level.new_session, &with));
    }
    AcpPlan {
        initialize: spec.initialize.clone(),
        new_session,
        mode: level.and_then(|l| l.mode.clone()),
        allow_kinds: level.map(|l| l.allow_kinds.clone()).unwrap_or_default(),
        model: model.map(str::to_owned),
        model_by: spec.model_by,
        dialect: spec.dialect,
        questions: Questions {
            otherwise: if level.is_some_and(|l| l.refuse) { Otherwise::Deny } else { Otherwise::Ask },
            ..Questions::default()
        },
        ..AcpPlan::default()
    }
}

/// Where a worker runs.
pub(super) struct Place<'a> {
    pub(super) common: &'a str,
    pub(super) worktree: &'a Path,
    pub(super) resume: Option<&'a Resume>,
    /// The JSON Schema of its answer.
    pub(super) answers: Option<&'a str>,
}

/// The process that a plan starts.
pub(super) fn launch(
    project: &Project,
    agent: &Agent,
    provider: &ProviderSeen,
    lane: Lane,
    model: Option<&str>,
    place: &Place<'_>,
    id: &DispatchId,
) -> Result<Launch, Fault> {
    let manifest = &provider.manifest;
    let name = &manifest.name;
    let Some(spec) = manifest.lanes.get(&lane) else {
        let has: Vec<&str> = manifest.lanes.keys().map(|l| l.word()).collect();
        return Err(Fault::input(format!("{name} has no {} lane", lane.word()))
            .fix(format!("use --lane {}", has.join(" or --lane "))));
    };
    let (own_program, program) = programs(provider, lane, spec)?;
    let level = agent.head.permissions;
    let level_of = spec.acp.as_ref().map(|acp| acp.levels.get(&level));
    // In the acp lane a level is a mode of the session, not an argument.
    let none = Vec::new();
    let arguments = match level_of {
        Some(Some(_)) => Some(spec.permissions.get(&level).unwrap_or(&none)),
        Some(None) => None,
        None => spec.permissions.get(&level).or_else(|| manifest.permissions.get(&level)),
    };
    let Some(permissions) = arguments else {
        return Err(Fault::input(format!(
            "{name} has no arguments for permissions {:?}",
            agent.head.permissions.word()
        ))
        .fix("add them to the provider's manifest, or change the agent's `permissions`"));
    };
    if model.is_some() && manifest.model_args.is_empty() {
        return Err(Fault::input(format!("{name} has no models to choose from")).fix("leave --model out"));
    }
    if model.is_none() && manifest.model_probe.is_some() {
        return Err(Fault::input(format!("{name} has no model of its own"))
            .fix("name one that it has, with --model, `model:` of the agent or `default_model:` of a variant"));
    }
    let prompt_file = project.paths.dispatch(id).join("prompt.md");
    let values = BTreeMap::from([
        ("{model}", model.unwrap_or_default().to_owned()),
        ("{git_common_dir}", place.common.to_owned()),
        // git calls its folder of a worktree by the last part of the path.
        (
            "{git_dir}",
            format!("{}/worktrees/{}", place.common, place.worktree.file_name().unwrap_or_default().display()),
        ),
        ("{program}", own_program),
        ("{answer_schema}", place.answers.unwrap_or_default().to_owned()),
        ("{session}", place.resume.map(|r| r.session.clone()).unwrap_or_default()),
        ("{prompt_file}", path::text(&prompt_file)?),
        ("{files}", path::text(&project.paths.dispatch(id).join("files"))?),
        ("{hook_argv}", hooks::argv(&project.paths.dispatch(id))?),
        ("{repo_quoted}", serde_json::Value::from(path::text(&project.located.main_top())?).to_string()),
        ("{hook_settings}", hooks::settings(&spec.settings, &spec.hook_events, &project.paths.dispatch(id))?),
    ]);
    let fill = |arg: &String| values.iter().fold(arg.clone(), |text, (key, value)| text.replace(key, value));
    let by_argument = spec.acp.as_ref().is_none_or(|acp| acp.model_by == ModelBy::Argument);
    let model_args = if model.is_some() && by_argument { manifest.model_args.as_slice() } else { &[] };
    let session = spec.acp.as_ref().map(|acp| acp_plan(acp, level_of.flatten(), model, &fill));
    let last_args = match place.resume {
        // The protocol has a message for it.
        Some(_) if spec.acp.is_some() => &spec.last_args,
        Some(_) if spec.resume_args.is_empty() => {
            return Err(Fault::input(format!("{name} cannot continue a session in its {} lane", lane.word()))
                .fix("dispatch anew, with the report and the branch of the earlier one in the instruction"));
        }
        Some(_) => &spec.resume_args,
        None => &spec.last_args,
    };
    let answer_args = if place.answers.is_some() { spec.answer_args.as_slice() } else { &[] };
    let schema =
        place.answers.filter(|_| !answer_args.is_empty()).map(|text| (ANSWER_SCHEMA.to_owned(), text.to_owned()));
    let parts = [spec.args.as_slice(), permissions, model_args, answer_args, last_args];
    let with_model = spec.env_with_model.iter().filter(|_| model.is_some());
    Ok(Launch {
        program,
        args: parts.into_iter().flatten().map(fill).collect(),
        prompt_by: spec.prompt_by,
        parser: spec.parser,
        env_pass: environment::allowed(manifest),
        env_set: manifest
            .env
            .set
            .iter()
            .chain(&spec.env)
            .chain(with_model)
            .map(|(n, v)| (n.clone(), fill(v)))
            .collect(),
        env_from: manifest.env.from.clone(),
        model_probe: manifest.model_probe.iter().flat_map(|probe| &probe.args).map(fill).collect(),
        env_file: None,
        files: manifest.files.iter().map(|(name, text)| (name.clone(), fill(text))).chain(schema).collect(),
        mount_points: manifest.mount_points.iter().map(fill).collect(),
        linger: spec.linger,
        failures: manifest.failures.clone(),
        secret_names: Vec::new(),
        keys: manifest.keys.clone(),
        acp: session,
        first_start: manifest.first_start.clone(),
        interactive: spec.interactive.clone(),
    })
}
