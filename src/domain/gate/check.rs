//! `check`: from everything that is known of a dispatch to GO or HOLD. Pure and total.
//!
//! What is not proven holds. Every reason says what it is about and how it is cleared.

use std::collections::BTreeMap;

use serde::Serialize;

use super::given::{counts, refuse, who};
pub use super::situation::{Applied, Approved, Overridden, Proof, Run, Situation, Subject, short, short_ref};
use super::spec::{Human, Work};
use super::{Binding, GateKind, GateStatus, Phase};
use crate::domain::authority::{Deciding, Presence};
use crate::domain::outcome::Decision;
use crate::domain::receipt::ItemOpened;
use crate::domain::verdict::HeldBy;
use crate::domain::{DispatchId, Name, Timestamp};

/// Why it is held: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The ledger is not what it should be.
    Ledger,
    /// Request, plan or prompt are not what was claimed.
    Contract,
    /// The dispatch is not closed.
    Running,
    /// There is nothing to land.
    Nothing,
    /// The verdict is not `accept`.
    Verdict,
    /// git's configuration changed since the dispatch.
    GitConfig,
    /// No required gate applies.
    NoGate,
    /// A gate has no result.
    Missing,
    /// A gate's result is about something else.
    Stale,
    /// A gate is being run.
    GateRunning,
    /// A gate said no.
    Failed,
    /// A gate said nothing that counts.
    Unverified,
    /// A gate's files are not what its receipt says.
    Evidence,
    /// Nobody has approved it, or not enough, or not in time.
    Approval,
    /// An item holds it.
    Item,
    /// The last merge of just this ran into a conflict.
    Conflict,
}

/// One reason to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Which of the closed set.
    pub code: Code,
    /// The gate, or what an override would have to name.
    pub about: String,
    /// What holds, in one line.
    pub what: String,
    /// How it is cleared.
    pub clear: String,
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It said yes to exactly this.
    Pass,
    /// It said no.
    Fail,
    /// It said nothing that counts.
    Unverified,
    /// What it said is about something else.
    Stale,
    /// It was not asked.
    Missing,
    /// It is being asked.
    Running,
    /// Its evidence is not what it was.
    Broken,
    /// Somebody set it aside.
    SetAside,
    /// It runs while it is merged.
    AtMerge,
}

impl Standing {
    /// The word used on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unverified => "unverified",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Running => "running",
            Self::Broken => "broken",
            Self::SetAside => "set aside",
            Self::AtMerge => "at merge",
        }
    }
    fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::SetAside | Self::AtMerge)
    }
}

/// One gate in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GateRow {
    /// Its name.
    pub gate: Name,
    /// What it is.
    pub kind: GateKind,
    /// It holds the merge.
    pub required: bool,
    /// How it stands.
    pub standing: Standing,
    /// Why, in one line.
    pub reason: String,
    /// Cost of its reviewers in millionths of a US dollar, all runs for this dispatch together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

/// A word of a person that counts now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Who.
    pub by: String,
    /// For what: a gate's name, or what else was set aside; `approval`.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
    /// How surely.
    pub presence: Presence,
}

/// GO or HOLD, with everything that led there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GateCheck {
    /// Format of this answer.
    pub schema: &'static str,
    /// The dispatch.
    pub dispatch: DispatchId,
    /// It may land.
    pub go: bool,
    /// What shall land, and where.
    pub subject: Subject,
    /// Paths that make the change strict.
    pub strict: Vec<String>,
    /// Why it is held.
    pub reasons: Vec<Reason>,
    /// The gates that apply.
    pub gates: Vec<GateRow>,
    /// What was set aside, by whom.
    pub overrides: Vec<Word>,
    /// Who approved.
    pub approvals: Vec<Word>,
    /// Items that are open; those for the merge hold it.
    pub items: Vec<ItemOpened>,
}

impl GateCheck {
    /// One more reason to hold.
    pub fn hold(&mut self, code: Code, about: &str, what: impl Into<String>, clear: impl Into<String>) {
        self.go = false;
        self.reasons.push(Reason { code, about: about.to_owned(), what: what.into(), clear: clear.into() });
    }

    /// Required gates that do not stand well, for the verdict. A person's word is no evidence, and is not among them.
    pub fn held_by(&self) -> Vec<HeldBy> {
        // One that waits for another is no reason beside that one.
        let has_spoken = |row: &&GateRow| matches!(row.standing, Standing::Fail | Standing::Unverified);
        let any_has = self.gates.iter().filter(|row| row.required).any(|row| has_spoken(&row));
        let counts = |row: &&GateRow| row.required && !row.standing.is_good() && row.kind != GateKind::Human;
        let held = self.gates.iter().filter(counts).filter(|row| !any_has || has_spoken(row));
        held.map(|row| HeldBy {
            gate: row.gate.clone(),
            is_probe: row.kind == GateKind::Probe,
            reason: row.reason.clone(),
        })
        .collect()
    }

