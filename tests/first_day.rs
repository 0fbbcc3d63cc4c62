//! What people have set up before they meet vnx, and what their workers do that nobody told them not to.

use crate::common::World;
use crate::gates::project;
use crate::merges::main;

/// A key pair in the test's HOME, and a git that signs with it.
fn signs_with_ssh(world: &World) -> std::path::PathBuf {
    let key = world.root.join("signing");
    let made = world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    world.git(&["config", "gpg.format", "ssh"]);
    world.git(&["config", "user.signingkey", key.with_extension("pub").to_str().unwrap()]);
    key
}

/// Whoever signs commits and names nobody in `.vnx/allowed_signers` has unsigned anchors, which hold nothing.
#[test]
fn commits_that_are_signed_with_ssh_do_not_hold_the_first_merge() {
    let world = project("merge: {ungated: [hello-world]}\n");
    signs_with_ssh(&world);
    for name in ["f", "g"] {
        world.script(&format!("echo 1 > {name}; git add {name}; git commit -qm {name}")).expect(0);
        world.vnx(&["merge"]).expect(0);
    }
    assert_eq!(world.vnx(&["audit-chain", "seal", "--json"]).expect(0).json()["signed"], false);
    world.vnx(&["audit-chain", "verify"]).expect(0);
}

/// `vnx init` writes the line that makes anchors signed, and leaves it to a person to let it count.
#[test]
fn init_offers_the_key_that_git_signs_with() {
    let world = World::bare("repo");
    world.git(&["config", "user.email", "me@vnx.invalid"]);
    let key = std::fs::read_to_string(signs_with_ssh(&world).with_extension("pub")).unwrap();
    let key = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
    world.vnx(&["init"]).expect(0);
    let signers = world.repo.join(".vnx/allowed_signers");
    let text = std::fs::read_to_string(&signers).unwrap();
    assert!(text.contains(&format!("\n# me@vnx.invalid {key}\n")), "{text}");
    world.vnx(&["audit-chain", "verify"]).expect(0);
    std::fs::write(&signers, text.replace("# me@", "me@")).unwrap();
    assert_eq!(world.vnx(&["audit-chain", "seal", "--json"]).expect(0).json()["signed"], true);
    assert!(world.vnx(&["audit-chain", "verify"]).expect(0).out.contains("signed by me@vnx.invalid"));
}

/// Workers reach no ssh agent: where only that has the key, doctor says so before one fails to commit.
#[test]
fn doctor_foresees_a_key_that_only_the_agent_has() {
    let world = World::new();
    let key = signs_with_ssh(&world);
    let signing = || {
        let report = world.vnx(&["doctor", "--json"]).json();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["id"] == "signing")
    };
    assert_eq!(signing(), None, "nothing is signed unasked");
    world.git(&["config", "commit.gpgsign", "true"]);
    assert_eq!(signing(), None, "the private key is there");
    world.script("echo 1 > f; git add f; git commit -qm f").expect(0);
    std::fs::rename(&key, world.root.join("elsewhere")).unwrap();
    let foreseen = signing().unwrap();
    assert_eq!(foreseen["level"], "WARN", "{foreseen}");
    assert!(foreseen["what"].as_str().unwrap().contains("they cannot commit"), "{foreseen}");
    world.script("echo 2 > g; git add g; git commit -qm g").expect(1);
    let literal = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    world.git(&["config", "user.signingkey", literal.trim()]);
    assert!(signing().is_some());
    world.git(&["config", "gpg.format", "openpgp"]);
    assert_eq!(signing(), None, "that agent finds its own way");
}

/// A branch that was pushed is taken away with its worktree. What vnx names as the next step works as it stands.
#[test]
fn a_pushed_branch_is_landed_as_vnx_says() {
    let world = project("merge: {ungated: [hello-world]}\n");
    world.git(&["init", "-q", "--bare", "../origin.git"]);
    world.git(&["remote", "add", "origin", world.root.join("origin.git").to_str().unwrap()]);
    world.script("echo 1 > f; git add f; git commit -qm f; git push -q -u origin HEAD").expect(0);
    let id = world.last_id();
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "pushed");
    let show = world.vnx(&["show", &id]).expect(0).out;
    assert!(show.contains(&format!("`vnx undo {id}` brings its branch back")), "{show}");
    let held = world.vnx(&["merge", &id]).expect(1).out;
    assert!(held.contains(&format!("`vnx undo {id}` brings both back")), "{held}");
    world.vnx(&["undo", &id]).expect(0);
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(world.git(&["show", &format!("{}:f", main(&world))]), "1");
}

/// A worker may rename its branch. Its commits are not judged, and `vnx show` says where they are.
#[test]
fn a_renamed_branch_is_told_by_its_new_name() {
    let world = World::new();
    world.script("git branch -m feat/login; echo 1 > f; git add f; git commit -qm f").expect(4);
    let show = world.vnx(&["show"]).expect(0).out;
    assert!(show.contains("its commits, on feat/login") && !show.contains("no branch is left"), "{show}");
    assert!(show.contains("`git merge feat/login` lands them"), "{show}");
    world.git(&["merge", "-q", "feat/login"]);
}

