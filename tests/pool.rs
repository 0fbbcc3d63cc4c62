//! Worktrees that are made ahead.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::{World, names};

/// Those that are ready, with inode and time of a file in each, by which it is known again elsewhere: the inode alone
/// may be given to what is made in the place of one that was taken away.
fn ready(world: &World) -> Vec<(String, String)> {
    let listed = world.vnx(&["worktree", "list", "--json"]).expect(0).json();
    let of_pool = listed["worktrees"].as_array().unwrap().iter().filter(|one| one["owner"] == "pool");
    let pair =
        |one: &serde_json::Value| Some((one["id"].as_str()?.to_owned(), file(Path::new(one["path"].as_str()?))?));
    of_pool.filter_map(pair).collect()
}

fn file(tree: &Path) -> Option<String> {
    let meta = std::fs::metadata(tree.join("README.md")).ok()?;
    Some(format!("{} {}.{:09}", meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

fn filled(worktrees: usize) -> World {
    let world = World::new();
    world.config(&format!("worktree: {{pool: {worktrees}}}\n"));
    world.script("true").expect(4);
    world.until("the pool to be filled", || ready(&world).len() == worktrees);
    world
}

/// Gives the pool up, with everything in it.
fn empty(world: &World) {
    world.until("fillers to end", || !world.processes().iter().any(|(_, c)| c.contains(" supervise ")));
    world.config("");
    world.script("true").expect(4);
    world.assert_nothing_left();
    world.assert_verified();
}

fn script(world: &World) -> String {
    format!(
        "stat -c '%i %.9Y' README.md > {}/file; git status --porcelain > {0}/status; echo 1 > f; git add f; git commit -qm f",
        world.root.display()
    )
}

/// Whether the last script ran in one of these, which then is not ready any more.
fn took(world: &World, before: &[(String, String)]) -> bool {
    let file = std::fs::read_to_string(world.root.join("file")).unwrap();
    let now = ready(world);
    before.iter().any(|one| one.1 == file.trim() && !now.contains(one))
}

#[test]
fn a_dispatch_takes_one_and_another_is_made() {
    let world = filled(2);
    let before = ready(&world);
    world.script(&script(&world)).expect(0);
    assert!(took(&world, &before), "{before:?}");
    assert_eq!(std::fs::read_to_string(world.root.join("status")).unwrap(), "");
    let collected = world.last("dispatch.collected");
    assert_eq!(collected["facts"]["stray_commits"], "no", "{collected}");
    assert_eq!(collected["on"], format!("refs/heads/vnx/{}", world.last_id()));
    world.until("another to be made", || ready(&world).len() == 2);
    // They are nobody's work: gc does not look at them, and a removed one comes back by itself.
    assert_eq!(world.vnx(&["worktree", "gc"]).expect(0).out, "");
    world.vnx(&["undo", &world.last_id()]).expect(0);
    world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
    empty(&world);
}

/// git makes an empty folder in a submodule's place, and nothing else may be there or be missing there.
#[test]
fn one_with_a_submodule_is_used() {
    let world = World::new();
    let link = format!("160000,{},lib", world.git(&["rev-parse", "HEAD"]).trim());
    world.git(&["update-index", "--add", "--cacheinfo", &link]);
    world.git(&["commit", "--quiet", "-m", "submodule"]);
    world.config("worktree: {pool: 1}\n");
    world.script("true").expect(4);
    let mut before = Vec::new();
    for (damage, is_used) in [("true", true), ("rmdir lib", false), ("mkdir lib/empty", false), ("true", true)] {
        // One that was not used is there until it is swept away.
        let is_new = |now: &[_]| now.len() == 1 && now != before;
        world.until("the pool to be filled anew", || is_new(&ready(&world)));
        before = ready(&world);
        let tree = world.worktrees().join(".pool").join(&before[0].0);
        assert!(world.command("sh").current_dir(&tree).args(["-c", damage]).status().unwrap().success());
        world.script(&format!("rmdir lib; mkdir lib; {}", script(&world))).expect(0);
        assert_eq!(took(&world, &before), is_used, "{damage}");
    }
    empty(&world);
}

#[test]
fn one_of_an_older_commit_is_moved() {
    let world = filled(1);
    let before = ready(&world);
    std::fs::write(world.repo.join("new"), "new\n").unwrap();
    std::fs::write(world.repo.join("src/lib.rs"), "").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "second"]);
    world.script(&format!("test -e new; test ! -s src/lib.rs; {}", script(&world))).expect(0);
    assert!(took(&world, &before));
    assert_eq!(std::fs::read_to_string(world.root.join("status")).unwrap(), "");
    world.until("one to be made at the new commit", || {
        let pool = world.worktrees().join(".pool");
        ready(&world).len() == 1 && names(&pool).iter().all(|name| pool.join(name).join("new").exists())
    });
    // Older than the base of whoever comes next, it is brought there when somebody passes by.
    std::fs::write(world.repo.join("newer"), "").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "third"]);
    world.agent("narrow", "sparse: [src]");
    world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "narrow", "-i", "test ! -e new/x"]).expect(4);
    world.until("it to be brought there", || {
        let pool = world.worktrees().join(".pool");
        ready(&world).len() == 1 && names(&pool).iter().all(|name| pool.join(name).join("newer").exists())
    });
    empty(&world);
}

