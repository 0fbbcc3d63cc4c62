//! The words of the decision.

use super::*;

#[test]
fn what_is_told_names_who_and_what() {
    let mut seen = good();
    seen.overrides.push(aside("review", scope("tree", "main", 10)));
    let checked = check(&seen);
    assert_eq!((checked.overrides[0].by.as_str(), checked.overrides[0].scope.as_str()), ("Ada <a@x>", "review"));
    assert_eq!((checked.approvals[0].by.as_str(), checked.approvals[0].scope.as_str()), ("Ada <a@x>", "approval"));
    assert_eq!(checked.gates.iter().map(|g| g.standing.word()).collect::<Vec<_>>(), ["pass", "set aside", "pass"]);
    assert_eq!(
        (short("0123456789abcdef"), short("0123"), short_ref("refs/heads/a/b")),
        ("0123456789ab", "0123", "a/b")
    );
    seen.approvals.clear();
    let strict = |paths: &[&str]| {
        let mut seen = Situation { strict: paths.iter().map(|&path| path.to_owned()).collect(), ..seen.clone() };
        seen.gates.remove(2);
        check(&seen).reasons[0].what.clone()
    };
    assert!(strict(&["a"]).starts_with("it changes \"a\", which"), "{}", strict(&["a"]));
    assert!(strict(&["a", "b", "c"]).starts_with("it changes \"a\" and 2 more, which"));
    // What reviewers cost is that gate's alone, all its runs together.
    let mut seen = good();
    for (run, cost) in [(0, 7), (1, 30), (1, 12)] {
        let mut more = seen.runs[run].clone();
        more.result.as_mut().unwrap().usage =
            Some(crate::domain::event::Usage { cost_micro_usd: Some(cost), ..Default::default() });
        seen.runs.push(more);
    }
    assert_eq!(check(&seen).gates.iter().map(|g| g.cost_micro_usd).collect::<Vec<_>>(), [Some(7), Some(42), None]);
}

#[test]
fn what_is_missing_of_approvals_is_said() {
    let words = |change: &dyn Fn(&mut Situation)| {
        let mut seen = good();
        change(&mut seen);
        check(&seen).reasons[0].what.clone()
    };
    let human = |s: &mut Situation, approvals, signed| {
        s.gates[2].gate.human = Some(crate::domain::gate::Human { approvals, signed });
    };
    assert_eq!(words(&|s| s.approvals.clear()), "gate lead: nobody has approved this commit");
    assert_eq!(words(&|s| human(s, 3, false)), "gate lead: 1 of 3 persons have approved this commit");
    assert_eq!(
        words(&|s| human(s, 1, true)),
        "gate lead: nobody has approved this commit; the approval is not signed by anybody who may"
    );
    // Where nobody asks for a signature, none is missed; and one that is for something else is not unsigned.
    assert!(
        words(&|s| s.approvals[0].given.scope.tree = "x".into())
            .ends_with("; the approval of Ada is for head, and head shall land")
    );
    assert_eq!(
        words(&|s| {
            human(s, 2, true);
            s.approvals[0].signer = Some("ada".into());
        }),
        "gate lead: 1 of 2 persons have approved this commit"
    );
}
