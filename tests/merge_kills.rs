//! kill -9 at every step of every kind of merge: the target has all of it or nothing, the ledger says which, and what
//! was stopped can be done again.

use std::path::PathBuf;
use std::process::Stdio;

use crate::common::{Run, World};
use crate::gates::{done, goes, project};
use crate::merges::{main, ready, settled};

/// What is merged, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    /// The target is where the branch began.
    Plain,
    /// The target has gone on.
    Squash,
    Rebase,
    /// A hook before, and a gate on what the target becomes.
    Gated,
    /// The target is checked out three times.
    Places,
    /// What had landed is taken back.
    Revert,
}
use Case::{Places, Plain, Rebase, Revert, Squash};

/// What happens to it.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// vnx is killed at a call of its own.
    Call(&'static str),
    /// vnx is killed as it starts a git, which goes on.
    Orphan,
    /// vnx is killed before it hears that a git has ended.
    Unheard,
    /// A git is killed before it did anything.
    Dead,
    /// A git is killed after it did everything.
    Late,
    /// A git is killed as it puts the first file into its place.
    Torn,
}

/// The file that the nth dispatch brings.
const FILE: &str = "brought";

fn world_of(case: Case) -> World {
    let strategy = match case {
        Squash => "squash",
        Rebase => "rebase",
        _ => "merge",
    };
    let late =
        "  late: {command: 'test -e README.md', phase: post_merge}\nworktree: {hooks: {pre_merge: [{run: 'true'}]}}\n";
    let world = project(&format!(
        "merge: {{strategy: {strategy}}}\ngates:\n  tests: {{command: 'test -e README.md'}}\n{}",
        if case == Case::Gated { late } else { "" }
    ));
    for place in checkouts(&world, case).iter().skip(1) {
        world.git(&["worktree", "add", "-qf", place.to_str().unwrap(), "main"]);
    }
    world
}

/// Where the target is checked out.
fn checkouts(world: &World, case: Case) -> Vec<PathBuf> {
    let more = if case == Places { 2 } else { 0 };
    let others = (0..more).map(|n| world.root.join(format!("place{n}")));
    std::iter::once(world.repo.clone()).chain(others).collect()
}

/// A dispatch that can be merged, or taken back.
fn prepared(world: &World, case: Case, n: usize) -> String {
    let script = format!("echo {n} > {FILE}; git add .; git commit -qm one; echo {n} > other");
    if matches!(case, Plain | Places) {
        return ready(world, &script);
    }
    let id = done(world, &script);
    world.git(&["commit", "-q", "--allow-empty", "-m", "own"]);
    world.vnx(&["gate", "run", &id]).expect(0);
    if case == Revert {
        world.vnx(&["merge", &id]).expect(0);
    }
    id
}

fn command(case: Case, id: &str) -> Vec<&str> {
    if case == Revert { vec!["revert", id, "--reason", "x"] } else { vec!["merge", id] }
}

