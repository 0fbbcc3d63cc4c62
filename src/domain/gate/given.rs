//! Whether what a person has decided counts for what shall land.

use super::situation::{Approved, Overridden, Proof, Situation, short, short_ref};
use crate::domain::authority::Deciding;
use crate::domain::receipt::{Actor, Scope};

/// Who it was, for people.
pub(super) fn who(actor: &Actor) -> String {
    format!("{} <{}>", actor.name, actor.email)
}

/// Whether a gate's override is about this, now, and as sure as the target asks.
pub(super) fn counts(seen: &Situation, used: &Overridden) -> bool {
    let scope = &used.gate.scope;
    let is_sure = used.presence >= seen.presence.minimum(Deciding::Override);
    is_sure && is_of(seen, scope) && scope.target == seen.subject.target && seen.now < scope.until
}

/// Whether a person's word is about what shall land. The same files with another history are another change.
fn is_of(seen: &Situation, scope: &Scope) -> bool {
    (&scope.head, &scope.tree) == (&seen.subject.head, &seen.subject.tree)
}

/// Why an approval does not count, if it does not.
pub(super) fn refuse(seen: &Situation, approved: &Approved) -> Option<String> {
    let (scope, by) = (&approved.given.scope, &approved.given.by.name);
    if let Proof::Broken(why) = &approved.proof {
        return Some(format!("the approval of {by} is not what its receipt says: {why}"));
    }
    if !is_of(seen, scope) {
        return Some(format!(
            "the approval of {by} is for {}, and {} shall land",
            short(&scope.head),
            short(&seen.subject.head)
        ));
    }
    if scope.target != seen.subject.target {
        return Some(format!("the approval of {by} is for {}", short_ref(&scope.target)));
    }
    if seen.now >= scope.until {
        return Some(format!("the approval of {by} has expired"));
    }
    let least = seen.presence.minimum(Deciding::Approve);
    let target = short_ref(&scope.target);
    (approved.presence < least).then(|| match approved.given.attestation.signed {
        Some(_) if approved.signer.is_none() => format!("the approval of {by} is not signed by anybody who may"),
        _ => format!(
            "the approval of {by} does not count ({}): {target} asks for presence {}",
            approved.presence.told(),
            least.word()
        ),
    })
}
