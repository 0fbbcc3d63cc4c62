//! `vnx gate`, `vnx gate-check`, `vnx approve`, and the probe that a gate runs.

use std::path::Path;

use serde::Serialize;

use super::Context;
use super::args::{ApproveArgs, GateCheckArgs, GateCommand, GateRunArgs, WhichArgs};
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::gates::{self, Looked, Ran, Terms, Wanted};
use crate::dispatch::view;
use crate::domain::gate::check::{Code, GateCheck, Proof, Reason, Standing, check as decide, short, short_ref};
use crate::domain::gate::{Gate, GateStatus, Phase, Probe, Work};
use crate::domain::receipt::{Body, GateRequested, GateResulted, Scope};
use crate::domain::span::{dollars, human_millis};
use crate::domain::{DispatchId, Fault, Name};
use crate::gate::policy;
use crate::git::Git;
use crate::project::Project;
use crate::sys::files;

/// A gate and what it says.
#[derive(Serialize)]
struct Configured<'a> {
    name: &'a Name,
    kind: &'static str,
    #[serde(flatten)]
    gate: &'a Gate,
}

#[derive(Serialize)]
struct Listing<'a> {
    schema: &'static str,
    target: &'a str,
    commit: &'a str,
    gates: Vec<Configured<'a>>,
}

#[derive(Serialize)]
struct AllRan<'a> {
    schema: &'static str,
    dispatch: &'a DispatchId,
    ran: &'a [Ran],
}

#[derive(Serialize)]
struct Shown<'a> {
    schema: &'static str,
    asked: &'a GateRequested,
    said: &'a GateResulted,
    /// Why it does not count, if its files and receipts do not say the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    result: serde_json::Value,
}

pub(super) fn run(context: &Context, command: GateCommand) -> Result<Answer, Fault> {
    match command {
        GateCommand::List { into, json } => list(context, into.as_deref(), json),
        GateCommand::Run(args) => run_gates(context, &args),
        GateCommand::Status { which, json } => {
            let (_, looked) = look(context, &which)?;
            let checked = decide(&looked.situation);
            if json {
                context.screen.json(&checked);
            } else {
                for why in checked.reasons.iter().filter(|r| r.code == Code::Nothing) {
                    context.screen.answer(&format!("nothing to land: {}", printable(&why.what)));
                }
                gate_rows(context, &checked);
            }
            Ok(Answer::Good)
        }
        GateCommand::Show { id, gate, json } => show(context, &id, &gate, json),
        GateCommand::Override { id, gate, reason, holds, sign, into, json } => {
            let (project, looked) = look(context, &WhichArgs { id, into })?;
            let about = Name::parse("gate", &gate)?;
            let used = gates::override_gate(&project, &looked, &about, &Terms { reason, holds, sign })?;
            if json {
                context.screen.json(&used);
            } else if let Some(gate) = &used.gate {
                let told = used.attestation.as_ref().map_or("", |attested| attested.presence.told());
                context.screen.answer(&format!("{about} is set aside ({told}) for {}", said_for(&gate.scope)));
            }
            Ok(Answer::Good)
        }
    }
}

fn said_for(scope: &Scope) -> String {
    let head = short(&scope.head);
    format!("{head} on {}, until {}", printable(short_ref(&scope.target)), scope.until)
}

fn look(context: &Context, which: &WhichArgs) -> Result<(Project, Looked), Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &which.id)?;
    let looked = gates::look(&project, &id, which.into.as_deref())?;
    Ok((project, looked))
}

