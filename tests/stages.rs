//! Proposals that persons let begin, verdicts that explain themselves, and commits that lead back to their proof.

use crate::common::World;
use crate::gates::{TESTS, check, done, folder, project};

const PROPOSE: [&str; 5] = ["stage", "--provider", "shell", "--agent", "hello-world"];

#[test]
fn a_proposal_begins_when_a_person_says_so() {
    let world = World::new();
    let script = "echo 1 > f; git add f; git commit -qm x";
    let id = world.vnx(&[&PROPOSE[..], &["-i", script]].concat()).expect(0).out.trim().to_owned();
    assert_eq!(world.last("stage.proposed")["proposal"], id.as_str());
    assert_eq!(world.count("dispatch.requested"), 0);
    world.vnx(&["gate-check", &id]).expect(2);
    let listed = world.vnx(&["promote", "--json"]).expect(0).json();
    assert_eq!(listed["proposals"][0]["request"]["instruction"], script, "{listed:#}");
    let status = world.vnx(&["status"]).expect(0).out;
    assert!(status.contains("1 dispatch waits for a person; see `vnx promote`"), "{status}");
    assert_eq!(world.vnx(&["status", "--json"]).expect(0).json()["proposed"], 1);
    world.person(&["promote", "@last", "--reason", "it is due"]).expect(0);
    assert_eq!(world.last("stage.promoted")["by"]["email"], "test@vnx.invalid");
    assert_eq!(world.last_id(), id);
    assert!(!world.vnx(&["status"]).expect(0).out.contains("waits for a person"));
    assert!(world.vnx(&["promote"]).expect(0).err.contains("nothing is proposed"));
    world.person(&["promote", &id]).expect(2);
    world.assert_nothing_left();
    world.assert_verified();
}

/// Whoever promotes answers for every line of it, and is told how to read them.
#[test]
fn all_of_a_proposal_can_be_read() {
    let world = World::new();
    world.vnx(&[&PROPOSE[..], &["-i", "true\nrm -r all"]].concat()).expect(0);
    let said = world.vnx(&["promote"]).expect(0).out;
    assert!(said.contains("true rm -r all (`vnx promote -v` shows all of it)"), "{said}");
    let said = world.vnx(&["promote", "-v"]).expect(0).out;
    assert!(said.contains("\n    rm -r all") && said.contains("\n  agent: hello-world"), "{said}");
}

#[test]
fn a_proposal_that_was_edited_or_that_a_worker_promotes_does_not_begin() {
    let world = World::new();
    let id = world.vnx(&[&PROPOSE[..], &["-i", "true"]].concat()).expect(0).out.trim().to_owned();
    let file = world.state().join("staged").join(&id).join("request.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"true\"", "\"false\"")).unwrap();
    let refused = world.person(&["promote", &id]).expect(3);
    assert!(refused.err.contains("is not what was proposed"), "{}", refused.err);
    std::fs::write(&file, text).unwrap();
    let vnx = World::binary();
    let repo = world.repo.display();
    // A worker may propose, and no more.
    world.script(&format!(
        "cd {repo}; {vnx} promote {id} 2>{0}/said || true; {vnx} stage --provider shell --agent hello-world -i true",
        world.root.display()
    ));
    let said = std::fs::read_to_string(world.root.join("said")).unwrap();
    assert!(said.contains("a worker looks and proposes, and does nothing else"), "{said}");
    assert_eq!(world.last("stage.proposed")["from"], world.last_id().as_str());
    assert_eq!(world.count("stage.promoted"), 0);
    world.person(&["promote", &id, "--withdraw"]).expect(0);
    world.vnx(&["stage", "--agent", "none", "-i", "x"]).expect(2);
}

