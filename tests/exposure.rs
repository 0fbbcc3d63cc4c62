//! What is private stays private: secrets, the folders of the state, and what stands in their place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{World, names, until};

/// The value of a variable that passes to workers, one that stands in the URL of another, and the shape of a token.
const SECRETS: [&str; 3] =
    ["value-of-a-pass-listed-variable", "pass-phrase-in-a-url", "ghp_0123456789abcdefghijklmnopqrstuvwxyz01"];

/// Files below a folder, git's own left out.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&path, found),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

#[track_caller]
fn assert_clean(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in SECRETS {
        let at = text.find(secret).map(|at| &text[at.saturating_sub(60)..(at + secret.len()).min(text.len())]);
        assert!(at.is_none(), "{what} holds {at:?}");
    }
}

/// The instruction and what goes with it are kept word by word, because they are run and checked against their digests.
/// Nothing else is, and no screen shows them.
#[test]
fn secrets_stand_only_in_what_is_kept_word_by_word() {
    let mut world = World::new();
    let [value, password, token] = SECRETS;
    let variables = world.root.join("variables");
    std::fs::write(&variables, format!("SERVICE_TOKEN={value}\nDATABASE_URL=postgres://me:{password}@db.example/x\n"))
        .unwrap();
    let all = format!("{value} {password} {token}");
    // In hooks and gates by their shape and their environment: those have no file of variables.
    world.set("SERVICE_TOKEN", value);
    world.config(&format!(
        "gates:\n  g: {{command: 'echo {token}; echo {token} >&2; false'}}\nworktree:\n  hooks:\n    \
         post_create: [{{run: 'echo {token} $SERVICE_TOKEN $DATABASE_URL'}}]\n    pre_remove: [{{run: 'echo {token}'}}]\n"
    ));
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "vnx"]);
    let script = format!(
        "# {all}\necho $SERVICE_TOKEN $DATABASE_URL {all}; echo {all} >&2; echo '{all}' > leaked; git add leaked; \
         git commit -qm 'with {token}'; echo '{all}' > untracked"
    );
    for lane in ["headless", "interactive"] {
        let route = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "--lane", lane];
        let run = world.vnx(&[&route[..], &["--env-file", variables.to_str().unwrap(), "-i", &script]].concat());
        assert_clean("a dispatch", format!("{}{}", run.out, run.err).as_bytes());
        world.vnx(&["gate", "run", "@last"]);
    }
    let mut found = Vec::new();
    files(&world.state(), &mut found);
    let verbatim = ["request.yaml", "prompt.md", "plan.json", "job.json"];
    let mut kept = 0;
    for file in &found {
        let name = file.file_name().unwrap().to_str().unwrap();
        if verbatim.contains(&name) && file.components().any(|part| part.as_os_str() == "dispatches") {
            kept += 1;
        } else {
            assert_clean(&file.display().to_string(), &std::fs::read(file).unwrap());
        }
        let mode = std::fs::metadata(file).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{} is readable by others", file.display());
    }
    assert!(kept >= 6 && found.iter().any(|f| f.ends_with("diff.patch")), "{found:?}");
    assert!(found.iter().any(|f| f.ends_with("terminal.cast")) && found.iter().any(|f| f.ends_with("report.md")));
    // The screens, for somebody who has the same variables.
    world.set("DATABASE_URL", format!("postgres://me:{password}@db.example/x"));
    for args in [
        &["show", "--prompt"][..],
        &["show", "--diff"],
        &["show", "--report"],
        &["show", "--prompt", "--json"],
        &["show", "--diff", "--json"],
        &["show"],
        &["show", "--why"],
        &["logs"],
        &["gate", "status"],
        &["gate", "show", "@last", "g"],
        &["receipts", "list"],
        &["receipts", "export"],
        &["status"],
        &["trust"],
    ] {
        let run = world.vnx(args);
        assert_clean(&format!("vnx {args:?}"), format!("{}{}", run.out, run.err).as_bytes());
    }
    assert!(world.vnx(&["show", "--prompt"]).expect(0).out.contains("[redacted:"));
    let shown = world.vnx(&["show", "--diff"]).expect(0).out;
    assert!(shown.contains("+[redacted:SERVICE_TOKEN] "), "{shown}");
}