    /// Only a person's word is missing.
    pub fn waits_for_a_person(&self) -> bool {
        !self.go && self.reasons.iter().all(|r| r.code == Code::Approval)
    }
}

/// Decides.
pub fn check(seen: &Situation) -> GateCheck {
    let mut holds = Holds { seen, reasons: Vec::new() };
    holds.ground();
    let gates: Vec<GateRow> = seen.gates.iter().map(|applied| holds.gate(applied)).collect();
    holds.persons();
    holds.items();
    if seen.nothing.is_some() {
        // What gates and persons would have to say is of no use to anybody.
        use Code::{Contract, GitConfig, Ledger, Nothing, Running, Verdict};
        holds.reasons.retain(|r| matches!(r.code, Ledger | Contract | Running | Nothing | Verdict | GitConfig));
    }
    let overrides = seen.overrides.iter().filter(|used| counts(seen, used)).map(|used| Word {
        by: who(&used.gate.by),
        scope: used.about.to_string(),
        reason: used.reason.clone(),
        until: used.gate.scope.until,
        presence: used.presence,
    });
    let approvals = seen.approvals.iter().filter(|a| refuse(seen, a).is_none()).map(|a| Word {
        by: who(&a.given.by),
        scope: a.given.settles.as_ref().map_or("approval", Name::as_str).to_owned(),
        reason: a.given.reason.clone(),
        until: a.given.scope.until,
        presence: a.presence,
    });
    GateCheck {
        schema: "vnx.gate-check/1",
        dispatch: seen.dispatch.clone(),
        subject: seen.subject.clone(),
        strict: seen.strict.clone(),
        overrides: overrides.collect(),
        approvals: approvals.collect(),
        items: seen.items.clone(),
        go: holds.reasons.is_empty(),
        reasons: holds.reasons,
        gates,
    }
}

impl Situation {
    /// The run in which a gate's reviewers disagree about just this.
    pub fn split(&self, gate: &Name) -> Option<&Run> {
        let applied = self.gates.iter().find(|applied| applied.name == *gate)?;
        last_run(self, applied).filter(|run| run.split && !run.is_cancelled())
    }
}

/// The last run of a gate before a merge that was asked about just this. One that was cancelled takes nothing back of
/// what was said before it.
fn last_run<'a>(seen: &'a Situation, applied: &Applied) -> Option<&'a Run> {
    let of_gate = |run: &&Run| run.binding.gate == applied.name && run.phase == Phase::PreMerge;
    let about_this = |run: &&Run| differences(seen, applied, &run.binding).is_empty();
    let all = || seen.runs.iter().rev().filter(of_gate).filter(about_this);
    all().find(|run| !run.is_cancelled()).or_else(|| all().next())
}

struct Holds<'a> {
    seen: &'a Situation,
    reasons: Vec<Reason>,
}

