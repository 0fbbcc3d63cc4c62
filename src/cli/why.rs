//! `vnx show --why`: every rule of the verdict and what came of it, then what the gates say.

use serde::Serialize;

use super::Context;
use super::exit::Answer;
use super::gate::gate_rows;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::{Why, gates, view};
use crate::domain::gate::check::GateCheck;
use crate::domain::rules::{Answer as RuleAnswer, Asked, conclude};
use crate::domain::verdict::Verdict;
use crate::domain::{DispatchId, Fault};
use crate::project::Project;

#[derive(Serialize)]
struct Explained<'a> {
    schema: &'static str,
    id: &'a DispatchId,
    rules: Vec<Asked>,
    /// As it was given when the dispatch was closed.
    verdict: Verdict,
    /// With what the gates say now; absent where none apply, or nothing says which do.
    #[serde(skip_serializing_if = "Option::is_none")]
    with_gates: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gates: Option<GateCheck>,
}

pub(super) fn run(context: &Context, project: &Project, id: &DispatchId, json: bool) -> Result<Answer, Fault> {
    let missing = |what: &str| {
        Fault::environment(format!("how the verdict of {id} came about {what}")).fix(format!("see `vnx show {id}`"))
    };
    let closed = view::closed(project, id)?.ok_or_else(|| missing("is not known before it is closed"))?;
    let text = view::file(project, id, "verdict.json")?.ok_or_else(|| missing("was not kept"))?;
    let Why { verdict, rules, .. } = serde_json::from_slice(&text).map_err(|_| missing("cannot be read"))?;
    if verdict != closed.verdict {
        return Err(missing("is not what its receipt says: verdict.json was edited"));
    }
    let gates = gates::check(project, id, None).ok().filter(|checked| !checked.gates.is_empty());
    let with_gates = gates.as_ref().map(|checked| conclude(&verdict, &checked.held_by()));
    if json {
        context.screen.json(&Explained { schema: "vnx.why/1", id, rules, verdict, with_gates, gates });
        return Ok(Answer::Good);
    }
    let rows: Vec<Vec<String>> = rules
        .iter()
        .map(|asked| {
            let (tone, word) = match asked.answer {
                RuleAnswer::No => (Tone::Dim, "no"),
                RuleAnswer::Decided => (Tone::of(verdict.decision), "yes"),
                RuleAnswer::NotAsked => (Tone::Dim, "-"),
            };
            vec![format!("  {}", toned(tone, word)), printable(&asked.rule), printable(&asked.asks)]
        })
        .collect();
    context.screen.table(&rows, Fit::Wrap);
    let tell = |verdict: &Verdict, beside: &str| {
        let word = toned(Tone::of(verdict.decision), verdict.decision.word());
        context.screen.answer(&format!("{word}  {}: {}{beside}", verdict.outcome, printable(&verdict.reason)));
    };
    tell(&verdict, "");
    if let (Some(checked), Some(now)) = (&gates, &with_gates) {
        gate_rows(context, checked);
        if *now != verdict {
            context.screen.answer(&toned(Tone::Dim, "with its gates, as they stand now:"));
            tell(now, "");
        }
    }
    Ok(Answer::Good)
}
