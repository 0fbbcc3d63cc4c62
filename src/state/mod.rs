//! The CURRENT: projections of the ledger in `state.db` (SQLite), so that a question about one dispatch
//! does not read a million receipts.
//!
//! Nothing here is truth. Whoever asks brings the projections up to date first, from the receipts
//! that came since; what does not fit the ledger is made anew from it, and every answer about one dispatch
//! is read from the ledger at the place that the projection names. Only a list of many is answered by what
//! the projection itself has: nothing is decided by it.

mod project;
mod schema;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;

use crate::domain::receipt::Kind;
use crate::domain::{Decision, DispatchId, Fault, Name, Outcome, Timestamp};
use crate::ledger::{Ledger, LedgerError, Place, format};
use crate::project::Project;
use crate::sys::files::{self, At, PathError};
use crate::sys::lock;

/// How long somebody waits for another who brings the projections up to date.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why projections cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// SQLite says no.
    #[error("state.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Somebody else is at it for too long.
    #[error("{0}")]
    Lock(Fault),
    /// A receipt that cannot be read.
    #[error("a receipt cannot be read: {0}")]
    Receipt(String),
    /// The projection names a place where something else stands.
    #[error("state.db does not fit the ledger")]
    Stale,
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        let what = error.to_string();
        match error {
            StateError::Ledger(error) => error.into(),
            StateError::Path(error) => error.into(),
            StateError::Lock(fault) => fault,
            StateError::Receipt(_) => Self::environment(what).fix("run `vnx audit-chain verify`"),
            StateError::Sqlite(_) | StateError::Stale => {
                Self::io(what).fix("`vnx rebuild` makes it anew from the ledger; nothing is lost with it")
            }
        }
    }
}

/// The projections of one project, up to date when they were opened.
#[derive(Debug)]
pub struct State {
    db: Connection,
    ledger: Ledger,
    /// Nobody else has the database open: its file may be replaced, and SQLite tells a journal by its
    /// name alone.
    lock: File,
}

/// Which dispatches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this agent.
    pub agent: Option<Name>,
    /// On this provider.
    pub provider: Option<Name>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// With this decision.
    pub decision: Option<Decision>,
    /// Requested since then.
    pub since: Option<Timestamp>,
    /// Only what is not closed.
    pub open: bool,
    /// Only what has landed and was not taken back.
    pub landed: bool,
}

/// What the receipts tell of a dispatch, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its id.
    pub id: DispatchId,
    /// The role; absent where its first receipts are missing.
    pub agent: Option<String>,
    /// The CLI.
    pub provider: Option<String>,
    /// When it was asked for.
    pub requested: Option<Timestamp>,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// The decision of its verdict.
    pub decision: Option<Decision>,
    /// The outcome of its verdict.
    pub outcome: Option<Outcome>,
    /// When it landed last, unless that was taken back.
    pub landed: Option<Timestamp>,
    /// When it was given up, unless that was undone.
    pub dropped: Option<Timestamp>,
}

/// What a rebuild came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// Receipts of the ledger.
    pub receipts: u64,
    /// Dispatches that they tell of.
    pub dispatches: u64,
}

impl State {
    /// Opens the projections and brings them up to date; `progress` hears how many receipts are done.
    pub fn open(project: &Project, progress: &dyn Fn(u64)) -> Result<Self, StateError> {
        let lock = exclusive(project)?;
        // What a rebuild that was cut off has left.
        files::remove(&unfinished(project))?;
        let opened = connect(project).and_then(|db| {
            let mut state =
                Self { db, ledger: project.ledger(), lock: lock.try_clone().at("lock", &project.paths.state_lock())? };
            if !state.is_up_to_date()? {
                state.catch_up(progress)?;
            }
            Ok(state)
        });
        match opened {
            // Not a database any more, or one that does not fit: nothing is lost with it.
            Err(StateError::Sqlite(error)) if is_damage(&error) => Self::anew(project, lock, progress),
            Err(StateError::Stale) => Self::anew(project, lock, progress),
            other => other,
        }
    }

    /// Asks the projections, brought up to date. If they turn out not to fit the ledger, they are made
    /// anew and asked again.
    pub fn ask<T>(
        project: &Project,
        progress: &dyn Fn(u64),
        question: impl Fn(&Self) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let state = Self::open(project, progress)?;
        match question(&state) {
            Err(StateError::Sqlite(error)) if !is_damage(&error) => Err(error.into()),
            Err(StateError::Sqlite(_) | StateError::Stale) => {
                let Self { db, lock, .. } = state;
                drop(db);
                question(&Self::anew(project, lock, progress)?)
            }
            other => other,
        }
    }

