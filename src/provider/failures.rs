//! The failure table: structured fields in, an outcome out. Patterns are anchored, so an agent
//! that talks about a 401 or an "author" matches nothing.

use std::collections::BTreeMap;

use regex::Regex;

use crate::domain::Outcome;
use crate::domain::plan::FailureRule;

/// A compiled table.
#[derive(Debug, Default)]
pub(super) struct FailureTable {
    rules: Vec<(Outcome, Vec<(String, Regex)>)>,
}

impl FailureTable {
    /// Compiles the rules of a manifest.
    pub(super) fn compile(rules: &[FailureRule]) -> Result<Self, String> {
        let mut compiled = Vec::with_capacity(rules.len());
        for rule in rules {
            if rule.when.is_empty() {
                return Err(format!("a failure rule for {} has no condition", rule.outcome));
            }
            let mut fields = Vec::new();
            for (field, pattern) in &rule.when {
                let regex =
                    Regex::new(&format!("^(?:{pattern})")).map_err(|e| format!("failure pattern {pattern:?}: {e}"))?;
                fields.push((field.clone(), regex));
            }
            compiled.push((rule.outcome, fields));
        }
        Ok(Self { rules: compiled })
    }

    /// The outcome of the first rule whose every field matches.
    pub(super) fn classify(&self, fields: &BTreeMap<String, String>) -> Option<Outcome> {
        let hit = |rule: &&(Outcome, Vec<(String, Regex)>)| {
            rule.1.iter().all(|(field, regex)| fields.get(field).is_some_and(|value| regex.is_match(value)))
        };
        self.rules.iter().find(hit).map(|(outcome, _)| *outcome)
    }
}
