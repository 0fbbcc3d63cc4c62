//! From done to landed, the second half: a merge happens whole or not at all, whoever looks at the target, and
//! whatever kills it.

use crate::common::World;
use crate::gates::{TESTS, check, commit, done, holds, project, reasons};

/// A dispatch that may land.
pub fn ready(world: &World, script: &str) -> String {
    let id = done(world, script);
    world.vnx(&["gate", "run", &id]).expect(0);
    id
}

pub fn main(world: &World) -> String {
    world.git(&["rev-parse", "main"])
}

/// Everything is as it was, and nothing is left of the try.
#[track_caller]
fn untouched(world: &World, before: &str) {
    assert_eq!(main(world), before);
    assert_eq!(world.count("merge.started"), world.count("merge.refused"));
    settled(world);
}

/// No merge is under way, and nothing of one is left.
#[track_caller]
pub fn settled(world: &World) {
    world.assert_nothing_left();
    assert!(!world.state().join("merging.json").exists());
    assert_eq!(world.git(&["for-each-ref", "refs/vnx/merging"]), "");
    for left in ["index.lock", "index.vnx", "index.vnx.lock"] {
        assert!(!world.repo.join(".git").join(left).exists(), "{left}");
    }
    world.assert_verified();
}

#[test]
fn three_ways_to_land() {
    for strategy in ["merge", "squash", "rebase"] {
        let world = project(&format!("{TESTS}merge: {{strategy: {strategy}}}\n"));
        let id = ready(&world, "echo 1 > f; git add f; git commit -qm one; echo 2 > g");
        // The target goes on meanwhile.
        std::fs::write(world.repo.join("own"), "x").unwrap();
        world.git(&["add", "own"]);
        world.git(&["commit", "-qm", "own"]);
        let before = main(&world);
        holds(&world, &id, "stale", "tests");
        let run = world.vnx(&["merge", &id, "--gates", "--json"]).expect(0).json();
        assert_eq!(run["merges"][0]["outcome"], "landed", "{run:#}");
        assert_eq!(main(&world), run["merges"][0]["commit"].as_str().unwrap());
        let shown = world.vnx(&["show", &id]).expect(0).out;
        assert!(shown.contains(&format!("it is on main, as {}", &main(&world)[..12])), "{shown}");
        let message = world.git(&["log", "-1", "--format=%B"]);
        for trailer in ["Vnx-Dispatch: ", "Vnx-Receipt: ", "Vnx-Checkpoint: vnx/"] {
            assert_eq!(message.matches(trailer).count(), 1, "{strategy}: {message}");
        }
        let subjects = world.git(&["log", "--format=%s", &format!("{before}..main")]);
        let parents = world.git(&["log", "-1", "--format=%P"]).split(' ').count();
        match strategy {
            "merge" => assert!(subjects.contains("work") && subjects.contains("one") && parents == 2, "{subjects}"),
            "squash" => assert!(subjects.lines().count() == 1 && parents == 1, "{subjects}"),
            _ => assert!(subjects == "work\none" && parents == 1, "{subjects}"),
        }
        // Who has it checked out has its files.
        assert_eq!(world.git(&["status", "--porcelain"]), "");
        assert_eq!(std::fs::read_to_string(world.repo.join("g")).unwrap(), "2\n");
        let started = world.last("merge.started");
        assert_eq!((&started["base"], &started["strategy"]), (&before.into(), &strategy.into()));
        // Its branch is put away, and all of it is anchored.
        assert_eq!(world.git(&["for-each-ref", "refs/heads/vnx"]), "");
        assert_eq!(world.git(&["for-each-ref", &format!("refs/vnx/landed/{id}")]).lines().count(), 1);
        world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(0);
        settled(&world);
        let again = world.vnx(&["merge", &id]).expect(1);
        assert!(again.out.contains("it has landed") && !again.out.contains("stale"), "{}", again.out);
    }
}

#[test]
fn a_conflict_leaves_the_target_alone() {
    for strategy in ["merge", "squash", "rebase"] {
        let world = project(TESTS);
        let id = ready(&world, "echo 1 > f");
        std::fs::write(world.repo.join("f"), "other").unwrap();
        world.git(&["add", "f"]);
        world.git(&["commit", "-qm", "other"]);
        let before = main(&world);
        world.vnx(&["gate", "run", &id]).expect(0);
        let run = world.vnx(&["merge", &id, "--strategy", strategy]).expect(1);
        assert!(run.out.contains("it conflicts with main in \"f\""), "{}", run.out);
        untouched(&world, &before);
        assert_eq!(world.git(&["status", "--porcelain"]), "");
        // It is known from now on, for the strategy that is configured and until something moves.
        let known = strategy == "merge";
        let checked = world.vnx(&["gate-check", &id]).expect(i32::from(known)).out;
        assert_eq!(checked.contains("it conflicts with main in \"f\""), known, "{checked}");
        world.vnx(&["merge", &id, "--strategy", strategy]).expect(1);
        world.git(&["rm", "-q", "f"]);
        world.git(&["commit", "-qm", "out of the way"]);
        assert!(!world.vnx(&["gate-check", &id]).out.contains("conflicts"));
    }
}

/// How a file is joined may be its attributes' to say: what is foreseen without them refuses nothing.
#[test]
fn a_driver_decides_what_is_in_the_way() {
    let world = project(TESTS);
    std::fs::write(world.repo.join(".gitattributes"), "LOG merge=ours\n").unwrap();
    std::fs::write(world.repo.join("LOG"), "one\ntwo\nthree\nfour\n").unwrap();
    world.git(&["config", "merge.ours.driver", "true"]);
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "a log"]);
    let id = done(&world, "echo 1 > f; sed -i 's/one/worker/' LOG");
    std::fs::write(world.repo.join("LOG"), "one\ntwo\nthree\ntarget\n").unwrap();
    world.git(&["commit", "-qam", "target"]);
    std::fs::write(world.repo.join("LOG"), "one\ntwo\nthree\ntarget\nmine\n").unwrap();
    world.vnx(&["merge", "--gates", &id]).expect(0);
    assert_eq!(std::fs::read_to_string(world.repo.join("LOG")).unwrap(), "one\ntwo\nthree\ntarget\nmine\n");
    assert_eq!(world.git(&["show", "main:LOG"]), "one\ntwo\nthree\ntarget");
}