/// A commit that says how files are written takes no other commit's files.
#[test]
fn one_of_a_commit_with_other_attributes_is_not_moved() {
    let world = filled(1);
    let before = ready(&world);
    std::fs::write(world.repo.join(".gitattributes"), "README.md text eol=crlf\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "attributes"]);
    let script = script(&world);
    world.script(&format!("grep -c \"$(printf '\\r')\" README.md; {script}")).expect(0);
    assert!(!took(&world, &before));
    world.until("another to be made in its place", || {
        let now = ready(&world);
        now.len() == 1 && now != before
    });
    let before = ready(&world);
    world.script(&format!("grep -c \"$(printf '\\r')\" README.md; {script}")).expect(0);
    assert!(took(&world, &before));
    empty(&world);
}

/// One that was made otherwise is not taken, and gives way to others.
#[test]
fn other_settings_need_others() {
    let world = filled(1);
    let before = ready(&world);
    world.agent("narrow", "sparse: [src]");
    let script = script(&world);
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "narrow", "-i", &script];
    world.vnx(&args).expect(0);
    assert!(!took(&world, &before));
    world.git(&["config", "core.eol", "crlf"]);
    std::fs::write(world.repo.join(".git/info/attributes"), "README.md text\n").unwrap();
    world.script(&format!("grep -c \"$(printf '\\r')\" README.md; {script}")).expect(0);
    assert!(!took(&world, &before));
    world.until("others to be made", || {
        let now = ready(&world);
        now.len() == 1 && now != before
    });
    let before = ready(&world);
    world.script(&format!("grep -c \"$(printf '\\r')\" README.md; {script}")).expect(0);
    assert!(took(&world, &before));
    // The attributes of this clone alone.
    std::fs::write(world.repo.join(".git/info/attributes"), "README.md -text\n").unwrap();
    world.script(&format!("! grep -q \"$(printf '\\r')\" README.md; {script}")).expect(0);
    assert!(!took(&world, &before));
    empty(&world);
}

