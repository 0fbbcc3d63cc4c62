//! What a repository brings that vnx would run, and what of it a person has accepted.
//!
//! Each thing has a digest of its own over exactly what would be run, so a change makes that thing new and no other,
//! and it does not matter in which file or commit it stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::gate::Gate;
use super::id::Name;
use super::setup::{Hooks, Moment};

/// One thing that would be run, or written to, because the repository says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Brought {
    /// Where it stands.
    pub file: String,
    /// What it is: `gate tests`, `provider x`.
    pub what: String,
    /// What would be run, as it is written.
    pub runs: String,
    /// Over what it is and what would be run.
    pub digest: Digest,
}

impl Brought {
    /// A command that stands in a file as it is run.
    pub fn command(file: &str, what: impl Into<String>, runs: &str) -> Self {
        Self::file(file, what, runs, runs.as_bytes())
    }

    /// Something of which `runs` is only what people are shown: all bytes count.
    pub fn file(file: &str, what: impl Into<String>, runs: &str, bytes: &[u8]) -> Self {
        let what = what.into();
        let digest = Digest::of(&[what.as_bytes(), b"\0", bytes].concat());
        Self { file: file.to_owned(), what, runs: runs.to_owned(), digest }
    }
}

/// The commands of hooks.
pub fn of_hooks(file: &str, hooks: &Hooks) -> Vec<Brought> {
    let of_moment = |moment: Moment| {
        hooks.at(moment).iter().map(move |hook| Brought::command(file, format!("hook {}", moment.word()), &hook.run))
    };
    Moment::ALL.into_iter().flat_map(of_moment).collect()
}

/// The commands of gates.
pub fn of_gates(file: &str, gates: &BTreeMap<Name, Gate>) -> Vec<Brought> {
    let mut all = Vec::new();
    for (name, gate) in gates {
        let probe = gate.probe.iter();
        let started = probe
            .clone()
            .flat_map(|probe| probe.start.iter().chain(probe.checks.iter().filter_map(|c| c.run.as_ref())));
        let asked = gate.ci.iter().filter_map(|ci| ci.command.as_ref());
        let commands = gate.command.iter().chain(started).chain(asked);
        all.extend(commands.map(|run| Brought::command(file, format!("gate {name}"), run)));
    }
    all
}

/// How a repository stands with this user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Standing {
    /// This user made the project out of a repository that brought nothing: whatever it says later is theirs.
    pub made_here: bool,
    /// What was accepted.
    pub accepted: Vec<Digest>,
}

impl Standing {
    /// Whether one thing may be run.
    pub fn covers(&self, one: &Brought) -> bool {
        self.made_here || self.accepted.contains(&one.digest)
    }

    /// What of this nobody has accepted.
    #[must_use]
    pub fn untrusted(&self, brought: Vec<Brought>) -> Vec<Brought> {
        brought.into_iter().filter(|one| !self.covers(one)).collect()
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.made_here |= other.made_here;
        self.accepted
            .extend(other.accepted.into_iter().filter(|digest| !self.accepted.contains(digest)).collect::<Vec<_>>());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gate::{Ci, Probe, ProbeCheck};
    use crate::domain::setup::Hook;
    use crate::domain::span::Span;

    #[test]
    fn everything_that_is_run_is_named_and_a_change_makes_it_new() {
        let hook = |run: &str| vec![Hook { run: run.into(), timeout: Span(1) }];
        let hooks = Hooks { post_create: hook("a"), pre_merge: hook("b"), pre_remove: hook("c") };
        let check = |run: Option<&str>, http: Option<&str>| ProbeCheck {
            run: run.map(str::to_owned),
            http: http.map(str::to_owned),
            ..ProbeCheck::default()
        };
        let checks = vec![check(Some("f"), None), check(None, Some("http://127.0.0.1/"))];
        let probe = Probe { start: Some("e".into()), checks, ..Probe::default() };
        let ci = Ci { command: Some("g".into()), ..Ci::default() };
        let gate = |command: Option<&str>| Gate { command: command.map(str::to_owned), ..Gate::default() };
        let name = |text: &str| Name::parse("gate", text).unwrap();
        let mut gates = BTreeMap::from([
            (name("d"), gate(Some("d"))),
            (name("e"), Gate { probe: Some(probe), ..gate(None) }),
            (name("g"), Gate { ci: Some(ci), ..gate(None) }),
            (name("h"), gate(None)),
        ]);
        let all = |gates: &BTreeMap<Name, Gate>| [of_hooks("config", &hooks), of_gates("config", gates)].concat();
        let brought = all(&gates);
        assert_eq!(brought.iter().map(|b| b.runs.as_str()).collect::<String>(), "abcdefg");
        let accepted = Standing { made_here: false, accepted: brought.iter().map(|b| b.digest).collect() };
        assert_eq!(accepted.untrusted(brought.clone()), []);
        // What it says beside what is run, and the file that it stands in, may change.
        gates.get_mut(&name("d")).unwrap().required = false;
        assert_eq!(accepted.untrusted(all(&gates)), []);
        gates.get_mut(&name("d")).unwrap().command = Some("d; rm x".into());
        let new = accepted.untrusted(all(&gates));
        assert_eq!(new.iter().map(|b| b.what.as_str()).collect::<Vec<_>>(), ["gate d"]);
        // The same command as something else is something else.
        let elsewhere = Brought::command("config", "hook post_create", "d");
        assert!(!accepted.covers(&elsewhere) && Standing { made_here: true, ..Standing::default() }.covers(&elsewhere));
    }
}
