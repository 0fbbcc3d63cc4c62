//! Bad input: one clear line that names the thing, a fix, exit 2 (or 3, 5), and nothing left.

use std::fmt::Write as _;

use crate::common::{Run, World};

#[track_caller]
fn refused(world: &World, args: &[&str], code: i32, names: &str) {
    let before = (world.receipts().len(), world.git(&["for-each-ref"]));
    let run = world.vnx(&[&["dispatch-agent"], args].concat());
    let told = format!("{args:?}: {}\n{}{}", run.code, run.out, run.err);
    assert_eq!(run.code, code, "{told}");
    assert!(run.err.contains(names), "{names:?} is not named: {told}");
    assert!(run.out.is_empty() && !run.err.contains("panicked"), "{told}");
    assert_eq!((world.receipts().len(), world.git(&["for-each-ref"])), before, "{told}");
    assert_eq!(crate::common::names(&world.state().join("dispatches")), Vec::<String>::new(), "{told}");
    world.assert_nothing_left();
}

#[test]
fn the_table() {
    let world = World::new();
    let big = world.root.join("big");
    std::fs::write(&big, "x".repeat(5_000_000)).unwrap();
    let latin = world.root.join("latin1");
    std::fs::write(&latin, b"caf\xe9").unwrap();
    let empty = world.root.join("empty");
    std::fs::write(&empty, " \n").unwrap();
    let (big, latin, empty) = (big.to_str().unwrap(), latin.to_str().unwrap(), empty.to_str().unwrap());
    let ok = ["--agent", "hello-world"];
    let with = |extra: &[&'static str]| [&ok[..], extra].concat();
    refused(&world, &["--agent", "nobody"], 2, "unknown agent \"nobody\"");
    refused(&world, &["--agent", "../hello-world"], 2, "../hello-world");
    refused(&world, &["--agent", "Hello"], 2, "\"Hello\"");
    refused(&world, &[], 2, "--agent");
    refused(&world, &with(&["--provider", "nothing"]), 2, "unknown provider \"nothing\"");
    refused(&world, &with(&["--provider", "a/b"]), 2, "a/b");
    refused(&world, &with(&["--model", "--evil"]), 2, "--evil");
    refused(&world, &with(&["--model", "x"]), 2, "no models to choose from");
    refused(&world, &with(&["--lane", "acp"]), 2, "no acp lane");
    refused(&world, &with(&["--lane", "sideways"]), 2, "sideways");
    refused(&world, &with(&["--nonsense"]), 2, "--nonsense");
    refused(&world, &with(&["--gate", "x"]), 2, "--gate");
    refused(&world, &with(&["--id", "../x"]), 2, "../x");
    refused(&world, &with(&["--base", "nowhere"]), 2, "\"nowhere\"");
    refused(&world, &with(&["--base", "--output=/tmp/x"]), 2, "--output");
    refused(&world, &with(&["--deadline", "10"]), 2, "10");
    refused(&world, &with(&["--deadline", "0s"]), 2, "--deadline");
    refused(&world, &with(&["--idle", "soon"]), 2, "soon");
    refused(&world, &with(&["--path", "../outside"]), 2, "leaves the repository");
    refused(&world, &with(&["--path", "/etc/*"]), 2, "leaves the repository");
    refused(&world, &with(&["--override", "x"]), 2, "no reason");
    refused(&world, &with(&["--env-file", "/nonexistent"]), 2, "/nonexistent");
    refused(&world, &with(&["-i", "Remove what is not used."]), 2, "would run the instruction as a script");
    refused(&world, &with(&["Go"]), 2, "would run the instruction as a script");
    refused(&world, &with(&["-i", ""]), 2, "instruction is empty");
    refused(&world, &with(&["-i", " \n\t"]), 2, "instruction is empty");
    refused(&world, &with(&["-f", "/nonexistent"]), 2, "/nonexistent");
    refused(&world, &with(&["-f", "/"]), 2, "is a folder");
    refused(&world, &[&ok[..], &["-f", big]].concat(), 2, "1000000 bytes");
    refused(&world, &[&ok[..], &["-f", latin]].concat(), 2, "not UTF-8");
    refused(&world, &[&ok[..], &["-f", empty]].concat(), 2, "instruction is empty");
    refused(&world, &with(&["-i", "x", "-f", "y"]), 2, "--file");
    world.assert_verified();
}

#[test]
fn an_agent_without_a_command_needs_an_instruction() {
    let world = World::new();
    let agent = world.repo.join(".vnx/agents/quiet");
    std::fs::create_dir_all(&agent).unwrap();
    std::fs::write(agent.join("AGENT.md"), "---\nname: quiet\ndescription: d\nprovider: shell\n---\n").unwrap();
    refused(&world, &["--agent", "quiet"], 2, "no instruction");
    std::fs::write(agent.join("AGENT.md"), "---\nname: quiet\ndescription: d\nprovidr: shell\n---\n").unwrap();
    refused(&world, &["--agent", "quiet", "-i", "x"], 2, "providr");
    std::fs::write(agent.join("AGENT.md"), "---\nname: quiet\ndescription: d\nskills: [nothing]\n---\n").unwrap();
    refused(&world, &["--agent", "quiet", "-i", "x"], 2, "unknown skill");
}

#[test]
fn standard_input_is_read_and_checked() {
    let world = World::new();
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-"];
    world.vnx_with_input(&args, b"echo 1 > x; git add x; git commit -qm x").expect(0);
    world.vnx_with_input(&args, &b"x".repeat(5_000_000)).expect(2);
    world.vnx_with_input(&args, b"\xff\xfe").expect(2);
    world.vnx_with_input(&args, b"echo a\0b").expect(2);
    world.assert_nothing_left();
}

#[test]
fn an_id_that_is_taken_stays_with_its_first_owner() {
    let world = World::new();
    let args = [
        "dispatch-agent",
        "--provider",
        "shell",
        "--agent",
        "hello-world",
        "--id",
        "mine",
        "-i",
        "echo 1 > x; git add x; git commit -qm x",
    ];
    world.vnx(&args).expect(0);
    let again = world.vnx(&args).expect(2);
    assert!(again.err.contains("dispatch id mine is taken"), "{}", again.err);
    assert_eq!(world.count("dispatch.claimed"), 1);
    // Two at the same instant: one wins, one is told, nothing is mixed.
    let both = args.map(|a| if a == "mine" { "race" } else { a });
    let children = [world.start(&both), world.start(&both)];
    let mut codes: Vec<i32> =
        children.into_iter().map(|c| c.wait_with_output().unwrap().status.code().unwrap()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 2]);
    assert_eq!(world.count("dispatch.claimed"), 2);
    world.assert_nothing_left();
    world.assert_verified();
}

