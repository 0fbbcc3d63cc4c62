//! Repositories as people have them: without a main checkout, with worktrees behind a link.

use std::path::{Path, PathBuf};

use crate::common::World;

const SHELL: [&str; 6] = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];

#[track_caller]
fn sh(folder: &Path, world: &World, script: &str) {
    let output = world.command("sh").current_dir(folder).args(["-euc", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// A folder of linked worktrees, `main` and `feat`, of a bare repository that is called `name` there.
fn folder_of_worktrees(world: &World, name: &str) -> PathBuf {
    let folder = world.root.join(format!("lay-{}", name.trim_start_matches('.')));
    std::fs::create_dir(&folder).unwrap();
    sh(&folder, world, &format!("git clone -q --bare ../repo {name}"));
    if name != ".git" {
        std::fs::write(folder.join(".git"), format!("gitdir: ./{name}\n")).unwrap();
    }
    sh(&folder, world, "git worktree add -q main main; git worktree add -q -b feat feat main");
    folder
}

fn set_up(world: &World, checkout: &Path) {
    world.vnx_in(checkout, &["init"]).expect(0);
    sh(checkout, world, "echo 'merge: {ungated: [hello-world]}' >> .vnx/config.yaml; git add .vnx; git commit -qm vnx");
}

fn work(world: &World, checkout: &Path, id: &str, file: &str) {
    let script = format!("echo 1 > {file}; git add {file}; git commit -qm {file}");
    world.vnx_in(checkout, &[&SHELL[..], &["--id", id, "-i", &script]].concat()).expect(0);
}

/// HEAD of a bare repository is no checkout, although it names a branch that one has.
#[test]
fn a_folder_of_worktrees_is_landed_in() {
    let world = World::bare("repo");
    for name in [".bare", ".git"] {
        let folder = folder_of_worktrees(&world, name);
        let main = folder.join("main");
        let refused = world.vnx_in(&folder, &["init"]).expect(5);
        assert!(refused.err.contains("bare repository") && refused.err.contains("fix:"), "{}", refused.err);
        set_up(&world, &main);
        work(&world, &main, "one", "f");
        world.vnx_in(&main, &["merge", "one"]).expect(0);
        assert!(main.join("f").exists(), "{name}: the checkout of the target is brought along");
        assert_eq!(world.git_in(&main, &["status", "--porcelain"]), "");
        // From another worktree, into the same one.
        sh(&folder.join("feat"), &world, "git merge -q main");
        work(&world, &folder.join("feat"), "two", "g");
        sh(&main, &world, "echo mine > mine");
        world.vnx_in(&folder.join("feat"), &["merge", "two", "--into", "main"]).expect(0);
        assert!(main.join("g").exists() && main.join("mine").exists());
    }
}

/// One repository, one ledger and one name, whichever checkout sets it up.
#[test]
fn every_checkout_gives_the_project_the_same_name() {
    let world = World::bare("repo");
    let folder = folder_of_worktrees(&world, ".bare");
    let (main, feat) = (folder.join("main"), folder.join("feat"));
    for checkout in [&main, &feat] {
        set_up(&world, checkout);
        work(&world, checkout, if checkout == &main { "one" } else { "two" }, "f");
        world.vnx_in(checkout, &["audit-chain", "verify"]).expect(0);
        let text = std::fs::read_to_string(checkout.join(".vnx/config.yaml")).unwrap();
        assert!(text.contains("project_id: lay-bare\n"), "{text}");
    }
    // A name that a person chose in one checkout counts in the next.
    let other = world.root.join("other.git");
    sh(&world.root, &world, "git clone -q --bare repo other.git; cd other.git; git worktree add -q ../a main");
    sh(&other, &world, "git worktree add -q -b b ../b main");
    let (a, b) = (world.root.join("a"), world.root.join("b"));
    std::fs::create_dir(a.join(".vnx")).unwrap();
    std::fs::write(a.join(".vnx/config.yaml"), "version: 1\nproject_id: chosen\n").unwrap();
    world.vnx_in(&a, &["init"]).expect(0);
    world.vnx_in(&b, &["init"]).expect(0);
    assert!(std::fs::read_to_string(b.join(".vnx/config.yaml")).unwrap().contains("project_id: chosen\n"));
}

/// `REPO.worktrees` may be a link to a larger disk.
#[test]
fn worktrees_behind_a_link_come_back() {
    let world = World::new();
    let disk = world.root.join("disk");
    std::fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(&disk, world.worktrees()).unwrap();
    let dispatch = |id: &str, script: &str| world.vnx(&[&SHELL[..], &["--id", id, "-i", script]].concat());
    dispatch("kept", "echo precious > p").expect(4);
    world.vnx(&["worktree", "gc", "--apply", "kept"]).expect(0);
    dispatch("done", "echo 1 > f; git add f; git commit -qm f").expect(0);
    world.vnx(&["undo", "kept"]).expect(0);
    world.vnx(&["undo", "done"]).expect(0);
    assert_eq!(std::fs::read_to_string(disk.join("kept/p")).unwrap(), "precious\n");
    world.vnx(&["doctor"]).expect(0);
}
