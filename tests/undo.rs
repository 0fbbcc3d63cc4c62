//! Every state that a worktree can be in: dispatch, teardown, gc, undo, and not a byte is missing.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::World;
use crate::gates::{commit, done};

/// Everything that must be the same afterwards: files with modes and links with targets, what git keeps for the
/// worktree alone, index entries with flags, refs.
#[derive(Debug, PartialEq)]
struct Snapshot {
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    private: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    index: String,
    refs: String,
    head: String,
}

fn walk(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>, skip: &dyn Fn(&Path) -> bool) {
    for entry in std::fs::read_dir(root.join(below)).unwrap().flatten() {
        let path = below.join(entry.file_name());
        let meta = entry.metadata().unwrap();
        if skip(&path) {
            continue;
        }
        if meta.is_dir() {
            walk(root, &path, found, skip);
        } else if meta.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            found.insert(path, (meta.mode() & 0o170_000, target.as_os_str().as_bytes().to_vec()));
        } else if meta.is_file() {
            found.insert(path, (meta.permissions().mode(), std::fs::read(entry.path()).unwrap()));
        }
    }
}

/// Every object that HEAD, the index, a ref or a reflog leads to.
fn objects(world: &World, id: &str) -> Vec<String> {
    let git_dir = world.repo.join(".git/worktrees").join(id);
    let args = ["rev-list", "--objects", "--no-object-names", "--all", "--reflog", "--indexed-objects"];
    let output = world.command("git").arg("--git-dir").arg(&git_dir).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Those that are not there any more.
fn missing(world: &World, objects: &[String]) -> Vec<String> {
    let mut git = world.command("git");
    let git = git.args(["cat-file", "--batch-check"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut git = git.spawn().unwrap();
    let mut input = git.stdin.take().unwrap();
    let names = objects.join("\n") + "\n";
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, names.as_bytes()));
    let output = git.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| line.ends_with(" missing") && *line != " missing").map(str::to_owned).collect()
}

fn snapshot(world: &World, id: &str) -> Snapshot {
    let tree = world.worktrees().join(id);
    let git_dir = world.repo.join(".git/worktrees").join(id);
    let (mut files, mut private) = (BTreeMap::new(), BTreeMap::new());
    // What a build makes again is not kept, and `.git` says only where the rest is.
    walk(&tree, Path::new(""), &mut files, &|p| p == Path::new(".git") || p.iter().any(|part| part == "target"));
    // A lock that a killed git left is not brought back.
    let where_only = |p: &Path| {
        p.extension().is_some_and(|e| e == "lock")
            || ["gitdir", "commondir", "locked", "index", "vnx-index", "modules"].iter().any(|n| p == Path::new(n))
    };
    walk(&git_dir, Path::new(""), &mut private, &where_only);
    let git = |args: &[&str]| {
        let dirs = ["--git-dir", git_dir.to_str().unwrap(), "--work-tree", tree.to_str().unwrap()];
        let output = world.command("git").args(dirs).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    Snapshot {
        files,
        private,
        index: git(&["ls-files", "-v", "--stage", "--full-name"]),
        refs: world.foreign_refs(),
        head: git(&["symbolic-ref", "-q", "HEAD"]) + &git(&["rev-parse", "-q", "--verify", "HEAD"]),
    }
}

pub const COMMIT: &str = "echo 1 > f; git add f; git commit -qm mine; ";

/// A script, its teardown, gc, undo. It waits at its end, so that the tree can be looked at before.
pub fn story(setup: &dyn Fn(&World), script: &str, class: Option<&str>) {
    let world = World::new();
    setup(&world);
    let script = format!("{script}\ntouch {0}/ready; while [ ! -e {0}/go ]; do sleep 0.01; done", world.root.display());
    let args =
        ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "--detach", "-i", &script];
    let id = world.vnx(&args).expect(0).out.trim().to_owned();
    world.until("the script's end", || world.root.join("ready").exists() || world.count("dispatch.closed") > 0);
    let (before, reached) = (snapshot(&world, &id), objects(&world, &id));
    std::fs::write(world.root.join("go"), "").unwrap();
    world.vnx(&["wait", &id]);
    let closed = world.last("dispatch.closed");
    if let Some(class) = class {
        assert_eq!(closed["teardown"]["class"], class, "{script}\n{closed}\n{}", world.last("dispatch.collected"));
    }
    let tree = world.worktrees().join(&id);
    world.until("the supervisor to end", || !world.processes().iter().any(|(_, c)| c.contains(" supervise ")));
    if tree.exists() {
        let dry = world.vnx(&["worktree", "gc", "--older-than", "0s"]).expect(0);
        assert!(dry.out.contains("may go") && tree.exists(), "{}", dry.out);
        let young = world.vnx(&["worktree", "gc", "--apply"]).expect(0);
        assert!(young.out.contains("younger than 14d") && tree.exists(), "{}", young.out);
        let run = world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
        assert!(run.out.contains("removed"), "{}{}", run.out, run.err);
    }
    assert!(!tree.exists());
    world.assert_nothing_left();
    // What no ref keeps is gone for good.
    world.git(&["prune", "--expire=now"]);
    assert_eq!(missing(&world, &reached), Vec::<String>::new(), "{script}");
    world.vnx(&["undo", &id]).expect(0);
    let after = snapshot(&world, &id);
    assert_eq!(after.files, before.files, "{script}");
    assert_eq!(after.index, before.index, "{script}");
    assert_eq!(after.refs, before.refs, "{script}");
    assert_eq!(after.head, before.head, "{script}");
    if world.git(&["for-each-ref", "refs/vnx/rescue"]).contains(&id) {
        assert_eq!(after.private, before.private, "{script}");
    }
    // And once more, with the rescue that gc writes in any case.
    world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    world.assert_nothing_left();
    world.vnx(&["undo", &id]).expect(0);
    let shown = world.vnx(&["show", &id]).expect(0).out;
    let has_branch = world.git(&["for-each-ref", &format!("refs/heads/vnx/{id}")]).contains(&id);
    assert_eq!(shown.contains(&format!("branch vnx/{id} and the worktree")), has_branch, "{shown}");
    assert_eq!(snapshot(&world, &id), after, "{script}");
    world.assert_verified();
    world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s"]).expect(0);
    world.assert_nothing_left();
}

