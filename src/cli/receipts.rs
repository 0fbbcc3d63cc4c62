//! `vnx receipts list | tail | show`.

use super::Context;
use super::args::ReceiptsCommand;
use super::exit::Answer;
use super::screen::{Tone, printable, table, toned};
use crate::domain::Fault;
use crate::domain::receipt::{Body, Kind};
use crate::ledger::{Ledger, Receipt, format};
use crate::sys::watch::FolderWatch;

pub(super) fn run(context: &Context, command: &ReceiptsCommand) -> Result<Answer, Fault> {
    // Reading the past needs no recovery: it must be cheap and must change nothing.
    let ledger = context.project_as_it_is()?.ledger();
    match *command {
        ReceiptsCommand::List { n, all, json } => list(context, &ledger, n, all, json),
        ReceiptsCommand::Tail { n, follow, json } => tail(context, &ledger, n, follow, json),
        ReceiptsCommand::Show { seq, json } => show(context, &ledger, seq, json),
    }
}

fn list(context: &Context, ledger: &Ledger, n: usize, all: bool, json: bool) -> Result<Answer, Fault> {
    let closing = format!("\"kind\":\"{}\"", Kind::DispatchClosed.word());
    let wanted =
        |line: &[u8]| all || line[..line.len().min(300)].windows(closing.len()).any(|w| w == closing.as_bytes());
    let receipts = ledger.last_matching(n, wanted)?;
    if receipts.is_empty() && !json {
        context.screen.story("no dispatch is closed yet; `vnx receipts list --all` shows every receipt");
    }
    print(context, &receipts, json);
    Ok(Answer::Good)
}

fn tail(context: &Context, ledger: &Ledger, n: usize, follow: bool, json: bool) -> Result<Answer, Fault> {
    let watch = follow.then(|| FolderWatch::on(ledger.folder()));
    let end = ledger.head()?.end;
    let receipts = ledger.last(n)?;
    // What was appended between the two reads is not shown twice.
    let mut next = receipts.last().map_or(0, |r| r.seq + 1);
    print(context, &receipts, json);
    let Some(watch) = watch else {
        return Ok(Answer::Good);
    };
    let mut reader = ledger.from(end)?;
    loop {
        while let Some(receipt) = reader.next_receipt()? {
            if receipt.seq >= next {
                next = receipt.seq + 1;
                print(context, &[receipt], json);
            }
        }
        watch.wait();
    }
}

fn show(context: &Context, ledger: &Ledger, seq: u64, json: bool) -> Result<Answer, Fault> {
    let needle = format!("\",\"seq\":{seq},\"");
    let wanted = |line: &[u8]| line[..line.len().min(120)].windows(needle.len()).any(|w| w == needle.as_bytes());
    let found = ledger.last_matching(1, wanted)?;
    let Some(receipt) = found.first() else {
        return Err(
            Fault::input(format!("there is no receipt {seq}")).fix("`vnx receipts list --all` shows what there is")
        );
    };
    if json {
        print(context, &found, true);
        return Ok(Answer::Good);
    }
    let (row, body) = (row(receipt), receipt.body.to_json().unwrap_or_default());
    for line in table(&[row]) {
        context.screen.answer(&line);
    }
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

fn print(context: &Context, receipts: &[Receipt], json: bool) {
    if json {
        for receipt in receipts {
            // Built again from its parts; equal to the stored line, or the parse had failed.
            let body = receipt.body.to_json().unwrap_or_default();
            let data: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            context.screen.json(&serde_json::json!({
                "v": format::VERSION, "seq": receipt.seq, "ts": receipt.ts, "kind": receipt.body.kind().word(),
                "dispatch": receipt.dispatch, "attempt": receipt.attempt, "key": receipt.key, "data": data,
                "prev": receipt.prev, "hash": receipt.hash,
            }));
        }
        return;
    }
    let rows: Vec<Vec<String>> = receipts.iter().map(row).collect();
    for line in table(&rows) {
        context.screen.answer(&line);
    }
}

fn row(receipt: &Receipt) -> Vec<String> {
    let (tone, what) = match &receipt.body {
        Body::DispatchClosed(c) => (
            Tone::of(c.verdict.decision),
            format!("{} {}: {}", c.verdict.decision.word(), c.verdict.outcome, printable(&c.verdict.reason)),
        ),
        Body::DispatchRefused(r) => (Tone::Bad, format!("refused by {}: {}", printable(&r.rule), printable(&r.reason))),
        Body::WorktreeKept(k) => (Tone::Doubt, format!("kept: {}", printable(&k.reason))),
        Body::LedgerRecovered(r) => (Tone::Doubt, format!("recovered a torn tail of {} bytes", r.bytes)),
        other => (Tone::Dim, other.kind().word().to_owned()),
    };
    vec![
        format!("{:>6}", receipt.seq),
        receipt.ts.clock(),
        receipt.dispatch.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        toned(tone, &what),
    ]
}
