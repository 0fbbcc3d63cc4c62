//! The decision as a table: one good situation, and everything that must hold it.

use super::check::*;
use super::{Binding, CANCELLED, Contract, Gate, GateStatus, Phase};
use crate::domain::authority::{Presence, PresencePolicy};
use crate::domain::receipt::*;
use crate::domain::verdict::Verdict;
use crate::domain::{Decision, Digest, DispatchId, Name, Outcome, Timestamp};

mod told;

fn name(text: &str) -> Name {
    Name::parse("gate", text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000).unwrap()
}

fn scope(tree: &str, target: &str, until: i64) -> Scope {
    Scope { target: format!("refs/heads/{target}"), head: "head".into(), tree: tree.into(), until: at(until) }
}

fn person(email: &str) -> Actor {
    Actor { name: "Ada".into(), email: email.into() }
}

fn approval(email: &str, scope: Scope) -> Approved {
    let nonce = "0".repeat(32);
    let given = ApprovalGiven {
        by: person(email),
        reason: "good".into(),
        scope,
        settles: None,
        run: None,
        nonce,
        attestation: Attestation { presence: Presence::Tty, signed: None },
    };
    Approved { given, proof: Proof::Sound, presence: Presence::Tty, signer: None }
}

fn aside(about: &str, scope: Scope) -> Overridden {
    let gate = GateOverride { by: person("a@x"), scope, nonce: "1".repeat(32) };
    Overridden { about: name(about), reason: "known".into(), gate, presence: Presence::Tty }
}

fn applied(text: &str, gate: Gate) -> Applied {
    let config = gate.digest().unwrap();
    let contract = Contract { request: Digest::ZERO, plan: Digest::ZERO, prompt: Digest::ZERO };
    Applied { name: name(text), contract: contract.hash(&name(text), config), config, required: gate.required, gate }
}

fn run(applied: &Applied, subject: &Subject, status: GateStatus) -> Run {
    let binding = Binding {
        gate: applied.name.clone(),
        contract: applied.contract,
        config: applied.config,
        target: subject.target.clone(),
        base: subject.base.clone(),
        head: subject.head.clone(),
        tree: subject.tree.clone(),
        nonce: "a".repeat(32),
    };
    let result = GateResulted {
        gate: applied.name.clone(),
        nonce: binding.nonce.clone(),
        status,
        reason: "said".into(),
        report: None,
        result: None,
        tries: 1,
        took_ms: 1,
        tests: None,
        usage: None,
    };
    Run { binding, phase: Phase::PreMerge, result: Some(result), proof: Proof::Sound, live: false, split: false }
}

/// A command, a review, a person: all of them satisfied.
fn good() -> Situation {
    let subject =
        Subject { target: "refs/heads/main".into(), base: "base".into(), head: "head".into(), tree: "tree".into() };
    let tests = applied("tests", Gate { command: Some("true".into()), ..Gate::default() });
    let review = applied("review", Gate { review: Some(super::Review::default()), ..Gate::default() });
    let lead = applied("lead", Gate { human: Some(super::Human::default()), ..Gate::default() });
    let verdict =
        Verdict { decision: Decision::Accept, outcome: Outcome::Done, reason: "done".into(), evidence: Vec::new() };
    Situation {
        dispatch: DispatchId::parse("20261121-010203-a-b").unwrap(),
        now: at(0),
        verdict: Some(verdict),
        unjudged: None,
        strict: Vec::new(),
        ungated: false,
        runs: vec![run(&tests, &subject, GateStatus::Pass), run(&review, &subject, GateStatus::Pass)],
        gates: vec![tests, review, lead],
        approvals: vec![approval("a@x", scope("tree", "main", 10))],
        overrides: Vec::new(),
        items: Vec::new(),
        git_config: None,
        contract: None,
        ledger: None,
        nothing: None,
        presence: PresencePolicy::default(),
        subject,
    }
}

fn item(destination: Destination, gate: Option<&str>) -> ItemOpened {
    ItemOpened {
        item: name("i-1"),
        source: ItemSource::Person,
        gate: gate.map(name),
        destination,
        claim: "mend it".into(),
        file: None,
        line: None,
        round: 1,
    }
}

#[track_caller]
fn is(what: &str, change: impl FnOnce(&mut Situation), expected: &[(Code, &str)]) {
    let mut seen = good();
    change(&mut seen);
    let checked = check(&seen);
    let found: Vec<(Code, &str)> = checked.reasons.iter().map(|r| (r.code, r.about.as_str())).collect();
    assert_eq!(found, expected, "{what}: {:#?}", checked.reasons);
    assert_eq!(checked.go, expected.is_empty(), "{what}");
    for reason in &checked.reasons {
        assert!(
            !reason.what.is_empty() && !reason.clear.is_empty() && !reason.what.contains('\n'),
            "{what}: {reason:?}"
        );
    }
}