#[test]
fn many_take_from_a_small_pool() {
    let world = filled(3);
    let script = "echo $VNX_DISPATCH_ID > f; git add f; git commit -qm f";
    let children: Vec<_> = (0..10).map(|_| world.start_script(script)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    world.until("the pool to be filled", || ready(&world).len() == 3);
    empty(&world);
}

#[test]
fn a_person_takes_one_as_well() {
    let world = filled(1);
    let before = ready(&world);
    let path = world.vnx(&["worktree", "new", "mine"]).expect(0).out.trim().to_owned();
    assert_eq!(Some(&before[0].1), file(Path::new(&path)).as_ref());
    assert_eq!(world.git_in(path.as_ref(), &["symbolic-ref", "HEAD"]), "refs/heads/mine");
    assert_eq!(world.git_in(path.as_ref(), &["status", "--porcelain"]), "");
    world.git(&["worktree", "remove", &path]);
    empty(&world);
}

/// What is damaged is no obstacle: a new one is made.
#[test]
fn one_that_is_damaged_is_not_used() {
    let world = filled(1);
    let before = ready(&world);
    let link = world.worktrees().join(".pool").join(&before[0].0).join(".git");
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    world.script(&script(&world)).expect(0);
    assert!(!took(&world, &before));
    world.until("another to be made", || ready(&world).len() == 1);
    empty(&world);
}

#[test]
fn one_in_which_somebody_was_is_not_used() {
    let world = filled(1);
    for damage in [
        "rm -rf src",
        "touch mine",
        "mkdir -p src/empty/one",
        "chmod 555 src",
        "rm src/lib.rs; mkdir src/lib.rs",
        "git checkout -q -b x; git commit -q --allow-empty -m x",
        ": > \"$(git rev-parse --git-dir)/index\"",
        // Deep in it, as a worker beside it could.
        "echo '// mine' >> src/lib.rs",
        "echo key.env >> \"$(git rev-parse --git-common-dir)/info/exclude\"; echo SECRET > src/key.env",
    ] {
        let before = ready(&world);
        let tree = world.worktrees().join(".pool").join(&before[0].0);
        let output = world.command("sh").current_dir(tree).args(["-c", damage]).output().unwrap();
        assert!(output.status.success(), "{damage}");
        // git's status shows no empty folders, and not who may write into one.
        let looks = format!(
            "{{ git status --porcelain --ignored; find src -type d '(' -empty -o ! -perm -700 ')'; git branch --show-current; }} > {}/seen",
            world.root.display()
        );
        world.script(&format!("{looks}; {}", script(&world))).expect(0);
        let seen = std::fs::read_to_string(world.root.join("seen")).unwrap();
        assert_eq!(seen, format!("vnx/{}\n", world.last_id()), "{damage}");
        assert!(!took(&world, &before), "{damage}");
        world.until("another to be made", || {
            let now = ready(&world);
            now.len() == 1 && now != before
        });
    }
    world.git(&["branch", "-qD", "x"]);
    // Where somebody wrote something, people find it.
    let shown: Vec<_> = names(&world.worktrees()).into_iter().filter(|name| name.starts_with("unknown-")).collect();
    let found = |path: &str| shown.iter().filter(|name| world.worktrees().join(name).join(path).exists()).count();
    assert_eq!((shown.len(), found("mine"), found("src/key.env")), (3, 1, 1), "{shown:?}");
    for name in shown {
        world.vnx(&["worktree", "gc", "--apply", &name]).expect(0);
    }
    empty(&world);
}

#[test]
fn a_pool_that_cannot_be_is_refused() {
    let world = World::new();
    world.config("worktree: {pool: 33}\n");
    let run = world.vnx(&["worktree", "list"]).expect(2);
    assert!(run.err.contains("worktree.pool must be at most 32"), "{}", run.err);
}

/// A person's worktree that is called as ours are.
#[test]
fn what_only_looks_like_one_of_the_pool_is_left_alone() {
    let world = filled(1);
    let mine = world.root.join("place/pool-mine");
    world.git(&["worktree", "add", "-q", "--detach", mine.to_str().unwrap()]);
    world.git_in(&mine, &["commit", "-q", "--allow-empty", "-m", "mine"]);
    std::fs::write(mine.join("staged"), "s").unwrap();
    world.git_in(&mine, &["add", "staged"]);
    empty(&world);
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.git_in(&mine, &["log", "-1", "--format=%s"]), "mine");
    assert_eq!(world.git_in(&mine, &["status", "--porcelain"]), "A  staged");
    world.git(&["worktree", "remove", "--force", mine.to_str().unwrap()]);
}
