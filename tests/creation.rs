//! Worktrees of real repositories: hooks, ignored files, sparse checkouts.

use serde_json::Value;

use crate::common::{World, names};
use crate::crashes;

/// The named receipts of hooks, in order.
fn hooks(world: &World) -> Vec<(String, Value)> {
    let receipts = world.receipts();
    let hooks = receipts.iter().filter(|r| r["kind"] == "worktree.hook");
    hooks.map(|r| (r["data"]["hook"].as_str().unwrap().to_owned(), r["data"].clone())).collect()
}

fn kinds(world: &World) -> Vec<String> {
    world.receipts().iter().map(|r| r["kind"].as_str().unwrap().to_owned()).collect()
}

const COMMIT: &str = "echo 1 > f; git add f; git commit -qm mine";

#[test]
fn hooks_run_where_and_when_they_should_and_leave_receipts() {
    let mut world = World::new();
    world.set("OTHER_TOKEN", "not-allow-listed-5678");
    world.config(
        r#"
worktree:
  hooks:
    post_create:
      - run: test "$PWD" = "$VNX_WORKTREE" && git -C "$VNX_MAIN_CHECKOUT" rev-parse HEAD && test -f README.md
      - {run: 'echo "${OTHER_TOKEN:-absent}"; echo sk-ant-api03-AbCdEfGhIjKlMnOpQrSt; echo "$VNX_DISPATCH_ID" > "$VNX_MAIN_CHECKOUT/../post"', timeout: 20s}
    pre_remove:
      - run: test -f f && echo "bye $VNX_DISPATCH_ID"
"#,
    );
    world.script(&format!("test \"$(cat ../../post)\" = $VNX_DISPATCH_ID; {COMMIT}")).expect(0);
    let (id, hooks) = (world.last_id(), hooks(&world));
    let ends: Vec<_> = hooks.iter().map(|(name, hook)| (name.as_str(), hook["end"]["code"].as_i64())).collect();
    assert_eq!(ends, [("post_create-1", Some(0)), ("post_create-2", Some(0)), ("pre_remove-1", Some(0))]);
    assert_eq!(hooks[2].1["said"], format!("bye {id}"));
    assert_eq!(hooks[2].1["containment"]["empty"], true);
    let kinds = kinds(&world);
    let at = |kind: &str| kinds.iter().position(|k| k == kind).unwrap();
    assert!(at("worktree.hook") < at("dispatch.prepared"));
    assert_eq!(kinds[at("dispatch.collected") - 1], "worktree.hook", "{kinds:?}");
    let folder = world.state().join("dispatches").join(&id).join("hooks");
    let said = std::fs::read_to_string(folder.join("post_create-2.ndjson")).unwrap();
    assert!(said.contains("absent") && said.contains("[redacted:anthropic-key]") && !said.contains("AbCdEf"), "{said}");
    let plan = std::fs::read_to_string(world.state().join("dispatches").join(&id).join("plan.json")).unwrap();
    assert!(plan.contains("bye $VNX_DISPATCH_ID") && plan.contains("\"timeout\": \"20s\""), "{plan}");
    world.assert_verified();
    world.assert_nothing_left();
}

#[test]
fn a_post_create_that_fails_ends_the_dispatch_with_its_last_word() {
    let world = World::new();
    world.config(
        "worktree: {hooks: {post_create: [{run: 'echo begin; echo no database >&2; exit 7'}, {run: touch never}]}}\n",
    );
    let run = world.script("touch ../../worker-ran").expect(1);
    assert!(run.out.contains("setup_failed: hook post_create-1: exit 7: no database"), "{}", run.out);
    assert_eq!(hooks(&world).len(), 1, "the second one is not begun");
    assert!(!world.root.join("worker-ran").exists());
    assert_eq!(world.count("dispatch.prepared"), 0);
    world.assert_verified();
    world.assert_nothing_left();
    assert_eq!(world.git(&["branch", "--list", "vnx/*"]), "");
}

#[test]
fn a_hook_that_hangs_is_ended_with_everything_it_started() {
    let world = World::new();
    let hook = "(setsid sleep 1000 &); trap \"\" TERM; while :; do sleep 0.05; done";
    world.config(&format!(
        "defaults: {{grace: 200ms}}\nworktree: {{hooks: {{post_create: [{{run: '{hook}', timeout: 300ms}}]}}}}\n"
    ));
    let run = world.script("true").expect(1);
    assert!(run.out.contains("setup_failed: hook post_create-1: it did not end within 300 ms"), "{}", run.out);
    let hook = &hooks(&world)[0].1;
    assert_eq!((&hook["end"]["how"], &hook["containment"]["empty"]), (&"timed_out".into(), &true.into()), "{hook}");
    world.assert_nothing_left();
}

