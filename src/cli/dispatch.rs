//! `vnx dispatch-agent`.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Serialize;

use super::args::{DispatchArgs, PromoteArgs, ResumeArgs};
use super::exit::Answer;
use super::follow::Follow;
use super::request::{request, written};
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use super::{Context, show, utf8};
use crate::anchor;
use crate::dispatch::retry::{self, Told};
use crate::dispatch::stage::{self, Staged};
use crate::dispatch::view;
use crate::dispatch::{self, Lacking, Opened, Options, Planned, Progress, Refusal, Request};
use crate::domain::plan::Lane;
use crate::domain::receipt::DispatchClosed;
use crate::domain::span::human_millis;
use crate::domain::{DispatchId, Fault, Name};
use crate::project::Project;
use crate::sys;

#[derive(Serialize)]
struct Claimed<'a> {
    schema: &'static str,
    id: &'a DispatchId,
    plan: String,
    branch: &'a str,
    worktree: &'a str,
}

pub(super) fn run(context: &Context, args: DispatchArgs) -> Result<Answer, Fault> {
    let options = Options {
        socket: args.tmux_socket.as_deref().map(|s| Name::parse("socket", s)).transpose()?,
        no_pane: args.no_pane,
        wait_slot: args.wait_slot,
        on_wait: context.screen.teller(),
        detach: args.detach,
        attested: None,
    };
    let (dry_run, json, retries) = (args.dry_run, args.json, args.retry);
    let request = request(context, args)?;
    request.check()?;
    let project = if dry_run { context.project_as_it_is()? } else { context.project()? };
    let request = written(&project, request)?;
    if dry_run {
        return plan(context, &project, &request, json);
    }
    start(context, &project, &request, &options, retries, json)
}

fn plan(context: &Context, project: &Project, request: &Request, json: bool) -> Result<Answer, Fault> {
    match dispatch::plan_only(project, request) {
        Ok(planned) => {
            print_plan(context, &planned, json);
            Ok(Answer::Good)
        }
        Err(Refusal::Fault(fault) | Refusal::Policy { fault, .. }) => Err(fault),
    }
}

/// `vnx resume`.
pub(super) fn resume(context: &Context, args: ResumeArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &args.id)?;
    let instruction = args.instruction.map(|text| utf8(text, "--instruction")).transpose()?;
    let mut request = dispatch::resume(&project, &id, instruction)?;
    request.lane = args.lane.map(Into::into).or(request.lane);
    request.deadline = args.deadline;
    request.end = args.end.map(Into::into);
    let options = Options { no_pane: args.no_pane, detach: args.detach, ..Options::default() };
    start(context, &project, &request, &options, 0, args.json)
}

/// A proposal as JSON.
#[derive(Serialize)]
struct Proposed<'a> {
    schema: &'static str,
    id: &'a DispatchId,
}

/// `vnx stage`.
pub(super) fn stage(context: &Context, args: DispatchArgs) -> Result<Answer, Fault> {
    let (json, dry_run) = (args.json, args.dry_run);
    let of_a_run = [
        ("--detach", args.detach),
        ("--retry", args.retry > 0),
        ("--wait-slot", args.wait_slot),
        ("--no-pane", args.no_pane),
        ("--tmux-socket", args.tmux_socket.is_some()),
    ];
    if let Some((flag, _)) = of_a_run.into_iter().find(|(_, given)| *given) {
        return Err(Fault::input(format!("{flag} is about how a dispatch runs, and a proposal does not run"))
            .fix("leave it away; `vnx promote` has --detach and --no-pane"));
    }
    let request = request(context, args)?;
    request.check()?;
    let project = if dry_run { context.project_as_it_is()? } else { context.project()? };
    let request = written(&project, request)?;
    if dry_run {
        return plan(context, &project, &request, json);
    }
    let id = stage::propose(&project, &request)?;
    if json {
        context.screen.json(&Proposed { schema: "vnx.stage/1", id: &id });
    } else {
        context.screen.answer(id.as_str());
        context.screen.story(&format!("proposed; `vnx promote {id}` lets it begin"));
    }
    Ok(Answer::Good)
}

/// Proposals as JSON.
#[derive(Serialize)]
struct Proposals {
    schema: &'static str,
    proposals: Vec<Staged>,
}

