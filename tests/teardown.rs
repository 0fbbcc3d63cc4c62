//! What becomes of a worktree: nothing that a worker made is ever lost.

use serde_json::Value;

use crate::common::World;

struct Left {
    world: World,
    id: String,
    closed: Value,
}

fn after(script: &str) -> Left {
    let world = World::new();
    let run = world.script(script);
    assert!([0, 1, 4].contains(&run.code), "{}{}", run.out, run.err);
    let (id, closed) = (world.last_id(), world.last("dispatch.closed"));
    world.assert_verified();
    Left { world, id, closed }
}

impl Left {
    #[track_caller]
    fn is(self, class: &str, tree: &str, outcome: &str) -> Self {
        let teardown = &self.closed["teardown"];
        let seen = (
            teardown["class"].as_str().unwrap(),
            teardown["tree"].as_str().unwrap(),
            self.closed["verdict"]["outcome"].as_str().unwrap(),
        );
        assert_eq!(seen, (class, tree, outcome), "{}", self.closed);
        assert_eq!(self.world.worktrees().join(&self.id).exists(), tree == "kept");
        self
    }
    #[track_caller]
    fn rescued(&self, path: &str, content: &str) {
        assert_eq!(self.world.git(&["show", &format!("refs/vnx/rescue/{}:{path}", self.id)]), content);
    }
    /// Every commit and blob that the script noted in `noted` is still reachable from a ref.
    #[track_caller]
    fn reachable(&self, subject: &str) {
        let all = self.world.git(&["log", "--all", "--format=%s"]);
        assert!(all.lines().any(|l| l == subject), "{subject:?} is on no ref:\n{all}");
    }
}

const COMMIT: &str = "echo 1 > f; git add f; git commit -qm mine";

#[test]
fn clean_leaves_nothing() {
    let left = after("true").is("clean", "removed", "empty");
    assert_eq!(left.world.git(&["branch", "--list", "vnx/*"]), "");
    left.world.assert_nothing_left();
}

#[test]
fn committed_keeps_the_branch() {
    let left = after(COMMIT).is("committed", "removed", "done");
    left.reachable("mine");
    left.world.assert_nothing_left();
}

#[test]
fn pushed_work_leaves_no_local_branch_and_only_after_asking_the_remote() {
    let world = World::new();
    world.git(&["init", "--quiet", "--bare", "../remote.git"]);
    world.git(&["remote", "add", "origin", world.root.join("remote.git").to_str().unwrap()]);
    world.script(&format!("{COMMIT}; git push -q origin HEAD")).expect(0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "pushed");
    assert_eq!(world.git(&["branch", "--list", "vnx/*"]), "");
    assert!(world.git(&["ls-remote", "origin"]).contains(&world.last_id()));
    // The tracking ref says pushed, the remote has lost it: the local branch stays.
    world.script("echo 2 > g; git add g; git commit -qm other; git push -q origin HEAD; git -C \"$(git remote get-url origin)\" update-ref -d refs/heads/vnx/$VNX_DISPATCH_ID").expect(0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "committed");
    assert_ne!(world.git(&["branch", "--list", "vnx/*"]), "");
}

#[test]
fn uncommitted_work_stays_and_is_rescued() {
    for (script, path, content) in [
        ("echo new > untracked", "untracked", "new"),
        ("echo edit >> README.md", "README.md", "# A project\nedit"),
        ("echo staged > s; git add s", "s", "staged"),
        ("mkdir -p a/b; echo deep > a/b/c", "a/b/c", "deep"),
    ] {
        let left = after(script).is("dirty", "kept", "uncommitted");
        left.rescued(path, content);
        let locked = left.world.git(&["worktree", "list", "--porcelain"]);
        assert!(locked.contains(&format!("locked vnx dispatch {}: kept, uncommitted changes", left.id)), "{locked}");
    }
}