#[test]
fn a_cancel_finds_the_hook() {
    let world = World::new();
    world.config("worktree: {hooks: {post_create: [{run: 'touch ../../at-it; sleep 1000', timeout: 1h}]}}\n");
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", "true"];
    let id = world.vnx(&args).expect(0).out.trim().to_owned();
    world.until("the hook", || world.root.join("at-it").exists());
    world.vnx(&["cancel", &id]);
    world.vnx(&["wait", &id]).expect(130);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "cancelled");
    world.assert_nothing_left();
}

#[test]
fn a_pre_remove_that_fails_keeps_the_tree_and_one_that_succeeds_removes_nothing() {
    let world = World::new();
    world.config("worktree: {hooks: {pre_remove: [{run: 'echo still open; exit 3'}, {run: 'touch ../../second'}]}}\n");
    world.script(COMMIT).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["teardown"]["class"], &closed["teardown"]["tree"]), (&"committed".into(), &"kept".into()));
    assert_eq!(world.last("worktree.kept")["reason"], "hook pre_remove-1: exit 3: still open");
    assert!(world.root.join("second").exists(), "the others run all the same");
    let locked = world.git(&["worktree", "list", "--porcelain"]);
    assert!(locked.contains("kept, hook pre_remove-1: exit 3"), "{locked}");
    // What the hook leaves is seen, because the facts are read after it.
    world.config("worktree: {hooks: {pre_remove: [{run: 'echo late > late'}]}}\n");
    world.script(COMMIT).expect(4);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["teardown"]["class"], &closed["teardown"]["tree"]), (&"dirty".into(), &"kept".into()));
    let rescue = format!("refs/vnx/rescue/{}:late", world.last_id());
    assert_eq!(world.git(&["show", &rescue]), "late");
    world.assert_verified();
}

/// The plan was made before the worker ran, and only the plan that is in the ledger is run.
#[test]
fn a_worker_does_not_change_the_hooks_that_run_for_it() {
    let world = World::new();
    world.config("worktree: {hooks: {pre_remove: [{run: echo planned}]}}\n");
    let common = "common=$(git rev-parse --path-format=absolute --git-common-dir)";
    let config = "version: 1\\nproject_id: repo\\nworktree: {hooks: {pre_remove: [{run: touch ../../planted}]}}\\n";
    world.script(&format!("{common}; printf '{config}' > $common/../.vnx/config.yaml; {COMMIT}")).expect(0);
    assert_eq!(hooks(&world)[0].1["said"], "planned");
    world.config("worktree: {hooks: {pre_remove: [{run: echo planned}]}}\n");
    let plan = "sed -i 's#echo planned#touch ../../planted#' $common/vnx/dispatches/$VNX_DISPATCH_ID/plan.json";
    world.script(&format!("{common}; {COMMIT}; {plan}; kill -9 $PPID; sleep 1000"));
    world.until("the story to be finished", || {
        world.vnx(&["ps"]).expect(0);
        names(&world.state().join("open")).is_empty()
    });
    assert!(!world.root.join("planted").exists());
    assert_eq!(hooks(&world).len(), 1);
    let reason = world.last("worktree.kept")["reason"].clone();
    assert!(reason.as_str().unwrap().contains("the plan is not the one that was claimed"), "{reason}");
    world.assert_verified();
}

#[test]
fn supervisors_that_die_among_hooks_lose_nothing() {
    let world = World::new();
    let slow = "(setsid sleep 1000 &); sleep 0.02";
    world.config(&format!(
        "worktree: {{hooks: {{post_create: [{{run: '{slow}'}}], pre_remove: [{{run: '{slow}'}}, {{run: 'test -d .'}}]}}}}\n"
    ));
    crashes::kill_supervisors(&world, 5);
}

