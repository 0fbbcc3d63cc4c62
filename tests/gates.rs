//! From done to landed, the first half: what a gate says counts for exactly what it was asked, and nothing that
//! somebody edits, forges or repeats counts at all.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::World;

/// A project whose main has this configuration.
pub fn project(config: &str) -> World {
    let world = World::new();
    commit(&world, config);
    world
}

/// Gives main this configuration.
pub fn commit(world: &World, config: &str) {
    world.config(&format!("tmux: {{panes: off}}\n{config}"));
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "-qm", "configuration"]);
}

/// A dispatch whose worker did this and committed it.
pub fn done(world: &World, script: &str) -> String {
    world.script(&format!("{script}\ngit add -A; git commit -qm work")).expect(0);
    world.last_id()
}

/// Everything but the branch: as a gate sees a commit.
pub const TESTS: &str = "gates:\n  tests: {command: 'test -e f'}\n";

#[track_caller]
pub fn check(world: &World, id: &str) -> Value {
    let run = world.vnx(&["gate-check", id, "--json"]);
    let value = run.json();
    assert_eq!(run.code, i32::from(value["go"] != true), "{value:#}");
    value
}

/// Why it is held: codes, and what they are about.
#[track_caller]
pub fn reasons(world: &World, id: &str) -> Vec<(String, String)> {
    let checked = check(world, id);
    let text = |r: &Value, key: &str| r[key].as_str().unwrap().to_owned();
    let all = checked["reasons"].as_array().unwrap();
    assert!(all.iter().all(|r| !text(r, "what").is_empty() && !text(r, "clear").is_empty()), "{checked:#}");
    all.iter().map(|r| (text(r, "code"), text(r, "about"))).collect()
}

#[track_caller]
pub fn holds(world: &World, id: &str, code: &str, about: &str) {
    let before = world.git(&["rev-parse", "main"]);
    let all = reasons(world, id);
    assert!(all.contains(&(code.to_owned(), about.to_owned())), "{code} {about}: {all:?}");
    let merge = world.vnx(&["merge", id]);
    assert!(matches!(merge.code, 1 | 3), "{}: {}{}", merge.code, merge.out, merge.err);
    assert_eq!(world.git(&["rev-parse", "main"]), before, "{}", merge.out);
    assert_eq!(world.count("merge.landed"), 0);
}

#[track_caller]
pub fn goes(world: &World, id: &str) {
    assert_eq!(reasons(world, id), Vec::new());
}

pub fn folder(world: &World, id: &str) -> PathBuf {
    world.state().join("dispatches").join(id)
}

/// The folder of the last run of a gate.
fn run_of(world: &World, id: &str, gate: &str) -> PathBuf {
    let receipts = world.receipts();
    let said = receipts.iter().rev().find(|r| r["kind"] == "gate.resulted" && r["data"]["gate"] == gate).unwrap();
    folder(world, id).join("gates").join(said["data"]["nonce"].as_str().unwrap())
}

