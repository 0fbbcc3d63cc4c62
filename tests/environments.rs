//! Broken environments: where a dispatch cannot work `vnx doctor` must not be green, and where
//! doctor is green a dispatch must work. One table, both sides.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{World, names};
use crate::gates::{TESTS, project};
use crate::merges::ready;

/// Doctor and dispatch on the same world, and what both must say.
#[track_caller]
fn agree(world: &World, dispatch: &[&str], doctor: &[&str], works: bool, word: &str) {
    let doctor = world.vnx(&[&["doctor"], doctor].concat());
    let dispatch = world.vnx(&[&["dispatch-agent", "--agent", "hello-world"], dispatch].concat());
    let told = format!(
        "\ndoctor {}:\n{}{}\ndispatch {}:\n{}{}",
        doctor.code, doctor.out, doctor.err, dispatch.code, dispatch.out, dispatch.err
    );
    assert_eq!(doctor.code, i32::from(!works), "{told}");
    assert_eq!(dispatch.code == 0, works, "{told}");
    assert!(works || [2, 3, 5, 74].contains(&dispatch.code), "{told}");
    assert!(doctor.out.contains(word), "{word:?} is not named by doctor:{told}");
    if !works {
        assert!(dispatch.err.contains(word), "{word:?} is not named by dispatch:{told}");
        assert!(dispatch.err.contains("fix:"), "{told}");
    }
}

/// A folder with links to the programs that a dispatch needs, to leave some out of.
fn programs(world: &World, without: &[&str]) -> PathBuf {
    let folder = world.root.join("bin");
    let _ = std::fs::create_dir(&folder);
    for name in ["git", "tmux", "sh", "cat", "rm", "sleep", "env", "printf", "sed", "basename", "uname"] {
        let found =
            std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|p| p.join(name)).find(|p| p.exists());
        let link = folder.join(name);
        let _ = std::fs::remove_file(&link);
        if let Some(found) = found.filter(|_| !without.contains(&name)) {
            std::os::unix::fs::symlink(found, link).unwrap();
        }
    }
    folder
}

