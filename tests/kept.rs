//! What a teardown must not overlook, each by itself: without it no other story would notice.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::common::World;
use crate::undo::COMMIT;

/// A script whose worktree stays; its id and its folder.
pub fn kept(world: &World, script: &str, class: &str) -> (String, PathBuf) {
    world.script(script);
    let closed = world.last("dispatch.closed");
    let id = world.last_id();
    let tree = world.worktrees().join(&id);
    assert_eq!((&closed["teardown"]["class"], tree.exists()), (&class.into(), true), "{script}: {closed}");
    (id, tree)
}

pub fn collected(world: &World, id: &str) -> String {
    world.vnx(&["worktree", "gc", "--apply", id]).expect(0).out
}

/// Collects it and brings it back.
fn there_and_back(world: &World, id: &str) {
    let said = collected(world, id);
    assert!(said.contains("removed") && !world.worktrees().join(id).exists(), "{said}");
    world.git(&["prune", "--expire=now"]);
    world.vnx(&["undo", id]).expect(0);
}

#[test]
fn what_is_over_the_budget_of_a_rescue_stays() {
    let world = World::new();
    world.config("worktree: {rescue_ignored_max: 64KiB}\n");
    let ignored = |files: &str| format!("printf '*.bin\\n' > .gitignore; git add .; git commit -qm i; {files}");
    let (id, tree) = kept(&world, &ignored("head -c 1048576 /dev/zero > big.bin"), "dirty");
    assert!(collected(&world, &id).contains("big.bin is not in the rescue") && tree.join("big.bin").exists());
    // Together they count, and the last that fits is taken.
    let (id, tree) = kept(&world, &ignored("for n in a b; do head -c 40960 /dev/zero > $n.bin; done"), "dirty");
    assert!(collected(&world, &id).contains("b.bin is not in the rescue") && tree.join("a.bin").exists());
    let (id, _) = kept(&world, &ignored("head -c 65536 /dev/zero > fits.bin"), "dirty");
    there_and_back(&world, &id);
    assert_eq!(std::fs::metadata(world.worktrees().join(&id).join("fits.bin")).unwrap().len(), 65536);
}

#[test]
fn without_its_rescue_no_tree_goes() {
    let world = World::new();
    // Where the rescue's reference should be a file, there is a folder.
    let (id, _) = kept(
        &world,
        &format!("{COMMIT} git commit -q --amend -m amended; git update-ref refs/vnx/rescue/$VNX_DISPATCH_ID/x HEAD"),
        "committed",
    );
    assert!(world.receipts().iter().any(|r| r["kind"] == "worktree.kept" && r["dispatch"] == id.as_str()));
}

#[test]
fn where_git_cannot_be_asked_everything_is_taken_along() {
    let world = World::new();
    let untrusted = "git config filter.x.clean cat";
    let nested = "git init -q n; cd n; echo 1 > x; git add x; git commit -qm n; echo 2 > x; git stash -q; cd ..";
    let (id, _) = kept(&world, &format!("{nested}; {untrusted}"), "unknown");
    there_and_back(&world, &id);
    assert_eq!(world.git_in(&world.worktrees().join(&id).join("n"), &["stash", "list"]).lines().count(), 1);
    world.git(&["config", "--unset", "filter.x.clean"]);
    let (id, _) = kept(&world, &format!("echo .env > .gitignore; {COMMIT} echo K > .env; {untrusted}"), "unknown");
    there_and_back(&world, &id);
    assert_eq!(std::fs::read_to_string(world.worktrees().join(&id).join(".env")).unwrap(), "K\n");
    world.git(&["config", "--unset", "filter.x.clean"]);
    // Without an index, what is ignored may have been tracked.
    let tracked =
        "printf 'target\\n' > .gitignore; mkdir target; echo 1 > target/app.js; git add -f .; git commit -qm t";
    let broken = "echo 2 > target/app.js; echo junk > \"$(git rev-parse --git-dir)/index\"";
    let (id, _) = kept(&world, &format!("{tracked}; {broken}"), "unknown");
    there_and_back(&world, &id);
    assert_eq!(std::fs::read_to_string(world.worktrees().join(&id).join("target/app.js")).unwrap(), "2\n");
}

