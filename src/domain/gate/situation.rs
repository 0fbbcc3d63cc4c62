//! What is known of a dispatch that shall land.

use serde::Serialize;

use super::spec::Gate;
use super::{Binding, Phase};
use crate::domain::authority::{Presence, PresencePolicy};
use crate::domain::receipt::{ApprovalGiven, GateOverride, GateResulted, ItemOpened};
use crate::domain::verdict::Verdict;
use crate::domain::{Digest, DispatchId, Name, Timestamp};

/// What shall land, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The full name of the branch that it shall land on.
    pub target: String,
    /// The commit that branch is at.
    pub base: String,
    /// The dispatch's commit.
    pub head: String,
    /// Its tree.
    pub tree: String,
}

/// Whether what a result names is still what it named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Files and receipts say the same.
    Sound,
    /// They do not, or some are missing: what is wrong.
    Broken(String),
}

/// The first digits of a commit, for people.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// A branch as people call it.
pub fn short_ref(reference: &str) -> &str {
    reference.strip_prefix("refs/heads/").unwrap_or(reference)
}

/// One run of a gate, from its receipts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it was asked.
    pub binding: Binding,
    /// Whether it was asked about the branch or about what the target would become.
    pub phase: Phase,
    /// What it said, if it has.
    pub result: Option<GateResulted>,
    /// Whether its files are what its receipt says.
    pub proof: Proof,
    /// It is being run.
    pub live: bool,
    /// Of its reviewers one says yes and another no, which a person may settle.
    pub split: bool,
}

impl Run {
    /// Whether somebody ended it before it had an answer.
    pub fn is_cancelled(&self) -> bool {
        self.result.as_ref().is_some_and(GateResulted::is_cancelled)
    }
}

/// A gate that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub gate: Gate,
    /// It holds the merge; a strict change makes it so.
    pub required: bool,
    /// The contract hash that counts now.
    pub contract: Digest,
    /// The digest of its configuration.
    pub config: Digest,
}

/// An approval and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The receipt.
    pub given: ApprovalGiven,
    /// Its files are what the receipt says.
    pub proof: Proof,
    /// How surely, as far as that is proven now.
    pub presence: Presence,
    /// Who signed it, of those who are trusted to.
    pub signer: Option<String>,
}

/// A gate that was overridden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// Its name, or what else does not count.
    pub about: Name,
    /// Why.
    pub reason: String,
    /// By whom, and for what.
    pub gate: GateOverride,
    /// How surely, as far as that is proven now.
    pub presence: Presence,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The dispatch.
    pub dispatch: DispatchId,
    /// What shall land, and where.
    pub subject: Subject,
    /// The moment.
    pub now: Timestamp,
    /// The verdict; `None` while it is not closed.
    pub verdict: Option<Verdict>,
    /// Why the verdict does not say enough of what shall land, if that is more than what was judged.
    pub unjudged: Option<String>,
    /// Paths that make the change strict.
    pub strict: Vec<String>,
    /// The project lets this agent's work land without any gate.
    pub ungated: bool,
    /// The gates that apply.
    pub gates: Vec<Applied>,
    /// Runs, oldest first.
    pub runs: Vec<Run>,
    /// Approvals, oldest first.
    pub approvals: Vec<Approved>,
    /// Gates that were overridden, oldest first.
    pub overrides: Vec<Overridden>,
    /// The least presence that counts.
    pub presence: PresencePolicy,
    /// Items that are open.
    pub items: Vec<ItemOpened>,
    /// Why git's own configuration is not trusted, if it is not.
    pub git_config: Option<String>,
    /// Why the files that say what was asked are not believed, if they are not.
    pub contract: Option<String>,
    /// Why the ledger is not believed, if it is not. Nothing sets this aside.
    pub ledger: Option<String>,
    /// Why there is nothing to land, if there is nothing.
    pub nothing: Option<String>,
}
