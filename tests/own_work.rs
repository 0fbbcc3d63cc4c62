//! What counts as a worker's work: commits that nobody else had, whole, and on top of where it began.

use crate::common::World;

/// A repository whose remote has a commit that it has not fetched.
fn with_remote() -> World {
    let world = World::new();
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "--quiet", "-m", "vnx"]);
    let origin = world.root.join("origin.git");
    let origin = origin.to_str().unwrap();
    world.git(&["clone", "--quiet", "--bare", ".", origin]);
    world.git(&["remote", "add", "origin", origin]);
    world.git(&["fetch", "--quiet", "origin"]);
    let other = world.root.join("place-other");
    world.git(&["clone", "--quiet", origin, other.to_str().unwrap()]);
    std::fs::write(other.join("theirs"), "x").unwrap();
    world.git_in(&other, &["add", "."]);
    world.git_in(&other, &["commit", "--quiet", "-m", "theirs"]);
    world.git_in(&other, &["push", "--quiet"]);
    world
}

/// `(decision, outcome, commits, reason)` of a script.
fn judged(world: &World, script: &str) -> (String, String, u64, String) {
    world.script(script);
    let closed = world.last("dispatch.closed");
    let word = |name: &str| closed["verdict"][name].as_str().unwrap().to_owned();
    (word("decision"), word("outcome"), closed["commits"].as_u64().unwrap_or(u64::MAX), word("reason"))
}

#[track_caller]
fn assert_empty(world: &World, script: &str) {
    let (decision, outcome, _, reason) = judged(world, script);
    assert_eq!((decision.as_str(), outcome.as_str()), ("unproven", "empty"), "{script}: {reason}");
}

#[track_caller]
fn assert_done(world: &World, commits: u64, script: &str) {
    let (decision, outcome, counted, reason) = judged(world, script);
    assert_eq!((decision.as_str(), outcome.as_str(), counted), ("accept", "done", commits), "{script}: {reason}");
}

#[track_caller]
fn assert_unknown(world: &World, says: &str, script: &str) {
    let (decision, outcome, _, reason) = judged(world, script);
    assert_eq!((decision.as_str(), outcome.as_str()), ("unproven", "unknown"), "{script}: {reason}");
    let closed = world.last("dispatch.collected").to_string();
    assert!(reason.contains(says) || closed.contains(says), "{script}: {reason} {closed}");
}

/// Another commit in each dispatch, even within one second.
const COMMIT: &str = "echo $VNX_DISPATCH_ID > mine; git add mine; git commit -qm mine";

#[test]
fn what_others_committed_is_not_the_workers() {
    let world = with_remote();
    world.git(&["branch", "feature"]);
    world.git(&["checkout", "-q", "feature"]);
    std::fs::write(world.repo.join("feature"), "x").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "feature"]);
    world.git(&["checkout", "-q", "main"]);
    let origin = world.root.join("origin.git").display().to_string();
    let other = world.root.join("place-other").display().to_string();
    // An earlier dispatch leaves a branch with work.
    world
        .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--id", "earlier", "-i", COMMIT])
        .expect(0);
    for script in [
        "git pull -q --rebase origin main",
        "git pull -q --ff-only origin main",
        "git fetch -q; git merge -q --no-edit origin/main",
        "git fetch -q; git merge -q --no-ff --no-edit origin/main",
        "git fetch -q; git reset -q --hard origin/main",
        "git merge -q --no-edit feature",
        "git merge -q --no-ff --no-edit feature",
        "git reset -q --hard feature",
        "git update-ref refs/heads/vnx/$VNX_DISPATCH_ID feature; git reset -q --hard",
        "git checkout -q -B vnx/$VNX_DISPATCH_ID feature",
        "git merge -q --no-ff --no-edit vnx/earlier",
        "git reset -q --hard vnx/earlier",
        // Not by the name of a remote, so that no ref comes of it.
        &format!("git pull -q --no-rebase --no-edit {origin} main"),
        &format!("git fetch -q {other} main; git merge -q --no-ff --no-edit FETCH_HEAD"),
    ] {
        assert_empty(&world, script);
    }
}