    /// Makes the projections anew from the ledger.
    pub fn rebuild(project: &Project, progress: &dyn Fn(u64)) -> Result<Rebuilt, StateError> {
        let state = Self::anew(project, exclusive(project)?, progress)?;
        let count =
            |table: &str| state.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0));
        Ok(Rebuilt { receipts: count("receipts")?, dispatches: count("dispatches")? })
    }

    fn anew(project: &Project, lock: File, progress: &dyn Fn(u64)) -> Result<Self, StateError> {
        let beside = |suffix: &str| {
            let mut file = project.paths.state_db().into_os_string();
            file.push(suffix);
            PathBuf::from(file)
        };
        // Made apart, without a journal, and put in the old one's place when it is whole.
        let new = unfinished(project);
        files::remove(&new)?;
        let mut made = Self { db: open(&new)?, ledger: project.ledger(), lock };
        made.db.pragma_update(None, "journal_mode", "OFF")?;
        made.db.pragma_update(None, "cache_size", -64_000)?;
        schema::prepare(&made.db)?;
        made.catch_up(progress)?;
        let Self { db, ledger, lock } = made;
        db.close().map_err(|(_, error)| error)?;
        for suffix in ["-wal", "-shm"] {
            files::remove(&beside(suffix))?;
        }
        files::rename(&new, &project.paths.state_db())?;
        Ok(Self { db: connect(project)?, ledger, lock })
    }

    /// The lines of a dispatch, oldest first.
    pub fn lines_of(&self, id: &DispatchId) -> Result<Vec<Vec<u8>>, StateError> {
        let mut statement = self.db.prepare(
            "SELECT seq, segment, offset FROM receipts
             WHERE dispatch = (SELECT number FROM dispatches WHERE id = ?1) ORDER BY seq",
        )?;
        let rows = statement.query_map(params![id.as_str()], |row| {
            Ok((row.get::<_, u64>(0)?, Place { segment: row.get(1)?, offset: row.get(2)? }))
        })?;
        let (seqs, places): (Vec<u64>, Vec<Place>) = rows.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let lines = self.ledger.lines_at(&places)?;
        let is_it = |(line, seq): (&Vec<u8>, &u64)| {
            let subject = format::links(line).ok().filter(|l| l.seq == *seq).and_then(|l| l.subject().ok());
            subject.is_some_and(|s| s.dispatch == Some(id.as_str()))
        };
        // A dispatch begins with its request; rows that are missing are not receipts that are.
        let begins = |line: &Vec<u8>| format::links(line).is_ok_and(|l| l.says(Kind::DispatchRequested));
        let known =
            self.db.query_row("SELECT count(*) FROM dispatches WHERE id = ?1", params![id.as_str()], |row| {
                row.get::<_, u64>(0)
            })?;
        let whole = lines.first().map_or(known == 0, begins);
        if whole && lines.iter().zip(&seqs).all(is_it) { Ok(lines) } else { Err(StateError::Stale) }
    }

    /// The line of one receipt.
    pub fn line_of(&self, seq: u64) -> Result<Option<Vec<u8>>, StateError> {
        if seq > format::MAX_INTEGER {
            return Ok(None);
        }
        let mut statement = self.db.prepare("SELECT segment, offset FROM receipts WHERE seq = ?1")?;
        let place = |row: &rusqlite::Row<'_>| Ok(Place { segment: row.get(0)?, offset: row.get(1)? });
        let Some(place) = statement.query_row(params![seq], place).optional()? else {
            // A row that is missing is not a receipt that is missing.
            let last = self.position()?.map(|(last, _)| last);
            return if last.is_some_and(|last| seq <= last) { Err(StateError::Stale) } else { Ok(None) };
        };
        let line = self.ledger.lines_at(&[place])?.pop().unwrap_or_default();
        if format::links(&line).is_ok_and(|l| l.seq == seq) { Ok(Some(line)) } else { Err(StateError::Stale) }
    }

    /// The dispatches whose id begins like this, otherwise those of which it is the last part; at most two: one is
    /// the one that is meant (see [`crate::domain::id::meant`]).
    pub fn dispatches_like(&self, text: &str) -> Result<Vec<DispatchId>, StateError> {
        let begin = "SELECT id FROM dispatches WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT 2";
        let end = "SELECT id FROM dispatches WHERE substr(id, -length(?1) - 1) = '-' || ?1 LIMIT 2";
        let mut ids = Vec::new();
        for sql in [begin, end].into_iter().take(if text.contains('-') { 1 } else { 2 }) {
            let mut statement = self.db.prepare(sql)?;
            let rows = statement.query_map(params![text], |row| row.get::<_, String>(0))?;
            for id in rows {
                ids.push(DispatchId::parse(&id?).map_err(|_| StateError::Stale)?);
            }
            if !ids.is_empty() {
                break;
            }
        }
        Ok(ids)
    }

    /// The dispatches that are wanted, the one that was asked for last first. `skip` are those to leave out.
    pub fn dispatches(
        &self,
        wanted: &Wanted,
        most: usize,
        skip: impl Fn(&DispatchId) -> bool,
    ) -> Result<Vec<Known>, StateError> {
        let mut statement = self.db.prepare(
            "SELECT id, agent, provider, requested, closed, decision, outcome, landed, dropped FROM dispatches
             WHERE (?1 IS NULL OR agent = ?1) AND (?2 IS NULL OR provider = ?2) AND (?3 IS NULL OR outcome = ?3)
               AND (?4 IS NULL OR decision = ?4) AND (?5 IS NULL OR requested >= ?5)
               AND (NOT ?6 OR closed IS NULL) AND (NOT ?7 OR landed IS NOT NULL)
             ORDER BY number DESC",
        )?;
        let name = |name: &Option<Name>| name.as_ref().map(Name::to_string);
        let Wanted { agent, provider, outcome, decision, since, open, landed } = wanted;
        let (outcome, decision) = (outcome.map(Outcome::word), decision.map(Decision::word));
        let since = since.map(Timestamp::micros);
        let mut rows = statement.query(params![name(agent), name(provider), outcome, decision, since, open, landed])?;
        let mut known = Vec::new();
        while let Some(row) = rows.next()?.filter(|_| known.len() < most) {
            let id = DispatchId::parse(&row.get::<_, String>(0)?).map_err(|_| StateError::Stale)?;
            if skip(&id) {
                continue;
            }
            let time =
                |column| Ok::<_, StateError>(row.get::<_, Option<i64>>(column)?.and_then(Timestamp::from_micros));
            let word = |column| row.get::<_, Option<String>>(column);
            known.push(Known {
                id,
                agent: word(1)?,
                provider: word(2)?,
                requested: time(3)?,
                closed: time(4)?,
                decision: word(5)?.and_then(|word| Decision::ALL.into_iter().find(|d| d.word() == word)),
                outcome: word(6)?.and_then(|word| Outcome::ALL.iter().copied().find(|o| o.word() == word)),
                landed: time(7)?,
                dropped: time(8)?,
            });
        }
        Ok(known)
    }

    /// Whether the projections end where the ledger does.
    fn is_up_to_date(&self) -> Result<bool, StateError> {
        let head = self.ledger.head()?;
        Ok(self.position()?.is_some_and(|(last, _)| last == head.seq))
    }

    /// The last receipt that was taken in, and its place. [`StateError::Stale`] if another one stands
    /// there.
    fn position(&self) -> Result<Option<(u64, Place)>, StateError> {
        let row = self
            .db
            .query_row("SELECT seq, hash, segment, offset FROM position", [], |row| {
                let place = Place { segment: row.get(2)?, offset: row.get(3)? };
                Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, place))
            })
            .optional()?;
        let Some((seq, hash, place)) = row else { return Ok(None) };
        let line = self.ledger.lines_at(&[place])?.pop().unwrap_or_default();
        let there = format::links(&line).is_ok_and(|l| l.seq == seq && l.hash == hash.as_bytes());
        if there { Ok(Some((seq, place))) } else { Err(StateError::Stale) }
    }
}

/// Where a rebuild makes the new database.
fn unfinished(project: &Project) -> PathBuf {
    project.paths.state_db().with_extension("db.new")
}

fn exclusive(project: &Project) -> Result<File, StateError> {
    lock::exclusive(&project.paths.state_lock(), PATIENCE).map_err(StateError::Lock)
}

fn connect(project: &Project) -> Result<Connection, StateError> {
    let db = open(&project.paths.state_db())?;
    // A projection may lose its last changes in a power cut; it must only not be damaged by it.
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    schema::prepare(&db)?;
    Ok(db)
}

fn open(path: &Path) -> Result<Connection, StateError> {
    files::private_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(PATIENCE)?;
    Ok(db)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        ConstraintViolation, DatabaseCorrupt, NotADatabase, SchemaChanged, TypeMismatch, Unknown,
    };
    let code = error.sqlite_error_code();
    code.is_none()
        || matches!(
            code,
            Some(ConstraintViolation | DatabaseCorrupt | NotADatabase | SchemaChanged | TypeMismatch | Unknown)
        )
}
