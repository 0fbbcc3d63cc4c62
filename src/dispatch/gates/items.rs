//! Items: what is to be done before or after a merge, from gates, reports and persons.

use std::collections::BTreeSet;

use serde::Serialize;

use super::approvals::actor;
use crate::dispatch::presence::{Decision, attest};
use crate::domain::authority::Deciding;
use crate::domain::gate::check::Applied;
use crate::domain::gate::review::{Finding, Severity};
use crate::domain::id::meant;
use crate::domain::line::summary;
use crate::domain::receipt::{Body, Destination, Entry, ItemClosed, ItemOpened, ItemSource};
use crate::domain::{Digest, DispatchId, Fault, Name};
use crate::gate;
use crate::ledger::Receipt;
use crate::project::Project;

/// How many items are taken from a report.
const MAX_OF_REPORT: usize = 20;

/// An item and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The dispatch.
    pub dispatch: DispatchId,
    /// What it says.
    #[serde(flatten)]
    pub item: ItemOpened,
    /// Why it was closed, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}

/// The items of a dispatch that are open.
pub(super) fn open(receipts: &[Receipt]) -> Vec<ItemOpened> {
    let closed: BTreeSet<(&Name, u32)> = receipts
        .iter()
        .filter_map(|r| if let Body::ItemClosed(c) = &r.body { Some((&c.item, c.round)) } else { None })
        .collect();
    let opened = receipts.iter().filter_map(|r| if let Body::ItemOpened(o) = &r.body { Some(o) } else { None });
    opened.filter(|o| !closed.contains(&(&o.item, o.round))).cloned().collect()
}

/// A name that is the same for the same words.
fn name(dispatch: &DispatchId, gate: Option<&Name>, file: Option<&str>, claim: &str) -> Result<Name, Fault> {
    let text = format!("{dispatch}\n{}\n{}\n{claim}", gate.map_or("", Name::as_str), file.unwrap_or_default());
    Name::try_from(format!("i-{}", &Digest::of(text.as_bytes()).to_string()[..8]))
}

/// Opens an item unless it is open; the receipt to write, if there is one.
fn opened(dispatch: &DispatchId, receipts: &[Receipt], mut item: ItemOpened) -> Option<Entry> {
    let rounds = receipts.iter().filter(|r| matches!(&r.body, Body::ItemOpened(o) if o.item == item.item)).count();
    if open(receipts).iter().any(|o| o.item == item.item) {
        return None;
    }
    item.round = u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1);
    Some(Entry::of(dispatch, Body::ItemOpened(item)))
}

/// What a gate found, as items; one that it does not find any more is closed, if it has `looked`: said yes or no.
pub(super) fn of_gate(
    dispatch: &DispatchId,
    receipts: &[Receipt],
    gate: &Name,
    looked: bool,
    failed: Option<&str>,
    findings: &[Finding],
) -> Result<Vec<Entry>, Fault> {
    let mut found: Vec<ItemOpened> = Vec::new();
    let mut note = |claim: &str, finding: Option<&Finding>, destination| -> Result<(), Fault> {
        let file = finding.map(|f| f.file.clone());
        let item = name(dispatch, Some(gate), file.as_deref(), claim)?;
        if found.iter().all(|other| other.item != item) {
            found.push(ItemOpened {
                item,
                source: ItemSource::Gate,
                gate: Some(gate.clone()),
                destination,
                claim: claim.to_owned(),
                file,
                line: finding.map(|f| f.line).filter(|line| *line > 0),
                round: 0,
            });
        }
        Ok(())
    };
    for finding in findings {
        let destination = if finding.severity >= Severity::Major { Destination::Merge } else { Destination::Later };
        note(&format!("{}: {}", finding.severity.word(), finding.claim), Some(finding), destination)?;
    }
    if let Some(why) = failed.filter(|_| findings.iter().all(|f| !f.severity.blocks())) {
        note(why, None, Destination::Merge)?;
    }
    let gone = open(receipts).into_iter().filter(|_| looked).filter(|o| {
        o.gate.as_ref() == Some(gate) && o.destination == Destination::Merge && found.iter().all(|f| f.item != o.item)
    });
    let mut entries: Vec<Entry> = gone
        .map(|o| {
            let reason = format!("gate {gate} does not find it any more");
            Entry::of(
                dispatch,
                Body::ItemClosed(ItemClosed { item: o.item, round: o.round, reason, by: None, attestation: None }),
            )
        })
        .collect();
    entries.extend(found.into_iter().filter_map(|item| opened(dispatch, receipts, item)));
    Ok(entries)
}

