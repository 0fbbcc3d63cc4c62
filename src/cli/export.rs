//! `vnx receipts export`: receipts for somebody else, as JSON or for reading.

use regex::Regex;

use super::Context;
use super::exit::Answer;
use super::receipts::row;
use super::screen::printable;
use crate::anchor::{self, Export, Exported};
use crate::domain::Fault;
use crate::domain::receipt::Kind;
use crate::ledger::format;
use crate::project::Project;

pub(super) fn run(
    context: &Context,
    project: &Project,
    lines: &[Vec<u8>],
    redact: &[String],
    markdown: bool,
) -> Result<Answer, Fault> {
    let hide = redact.iter().map(|text| pattern(text)).collect::<Result<Vec<_>, _>>()?;
    let seqs: Result<Vec<u64>, String> = lines.iter().map(|line| format::links(line).map(|links| links.seq)).collect();
    let mut seqs = seqs.map_err(Fault::environment)?;
    if seqs.is_empty() {
        return Err(Fault::input("no receipt is like that, so there is nothing to export")
            .fix("`vnx receipts list --all` shows every one"));
    }
    // What the last anchor covers can be held against it; what is younger would take that from all.
    let covered = anchor::covered(project)?;
    let count = seqs.iter().filter(|seq| **seq < covered).count();
    if (1..seqs.len()).contains(&count) {
        let left_out = seqs.split_off(count).len();
        // The receipt that tells of the anchor is always younger than it.
        let all_told = lines[count..].iter().all(|l| format::links(l).is_ok_and(|l| l.says(Kind::AnchorWritten)));
        let fix = if all_told { "" } else { "; `vnx audit-chain seal` covers what stands there now" };
        context.screen.story(&format!("{left_out} younger than the last anchor left out{fix}"));
    }
    let export = anchor::export(project, &seqs, &hide)?;
    if export.anchor.is_none() {
        context.screen.story(
            "no anchor covers them, so the checkpoint is only this ledger's word; \
             `vnx audit-chain seal` writes an anchor",
        );
    }
    if markdown {
        for line in document(&export)? {
            context.screen.answer(&line);
        }
    } else {
        context.screen.json(&export);
    }
    Ok(Answer::Good)
}

fn pattern(text: &str) -> Result<Regex, Fault> {
    let wrong =
        |why: String| Fault::input(format!("--redact {text:?} {why}")).fix("for example --redact '/home/[a-z]+'");
    let pattern = Regex::new(text).map_err(|e| {
        // The last line says what; those before draw the place.
        let said = e.to_string();
        let why = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
        wrong(format!("is not a regular expression: {why}"))
    })?;
    if pattern.is_match("") {
        Err(wrong("matches the empty text, so it would match everywhere".to_owned()))
    } else {
        Ok(pattern)
    }
}

fn document(export: &Export) -> Result<Vec<String>, Fault> {
    let mut out = vec![format!("# Receipts of {}", export.project), String::new()];
    let anchor = export.anchor.as_ref().map_or_else(
        || "which is only the ledger's own word".to_owned(),
        |commit| format!("which commit `{commit}` on `{}` holds", anchor::ANCHORS),
    );
    let count = export.receipts.len();
    let noun = if count == 1 { "receipt" } else { "receipts" };
    out.push(format!("{count} {noun}, exported {} with proofs against this checkpoint, {anchor}:", export.made));
    out.extend(["", "```"].map(String::from));
    out.extend(export.checkpoint.lines().map(String::from));
    out.extend(["```", "", "| seq | written | dispatch | what |", "|--:|---|---|---|"].map(String::from));
    for receipt in &export.receipts {
        out.push(line(receipt));
    }
    out.push(String::new());
    let redacted = export.receipts.iter().filter(|r| r.redacted > 0).count();
    if redacted > 0 {
        out.push(format!(
            "In {redacted} of them something was replaced for this copy: their proofs show that there is such a receipt, \
             and not what stands in it."
        ));
        out.push(String::new());
    }
    out.push("The lines themselves, with their proofs:".to_owned());
    out.extend(["", "```json"].map(String::from));
    out.push(serde_json::to_string(export).map_err(|e| Fault::internal(e.to_string()))?);
    out.extend(["```", ""].map(String::from));
    out.push(
        "To check them, save the line above as `export.json` and the checkpoint from where you trust it, then:"
            .to_owned(),
    );
    out.push("`python3 receipts/verify.py --proof export.json CHECKPOINT`".to_owned());
    Ok(out)
}

/// A row of the table. The line may be redacted into something that is no receipt any more.
fn line(exported: &Exported) -> String {
    let cells = match format::parse(exported.receipt.as_bytes()) {
        Ok(receipt) => [receipt.ts.to_string(), row(&receipt)[2].clone(), row(&receipt)[3].clone()],
        Err(_) => [String::new(), String::new(), "(redacted)".to_owned()],
    };
    format!("| {} | {} |", exported.seq, cells.map(|cell| plain(&cell)).join(" | "))
}

/// Text from elsewhere in a cell: nothing that a terminal, Markdown or HTML would take for its own.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in printable(&anstream::adapter::strip_str(text).to_string()).chars() {
        if "\\`*_[]<>|#&!".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
