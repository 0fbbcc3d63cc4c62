//! The main job: init, doctor, dispatch, and nothing left but the branch.

use crate::common::{World, names};

#[test]
fn two_thousand_files_one_dispatch_and_nothing_left_but_the_branch() {
    let world = World::bare("a repo with blanks and ünïcödé");
    for n in 0..2000 {
        let folder = world.repo.join(format!("src/m{:02}", n % 40));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("f{n}.rs")), format!("pub fn f{n}() -> u32 {{ {n} }}\n").repeat(20))
            .unwrap();
    }
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "many files"]);
    world.vnx(&["init"]).expect(0);
    world.vnx(&["doctor"]).expect(0);
    let run = world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    assert_eq!(run.out, "accept  done: 1 commit on the dispatch branch\n");
    let id = world.last_id();
    let log = world.git(&["log", "--format=%s", &format!("vnx/{id}")]);
    assert_eq!(log, "docs: say hello\nmany files\nfirst");
    let listed = world.vnx(&["receipts", "list"]).expect(0);
    assert!(listed.out.contains(&id) && listed.out.contains("accept done"), "{}", listed.out);
    world.assert_verified();
    world.assert_nothing_left();
    assert_eq!(world.git(&["status", "--porcelain"]), "?? .vnx/");
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["verdict"]["decision"], "accept");
    assert_eq!(closed["diff"]["paths"], serde_json::json!(["HELLO.md"]));
    assert_eq!(closed["teardown"]["tree"], "removed");
    assert_eq!(closed["containment"]["empty"], true);
}

#[test]
fn it_works_on_any_branch_detached_and_in_a_linked_worktree() {
    let world = World::new();
    world.git(&["branch", "-m", "main", "Trunk/with-slash"]);
    world.script("echo 1 > a; git add a; git commit -qm a").expect(0);
    assert_eq!(world.last("dispatch.claimed")["base"]["name"], "refs/heads/Trunk/with-slash");
    world.git(&["checkout", "--quiet", "--detach"]);
    world.script("echo 1 > b; git add b; git commit -qm b").expect(0);
    assert_eq!(world.last("dispatch.claimed")["base"]["name"], "HEAD");
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "--quiet", "-m", "vnx"]);
    world.git(&["worktree", "add", "--quiet", "../linked"]);
    let linked = world.root.join("linked");
    let run = world.vnx_in(&linked, &["dispatch-agent", "--agent", "hello-world"]);
    run.expect(0);
    assert_eq!(world.last("dispatch.claimed")["base"]["name"], "refs/heads/linked");
    assert!(world.worktrees().parent().unwrap() == world.root, "worktrees lie beside the main checkout");
    world.git(&["worktree", "remove", "../linked"]);
    world.assert_nothing_left();
    world.assert_verified();
}

#[test]
fn init_is_idempotent_and_never_overwrites() {
    let world = World::bare("repo");
    world.vnx(&["init"]).expect(0);
    let before = world.git(&["status", "--porcelain", "-uall"]);
    let again = world.vnx(&["init"]).expect(0);
    assert!(again.out.contains("nothing changed"), "{}", again.out);
    assert_eq!(world.git(&["status", "--porcelain", "-uall"]), before);
    let constraints = world.repo.join(".vnx/provider_constraints.yaml");
    std::fs::write(&constraints, "version: 1\nconstraints: []\n").unwrap();
    world.vnx(&["init"]).expect(0);
    assert_eq!(std::fs::read_to_string(&constraints).unwrap(), "version: 1\nconstraints: []\n");
    let diff = world.vnx(&["init", "--diff"]).expect(0);
    assert!(diff.out.contains("- constraints: []") && diff.out.contains("+ constraints:"), "{}", diff.out);
    world.vnx(&["init", "--force"]).expect(0);
    let backups = names(&world.repo.join(".vnx")).into_iter().filter(|n| n.contains(".bak")).count();
    assert_eq!(backups, 1);
    assert_eq!(world.count("ledger.created"), 1);
    // The link that people follow with tail -f.
    assert!(world.repo.join(".vnx/receipts/ledger.ndjson").exists());
    assert!(!world.git(&["status", "--porcelain", "-uall"]).contains("receipts"));
}

#[test]
fn without_a_git_identity_the_worker_still_commits() {
    let world = World::new();
    std::fs::write(world.root.join("home/.gitconfig"), "").unwrap();
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    let author = world.git(&["log", "-1", "--format=%an", &format!("vnx/{}", world.last_id())]);
    assert_eq!(author, "vnx worker");
}

#[test]
fn a_dry_run_shows_the_plan_and_does_nothing() {
    let world = World::new();
    let before = world.receipts().len();
    let plan = world
        .vnx(&["dispatch-agent", "--agent", "hello-world", "--dry-run", "--json", "--id", "chosen"])
        .expect(0)
        .json();
    assert_eq!(plan["id"], "chosen");
    assert_eq!(plan["branch"], "vnx/chosen");
    assert_eq!(plan["provider"], "shell");
    let text = world.vnx(&["dispatch-agent", "--agent", "hello-world", "--dry-run"]).expect(0);
    assert!(text.out.contains("plan digest") && text.out.contains("because"), "{}", text.out);
    assert_eq!(world.receipts().len(), before);
    world.assert_nothing_left();
}