#[test]
fn a_verdict_says_why() {
    let world = project("gates:\n  smoke: {probe: {checks: [{file: g}]}}\n  tests: {command: 'true'}\n");
    let id = done(&world, "echo 1 > f");
    let why = |with: Option<&str>| {
        let why = world.vnx(&["show", &id, "--why", "--json"]).expect(0).json();
        let rules = why["rules"].as_array().unwrap();
        assert_eq!(rules.iter().filter(|r| r["answer"] == "decided").count(), 1, "{why:#}");
        assert_eq!(rules.last().unwrap()["rule"], "done");
        assert_eq!(why["verdict"]["decision"], "accept");
        assert_eq!(why["with_gates"]["outcome"].as_str(), with, "{why:#}");
    };
    why(Some("probe_failed"));
    world.vnx(&["gate", "run", &id]).expect(1);
    why(Some("probe_failed"));
    world.person(&["gate", "override", &id, "smoke", "--reason", "not yet"]).expect(0);
    why(Some("done"));
    let words = world.vnx(&["show", &id, "--why"]).expect(0).out;
    assert!(words.contains("nothing speaks against it") && words.contains("smoke"), "{words}");
    world.script("exit 3").expect(1);
    let words = world.vnx(&["show", "--why"]).expect(0).out;
    assert!(words.contains("yes  failed"), "{words}");
    let file = folder(&world, &id).join("verdict.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("1 commit", "2 commits")).unwrap();
    world.vnx(&["show", &id, "--why"]).expect(5);
}

#[test]
fn a_commit_leads_back_to_what_let_it_land() {
    let world = project(TESTS);
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    let landed = world.git(&["rev-parse", "main"]);
    world.git(&["commit", "-q", "--allow-empty", "-m", "by hand"]);
    let checked = world.vnx(&["gate-check", "--commit", &landed, "--json"]).expect(0).json();
    assert_eq!((checked["go"].as_bool(), checked["dispatch"].as_str()), (Some(true), Some(id.as_str())), "{checked:#}");
    // One by hand, one with somebody else's trailers, one that is none.
    world.vnx(&["gate-check", "--commit", "main"]).expect(3);
    world.vnx(&["gate-check", "--commit", "none"]).expect(2);
    let message = world.git(&["log", "-1", "--format=%B", &landed]);
    world.git(&["commit", "-q", "--allow-empty", "-m", &message]);
    let refused = world.vnx(&["gate-check", "--commit", "main"]).expect(3);
    assert!(refused.err.contains("does not know that"), "{}", refused.err);
    // What let it land is gone, or was edited.
    let gates = folder(&world, &id).join("gates");
    let run = gates.join(crate::common::names(&gates).pop().unwrap());
    std::fs::write(run.join("report.txt"), "better").unwrap();
    let held = world.vnx(&["gate-check", "--commit", &landed, "--json"]).expect(1).json();
    assert_eq!(held["reasons"][0]["code"], "evidence", "{held:#}");
    // A clone has no ledger, and says so.
    let clone = world.root.join("clone");
    world.git(&["clone", "-q", world.repo.to_str().unwrap(), clone.to_str().unwrap()]);
    let nothing = world.vnx_in(&clone, &["gate-check", "--commit", &landed]).expect(5);
    assert!(nothing.err.contains("no ledger"), "{}", nothing.err);
    world.vnx(&["revert", &id, "--reason", "too early"]).expect(1);
}

/// Without a forge the branch is pushed, the rest is said, and nothing is decided by it.
#[test]
fn a_pull_request_needs_a_forge_and_decides_nothing() {
    let world = project(TESTS);
    let id = done(&world, "echo 1 > f");
    let nowhere = world.vnx(&["pr", &id]).expect(5);
    assert!(nowhere.err.contains("was not pushed to origin"), "{}", nowhere.err);
    let remote = world.root.join("remote.git");
    world.git(&["init", "-q", "--bare", remote.to_str().unwrap()]);
    world.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
    let (before, receipts) = (check(&world, &id), world.receipts().len());
    let without = world.vnx(&["pr", &id]).expect(5);
    assert!(without.err.contains("gh is not installed"), "{}", without.err);
    let pushed = world.git(&["ls-remote", "origin", &format!("refs/heads/vnx/{id}")]);
    assert!(pushed.starts_with(&world.git(&["rev-parse", &format!("vnx/{id}")])), "{pushed}");
    assert_eq!(world.receipts().len(), receipts);
    assert_eq!(check(&world, &id)["reasons"], before["reasons"]);
}
