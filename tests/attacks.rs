//! What might get past a gate without one line of it being forged: another history, another path, another moment.

use serde_json::Value;
use vnx::domain::receipt::{Body, DispatchRequested, Entry};
use vnx::domain::{Digest, DispatchId, Name};
use vnx::ledger::{Ledger, Limit};

use crate::common::World;
use crate::gates::{TESTS, check, commit, done, goes, holds, project, reasons};
use crate::merges::{main, ready};

/// A commit of the main checkout.
fn on_main(world: &World, script: &str) {
    let output = world.command("sh").current_dir(&world.repo).args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    world.git(&["add", "-A", "."]);
    world.git(&["commit", "-qm", "main goes on"]);
}

/// A worktree of somebody on the dispatch's branch, in which this is done.
fn on_branch(world: &World, id: &str, script: &str) {
    let place = world.root.join(format!("hand-{id}"));
    world.git(&["worktree", "add", "-q", place.to_str().unwrap(), &format!("vnx/{id}")]);
    let output = world.command("sh").current_dir(&place).args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    world.git(&["worktree", "remove", "--force", place.to_str().unwrap()]);
}

/// The same files on top of a target that has gone on take back what it got: approvals, results and what was set aside
/// were about something else.
#[test]
fn the_same_tree_with_another_history_is_another_change() {
    let world = project(&format!("{TESTS}  lead: {{human: {{}}}}\n"));
    let id = ready_but(&world, "echo 1 > f");
    on_main(&world, "echo fix > security");
    world.vnx(&["gate", "run", &id]).expect(0);
    world.person(&["approve", &id, "--reason", "one file"]).expect(0);
    goes(&world, &id);
    on_branch(&world, &id, "git merge -q -s ours -m 'up to date' main");
    let all = reasons(&world, &id);
    assert!(
        all.contains(&("stale".into(), "tests".into())) && all.contains(&("approval".into(), "lead".into())),
        "{all:?}"
    );
    holds(&world, &id, "approval", "lead");
    assert!(world.repo.join("security").exists());
}

/// Branch and target were merged into each other: what the change is depends on where one looks from.
#[test]
fn a_change_with_two_ancestors_is_none() {
    let world = project(TESTS);
    let first = ready(&world, "mkdir -p .github; echo 'scan: yes' > .github/ci.yml; echo 1 > f");
    world.person(&["approve", &first, "--reason", "x"]).expect(0);
    let parent = main(&world);
    on_main(&world, "echo 1 > other");
    world.vnx(&["merge", &first, "--gates"]).expect(0);
    let script =
        "git reset -q --hard HEAD^1; git merge -q -s ours -m x main^2; echo 2 > f; git add f; git commit -qm f";
    world.script(script).expect(4);
    let id = world.last_id();
    assert_ne!(parent, main(&world));
    let checked = check(&world, &id);
    let reasons = checked["reasons"].as_array().unwrap();
    let nothing = reasons.iter().find(|reason| reason["code"] == "nothing").unwrap_or_else(|| panic!("{checked:#}"));
    world.vnx(&["merge", &id, "--gates"]).expect(1);
    assert!(nothing["what"].as_str().unwrap().contains("rebase it onto main"), "{checked:#}");
    assert_eq!(std::fs::read_to_string(world.repo.join(".github/ci.yml")).unwrap(), "scan: yes\n");
}

/// git takes a change to where its file has been moved meanwhile, also to where a person would have had to look.
#[test]
fn what_lands_in_another_place_was_seen_by_nobody() {
    for strategy in ["merge", "squash", "rebase"] {
        let world = project(TESTS);
        on_main(&world, "mkdir ci; printf 'a\\nb\\nc\\nd\\ne\\n' > ci/build.yml");
        let id = ready(&world, "sed -i 's/c/evil/' ci/build.yml; echo 1 > f");
        on_main(&world, "mkdir .github; git mv ci/build.yml .github/build.yml");
        let before = main(&world);
        let run = world.vnx(&["merge", &id, "--gates", "--strategy", strategy]).expect(1);
        assert!(run.out.contains("\".github/build.yml\"") && run.out.contains("nobody was asked"), "{}", run.out);
        assert_eq!(main(&world), before);
        // On the branch itself it is what it is.
        on_branch(&world, &id, "git merge -q -m up main");
        holds(&world, &id, "approval", "strict");
    }
}