fn executable(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_sound_environment_works() {
    agree(&World::new(), &[], &[], true, "PASS");
}

#[test]
fn not_a_repository() {
    let world = World::bare("repo");
    std::fs::remove_dir_all(world.repo.join(".git")).unwrap();
    agree(&world, &[], &[], false, "not inside a git repository");
    world.vnx(&["init"]).expect(5);
}

#[test]
fn a_bare_repository() {
    let mut world = World::bare("repo");
    world.git(&["clone", "--quiet", "--bare", ".", "../bare.git"]);
    world.repo = world.root.join("bare.git");
    agree(&world, &[], &[], false, "bare repository");
    world.vnx(&["init"]).expect(5);
}

#[test]
fn not_initialised() {
    agree(&World::bare("repo"), &[], &[], false, "not a vnx project");
}

#[test]
fn no_commit_yet() {
    let world = World::bare("repo");
    std::fs::remove_dir_all(world.repo.join(".git")).unwrap();
    world.git(&["init", "--quiet"]);
    world.vnx(&["init"]).expect(0);
    agree(&world, &[], &[], false, "no commit here yet");
}

#[test]
fn no_tmux_means_no_pane_and_nothing_worse() {
    let mut world = World::new();
    world.set("PATH", programs(&world, &["tmux"]));
    agree(&world, &[], &[], true, "without a pane");
    world.vnx(&["doctor", "--strict"]).expect(1);
}

#[test]
fn no_git() {
    let mut world = World::new();
    world.set("PATH", programs(&world, &["git"]));
    agree(&world, &[], &[], false, "git is not installed");
}

#[test]
fn git_too_old() {
    let mut world = World::new();
    let folder = programs(&world, &["git"]);
    let real = which("git");
    let script = format!(
        "#!/bin/sh\nfor a in \"$@\"; do [ \"$a\" = version ] && {{ echo 'git version 2.20.1'; exit 0; }}; done\nexec {} \"$@\"\n",
        real.display()
    );
    executable(&folder.join("git"), &script, 0o755);
    world.set("PATH", folder);
    agree(&world, &[], &[], false, "2.20.1 is too old");
}

/// Each git on this machine (distributions have old ones) does the main job, and leaves as little.
#[test]
fn every_git_here_will_do() {
    let folders = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .collect::<std::collections::BTreeSet<_>>();
    let mut seen = std::collections::BTreeSet::new();
    for git in folders.iter().map(|folder| folder.join("git")).filter(|git| git.exists()) {
        let mut world = project("gates: {tests: {command: 'true'}}\n");
        let folder = world.root.join("first");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&git, folder.join("git")).unwrap();
        world.set("PATH", format!("{}:{}", folder.display(), world.env["PATH"]));
        let doctor = world.vnx(&["doctor"]).expect(0).out;
        let version = doctor.lines().find(|line| line.starts_with("PASS  git ")).unwrap().to_owned();
        if !seen.insert(version.clone()) {
            continue;
        }
        let id = ready(&world, "echo 1 > f");
        assert_eq!(world.count("worktree.rescued"), 0, "{version}: nothing was in danger");
        world.vnx(&["merge", &id]).expect(0);
        assert_eq!(world.git(&["show", "main:f"]), "1", "{version}");
        world.script("echo half > draft; echo more >> README.md").expect(4);
        let left = world.last_id();
        world.vnx(&["worktree", "gc", "--apply", &left]).expect(0);
        world.vnx(&["undo", &left]).expect(0);
        let back = world.worktrees().join(&left);
        assert_eq!(std::fs::read_to_string(back.join("draft")).unwrap(), "half\n", "{version}");
        assert!(std::fs::read_to_string(back.join("README.md")).unwrap().ends_with("more\n"), "{version}");
        world.vnx(&["revert", &id, "--reason", "a test"]).expect(0);
        world.assert_verified();
    }
    assert!(!seen.is_empty());
}

fn which(name: &str) -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|p| p.join(name)).find(|p| p.exists()).unwrap()
}

#[test]
fn the_cli_is_missing() {
    let mut world = World::new();
    world.set("PATH", programs(&world, &[]));
    agree(&world, &["--provider", "claude", "-i", "x"], &["--provider", "claude"], false, "no claude in PATH");
    // Without it being asked for, it is a warning, and shell agents work.
    agree(&world, &[], &[], true, "no coding CLI is installed");
    let run = world.vnx(&["dispatch-agent", "--agent", "backend-developer", "-i", "x"]).expect(5);
    assert!(run.err.contains("no coding CLI is installed"), "{}", run.err);
}

#[test]
fn the_cli_may_not_be_executed() {
    let mut world = World::new();
    let folder = programs(&world, &[]);
    executable(&folder.join("claude"), "#!/bin/sh\n", 0o644);
    world.set("PATH", folder);
    agree(&world, &["--provider", "claude", "-i", "x"], &["--provider", "claude"], false, "may not be executed");
}

