//! What a person signs: a text that says all of what a receipt of theirs decides. Whoever checks it makes it anew from the
//! receipt, so that a signature can never be shown for something else.

use std::fmt::Write;

use super::{Actor, ApprovalGiven, ItemClosed, OverrideUsed, RescueDropped, Scope, StagePromoted};
use crate::domain::{DispatchId, Name};

struct Statement(String);

impl Statement {
    fn new(kind: &str, dispatch: &DispatchId) -> Self {
        Self(format!("vnx.{kind}/1\ndispatch {dispatch}\n"))
    }

    fn line(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{key} {value}");
        self
    }

    fn scope(self, scope: &Scope) -> Self {
        let Scope { target, head, tree, until } = scope;
        self.line("target", target).line("head", head).line("tree", tree).line("until", until)
    }

    /// Last, because a reason may have any form.
    fn by(self, by: &Actor, reason: &str) -> String {
        self.line("by", format_args!("{} <{}>", by.name, by.email)).line("reason", reason).0
    }
}

impl ApprovalGiven {
    /// What is signed.
    pub fn statement(&self, dispatch: &DispatchId) -> String {
        let settles = self.settles.iter().map(Name::as_str).chain(self.run.as_deref()).collect::<Vec<_>>().join(" ");
        let settles = if settles.is_empty() { "-" } else { &settles };
        let text = Statement::new("approval", dispatch).scope(&self.scope).line("settles", settles);
        text.line("nonce", &self.nonce).by(&self.by, &self.reason)
    }
}

impl OverrideUsed {
    /// What is signed. A constraint is set aside at the door, by whoever opens the dispatch.
    pub fn statement(&self, dispatch: &DispatchId) -> Option<String> {
        let gate = self.gate.as_ref()?;
        let text = Statement::new("override", dispatch).line("gate", &self.constraint).scope(&gate.scope);
        Some(text.line("nonce", &gate.nonce).by(&gate.by, &self.reason))
    }
}

impl ItemClosed {
    /// What is signed; nobody signs what a gate closes.
    pub fn statement(&self, dispatch: &DispatchId) -> Option<String> {
        let text = Statement::new("item", dispatch).line("item", &self.item).line("round", self.round);
        Some(text.by(self.by.as_ref()?, &self.reason))
    }
}

impl StagePromoted {
    /// What is signed.
    pub fn statement(&self) -> String {
        let text = Statement::new("promotion", &self.proposal).line("request", self.request);
        text.by(&self.by, self.reason.as_deref().unwrap_or("-"))
    }
}

impl RescueDropped {
    /// What is signed.
    pub fn statement(&self, dispatch: &DispatchId) -> String {
        Statement::new("drop", dispatch).line("commit", &self.commit).by(&self.by, "-")
    }
}
