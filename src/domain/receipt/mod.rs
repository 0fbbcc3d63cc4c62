//! Receipts: the closed set of kinds and their typed payloads (`receipts/SPEC.md`).
//!
//! A kind that is not here cannot be written, and a reader refuses it by name.

mod entry;
mod gate;
mod ledger;
mod statement;
mod text;
mod worktree;

pub use entry::Entry;
pub use gate::{
    Actor, ApprovalGiven, Attestation, BranchDropped, Destination, GateRequested, GateResulted, ItemClosed, ItemOpened,
    ItemSource, MergeLanded, MergeRefused, MergeStarted, RescueDropped, Scope, Signed, StagePromoted, StageProposed,
    Strategy,
};
pub use ledger::{
    AnchorWritten, ImportStatus, ImportViolation, LedgerCreated, LedgerImported, LedgerIoError, LedgerLost,
    LedgerOpened, LedgerRecovered, LedgerSealed,
};
use serde::{Deserialize, Serialize};
pub use text::Checked;
pub use worktree::{WorktreeHook, WorktreeUndone};

use super::agent::{Deliverable, Permissions};
use super::digest::Digest;
use super::event::Usage;
use super::id::Name;
use super::outcome::Outcome;
use super::plan::{Base, Lane};
use super::tree::{TreeClass, TreeFacts};
use super::verdict::{Containment, End, Verdict};

/// Must the writer wait for the disk before it goes on?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Yes: an effect that cannot be undone follows, or the receipt is the last word.
    Wait,
    /// No: a later receipt's sync covers it, because the file only grows.
    Ride,
}

macro_rules! kinds {
    ($($variant:ident $word:literal $durability:ident $doc:literal;)*) => {
        /// The kind of a receipt.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $(#[doc = $doc] $variant,)* }
        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The word in the `kind` member.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            /// What it means, in a sentence.
            #[cfg(test)]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
            /// The kind of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
            /// Whether its writer waits for the disk.
            pub fn durability(self) -> Durability {
                match self { $(Self::$variant => Durability::$durability,)* }
            }
        }
        /// The schema of the payload of a kind.
        #[cfg(test)]
        pub(super) fn schema_of(kind: Kind, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
            match kind { $(Kind::$variant => generator.subschema_for::<$variant>(),)* }
        }
        /// A typed payload; its kind is its variant.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Body { $(#[doc = $doc] $variant($variant),)* }
        impl Body {
            /// The kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$variant(_) => Kind::$variant,)* }
            }
            /// The payload as compact JSON.
            pub fn to_json(&self) -> Result<String, serde_json::Error> {
                match self { $(Self::$variant(payload) => serde_json::to_string(payload),)* }
            }
            /// Reads a payload of `kind`; unknown members are errors.
            pub fn from_json(kind: Kind, json: &str) -> Result<Self, serde_json::Error> {
                match kind { $(Kind::$variant => serde_json::from_str(json).map(Self::$variant),)* }
            }
        }
    };
}

kinds! {
    LedgerCreated "ledger.created" Wait "The first receipt of a ledger.";
    LedgerRecovered "ledger.recovered" Wait "A torn tail was moved to quarantine.";
    LedgerIoError "ledger.io_error" Wait "The disk did not confirm receipts, and the file was written anew.";
    LedgerLost "ledger.lost" Wait "A person accepts that receipts are gone.";
    LedgerSealed "ledger.sealed" Wait "The last receipt of a segment.";
    LedgerOpened "ledger.opened" Wait "The first receipt of the next segment.";
    LedgerImported "ledger.imported" Wait "An older ledger was taken over.";
    DispatchRequested "dispatch.requested" Ride "Somebody asked for a dispatch.";
    DispatchRefused "dispatch.refused" Wait "Policy refused a dispatch; nothing was claimed.";
    DispatchClaimed "dispatch.claimed" Ride "The id is taken and the plan is fixed.";
    OverrideUsed "override.used" Ride "A constraint was set aside on purpose.";
    DispatchPrepared "dispatch.prepared" Wait "Worktree and prompt stand; the worker may start.";
    DispatchStarted "dispatch.started" Ride "The worker runs.";
    DispatchExited "dispatch.exited" Ride "The worker ended and its process tree was swept.";
    DispatchCollected "dispatch.collected" Ride "Git facts, usage and report were read.";
    DispatchJudged "dispatch.judged" Wait "The verdict; teardown may follow.";
    WorktreeHook "worktree.hook" Ride "A command of the project ran in the worktree.";
    WorktreeRescued "worktree.rescued" Ride "A rescue commit holds what a teardown could have lost.";
    WorktreeRemoved "worktree.removed" Ride "The worktree is gone.";
    WorktreeKept "worktree.kept" Ride "The worktree stays, and why.";
    DispatchClosed "dispatch.closed" Wait "What people call the receipt.";
    WorktreeUndone "worktree.undone" Wait "A removed worktree stands again.";
    AnchorWritten "anchor.written" Wait "A checkpoint of the ledger stands outside of it.";
    GateRequested "gate.requested" Ride "A gate is asked about a commit.";
    GateResulted "gate.resulted" Wait "What the gate said.";
    ApprovalGiven "approval.given" Wait "A person approves a commit.";
    ItemOpened "item.opened" Wait "Something is to be done.";
    ItemClosed "item.closed" Wait "It was done, or will not be.";
    StageProposed "stage.proposed" Wait "Somebody proposes a dispatch.";
    StagePromoted "stage.promoted" Wait "A person lets a proposed dispatch begin.";
    BranchDropped "branch.dropped" Wait "Somebody gives up a dispatch's branch; a ref keeps its commits.";
    RescueDropped "rescue.dropped" Wait "A person gives up a rescue for good.";
    MergeStarted "merge.started" Wait "A merge was begun; the target is untouched.";
    MergeLanded "merge.landed" Wait "The target has it.";
    MergeRefused "merge.refused" Wait "The target is what it was.";
}

