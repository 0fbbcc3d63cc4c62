//! Branches, tags and stashes are one set for all worktrees: what a worker throws away of others' is kept and told.

use serde_json::Value;

use crate::common::World;

fn lost(world: &World, script: &str) -> Vec<Value> {
    world.script(&format!("{script}; echo $VNX_DISPATCH_ID > mine; git add mine; git commit -qm mine")).expect(0);
    let collected = world.last("dispatch.collected");
    collected["lost_refs"].as_array().cloned().unwrap_or_default()
}

/// The one thing that was lost stands under a ref of its own, and `vnx show` tells of it.
#[track_caller]
fn assert_kept(world: &World, name: &str, commit: &str, script: &str) {
    let lost = lost(world, script);
    assert_eq!(lost.len(), 1, "{script}: {lost:?}");
    assert_eq!((lost[0]["ref"].as_str(), lost[0]["commit"].as_str()), (Some(name), Some(commit)), "{script}");
    let kept = lost[0]["kept"].as_str().unwrap();
    assert_eq!(world.git(&["rev-parse", kept]), commit, "{script}");
    let shown = world.vnx(&["show", "@last"]).expect(0).out;
    assert!(shown.contains(kept), "{shown}");
}

fn stash(world: &World, text: &str) -> String {
    std::fs::write(world.repo.join("README.md"), text).unwrap();
    world.git(&["stash", "push", "--quiet", "-m", text]);
    world.git(&["rev-parse", "refs/stash"])
}

#[test]
fn stashes_of_a_person_are_kept() {
    let world = World::new();
    let one = stash(&world, "one");
    let two = stash(&world, "two");
    // Its own stashes come and go.
    assert_eq!(lost(&world, "echo x >> README.md; git stash -q; git stash pop -q; git checkout -q README.md"), [0; 0]);
    assert_kept(&world, "refs/stash", &two, "git stash pop -q; git checkout -q -- README.md");
    let two = stash(&world, "two again");
    assert_kept(&world, "refs/stash", &one, "git stash drop -q 1");
    assert_kept(&world, "refs/stash", &two, "git stash clear");
    assert_eq!(
        world.vnx(&["worktree", "rescue", "list", "--json"]).expect(0).json()["rescues"].as_array().unwrap().len(),
        3
    );
}

#[test]
fn branches_and_tags_of_a_person_are_kept() {
    let world = World::new();
    let commit = |name: &str| {
        world.git(&["checkout", "-q", "-b", name]);
        world.git(&["commit", "-q", "--allow-empty", "-m", name]);
        let made = world.git(&["rev-parse", "HEAD"]);
        world.git(&["checkout", "-q", "main"]);
        made
    };
    let (gone, back) = (commit("gone"), commit("back"));
    assert_kept(&world, "refs/heads/gone", &gone, "git branch -q -D gone");
    assert_kept(&world, "refs/heads/back", &back, "git branch -q -f back main");
    let tagged = commit("tagged");
    world.git(&["tag", "-a", "-m", "x", "v1", "tagged"]);
    world.git(&["branch", "-q", "-D", "tagged"]);
    let tag = world.git(&["rev-parse", "refs/tags/v1"]);
    assert_kept(&world, "refs/tags/v1", &tag, "git tag -d v1 >/dev/null");
    world.vnx(&["worktree", "rescue", "list"]).expect(0);
    // What another branch has is not lost with one of its names, and neither is what goes forward.
    commit("merged");
    world.git(&["merge", "-q", "merged"]);
    let more = "git branch -q -D merged; git branch -q -f back main; git branch -q extra; git branch -q -D extra";
    assert_eq!(lost(&world, more), [0; 0]);
    assert_eq!(world.git(&["rev-parse", &format!("{tag}^{{commit}}")]), tagged);
}

/// `extensions.worktreeConfig` lets `core.worktree` of the main checkout count in every linked one.
#[test]
fn no_worker_starts_where_its_git_is_elsewhere() {
    let world = World::new();
    let main = world.repo.to_str().unwrap();
    world.git(&["config", "core.worktree", main]);
    world.git(&["config", "extensions.worktreeConfig", "true"]);
    std::fs::write(world.repo.join("README.md"), "not committed\n").unwrap();
    let doctor = world.vnx(&["doctor"]);
    assert!(doctor.out.contains("core.worktree"), "{}", doctor.out);
    doctor.expect(1);
    let run = world.script("git reset -q --hard; touch ../ran").expect(1);
    assert!(run.out.contains("would work on the files in"), "{}", run.out);
    assert!(!world.worktrees().join("ran").exists());
    assert_eq!(std::fs::read_to_string(world.repo.join("README.md")).unwrap(), "not committed\n");
    world.git(&["config", "--unset", "core.worktree"]);
    world.assert_nothing_left();
}

/// A crash while they are kept loses none: what stands under a name of this dispatch already keeps it.
#[test]
fn what_was_kept_before_a_crash_is_kept_once() {
    let world = World::new();
    let mut commits = Vec::new();
    for name in ["one", "two"] {
        world.git(&["checkout", "-q", "-b", name, "main"]);
        world.git(&["commit", "-q", "--allow-empty", "-m", name]);
        commits.push(world.git(&["rev-parse", "HEAD"]));
        world.git(&["checkout", "-q", "main"]);
    }
    for begun in [&commits[..1], &commits[1..], &commits[..], &[]] {
        for (name, commit) in ["one", "two"].iter().zip(&commits) {
            world.git(&["branch", "-f", name, commit]);
        }
        let kept = begun
            .iter()
            .zip(1..)
            .map(|(commit, n)| format!("git update-ref refs/vnx/rescue/$VNX_DISPATCH_ID.{n} {commit}; "));
        world.script(&format!("{}git branch -q -D one two", kept.collect::<String>()));
        let collected = world.last("dispatch.collected");
        let lost = collected["lost_refs"].as_array().unwrap_or_else(|| panic!("{begun:?}: {collected}")).clone();
        let named: Vec<_> = lost.iter().map(|l| (l["ref"].as_str().unwrap(), l["commit"].as_str().unwrap())).collect();
        assert_eq!(named, [("refs/heads/one", commits[0].as_str()), ("refs/heads/two", commits[1].as_str())]);
        for one in &lost {
            assert_eq!(world.git(&["rev-parse", one["kept"].as_str().unwrap()]), one["commit"].as_str().unwrap());
        }
        let id = world.last_id();
        let listed = world.git(&["for-each-ref", "--format=%(refname)", &format!("refs/vnx/rescue/{id}.*")]);
        assert_eq!(listed.lines().count(), 2, "{listed}");
        for name in listed.lines() {
            world.git(&["update-ref", "-d", name]);
        }
    }
}
