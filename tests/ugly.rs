//! The main job where things are not as in a fresh repository: every word of it, from the dispatch to the landing, what is
//! left behind and brought back, in each of them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use crate::common::{World, names};

const SCRIPT: [&str; 6] = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];

/// One dispatch of a script, from a folder.
fn dispatched(world: &World, from: &Path, script: &str, code: i32) -> String {
    world.vnx_in(from, &[&SCRIPT[..], &["-i", script]].concat()).expect(code);
    world.last_id()
}

/// Work that lands, work that is left uncommitted, reclaimed and brought back: all of it is there in the end.
fn main_job(world: &World, from: &Path) {
    main_job_beside(world, from, 1);
}

/// The same beside somebody else's housekeeping, where git may refuse a step that can be repeated: nothing of it was done.
fn main_job_beside(world: &World, from: &Path, tries: usize) {
    let vnx = |args: &[&str], code: i32| {
        let mut run = world.vnx_in(from, args);
        for _ in 1..tries {
            if run.code != code && (run.out.clone() + &run.err).contains("git ") {
                run = world.vnx_in(from, args);
            }
        }
        run.expect(code).out
    };
    // A worker's own git may fail over somebody else's housekeeping; whoever knows that tries again.
    let script = "echo 1 > mine; for n in 1 2 3 4 5; do git add mine && git commit -qm mine && break; done; git diff --quiet HEAD";
    let landed = dispatched(world, from, script, 0);
    assert!(vnx(&["show", &landed], 0).contains("accept"));
    vnx(&["merge", &landed], 0);
    assert_eq!(world.git(&["show", "main:mine"]), "1");
    let left = dispatched(world, from, "echo 2 > left; echo 3 >> README.md", 4);
    let tree = world.worktrees().join(&left);
    assert_eq!(std::fs::read_to_string(tree.join("left")).unwrap(), "2\n");
    // What git rewrites at that moment keeps the tree; nothing is lost, and the next one takes it.
    let mut said = vnx(&["worktree", "gc", "--apply", &left], 0);
    for _ in 1..tries {
        if tree.exists() {
            assert!(said.contains("is not as the rescue has it") || said.contains("while it was rescued"), "{said}");
            said = vnx(&["worktree", "gc", "--apply", &left], 0);
        }
    }
    assert!(!tree.exists(), "{said}");
    vnx(&["undo", &left], 0);
    assert_eq!(std::fs::read_to_string(tree.join("left")).unwrap(), "2\n");
    assert!(std::fs::read_to_string(tree.join("README.md")).unwrap().ends_with("3\n"));
    vnx(&["worktree", "gc", "--apply", &left], 0);
    vnx(&["status"], 0);
    vnx(&["revert", &landed, "--reason", "a test"], 0);
    assert!(!world.git(&["ls-tree", "--name-only", "main"]).contains("mine"));
    world.assert_verified();
    assert!(!vnx(&["doctor"], 0).contains("FAIL"));
    assert_eq!(names(&world.worktrees()), Vec::<String>::new());
}

/// A project whose work may land without gates, and whose settings are committed.
fn project(world: World) -> World {
    world.vnx(&["init"]).expect(0);
    let config = world.repo.join(".vnx/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\nmerge: {{ungated: ['*']}}\ntmux: {{panes: off}}\n")).unwrap();
    world.git(&["add", "-A"]);
    world.git(&["commit", "-qm", "vnx"]);
    world
}

