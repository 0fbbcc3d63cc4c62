//! Everything at a glance: what runs, what was done today, whether the ledger is believed. For a screen that
//! somebody leaves open, so what has not changed is not read again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::stage;
use super::view::{self, Live};
use crate::anchor;
use crate::domain::event::{PaidBy, Usage};
use crate::domain::outcome::Decision;
use crate::domain::receipt::{Body, DispatchClosed, Strategy};
use crate::domain::{DispatchId, Fault, Timestamp};
use crate::ledger::Receipt;
use crate::project::Project;
use crate::sys::files;

/// A project at a moment.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Its name.
    pub project: String,
    /// The moment.
    pub at: Timestamp,
    /// The ledger.
    pub ledger: Health,
    /// How many dispatches may run, and how many do.
    pub slots: Slots,
    /// What was done since midnight, UTC.
    pub today: Today,
    /// Worktrees that stand and in which nobody works.
    pub kept: usize,
    /// Dispatches that are proposed and wait for a person.
    pub proposed: usize,
    /// What runs.
    pub dispatches: Vec<Live>,
}

/// Whether the ledger is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// How many receipts there are.
    pub receipts: u64,
    /// How many of them no anchor covers; none where there is no anchor.
    pub unanchored: Option<u64>,
    /// Why it is not believed, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disbelieved: Option<String>,
    /// Dispatches whose receipts are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<DispatchId>,
}

/// `limits.parallel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// Dispatches that are not closed.
    pub used: usize,
    /// The limit.
    pub of: u32,
}

/// What receipts of one day say together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Today {
    /// Dispatches that were closed, by what was decided of them.
    pub accepted: u64,
    /// The same.
    pub unproven: u64,
    /// The same.
    pub rejected: u64,
    /// Merges.
    pub landed: u64,
    /// Of those, merges that take back what another one landed.
    pub reverted: u64,
    /// Merges that have landed, and reverts that have begun, by their nonces.
    #[serde(skip)]
    landings: BTreeSet<String>,
    #[serde(skip)]
    reverting: BTreeSet<String>,
    /// Tokens that were read, caches included.
    pub input_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
    /// What was paid by the token, in millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// What was paid by a login would have cost so much by the token.
    pub login_micro_usd: u64,
    /// Workers and reviewers whose tokens are known and whose cost is not.
    pub cost_unknown: u64,
}

impl Today {
    /// `reviews` tells whether it is of a reviewer's dispatch: what that spent counts, and its verdict is a gate's matter.
    fn take(&mut self, body: &Body, reviews: impl Fn() -> bool) {
        match body {
            Body::DispatchClosed(DispatchClosed { verdict, usage, .. }) => {
                if !reviews() {
                    match verdict.decision {
                        Decision::Accept => self.accepted += 1,
                        Decision::Unproven => self.unproven += 1,
                        Decision::Reject => self.rejected += 1,
                    }
                }
                self.spend(usage);
            }
            Body::MergeStarted(m) if m.strategy == Strategy::Revert => {
                // Newest first, but the rest of a merge may only come with the next look.
                if self.landings.remove(&m.nonce) {
                    self.landed -= 1;
                    self.reverted += 1;
                } else {
                    self.reverting.insert(m.nonce.clone());
                }
            }
            Body::MergeLanded(m) if self.reverting.remove(&m.nonce) => self.reverted += 1,
            Body::MergeLanded(m) => {
                self.landings.insert(m.nonce.clone());
                self.landed += 1;
            }
            _ => {}
        }
    }

    fn spend(&mut self, usage: &Usage) {
        // A worker's words: they may be anything.
        let all = [usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens].into_iter().flatten();
        let read = all.fold(0, u64::saturating_add);
        let written = usage.output_tokens.unwrap_or(0);
        self.input_tokens = self.input_tokens.saturating_add(read);
        self.output_tokens = self.output_tokens.saturating_add(written);
        match (usage.cost_micro_usd, usage.paid_by) {
            (Some(cost), Some(PaidBy::Login)) => self.login_micro_usd = self.login_micro_usd.saturating_add(cost),
            (Some(cost), _) => self.cost_micro_usd = self.cost_micro_usd.saturating_add(cost),
            (None, _) => self.cost_unknown += u64::from(read > 0 || written > 0),
        }
    }
}

