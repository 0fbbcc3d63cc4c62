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
    assert!(run.out.contains("setup_failed: hook post_create-1, exit 7: no database"), "{}", run.out);
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
    assert!(run.out.contains("setup_failed: hook post_create-1, did not end within 300 ms"), "{}", run.out);
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
    assert_eq!(world.last("worktree.kept")["reason"], "hook pre_remove-1, exit 3: still open");
    assert!(world.root.join("second").exists(), "the others run all the same");
    let locked = world.git(&["worktree", "list", "--porcelain"]);
    assert!(locked.contains("kept, hook pre_remove-1, exit 3"), "{locked}");
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