#[test]
fn hooks_that_cannot_work_are_named_with_their_file() {
    let world = World::new();
    for (text, said) in [
        ("{hooks: {post_create: [{run: ' '}]}}", "worktree.hooks.post_create, entry 1: `run` is empty"),
        ("{hooks: {pre_merge: [{run: true, timeout: 0s}]}}", "config.yaml"),
        ("{hooks: {pre_remove: [{run: x, timeout: 0s}]}}", "entry 1: `timeout` must be longer than 0s"),
        ("{hooks: {post_remove: []}}", "post_remove"),
        ("{hooks: {pre_remove: [{command: x}]}}", "command"),
    ] {
        world.config(&format!("worktree: {text}\n"));
        let run = world.script("true").expect(2);
        assert!(run.err.contains(said) && run.err.contains("config.yaml"), "{text}: {}", run.err);
    }
}

/// A repository with ignored files, tracked ones, and links.
fn with_ignored_files() -> World {
    let world = World::new();
    let write = |path: &str, text: &str| {
        let path = world.repo.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(".gitignore", ".env*\n!.env.example\nnode_modules\ntarget/\nsecrets/\nvendor/\n.vnx/\n");
    write(".env.example", "KEY=\n");
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "ignore"]);
    write(".env", "KEY=1\n");
    write("app/.env.local", "KEY=2\n");
    write("node_modules/pkg/index.js", "x\n");
    write("node_modules/pkg/.env", "not this one\n");
    write("secrets/a.pem", "pem\n");
    write("secrets/b.txt", "txt\n");
    write("vendor/lib/a", "a\n");
    std::os::unix::fs::symlink("a", world.repo.join("vendor/lib/link")).unwrap();
    world
}

const CARRY: &str = "worktree: {copy: ['**/.env', 'app/*.local', secrets/*.pem, vendor, not-there], uncloned: copy, link: [node_modules]}\n";

#[test]
fn ignored_files_come_along_and_go_again() {
    use std::os::unix::fs::PermissionsExt;
    let world = with_ignored_files();
    world.config(CARRY);
    let look = "ls -ld .env app/.env.local secrets/* vendor/lib/* node_modules > ../../seen; cat .env node_modules/pkg/index.js vendor/lib/link; \
                while [ ! -e ../../go ]; do sleep 0.02; done";
    let script = format!("{look}; {COMMIT}; git add .");
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", &script];
    let id = world.vnx(&args).expect(0).out.trim().to_owned();
    world.until("the worker to look", || world.vnx(&["logs", &id]).out.lines().count() == 3);
    let tree = world.worktrees().join(&id);
    assert_eq!(std::fs::metadata(tree.join(".env")).unwrap().permissions().mode() & 0o777, 0o600);
    let time = |path: &std::path::Path| std::fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(time(&tree.join("vendor/lib/a")), time(&world.repo.join("vendor/lib/a")));
    assert!(!tree.join("secrets/b.txt").exists());
    std::fs::write(world.root.join("go"), "").unwrap();
    world.vnx(&["wait", &id]).expect(0);
    assert!(world.vnx(&["logs", &id]).out.starts_with("KEY=1\nx\na\n"));
    let seen = std::fs::read_to_string(world.root.join("seen")).unwrap();
    assert!(seen.contains(&format!("node_modules -> {}", world.repo.join("node_modules").display())), "{seen}");
    // It neither counts as work, nor is it rescued, nor is the original touched.
    let closed = world.last("dispatch.closed");
    assert_eq!(
        (&closed["teardown"]["class"], &closed["diff"]["paths"]),
        (&"committed".into(), &serde_json::json!(["f"]))
    );
    assert_eq!(world.count("worktree.rescued"), 0);
    for (path, text) in [(".env", "KEY=1\n"), ("node_modules/pkg/index.js", "x\n"), ("vendor/lib/a", "a\n")] {
        assert_eq!(std::fs::read_to_string(world.repo.join(path)).unwrap(), text);
    }
    let shown = world.vnx(&["dispatch-agent", "--agent", "hello-world", "--dry-run"]).expect(0).out;
    assert!(shown.contains("not-there: not in the main checkout"), "{shown}");
    world.assert_nothing_left();
}

