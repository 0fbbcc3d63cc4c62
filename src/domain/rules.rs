//! The rules of `judge`, in the order in which they are asked. The first one that says something decides.
//!
//! The order is the documentation: first what ended the worker, then what its CLI reports about itself, then what
//! git shows, then what gates say. Words never make a dispatch better; only what nothing speaks against is accepted.

use serde::{Deserialize, Serialize};

use super::agent::Deliverable;
use super::outcome::{Decision, Outcome};
use super::patch::Patched;
use super::tree::Tri;
use super::verdict::{End, Evidence, HeldBy, Verdict};

/// What a rule says: the decision, the outcome, and why.
pub(super) type Ruling = (Decision, Outcome, String);

/// A rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, for people and for tests.
    pub name: &'static str,
    /// What it asks; where the answer is yes, it decides.
    pub asks: &'static str,
    says: fn(&Evidence) -> Option<Ruling>,
}

/// All of them, in order. The last one always says something.
pub const RULES: [Rule; 26] = [
    Rule { name: "never_started", asks: "the worker never ran", says: never_started },
    Rule { name: "cancelled", asks: "somebody cancelled it", says: cancelled },
    Rule { name: "stuck_on_error", asks: "its time was up while an error was retried", says: stuck_on_error },
    Rule { name: "total_deadline", asks: "the total deadline passed", says: total_deadline },
    Rule { name: "idle_deadline", asks: "there was no progress until the idle deadline", says: idle_deadline },
    Rule { name: "lost", asks: "its supervisor died", says: lost },
    Rule { name: "signaled", asks: "a signal from outside ended it", says: signaled },
    Rule { name: "failed", asks: "its exit code or its CLI says that it failed", says: failed },
    Rule { name: "no_closing_event", asks: "its stream has no closing event", says: no_closing_event },
    Rule { name: "processes_left", asks: "its process tree is not proven empty", says: processes_left },
    Rule { name: "uncommitted", asks: "changes were left uncommitted", says: uncommitted },
    Rule { name: "git_unread", asks: "git could not be read completely", says: git_unread },
    Rule { name: "in_progress", asks: "an operation of git is half done", says: in_progress },
    Rule { name: "elsewhere", asks: "it committed, but not on its own branch", says: elsewhere },
    Rule { name: "refused_tools", asks: "its CLI refused tools, and nothing was committed", says: refused_tools },
    Rule { name: "patch_refused", asks: "the diff in its answer was not applied", says: patch_refused },
    Rule { name: "nothing_committed", asks: "nothing was committed", says: nothing_committed },
    Rule { name: "other_branch", asks: "HEAD is not on its branch", says: other_branch },
    Rule { name: "base_gone", asks: "its branch has lost the commit that it started from", says: base_gone },
    Rule { name: "empty_change", asks: "its commits change nothing", says: empty_change },
    Rule { name: "unresolved", asks: "it points to a submodule's commit that is nowhere", says: unresolved },
    Rule { name: "report", asks: "a report was asked for, and is not what came of it", says: report },
    Rule { name: "outside", asks: "it changed what it was not given", says: outside },
    Rule { name: "probe", asks: "a required probe does not pass", says: |seen| probe(&seen.held_by) },
    Rule { name: "gate", asks: "a required gate does not pass", says: |seen| gate(&seen.held_by) },
    Rule { name: "done", asks: "nothing speaks against it", says: |seen| Some(done(seen)) },
];

/// What a rule came to, for `vnx show --why`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It does not apply.
    No,
    /// It decided.
    Decided,
    /// It was not asked any more.
    NotAsked,
}

/// What came of each rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its name.
    pub rule: String,
    /// What it asks.
    pub asks: String,
    /// What it came to.
    pub answer: Answer,
}

pub(super) fn decide(seen: &Evidence) -> Ruling {
    RULES.iter().find_map(|rule| (rule.says)(seen)).unwrap_or_else(|| done(seen))
}

