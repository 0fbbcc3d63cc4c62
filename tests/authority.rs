//! Who may decide: callers from what runs above them, and how surely a person stands behind a decision.

use std::path::Path;
use std::process::Stdio;

use crate::common::{Run, World, names};

/// A project with this configuration, committed.
fn project(config: &str) -> World {
    let world = World::new();
    commit(&world, config);
    world
}

fn commit(world: &World, config: &str) {
    world.config(config);
    world.git(&["add", "--all"]);
    world.git(&["commit", "-qm", "configuration"]);
}

const DISPATCH: [&str; 6] = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];
const WORK: &str = "echo 1 > f; git add f; git commit -qm f";

/// A dispatch whose branch has something to land.
fn done(world: &World) -> String {
    world.script(WORK).expect(0);
    world.last_id()
}

/// How many decisions of persons are on record.
fn decisions(world: &World) -> usize {
    let kinds = ["approval.given", "override.used", "stage.promoted", "item.closed", "rescue.dropped"];
    kinds.iter().map(|kind| world.count(kind)).sum()
}

#[track_caller]
fn refused(run: Run, why: &str) {
    let run = run.expect(3);
    assert!(run.err.contains(why), "{}", run.err);
}

#[test]
fn a_worker_looks_and_proposes_whatever_it_does_to_itself() {
    let world = project("gates:\n  lead: {human: {}}\n");
    let id = done(&world);
    let all = [
        "dispatch-agent --provider shell --agent hello-world -i true",
        "init",
        "demo",
        "doctor --fix --yes",
        "resume ID",
        "promote ID",
        "promote ID --withdraw",
        "send ID x",
        "permit ID allow",
        "cancel ID",
        "undo ID",
        "attach ID",
        "worktree new mine",
        "worktree gc --apply",
        "worktree rescue drop ID --yes",
        "gate run ID",
        "gate override ID lead --reason x",
        "approve ID --reason x",
        "merge ID",
        "pr ID",
        "revert ID --reason x",
        "items add ID x",
        "items close i-0 --reason x",
        "provider check shell --live",
        "receipts export",
        "audit-chain seal",
        "audit-chain import x",
        "rebuild",
    ];
    let (vnx, repo, said) = (World::binary(), world.repo.display(), world.root.join("said"));
    let each: Vec<String> =
        all.iter().map(|command| format!("{vnx} {}; echo $?", command.replace("ID", &id))).collect();
    for how in ["", "setsid env -i PATH=$PATH HOME=$HOME TERM=$TERM "] {
        let script = world.root.join("script.sh");
        std::fs::write(&script, format!("cd {repo}\n{}\n", each.join("\n"))).unwrap();
        world.script(&format!("{how}sh {} >{} 2>&1", script.display(), said.display()));
        let text = std::fs::read_to_string(&said).unwrap();
        let codes: Vec<&str> = text.lines().filter(|line| line.len() < 4).collect();
        assert_eq!(codes, vec!["3"; all.len()], "{how}{text}");
        assert_eq!(text.matches("a worker looks and proposes, and does nothing else (").count(), all.len(), "{text}");
        let reads =
            ["status", "show ID", "gate-check ID", "receipts list", "worktree list", "audit-chain verify", "promote"];
        let reads: Vec<String> = reads.iter().map(|command| format!("{vnx} {}", command.replace("ID", &id))).collect();
        let script_text =
            format!("cd {repo}\n{}\n{vnx} stage --provider shell --agent hello-world -i x\n", reads.join("\n"));
        std::fs::write(&script, script_text).unwrap();
        world.script(&format!("{how}sh {} >{} 2>&1", script.display(), said.display()));
        let text = std::fs::read_to_string(&said).unwrap();
        assert!(!text.contains("does nothing else"), "{text}");
    }
    assert_eq!((decisions(&world), world.count("merge.started"), world.count("stage.proposed")), (0, 0, 2));
}