/// Gates take time and money: what would not land whatever they say asks none, and attributes may settle a conflict.
#[test]
fn what_cannot_land_asks_no_gate() {
    let world = project(TESTS);
    let id = done(&world, "echo 1 > f; echo '# Changed' > README.md");
    let before = main(&world);
    std::fs::write(world.repo.join("README.md"), "mine\n").unwrap();
    let run = world.vnx(&["merge", "--queue", &id]).expect(1);
    assert!(run.out.contains("repo is in the way: README.md; the target is what it was"), "{}", run.out);
    assert_eq!(std::fs::read_to_string(world.repo.join("README.md")).unwrap(), "mine\n");
    untouched(&world, &before);
    world.git(&["checkout", "-q", "README.md"]);
    std::fs::write(world.repo.join("f"), "other\n").unwrap();
    world.git(&["add", "f"]);
    world.git(&["commit", "-qm", "other"]);
    let before = main(&world);
    for strategy in ["rebase", "squash", "merge"] {
        let run = world.vnx(&["merge", &id, "--gates", "--strategy", strategy]).expect(1);
        assert!(run.out.contains("it conflicts with main in \"f\""), "{}", run.out);
        untouched(&world, &before);
    }
    assert!(world.vnx(&["gate-check", &id]).expect(1).out.contains("it conflicts with main in \"f\""));
    assert_eq!(world.count("gate.requested"), 0);
    std::fs::write(world.repo.join(".gitattributes"), "f merge=union\n").unwrap();
    world.git(&["add", ".gitattributes"]);
    world.git(&["commit", "-qm", "both lines"]);
    world.vnx(&["merge", &id, "--gates"]).expect(0);
    assert_eq!(world.git(&["show", "main:f"]).lines().count(), 2);
    assert!(world.count("gate.requested") > 0);
    settled(&world);
}

/// Killed wherever it takes a file away until the first gate is asked, nothing of ours stays with who has the target checked out.
#[test]
fn killed_before_a_gate_is_asked() {
    let world = project(TESTS);
    let id = done(&world, "echo 1 > f");
    let (before, lock) = (main(&world), world.repo.join(".git/index.lock"));
    let mut held = 0;
    for n in 1.. {
        let inject = format!("inject=unlink:signal=SIGKILL:when={n}");
        let mut strace = world.command("strace");
        strace.args(["-q", "-o", "/dev/null", "-e", "trace=unlink", "-e", &inject]);
        strace.args([World::binary(), "merge", "--gates", &id]).output().unwrap();
        held += usize::from(lock.exists());
        world.vnx(&["ps"]).expect(0);
        if world.count("gate.requested") > 0 {
            break;
        }
        assert!(!lock.exists(), "at {n}");
        untouched(&world, &before);
    }
    assert!(held > 0, "it was never killed while it held the index");
    world.until("the gate to be over", || world.count("gate.resulted") > 0);
    if main(&world) == before {
        world.vnx(&["merge", "--gates", &id]).expect(0);
    }
    settled(&world);
}

/// Killed while it holds the index of who has the target checked out, in a repository that is moved then.
#[test]
fn a_merge_that_was_cut_off_is_finished_where_its_repository_is_now() {
    let mut world = project(TESTS);
    let id = done(&world, "echo 1 > f");
    let (before, lock) = (main(&world), world.repo.join(".git/index.lock"));
    for n in 1.. {
        let inject = format!("inject=unlink:signal=SIGKILL:when={n}");
        let mut strace = world.command("strace");
        strace.args(["-q", "-o", "/dev/null", "-e", "trace=unlink", "-e", &inject]);
        strace.args([World::binary(), "merge", "--gates", &id]).output().unwrap();
        if lock.exists() {
            break;
        }
        assert_eq!(world.count("gate.requested"), 0, "it was never killed while it held the index");
        world.vnx(&["ps"]).expect(0);
    }
    let moved = world.root.join("moved");
    std::fs::rename(&world.repo, &moved).unwrap();
    world.repo = moved;
    world.vnx(&["ps"]).expect(0);
    assert!(!world.repo.join(".git/index.lock").exists());
    untouched(&world, &before);
}

