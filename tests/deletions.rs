//! What is deleted, and what is not: nothing goes that no record and no proof names.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::common::{World, names};

const COMMIT: &str = "echo 1 > f; git add f; git commit -qm mine";

/// The class of the last dispatch, and whether its worktree stands.
fn left(world: &World) -> (String, bool) {
    let class = world.last("dispatch.closed")["teardown"]["class"].as_str().unwrap().to_owned();
    (class, world.worktrees().join(world.last_id()).symlink_metadata().is_ok())
}

/// After everything that a supervisor and the next command do.
fn settled(world: &World) {
    world.until("supervisors to end", || !world.processes().iter().any(|(_, c)| c.contains(" supervise ")));
    world.vnx(&["ps"]);
}

/// Ignores these and commits it.
fn ignoring(patterns: &str) -> World {
    let world = World::new();
    std::fs::write(world.repo.join(".gitignore"), patterns).unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "ignore"]);
    world
}

/// A folder with something in it.
fn precious(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("p"), "precious").unwrap();
}

fn is_there(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("p")).is_ok_and(|text| text == "precious")
}

#[test]
fn what_others_have_beside_the_worktrees_stays() {
    for name in [".trash", ".gates", ".pool"] {
        for linked in [true, false] {
            let world = World::new();
            world.config("gates: {ok: {command: 'true'}}\nworktree: {pool: 1}\n");
            let victim = world.root.join("victim");
            let place = if linked { victim.clone() } else { world.worktrees().join(name) };
            for folder in ["d", "gone-d", ".gone-d", "pool-1"] {
                precious(&place.join(folder));
            }
            precious(&place);
            let link = if linked { format!("ln -s {} ../{name}; ", victim.display()) } else { String::new() };
            world.script(&format!("{link}{COMMIT}")).expect(0);
            settled(&world);
            world.vnx(&["gate", "run", &world.last_id()]);
            world.vnx(&["doctor", "--fix", "--yes"]);
            world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
            for path in ["d", "gone-d", ".gone-d", "pool-1", ""] {
                assert!(is_there(&place.join(path)), "{name}, a link: {linked}: {path}");
            }
            assert!(!left(&world).1);
        }
    }
}

#[test]
fn an_ignored_file_beside_tracked_ones_stays_whatever_its_folder_is_called() {
    let world = ignoring("secret.env\n/out\n/build/\n");
    for (folder, tracked) in [
        ("dist", "dist"),
        ("build", "build"),
        ("build/deep", "build"),
        ("packages/out/x", "packages/out/x"),
        ("apps/target/deep", "apps/target"),
        ("venv/notes", "venv/notes"),
    ] {
        world.script(&format!(
            "mkdir -p {folder}; echo c > {tracked}/i.js; git add -f {tracked}/i.js; git commit -qm c; echo K=1 > {folder}/secret.env"
        ));
        assert_eq!(left(&world), ("dirty".to_owned(), true), "{folder}");
        let id = world.last_id();
        assert_eq!(world.git(&["show", &format!("refs/vnx/rescue/{id}:{folder}/secret.env")]), "K=1");
    }
    // A file is no folder that a build makes again.
    world.script(&format!("{COMMIT}; echo result > out"));
    assert_eq!(left(&world), ("dirty".to_owned(), true));
}

#[test]
fn what_a_build_makes_again_and_what_holds_nothing_keeps_no_worktree() {
    let world = ignoring("tmp/\nnode_modules\n/dist/*\n*.pyc\n");
    for script in [
        "mkdir -p tmp/cache/deep",
        "mkdir -p node_modules/a; echo x > node_modules/a/x",
        "ln -s /nowhere node_modules",
        "mkdir -p dist; echo x > dist/x",
        "mkdir -p .venv/lib; echo '*' > .venv/.gitignore; echo x > .venv/lib/x",
        "mkdir -p .husky/_; echo '*' > .husky/_/.gitignore; echo : > .husky/_/h",
        "mkdir -p src/deep; echo x > src/deep/a.pyc",
        "mkdir -p node_modules/published; echo 'gitdir: ../../.git/modules/x' > node_modules/published/.git",
    ] {
        world.script(&format!("{script}; echo $VNX_DISPATCH_ID > f; git add f; git commit -qm f")).expect(0);
        assert_eq!(left(&world), ("committed".to_owned(), false), "{script}");
    }
    settled(&world);
    world.assert_nothing_left();
}

