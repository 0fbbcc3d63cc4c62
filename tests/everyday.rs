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
    // On a narrow terminal a dispatch is a line.
    let typed = format!("{} list; exec sleep 1000", World::binary());
    world.tmux(&["new-session", "-d", "-s", "narrow", "-x", "80", "-y", "20", &typed]);
    let screen = || world.tmux(&["capture-pane", "-p", "-t", "=narrow:"]);
    world.until("the list", || screen().contains("Make f"));
    let narrow = screen();
    let lines: Vec<&str> = narrow.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() == 4 && lines[3].starts_with("…hello-world-") && lines[3].ends_with("Make f"), "{narrow}");
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

/// A provider that says what it does, and goes on when it may.
fn talking(world: &World) {
    let script = world.root.join("talks.sh");
    let text = "#!/bin/sh\ncat > /dev/null\necho '{\"type\":\"thread.started\",\"thread_id\":\"t1\"}'\n\
                echo '{\"type\":\"item.completed\",\"item\":{\"id\":\"i\",\"type\":\"agent_message\",\"text\":\"Looking around\"}}'\n\
                while [ ! -e go ]; do sleep 0.02; done; rm go; echo 1 > f; git add f; git commit -qm f\n\
                echo '{\"type\":\"turn.completed\",\"usage\":{\"input_tokens\":1,\"cached_input_tokens\":0,\"output_tokens\":1}}'\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    let manifest = format!(
        "version: 1\nname: talks\ntitle: talks\nbinaries: [{}]\nlanes:\n  headless: {{args: [], prompt_by: stdin, \
         parser: codex-json}}\npermissions: {{read: [], work: []}}\n",
        script.display()
    );
    std::fs::write(world.repo.join(".vnx/providers/talks.yaml"), manifest).unwrap();
    world.agent("worker", "permissions: work");
}

/// What runs is shown as fully as what is over, and in one form for programs.
#[test]
fn one_sees_what_a_worker_is_asked_and_what_it_does() {
    let world = World::new();
    talking(&world);
    let args = ["dispatch", "--provider", "talks", "--agent", "worker", "--no-pane", "--id", "one", "# Find it\nNow."];
    let foreground = world.start(&args);
    world.until("it to speak", || world.vnx(&["ps"]).out.contains("  Find it  ·  Looking around"));
    assert!(world.vnx(&["status"]).expect(0).out.contains("  Find it  ·  Looking around"));
    let shown = world.vnx(&["show", "one"]).expect(0).out;
    for told in [
        "one  worker on talks",
        "from main",
        "Find it",
        "working for",
        "now       Looking around",
        "branch    vnx/one",
        "vnx cancel one",
    ] {
        assert!(shown.contains(told), "{told}\n{shown}");
    }
    let json = |state: &str| {
        let json = world.vnx(&["show", "one", "--json"]).expect(0).json();
        assert_eq!((&json["schema"], &json["state"]), (&"vnx.dispatch/1".into(), &state.into()));
        assert_eq!((&json["title"], &json["instruction"]), (&"Find it".into(), &"# Find it\nNow.".into()));
        assert_eq!(json["plan"]["agent"], "worker");
        assert!(json["begun"].is_string() && !json["next"].as_str().unwrap().is_empty(), "{json}");
        json
    };
    let running = json("running");
    assert_eq!((&running["live"]["doing"], &running["closed"]), (&"Looking around".into(), &serde_json::Value::Null));
    let_go(&world, "one");
    let ended = foreground.wait_with_output().unwrap();
    let story = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(story.contains("started   headless lane; `vnx attach one` shows it"), "{story}");
    let closed = json("closed");
    assert!(
        closed["ended"].is_string()
            && closed["closed"]["verdict"]["decision"] == "accept"
            && closed["landed"].is_null()
    );
    // In the zone of whoever looks.
    let mut far = world.command(World::binary());
    let far = far.args(["show", "one"]).env("TZ", "Pacific/Kiritimati").output().unwrap();
    let begun = |text: &str| text.split("on talks, ").nth(1).unwrap().split(" from").next().unwrap().to_owned();
    assert_ne!(begun(&String::from_utf8_lossy(&far.stdout)), begun(&world.vnx(&["show", "one"]).out));
}

/// A question is told where the dispatch was started, and answered there.
#[test]
fn a_permission_is_asked_and_given_in_the_foreground() {
    let world = crate::asked::with_cli(
        "  interactive:\n    args: [-eu, \"{prompt_file}\"]\n    prompt_by: file\n    parser: terminal\n    \
         interactive: {dialect: claude, settle: 100ms, allow_keys: \"1\", deny_keys: \"2\"}\n",
        "sh",
    );
    let script = "printf '\\033]7501;state=working\\007'; until [ -e ../../go ]; do sleep 0.02; done\n\
                  printf '\\033]7501;state=blocked:kind=permission:message=git push\\007'\n\
                  stty raw -echo; head -c 1 > got; git add got; git commit -qm got\n\
                  printf '\\033]7501;state=working\\007\\033]7501;state=done\\007'\nsleep 60\n";
    let (file, vnx) = (world.root.join("task"), World::binary());
    std::fs::write(&file, script).unwrap();
    let typed = format!(
        "{vnx} dispatch --provider own --agent asker --no-pane --lane interactive --id one -f {}; exec sleep 1000",
        file.display()
    );
    world.tmux(&["new-session", "-d", "-s", "here", "-x", "120", "-y", "30", &typed]);
    let screen = || world.tmux(&["capture-pane", "-p", "-t", "=here:"]);
    // What is typed before there is a question answers none.
    world.until("the worker", || world.vnx(&["ps"]).out.contains("working"));
    world.tmux(&["send-keys", "-t", "=here:", "allow", "Enter"]);
    std::fs::write(world.root.join("go"), "").unwrap();
    world.until("the question", || screen().contains("or answer here"));
    let shown = screen();
    assert!(shown.contains("one asks a permission") && shown.contains("`vnx permit one allow|deny`"), "{shown}");
    world.tmux(&["send-keys", "-t", "=here:", "perhaps", "Enter"]);
    world.until("another word", || screen().contains("type `allow` or `deny`"));
    world.tmux(&["send-keys", "-t", "=here:", "allow", "Enter"]);
    world.until("the end", || screen().contains("accept  done"));
    assert!(screen().contains("  allowed"), "{}", screen());
    assert_eq!(world.git(&["show", "vnx/one:got"]), "1");
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
    // It is given up no more: what is committed since is what a later undo brings back.
    assert_eq!(world.git(&["for-each-ref", "refs/vnx/dropped"]), "");
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
    // Somebody made a branch of that name again: neither of the two is lost.
    let other = world.git(&["commit-tree", "-m", "other", "HEAD^{tree}"]);
    world.git(&["branch", &format!("vnx/{id}"), &other]);
    world.vnx(&["drop", &id]).expect(0);
    let kept = world.git(&["for-each-ref", "--format=%(objectname)", "refs/vnx/dropped"]);
    assert!(kept.contains(&tip) && kept.contains(&other), "{kept}");
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