impl Holds<'_> {
    fn hold(&mut self, code: Code, about: &str, what: impl Into<String>, clear: impl Into<String>) {
        self.reasons.push(Reason { code, about: about.to_owned(), what: what.into(), clear: clear.into() });
    }

    fn is_set_aside(&self, about: &str) -> bool {
        let seen = self.seen;
        seen.overrides.iter().any(|used| used.about.as_str() == about && counts(seen, used))
    }

    /// What comes before any gate.
    fn ground(&mut self) {
        let (seen, id) = (self.seen, &self.seen.dispatch);
        let set_aside = |about: &str| format!("look at it; then `vnx gate override {id} {about} --reason WHY`");
        if let Some(why) = &seen.ledger {
            self.hold(Code::Ledger, "ledger", why.as_str(), "run `vnx audit-chain verify`; nothing sets this aside");
        }
        if let Some(why) = &seen.contract {
            self.hold(Code::Contract, "contract", why.as_str(), "dispatch it again; nothing sets this aside");
        }
        if let Some(why) = &seen.nothing {
            self.hold(Code::Nothing, "branch", why.as_str(), format!("see `vnx show {id}`"));
        }
        match &seen.verdict {
            None => self.hold(Code::Running, "dispatch", "it is not closed", format!("`vnx wait {id}`")),
            Some(verdict) if verdict.decision != Decision::Accept && !self.is_set_aside("verdict") => {
                let what = format!("the verdict is {}, {}: {}", verdict.decision, verdict.outcome, verdict.reason);
                self.hold(Code::Verdict, "verdict", what, set_aside("verdict"));
            }
            Some(_) => {}
        }
        if let Some(why) = seen.unjudged.as_ref().filter(|_| !self.is_set_aside("verdict")) {
            self.hold(Code::Verdict, "verdict", why.as_str(), set_aside("verdict"));
        }
        if let Some(why) = seen.git_config.as_ref().filter(|_| !self.is_set_aside("git-config")) {
            self.hold(Code::GitConfig, "git-config", why.as_str(), set_aside("git-config"));
        }
        let required = seen.gates.iter().any(|applied| applied.required);
        if !required && !seen.ungated && !self.is_set_aside("no-gate") {
            let clear =
                "commit one on the target, under `gates` in .vnx/config.yaml, or name the agent in merge.ungated there";
            self.hold(Code::NoGate, "no-gate", "no required gate applies to it", clear);
        }
    }

    /// How a gate stands; one that is required and does not stand well holds.
    fn gate(&mut self, applied: &Applied) -> GateRow {
        let seen = self.seen;
        let costs = seen.runs.iter().filter(|run| run.binding.gate == applied.name);
        let cost = costs.filter_map(|run| run.result.as_ref()?.usage.as_ref()?.cost_micro_usd);
        let cost = cost.fold(None, |sum: Option<u64>, more| Some(sum.unwrap_or(0).saturating_add(more)));
        let (standing, code, reason, clear) = if self.is_set_aside(applied.name.as_str()) {
            (Standing::SetAside, Code::Missing, "set aside".to_owned(), String::new())
        } else if applied.gate.phase == Phase::PostMerge {
            (Standing::AtMerge, Code::Missing, "runs on what the target becomes".to_owned(), String::new())
        } else if let Some(Work::Human(human)) = applied.gate.work() {
            self.approved(human)
        } else {
            self.ran(applied)
        };
        if applied.required && !standing.is_good() {
            self.hold(code, applied.name.as_str(), format!("gate {}: {reason}", applied.name), clear);
        }
        GateRow {
            gate: applied.name.clone(),
            kind: applied.gate.kind(),
            required: applied.required,
            standing,
            reason,
            cost_micro_usd: cost,
        }
    }

    fn ran(&self, applied: &Applied) -> (Standing, Code, String, String) {
        let (seen, id, name) = (self.seen, &self.seen.dispatch, &applied.name);
        let again = format!("`vnx gate run {id} {name}`");
        let of_gate = || seen.runs.iter().rev().filter(|run| run.binding.gate == *name && run.phase == Phase::PreMerge);
        let Some(run) = last_run(seen, applied) else {
            let Some(last) = of_gate().next() else {
                return (Standing::Missing, Code::Missing, "it was not run".to_owned(), again);
            };
            let why = differences(seen, applied, &last.binding).join("; ");
            return (Standing::Stale, Code::Stale, format!("its result is stale: {why}"), again);
        };
        if let Proof::Broken(why) = &run.proof {
            return (Standing::Broken, Code::Evidence, format!("its result does not count: {why}"), again);
        }
        match &run.result {
            None if run.live => {
                (Standing::Running, Code::GateRunning, "it is running".to_owned(), format!("wait, or {again}"))
            }
            None => (Standing::Missing, Code::Missing, "it has no result".to_owned(), again),
            Some(result) => match result.status {
                GateStatus::Pass => (Standing::Pass, Code::Failed, result.reason.clone(), String::new()),
                GateStatus::Fail => {
                    let clear = format!(
                        "`vnx gate show {id} {name}` says why; `vnx undo {id}`, correct it in that worktree and commit, then {again}"
                    );
                    (Standing::Fail, Code::Failed, result.reason.clone(), clear)
                }
                _ if run.is_cancelled() => (Standing::Missing, Code::Missing, "it was cancelled".to_owned(), again),
                GateStatus::Unverified => self.settled(applied, run).unwrap_or_else(|| {
                    let next = if run.split { format!("`vnx approve {id} --gate {name} --reason WHY`") } else { again };
                    let clear = format!(
                        "read `vnx gate show {id} {name}`, then {next}, or `vnx gate override {id} {name} --reason WHY`"
                    );
                    (Standing::Unverified, Code::Unverified, result.reason.clone(), clear)
                }),
            },
        }
    }

    /// A review whose reviewers disagree is a person's to decide.
    fn settled(&self, applied: &Applied, run: &Run) -> Option<(Standing, Code, String, String)> {
        let (seen, name) = (self.seen, &applied.name);
        applied.gate.review.as_ref().filter(|_| run.split)?;
        let about = (Some(name), Some(&run.binding.nonce));
        let settles = |a: &&Approved| (a.given.settles.as_ref(), a.given.run.as_ref()) == about;
        let by = seen.approvals.iter().filter(settles).find(|a| refuse(seen, a).is_none())?;
        Some((
            Standing::Pass,
            Code::Unverified,
            format!("settled by {} ({})", who(&by.given.by), by.presence.told()),
            String::new(),
        ))
    }

    fn approved(&self, human: &Human) -> (Standing, Code, String, String) {
        let (seen, id) = (self.seen, &self.seen.dispatch);
        let good: BTreeMap<String, Presence> = seen
            .approvals
            .iter()
            // One that settles a review says nothing of the rest.
            .filter(|a| a.given.settles.is_none())
            .filter(|a| refuse(seen, a).is_none() && (!human.signed || a.signer.is_some()))
            // A person is a key where keys count, and an address where they do not.
            .map(|a| {
                let email = || a.given.by.email.to_lowercase();
                (a.signer.clone().filter(|_| human.signed).unwrap_or_else(email), a.presence)
            })
            .collect();
        let want = human.approvals as usize;
        if good.len() >= want {
            let told = |(name, presence): (String, Presence)| format!("{name} ({})", presence.told());
            let names = good.into_iter().map(told).collect::<Vec<_>>().join(", ");
            return (Standing::Pass, Code::Approval, format!("approved by {names}"), String::new());
        }
        let signed = human.signed || seen.presence.minimum(Deciding::Approve) >= Presence::Key;
        let sign = if signed { " --sign" } else { "" };
        let why = seen.approvals.iter().rev().find_map(|a| refuse(seen, a));
        let unsigned =
            || human.signed && seen.approvals.iter().any(|a| refuse(seen, a).is_none() && a.signer.is_none());
        let why = why.or_else(|| unsigned().then(|| "the approval is not signed by anybody who may".to_owned()));
        let missing = match (want, good.len()) {
            (1, _) => "nobody has approved this commit".to_owned(),
            (want, have) => format!("{have} of {want} persons have approved this commit"),
        };
        let what = why.map_or_else(|| missing.clone(), |why| format!("{missing}; {why}"));
        (Standing::Missing, Code::Approval, what, format!("`vnx approve {id}{sign} --reason WHY`"))
    }

    /// A strict change needs a person, whatever the gates say.
    fn persons(&mut self) {
        let seen = self.seen;
        let asked = seen.gates.iter().any(|a| a.required && a.gate.human.is_some());
        if seen.strict.is_empty() || asked || self.is_set_aside("strict") {
            return;
        }
        let (standing, code, reason, clear) = self.approved(&Human::default());
        if standing != Standing::Pass {
            let more = seen.strict.len() - 1;
            let beside = if more > 0 { format!(" and {more} more") } else { String::new() };
            let what = format!("it changes {:?}{beside}, which needs a person: {reason}", seen.strict[0]);
            self.hold(code, "strict", what, clear);
        }
    }

    fn items(&mut self) {
        use crate::domain::receipt::Destination;
        if self.is_set_aside("items") {
            return;
        }
        for item in self.seen.items.iter().filter(|item| item.destination == Destination::Merge) {
            // While the gate that found it holds by itself, once is enough.
            let found_by = item.gate.as_ref().map(Name::as_str);
            if found_by.is_some_and(|gate| self.reasons.iter().any(|r| r.about == gate) || self.is_set_aside(gate)) {
                continue;
            }
            let place = item.file.as_ref().map(|file| format!(" ({file})")).unwrap_or_default();
            let clear = format!("`vnx items close {} --reason WHY`", item.item);
            self.hold(Code::Item, item.item.as_str(), format!("item {}: {}{place}", item.item, item.claim), clear);
        }
    }
}

/// What a result is about and this is not.
fn differences(seen: &Situation, applied: &Applied, was: &Binding) -> Vec<String> {
    let subject = &seen.subject;
    let mut all = Vec::new();
    if was.target != subject.target {
        all.push(format!("it was for {}, and this is for {}", short_ref(&was.target), short_ref(&subject.target)));
    } else if was.base != subject.base {
        all.push(format!("{} moved from {} to {}", short_ref(&was.target), short(&was.base), short(&subject.base)));
    }
    if (&was.head, &was.tree) != (&subject.head, &subject.tree) {
        all.push(format!("the branch moved from {} to {}", short(&was.head), short(&subject.head)));
    }
    if was.config != applied.config {
        all.push("the gate's configuration was edited".to_owned());
    } else if was.contract != applied.contract {
        all.push("request, plan or prompt are others".to_owned());
    }
    all
}