fn edit(path: &std::path::Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_command_is_run_in_a_clean_checkout_and_its_result_counts() {
    let world = project(
        "gates:\n  tests: {command: 'test -e f && test ! -e scratch && echo 3 passed in 0.1s && git rev-parse HEAD'}\n",
    );
    std::fs::write(world.repo.join("scratch"), "of the main checkout").unwrap();
    let id = done(&world, "echo 1 > f");
    holds(&world, &id, "missing", "tests");
    let run = world.vnx(&["gate", "run", &id, "--json"]).expect(0).json();
    assert_eq!(run["ran"][0]["result"]["status"], "pass", "{run:#}");
    assert_eq!(run["ran"][0]["result"]["tests"]["passed"], 3);
    goes(&world, &id);
    let shown = world.vnx(&["gate", "show", &id, "tests"]).expect(0).out;
    assert!(shown.contains(&world.git(&["rev-parse", &format!("vnx/{id}")])), "{shown}");
    let asked = world.last("gate.requested");
    let said = world.last("gate.resulted");
    assert_eq!(asked["binding"]["nonce"], said["nonce"]);
    assert_eq!(asked["binding"]["base"], world.git(&["rev-parse", "main"]).as_str());
    world.assert_nothing_left();
    world.assert_verified();
    assert_eq!(world.vnx(&["audit-chain", "verify", "--require-anchor"]).code, 0, "what was said is anchored");
}

#[test]
fn a_command_that_fails_holds_and_opens_an_item_until_it_passes() {
    let world = project("gates:\n  tests: {command: 'test \"$(cat f)\" = 2'}\n");
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(1);
    holds(&world, &id, "failed", "tests");
    let items = world.vnx(&["items", "list", "--json"]).expect(0).json();
    assert_eq!(items["items"].as_array().unwrap().len(), 1, "{items:#}");
    let tree = world.root.join("mend");
    world.git(&["worktree", "add", "-q", tree.to_str().unwrap(), &format!("vnx/{id}")]);
    std::fs::write(tree.join("f"), "2\n").unwrap();
    world.git_in(&tree, &["commit", "-qam", "mended"]);
    holds(&world, &id, "stale", "tests");
    world.vnx(&["gate", "run", &id]).expect(0);
    goes(&world, &id);
    let items = world.vnx(&["items", "list", "--json"]).expect(0).json();
    assert_eq!(items["items"].as_array().unwrap().len(), 0, "{items:#}");
    world.git(&["worktree", "remove", tree.to_str().unwrap()]);
    world.assert_verified();
}

#[test]
fn gates_wait_for_each_other_and_run_side_by_side() {
    let world = project(
        "gates:\n  a: {command: 'touch $VNX_MEET/a; until [ -e $VNX_MEET/b ]; do sleep 0.01; done'}\n  \
         b: {command: 'touch $VNX_MEET/b; until [ -e $VNX_MEET/a ]; do sleep 0.01; done'}\n  \
         c: {command: 'exit 3', after: [a]}\n  d: {command: 'true', after: [c]}\n  \
         e: {command: 'false', required: false}\n",
    );
    let meet = world.root.join("meet");
    std::fs::create_dir(&meet).unwrap();
    let config = std::fs::read_to_string(world.repo.join(".vnx/config.yaml")).unwrap();
    std::fs::write(world.repo.join(".vnx/config.yaml"), config.replace("$VNX_MEET", meet.to_str().unwrap())).unwrap();
    world.git(&["commit", "-qam", "where they meet"]);
    let id = done(&world, "echo 1 > f");
    let run = world.vnx(&["gate", "run", &id, "--jobs", "2", "--json"]).expect(1).json();
    let said = |name: &str| {
        let all = run["ran"].as_array().unwrap();
        let one = all.iter().find(|r| r["gate"] == name).unwrap();
        one["result"]["status"].as_str().unwrap_or("not run").to_owned()
    };
    let all = ["a", "b", "c", "d", "e"].map(said);
    assert_eq!(all, ["pass", "pass", "fail", "not run", "fail"], "{run:#}");
    assert_eq!(reasons(&world, &id), [("failed".to_owned(), "c".to_owned()), ("missing".to_owned(), "d".to_owned())]);
    world.assert_nothing_left();
}

#[test]
fn a_deadline_ends_a_gate_and_all_that_it_started() {
    let world = project("gates:\n  slow: {command: 'setsid sleep 600 & sleep 600', timeout: 300ms, retries: 1}\n");
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(1);
    let said = world.last("gate.resulted");
    assert_eq!((said["status"].as_str(), said["tries"].as_u64()), (Some("fail"), Some(2)), "{said}");
    world.assert_nothing_left();
}

#[test]
fn a_runner_that_is_killed_leaves_nothing_and_says_nothing_good() {
    let world = project("gates:\n  tests: {command: 'touch ../../../started; sleep 600'}\n");
    let id = done(&world, "echo 1 > f");
    let mut run = world.start(&["gate", "run", &id]);
    world.until("the gate to run", || world.root.join("started").exists());
    assert_eq!(check(&world, &id)["gates"][0]["standing"], "running");
    for (pid, command) in world.processes() {
        if command.contains(" __gate-runner ") {
            rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
                .unwrap();
        }
    }
    assert_eq!(run.wait().unwrap().code(), Some(1));
    let said = world.last("gate.resulted");
    assert_eq!(said["status"], "unverified", "{said}");
    holds(&world, &id, "unverified", "tests");
    world.assert_nothing_left();
}

#[test]
fn a_probe_starts_asks_and_stops() {
    let probe = |check: &str| {
        format!(
            "gates:\n  smoke:\n    probe:\n      start: 'cd www && exec python3 -m http.server $VNX_PORT --bind 127.0.0.1'\n      \
             ready: {{port: $VNX_PORT}}\n      checks:\n        - {{http: 'http://127.0.0.1:$VNX_PORT/index.html', contains: hello}}\n{check}"
        )
    };
    let world = project(&probe("        - {run: 'test -d www'}\n        - {file: www/index.html, contains: hello}\n"));
    let id = done(&world, "mkdir www; echo hello > www/index.html");
    world.vnx(&["gate", "run", &id]).expect(0);
    goes(&world, &id);
    world.assert_nothing_left();
    for (bad, why) in [
        ("        - {http: 'http://127.0.0.1:$VNX_PORT/none'}\n", "status 404"),
        ("        - {http: 'http://127.0.0.1:1/'}\n", "refused"),
        ("        - {run: 'exit 4'}\n", "exit status: 4"),
        ("        - {file: www/index.html, contains: bye}\n", "without"),
        ("        - {file: none}\n", "no such file"),
    ] {
        commit(&world, &probe(bad));
        world.vnx(&["gate", "run", &id]).expect(1);
        holds(&world, &id, "failed", "smoke");
        let said = world.last("gate.resulted");
        assert!(said["reason"].as_str().unwrap().to_lowercase().contains(why), "{why}: {said}");
    }
    for (start, why) in [("exit 3", "it ended before it was ready"), ("sleep 600", "not within")] {
        commit(
            &world,
            &format!(
                "gates:\n  smoke: {{probe: {{start: '{start}', ready: {{line: up, within: 200ms}}, checks: [{{file: f}}]}}}}\n"
            ),
        );
        world.vnx(&["gate", "run", &id]).expect(1);
        let said = world.last("gate.resulted");
        let reason = said["reason"].as_str().unwrap();
        assert!(reason.contains(why) || reason.contains("said nothing of that"), "{why}: {said}");
    }
    world.assert_nothing_left();
    world.assert_verified();
}

/// The ledger and the files of the run are all there is: what is derived from them can go, and comes back the same.
#[test]
fn what_a_probe_said_survives_and_is_the_same_everywhere() {
    let probe = "probe: {start: 'echo up; exec sleep 60', ready: {line: up}, checks: [{file: f}]}";
    let world = project(&format!("gates:\n  alive: {{{probe}}}\n"));
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(0);
    let said = |args: &[&str]| world.vnx(args).expect(0).json();
    let all = || {
        [
            said(&["gate", "status", &id, "--json"]),
            said(&["gate", "show", &id, "alive", "--json"]),
            said(&["show", &id, "--why", "--json"]),
        ]
    };
    let before = all();
    let nonce = world.last("gate.resulted")["nonce"].clone();
    assert!(before.iter().all(|said| said.to_string().contains("pass")), "{before:#?}");
    assert_eq!(before[1]["said"]["nonce"], nonce, "{:#}", before[1]);
    goes(&world, &id);
    world.vnx(&["rebuild"]).expect(0);
    assert_eq!(all(), before);
    for name in crate::common::names(&world.state()) {
        if name.contains("sqlite") {
            std::fs::remove_file(world.state().join(name)).unwrap();
        }
    }
    // Another dispatch, and its worker's work, change nothing of it.
    done(&world, "echo 2 > g");
    assert_eq!(all(), before);
    goes(&world, &id);
}

#[test]
fn a_ci_counts_for_exactly_this_commit() {
    let world = project("gates:\n  ci: {ci: {file: ../ci.json}}\n  asked: {ci: {command: 'cat ../../../ci.json'}}\n");
    let id = done(&world, "echo 1 > f");
    let head = world.git(&["rev-parse", &format!("vnx/{id}")]);
    let base = world.git(&["rev-parse", "main"]);
    let say = |text: &str| std::fs::write(world.root.join("ci.json"), text).unwrap();
    let asks = || world.vnx(&["gate", "run", &id]).code;
    assert_eq!(asks(), 1, "absence is no pass");
    holds(&world, &id, "unverified", "ci");
    for (text, code) in [
        ("", "unverified"),
        ("{}", "unverified"),
        ("pass", "unverified"),
        (&format!("{{\"commit\": \"{base}\", \"status\": \"pass\"}}"), "unverified"),
        (&format!("{{\"commit\": \"{head}\", \"status\": \"pending\"}}"), "unverified"),
        (&format!("{{\"commit\": \"{head}\", \"status\": \"pass\", \"status\": \"pass\"}}"), "unverified"),
        (&format!("{{\"commit\": \"{head}\", \"status\": \"fail\"}}"), "failed"),
    ] {
        say(text);
        assert_eq!(asks(), 1, "{text}");
        for gate in ["ci", "asked"] {
            assert!(reasons(&world, &id).contains(&(code.to_owned(), gate.to_owned())), "{text}");
        }
    }
    say(&format!("{{\"commit\": \"{head}\", \"status\": \"pass\", \"url\": \"https://ci.invalid/1\"}}"));
    assert_eq!(asks(), 0);
    goes(&world, &id);
    world.assert_verified();
}

#[test]
fn a_forge_that_cannot_be_asked_says_so() {
    let world = project("gates:\n  ci: {ci: {forge: build}}\n");
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(1);
    let said = world.last("gate.resulted");
    assert!(said["reason"].as_str().unwrap().contains("gh"), "{said}");
    holds(&world, &id, "unverified", "ci");
}

#[test]
fn gates_apply_by_paths_agents_classes_and_tracks() {
    let world = World::new();
    world.agent("builder", "class: backend\nprovider: shell");
    commit(
        &world,
        "gates:\n  docs: {command: 'true', when: {paths: ['docs/**']}}\n  all: {command: 'true'}\n  \
         other: {command: 'true', when: {agents: [hello-world]}}\n  backend: {command: 'true', when: {classes: [backend]}}\n  \
         track: {command: 'true', when: {tracks: [t1]}}\n  risky: {command: 'true', when: {strict: true}}\n",
    );
    let gates = |script: &str, more: &[&str]| {
        let script = format!("{script}; git add -A; git commit -qm x");
        let args = ["dispatch-agent", "--no-pane", "--agent", "builder", "-i", &script];
        world.vnx(&[&args, more].concat()).expect(0);
        let checked = check(&world, &world.last_id());
        let names = checked["gates"].as_array().unwrap().iter().map(|g| g["gate"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), checked)
    };
    assert_eq!(gates("echo 1 > f", &[]).0, "all backend");
    assert_eq!(gates("mkdir docs; echo 1 > docs/f", &["--track", "t1"]).0, "all backend docs track");
    let (names, checked) = gates("mkdir -p db/migrations; echo 1 > db/migrations/1.py", &[]);
    assert_eq!(names, "all backend docs other risky track", "a strict change is held to everything");
    assert_eq!(checked["strict"][0], "db/migrations/1.py");
    assert!(checked["reasons"].as_array().unwrap().iter().any(|r| r["about"] == "strict"), "{checked:#}");
}

#[test]
fn no_gate_is_no_way_in() {
    let world = project("");
    let id = done(&world, "echo 1 > f");
    holds(&world, &id, "no_gate", "no-gate");
    commit(&world, "gates:\n  advice: {command: 'true', required: false}\n");
    holds(&world, &id, "no_gate", "no-gate");
    commit(&world, "merge: {ungated: [test-engineer]}\n");
    holds(&world, &id, "no_gate", "no-gate");
    commit(&world, "merge: {ungated: [hello-world]}\n");
    goes(&world, &id);
    // What is not committed says nothing.
    world.git(&["checkout", "-q", "--orphan", "other"]);
    world.git(&["commit", "-qm", "all but this", "--", "README.md"]);
    let held = world.vnx(&["gate-check", &id, "--into", "other"]).expect(3);
    assert!(held.err.contains("other has no .vnx/config.yaml"), "{}", held.err);
    world.assert_verified();
}

#[test]
fn a_person_approves_a_tree_for_a_while() {
    let world = project("gates:\n  lead: {human: {approvals: 2}}\n");
    let id = done(&world, "echo 1 > f");
    holds(&world, &id, "approval", "lead");
    assert_eq!(world.vnx(&["merge", &id]).code, 3, "only a person is missing");
    world.person(&["approve", &id, "--reason", "good"]).expect(0);
    world.person(&["approve", &id, "--reason", "very good"]).expect(0);
    holds(&world, &id, "approval", "lead");
    world.git(&["config", "--global", "user.email", "other@vnx.invalid"]);
    world.person(&["approve", &id, "--reason", "good too"]).expect(0);
    goes(&world, &id);
    // A moved target leaves the tree as it is; a new commit does not.
    world.git(&["commit", "-q", "--allow-empty", "-m", "more"]);
    goes(&world, &id);
    let branch = format!("refs/heads/vnx/{id}");
    let new = world.git(&["commit-tree", "main^{tree}", "-p", &branch, "-m", "sneaked in"]);
    world.git(&["update-ref", &branch, &new]);
    holds(&world, &id, "approval", "lead");
    for (args, code) in [(["--reason", ""], 2), (["--reason", "x"], 0)] {
        world.person(&[&["approve", &id][..], &args].concat()).expect(code);
    }
    world.assert_verified();
}

#[test]
fn an_approval_expires() {
    let world = project("gates:\n  lead: {human: {}}\n");
    let id = done(&world, "echo 1 > f");
    world.person(&["approve", &id, "--reason", "for a moment", "--for", "1ms"]).expect(0);
    holds(&world, &id, "approval", "lead");
    let checked = check(&world, &id);
    assert!(checked["reasons"][0]["what"].as_str().unwrap().contains("has expired"), "{checked:#}");
}

#[test]
fn a_signed_approval_is_held_against_the_targets_signers() {
    let world = World::new();
    let key = world.root.join("key");
    let make = |path: &std::path::Path| {
        let status = world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
        assert!(status.unwrap().success());
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    };
    let public = make(&key);
    std::fs::write(world.repo.join(".vnx/allowed_signers"), format!("ada {public}")).unwrap();
    world.git(&["config", "gpg.format", "ssh"]);
    world.git(&["config", "user.signingkey", key.with_extension("pub").to_str().unwrap()]);
    commit(&world, "gates:\n  lead: {human: {signed: true}}\n");
    let id = done(&world, "echo 1 > f");
    world.person(&["approve", &id, "--reason", "good"]).expect(0);
    holds(&world, &id, "approval", "lead");
    world.person(&["approve", &id, "--reason", "good", "--sign"]).expect(0);
    goes(&world, &id);
    // Somebody else's key, and an edited word.
    let place = world.state().join("signatures");
    let one = crate::common::names(&place).into_iter().find(|name| name.contains(".txt")).unwrap();
    let text = place.join(one);
    let before = std::fs::read_to_string(&text).unwrap();
    std::fs::write(&text, before.replace("reason good", "reason best")).unwrap();
    holds(&world, &id, "approval", "lead");
    std::fs::write(&text, before).unwrap();
    goes(&world, &id);
    world.assert_verified();
    let stranger = make(&world.root.join("stranger"));
    std::fs::write(world.repo.join(".vnx/allowed_signers"), format!("eve {stranger}")).unwrap();
    world.git(&["commit", "-qam", "other signers"]);
    let held = check(&world, &id);
    assert_eq!(held["go"], false, "{held:#}");
}

#[test]
fn a_worker_does_not_speak_for_persons() {
    let world = project("gates:\n  lead: {human: {}}\n");
    let id = done(&world, "echo 1 > f");
    let vnx = World::binary();
    for how in ["", "env -u VNX_DISPATCH_ID ", "setsid env -i PATH=$PATH HOME=$HOME "] {
        for command in [
            format!("approve {id} --reason mine"),
            format!("gate override {id} lead --reason mine"),
            format!("merge {id}"),
            "items close i-0 --reason x".to_owned(),
        ] {
            let script = format!("cd {}; {how}{vnx} {command} 2>{}/said", world.repo.display(), world.root.display());
            world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i", &script]);
            let said = std::fs::read_to_string(world.root.join("said")).unwrap();
            let refused = said.contains("a worker looks and proposes, and does nothing else");
            assert!(refused, "{how}{command}: {said}");
        }
    }
    assert_eq!(world.count("approval.given") + world.count("override.used") + world.count("merge.started"), 0);
}

#[test]
fn what_is_set_aside_is_named_with_who_and_why() {
    let world = project("gates:\n  tests: {command: 'false'}\n");
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(1);
    world.person(&["gate", "override", &id, "none", "--reason", "x"]).expect(2);
    world.person(&["gate", "override", &id, "ledger", "--reason", "x"]).expect(2);
    world.person(&["gate", "override", &id, "tests", "--reason", "known to be flaky", "--for", "1h"]).expect(0);
    let checked = check(&world, &id);
    assert_eq!(checked["go"], true, "{checked:#}");
    assert_eq!(checked["overrides"][0]["by"], "Test <test@vnx.invalid>");
    assert_eq!(checked["overrides"][0]["reason"], "known to be flaky");
    world.assert_verified();
    // It never skips the audit.
    edit(&world.ledger(), "known to be flaky", "known to be good!");
    holds(&world, &id, "ledger", "ledger");
}

#[test]
fn a_verdict_that_is_not_accept_holds_until_a_person_sets_it_aside() {
    let world = project(TESTS);
    world.script("echo 1 > f; git add f; git commit -qm x; exit 3").expect(1);
    let id = world.last_id();
    world.vnx(&["gate", "run", &id]).expect(0);
    holds(&world, &id, "verdict", "verdict");
    world.person(&["gate", "override", &id, "verdict", "--reason", "the work is good"]).expect(0);
    goes(&world, &id);
    world.assert_verified();
}

/// What somebody does to a dispatch that may land, and why it is held then.
fn attack(config: &str, attack: impl Fn(&World, &str), code: &str, about: &str) {
    let world = project(config);
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]);
    attack(&world, &id);
    holds(&world, &id, code, about);
}