/// What a merge works in is not its copy's, where both have the same folder for worktrees.
#[test]
fn a_copy_leaves_the_merges_of_its_original_alone() {
    let mut world = World::new();
    let (begun, go, trees) = (world.root.join("begun"), world.root.join("go"), world.root.join("trees"));
    let wait = format!("touch {}; until [ -e {} ]; do sleep 0.02; done; test -e f", begun.display(), go.display());
    // Its own `.git` is no witness: whatever runs there can take it away.
    let wait = format!("mv .git aside; {wait}; mv aside .git");
    let hooks = format!("worktree: {{root: {}, hooks: {{pre_merge: [{{run: '{wait}'}}]}}}}\n", trees.display());
    commit(&world, &format!("{TESTS}{hooks}"));
    let id = ready(&world, "echo 1 > f");
    let merging = world.start(&["merge", &id]);
    world.until("the hook", || begun.exists());
    let (original, copy) = (world.repo.clone(), world.root.join("copy"));
    assert!(world.command("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    world.repo = copy;
    let before = main(&world);
    world.vnx(&["ps"]).expect(0);
    assert_eq!((main(&world), world.count("merge.refused")), (before, 1));
    world.repo = original;
    std::fs::write(go, "").unwrap();
    let ended = merging.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(world.git(&["show", "main:f"]), "1");
}

/// Both begin with one ledger, and each goes on by itself.
#[test]
fn a_copy_that_lands_leaves_its_original_able_to() {
    let mut world = World::new();
    commit(&world, TESTS);
    let id = ready(&world, "echo 1 > f");
    world.vnx(&["audit-chain", "seal"]).expect(0);
    let (original, copy) = (world.repo.clone(), world.root.join("copy"));
    assert!(world.command("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    world.repo = copy;
    let other = ready(&world, "echo 2 > f");
    world.vnx(&["merge", &other]).expect(0);
    world.repo = original;
    world.vnx(&["audit-chain", "verify"]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    world.assert_verified();
}

/// It is the same repository, so an older ledger in it is found out.
#[test]
fn a_repository_that_was_moved_is_known_to_the_witness() {
    let mut world = World::new();
    commit(&world, TESTS);
    let (state, older) = (world.state(), world.root.join("older"));
    assert!(world.command("cp").arg("-a").args([&state, &older]).status().unwrap().success());
    let id = ready(&world, "echo 1 > f");
    world.vnx(&["merge", &id]).expect(0);
    let moved = world.root.join("moved");
    std::fs::rename(&world.repo, &moved).unwrap();
    world.repo = moved;
    world.vnx(&["audit-chain", "verify"]).expect(0);
    std::fs::remove_dir_all(world.state()).unwrap();
    std::fs::rename(older, world.state()).unwrap();
    // Nor do the anchors in git tell.
    world.git(&["update-ref", "-d", "refs/vnx/anchors"]);
    world.vnx(&["audit-chain", "verify"]).expect(3);
}

#[test]
fn ctrl_c_ends_a_whole_queue() {
    let world = World::new();
    let quick = world.root.join("quick");
    commit(&world, &format!("gates:\n  slow: {{command: 'test -e {} || sleep 100; true'}}\n", quick.display()));
    let ids = ["echo 1 > f", "echo 1 > g"].map(|script| done(&world, script));
    let before = main(&world);
    let mut queue = world.start(&["merge", "--queue", &ids[0], &ids[1]]);
    world.until("a gate to run", || world.processes().iter().any(|(_, command)| command.contains("sleep 100")));
    let pid = rustix::process::Pid::from_child(&queue);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(queue.wait().unwrap().code(), Some(130));
    assert_eq!((main(&world), world.count("gate.requested")), (before, 1));
    // What nobody looked at is nothing to close, and the same command asks again.
    std::fs::write(&quick, "").unwrap();
    world.vnx(&["merge", "--gates", &ids[0]]).expect(0);
    // Nor does one land whose gate did not have to pass.
    for phase in ["pre_merge", "post_merge"] {
        let slow = format!("slow: {{command: 'sleep 100; true', required: false, phase: {phase}}}");
        commit(&world, &format!("gates:\n  tests: {{command: 'true'}}\n  {slow}\n"));
        let before = main(&world);
        let mut merge = world.start(&["merge", "--gates", &ids[1]]);
        world.until("the gate to run", || world.processes().iter().any(|(_, command)| command.contains("sleep 100")));
        let pid = rustix::process::Pid::from_child(&merge);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!((merge.wait().unwrap().code(), main(&world)), (Some(130), before), "{phase}");
    }
    assert_eq!(world.count("item.opened"), 0);
}

/// An interrupt takes nothing back of what a gate has said, and is heard while the gate prepares.
#[test]
fn an_interrupted_gate_leaves_what_was_said_before() {
    let world = World::new();
    let (slow, ran) = (world.root.join("slow"), world.root.join("ran"));
    let command = format!("echo >> {}; test ! -e {} || sleep 100; false", ran.display(), slow.display());
    commit(&world, &format!("gates:\n  tests: {{command: '{command}'}}\n"));
    let id = done(&world, "echo 1 > f");
    let interrupted = |meanwhile: &dyn Fn()| {
        let run = world.start(&["gate", "run", &id, "tests"]);
        meanwhile();
        rustix::process::kill_process(rustix::process::Pid::from_child(&run), rustix::process::Signal::INT).unwrap();
        run
    };
    world.vnx(&["gate", "run", &id]).expect(1);
    std::fs::write(&slow, "").unwrap();
    let lines = || std::fs::read_to_string(&ran).unwrap().lines().count();
    let in_it = || world.until("the gate", || lines() == 2);
    assert_eq!(interrupted(&in_it).wait().unwrap().code(), Some(130));
    std::fs::remove_file(&slow).unwrap();
    assert_eq!(reasons(&world, &id), [("failed".to_owned(), "tests".to_owned())]);
    assert!(world.vnx(&["gate", "show", &id, "tests"]).expect(0).out.contains("fail"));
    let asked = world.count("gate.requested");
    world.vnx(&["merge", "--gates", &id]).expect(1);
    assert_eq!(world.count("gate.requested"), asked);
    // Its checkout waits for the repository.
    let lock = std::fs::File::options().write(true).open(world.state().join("locks/repo.lock")).unwrap();
    lock.lock().unwrap();
    let runs = world.state().join("dispatches").join(&id).join("gates");
    let marked = |name: &str| crate::common::names(&runs).iter().filter(|n| runs.join(n).join(name).exists()).count();
    let (before, cancelled) = (marked("runner.log"), marked("cancelled"));
    let mut run = interrupted(&|| world.until("the runner", || marked("runner.log") > before));
    world.until("the note", || marked("cancelled") > cancelled);
    lock.unlock().unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(lines(), 2, "it was not begun");
    assert_eq!(world.last("gate.resulted")["reason"], "cancelled");
    world.assert_nothing_left();
}

#[test]
fn green_alone_and_broken_together() {
    let world = project("gates:\n  tests: {command: 'test ! -e f || test ! -e g'}\n");
    let one = ready(&world, "echo 1 > f");
    let two = ready(&world, "echo 1 > g");
    let run = world.vnx(&["merge", "--queue", &one, &two, "--json"]).expect(1).json();
    assert_eq!(run["merges"][0]["outcome"], "landed", "{run:#}");
    assert_eq!(run["merges"][1]["outcome"], "refused", "{run:#}");
    assert!(run["merges"][1]["reason"].as_str().unwrap().contains("on what main would become"), "{run:#}");
    assert!(world.repo.join("f").exists() && !world.repo.join("g").exists());
    assert_eq!(main(&world), run["merges"][0]["commit"].as_str().unwrap());
    settled(&world);
}

#[test]
fn a_queue_goes_on_after_one_that_is_held() {
    let world = project(TESTS);
    let ids = ["echo 1 > f; echo 1 > a", "echo 1 > a", "echo 1 > f; echo 1 > c"].map(|script| done(&world, script));
    let run = world.vnx(&["merge", "--queue", &ids[0], &ids[1], &ids[2], "--json"]).json();
    let outcomes: Vec<_> = run["merges"].as_array().unwrap().iter().map(|m| m["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["landed", "held", "landed"], "{run:#}");
    settled(&world);
}

#[test]
fn what_is_not_committed_where_the_target_is_checked_out_stays() {
    let world = project(TESTS);
    let id = ready(&world, "echo 1 > f; echo '# Changed' > README.md; mkdir new; echo 1 > new/file");
    let before = main(&world);
    let write = |name: &str, text: &str| std::fs::write(world.repo.join(name), text).unwrap();
    // In the way: changed, added, untracked, ignored.
    let undo = |name: &str| {
        let _ = std::fs::remove_file(world.repo.join(name));
        world.git(&["checkout", "-q", "HEAD", "--", "."]);
    };
    write("README.md", "mine\n");
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("README.md"), "{}", run.out);
    assert_eq!(std::fs::read_to_string(world.repo.join("README.md")).unwrap(), "mine\n");
    undo("README.md");
    write("f", "mine\n");
    world.vnx(&["merge", &id]).expect(1);
    std::fs::write(world.repo.join(".git/info/exclude"), "f\n").unwrap();
    world.vnx(&["merge", &id]).expect(1);
    assert_eq!(std::fs::read_to_string(world.repo.join("f")).unwrap(), "mine\n");
    std::fs::remove_file(world.repo.join("f")).unwrap();
    // Somebody works there.
    write(".git/index.lock", "");
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("index.lock"), "{}", run.out);
    std::fs::remove_file(world.repo.join(".git/index.lock")).unwrap();
    write(".git/MERGE_HEAD", &format!("{before}\n"));
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("in the middle of something"), "{}", run.out);
    std::fs::remove_file(world.repo.join(".git/MERGE_HEAD")).unwrap();
    untouched(&world, &before);
    // Not in the way: changed, staged, untracked.
    write("src/lib.rs", "mine\n");
    write("staged", "mine\n");
    world.git(&["add", "staged"]);
    write("untracked", "mine\n");
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(world.git(&["status", "--porcelain"]), " M src/lib.rs\nA  staged\n?? untracked");
    assert_eq!(std::fs::read_to_string(world.repo.join("new/file")).unwrap(), "1\n");
    settled(&world);
}

#[test]
fn the_target_may_be_checked_out_elsewhere_or_nowhere() {
    let world = project(TESTS);
    world.git(&["checkout", "-q", "-b", "side"]);
    let id = done(&world, "echo 1 > f");
    let tree = world.root.join("of main");
    world.git(&["worktree", "add", "-q", tree.to_str().unwrap(), "main"]);
    std::fs::write(tree.join("untracked"), "mine").unwrap();
    world.vnx(&["gate", "run", &id, "--into", "main"]).expect(0);
    world.vnx(&["merge", &id, "--into", "main"]).expect(0);
    assert_eq!(world.git_in(&tree, &["status", "--porcelain"]), "?? untracked");
    assert!(tree.join("f").exists() && !world.repo.join("f").exists());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    world.git(&["worktree", "remove", "--force", tree.to_str().unwrap()]);
    let two = done(&world, "echo 1 > f; echo 2 > g");
    world.vnx(&["gate", "run", &two, "--into", "main"]).expect(0);
    world.vnx(&["merge", &two, "--into", "main"]).expect(0);
    assert_eq!(world.git(&["show", "main:g"]), "2");
    settled(&world);
}

/// T-26: what was proven and what is moved are the same, or nothing is moved.
#[test]
fn a_target_or_a_branch_that_moves_meanwhile() {
    let moves = "git -C ../../../repo commit -q --allow-empty -m 'meanwhile'";
    let world = project(&format!(
        "gates:\n  tests: {{command: 'true'}}\n  late: {{command: \"{moves}\", phase: post_merge}}\n"
    ));
    let id = ready(&world, "echo 1 > f");
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("main was not moved"), "{}", run.out);
    assert_eq!(world.git(&["log", "-1", "--format=%s", "main"]), "meanwhile");
    assert!(!world.repo.join("f").exists());
    let before = main(&world);
    untouched(&world, &before);
    // The branch moves: what lands is what was looked at.
    let moves = "cd ../../../repo && git update-ref refs/heads/vnx/$VNX_DISPATCH_ID $(git commit-tree main^{tree} -p $VNX_BASE -m evil)";
    commit(
        &world,
        &format!("gates:\n  tests: {{command: 'true'}}\n  late: {{command: \"{moves}\", phase: post_merge}}\n"),
    );
    let head = world.git(&["rev-parse", &format!("vnx/{id}")]);
    world.vnx(&["merge", &id, "--gates"]).expect(0);
    assert_eq!(world.git(&["log", "-1", "--format=%P", "main"]).split(' ').nth(1), Some(head.as_str()));
    assert!(world.repo.join("f").exists());
    settled(&world);
}

/// T-26: the ledger changes between the proof and the merge.
#[test]
fn a_ledger_that_changes_meanwhile() {
    let cut = "cd ../../../repo/.git/vnx/receipts; head -c 3000 ledger.ndjson > x; cat x > ledger.ndjson; rm x";
    let world =
        project(&format!("gates:\n  tests: {{command: 'true'}}\n  late: {{command: \"{cut}\", phase: post_merge}}\n"));
    let id = ready(&world, "echo 1 > f");
    let before = main(&world);
    let run = world.vnx(&["merge", &id]);
    assert_ne!(run.code, 0, "{}", run.out);
    assert_eq!(main(&world), before);
    world.vnx(&["audit-chain", "verify"]).expect(3);
}

fn hook(world: &World, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = world.repo.join(".git/hooks").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// vnx is killed between the move of the target and the rest: by a hook of git, which knows when it has moved.
fn killed_once_moved(world: &World) {
    hook(
        world,
        "reference-transaction",
        "[ $1 = committed ] && grep -q refs/heads/main || exit 0\nread -r _ _ _ vnx _ < /proc/$PPID/stat\n\
         [ \"$(cat /proc/$vnx/comm)\" = vnx ] && kill -9 $vnx\nexit 0",
    );
}

#[test]
fn the_projects_hooks_may_refuse_and_may_not_change() {
    let cases = [
        ("pre-merge-commit", "echo not today >&2; exit 1", Some("not today")),
        ("commit-msg", "grep -v ^Vnx- $1 > $1.new; mv $1.new $1", Some("took the trailers")),
        ("commit-msg", "grep -q ^Vnx-Dispatch: $1", None),
        ("prepare-commit-msg", "sed -i '1s/^/[TICKET-1] /' $1", None),
        (
            "reference-transaction",
            "[ $1 = prepared ] && grep -q refs/heads/main && exit 1; exit 0",
            Some("main was not moved"),
        ),
        ("post-merge", "touch ran", None),
    ];
    for (name, script, refused) in cases {
        let world = project(TESTS);
        // Workers commit too.
        let guard = if name == "reference-transaction" { "" } else { "[ -n \"$VNX_MERGE\" ] || exit 0\n" };
        hook(&world, name, &format!("{guard}{script}"));
        let id = ready(&world, "echo 1 > f");
        let before = main(&world);
        let run = world.vnx(&["merge", &id]);
        if let Some(why) = refused {
            assert_eq!(run.code, 1, "{name}: {}", run.out);
            assert!(run.out.contains(why), "{name}: {}", run.out);
            untouched(&world, &before);
            assert_eq!(world.git(&["status", "--porcelain"]), "", "{name}");
            continue;
        }
        run.expect(0);
        if name == "prepare-commit-msg" {
            assert!(world.git(&["log", "-1", "--format=%s"]).starts_with("[TICKET-1]"));
        }
        settled(&world);
    }
}

#[test]
fn hooks_of_squashes_and_of_the_project_itself() {
    let world = project(&format!("{TESTS}worktree: {{hooks: {{pre_merge: [{{run: 'test ! -e stop'}}]}}}}\n"));
    hook(&world, "pre-commit", "test -z \"$VNX_MERGE\" || test ! -e stop-too");
    let id = ready(&world, "echo 1 > f; echo 1 > stop");
    let before = main(&world);
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("hook pre_merge-1 refuses it"), "{}", run.out);
    untouched(&world, &before);
    let id = ready(&world, "echo 1 > f; echo 1 > stop-too");
    world.vnx(&["merge", &id, "--strategy", "squash"]).expect(1);
    untouched(&world, &before);
    hook(&world, "pre-commit", "test -z \"$VNX_MERGE\" || { echo 1 > sneaked; git add sneaked; }");
    let id = ready(&world, "echo 1 > f");
    let run = world.vnx(&["merge", &id, "--strategy", "squash"]).expect(1);
    assert!(run.out.contains("changed what is merged"), "{}", run.out);
    untouched(&world, &before);
    world.vnx(&["merge", &id]).expect(0);
    settled(&world);
}

#[test]
fn commits_are_signed_where_git_is_told_to() {
    let world = project(TESTS);
    let key = world.root.join("key");
    let made = world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    for (name, value) in [("gpg.format", "ssh"), ("user.signingkey", key.to_str().unwrap()), ("commit.gpgsign", "true")]
    {
        world.git(&["config", name, value]);
    }
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    std::fs::write(world.repo.join(".vnx/allowed_signers"), format!("ada {public}")).unwrap();
    world.git(&["commit", "-qam", "signers"]);
    for strategy in ["merge", "squash", "rebase"] {
        let id = ready(&world, &format!("echo {strategy} > f"));
        world.vnx(&["merge", &id, "--strategy", strategy]).expect(0);
        assert!(world.git(&["cat-file", "commit", "main"]).contains("gpgsig -----BEGIN SSH SIGNATURE"), "{strategy}");
    }
    settled(&world);
}

/// Whoever takes it back answers for that; what was said about the change does not count for the way back.
#[test]
fn a_commit_that_takes_back_is_not_what_was_approved() {
    let world = project("gates:\n  tests: {command: 'test -e README.md'}\n  lead: {human: {}}\n");
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]);
    world.person(&["approve", &id, "--reason", "read it"]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    let landed = world.vnx(&["gate-check", "--commit", "main", "--json"]).expect(0).json();
    assert_eq!(landed["approvals"][0]["reason"], "read it", "{landed:#}");
    world.vnx(&["revert", &id, "--reason", "oops"]).expect(0);
    let back = world.vnx(&["gate-check", "--commit", "main", "--json"]).expect(0).json();
    assert_eq!(back["approvals"].as_array().unwrap().len(), 0, "{back:#}");
    let shown = world.vnx(&["show", &id]).expect(0).out;
    assert!(shown.contains("taken back from main") && shown.contains("refs/vnx/landed/"), "{shown}");
    // The gate that the way back had to pass is part of its proof.
    let gates = world.state().join("dispatches").join(&id).join("gates");
    let said = world.last("gate.resulted")["nonce"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(gates.join(said)).unwrap();
    world.vnx(&["gate-check", "--commit", "main"]).expect(1);
    // The worktree comes back from what was put away.
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(world.git(&["show", &format!("vnx/{id}:f")]), "1");
}

#[test]
fn what_landed_is_taken_back() {
    for strategy in ["merge", "squash", "rebase"] {
        let world = project("gates:\n  tests: {command: 'test -e README.md'}\n");
        let id = ready(&world, "echo 1 > f; git add f; git commit -qm one; echo 2 > g");
        world.vnx(&["merge", &id, "--strategy", strategy]).expect(0);
        world.vnx(&["revert", &id, "--reason", ""]).expect(2);
        world.vnx(&["revert", &id, "--reason", "it was too early"]).expect(0);
        assert!(!world.repo.join("f").exists() && !world.repo.join("g").exists());
        let message = world.git(&["log", "-1", "--format=%B"]);
        assert!(message.starts_with(&format!("Revert {id}")) && message.contains("it was too early"), "{message}");
        world.vnx(&["revert", &id, "--reason", "again"]).expect(2);
        settled(&world);
    }
}

#[test]
fn two_merges_at_once_are_one_after_the_other() {
    let world = project("gates:\n  tests: {command: 'true'}\n");
    let one = ready(&world, "echo 1 > f");
    let two = ready(&world, "echo 1 > g");
    let mut children = [&one, &two].map(|id| world.start(&["merge", id, "--gates"]));
    let codes = children.each_mut().map(|child| child.wait().unwrap().code());
    assert_eq!(codes, [Some(0), Some(0)]);
    assert!(world.repo.join("f").exists() && world.repo.join("g").exists());
    settled(&world);
}

#[test]
fn bad_input_is_named() {
    let world = project(TESTS);
    let id = ready(&world, "echo 1 > f");
    for (args, code, what) in [
        (vec!["merge", "none"], 2, "there is no dispatch"),
        (vec!["merge", &id, &id], 2, "--queue"),
        (vec!["merge", &id, "--into", "no such"], 2, "not the name of a branch"),
        (vec!["merge", &id, "--into", "none"], 2, "there is no branch none"),
        (vec!["revert", &id, "--reason", "x"], 2, "has not landed"),
        (vec!["gate", "run", &id, "nope"], 2, "is not configured"),
        (vec!["gate", "show", &id, "nope"], 2, "has no result"),
        (vec!["items", "close", "i-0", "--reason", "x"], 2, "no open item is called"),
    ] {
        let run = world.vnx(&args).expect(code);
        assert!(run.err.contains(what), "{args:?}: {}", run.err);
    }
    for (gates, what) in [
        ("gates:\n  a: {}\n", "gates.a: it needs exactly one of"),
        ("gates:\n  a: {command: x, human: {}}\n", "gates.a: it needs exactly one of"),
        ("gates:\n  a: {command: ''}\n", "`command` is empty"),
        ("gates:\n  a: {command: x, after: [b]}\n", "names b, which is no gate"),
        ("gates:\n  a: {command: x, after: [b]}\n  b: {command: x, after: [a]}\n", "leads back to itself"),
        ("gates:\n  verdict: {command: x}\n", "that name is taken"),
        ("gates:\n  a: {command: x, timeout: 0s}\n", "`timeout` must be longer"),
        ("gates:\n  a: {comand: x}\n", "comand"),
        ("gates:\n  a: {probe: {checks: []}}\n", "`checks` needs"),
        ("gates:\n  a: {review: {providers: [claude, claude]}}\n", "names one twice"),
        ("gates:\n  a: {review: {providers: [claude], models: {gemini: x}}}\n", "not among review.providers"),
        ("merge: {strategy: revert}\n", "none of the words for this: merge, squash, rebase"),
        ("merge: {target: 'a..b'}\n", "cannot be the name of a branch"),
    ] {
        commit(&world, gates);
        let run = world.vnx(&["gate", "list"]).expect(2);
        assert!(run.err.contains(what) && run.err.contains(".vnx/config.yaml"), "{gates}: {}", run.err);
    }
}

#[test]
fn looking_changes_nothing() {
    let world = project(TESTS);
    let id = ready(&world, "echo 1 > f");
    let receipts = world.receipts().len();
    assert_eq!(reasons(&world, &id), Vec::new());
    world.vnx(&["gate", "status", &id]).expect(0);
    world.vnx(&["gate", "list", "--json"]).expect(0);
    world.vnx(&["items", "list"]).expect(0);
    assert_eq!(check(&world, &id)["schema"], "vnx.gate-check/1");
    assert_eq!(world.receipts().len(), receipts);
    assert!(!world.worktrees().exists());
}

/// What was half written when everything was killed is finished, and what somebody changed since is theirs.
#[test]
fn a_checkout_that_was_left_half_written_is_finished() {
    let world = project("gates:\n  tests: {command: 'test -e README.md'}\n");
    killed_once_moved(&world);
    for n in 0..40 {
        std::fs::write(world.repo.join(format!("n{n}")), format!("{n}\n").repeat(50)).unwrap();
    }
    std::os::unix::fs::symlink("n1", world.repo.join("link")).unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "many"]);
    let id = ready(
        &world,
        "for n in $(seq 0 39); do echo more >> n$n; done; rm n7; chmod +x n8; rm link; ln -s n2 link; mkdir deep; echo 1 > deep/new",
    );
    // Killed between the move and the rest: by a hook of git, which knows when the target has moved.
    world.vnx(&["merge", &id]);
    let commit = main(&world);
    let lock = std::fs::read_to_string(world.repo.join(".git/index.lock")).unwrap();
    assert!(lock.starts_with("vnx "), "{lock}");
    let show = |path: &str| world.git(&["show", &format!("{commit}:{path}")]) + "\n";
    let write = |path: &str, text: &str| std::fs::write(world.repo.join(path), text).unwrap();
    write("n1", &show("n1"));
    write("n2", &show("n2")[..30]);
    write("n3", "");
    std::fs::remove_file(world.repo.join("n4")).unwrap();
    write("n5", "of somebody\n");
    std::fs::remove_file(world.repo.join("n7")).unwrap();
    std::fs::create_dir(world.repo.join("deep")).unwrap();
    write("deep/new", "");
    let story = world.vnx(&["ps"]).expect(0);
    assert!(story.err.contains("is finished now") && !story.err.contains("bring it along"), "{}", story.err);
    assert_eq!(world.git(&["status", "--porcelain"]), " M n5");
    assert_eq!(std::fs::read_to_string(world.repo.join("n5")).unwrap(), "of somebody\n");
    world.git(&["checkout", "n5"]);
    settled(&world);
    assert_eq!(world.last("merge.landed")["recovered"], true);
    assert_eq!(world.git(&["rev-parse", "main"]), commit);
}

/// Somebody took our lock away before vnx could go on: it is taken again, if what is staged is what was.
#[test]
fn a_lock_that_was_taken_away_is_no_reason_to_stop_half_way() {
    // Also where nothing but a mode has changed: the object is the same then.
    for (staged, script) in
        [(false, "echo 1 > f; echo more >> README.md"), (false, "chmod +x README.md"), (true, "echo more >> README.md")]
    {
        let world = project("gates:\n  tests: {command: 'test -e README.md'}\n");
        killed_once_moved(&world);
        let id = ready(&world, script);
        world.vnx(&["merge", &id]);
        std::fs::remove_file(world.repo.join(".git/index.lock")).unwrap();
        if staged {
            std::fs::write(world.repo.join("README.md"), "of somebody\n").unwrap();
            world.git(&["add", "README.md"]);
        }
        let story = world.vnx(&["ps"]).expect(0).err;
        assert_eq!(world.last("merge.landed")["recovered"], true);
        if staged {
            assert!(story.contains("somebody has changed what is staged"), "{story}");
            assert_eq!(std::fs::read_to_string(world.repo.join("README.md")).unwrap(), "of somebody\n");
        } else {
            assert_eq!(world.git(&["status", "--porcelain"]), "", "{script}");
            assert_eq!(world.repo.join("f").exists(), script.contains("> f"));
        }
        settled(&world);
    }
}

/// What cannot be written shows as a change, and the words say how it is written later.
#[test]
fn a_file_that_cannot_be_written_is_a_change_and_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = project("gates:\n  tests: {command: 'test -e README.md'}\n");
    world.drop_privileges();
    let id = ready(&world, "echo 1 > a; echo 1 > src/new; echo 1 > z; echo more >> README.md");
    let folder = world.repo.join("src");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
    let said = world.vnx(&["merge", &id]).expect(0).out;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(said.contains("not every file could be written") && said.contains("restore FILE"), "{said}");
    assert_eq!(world.git(&["status", "--porcelain"]), " D src/new");
    world.git(&["restore", "src/new"]);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    settled(&world);
}

/// What a sparse checkout leaves out stays out, also where a killed merge is finished.
#[test]
fn a_sparse_checkout_stays_sparse() {
    let world = project("gates:\n  tests: {command: 'test -e README.md'}\n");
    world.git(&["sparse-checkout", "set", "--no-cone", "/*", "!/src"]);
    killed_once_moved(&world);
    let id = ready(&world, "echo 1 > f; git sparse-checkout disable; echo '// more' >> src/lib.rs");
    world.vnx(&["merge", &id]);
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(world.repo.join("f").exists() && !world.repo.join("src").exists());
    settled(&world);
}

#[test]
fn nothing_that_nobody_tracks_is_written_over() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9.ign");
    let world = project(TESTS);
    std::fs::write(world.repo.join(".gitignore"), "*.ign\n").unwrap();
    world.git(&["add", ".gitignore"]);
    world.git(&["commit", "-qm", "ignored"]);
    let id = ready(
        &world,
        "echo 1 > f; mkdir a.ign; echo 1 > a.ign/b; printf x > \"$(printf 'caf\\351.ign')\"; git add -f .",
    );
    let before = main(&world);
    // A file where a folder has to be, and a name that is no text.
    std::fs::write(world.repo.join("a.ign"), "precious").unwrap();
    world.vnx(&["merge", &id]).expect(1);
    std::fs::remove_file(world.repo.join("a.ign")).unwrap();
    std::fs::write(world.repo.join(odd), "precious").unwrap();
    world.vnx(&["merge", &id]).expect(1);
    assert_eq!(std::fs::read(world.repo.join(odd)).unwrap(), b"precious");
    std::fs::remove_file(world.repo.join(odd)).unwrap();
    // An edit of the same size in the same moment as the index.
    std::fs::write(world.repo.join("f"), "9\n").unwrap();
    world.git(&["add", "f"]);
    world.git(&["commit", "-qm", "own"]);
    untouched(&world, &main(&world));
    assert_ne!(main(&world), before);
    let two = ready(&world, "echo 2 > f");
    std::fs::write(world.repo.join("f"), "9\n").unwrap();
    world.git(&["add", "f"]);
    std::fs::write(world.repo.join("f"), "8\n").unwrap();
    let index = world.repo.join(".git/index");
    let time = std::fs::metadata(&index).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(world.repo.join("f")).unwrap().set_modified(time).unwrap();
    world.vnx(&["merge", &two]).expect(1);
    assert_eq!(std::fs::read_to_string(world.repo.join("f")).unwrap(), "8\n");
}

