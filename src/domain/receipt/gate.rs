//! From done to landed: gates, approvals, items, proposals, merges.

use serde::{Deserialize, Serialize};

use crate::domain::authority::Presence;
use crate::domain::event::Usage;
use crate::domain::gate::counts::Tests;
use crate::domain::gate::{Binding, CANCELLED, GateKind, GateStatus, Phase};
use crate::domain::{Digest, DispatchId, Name, Timestamp};

/// Payload of `gate.requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GateRequested {
    /// What the result will be about.
    pub binding: Binding,
    /// What the gate is.
    pub kind: GateKind,
    /// When it runs.
    pub phase: Phase,
}

/// Payload of `gate.resulted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GateResulted {
    /// The gate.
    pub gate: Name,
    /// Which request it answers.
    pub nonce: String,
    /// What came of it.
    pub status: GateStatus,
    /// Why, in one line.
    pub reason: String,
    /// SHA-256 of what was said, `report.txt`. Absent: there was nothing to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
    /// SHA-256 of what it amounts to, `result.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Digest>,
    /// How often it was tried.
    pub tries: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What a test runner counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<Tests>,
    /// Usage and cost of reviewers, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl GateResulted {
    /// Whether somebody ended it before it had an answer.
    pub fn is_cancelled(&self) -> bool {
        self.status == GateStatus::Unverified && self.reason == CANCELLED
    }
}

/// A person, as git knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// `user.name`.
    pub name: String,
    /// `user.email`.
    pub email: String,
}

/// How surely the person stood behind what a receipt says of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The level, as it was when it was decided.
    pub presence: Presence,
    /// What was signed; absent below `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// A signature and what it is over. Both are files in the state folder: `signatures/<text>.txt` and `.sig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// SHA-256 of the text, which says all of what was decided.
    pub text: Digest,
    /// SHA-256 of the signature.
    pub signature: Digest,
}

/// What a person's word is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The full name of the branch that it shall land on.
    pub target: String,
    /// The commit that was looked at.
    pub head: String,
    /// Its tree: the word holds for it, whatever commit has it.
    pub tree: String,
    /// The moment from which on it holds no more.
    pub until: Timestamp,
}

/// Payload of `approval.given`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApprovalGiven {
    /// Who.
    pub by: Actor,
    /// Why.
    pub reason: String,
    /// What.
    pub scope: Scope,
    /// The review that it settles, where its reviewers disagree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles: Option<Name>,
    /// The request that its reviewers answered: they may be asked again, and disagree about something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Which one it is: 128 random bits in hex.
    pub nonce: String,
    /// How surely.
    pub attestation: Attestation,
}

/// Where an item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ItemSource {
    /// A gate found it.
    Gate,
    /// The report of the worker names it as open.
    Report,
    /// A person or an agent noted it.
    Person,
}

/// Where an item goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// It holds the merge until it is closed.
    Merge,
    /// It is for later, and holds nothing.
    Later,
}

impl Destination {
    /// The word used on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Later => "later",
        }
    }
}

/// Payload of `item.opened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ItemOpened {
    /// Its id: `i-` and eight hex digits of the digest of what it says.
    pub item: Name,
    /// Where it comes from.
    pub source: ItemSource,
    /// The gate, where one found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Name>,
    /// Where it goes.
    pub destination: Destination,
    /// What is wrong.
    pub claim: String,
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// How often it was opened, from 1: a closed one can come back.
    pub round: u32,
}

/// Payload of `item.closed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ItemClosed {
    /// Which.
    pub item: Name,
    /// Which opening of it.
    pub round: u32,
    /// Why.
    pub reason: String,
    /// Who; absent: the gate that had found it passes now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// How surely, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// Payload of `stage.proposed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StageProposed {
    /// The id that the dispatch will have.
    pub proposal: DispatchId,
    /// SHA-256 of the proposed `request.yaml`.
    pub request: Digest,
    /// The role asked for.
    pub agent: Name,
    /// The dispatch whose worker proposed it, by what its environment says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DispatchId>,
}

/// Payload of `stage.promoted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StagePromoted {
    /// The id that the dispatch has.
    pub proposal: DispatchId,
    /// SHA-256 of the request that was promoted, as it was proposed.
    pub request: Digest,
    /// Who.
    pub by: Actor,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How surely.
    pub attestation: Attestation,
}

/// Payload of `branch.dropped`: it stands before the branch goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BranchDropped {
    /// Where it was.
    pub commit: String,
    /// The ref that keeps its commits.
    pub reference: String,
    /// Who.
    pub by: Actor,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Payload of `rescue.dropped`: it stands before the rescue goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RescueDropped {
    /// The commit that held it.
    pub commit: String,
    /// Who.
    pub by: Actor,
    /// How surely.
    pub attestation: Attestation,
}

/// How a branch becomes part of its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A commit with both as parents.
    #[default]
    Merge,
    /// One commit with all of it.
    Squash,
    /// Its commits, on top of the target.
    Rebase,
    /// The reverse of what had landed.
    Revert,
}

impl Strategy {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Squash => "squash",
            Self::Rebase => "rebase",
            Self::Revert => "revert",
        }
    }
}

/// Payload of `merge.started`: it stands before anything is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MergeStarted {
    /// Which one it is: 128 random bits in hex.
    pub nonce: String,
    /// How.
    pub strategy: Strategy,
    /// The full name of the branch that it shall land on.
    pub target: String,
    /// The commit that branch was at.
    pub base: String,
    /// The commit that shall land.
    pub head: String,
    /// How many receipts the anchor covers that the commit names.
    pub size: u64,
    /// Their root.
    pub root: Digest,
}

/// Payload of `merge.landed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MergeLanded {
    /// Which one.
    pub nonce: String,
    /// The commit that the target is at.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// A later command found that it had landed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// Where the target is checked out and could not be brought along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

/// Payload of `merge.refused`: the target is what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MergeRefused {
    /// Which one.
    pub nonce: String,
    /// Why, in one line.
    pub reason: String,
}