macro_rules! states {
    ($($name:ident: $class:literal, $script:expr;)*) => { $(#[test] fn $name() { story(&|_| {}, &$script, Some($class)); })* };
}

states! {
    clean: "clean", "true";
    committed: "committed", COMMIT;
    edits: "dirty", "echo more >> README.md; echo s > staged; git add staged; echo t > staged; mkdir -p a/b; echo u > a/b/c";
    ignored: "dirty", "printf 'target\\n.env\\nd/\\n' > .gitignore; git add .; git commit -qm i; mkdir target d; echo o > target/o; echo K > .env; chmod 600 .env; echo x > d/x";
    assume_unchanged: "unknown", "git update-index --assume-unchanged README.md; echo hidden > README.md";
    skip_worktree: "unknown", "git update-index --skip-worktree README.md; rm README.md";
    mode_only: "dirty", "chmod +x README.md";
    symlinks: "dirty", "rm README.md; ln -s /nowhere README.md; ln -s a b; ln -s .. up; git add b";
    file_becomes_folder: "dirty", "rm README.md; mkdir README.md; echo x > README.md/x";
    folder_becomes_file: "dirty", "mkdir d; echo x > d/x; git add d; git commit -qm d; rm -r d; echo f > d";
    case_only: "dirty", "git mv README.md readme.md";
    another_branch: "committed", format!("git checkout -q -b feature; {COMMIT}");
    detached: "committed", format!("git checkout -q --detach; {COMMIT}");
    detached_then_elsewhere: "committed", format!("git checkout -q --detach; {COMMIT} git checkout -q vnx/$VNX_DISPATCH_ID");
    amended: "committed", format!("{COMMIT} echo 2 > f; git commit -qa --amend -m amended");
    detached_amended_and_dirty: "dirty", format!("git checkout -q --detach; {COMMIT} git commit -q --amend -m amended; git checkout -qf -; echo u > u");
    reset_hard: "committed", format!("{COMMIT} git reset -q --hard HEAD~1");
    empty_commit: "committed", "git commit -q --allow-empty -m empty";
    orphan: "dirty", "git checkout -q --orphan o; echo n > n; git add n";
    stash: "committed", "echo s >> README.md; echo u > u; git stash -q -u";
    merge: "in_progress", format!("git checkout -q -b side; echo side > README.md; git commit -qam side; git checkout -q -; git checkout -q vnx/$VNX_DISPATCH_ID; echo own > README.md; git commit -qam own; git merge side >/dev/null || true");
    cherry_pick: "in_progress", "git checkout -q -b side; echo side > README.md; git commit -qam side; git checkout -q vnx/$VNX_DISPATCH_ID; echo own > README.md; git commit -qam own; git cherry-pick side >/dev/null 2>&1 || true";
    revert: "in_progress", "echo a > README.md; git commit -qam a; echo b > README.md; git commit -qam b; git revert --no-edit HEAD~1 >/dev/null 2>&1 || true";
    rebase: "in_progress", "git checkout -q -b side; echo side > README.md; git commit -qam side; git checkout -q vnx/$VNX_DISPATCH_ID; echo own > README.md; git commit -qam own; git rebase side >/dev/null 2>&1 || true";
    amend_in_a_rebase: "in_progress", format!("{COMMIT} echo 2 > f; git commit -qam two; GIT_SEQUENCE_EDITOR='sed -i s/pick/edit/' git rebase -q -i HEAD~2 >/dev/null 2>&1; echo 3 > f; git commit -qa --amend -m amended");
    bisect: "in_progress", "for n in 1 2 3 4; do echo $n > f; git add f; git commit -qm $n; done; git bisect start -q HEAD HEAD~3 >/dev/null";
    am: "in_progress", "echo own > README.md; git commit -qam own; git format-patch -q -1 -o ../p; git reset -q --hard HEAD~1; echo other > README.md; git commit -qam other; git am -q ../p/*.patch >/dev/null 2>&1 || true; rm -r ../p";
    branch_renamed: "committed", format!("{COMMIT} git branch -m renamed");
    branch_deleted: "committed", format!("{COMMIT} git checkout -q --detach; git branch -qD vnx/$VNX_DISPATCH_ID");
    names: "dirty", "printf x > \"$(printf 'new\\nline')\"; printf y > \"$(printf 'bad\\377utf8')\"; printf z > 'quo\"te\\back'; printf w > '  blanks '; printf v > -dash";
    read_only: "dirty", "mkdir ro; echo x > ro/x; chmod 444 ro/x; chmod 555 ro";
    nested: "dirty", "git init -q n; cd n; git config user.name n; echo 1 > x; git add x; git commit -qm nested; echo 2 > x; git stash -q; echo 3 > y; git add y; chmod 600 y; cd ..";
    nested_committed: "unknown", "git init -q n; cd n; echo 1 > x; git add x; git commit -qm nested; cd ..; git add n 2>/dev/null; git commit -qm link; true";
    nested_changed: "unknown", "git init -q n; cd n; echo 1 > x; git add x; git commit -qm nested; cd ..; git add n 2>/dev/null; git commit -qm link; echo 2 > n/x";
    nested_ignored: "dirty", "printf 'n/\n' > .gitignore; git add .; git commit -qm i; git init -q n; cd n; echo 1 > x; git add x; git commit -qm nested; cd ..";
    nested_in_a_tracked_folder: "unknown", "cd src; git init -q; git add lib.rs; git commit -qm inner; git checkout -q -b work; git commit -q --allow-empty -m more; cd ..";
    nested_that_lost_its_repository: "unknown", "git init -q n; cd n; echo 1 > x; git add x; git commit -qm nested; cd ..; git add n 2>/dev/null; git commit -qm link; rm -rf n/.git; echo 2 > n/y";
    nested_that_is_none: "unknown", "mkdir -p foo/.git; echo x > foo/.git/x";
    files_in_a_submodules_place: "unknown", "git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),sub; git commit -qm link; mkdir sub; echo precious > sub/new.c";
    index_gone: "dirty", "rm \"$(git rev-parse --git-dir)/index\"";
    unborn_and_empty: "unknown", "git checkout -q --orphan o; git rm -rqf .";
    detached_and_clean: "clean", "git checkout -q --detach";
    a_ref_of_its_own: "clean", "git update-ref refs/worktree/mine HEAD";
    settings_of_its_own: "clean", "git config extensions.worktreeConfig true; git config --worktree user.name wt; true";
    rest_of_a_sequence: "in_progress", "git checkout -q -b side; echo 1 > README.md; git commit -qam one; echo 2 > two; git add .; git commit -qm two; git checkout -q vnx/$VNX_DISPATCH_ID; echo own > README.md; git commit -qam own; git cherry-pick side~1 side >/dev/null 2>&1; echo mended > README.md; git commit -qam mended";
    index_lock: "dirty", "echo x > x; echo junk > \"$(git rev-parse --git-dir)/index.lock\"";
    broken_index: "unknown", format!("{COMMIT} echo x > x; echo junk > \"$(git rev-parse --git-dir)/index\"");
    broken_link: "dirty", "echo x > x; echo junk > .git";
    missing_link: "dirty", "echo x > x; rm .git";
    untracked_hidden: "unknown", "echo x > x; git config status.showUntrackedFiles no";
    changed_config: "unknown", format!("{COMMIT} echo x > x; git config --worktree filter.x.clean cat || git config filter.x.clean cat");
    sparse: "committed", format!("mkdir d e; echo d > d/d; echo e > e/e; git add .; git commit -qm dirs; git sparse-checkout set d 2>/dev/null; {COMMIT}");
}

/// A filter that leaves out what is only on disk, as for the output of notebooks: git finds nothing changed.
#[test]
fn a_filter_that_loses_something() {
    let setup = |world: &World| {
        world.git(&["config", "filter.strip.clean", "grep -v OUT || true"]);
        std::fs::write(world.repo.join(".gitattributes"), "*.nb filter=strip\n").unwrap();
        std::fs::write(world.repo.join("a.nb"), "code\n").unwrap();
        world.git(&["add", "."]);
        world.git(&["commit", "-qm", "notebook"]);
    };
    story(&setup, "echo OUT >> a.nb; git add a.nb", Some("clean"));
    story(
        &setup,
        "echo more >> a.nb; echo OUT >> a.nb; printf 'x\\nOUT\\n' > b.nb; git add .; git commit -qm more",
        Some("committed"),
    );
}

/// A rule that a worker adds, uses and takes away again: what it added meanwhile is on disk as nobody would write it.
#[test]
fn rules_that_come_and_go() {
    let setup = |world: &World| {
        std::fs::write(world.repo.join(".gitattributes"), "*.md text=auto\n").unwrap();
        world.git(&["add", "."]);
        world.git(&["commit", "-qm", "rules"]);
    };
    let script = "echo '*.txt text' >> .gitattributes; printf 'a\\r\\nb\\r\\n' > a.txt; touch -d '1 hour ago' a.txt; \
                  git add . 2>/dev/null; git checkout -q HEAD -- .gitattributes; git commit -qm text";
    story(&setup, script, Some("committed"));
}

/// A configuration that came from a system where names in capitals are the same.
#[test]
fn capitals_are_other_names() {
    let setup = |world: &World| drop(world.git(&["config", "core.ignorecase", "true"]));
    story(&setup, "echo precious > readme.md; mkdir SRC; echo x > SRC/a", Some("dirty"));
}

/// What no rescue has all of stays, whatever is asked.
#[test]
fn what_cannot_be_taken_along_is_not_taken_away() {
    let mut world = World::new();
    world.drop_privileges();
    for (script, what) in [
        (
            "rm .git; git init -q; git add -A; git commit -qm all; git checkout -q -b work; git commit -q --allow-empty -m more",
            ".git",
        ),
        ("mkdir d; echo precious > d/x; chmod 000 d", "d"),
        ("git worktree add -q --detach wt; cd wt; echo precious > p; git add p", "wt/.git"),
    ] {
        world.script(script).expect(4);
        let id = world.last_id();
        let tree = world.worktrees().join(&id);
        assert!(tree.exists(), "{script}: {}", world.last("dispatch.closed"));
        let gc = world.vnx(&["worktree", "gc", "--apply", &id]);
        assert!(
            gc.out.contains(&format!("{what} is not in the rescue")) && tree.exists(),
            "{script}: {}{}",
            gc.out,
            gc.err
        );
    }
    for id in crate::common::names(&world.worktrees()) {
        let _ = std::fs::set_permissions(world.worktrees().join(id).join("d"), std::fs::Permissions::from_mode(0o755));
    }
}

/// The dispatch branch goes on without a line in the worktree's own reflog.
const MOVED_FROM_OUTSIDE: &str = "new=$(git commit-tree -m late HEAD^{tree}); \
                                  git --git-dir=$(git rev-parse --git-common-dir) update-ref refs/heads/vnx/${PWD##*/} $new";

/// A program that still runs somewhere changes the tree between its rescue and its removal.
#[test]
fn what_changes_while_it_is_rescued_stays() {
    let mut world = World::new();
    let bin = world.root.join("shim");
    std::fs::create_dir(&bin).unwrap();
    let path = world.env["PATH"].clone();
    let git = std::env::split_paths(&path).map(|p| p.join("git")).find(|p| p.exists()).unwrap();
    for (deed, why) in [
        ("echo changed > u", "u is not as the rescue has it"),
        ("printf x >> u", "u is not as the rescue has it"),
        ("chmod +x u", "u is not as the rescue has it"),
        ("ln -sfn other l", "l is not as the rescue has it"),
        ("git add u", "is not as the rescue has it"),
        ("echo new > later", "it was changed while it was rescued"),
        ("mkdir m; git init -q m", "it was changed while it was rescued"),
        ("echo new > d/later", "it was changed while it was rescued"),
        ("echo new > n/later", "it was changed while it was rescued"),
        ("git update-ref refs/worktree/late HEAD", "it was changed while it was rescued"),
        (MOVED_FROM_OUTSIDE, "it was changed while it was rescued"),
    ] {
        let script = "echo d/ > .gitignore; git add .; git commit -qm i; mkdir d; echo x > d/x; \
                      git init -q n; echo x > n/x; echo u > u; ln -s u l";
        world.script(script).expect(4);
        let id = world.last_id();
        let tree = world.worktrees().join(&id);
        let git = git.display();
        let shim = format!(
            "{git} \"$@\"; rc=$?\ncase \" $* \" in *' fast-import '*) cd {}; unset GIT_DIR GIT_WORK_TREE; PATH={path}; {deed};; esac\nexit $rc",
            tree.display()
        );
        crate::common::script(&bin.join("git"), &shim);
        world.set("PATH", format!("{}:{path}", bin.display()));
        let gc = world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
        assert!(gc.out.contains(why) && tree.join("u").exists(), "{deed}: {}", gc.out);
        world.set("PATH", path.clone());
        world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
        assert!(!tree.exists(), "{deed}");
    }
    world.assert_nothing_left();
}

/// Another branch's commits, without any of its own.
#[test]
fn fast_forward() {
    let setup = |world: &World| {
        world.git(&["checkout", "-q", "-b", "ahead"]);
        world.git(&["commit", "-q", "--allow-empty", "-m", "ahead"]);
        world.git(&["checkout", "-q", "main"]);
    };
    story(&setup, "git merge -q --ff-only ahead", Some("committed"));
    story(&setup, "git reset -q --hard ahead; echo x > x", Some("dirty"));
}

/// On the branch of another dispatch: that one's work is not for this one to take away.
#[test]
fn on_anothers_branch() {
    let world = World::new();
    world.script(COMMIT).expect(0);
    let other = world.last_id();
    world.script(&format!("git checkout -q vnx/{other}; echo 2 > f; git commit -qam more; echo u > u")).expect(4);
    let id = world.last_id();
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "foreign");
    let run = world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    assert!(run.out.contains("stays") && world.worktrees().join(&id).join("u").exists(), "{}", run.out);
    assert_eq!(world.git(&["log", "-1", "--format=%s", &format!("vnx/{other}")]), "more");
    // Back on its own, it goes as others do.
    world.git_in(&world.worktrees().join(&id), &["checkout", "-q", &format!("vnx/{id}")]);
    world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    world.assert_nothing_left();
}

/// Line ends that git converts: what is on disk comes back, not what git would write.
#[test]
fn crlf() {
    let setup = |world: &World| {
        std::fs::write(world.repo.join(".gitattributes"), "*.txt text eol=lf\n").unwrap();
        std::fs::write(world.repo.join("a.txt"), "one\ntwo\n").unwrap();
        world.git(&["add", "."]);
        world.git(&["commit", "-qm", "text"]);
    };
    story(&setup, "printf 'one\\r\\ntwo\\r\\n' > a.txt; printf 'x\\r\\n' > new.txt", Some("dirty"));
}

/// Line ends that git writes, as the repository or as this clone of it wants them; and what is unchanged for
/// git although its bytes are others.
#[test]
fn other_forms() {
    for (place, attributes) in [
        (".gitattributes", "*.txt text eol=crlf\n"),
        (".git/info/attributes", "*.txt text eol=crlf\n"),
        ("../home/.config/git/attributes", "*.txt text eol=crlf\n"),
        (".gitattributes", "*.txt text working-tree-encoding=UTF-16LE-BOM\n"),
        (".gitattributes", "*.txt ident\n"),
    ] {
        let setup = |world: &World| {
            let place = world.repo.join(place);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            for name in ["a.txt", "b.txt", "c.txt"] {
                std::fs::write(world.repo.join(name), "one $Id$\ntwo\n").unwrap();
            }
            world.git(&["add", "."]);
            world.git(&["commit", "-qm", "text"]);
            std::fs::write(place, attributes).unwrap();
            world.git(&["add", ".", ":!*.txt"]);
            world.git(&["commit", "-qm", "attributes", "--allow-empty"]);
        };
        let script = "test $(wc -c < a.txt) -gt 13; printf 'one $Id$\\ntwo\\n' > b.txt; rm c.txt; echo u > u";
        story(&setup, script, Some("dirty"));
        story(&setup, &format!("test $(wc -c < a.txt) -gt 13; {COMMIT}"), Some("committed"));
    }
}

/// Every call by which gc and undo change something, or start a program that does.
const CALLS: [&str; 9] = ["rename", "renameat", "unlink", "unlinkat", "mkdir", "rmdir", "symlink", "write", "clone3"];

#[test]
fn gc_and_undo_survive_a_kill_at_every_step() {
    let world = World::new();
    let script = "echo 1 > f; git add f; git commit -qm mine; git commit -q --amend -m amended; echo 2 > f; git add f; \
                  echo 3 > f; mkdir d; echo u > d/u; ln -s u d/l; echo s >> README.md; git stash -q -- README.md";
    let id = world.script(script);
    assert_eq!(id.code, 4, "{}{}", id.out, id.err);
    let id = world.last_id();
    let before = snapshot(&world, &id);
    let (gc, undo) = (["worktree", "gc", "--apply", "--older-than", "0s"], ["undo", &id]);
    let mut kills = 0;
    for call in CALLS {
        for n in 1.. {
            let killed = world.killed_at(call, n, &gc, Stdio::null());
            // Whatever was done of it: the next one finishes, and undo brings all of it back.
            world.vnx(&gc).expect(0);
            world.assert_nothing_left();
            world.git(&["prune", "--expire=now"]);
            let undo_killed = world.killed_at(call, n, &undo, Stdio::null());
            let again = world.vnx(&undo);
            assert!(again.code == 0 || again.err.contains("the worktree is there"), "{call} {n}: {}", again.err);
            assert_eq!(snapshot(&world, &id), before, "{call} {n}");
            kills += usize::from(killed) + usize::from(undo_killed);
            if !killed && !undo_killed {
                break;
            }
        }
    }
    assert!(kills > 20, "{kills} kills");
    world.assert_verified();
    world.vnx(&gc).expect(0);
    world.assert_nothing_left();
}

/// Steps of a worker that knows git too well, as shell lines; `{n}` is a number of its own.
const STEPS: [&str; 34] = [
    "echo {n} > a",
    "echo {n} >> README.md",
    "mkdir -p d{n}; echo {n} > d{n}/x",
    "rm -f a",
    "rm -rf src",
    "git add -A",
    "git add a",
    "git rm -q --cached README.md",
    "git commit -qm c{n}",
    "git commit -qam c{n}",
    "git commit -q --amend -m am{n}",
    "git commit -q --allow-empty -m e{n}",
    "git checkout -q -b b{n}",
    "git checkout -q --detach",
    "git checkout -q vnx/$VNX_DISPATCH_ID",
    "git checkout -qf -",
    "git reset -q --hard HEAD~1",
    "git reset -q --soft HEAD~1",
    "git stash -q",
    "git stash -q -u",
    "git stash pop -q",
    "git stash drop -q",
    "git merge -q -m m{n} $(git for-each-ref --format='%(refname)' refs/heads | tail -n 1)",
    "git cherry-pick $(git rev-list --all | head -n 2 | tail -n 1)",
    "git revert --no-edit HEAD",
    "git rebase -q main",
    "git rebase --abort",
    "git merge --abort",
    "git branch -qm r{n}",
    "git branch -qD $(git for-each-ref --format='%(refname:short)' refs/heads/b*)",
    "git update-index --assume-unchanged README.md",
    "git update-index --chmod=+x README.md",
    "ln -sf /nowhere l{n}",
    "git tag t{n}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: if std::env::var_os("VNX_TEST_FULL").is_some() { 200 } else { 12 },
        max_shrink_iters: 40,
        ..proptest::prelude::ProptestConfig::default()
    })]

    /// Whatever a worker does with git, in whatever order.
    #[test]
    fn any_sequence_of_git_operations(steps in proptest::collection::vec(0..STEPS.len(), 1..12)) {
        let lines = steps.iter().enumerate().map(|(n, step)| STEPS[*step].replace("{n}", &n.to_string()));
        let script = lines.map(|line| format!("( {line} ) >/dev/null 2>&1 </dev/null || true\n")).collect::<Vec<_>>().concat();
        story(&|_| {}, &format!("export GIT_EDITOR=true\n{script}"), None);
    }
}