/// Settings that say what comes of a conflict do not say it.
#[test]
fn a_conflict_is_one_whatever_git_is_told() {
    let world = project(TESTS);
    on_main(&world, "echo limit=10 > limits");
    let id = ready(&world, "git config merge.default union; echo limit=999 > limits; echo 1 > f");
    on_main(&world, "echo limit=0 > limits");
    let before = main(&world);
    let run = world.vnx(&["merge", &id, "--gates"]).expect(1);
    assert!(run.out.contains("it conflicts with main"), "{}", run.out);
    assert_eq!(main(&world), before);
}

/// A worker that says who commits here speaks for persons from then on.
#[test]
fn who_speaks_here_was_not_said_by_a_worker() {
    let world = project(TESTS);
    let id = ready(&world, "git config user.email bob@vnx.invalid; echo 1 > f");
    holds(&world, &id, "git_config", "git-config");
    world.git(&["config", "--unset", "user.email"]);
    goes(&world, &id);
}

/// What one worktree says of itself says nothing of the repository.
#[test]
fn a_worktree_may_have_an_identity_of_its_own() {
    let world = project(TESTS);
    let linked = world.root.join("linked");
    world.git(&["config", "extensions.worktreeConfig", "true"]);
    world.git(&["worktree", "add", "-q", "-b", "mine", linked.to_str().unwrap()]);
    world.git_in(&linked, &["config", "--worktree", "user.email", "linked@vnx.invalid"]);
    let script = "echo 1 > f; git add f; git commit -qm f";
    let args = ["dispatch-agent", "--agent", "hello-world", "--provider", "shell", "--no-pane", "--base", "main"];
    world.vnx_in(&linked, &[&args[..], &["-i", script]].concat()).expect(0);
    let id = world.last_id();
    world.vnx(&["gate", "run", &id]).expect(0);
    goes(&world, &id);
}

/// A projection that lacks a row in the middle is not what a merge goes by.
#[test]
fn what_the_projections_leave_out_holds_all_the_same() {
    let world = project(TESTS);
    let id = ready(&world, "echo 1 > f");
    let item = world.vnx(&["items", "add", &id, "it leaks keys"]).expect(0).out.trim().to_owned();
    // Only what began long ago is asked of the projections.
    let more = |n: u32| {
        let body = DispatchRequested { request: Digest::of(b"x"), agent: Name::parse("agent", "hello-world").unwrap() };
        Entry::of(&DispatchId::parse(&format!("filler-{n}")).unwrap(), Body::DispatchRequested(body))
    };
    world.ledger_as_vnx().append(&(0..4000).map(more).collect::<Vec<_>>()).unwrap();
    assert!(std::fs::metadata(world.ledger()).unwrap().len() > 1 << 20);
    world.vnx(&["receipts", "query", "--dispatch", &id]).expect(0);
    let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(\"DELETE FROM receipts WHERE kind='item.opened'\"); c.commit()";
    let database = world.state().join("state.db");
    let output = world.command("python3").args(["-c", script]).arg(database).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    world.vnx(&["audit-chain", "seal"]).expect(0);
    holds(&world, &id, "item", &item);
}

/// Hooks that lie in the tree are the target's, and nothing of the branch sees the keys that sign.
#[test]
fn a_branch_does_not_bring_the_hook_that_judges_it() {
    let mut world = project(TESTS);
    world.set("SSH_AUTH_SOCK", "/nonexistent/agent");
    let hook = "#!/bin/sh\n! grep -rqs FORBIDDEN --include=f .\n";
    std::fs::create_dir(world.repo.join(".hooks")).unwrap();
    crate::common::script(&world.repo.join(".hooks/pre-merge-commit"), &hook["#!/bin/sh\n".len()..]);
    on_main(&world, "true");
    world.git(&["config", "core.hooksPath", ".hooks"]);
    let evil = format!("#!/bin/sh\nenv > {}/seen\nexit 0\n", world.root.display());
    let id = ready(&world, &format!("echo FORBIDDEN > f; printf '{evil}' > .hooks/pre-merge-commit"));
    let before = main(&world);
    world.vnx(&["merge", &id]).expect(1);
    assert_eq!(main(&world), before);
    assert!(!world.root.join("seen").exists());
}

/// `pre_merge` hooks are those of the target, whatever is checked out, and have no agent to sign with.
#[test]
fn what_is_asked_before_a_merge_is_the_targets_to_say() {
    let mut world = World::new();
    world.set("SSH_AUTH_SOCK", "/nonexistent/agent");
    commit(&world, TESTS);
    world.git(&["branch", "old"]);
    let seen = world.root.join("seen");
    commit(
        &world,
        &format!("{TESTS}worktree: {{hooks: {{pre_merge: [{{run: 'env > {}; test ! -e stop'}}]}}}}\n", seen.display()),
    );
    let id = ready(&world, "echo 1 > f; echo 1 > stop");
    world.git(&["checkout", "-q", "old"]);
    let before = main(&world);
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("pre_merge"), "{}", run.out);
    assert_eq!(main(&world), before);
    let env = std::fs::read_to_string(seen).unwrap();
    assert!(env.contains("VNX_MERGE=") && !env.contains("SSH_AUTH_SOCK"), "{env}");
}

