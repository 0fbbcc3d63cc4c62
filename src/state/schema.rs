//! The tables. Words of closed vocabularies are checked by the database itself.

use rusqlite::Connection;

use super::StateError;
use crate::domain::outcome::Decision;
use crate::domain::receipt::Kind;
use crate::domain::{Digest, Outcome};

fn words(all: impl Iterator<Item = &'static str>) -> String {
    all.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(",")
}

/// The tables as SQL.
fn tables() -> String {
    let kinds = words(Kind::ALL.iter().map(|k| k.word()));
    let outcomes = words(Outcome::ALL.iter().map(|o| o.word()));
    let decisions = words(Decision::ALL.iter().map(|d| d.word()));
    format!(
        "CREATE TABLE position (
             only INTEGER PRIMARY KEY CHECK (only = 0),
             seq INTEGER NOT NULL CHECK (seq >= 0),
             hash TEXT NOT NULL CHECK (length(hash) = 64),
             segment INTEGER NOT NULL CHECK (segment > 0),
             offset INTEGER NOT NULL CHECK (offset >= 0)
         ) STRICT;
         CREATE TABLE dispatches (
             number INTEGER PRIMARY KEY,
             id TEXT NOT NULL UNIQUE,
             agent TEXT,
             provider TEXT,
             requested INTEGER,
             closed INTEGER,
             decision TEXT CHECK (decision IN ({decisions})),
             outcome TEXT CHECK (outcome IN ({outcomes})),
             landed INTEGER,
             dropped INTEGER,
             reverting TEXT
         ) STRICT;
         CREATE TABLE receipts (
             seq INTEGER PRIMARY KEY,
             segment INTEGER NOT NULL CHECK (segment > 0),
             offset INTEGER NOT NULL CHECK (offset >= 0),
             kind TEXT NOT NULL CHECK (kind IN ({kinds})),
             dispatch INTEGER REFERENCES dispatches
         ) STRICT;
         CREATE INDEX receipts_of_dispatch ON receipts (dispatch, seq) WHERE dispatch IS NOT NULL;"
    )
}

/// Makes the tables where there are none. Those of another version are dropped: they are made anew
/// from the ledger.
pub(super) fn prepare(db: &Connection) -> Result<(), StateError> {
    let tables = tables();
    // The version is a digest of the tables, so it cannot be forgotten.
    let digest = Digest::of(tables.as_bytes());
    let [a, b, c, d, ..] = *digest.bytes();
    let version = i32::from_be_bytes([a & 0x7f, b, c, d]);
    let found: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == version {
        return Ok(());
    }
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         DROP TABLE IF EXISTS receipts; DROP TABLE IF EXISTS dispatches; DROP TABLE IF EXISTS position;
         {tables}
         PRAGMA user_version = {version};
         COMMIT;"
    ))?;
    Ok(())
}
