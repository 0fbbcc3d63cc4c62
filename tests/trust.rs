//! A stranger's repository runs nothing here until a person has accepted what it brings.

use std::path::{Path, PathBuf};

use crate::common::{Run, World, names};

/// A repository that brings one of everything that would be run; each leaves its name in `ran`.
fn stranger() -> (World, PathBuf) {
    let world = World::bare("source");
    let ran = world.root.join("ran");
    std::fs::create_dir(&ran).unwrap();
    let touch = |name: &str| format!("touch {}/{name}", ran.display());
    let write = |file: &str, text: String| {
        let path = world.repo.join(".vnx").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let (gate, create, merge, remove) = (touch("gate"), touch("create"), touch("merge"), touch("remove"));
    write(
        "config.yaml",
        format!(
            "version: 1\nproject_id: strange\ngates:\n  g: {{command: '{gate}'}}\nworktree:\n  hooks:\n    \
             post_create: [{{run: '{create}'}}]\n    pre_merge: [{{run: '{merge}'}}]\n    pre_remove: [{{run: '{remove}'}}]\n\
             providers: {{shell: {{env: {{pass: [MY_*]}}}}}}\n"
        ),
    );
    let probe = |name: &str| format!("{{args: [-c, '{}; echo 9.9.9']", touch(name));
    write(
        "providers/evil.yaml",
        format!(
            "version: 1\nname: evil\ntitle: Evil\nbinaries: [sh]\nversion_probe: {}, min: '0.0.1'}}\nlogin_probe: {}}}\n\
             server_probe: {}}}\nlanes:\n  headless: {{args: [-s], prompt_by: stdin, parser: text}}\n\
             permissions: {{read: [], work: [], full: []}}\n",
            probe("version"),
            probe("login"),
            probe("server")
        ),
    );
    let agent =
        format!("---\nname: runner\ndescription: runs\nprovider: shell\ncommand: '{}'\n---\nRun.\n", touch("agent"));
    write("agents/runner/AGENT.md", agent);
    let constraints = include_str!("../provider_constraints.yaml").to_owned();
    write("provider_constraints.yaml", constraints);
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "strange"]);
    (world, ran)
}

/// The same in a clone, as its user has it.
fn cloned() -> (World, PathBuf) {
    let (mut world, ran) = stranger();
    let clone = world.root.join("clone");
    world.git(&["clone", "--quiet", world.repo.to_str().unwrap(), clone.to_str().unwrap()]);
    world.repo = clone;
    world.set("ANTHROPIC_API_KEY", "sk-ant-not-for-strangers");
    (world, ran)
}

fn dispatch(world: &World, script: &str) -> Run {
    world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i", script])
}

#[test]
fn looking_at_a_clone_runs_nothing_of_it() {
    let (world, ran) = cloned();
    let run = |args: &[&str]| {
        let run = world.vnx(args);
        assert_eq!(names(&ran), Vec::<String>::new(), "vnx {args:?}\n{}{}", run.out, run.err);
        run
    };
    // Before and after it is set up.
    for _ in 0..2 {
        for args in [
            &["status"][..],
            &["ps"],
            &["show"],
            &["doctor"],
            &["doctor", "--json"],
            &["doctor", "--provider", "evil"],
            &["doctor", "--fix", "--yes"],
            &["provider", "list"],
            &["provider", "show", "evil"],
            &["provider", "check", "evil"],
            &["agent", "list"],
            &["gate", "list"],
            &["gate-check", "@last"],
            &["worktree", "list"],
            &["worktree", "gc"],
            &["worktree", "gc", "--apply"],
            &["audit-chain", "verify"],
            &["audit-chain", "seal"],
            &["items", "list"],
            &["rebuild"],
            &["completions", "bash"],
            &["trust"],
            &["trust", "--json"],
            &["init"],
        ] {
            run(args);
        }
    }
    let doctor = run(&["doctor"]).expect(1).out;
    assert!(doctor.contains("vnx trust") && doctor.contains(".vnx/config.yaml brings what would be run"), "{doctor}");
    let check = run(&["provider", "check", "evil"]).expect(1);
    assert!(check.out.contains("nobody has accepted its manifest") && check.err.contains("vnx trust"), "{}", check.err);
    // What would work refuses, and says what to type.
    for args in [
        &["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", "true"][..],
        &["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", "true", "--dry-run"],
        &["dispatch-agent", "--agent", "runner"],
        &["stage", "--agent", "runner"],
        &["provider", "check", "evil", "--live"],
        &["worktree", "new", "mine"],
    ] {
        let refused = run(args);
        assert!([1, 3].contains(&refused.code), "{args:?}: {} {}", refused.code, refused.err);
        assert!(refused.code == 1 || refused.err.contains(".vnx/config.yaml"), "{args:?}: {}", refused.err);
        assert!(refused.err.contains("vnx trust"), "{args:?}: {}", refused.err);
    }
}