#[test]
fn everything_that_holds() {
    use Code::*;
    is("good", |_| {}, &[]);
    is("ledger", |s| s.ledger = Some("broken".into()), &[(Ledger, "ledger")]);
    is("contract", |s| s.contract = Some("edited".into()), &[(Contract, "contract")]);
    is("nothing", |s| s.nothing = Some("gone".into()), &[(Nothing, "branch")]);
    is("running", |s| s.verdict = None, &[(Running, "dispatch")]);
    is("git", |s| s.git_config = Some("changed".into()), &[(GitConfig, "git-config")]);
    for decision in [Decision::Unproven, Decision::Reject] {
        is("verdict", |s| s.verdict.as_mut().unwrap().decision = decision, &[(Verdict, "verdict")]);
    }
    is("no gate", |s| s.gates.clear(), &[(NoGate, "no-gate")]);
    is("advisory only", |s| s.gates.iter_mut().for_each(|a| a.required = false), &[(NoGate, "no-gate")]);
    is("not run", |s| s.runs.clear(), &[(Missing, "tests"), (Missing, "review")]);
    is("other base", |s| s.subject.base = "new".into(), &[(Stale, "tests"), (Stale, "review")]);
    is("other tree", |s| s.subject.tree = "new".into(), &[(Stale, "tests"), (Stale, "review"), (Approval, "lead")]);
    is("other head", |s| s.subject.head = "new".into(), &[(Stale, "tests"), (Stale, "review"), (Approval, "lead")]);
    is("went on", |s| s.unjudged = Some("it went on".into()), &[(Verdict, "verdict")]);
    is(
        "other target",
        |s| s.subject.target = "refs/heads/other".into(),
        &[(Stale, "tests"), (Stale, "review"), (Approval, "lead")],
    );
    is("edited gate", |s| s.gates[0].config = Digest::of(b"x"), &[(Stale, "tests")]);
    is("edited plan", |s| s.gates[0].contract = Digest::of(b"x"), &[(Stale, "tests")]);
    is("said no", |s| s.runs[0].result.as_mut().unwrap().status = GateStatus::Fail, &[(Failed, "tests")]);
    is(
        "said nothing",
        |s| s.runs[1].result.as_mut().unwrap().status = GateStatus::Unverified,
        &[(Unverified, "review")],
    );
    is("edited evidence", |s| s.runs[0].proof = Proof::Broken("edited".into()), &[(Evidence, "tests")]);
    is("no result", |s| s.runs[0].result = None, &[(Missing, "tests")]);
    is(
        "is running",
        |s| {
            s.runs[0].result = None;
            s.runs[0].live = true;
        },
        &[(GateRunning, "tests")],
    );
    is("of the merge", |s| s.runs[0].phase = Phase::PostMerge, &[(Missing, "tests")]);
    is("nobody", |s| s.approvals.clear(), &[(Approval, "lead")]);
    is("expired", |s| s.now = at(10), &[(Approval, "lead")]);
    is("edited approval", |s| s.approvals[0].proof = Proof::Broken("edited".into()), &[(Approval, "lead")]);
    let human = |s: &mut Situation, approvals, signed| s.gates[2].gate.human = Some(super::Human { approvals, signed });
    is("one of two", |s| human(s, 2, false), &[(Approval, "lead")]);
    is(
        "twice the same",
        |s| {
            human(s, 2, false);
            s.approvals.push(s.approvals[0].clone());
        },
        &[(Approval, "lead")],
    );
    is(
        "two of two",
        |s| {
            human(s, 2, false);
            s.approvals.push(approval("b@x", scope("tree", "main", 10)));
        },
        &[],
    );
    is("unsigned", |s| human(s, 1, true), &[(Approval, "lead")]);
    is(
        "signed",
        |s| {
            human(s, 1, true);
            s.approvals[0].signer = Some("ada".into());
        },
        &[],
    );
    is("item", |s| s.items.push(item(Destination::Merge, None)), &[(Item, "i-1")]);
    is("item for later", |s| s.items.push(item(Destination::Later, None)), &[]);
    is(
        "item of a gate that holds by itself",
        |s| {
            s.items.push(item(Destination::Merge, Some("tests")));
            s.runs.remove(0);
        },
        &[(Missing, "tests")],
    );
    is("item of a gate that passes", |s| s.items.push(item(Destination::Merge, Some("tests"))), &[(Item, "i-1")]);
    is(
        "an advisory gate",
        |s| {
            s.gates[0].required = false;
            s.runs[0].result.as_mut().unwrap().status = GateStatus::Fail;
        },
        &[],
    );
    is(
        "for the merge itself",
        |s| {
            s.gates[0].gate.phase = Phase::PostMerge;
            s.runs.remove(0);
        },
        &[],
    );
}

