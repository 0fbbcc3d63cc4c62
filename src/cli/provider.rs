//! `vnx provider list`, `show` and `check`.

use serde::Serialize;

use super::Context;
use super::args::ProviderCommand;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::doctor::{Level, provider_check};
use crate::dispatch::request::Request;
use crate::dispatch::snapshot::look_up;
use crate::dispatch::{self, Options};
use crate::domain::agent::Permissions;
use crate::domain::endpoint::EndpointSpec;
use crate::domain::plan::{Apply, Lane};
use crate::domain::verdict::Verdict;
use crate::domain::{Fault, Name};
use crate::project::Project;
use crate::provider::{self, Manifest};
use crate::sys::path::Found;

#[derive(Serialize)]
struct Row {
    name: String,
    title: String,
    /// The provider that it is a variant of.
    extends: Option<String>,
    lanes: Vec<&'static str>,
    default_lane: Option<&'static str>,
    permissions: Vec<&'static str>,
    /// The executable, if it is installed.
    program: Option<String>,
    /// The version that the manifest was verified with.
    verified_with: Option<String>,
    default_model: Option<String>,
    /// It has no model of its own: one has to be named.
    needs_model: bool,
    /// What is done with its answer in lanes where it can only answer.
    apply: Option<Apply>,
    endpoint: Option<String>,
    ambient_mcp: bool,
}

#[derive(Serialize)]
struct Rows {
    schema: &'static str,
    providers: Vec<Row>,
}

impl Row {
    fn of(manifest: &Manifest) -> Self {
        let program = if let Found::At(path) = look_up(manifest) { Some(path.display().to_string()) } else { None };
        let mut permissions: Vec<_> = manifest.permissions.keys().copied().collect();
        permissions.extend(manifest.lanes.values().flat_map(|lane| lane.permissions.keys().copied()));
        permissions.sort_unstable();
        permissions.dedup();
        Self {
            name: manifest.name.to_string(),
            title: manifest.title.clone(),
            extends: manifest.extends.as_ref().map(Name::to_string),
            lanes: manifest.lanes.keys().map(|lane| lane.word()).collect(),
            default_lane: manifest.default_lane.or_else(|| manifest.lanes.keys().next().copied()).map(Lane::word),
            permissions: permissions.into_iter().map(Permissions::word).collect(),
            program,
            verified_with: manifest.version_probe.as_ref().and_then(|probe| probe.tested.clone()),
            default_model: manifest.default_model.clone(),
            needs_model: manifest.model_probe.is_some() && manifest.default_model.is_none(),
            apply: manifest.lanes.values().find_map(|lane| lane.apply),
            endpoint: manifest.endpoint.as_ref().map(EndpointSpec::told),
            ambient_mcp: manifest.ambient_mcp,
        }
    }
}

pub(super) fn run(context: &Context, command: ProviderCommand) -> Result<Answer, Fault> {
    match command {
        ProviderCommand::List { json } => list(context, json),
        ProviderCommand::Show { name, json } => show(context, &name, json),
        ProviderCommand::Check { name, live, model, json } => check(context, &name, live, model, json),
    }
}

fn list(context: &Context, json: bool) -> Result<Answer, Fault> {
    let project = context.project_as_it_is()?;
    let all: Vec<Row> = provider::all(&project)?.iter().map(Row::of).collect();
    if json {
        context.screen.json(&Rows { schema: "vnx.providers/1", providers: all });
        return Ok(Answer::Good);
    }
    let header = ["NAME", "LANES", "INSTALLED", "VERIFIED WITH", "WHAT"];
    let mut rows = vec![header.iter().map(|h| toned(Tone::Dim, h)).collect::<Vec<_>>()];
    for row in all {
        let installed = if row.program.is_some() { toned(Tone::Good, "yes") } else { "no".to_owned() };
        let verified = row.verified_with.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![row.name, row.lanes.join(" "), installed, verified, printable(&row.title)]);
    }
    context.screen.table(&rows, Fit::Wrap);
    Ok(Answer::Good)
}

fn named(project: &Project, name: &str) -> Result<Manifest, Fault> {
    provider::load(project, &Name::parse("provider", name)?)
}

fn show(context: &Context, name: &str, json: bool) -> Result<Answer, Fault> {
    let project = context.project_as_it_is()?;
    let row = Row::of(&named(&project, name)?);
    if json {
        context.screen.json(&Rows { schema: "vnx.providers/1", providers: vec![row] });
        return Ok(Answer::Good);
    }
    let or = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
    let lanes = format!("{}; {} when none is named", row.lanes.join(", "), row.default_lane.unwrap_or("none"));
    let rows = [
        ("name", row.name),
        ("what", row.title),
        ("variant of", or(row.extends, "-")),
        ("lanes", lanes),
        ("permissions", row.permissions.join(", ")),
        ("program", or(row.program, "not installed")),
        ("verified with", or(row.verified_with, "-")),
        (
            "its answer",
            if row.apply.is_some() { "the report, and the diff in it the change" } else { "the report" }.to_owned(),
        ),
        ("model", or(row.default_model, if row.needs_model { "has to be named" } else { "its own default" })),
        ("endpoint", or(row.endpoint, "its own")),
        ("ambient MCP", if row.ambient_mcp { "comes along" } else { "off" }.to_owned()),
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|(k, v)| vec![toned(Tone::Dim, k), printable(v)]).collect();
    context.screen.table(&rows, Fit::Wrap);
    Ok(Answer::Good)
}

/// Without `live` what `vnx doctor` says of it; with it a small dispatch through the door, which
/// proves login, model and network, and costs a few tokens.
fn check(context: &Context, name: &str, live: bool, model: Option<String>, json: bool) -> Result<Answer, Fault> {
    let project = context.project()?;
    let manifest = named(&project, name)?;
    let found = provider_check(&project, &manifest);
    let told = |verdict: Option<&Verdict>| {
        let schema = "vnx.provider-check/1";
        context.screen.json(&serde_json::json!({ "schema": schema, "check": found, "live": verdict }));
    };
    if !json {
        let tone = if found.level == Level::Pass { Tone::Good } else { Tone::Bad };
        context.screen.answer(&format!("{}  {}", toned(tone, found.level.word()), printable(&found.what)));
        if found.level != Level::Pass {
            context.screen.story(&format!("fix: {}", printable(&found.fix)));
        }
    }
    if found.level == Level::Fail || !live {
        if json {
            told(None);
        }
        return Ok(if found.level == Level::Fail { Answer::No } else { Answer::Good });
    }
    let request = Request { model, ..Request::probe(manifest.name.clone()) };
    let options = Options { no_pane: true, ..Options::default() };
    let closed = dispatch::open(&project, &request, &options)?.watch(&project, |_| {})?;
    let verdict = &closed.verdict;
    if json {
        told(Some(verdict));
        return Ok(Answer::of(verdict));
    }
    let word = toned(Tone::of(verdict.decision), verdict.decision.word());
    context.screen.answer(&format!("{word}  {}: {}", verdict.outcome, printable(&verdict.reason)));
    Ok(Answer::of(verdict))
}