/// A submodule with a commit that nobody has, an edit and a stash: it is in the rescue, whole.
#[test]
fn submodules() {
    let setup = |world: &World| {
        let other = world.root.join("other");
        std::fs::create_dir(&other).unwrap();
        world.git_in(&other, &["init", "-q"]);
        std::fs::write(other.join("x"), "1\n").unwrap();
        world.git_in(&other, &["add", "x"]);
        world.git_in(&other, &["commit", "-qm", "other"]);
        world.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other.to_str().unwrap(), "sub"]);
        world.git(&["commit", "-qm", "submodule"]);
    };
    let script = "git -c protocol.file.allow=always submodule --quiet update --init; cd sub; echo 2 > x; git commit -qam unpushed; \
                  echo 3 > x; git stash -q; echo 4 > new; cd ..";
    story(&setup, script, Some("dirty"));
}

/// What is asked wrongly is said, and nothing is removed by it.
#[test]
fn gc_undo_and_rescue_and_their_mistakes() {
    let world = World::new();
    world.script("echo u > u").expect(4);
    assert!(world.vnx(&["worktree", "gc", "--apply", "@last"]).expect(0).out.contains("removed"));
    world.person(&["worktree", "rescue", "drop", &world.last_id(), "--yes"]).expect(0);
    world.script("echo u > u").expect(4);
    let id = world.last_id();
    let wrong = [
        (&["worktree", "gc", "nope"][..], "no worktree \"nope\""),
        (&["worktree", "gc", "--older-than", "3"][..], "14d"),
        (&["undo", "nope"][..], "no dispatch \"nope\""),
        (&["undo", &id][..], "exists"),
        (&["worktree", "rescue", "drop", "nope"][..], "nope has no rescue"),
        (&["worktree", "rescue", "drop", &id][..], "with --yes"),
    ];
    for (args, said) in wrong {
        let run = world.vnx(args).expect(2);
        assert!(run.err.contains(said), "{args:?}: {}", run.err);
    }
    let stranger = world.worktrees().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    let rows = world.vnx(&["worktree", "gc", "--apply", "--older-than", "0s", "--json"]).expect(0).json();
    assert_eq!((&rows["applied"], &rows["worktrees"][0]["removed"]), (&true.into(), &true.into()), "{rows}");
    assert_eq!(rows["worktrees"][1]["removed"], false, "{rows}");
    assert!(stranger.exists());
    // A repository in it, or a worktree that somebody moved: no name is enough.
    let inner = stranger.join("deep/other");
    std::fs::create_dir_all(&inner).unwrap();
    world.git_in(&inner, &["init", "-q"]);
    let run = world.vnx(&["worktree", "gc", "--apply", "stranger"]).expect(0);
    assert!(run.out.contains("a git repository is in it") && inner.exists(), "{}", run.out);
    std::fs::remove_dir_all(&inner).unwrap();
    let dry = world.vnx(&["worktree", "gc", "stranger"]).expect(0);
    assert!(dry.out.contains("for good") && !dry.err.contains("undo"), "{}{}", dry.out, dry.err);
    world.vnx(&["worktree", "gc", "--apply", "stranger"]).expect(0);
    let rescues = world.vnx(&["worktree", "rescue", "list", "--json"]).expect(0).json();
    assert_eq!(rescues["rescues"][0]["id"], id.as_str());
    assert!(world.vnx(&["worktree", "rescue", "show", &id]).expect(0).out.contains("\nu\n"));
    world.person(&["worktree", "rescue", "drop", &id, "--yes"]).expect(0);
    assert_eq!(world.git(&["for-each-ref", "refs/vnx/rescue"]), "");
    world.assert_nothing_left();
}