#[test]
fn commits_below_an_ignored_folder_are_somebodys() {
    let world = ignoring("node_modules/\ntarget/\n");
    for make in [
        "git init -q node_modules/a/pkg; cd node_modules/a/pkg; git commit -q --allow-empty -m precious",
        "git clone -q --bare . target/copy",
        "git worktree add -q target/more -b more; echo u > target/more/u",
    ] {
        world.script(&format!("{COMMIT}; {make}"));
        assert_eq!(left(&world), ("dirty".to_owned(), true), "{make}");
    }
}

#[test]
fn commits_of_a_submodule_that_was_taken_out_come_back() {
    let world = World::new();
    world.git(&["init", "--quiet", "../up"]);
    let up = world.root.join("up");
    world.git_in(&up, &["commit", "--quiet", "--allow-empty", "-m", "up"]);
    let submodule = ["-c", "protocol.file.allow=always", "submodule", "--quiet"];
    world.git(&[&submodule[..], &["add", up.to_str().unwrap(), "sub"]].concat());
    world.git(&["commit", "--quiet", "-m", "sub"]);
    let note = world.root.join("made");
    for take_out in ["git rm -qf sub; git commit -qm gone", "git rm -q --cached sub; rm -rf sub; git commit -qm gone"] {
        let submodule = "git -c protocol.file.allow=always submodule --quiet";
        let populate = format!(
            "{submodule} update --init; cd sub; git checkout -q -b w; git commit -q --allow-empty -m precious; \
             git rev-parse HEAD > {}; cd ..; {submodule} update -f",
            note.display()
        );
        world.script(&format!("{populate}; {take_out}; {COMMIT}")).expect(0);
        assert!(!left(&world).1, "{take_out}");
        let id = world.last_id();
        world.vnx(&["undo", &id]).expect(0);
        let module = world.repo.join(".git/worktrees").join(&id).join("modules/sub");
        let made = std::fs::read_to_string(&note).unwrap();
        let module = module.to_str().unwrap();
        let kind = world.git(&["--git-dir", module, "--work-tree", ".", "cat-file", "-t", made.trim()]);
        assert_eq!(kind, "commit", "{take_out}");
    }
}

/// The end of the ledger is gone after a kill, and perhaps what else says that a worker ran.
#[test]
fn a_worktree_does_not_go_because_receipts_are_missing() {
    for (last, traces) in [
        ("dispatch.requested", true),
        ("dispatch.claimed", true),
        ("dispatch.prepared", true),
        ("dispatch.requested", false),
        ("dispatch.claimed", false),
    ] {
        let world = World::new();
        let ready = world.root.join("ready");
        let mut foreground =
            world.start_script(&format!("{COMMIT}; echo precious > u; touch {}; sleep 60", ready.display()));
        world.until("the worker", || ready.exists());
        let id = names(&world.state().join("open")).remove(0);
        world.kill_supervisor();
        foreground.wait().unwrap();
        world.until("nobody to be left", || world.processes().is_empty());
        let text = std::fs::read_to_string(world.ledger()).unwrap();
        let kind = text.find(&format!("\"kind\":\"{last}\"")).unwrap();
        let end = kind + text[kind..].find('\n').unwrap() + 1;
        std::fs::write(world.ledger(), &text[..end]).unwrap();
        if !traces {
            let folder = world.state().join("dispatches").join(&id);
            for name in ["pids", "events.ndjson", "stderr.log", "launch.note"] {
                drop(std::fs::remove_file(folder.join(name)));
            }
        }
        settled(&world);
        let (tree, at) = (world.worktrees().join(&id), format!("cut after {last}, traces: {traces}"));
        assert_eq!(std::fs::read_to_string(tree.join("u")).unwrap_or_default(), "precious\n", "{at}");
        assert!(world.git(&["log", "--all", "--format=%s"]).contains("mine"), "{at}");
    }
}

#[test]
fn a_reflog_that_is_not_whole_says_nothing() {
    let amended = format!("{COMMIT}; echo 2 > f; git commit -qa --amend -m amended");
    for lose in [
        "rm $(git rev-parse --git-dir)/logs/HEAD",
        "git reflog expire --expire=now --all",
        "git reflog expire --expire-unreachable=now --all",
        "git reflog delete HEAD@{1}",
    ] {
        let world = World::new();
        world.script(&format!("{amended}; {lose}"));
        assert_eq!(left(&world), ("unknown".to_owned(), true), "{lose}");
    }
    // Where git is to write none, it continues ours.
    let world = World::new();
    world.git(&["config", "core.logAllRefUpdates", "false"]);
    world.script("true").expect(4);
    assert_eq!(left(&world), ("clean".to_owned(), false));
    world.script(&amended).expect(0);
    assert!(!left(&world).1);
    assert!(world.git(&["log", "--all", "--format=%s"]).lines().any(|subject| subject == "mine"));
}