#[test]
fn configurations_that_attack_the_parser_end_in_one_line() {
    let world = World::new();
    let file = world.repo.join(".vnx/config.yaml");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..20 {
        let list = vec![format!("*a{}", n - 1); 9].join(", ");
        writeln!(bomb, "a{n}: &a{n} [{list}]").unwrap();
    }
    let deep = format!("version: {}", "[".repeat(100_000));
    let texts = [
        ("unknown key", "version: 1\nproject_id: a\nlimit: {}\n".to_owned()),
        ("wrong type", "version: 1\nproject_id: a\nlimits: {parallel: many}\n".to_owned()),
        ("bomb", bomb),
        ("cycle", "version: 1\nproject_id: &a [*a]\n".to_owned()),
        ("deep", deep),
        ("duplicate", "version: 1\nproject_id: a\nproject_id: b\n".to_owned()),
        ("version", "version: 9\nproject_id: a\n".to_owned()),
        ("huge", format!("version: 1\nproject_id: a\n#{}\n", "x".repeat(1 << 20))),
        ("empty", String::new()),
    ];
    for (what, text) in texts {
        std::fs::write(&file, text).unwrap();
        let run = world.vnx(&["dispatch-agent", "--agent", "hello-world"]);
        assert!([2, 74].contains(&run.code), "{what}: {} {}", run.code, run.err);
        assert!(run.err.contains("config.yaml") && run.err.lines().count() <= 2, "{what}: {}", run.err);
    }
}

#[test]
fn questions_about_what_is_not_there() {
    let world = World::new();
    for args in [
        &["show", "nothing"][..],
        &["logs", "nothing"],
        &["wait", "nothing"],
        &["cancel", "nothing"],
        &["show"],
        &["receipts", "show", "99"],
        &["path", "dispatch", "x"],
        &["doctor", "--yes"],
        &["frobnicate"],
    ] {
        let run = world.vnx(args).expect(2);
        assert!(run.out.is_empty() && !run.err.is_empty(), "{args:?}");
    }
    world.vnx(&["--project", "/nonexistent", "ps"]).expect(2);
}

/// A word that is wrong in the configuration is not in the way of whoever wants to see and end what runs.
#[test]
fn a_broken_configuration_does_not_keep_a_worker_running() {
    let world = World::new();
    let mut child = world.start_script("sleep 600");
    world.until("it to run", || world.count("dispatch.started") == 1);
    let id = world.last_id();
    world.config("typo: 1\n");
    for args in [vec!["ps"], vec!["logs", &id], vec!["show", &id]] {
        let run = world.vnx(&args).expect(0);
        assert!(run.err.contains("typo"), "{args:?}: {}", run.err);
    }
    world.vnx(&["dispatch-agent", "--agent", "hello-world", "--provider", "shell", "-i", "x"]).expect(2);
    world.vnx(&["cancel", &id]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    world.assert_nothing_left();
}

/// Whoever sends an answer to a file relies on its being there.
#[test]
fn an_answer_that_cannot_be_printed_is_an_error() {
    let world = World::new();
    world.script("true").expect(4);
    for command in ["show", "show --json", "receipts list", "receipts query --json", "ps --json", "man"] {
        let line = format!("{} {command} > /dev/full", World::binary());
        let run = Run::of(world.command("bash").args(["-c", &line]).output().unwrap()).expect(74);
        assert!(run.err.contains("could not be printed"), "{command}: {}", run.err);
    }
}
