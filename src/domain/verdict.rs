//! `judge`: from evidence to one verdict. Pure and total; the rules stand in `rules`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::agent::Deliverable;
use super::event::Claim;
use super::id::Name;
use super::outcome::{Decision, Outcome};
use super::patch::Patched;
use super::receipt::LostRef;
use super::rules;
use super::tree::Tri;

/// How the worker's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "End"))]
#[serde(tag = "how", rename_all = "snake_case", try_from = "EndMembers<S>", bound(deserialize = "S: Deserialize<'de>"))]
#[cfg_attr(test, schemars(!try_from, deny_unknown_fields))]
pub enum End<S = String> {
    /// It never ran.
    NeverStarted {
        /// Why, as an outcome.
        outcome: Outcome,
        /// Why, in words.
        reason: S,
    },
    /// It exited by itself, or lingered after its closing event and was asked to go.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal that vnx did not send ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The total deadline passed.
    TimedOut,
    /// No progress until the idle deadline.
    Idle,
    /// A person or T0 cancelled it.
    Cancelled,
    /// The supervisor died and the end was not seen.
    Lost,
}

impl<S: fmt::Display> fmt::Display for End<S> {
    /// In words, as they stand after a name: `claude, exit 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverStarted { reason, .. } => write!(f, "never started: {reason}"),
            Self::Exited { code } => write!(f, "exit {code}"),
            Self::Signaled { signal } => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("ended by the total deadline"),
            Self::Idle => f.write_str("ended by the idle deadline"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Lost => f.write_str("its end was not seen"),
        }
    }
}

/// The members of an [`End`] as they are read: serde alone would let a tagged enum have others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndMembers<S> {
    how: How,
    outcome: Option<Outcome>,
    reason: Option<S>,
    code: Option<i32>,
    signal: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    NeverStarted,
    Exited,
    Signaled,
    TimedOut,
    Idle,
    Cancelled,
    Lost,
}

impl<S> TryFrom<EndMembers<S>> for End<S> {
    type Error = &'static str;
    fn try_from(members: EndMembers<S>) -> Result<Self, Self::Error> {
        let EndMembers { how, outcome, reason, code, signal } = members;
        Ok(match (how, outcome, reason, code, signal) {
            (How::NeverStarted, Some(outcome), Some(reason), None, None) => Self::NeverStarted { outcome, reason },
            (How::Exited, None, None, Some(code), None) => Self::Exited { code },
            (How::Signaled, None, None, None, Some(signal)) => Self::Signaled { signal },
            (How::TimedOut, None, None, None, None) => Self::TimedOut,
            (How::Idle, None, None, None, None) => Self::Idle,
            (How::Cancelled, None, None, None, None) => Self::Cancelled,
            (How::Lost, None, None, None, None) => Self::Lost,
            _ => return Err("the members of an end do not belong together"),
        })
    }
}

/// Proof that nothing of the worker's process tree is left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Containment"))]
#[serde(deny_unknown_fields)]
pub struct Containment<S = String> {
    /// The tree was seen to be empty at the end.
    pub empty: bool,
    /// Processes that outlived the worker, as `pid command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub survivors: Vec<S>,
    /// How many times SIGTERM was sent.
    #[serde(default)]
    pub sigterm: u32,
    /// How many processes SIGKILL ended, as far as that was seen.
    #[serde(default)]
    pub sigkill: u32,
    /// Something kept the worker's output open after it had exited.
    #[serde(default)]
    pub leaky: bool,
}

impl<S> Containment<S> {
    /// Something did not end by itself: it was told to, or killed.
    pub fn was_forced(&self) -> bool {
        self.sigterm > 0 || self.sigkill > 0
    }
}

/// What git shows, as far as the verdict needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitEvidence {
    /// Commits of the dispatch branch that are its own: no other ref named them before it began or names them now.
    pub commits: Option<u64>,
    /// The branch still has the commit that it started from.
    pub has_base: Tri,
    /// Commits of others came along, by a pull, a merge or a reset.
    pub came_along: bool,
    /// Tracked or untracked files are not committed.
    pub uncommitted: Tri,
    /// A rebase, merge, cherry-pick, revert, bisect or am is under way.
    pub in_progress: Tri,
    /// HEAD is on the dispatch branch.
    pub on_own_branch: Tri,
    /// The dispatch branch has no commits, but commits were made elsewhere, or it is gone: what is to be said of it.
    pub elsewhere: Option<String>,
    /// The net change of those commits is empty.
    pub empty_diff: Tri,
    /// A commit of a submodule that the change points to and that is nowhere to be found, as `path: commit`.
    pub unresolved: Option<String>,
    /// Branches, tags and stashes of others that were deleted or set back while it ran.
    pub lost_refs: Vec<LostRef>,
    /// Settings and shared files of git that changed while it ran, by their names.
    pub settings: Vec<String>,
}