/// A repository may ignore `.*`, or leave `.vnx` out of a sparse checkout. What is said to be typed works.
#[test]
fn a_repository_that_does_not_take_the_folder_says_how_it_does() {
    let sh = |world: &World, script: &str| {
        let output = world.command("sh").current_dir(&world.repo).args(["-euc", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    };
    for (before, how) in [
        ("printf '.*\\n!.gitignore\\n' > .gitignore; git add .; git commit -qm ignore", "git add --force .vnx"),
        (
            "mkdir a b; echo > a/x; echo > b/y; git add .; git commit -qm c; git sparse-checkout set a",
            "git add --sparse",
        ),
    ] {
        let world = World::bare("repo");
        sh(&world, before);
        let init = world.vnx(&["init"]).expect(0);
        assert!(format!("{}{}", init.out, init.err).contains(how), "{}{}", init.out, init.err);
        assert!(world.vnx(&["doctor"]).out.contains(how));
        world.script("echo 1 > f; git add --sparse f; git commit -qm f").expect(0);
        let refused = world.vnx(&["merge"]).expect(3).err;
        assert!(refused.contains(how), "{refused}");
        let typed = refused.split("commit it there: ").nth(1).unwrap().split(" (on ").next().unwrap();
        sh(&world, typed);
        let listed = world.git(&["ls-files", ".vnx"]);
        assert!(listed.contains(".vnx/config.yaml") && !listed.contains("receipts"), "{listed}");
        assert!(!world.vnx(&["doctor"]).out.contains(how), "it is committed now");
    }
}

/// Whoever clones again to the same path has another ledger there. It is said before work is done, and a person settles it.
#[test]
fn a_repository_that_was_begun_again_says_so_before_work_is_done() {
    let world = project("merge: {ungated: [hello-world]}\n");
    let commit = "echo 1 > f; git add f; git commit -qm f";
    world.script(commit).expect(0);
    let init = world.vnx(&["init"]).expect(0);
    assert!(!init.err.contains("note:"), "{}", init.err);
    world.vnx(&["merge"]).expect(0);
    // As `rm -rf repo; git clone …; vnx init` leaves it.
    let again = world.root.join("again");
    world.git(&["clone", "-q", ".", again.to_str().unwrap()]);
    std::fs::remove_dir_all(&world.repo).unwrap();
    std::fs::rename(&again, &world.repo).unwrap();
    let init = world.vnx(&["init"]).expect(0);
    assert!(init.err.contains("was here before") && init.err.contains("vnx audit-chain accept"), "{}", init.err);
    let run = world.script("echo 2 > g; git add g; git commit -qm g").expect(0);
    assert!(run.err.contains("was here before"), "{}", run.err);
    assert!(world.vnx(&["doctor"]).expect(1).out.contains("if you began again here"));
    let held = world.vnx(&["merge"]).expect(1).out;
    assert!(held.contains("`vnx audit-chain accept --reason WHY` lets this one count"), "{held}");
    world.person(&["audit-chain", "accept", "--reason", "cloned again"]).expect(0);
    world.vnx(&["merge"]).expect(0);
    world.vnx(&["audit-chain", "verify"]).expect(0);
    assert!(!world.vnx(&["init"]).expect(0).err.contains("note:"));
}

/// A filter that looks for its key in the git folder of the checkout (git-crypt) finds none in a worktree's.
#[test]
fn a_filter_without_its_key_is_foreseen_and_speaks() {
    let world = project("merge: {ungated: [hello-world]}\n");
    let filter = world.root.join("crypt");
    let text = "#!/bin/sh\n[ -f \"$(git rev-parse --git-dir)/key\" ] || { echo 'crypt: no key here' >&2; exit 1; }\nexec cat\n";
    std::fs::write(&filter, text).unwrap();
    std::fs::set_permissions(&filter, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(world.repo.join(".git/key"), "k").unwrap();
    for side in ["clean", "smudge"] {
        world.git(&["config", &format!("filter.crypt.{side}"), filter.to_str().unwrap()]);
    }
    world.git(&["config", "filter.crypt.required", "true"]);
    // Configured and used by no file, it is in nobody's way.
    assert!(world.vnx(&["doctor"]).expect(0).out.contains("PASS  worktree"));
    std::fs::write(world.repo.join(".gitattributes"), "secret filter=crypt\n").unwrap();
    std::fs::write(world.repo.join("secret"), "s").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "secret"]);
    let foreseen = world.vnx(&["doctor"]).expect(1).out;
    assert!(foreseen.contains("FAIL  worktree") && foreseen.contains("crypt: no key here"), "{foreseen}");
    let failed = world.script("true").expect(1);
    assert!(failed.out.contains("crypt: no key here"), "{}", failed.out);
    world.assert_nothing_left();
}

/// A worker works on what is committed.
#[test]
fn what_a_worktree_lacks_is_told_at_its_start() {
    let world = project("worktree: {copy: [.env.given]}\n");
    std::fs::write(world.repo.join(".gitignore"), ".env*\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    for given in [".env.given", ".vnx/agents/mine.md"] {
        std::fs::create_dir_all(world.repo.join(".vnx/agents")).unwrap();
        std::fs::write(world.repo.join(given), "---\nname: mine\n---\n").unwrap();
    }
    assert!(!world.script("true").err.contains("without"), "nothing is lacking");
    for lacking in [".env", "new", "README.md"] {
        std::fs::write(world.repo.join(lacking), "mine").unwrap();
    }
    for told in [
        world.script("true").err,
        world.start_script("true").wait_with_output().map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap(),
    ] {
        assert!(told.contains("without   README.md and 1 more, which is not committed here"), "{told}");
        assert!(told.contains("without   .env, which git ignores: `worktree.copy`"), "{told}");
    }
}
