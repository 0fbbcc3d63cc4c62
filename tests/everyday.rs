//! What people type all day: short commands, lists, waiting, giving up.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::common::World;
use crate::gates::{commit, done, project};

const SHELL: [&str; 5] = ["dispatch", "--provider", "shell", "--no-pane", "-q"];
const WAITS: &str = "while [ ! -e go ]; do sleep 0.02; done; rm go; echo 1 > f; git add f; git commit -qm f";

fn begin(world: &World, id: &str, script: &str) {
    let args = ["--agent", "hello-world", "--detach", "--id", id, script];
    world.vnx(&[&SHELL[..], &args].concat()).expect(0);
}

fn let_go(world: &World, id: &str) {
    let tree = world.worktrees().join(id);
    world.until("the tree", || tree.is_dir());
    std::fs::write(tree.join("go"), "").unwrap();
}

#[test]
fn the_instruction_is_what_one_types_and_the_agent_what_the_project_says() {
    let world = World::new();
    let none = world.vnx(&["dispatch", "x"]).expect(2).err;
    assert!(none.contains("defaults.agent in .vnx/config.yaml") && none.contains("vnx agent list"), "{none}");
    world.agent("worker", "permissions: work");
    std::fs::write(
        world.repo.join(".vnx/config.yaml"),
        "version: 1\nproject_id: repo\ndefaults: {agent: worker, provider: shell}\n",
    )
    .unwrap();
    world.vnx(&["dispatch", "--no-pane", "echo 1 > f; git add f; git commit -qm f"]).expect(0);
    let mut piped = world.command(World::binary());
    let mut piped =
        piped.args(["dispatch", "--no-pane", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"echo 2 > f; git add f; git commit -qm g").unwrap();
    assert!(piped.wait().unwrap().success());
    for both in [&["dispatch", "x", "-i", "y"][..], &["dispatch", "x", "-f", "y"]] {
        assert!(world.vnx(both).expect(2).err.contains("cannot be used with"));
    }
    // A glob with which git would find nothing is refused before anybody works.
    let glob = world.vnx(&["dispatch", "true", "--path", "src/[a"]).expect(2).err;
    assert!(glob.contains("--path \"src/[a\" has a [ without its ]"), "{glob}");
}

/// On a terminal, where no instruction is given, the editor opens that git would open.
#[test]
fn an_editor_asks_for_the_instruction() {
    let world = World::new();
    let editor = world.root.join("editor.sh");
    let writes = |what: &str| {
        let text = format!(
            "#!/bin/sh\ngrep -q 'instruction for backend-developer' \"$1\" && [ -t 1 ] || exit 9\n\
             {{ {what}; cat \"$1\"; }} > \"$1.new\" && mv \"$1.new\" \"$1\"\n"
        );
        std::fs::write(&editor, text).unwrap();
        std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    world.git(&["config", "core.editor", editor.to_str().unwrap()]);
    let stage = || world.person(&["stage", "--agent", "backend-developer", "--provider", "shell"]);
    writes("echo 'Make it blue.'");
    stage().expect(0);
    let proposed = world.vnx(&["promote", "-v"]).expect(0).out;
    assert!(proposed.contains("instruction: Make it blue.\n"), "{proposed}");
    writes("true");
    let empty = stage().expect(2).err;
    assert!(empty.contains("the instruction is empty: nothing was dispatched"), "{empty}");
    writes("exit 3");
    let failed = stage().expect(5).err;
    assert!(failed.contains("ended with exit status: 3") && failed.contains("set EDITOR"), "{failed}");
    // Without a terminal nobody is asked.
    world.vnx(&["stage", "--agent", "backend-developer", "--provider", "shell"]).expect(2);
}

#[test]
fn all_dispatches_are_listed_newest_first() {
    let world = project("merge: {ungated: [hello-world]}\n");
    assert!(world.vnx(&["list"]).expect(0).err.contains("no dispatch yet"));
    let first = done(&world, "# Make f\necho 1 > f");
    world.script("exit 3").expect(1);
    begin(&world, "runs", WAITS);
    world.until("the worker", || world.vnx(&["ps"]).out.contains("working"));
    let shown = world.vnx(&["list"]).expect(0).out;
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["DISPATCH", "AGENT", "PROVIDER", "STATE", "AGE", "TASK"], "{shown}");
    assert_eq!((rows[1][0], rows[1][3]), ("runs", "working"), "{shown}");
    assert_eq!(rows[2][3..5], ["reject", "cli_crash"], "{shown}");
    assert!(
        rows[3][0] == first && rows[3][3] == "accept" && shown.lines().nth(3).unwrap().ends_with("Make f"),
        "{shown}"
    );
    let ids = |args: &[&str]| {
        let list = world.vnx(&[&["list", "--json"], args].concat()).expect(0).json();
        assert_eq!(list["schema"], "vnx.list/1");
        list["dispatches"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["--running"]), ["runs"]);
    assert_eq!(ids(&["--verdict", "accept"]), [first.as_str()]);
    assert_eq!(ids(&["--outcome", "cli_crash"]).len(), 1);
    assert_eq!((ids(&["-n", "2"]).len(), ids(&["--agent", "nobody"]).len(), ids(&["--since", "1h"]).len()), (2, 0, 3));
    assert!(world.vnx(&["list", "--outcome", "great"]).expect(2).err.contains("one of: done"));
    world.vnx(&["merge", &first]).expect(0);
    assert_eq!(ids(&["--landed"]), [first.as_str()]);
    world.vnx(&["revert", &first, "--reason", "no"]).expect(0);
    assert_eq!(ids(&["--landed"]), Vec::<String>::new());
    let_go(&world, "runs");
    world.vnx(&["wait", "runs"]).expect(0);
    // What was read again from nothing says the same.
    let before = world.vnx(&["list", "--json"]).json();
    world.vnx(&["rebuild"]).expect(0);
    assert_eq!(world.vnx(&["list", "--json"]).json(), before);
}

#[test]
fn waiting_ends_with_the_first_or_with_the_time() {
    let world = World::new();
    for id in ["one", "two"] {
        begin(&world, id, WAITS);
    }
    let late = world.vnx(&["wait", "one", "two", "--timeout", "50ms"]).expect(124);
    assert!(late.err.contains("not closed within the time: one, two"), "{}", late.err);
    let waiting = world.start(&["wait", "one", "two", "--any", "--json"]);
    let_go(&world, "two");
    let first = waiting.wait_with_output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(
        (first.status.code(), &told["dispatches"][0]["id"], &told["running"][0]),
        (Some(0), &"two".into(), &"one".into())
    );
    // What is closed already is the first.
    world.vnx(&["wait", "one", "two", "--any"]).expect(0);
    let_go(&world, "one");
    world.vnx(&["wait", "one", "two", "--timeout", "1m"]).expect(0);
    world.assert_nothing_left();
}

/// Worktree and branch go, nothing is lost, and `undo` has it all again.
#[test]
fn what_is_given_up_comes_back() {
    let world = project("merge: {ungated: [hello-world]}\n");
    let id = done(&world, "echo 1 > f");
    let tip = world.git(&["rev-parse", &format!("vnx/{id}")]);
    let told = world.vnx(&["drop", &id, "--reason", "not needed"]).expect(0).out;
    assert!(told.contains("its branch is gone") && told.contains(&format!("vnx undo {id}")), "{told}");
    assert_eq!(world.git(&["for-each-ref", "refs/heads/vnx"]), "");
    assert_eq!(world.git(&["rev-parse", &format!("refs/vnx/dropped/{id}")]), tip);
    assert_eq!(world.last("branch.dropped")["reason"], "not needed");
    assert!(world.vnx(&["list"]).expect(0).out.contains("dropped"));
    assert!(world.vnx(&["show", &id]).expect(0).out.contains(&format!("refs/vnx/dropped/{id}: it was given up")));
    let held = world.vnx(&["merge", &id]).expect(1);
    assert!(held.out.contains("given up: `vnx undo"), "{}{}", held.out, held.err);
    assert!(world.vnx(&["drop", &id]).expect(2).err.contains("neither a worktree nor a branch"));
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(world.git(&["rev-parse", &format!("vnx/{id}")]), tip);
    // With its worktree, what is not committed in it, and again.
    std::fs::write(world.worktrees().join(&id).join("new"), "mine").unwrap();
    world.vnx(&["drop", &id]).expect(0);
    assert!(!world.worktrees().exists());
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(std::fs::read_to_string(world.worktrees().join(&id).join("new")).unwrap(), "mine");
    assert_eq!(world.git(&["rev-parse", &format!("vnx/{id}")]), tip);
    // What a process works in stays, and what runs is not over.
    let mut person = world.command("sleep").arg("60").current_dir(world.worktrees().join(&id)).spawn().unwrap();
    assert!(world.vnx(&["drop", &id]).expect(3).err.contains("stays"));
    person.kill().unwrap();
    person.wait().unwrap();
    world.vnx(&["drop", &id]).expect(0);
    begin(&world, "runs", WAITS);
    world.vnx(&["drop", "runs"]).expect(75);
    let_go(&world, "runs");
    world.vnx(&["wait", "runs"]).expect(0);
    world.assert_verified();
}

/// Somebody landed it with git: its branch is offered, and goes only when told.
#[test]
fn gc_offers_the_branches_of_what_has_landed() {
    let world = project("merge: {ungated: [hello-world]}\n");
    let (landed, other) = (done(&world, "echo 1 > f"), done(&world, "echo 1 > g"));
    world.git(&["merge", "-q", "--no-edit", &format!("vnx/{landed}")]);
    let offered = world.vnx(&["worktree", "gc"]).expect(0);
    let branch = format!("the branch vnx/{landed}: main has all of it");
    assert!(offered.out.contains(&branch) && !offered.out.contains(&other), "{}", offered.out);
    assert!(offered.err.contains("nothing was done; --apply does it"), "{}", offered.err);
    world.vnx(&["worktree", "gc", "--apply"]).expect(0);
    assert_eq!(
        world.git(&["for-each-ref", "--format=%(refname)", "refs/heads/vnx"]),
        format!("refs/heads/vnx/{other}")
    );
    assert!(!world.vnx(&["worktree", "gc"]).expect(0).out.contains("has all of it"));
}

/// Words of other tools lead to ours, and `help` is a word as well.
#[test]
fn other_words_lead_to_the_right_command() {
    let world = World::new();
    for (word, called) in [("rm", "vnx drop ID"), ("agents", "vnx agent list"), ("run", "vnx dispatch --agent")] {
        let told = world.vnx(&[word]).expect(2).err;
        assert!(told.contains(&format!("tip: it is called `{called}")), "{told}");
    }
    assert_eq!(
        world.vnx(&["help", "worktree", "gc"]).expect(0).out,
        world.vnx(&["worktree", "gc", "--help"]).expect(0).out
    );
    assert_eq!(world.vnx(&["help"]).expect(0).out, world.vnx(&["--help"]).expect(0).out);
    commit(&world, "gates: {}\n");
}