#[test]
fn a_decision_counts_if_it_is_as_sure_as_the_target_asks() {
    use Presence::{Key, None, Touch, Tty};
    let levels = [None, Tty, Key, Touch];
    for (least, level) in levels.iter().flat_map(|least| levels.map(|level| (*least, level))) {
        let holds: &[(Code, &str)] = if level >= least { &[] } else { &[(Code::Approval, "lead")] };
        let approve = |s: &mut Situation| {
            s.presence = PresencePolicy { approve: least, ..PresencePolicy::all(Touch) };
            s.approvals[0].presence = level;
        };
        is(&format!("approved with {level:?} where {least:?} counts"), approve, holds);
        let holds: &[(Code, &str)] = if level >= least { &[] } else { &[(Code::Failed, "tests")] };
        let set_aside = |s: &mut Situation| {
            s.presence = PresencePolicy { r#override: least, ..PresencePolicy::default() };
            s.runs[0].result.as_mut().unwrap().status = GateStatus::Fail;
            s.overrides.push(Overridden { presence: level, ..aside("tests", scope("tree", "main", 10)) });
        };
        is(&format!("overridden with {level:?} where {least:?} counts"), set_aside, holds);
    }
    let mut seen = good();
    seen.presence.approve = Key;
    let checked = check(&seen);
    let [Reason { what, clear, .. }] = &checked.reasons[..] else { panic!("{checked:?}") };
    assert!(what.ends_with("the approval of Ada does not count (terminal): main asks for presence key"), "{what}");
    assert!(clear.contains("--sign") && checked.approvals.is_empty(), "{clear}");
}

#[test]
fn a_strict_change_needs_a_person_whatever_is_configured() {
    let strict = |s: &mut Situation| {
        s.strict = vec![".vnx/config.yaml".into()];
        s.gates.remove(2);
        s.approvals.clear();
    };
    is("nobody", strict, &[(Code::Approval, "strict")]);
    is(
        "a gate asks for one already",
        |s| {
            s.strict = vec![".vnx/config.yaml".into()];
            s.approvals.clear();
        },
        &[(Code::Approval, "lead")],
    );
    is(
        "somebody",
        |s| {
            strict(s);
            s.approvals.push(approval("a@x", scope("tree", "main", 10)));
        },
        &[],
    );
    is(
        "without any gate",
        |s| {
            strict(s);
            s.gates.clear();
            s.ungated = true;
        },
        &[(Code::Approval, "strict")],
    );
    is(
        "set aside",
        |s| {
            strict(s);
            s.overrides.push(aside("strict", scope("tree", "main", 10)));
        },
        &[],
    );
    is(
        "without a gate, by name",
        |s| {
            s.gates.clear();
            s.ungated = true;
        },
        &[],
    );
}

#[test]
fn what_is_set_aside_is_this_tree_on_this_target_for_a_while() {
    let fails = |s: &mut Situation| s.runs[0].result.as_mut().unwrap().status = GateStatus::Fail;
    let with = |scope: Scope| {
        move |s: &mut Situation| {
            fails(s);
            s.overrides.push(aside("tests", scope));
        }
    };
    is("good", with(scope("tree", "main", 10)), &[]);
    let of_other_commit = Scope { head: "other".into(), ..scope("tree", "main", 10) };
    for bad in [scope("tree", "main", 0), scope("other", "main", 10), scope("tree", "other", 10), of_other_commit] {
        is("not this", with(bad), &[(Code::Failed, "tests")]);
    }
    let all = |s: &mut Situation| {
        s.ledger = Some("broken".into());
        s.contract = Some("edited".into());
        s.nothing = Some("gone".into());
        for about in ["ledger", "contract", "branch", "dispatch"] {
            s.overrides.push(aside(about, scope("tree", "main", 10)));
        }
    };
    is("never", all, &[(Code::Ledger, "ledger"), (Code::Contract, "contract"), (Code::Nothing, "branch")]);
    is(
        "what may",
        |s| {
            s.verdict.as_mut().unwrap().decision = Decision::Reject;
            s.git_config = Some("changed".into());
            s.items.push(item(Destination::Merge, None));
            for about in ["verdict", "git-config", "items"] {
                s.overrides.push(aside(about, scope("tree", "main", 10)));
            }
        },
        &[],
    );
}

#[test]
fn a_person_settles_what_reviewers_disagree_on_and_nothing_else() {
    let with = |status, settles: Option<&str>| {
        let settles = settles.map(name);
        move |s: &mut Situation| {
            s.runs[1].result.as_mut().unwrap().status = status;
            s.runs[1].split = status == GateStatus::Unverified;
            let mut settling = s.approvals[0].clone();
            settling.given.settles = settles;
            settling.given.run = Some(s.runs[1].binding.nonce.clone());
            s.approvals.push(settling);
        }
    };
    is("settled", with(GateStatus::Unverified, Some("review")), &[]);
    is(
        "nobody has said anything",
        |s| {
            with(GateStatus::Unverified, Some("review"))(s);
            s.runs[1].split = false;
        },
        &[(Code::Unverified, "review")],
    );
    is(
        "others disagree since",
        |s| {
            with(GateStatus::Unverified, Some("review"))(s);
            s.runs[1].binding.nonce = "another".into();
        },
        &[(Code::Unverified, "review")],
    );
    is("not settled", with(GateStatus::Unverified, None), &[(Code::Unverified, "review")]);
    is("another one", with(GateStatus::Unverified, Some("tests")), &[(Code::Unverified, "review")]);
    is(
        "one that settles is no approval of the rest",
        |s| s.approvals[0].given.settles = Some(name("review")),
        &[(Code::Approval, "lead")],
    );
    is("all said no", with(GateStatus::Fail, Some("review")), &[(Code::Failed, "review")]);
}

#[test]
fn the_newest_answer_to_the_same_question_counts() {
    is(
        "mended",
        |s| {
            let mut first = s.runs[0].clone();
            first.result.as_mut().unwrap().status = GateStatus::Fail;
            s.runs.insert(0, first);
        },
        &[],
    );
    is(
        "spoilt",
        |s| {
            let mut last = s.runs[0].clone();
            last.result.as_mut().unwrap().status = GateStatus::Fail;
            s.runs.push(last);
        },
        &[(Code::Failed, "tests")],
    );
}

#[test]
fn what_was_cancelled_takes_nothing_back() {
    for (said, held) in [(GateStatus::Pass, &[][..]), (GateStatus::Fail, &[(Code::Failed, "tests")])] {
        let then_cancelled = |s: &mut Situation| {
            s.runs[0].result.as_mut().unwrap().status = said;
            let mut last = s.runs[0].clone();
            let result = last.result.as_mut().unwrap();
            (result.status, result.reason) = (GateStatus::Unverified, CANCELLED.to_owned());
            s.runs.push(last);
        };
        is("cancelled after it", then_cancelled, held);
        let only = |s: &mut Situation| {
            then_cancelled(s);
            s.runs.remove(0);
        };
        is("only cancelled", only, &[(Code::Missing, "tests")]);
    }
    let mut seen = good();
    seen.runs[1].split = true;
    let result = seen.runs[1].result.as_mut().unwrap();
    (result.status, result.reason) = (GateStatus::Unverified, "one says no".to_owned());
    assert!(seen.split(&name("review")).is_some());
    seen.runs[1].result.as_mut().unwrap().reason = CANCELLED.to_owned();
    assert!(seen.split(&name("review")).is_none(), "nothing would come of settling it");
}

#[test]
fn only_a_person_is_missing() {
    let mut seen = good();
    seen.approvals.clear();
    assert!(check(&seen).waits_for_a_person());
    seen.runs.clear();
    assert!(!check(&seen).waits_for_a_person());
    assert!(!check(&good()).waits_for_a_person());
}

#[test]
fn what_holds_a_verdict_is_what_is_required_and_no_persons_word() {
    let mut seen = good();
    let probe = applied("probe", Gate { probe: Some(super::Probe::default()), ..Gate::default() });
    seen.gates.push(probe);
    seen.approvals.clear();
    seen.runs[1].result.as_mut().unwrap().status = GateStatus::Fail;
    let held = |seen: &Situation| {
        let held = check(seen).held_by();
        held.into_iter().map(|held| (held.gate.to_string(), held.is_probe, held.reason)).collect::<Vec<_>>()
    };
    let said = ("review".to_owned(), false, "said".to_owned());
    // The probe may well wait for it.
    assert_eq!(held(&seen), [said]);
    seen.runs[1].result.as_mut().unwrap().status = GateStatus::Pass;
    assert_eq!(held(&seen), [("probe".to_owned(), true, "it was not run".to_owned())]);
    seen.gates[3].required = false;
    assert_eq!(held(&seen), []);
    assert_eq!(held(&good()), []);
}