#[test]
fn what_the_worker_commits_on_top_of_a_pull_is_its_own() {
    let world = with_remote();
    assert_done(&world, 1, &format!("git pull -q --rebase origin main; {COMMIT}"));
    assert_done(&world, 1, &format!("{COMMIT}; git pull -q --rebase origin main"));
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["diff"]["paths"], serde_json::json!(["mine"]), "what came with the pull is not its change");
    // The merge itself is a commit of its own too.
    assert_done(&world, 2, &format!("{COMMIT}; git pull -q --no-rebase --no-edit origin main"));
    assert_eq!(world.last("dispatch.closed")["diff"]["paths"], serde_json::json!(["mine"]));
    // Taking the others' change back is a change.
    assert_done(&world, 1, "git fetch -q; git merge -q -s ours --no-edit origin/main");
    assert_eq!(world.last("dispatch.closed")["diff"]["paths"], serde_json::json!(["theirs"]));
}

#[test]
fn a_name_that_the_worker_gives_its_own_commit_takes_nothing_from_it() {
    let world = with_remote();
    for script in [
        format!("{COMMIT}; git push -q -u origin HEAD"),
        format!("{COMMIT}; git push -q origin HEAD:refs/heads/feature-1"),
        format!("{COMMIT}; git tag done-1; git tag -a -m x done-2; git branch backup"),
        format!("git switch -q -c topic; {COMMIT}; git switch -q -; git merge -q topic"),
        // As a CLI's sub-agents do it.
        format!("git worktree add -q sub -b sub; (cd sub; {COMMIT}); git merge -q sub; git worktree remove sub"),
        // Made by plumbing: no reflog says that it is a commit.
        "echo x > x; git add x; c=$(git commit-tree -p HEAD -m x $(git write-tree)); git update-ref HEAD $c".to_owned(),
        format!("{COMMIT}; git commit -q --amend -m again"),
        "git fetch -q; git cherry-pick origin/main >/dev/null".to_owned(),
    ] {
        assert_done(&world, 1, &script);
    }
}