/// The verdict was about another commit, and nothing else looks at this one.
#[test]
fn a_branch_that_went_on_was_not_judged() {
    let world = project("merge: {ungated: [hello-world]}\n");
    let id = done(&world, "echo 1 > f");
    goes(&world, &id);
    on_branch(&world, &id, "echo 1 > g; git add g; git commit -qm sneaked");
    holds(&world, &id, "verdict", "verdict");
    world.person(&["gate", "override", &id, "verdict", "--reason", "it is mine"]).expect(0);
    goes(&world, &id);
    // Where a gate looks, it may go on, but not out of its paths.
    let world = project(TESTS);
    world
        .vnx(&[
            "dispatch-agent",
            "--agent",
            "hello-world",
            "--provider",
            "shell",
            "--no-pane",
            "--path",
            "f",
            "-i",
            "echo 1 > f; git add f; git commit -qm work",
        ])
        .expect(0);
    let id = world.last_id();
    on_branch(&world, &id, "echo 2 > f; git commit -qam more");
    world.vnx(&["gate", "run", &id]).expect(0);
    goes(&world, &id);
    on_branch(&world, &id, "echo 1 > g; git add g; git commit -qm sneaked");
    world.vnx(&["gate", "run", &id]).expect(0);
    holds(&world, &id, "verdict", "verdict");
}

/// What somebody says while a merge runs is not too late.
#[test]
fn a_word_while_the_merge_runs_counts() {
    let world = World::new();
    let fifo = world.root.join("go");
    let wait = format!("touch {0}/at; while [ ! -e {1} ]; do sleep 0.01; done", world.root.display(), fifo.display());
    commit(
        &world,
        &format!("gates:\n  tests: {{command: 'true'}}\n  late: {{command: '{wait}', phase: post_merge}}\n"),
    );
    let id = ready(&world, "echo 1 > f");
    let before = main(&world);
    std::thread::scope(|scope| {
        let merge = scope.spawn(|| world.vnx(&["merge", &id]));
        world.until("the gate at the merge", || world.root.join("at").exists());
        world.vnx(&["items", "add", &id, "stop"]).expect(0);
        std::fs::write(&fifo, "").unwrap();
        let run = merge.join().unwrap().expect(1);
        assert!(run.out.contains("held by now") && run.out.contains("stop"), "{}", run.out);
    });
    assert_eq!(main(&world), before);
    world.assert_nothing_left();
}

