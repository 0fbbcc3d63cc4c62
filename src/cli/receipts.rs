//! `vnx receipts list | tail | query | export | show`.

use std::time::{Duration, Instant};

use super::Context;
use super::args::{FilterArgs, ReceiptsCommand};
use super::exit::Answer;
use super::export;
use super::screen::{self, Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::view;
use crate::domain::gate::GateStatus;
use crate::domain::receipt::{Body, Kind};
use crate::domain::span::Span;
use crate::domain::verdict::End;
use crate::domain::{Fault, Name, Outcome, Timestamp};
use crate::ledger::{Filter, Ledger, Receipt, format};
use crate::project::Project;
use crate::sys::watch::FolderWatch;

pub(super) fn run(context: &Context, command: &ReceiptsCommand) -> Result<Answer, Fault> {
    // Reading the past needs no recovery: it must be cheap and must change nothing.
    let project = context.project_as_it_is()?;
    let ledger = project.ledger();
    match command {
        ReceiptsCommand::Query { filter, n, json } => query(context, &lines(context, &project, filter, *n)?, *json),
        ReceiptsCommand::Export { filter, redact, markdown } => {
            let lines = lines(context, &project, filter, usize::MAX)?;
            export::run(context, &project, &lines, redact, *markdown)
        }
        ReceiptsCommand::List { n, all, json } => list(context, &ledger, *n, *all, *json),
        ReceiptsCommand::Tail { n, follow, json } => tail(context, &ledger, *n, *follow, *json),
        ReceiptsCommand::Show { seq, json } => show(context, &project, *seq, *json),
    }
}

fn list(context: &Context, ledger: &Ledger, n: usize, all: bool, json: bool) -> Result<Answer, Fault> {
    let closing = format!("\"kind\":\"{}\"", Kind::DispatchClosed.word());
    let wanted =
        |line: &[u8]| all || line[..line.len().min(300)].windows(closing.len()).any(|w| w == closing.as_bytes());
    if json {
        for line in ledger.last_lines(n, wanted)? {
            context.screen.bytes(&[sound(&line)?.0, b"\n".as_slice()].concat());
        }
        return Ok(Answer::Good);
    }
    let receipts = ledger.last_matching(n, wanted)?;
    if receipts.is_empty() {
        context.screen.story("no dispatch is closed yet; `vnx receipts list --all` shows every receipt");
    }
    print(context, &receipts);
    Ok(Answer::Good)
}

/// The lines that are asked for, oldest first: the last `n` of them.
fn lines(context: &Context, project: &Project, asked: &FilterArgs, n: usize) -> Result<Vec<Vec<u8>>, Fault> {
    let name = |what, text: &Option<String>| text.as_deref().map(|t| Name::parse(what, t)).transpose();
    let filter = Filter {
        kind: asked.kind.as_deref().map(|word| one_of("--kind", word, Kind::ALL, Kind::word)).transpose()?,
        agent: name("agent", &asked.agent)?,
        provider: name("provider", &asked.provider)?,
        outcome: asked
            .outcome
            .as_deref()
            .map(|word| one_of("--outcome", word, Outcome::ALL, Outcome::word))
            .transpose()?,
        since: asked.since.as_deref().map(|text| moment("--since", text)).transpose()?,
        until: asked.until.as_deref().map(|text| moment("--until", text)).transpose()?,
    };
    let Some(id) = &asked.dispatch else {
        return Ok(project.ledger().last_lines(n, |line| filter.wants(line))?);
    };
    let mut lines = view::lines(project, id, &indexing(context))?;
    context.screen.progress("");
    lines.retain(|line| filter.wants(line));
    Ok(lines.split_off(lines.len().saturating_sub(n)))
}

/// Tells how many receipts were taken into the projections, when that takes longer than a moment.
pub(super) fn indexing(context: &Context) -> impl Fn(u64) + use<> {
    let (screen, begun) = (context.screen, Instant::now());
    move |receipts| {
        if begun.elapsed() > Duration::from_millis(500) {
            screen.progress(&format!("reading the ledger: {receipts} receipts"));
        }
    }
}

fn query(context: &Context, lines: &[Vec<u8>], json: bool) -> Result<Answer, Fault> {
    if json {
        for line in lines {
            context.screen.bytes(&[sound(line)?.0, &b"\n"[..]].concat());
        }
        return Ok(Answer::Good);
    }
    if lines.is_empty() {
        context.screen.story("no receipt is like that; `vnx receipts list --all` shows every one");
    }
    let receipts = lines.iter().map(|line| Ok(sound(line)?.1)).collect::<Result<Vec<Receipt>, Fault>>()?;
    print(context, &receipts);
    Ok(Answer::Good)
}

/// A line that may be shown, and what it says: one that was edited is not passed on as if it were sound.
fn sound(line: &[u8]) -> Result<(&[u8], Receipt), Fault> {
    format::read(line).map(|receipt| (line, receipt)).map_err(|why| {
        Fault::environment(format!("a receipt cannot be read: {why}")).fix("run `vnx audit-chain verify`")
    })
}

pub(super) fn one_of<T: Copy>(flag: &str, word: &str, all: &[T], of: impl Fn(T) -> &'static str) -> Result<T, Fault> {
    all.iter().copied().find(|t| of(*t) == word).ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|t| of(*t)).collect();
        Fault::input(format!("{flag} {word:?} is not known")).fix(format!("one of: {}", words.join(", ")))
    })
}