impl GitEvidence {
    /// What git shows where nothing was done.
    pub fn nothing() -> Self {
        Self {
            commits: Some(0),
            has_base: Tri::Yes,
            came_along: false,
            uncommitted: Tri::No,
            in_progress: Tri::No,
            on_own_branch: Tri::Yes,
            elsewhere: None,
            empty_diff: Tri::Yes,
            unresolved: None,
            lost_refs: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// Everything that `judge` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// How the process ended.
    pub end: End,
    /// The containment proof.
    pub containment: Containment,
    /// What the worker's stream claimed.
    pub claim: Claim,
    /// This provider closes its stream with an event that claims success.
    pub has_closing_event: bool,
    /// What git shows.
    pub git: GitEvidence,
    /// What the agent must deliver.
    pub delivers: Deliverable,
    /// What became of the change in the answer, where the plan wants one.
    pub patched: Option<Patched>,
    /// What was changed outside of the paths that were given, in words.
    pub outside: Option<String>,
    /// Required gates that do not stand well; none while nobody has asked them.
    pub held_by: Vec<HeldBy>,
}

/// A required gate that does not stand well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBy {
    /// Its name.
    pub gate: Name,
    /// It is a probe: the thing itself was run.
    pub is_probe: bool,
    /// Why, in one line.
    pub reason: String,
}

/// The one verdict: it drives the exit code, the receipt, the text and the JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Verdict"))]
#[serde(deny_unknown_fields)]
pub struct Verdict<S = String> {
    /// Accept, unproven or reject.
    pub decision: Decision,
    /// What happened.
    pub outcome: Outcome,
    /// One line for people.
    pub reason: S,
    /// The facts that led here, one line each.
    pub evidence: Vec<S>,
}

/// Judges a dispatch: the first rule that says something decides.
pub fn judge(seen: &Evidence) -> Verdict {
    let (decision, outcome, reason) = rules::decide(seen);
    Verdict { decision, outcome, reason, evidence: evidence(seen) }
}

fn evidence(seen: &Evidence) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(format!("worker: {}", seen.end));
    let c = &seen.containment;
    lines.push(if c.empty { "process tree: empty".into() } else { "process tree: not proven empty".to_owned() });
    if !c.survivors.is_empty() {
        lines.push(format!("outlived the worker: {}", c.survivors.join(", ")));
    }
    if seen.has_closing_event {
        lines.push(match seen.claim.ok {
            Some(true) => "claim: success".into(),
            Some(false) => "claim: failure".into(),
            None => "claim: none, the stream has no closing event".to_owned(),
        });
    }
    if let Some(failure) = seen.claim.failure.as_ref().filter(|f| !f.message.is_empty()) {
        lines.push(format!("the CLI said: {}", failure.message));
    }
    if seen.claim.denied > 0 {
        lines.push(format!("refused tool calls: {}", seen.claim.denied));
    }
    lines.extend(seen.patched.as_ref().map(|patched| match patched {
        Patched::Nothing => "the answer holds no diff".to_owned(),
        Patched::Committed(commit) => format!("the diff in the answer is commit {commit}"),
        Patched::Stands => {
            "the worktree had moved on from the base, so the diff in the answer was left alone".to_owned()
        }
        Patched::Refused(why) => format!("the diff in the answer was not applied: {why}"),
    }));
    let git = &seen.git;
    lines.push(match git.commits {
        Some(n) if git.came_along => format!("commits of its own: {n}, beside others that came along"),
        Some(n) => format!("commits since the base: {n}"),
        None => "commits since the base: unknown".into(),
    });
    lines.extend(seen.outside.iter().cloned());
    lines.push(format!("uncommitted changes: {}", git.uncommitted.word()));
    lines.extend(git.lost_refs.iter().map(LostRef::sentence));
    if !git.settings.is_empty() {
        lines.push(format!("changed in git while it ran: {}", git.settings.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Failure;

    #[test]
    fn an_end_is_read_with_its_own_members_and_no_others() {
        let ends = [
            End::NeverStarted { outcome: Outcome::CliMissing, reason: "x".into() },
            End::Exited { code: 1 },
            End::Signaled { signal: 9 },
            End::TimedOut,
            End::Idle,
            End::Cancelled,
            End::Lost,
        ];
        for end in ends {
            let json = serde_json::to_string(&end).unwrap();
            assert_eq!(serde_json::from_str::<End>(&json).unwrap(), end);
            for more in [r#","x":1}"#, r#","how":"idle"}"#, r#","code":1,"signal":2}"#] {
                let json = json.replace('}', more);
                assert!(serde_json::from_str::<End>(&json).is_err(), "{json}");
            }
        }
        assert!(serde_json::from_str::<End>(r#"{"how":"exited"}"#).is_err());
    }

    fn good() -> Evidence {
        Evidence {
            end: End::Exited { code: 0 },
            containment: Containment { empty: true, ..Containment::default() },
            claim: Claim { ok: Some(true), report_bytes: 10, ..Claim::default() },
            has_closing_event: true,
            git: GitEvidence { commits: Some(1), empty_diff: Tri::No, ..GitEvidence::nothing() },
            delivers: Deliverable::Commit,
            patched: None,
            outside: None,
            held_by: Vec::new(),
        }
    }

    fn check(name: &str, change: impl FnOnce(&mut Evidence), decision: Decision, outcome: Outcome) {
        let mut seen = good();
        change(&mut seen);
        let verdict = judge(&seen);
        assert_eq!((verdict.decision, verdict.outcome), (decision, outcome), "{name}: {}", verdict.reason);
        assert!(!verdict.reason.is_empty() && !verdict.reason.contains('\n'), "{name}");
    }

    #[test]
    fn the_rule_table() {
        use Decision::{Accept, Reject, Unproven};
        check("good", |_| {}, Accept, Outcome::Done);
        check("phantom", |s| s.git.commits = Some(0), Unproven, Outcome::Empty);
        check(
            "committed elsewhere",
            |s| {
                s.git.commits = Some(0);
                s.git.elsewhere = Some("on x".to_owned());
            },
            Unproven,
            Outcome::Unknown,
        );
        check("empty commits", |s| s.git.empty_diff = Tri::Yes, Unproven, Outcome::Empty);
        check("dirty", |s| s.git.uncommitted = Tri::Yes, Unproven, Outcome::Uncommitted);
        check(
            "dirty and nothing committed",
            |s| {
                s.git.uncommitted = Tri::Yes;
                s.git.commits = Some(0);
            },
            Unproven,
            Outcome::Uncommitted,
        );
        check("git unreadable", |s| s.git.commits = None, Unproven, Outcome::Unknown);
        check("elsewhere", |s| s.git.on_own_branch = Tri::No, Unproven, Outcome::Unknown);
        check("processes left", |s| s.containment.empty = false, Unproven, Outcome::Unknown);
        check("exit 3", |s| s.end = End::Exited { code: 3 }, Reject, Outcome::CliCrash);
        check("claims failure", |s| s.claim.ok = Some(false), Reject, Outcome::CliCrash);
        check("silent zero", |s| s.claim.ok = None, Unproven, Outcome::Unknown);
        check(
            "no closing event expected",
            |s| {
                s.claim.ok = None;
                s.has_closing_event = false;
            },
            Accept,
            Outcome::Done,
        );
        check(
            "denied",
            |s| {
                s.claim.denied = 2;
                s.git.commits = Some(0);
            },
            Reject,
            Outcome::PermissionBlocked,
        );
        check(
            "killed",
            |s| {
                s.end = End::Signaled { signal: 9 };
                s.claim.ok = None;
            },
            Reject,
            Outcome::Killed,
        );
        check("killed while lingering after success", |s| s.end = End::Signaled { signal: 15 }, Accept, Outcome::Done);
        check("total", |s| s.end = End::TimedOut, Reject, Outcome::TimeoutTotal);
        check("idle", |s| s.end = End::Idle, Reject, Outcome::TimeoutIdle);
        check("cancelled", |s| s.end = End::Cancelled, Reject, Outcome::Cancelled);
        check("lost with work", |s| s.end = End::Lost, Unproven, Outcome::SupervisorLost);
        check(
            "lost without work",
            |s| {
                s.end = End::Lost;
                s.git.commits = Some(0);
            },
            Reject,
            Outcome::SupervisorLost,
        );
        check(
            "never",
            |s| s.end = End::NeverStarted { outcome: Outcome::WorktreeFailed, reason: "x".into() },
            Reject,
            Outcome::WorktreeFailed,
        );
        check(
            "report",
            |s| {
                s.delivers = Deliverable::Report;
                s.git.commits = Some(0);
            },
            Accept,
            Outcome::Done,
        );
        check(
            "no report",
            |s| {
                s.delivers = Deliverable::Report;
                s.git.commits = Some(0);
                s.claim.report_bytes = 0;
            },
            Unproven,
            Outcome::ContractMissing,
        );
        check("report with changes", |s| s.delivers = Deliverable::Report, Unproven, Outcome::ContractMissing);
    }

    #[test]
    fn only_what_is_whole_and_on_its_base_is_accepted() {
        use Decision::Unproven;
        check("half done", |s| s.git.in_progress = Tri::Yes, Unproven, Outcome::Unknown);
        check("nobody knows whether half done", |s| s.git.in_progress = Tri::Unknown, Unproven, Outcome::Unknown);
        check("base rewritten", |s| s.git.has_base = Tri::No, Unproven, Outcome::Unknown);
        check("base unread", |s| s.git.has_base = Tri::Unknown, Unproven, Outcome::Unknown);
        check("submodule nowhere", |s| s.git.unresolved = Some("a: 1".into()), Unproven, Outcome::Unknown);
    }

    #[test]
    fn an_end_is_told_in_words() {
        let never = End::NeverStarted { outcome: Outcome::CliMissing, reason: "no claude".to_owned() };
        for (end, words) in [
            (never, "never started: no claude"),
            (End::Exited { code: 3 }, "exit 3"),
            (End::Signaled { signal: 9 }, "ended by signal 9"),
            (End::TimedOut, "ended by the total deadline"),
            (End::Idle, "ended by the idle deadline"),
            (End::Cancelled, "cancelled"),
            (End::Lost, "its end was not seen"),
        ] {
            assert_eq!(end.to_string(), words);
        }
    }

    #[test]
    fn the_evidence_is_listed_and_what_there_is_none_of_is_not() {
        let plain = [
            "worker: exit 0",
            "process tree: empty",
            "claim: success",
            "commits since the base: 1",
            "uncommitted changes: no",
        ];
        assert_eq!(judge(&good()).evidence, plain);
        let mut seen = good();
        seen.containment =
            Containment { empty: false, survivors: vec!["sh".into(), "sleep".into()], ..seen.containment };
        seen.claim.failure = Some(Failure { outcome: None, message: "429".into() });
        (seen.claim.denied, seen.git.commits) = (2, None);
        seen.outside = Some("it wrote to a path that it was not given".into());
        let all = [
            "worker: exit 0",
            "process tree: not proven empty",
            "outlived the worker: sh, sleep",
            "claim: success",
            "the CLI said: 429",
            "refused tool calls: 2",
            "commits since the base: unknown",
            "it wrote to a path that it was not given",
            "uncommitted changes: no",
        ];
        assert_eq!(judge(&seen).evidence, all);
    }

    #[test]
    fn a_diff_that_was_not_applied_is_a_broken_contract() {
        let mut seen = good();
        seen.patched = Some(Patched::Refused("x:1".into()));
        assert_eq!(judge(&seen).outcome, Outcome::Done, "what is committed counts");
        seen.git.commits = Some(0);
        let verdict = judge(&seen);
        assert_eq!((verdict.decision, verdict.outcome), (Decision::Unproven, Outcome::ContractMissing));
        assert!(verdict.reason.contains("x:1"), "{}", verdict.reason);
    }

    #[test]
    fn a_classified_failure_names_the_outcome() {
        let failure = Some(Failure { outcome: Some(Outcome::AuthRejected), message: "401 invalid key".into() });
        let with = |end: End, ok: Option<bool>, stuck: bool| {
            let mut seen = good();
            seen.end = end;
            seen.claim.ok = ok;
            seen.claim.failure.clone_from(&failure);
            seen.claim.stuck_on_error = stuck;
            judge(&seen)
        };
        assert_eq!(with(End::Exited { code: 1 }, Some(false), true).outcome, Outcome::AuthRejected);
        assert_eq!(with(End::Idle, None, true).outcome, Outcome::AuthRejected);
        assert_eq!(with(End::Idle, None, false).outcome, Outcome::TimeoutIdle);
        assert_eq!(with(End::Exited { code: 1 }, Some(false), false).reason, "401 invalid key", "in the CLI's words");
        let mut wordless = good();
        wordless.end = End::Exited { code: 4 };
        wordless.claim.failure = Some(Failure { outcome: None, message: String::new() });
        assert_eq!(judge(&wordless).reason, "the worker exited with code 4", "or in ours");
        // An error that was recovered from does not spoil a success.
        assert_eq!(with(End::Exited { code: 0 }, Some(true), false).outcome, Outcome::Done);
    }
}
