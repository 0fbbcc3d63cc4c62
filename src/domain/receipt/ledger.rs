//! Payloads of the receipts that are about the ledger itself.

use serde::{Deserialize, Serialize};

use super::Actor;
use super::Attestation;
use crate::domain::{Digest, DispatchId, Name};

/// Payload of `ledger.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerCreated {
    /// 128 random bits in hex, so that no other ledger can be swapped in.
    pub ledger: String,
    /// The project it belongs to.
    pub project: Name,
    /// The version of vnx that created it.
    pub vnx: String,
}

/// Payload of `ledger.recovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerRecovered {
    /// Offset in bytes at which the fragment began.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    /// The file in `quarantine/` that holds it.
    pub quarantine: String,
}

/// Payload of `ledger.io_error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerIoError {
    /// The length of the file that was written anew.
    pub bytes: u64,
    /// What the system had said.
    pub error: String,
}

/// Payload of `ledger.lost`: a person accepts that receipts are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerLost {
    /// How many receipts there are without this one.
    pub size: u64,
    /// How many there were known to be, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<u64>,
    /// Dispatches of which something else shows that they were closed or begun, and no receipt does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dispatches: Vec<DispatchId>,
    /// Who accepts it.
    pub by: Actor,
    /// Why.
    pub reason: String,
    /// How surely a person stood behind it.
    pub attestation: Attestation,
}

/// Payload of `ledger.sealed`: nothing follows it in its segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerSealed {
    /// The number of the segment, from 1.
    pub segment: u32,
    /// How many receipts the whole ledger has before this one.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: Digest,
}

/// Payload of `ledger.opened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerOpened {
    /// The number of the segment that begins here.
    pub segment: u32,
    /// The bytes of the segment before it.
    pub bytes: u64,
    /// The digest of the segment before it, as a file that is not compressed.
    pub sha256: Digest,
    /// The roots of the perfect subtrees over all receipts before this one, largest first.
    pub nodes: Vec<Digest>,
}

/// What the rules of an older ledger say of it. They bind an entry only to the one before it, so
/// none of these words means what it means for a ledger of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImportStatus {
    /// No entry is chained.
    Unchained,
    /// One chain from the first entry on.
    Verified,
    /// Chains that begin anew, or only after unchained entries.
    Segmented,
    /// A line breaks the rules.
    Broken,
}

impl ImportStatus {
    /// The word in receipts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unchained => "unchained",
            Self::Verified => "verified",
            Self::Segmented => "segmented",
            Self::Broken => "broken",
        }
    }
}

/// A line of an older ledger that breaks its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportViolation {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Payload of `ledger.imported`: an older ledger was taken over, as a segment of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LedgerImported {
    /// SHA-256 of the file; its copy is `imported/<sha256>.ndjson`.
    pub sha256: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its lines that are not blank.
    pub lines: u64,
    /// What its own rules say of it.
    pub status: ImportStatus,
    /// Entries that are chained.
    pub chained: u64,
    /// Markers that begin a chain anew.
    pub epochs: u64,
    /// Lines that break its rules.
    pub violations: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<ImportViolation>,
    /// The name that the file had.
    pub name: String,
}

/// Payload of `anchor.written`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AnchorWritten {
    /// How many receipts the anchor covers.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: Digest,
    /// The commit that holds it.
    pub commit: String,
    /// The commit is signed.
    pub signed: bool,
}
