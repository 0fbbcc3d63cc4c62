//! What a verification is asked and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;

use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{AnchorWritten, Kind, LedgerImported};
use crate::domain::{Digest, DispatchId, Name};

/// What the verification came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every line is what it was when it was written, up to the end of the file.
    Verified,
    /// A line was changed, inserted, removed or moved.
    Broken,
    /// The receipts are sound in themselves, but they are not those that were anchored, or that are known otherwise.
    AnchorMismatch,
    /// Everything is sound except an incomplete last line; the next writer repairs that.
    TornTail,
    /// Nothing that could be verified, or nothing that it could be held against.
    Undecided,
    /// The file could not be read.
    Unreadable,
}

impl Status {
    /// The exit code of `audit-chain verify`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Broken => 1,
            Self::AnchorMismatch => 3,
            Self::TornTail => 4,
            Self::Undecided => 5,
            Self::Unreadable => 74,
        }
    }
}

/// What is wrong, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// A line's hash does not fit its bytes.
    Edited,
    /// Receipts between two lines are gone.
    Deleted,
    /// A line stands where none was: a copy, or one that vnx did not write.
    Inserted,
    /// Lines changed places.
    Reordered,
    /// The line follows another receipt than the one that stands before it: one of them was
    /// rewritten together with its hash, or comes from another ledger.
    Forked,
    /// Not a receipt of this format.
    Format,
    /// The ledger of another project.
    WrongProject,
    /// Fewer receipts than were anchored or written.
    Truncated,
    /// Other receipts than were anchored or written.
    Rewritten,
    /// An anchor that is not what it should be.
    BadAnchor,
    /// The last line is incomplete.
    Torn,
    /// No ledger, or nothing in it, or no receipts of a dispatch that there was.
    Missing,
    /// No anchor where one is required.
    Unanchored,
    /// It cannot be read.
    Unreadable,
}

/// The first fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The sealed segment it is in; absent for the open one, or a single file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line number in that file, from 1.
    pub line: u64,
    /// Byte offset in that file at which the line begins.
    pub offset: u64,
    /// What kind of fault.
    pub kind: Flaw,
    /// One line for people.
    pub reason: String,
    /// What should stand there, where that can be said.
    pub expected: Option<String>,
    /// What stands there.
    pub found: Option<String>,
}

/// A place in a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the segment; 0 where that is not known.
    pub segment: u32,
    /// Its name, if it is sealed.
    pub name: Option<String>,
    /// The byte in it.
    pub offset: u64,
    /// How many receipts lie before it in the ledger.
    pub before: u64,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Format of this report.
    pub schema: &'static str,
    /// What it came to.
    pub status: Status,
    /// Payloads were parsed too, not only hashes and links checked.
    pub strict: bool,
    /// Sound receipts, from the first on.
    pub receipts: u64,
    /// Sound bytes.
    pub bytes: u64,
    /// The ledger's random id, from its first receipt.
    pub ledger: Option<String>,
    /// The hash of the last sound receipt.
    pub head: Option<Digest>,
    /// How many torn tails were recovered in its history.
    pub recoveries: u64,
    /// The older ledgers that were taken over, each with what its own rules say of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub imported: Vec<LedgerImported>,
    /// The first fault.
    pub first_bad: Option<Fault>,
    /// Where the last sound receipt ends.
    #[serde(skip)]
    pub position: Position,
    /// The last anchor that the ledger itself knows of, and the receipt that says so.
    #[serde(skip)]
    pub last_anchor: Option<(u64, AnchorWritten)>,
    /// The roots at the sizes that were asked for, as far as there are that many receipts.
    #[serde(skip)]
    pub roots: BTreeMap<u64, Digest>,
    /// The tree over all sound receipts, if roots were asked for.
    #[serde(skip)]
    pub tree: Option<CompactRange>,
    /// The hashes of the last receipts of the sizes that were asked for, as far as they were read.
    #[serde(skip)]
    pub heads: BTreeMap<u64, Digest>,
    /// Which of the expected receipts stand there, by their places in [`Options::expected`].
    #[serde(skip)]
    pub seen: BTreeSet<usize>,
    /// The last of them that closed its dispatch: its place there, its `seq` and its hash.
    #[serde(skip)]
    pub closing: Option<(usize, u64, Digest)>,
    /// Dispatches of which a person has accepted that their receipts are gone.
    #[serde(skip)]
    pub lost: BTreeSet<DispatchId>,
    /// The last receipt that says so.
    #[serde(skip)]
    pub last_loss: Option<u64>,
}

/// What to look at.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// A ledger of another project is a fault.
    pub project: Option<&'a Name>,
    /// Hashes and links only: payloads are not parsed.
    pub quick: bool,
    /// Sizes at which the root is wanted, ascending; `None` builds no tree.
    pub roots: Option<&'a [u64]>,
    /// Sizes at which the hash of the last receipt is wanted: a few.
    pub heads: &'a [u64],
    /// Receipts of dispatches that should be there, ascending by dispatch, each dispatch once.
    pub expected: &'a [(DispatchId, Kind)],
    /// Goes on from a proven state instead of from the beginning.
    pub since: Option<&'a Since>,
    /// Hears how many bytes are done, from time to time.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

/// A state of the ledger that is proven by other means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The tree up to there.
    pub tree: CompactRange,
    /// The hash of its last receipt.
    pub head: Digest,
    /// The segment that goes on, and where in it the next line begins.
    pub segment: u32,
    /// The byte in it.
    pub offset: u64,
    /// The ledger's id.
    pub ledger: String,
}

impl Report {
    pub(super) fn new(options: &Options<'_>) -> Self {
        let since = options.since;
        Self {
            schema: "vnx.verify/2",
            status: Status::Verified,
            strict: !options.quick,
            receipts: since.map_or(0, |s| s.tree.end()),
            bytes: 0,
            ledger: since.map(|s| s.ledger.clone()),
            head: since.map(|s| s.head),
            recoveries: 0,
            imported: Vec::new(),
            first_bad: None,
            position: Position::default(),
            last_anchor: None,
            roots: BTreeMap::new(),
            heads: BTreeMap::new(),
            seen: BTreeSet::new(),
            closing: None,
            lost: BTreeSet::new(),
            last_loss: None,
            tree: options.roots.map(|_| since.map_or_else(|| CompactRange::empty(0), |s| s.tree.clone())),
        }
    }

    /// Goes on in another file.
    pub(super) fn enter(&mut self, segment: u32, name: Option<&str>) {
        self.position = Position { segment, name: name.map(str::to_owned), offset: 0, before: self.receipts };
    }

    /// Ends the verification with this fault, unless it ended already.
    pub fn fail(&mut self, status: Status, kind: Flaw, reason: impl Into<String>) -> &mut Fault {
        self.status = status;
        let Position { name: file, offset, before, .. } = self.position.clone();
        let line = self.receipts - before + 1;
        self.first_bad.insert(Fault { file, line, offset, kind, reason: reason.into(), expected: None, found: None })
    }
}

impl Fault {
    /// Names another line than the one after the last sound one.
    pub(super) fn stands_at(&mut self, line: u64, place: Position) {
        (self.file, self.line, self.offset) = (place.name, line, place.offset);
    }
    /// Says what should be there and what is.
    pub fn differs(&mut self, expected: &dyn Display, found: &dyn Display) {
        (self.expected, self.found) = (Some(expected.to_string()), Some(found.to_string()));
    }
}
