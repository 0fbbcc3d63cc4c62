//! The ledger from outside: what an editor of the file cannot hide.

use std::process::Stdio;

use crate::common::World;

fn two_dispatches() -> World {
    let world = World::new();
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    world.script("true").expect(4);
    world.assert_verified();
    world
}

#[test]
fn every_kind_of_tampering_is_named() {
    let world = two_dispatches();
    let sound = std::fs::read_to_string(world.ledger()).unwrap();
    let lines: Vec<&str> = sound.lines().collect();
    let join = |lines: &[&str]| lines.join("\n") + "\n";
    let without =
        |n: usize| join(&lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| *l).collect::<Vec<_>>());
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    let table = [
        (sound.replacen("\"decision\":\"unproven\"", "\"decision\":\"accept\"", 1), 1, "edited"),
        (without(3), 1, "deleted"),
        (without(0), 1, "deleted"),
        (join(&swapped), 1, "reordered"),
        (join(&[&lines[..2], &lines[1..]].concat()), 1, "inserted"),
        (sound.replace("\"v\":1", "\"v\":2"), 1, "format"),
        (sound.replacen('\n', "\n\n", 1), 1, "format"),
        (format!("\u{feff}{sound}"), 1, "format"),
        (sound.replacen('\n', "\r\n", 1), 1, "format"),
        (sound.clone() + "{\"v\":1", 4, "torn"),
        // What was acknowledged is not torn by a crash.
        (sound[..sound.len() - 10].to_owned(), 3, "truncated"),
        (String::new(), 3, "truncated"),
    ];
    for (text, code, kind) in table {
        std::fs::write(world.ledger(), text).unwrap();
        let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(code).json();
        assert_eq!(report["first_bad"]["kind"], kind, "{report}");
    }
    std::fs::remove_file(world.ledger()).unwrap();
    world.vnx(&["audit-chain", "verify"]).expect(3);
    std::fs::create_dir(world.ledger()).unwrap();
    world.vnx(&["audit-chain", "verify"]).expect(74);
}

#[test]
fn a_torn_tail_is_repaired_by_the_next_dispatch_and_recorded() {
    let world = two_dispatches();
    let bytes = std::fs::read(world.ledger()).unwrap();
    std::fs::write(world.ledger(), [&bytes[..], &bytes[..20]].concat()).unwrap();
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    world.assert_verified();
    assert_eq!(world.count("ledger.recovered"), 1);
    let name = world.last("ledger.recovered")["quarantine"].as_str().unwrap().to_owned();
    assert!(world.state().join("receipts/quarantine").join(name).exists());
}

/// The walk that SPEC.md prints, with the standard tools.
#[test]
fn sha256sum_alone_verifies_a_line() {
    let world = two_dispatches();
    let script = "tail -n 1 \"$0\" | tr -d '\\n' > line; (printf '\\0'; head -c -75 line) | sha256sum | cut -c1-64; tail -c 66 line | head -c 64";
    let output =
        world.command("sh").current_dir(&world.root).args(["-c", script]).arg(world.ledger()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = text.lines();
    let (computed, stored) = (parts.next().unwrap(), parts.next().unwrap());
    assert_eq!(computed, stored);
    assert!(include_str!("../receipts/SPEC.md").contains("(printf '\\0'; head -c -75 line) | sha256sum"));
}

/// The whole walk that SPEC.md prints, as printed.
#[test]
fn a_shell_with_sha256sum_and_jq_verifies_the_whole_ledger() {
    let world = two_dispatches();
    let spec = include_str!("../receipts/SPEC.md");
    let walk = spec.split("```sh\n").find(|block| block.contains("jq -r")).unwrap().split("```").next().unwrap();
    let run = || {
        let folder = world.ledger();
        world.command("sh").current_dir(folder.parent().unwrap()).args(["-c", walk]).output().unwrap()
    };
    let output = run();
    let head = world.vnx(&["audit-chain", "verify", "--json"]).expect(0).json()["head"].as_str().unwrap().to_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("head {head}\n"));
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), text.replacen("\"code\":0", "\"code\":1", 1)).unwrap();
    assert_eq!(run().status.code(), Some(1));
}

#[test]
fn tail_follows_what_is_appended() {
    let world = two_dispatches();
    let out = world.root.join("tail.out");
    let mut tail = world
        .command(World::binary())
        .args(["receipts", "tail", "-f", "-n", "1", "--json"])
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.until("tail to begin", || std::fs::read_to_string(&out).unwrap().contains("\"kind\":\"dispatch.closed\""));
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    world.until("tail to show it", || {
        std::fs::read_to_string(&out).unwrap().matches("\"kind\":\"dispatch.closed\"").count() == 2
    });
    tail.kill().unwrap();
    tail.wait().unwrap();
    let seqs: Vec<u64> = std::fs::read_to_string(&out)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.windows(2).all(|w| w[1] == w[0] + 1), "{seqs:?}");
}