#[test]
fn folders_become_files_and_back() {
    let world = project("gates:\n  tests: {command: 'test -e README.md'}\n");
    let id =
        ready(&world, "git rm -qr src; echo file > src; git mv README.md x; mkdir README.md; git mv x README.md/x");
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(world.repo.join("src").is_file() && world.repo.join("README.md/x").is_file());
    world.vnx(&["revert", &id, "--reason", "back"]).expect(0);
    assert!(world.repo.join("src/lib.rs").is_file() && world.repo.join("README.md").is_file());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    settled(&world);
}

#[test]
fn a_gate_sees_all_of_the_commit_in_a_sparse_repository() {
    let world = project("gates:\n  tests: {command: 'test -e src/lib.rs && test -e f'}\n");
    world.git(&["sparse-checkout", "set", "--no-cone", "/*", "!/src"]);
    let id = ready(&world, "echo 1 > f");
    world.vnx(&["merge", &id]).expect(0);
    assert!(world.repo.join("f").exists() && !world.repo.join("src").exists());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    settled(&world);
}

#[test]
fn a_branch_that_a_rebase_will_come_back_to_is_not_moved() {
    let world = project(TESTS);
    let id = ready(&world, "echo 1 > f");
    let before = main(&world);
    std::fs::create_dir(world.repo.join(".git/rebase-merge")).unwrap();
    std::fs::write(world.repo.join(".git/rebase-merge/head-name"), "refs/heads/main\n").unwrap();
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("will come back to it"), "{}", run.out);
    std::fs::remove_dir_all(world.repo.join(".git/rebase-merge")).unwrap();
    untouched(&world, &before);
}