#[test]
fn an_agent_does_what_the_targets_commit_lets_it() {
    let mut world = project("gates:\n  ok: {command: 'true'}\n");
    world.set("CLAUDECODE", "1");
    let id = done(&world);
    world.vnx(&["status"]).expect(0);
    world.vnx(&["gate", "run", &id]).expect(0);
    world.vnx(&["items", "add", &id, "later", "--holds", "later"]).expect(0);
    let proposal = world.vnx(&["stage", "--agent", "hello-world", "--provider", "shell", "-i", "true"]).expect(0);
    refused(world.vnx(&["merge", &id]), "`agents: {merge: false}` (CLAUDECODE is set in process");
    // A terminal makes no person of it.
    let item = world.last("item.opened")["item"].as_str().unwrap().to_owned();
    for args in [
        &["approve", &id, "--reason", "x"][..],
        &["gate", "override", &id, "ok", "--reason", "x"],
        &["promote", proposal.out.trim()],
        &["promote", proposal.out.trim(), "--withdraw"],
        &["items", "close", &item, "--reason", "x"],
        &["worktree", "rescue", "drop", &id, "--yes"],
        &["revert", &id, "--reason", "x"],
        &[&DISPATCH[..], &["--override", "no-shell=x", "-i", "true"]].concat(),
    ] {
        refused(world.person(args), "an agent cannot speak for a person (CLAUDECODE is set in process");
    }
    // What nobody has committed, and what a worker's branch says, lets it do nothing.
    world.config("gates:\n  ok: {command: 'true'}\nagents: {merge: true}\n");
    refused(world.vnx(&["merge", &id]), "`agents: {merge: false}`");
    world.git(&["checkout", "-q", "--", "."]);
    world.unset("CLAUDECODE");
    // A mark that only a process above it has.
    let mut shell = world.command("sh");
    shell.args(["-c", &format!("env -u CLAUDECODE {} merge {id}; exit $?", World::binary())]).env("CLAUDECODE", "1");
    refused(Run::of(shell.output().unwrap()), "(CLAUDECODE is set in process");
    commit(&world, "gates:\n  ok: {command: 'true'}\nagents: {merge: true, dispatch: false}\n");
    world.set("GEMINI_CLI", "1");
    refused(world.script("true"), "`agents: {dispatch: false}` (GEMINI_CLI is set in process");
    world.vnx(&["gate", "run", &id]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(decisions(&world), 0);
    world.assert_verified();
}

/// A worker's child that has a session and an environment of its own, after the supervisor was killed.
#[test]
fn what_a_worker_leaves_behind_decides_nothing() {
    let world = project("gates:\n  lead: {human: {}}\n  tests: {command: 'test ! -e f'}\n");
    let (vnx, repo, root) = (World::binary(), world.repo.display(), world.root.display());
    let orphan = format!(
        "exec >{root}/said 2>&1\nkill -9 $1\nwhile kill -0 $1 2>/dev/null; do :; done\ncd {repo}\n\
         for gate in verdict git-config tests; do {vnx} gate override w $gate --reason ok; done\n\
         {vnx} approve w --reason lgtm\n{vnx} approve w --reason lgtm --sign\n{vnx} merge w\ntouch {root}/over\n"
    );
    std::fs::write(world.root.join("orphan.sh"), orphan).unwrap();
    let script = format!(
        "{WORK}; S=$PPID; env -i PATH=$PATH HOME=$HOME setsid sh {root}/orphan.sh $S & while kill -0 $S; do sleep 0.01; done"
    );
    let args = [&DISPATCH[..], &["--id", "w", "-i", &script]].concat();
    let _ = world.vnx(&args);
    // It may have been ended with the rest of its worker; then it decides nothing either.
    let orphan = |(_, command): &(i32, String)| command.contains("orphan.sh");
    world.until("its end", || world.root.join("over").exists() || !world.processes().iter().any(orphan));
    assert_eq!((decisions(&world), world.count("merge.landed")), (0, 0));
}

#[test]
fn a_decision_needs_the_code_that_the_terminal_shows() {
    let world = project("gates:\n  lead: {human: {}}\n");
    let id = done(&world);
    refused(world.vnx(&["approve", &id, "--reason", "x"]), "there is no terminal to ask a person on");
    refused(world.vnx(&["approve", &id, "--reason", "x", "--json"]), "there is no terminal");
    for wrong in [|_: &str| String::new(), |_: &str| "yes".to_owned(), |code: &str| code[..3].to_owned()] {
        refused(world.person_typing(&["approve", &id, "--reason", "x"], wrong), "what was typed is not the code");
    }
    assert_eq!(decisions(&world), 0);
    let given = world.person_typing(&["approve", &id, "--reason", "read it", "--json"], str::to_lowercase).expect(0);
    assert_eq!(given.json()["attestation"], serde_json::json!({"presence": "tty"}), "the answer is JSON alone");
    assert_eq!(world.last("approval.given")["attestation"]["presence"], "tty");
    let checked = world.vnx(&["gate-check", &id]).expect(0).out;
    assert!(checked.contains("by Test <test@vnx.invalid> (terminal): read it"), "{checked}");
    world.person(&["merge", &id]).expect(0);
    world.assert_verified();
}

/// Who has no parent any more, and a clean environment, sits at the terminal of whoever made it all the same.
#[test]
fn the_terminal_of_an_agent_is_no_persons() {
    let world = project("gates:\n  lead: {human: {}}\n");
    let id = done(&world);
    let (vnx, root) = (World::binary(), world.root.display());
    let approve =
        format!("env -i PATH=$PATH HOME=$HOME {vnx} approve {id} --reason x >{root}/said 2>&1; touch {root}/over");
    let script = format!("(sh -c '({approve}) &'); while [ ! -e {root}/over ]; do sleep 0.01; done");
    std::fs::write(world.root.join("session.sh"), script).unwrap();
    let mut of_agent = std::process::Command::new("env");
    of_agent.arg("CLAUDECODE=1").arg("sh").arg(world.root.join("session.sh")).current_dir(&world.repo);
    world.on_terminal(&of_agent, str::to_owned);
    let said = std::fs::read_to_string(world.root.join("said")).unwrap();
    assert!(said.contains("CLAUDECODE is set in process"), "{said}");
    assert_eq!(decisions(&world), 0);
}

fn keygen(world: &World, path: &Path) -> String {
    let status = world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(status.unwrap().success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap()
}

#[test]
fn a_key_counts_if_the_target_trusts_it() {
    let world = World::new();
    let (mine, strange) = (world.root.join("mine"), world.root.join("strange"));
    let public = keygen(&world, &mine);
    keygen(&world, &strange);
    std::fs::write(world.repo.join(".vnx/allowed_signers"), format!("ada {public}")).unwrap();
    commit(&world, "gates:\n  lead: {human: {}}\n  no: {command: 'false'}\npresence: key\n");
    world.git(&["config", "--global", "gpg.format", "ssh"]);
    let sign_with = |key: &Path| {
        let public = key.with_extension("pub");
        world.git(&["config", "--global", "user.signingkey", public.to_str().unwrap()]);
    };
    sign_with(&strange);
    let id = done(&world);
    let proposal = world.vnx(&["stage", "--provider", "shell", "--agent", "hello-world", "-i", WORK]).expect(0);
    let all = [
        vec!["approve", &id, "--reason", "x"],
        vec!["gate", "override", &id, "no", "--reason", "x"],
        vec!["promote", proposal.out.trim(), "--no-pane"],
    ];
    for args in &all {
        refused(world.person(args), "the target asks for presence key");
        // A worker that makes itself a key is not trusted for it.
        let signed = [&args[..], &["--sign"]].concat();
        refused(world.vnx(&signed), "the key that signed is not in .vnx/allowed_signers of the target");
    }
    assert_eq!(decisions(&world), 0);
    sign_with(&mine);
    for args in &all {
        world.vnx(&[&args[..], &["--sign"]].concat()).expect(0);
    }
    for kind in ["approval.given", "override.used", "stage.promoted"] {
        assert_eq!(world.last(kind)["attestation"]["presence"], "key", "{kind}");
    }
    let go = world.vnx(&["gate-check", &id]).expect(0).out;
    assert!(go.contains("(signed): x") && go.contains("set aside"), "{go}");
    // An edited text, or another signature, is none.
    let place = world.state().join("signatures");
    let is_about_the_merge = |name: &String| {
        let text = std::fs::read_to_string(place.join(name.replace(".sig", ".txt"))).unwrap();
        !text.starts_with("vnx.promotion/1")
    };
    let files: Vec<String> = names(&place).into_iter().filter(is_about_the_merge).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for name in files {
        let (file, before) = (place.join(&name), std::fs::read(place.join(&name)).unwrap());
        std::fs::write(&file, b"x").unwrap();
        world.vnx(&["gate-check", &id]).expect(1);
        std::fs::write(&file, before).unwrap();
    }
    // No key in a file is touched.
    commit(&world, "gates:\n  lead: {human: {}}\npresence: {approve: touch}\n");
    refused(world.person(&["approve", &id, "--reason", "x", "--sign"]), "a key that somebody has to touch");
    let held = world.vnx(&["gate-check", &id]).expect(1).out;
    assert!(held.contains("does not count (signed): main asks for presence touch"), "{held}");
    world.assert_verified();
}

#[test]
fn the_targets_commit_says_how_sure_a_decision_must_be() {
    let world = project("gates:\n  lead: {human: {}}\npresence: none\n");
    let id = done(&world);
    world.vnx(&["approve", &id, "--reason", "x"]).expect(0);
    assert_eq!(world.last("approval.given")["attestation"]["presence"], "none");
    let go = world.vnx(&["gate-check", &id]).expect(0).out;
    assert!(go.contains("(nobody was asked): x"), "{go}");
    commit(&world, "gates:\n  lead: {human: {}}\n");
    let held = world.vnx(&["gate-check", &id]).expect(1).out;
    assert!(held.contains("does not count (nobody was asked): main asks for presence tty"), "{held}");
    // Neither an edit of the checkout, nor the branch, nor where one stands, lowers it; and a branch that wants to is strict.
    world.config("gates:\n  lead: {human: {}}\npresence: none\n");
    refused(world.vnx(&["approve", &id, "--reason", "x"]), "there is no terminal");
    world.git(&["checkout", "-q", "--", "."]);
    let lower = "echo 'presence: none' >> .vnx/config.yaml; git commit -qam lower";
    world.script(lower).expect(0);
    let lowering = world.last_id();
    refused(world.vnx(&["approve", &lowering, "--reason", "x"]), "there is no terminal");
    let checked = world.vnx(&["gate-check", &lowering, "--json"]).json();
    assert_eq!(checked["strict"], serde_json::json!([".vnx/config.yaml"]));
    let place = world.root.join("place");
    world.git(&["worktree", "add", "-q", place.to_str().unwrap(), &format!("vnx/{lowering}")]);
    let proposal = world.vnx(&["stage", "--provider", "shell", "--agent", "hello-world", "-i", "true"]).expect(0);
    refused(world.vnx_in(&place, &["promote", proposal.out.trim()]), "there is no terminal");
    refused(world.vnx_in(&place, &["approve", &id, "--reason", "x"]), "there is no terminal");
    let bad = "gates: {}\npresence: {trust: none}\n";
    world.config(bad);
    let said = world.vnx(&["gate", "list"]).expect(2).err;
    assert!(said.contains("trust"), "{said}");
}

#[test]
fn a_constraint_is_set_aside_by_a_person() {
    let world = World::new();
    let rules = "version: 1\nconstraints:\n- {id: no-shell, reason: a test, severity: blocking, overridable: true, forbid_route: {provider: shell}}\n";
    std::fs::write(world.repo.join(".vnx/provider_constraints.yaml"), rules).unwrap();
    let with = ["dispatch-agent", "--agent", "hello-world", "--no-pane", "--override", "no-shell=a test"];
    // Scripts of persons do it too; agents do not.
    let by_agent = Run::of(world.command(World::binary()).args(with).env("CLAUDECODE", "1").output().unwrap());
    refused(by_agent, "an agent cannot speak for a person");
    world.vnx(&with).expect(0);
    assert_eq!(world.last("override.used")["attestation"]["presence"], "none");
    // Who promotes a proposal answers for what it sets aside.
    let proposal = world.vnx(&["stage", "--agent", "hello-world", "--override", "no-shell=a test"]).expect(0);
    world.person(&["promote", proposal.out.trim(), "--no-pane"]).expect(0);
    assert_eq!(world.last("override.used")["attestation"]["presence"], "tty");
    world.assert_verified();
}

#[test]
fn a_background_process_asks_nobody() {
    let world = project("gates:\n  lead: {human: {}}\n");
    let id = done(&world);
    let script = format!(
        "set -m; {} approve {id} --reason x >{root}/said 2>&1 & wait $!",
        World::binary(),
        root = world.root.display()
    );
    let mut shell = world.command("bash");
    shell.args(["-c", &script]).stdin(Stdio::null());
    world.on_terminal(&shell, str::to_owned);
    let said = std::fs::read_to_string(world.root.join("said")).unwrap();
    assert!(said.contains("there is no terminal to ask a person on"), "{said}");
    assert_eq!(decisions(&world), 0);
}