/// A root that holds the main checkout would make it one of the worktrees.
#[test]
fn a_root_above_the_repository_is_refused() {
    let world = World::new();
    for root in ["..", "/", "../.."] {
        world.config(&format!("worktree: {{root: {root}}}\n"));
        let run = world.vnx(&["worktree", "gc", "--apply", "repo"]).expect(2);
        assert!(run.err.contains("contains the repository itself"), "{}", run.err);
    }
}

/// A branch in two worktrees at once would show each one's commits as changes of the other.
#[test]
fn undo_leaves_a_branch_alone_that_is_checked_out_elsewhere() {
    let world = World::new();
    world.script(COMMIT).expect(0);
    let id = world.last_id();
    world.git(&["checkout", "-q", &format!("vnx/{id}")]);
    let run = world.vnx(&["undo", &id]).expect(2);
    assert!(run.err.contains("is checked out in") && run.err.contains("git checkout -"), "{}", run.err);
    world.git(&["checkout", "-q", "-"]);
    world.vnx(&["undo", &id]).expect(0);
    let (tree, elsewhere) = (world.worktrees().join(&id), world.root.join("elsewhere"));
    world.git(&["worktree", "unlock", tree.to_str().unwrap()]);
    world.git(&["worktree", "move", tree.to_str().unwrap(), elsewhere.to_str().unwrap()]);
    let run = world.vnx(&["undo", &id]).expect(2);
    assert!(run.err.contains("at another place") && run.err.contains("vnx worktree gc"), "{}", run.err);
}