#[test]
fn ignored_files_count_unless_they_are_reproducible() {
    let left = after(
        "printf 'target\\n.env\\n' > .gitignore; git add .gitignore; git commit -qm ignore; mkdir target; echo o > target/o; echo KEY=1 > .env",
    );
    // The rule that hides it is its own.
    let left = left.is("dirty", "kept", "uncommitted");
    left.rescued(".env", "KEY=1");
    let names = left.world.git(&["ls-tree", "-r", "--name-only", &format!("refs/vnx/rescue/{}", left.id)]);
    assert!(!names.contains("target/o"), "{names}");
    after("echo target > .gitignore; git add .gitignore; git commit -qm ignore; mkdir target; echo o > target/o").is(
        "committed",
        "removed",
        "done",
    );
}

#[test]
fn commits_that_no_branch_keeps_are_rescued() {
    let left =
        after(&format!("{COMMIT}; echo 2 > f; git commit -qam amended --amend")).is("committed", "removed", "done");
    left.reachable("mine");
    left.reachable("amended");
    let left = after(&format!("{COMMIT}; git reset -q --hard HEAD~1"));
    left.reachable("mine");
    let left = after(&format!("git checkout -q --detach; {COMMIT}"));
    left.reachable("mine");
    let left = after(&format!(
        "{COMMIT}; git checkout -q --detach HEAD~1; echo 3 > g; git add g; git commit -qm detached; git checkout -q vnx/$VNX_DISPATCH_ID"
    ));
    left.reachable("mine");
    left.reachable("detached");
}

#[test]
fn work_on_another_branch_is_neither_lost_nor_accepted() {
    let left = after(&format!("git checkout -q -b feature; {COMMIT}"));
    left.reachable("mine");
    assert_ne!(left.closed["verdict"]["decision"], "accept");
}

#[test]
fn a_deleted_branch_a_broken_link_and_a_vanished_folder_lose_nothing() {
    let left = after(&format!("{COMMIT}; git checkout -q --detach; git branch -D vnx/$VNX_DISPATCH_ID"));
    left.reachable("mine");
    let left = after("echo precious > p; rm .git").is("dirty", "kept", "uncommitted");
    left.rescued("p", "precious");
    let left = after(&format!("{COMMIT}; rm -rf \"$PWD\""));
    left.reachable("mine");
}

#[test]
fn a_half_done_operation_is_kept() {
    let script = "git checkout -q -b side; echo side > README.md; git commit -qam side; git checkout -q vnx/$VNX_DISPATCH_ID; \
                  echo own > README.md; git commit -qam own; git merge side || true";
    let left = after(script).is("in_progress", "kept", "uncommitted");
    left.reachable("own");
    left.reachable("side");
}

/// What `git status` does not look behind is never taken for "no change".
#[test]
fn hidden_changes_are_kept_and_rescued() {
    for flag in ["--assume-unchanged", "--skip-worktree"] {
        let left = after(&format!("git update-index {flag} README.md; echo hidden > README.md"));
        let left = left.is("unknown", "kept", "unknown");
        left.rescued("README.md", "hidden");
        let left = after(&format!("{COMMIT}; git update-index {flag} README.md; echo hidden > README.md"));
        assert_ne!(left.closed["verdict"]["decision"], "accept");
    }
    let left = after("git config core.fileMode false; chmod +x README.md").is("unknown", "kept", "unknown");
    assert!(left.world.worktrees().join(&left.id).exists());
}

#[test]
fn a_repository_inside_the_tree_keeps_it() {
    let left = after(
        "git init -q sub; cd sub; echo 1 > x; git add x; git commit -qm nested; cd ..; git add sub; git commit -qm add",
    );
    let left = left.is("unknown", "kept", "unknown");
    let nested = left.world.worktrees().join(&left.id).join("sub");
    assert_eq!(left.world.git_in(&nested, &["log", "--format=%s"]), "nested");
}

#[test]
fn the_last_ref_to_a_commit_is_never_deleted() {
    let world = World::new();
    let first = world.git(&["rev-parse", "HEAD"]);
    world.script("git update-ref -d refs/heads/main").expect(4);
    assert_eq!(world.git(&["rev-parse", &format!("vnx/{}", world.last_id())]), first);
    let left = after(&format!("{COMMIT}; git update-ref -d refs/heads/vnx/$VNX_DISPATCH_ID"));
    left.reachable("mine");
    assert_eq!(left.closed["teardown"]["branch_kept"], false);
}