fn hook(world: &World, name: &str, script: &str) {
    let path = world.repo.join(".git/hooks").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_path_that_nobody_would_choose() {
    let world = project(World::bare("ein Ordner 🦀 it's \"so\" $HOME;#"));
    main_job(&world, &world.repo);
    world.assert_nothing_left();
}

#[test]
fn from_a_folder_in_a_worktree_of_a_worktree() {
    let world = project(World::bare("repo"));
    let (first, second) = (world.root.join("place one"), world.root.join("place two"));
    world.git(&["worktree", "add", "-q", first.to_str().unwrap(), "-b", "one"]);
    world.git_in(&first, &["worktree", "add", "-q", second.to_str().unwrap(), "-b", "two", "main"]);
    // What is dispatched from there begins and lands there.
    let id = dispatched(&world, &second.join("src"), "echo 1 > mine; git add mine; git commit -qm mine", 0);
    world.vnx_in(&second, &["merge", &id]).expect(0);
    assert!(second.join("mine").exists() && !world.repo.join("mine").exists());
    assert_eq!(world.git_in(&second, &["status", "--porcelain"]), "");
    world.git_in(&second, &["checkout", "-q", "--detach"]);
    world.git_in(&first, &["checkout", "-q", "--detach"]);
    world.git(&["branch", "-qD", "two"]);
    main_job(&world, &world.repo.join("src"));
    world.assert_nothing_left();
}

#[test]
fn a_main_checkout_in_which_somebody_is_at_work() {
    let world = project(World::bare("repo"));
    std::fs::write(world.repo.join("README.md"), "# Half written\n").unwrap();
    std::fs::write(world.repo.join("staged"), "staged\n").unwrap();
    world.git(&["add", "staged"]);
    std::fs::write(world.repo.join("untracked"), "untracked\n").unwrap();
    let before = world.git(&["status", "--porcelain"]);
    let id = dispatched(&world, &world.repo, "echo 1 > mine; git add mine; git commit -qm mine", 0);
    // The worker began from the commit, not from what lies about.
    assert_eq!(world.git(&["show", &format!("vnx/{id}:README.md")]), "# A project");
    main_job(&world, &world.repo);
    assert_eq!(world.git(&["status", "--porcelain"]), before);
    assert_eq!(std::fs::read_to_string(world.repo.join("README.md")).unwrap(), "# Half written\n");
    assert_eq!(std::fs::read_to_string(world.repo.join("staged")).unwrap(), "staged\n");
    world.assert_nothing_left();
}

#[test]
fn hooks_that_fail() {
    let world = project(World::bare("repo"));
    for name in ["post-checkout", "post-index-change", "post-rewrite", "post-commit", "post-merge", "pre-auto-gc"] {
        hook(&world, name, "echo 'this hook always fails' >&2; exit 1");
    }
    main_job(&world, &world.repo);
    // One that keeps a worker from committing leaves its work in the tree, and is no success.
    hook(&world, "pre-commit", "exit 1");
    let id = dispatched(&world, &world.repo, "echo 1 > mine; git add mine; git commit -qm mine || true", 4);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "uncommitted");
    assert!(world.worktrees().join(&id).join("mine").exists());
    world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    world.assert_nothing_left();
}

#[test]
fn a_branch_that_a_hook_protects() {
    let world = project(World::bare("repo"));
    let script = "[ \"$1\" = prepared ] || exit 0\nwhile read -r _ _ ref; do\n\
                  [ \"$ref\" = refs/heads/main ] && echo 'main is protected' >&2 && exit 1\ndone\nexit 0";
    hook(&world, "reference-transaction", script);
    let id = dispatched(&world, &world.repo, "echo 1 > mine; git add mine; git commit -qm mine", 0);
    let before = world.git(&["rev-parse", "main"]);
    let run = world.vnx(&["merge", &id]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!((run.out.clone() + &run.err).contains("main is protected"), "{}{}", run.out, run.err);
    assert_eq!((world.git(&["rev-parse", "main"]), world.git(&["status", "--porcelain"])), (before, String::new()));
    // Everything else goes on, and so does this when the hook lets it.
    hook(&world, "reference-transaction", "exit 0");
    let override_it = ["gate", "override", &id, "git-config", "--reason", "the protection was lifted"];
    world.person(&override_it).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    main_job_of_another_file(&world);
    world.assert_nothing_left();
}

fn main_job_of_another_file(world: &World) {
    let id = dispatched(world, &world.repo, "echo 1 > other; git add other; git commit -qm other", 0);
    world.vnx(&["merge", &id]).expect(0);
    world.assert_verified();
}

/// Whoever reads another one's umask into it: what vnx keeps is its user's own, what git checks out is as git has it.
#[test]
fn any_umask() {
    for umask in ["000", "027", "077"] {
        let world = World::bare("repo");
        let vnx = |args: &str| {
            let command = format!("umask {umask}; exec {} {args}", World::binary());
            let output = world.command("sh").args(["-c", &command]).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success(), "{args}");
        };
        vnx("init");
        world.config("merge: {ungated: ['*']}\ntmux: {panes: off}\n");
        world.git(&["add", "-A"]);
        world.git(&["commit", "-qm", "vnx"]);
        vnx("dispatch-agent --agent hello-world");
        vnx("merge @last");
        vnx("audit-chain seal");
        let mut open = Vec::new();
        private(&world.state(), &mut open);
        assert!(open.is_empty(), "umask {umask}: others may read {open:?}");
        let script = world.repo.join("hello.txt");
        let wanted = 0o666 & !u32::from_str_radix(umask, 8).unwrap();
        if script.exists() {
            assert_eq!(script.metadata().unwrap().mode() & 0o777, wanted, "umask {umask}");
        }
        world.assert_verified();
        world.assert_nothing_left();
    }
}