#[test]
fn what_a_person_accepted_is_run_until_it_changes() {
    let (world, ran) = cloned();
    world.vnx(&["init"]).expect(0);
    let shown = world.vnx(&["trust", "--list"]).expect(1).out;
    let all =
        ["gate g", "hook post_create", "hook pre_merge", "hook pre_remove", "variables for shell", "provider evil"];
    for what in all.into_iter().chain(["agent runner"]) {
        assert!(shown.contains(&format!("new  {what}  .vnx/")), "{what}\n{shown}");
    }
    assert!(shown.contains("touch ") && shown.contains("; sh -c "), "{shown}");
    // Not by a worker, whatever it calls itself.
    let by_worker = world.command(World::binary()).args(["trust"]).env("VNX_DISPATCH_ID", "x").output().unwrap();
    assert_eq!(by_worker.status.code(), Some(3));
    world.person(&["trust"]).expect(0);
    assert_eq!(world.vnx(&["trust", "--list", "--json"]).expect(0).json()["trusted"], true);
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "set up"]);
    dispatch(&world, "echo a > a; git add a; git commit -qm a").expect(0);
    world.vnx(&["merge", "@last", "--gates"]).expect(0);
    assert_eq!(names(&ran), ["create", "gate", "merge", "remove"]);
    // A pull changes one thing: that one is new, and nothing is run.
    let config = world.repo.join(".vnx/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("/gate'", "/other'")).unwrap();
    let new = world.vnx(&["trust", "--list"]).expect(1).out;
    assert_eq!((new.matches("new  ").count(), new.matches("new  gate g").count()), (1, 1), "{new}");
    dispatch(&world, "true").expect(3);
    // What the target's commit says counts for gates, wherever the checkout stands.
    std::fs::write(&config, &text).unwrap();
    dispatch(&world, "echo b > b; git add b; git commit -qm b").expect(0);
    std::fs::write(&config, text.replace("/gate'", "/other'")).unwrap();
    world.git(&["commit", "--quiet", "-am", "pulled"]);
    std::fs::write(&config, &text).unwrap();
    for args in [&["gate", "run", "@last"][..], &["merge", "@last", "--gates"]] {
        let run = world.vnx(args).expect(3);
        assert!(run.err.contains("main:.vnx/config.yaml") && run.err.contains("gate g"), "{}", run.err);
    }
    world.person(&["trust"]).expect(0);
    world.vnx(&["merge", "@last", "--gates"]).expect(0);
    assert!(ran.join("other").exists());
}

/// `cp -a`, as with an archive that is unpacked.
fn copy(world: &World, from: &Path, to: &Path) {
    let copied = world.command("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_project_that_was_made_here_is_its_owners_wherever_it_goes() {
    let mut world = World::new();
    let hooks = "worktree:\n  hooks: {post_create: [{run: 'true'}]}\n";
    world.config(hooks);
    // In the repository itself: it goes where the home does not.
    world.git(&["config", "user.name", "Test"]);
    world.git(&["config", "user.email", "test@vnx.invalid"]);
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "vnx"]);
    dispatch(&world, "echo a > a; git add a; git commit -qm a").expect(0);
    world.vnx(&["init"]).expect(0);
    let again = |world: &World, code| drop(dispatch(world, "echo b > b; git add b; git commit -qm b").expect(code));
    again(&world, 0);
    // A linked worktree, a copy, the original moved.
    let original = world.repo.clone();
    let place = world.root.join("place");
    world.git(&["worktree", "add", "--quiet", "-b", "other", place.to_str().unwrap()]);
    world.repo = place;
    again(&world, 0);
    let copied = world.root.join("copied");
    copy(&world, &original, &copied);
    world.repo = copied.clone();
    again(&world, 0);
    world.repo = world.root.join("moved");
    std::fs::rename(&original, &world.repo).unwrap();
    world.git(&["worktree", "repair"]);
    again(&world, 0);
    // Another home, or none: the repository's own record says it.
    let home = world.env["HOME"].clone();
    for other in ["/dev/null", "/nowhere"] {
        world.set("HOME", other);
        again(&world, 0);
        // A copy that came from a stranger brings a record, which counts for nothing.
        let unpacked = world.root.join(format!("unpacked{}", other.replace('/', "-")));
        copy(&world, &copied, &unpacked);
        let moved = std::mem::replace(&mut world.repo, unpacked);
        let refused = dispatch(&world, "true").expect(3);
        assert!(refused.err.contains("hook post_create"), "{}", refused.err);
        // Where there is no home for it, what is accepted is remembered here.
        world.person(&["trust"]).expect(0);
        again(&world, 0);
        world.repo = moved;
    }
    world.set("HOME", home);
}

