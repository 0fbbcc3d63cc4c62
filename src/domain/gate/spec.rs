//! One gate as the configuration has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::probe::Probe;
use super::{GateKind, Phase};
use crate::domain::glob::Glob;
use crate::domain::id::Name;
use crate::domain::span::{Size, Span};
use crate::domain::{Digest, Fault};

/// The longest command of a gate, in bytes: one argument ends at 128 KiB on Linux.
const MAX_COMMAND: usize = 64 << 10;
/// How many gates a project may have.
const MAX_GATES: usize = 100;
/// How often a command is tried again at most.
const MAX_RETRIES: u32 = 5;
/// Names that overrides use for something else.
const RESERVED: [&str; 5] = ["verdict", "strict", "items", "no-gate", "git-config"];

/// A gate. It has exactly one of `command`, `probe`, `review`, `human` and `ci`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// A command for `sh -c`, run in a clean checkout of the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What was built is started and checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// A model reviews the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
    /// A person approves the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<Human>,
    /// An external system has built this commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<Ci>,
    /// The gate blocks the merge; otherwise its result is only advice.
    pub required: bool,
    /// When the gate runs.
    pub phase: Phase,
    /// When the gate applies; empty: always.
    pub when: When,
    /// Gates that must have passed before this one runs.
    pub after: Vec<Name>,
    /// How long until the gate is stopped.
    pub timeout: Span,
    /// How often the gate is retried when it fails.
    pub retries: u32,
    /// How much of the gate's output is kept.
    pub output: Size,
    /// The gate gets the folders of `worktree.caches`. The branches under test write to them, so one branch can
    /// spoil another's result.
    pub caches: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            command: None,
            probe: None,
            review: None,
            human: None,
            ci: None,
            required: true,
            phase: Phase::PreMerge,
            when: When::default(),
            after: Vec::new(),
            timeout: Span(10 * 60_000),
            retries: 0,
            output: Size(1 << 20),
            caches: false,
        }
    }
}

/// When a gate applies. Every condition that is named must be met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// At least one changed path matches one of these.
    pub paths: Vec<String>,
    /// One of these agents did the work.
    pub agents: Vec<Name>,
    /// The dispatch belongs to one of these tracks.
    pub tracks: Vec<Name>,
    /// The agent's class is one of these.
    pub classes: Vec<Name>,
    /// Only strict changes, to which every gate applies.
    pub strict: bool,
}

/// A review by a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Review {
    /// The agent that reviews.
    pub agent: Name,
    /// The providers that must all pass the change; empty: the one that the agent or the project names.
    pub providers: Vec<Name>,
    /// The model, if there is only one provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model for each of several providers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<Name, String>,
    /// A larger change is not shown to a reviewer, and a change that is not shown whole is not reviewed.
    pub max_diff: Size,
}

impl Default for Review {
    fn default() -> Self {
        let agent = Name::try_from("code-reviewer".to_owned()).unwrap_or_else(|_| unreachable!("follows the id rule"));
        Self { agent, providers: Vec::new(), model: None, models: BTreeMap::new(), max_diff: Size(256 << 10) }
    }
}

/// A person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Human {
    /// How many people must approve.
    pub approvals: u32,
    /// Each approval must be signed with a key from `.vnx/allowed_signers`.
    pub signed: bool,
}

impl Default for Human {
    fn default() -> Self {
        Self { approvals: 1, signed: false }
    }
}

/// What an external system reports. It has exactly one of `file`, `command` and `forge`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Ci {
    /// A file that the system writes: `{"commit": "…", "status": "pass"}`. Relative to the main checkout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A command for `sh -c` that asks the system. It prints the same JSON on standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The name of a workflow, which vnx looks up through `gh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forge: Option<String>,
}