#[test]
fn detach_wait_show_and_logs_tell_one_story() {
    let world = World::new();
    let script =
        "echo begin; while [ ! -e go ]; do sleep 0.02; done; rm go; echo x > x; git add x; git commit -qm x; echo end";
    let run = world
        .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", script, "--detach"])
        .expect(0);
    let id = run.out.trim().to_owned();
    world.until("the worker to say something", || world.vnx(&["logs", &id]).out.contains("begin"));
    let ps = world.vnx(&["ps", "--json"]).expect(0).json();
    assert_eq!(ps["dispatches"][0]["id"], id.as_str());
    assert_eq!(ps["dispatches"][0]["state"], "working");
    assert!(world.vnx(&["show", &id]).expect(0).out.contains("vnx cancel"));
    std::fs::write(world.worktrees().join(&id).join("go"), "").unwrap();
    let waited = world.vnx(&["wait", &id, "--json"]).expect(0).json();
    assert_eq!(waited["dispatches"][0]["closed"]["verdict"]["outcome"], "done");
    assert_eq!(world.vnx(&["logs", "@last"]).expect(0).out, "begin\nend\n");
    let shown = world.vnx(&["show", &id[..17], "--json"]).expect(0).json();
    assert_eq!(shown["closed"]["head"].as_str().unwrap(), world.git(&["rev-parse", &format!("vnx/{id}")]));
    assert!(world.vnx(&["show", "--diff"]).expect(0).out.contains("+x"));
    assert!(world.vnx(&["show", "--prompt"]).expect(0).out.contains("git commit"));
    let first = world.vnx(&["receipts", "show", "0", "--json"]).expect(0).json();
    assert_eq!(first["kind"], "ledger.created");
    world.assert_nothing_left();
}

#[test]
fn a_change_outside_the_given_paths_is_not_accepted() {
    let world = World::new();
    let args =
        |script| ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--path", "src/**", "-i", script];
    world.vnx(&args("echo 1 > src/x; git add .; git commit -qm x")).expect(0);
    let run = world.vnx(&args("echo 1 > src/y; echo 2 > z; git add .; git commit -qm y")).expect(4);
    assert!(run.out.contains("contract_missing") && run.out.contains("\"z\""), "{}", run.out);
}

#[test]
fn secrets_never_reach_the_disk() {
    let mut world = World::new();
    let secret = "sup3r-s3cret-value-1234";
    std::fs::write(world.root.join("env"), format!("MY_API_KEY={secret}\n")).unwrap();
    world.set("OTHER_TOKEN", "not-allow-listed-5678");
    let shape = "sk-ant-api03-AbCdEfGhIjKlMnOpQrSt";
    let script = format!("echo $MY_API_KEY; echo $MY_API_KEY >&2; echo ${{OTHER_TOKEN:-absent}}; echo {shape}; exit 3");
    let env_file = world.root.join("env");
    let args = [
        "dispatch-agent",
        "--provider",
        "shell",
        "--agent",
        "hello-world",
        "--env-file",
        env_file.to_str().unwrap(),
        "-i",
        &script,
    ];
    world.vnx(&args).expect(1);
    let logs = world.vnx(&["logs"]).expect(0).out;
    assert!(
        logs.contains("[redacted:MY_API_KEY]") && logs.contains("absent") && logs.contains("[redacted:anthropic-key]"),
        "{logs}"
    );
    let state = world.state();
    let mut pending = vec![state];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(secret), "{}", path.display());
            // What the user wrote into the instruction is the user's; what the worker printed is not kept.
            let instruction = ["prompt.md", "request.yaml"].iter().any(|n| path.ends_with(n));
            assert!(instruction || !text.contains(shape), "{}", path.display());
        }
    }
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let mut world = World::bare("repo");
    let temp = world.root.join("tmp");
    std::fs::create_dir(&temp).unwrap();
    world.set("TMPDIR", &temp);
    let run = world.vnx(&["demo"]).expect(0);
    for part in [
        "accept  done",
        "unproven  empty",
        "unproven  uncommitted",
        "refs/vnx/rescue/",
        "the receipt was edited",
        "pane %",
    ] {
        assert!(run.out.contains(part), "{part} is missing:\n{}", run.out);
    }
    assert_eq!(names(&temp), Vec::<String>::new());
}

#[test]
fn agents_are_listed_with_where_they_come_from() {
    let world = World::new();
    world.agent("reader", "permissions: read\nskills: [review-code]");
    world.agent("broken", "permissions: everything");
    let listed = world.vnx(&["agent", "list", "--json"]).expect(0).json();
    let named = |name: &str| listed["agents"].as_array().unwrap().iter().find(|a| a["name"] == name).unwrap().clone();
    assert_eq!(named("hello-world")["origin"], "embedded");
    assert_eq!((&named("hello-world")["provider"], &named("hello-world")["error"]), (&"shell".into(), &().into()));
    assert_eq!(named("reader")["skills"], serde_json::json!(["review-code"]));
    assert!(named("reader")["origin"].as_str().unwrap().ends_with(".vnx/agents/reader/AGENT.md"));
    assert!(named("broken")["error"].as_str().unwrap().contains("\"everything\" is none of the words for this"));
    // A folder that cannot be one hides none of the others.
    world.agent("My_Agent", "");
    assert!(world.vnx(&["agent", "list", "--json"]).expect(0).json()["agents"].to_string().contains("\"My_Agent\""));
    let unknown = world.vnx(&["dispatch-agent", "--agent", "nosuch", "-i", "x"]).expect(2).err;
    assert!(unknown.contains("use one of") && unknown.contains("reader") && !unknown.contains("broken"), "{unknown}");
    let said = world.vnx(&["agent", "list"]).expect(0).out;
    assert!(said.contains("reader             default   the project  for a test"), "{said}");
}