/// The same for a branch of the worker's own, with a rescue and without.
#[test]
fn undo_leaves_a_branch_alone_on_which_somebody_else_works() {
    for script in ["echo u > u", ""] {
        let world = World::new();
        world.script(&format!("git checkout -q -b topic; {COMMIT} {script}")).expect(4);
        let id = world.last_id();
        if world.worktrees().join(&id).exists() {
            world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
        }
        world.git(&["checkout", "-q", "topic"]);
        let run = world.vnx(&["undo", &id]).expect(2);
        assert!(run.err.contains("branch topic is checked out in"), "{}", run.err);
        world.assert_nothing_left();
        world.git(&["checkout", "-q", "-"]);
        world.vnx(&["undo", &id]).expect(0);
        assert_eq!(world.git_in(&world.worktrees().join(&id), &["branch", "--show-current"]).trim(), "topic");
    }
}

/// There is nothing in a pipe that could be lost: it is named, and keeps no tree.
#[test]
fn a_pipe_among_what_is_ignored_keeps_no_tree() {
    let world = World::new();
    world.script("echo d/ > .gitignore; mkdir d; mkfifo d/p; echo x > d/x").expect(4);
    let id = world.last_id();
    let tree = world.worktrees().join(&id);
    world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    assert!(!tree.exists());
    assert_eq!(world.last("worktree.rescued")["left_out"], serde_json::json!(["d/p"]));
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(std::fs::read_to_string(tree.join("d/x")).unwrap(), "x\n");
}

