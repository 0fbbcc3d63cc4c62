//! `apply: patch` is a word of manifests, not of one provider: here a shell answers.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Run, World};

const NEW: &str = "cat <<'EOF'\nDone.\n```diff\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+new\n```\nEOF\n";

fn world() -> World {
    let world = World::new();
    manifest(&world, "  headless: {args: [-eu, -s], prompt_by: stdin, parser: text, apply: patch}");
    world
}

fn manifest(world: &World, lane: &str) {
    let folder = world.repo.join(".vnx/providers");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "version: 1\nname: answers\ntitle: a test\nbinaries: [sh]\nruns_assignment: true\nlanes:\n{lane}\n\
         permissions: {{read: [], work: [], full: []}}\n"
    );
    std::fs::write(folder.join("answers.yaml"), text).unwrap();
}

fn run(world: &World, script: &str) -> Run {
    let args = ["dispatch-agent", "--agent", "backend-developer", "--provider", "answers", "--no-pane", "-i", script];
    world.vnx(&args)
}

fn outcome(world: &World) -> String {
    world.last("dispatch.closed")["verdict"]["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn the_worktree_follows_and_what_the_worker_did_itself_is_left_alone() {
    let world = world();
    run(&world, NEW).expect(0);
    assert_eq!(world.git(&["show", &format!("vnx/{}:new.txt", world.last_id())]), "new");
    world.assert_nothing_left();
    // Commits of its own are its work; its diff is talk about it.
    run(&world, &format!("echo own > own; git add own; git commit -qm own\n{NEW}")).expect(0);
    assert_eq!(world.last("dispatch.closed")["diff"]["paths"], serde_json::json!(["own"]));
    let evidence = world.last("dispatch.judged")["verdict"]["evidence"].to_string();
    assert!(evidence.contains("moved on from the base"), "{evidence}");
    // Elsewhere than on its branch nothing is added to it.
    run(&world, &format!("git checkout -q --detach; git commit -q --allow-empty -m away\n{NEW}")).expect(4);
    assert_eq!(outcome(&world), "unknown");
    // A file that stands in the way is not written over, and stays.
    run(&world, &format!("echo mine > new.txt\n{NEW}")).expect(4);
    assert_eq!(outcome(&world), "uncommitted");
    let kept = world.worktrees().join(world.last_id());
    assert_eq!(std::fs::read_to_string(kept.join("new.txt")).unwrap(), "mine\n");
    let evidence = world.last("dispatch.judged")["verdict"]["evidence"].to_string();
    assert!(evidence.contains("not applied") && evidence.contains("new.txt"), "{evidence}");
    // Other changes neither help nor get lost.
    run(&world, &format!("echo more >> README.md\n{NEW}")).expect(4);
    assert_eq!((outcome(&world), &world.last("dispatch.closed")["commits"]), ("uncommitted".into(), &1.into()));
    let kept = world.worktrees().join(world.last_id());
    assert_eq!(world.git_in(&kept, &["diff", "--name-only"]), "README.md");
}

#[test]
fn a_worker_that_failed_offers_nothing() {
    let world = world();
    run(&world, &format!("{NEW}exit 3\n")).expect(1);
    assert_eq!((outcome(&world), &world.last("dispatch.closed")["commits"]), ("cli_crash".into(), &0.into()));
    world.assert_nothing_left();
}

/// Whenever the supervisor dies: a worker that is known to have ended well has its change committed,
/// once, by whoever comes next.
#[test]
fn a_change_whose_supervisor_died_is_committed_once() {
    let world = world();
    let mut recovered = 0;
    for n in 0..16 {
        let args = ["dispatch-agent", "--agent", "backend-developer", "--provider", "answers", "--no-pane", "-i", NEW];
        let child = world.start(&args);
        let exited =
            || world.receipts().iter().any(|r| r["kind"] == "dispatch.exited" && r["dispatch"] == world.last_id());
        world.until("the worker to end", || world.count("dispatch.claimed") == n + 1 && exited());
        std::thread::sleep(Duration::from_millis(n as u64));
        let supervisor = world.processes().into_iter().find(|(_, command)| command.contains(" supervise "));
        if let Some(pid) = supervisor.and_then(|(pid, _)| Pid::from_raw(pid)) {
            // It may be gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
        child.wait_with_output().unwrap();
        world.until("the story to be finished", || {
            world.vnx(&["ps"]).expect(0);
            crate::common::names(&world.state().join("open")).is_empty()
        });
        let closed = world.last("dispatch.closed");
        recovered += u32::from(closed["recovered"] == true);
        assert_eq!(outcome(&world), "done", "{closed}");
        assert_eq!(world.git(&["rev-list", "--count", &format!("main..vnx/{}", world.last_id())]), "1");
    }
    assert!(recovered > 0, "no supervisor died in time");
    world.assert_nothing_left();
    world.assert_verified();
}

#[test]
fn apply_is_for_text_on_pipes() {
    let world = world();
    for lane in [
        "  headless: {args: [], prompt_by: stdin, parser: codex-json, apply: patch}",
        "  interactive: {args: [], prompt_by: file, parser: text, apply: patch, interactive: {}}",
        "  headless: {args: [], prompt_by: stdin, parser: text, apply: everything}",
    ] {
        manifest(&world, lane);
        let run = run(&world, NEW).expect(2);
        assert!(run.err.contains("apply") || run.err.contains("everything"), "{}", run.err);
    }
}