fn list(context: &Context, into: Option<&str>, json: bool) -> Result<Answer, Fault> {
    let project = context.project_as_it_is()?;
    let repository = Git::repository(&project.located.common_dir);
    let here = Git::tree(&project.located.git_dir, &project.located.top);
    let named = into.or(project.config.merge.target.as_deref());
    let target = match named {
        Some(name) => format!("refs/heads/{}", short_ref(name)),
        None => here.head()?.and_then(|(_, branch)| branch).unwrap_or_else(|| "HEAD".to_owned()),
    };
    let commit = here
        .resolve(&target)?
        .ok_or_else(|| Fault::input(format!("there is no branch {:?}", short_ref(&target))).fix("see `git branch`"))?;
    let policy = policy(&repository, &target, &commit, &project.located)?;
    let gates: Vec<Configured<'_>> =
        policy.gates.iter().map(|(name, gate)| Configured { name, kind: gate.kind().word(), gate }).collect();
    if json {
        context.screen.json(&Listing { schema: "vnx.gates/1", target: &target, commit: &commit, gates });
        return Ok(Answer::Good);
    }
    if gates.is_empty() {
        let plain = short_ref(&target);
        let here = project.config.gates.len();
        let next = match here {
            0 => "add some under `gates` in its .vnx/config.yaml".to_owned(),
            n => format!("the {n} in this checkout's .vnx/config.yaml count once they are committed there"),
        };
        context.screen.story(&format!("{plain} has no gates: {next}"));
        return Ok(Answer::Good);
    }
    let mut rows = vec![["GATE", "KIND", "HOLDS", "WHEN", "WHAT"].map(|h| toned(Tone::Dim, h)).to_vec()];
    for Configured { name, kind, gate } in gates {
        let phase = if gate.phase == Phase::PostMerge { "at merge" } else { "before" };
        let holds = if gate.required { "yes" } else { "advisory" };
        rows.push(vec![
            name.to_string(),
            (*kind).to_owned(),
            holds.to_owned(),
            phase.to_owned(),
            printable(&what(gate)),
        ]);
    }
    context.screen.table(&rows, Fit::Wrap);
    Ok(Answer::Good)
}

/// What a gate does, in half a line.
fn what(gate: &Gate) -> String {
    match gate.work() {
        Some(Work::Command(line)) => crate::domain::line::summary(line),
        Some(Work::Probe(probe)) => {
            probe.checks.iter().map(crate::domain::gate::ProbeCheck::title).collect::<Vec<_>>().join(", ")
        }
        Some(Work::Review(review)) => {
            let names: Vec<&str> = review.providers.iter().map(Name::as_str).collect();
            format!(
                "{} by {}",
                review.agent,
                if names.is_empty() { "the default provider".to_owned() } else { names.join(" and ") }
            )
        }
        Some(Work::Human(human)) => {
            format!("{} approval{}", human.approvals, if human.signed { ", signed" } else { "" })
        }
        Some(Work::Ci(ci)) => {
            let said = [("file", &ci.file), ("command", &ci.command), ("workflow", &ci.forge)];
            said.into_iter().find_map(|(word, text)| Some(format!("{word} {}", text.as_ref()?))).unwrap_or_default()
        }
        None => String::new(),
    }
}

fn run_gates(context: &Context, args: &GateRunArgs) -> Result<Answer, Fault> {
    let (project, looked) = look(context, &args.which)?;
    let names = args.gates.iter().map(|name| Name::parse("gate", name)).collect::<Result<_, _>>()?;
    let wanted = Wanted { names, all: args.all, jobs: args.jobs };
    let ran = gates::run(&project, &looked, &wanted, |ran| tell(context, ran))?;
    let dispatch = &looked.situation.dispatch;
    if args.json {
        context.screen.json(&AllRan { schema: "vnx.gate-run/1", dispatch, ran: &ran });
    } else if ran.is_empty() && looked.situation.gates.is_empty() {
        context.screen.story("no gate applies to this change; `vnx gate list` shows those of its target");
    } else if ran.is_empty() {
        context.screen.story("every gate that can be run has passed for this commit; `--all` runs them again");
    }
    let good = ran.iter().all(|ran| ran.passed() || !ran.required);
    Ok(match good {
        _ if ran.iter().any(|ran| ran.cancelled) => Answer::Own(130),
        true => Answer::Good,
        false => Answer::No,
    })
}