/// A folder that somebody moved or deleted: what git still keeps of it is theirs.
#[test]
fn a_moved_or_emptied_worktree_keeps_what_git_has_of_it() {
    let world = World::new();
    world.script("echo u > u").expect(4);
    let id = world.last_id();
    let (tree, elsewhere) = (world.worktrees().join(&id), world.root.join("elsewhere"));
    // A commit that only this worktree reaches.
    world.git_in(&tree, &["checkout", "-q", "--detach"]);
    world.git_in(&tree, &["commit", "-q", "--allow-empty", "-m", "only here"]);
    let commit = world.git_in(&tree, &["rev-parse", "HEAD"]);
    std::fs::rename(&tree, &elsewhere).unwrap();
    let run = world.vnx(&["undo", &id]).expect(2);
    assert!(run.err.contains("git worktree repair"), "{}", run.err);
    let run = world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    assert!(run.out.contains("stays") && run.out.contains("git worktree repair"), "{}", run.out);
    assert_eq!(world.git_in(&elsewhere, &["rev-parse", "HEAD"]), commit);
    // With the last worktree its folder went.
    std::fs::create_dir_all(world.worktrees()).unwrap();
    std::fs::rename(&elsewhere, &tree).unwrap();
    std::fs::remove_file(tree.join("u")).unwrap();
    for file in ["README.md", "src"] {
        let path = tree.join(file);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    assert!(world.vnx(&["undo", &id]).expect(2).err.contains("exists"));
    world.vnx(&["worktree", "gc", "--apply", &id]).expect(0);
    world.git(&["prune", "--expire=now"]);
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(world.git_in(&tree, &["rev-parse", "HEAD"]), commit);
    assert!(!tree.join("README.md").exists());
}

/// The commands that a line names, typed.
fn as_told(world: &World, line: &str) {
    for command in line.split('`').skip(1).step_by(2) {
        let done = world.command("sh").args(["-c", command]).current_dir(&world.repo).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// git and vnx have absolute places on record.
#[test]
fn a_repository_that_is_moved_finds_its_worktrees_again() {
    let mut world = World::new();
    world.script("echo precious > half").expect(4);
    let id = world.last_id();
    let kept_alone = world.worktrees();
    for with_worktrees in [false, true] {
        let (repo, trees) = (world.repo.clone(), world.worktrees());
        world.repo = world.root.join(format!("moved {with_worktrees}"));
        std::fs::rename(repo, &world.repo).unwrap();
        if with_worktrees {
            std::fs::rename(trees, world.worktrees()).unwrap();
        } else {
            let shown = world.vnx(&["show", &id]).expect(0).out;
            assert!(shown.contains(&format!("is gone: `vnx worktree gc {id}` says how")), "{shown}");
            assert!(world.vnx(&["undo", &id]).expect(2).err.contains(&format!("`vnx worktree gc {id}`")));
        }
        assert!(world.vnx(&["doctor"]).out.contains("not where git has it on record"));
        let said = world.vnx(&["worktree", "gc", "--apply", &id]).expect(0).out;
        assert!(said.contains("stays"), "{said}");
        as_told(&world, &said);
        assert!(!world.vnx(&["doctor"]).out.contains("not where git has it on record"));
        assert!(world.vnx(&["worktree", "gc", "--apply", &id]).expect(0).out.contains("removed"));
        world.vnx(&["undo", &id]).expect(0);
        assert_eq!(std::fs::read_to_string(world.worktrees().join(&id).join("half")).unwrap(), "precious\n");
    }
    assert!(!kept_alone.join(&id).exists());
}

/// Moved, with a link where it was: whichever way one comes, it is the same place.
#[test]
fn a_repository_behind_a_link_keeps_its_worktrees() {
    let world = World::new();
    world.script("echo precious > half").expect(4);
    let (id, disk) = (world.last_id(), world.root.join("disk"));
    std::fs::create_dir(&disk).unwrap();
    std::fs::rename(&world.repo, disk.join("repo")).unwrap();
    std::os::unix::fs::symlink(disk.join("repo"), &world.repo).unwrap();
    let trees = world.worktrees();
    std::fs::rename(&trees, disk.join("trees")).unwrap();
    std::os::unix::fs::symlink(disk.join("trees"), &trees).unwrap();
    std::os::unix::fs::symlink(disk.join("trees"), disk.join("repo.worktrees")).unwrap();
    let said = world.vnx(&["worktree", "gc", "--apply", &id]).expect(0).out;
    assert!(said.contains("removed") && !trees.join(&id).exists(), "{said}");
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(std::fs::read_to_string(trees.join(&id).join("half")).unwrap(), "precious\n");
}

/// A copy is a repository of its own: what it does with its worktrees is not done to the other one's.
#[test]
fn a_copy_leaves_the_worktrees_of_its_original_alone() {
    let mut world = World::new();
    world.script("echo precious > half").expect(4);
    let id = world.last_id();
    let tree = world.worktrees().join(&id);
    let copy = world.root.join("copy");
    assert!(world.command("cp").arg("-a").args([&world.repo, &copy]).status().unwrap().success());
    world.repo = copy;
    let said = world.vnx(&["worktree", "gc", "--apply", &id]).expect(0).out;
    assert!(said.contains("a copy of: it stays there") && !said.contains("mv"), "{said}");
    world.vnx(&["undo", &id]).expect(2);
    assert_eq!(std::fs::read_to_string(tree.join("half")).unwrap(), "precious\n");
    world.git(&["worktree", "unlock", tree.to_str().unwrap()]);
    std::fs::remove_dir_all(world.repo.join(".git/worktrees")).unwrap();
    world.vnx(&["undo", &id]).expect(0);
    assert_eq!(std::fs::read_to_string(world.worktrees().join(&id).join("half")).unwrap(), "precious\n");
    assert!(world.worktrees().join(&id) != tree && tree.join("half").exists());
}

/// What runs in the original is not the copy's to end, nor to tidy up.
#[test]
fn a_copy_leaves_the_workers_of_its_original_alone() {
    let mut world = World::new();
    let go = world.root.join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done; echo 1 > f; git add f; git commit -qm f", go.display());
    let running = world.start_script(&wait);
    world.until("the worker", || world.count("dispatch.started") == 1);
    let (id, original, copy) = (world.last_id(), world.repo.clone(), world.root.join("copy"));
    assert!(world.command("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    world.repo = copy;
    world.vnx(&["status"]).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["verdict"]["outcome"], "supervisor_lost", "{closed}");
    assert!(world.vnx(&["show", &id]).expect(0).out.contains("was copied while it ran"));
    world.repo = original;
    std::fs::write(go, "").unwrap();
    assert_eq!(running.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(world.git(&["show", &format!("vnx/{id}:f")]), "1");
    world.assert_nothing_left();
}

/// Nor what its gates run: processes, checkout and temporary folder are the original's.
#[test]
fn a_copy_leaves_the_gates_of_its_original_alone() {
    let mut world = World::new();
    let (go, begun) = (world.root.join("go"), world.root.join("begun"));
    let wait = format!("touch {}; until [ -e {} ]; do sleep 0.02; done; test -e f", begun.display(), go.display());
    commit(&world, &format!("gates:\n  tests: {{command: '{wait}'}}\n"));
    let id = done(&world, "echo 1 > f");
    let running = world.start(&["gate", "run", &id]);
    world.until("the gate", || begun.exists());
    let (original, copy) = (world.repo.clone(), world.root.join("copy"));
    assert!(world.command("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    world.repo = copy;
    world.vnx(&["status"]).expect(0);
    let said = world.last("gate.resulted");
    assert_eq!(
        (&said["status"], &said["reason"]),
        (&"unverified".into(), &"the repository was copied while it ran".into())
    );
    world.repo = original;
    std::fs::write(go, "").unwrap();
    assert_eq!(running.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(world.last("gate.resulted")["status"], "pass");
    world.assert_nothing_left();
}

/// Nor a worktree that somebody makes there at this moment.
#[test]
fn a_copy_leaves_what_is_being_made_alone() {
    let mut world = World::new();
    let go = world.root.join("go");
    let hook = format!("echo 1 > precious; until [ -e {} ]; do sleep 0.02; done", go.display());
    world.config(&format!("worktree: {{hooks: {{post_create: [{{run: '{hook}'}}]}}}}\n"));
    let making = world.start(&["worktree", "new", "feature"]);
    let tree = world.worktrees().join("feature");
    world.until("the hook", || tree.join("precious").exists());
    let (original, copy) = (world.repo.clone(), world.root.join("copy"));
    assert!(world.command("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    world.repo = copy;
    world.vnx(&["ps"]).expect(0);
    assert!(tree.join("precious").exists());
    assert_eq!(
        world.vnx(&["worktree", "list", "--json"]).expect(0).json()["worktrees"].as_array().map(Vec::len),
        Some(0)
    );
    world.repo = original;
    std::fs::write(go, "").unwrap();
    assert_eq!(making.wait_with_output().unwrap().status.code(), Some(0));
    assert!(tree.join("precious").exists());
    world.git(&["worktree", "remove", "--force", tree.to_str().unwrap()]);
}

/// Too much together: the oldest go first, however young they are, and only as many as must.
#[test]
fn gc_reclaims_the_oldest_until_the_rest_fits() {
    let world = World::new();
    let ids: Vec<String> = (0..3)
        .map(|_| {
            world.script("head -c 3000000 /dev/urandom > large").expect(4);
            world.last_id()
        })
        .collect();
    let gc = |size: &str, more: &[&str]| world.vnx(&[&["worktree", "gc", "--max-total", size], more].concat());
    assert!(gc("3", &[]).expect(2).err.contains("64KiB"));
    assert_eq!(gc("20MiB", &["--json"]).expect(0).json()["reclaimed_bytes"], 0);
    let rows = gc("7MiB", &["--json"]).expect(0).json();
    let rows = rows["worktrees"].as_array().unwrap();
    let may_go: Vec<_> = rows.iter().filter(|row| row["reclaim"] == true).map(|row| row["name"].clone()).collect();
    assert_eq!(may_go, [ids[0].as_str()], "{rows:?}");
    gc("7MiB", &["--apply"]).expect(0);
    let left = |id: &String| world.worktrees().join(id).exists();
    assert_eq!(ids.iter().map(left).collect::<Vec<_>>(), [false, true, true]);
    gc("1MiB", &["--apply"]).expect(0);
    world.assert_nothing_left();
    for id in &ids {
        world.vnx(&["undo", id]).expect(0);
        assert_eq!(std::fs::metadata(world.worktrees().join(id).join("large")).unwrap().len(), 3_000_000);
    }
}
