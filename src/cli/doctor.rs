//! `vnx doctor`.

use super::Context;
use super::args::DoctorArgs;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::doctor::{self, Level};
use crate::dispatch::leftovers;
use crate::domain::{Fault, Name};

pub(super) fn run(context: &Context, args: &DoctorArgs) -> Result<Answer, Fault> {
    let wanted = args.provider.as_deref().map(|p| Name::parse("provider", p)).transpose()?;
    let fixes = if args.fix { leftovers::fix(&context.from, args.yes) } else { Vec::new() };
    let mut report = doctor::examine(&context.from, wanted.as_ref());
    report.fixes = fixes;
    let warned = report.checks.iter().any(|c| c.level == Level::Warn);
    let good = report.ok && !(args.strict && warned);
    if args.json {
        context.screen.json(&report);
        return Ok(if good { Answer::Good } else { Answer::No });
    }
    let mut rows = Vec::new();
    for check in &report.checks {
        let tone = match check.level {
            Level::Pass => Tone::Good,
            Level::Warn => Tone::Doubt,
            Level::Fail => Tone::Bad,
        };
        rows.push(vec![toned(tone, check.level.word()), check.id.clone(), printable(&check.what)]);
        if !check.fix.is_empty() {
            rows.push(vec![String::new(), String::new(), toned(Tone::Dim, &format!("fix: {}", printable(&check.fix)))]);
        }
    }
    context.screen.table(&rows, Fit::Wrap);
    for fix in &report.fixes {
        let result = fix.result.as_deref().unwrap_or("would be done with --yes");
        context.screen.answer(&format!("fix: {}: {}", printable(&fix.what), printable(result)));
    }
    if args.fix && report.fixes.is_empty() {
        context.screen.answer("fix: there is nothing that vnx can mend by itself");
    }
    let fails = report.checks.iter().filter(|c| c.level == Level::Fail).count();
    context.screen.answer(&match (fails, warned, args.strict) {
        (0, false, _) => "ready".to_owned(),
        (0, true, false) => "ready; mind the warnings".to_owned(),
        (0, true, true) => "not ready: with --strict a warning counts".to_owned(),
        (n, ..) => format!("not ready: {n} FAIL"),
    });
    Ok(if good { Answer::Good } else { Answer::No })
}