#[test]
fn what_a_worker_changed_in_them_is_its_work() {
    let world = with_ignored_files();
    world.config(CARRY);
    for (script, path, text) in [
        ("echo KEY=own > .env", ".env", "KEY=own"),
        ("echo more > vendor/lib/b", "vendor/lib/b", "more"),
        // As long as before, in the same file.
        ("echo b > vendor/lib/a", "vendor/lib/a", "b"),
        ("rm node_modules; echo own > .env.own; mkdir node_modules", ".env.own", "own"),
    ] {
        world.script(&format!("{script}; {COMMIT}")).expect(0);
        let closed = world.last("dispatch.closed");
        assert_eq!(
            (&closed["teardown"]["class"], &closed["teardown"]["tree"]),
            (&"dirty".into(), &"kept".into()),
            "{script}"
        );
        assert_eq!(world.git(&["show", &format!("refs/vnx/rescue/{}:{path}", world.last_id())]), text);
    }
    // Through the link, a worker writes to the main checkout: that is what sharing means, and nobody deletes it.
    world.script(&format!("echo y > node_modules/pkg/new.js; {COMMIT}")).expect(0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["tree"], "removed");
    assert_eq!(std::fs::read_to_string(world.repo.join("node_modules/pkg/new.js")).unwrap(), "y\n");
    // A link that a worker puts in the way leads nowhere that anything is taken away.
    let secrets = world.repo.join("secrets");
    world.script(&format!("rm -rf secrets; ln -s {} secrets; {COMMIT}", secrets.display()));
    assert!(secrets.join("a.pem").exists() && secrets.join("b.txt").exists());
    // What a hook changed is no work of the worker's.
    world.config("worktree: {copy: [.env], hooks: {post_create: [{run: 'echo PORT=1 >> .env'}]}}\n");
    world.script(&format!("grep PORT .env; {COMMIT}")).expect(0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["tree"], "removed");
}

#[test]
fn what_must_not_be_carried_is_refused() {
    let world = with_ignored_files();
    std::os::unix::fs::symlink("/etc/hostname", world.repo.join(".env.link")).unwrap();
    std::os::unix::fs::symlink(world.root.join("nowhere"), world.repo.join(".env.broken")).unwrap();
    std::fs::write(world.repo.join("plain"), "").unwrap();
    for (text, said) in [
        ("{copy: [README.md]}", "worktree.copy names README.md, which git tracks"),
        ("{link: [src]}", "worktree.link names src, which git tracks"),
        ("{copy: [plain]}", "which git does not ignore"),
        ("{copy: [.env.link]}", "leads out of the main checkout"),
        ("{copy: ['.env.b*']}", "leads out of the main checkout"),
        ("{copy: [../x]}", "without `..`"),
        ("{link: [.git/config]}", "git's own folder"),
        ("{link: ['node_*']}", "a link needs a name"),
        ("{copy: [node_modules/pkg], link: [node_modules]}", "name it once"),
        ("{uncloned: perhaps}", "perhaps"),
    ] {
        world.config(&format!("worktree: {text}\n"));
        let run = world.script("true").expect(2);
        let all = format!("{}{}", run.out, run.err);
        assert!(all.contains(said) && all.contains("config.yaml"), "{text}: {all}");
    }
    assert_eq!(world.count("dispatch.claimed"), 0);
    // A folder's pattern does not cover a link, and another base may ignore less.
    world.config("worktree: {link: [vendor]}\n");
    let run = world.script("true").expect(1);
    assert!(run.out.contains("setup_failed: the link vendor would not be ignored"), "{}", run.out);
    world.config("worktree: {copy: [.env]}\n");
    let run = world.vnx(&["dispatch-agent", "--agent", "hello-world", "--base", "HEAD~1"]).expect(1);
    assert!(run.out.contains("setup_failed: .env is not ignored at HEAD~1"), "{}", run.out);
    world.assert_nothing_left();
}

/// A commit can hold a link where the main checkout has a folder.
#[test]
fn nothing_is_written_through_a_link_in_the_commit() {
    let world = with_ignored_files();
    let outside = world.root.join("outside");
    std::fs::create_dir(&outside).unwrap();
    world.git(&["checkout", "--quiet", "-b", "linked"]);
    std::os::unix::fs::symlink(&outside, world.repo.join("data")).unwrap();
    world.git(&["add", "-f", "data"]);
    world.git(&["commit", "--quiet", "-m", "link"]);
    world.git(&["checkout", "--quiet", "main"]);
    std::fs::create_dir(world.repo.join("data")).unwrap();
    std::fs::write(world.repo.join("data/.env"), "KEY=3\n").unwrap();
    world.config("worktree: {copy: ['*/.env']}\n");
    let run = world.vnx(&["dispatch-agent", "--agent", "hello-world", "--base", "linked"]).expect(1);
    assert!(
        run.out.contains("setup_failed: data/.env of the main checkout") && run.out.contains("no folder"),
        "{}",
        run.out
    );
    assert_eq!(names(&outside), Vec::<String>::new());
    world.assert_nothing_left();
}