/// What a report names as open: the list under a heading "Open items". A claim, so it holds nothing.
pub(in crate::dispatch) fn of_report(dispatch: &DispatchId, report: &str) -> Vec<Entry> {
    let is_heading = |line: &&str| line.trim_start().starts_with('#');
    let named = |line: &str| line.trim_matches(['#', ' ', '*', ':']).eq_ignore_ascii_case("open items");
    let after = report.lines().skip_while(|line| !(is_heading(line) && named(line))).skip(1);
    let listed = after.take_while(|line| !is_heading(line)).filter_map(|line| {
        let text = line.trim_start().strip_prefix(['-', '*'])?.trim().trim_start_matches("[ ] ");
        let nothing =
            ["none", "nothing", "n/a"].iter().any(|word| text.trim_end_matches('.').eq_ignore_ascii_case(word));
        (!text.is_empty() && !nothing).then(|| summary(text))
    });
    let mut found: Vec<Entry> = Vec::new();
    for claim in listed.take(MAX_OF_REPORT) {
        let Ok(item) = name(dispatch, None, None, &claim) else { continue };
        let body = ItemOpened {
            item,
            source: ItemSource::Report,
            gate: None,
            destination: Destination::Later,
            claim,
            file: None,
            line: None,
            round: 1,
        };
        // Names are short: what another claim has got already is left out, and stands in the report.
        let entry = Entry::of(dispatch, Body::ItemOpened(body));
        if found.iter().all(|other| other.key() != entry.key()) {
            found.push(entry);
        }
    }
    found
}

/// Notes an item.
pub fn add(project: &Project, dispatch: &DispatchId, claim: &str, destination: Destination) -> Result<Name, Fault> {
    if claim.trim().is_empty() {
        return Err(Fault::input("the item says nothing").fix("say what is to be done"));
    }
    let receipts = project.ledger().of_dispatch(dispatch)?;
    let item = name(dispatch, None, None, claim)?;
    let body = ItemOpened {
        item: item.clone(),
        source: ItemSource::Person,
        gate: None,
        destination,
        claim: claim.trim().to_owned(),
        file: None,
        line: None,
        round: 0,
    };
    match opened(dispatch, &receipts, body) {
        Some(entry) => project.ledger().append(&[entry]).map(|_| item).map_err(Into::into),
        None => Ok(item),
    }
}

/// Closes the item of this name, or the one that an abbreviation means, in a person's name: what it held is held no more.
pub fn close(project: &Project, text: &str, reason: &str, sign: bool) -> Result<Listed, Fault> {
    let all = list(project)?;
    let open = all.iter().filter(|l| l.closed.is_none());
    let one = meant(open, |l| l.item.item.as_str(), text).map_err(|several| {
        Fault::input(match several.len() {
            0 => format!("no open item is called {text:?}"),
            n => format!("{text:?} means {n} open items"),
        })
        .fix("see `vnx items list`")
    })?;
    let by = Some(actor(project)?);
    let (item, round, reason_given) = (one.item.item.clone(), one.item.round, reason.to_owned());
    let mut body = ItemClosed { item, round, reason: reason_given, by, attestation: None };
    let standing = gate::standing(project, None)?;
    let (deciding, line) = (Deciding::Override, format!("close item {} of {}: {reason}", body.item, one.dispatch));
    let statement = body.statement(&one.dispatch);
    let (statement, signers) = (statement.as_deref(), standing.signers.as_deref());
    let minimum = standing.presence.minimum(deciding);
    body.attestation = Some(attest(project, &Decision { deciding, line: &line, statement, sign, minimum, signers })?);
    project.ledger().append(&[Entry::of(&one.dispatch, Body::ItemClosed(body))])?;
    Ok(Listed { closed: Some(reason.to_owned()), ..one.clone() })
}

/// All items, oldest first.
pub fn list(project: &Project) -> Result<Vec<Listed>, Fault> {
    use crate::domain::receipt::Kind;
    use crate::ledger::format;
    let wanted = |line: &[u8]| format::links(line).is_ok_and(|l| l.says(Kind::ItemOpened) || l.says(Kind::ItemClosed));
    let mut all: Vec<Listed> = Vec::new();
    for receipt in project.ledger().last_matching(usize::MAX, wanted)? {
        let Some(dispatch) = receipt.dispatch.clone() else { continue };
        match receipt.body {
            Body::ItemOpened(item) => all.push(Listed { dispatch, item, closed: None }),
            Body::ItemClosed(closed) => {
                let same = |l: &&mut Listed| l.item.item == closed.item && l.item.round == closed.round;
                if let Some(listed) = all.iter_mut().find(same) {
                    listed.closed = Some(closed.reason);
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// What a gate that failed amounts to as an item; `None` for one that only says what it thinks.
pub(super) fn claim_of(applied: &Applied) -> Option<String> {
    applied.required.then(|| format!("gate {} does not pass", applied.name))
}
