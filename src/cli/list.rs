//! `vnx list`: every dispatch, newest first.

use serde::Serialize;

use super::args::ListArgs;
use super::exit::Answer;
use super::receipts::{indexing, moment, one_of};
use super::screen::{Tone, columns, printable, toned};
use super::table::{Fit, is_narrow, without_time};
use super::{Context, live};
use crate::dispatch::list::{Listed, list};
use crate::domain::span::human_millis;
use crate::domain::{Decision, Fault, Name, Outcome, Timestamp};
use crate::state::Wanted;

#[derive(Serialize)]
struct List {
    schema: &'static str,
    dispatches: Vec<Listed>,
}

pub(super) fn run(context: &Context, args: &ListArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let name = |what, text: &Option<String>| text.as_deref().map(|t| Name::parse(what, t)).transpose();
    let word = |text: &Option<String>| {
        text.as_deref().map(|t| one_of("--verdict", t, &Decision::ALL, Decision::word)).transpose()
    };
    let outcome = |text: &Option<String>| {
        text.as_deref().map(|t| one_of("--outcome", t, Outcome::ALL, Outcome::word)).transpose()
    };
    let wanted = Wanted {
        agent: name("agent", &args.agent)?,
        provider: name("provider", &args.provider)?,
        outcome: outcome(&args.outcome)?,
        decision: word(&args.verdict)?,
        since: args.since.as_deref().map(|text| moment("--since", text)).transpose()?,
        open: args.running,
        landed: args.landed,
    };
    let most = if args.all { usize::MAX } else { args.n };
    let dispatches = list(&project, &wanted, most, &indexing(context))?;
    context.screen.progress("");
    if args.json {
        context.screen.json(&List { schema: "vnx.list/1", dispatches });
        return Ok(Answer::Good);
    }
    if dispatches.is_empty() {
        let any = wanted == Wanted::default();
        context.screen.story(if any {
            "no dispatch yet; start one: `vnx dispatch-agent --agent hello-world`"
        } else {
            "no dispatch is like that"
        });
        return Ok(Answer::Good);
    }
    let now = crate::sys::now();
    let header = ["DISPATCH", "AGENT", "PROVIDER", "STATE", "AGE", "TASK"].map(|h| toned(Tone::Dim, h)).to_vec();
    let rows = std::iter::once(header).chain(dispatches.iter().map(|one| row(one, now)));
    // The id has the agent's name, unless somebody chose it; the age stands beside it.
    let narrow = |row: Vec<String>| [vec![without_time(&row[0])], row[2..].to_vec()].concat();
    let rows: Vec<Vec<String>> = if is_narrow(columns()) { rows.map(narrow).collect() } else { rows.collect() };
    context.screen.table(&rows, Fit::Cut);
    Ok(Answer::Good)
}

fn row(one: &Listed, now: Timestamp) -> Vec<String> {
    let known = &one.known;
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    let age = known.requested.map_or_else(|| "-".to_owned(), |at| human_millis(now.millis_since(at)));
    vec![known.id.to_string(), or_dash(&known.agent), or_dash(&known.provider), state(one), age, or_dash(&one.title)]
}

/// What it is doing, or what came of it.
fn state(one: &Listed) -> String {
    let known = &one.known;
    match (&one.live, known.landed, known.decision, known.outcome) {
        (Some(live), ..) => toned(live::tone(live.state), live.state.word()),
        (None, Some(_), ..) => toned(Tone::Good, "landed"),
        _ if known.dropped.is_some() => toned(Tone::Dim, "dropped"),
        (None, None, Some(Decision::Accept), _) => toned(Tone::Good, Decision::Accept.word()),
        (None, None, Some(decision), Some(outcome)) => {
            format!("{} {outcome}", toned(Tone::of(decision), decision.word()))
        }
        // Refused before it was claimed, or its receipts are missing.
        _ => toned(Tone::Dim, "not started"),
    }
}