/// Files and folders that others may read or write.
fn private(folder: &Path, open: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let data = entry.metadata().unwrap();
        if data.mode() & 0o077 != 0 && !data.is_symlink() {
            open.push(format!("{} {:o}", entry.path().display(), data.mode()));
        }
        if data.is_dir() {
            private(&entry.path(), open);
        }
    }
}

#[test]
fn a_clock_that_goes_back() {
    let mut world = project(World::bare("repo"));
    main_job(&world, &world.repo);
    let child = world.start_script(
        "echo 1 > mine; git add mine; git commit -qm mine; while [ ! -e go ]; do sleep 0.02; done; rm go",
    );
    world.until("the worker", || world.vnx(&["status", "--json"]).json()["dispatches"][0]["state"] == "working");
    // Two days, while one runs.
    let faketime = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|e| e.path().join("faketime/libfaketime.so.1"));
    let library =
        faketime.into_iter().find(|path| path.exists()).expect("libfaketime is missing; bin/test installs it");
    world.set("LD_PRELOAD", library);
    world.set("FAKETIME", "-2d");
    let told = world.vnx(&["ps"]).expect(0).out;
    assert!(told.contains("working") && told.contains("0 ms"), "{told}");
    let id = world.vnx(&["ps", "--json"]).json()["dispatches"][0]["id"].as_str().unwrap().to_owned();
    std::fs::write(world.worktrees().join(&id).join("go"), "").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    world.vnx(&["wait", &id]).expect(0);
    main_job(&world, &world.repo);
    world.unset("LD_PRELOAD");
    // The library leaves shared memory and a semaphore of every process that is killed or becomes another program.
    for (name, pid) in names(Path::new("/dev/shm")).iter().filter_map(|name| Some((name, name.rsplit_once('_')?.1))) {
        if name.contains("faketime_") && !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }
    main_job(&world, &world.repo);
    let receipts = world.receipts();
    let times: Vec<&str> = receipts.iter().map(|r| r["ts"].as_str().unwrap()).collect();
    assert!(!times.is_sorted(), "the clock did not go back");
    assert!(receipts.iter().enumerate().all(|(n, r)| r["seq"] == n));
    world.assert_nothing_left();
}

#[test]
fn while_git_collects_its_garbage() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let world = project(World::bare("repo"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let gc = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                for args in [&["gc", "-q"][..], &["repack", "-adq"], &["pack-refs", "--all"], &["worktree", "prune"]] {
                    // One that finds the other at work gives way.
                    world.command("git").args(args).stderr(Stdio::null()).status().unwrap();
                }
                rounds += 1;
            }
            rounds
        });
        let jobs = scope.spawn(|| (0..3).for_each(|_| main_job_beside(&world, &world.repo, 6)));
        let jobs = jobs.join();
        over.store(true, Ordering::Relaxed);
        assert!(gc.join().unwrap() > 0);
        assert!(jobs.is_ok());
    });
    let fsck = world.command("git").args(["fsck", "--strict", "--no-dangling"]).output().unwrap();
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stderr));
    world.assert_nothing_left();
}