/// A slow disk hurts by the number of times that it is waited for.
#[test]
fn a_dispatch_waits_for_the_disk_at_most_four_times() {
    let world = World::new();
    let trace = world.root.join("trace");
    let run = world
        .command("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync,execve", "-o"])
        .arg(&trace)
        .arg(World::binary())
        .args(["dispatch-agent", "--agent", "hello-world"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = std::fs::read_to_string(&trace).unwrap();
    // Programs by process, so that git's own syncs are told from ours.
    let mut program = std::collections::HashMap::new();
    let mut ours = 0;
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(path) = call.strip_prefix("execve(\"").and_then(|c| c.split('"').next()) {
            program.insert(pid.to_owned(), path.to_owned());
        } else if call.contains("sync") && !call.contains("resumed") {
            // Threads have no execve of their own: they are vnx's, git and the worker have none.
            let by = program.get(pid).map_or("vnx", String::as_str);
            ours += usize::from(by.ends_with("vnx"));
        }
    }
    assert!((1..=4).contains(&ours), "{ours} syncs:\n{text}");
}

/// Threat T-07: a limit on the size of files is an error that is told, and nothing is lost.
#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let world = two_dispatches();
    let before = std::fs::read(world.ledger()).unwrap();
    // In blocks of 512 or 1024 bytes, as the shell has it: less than the ledger has already.
    let limited = format!("ulimit -f 4; exec {} audit-chain seal", World::binary());
    let output = world.command("sh").args(["-c", &limited]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code > 0), "{output:?}");
    assert!(err.contains("vnx:") && err.contains("File too large"), "{err}");
    assert_eq!(std::fs::read(world.ledger()).unwrap(), before);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    world.assert_verified();
}

#[test]
fn a_copied_repository_shows_its_own_ledger() {
    let world = two_dispatches();
    let copy = world.root.join("copy");
    assert!(world.command("cp").arg("-a").arg(&world.repo).arg(&copy).status().unwrap().success());
    let shown = copy.join(".vnx/receipts").canonicalize().unwrap();
    assert_eq!(shown, copy.join(".git/vnx/receipts"));
}

#[test]
fn a_query_finds_what_is_asked_for_and_refuses_what_it_does_not_know() {
    let world = two_dispatches();
    let query = |args: &[&str]| {
        let run = world.vnx(&[&["receipts", "query", "--json"], args].concat()).expect(0);
        run.out.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()).collect::<Vec<_>>()
    };
    let closed = query(&["--kind", "dispatch.closed"]);
    assert_eq!(closed.len(), 2);
    assert_eq!(query(&["--outcome", "done"]).len() + query(&["--outcome", "empty"]).len(), 2, "{closed:?}");
    assert_eq!(query(&["--provider", "shell", "--kind", "dispatch.claimed"]).len(), 2);
    assert_eq!(query(&["--agent", "code-reviewer"]).len(), 0);
    let id = closed[0]["dispatch"].as_str().unwrap();
    let story = query(&["--dispatch", id]);
    assert!(story.len() >= 6 && story.iter().all(|r| r["dispatch"] == id), "{story:?}");
    assert_eq!(story[0]["kind"], "dispatch.requested");
    assert_eq!(query(&["--dispatch", id, "-n", "1"])[0]["kind"], "dispatch.closed");
    // By its last part too, and when only the ledger knows it.
    let end = id.rsplit('-').next().unwrap();
    let folder = world.state().join("dispatches").join(id);
    let away = world.root.join("away");
    std::fs::rename(&folder, &away).unwrap();
    assert_eq!(query(&["--dispatch", end]), story);
    std::fs::rename(&away, &folder).unwrap();
    let all = world.receipts().len();
    assert_eq!(query(&["--since", "1h"]).len(), all);
    assert_eq!(query(&["--until", "1h"]).len(), 0);
    let then = closed[0]["ts"].as_str().unwrap();
    assert_eq!(query(&["--since", then]).len() + query(&["--until", then]).len(), all);
    for (args, named) in [
        (["--kind", "dispatch.blessed"], "dispatch.closed"),
        (["--outcome", "well"], "no_change_needed"),
        (["--since", "yesterday"], "how long ago"),
        (["--agent", "../x"], "lower-case letters"),
        (["--dispatch", "nobody"], "there is no dispatch"),
    ] {
        let run = world.vnx(&[&["receipts", "query"], &args[..]].concat()).expect(2);
        assert!(run.err.contains(named), "{args:?}: {}", run.err);
    }
}
