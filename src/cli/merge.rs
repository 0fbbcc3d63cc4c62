//! `vnx merge` and `vnx revert`.

use serde::Serialize;

use super::args::{MergeArgs, RevertArgs, WhichArgs};
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::{Context, gate};
use crate::dispatch::view;
use crate::domain::Fault;
use crate::domain::gate::check::{short, short_ref};
use crate::domain::receipt::Strategy;
use crate::merge::{self, Landed, Merged, Options, Refused};

#[derive(Serialize)]
struct All {
    schema: &'static str,
    merges: Vec<Merged>,
}

pub(super) fn run(context: &Context, args: &MergeArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    if args.ids.len() > 1 && !args.queue {
        return Err(Fault::input("several dispatches are named").fix("add --queue to land them one after the other"));
    }
    let ids = view::resolve_all(&project, &args.ids)?;
    let options = Options {
        into: args.into.clone(),
        strategy: args.strategy.map(Into::into),
        run_gates: args.gates || args.queue,
    };
    let (mut merges, mut cancelled) = (Vec::new(), false);
    for id in &ids {
        if cancelled {
            break;
        }
        let one = match merge::merge(&project, id, &options, |ran| {
            cancelled |= ran.cancelled;
            gate::tell(context, ran);
        }) {
            // The rest of a queue does not wait for one that cannot even be looked at.
            Err(fault) if args.queue && ids.len() > 1 => {
                let (clear, reason) = (fault.next().to_owned(), fault.what);
                Merged::Refused(Refused { dispatch: id.clone(), reason, clear, untouched: false })
            }
            other => other?,
        };
        if !args.json {
            tell(context, &one);
        }
        merges.push(one);
    }
    let answer = if cancelled { Answer::Own(130) } else { answer(&merges) };
    if args.json {
        context.screen.json(&All { schema: "vnx.merge/1", merges });
    }
    Ok(answer)
}

pub(super) fn revert(context: &Context, args: &RevertArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &args.id)?;
    let one = merge::revert(&project, &id, &args.reason, |ran| gate::tell(context, ran))?;
    if !args.json {
        tell(context, &one);
    }
    let merges = vec![one];
    let answer = answer(&merges);
    if args.json {
        context.screen.json(&All { schema: "vnx.merge/1", merges });
    }
    Ok(answer)
}

pub(super) fn pr(context: &Context, which: &WhichArgs, json: bool) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &which.id)?;
    let requested = merge::request(&project, &id, which.into.as_deref())?;
    if json {
        context.screen.json(&requested);
    } else {
        context.screen.answer(&printable(&requested.url));
    }
    Ok(Answer::Good)
}

/// A merge that only waits for a person is refused by policy; anything else that did not land is a no.
fn answer(merges: &[Merged]) -> Answer {
    let waits = |one: &Merged| matches!(one, Merged::Held(held) if held.waits_for_a_person());
    match merges.iter().find(|one| !matches!(one, Merged::Landed(_))) {
        None => Answer::Good,
        Some(one) if waits(one) => Answer::Own(3),
        Some(_) => Answer::No,
    }
}

fn tell(context: &Context, merged: &Merged) {
    match merged {
        Merged::Landed(Landed { dispatch, strategy, target, base, commit, behind, unrecorded, anchored }) => {
            let target = printable(short_ref(target));
            let word = toned(Tone::Good, if *strategy == Strategy::Revert { "taken back" } else { "landed" });
            context.screen.answer(&format!("{word}  {dispatch} on {target}: {} -> {}", short(base), short(commit)));
            if let Some(why) = behind {
                context.screen.answer(&toned(Tone::Doubt, &format!("  {}", printable(why))));
            }
            if let Some(why) = unrecorded {
                let words =
                    format!("  not all of it is on record: {}; the next command of vnx sees to it", printable(why));
                context.screen.answer(&toned(Tone::Doubt, &words));
            }
            if anchored.is_none() {
                let words = "  no anchor covers it yet: `vnx audit-chain seal` says why";
                context.screen.answer(&toned(Tone::Doubt, words));
            }
        }
        Merged::Held(held) => gate::decision(context, held),
        Merged::Refused(Refused { dispatch, reason, clear, untouched }) => {
            let word = toned(Tone::Bad, "refused");
            let target = if *untouched { "; the target is what it was" } else { "" };
            context.screen.answer(&format!("{word}  {dispatch}: {}{target}", printable(reason)));
            context.screen.answer(&toned(Tone::Dim, &format!("    {}", printable(clear))));
        }
    }
}