#[test]
fn a_branch_of_the_user_is_not_ours() {
    let world = World::new();
    world.git(&["branch", "vnx/taken"]);
    let before = world.git(&["rev-parse", "vnx/taken"]);
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--id", "taken", "-i", COMMIT];
    let run = world.vnx(&args).expect(1);
    assert!(run.out.contains("worktree_failed") && run.out.contains("vnx/taken"), "{}", run.out);
    assert_eq!(world.git(&["rev-parse", "vnx/taken"]), before);
    world.assert_nothing_left();
}

/// git runs programs that its configuration names (threat T-16): our own calls must not.
#[test]
fn what_a_worker_plants_in_git_is_not_run_by_us() {
    let world = World::new();
    let marker = world.root.join("pwned");
    let hook = format!("#!/bin/sh\ntouch {}\n", marker.display());
    let script = format!(
        "common=$(git rev-parse --path-format=absolute --git-common-dir); mkdir -p $common/hooks; \
         for h in post-checkout pre-commit reference-transaction; do printf '{}' > $common/hooks/$h; chmod +x $common/hooks/$h; done; \
         git config core.fsmonitor 'touch {m}'; git config filter.evil.clean 'touch {m}; cat'; echo '* filter=evil' > .gitattributes; echo x > x",
        hook.replace('\n', "\\n"),
        m = marker.display()
    );
    world.script(&script);
    assert!(!marker.exists(), "the worker's code was run by vnx");
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["teardown"]["class"], "unknown", "{closed}");
    assert_eq!(closed["teardown"]["tree"], "kept");
    let collected = world.last("dispatch.collected");
    assert!(
        collected["unknown_because"][0].as_str().unwrap().contains("settings that may run programs"),
        "{collected}"
    );
}

#[test]
fn a_person_in_the_tree_keeps_it() {
    let world = World::new();
    let script = format!("{COMMIT}; while [ ! -e go ]; do sleep 0.02; done; rm go");
    let id = world
        .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", &script])
        .expect(0);
    let id = id.out.trim().to_owned();
    let tree = world.worktrees().join(&id);
    world.until("the tree", || tree.join("f").exists());
    let mut person = world.command("sleep").arg("1000").current_dir(&tree).spawn().unwrap();
    std::fs::write(tree.join("go"), "").unwrap();
    world.vnx(&["wait", &id]).expect(0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "foreign");
    assert!(tree.join("f").exists());
    assert!(person.try_wait().unwrap().is_none(), "a person's shell is not ours to end");
    person.kill().unwrap();
    person.wait().unwrap();
}

/// A lock that a person set is theirs to take away; gc touches nothing until then.
#[test]
fn a_persons_lock_keeps_it() {
    let left = after("echo new > new").is("dirty", "kept", "uncommitted");
    let (world, id) = (&left.world, &left.id);
    let tree = world.worktrees().join(id);
    world.git(&["worktree", "unlock", tree.to_str().unwrap()]);
    world.git(&["worktree", "lock", "--reason", "I look at it", tree.to_str().unwrap()]);
    let gc = ["worktree", "gc", "--apply", id];
    let run = world.vnx(&gc).expect(0);
    assert!(run.out.contains("foreign") && run.out.contains("locked or used by somebody else"), "{}", run.out);
    assert!(tree.join("new").exists());
    world.git(&["worktree", "unlock", tree.to_str().unwrap()]);
    // What was there when the worker ended is kept beside what the person made of it.
    std::fs::write(tree.join("new"), "newer").unwrap();
    world.vnx(&gc).expect(0);
    world.assert_nothing_left();
    left.rescued("new", "newer");
    let earlier = world.git(&["log", "--format=%H", "--grep=vnx rescue", &format!("refs/vnx/rescue/{id}")]);
    assert_eq!(world.git(&["show", &format!("{}:new", earlier.lines().nth(1).unwrap())]), "new");
}

/// Every command meets a disk that is full, to the last byte and with some room.
#[test]
fn a_full_disk() {
    let world = World::new();
    let small = world.root.join("small");
    std::fs::create_dir(&small).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/full_disk.sh");
    // A file system of its own, which only these processes see and which goes with them.
    let mut command = world.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", script]).arg(&small).arg(World::binary());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.processes(), Vec::new());
}