/// One line for a gate that is over.
pub(super) fn tell(context: &Context, ran: &Ran) {
    let (tone, word, why, took) = match (&ran.result, &ran.skipped) {
        (Some(said), _) => {
            let tone = match said.status {
                GateStatus::Pass => Tone::Good,
                GateStatus::Fail => Tone::Bad,
                GateStatus::Unverified => Tone::Doubt,
            };
            (tone, said.status.word(), said.reason.clone(), format!(", {}", human_millis(said.took_ms)))
        }
        (None, Some(why)) => (Tone::Doubt, "not run", why.clone(), String::new()),
        (None, None) => (Tone::Bad, "unverified", "it left no result".to_owned(), String::new()),
    };
    let advisory = if ran.required { "" } else { " (advisory)" };
    context.screen.story(&format!("{}  {}{advisory}: {}{took}", toned(tone, word), ran.gate, printable(&why)));
}

fn show(context: &Context, id: &str, gate: &str, json: bool) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, id)?;
    let name = Name::parse("gate", gate)?;
    let receipts = view::receipts(&project, &id)?;
    let none =
        || Fault::input(format!("gate {name} has no result for {id}")).fix(format!("`vnx gate run {id} {name}`"));
    let question = |nonce: &str| {
        receipts.iter().find_map(|r| match &r.body {
            Body::GateRequested(asked) if asked.binding.nonce == nonce => Some(asked),
            _ => None,
        })
    };
    let mut all = receipts.iter().rev().filter_map(|r| match &r.body {
        Body::GateResulted(said) if said.gate == name => Some((question(&said.nonce)?, said)),
        _ => None,
    });
    let (mut asked, mut said) = all.next().ok_or_else(none)?;
    if said.is_cancelled() {
        // It takes nothing back of what was said to the same question before it.
        let same = |other: &GateRequested| other.phase == asked.phase && other.binding.asks_as(&asked.binding);
        let before = all.find(|(question, answer)| !answer.is_cancelled() && same(question));
        (asked, said) = before.unwrap_or((asked, said));
    }
    let dispatch = project.paths.dispatch(&id);
    let broken = match crate::gate::proof(&dispatch, &id, asked, said) {
        Proof::Broken(why) => Some(why),
        Proof::Sound => None,
    };
    let answer = if broken.is_some() { Answer::No } else { Answer::Good };
    let folder = crate::gate::folder(&dispatch, &said.nonce).ok_or_else(none)?;
    let read = |file: &str| files::read_capped(&folder.join(file), 64 << 20).map(Option::unwrap_or_default);
    let (report, result) = (read("report.txt")?, read("result.json")?);
    if json {
        let result = serde_json::from_slice(&result).unwrap_or_default();
        context.screen.json(&Shown { schema: "vnx.gate-show/1", asked, said, broken, result });
        return Ok(answer);
    }
    let tone = if said.status == GateStatus::Pass { Tone::Good } else { Tone::Bad };
    match &broken {
        Some(why) => {
            context.screen.answer(&format!("{}  {name}: {}", toned(Tone::Bad, "does not count"), printable(why)));
            context.screen.answer(&format!("  it said {}: {}", said.status.word(), printable(&said.reason)));
        }
        None => {
            context.screen.answer(&format!("{}  {name}: {}", toned(tone, said.status.word()), printable(&said.reason)));
        }
    }
    let head = &asked.binding.head;
    context.screen.answer(&format!("  {} at {}, {}", asked.kind.word(), short(head), human_millis(said.took_ms)));
    if let Ok(evidence) = serde_json::from_slice::<crate::gate::Evidence>(&result) {
        for check in &evidence.checks {
            let mark = if check.good { toned(Tone::Good, "ok ") } else { toned(Tone::Bad, "no ") };
            context.screen.answer(&format!("  {mark} {}: {}", printable(&check.asked), printable(&check.heard)));
        }
        for found in &evidence.findings {
            let place = format!("{}:{}", printable(&found.file), found.line);
            context.screen.answer(&format!("  {:<8} {place}  {}", found.severity.word(), printable(&found.claim)));
            if !found.fix.is_empty() {
                context.screen.answer(&format!("           {}", printable(&found.fix)));
            }
        }
    }
    context.screen.text(&report);
    Ok(answer)
}