/// Whoever makes a project out of a repository that brings something has not accepted that.
#[test]
fn a_project_is_not_made_here_by_an_init_around_a_strangers_files() {
    let (world, ran) = cloned();
    std::fs::remove_file(world.repo.join(".vnx/config.yaml")).unwrap();
    world.vnx(&["init"]).expect(0);
    world.vnx(&["doctor"]).expect(1);
    dispatch(&world, "true").expect(3);
    // Nothing but words needs no trust.
    std::fs::remove_dir_all(world.repo.join(".vnx/providers")).unwrap();
    std::fs::remove_dir_all(world.repo.join(".vnx/agents")).unwrap();
    dispatch(&world, "echo a > a; git add a; git commit -qm a").expect(0);
    // What the target's commit says would still be run by a merge.
    let shown = world.vnx(&["trust", "--list"]).expect(1).out;
    assert!(shown.contains("new  gate g  main:.vnx/config.yaml") && !shown.contains("new  agent"), "{shown}");
    assert_eq!(names(&ran), Vec::<String>::new());
}

/// A folder that a stranger chose is neither written to nor cleaned.
#[test]
fn worktrees_go_nowhere_else_because_a_clone_says_so() {
    let (mut world, _) = cloned();
    let below = world.root.join("below");
    std::fs::create_dir(&below).unwrap();
    let repo = below.join("clone");
    std::fs::rename(&world.repo, &repo).unwrap();
    world.repo = repo;
    for folder in ["providers", "agents"] {
        std::fs::remove_dir_all(world.repo.join(".vnx").join(folder)).unwrap();
    }
    let elsewhere = world.root.join("elsewhere");
    let precious = elsewhere.join(".trash/precious");
    std::fs::create_dir_all(&precious).unwrap();
    std::os::unix::fs::symlink(&elsewhere, below.join("near")).unwrap();
    let set = |root: &str| {
        let text = format!("version: 1\nproject_id: strange\nworktree: {{root: '{root}'}}\n");
        std::fs::write(world.repo.join(".vnx/config.yaml"), text).unwrap();
    };
    for root in ["../../elsewhere", "../near", "../near/deeper", elsewhere.to_str().unwrap()] {
        set(root);
        world.vnx(&["init"]).expect(0);
        for args in [&["doctor"][..], &["ps"], &["worktree", "gc", "--apply"], &["worktree", "list"], &["show"]] {
            world.vnx(args);
            assert!(precious.exists() && names(&elsewhere) == [".trash"], "{root}: vnx {args:?}");
        }
        let refused = dispatch(&world, "true").expect(3);
        assert!(refused.err.contains("worktree.root"), "{root}: {}", refused.err);
    }
    // Beside the repository is where worktrees belong, and a person may choose.
    set("../trees");
    dispatch(&world, "echo a > a; git add a; git commit -qm a").expect(0);
    set("../../elsewhere");
    world.person(&["trust"]).expect(0);
    dispatch(&world, "echo a > a; git add a; git commit -qm a").expect(0);
}

/// A dispatch that came with a repository is not finished with its hooks.
#[test]
fn recovery_runs_no_hook_that_nobody_accepted() {
    let world = World::new();
    let ran = world.root.join("ran");
    world.config(&format!("worktree:\n  hooks: {{pre_remove: [{{run: 'touch {}'}}]}}\n", ran.display()));
    let ready = world.root.join("ready");
    let script = format!("echo a > a; git add a; git commit -qm a; touch {}; exec sleep 600", ready.display());
    let mut child = world.start_script(&script);
    world.until("its commit", || ready.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    world.kill_supervisor();
    world.vnx(&["trust"]).expect(0);
    std::fs::remove_file(world.state().join("trust.json")).unwrap();
    world.vnx(&["ps"]);
    assert!(!ran.exists());
    let kept = world.last("worktree.kept");
    assert!(kept["reason"].as_str().unwrap().contains("vnx trust"), "{kept}");
}