#[test]
fn the_state_folder_is_read_only() {
    let mut world = World::new();
    world.drop_privileges();
    let receipts = world.state().join("receipts");
    let mode = |mode| std::fs::set_permissions(&receipts, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    agree(&world, &[], &[], false, "cannot be written");
    mode(0o700);
    agree(&world, &[], &[], true, "can be written");
}

#[test]
fn the_worktree_root_cannot_be_written() {
    let mut world = World::new();
    world.drop_privileges();
    let mode = |mode| std::fs::set_permissions(&world.root, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    agree(&world, &[], &[], false, "cannot be written");
    mode(0o700);
}

/// A container's, a daemon's, or one with nothing left on it: the witness is one of three, and says that it is not.
#[test]
fn a_home_that_cannot_be_written_costs_a_warning() {
    let mut world = project(TESTS);
    world.drop_privileges();
    let home = world.root.join("home");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let seal = |world: &World| world.vnx(&["audit-chain", "seal", "--json"]);
    // As if it had never been one that can be written to.
    std::fs::remove_dir_all(home.join(".local")).unwrap();
    mode(&home, 0o500);
    let doctor = world.vnx(&["doctor"]).expect(0).out;
    assert!(doctor.contains("WARN  witness"), "{doctor}");
    let id = ready(&world, "echo 1 > f");
    let sealed = seal(&world).expect(0).json();
    assert!(sealed["witnessed"] == false && sealed["unwitnessed"].as_str().unwrap().contains("denied"), "{sealed}");
    world.vnx(&["merge", &id]).expect(0);
    assert_eq!(world.git(&["show", "main:f"]), "1");
    assert_eq!(names(&home), [".gitconfig"]);
    world.set("HOME", "/dev/null");
    assert_eq!(seal(&world).expect(0).json()["witnessed"], false);
    world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(0);
    world.set("HOME", home.to_str().unwrap());
    mode(&home, 0o700);
    assert_eq!(seal(&world).expect(0).json()["witnessed"], true);
    assert!(!world.vnx(&["doctor"]).expect(0).out.contains("witness"));
    // What remembers is to be brought up to date, or nobody could tell it from one that was held back.
    world.script("true").expect(4);
    let witness = home.join(".local/state/vnx/witness");
    mode(&witness, 0o500);
    assert!(seal(&world).expect(5).err.contains("witness"));
    assert!(world.vnx(&["doctor"]).expect(1).out.contains("FAIL  witness"));
    // A home that is somebody else's may hold one that we cannot see.
    mode(&home.join(".local"), 0);
    assert!(world.vnx(&["doctor"]).expect(1).out.contains("FAIL  witness"));
    assert!(world.vnx(&["audit-chain", "verify"]).expect(5).out.contains("denied"));
    mode(&home.join(".local"), 0o700);
    mode(&witness, 0o700);
    assert_eq!(seal(&world).expect(0).json()["witnessed"], true);
}

#[test]
fn corrupt_configuration() {
    let world = World::new();
    std::fs::write(world.repo.join(".vnx/config.yaml"), "version: 1\nproject_id: repo\nworktre: {}\n").unwrap();
    agree(&world, &[], &[], false, "config.yaml:3:1");
}

#[test]
fn corrupt_or_missing_constraints() {
    let world = World::new();
    let file = world.repo.join(".vnx/provider_constraints.yaml");
    std::fs::write(&file, "version: 1\nconstraints:\n- {id: a, reason: x, severity: loud}\n").unwrap();
    agree(&world, &[], &[], false, "provider_constraints.yaml:3");
    std::fs::remove_file(&file).unwrap();
    agree(&world, &[], &[], false, "provider_constraints.yaml is missing");
}

#[test]
fn a_broken_or_missing_ledger() {
    let world = World::new();
    let mut bytes = std::fs::read(world.ledger()).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(world.ledger(), &bytes).unwrap();
    agree(&world, &[], &[], false, "the ledger does not verify");
    assert_eq!(std::fs::read(world.ledger()).unwrap(), bytes, "the evidence is untouched");
    std::fs::remove_file(world.ledger()).unwrap();
    agree(&world, &[], &[], false, "no ledger");
}

/// A dispatch looks at the last line only; doctor looks at all of them.
#[test]
fn doctor_fails_over_an_edit_anywhere() {
    let world = World::new();
    world.script("true").expect(4);
    assert!(world.vnx(&["doctor"]).expect(0).out.contains("PASS  ledger           it verifies, up to receipt "));
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), text.replacen("hello-world", "other-world", 1)).unwrap();
    let out = world.vnx(&["doctor"]).expect(1).out;
    assert!(out.contains("FAIL  ledger           the ledger does not verify: the receipt was edited"), "{out}");
}

