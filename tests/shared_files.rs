//! Files of git that hold for all worktrees: one worker cannot hide the work of the next, nor decide its merge.

use crate::common::World;

const COMMIT: &str = "echo $VNX_DISPATCH_ID > mine; git add -f mine; git commit -qm mine";

fn decision(world: &World, script: &str) -> (String, String) {
    world.script(script);
    let verdict = &world.last("dispatch.closed")["verdict"];
    (verdict["decision"].as_str().unwrap().to_owned(), verdict["outcome"].as_str().unwrap().to_owned())
}

fn is(decision: &str, outcome: &str) -> (String, String) {
    (decision.to_owned(), outcome.to_owned())
}

/// Every place from which git hides files, and what a worker puts there.
const HIDING: [&str; 4] = [
    "echo '*' >> $(git rev-parse --git-common-dir)/info/exclude",
    "mkdir -p ~/.config/git; echo '*' > ~/.config/git/ignore",
    "echo '*' > ~/all; git config core.excludesFile ~/all",
    "echo '*' > ~/all; git config --global core.excludesFile ~/all",
];

#[test]
fn what_one_worker_hides_is_missed_in_the_next() {
    for hiding in HIDING {
        let world = World::new();
        let (first, _) = decision(&world, &format!("{COMMIT}; echo x > forgotten; {hiding}"));
        assert_ne!(first, "accept", "{hiding}");
        // The folder has a name that could be made again, but no rule of the project hides it.
        let script = format!("{COMMIT}; mkdir out; echo forgotten > out/answer.md");
        assert_eq!(decision(&world, &script), is("unproven", "uncommitted"), "{hiding}");
        let tree = world.worktrees().join(world.last_id());
        assert!(tree.join("out/answer.md").exists(), "{hiding}");
        assert_eq!(decision(&world, COMMIT), is("accept", "done"), "{hiding}");
        let told = world.vnx(&["show", "@last"]).expect(0).out;
        assert!(told.contains("changed in git while it ran") || !hiding.contains("exclude"), "{told}");
    }
}

#[test]
fn what_a_person_ignores_between_dispatches_counts() {
    let world = World::new();
    assert_eq!(decision(&world, COMMIT), is("accept", "done"));
    std::fs::write(world.repo.join(".git/info/exclude"), "notes\n").unwrap();
    assert_eq!(decision(&world, &format!("{COMMIT}; echo x > notes")), is("accept", "done"));
}

#[test]
fn its_own_ignore_file_hides_no_work_but_what_can_be_made_again() {
    let world = World::new();
    let hide = |what: &str| format!("echo '{what}' > .gitignore; git add -f .gitignore; {COMMIT}");
    for (script, expected) in [
        (format!("{}; echo x > answer.txt", hide("*.txt")), is("unproven", "uncommitted")),
        // It hides itself.
        (format!("{COMMIT}; echo '*' > .gitignore; echo x > answer.txt"), is("unproven", "uncommitted")),
        (format!("{COMMIT}; echo '*' > src/.gitignore; echo x > src/answer.rs"), is("unproven", "uncommitted")),
        (format!("{}; mkdir node_modules; echo x > node_modules/x", hide("node_modules/")), is("accept", "done")),
        // A tool's own folder.
        (format!("{COMMIT}; mkdir .venv; echo '*' > .venv/.gitignore; echo x > .venv/x"), is("accept", "done")),
    ] {
        assert_eq!(decision(&world, &script), expected, "{script}");
    }
}

#[test]
fn settings_that_ordinary_tools_write_are_told_and_trusted() {
    let world = World::new();
    for setting in [
        "remote.origin.gh-resolved base",
        "core.hooksPath .husky/_",
        "lfs.repositoryformatversion 0",
        "credential.helper store",
    ] {
        assert_eq!(decision(&world, &format!("git config {setting}; {COMMIT}")), is("accept", "done"), "{setting}");
        let key = setting.split(' ').next().unwrap().to_lowercase();
        let told = world.vnx(&["show", "@last"]).expect(0).out;
        assert!(told.contains(&key), "{told}");
    }
    let (first, _) = decision(&world, &format!("{COMMIT}; git config core.fsmonitor /bin/true"));
    assert_eq!(first, "unproven");
    assert!(world.vnx(&["show", "@last"]).expect(0).out.contains("core.fsmonitor"));
}

/// `merge=union` takes both sides of a conflict: only what the project itself commits may say so.
#[test]
fn attributes_outside_of_the_project_decide_no_merge() {
    let world = World::new();
    world.config("gates: {ok: {command: 'true'}}");
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "-qm", "vnx"]);
    let change = "echo worker > README.md; git add .; git commit -qm mine";
    let planted = format!("{change}; mkdir -p ~/.config/git; echo '* merge=union' > ~/.config/git/attributes");
    world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--id", "one", "-i", &planted]);
    std::fs::write(world.repo.join("README.md"), "person\n").unwrap();
    world.git(&["commit", "-qam", "person"]);
    let head = world.git(&["rev-parse", "main"]);
    assert_ne!(world.vnx(&["merge", "one", "--gates"]).code, 0);
    assert_eq!(world.git(&["rev-parse", "main"]), head);
    // Nor for a branch whose worker had no part in it.
    let two = "echo two > README.md; git add .; git commit -qm two";
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--base", "main~1"];
    world.vnx(&[&args[..], &["--id", "two", "-i", two]].concat()).expect(0);
    let merge = world.vnx(&["merge", "two", "--into", "main", "--gates"]);
    let said = merge.out + &merge.err;
    assert!(merge.code != 0 && said.contains("conflict"), "{} {said}", merge.code);
    assert_eq!(world.git(&["rev-parse", "main"]), head);
    std::fs::remove_file(world.root.join("home/.config/git/attributes")).unwrap();
    // Those of the repository hold everything, until they are what they were.
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i"];
    let planted = format!("{COMMIT}; echo '* merge=union' >> $(git rev-parse --git-common-dir)/info/attributes");
    world.vnx(&[&args[..], &[&planted, "--id", "three"]].concat());
    world.vnx(&[&args[..], &[COMMIT, "--id", "four"]].concat()).expect(0);
    for id in ["three", "four"] {
        let merge = world.vnx(&["merge", id, "--gates"]);
        let said = merge.out + &merge.err;
        assert!(merge.code != 0 && said.contains("info/attributes was changed while three ran"), "{said}");
    }
    assert_eq!(world.git(&["rev-parse", "main"]), head);
    std::fs::remove_file(world.repo.join(".git/info/attributes")).unwrap();
    world.vnx(&["merge", "four", "--gates"]).expect(0);
}