#[test]
fn attack_edited_result() {
    let edits =
        |world: &World, id: &str| edit(&run_of(world, id, "tests").join("result.json"), "\"pass\"", "\"pass\" ");
    attack(TESTS, edits, "evidence", "tests");
    let config = "gates:\n  tests: {command: 'false'}\n";
    let forges =
        |world: &World, id: &str| edit(&run_of(world, id, "tests").join("result.json"), "\"fail\"", "\"pass\"");
    attack(config, forges, "evidence", "tests");
}

#[test]
fn attack_edited_or_missing_report() {
    let edits =
        |world: &World, id: &str| std::fs::write(run_of(world, id, "tests").join("report.txt"), "all good").unwrap();
    attack(TESTS, edits, "evidence", "tests");
    let takes = |world: &World, id: &str| std::fs::remove_file(run_of(world, id, "tests").join("report.txt")).unwrap();
    attack(TESTS, takes, "evidence", "tests");
}

#[test]
fn attack_forged_result() {
    let config = "gates:\n  tests: {command: 'true'}\n  review: {command: 'false'}\n";
    // The files of one that passed, as those of another.
    let copies = |world: &World, id: &str| {
        for file in ["result.json", "report.txt"] {
            std::fs::copy(run_of(world, id, "tests").join(file), run_of(world, id, "review").join(file)).unwrap();
        }
    };
    attack(config, copies, "evidence", "review");
    // A folder that no receipt knows.
    let invents = |world: &World, id: &str| {
        let made = folder(world, id).join("gates").join("0123456789abcdef0123456789abcdef");
        std::fs::create_dir(&made).unwrap();
        for file in ["result.json", "report.txt"] {
            std::fs::copy(run_of(world, id, "tests").join(file), made.join(file)).unwrap();
        }
    };
    attack(config, invents, "failed", "review");
}

