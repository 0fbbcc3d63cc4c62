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
            Self::RescueDropped(r) => r.commit.as_str().into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::domain::authority::Presence;
    use crate::domain::gate::{Binding, GateKind, GateStatus, Phase};
    use crate::domain::receipt::{
        Actor, AnchorWritten, ApprovalGiven, Attestation, Destination, GateOverride, GateRequested, GateResulted,
        ItemClosed, ItemOpened, ItemSource, MergeLanded, MergeRefused, MergeStarted, RescueDropped, Scope,
        StagePromoted, StageProposed, Strategy, WorktreeHook,
    };
    use crate::domain::verdict::{Containment, End};
    use crate::domain::{Digest, Name, Timestamp};

    fn is_keyed<const N: usize>(id: &DispatchId, entries: [(Entry, &str); N]) {
        for (entry, key) in entries {
            let key = key.replace("ID", id.as_str());
            assert_eq!(entry.key(), key);
            let owner = entry.dispatch.as_ref().map(DispatchId::as_str);
            assert!(entry.body.has_key(owner, entry.attempt, &key), "{key}");
            assert!(!entry.body.has_key(owner, entry.attempt + 1, &key) && !entry.body.has_key(Some("x"), 1, &key));
            assert!(!entry.body.has_key(owner, entry.attempt, &format!("{key}0")), "{key}");
            let short = key.rsplit_once('/').unwrap().0;
            assert!(!entry.body.has_key(owner, entry.attempt, short), "{key}: not without what tells it apart");
        }
    }

    #[test]
    fn what_is_asked_and_answered_in_several_receipts_has_one_name_in_all() {
        let id = DispatchId::parse("20261121-010203-a-b").unwrap();
        let name = |text: &str| Name::parse("name", text).unwrap();
        let by = || Actor { name: "Ada".into(), email: "a@x".into() };
        let scope = Scope { target: "t".into(), head: "h".into(), tree: "t".into(), until: Timestamp::EPOCH };
        let approved = ApprovalGiven {
            by: by(),
            reason: "r".into(),
            scope,
            settles: None,
            run: None,
            nonce: "n4".into(),
            attestation: Attestation { presence: Presence::Tty, signed: None },
        };
        let (nonce, target, base) = ("n5".to_owned(), "t".to_owned(), "b".to_owned());
        let started = MergeStarted {
            nonce: nonce.clone(),
            strategy: Strategy::Merge,
            target: target.clone(),
            base: base.clone(),
            head: "h".into(),
            size: 1,
            root: Digest::ZERO,
        };
        let landed =
            MergeLanded { nonce: nonce.clone(), commit: "c".into(), tree: "t".into(), recovered: false, behind: None };
        let binding = Binding {
            gate: name("g"),
            contract: Digest::ZERO,
            config: Digest::ZERO,
            target,
            base,
            head: "h".into(),
            tree: "t".into(),
            nonce,
        };
        let requested = GateRequested { binding, kind: GateKind::Command, phase: Phase::PreMerge };
        let proposed = StageProposed { proposal: id.clone(), request: Digest::ZERO, agent: name("a"), from: None };
        is_keyed(
            &id,
            [
                (Entry::of(&id, Body::GateRequested(requested)), "ID/gate.requested/1/n5"),
                (Entry::of(&id, Body::ApprovalGiven(approved)), "ID/approval.given/1/n4"),
                (Entry::of(&id, Body::MergeStarted(started)), "ID/merge.started/1/n5"),
                (Entry::of(&id, Body::MergeLanded(landed)), "ID/merge.landed/1/n5"),
                (Entry::ledger(Body::StageProposed(proposed)), "ledger/stage.proposed/1/ID"),
            ],
        );
    }

    #[test]
    fn a_key_tells_a_receipt_from_every_other_one() {
        let id = DispatchId::parse("20261121-010203-a-b").unwrap();
        let name = |text: &str| Name::parse("name", text).unwrap();
        let by = || Actor { name: "Ada".into(), email: "a@x".into() };
        let scope = Scope { target: "t".into(), head: "h".into(), tree: "t".into(), until: Timestamp::EPOCH };
        let gate = Some(GateOverride { by: by(), scope, nonce: "n1".into() });
        let attestation = || Attestation { presence: Presence::Tty, signed: None };
        let overridden = |gate| OverrideUsed { constraint: name("c"), reason: "r".into(), gate, attestation: None };
        let hook = WorktreeHook {
            hook: "post_create-1".into(),
            end: End::Idle,
            containment: Containment::default(),
            took_ms: 1,
            said: None,
        };
        let said = GateResulted {
            gate: name("g"),
            nonce: "n2".into(),
            status: GateStatus::Pass,
            reason: String::new(),
            report: None,
            result: None,
            tries: 1,
            took_ms: 1,
            tests: None,
            usage: None,
        };
        let opened = ItemOpened {
            item: name("i"),
            source: ItemSource::Person,
            gate: None,
            destination: Destination::Merge,
            claim: "c".into(),
            file: None,
            line: None,
            round: 3,
        };
        let (proposal, request) = (id.clone(), Digest::ZERO);
        let promoted = StagePromoted { proposal, request, by: by(), reason: None, attestation: attestation() };
        let dropped = RescueDropped { commit: "abc".into(), by: by(), attestation: attestation() };
        let sealed = LedgerSealed { segment: 2, size: 9, root: Digest::ZERO };
        let next = LedgerOpened { segment: 3, bytes: 1, sha256: Digest::ZERO, nodes: Vec::new() };
        let anchor = AnchorWritten { size: 7, root: Digest::ZERO, commit: "c".into(), signed: false };
        is_keyed(
            &id,
            [
                (Entry::of(&id, Body::OverrideUsed(overridden(None))), "ID/override.used/1/c"),
                (Entry::of(&id, Body::OverrideUsed(overridden(gate))), "ID/override.used/1/c/n1"),
                (Entry::again(&id, 2, Body::WorktreeHook(hook)), "ID/worktree.hook/2/post_create-1"),
                (Entry::of(&id, Body::GateResulted(said)), "ID/gate.resulted/1/n2"),
                (Entry::of(&id, Body::ItemOpened(opened)), "ID/item.opened/1/i/3"),
                (
                    Entry::of(
                        &id,
                        Body::ItemClosed(ItemClosed {
                            item: name("i"),
                            round: 3,
                            reason: "r".into(),
                            by: None,
                            attestation: None,
                        }),
                    ),
                    "ID/item.closed/1/i/3",
                ),
                (Entry::of(&id, Body::RescueDropped(dropped)), "ID/rescue.dropped/1/abc"),
                (
                    Entry::of(&id, Body::MergeRefused(MergeRefused { nonce: "n3".into(), reason: "r".into() })),
                    "ID/merge.refused/1/n3",
                ),
                (Entry::ledger(Body::StagePromoted(promoted)), "ledger/stage.promoted/1/ID"),
                (Entry::ledger(Body::LedgerSealed(sealed)), "ledger/ledger.sealed/1/2"),
                (Entry::ledger(Body::LedgerOpened(next)), "ledger/ledger.opened/1/3"),
                (Entry::ledger(Body::AnchorWritten(anchor)), "ledger/anchor.written/1/7"),
            ],
        );
    }

    /// What a verification only looks at is held to the same form.
    #[test]
    fn the_largest_payload_is_checked_as_it_would_be_read() {
        let text = include_str!("../../../receipts/golden/sound.ndjson");
        let line = text.lines().find(|line| line.contains("\"dispatch.closed\"")).unwrap();
        let json = serde_json::from_str::<serde_json::Value>(line).unwrap()["data"].to_string();
        assert_eq!(Body::checked(Kind::DispatchClosed, &json).unwrap(), None);
        for (from, to) in
            [("\"branch\":\"", "\"branch\":7,\"x\":\""), ("\"branch\":\"", "\"bench\":\""), ("{", "{\"more\":1,")]
        {
            let bad = json.replacen(from, to, 1);
            assert!(bad != json && Body::checked(Kind::DispatchClosed, &bad).is_err(), "{bad}");
            assert!(Body::from_json(Kind::DispatchClosed, &bad).is_err());
        }
        let number = regex::Regex::new("\"branch\":\"[^\"]*\"").unwrap().replace(&json, "\"branch\":7").into_owned();
        assert!(Body::checked(Kind::DispatchClosed, &number).unwrap_err().to_string().contains("expected a text"));
        let other = json!({"took_ms": 1, "head": "h", "prompt": Digest::ZERO}).to_string();
        assert!(matches!(Body::checked(Kind::DispatchPrepared, &other), Ok(Some(Body::DispatchPrepared(_)))));
    }

    #[test]
    fn a_plain_key_is_owner_kind_and_attempt() {
        let kind = Kind::DispatchStarted;
        assert!(
            kind.has_key(Some("d"), 1, "d/dispatch.started/1") && kind.has_key(Some("d"), 12, "d/dispatch.started/12")
        );
        assert!(Kind::LedgerCreated.has_key(None, 1, "ledger/ledger.created/1"));
        for (owner, attempt, key) in [
            (Some("d"), 1, "d/dispatch.started/01"),
            (Some("d"), 1, "d/dispatch.started/2"),
            (Some("d"), 2, "d/dispatch.started/1"),
            (Some("d"), 1, "d/dispatch.started/"),
            (Some("d"), 1, "d/dispatch.started1"),
            (Some("d"), 1, "d/dispatch.exited/1"),
            (Some("d"), 1, "ddispatch.started/1"),
            (Some("e"), 1, "d/dispatch.started/1"),
            (None, 1, "d/dispatch.started/1"),
        ] {
            assert!(!kind.has_key(owner, attempt, key), "{key}");
        }
    }
}