/// A git before the real one that strikes at the `n`th call by vnx, and notes every call.
fn trap(world: &mut World, blow: Blow, n: usize) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = (world.root.join("trap"), world.env["PATH"].clone());
    std::fs::create_dir_all(&folder).unwrap();
    let calls = folder.join("calls");
    let _ = std::fs::remove_file(&calls);
    let path = path.split_once("/trap:").map_or(path.as_str(), |(_, rest)| rest).to_owned();
    let real = path.split(':').map(|folder| format!("{folder}/git")).find(|git| std::path::Path::new(git).exists());
    let real = real.unwrap();
    let strike = match blow {
        Blow::Orphan => format!("kill -9 $PPID; exec {real} \"$@\""),
        Blow::Unheard => format!("{real} \"$@\"; kill -9 $PPID; exit"),
        Blow::Dead => "kill -9 $$".to_owned(),
        Blow::Late => format!("{real} \"$@\"; kill -9 $$"),
        Blow::Torn => format!(
            "exec strace -f -qq -o /dev/null -e trace=rename -e inject=rename:signal=SIGKILL:when=1 {real} \"$@\""
        ),
        Blow::Call(_) => unreachable!(),
    };
    let script = format!(
        "#!/bin/sh\nread -r by < /proc/$PPID/comm\n[ \"$by\" = vnx ] || exec {real} \"$@\"\n\
         echo $$ >> {0}\n[ \"$(grep -nx $$ {0} | cut -d: -f1)\" = {n} ] || exec {real} \"$@\"\n{strike}\n",
        calls.display()
    );
    std::fs::write(folder.join("git"), script).unwrap();
    std::fs::set_permissions(folder.join("git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    world.set("PATH", format!("{}:{path}", folder.display()));
    calls
}

fn release(world: &mut World) {
    let path = world.env["PATH"].clone();
    world.set("PATH", path.split_once("/trap:").map_or(path.as_str(), |(_, rest)| rest));
}

/// Strikes; `false` when it did not come to the `n`th step.
fn strike(world: &mut World, blow: Blow, n: usize, args: &[&str]) -> bool {
    if let Blow::Call(call) = blow {
        return world.killed_at(call, n, args, Stdio::null());
    }
    let calls = trap(world, blow, n);
    let status = world.command(World::binary()).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert_ne!(status.unwrap().code(), Some(101), "{blow:?} {n}");
    world.until("nothing of it to run", || world.processes().is_empty());
    release(world);
    std::fs::read_to_string(calls).unwrap().lines().count() >= n
}

/// Runs a command; where it stops at a lock that a killed git has left, whose that is nobody but a person can know.
fn until_unlocked(world: &World, args: &[&str], blow: Blow) -> Run {
    let mut run = world.vnx(args);
    while let Some((_, rest)) = (run.out.clone() + &run.err).split_once("no git runs here, rm ") {
        assert!(matches!(blow, Blow::Torn), "{args:?}: {}{}", run.out, run.err);
        std::fs::remove_file(rest.split_once(';').unwrap().0).unwrap();
        run = world.vnx(args);
    }
    run
}

/// All steps with `VNX_TEST_FULL=1` or where there are few of them; otherwise every `stride`th from `first` on.
fn at_every_step(case: Case, blow: Blow, first: usize, stride: usize) {
    let stride = if std::env::var_os("VNX_TEST_FULL").is_some() { 1 } else { stride };
    let first = if stride == 1 { 1 } else { first };
    // `VNX_TEST_STEP=43` begins where it went wrong.
    let first = std::env::var("VNX_TEST_STEP").map_or(first, |step| step.parse().unwrap());
    let mut world = world_of(case);
    for n in (first..).step_by(stride) {
        let at = format!("{case:?} {blow:?} {n}");
        let id = prepared(&world, case, n);
        let before = main(&world);
        let counts = ["merge.started", "merge.landed", "merge.refused"].map(|kind| world.count(kind));
        let struck = strike(&mut world, blow, n, &command(case, &id));
        let story = until_unlocked(&world, &["ps"], blow);
        assert_eq!(story.code, 0, "{at}: {}", story.err);
        assert!(
            !world.worktrees().exists(),
            "{at}: {} {:?}",
            story.err,
            String::from_utf8_lossy(&world.command("find").arg(world.worktrees()).output().unwrap().stdout)
        );
        settled(&world);
        let now = main(&world);
        let [started, landed, refused] = counts;
        let new = world.count("merge.landed") - landed;
        assert_eq!(now != before, new == 1, "{at}: what happened is recorded, and nothing else; {}", story.err);
        assert_eq!(world.count("merge.started") - started, new + world.count("merge.refused") - refused, "{at}");
        if new == 1 {
            assert_eq!(world.last("merge.landed")["commit"], now.as_str(), "{at}");
            assert_eq!(world.git(&["for-each-ref", &format!("refs/heads/vnx/{id}")]), "", "{at}");
        } else {
            if case != Revert {
                goes(&world, &id);
            }
            let again = until_unlocked(&world, &command(case, &id), blow);
            assert_eq!(again.code, 0, "{at}: {}{}", again.out, again.err);
        }
        if matches!(blow, Blow::Torn) {
            until_unlocked(&world, &["audit-chain", "seal"], blow);
        }
        for place in checkouts(&world, case) {
            assert_eq!(world.git_in(&place, &["status", "--porcelain"]), "", "{at} {}", place.display());
            let brought = std::fs::read_to_string(place.join(FILE)).ok();
            assert_eq!(brought, (case != Revert).then(|| format!("{n}\n")), "{at} {}", place.display());
            assert!(place.join("README.md").exists());
        }
        settled(&world);
        if !struck {
            assert!(n > first, "{at}: nobody was struck");
            break;
        }
    }
}

macro_rules! blows {
    ($($case:ident $module:ident $offset:literal)*) => {
        $(mod $module {
            use super::{Blow, Case, at_every_step};
            #[test]
            fn rename() { at_every_step(Case::$case, Blow::Call("rename"), 1 + $offset % 2, 2); }
            #[test]
            fn renameat() { at_every_step(Case::$case, Blow::Call("renameat"), 1 + $offset, 8); }
            #[test]
            fn unlink() { at_every_step(Case::$case, Blow::Call("unlink"), 1 + $offset % 2, 2); }
            #[test]
            fn mkdir() { at_every_step(Case::$case, Blow::Call("mkdir"), 1 + $offset % 2, 2); }
            #[test]
            fn write() { at_every_step(Case::$case, Blow::Call("write"), 1 + $offset, 8); }
            #[test]
            fn fdatasync() { at_every_step(Case::$case, Blow::Call("fdatasync"), 1 + $offset % 2, 2); }
            #[test]
            fn clone3() { at_every_step(Case::$case, Blow::Call("clone3"), 1 + $offset, 8); }
            #[test]
            fn git_goes_on() { at_every_step(Case::$case, Blow::Orphan, 1 + $offset, 8); }
            #[test]
            fn git_is_not_heard() { at_every_step(Case::$case, Blow::Unheard, 2 + $offset, 8); }
            #[test]
            fn git_is_dead() { at_every_step(Case::$case, Blow::Dead, 3 + $offset, 8); }
            #[test]
            fn git_is_dead_after() { at_every_step(Case::$case, Blow::Late, 4 + $offset, 8); }
            #[test]
            fn git_is_torn() { at_every_step(Case::$case, Blow::Torn, 5 + $offset, 8); }
        })*
    };
}
blows!(Plain plain 0  Squash squash 1  Rebase rebase 2  Gated gated 3  Places places 4  Revert revert 5);
