//! Whoever collects garbage knows the references of the moment in which it began. What vnx makes after that stays.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use sha1::{Digest as _, Sha1};

use crate::common::World;
use crate::gates::{done, project};
use crate::kept::{collected, kept};

const ANY: &str = "gates:\n  tests: {command: 'true'}\n";

/// A git that is held at the first file that it takes away.
struct Held<'a> {
    world: &'a World,
    strace: RefCell<Child>,
    log: PathBuf,
}

impl<'a> Held<'a> {
    fn begin(world: &'a World, args: &[&str]) -> Self {
        let log = world.root.join("strace.log");
        let mut strace = world.command("strace");
        strace.args(["-f", "-q", "-o", log.to_str().unwrap(), "-e", "trace=unlink"]);
        strace.args(["-e", "inject=unlink:signal=SIGSTOP:when=1", "git"]).args(args).current_dir(&world.repo);
        let held = Self { world, strace: RefCell::new(strace.spawn().unwrap()), log };
        world.until("git to hold", || held.stopped().is_some());
        held
    }

    /// The last one that was held: each process is at its first file.
    fn stopped(&self) -> Option<Pid> {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let line = said.lines().rfind(|line| line.contains("stopped by SIGSTOP"))?;
        Pid::from_raw(line.split_whitespace().next()?.parse().ok()?)
    }

    fn go_on(&self) {
        self.world.until("git to end", || {
            let _ = kill_process(self.stopped().unwrap(), Signal::CONT);
            self.strace.borrow_mut().try_wait().unwrap().is_some()
        });
        assert!(self.strace.borrow_mut().wait().unwrap().success());
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.stopped() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.strace.get_mut().kill();
        let _ = self.strace.get_mut().wait();
    }
}

/// An object that nothing leads to.
fn loose(world: &World, content: &str) -> String {
    let file = world.root.join("content");
    std::fs::write(&file, content).unwrap();
    world.git(&["hash-object", "-w", file.to_str().unwrap()]).trim().to_owned()
}

/// A rescue, a branch, a merge and the anchors are made while git collects.
fn nothing_is_lost(world: &World, dirty: &(String, PathBuf), held: &Held<'_>) {
    let (id, tree) = dirty;
    world.git_in(tree, &["commit", "-q", "--allow-empty", "-m", "by hand"]);
    std::fs::write(tree.join("half"), "precious\n").unwrap();
    assert!(collected(world, id).contains("removed") && !tree.exists());
    // A tree that stays has its commits in the repository alone.
    world.git(&["config", "core.excludesFile", world.root.join("ignored").to_str().unwrap()]);
    std::fs::write(world.root.join("ignored"), "secret.env\n").unwrap();
    let commits = "echo then > kept; git add kept; git commit -qm then; echo now > kept; git commit -qam now";
    let trees =
        ["echo K=1 > secret.env", "echo half > half"].map(|more| kept(world, &format!("{commits}; {more}"), "dirty"));
    let [stays, lands] = ["echo stays > stays", "echo lands > lands"].map(|script| done(world, script));
    world.vnx(&["merge", "--gates", &lands]).expect(0);
    held.go_on();
    world.git(&["fsck", "--strict"]);
    assert_eq!(world.git(&["show", &format!("vnx/{stays}:stays"), "main:lands"]), "stays\nlands");
    world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(0);
    for (id, tree) in trees {
        let revisions = [format!("vnx/{id}~:kept"), format!("refs/vnx/rescue/{id}:kept")];
        assert_eq!(revisions.map(|revision| world.git(&["show", &revision])), ["then", "now"]);
        assert!(collected(world, &id).contains("removed") && !tree.exists());
    }
    world.vnx(&["undo", id]).expect(0);
    assert_eq!(std::fs::read_to_string(tree.join("half")).unwrap(), "precious\n");
}

#[test]
fn a_prune_that_had_begun_before() {
    let world = project(ANY);
    let dirty = kept(&world, "echo half > half", "dirty");
    // The first thing that it takes away: there it is held.
    let is_first = |text: &String| Sha1::digest(format!("blob {}\0{text}", text.len()))[0] == 0;
    loose(&world, &(0..10_000).map(|n| format!("{n}\n")).find(is_first).unwrap());
    let held = Held::begin(&world, &["prune", "--expire=now"]);
    nothing_is_lost(&world, &dirty, &held);
}

/// What is in a pack already is not written again, and this pack goes.
#[test]
fn a_repack_that_had_begun_before() {
    let world = project(ANY);
    let dirty = kept(&world, "echo half > half", "dirty");
    let objects = ["precious\n", "stays\n", "lands\n"].map(|content| loose(&world, content) + "\n").concat();
    std::fs::write(world.root.join("objects"), objects).unwrap();
    let mut pack = world.command("git");
    pack.current_dir(&world.repo).args(["pack-objects", "-q", ".git/objects/pack/pack"]);
    let list = std::fs::File::open(world.root.join("objects")).unwrap();
    assert!(pack.stdin(list).stdout(std::process::Stdio::null()).status().unwrap().success());
    world.git(&["prune-packed"]);
    let held = Held::begin(&world, &["repack", "-q", "-a", "-d"]);
    nothing_is_lost(&world, &dirty, &held);
}