/// What a gate does, as one of its kinds.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    /// A command.
    Command(&'a str),
    /// A probe.
    Probe(&'a Probe),
    /// A review.
    Review(&'a Review),
    /// A person.
    Human(&'a Human),
    /// A system elsewhere.
    Ci(&'a Ci),
}

/// Whom and what a gate is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The changed paths.
    pub paths: &'a [String],
    /// The role that worked.
    pub agent: &'a Name,
    /// The track that it belongs to.
    pub track: Option<&'a Name>,
    /// The class of the work.
    pub class: Option<&'a Name>,
    /// It is held to everything.
    pub strict: bool,
}

impl When {
    /// Whether a gate applies.
    pub fn holds(&self, asked: Asked<'_>) -> bool {
        let one_of =
            |list: &[Name], what: Option<&Name>| list.is_empty() || what.is_some_and(|name| list.contains(name));
        let globs: Vec<Glob> = self.paths.iter().filter_map(|text| Glob::parse(text).ok()).collect();
        asked.strict
            || !self.strict
                && (globs.is_empty() || asked.paths.iter().any(|path| globs.iter().any(|glob| glob.matches(path))))
                && one_of(&self.agents, Some(asked.agent))
                && one_of(&self.tracks, asked.track)
                && one_of(&self.classes, asked.class)
    }
}

impl Gate {
    /// What it does. `None` for one that says nothing or more than one thing, which [`fault`] refuses.
    pub fn work(&self) -> Option<Work<'_>> {
        let all = [
            self.command.as_deref().map(Work::Command),
            self.probe.as_ref().map(Work::Probe),
            self.review.as_ref().map(Work::Review),
            self.human.as_ref().map(Work::Human),
            self.ci.as_ref().map(Work::Ci),
        ];
        let mut said = all.into_iter().flatten();
        said.next().filter(|_| said.next().is_none())
    }

    /// Its kind.
    pub fn kind(&self) -> GateKind {
        match self.work() {
            Some(Work::Command(_)) | None => GateKind::Command,
            Some(Work::Probe(_)) => GateKind::Probe,
            Some(Work::Review(_)) => GateKind::Review,
            Some(Work::Human(_)) => GateKind::Human,
            Some(Work::Ci(_)) => GateKind::Ci,
        }
    }

    /// The digest of everything that it says: an edit of it makes its results stale.
    pub fn digest(&self) -> Result<Digest, Fault> {
        let json = serde_json::to_vec(self).map_err(|e| Fault::internal(format!("a gate cannot be written: {e}")))?;
        Ok(Digest::of(&json))
    }

    fn fault(&self) -> Option<String> {
        let command = |key: &str, text: &str| match text {
            text if text.trim().is_empty() => Some(format!("`{key}` is empty")),
            text if text.len() > MAX_COMMAND => Some(format!("`{key}` is longer than 64 KiB")),
            text if text.contains('\0') => Some(format!("`{key}` holds a NUL byte")),
            _ => None,
        };
        let Some(work) = self.work() else {
            return Some("it needs exactly one of `command`, `probe`, `review`, `human` and `ci`".to_owned());
        };
        let own = match work {
            Work::Command(text) => command("command", text),
            Work::Probe(probe) => probe.fault().map(|why| format!("probe: {why}")),
            Work::Review(review) => review.fault(),
            Work::Human(Human { approvals: 0, .. }) => Some("human.approvals must be at least 1".to_owned()),
            Work::Human(_) if self.phase == Phase::PostMerge => {
                Some("a person approves before the merge, not while it happens".to_owned())
            }
            Work::Human(_) => None,
            Work::Ci(_) if self.phase == Phase::PostMerge => {
                Some("no system elsewhere has seen a tree that is only being merged".to_owned())
            }
            Work::Ci(ci) => {
                let said = [&ci.file, &ci.command, &ci.forge].into_iter().flatten().count();
                match ci {
                    _ if said != 1 => Some("ci needs exactly one of `file`, `command` and `forge`".to_owned()),
                    Ci { command: Some(text), .. } => command("ci.command", text),
                    Ci { forge: Some(name), .. } if name.trim().is_empty() || name.starts_with('-') => {
                        Some("ci.forge must name a workflow".to_owned())
                    }
                    _ => None,
                }
            }
        };
        if own.is_some() {
            return own;
        }
        if self.timeout == Span(0) {
            return Some("`timeout` must be longer than 0s".to_owned());
        }
        if self.retries > MAX_RETRIES {
            return Some(format!("`retries` must be at most {MAX_RETRIES}"));
        }
        self.when.paths.iter().find_map(|path| Some(format!("when.paths, {path:?}: {}", Glob::parse(path).err()?)))
    }
}

impl Review {
    fn fault(&self) -> Option<String> {
        let mut names = self.providers.clone();
        names.sort();
        names.dedup();
        if names.len() != self.providers.len() {
            return Some("review.providers names one twice; two reviewers are two providers".to_owned());
        }
        if self.providers.len() > 4 {
            return Some("review.providers has more than 4 entries".to_owned());
        }
        if let Some(name) = self.models.keys().find(|name| !self.providers.contains(name)) {
            return Some(format!("review.models names {name}, which is not among review.providers"));
        }
        (self.model.is_some() && self.providers.len() > 1)
            .then(|| "review.model is for one provider; name the others' in review.models".to_owned())
    }
}

/// What is wrong with the gates of a project, if anything is.
pub fn fault(gates: &BTreeMap<Name, Gate>) -> Option<String> {
    if gates.len() > MAX_GATES {
        return Some(format!("gates has more than {MAX_GATES} entries"));
    }
    gates.iter().find_map(|(name, gate)| {
        let wrong = |why: String| Some(format!("gates.{name}: {why}"));
        if RESERVED.contains(&name.as_str()) {
            return wrong("that name is taken; see `vnx gate override --help`".to_owned());
        }
        if let Some(why) = gate.fault() {
            return wrong(why);
        }
        if let Some(other) = gate.after.iter().find(|other| !gates.contains_key(*other)) {
            return wrong(format!("`after` names {other}, which is no gate"));
        }
        if leads_back(gates, name) {
            return wrong("`after` leads back to itself".to_owned());
        }
        let later = gate.after.iter().find(|other| gates[*other].phase != gate.phase);
        later.and_then(|other| wrong(format!("`after` names {other}, which runs in another phase")))
    })
}

/// Whether what must go before `name` leads back to it.
fn leads_back(gates: &BTreeMap<Name, Gate>, name: &Name) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![name]);
    while let Some(before) = next.pop().and_then(|name| gates.get(name)).map(|gate| &gate.after) {
        if before.contains(name) {
            return true;
        }
        next.extend(before.iter().filter(|other| seen.insert(*other)));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(yaml: &str) -> BTreeMap<Name, Gate> {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn what_a_gate_cannot_be_is_named() {
        for good in [
            "a: {command: 'true', retries: 5}",
            "a: {review: {providers: [a, b, c, d], models: {a: x}}}",
            "a: {review: {providers: [a], model: x}}",
            "a: {human: {approvals: 1}}",
            "a: {ci: {file: x}}",
            "a: {ci: {forge: build}}",
            "{a: {command: 'true'}, b: {command: 'true', after: [a]}, c: {command: 'true', after: [a, b]}}",
            "a: {command: 'true', phase: post_merge}",
        ] {
            assert_eq!(fault(&gates(good)), None, "{good}");
        }
        for (bad, what) in [
            ("a: {}", "gates.a: it needs exactly one of"),
            ("a: {command: 'true', human: {}}", "it needs exactly one of"),
            ("a: {command: ' '}", "`command` is empty"),
            ("a: {command: \"a\\0b\"}", "`command` holds a NUL byte"),
            ("a: {ci: {command: ' '}}", "`ci.command` is empty"),
            ("a: {probe: {checks: []}}", "probe: `checks` needs"),
            ("a: {human: {approvals: 0}}", "at least 1"),
            ("a: {human: {}, phase: post_merge}", "before the merge"),
            ("a: {ci: {file: x}, phase: post_merge}", "only being merged"),
            ("a: {ci: {}}", "ci needs exactly one of"),
            ("a: {ci: {file: x, forge: y}}", "ci needs exactly one of"),
            ("a: {ci: {forge: ' '}}", "must name a workflow"),
            ("a: {ci: {forge: -x}}", "must name a workflow"),
            ("a: {command: 'true', timeout: 0s}", "`timeout` must be longer"),
            ("a: {command: 'true', retries: 6}", "`retries` must be at most 5"),
            ("a: {command: 'true', when: {paths: ['src/**', '[']}}", "when.paths, \"[\""),
            ("a: {review: {providers: [a, b, a]}}", "names one twice"),
            ("a: {review: {providers: [a, b, c, d, e]}}", "more than 4"),
            ("a: {review: {providers: [a], models: {b: x}}}", "review.models names b"),
            ("a: {review: {providers: [a, b], model: x}}", "is for one provider"),
            ("strict: {command: 'true'}", "gates.strict: that name is taken"),
            ("a: {command: 'true', after: [b]}", "`after` names b, which is no gate"),
            ("a: {command: 'true', after: [a]}", "leads back"),
            (
                "{a: {command: 'true', after: [b]}, b: {command: 'true', after: [c]}, c: {command: 'true', after: [a]}}",
                "leads back",
            ),
            ("{a: {command: 'true', after: [b]}, b: {command: 'true', phase: post_merge}}", "runs in another phase"),
        ] {
            let fault = fault(&gates(bad)).unwrap_or_default();
            assert!(fault.contains(what), "{bad}: {fault}");
        }
        let mut many = BTreeMap::new();
        let command = |bytes: usize| Gate { command: Some("x".repeat(bytes)), ..Gate::default() };
        for n in 0..MAX_GATES {
            many.insert(Name::parse("gate", &format!("g{n}")).unwrap(), command(MAX_COMMAND));
        }
        assert_eq!(fault(&many), None, "at the limits");
        many.insert(Name::parse("gate", "more").unwrap(), command(1));
        assert!(fault(&many).unwrap().contains("more than 100 entries"));
        assert!(command(MAX_COMMAND + 1).fault().unwrap().contains("64 KiB"));
    }

    #[test]
    fn a_gate_is_of_one_kind() {
        let all = gates("{a: {command: x}, b: {probe: {checks: []}}, c: {review: {}}, d: {human: {}}, e: {ci: {}}}");
        let kinds = [GateKind::Command, GateKind::Probe, GateKind::Review, GateKind::Human, GateKind::Ci];
        assert_eq!(all.values().map(Gate::kind).collect::<Vec<_>>(), kinds);
        let digests: BTreeSet<String> = all.values().map(|gate| gate.digest().unwrap().to_string()).collect();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn everything_that_is_named_must_hold() {
        let name = |text: &str| Name::parse("name", text).unwrap();
        let (agent, track, class, paths) = (name("dev"), name("t"), name("c"), ["src/a.rs".to_owned(), "b".to_owned()]);
        let asked = Asked { paths: &paths, agent: &agent, track: Some(&track), class: Some(&class), strict: false };
        let when = |yaml: &str| -> When { serde_saphyr::from_str(yaml).unwrap() };
        for (yaml, holds) in [
            ("{}", true),
            ("paths: ['src/**']", true),
            ("paths: ['docs/**']", false),
            ("paths: ['docs/**', 'b']", true),
            ("agents: [other, dev]", true),
            ("agents: [other]", false),
            ("tracks: [t]", true),
            ("tracks: [u]", false),
            ("classes: [c]", true),
            ("classes: [d]", false),
            ("{paths: ['src/**'], agents: [dev], tracks: [t], classes: [c]}", true),
            ("{paths: ['src/**'], agents: [dev], tracks: [t], classes: [d]}", false),
            ("{paths: ['src/**'], agents: [dev], tracks: [u], classes: [c]}", false),
            ("{paths: ['docs/**'], agents: [dev], tracks: [t], classes: [c]}", false),
            ("strict: true", false),
        ] {
            assert_eq!(when(yaml).holds(asked), holds, "{yaml}");
            assert!(when(yaml).holds(Asked { strict: true, ..asked }), "{yaml}: what is strict is held to everything");
        }
        let nowhere = Asked { track: None, class: None, ..asked };
        assert!(!when("tracks: [t]").holds(nowhere) && !when("classes: [c]").holds(nowhere));
    }
}