pub(super) fn moment(flag: &str, text: &str) -> Result<Timestamp, Fault> {
    if let Ok(ago) = Span::parse(text) {
        let micros = i64::try_from(ago.0.saturating_mul(1000)).unwrap_or(i64::MAX);
        if let Some(then) = Timestamp::from_micros(crate::sys::now().micros().saturating_sub(micros)) {
            return Ok(then);
        }
    }
    Timestamp::try_from(text.to_owned()).map_err(|_| {
        Fault::input(format!("{flag} {text:?} is not a time"))
            .fix("write 2026-11-21T00:00:00Z, or how long ago: 90s, 10m, 2h")
    })
}

fn tail(context: &Context, ledger: &Ledger, n: usize, follow: bool, json: bool) -> Result<Answer, Fault> {
    let watch = follow.then(|| FolderWatch::on(ledger.folder()));
    let end = ledger.head()?.end;
    let first = ledger.last_lines(n, |_| true)?;
    let shown = |line: &[u8]| -> Result<u64, Fault> {
        let (_, receipt) = sound(line)?;
        if json {
            context.screen.bytes(&[line, b"\n"].concat());
        } else {
            print(context, std::slice::from_ref(&receipt));
        }
        Ok(receipt.seq)
    };
    // What was appended between the two reads is not shown twice.
    let mut last = None;
    for line in &first {
        last = Some(shown(line)?);
    }
    let Some(watch) = watch else { return Ok(Answer::Good) };
    let mut reader = ledger.from(end)?;
    loop {
        while let Some((seq, line)) = reader.next_line()? {
            if last.is_none_or(|l| seq > l) {
                last = Some(shown(&line)?);
            }
        }
        if screen::unheard() {
            return Ok(Answer::Good);
        }
        watch.wait();
    }
}

fn show(context: &Context, project: &Project, seq: u64, json: bool) -> Result<Answer, Fault> {
    let line = view::line(project, seq, &indexing(context))?;
    context.screen.progress("");
    let Some(line) = line else {
        return Err(
            Fault::input(format!("there is no receipt {seq}")).fix("`vnx receipts list --all` shows what there is")
        );
    };
    let (line, receipt) = sound(&line)?;
    let receipt = &receipt;
    if json {
        context.screen.bytes(&[line, b"\n"].concat());
        return Ok(Answer::Good);
    }
    let (row, body) = (row(receipt), receipt.body.to_json().unwrap_or_default());
    context.screen.table(&[row], Fit::Cut);
    let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    context.screen.answer(&printable_json(&value));
    context.screen.answer(&format!("{} {}", toned(Tone::Dim, "prev"), receipt.prev));
    context.screen.answer(&format!("{} {}", toned(Tone::Dim, "hash"), receipt.hash));
    Ok(Answer::Good)
}

fn printable_json(value: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn print(context: &Context, receipts: &[Receipt]) {
    let rows: Vec<Vec<String>> = receipts.iter().map(row).collect();
    context.screen.table(&rows, Fit::Cut);
}

pub(super) fn row(receipt: &Receipt) -> Vec<String> {
    let (tone, what) = match &receipt.body {
        Body::DispatchClosed(c) => (
            Tone::of(c.verdict.decision),
            format!("{} {}: {}", c.verdict.decision.word(), c.verdict.outcome, printable(&c.verdict.reason)),
        ),
        Body::DispatchRefused(r) => (Tone::Bad, format!("refused by {}: {}", printable(&r.rule), printable(&r.reason))),
        Body::GateResulted(r) => (
            if r.status == GateStatus::Pass { Tone::Good } else { Tone::Doubt },
            format!("gate {} {}: {}", r.gate, r.status.word(), printable(&r.reason)),
        ),
        Body::ApprovalGiven(a) => (Tone::Dim, printable(&format!("approved by {}: {}", a.by.name, a.reason))),
        Body::MergeLanded(m) => {
            (Tone::Good, format!("landed as {}", printable(&m.commit.chars().take(12).collect::<String>())))
        }
        Body::BranchDropped(d) => {
            let why = d.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            (Tone::Doubt, printable(&format!("given up by {}{why}", d.by.name)))
        }
        Body::MergeRefused(m) => (Tone::Doubt, format!("not merged: {}", printable(&m.reason))),
        Body::WorktreeKept(k) => (Tone::Doubt, format!("kept: {}", printable(&k.reason))),
        Body::WorktreeHook(h) => (
            if h.end == (End::Exited { code: 0 }) { Tone::Dim } else { Tone::Doubt },
            format!("hook {}: {}", printable(&h.hook), printable(h.said.as_deref().unwrap_or("said nothing"))),
        ),
        Body::LedgerRecovered(r) => (Tone::Doubt, format!("recovered a torn tail of {} bytes", r.bytes)),
        Body::LedgerImported(i) => (
            Tone::Dim,
            format!("imported {}, lines: {}, by its own rules {}", printable(&i.name), i.lines, i.status.word()),
        ),
        other => (Tone::Dim, other.kind().word().to_owned()),
    };
    vec![
        format!("{:>6}", receipt.seq),
        receipt.ts.moment(crate::sys::now(), screen::zone()),
        receipt.dispatch.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        toned(tone, &what),
    ]
}
