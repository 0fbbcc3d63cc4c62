//! Payloads of the receipts that are about the ledger itself.

use serde::{Deserialize, Serialize};

use crate::domain::{Digest, Name};

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