pub(super) fn check(context: &Context, args: &GateCheckArgs) -> Result<Answer, Fault> {
    let checked = match &args.commit {
        Some(commit) => crate::merge::trace(&context.project_as_it_is()?, commit)?,
        None => look(context, &args.which)?.1.decide(),
    };
    if args.json {
        context.screen.json(&checked);
    } else {
        decision(context, &checked);
    }
    Ok(if checked.go { Answer::Good } else { Answer::No })
}

/// GO or HOLD, and why.
pub(super) fn decision(context: &Context, checked: &GateCheck) {
    let subject = &checked.subject;
    let target = printable(short_ref(&subject.target));
    let head = short(&subject.head);
    let word = if checked.go { toned(Tone::Good, "GO") } else { toned(Tone::Bad, "HOLD") };
    context.screen.answer(&format!("{word}  {} ({head}) on {target}", checked.dispatch));
    for Reason { what, clear, .. } in &checked.reasons {
        context.screen.answer(&format!("  {}", printable(what)));
        context.screen.answer(&toned(Tone::Dim, &format!("    {}", printable(clear))));
    }
    if let [first, more @ ..] = &checked.strict[..] {
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let strict =
            format!("  strict: it changes {}{more}; every gate counts, and a person approves", printable(first));
        context.screen.answer(&toned(Tone::Doubt, &strict));
    }
    gate_rows(context, checked);
    for said in &checked.overrides {
        let why = format!("  set aside  {} by {} ({}): {}", said.scope, said.by, said.presence.told(), said.reason);
        context.screen.answer(&toned(Tone::Doubt, &printable(&why)));
    }
    for said in &checked.approvals {
        let (by, told) = (&said.by, said.presence.told());
        context.screen.answer(&printable(&format!("  approved   by {by} ({told}): {}", said.reason)));
    }
}

pub(super) fn gate_rows(context: &Context, checked: &GateCheck) {
    if checked.reasons.iter().any(|r| r.code == Code::Nothing) {
        return;
    }
    let tone = |standing: Standing| match standing {
        Standing::Pass => Tone::Good,
        Standing::Fail | Standing::Broken => Tone::Bad,
        Standing::AtMerge => Tone::Dim,
        _ => Tone::Doubt,
    };
    let rows: Vec<Vec<String>> = checked
        .gates
        .iter()
        .map(|row| {
            let advisory = if row.required { "" } else { " (advisory)" };
            let cost = row.cost_micro_usd.map(|c| format!(" ({})", dollars(c))).unwrap_or_default();
            let name = format!("  {}{advisory}", row.gate);
            vec![name, toned(tone(row.standing), row.standing.word()), printable(&row.reason) + &cost]
        })
        .collect();
    context.screen.table(&rows, Fit::Wrap);
}

pub(super) fn approve(context: &Context, args: ApproveArgs) -> Result<Answer, Fault> {
    let (project, looked) = look(context, &args.which)?;
    let settles = args.gate.as_deref().map(|name| Name::parse("gate", name)).transpose()?;
    let terms = Terms { reason: args.reason, holds: args.holds, sign: args.sign };
    let given = gates::approve(&project, &looked, &terms, settles)?;
    if args.json {
        context.screen.json(&given);
    } else {
        let (by, told) = (printable(&given.by.name), given.attestation.presence.told());
        context.screen.answer(&format!("approved by {by} ({told}): {}", said_for(&given.scope)));
    }
    Ok(Answer::Good)
}

/// `vnx probe FILE`, as the command of a gate.
pub(super) fn probe(context: &Context, file: &Path) -> Result<Answer, Fault> {
    let bytes = files::read_capped(file, 1 << 20)?.ok_or_else(|| {
        Fault::input(format!("{} is missing", file.display())).fix("name a file with a probe as JSON")
    })?;
    let probe: Probe = serde_json::from_slice(&bytes)
        .map_err(|e| Fault::input(format!("{}: {e}", file.display())).fix("write it as docs/gates.md shows"))?;
    let line = |said: &crate::gate::ProbeSaid| context.screen.answer(&serde_json::to_string(said).unwrap_or_default());
    Ok(if crate::gate::probe(&probe, line)? { Answer::Good } else { Answer::No })
}
