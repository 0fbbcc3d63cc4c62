//! `vnx status`: one screen, once or left open.

use std::io::IsTerminal;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Context;
use super::args::StatusArgs;
use super::exit::Answer;
use super::live::live_lines;
use super::receipts::row;
use super::screen::{self, Tone, printable, toned};
use super::table::{Fit, fitted, is_narrow, width, without_time};
use crate::dispatch::overview::{Overview, Today, Watch};
use crate::domain::receipt::Kind;
use crate::domain::span::{counted, dollars};
use crate::domain::{Fault, Timestamp};
use crate::ledger::{Receipt, format};
use crate::project::Project;
use crate::sys::tty::{Keys, Leave};
use crate::sys::watch::FolderWatch;

/// Receipts that tell how something came out.
const NEWS: [Kind; 9] = [
    Kind::DispatchClosed,
    Kind::DispatchRefused,
    Kind::GateResulted,
    Kind::ApprovalGiven,
    Kind::MergeLanded,
    Kind::MergeRefused,
    Kind::StageProposed,
    Kind::WorktreeUndone,
    Kind::LedgerRecovered,
];
/// How many of them are shown, where the terminal does not say that there is less room.
const LAST: usize = 8;

#[derive(Serialize)]
struct Status {
    schema: &'static str,
    #[serde(flatten)]
    overview: Overview,
    last: Vec<Box<RawValue>>,
}

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let mut watch = Watch::over(&project);
    let changes = args.watch.then(|| FolderWatch::on(project.ledger().folder()));
    let moves = std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let redraws = args.watch && !args.json && moves;
    let keys = changes.as_ref().filter(|_| redraws).and_then(|changes| Keys::read(changes.waker()));
    let mut shown = Shown::default();
    loop {
        match keys.as_ref().and_then(Keys::left) {
            Some(Leave::Done) => return Ok(Answer::Good),
            Some(Leave::Interrupted) => return Ok(Answer::Own(130)),
            None => {}
        }
        let looked = watch.look().and_then(|overview| Ok((overview, last(&project)?)));
        let believed = match looked {
            Ok((overview, lines)) => {
                let believed = overview.ledger.disbelieved.is_none();
                if args.json {
                    print(context, overview, &lines, &mut shown);
                } else {
                    let key = key(&overview, &lines);
                    draw(context, page(&overview, &lines, redraws), key, redraws, &mut shown);
                }
                believed
            }
            // A screen that is left open outlives what lasts a moment.
            Err(fault) if args.watch && shown.any => {
                if !args.json {
                    let page =
                        vec![toned(Tone::Bad, &printable(&fault.what)), format!("fix: {}", printable(fault.next()))];
                    draw(context, page, fault.what, redraws, &mut shown);
                } else if shown.key != fault.what {
                    context.screen.story(&format!("{}; {}", printable(&fault.what), printable(fault.next())));
                    shown.key = fault.what;
                }
                true
            }
            Err(fault) => return Err(fault),
        };
        let Some(changes) = &changes else { return Ok(if believed { Answer::Good } else { Answer::No }) };
        if screen::unheard() {
            return Ok(Answer::Good);
        }
        changes.wait();
    }
}

/// What was shown last.
#[derive(Default)]
struct Shown {
    any: bool,
    /// What in it counts as a change.
    key: String,
}

fn last(project: &Project) -> Result<Vec<Vec<u8>>, Fault> {
    let news = |line: &[u8]| format::links(line).is_ok_and(|links| NEWS.iter().any(|kind| links.says(*kind)));
    Ok(project.ledger().last_lines(LAST, news)?)
}

/// One JSON object a line, when something has changed beside the time.
fn print(context: &Context, overview: Overview, lines: &[Vec<u8>], shown: &mut Shown) {
    let raw = |line: &Vec<u8>| serde_json::from_slice(line).ok();
    let mut status = Status { schema: "vnx.status/1", overview, last: lines.iter().filter_map(raw).collect() };
    let at = std::mem::replace(&mut status.overview.at, Timestamp::EPOCH);
    let key = serde_json::to_string(&status).unwrap_or_default();
    if !shown.any || shown.key != key {
        status.overview.at = at;
        context.screen.json(&status);
        *shown = Shown { any: true, key };
    }
}

/// What is news where pages stand one below the other: not how long something has been so.
fn key(overview: &Overview, lines: &[Vec<u8>]) -> String {
    let states: Vec<_> = overview.dispatches.iter().map(|d| (&d.id, d.state, &d.detail)).collect();
    format!(
        "{:?}{:?}{}/{}{states:?}{:?}",
        overview.ledger,
        overview.today,
        overview.kept,
        overview.proposed,
        lines.last()
    )
}

/// Shows a page: over the last one on a terminal that redraws, otherwise below it if it tells something else.
fn draw(context: &Context, page: Vec<String>, key: String, redraws: bool, shown: &mut Shown) {
    if !redraws && shown.any && shown.key == key {
        return;
    }
    if redraws {
        let mut room = screen::rows().unwrap_or(usize::MAX).saturating_sub(1);
        let columns = screen::columns().unwrap_or(usize::MAX);
        let mut lines = Vec::new();
        for line in page {
            let rows = rows_of(&line, columns);
            if rows > room {
                break;
            }
            room -= rows;
            lines.push(line);
        }
        context.screen.redraw(&lines, !shown.any);
    } else {
        if shown.any {
            context.screen.answer("");
        }
        for line in &page {
            context.screen.answer(line);
        }
    }
    *shown = Shown { any: true, key };
}

