//! kill -9 at every step of a supervisor: creation, run, facts, rescue, teardown. Not at moments that happen
//! to come up, but at each call by which it changes something or starts a program.

use std::fs::File;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{World, names};

const DISPATCH: [&str; 7] =
    ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "--detach"];

/// A dispatch that is claimed and whose supervisor died before it did anything.
fn claimed(world: &World, script: &str) -> String {
    let trace = ["-f", "-q", "-o", "/dev/null", "-e", "trace=setsid", "-e", "inject=setsid:signal=SIGKILL"];
    let output =
        world.command("strace").args(trace).arg(World::binary()).args(DISPATCH).args(["-i", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.until("the supervisor to die", || world.processes().is_empty());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Supervises it as the door does, with its lock as standard input, up to the `n`th call of `call` in one of its
/// threads; `false` when there are not so many.
fn supervised(world: &World, id: &str, call: &str, n: usize) -> bool {
    let place = world.state().join("dispatches").join(id).join("lock");
    let open = || File::options().read(true).write(true).open(&place);
    let lock = open().unwrap();
    lock.lock().unwrap();
    let state = world.state();
    let supervise = ["supervise", "--state", state.to_str().unwrap(), id];
    let killed = world.killed_at(call, n, &supervise, Stdio::from(lock));
    // Another test that starts a program at that moment has all open files of this process until it executes it.
    world.until("nobody to hold the lock", || open().is_ok_and(|lock| lock.try_lock().is_ok()));
    killed
}

/// What a worker does, and whether its worktree goes at once or stays until it is collected.
#[derive(Clone, Copy)]
struct Work {
    config: &'static str,
    script: &'static str,
    check: fn(&World, &std::path::Path, &str),
}

const REMOVED: Work = Work {
    config: "",
    script: "echo 1 > f; git add f; git commit -qm mine",
    check: |world, tree, at| {
        assert_eq!(std::fs::read_to_string(tree.join("f")).unwrap(), "1\n", "{at}");
        assert_eq!(world.git_in(tree, &["log", "-1", "--format=%s"]), "mine", "{at}");
        assert_eq!(world.git_in(tree, &["status", "--porcelain"]), "", "{at}");
    },
};

const KEPT: Work = Work {
    config: "",
    script: "echo 1 > f; git add f; git commit -qm mine; git commit -q --amend -m amended; echo 2 > f; git add f; \
             echo 3 > f; mkdir d; echo u > d/u; ln -s u d/l",
    check: |world, tree, at| {
        let read = |name: &str| std::fs::read_to_string(tree.join(name)).unwrap();
        assert_eq!((read("f"), read("d/u"), read("d/l")), ("3\n".into(), "u\n".into(), "u\n".into()), "{at}");
        assert_eq!(world.git_in(tree, &["show", ":f"]), "2", "{at}");
        assert_eq!(world.git_in(tree, &["show", "HEAD:f"]), "1", "{at}");
        assert_eq!(world.git_in(tree, &["log", "-1", "--format=%s"]), "amended", "{at}");
        assert_eq!(world.git_in(tree, &["log", "-1", "-g", "--format=%s", "HEAD@{1}"]), "mine", "{at}");
    },
};

const FROM_THE_POOL: Work = Work { config: "worktree: {pool: 1}\n", ..KEPT };

/// Kills at every call of this kind, and holds against each other what the worker left and what is there after
/// the next command, a collection and an undo.
fn at_every(call: &str, work: Work) {
    let mut world = World::new();
    let temporary = world.root.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    world.set("TMPDIR", &temporary);
    let world = world;
    let gc = ["worktree", "gc", "--apply", "--older-than", "0s"];
    for n in 1.. {
        let at = format!("{call} {n}");
        if !work.config.is_empty() {
            world.config(work.config);
            world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", "true"]).expect(4);
            world.until("fillers to end", || world.processes().is_empty());
        }
        let script = format!("{}; touch {}/ended-$VNX_DISPATCH_ID", work.script, world.root.display());
        let id = claimed(&world, &script);
        let killed = supervised(&world, &id, call, n);
        // The next command finishes it.
        let told = world.vnx(&["ps"]).expect(0);
        assert_eq!(names(&world.state().join("open")), Vec::<String>::new(), "{at}: {}{}", told.out, told.err);
        let receipts = world.receipts();
        let closed = receipts.iter().filter(|r| r["kind"] == "dispatch.closed" && r["dispatch"] == id.as_str());
        assert_eq!(closed.count(), 1, "{at}");
        assert_eq!(names(&temporary), Vec::<String>::new(), "{at}: folders for temporary files");
        world.vnx(&gc).expect(0);
        let left = names(&world.worktrees());
        assert!(left.iter().all(|name| name == ".pool"), "{at}: {left:?}");
        if world.root.join(format!("ended-{id}")).exists() {
            world.git(&["prune", "--expire=now"]);
            world.vnx(&["undo", &id]).expect(0);
            let tree = world.worktrees().join(&id);
            (work.check)(&world, &tree, &at);
            assert_eq!(world.git_in(&tree, &["symbolic-ref", "HEAD"]), format!("refs/heads/vnx/{id}"), "{at}");
            world.vnx(&gc).expect(0);
        } else {
            // No worker was at it: nothing is left of it.
            assert_eq!(world.git(&["for-each-ref", &format!("refs/heads/vnx/{id}")]), "", "{at}");
        }
        if !killed {
            // Every supervisor does these; others only with some work.
            let always = ["renameat", "unlink", "mkdir", "write", "fdatasync", "bind", "clone3"];
            assert!(n > 1 || !always.contains(&call), "nobody was killed at {call}");
            break;
        }
    }
    world.assert_verified();
    // And it still works.
    world.config("");
    world.script("true").expect(4);
    world.assert_nothing_left();
}

macro_rules! kills {
    ($($module:ident: $work:ident;)*) => {
        $(mod $module {
            kills!(@ $work, rename, renameat, unlink, unlinkat, mkdir, rmdir, write, copy_file_range, fdatasync, bind, clone3);
        })*
    };
    (@ $work:ident, $($call:ident),*) => {
        $(#[test] fn $call() { super::at_every(stringify!($call), super::$work); })*
    };
}

kills! {
    removed: REMOVED;
    kept: KEPT;
    from_the_pool: FROM_THE_POOL;
}

/// Between the facts and the rename, and until the look that comes after it, somebody may write.
#[test]
fn what_is_written_while_a_worktree_is_removed_keeps_it() {
    let world = World::new();
    for late in ["late", "src/late", "src/lib.rs"] {
        let id = claimed(&world, REMOVED.script);
        let lock = world.state().join("dispatches").join(&id).join("lock");
        let lock = File::options().read(true).write(true).open(lock).unwrap();
        lock.lock().unwrap();
        let mut strace = world.command("strace");
        strace.args(["-f", "-b", "execve", "-q", "-o", "/dev/null", "-e", "trace=renameat2"]);
        strace.args(["-e", "inject=renameat2:signal=SIGSTOP:when=1", World::binary(), "supervise"]);
        strace.args(["--state", world.state().to_str().unwrap(), &id]).stdin(Stdio::from(lock));
        let mut strace = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let aside = || names(&world.worktrees()).into_iter().find(|name| name.starts_with(".gone-"));
        world.until("the rename", || aside().is_some());
        std::fs::write(world.worktrees().join(aside().unwrap()).join(late), "precious").unwrap();
        let its = |(_, command): &(i32, String)| command.contains(" supervise ") && !command.starts_with("strace");
        let supervisor = world.processes().into_iter().find(its).unwrap().0;
        kill_process(Pid::from_raw(supervisor).unwrap(), Signal::CONT).unwrap();
        strace.wait().unwrap();
        let closed = world.last("dispatch.closed");
        assert_eq!((closed["teardown"]["tree"].as_str(), world.last_id()), (Some("kept"), id.clone()), "{closed}");
        let tree = world.worktrees().join(&id);
        assert_eq!(std::fs::read_to_string(tree.join(late)).unwrap(), "precious");
        let told = world.last("worktree.kept")["reason"].as_str().unwrap().to_owned();
        assert!(told.contains("changed while it was removed"), "{told}");
        assert_eq!(names(&world.state().join("folders")), Vec::<String>::new());
    }
}

/// What somebody else put where a dispatch was to be made is not ours to take away.
#[test]
fn what_stood_there_before_a_creation_stays() {
    let world = World::new();
    let id = claimed(&world, "true");
    let place = world.worktrees().join(&id);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("mine"), "precious").unwrap();
    world.git(&["branch", &format!("vnx/{id}")]);
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.count("dispatch.closed"), 1);
    assert_eq!(std::fs::read_to_string(place.join("mine")).unwrap(), "precious");
    assert!(world.git(&["branch", "--list", "vnx/*"]).contains(&id));
}

/// A folder that a person moved before a recovery was not removed by us: what git has of it stays.
#[test]
fn a_kept_worktree_that_was_moved_before_the_recovery_can_be_repaired() {
    let world = World::new();
    // How many calls come before the verdict varies from one dispatch to the next.
    for n in (1..60).chain(1..60).chain(1..60) {
        let id = claimed(&world, KEPT.script);
        supervised(&world, &id, "clone3", n);
        let receipts = world.receipts();
        let has = |kind: &str| receipts.iter().any(|r| r["kind"] == kind && r["dispatch"] == id.as_str());
        if !has("dispatch.judged") || has("dispatch.closed") {
            world.vnx(&["ps"]).expect(0);
            continue;
        }
        let (place, moved) = (world.worktrees().join(&id), world.root.join("moved"));
        std::fs::rename(&place, &moved).unwrap();
        world.vnx(&["ps"]).expect(0);
        assert_ne!(world.last("dispatch.closed")["teardown"]["tree"], "removed");
        world.git(&["worktree", "repair", moved.to_str().unwrap()]);
        (KEPT.check)(&world, &moved, "repaired");
        return;
    }
    panic!("it is never killed between the verdict and the rescue");
}

/// The mark of a removal that never began is not taken for one that did.
#[test]
fn a_removal_that_never_began_is_forgotten() {
    let world = World::new();
    world.script(KEPT.script).expect(4);
    let id = world.last_id();
    let (place, git_dir) = (world.worktrees().join(&id), world.repo.join(".git/worktrees").join(&id));
    std::fs::write(git_dir.join("vnx-going"), "dirty").unwrap();
    std::fs::write(place.join("later"), "later").unwrap();
    world.vnx(&["ps"]).expect(0);
    assert!(place.join("later").exists() && !git_dir.join("vnx-going").exists());
    let moved = world.root.join("moved");
    std::fs::rename(&place, &moved).unwrap();
    world.vnx(&["ps"]).expect(0);
    world.git(&["worktree", "repair", moved.to_str().unwrap()]);
    (KEPT.check)(&world, &moved, "repaired");
}