#[test]
fn everything_that_moves_head_leaves_the_reflog_whole() {
    let commit = |subject: &str| format!("git commit -q --allow-empty -m {subject}");
    let (a, b) = (commit("a"), commit("b"));
    for script in [
        format!("{a}; {b}; git rebase -q --keep-empty --force-rebase HEAD~2"),
        format!("git checkout -q -b side; {a}; git checkout -q -; git merge -q --no-ff -m m side"),
        format!("{a}; git reset -q --hard HEAD~1; {b}"),
        "echo 1 > f; git add f; git stash -q; git stash pop -q; git commit -qm f".to_owned(),
        format!("{COMMIT}; git revert --no-edit HEAD; git cherry-pick HEAD~1"),
        format!("git switch -q -c renamed; {a}; git branch -m other; git switch -q --detach"),
        format!("{a}; git switch -q --orphan fresh; {b}; git switch -q -"),
    ] {
        let world = World::new();
        world.script(&script);
        let collected = world.last("dispatch.collected");
        assert_ne!(collected["facts"]["stray_commits"], "unknown", "{script}: {collected}");
    }
}

#[test]
fn a_rescue_leaves_room_on_the_disk_and_reads_through_no_link() {
    let world = World::new();
    let secret = world.root.join("secret");
    std::fs::create_dir_all(&secret).unwrap();
    std::fs::write(secret.join("lib.rs"), "a key").unwrap();
    world.script(&format!("truncate -s 100G holes; echo u > u; rm -r src; ln -s {} src", secret.display()));
    assert_eq!(left(&world), ("dirty".to_owned(), true));
    let id = world.last_id();
    let rescue = format!("refs/vnx/rescue/{id}");
    let files = world.git(&["ls-tree", "-r", &rescue]);
    assert!(files.contains("\tu") && files.contains("120000") && !files.contains("holes"), "{files}");
    assert!(!world.git(&["log", "-p", "--format=", &rescue]).contains("a key"));
    assert_eq!(world.last("worktree.rescued")["left_out"], serde_json::json!(["holes"]));
    let said = world.vnx(&["worktree", "gc", "--apply", &id]).out;
    assert!(said.contains("holes is not in the rescue"), "{said}");
    assert!(world.worktrees().join(&id).join("holes").exists());
    let folder = world.state().join("dispatches").join(&id);
    let sizes: u64 = names(&folder).iter().map(|name| folder.join(name).metadata().unwrap().blocks() * 512).sum();
    assert!(sizes < 1 << 20, "{:?}", names(&folder));
}

#[test]
fn a_link_among_the_folders_of_git_is_not_emptied() {
    let world = World::new();
    let victim = world.root.join("victim");
    precious(&victim.join("d"));
    let gone = world.repo.join(".git/vnx-gone");
    world.script(&format!("{COMMIT}; ln -s {} {}", victim.display(), gone.display()));
    settled(&world);
    assert!(is_there(&victim.join("d")));
    assert!(world.git(&["log", "--all", "--format=%s"]).contains("mine"));
}

/// Where the tests may mount: what is mounted below a worktree is not the worktree's.
#[test]
fn what_is_mounted_in_a_worktree_stays() {
    let world = ignoring("target/\n");
    let (victim, note) = (world.root.join("victim"), world.root.join("mounted"));
    precious(&victim);
    let mount = format!("mkdir target; if mount --bind {} target; then touch {}; fi", victim.display(), note.display());
    world.script(&format!("{COMMIT}; {mount}")).expect(0);
    if !note.exists() {
        return;
    }
    settled(&world);
    assert!(is_there(&victim));
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let here = world.worktrees();
    for point in text.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(&here)) {
        assert!(world.command("umount").arg(point).status().unwrap().success());
    }
    settled(&world);
    assert!(is_there(&victim));
    world.assert_nothing_left();
}

#[test]
fn a_link_in_the_place_of_a_worktree_is_not_followed() {
    let world = World::new();
    let victim = world.root.join("victim");
    precious(&victim);
    world.script(&format!("{COMMIT}; t=$PWD; cd ..; mv $t $t.away; ln -s {} $t", victim.display()));
    settled(&world);
    assert!(is_there(&victim));
    assert!(world.git(&["log", "--all", "--format=%s"]).contains("mine"));
    let place = world.worktrees().join(world.last_id());
    assert!(place.is_symlink());
    std::fs::remove_file(&place).unwrap();
    symlink(&victim, &place).unwrap();
    world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]);
    assert!(is_there(&victim));
}