/// How many rows a line takes on a terminal.
fn rows_of(line: &str, columns: usize) -> usize {
    width(line).div_ceil(columns).max(1)
}

/// The page, within the terminal's width; the receipts get the rows that are left.
fn page(overview: &Overview, lines: &[Vec<u8>], redraws: bool) -> Vec<String> {
    let columns = screen::columns();
    let mut page = fitted(&head(overview, redraws), Fit::Wrap, columns);
    let (running, waits) = live_lines(&overview.dispatches, overview.at, columns);
    page.push(String::new());
    // First what somebody has to do.
    page.extend(waits);
    if overview.dispatches.is_empty() {
        page.push(toned(Tone::Dim, "nothing is running"));
    } else {
        page.extend(running);
    }
    // What cannot be read is why the ledger is not believed, which is told above.
    let last: Vec<Receipt> = lines.iter().filter_map(|line| format::read(line).ok()).collect();
    if last.is_empty() && !overview.dispatches.is_empty() {
        return page;
    }
    page.push(String::new());
    if last.is_empty() {
        page.push("no dispatch yet; start one: `vnx dispatch-agent --agent hello-world`".to_owned());
        return page;
    }
    let used: usize = page.iter().map(|line| rows_of(line, columns.unwrap_or(usize::MAX))).sum();
    let room = screen::rows().filter(|_| redraws).map_or(LAST, |rows| rows.saturating_sub(used + 1).clamp(1, LAST));
    let mut rows: Vec<Vec<String>> = last[last.len().saturating_sub(room)..].iter().map(row).collect();
    if is_narrow(columns) {
        // The time stands beside it, and what came of it needs the room.
        for row in &mut rows {
            row[2] = without_time(&row[2]);
        }
    }
    page.extend(fitted(&rows, Fit::Cut, columns));
    page
}

fn head(overview: &Overview, redraws: bool) -> Vec<Vec<String>> {
    let leave = if redraws { toned(Tone::Dim, "  q leaves") } else { String::new() };
    let Overview { project, at, ledger, slots, today, kept, proposed, .. } = overview;
    let mut rows = vec![
        (
            toned(Tone::Strong, "vnx"),
            format!("{}  {}{leave}", toned(Tone::Strong, &printable(project)), at.clock(screen::zone())),
        ),
        (toned(Tone::Dim, "running"), format!("{} of {}", slots.used, slots.of)),
    ];
    rows.push((toned(Tone::Dim, "today"), today_words(today)));
    if today.input_tokens > 0 || today.output_tokens > 0 {
        rows.push((toned(Tone::Dim, "spent"), spent(today)));
    }
    if *kept > 0 {
        let trees = if *kept == 1 { "worktree" } else { "worktrees" };
        rows.push((toned(Tone::Dim, "kept"), format!("{kept} {trees}; see `vnx worktree list`")));
    }
    if *proposed > 0 {
        let waits = if *proposed == 1 { "dispatch waits" } else { "dispatches wait" };
        rows.push((toned(Tone::Dim, "proposed"), format!("{proposed} {waits} for a person; see `vnx promote`")));
    }
    let receipts = counted(ledger.receipts, "receipt");
    let health = match (&ledger.disbelieved, ledger.unanchored) {
        (Some(why), _) => toned(Tone::Bad, &format!("{}; run `vnx audit-chain verify`", printable(why))),
        (None, None) => format!("{receipts}, verified, never anchored"),
        (None, Some(0)) => format!("{receipts}, verified, all anchored"),
        (None, Some(n)) => format!("{receipts}, verified, {n} since the last anchor"),
    };
    rows.push((toned(Tone::Dim, "ledger"), health));
    if let Some(first) = ledger.broken.first() {
        let more = ledger.broken.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        rows.push((toned(Tone::Dim, "broken"), format!("{first}{more}: receipts are missing")));
    }
    rows.into_iter().map(|(name, what)| vec![name, what]).collect()
}

fn today_words(today: &Today) -> String {
    let words = [
        (today.accepted, Tone::Good, "accept"),
        (today.unproven, Tone::Doubt, "unproven"),
        (today.rejected, Tone::Bad, "reject"),
        (today.landed, Tone::Good, "landed"),
        (today.reverted, Tone::Doubt, "reverted"),
    ];
    let told: Vec<String> = words
        .into_iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, tone, word)| format!("{n} {}", toned(tone, word)))
        .collect();
    if told.is_empty() { "nothing closed".to_owned() } else { told.join(", ") }
}

fn spent(today: &Today) -> String {
    let mut words = vec![format!("{} tokens in, {} out", today.input_tokens, today.output_tokens)];
    if today.cost_micro_usd > 0 || (today.login_micro_usd, today.cost_unknown) == (0, 0) {
        words.push(dollars(today.cost_micro_usd));
    }
    if today.login_micro_usd > 0 {
        words.push(format!("{} more by the token, paid by logins", dollars(today.login_micro_usd)));
    }
    if today.cost_unknown > 0 {
        words.push(format!("{} of unknown cost", today.cost_unknown));
    }
    words.join(", ")
}