/// Whoever can write the ledger can write what fits the chain; what it names must be there all the same.
#[test]
fn attack_forged_receipts_and_a_repeated_nonce() {
    use vnx::domain::receipt::{Body, Entry};
    let again = |world: &World, id: &str, change: fn(&mut vnx::domain::receipt::GateResulted)| {
        let ledger = world.ledger_as_vnx();
        let dispatch = vnx::domain::DispatchId::parse(id).unwrap();
        let receipts = ledger.of_dispatch(&dispatch).unwrap();
        let said = receipts
            .iter()
            .find_map(|r| if let Body::GateResulted(said) = &r.body { Some(said.clone()) } else { None });
        let mut said = said.unwrap();
        change(&mut said);
        ledger.append(&[Entry::again(&dispatch, 2, Body::GateResulted(said))]).unwrap();
    };
    let config = "gates:\n  tests: {command: 'false'}\n";
    let pass = |world: &World, id: &str| again(world, id, |said| said.status = vnx::domain::gate::GateStatus::Pass);
    attack(config, pass, "evidence", "tests");
    let repeat = |world: &World, id: &str| again(world, id, |_| {});
    attack(TESTS, repeat, "evidence", "tests");
}

#[test]
fn attack_result_of_another_tree_base_or_dispatch() {
    let commits = |world: &World, id: &str| {
        let branch = format!("refs/heads/vnx/{id}");
        let new = world.git(&["commit-tree", "main^{tree}", "-p", &branch, "-m", "sneaked in"]);
        world.git(&["update-ref", &branch, &new]);
    };
    attack(TESTS, commits, "stale", "tests");
    let moves = |world: &World, _: &str| drop(world.git(&["commit", "-q", "--allow-empty", "-m", "more"]));
    attack(TESTS, moves, "stale", "tests");
    let edits = |world: &World, _: &str| commit(world, "gates:\n  tests: {command: 'test -e f', timeout: 9m}\n");
    attack(TESTS, edits, "stale", "tests");
    // Both receipts of another dispatch's gate, and its files.
    let world = project("gates:\n  tests: {command: 'test \"$(cat f)\" = 1'}\n");
    let good = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &good]).expect(0);
    let bad = done(&world, "echo 2 > f");
    let ledger = world.ledger_as_vnx();
    let of = |id: &str| vnx::domain::DispatchId::parse(id).unwrap();
    for receipt in ledger.of_dispatch(&of(&good)).unwrap() {
        if receipt.key.contains("/gate.") {
            ledger.append(&[vnx::domain::receipt::Entry::of(&of(&bad), receipt.body)]).unwrap();
        }
    }
    let from = run_of(&world, &good, "tests");
    let to = folder(&world, &bad).join("gates").join(from.file_name().unwrap());
    std::fs::create_dir_all(&to).unwrap();
    for file in ["result.json", "report.txt"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    holds(&world, &bad, "stale", "tests");
    goes(&world, &good);
}