/// Somebody else's server answers as well as the one that was built.
#[test]
fn a_port_that_answers_before_the_start_proves_nothing() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let world = project(&format!(
        "gates:\n  serves: {{probe: {{start: 'sleep 60', ready: {{port: '{port}'}}, checks: [{{file: f}}]}}}}\n"
    ));
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(1);
    let said: Value = world.last("gate.resulted");
    assert!(said["status"] == "unverified" && said["reason"].as_str().unwrap().contains("is taken"), "{said}");
    holds(&world, &id, "unverified", "serves");
}

/// A dispatch that was judged, with its gates as far as they can go.
fn ready_but(world: &World, script: &str) -> String {
    let id = done(world, script);
    world.vnx(&["gate", "run", &id]);
    id
}

/// A ledger of three segments, packed, and sealed.
fn segmented(world: &World) -> Ledger {
    let ledger = world.ledger_as_vnx().with_limit(Limit { receipts: 10, ..Limit::default() });
    for n in 0..25 {
        let body = DispatchRequested { request: Digest::of(b"x"), agent: Name::parse("agent", "hello-world").unwrap() };
        let other = DispatchId::parse(&format!("filler-{n}")).unwrap();
        ledger.append(&[Entry::of(&other, Body::DispatchRequested(body))]).unwrap();
    }
    ledger.pack().unwrap();
    ledger
}

fn verified(world: &World) -> (i32, String) {
    let run = world.vnx(&["audit-chain", "verify"]);
    let folder = world.state().join("receipts");
    let theirs = world.second_verifier(&[folder.to_str().unwrap()]);
    assert_eq!(theirs.0, run.code, "{} {}{}", theirs.1, run.out, run.err);
    (run.code, run.out + &run.err)
}

/// A plain file beside a packed one may be half unpacked: the packed one is all that is sound.
#[test]
fn packing_leaves_a_sound_copy_alone() {
    let world = World::new();
    let ledger = segmented(&world);
    let packed = world.state().join("receipts/0001.ndjson.zst");
    let plain = packed.with_extension("");
    let sound = std::fs::read(&packed).unwrap();
    let text = zstd::stream::decode_all(&sound[..]).unwrap();
    std::fs::write(&plain, &text[..text.len() / 2]).unwrap();
    ledger.pack().unwrap();
    assert!(plain.exists() && std::fs::read(&packed).unwrap() == sound);
    assert_eq!(verified(&world).0, 1);
    std::fs::write(&plain, &text).unwrap();
    ledger.pack().unwrap();
    assert!(!plain.exists() && std::fs::read(&packed).unwrap() == sound);
    assert_eq!(verified(&world).0, 0);
}