fn dispatch(world: &World) -> crate::common::Run {
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i"];
    world.vnx(&[&args[..], &["echo a >> a; git add a; git commit -qm a; touch left"]].concat())
}

/// Whoever can write to the state decides what is run and what lands.
#[test]
fn a_state_that_others_can_write_is_refused() {
    let world = World::new();
    // As many systems have it: what vnx makes is private all the same.
    let umask = "umask 002; exec \"$@\"";
    let vnx = [World::binary(), "dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i"];
    for _ in 0..2 {
        let mut command = world.command("sh");
        let script = "echo a >> a; git add a; git commit -qm a; touch left";
        assert!(command.args(["-c", umask, "sh"]).args(vnx).arg(script).status().unwrap().code() != Some(5));
    }
    let set = |folder: &Path, mode| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    let user_state = world.root.join("home/.local/state/vnx");
    for folder in [
        world.state(),
        world.state().join("dispatches"),
        world.state().join("receipts"),
        world.worktrees(),
        user_state,
        world.repo.join(".git"),
        world.repo.clone(),
        world.root.clone(),
    ] {
        let before = std::fs::metadata(&folder).unwrap().permissions().mode() & 0o7777;
        for mode in [0o777, 0o757] {
            set(&folder, mode);
            let refused = dispatch(&world).expect(5);
            let fix = format!("chmod go-w {}", folder.display());
            assert!(
                refused.err.contains("others than you may write to") && refused.err.contains(&fix),
                "{}",
                refused.err
            );
            let doctor = world.vnx(&["doctor"]).expect(1).out;
            assert!(doctor.contains("FAIL  writable"), "{doctor}");
        }
        set(&folder, before);
    }
    // A sticky folder above is as good as a closed one.
    set(&world.root, 0o1777);
    assert_ne!(dispatch(&world).code, 5);
    set(&world.root, 0o700);
    // Somebody else's.
    if rustix::process::geteuid().is_root() {
        let owner = |uid| std::os::unix::fs::chown(world.state(), Some(uid), None).unwrap();
        owner(12345);
        let refused = dispatch(&world).expect(5);
        assert!(refused.err.contains("belongs to user 12345"), "{}", refused.err);
        owner(0);
    }
}

/// A worker puts a link to a folder of somebody's in the place of its dispatch's folder.
#[test]
fn nothing_is_written_through_a_folder_that_was_swapped() {
    let world = World::new();
    let (victim, away) = (world.root.join("victim"), world.root.join("away"));
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("report.md"), "mine").unwrap();
    let swap = format!(
        "d={}/dispatches/$VNX_DISPATCH_ID; mv $d {}; ln -s {} $d; echo said; echo a > a; git add a; git commit -qm a",
        world.state().display(),
        away.display(),
        victim.display()
    );
    world.script(&swap).expect(0);
    assert_eq!(
        (names(&victim), std::fs::read_to_string(victim.join("report.md")).unwrap()),
        (vec!["report.md".to_owned()], "mine".into())
    );
    assert!(std::fs::read_to_string(away.join("report.md")).unwrap().contains("said"));
    assert!(away.join("diff.patch").exists() && world.count("dispatch.closed") == 1);
    // Recovery does not follow it either, and ends nothing that it cannot see.
    let mut child = world.start_script("exec sleep 600");
    world.until("a worker", || world.count("dispatch.started") == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    world.kill_supervisor_and_guard();
    let id = names(&world.state().join("open")).remove(0);
    let (folder, aside) = (world.state().join("dispatches").join(&id), world.root.join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    std::os::unix::fs::symlink(&victim, &folder).unwrap();
    let told = world.vnx(&["ps"]);
    assert!(told.err.contains("is not the folder that was made for"), "{}", told.err);
    assert_eq!((names(&victim), names(&world.state().join("open"))), (vec!["report.md".to_owned()], vec![id]));
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    world.vnx(&["ps"]);
    until("it to be finished", || names(&world.state().join("open")).is_empty());
}