#[test]
fn attack_a_gate_that_rewrites_what_it_looks_at() {
    let config = |what: &str| format!("gates:\n  tests: {{command: \"{what}\"}}\n");
    for what in [
        "echo 2 > f",
        "rm README.md",
        "git update-index --assume-unchanged f; echo 2 > f",
        "git config core.fsmonitor ../../../evil; echo 2 > f",
        "chmod +x f",
        "rm -rf .git; git init -q; git add -A; git commit -qm x; echo 2 > f",
    ] {
        attack(&config(what), |_, _| {}, "unverified", "tests");
    }
}

#[test]
fn attack_a_gate_that_rewrites_what_vnx_knows() {
    let state = "../../../repo/.git/vnx";
    let config = |what: &str| format!("gates:\n  tests: {{command: \"{what}\"}}\n  b: {{command: 'false'}}\n");
    // Of another gate, of the ledger, of what was asked, of the target.
    let edits =
        format!("sleep 0.3; for f in {state}/dispatches/*/gates/*/result.json; do sed -i s/fail/pass/ $f; done; true");
    attack(&config(&edits), |_, _| {}, "evidence", "b");
    let cuts = format!("head -c 2000 {state}/receipts/ledger.ndjson > x; cat x > {state}/receipts/ledger.ndjson; rm x");
    attack(&config(&cuts), |_, _| {}, "ledger", "ledger");
    let asks = format!("sed -i s/hello/bye/ {state}/dispatches/*/plan.json");
    attack(&config(&asks), |_, _| {}, "contract", "contract");
    let requests = format!("for f in {state}/dispatches/*/request.yaml; do echo >> $f; done");
    attack(&config(&requests), |_, _| {}, "contract", "contract");
    let drops = "git -C ../../../repo commit -q --allow-empty -m moved";
    attack(&config(drops), |_, _| {}, "stale", "tests");
}