/// The open segment holds what no seal has seen: where it is gone or empty, something is missing. A rotation that was
/// cut off is finished by whoever comes next.
#[test]
fn a_ledger_without_its_open_end_does_not_verify() {
    let world = World::new();
    segmented(&world);
    let folder = world.state().join("receipts");
    let open = std::fs::read(world.ledger()).unwrap();
    std::fs::write(world.ledger(), "").unwrap();
    let (code, said) = verified(&world);
    assert!(code == 1 && said.contains("is empty"), "{code} {said}");
    std::fs::remove_file(world.ledger()).unwrap();
    let (code, said) = verified(&world);
    assert!(code == 1 && said.contains("is not there"), "{code} {said}");
    let anchors = world.git(&["for-each-ref", "refs/vnx/anchors"]);
    assert_ne!(world.vnx(&["audit-chain", "seal"]).code, 0);
    assert_ne!(world.vnx(&["audit-chain", "import", "README.md"]).code, 0);
    assert!(!world.ledger().exists() && world.git(&["for-each-ref", "refs/vnx/anchors"]) == anchors);
    // Between the two renames: as the second one would have had it.
    world.forget_marks();
    std::fs::write(folder.join("ledger.next"), open.split_inclusive(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(verified(&world).0, 4);
    world.script("true").expect(4);
    assert_eq!(verified(&world).0, 0);
}

/// What was torn while an anchor was told of was never acknowledged.
#[test]
fn a_torn_line_about_an_anchor_is_a_torn_line() {
    let world = World::new();
    world.vnx(&["audit-chain", "seal"]).expect(0);
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    assert!(text[last..].contains("anchor.written"));
    std::fs::write(world.ledger(), &text[..last + 300]).unwrap();
    world.forget_marks();
    assert_eq!(verified(&world).0, 4);
    world.script("true").expect(4);
    assert_eq!(verified(&world).0, 0);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    // One that was acknowledged and lost a sector before it is not cut off.
    let text = std::fs::read(world.ledger()).unwrap();
    let mut lost = text.clone();
    let sector = (text.len() - 2000) / 512 * 512;
    lost[sector..sector + 512].fill(0);
    std::fs::write(world.ledger(), &lost).unwrap();
    world.script("true").expect(5);
    assert_eq!(std::fs::read(world.ledger()).unwrap(), lost);
}

/// A file may be called by the digest of another one.
#[test]
fn an_import_is_known_by_what_it_holds() {
    let world = World::new();
    let (one, two) = ("{\"a\":1}\n", "{\"a\":2}\n");
    let named = world.root.join(format!("{}.ndjson", Digest::of(one.as_bytes())));
    std::fs::write(&named, two).unwrap();
    world.vnx(&["audit-chain", "import", named.to_str().unwrap()]).expect(0);
    let file = world.root.join("one.ndjson");
    std::fs::write(&file, one).unwrap();
    let run = world.vnx(&["audit-chain", "import", file.to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(world.count("ledger.imported"), 2, "{run:#}");
    let copy = world.state().join("receipts/imported").join(format!("{}.ndjson", Digest::of(one.as_bytes())));
    std::fs::write(copy, "{\"a\":3}\n").unwrap();
    assert_eq!(verified(&world).0, 1);
}

/// Nothing but what a writer writes: blanks would hide a null or a number too large from whoever looks for those.
#[test]
fn a_line_with_blanks_is_no_line() {
    let world = World::new();
    world.script("true").expect(4);
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    for (from, to) in
        [("\"data\":{\"", "\"data\":{ \""), ("\"took_ms\":", "\"took_ms\": "), ("\"took_ms\":", "\"took_ms\" :")]
    {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.contains("\"dispatch.prepared\"")).unwrap();
        lines[at] = lines[at].replacen(from, to, 1);
        let mut prev: Option<String> = None;
        for line in lines.iter_mut().skip(at) {
            if let Some(prev) = &prev {
                line.replace_range(15..79, prev);
            }
            let bare = line.len() - 75;
            let hash = Digest::of(&[&b"\0"[..], &line.as_bytes()[..bare]].concat()).to_string();
            line.replace_range(bare.., &format!(",\"hash\":\"{hash}\"}}"));
            prev = Some(hash);
        }
        std::fs::write(world.ledger(), lines.join("\n") + "\n").unwrap();
        let (code, said) = verified(&world);
        assert!(code == 1 && said.contains("blanks"), "{to}: {code} {said}");
    }
}

/// What the next worker obeys stands where a link leads to.
#[test]
fn what_a_strict_link_leads_to_is_strict() {
    let world = project(TESTS);
    on_main(
        &world,
        "mkdir docs ci; echo obey > docs/agents.md; ln -s docs/agents.md AGENTS.md; ln -s ci .github; echo 1 > ci/build.yml; echo 1 > free",
    );
    for (script, strict) in [
        ("echo evil > docs/agents.md; touch f", true),
        ("echo evil > ci/build.yml; touch f", true),
        ("echo 2 > free; touch f", false),
    ] {
        let id = ready(&world, script);
        assert_eq!(reasons(&world, &id).iter().any(|(_, about)| about == "strict"), strict, "{script}");
    }
}