/// A torn end is mended by whoever comes next, and everybody says so.
#[test]
fn a_torn_end_is_no_reason_to_stop() {
    let world = World::new();
    world.script("true").expect(4);
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), format!("{text}{{\"v\":1,\"prev\":\"")).unwrap();
    let out = world.vnx(&["doctor"]).expect(0).out;
    assert!(out.contains("WARN  ledger           the ledger does not verify: "), "{out}");
    for told in [out, world.vnx(&["audit-chain", "verify"]).expect(4).out] {
        assert!(told.contains("`vnx audit-chain seal`, or any next dispatch"), "{told}");
    }
    world.vnx(&["audit-chain", "seal"]).expect(0);
    world.assert_verified();
}

/// A new ledger in the place of one that was taken away would verify, and hide that.
#[test]
fn a_ledger_that_was_taken_away_is_not_replaced() {
    let world = World::new();
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    std::fs::remove_file(world.ledger()).unwrap();
    let run = world.vnx(&["init"]).expect(5);
    assert!(run.err.contains("though 1 dispatches are on record"), "{}", run.err);
    world.vnx(&["audit-chain", "verify"]).expect(3);
    std::os::unix::fs::symlink("/dev/null", world.ledger()).unwrap();
    agree(&world, &[], &[], false, "symbolic link");
    world.vnx(&["audit-chain", "verify"]).expect(74);
}

#[test]
fn a_lane_that_the_provider_lacks_and_a_broken_agent() {
    let world = World::new();
    std::fs::write(world.repo.join(".vnx/config.yaml"), "version: 1\nproject_id: repo\ndefaults: {lane: acp}\n")
        .unwrap();
    agree(&world, &[], &[], false, "no acp lane");
    std::fs::write(world.repo.join(".vnx/config.yaml"), "version: 1\nproject_id: repo\n").unwrap();
    std::fs::create_dir(world.repo.join(".vnx/agents/hello-world")).unwrap();
    std::fs::write(world.repo.join(".vnx/agents/hello-world/AGENT.md"), "no front matter").unwrap();
    agree(&world, &[], &[], false, "no front matter");
}

#[test]
fn worktrees_inside_the_repository() {
    let world = World::new();
    for root in [".", ".git/trees", "trees", "../repo/x"] {
        std::fs::write(
            world.repo.join(".vnx/config.yaml"),
            format!("version: 1\nproject_id: repo\nworktree: {{root: {root}}}\n"),
        )
        .unwrap();
        agree(&world, &[], &[], false, "lies inside the repository");
    }
    std::fs::write(world.repo.join(".vnx/config.yaml"), "version: 1\nproject_id: repo\nworktree: {root: ../trees}\n")
        .unwrap();
    agree(&world, &[], &[], true, "trees");
}

#[test]
fn a_pipe_in_the_place_of_a_file_does_not_hang() {
    let world = World::new();
    let file = world.repo.join(".vnx/config.yaml");
    std::fs::remove_file(&file).unwrap();
    assert!(world.command("mkfifo").arg(&file).status().unwrap().success());
    agree(&world, &[], &[], false, "not a regular file");
}

#[test]
fn under_the_disk_floor() {
    let world = World::new();
    std::fs::write(
        world.repo.join(".vnx/config.yaml"),
        "version: 1\nproject_id: repo\nworktree: {disk_floor: 900000GiB}\n",
    )
    .unwrap();
    agree(&world, &[], &[], false, "the floor is 900000GiB");
}

#[test]
fn a_constraint_refuses_and_is_recorded_and_an_override_is_too() {
    let world = World::new();
    let rules = "version: 1\nconstraints:\n- {id: no-shell, reason: scripts are not reviewed here, severity: blocking, overridable: true, forbid_route: {provider: shell}}\n";
    std::fs::write(world.repo.join(".vnx/provider_constraints.yaml"), rules).unwrap();
    let run = world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(3);
    assert!(run.err.contains("no-shell") && run.err.contains("--override no-shell=REASON"), "{}", run.err);
    assert_eq!(world.last("dispatch.refused")["rule"], "no-shell");
    world.person(&["dispatch-agent", "--agent", "hello-world", "--override", "no-shell=a test"]).expect(0);
    assert_eq!(world.last("override.used")["reason"], "a test");
    world.assert_verified();
}