#[test]
fn supervisors_that_die_with_ignored_files_in_their_trees_lose_nothing() {
    let world = with_ignored_files();
    world.config("worktree: {copy: [.env, vendor], uncloned: copy, link: [node_modules], hooks: {post_create: [{run: 'sleep 0.02'}]}}\n");
    crashes::kill_supervisors(&world, 6);
    assert_eq!(std::fs::read_to_string(world.repo.join("node_modules/pkg/index.js")).unwrap(), "x\n");
}

/// What the file system can do differs from machine to machine; that nothing is left does not.
#[test]
fn a_folder_that_cannot_be_cloned_is_skipped_or_linked() {
    let world = with_ignored_files();
    let ignore = std::fs::read_to_string(world.repo.join(".gitignore")).unwrap().replace("vendor/", "vendor");
    std::fs::write(world.repo.join(".gitignore"), ignore).unwrap();
    world.git(&["commit", "--quiet", "-am", "links too"]);
    for (uncloned, seen) in [("skip", "nothing"), ("link", "link"), ("copy", "folder")] {
        world.config(&format!("worktree: {{copy: [vendor], uncloned: {uncloned}}}\n"));
        let script = "if test -L vendor; then echo link; elif test -d vendor; then echo folder; else echo nothing; fi > f; git add f; git commit -qm f";
        world.script(script).expect(0);
        let found = world.git(&["show", &format!("vnx/{}:f", world.last_id())]);
        assert!(found == seen || found == "folder", "{uncloned}: {found}");
        assert_eq!(std::fs::read_to_string(world.repo.join("vendor/lib/a")).unwrap(), "a\n");
    }
    world.assert_nothing_left();
}

/// A repository of three folders.
fn of_three_folders() -> World {
    let world = World::new();
    for folder in ["docs/api", "data"] {
        std::fs::create_dir_all(world.repo.join(folder)).unwrap();
        std::fs::write(world.repo.join(folder).join("file"), format!("{folder}\n")).unwrap();
    }
    std::fs::write(world.repo.join(".gitignore"), ".vnx/\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "folders"]);
    world
}

fn front(script: &str) -> Vec<&str> {
    vec!["dispatch-agent", "--provider", "shell", "--agent", "front", "--no-pane", "-i", script]
}

#[test]
fn a_sparse_main_checkout_makes_sparse_worktrees() {
    let world = of_three_folders();
    world.git(&["sparse-checkout", "set", "src"]);
    world.script(&format!("test -f src/lib.rs; test -f README.md; test ! -e docs; {COMMIT}")).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["teardown"]["class"], &closed["diff"]["files"]), (&"committed".into(), &1.into()));
    world.script(&format!("echo changed >> src/lib.rs; {COMMIT}")).expect(4);
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "dirty");
    let rescue = format!("refs/vnx/rescue/{}", world.last_id());
    assert!(world.git(&["show", &format!("{rescue}:src/lib.rs")]).ends_with("changed"));
    assert_eq!(world.git(&["show", &format!("{rescue}^1:docs/api/file")]), "docs/api", "what was left out is not gone");
}

#[test]
fn an_agent_gets_the_folders_that_it_needs_and_nobody_else_notices() {
    let world = of_three_folders();
    world.agent("front", "sparse: [docs/api]");
    // git switches a setting of the repository on for it; whoever runs meanwhile is not held to have done so.
    let wait = format!("while [ ! -e ../../go ]; do sleep 0.02; done; test -e data; {COMMIT}");
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", &wait];
    let whole = world.vnx(&args).expect(0).out.trim().to_owned();
    world.until("its worker", || world.count("dispatch.started") == 1);
    let script = "test -f docs/api/file; test -f README.md; test ! -e data; test ! -e src; echo 1 > docs/api/new; git add .; git commit -qm new";
    let children: Vec<_> = (0..4).map(|_| world.start(&front(script))).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let names = world.git(&["ls-tree", "-r", "--name-only", &format!("vnx/{}", world.last_id())]);
    assert!(names.contains("data/file") && names.contains("docs/api/new"), "what is left out is not removed: {names}");
    std::fs::write(world.root.join("go"), "").unwrap();
    world.vnx(&["wait", &whole]).expect(0);
    for receipt in world.receipts().iter().filter(|r| r["kind"] == "dispatch.closed") {
        assert_eq!(receipt["data"]["teardown"]["class"], "committed", "{receipt}");
    }
    world.assert_nothing_left();
    assert!(world.repo.join("data/file").exists(), "the main checkout is as it was");
    world.agent("front", "sparse: ['../x']");
    let run = world.vnx(&front("true")).expect(2);
    assert!(run.err.contains("AGENT.md: sparse, \"../x\""), "{}", run.err);
}