/// Hooks run what a branch brought: it neither speaks for persons nor moves what the merge does not.
#[test]
fn what_a_hook_runs_of_the_branch_has_no_say() {
    let world = project(&format!(
        "{TESTS}  lead: {{human: {{}}}}\nworktree: {{hooks: {{pre_merge: [{{run: 'sh ./t.sh || true'}}]}}}}\n"
    ));
    let vnx = World::binary();
    let other = ready_but(&world, "echo 2 > f");
    let script = format!(
        "echo 1 > f; echo 'cd {}; env -u VNX_MERGE {vnx} approve {other} --reason x' > t.sh",
        world.repo.display()
    );
    let id = ready_but(&world, &script);
    world.person(&["approve", &id, "--reason", "x"]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(world.count("approval.given"), 1);
    let id = ready_but(&world, "echo 3 > f; echo 'git symbolic-ref HEAD refs/heads/main' > t.sh");
    world.person(&["approve", &id, "--reason", "x"]).expect(0);
    let before = main(&world);
    let run = world.vnx(&["merge", &id]).expect(1);
    assert!(run.out.contains("put the merge's checkout on a branch"), "{}", run.out);
    assert_eq!(main(&world), before);
    settled(&world);
}

/// A dispatch whose gates have passed, as far as they can.
fn ready_but(world: &World, script: &str) -> String {
    let id = done(world, script);
    world.vnx(&["gate", "run", &id]);
    id
}

#[test]
fn what_goes_on_after_it_was_looked_at_is_not_put_away() {
    let moves = "cd ../../../repo && git update-ref refs/heads/vnx/$VNX_DISPATCH_ID $(git commit-tree main^{tree} -p refs/heads/vnx/$VNX_DISPATCH_ID -m more)";
    let world = project(&format!(
        "gates:\n  tests: {{command: 'true'}}\n  late: {{command: \"{moves}\", phase: post_merge}}\n"
    ));
    let id = ready(&world, "echo 1 > f");
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(world.git(&["log", "-1", "--format=%s", &format!("vnx/{id}")]), "more");
    assert_eq!(world.git(&["for-each-ref", "refs/vnx/landed"]), "");
}

#[test]
fn a_gate_at_the_merge_that_failed_once_can_pass() {
    let world =
        project("gates:\n  tests: {command: 'true'}\n  late: {command: 'test -e ../../../go', phase: post_merge}\n");
    let id = ready(&world, "echo 1 > f");
    let before = main(&world);
    world.vnx(&["merge", &id]).expect(1);
    untouched(&world, &before);
    std::fs::write(world.root.join("go"), "").unwrap();
    world.vnx(&["merge", &id]).expect(0);
    let landed = main(&world);
    world.vnx(&["gate-check", "--commit", &landed]).expect(0);
    // What it said then is part of the proof.
    let gates = world.state().join("dispatches").join(&id).join("gates");
    let said = world
        .receipts()
        .into_iter()
        .rev()
        .find(|r| r["kind"] == "gate.resulted" && r["data"]["gate"] == "late")
        .unwrap();
    std::fs::remove_dir_all(gates.join(said["data"]["nonce"].as_str().unwrap())).unwrap();
    world.vnx(&["gate-check", "--commit", &landed]).expect(1);
}

#[test]
fn a_rebase_moves_no_other_branch() {
    let world = project(TESTS);
    world.git(&["config", "rebase.updateRefs", "true"]);
    let id = done(&world, "echo 1 > f; git add f; git commit -qm one; git branch mine; echo 2 > g");
    let mine = world.git(&["rev-parse", "mine"]);
    world.git(&["commit", "-q", "--allow-empty", "-m", "more"]);
    world.vnx(&["merge", &id, "--gates", "--strategy", "rebase"]).expect(0);
    assert_eq!(world.git(&["rev-parse", "mine"]), mine);
}

#[test]
fn it_lands_on_a_second_branch_too() {
    let world = project(TESTS);
    world.git(&["branch", "release"]);
    let id = ready(&world, "echo 1 > f");
    world.vnx(&["merge", &id]).expect(0);
    world.vnx(&["merge", &id, "--gates", "--into", "release"]).expect(0);
    assert_eq!(world.git(&["show", "release:f"]), "1");
    let run = world.vnx(&["merge", &id, "--into", "release"]).expect(1);
    assert!(run.out.contains("it has landed"), "{}", run.out);
    settled(&world);
}