/// `vnx promote`.
pub(super) fn promote(context: &Context, args: &PromoteArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let Some(text) = &args.id else { return proposals(context, &project, args.json) };
    if args.withdraw {
        let id = stage::withdraw(&project, text)?;
        if args.json {
            context.screen.json(&Proposed { schema: "vnx.withdrawn/1", id: &id });
        } else {
            context.screen.answer(&format!("withdrawn: {id}"));
        }
        return Ok(Answer::Good);
    }
    let options = Options { no_pane: args.no_pane, detach: args.detach, ..Options::default() };
    let opened = stage::promote(&project, text, args.reason.as_deref(), args.sign, &options)?;
    if args.detach {
        return Ok(leave(context, opened, args.json));
    }
    let (id, planned) = (opened.id.clone(), opened.planned.clone());
    story(context, &Told::Opened(&id, &planned));
    let closed = opened.watch(&project, |progress| tell(context, progress))?;
    if args.json {
        show::json(context, &project, &id, Some(&closed));
    } else {
        summary(context, &project, &id, &closed);
    }
    Ok(Answer::of(&closed.verdict))
}

fn proposals(context: &Context, project: &Project, json: bool) -> Result<Answer, Fault> {
    let proposals = stage::staged(project)?;
    if json {
        context.screen.json(&Proposals { schema: "vnx.proposals/1", proposals });
        return Ok(Answer::Good);
    }
    if proposals.is_empty() {
        context.screen.story("nothing is proposed; `vnx stage` takes what dispatch-agent takes");
        return Ok(Answer::Good);
    }
    let mut rows = vec![["PROPOSAL", "AGENT", "WHAT"].map(|h| toned(Tone::Dim, h)).to_vec()];
    for Staged { id, request, edited } in &proposals {
        let instruction = request.instruction.as_deref().unwrap_or_default().trim();
        let what = crate::domain::line::summary(instruction);
        // Whoever promotes answers for all of it.
        let (id_too, instruction_too) = (request.id.clone(), request.instruction.clone());
        let plain = Request { id: id_too, instruction: instruction_too, ..Request::of(request.agent.clone()) };
        let is_all = what == instruction && *request == plain;
        let more = if is_all { "" } else { " (`vnx promote -v` shows all of it)" };
        let edited = if *edited { " (edited since, so it cannot be promoted)" } else { "" };
        rows.push(vec![id.to_string(), request.agent.to_string(), printable(&what) + more + edited]);
    }
    context.screen.table(&rows, Fit::Wrap);
    for Staged { id, request, .. } in proposals.iter().filter(|_| context.screen.is_verbose()) {
        context.screen.answer(&toned(Tone::Strong, id.as_str()));
        for line in request.to_yaml()?.lines() {
            context.screen.answer(&format!("  {}", printable(line)));
        }
    }
    Ok(Answer::Good)
}

/// Leaves a dispatch to itself and says which it is.
fn leave(context: &Context, opened: Opened, json: bool) -> Answer {
    let (id, plan) = (opened.id.clone(), opened.planned.plan.clone());
    let digest = opened.planned.digest.to_string();
    opened.detach();
    if json {
        let (branch, worktree) = (&plan.branch, &plan.worktree);
        context.screen.json(&Claimed { schema: "vnx.claimed/1", id: &id, plan: digest, branch, worktree });
    } else {
        context.screen.answer(id.as_str());
    }
    Answer::Good
}

/// Opens a dispatch and watches it, or leaves it to itself.
fn start(
    context: &Context,
    project: &Project,
    request: &Request,
    options: &Options,
    retries: u32,
    json: bool,
) -> Result<Answer, Fault> {
    context.screen.note(anchor::replaced(project).as_ref());
    if options.detach {
        let answer = leave(context, dispatch::open(project, request, options)?, json);
        if !context.screen.is_quiet() {
            without(context, &dispatch::lacking(project));
        }
        return Ok(answer);
    }
    let (follow, lacking) = (Follow::begin(context.screen, project), look_for_lacking(context, project));
    let mut begun = None;
    let (id, closed) = retry::run(project, request, options, retries, |told| {
        match &told {
            Told::Opened(id, planned) => {
                follow.on(id);
                begun = Some(((*id).clone(), planned.plan.lane));
            }
            _ => context.screen.progress(""),
        }
        story(context, &told);
        if let (Told::Progress(Progress::Started { .. }), Some((id, lane))) = (&told, &begun) {
            ways_in(context, project, id, *lane);
            if let Ok(lacking) = lacking.recv_timeout(A_MOMENT) {
                without(context, &lacking);
            }
        }
    })?;
    drop(follow);
    if json {
        show::json(context, project, &id, Some(&closed));
    } else {
        summary(context, project, &id, &closed);
    }
    Ok(Answer::of(&closed.verdict))
}

/// How long the story waits for what it can do without.
const A_MOMENT: Duration = Duration::from_millis(300);

/// Looks for what the worktree lacks, beside everything else: in a large checkout that takes its time.
fn look_for_lacking(context: &Context, project: &Project) -> Receiver<Lacking> {
    let (tell, told) = channel();
    if !context.screen.is_quiet() {
        let project = project.clone();
        // It is a hint: where no thread can be had, or nobody waits for it any more, there is none.
        let _ = sys::thread(move || {
            let _ = tell.send(dispatch::lacking(&project));
        });
    }
    told
}

