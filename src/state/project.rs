//! From receipts to rows.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior, params};

use super::{State, StateError};
use crate::domain::Timestamp;
use crate::domain::receipt::{Body, Kind, Strategy};
use crate::ledger::Place;
use crate::ledger::format::{self, Links, Subject};

/// How many numbers of dispatches are remembered while receipts are read.
const REMEMBERED: usize = 4096;

impl State {
    /// Takes in the receipts that came since. All of them or none.
    pub(super) fn catch_up(&mut self, progress: &dyn Fn(u64)) -> Result<(), StateError> {
        let before = self.position()?;
        let transaction = Transaction::new(&mut self.db, TransactionBehavior::Immediate)?;
        {
            let mut rows = Rows::of(&transaction)?;
            let mut last: Option<(u64, Place, String)> = None;
            self.ledger.walk(before.map_or_else(Place::default, |(_, place)| place), |place, line| {
                let links = format::links(line).map_err(StateError::Receipt)?;
                let next = last.as_ref().map(|(seq, ..)| seq + 1).or(before.map(|(seq, _)| seq + 1)).unwrap_or(0);
                if last.is_some() || before.is_none_or(|(seq, _)| links.seq != seq) {
                    if links.seq != next {
                        return Err(StateError::Receipt(format!("{} stands where {next} should", links.seq)));
                    }
                    rows.take(place, &links)?;
                    last = Some((links.seq, place, String::from_utf8_lossy(links.hash).into_owned()));
                    if links.seq % 1024 == 0 {
                        progress(links.seq);
                    }
                }
                Ok::<(), StateError>(())
            })?;
            if let Some((seq, place, hash)) = last {
                transaction.execute(
                    "INSERT OR REPLACE INTO position (only, seq, hash, segment, offset) VALUES (0, ?1, ?2, ?3, ?4)",
                    params![seq, hash, place.segment, place.offset],
                )?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// The statements, prepared once.
struct Rows<'a> {
    receipt: Statement<'a>,
    dispatch: Statement<'a>,
    find: Statement<'a>,
    requested: Statement<'a>,
    claimed: Statement<'a>,
    closed: Statement<'a>,
    reverting: Statement<'a>,
    landed: Statement<'a>,
    dropped: Statement<'a>,
    numbers: HashMap<String, i64>,
    next: i64,
}

impl<'a> Rows<'a> {
    fn of(db: &'a Connection) -> Result<Self, StateError> {
        Ok(Self {
            receipt: db
                .prepare("INSERT INTO receipts (seq, segment, offset, kind, dispatch) VALUES (?1, ?2, ?3, ?4, ?5)")?,
            dispatch: db.prepare("INSERT INTO dispatches (number, id) VALUES (?1, ?2)")?,
            find: db.prepare("SELECT number FROM dispatches WHERE id = ?1")?,
            requested: db.prepare(
                "INSERT INTO dispatches (number, id, agent, requested) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, requested = excluded.requested",
            )?,
            claimed: db.prepare("UPDATE dispatches SET agent = ?2, provider = ?3 WHERE number = ?1")?,
            closed: db.prepare(
                "UPDATE dispatches SET agent = ?2, provider = ?3, closed = ?4, decision = ?5, outcome = ?6
                 WHERE number = ?1",
            )?,
            reverting: db.prepare("UPDATE dispatches SET reverting = ?2 WHERE number = ?1")?,
            landed: db.prepare(
                "UPDATE dispatches SET landed = CASE WHEN reverting IS ?2 THEN NULL ELSE ?3 END WHERE number = ?1",
            )?,
            dropped: db.prepare("UPDATE dispatches SET dropped = ?2 WHERE number = ?1")?,
            numbers: HashMap::new(),
            // They are given in the order of the ledger, so a rebuild gives the same ones.
            next: db.query_row("SELECT coalesce(max(number), 0) + 1 FROM dispatches", [], |row| row.get(0))?,
        })
    }

    fn take(&mut self, place: Place, links: &Links<'_>) -> Result<(), StateError> {
        let Subject { ts, kind, dispatch, .. } = links.subject().map_err(StateError::Receipt)?;
        // Other kinds are not parsed: they change nothing here.
        let telling = matches!(
            kind,
            Kind::DispatchRequested
                | Kind::DispatchClaimed
                | Kind::DispatchClosed
                | Kind::MergeStarted
                | Kind::MergeLanded
                | Kind::BranchDropped
                | Kind::WorktreeUndone
        );
        let body = if telling { Some(links.payload().map_err(StateError::Receipt)?.2) } else { None };
        let number = dispatch.map(|id| self.number(id, ts, body.as_ref())).transpose()?;
        self.receipt.execute(params![links.seq, place.segment, place.offset, kind.word(), number])?;
        match (number, &body) {
            (Some(number), Some(body)) => self.tell(number, ts, body),
            _ => Ok(()),
        }
    }

    fn tell(&mut self, number: i64, ts: Timestamp, body: &Body) -> Result<(), StateError> {
        match body {
            Body::DispatchClaimed(c) => self.claimed.execute(params![number, c.agent.as_str(), c.provider.as_str()])?,
            Body::DispatchClosed(c) => {
                let (decision, outcome) = (c.verdict.decision.word(), c.verdict.outcome.word());
                let (agent, provider) = (c.agent.as_str(), c.provider.as_str());
                self.closed.execute(params![number, agent, provider, ts.micros(), decision, outcome])?
            }
            Body::MergeStarted(m) if m.strategy == Strategy::Revert => {
                self.reverting.execute(params![number, m.nonce])?
            }
            Body::MergeLanded(m) => self.landed.execute(params![number, m.nonce, ts.micros()])?,
            Body::BranchDropped(_) => self.dropped.execute(params![number, ts.micros()])?,
            Body::WorktreeUndone(_) => self.dropped.execute(params![number, Option::<i64>::None])?,
            _ => 0,
        };
        Ok(())
    }

    /// The number of a dispatch, which it gets with its first receipt.
    fn number(&mut self, id: &str, ts: Timestamp, body: Option<&Body>) -> Result<i64, StateError> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        let known = self.find.query_row(params![id], |row| row.get(0)).optional()?;
        let number = known.unwrap_or(self.next);
        if let Some(Body::DispatchRequested(requested)) = body {
            self.requested.execute(params![number, id, requested.agent.as_str(), ts.micros()])?;
        } else if known.is_none() {
            self.dispatch.execute(params![number, id])?;
        }
        self.next = self.next.max(number + 1);
        if self.numbers.len() >= REMEMBERED {
            self.numbers.clear();
        }
        self.numbers.insert(id.to_owned(), number);
        Ok(number)
    }
}
