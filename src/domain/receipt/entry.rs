//! What is handed to the ledger, and the key that tells it from everything else there.

use std::borrow::Cow;

use super::Checked;
use super::{Body, DispatchClosed, Kind, LedgerOpened, LedgerSealed, OverrideUsed};
use crate::domain::DispatchId;

/// What a writer hands to the ledger: a payload and, for dispatch receipts, whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The dispatch, if the receipt belongs to one.
    pub dispatch: Option<DispatchId>,
    /// The attempt, starting at 1.
    pub attempt: u32,
    /// The payload.
    pub body: Body,
}

impl Entry {
    /// A receipt of the ledger itself.
    pub fn ledger(body: Body) -> Self {
        Self { dispatch: None, attempt: 1, body }
    }
    /// A receipt of what is done to a closed dispatch's worktree for the `round`th time.
    pub fn again(dispatch: &DispatchId, round: u32, body: Body) -> Self {
        Self { dispatch: Some(dispatch.clone()), attempt: round, body }
    }
    /// A receipt of the first attempt of a dispatch.
    pub fn of(dispatch: &DispatchId, body: Body) -> Self {
        Self { dispatch: Some(dispatch.clone()), attempt: 1, body }
    }
    /// The idempotency key: `<dispatch>/<kind>/<attempt>`, with the constraint for overrides and the name for hooks.
    pub fn key(&self) -> String {
        self.body.key(self.dispatch.as_ref().map(DispatchId::as_str), self.attempt)
    }
}

impl Body {
    /// Reads a payload as [`Body::from_json`] does. The largest kind is only checked: nothing of it
    /// matters to a verification, and most of a ledger is of it.
    pub fn checked(kind: Kind, json: &str) -> Result<Option<Self>, serde_json::Error> {
        match kind {
            Kind::DispatchClosed => serde_json::from_str::<DispatchClosed<Checked>>(json).map(|_| None),
            _ => Self::from_json(kind, json).map(Some),
        }
    }
    /// The key of a receipt with this payload.
    fn key(&self, dispatch: Option<&str>, attempt: u32) -> String {
        let (owner, kind) = (dispatch.unwrap_or("ledger"), self.kind().word());
        match self {
            Self::OverrideUsed(OverrideUsed { gate: Some(gate), constraint, .. }) => {
                format!("{owner}/{kind}/{attempt}/{constraint}/{}", gate.nonce)
            }
            Self::OverrideUsed(o) => format!("{owner}/{kind}/{attempt}/{}", o.constraint),
            Self::WorktreeHook(h) => format!("{owner}/{kind}/{attempt}/{}", h.hook),
            Self::LedgerImported(i) => format!("{owner}/{kind}/{attempt}/{}", i.sha256),
            Self::AnchorWritten(a) => format!("{owner}/{kind}/{attempt}/{}", a.size),
            Self::LedgerSealed(LedgerSealed { segment, .. }) | Self::LedgerOpened(LedgerOpened { segment, .. }) => {
                format!("{owner}/{kind}/{attempt}/{segment}")
            }
            _ => match self.name() {
                Some(name) => format!("{owner}/{kind}/{attempt}/{name}"),
                None => format!("{owner}/{kind}/{attempt}"),
            },
        }
    }
    /// What tells payloads of the same kind apart, from done to landed.
    fn name(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::GateRequested(g) => g.binding.nonce.as_str().into(),
            Self::GateResulted(g) => g.nonce.as_str().into(),
            Self::ApprovalGiven(a) => a.nonce.as_str().into(),
            Self::ItemOpened(i) => format!("{}/{}", i.item, i.round).into(),
            Self::ItemClosed(i) => format!("{}/{}", i.item, i.round).into(),
            Self::StageProposed(s) => s.proposal.as_str().into(),
            Self::StagePromoted(s) => s.proposal.as_str().into(),
            Self::MergeStarted(m) => m.nonce.as_str().into(),
            Self::MergeLanded(m) => m.nonce.as_str().into(),
            Self::MergeRefused(m) => m.nonce.as_str().into(),
            _ => return None,
        })
    }
    /// Whether `key` is the key of a receipt with this payload; makes no text in the usual case.
    pub fn has_key(&self, dispatch: Option<&str>, attempt: u32, key: &str) -> bool {
        let named = matches!(self, Self::OverrideUsed(_) | Self::WorktreeHook(_)) || self.name().is_some();
        let plain = self.kind().is_of_dispatch() && !named;
        if plain { self.kind().has_key(dispatch, attempt, key) } else { self.key(dispatch, attempt) == key }
    }
}

impl Kind {
    /// Whether `key` is the key of a receipt of this kind, where the payload adds nothing to it.
    pub fn has_key(self, dispatch: Option<&str>, attempt: u32, key: &str) -> bool {
        let rest = key.strip_prefix(dispatch.unwrap_or("ledger")).and_then(|k| k.strip_prefix('/'));
        let rest = rest.and_then(|k| k.strip_prefix(self.word())).and_then(|k| k.strip_prefix('/'));
        rest.is_some_and(|rest| if attempt == 1 { rest == "1" } else { rest == attempt.to_string() })
    }
}