/// Tells how it is connected, and how one looks at it.
fn ways_in(context: &Context, project: &Project, id: &DispatchId, lane: Lane) {
    let pane = view::pane_of(project, id).map(|pane| format!(", in the tmux pane {}", printable(&pane)));
    let (lane, pane, short) = (lane.word(), pane.unwrap_or_default(), view::short_name(project, id));
    context.screen.story(&toned(Tone::Dim, &format!("started   {lane} lane{pane}; `vnx attach {short}` shows it")));
}

/// Tells what a worker does not find in its worktree.
fn without(context: &Context, lacking: &Lacking) {
    let told = [
        (&lacking.uncommitted, "which is not committed here"),
        (&lacking.environment_files, "which git ignores: `worktree.copy` in .vnx/config.yaml hands it over"),
    ];
    for (paths, why) in told {
        if let [first, more @ ..] = &paths[..] {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            let line = format!("without   {}{more}, {why}", printable(first));
            context.screen.story(&toned(Tone::Dim, &line));
        }
    }
}

fn story(context: &Context, told: &Told<'_>) {
    match told {
        Told::Opened(id, planned) => {
            let plan = &planned.plan;
            let base = plan.base.name.trim_start_matches("refs/heads/");
            context.screen.story(&format!("{}  {} on {base}", toned(Tone::Strong, id.as_str()), plan.provider));
            for reason in &plan.reasons {
                context.screen.detail(&format!("because   {}", printable(reason)));
            }
        }
        Told::Progress(progress) => tell(context, progress),
        Told::Again { number, outcome, after, provider } => {
            let place = provider.map_or_else(|| format!("attempt {number}"), |p| format!("another attempt on {p}"));
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let when = if millis == 0 { "follows".to_owned() } else { format!("follows in {}", human_millis(millis)) };
            context.screen.story(&toned(Tone::Doubt, &format!("again     {outcome}: {place} {when}")));
        }
        Told::Stopped(why) => context.screen.story(&format!("no other attempt: {}", printable(why))),
    }
}

fn print_plan(context: &Context, planned: &Planned, json: bool) {
    if json {
        context.screen.text(format!("{}\n", planned.json).as_bytes());
        return;
    }
    let plan = &planned.plan;
    let rows = [
        ("dispatch", plan.id.to_string()),
        ("agent", format!("{}, permissions {}", plan.agent, plan.permissions.word())),
        (
            "provider",
            format!(
                "{}{}, {} lane",
                plan.provider,
                plan.model.as_ref().map(|m| format!(" ({m})")).unwrap_or_default(),
                plan.lane.word()
            ),
        ),
        ("base", format!("{} at {}", plan.base.name, plan.base.commit)),
        ("branch", plan.branch.clone()),
        ("worktree", plan.worktree.clone()),
        ("command", format!("{} {}", plan.launch.program, plan.launch.args.join(" "))),
        ("prompt", format!("{} bytes, {} of them overhead", planned.prompt.len(), plan.prompt_overhead)),
        ("limits", format!("total {}, idle {}, grace {}", plan.limits.deadline, plan.limits.idle, plan.limits.grace)),
        ("plan digest", planned.digest.to_string()),
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|(k, v)| vec![toned(Tone::Dim, k), printable(v)]).collect();
    context.screen.table(&rows, Fit::Wrap);
    for reason in &plan.reasons {
        context.screen.answer(&format!("{} {}", toned(Tone::Dim, "because"), printable(reason)));
    }
    context.screen.story("nothing was done: this was --dry-run");
}

fn tell(context: &Context, progress: &Progress) {
    let line = match progress {
        Progress::Prepared { took_ms } => format!("prepared  worktree and prompt in {}", human_millis(*took_ms)),
        Progress::Started { pid } => {
            return context.screen.detail(&toned(Tone::Dim, &format!("process   {pid}")));
        }
        Progress::Exited { end, ran_ms } => {
            format!("worker    {} after {}", printable(&end.to_string()), human_millis(*ran_ms))
        }
        Progress::Judged { .. } | Progress::Closed => return,
    };
    context.screen.story(&toned(Tone::Dim, &line));
}

fn summary(context: &Context, project: &Project, id: &DispatchId, closed: &DispatchClosed) {
    let verdict = &closed.verdict;
    let word = toned(Tone::of(verdict.decision), verdict.decision.word());
    context.screen.answer(&format!("{word}  {}: {}", verdict.outcome, printable(&verdict.reason)));
    for line in show::details(project, id, closed) {
        context.screen.story(&line);
    }
    for line in &verdict.evidence {
        context.screen.detail(&format!("  {}", printable(line)));
    }
}