#[test]
fn large_files_are_fetched_or_not() {
    let world = World::new();
    let seen = world.root.join("smudged");
    let smudge = format!("sh -c 'echo \"skip=$GIT_LFS_SKIP_SMUDGE\" >> \"{}\"; cat'", seen.display());
    // Not `lfs`: the machine may have that set up for all.
    world.git(&["config", "filter.large.smudge", &smudge]);
    world.git(&["config", "filter.large.clean", "cat"]);
    std::fs::write(world.repo.join(".gitattributes"), "*.bin filter=large\n").unwrap();
    std::fs::write(world.repo.join("a.bin"), "large\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "large"]);
    world.script(COMMIT).expect(0);
    world.config("worktree: {lfs: skip}\n");
    world.script(COMMIT).expect(0);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "skip=\nskip=1\n");
    world.assert_nothing_left();
}

#[test]
fn worktrees_do_not_take_more_than_they_may() {
    let world = World::new();
    world.config("worktree: {budget: 1MiB}\n");
    world.script("head -c 2000000 /dev/zero > large").expect(4);
    let kept = world.last_id();
    let run = world.script("true").expect(3);
    assert!(run.err.contains("worktree.budget is 1MiB; the largest is ") && run.err.contains(&kept), "{}", run.err);
    assert!(run.err.contains("vnx worktree list"), "{}", run.err);
    assert_eq!(world.count("dispatch.claimed"), 1);
    let doctor = world.vnx(&["doctor"]).expect(1);
    assert!(doctor.out.contains("worktree.budget is 1MiB"), "{}", doctor.out);
    // Once it is gone there is room again, at once.
    world.git(&["worktree", "unlock", world.worktrees().join(&kept).to_str().unwrap()]);
    world.git(&["worktree", "remove", "--force", world.worktrees().join(&kept).to_str().unwrap()]);
    world.script(COMMIT).expect(0);
    let doctor = world.vnx(&["doctor"]).expect(0);
    assert!(doctor.out.contains("worktrees take 0 MiB of 1MiB"), "{}", doctor.out);
}

fn listed(world: &World) -> Vec<Value> {
    world.vnx(&["worktree", "list", "--json"]).expect(0).json()["worktrees"].as_array().unwrap().clone()
}

#[test]
fn a_person_gets_a_worktree_of_the_same_making_and_keeps_it() {
    let world = with_ignored_files();
    world.config(
        "worktree: {copy: [.env], link: [node_modules], hooks: {post_create: [{run: 'test -z \"$VNX_DISPATCH_ID\"; cat .env > \"$VNX_WORKTREE/../hooked\"'}]}}\n",
    );
    let made = world.vnx(&["worktree", "new", "feature/Login"]).expect(0);
    let path = world.worktrees().join("feature-login");
    assert_eq!(made.out.trim(), path.display().to_string());
    assert_eq!(world.git_in(&path, &["rev-parse", "--abbrev-ref", "HEAD"]), "feature/Login");
    assert!(path.join("node_modules/pkg/index.js").exists() && path.join("src/lib.rs").exists());
    assert_eq!(std::fs::read_to_string(world.worktrees().join("hooked")).unwrap(), "KEY=1\n");
    std::fs::remove_file(world.worktrees().join("hooked")).unwrap();
    assert!(!world.git(&["worktree", "list", "--porcelain"]).contains("locked"));
    world.config("");
    world.script("echo left > over").expect(4);
    let kept = world.last_id();
    let rows = listed(&world);
    let row = |id: &str| rows.iter().find(|r| r["id"] == id).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&row(&kept)["owner"], &row(&kept)["state"]), (&"dispatch".into(), &"kept".into()));
    assert_eq!(row(&kept)["because"], "uncommitted changes");
    assert_eq!((&row("feature-login")["owner"], &row("feature-login")["state"]), (&"person".into(), &"yours".into()));
    assert_eq!(row("feature-login")["branch"], "feature/Login");
    let text = world.vnx(&["worktree", "list"]).expect(0).out;
    assert!(text.contains("kept (uncommitted changes)") && text.contains("yours"), "{text}");
    assert!(world.vnx(&["doctor"]).expect(0).out.contains("1 kept worktrees"));
    // No collection takes it, not even by name.
    let gc = world.vnx(&["worktree", "gc", "--apply", "feature-login"]).expect(0);
    assert!(gc.out.contains("it is a person's"), "{}{}", gc.out, gc.err);
    // It is taken away as any other worktree is, and then forgotten.
    world.git(&["worktree", "remove", path.to_str().unwrap()]);
    assert_eq!(listed(&world).len(), 1);
    assert_eq!(names(&world.state().join("trees")), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(world.repo.join("node_modules/pkg/index.js")).unwrap(), "x\n");
    world.vnx(&["worktree", "new", "again", "--base", "HEAD~1", "--json"]).expect(0);
    assert_eq!(world.git(&["rev-parse", "again"]), world.git(&["rev-parse", "HEAD~1"]));
}