/// Every rule and what came of it.
pub fn why(seen: &Evidence) -> Vec<Asked> {
    let mut decided = false;
    let asked = RULES.iter().map(|rule| {
        let answer = match decided {
            true => Answer::NotAsked,
            false if (rule.says)(seen).is_some() => {
                decided = true;
                Answer::Decided
            }
            false => Answer::No,
        };
        Asked { rule: rule.name.to_owned(), asks: rule.asks.to_owned(), answer }
    });
    asked.collect()
}

/// A verdict that was given before anybody asked the gates, with what they say now: the two rules that were left.
pub fn conclude(verdict: &Verdict, held_by: &[HeldBy]) -> Verdict {
    let ruled = probe(held_by).or_else(|| gate(held_by)).filter(|_| verdict.decision == Decision::Accept);
    match ruled {
        None => verdict.clone(),
        Some((decision, outcome, reason)) => Verdict { decision, outcome, reason, evidence: verdict.evidence.clone() },
    }
}

/// The CLI's own words, or ours.
fn said(seen: &Evidence, fallback: &str) -> String {
    let words = seen.claim.failure.as_ref().map(|f| f.message.as_str()).filter(|m| !m.is_empty());
    words.unwrap_or(fallback).to_owned()
}

fn classified(seen: &Evidence) -> Option<Outcome> {
    seen.claim.failure.as_ref().and_then(|f| f.outcome)
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a rule returns")]
fn rejects(outcome: Outcome, reason: impl Into<String>) -> Option<Ruling> {
    Some((Decision::Reject, outcome, reason.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a rule returns")]
fn unprovens(outcome: Outcome, reason: impl Into<String>) -> Option<Ruling> {
    Some((Decision::Unproven, outcome, reason.into()))
}

fn never_started(seen: &Evidence) -> Option<Ruling> {
    let End::NeverStarted { outcome, reason } = &seen.end else { return None };
    rejects(*outcome, reason.clone())
}

fn cancelled(seen: &Evidence) -> Option<Ruling> {
    if seen.end == End::Cancelled { rejects(Outcome::Cancelled, "cancelled on request") } else { None }
}

/// A CLI that was still retrying an error when its time was up failed by that error.
fn stuck_on_error(seen: &Evidence) -> Option<Ruling> {
    let timed_out = matches!(seen.end, End::TimedOut | End::Idle) && seen.claim.stuck_on_error;
    let outcome = classified(seen).filter(|_| timed_out)?;
    rejects(outcome, said(seen, "an error was never recovered from"))
}

fn total_deadline(seen: &Evidence) -> Option<Ruling> {
    if seen.end == End::TimedOut { rejects(Outcome::TimeoutTotal, "the total deadline passed") } else { None }
}

fn idle_deadline(seen: &Evidence) -> Option<Ruling> {
    if seen.end == End::Idle { rejects(Outcome::TimeoutIdle, "no progress until the idle deadline") } else { None }
}

fn lost(seen: &Evidence) -> Option<Ruling> {
    match (&seen.end, seen.git.commits, seen.git.uncommitted) {
        (End::Lost, Some(0), Tri::No) => {
            rejects(Outcome::SupervisorLost, "the supervisor died before the worker had changed anything")
        }
        (End::Lost, ..) => unprovens(Outcome::SupervisorLost, "the supervisor died; what the worker left is kept"),
        _ => None,
    }
}

fn signaled(seen: &Evidence) -> Option<Ruling> {
    match seen.end {
        // One that lingered after its closing event was asked to go.
        End::Signaled { signal } if seen.claim.ok != Some(true) => {
            let ours = format!("signal {signal} from outside ended the worker");
            rejects(classified(seen).unwrap_or(Outcome::Killed), said(seen, &ours))
        }
        _ => None,
    }
}

fn failed(seen: &Evidence) -> Option<Ruling> {
    let code = if let End::Exited { code } = seen.end { code } else { 0 };
    if code == 0 && seen.claim.ok != Some(false) {
        return None;
    }
    let ours = format!("the worker exited with code {code}");
    rejects(classified(seen).unwrap_or(Outcome::CliCrash), said(seen, &ours))
}

fn no_closing_event(seen: &Evidence) -> Option<Ruling> {
    if !seen.has_closing_event || seen.claim.ok.is_some() {
        return None;
    }
    let reason = said(seen, "exit code 0, but the stream has no closing event");
    match classified(seen) {
        Some(outcome) => rejects(outcome, reason),
        None => unprovens(Outcome::Unknown, reason),
    }
}

fn processes_left(seen: &Evidence) -> Option<Ruling> {
    let left = !seen.containment.empty;
    if left { unprovens(Outcome::Unknown, "the worker's process tree is not proven empty") } else { None }
}

/// The rules about commits ask only whoever has to deliver some.
fn commits(seen: &Evidence) -> bool {
    seen.delivers == Deliverable::Commit
}

fn uncommitted(seen: &Evidence) -> Option<Ruling> {
    let left = commits(seen) && seen.git.uncommitted == Tri::Yes;
    if left { unprovens(Outcome::Uncommitted, "changes were left uncommitted") } else { None }
}

fn git_unread(seen: &Evidence) -> Option<Ruling> {
    let unread = seen.git.commits.is_none() || seen.git.uncommitted == Tri::Unknown;
    if unread { unprovens(Outcome::Unknown, "git could not be read completely") } else { None }
}

fn in_progress(seen: &Evidence) -> Option<Ruling> {
    let half_done = commits(seen) && seen.git.in_progress != Tri::No;
    if half_done { unprovens(Outcome::Unknown, "an operation of git was left half done") } else { None }
}

fn without_commits(seen: &Evidence) -> bool {
    commits(seen) && seen.git.commits == Some(0)
}

fn elsewhere(seen: &Evidence) -> Option<Ruling> {
    let why = seen.git.elsewhere.as_ref().filter(|_| without_commits(seen))?;
    unprovens(Outcome::Unknown, why)
}

fn refused_tools(seen: &Evidence) -> Option<Ruling> {
    let denied = seen.claim.denied;
    if !without_commits(seen) || denied == 0 {
        return None;
    }
    rejects(Outcome::PermissionBlocked, format!("the CLI refused {denied} tool calls and nothing was committed"))
}

fn patch_refused(seen: &Evidence) -> Option<Ruling> {
    match &seen.patched {
        Some(Patched::Refused(why)) if without_commits(seen) => {
            unprovens(Outcome::ContractMissing, format!("the diff in the answer was not applied: {why}"))
        }
        Some(Patched::Refused(_) | Patched::Nothing | Patched::Committed(_) | Patched::Stands) | None => None,
    }
}

fn nothing_committed(seen: &Evidence) -> Option<Ruling> {
    let claims = if seen.has_closing_event { "success is claimed" } else { "it exited with 0" };
    let nothing = without_commits(seen);
    if nothing { unprovens(Outcome::Empty, format!("{claims}, but nothing was committed")) } else { None }
}

fn other_branch(seen: &Evidence) -> Option<Ruling> {
    let other = commits(seen) && seen.git.on_own_branch != Tri::Yes;
    if other { unprovens(Outcome::Unknown, "HEAD is not on the dispatch branch") } else { None }
}

fn base_gone(seen: &Evidence) -> Option<Ruling> {
    let gone = commits(seen) && seen.git.has_base != Tri::Yes;
    let why = "the dispatch branch does not have the commit that it started from: history was rewritten";
    if gone { unprovens(Outcome::Unknown, why) } else { None }
}

fn unresolved(seen: &Evidence) -> Option<Ruling> {
    let what = seen.git.unresolved.as_ref().filter(|_| commits(seen))?;
    unprovens(Outcome::Unknown, format!("a submodule's commit is nowhere to be found: {what}"))
}

fn empty_change(seen: &Evidence) -> Option<Ruling> {
    let empty = commits(seen) && seen.git.empty_diff == Tri::Yes;
    if empty { unprovens(Outcome::Empty, "the commits change nothing") } else { None }
}

fn report(seen: &Evidence) -> Option<Ruling> {
    match (seen.delivers, seen.git.commits, seen.git.uncommitted) {
        (Deliverable::Commit, ..) => None,
        (Deliverable::Report, Some(0), Tri::No) if seen.claim.report_bytes > 0 => None,
        (Deliverable::Report, Some(0), Tri::No) => unprovens(Outcome::ContractMissing, "no report was delivered"),
        (Deliverable::Report, ..) => {
            unprovens(Outcome::ContractMissing, "a report was asked for, but files were changed")
        }
    }
}

fn outside(seen: &Evidence) -> Option<Ruling> {
    seen.outside.as_ref().and_then(|what| unprovens(Outcome::ContractMissing, what.clone()))
}

fn probe(held_by: &[HeldBy]) -> Option<Ruling> {
    let held = held_by.iter().find(|held| held.is_probe)?;
    unprovens(Outcome::ProbeFailed, format!("probe {}: {}", held.gate, held.reason))
}

fn gate(held_by: &[HeldBy]) -> Option<Ruling> {
    let held = held_by.iter().find(|held| !held.is_probe)?;
    unprovens(Outcome::GateFailed, format!("gate {}: {}", held.gate, held.reason))
}

fn done(seen: &Evidence) -> Ruling {
    let words = match (seen.delivers, seen.git.commits) {
        (Deliverable::Report, _) => format!("a report of {} bytes, the tree untouched", seen.claim.report_bytes),
        (Deliverable::Commit, Some(1)) => "1 commit on the dispatch branch".to_owned(),
        (Deliverable::Commit, n) => format!("{} commits on the dispatch branch", n.unwrap_or(0)),
    };
    (Decision::Accept, Outcome::Done, words)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::Name;
    use crate::domain::event::{Claim, Failure};
    use crate::domain::verdict::{Containment, GitEvidence};

    /// Every combination of what rules look at, with a value on each side of each question.
    fn everything(mut see: impl FnMut(&Evidence)) {
        let ends = [
            End::NeverStarted { outcome: Outcome::SetupFailed, reason: "x".into() },
            End::Exited { code: 0 },
            End::Exited { code: 3 },
            End::Signaled { signal: 9 },
            End::TimedOut,
            End::Idle,
            End::Cancelled,
            End::Lost,
        ];
        let failure = |outcome| Some(Failure { outcome, message: "said".into() });
        let failures = [None, failure(None), failure(Some(Outcome::AuthRejected))];
        let held = |is_probe| HeldBy { gate: Name::parse("gate", "g").unwrap(), is_probe, reason: "no".into() };
        for end in &ends {
            for (ok, stuck) in [(None, false), (None, true), (Some(false), false), (Some(true), false)] {
                for (failure, closing) in failures.iter().flat_map(|f| [(f, true), (f, false)]) {
                    for (empty, delivers, outside) in [
                        (true, Deliverable::Commit, None),
                        (true, Deliverable::Report, None),
                        (false, Deliverable::Commit, None),
                        (true, Deliverable::Commit, Some("outside".to_owned())),
                    ] {
                        for commits in [None, Some(0), Some(1), Some(2)] {
                            for uncommitted in [Tri::Yes, Tri::No, Tri::Unknown] {
                                for (own, elsewhere, empty_diff) in [
                                    (Tri::Yes, false, Tri::No),
                                    (Tri::Yes, false, Tri::Yes),
                                    (Tri::Yes, true, Tri::Yes),
                                    (Tri::No, false, Tri::No),
                                    (Tri::Unknown, false, Tri::Unknown),
                                ] {
                                    let whole = GitEvidence::nothing;
                                    for (denied, bytes, patched, held_by, state) in [
                                        (0, 10, None, vec![], whole()),
                                        (2, 10, None, vec![], whole()),
                                        (0, 0, Some(Patched::Refused("p".into())), vec![], whole()),
                                        (0, 0, Some(Patched::Nothing), vec![held(false)], whole()),
                                        (0, 10, None, vec![held(false), held(true)], whole()),
                                        (0, 10, None, vec![], GitEvidence { in_progress: Tri::Yes, ..whole() }),
                                        (0, 10, None, vec![], GitEvidence { has_base: Tri::Unknown, ..whole() }),
                                        (
                                            0,
                                            10,
                                            None,
                                            vec![],
                                            GitEvidence { unresolved: Some("a: 1".into()), ..whole() },
                                        ),
                                    ] {
                                        see(&Evidence {
                                            end: end.clone(),
                                            containment: Containment { empty, ..Containment::default() },
                                            claim: Claim {
                                                ok,
                                                stuck_on_error: stuck,
                                                failure: failure.clone(),
                                                denied,
                                                report_bytes: bytes,
                                                ..Claim::default()
                                            },
                                            has_closing_event: closing,
                                            git: GitEvidence {
                                                commits,
                                                uncommitted,
                                                on_own_branch: own,
                                                elsewhere: elsewhere.then(|| "on x".to_owned()),
                                                empty_diff,
                                                ..state
                                            },
                                            delivers,
                                            patched,
                                            outside: outside.clone(),
                                            held_by,
                                        });
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_combination_is_decided_and_only_proof_is_accepted() {
        let (mut seen, mut fired) = (0_u32, BTreeSet::new());
        everything(|evidence| {
            seen += 1;
            let (decision, outcome, reason) = decide(evidence);
            assert!(!reason.is_empty(), "{evidence:?}");
            let asked = why(evidence);
            let decided: Vec<&Asked> = asked.iter().filter(|a| a.answer == Answer::Decided).collect();
            assert_eq!(decided.len(), 1, "{evidence:?}");
            fired.insert(decided[0].rule.clone());
            assert_eq!(decision == Decision::Accept, decided[0].rule == "done");
            let e = evidence;
            let ended_well = matches!(e.end, End::Exited { code: 0 })
                || matches!(e.end, End::Signaled { .. }) && e.claim.ok == Some(true);
            let said_well = e.claim.ok == Some(true) || e.claim.ok.is_none() && !e.has_closing_event;
            let git = &e.git;
            let delivered = match e.delivers {
                Deliverable::Commit => {
                    let is_whole = (git.in_progress, git.has_base) == (Tri::No, Tri::Yes) && git.unresolved.is_none();
                    git.commits.is_some_and(|n| n > 0)
                        && git.on_own_branch == Tri::Yes
                        && git.empty_diff != Tri::Yes
                        && is_whole
                }
                Deliverable::Report => git.commits == Some(0) && e.claim.report_bytes > 0,
            };
            let clean =
                git.uncommitted == Tri::No && e.containment.empty && e.outside.is_none() && e.held_by.is_empty();
            let proven = ended_well && said_well && delivered && clean;
            assert_eq!(decision == Decision::Accept, proven, "{outcome}: {evidence:?}");
            // A gate that holds can only make it worse, and says so where nothing else did.
            let mut ungated = e.clone();
            ungated.held_by.clear();
            let verdict = crate::domain::verdict::judge(&ungated);
            let concluded = conclude(&verdict, &e.held_by);
            assert_eq!((concluded.decision, concluded.outcome), (decision, outcome), "{evidence:?}");
        });
        assert!(seen > 100_000, "{seen}");
        let all: BTreeSet<String> = RULES.iter().map(|rule| rule.name.to_owned()).collect();
        assert_eq!(fired, all, "every rule decides something");
    }
}
