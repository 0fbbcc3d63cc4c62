//! Work that is somewhere else already: in the target under other commits, or on a remote.

use crate::common::World;
use crate::undo::{COMMIT, story};

/// Two commits of a worker, in its branch and its worktree; `base` is where it began.
fn two_commits() -> (World, String) {
    let world = World::new();
    std::fs::write(world.repo.join("f"), "1\n2\n3\n4\n5\n6\n7\n8\n9\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "base"]);
    world.git(&["tag", "base"]);
    world
        .script("sed -i s/2/two/ f; git commit -qam first; echo new > new; git add new; git commit -qm second")
        .expect(0);
    let id = world.last_id();
    world.vnx(&["undo", &id]).expect(0);
    (world, id)
}

/// Its class once the main checkout has run these lines.
fn class_after(lines: &str, class: &str, integrated: &str) {
    let (world, id) = two_commits();
    let branch = format!("vnx/{id}");
    let script = format!("set -e; B={branch}; {lines}");
    let output = world.command("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = world.vnx(&["worktree", "gc", "--json"]).expect(0).json();
    let row = &rows["worktrees"][0];
    assert_eq!((&row["class"], &row["facts"]["integrated"]), (&class.into(), &integrated.into()), "{lines}\n{row}");
    let refs = || world.foreign_refs();
    let before = refs();
    world.vnx(&["worktree", "gc", "--apply"]).expect(0);
    world.assert_nothing_left();
    assert_eq!(refs().contains(&branch), class != "merged", "{lines}");
    // Its commits are on no branch any more; nothing of them is lost.
    world.git(&["prune", "--expire=now"]);
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(refs(), before, "{lines}");
    let tree = world.worktrees().join(&id);
    assert_eq!(world.git_in(&tree, &["log", "--format=%s", "base.."]), "second\nfirst");
    assert_eq!(world.git_in(&tree, &["status", "--porcelain"]), "");
    world.vnx(&["worktree", "gc", "--apply"]).expect(0);
    world.assert_verified();
    world.assert_nothing_left();
}

#[test]
fn merged() {
    class_after("git merge -q --no-ff -m merge $B", "merged", "yes");
}

#[test]
fn squashed() {
    class_after("git merge -q --squash $B; git commit -qm squashed", "merged", "yes");
}

#[test]
fn squashed_and_the_target_went_on_in_the_same_file() {
    let lines = "git merge -q --squash $B; git commit -qm squashed; sed -i s/9/nine/ f; git commit -qam more; echo x >> new; git commit -qam x";
    class_after(lines, "merged", "yes");
}

#[test]
fn rebased() {
    class_after("sed -i s/9/nine/ f; git commit -qam other; git cherry-pick base..$B >/dev/null", "merged", "yes");
}

#[test]
fn picked_and_the_target_went_on() {
    let lines = "sed -i s/9/nine/ f; git commit -qam other; git cherry-pick base..$B >/dev/null; sed -i s/8/eight/ f; echo y >> new; git commit -qam y";
    class_after(lines, "merged", "yes");
}

#[test]
fn taken_back_again() {
    let lines = "git merge -q --squash $B; git commit -qm squashed; git revert --no-edit HEAD >/dev/null";
    class_after(lines, "committed", "no");
}

/// No patch of the target is the way back, and yet nothing of the change is there.
#[test]
fn taken_back_in_pieces() {
    let lines = "git merge -q --squash $B; git commit -qm squashed; git checkout -q base f; git commit -qm one; git rm -q new; git commit -qm two";
    class_after(lines, "committed", "no");
}

/// A target whose ref git has packed, where it was and elsewhere.
#[test]
fn a_packed_target() {
    class_after("git pack-refs --all", "committed", "no");
    class_after("echo other > other; git add other; git commit -qm other; git pack-refs --all", "committed", "no");
}

/// The same lines at another depth are another change.
#[test]
fn only_blanks_differ() {
    let lines = "sed -i 's/2/  two/' f; echo ' new' > new; git add new; git commit -qam other; sed -i 's/  two/x/' f; git commit -qam on";
    class_after(lines, "committed", "no");
}

#[test]
fn only_one_of_two_picked() {
    class_after("git cherry-pick $B~1 >/dev/null", "committed", "no");
    class_after("git cherry-pick $B >/dev/null", "committed", "no");
}

#[test]
fn the_same_file_with_another_change() {
    class_after("sed -i s/2/deux/ f; echo new > new; git add new; git commit -qam other", "committed", "no");
}

/// A commit without content is in the target only as itself.
#[test]
fn an_empty_commit_is_not_in_the_target_by_its_content() {
    let world = World::new();
    world.script("git commit -q --allow-empty -m empty").expect(4);
    let id = world.last_id();
    std::fs::write(world.repo.join("f"), "").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "other"]);
    world.vnx(&["undo", &id]).expect(0);
    let row = world.vnx(&["worktree", "gc", "--json"]).expect(0).json()["worktrees"][0].clone();
    assert_eq!((&row["class"], &row["facts"]["integrated"]), (&"committed".into(), &"no".into()), "{row}");
    world.vnx(&["worktree", "gc", "--apply"]).expect(0);
    assert!(world.git(&["branch", "--list", "vnx/*"]).contains(&id));
}

/// Remotes `origin` and `fork`, as bare repositories beside.
fn remotes(world: &World) {
    for name in ["origin", "fork"] {
        world.git(&["init", "--quiet", "--bare", &format!("../{name}.git")]);
        world.git(&["remote", "add", name, world.root.join(format!("{name}.git")).to_str().unwrap()]);
        world.git(&["push", "-q", name, "main"]);
    }
}

/// What is on a remote under whatever name needs no branch here; what may not be there keeps its own.
#[test]
fn pushed() {
    for (push, class) in [
        ("git push -q origin HEAD", "pushed"),
        ("git push -q fork HEAD", "pushed"),
        ("git push -q origin HEAD:refs/heads/other/name", "pushed"),
        ("git push -q origin HEAD; echo 2 > g; git add g; git commit -qm later", "committed"),
        ("git push -q origin HEAD; echo 2 > g; git add g; git commit -qm later; git push -q fork HEAD", "pushed"),
        // By its address: no tracking ref says so.
        ("git push -q \"$(git remote get-url origin)\" HEAD", "committed"),
        // The remote has lost it, has gone back, has gone on, or does not answer.
        ("git push -q origin HEAD; git -C ../../origin.git update-ref -d refs/heads/vnx/$VNX_DISPATCH_ID", "committed"),
        (
            "git push -q origin HEAD; git -C ../../origin.git update-ref refs/heads/vnx/$VNX_DISPATCH_ID main",
            "committed",
        ),
        (
            "git push -q origin HEAD; git clone -q ../../origin.git ../../c; cd ../../c; git checkout -q vnx/$VNX_DISPATCH_ID; \
             git commit -q --allow-empty -m ahead; git push -q origin HEAD; cd - >/dev/null",
            "committed",
        ),
        ("git push -q origin HEAD; mv ../../origin.git ../../gone.git", "committed"),
    ] {
        story(&remotes, &format!("{COMMIT} {push}"), Some(class));
    }
}