#[test]
fn what_stands_in_the_way_of_a_persons_worktree_stays() {
    let world = World::new();
    world.git(&["branch", "taken"]);
    std::fs::create_dir_all(world.worktrees().join("folder")).unwrap();
    std::fs::write(world.worktrees().join("folder/mine"), "").unwrap();
    for (name, said) in [
        ("taken", "branch taken exists already"),
        ("folder", "folder exists already"),
        ("../x", "cannot name a branch"),
        ("vnx/x", "cannot name a branch"),
        ("-x", ""),
        ("a b", "cannot name a branch"),
    ] {
        let run = world.vnx(&["worktree", "new", name]).expect(2);
        assert!(run.err.contains(said), "{name}: {}", run.err);
    }
    world.vnx(&["worktree", "new", "x", "--base", "nowhere"]).expect(2);
    assert!(world.worktrees().join("folder/mine").exists());
    world.git(&["rev-parse", "taken"]);
    std::fs::remove_dir_all(world.worktrees()).unwrap();
    world.config("worktree: {hooks: {post_create: [{run: 'echo half > half; echo no >&2; exit 2'}]}}\n");
    let run = world.vnx(&["worktree", "new", "x"]).expect(5);
    assert!(run.err.contains("hook post_create-1: exit 2: no"), "{}", run.err);
    assert_eq!(world.git(&["branch", "--list", "x"]), "");
    assert_eq!(names(&world.state().join("trees")), Vec::<String>::new());
    world.assert_nothing_left();
}

#[test]
fn a_maker_that_dies_leaves_all_of_a_worktree_or_nothing() {
    let world = World::new();
    world.config("worktree: {hooks: {post_create: [{run: 'echo made > made'}]}}\n");
    for (moment, nth) in crashes::moments(7).take(15).zip(0..) {
        let name = format!("mine-{nth}");
        let mut child = world.start(&["worktree", "new", &name]);
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        world.until("nothing of it to run", || world.processes().is_empty());
        let rows = listed(&world);
        match rows.iter().find(|row| row["id"] == name) {
            Some(row) => {
                assert_eq!(row["state"], "yours");
                assert!(world.worktrees().join(&name).join("made").exists());
                world.git(&["worktree", "remove", "--force", world.worktrees().join(&name).to_str().unwrap()]);
                world.git(&["branch", "-D", &name]);
            }
            None => assert_eq!(world.git(&["branch", "--list", &name]), "", "killed after {moment:?}"),
        }
    }
    assert_eq!(listed(&world), Vec::<Value>::new());
    let _ = std::fs::remove_dir(world.worktrees());
    world.assert_nothing_left();
}