/// Whether a member of payloads is an array; nothing else in one is.
pub fn is_list(name: &str) -> bool {
    matches!(
        name,
        "dispatches"
            | "evidence"
            | "left_out"
            | "lost_refs"
            | "nodes"
            | "onto"
            | "paths"
            | "settings"
            | "survivors"
            | "unknown_because"
    )
}

impl Kind {
    /// Whether receipts of this kind belong to a dispatch; the others are the ledger's own.
    pub fn is_of_dispatch(self) -> bool {
        !matches!(
            self,
            Self::LedgerCreated
                | Self::LedgerRecovered
                | Self::LedgerIoError
                | Self::LedgerLost
                | Self::LedgerSealed
                | Self::LedgerOpened
                | Self::LedgerImported
                | Self::DispatchRefused
                | Self::AnchorWritten
                | Self::StageProposed
                | Self::StagePromoted
        )
    }
}

/// Payload of `dispatch.requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchRequested {
    /// SHA-256 of `request.yaml`.
    pub request: Digest,
    /// The role asked for.
    pub agent: Name,
}

/// Payload of `dispatch.refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchRefused {
    /// The role asked for.
    pub agent: Name,
    /// The constraint or limit that refused.
    pub rule: String,
    /// Its reason.
    pub reason: String,
}

/// Payload of `dispatch.claimed`: enough to finish the story if every other file is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchClaimed {
    /// SHA-256 of `plan.json`.
    pub plan: Digest,
    /// The role.
    pub agent: Name,
    /// The CLI.
    pub provider: Name,
    /// The model, if one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How it is connected.
    pub lane: Lane,
    /// What it may do.
    pub permissions: Permissions,
    /// What it must deliver.
    pub delivers: Deliverable,
    /// Where it starts.
    pub base: Base,
    /// Its branch.
    pub branch: String,
    /// Its folder.
    pub worktree: String,
}

/// Payload of `override.used`: a constraint at the door, or a gate at a merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OverrideUsed {
    /// The constraint or the gate that is set aside.
    pub constraint: Name,
    /// Why.
    pub reason: String,
    /// Who and for what, where it is a gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateOverride>,
    /// How surely; absent at the door where a recovery wrote the receipt that a claim could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// Who sets a gate aside, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GateOverride {
    /// Who.
    pub by: Actor,
    /// For what.
    pub scope: Scope,
    /// Which one it is: 128 random bits in hex.
    pub nonce: String,
}

/// Payload of `dispatch.prepared`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchPrepared {
    /// The commit that is checked out.
    pub head: String,
    /// SHA-256 of the prompt, read back and equal to the plan's.
    pub prompt: Digest,
    /// From claim to here, in milliseconds.
    pub took_ms: u64,
}

/// Payload of `dispatch.started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchStarted {
    /// Process id of the worker, also its session and process group.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot, so that the pid cannot be mistaken.
    pub start_ticks: u64,
    /// Process id of the supervisor.
    pub supervisor: u32,
}

/// Payload of `dispatch.exited`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchExited {
    /// How it ended.
    pub end: End,
    /// The proof that nothing is left of it.
    pub containment: Containment,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
    /// Bytes on its standard output.
    pub stdout_bytes: u64,
    /// Bytes on its standard error.
    pub stderr_bytes: u64,
}