/// Looks again and again.
#[derive(Debug)]
pub struct Watch<'a> {
    project: &'a Project,
    /// The head up to which all is counted, and the day.
    seen: Option<(u64, i64)>,
    today: Today,
    health: Health,
    /// When that was found out.
    audited: Instant,
}

impl<'a> Watch<'a> {
    /// Has not looked yet.
    pub fn over(project: &'a Project) -> Self {
        let (today, health) = (Today::default(), Health::default());
        Self { project, seen: None, today, health, audited: Instant::now() }
    }

    /// How it is now. Reads what is new in the ledger, and verifies as little as can be known to suffice.
    pub fn look(&mut self) -> Result<Overview, Fault> {
        let (project, at) = (self.project, crate::sys::now());
        let day = at.micros().div_euclid(DAY);
        match project.ledger().head() {
            Ok(head) => self.read(head.seq, day)?,
            Err(error) => {
                // What runs is to be seen all the same. It is asked again with the next look.
                self.seen = None;
                self.health.disbelieved = Some(error.to_string());
                self.health.broken = anchor::believed(project, true).missing;
            }
        }
        let dispatches = view::live(project)?;
        Ok(Overview {
            project: project.id().to_string(),
            at,
            ledger: self.health.clone(),
            slots: Slots { used: files::names(&project.paths.open())?.len(), of: project.config.limits.parallel },
            today: self.today.clone(),
            kept: view::kept(project)?,
            proposed: stage::waiting(project)?,
            dispatches,
        })
    }

    /// Counts what is new up to a head, and verifies the ledger where it has grown, is in doubt, or was last verified a
    /// while ago: somebody may have changed what stood there already.
    fn read(&mut self, head: u64, day: i64) -> Result<(), Fault> {
        let is_known = self.seen == Some((head, day));
        if is_known && self.health.disbelieved.is_none() && self.audited.elapsed() < BELIEVED {
            return Ok(());
        }
        if !is_known {
            let counted = self.seen.filter(|(_, d)| *d == day).map(|(seq, _)| seq);
            // All of what is new, or nothing of it.
            let mut today = if counted.is_some() { self.today.clone() } else { Today::default() };
            let reviews = |receipt: &Receipt| {
                receipt.dispatch.as_ref().is_some_and(|id| view::of_gate(self.project, id).exists())
            };
            since(self.project, counted, head, day, |receipt| today.take(&receipt.body, || reviews(receipt)))?;
            (self.today, self.seen) = (today, Some((head, day)));
        }
        self.health = health(self.project, head);
        self.audited = Instant::now();
        Ok(())
    }
}

/// How long an audit is believed where nothing is added.
const BELIEVED: Duration = Duration::from_mins(1);
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// So many receipts of another day end the search for one of this day: a clock may have gone back meanwhile.
const PATIENCE: usize = 100;

/// Hands out the receipts of a day that come after one, up to a head, newest first.
fn since(
    project: &Project,
    counted: Option<u64>,
    head: u64,
    day: i64,
    mut take: impl FnMut(&Receipt),
) -> Result<(), Fault> {
    let mut others = 0;
    project.ledger().newest_first(|receipt| {
        if counted.is_some_and(|seq| receipt.seq <= seq) || others > PATIENCE {
            return false;
        }
        if receipt.seq > head {
            // It came after the look at the head, and is counted with the next one.
            return true;
        }
        if receipt.ts.micros().div_euclid(DAY) == day {
            take(&receipt);
        } else {
            others += 1;
        }
        true
    })?;
    Ok(())
}

fn health(project: &Project, head: u64) -> Health {
    let audit = anchor::believed(project, true);
    let anchors = &audit.anchors;
    let unanchored = (anchors.count > 0).then_some(anchors.unanchored);
    Health { receipts: head + 1, unanchored, disbelieved: anchor::why_not(&audit), broken: audit.missing }
}