/// A branch that landed as another commit is deleted; what it was stays with the rescue.
#[test]
fn the_commits_of_a_branch_that_landed_otherwise_stay_reachable() {
    let world = World::new();
    world.script(COMMIT).expect(0);
    let (id, tip) = (world.last_id(), world.last("dispatch.collected")["head"].as_str().unwrap().to_owned());
    world.vnx(&["undo", &id]).expect(0);
    world.git(&["merge", "-q", "--squash", &format!("vnx/{id}")]);
    world.git(&["commit", "-qm", "landed"]);
    world.git_in(&world.worktrees().join(&id), &["checkout", "-q", "--detach", "HEAD~1"]);
    collected(&world, &id);
    assert!(!world.worktrees().join(&id).exists());
    world.git(&["reflog", "expire", "--expire=now", "--all"]);
    world.git(&["prune", "--expire=now"]);
    assert_eq!(world.git(&["cat-file", "-t", &tip]), "commit");
}

#[test]
fn a_persons_lock_is_not_replaced() {
    let world = World::new();
    let (id, _) = kept(&world, "git worktree unlock .; git worktree lock --reason mine .", "foreign");
    let own = world.repo.join(".git/worktrees").join(&id);
    assert_eq!(std::fs::read_to_string(own.join("locked")).unwrap().trim(), "mine");
    kept(&world, "d=$(git rev-parse --git-dir); rm $d/locked; mkdir $d/locked", "unknown");
    let (third, _) =
        kept(&world, "git worktree unlock .; git worktree lock --reason 'vnx dispatch other' .", "foreign");
    let said = collected(&world, &third);
    assert!(said.contains("stays"), "{said}");
}

#[test]
fn a_file_behind_a_flag_counts_where_nothing_is_sparse() {
    let world = World::new();
    let script = "d=$(git rev-parse --git-dir); mkdir -p $d/info; : > $d/info/sparse-checkout; \
                  git update-index --skip-worktree README.md; echo hidden > README.md";
    let (id, tree) = kept(&world, script, "unknown");
    there_and_back(&world, &id);
    assert_eq!(std::fs::read_to_string(tree.join("README.md")).unwrap(), "hidden\n");
}

#[test]
fn what_a_worker_may_not_read_itself_stays() {
    let mut world = World::new();
    world.drop_privileges();
    let ignored = "printf 'd/\\n*.key\\n' > .gitignore; git add .; git commit -qm i";
    let (id, tree) = kept(&world, &format!("{ignored}; mkdir d; echo x > d/x; chmod 000 d"), "dirty");
    let said = collected(&world, &id);
    assert!(said.contains("d/ is not in the rescue") && tree.join("d").exists(), "{said}");
    std::fs::set_permissions(tree.join("d"), std::fs::Permissions::from_mode(0o755)).unwrap();
    there_and_back(&world, &id);
    let (id, tree) = kept(&world, &format!("{ignored}; echo x > a.key; chmod 000 a.key"), "dirty");
    world.vnx(&["worktree", "gc", "--apply", &id]);
    assert!(tree.join("a.key").exists());
}

/// One removed worktree that cannot be deleted does not keep those that come after it.
#[test]
fn what_was_removed_is_deleted_around_what_cannot_be() {
    let world = World::new();
    kept(&world, "echo u > u", "dirty");
    // A supervisor that closes deletes too.
    world.until("the supervisor to end", || world.processes().is_empty());
    let records = world.state().join("folders");
    std::fs::create_dir_all(&records).unwrap();
    let [stuck, free] = ["a", "b"].map(|name| {
        let path = world.worktrees().join(format!(".gone-{name}"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("f"), "").unwrap();
        let meta = path.metadata().unwrap();
        let folder = serde_json::json!({"dev": meta.dev(), "ino": meta.ino()});
        let record = serde_json::json!({"v": 1, "path": path, "folder": folder, "stage": {"is": "going"}});
        std::fs::write(records.join(format!(".gone-{name}")), record.to_string()).unwrap();
        path
    });
    let mut strace = world.command("strace");
    strace.args(["-f", "-q", "-o", "/dev/null", "-P", stuck.to_str().unwrap(), "-e", "trace=unlinkat"]);
    strace.args(["-e", "inject=unlinkat:error=EPERM", World::binary(), "ps"]);
    strace.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap();
    assert!(stuck.join("f").exists() && !free.exists(), "{:?}", crate::common::names(&world.worktrees()));
    world.vnx(&["ps"]).expect(0);
    assert!(!stuck.exists());
}
