//! kill -9 at any moment: the next command finishes the story.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::World;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Supervisor,
    Foreground,
    Worker,
}

fn victim_pid(world: &World, victim: Victim, foreground: u32) -> Option<i32> {
    let word = match victim {
        Victim::Foreground => return i32::try_from(foreground).ok(),
        Victim::Supervisor => " supervise ",
        Victim::Worker => "sh -eu -s",
    };
    world.processes().into_iter().find(|(_, command)| command.contains(word)).map(|(pid, _)| pid)
}

/// A small linear congruential generator (Numerical Recipes): the moments differ, the run is
/// the same each time.
pub fn moments(seed: u32) -> impl Iterator<Item = Duration> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Duration::from_micros(u64::from(state >> 8) % 120_000)
    })
}

fn kill_twenty_times(victim: Victim, seed: u32) {
    kill_supervisors_and_others(&World::new(), victim, seed);
}

/// The supervisors of a world at twenty moments.
pub fn kill_supervisors(world: &World, seed: u32) {
    kill_supervisors_and_others(world, Victim::Supervisor, seed);
}

fn kill_supervisors_and_others(world: &World, victim: Victim, seed: u32) {
    // Long enough to be hit while it works, short enough to be hit while it is torn down.
    let script = "(setsid sleep 1000 &); echo a > a; git add a; git commit -qm work; sleep 0.03; echo b > b; git add b; git commit -qm more";
    for moment in moments(seed).take(20) {
        let child = world.start_script(script);
        let foreground = child.id();
        std::thread::sleep(moment);
        if let Some(pid) = victim_pid(world, victim, foreground).and_then(Pid::from_raw) {
            // It may be gone already: then this moment came too late, which is a moment too.
            let _ = kill_process(pid, Signal::KILL);
        }
        child.wait_with_output().unwrap();
        // Whoever is next finishes the story; a supervisor that lives on finishes its own.
        world.until("the story to be finished", || {
            world.vnx(&["ps"]).expect(0);
            crate::common::names(&world.state().join("open")).is_empty()
        });
        world.until("nothing of it to run", || world.processes().is_empty());
    }
    let receipts = world.receipts();
    let of = |kind: &str| {
        let mut ids: Vec<&str> =
            receipts.iter().filter(|r| r["kind"] == kind).map(|r| r["dispatch"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(of("dispatch.claimed"), of("dispatch.closed"), "each claim is closed exactly once");
    world.assert_verified();
    account_for_everything(world);
}

/// Every worktree and branch that exists is one that a closing receipt says is kept.
fn account_for_everything(world: &World) {
    let receipts = world.receipts();
    let closed: Vec<_> = receipts.iter().filter(|r| r["kind"] == "dispatch.closed").collect();
    let find = |id: &str| closed.iter().find(|r| r["dispatch"] == id).map(|r| &r["data"]);
    for id in crate::common::names(&world.worktrees()) {
        assert!(find(&id).is_some_and(|d| d["teardown"]["tree"] == "kept"), "{id} is unaccounted for");
    }
    for branch in world.git(&["for-each-ref", "--format=%(refname:lstrip=3)", "refs/heads/vnx"]).lines() {
        assert!(
            find(branch).is_some_and(|d| d["teardown"]["branch_kept"] == true),
            "branch {branch} is unaccounted for"
        );
    }
    // A commit that a worker made is on its branch or in a rescue.
    for receipt in closed {
        if receipt["data"]["commits"].as_u64().unwrap_or(0) > 0 {
            let head = receipt["data"]["head"].as_str().unwrap();
            let refs = world.git(&["for-each-ref", "--contains", head, "--format=%(refname)"]);
            assert!(!refs.is_empty(), "{receipt}");
        }
    }
}

#[test]
fn the_supervisor() {
    kill_twenty_times(Victim::Supervisor, 1);
}

#[test]
fn the_foreground_command() {
    kill_twenty_times(Victim::Foreground, 2);
}

#[test]
fn the_worker() {
    kill_twenty_times(Victim::Worker, 3);
}

/// Everything of vnx and git at once, as a power cut would, in the dispatch and again in its
/// recovery; then whoever comes next.
#[test]
fn all_of_it_at_once() {
    let world = World::new();
    let cut_power = |after: Duration| {
        std::thread::sleep(after);
        for (pid, _) in world.processes() {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    };
    let mut moments = moments(4);
    for _ in 0..25 {
        let child = world.start_script("echo a > a; sleep 0.02; git add a; git commit -qm a");
        cut_power(moments.next().unwrap());
        child.wait_with_output().unwrap();
        let recovery = world.start(&["ps"]);
        cut_power(moments.next().unwrap() / 4);
        recovery.wait_with_output().unwrap();
    }
    world.until("the stories to be finished", || {
        world.vnx(&["ps"]).expect(0);
        crate::common::names(&world.state().join("open")).is_empty()
    });
    world.assert_verified();
    account_for_everything(&world);
    // And it still works.
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
}