/// The size of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DiffStat"))]
#[serde(deny_unknown_fields)]
pub struct DiffStat<S = String> {
    /// Files changed.
    pub files: u64,
    /// Lines added; binary files count none.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// The first 100 paths.
    pub paths: Vec<S>,
}

/// Payload of `dispatch.collected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchCollected {
    /// Facts of the worktree.
    pub facts: TreeFacts,
    /// Why facts are unknown, where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_because: Vec<String>,
    /// HEAD of the worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The branch that HEAD was on, as a full ref; absent when it was detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Commits of the dispatch branch that are its own: no other ref named them before it began or names them now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<u64>,
    /// What they stand on, where that is not the base: commits that came along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub onto: Vec<String>,
    /// The change of these commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<DiffStat>,
    /// Refs of others that lost what they led to while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_refs: Vec<LostRef>,
    /// Settings and shared files of git that changed while it ran, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// A branch, tag or stash that was deleted or set back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LostRef {
    /// Its full name.
    #[serde(rename = "ref")]
    pub name: String,
    /// What it led to, which no other ref reaches.
    pub commit: String,
    /// The ref that keeps it now; absent if it could not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl LostRef {
    /// For people: what is gone, and where it is now.
    pub fn sentence(&self) -> String {
        let Self { name, commit, kept } = self;
        let short = commit.get(..12).unwrap_or(commit);
        let kind = if name == "refs/stash" { "stash".to_owned() } else { format!("ref {name}") };
        match kept {
            Some(kept) => format!("{kind} {short} was lost while it ran; it is kept as {kept}"),
            None => format!("{kind} {short} was lost while it ran, and could not be kept"),
        }
    }
}

/// Payload of `dispatch.judged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DispatchJudged {
    /// The verdict.
    pub verdict: Verdict,
    /// The class of the worktree.
    pub class: TreeClass,
}

/// Payload of `worktree.rescued`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorktreeRescued {
    /// The ref that keeps the rescue commit.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The commit.
    pub commit: String,
    /// What is not in it: ignored files over the budget, repositories over 1 GiB, which keep the tree; and what is no file (sockets, pipes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// Payload of `worktree.removed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorktreeRemoved {
    /// Its class.
    pub class: TreeClass,
    /// The dispatch branch was deleted too.
    pub branch_deleted: bool,
}

/// Payload of `worktree.kept`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorktreeKept {
    /// Its class.
    pub class: TreeClass,
    /// Why it stays.
    pub reason: String,
}

/// What became of the worktree, in one word for lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TreeEnd {
    /// There is none: it was never made, or the worker took it away.
    None,
    /// Removed.
    Removed,
    /// Kept.
    Kept,
}

/// Teardown as the closing receipt tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Teardown"))]
#[serde(deny_unknown_fields)]
pub struct Teardown<S = String> {
    /// The class.
    pub class: TreeClass,
    /// What became of the folder.
    pub tree: TreeEnd,
    /// The branch still exists.
    pub branch_kept: bool,
    /// The rescue ref, if one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<S>,
}

/// Durations of one dispatch in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Durations {
    /// From claim to the worker's start.
    pub prepare: u64,
    /// The worker's run.
    pub run: u64,
    /// From the worker's exit to this receipt.
    pub close: u64,
}

/// Payload of `dispatch.closed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DispatchClosed"))]
#[serde(deny_unknown_fields)]
pub struct DispatchClosed<S = String> {
    /// SHA-256 of `request.yaml`, if the dispatch folder still had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Digest>,
    /// SHA-256 of `plan.json`.
    pub plan: Digest,
    /// The role.
    pub agent: Name,
    /// The CLI.
    pub provider: Name,
    /// The model that answered, or the one that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<S>,
    /// How it was connected.
    pub lane: Lane,
    /// The CLI's own session id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<S>,
    /// Where it started.
    pub base: Base<S>,
    /// Its branch.
    pub branch: S,
    /// Where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<S>,
    /// Commits since the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<u64>,
    /// The change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<DiffStat<S>>,
    /// How the process ended.
    pub end: End<S>,
    /// The containment proof.
    pub containment: Containment<S>,
    /// Usage and cost with their source.
    pub usage: Usage<S>,
    /// The verdict.
    pub verdict: Verdict<S>,
    /// Teardown.
    pub teardown: Teardown<S>,
    /// The report's digest, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
    /// Durations.
    pub took_ms: Durations,
    /// The story was finished by a later command, after its supervisor was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
}

impl DispatchClosed {
    /// Shorthand for lists.
    pub fn outcome(&self) -> Outcome {
        self.verdict.outcome
    }
}