#[test]
fn submodules_come_from_the_main_repository_without_a_network() {
    let world = World::new();
    let library = world.root.join("library");
    std::fs::create_dir(&library).unwrap();
    world.git_in(&library, &["init", "--quiet"]);
    std::fs::write(library.join("lib.c"), "int one;\n").unwrap();
    world.git_in(&library, &["add", "."]);
    world.git_in(&library, &["commit", "--quiet", "-m", "library"]);
    let url = library.to_str().unwrap();
    world.git(&[
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        "--name",
        "deep/lib",
        url,
        "third/lib",
    ]);
    std::fs::write(world.repo.join(".gitignore"), ".vnx/\n").unwrap();
    world.git(&["add", ".gitignore"]);
    world.git(&["commit", "--quiet", "-m", "submodule"]);
    let config = std::fs::read_to_string(world.repo.join(".git/config")).unwrap();
    // What it came from is not there any more: only the main repository has it.
    std::fs::rename(&library, world.root.join("moved")).unwrap();
    world.config("worktree: {submodules: true}\n");
    let look = "cat third/lib/lib.c; git submodule status; git -C third/lib remote get-url origin; git status --short";
    world.script(&format!("{{ {look}; }} > ../../seen; {COMMIT}")).expect(0);
    let seen = std::fs::read_to_string(world.root.join("seen")).unwrap();
    let commit = world.git(&["rev-parse", "HEAD:third/lib"]);
    assert!(seen.starts_with(&format!("int one;\n {commit} third/lib")), "{seen}");
    assert!(seen.ends_with(&format!("{url}\n")), "the tree is clean: {seen}");
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "committed");
    assert_eq!(std::fs::read_to_string(world.repo.join(".git/config")).unwrap(), config);
    world.assert_nothing_left();
    // Work in it is nowhere else: it stays.
    let work = "cd third/lib; git checkout -q -b own; echo two >> lib.c; git commit -qam inside; cd ../..";
    world.script(&format!("{work}; {COMMIT}"));
    assert_eq!(world.last("dispatch.closed")["teardown"]["tree"], "kept");
    let inside = world.worktrees().join(world.last_id()).join("third/lib");
    assert_eq!(world.git_in(&inside, &["log", "-1", "--format=%s"]), "inside");
    for (work, path) in [
        ("echo new > third/lib/new", "new"),
        ("git -C third/lib commit -q --allow-empty -m more", "lib.c"),
        ("git -C third/lib branch another", "lib.c"),
    ] {
        world.script(&format!("{work}; {COMMIT}"));
        assert_eq!(world.last("dispatch.closed")["teardown"]["tree"], "kept", "{work}");
        assert!(world.worktrees().join(world.last_id()).join("third/lib").join(path).exists(), "{work}");
    }
    assert_eq!(world.git(&["status", "--short"]), "");
}

/// A hook and the worker have the same ports and the same folder for temporary files, and all share a cache.
#[test]
fn hooks_and_workers_share_ports_and_caches() {
    let world = World::new();
    let say = |name: &str| format!("echo \"$VNX_PORT $VNX_PORTS $TMPDIR $BUILD_CACHE\" > $VNX_MAIN_CHECKOUT/../{name}");
    world.config(&format!(
        "worktree: {{caches: {{BUILD_CACHE: build}}, hooks: {{post_create: [{{run: '{}; touch $BUILD_CACHE/made'}}], \
         pre_remove: [{{run: '{}; test -d $TMPDIR'}}]}}}}\n",
        say("post"),
        say("pre")
    ));
    let script = "echo \"$VNX_PORT $VNX_PORTS $TMPDIR $BUILD_CACHE\" > ../../worker; test -e $BUILD_CACHE/made";
    world.script(&format!("{script}; {COMMIT}")).expect(0);
    let read = |name: &str| std::fs::read_to_string(world.root.join(name)).unwrap();
    let said = read("worker");
    assert_eq!((read("post"), read("pre")), (said.clone(), said.clone()));
    let words: Vec<&str> = said.split_whitespace().collect();
    let port: u16 = words[0].parse().unwrap();
    assert_eq!(words[1], format!("{port}-{}", port + 9));
    assert_eq!(words[3], world.state().join("caches/build").to_str().unwrap());
    assert!(!std::path::Path::new(words[2]).exists(), "it goes with the dispatch");
    world.script(&format!("test -e $BUILD_CACHE/made; {COMMIT}")).expect(0);
    world.assert_nothing_left();
    for (name, what) in [("1X", "1X"), ("PATH", "PATH"), ("VNX_PORT", "VNX_PORT"), ("A-B", "A-B")] {
        world.config(&format!("worktree: {{caches: {{{name}: build}}}}\n"));
        let run = world.vnx(&["worktree", "list"]).expect(2);
        assert!(run.err.contains(&format!("worktree.caches, {what:?}")), "{}", run.err);
    }
    world.config("worktree: {caches: {X: ../x}}\n");
    world.vnx(&["worktree", "list"]).expect(2);
}