#[test]
fn doctor_mends_what_it_can_and_only_when_told() {
    let world = World::new();
    std::fs::remove_dir(world.state().join("open")).unwrap();
    world.vnx(&["doctor"]).expect(1);
    let dry = world.vnx(&["doctor", "--fix"]).expect(1);
    assert!(dry.out.contains("would be done with --yes"), "{}", dry.out);
    world.vnx(&["doctor", "--fix", "--yes"]).expect(0);
    let report = world.vnx(&["doctor", "--json"]).expect(0).json();
    assert_eq!(report["schema"], "vnx.doctor/1");
    assert_eq!(report["ok"], true);
}

/// The lock does not stop a dispatch, but no branch can be deleted while it stands.
#[test]
fn a_lock_that_a_killed_git_left_is_named() {
    let world = World::new();
    let lock = world.repo.join(".git/packed-refs.lock");
    std::fs::write(&lock, "").unwrap();
    let row = |run: &crate::common::Run| {
        run.json()["checks"].as_array().unwrap().iter().find(|c| c["id"] == "git locks").cloned()
    };
    assert_eq!(row(&world.vnx(&["doctor", "--json"])), None, "a young one belongs to a git that runs");
    let then = std::time::SystemTime::now() - std::time::Duration::from_mins(2);
    std::fs::File::options().write(true).open(&lock).unwrap().set_modified(then).unwrap();
    let found = row(&world.vnx(&["doctor", "--json"]).expect(1)).expect("a row of its own");
    assert!(found["what"].as_str().unwrap().contains("packed-refs.lock"), "{found}");
    let fix = found["fix"].as_str().unwrap();
    let command = fix.split_once("rm ").unwrap().1;
    assert!(world.command("sh").args(["-c", &format!("rm {command}")]).status().unwrap().success());
    world.vnx(&["doctor"]).expect(0);
}

/// vnx does no housekeeping, and tells where nobody does.
#[test]
fn doctor_tells_of_many_packs() {
    let world = World::new();
    let row = |run: &crate::common::Run| {
        run.json()["checks"].as_array().unwrap().iter().find(|c| c["id"] == "git objects").cloned()
    };
    let pack = "echo $n | git hash-object -w --stdin | git pack-objects -q .git/objects/pack/pack >/dev/null";
    let make = |from: usize, to: usize| {
        let script = format!("for n in $(seq {from} {to}); do {pack}; done");
        assert!(world.command("sh").args(["-c", &script]).current_dir(&world.repo).status().unwrap().success());
    };
    make(1, 100);
    assert_eq!(row(&world.vnx(&["doctor", "--json"])), None);
    make(101, 101);
    let found = row(&world.vnx(&["doctor", "--json"]).expect(0)).expect("a row of its own");
    assert_eq!(
        (&found["what"], &found["fix"]),
        (&"101 packs, and every git is slower for it".into(), &"git gc".into())
    );
    world.git(&["gc", "-q"]);
    assert_eq!(row(&world.vnx(&["doctor", "--json"])), None);
}

