//! Several at once.

use std::io::BufRead as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use crate::common::World;

#[test]
fn ten_at_the_same_instant_all_end_accept() {
    let world = World::new();
    let script = "echo $VNX_DISPATCH_ID > f; git add f; git commit -qm f";
    // With their panes: ten windows on one tmux server are part of the story.
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", script];
    let children: Vec<_> = (0..10).map(|_| world.start(&args)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(world.count("dispatch.closed"), 10);
    assert_eq!(world.git(&["branch", "--list", "vnx/*"]).lines().count(), 10);
    world.assert_verified();
    world.assert_nothing_left();
}

#[test]
fn the_limit_refuses_and_wait_slot_waits() {
    let world = World::new();
    std::fs::write(world.repo.join(".vnx/config.yaml"), "version: 1\nproject_id: repo\nlimits: {parallel: 1}\n")
        .unwrap();
    let script = "while [ ! -e go ]; do sleep 0.02; done";
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i"];
    let first = world.vnx(&[&args[..], &[script, "--detach"]].concat()).expect(0).out.trim().to_owned();
    let refused = world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(3);
    assert!(refused.err.contains("limits.parallel is 1") && refused.err.contains("--wait-slot"), "{}", refused.err);
    let mut waiting = world.start(&["dispatch-agent", "--agent", "hello-world", "--wait-slot"]);
    let mut told = String::new();
    std::io::BufReader::new(waiting.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("waiting   1 dispatch is running, and limits.parallel is 1"), "{told}");
    let tree = world.worktrees().join(&first);
    world.until("the first worker's tree", || tree.is_dir());
    std::fs::write(tree.join("go"), "").unwrap();
    assert!(waiting.wait().unwrap().success());
    world.vnx(&["wait", &first]).expect(4);
    assert_eq!(world.count("dispatch.closed"), 2);
    world.assert_verified();
}

#[test]
fn a_waiter_wakes_when_the_dispatch_closes_and_not_by_polling() {
    let world = World::new();
    let script = "while [ ! -e go ]; do sleep 0.02; done; rm go";
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script];
    let id = world.vnx(&args).expect(0).out.trim().to_owned();
    let waiters: Vec<_> = (0..5).map(|_| world.start(&["wait", &id])).collect();
    let tree = world.worktrees().join(&id);
    world.until("the worker's tree", || tree.is_dir());
    std::fs::write(tree.join("go"), "").unwrap();
    let begun = Instant::now();
    for waiter in waiters {
        assert_eq!(waiter.wait_with_output().unwrap().status.code(), Some(4));
    }
    assert!(begun.elapsed().as_secs() < 20);
    world.assert_nothing_left();
}

/// It finishes the dispatch whose supervisor died while it waited, and leaves nothing for the next command.
#[test]
fn a_waiter_finishes_a_dispatch_whose_supervisor_died_meanwhile() {
    let world = World::new();
    let ready = world.root.join("ready");
    let script = format!("touch {}; sleep 60", ready.display());
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", &script];
    let id = world.vnx(&args).expect(0).out.trim().to_owned();
    world.until("the worker", || ready.exists());
    let waiter = world.start(&["wait", &id]);
    let lock = std::fs::metadata(world.state().join("dispatches").join(&id).join("lock")).unwrap().ino();
    let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&format!(":{lock} "));
    world.until("it to wait", || std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits));
    world.kill_supervisor();
    assert_eq!(waiter.wait_with_output().unwrap().status.code(), Some(1));
    world.assert_nothing_left();
}

/// Every command looks for lost dispatches first: one that is being born is not lost.
#[test]
fn claims_and_recovery_scans_do_not_disturb_each_other() {
    let world = World::new();
    let script = "echo $VNX_DISPATCH_ID > f; git add f; git commit -qm f";
    for _ in 0..10 {
        let dispatches: Vec<_> = (0..6).map(|_| world.start_script(script)).collect();
        let scans: Vec<_> = (0..6).map(|_| world.start(&["ps"])).collect();
        for child in dispatches.into_iter().chain(scans) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert_eq!(world.count("dispatch.closed"), 60);
    world.assert_verified();
    world.assert_nothing_left();
}

/// The folder of the worktrees comes and goes with them: nobody stumbles over another's tidying up.
#[test]
fn creations_and_teardowns_do_not_disturb_each_other() {
    let world = World::new();
    let full = std::env::var_os("VNX_TEST_FULL").is_some();
    let (loops, seconds) = if full { (32, 60) } else { (4, 5) };
    let begun = Instant::now();
    let rounds = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..loops {
            let (world, rounds) = (&world, &rounds);
            scope.spawn(move || {
                while begun.elapsed().as_secs() < seconds {
                    // Collections come in between, and so do people.
                    if n == 0 {
                        world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
                        world.git(&["pack-refs", "--all"]);
                    }
                    let output = world.start_script("true").wait_with_output().unwrap();
                    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
                    rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(world.count("dispatch.closed"), rounds.into_inner());
    assert!(!world.repo.join(".git/vnx-gone").exists());
    world.assert_verified();
    world.assert_nothing_left();
}

/// A lock of git's own that somebody else holds is waited for, not reported.
#[test]
fn gits_own_locks_are_waited_for() {
    let world = World::new();
    world.git(&["pack-refs", "--all"]);
    let (lock, began) = (world.repo.join(".git/packed-refs.lock"), world.root.join("began"));
    let child = world.start_script(&format!("touch {0}; while [ ! -e {0}.go ]; do sleep 0.01; done", began.display()));
    world.until("the worker", || began.exists());
    // Its branch goes, and for that git has to look into the packed refs.
    std::fs::write(&lock, "").unwrap();
    std::fs::write(began.with_extension("go"), "").unwrap();
    world.until("git to wait", || world.processes().iter().any(|(_, c)| c.contains("update-ref")));
    // Longer than git's own patience.
    std::thread::sleep(std::time::Duration::from_millis(1300));
    std::fs::remove_file(&lock).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.last("dispatch.closed")["teardown"]["branch_kept"], false);
    world.assert_nothing_left();
}

/// A hundred, one after the other: no false status and nothing left. Ten without `VNX_TEST_FULL=1`.
#[test]
fn many_in_a_row_leave_nothing() {
    let world = World::new();
    let rounds = if std::env::var_os("VNX_TEST_FULL").is_some() { 100 } else { 10 };
    for round in 0..rounds {
        let lane = if round % 2 == 0 { "headless" } else { "interactive" };
        let script = "echo $VNX_DISPATCH_ID > f; git add f; git commit -qm f";
        let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--lane", lane, "-i", script];
        world.vnx(&args).expect(0);
    }
    assert_eq!(world.count("dispatch.closed"), rounds);
    world.assert_nothing_left();
    world.assert_verified();
}
