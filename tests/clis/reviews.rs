//! What the CLIs are as reviewers, and the whole way from a dispatch to a remote that has it.

use super::*;

const PASS: &str = r#"{"schema": "vnx.review/1", "nonce": "{nonce}", "verdict": "pass", "summary": "I read all of it.", "findings": []}"#;
const FAIL: &str = r#"{"schema": "vnx.review/1", "nonce": "{nonce}", "verdict": "fail", "summary": "It loses data.",
  "findings": [{"severity": "blocker", "file": "f", "line": 1, "claim": "the old value is lost", "fix": "keep it"}]}"#;

/// Gives main this configuration.
fn commit(world: &World, config: &str) {
    world.config(&format!("tmux: {{panes: off}}\n{config}"));
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "-qm", "configuration"]);
}

/// What a reviewer's answer came to.
fn reviewed(cli: Cli, answer: &str) -> (World, serde_json::Value) {
    let stub = Stub::start(vec![Step::Say(answer.into())]);
    let world = world(cli, &stub.url());
    world.git(&["add", ".vnx"]);
    commit(&world, &format!("gates:\n  review: {{review: {{providers: [{}], model: stub-model}}}}\n", cli.name()));
    let script = "echo 1 > f; git add f; git commit -qm work";
    world.script(script).expect(0);
    let id = world.receipts().iter().rev().find_map(|r| r["dispatch"].as_str().map(str::to_owned)).unwrap();
    world.vnx(&["gate", "run", &id]);
    let said = world.last("gate.resulted");
    assert!(stub.heard("echo 1 > f") && stub.heard("+++ b/f"), "it was not shown what was asked and done");
    world.assert_nothing_left();
    (world, said)
}

fn its_pass_counts(cli: Cli) {
    let (world, said) = reviewed(cli, PASS);
    assert_eq!(said["status"], "pass", "{said}\n{}", told(&world, &world.last_id()));
    assert!(said["usage"]["output_tokens"].as_u64().is_some_and(|n| n > 0), "{said}");
    world.assert_verified();
}

fn its_fail_holds_and_becomes_an_item(cli: Cli) {
    let (world, said) = reviewed(cli, FAIL);
    assert_eq!(said["status"], "fail", "{said}");
    let items = world.vnx(&["items", "list", "--json"]).expect(0).json();
    assert_eq!(items["items"][0]["claim"], "blocker: the old value is lost", "{items:#}");
    assert_eq!(items["items"][0]["destination"], "merge");
}

fn its_prose_holds(cli: Cli) {
    let (_, said) = reviewed(cli, "Looks good to me, I would let it pass.");
    assert_eq!(said["status"], "unverified", "{said}");
}

for_each! {
    once: {
        a_pass => its_pass_counts;
        a_fail => its_fail_holds_and_becomes_an_item;
        prose => its_prose_holds;
    }
}

fn plan_of_the_reviewer(world: &World) -> String {
    let receipts = world.receipts();
    let claimed = receipts.iter().rev().find(|r| r["kind"] == "dispatch.claimed").unwrap();
    let folder = world.state().join("dispatches").join(claimed["dispatch"].as_str().unwrap());
    std::fs::read_to_string(folder.join("plan.json")).unwrap()
}

/// Claude Code wants the answer by a tool of its own then, which the stub does not know; it takes the words as well.
#[test]
fn claude_is_held_to_the_schema_in_its_headless_lane() {
    let stub = Stub::start(vec![Step::Say(PASS.into())]);
    let world = world(Cli::Claude, &stub.url());
    world.git(&["add", ".vnx"]);
    commit(
        &world,
        "defaults: {lane: headless}\ngates:\n  review: {review: {providers: [claude], model: stub-model}}\n",
    );
    world.script("echo 1 > f; git add f; git commit -qm work").expect(0);
    let id = world.last_id();
    world.vnx(&["gate", "run", &id]);
    assert_eq!(world.last("gate.resulted")["status"], "pass");
    assert!(plan_of_the_reviewer(&world).contains("--json-schema"));
}

/// CLIs that can be held to a schema are.
#[test]
fn codex_is_held_to_the_schema() {
    let (world, said) = reviewed(Cli::Codex, PASS);
    assert_eq!(said["status"], "pass", "{said}");
    let plan = plan_of_the_reviewer(&world);
    assert!(plan.contains("--output-schema") && plan.contains("vnx.review/1"), "{plan}");
}

/// A dispatch by codex, reviewed by claude and gemini, probed, approved, merged, anchored, pushed, and verified from a
/// fresh clone.
#[test]
fn the_whole_way() {
    let worker = Stub::start(vec![
        Step::Write { path: "www/index.html".into(), content: "hello from codex\n".into() },
        Step::Bash("git add . && git commit -q -m 'feat: say hello'".into()),
        Step::Say("Done.".into()),
    ]);
    let reader = Stub::start(vec![Step::Say(PASS.into())]);
    let mut world = world(Cli::Codex, &worker.url());
    for cli in [Cli::Claude, Cli::Gemini] {
        set_up(&mut world, cli, &reader.url());
    }
    let remote = world.root.join("remote.git");
    world.git(&["init", "-q", "--bare", remote.to_str().unwrap()]);
    world.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
    commit(
        &world,
        "gates:\n  review: {review: {providers: [claude, gemini], models: {gemini: stub-model}}}\n  lead: {human: {}}\n  smoke:\n    probe:\n      \
         start: 'cd www && exec python3 -m http.server $VNX_PORT --bind 127.0.0.1'\n      ready: {port: $VNX_PORT}\n      \
         checks: [{http: 'http://127.0.0.1:$VNX_PORT/', contains: hello from codex}]\n",
    );
    dispatch(&world, Cli::Codex, Lane::Headless, &[]).expect(0);
    let id = world.last_id();
    world.vnx(&["gate", "run", &id]).expect(0);
    assert_eq!(world.vnx(&["merge", &id]).code, 3, "a person is missing");
    world.person(&["approve", &id, "--reason", "I read it too"]).expect(0);
    world.vnx(&["gate-check", &id]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    world.git(&["push", "-q", "origin", "main", "refs/vnx/anchors"]);
    world.assert_nothing_left();
    // Somebody else, who has only the remote and the ledger's files.
    let clone = world.root.join("clone");
    world.git(&["clone", "-q", remote.to_str().unwrap(), clone.to_str().unwrap()]);
    world.git_in(&clone, &["fetch", "-q", "origin", "refs/vnx/anchors:refs/vnx/anchors"]);
    assert_eq!(std::fs::read_to_string(clone.join("www/index.html")).unwrap(), "hello from codex\n");
    let state = world.state();
    world.set("VNX_STATE_DIR", &state);
    world.vnx_in(&clone, &["audit-chain", "verify", "--require-anchor"]).expect(0);
    let landed = world.git_in(&clone, &["log", "-1", "--format=%(trailers:key=Vnx-Dispatch,valueonly)"]);
    assert_eq!(landed.trim(), id);
}