/// It would show when somebody merges.
#[test]
fn doctor_names_what_gates_and_merges_ask_for_in_vain() {
    let world = World::new();
    world.config(
        "gates:\n  look: {review: {agent: reader, providers: [nonesuch]}}\n  t: {command: 'true', when: {agents: [nobody]}}\nmerge: {target: nowhere}\n",
    );
    let said = world.vnx(&["doctor"]).out;
    for what in [
        "gate look: unknown provider \"nonesuch\"",
        "gate look: unknown agent \"reader\"",
        "gate t: unknown agent \"nobody\"",
        "merge.target: there is no branch nowhere",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    world.config("gates:\n  look: {review: {providers: [shell]}}\nmerge: {target: main}\n");
    assert!(!world.vnx(&["doctor"]).out.contains(" config "));
}

#[test]
fn doctor_names_the_agents() {
    let world = World::new();
    world.agent("own", "");
    let doctor = world.vnx(&["doctor"]).out;
    let want = "5 can be dispatched: backend-developer, code-reviewer, hello-world, own, test-engineer";
    assert!(doctor.contains(want), "{doctor}");
    for n in 0..5 {
        world.agent(&format!("more-{n}"), "");
    }
    let doctor = world.vnx(&["doctor"]).out;
    assert!(doctor.contains("10 can be dispatched: ") && doctor.contains(", more-3, more-4, …"), "{doctor}");
}

/// A variable that a worker misses and its caller has is named, with the place where it is let through.
#[test]
fn a_variable_that_is_set_and_does_not_pass_is_named() {
    let mut world = World::new();
    world.set("STUB_KEY", "k1");
    let script = "[ -n \"$STUB_KEY\" ] || { echo 'Missing environment variable: `STUB_KEY`.' >&2; exit 1; }";
    let told = world.script(script).expect(1).out;
    assert!(told.contains("STUB_KEY is set here and not passed: add it to providers.shell.env.pass"), "{told}");
    let config = |pass: &str| {
        let text = format!("version: 1\nproject_id: repo\nproviders: {{shell: {{env: {{pass: [{pass}]}}}}}}\n");
        std::fs::write(world.repo.join(".vnx/config.yaml"), text).unwrap();
    };
    config("STUB_*");
    world.script(script).expect(4);
    for (never, why) in [("GIT_DIR", "GIT_DIR"), ("'*'", "\"*\""), ("A-B", "A-B")] {
        config(never);
        let refused = world.script(script).expect(2).err;
        assert!(refused.contains(&format!("providers.shell.env.pass, {:?}", why.trim_matches('"'))), "{refused}");
    }
}

/// Another version may take other arguments: it is not started, and asked again only when it has changed.
#[test]
fn a_cli_that_is_too_old_is_not_started() {
    let world = World::new();
    let (cli, asked) = (world.root.join("cli"), world.root.join("asked"));
    let write = |version: &str| {
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = -v ] && {{ echo x >> {}; echo cli {version}; exit; }}\ncat\n",
            asked.display()
        );
        executable(&cli, &text, 0o755);
    };
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    let manifest = format!(
        "version: 1\nname: old\ntitle: old\nbinaries: [{}]\nversion_probe: {{args: [-v], min: \"2.0.0\"}}\nlanes:\n  \
         headless: {{args: [], prompt_by: stdin, parser: text}}\npermissions: {{read: [], work: []}}\n",
        cli.display()
    );
    std::fs::write(world.repo.join(".vnx/providers/old.yaml"), manifest).unwrap();
    world.agent("worker", "permissions: work");
    let dispatch = || world.vnx(&["dispatch-agent", "--provider", "old", "--agent", "worker", "--no-pane", "-i", "x"]);
    write("1.9");
    let refused = dispatch().expect(5).err;
    assert!(refused.contains("old 1.9 is older than 2.0.0, the oldest that vnx works with"), "{refused}");
    assert_eq!(world.count("dispatch.claimed"), 0);
    write("2.0.1");
    for _ in 0..2 {
        dispatch().expect(4);
    }
    assert_eq!(std::fs::read_to_string(&asked).unwrap().lines().count(), 2, "once each");
}

/// Every broken file is named, and what is slow is not called broken.
#[test]
fn doctor_names_every_broken_file() {
    let world = World::new();
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    for name in ["one", "two"] {
        std::fs::write(world.repo.join(format!(".vnx/providers/{name}.yaml")), "version: x\n").unwrap();
        world.agent(name, "permissions: everything");
    }
    let told = world.vnx(&["doctor"]).out;
    for name in ["providers/one.yaml", "providers/two.yaml", "agents/one", "agents/two"] {
        assert!(told.contains(name), "{name}\n{told}");
    }
    assert!(told.contains("4 can be dispatched: backend-developer"), "{told}");
}