#[test]
fn attack_the_branch_brings_its_own_rules() {
    let world = project("gates:\n  tests: {command: 'test -e g'}\n");
    let id = done(
        &world,
        "echo 1 > f; printf 'version: 1\\nproject_id: repo\\nmerge: {ungated: [\"*\"]}\\n' > .vnx/config.yaml",
    );
    world.vnx(&["gate", "run", &id]).expect(1);
    holds(&world, &id, "failed", "tests");
    holds(&world, &id, "approval", "strict");
    // Nor does what is only written down in the checkout.
    world.config("merge: {ungated: ['*']}\n");
    holds(&world, &id, "failed", "tests");
}

#[test]
fn attack_a_ledger_that_was_cut_or_lost_its_anchors() {
    let cuts = |world: &World, _: &str| {
        let text = std::fs::read_to_string(world.ledger()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(world.ledger(), lines[..lines.len() - 3].join("\n") + "\n").unwrap();
    };
    attack(TESTS, cuts, "ledger", "ledger");
    let drops = |world: &World, _: &str| drop(world.git(&["update-ref", "-d", "refs/vnx/anchors"]));
    attack(TESTS, drops, "ledger", "ledger");
}

/// T-16: what git would run because a worker named it is not run, and the merge waits for a person.
/// `gate-check` does not unpack what the witness has seen verified. Anything else it reads whole.
#[test]
fn attack_a_compressed_segment_that_is_not_what_was_verified() {
    use vnx::domain::receipt::{Body, DispatchRequested, Entry};
    use vnx::domain::{Digest, DispatchId, Name};
    use vnx::ledger::Limit;
    let world = project(TESTS);
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(0);
    let ledger = world.ledger_as_vnx().with_limit(Limit { receipts: 10, ..Limit::default() });
    let agent = Name::parse("agent", "hello-world").unwrap();
    for n in 0..30 {
        let other = DispatchId::parse(&format!("filler-{n}")).unwrap();
        let request = DispatchRequested { request: Digest::of(b"x"), agent: agent.clone() };
        ledger.append(&[Entry::of(&other, Body::DispatchRequested(request))]).unwrap();
    }
    ledger.pack().unwrap();
    let witness = world.root.join("home/.local/state/vnx/witness");
    let known = || crate::common::names(&witness).into_iter().find(|name| name.ends_with("files"));
    assert_eq!(known(), None);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    let known = witness.join(known().unwrap());
    goes(&world, &id);
    // Edited and compressed again; the file's name in the witness with it, as far as its form goes.
    let first = world.state().join("receipts/0001.ndjson.zst");
    let sound = std::fs::read(&first).unwrap();
    let text = String::from_utf8(zstd::stream::decode_all(&sound[..]).unwrap()).unwrap();
    assert!(text.contains("\"unproven\"") || text.contains("\"accept\""), "{text}");
    let forged = text.replace("\"done\"", "\"dine\"");
    assert_ne!(forged, text);
    std::fs::write(&first, zstd::stream::encode_all(forged.as_bytes(), 3).unwrap()).unwrap();
    holds(&world, &id, "ledger", "ledger");
    // Without it, or with one that is no such file, everything is read: and holds.
    for other in ["", "{}", "{\"size\":1,\"root\":\"00\",\"digests\":[]}"] {
        std::fs::write(&known, other).unwrap();
        holds(&world, &id, "ledger", "ledger");
    }
    std::fs::write(&first, &sound).unwrap();
    goes(&world, &id);
    // A ledger that was made anew from there on, by somebody whose witness is another one.
    std::fs::remove_file(&known).unwrap();
    world.vnx(&["audit-chain", "seal"]).expect(0);
    assert!(known.exists());
    world.assert_verified();
}

#[test]
fn attack_git_is_told_to_run_something() {
    let marker = |world: &World| world.root.join("ran");
    for (what, about) in [
        ("git config core.fsmonitor 'touch ROOT/ran; false'", "git-config"),
        (
            "git config filter.x.clean 'touch ROOT/ran; cat'; git config filter.x.smudge 'touch ROOT/ran; cat'",
            "git-config",
        ),
        ("git config merge.x.driver 'touch ROOT/ran; true'", "git-config"),
        (
            "printf '#!/bin/sh\ntouch ROOT/ran\n' > ROOT/repo/.git/hooks/pre-merge-commit; chmod +x ROOT/repo/.git/hooks/pre-merge-commit",
            "git-config",
        ),
        (
            "printf '#!/bin/sh\ntouch ROOT/ran\n' > ROOT/repo/.git/hooks/post-checkout; chmod +x ROOT/repo/.git/hooks/post-checkout",
            "git-config",
        ),
    ] {
        let world = project(TESTS);
        let what = what.replace("ROOT", world.root.to_str().unwrap());
        let script =
            format!("{what}; echo '* filter=x merge=x' > .gitattributes; echo 1 > f; git add -A; git commit -qm x");
        world.script(&script);
        let id = world.last_id();
        let _ = std::fs::remove_file(marker(&world));
        holds(&world, &id, "git_config", about);
        assert!(!marker(&world).exists(), "{what}");
    }
}

#[test]
fn what_a_report_names_as_open_is_an_item_for_later() {
    let world = project(TESTS);
    let id = done(
        &world,
        "echo 1 > f; printf '# Done\\n\\n## Open items\\n\\n- mend the docs\\n- None.\\n- [ ] ask Ada\\n\\n## Else\\n- no\\n'",
    );
    let items = world.vnx(&["items", "list", &id, "--json"]).expect(0).json();
    let claims: Vec<&str> = items["items"].as_array().unwrap().iter().map(|i| i["claim"].as_str().unwrap()).collect();
    assert_eq!(claims, ["mend the docs", "ask Ada"], "{items:#}");
    world.vnx(&["gate", "run", &id]).expect(0);
    goes(&world, &id);
    let added = world.vnx(&["items", "add", &id, "wait for the release"]).expect(0).out.trim().to_owned();
    holds(&world, &id, "item", &added);
    world.person(&["items", "close", &added[..6], "--reason", "it is out"]).expect(0);
    goes(&world, &id);
    world.assert_verified();
}

/// T-17: a name that git would take for an option is a name.
#[test]
fn names_are_never_options() {
    let world = project(TESTS);
    let id = done(&world, "echo 1 > f");
    let marker = world.root.join("marker");
    let option = format!("--output={}", marker.display());
    for args in [
        vec!["gate-check", &id, "--into", &option],
        vec!["merge", &id, "--into", &option],
        vec!["gate-check", "--commit", &option],
        vec!["gate", "list", "--into", &option],
        vec!["approve", &id, "--reason", "x", "--into", "-f"],
    ] {
        let run = world.vnx(&args);
        assert_eq!(run.code, 2, "{args:?}: {}{}", run.out, run.err);
    }
    // Branches that only look like options are refused by git itself; ones with odd names are not.
    world.git(&["branch", "odd/~name".replace('~', "=").as_str(), "main"]);
    world.vnx(&["gate", "run", &id, "--into", "odd/=name"]).expect(0);
    world.vnx(&["merge", &id, "--into", "odd/=name"]).expect(0);
    assert!(!marker.exists());
}