#[test]
fn paths_are_held_against_the_workers_own_change() {
    let world = with_remote();
    let dispatch = |script: &str| {
        let args =
            ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--path", "src/**", "-i", script];
        world.vnx(&args)
    };
    let own = "echo 1 > src/x; git add .; git commit -qm mine";
    dispatch(&format!("git pull -q --rebase origin main; {own}")).expect(0);
    dispatch(&format!("{own}; git pull -q --no-rebase --no-edit origin main")).expect(0);
    let outside = dispatch(&format!("git pull -q --rebase origin main; git rm -q theirs; {own}")).expect(4);
    assert!(outside.out.contains("theirs"), "{}", outside.out);
}

#[test]
fn an_operation_that_is_half_done_is_never_accepted() {
    let world = with_remote();
    let conflict = "git checkout -q -b side-$VNX_DISPATCH_ID; echo a > c; git add c; git commit -qm a; git checkout -q -; \
                    echo b > c; git add c; git commit -qm b";
    for script in [
        format!("{COMMIT}; git bisect start -q"),
        format!("{COMMIT}; git bisect start -q; git bisect bad; git bisect good HEAD~1 >/dev/null"),
        format!("{conflict}; git merge side-$VNX_DISPATCH_ID >/dev/null || git checkout -q --ours c; git add c"),
        format!(
            "{conflict}; git cherry-pick side-$VNX_DISPATCH_ID >/dev/null 2>&1 || true; git checkout -q --ours c; git add c"
        ),
        format!("{COMMIT}; git revert --no-commit HEAD"),
        format!(
            "{conflict}; git format-patch -q -1 side-$VNX_DISPATCH_ID --stdout > ../p; git am -q ../p >/dev/null 2>&1 || rm -f ../p"
        ),
    ] {
        let (decision, _, _, reason) = judged(&world, &script);
        assert_eq!(decision, "unproven", "{script}: {reason}");
    }
    assert_unknown(&world, "half done", &format!("{COMMIT}; git bisect start -q"));
}

#[test]
fn history_that_was_rewritten_below_the_work_is_never_accepted() {
    let world = with_remote();
    for script in [
        "echo x > x; git add x; git commit -q --amend --no-edit".to_owned(),
        format!("git reset -q --hard HEAD~1; {COMMIT}"),
        format!(
            "git checkout -q --orphan fresh; git branch -D vnx/$VNX_DISPATCH_ID -q; git checkout -q --orphan vnx/$VNX_DISPATCH_ID; {COMMIT}"
        ),
        "git update-ref HEAD $(git commit-tree -m root 'HEAD^{tree}')".to_owned(),
    ] {
        assert_unknown(&world, "history was rewritten", &script);
    }
    let (decision, ..) = judged(&world, "git reset -q --hard HEAD~1");
    assert_eq!(decision, "unproven");
}

#[test]
fn a_submodule_that_points_nowhere_is_never_accepted() {
    let world = World::new();
    let nowhere = "1234567890123456789012345678901234567890";
    assert_unknown(
        &world,
        nowhere,
        &format!("mkdir lib; git update-index --add --cacheinfo 160000,{nowhere},lib; git commit -qm bump"),
    );
    // Its own commits are no submodule's.
    assert_unknown(
        &world,
        "nowhere",
        "mkdir lib; git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),lib; git commit -qm bump",
    );
}

#[test]
fn history_that_is_hidden_or_forged_is_found_out() {
    let world = with_remote();
    let git = "$(git rev-parse --git-common-dir)";
    let pulled = "git fetch -q origin; git reset -q --hard origin/main";
    // A list of shallow commits cuts what came from what it stands on; grafts and replacements are not read at all.
    assert_unknown(&world, "contradict", &format!("{COMMIT}; git rev-parse HEAD > {git}/shallow"));
    std::fs::remove_file(world.repo.join(".git/shallow")).unwrap();
    assert_empty(&world, &format!("{pulled}; mkdir -p {git}/info; git rev-parse HEAD > {git}/info/grafts"));
    std::fs::remove_file(world.repo.join(".git/info/grafts")).unwrap();
    assert_empty(&world, &format!("{pulled}; git replace HEAD $(git commit-tree -m x 'HEAD^{{tree}}')"));
    // A commit, a tree and a file whose bytes are not those of their names.
    for object in ["HEAD", "HEAD^{tree}", "HEAD:mine"] {
        let forged = format!(
            "{COMMIT}; o=$(git rev-parse '{object}'); f={git}/objects/$(printf %s $o | cut -c1-2)/$(printf %s $o | cut -c3-); \
             git cat-file $(git cat-file -t $o) $o > ../raw; k=$(git cat-file -t $o); chmod u+w $f; \
             python3 -c 'import sys,zlib; b=open(\"../raw\",\"rb\").read(); b=b[:-1]+bytes([b[-1]^1]); \
             open(sys.argv[2],\"wb\").write(zlib.compress(sys.argv[1].encode()+b\" %d\\0\"%len(b)+b))' $k $f; rm ../raw"
        );
        let (decision, _, _, reason) = judged(&world, &forged);
        assert_eq!(decision, "unproven", "{object}: {reason}");
    }
}

/// A file of an object that is empty is what a power cut leaves. The worktree has the only bytes, so it stays.
#[test]
fn a_commit_that_git_cannot_read_is_no_work() {
    let world = World::new();
    let object = "o=$(git rev-parse HEAD:mine); f=$(git rev-parse --git-common-dir)/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-)";
    for (spoil, end) in [(": > $f", 0), ("echo junk > $f", 0), (": > $f", 3)] {
        let script = format!("{COMMIT}; {object}; chmod u+w $f; {spoil}; exit {end}");
        if end == 0 {
            assert_unknown(&world, "contradict", &script);
        } else {
            world.script(&script).expect(1);
        }
        let kept = world.worktrees().join(world.last_id()).join("mine");
        assert_eq!(std::fs::read_to_string(kept).unwrap().trim(), world.last_id(), "{spoil}");
    }
}

/// What was fetched from an address, or was on a branch that is gone again, is named by nothing when the work is judged.
/// The worktree's reflog says that HEAD was only moved there.
#[test]
fn what_head_was_only_moved_to_is_not_the_workers() {
    let world = with_remote();
    let up = world.root.join("origin.git").display().to_string();
    // As another fetch leaves it: the first one stands nowhere.
    let away = ": > $(git rev-parse --git-dir)/FETCH_HEAD";
    for script in [
        format!("git pull -q --ff-only {up} main; {away}"),
        format!("git fetch -q {up} main; git merge -q --ff-only FETCH_HEAD; {away}"),
        format!(
            "git fetch -q --no-write-fetch-head {up} main; git reset -q --hard $(git ls-remote {up} main | cut -f1)"
        ),
        format!("git fetch -q {up} main:tmp; git reset -q --hard tmp; git branch -q -D tmp; {away}"),
    ] {
        assert_empty(&world, &script);
    }
    // Beside work of its own, which counts alone.
    assert_done(&world, 2, &format!("{COMMIT}; git pull -q --no-rebase --no-edit {up} main; {away}"));
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["diff"]["paths"], serde_json::json!(["mine"]), "{closed}");
    // Its own branches are merged as before, and its own commits found again.
    assert_done(
        &world,
        2,
        "git checkout -qb side; echo $VNX_DISPATCH_ID > s; git add s; git commit -qm s; git checkout -q -; git merge -q --no-ff --no-edit side",
    );
    assert_done(&world, 1, &format!("{COMMIT}; git reset -q --hard HEAD~1; git reset -q --hard HEAD@{{1}}"));
    assert_done(
        &world,
        1,
        &format!("{COMMIT}; git commit -q --amend -m other; git checkout -q --detach; git checkout -q -"),
    );
}

#[test]
fn a_branch_that_came_and_went_gives_nothing() {
    let world = World::new();
    let theirs =
        "git checkout -q feature; echo 1 > theirs; git add theirs; git commit -qm theirs; git checkout -q main";
    for away in ["git branch -q -D feature", "git update-ref refs/heads/feature HEAD~1"] {
        world.git(&["branch", "-f", "feature"]);
        let script = format!("(cd {}; {theirs}); git reset -q --hard feature; {away}", world.repo.display());
        assert_empty(&world, &script);
    }
}

/// git reads refs that it would not write so, and so does vnx: whoever spoils the form of a ref takes nobody's name off it.
#[test]
fn a_ref_counts_as_git_reads_it() {
    let world = World::new();
    world.git(&["checkout", "-q", "-b", "feature"]);
    std::fs::write(world.repo.join("feature"), "x").unwrap();
    world.git(&["add", "feature"]);
    world.git(&["commit", "-qm", "feature"]);
    world.git(&["checkout", "-q", "main"]);
    let refs = "g=$(git rev-parse --git-common-dir); o=$(git rev-parse feature)";
    for spoil in [
        "echo \"$o x\" > $g/refs/heads/feature",
        "echo $o > $g/MY_HEAD; echo 'ref: MY_HEAD' > $g/refs/heads/feature",
        "echo \"ref:   refs/heads/g\" > $g/refs/heads/feature; echo $o > $g/refs/heads/g",
    ] {
        world.git(&["update-ref", "refs/keep/feature", "feature"]);
        let taken = "git update-ref -d refs/keep/feature; git update-ref HEAD $o; git read-tree --reset -u HEAD";
        assert_empty(&world, &format!("{refs}; {spoil}; {taken}"));
        std::fs::write(world.repo.join(".git/refs/heads/feature"), world.git(&["rev-parse", "feature"]) + "\n")
            .unwrap();
    }
    // What is no ref of git's stands in nobody's way.
    std::fs::write(world.repo.join(".git/refs/.DS_Store"), [b'x'; 6148]).unwrap();
    assert_done(&world, 1, COMMIT);
    std::fs::write(world.repo.join(".git/refs/heads/large"), [b'x'; 6148]).unwrap();
    assert_done(&world, 1, COMMIT);
}
