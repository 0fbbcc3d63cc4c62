//! The main job in repositories as they are found: large files elsewhere, a hundred thousand small ones.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::common::World;

/// Who brings git LFS: the repository's own settings, or the user's.
fn with_lfs(own: bool) -> World {
    let world = World::new();
    world.git(if own { &["lfs", "install", "--local"] } else { &["lfs", "install", "--skip-repo"] });
    world.git(&["lfs", "track", "*.bin"]);
    std::fs::write(world.repo.join("large.bin"), vec![7; 300_000]).unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "a large file"]);
    assert!(world.git(&["cat-file", "-p", "HEAD:large.bin"]).starts_with("version https://git-lfs"));
    world
}

fn bytes(folder: &Path, name: &str) -> usize {
    std::fs::metadata(folder.join(name)).unwrap().len().try_into().unwrap()
}

#[test]
fn git_lfs() {
    for own in [true, false] {
        let world = with_lfs(own);
        // What the worker sees and commits is what git LFS makes of it.
        let script =
            "test $(wc -c < large.bin) = 300000; head -c 200000 /dev/zero > new.bin; git add .; git commit -qm new";
        world.script(script).expect(0);
        let id = world.last_id();
        assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "committed");
        assert!(world.git(&["cat-file", "-p", &format!("vnx/{id}:new.bin")]).starts_with("version https://git-lfs"));
        world.vnx(&["undo", &id]).expect(0);
        let tree = world.worktrees().join(&id);
        assert_eq!((bytes(&tree, "large.bin"), bytes(&tree, "new.bin")), (300_000, 200_000));
        assert_eq!(world.git_in(&tree, &["status", "--porcelain"]), "");
        world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
        // Uncommitted, the bytes themselves are in the rescue.
        world.script("head -c 9 /dev/zero > other.bin; git add other.bin").expect(4);
        let id = world.last_id();
        world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
        world.vnx(&["undo", &id]).expect(0);
        let tree = world.worktrees().join(&id);
        assert_eq!((bytes(&tree, "large.bin"), bytes(&tree, "other.bin")), (300_000, 9));
        std::fs::write(tree.join("large.bin"), vec![8; 250_000]).unwrap();
        world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
        world.git(&["prune", "--expire=now"]);
        world.vnx(&["undo", &id]).expect(0);
        let tree = world.worktrees().join(&id);
        assert_eq!((bytes(&tree, "large.bin"), bytes(&tree, "other.bin")), (250_000, 9));
        assert_eq!(world.git_in(&tree, &["status", "--porcelain"]), " M large.bin\nA  other.bin");
        world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
        // Where nobody wants them, the pointers stay, and are no change.
        world.config("worktree: {lfs: skip}\n");
        let script = "test $(wc -c < large.bin) -lt 200; echo 1 > f; git add f; git commit -qm f";
        world.script(script).expect(0);
        assert_eq!(
            world.last("dispatch.closed")["teardown"]["class"],
            "committed",
            "{}",
            world.last("dispatch.collected")
        );
        world.vnx(&["undo", &world.last_id()]).expect(0);
        world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
        world.assert_verified();
        world.assert_nothing_left();
    }
}

/// So many small files, in folders of a hundred.
fn commit_files(world: &World, count: usize) {
    let mut stream = String::from("blob\nmark :1\ndata 2\n1\n\ncommit refs/heads/main\nmark :2\n");
    stream += "committer t <t@vnx.invalid> 1700000000 +0000\ndata 4\nmany\nfrom refs/heads/main^0\n";
    for n in 0..count {
        writeln!(stream, "M 100644 :1 many/{:02}/{:02}/f{n}", n / 10_000, n / 100 % 100).unwrap();
    }
    let mut import = world.command("git").args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    // The main checkout does without the files; its index has them.
    world.git(&["read-tree", "main"]);
}

#[test]
fn a_hundred_thousand_files() {
    const COUNT: usize = 100_000;
    let world = World::in_memory();
    commit_files(&world, COUNT);
    let script = format!("test $(git ls-files many | wc -l) = {COUNT}; echo 2 > many/00/00/f0; git commit -qam one");
    world.script(&script).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["teardown"]["class"], &closed["diff"]["files"]), (&"committed".into(), &1.into()), "{closed}");
    world.script("echo 3 > many/00/00/f0; rm many/09/99/f99999; echo u > many/u; git add many/00").expect(4);
    let id = world.last_id();
    world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
    world.git(&["prune", "--expire=now"]);
    world.vnx(&["undo", &id]).expect(0);
    let status = world.git_in(&world.worktrees().join(&id), &["status", "--porcelain"]);
    assert_eq!(status, "M  many/00/00/f0\n D many/09/99/f99999\n?? many/u");
    world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    world.assert_verified();
    world.assert_nothing_left();
}
