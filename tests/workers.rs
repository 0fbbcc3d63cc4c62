//! Workers that misbehave: the supervisor neither hangs nor bloats, and nothing escapes it.

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{World, names};

fn dispatch<'a>(script: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i", script][..], more].concat()
}

fn grace(world: &World, grace: &str) {
    let text = format!("version: 1\nproject_id: repo\ndefaults: {{grace: {grace}}}\n");
    std::fs::write(world.repo.join(".vnx/config.yaml"), text).unwrap();
}

#[test]
fn a_gigabyte_of_output_neither_hangs_nor_bloats() {
    let world = World::new();
    let child = world.start(&dispatch(
        "head -c 1000000000 /dev/zero | tr '\\0' 'x' | fold -w 200; echo x > x; git add x; git commit -qm x",
        &[],
    ));
    // The highest resident size of the supervisor, as the kernel counted it.
    let mut peak = 0;
    let mut child = child;
    while child.try_wait().unwrap().is_none() {
        for (pid, command) in world.processes() {
            if command.contains(" supervise ") {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
                peak = peak.max(line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0));
            }
        }
        std::thread::yield_now();
    }
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(peak > 0 && peak < 40_000, "the supervisor had {peak} kB");
    let exited = world.last("dispatch.exited");
    assert!(exited["stdout_bytes"].as_u64().unwrap() >= 1_000_000_000);
    let recording = world.state().join("dispatches").join(world.last_id()).join("events.ndjson");
    assert!(std::fs::metadata(&recording).unwrap().len() < 150 << 20);
    assert!(std::fs::read_to_string(&recording).unwrap().contains("the recording ends here"));
}

#[test]
fn a_line_without_end_and_a_closed_output_are_survived() {
    let world = World::new();
    world.script("head -c 50000000 /dev/zero; exec >&- 2>&-; echo x > x; git add x; git commit -qm x").expect(0);
    world.script("printf 'a\\033]0;title\\007b\\033[2Kc\\r\\377\\376\\n'; exit 1").expect(1);
    let logs = world.vnx(&["logs"]).expect(0);
    assert!(!logs.out.contains('\u{1b}') && !logs.out.contains('\u{7}'), "{:?}", logs.out);
    world.assert_nothing_left();
}

/// What is no text does not get into the verdict; what can be read before it does.
#[test]
fn a_verdict_is_readable_whatever_the_worker_writes() {
    let world = World::new();
    let bytes = r"printf '\037\213\010\000\377\325\033[31m\376k\001\002\033]0;t\007\200\n' >&2; exit 3";
    for (before, words) in [("", "the worker exited with code 3"), ("echo 'no space' >&2\n", "no space")] {
        world.vnx(&dispatch(&format!("{before}{bytes}"), &[])).expect(1);
        assert_eq!(world.last("dispatch.closed")["verdict"]["reason"], words);
    }
    // A terminal makes text of it, which is no nicer to read, but bounded and harmless.
    world.vnx(&dispatch("head -c 100000 /dev/urandom; exit 3", &["--lane", "interactive"])).expect(1);
    let reason = world.last("dispatch.closed")["verdict"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.chars().count() <= 300 && !reason.chars().any(char::is_control), "{reason:?}");
    world.assert_nothing_left();
}

#[test]
fn a_worker_that_never_reads_its_input_does_not_hang() {
    let world = World::new();
    // sh reads its script from standard input as it goes; what follows `exec` is never read.
    let script = format!("exec sleep 0.1\n{}", "# never read by anybody\n".repeat(20_000));
    let file = world.root.join("script");
    std::fs::write(&file, script).unwrap();
    let run =
        world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-f", file.to_str().unwrap()]);
    assert!(run.expect(4).out.contains("empty"));
}

#[test]
fn whatever_a_worker_leaves_behind_is_ended_and_named() {
    let world = World::new();
    grace(&world, "300ms");
    let script = "sleep 1000 & setsid sleep 1001 & (setsid sh -c 'trap \"\" TERM; touch $TMPDIR/deaf; sleep 1002 & wait' &) ; nohup sleep 1003 >/dev/null 2>&1 &\n\
                  until [ -e $TMPDIR/deaf ]; do :; done; echo x > x; git add x; git commit -qm x";
    world.vnx(&dispatch(script, &[])).expect(0);
    let containment = &world.last("dispatch.closed")["containment"];
    assert_eq!(containment["empty"], true, "{containment}");
    assert!(containment["survivors"].as_array().unwrap().len() >= 4, "{containment}");
    assert!(
        containment["sigterm"].as_u64().unwrap() >= 4 && containment["sigkill"].as_u64().unwrap() >= 1,
        "{containment}"
    );
    world.assert_nothing_left();
}

#[test]
fn deadlines_end_the_whole_tree() {
    let world = World::new();
    grace(&world, "200ms");
    let run = world.vnx(&dispatch("while :; do echo tick; sleep 0.05; done", &["--deadline", "600ms"])).expect(124);
    assert!(run.out.contains("timeout_total"), "{}", run.out);
    let run = world.vnx(&dispatch("echo once; setsid sleep 1000", &["--idle", "400ms"])).expect(1);
    assert!(run.out.contains("timeout_idle"), "{}", run.out);
    let run = world.vnx(&dispatch("trap '' TERM; while :; do :; done", &["--deadline", "300ms"])).expect(124);
    assert!(run.out.contains("timeout_total"), "{}", run.out);
    world.assert_nothing_left();
    world.assert_verified();
}

#[test]
fn cancel_ends_a_worker_and_keeps_its_work() {
    let world = World::new();
    let id = world
        .vnx(&dispatch("echo precious > f; echo ready; sleep 1000", &["--detach"]))
        .expect(0)
        .out
        .trim()
        .to_owned();
    world.until("the worker to be ready", || world.vnx(&["logs", &id]).out.contains("ready"));
    world.vnx(&["cancel", &id]).expect(0);
    let again = world.vnx(&["cancel", &id]).expect(1);
    assert!(again.out.contains("was over already"), "{}", again.out);
    world.vnx(&["wait", &id]).expect(130);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "cancelled");
    assert_eq!(world.git(&["show", &format!("refs/vnx/rescue/{id}:f")]), "precious");
    assert!(world.worktrees().join(&id).join("f").exists());
}

#[test]
fn several_are_cancelled_at_once() {
    let world = World::new();
    let start = || world.vnx(&dispatch("echo ready; sleep 1000", &["--detach"])).expect(0).out.trim().to_owned();
    let ids = [start(), start(), start()];
    // One that cannot be meant ends none.
    world.vnx(&["cancel", &ids[0], "nothing"]).expect(2);
    assert_eq!(world.count("dispatch.closed"), 0);
    world.vnx(&["cancel", &ids[0], "--now"]).expect(0);
    let run = world.vnx(&["cancel", "--json", "--now", &ids[2], &ids[0], &ids[1], &ids[1]]).expect(1).json();
    let told = [(&ids[2], true), (&ids[0], false), (&ids[1], true)]
        .map(|(id, accepted)| serde_json::json!({"id": id, "accepted": accepted}));
    assert_eq!(run["dispatches"], serde_json::Value::from(told.to_vec()), "{run:#}");
    world.assert_nothing_left();
}

#[test]
fn control_c_cancels_and_a_second_one_skips_the_grace() {
    let world = World::new();
    grace(&world, "60s");
    for stubborn in [false, true] {
        let script = if stubborn {
            "trap '' TERM INT; echo ready; while :; do sleep 0.05; done"
        } else {
            "echo ready; sleep 1000"
        };
        let child = world.start(&dispatch(script, &[]));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        world.until("the worker to be ready", || {
            world.vnx(&["logs"]).out.contains("ready") && world.vnx(&["ps"]).out.contains("working")
        });
        kill_process(pid, Signal::INT).unwrap();
        if stubborn {
            world.until("the first to be taken", || world.vnx(&["ps"]).out.contains("ending"));
            kill_process(pid, Signal::INT).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "signal {:?}", output.status.signal());
    }
    world.assert_nothing_left();
    world.assert_verified();
}

#[test]
fn the_worker_gets_an_allow_listed_environment() {
    let mut world = World::new();
    for name in ["SECRET_THING", "TMUX", "TMUX_PANE", "VNX_STATE_DIRX", "CLAUDECODE", "GIT_AUTHOR_NAME", "LD_PRELOAD"] {
        world.set(name, "leaked");
    }
    world.unset("TMUX");
    world.script("env > e; exit 1").expect(1);
    let id = world.last_id();
    let env = world.git(&["show", &format!("refs/vnx/rescue/{id}:e")]);
    assert!(!env.contains("leaked"), "{env}");
    assert!(env.contains(&format!("VNX_DISPATCH_ID={id}")) && env.contains("HOME="), "{env}");
}

#[test]
fn a_worker_killed_from_outside_is_not_a_success() {
    let world = World::new();
    let run = world.vnx(&dispatch("echo x > x; git add x; git commit -qm x; kill -9 $$", &[])).expect(1);
    assert!(run.out.contains("killed"), "{}", run.out);
    assert_eq!(world.git(&["branch", "--list", "vnx/*"]).lines().count(), 1, "its commit stays");
}

/// A worker has a folder for temporary files and a block of ports of its own; both go with it, also when
/// its supervisor is killed.
#[test]
fn temporary_files_and_ports_are_a_workers_own() {
    let mut world = World::new();
    std::fs::create_dir(world.root.join("tmp")).unwrap();
    world.set("TMPDIR", world.root.join("tmp"));
    let script = "echo \"$TMPDIR $VNX_PORT $VNX_PORTS\"; stat -c %a \"$TMPDIR\"; mktemp -d; touch begun; while [ ! -e go ]; do sleep 0.02; done; rm begun go";
    let mut running: Vec<_> = (0..2).map(|_| world.start_script(script)).collect();
    let trees = || names(&world.worktrees());
    world.until("both to begin", || {
        trees().len() == 2 && trees().iter().all(|t| world.worktrees().join(t).join("begun").exists())
    });
    let words: Vec<String> = trees().iter().map(|id| world.vnx(&["logs", id]).expect(0).out).collect();
    let first = |text: &str| text.split_whitespace().nth(1).unwrap().parse::<u16>().unwrap();
    assert!(first(&words[0]).abs_diff(first(&words[1])) >= 10, "{words:?}");
    for (id, text) in trees().iter().zip(&words) {
        assert!(text.contains(&format!("/tmp/vnx-{id}-")) && text.contains("\n700\n"), "{text}");
    }
    let ids = trees();
    std::fs::write(world.worktrees().join(&ids[0]).join("go"), "").unwrap();
    world.vnx(&["wait", &ids[0]]);
    assert!(!names(&world.root.join("tmp")).iter().any(|name| name.contains(&ids[0])));
    let supervisor = world.processes().into_iter().find(|(_, c)| c.contains("supervise") && c.contains(&ids[1]));
    let pid = Pid::from_raw(supervisor.unwrap().0).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    for child in &mut running {
        let _ = child.wait();
    }
    world.vnx(&["ps"]).expect(0);
    assert_eq!(names(&world.root.join("tmp")), Vec::<String>::new());
}

/// Two projects share the ports of the machine: dispatches of the same id would begin with the same block.
#[test]
fn ports_are_a_workers_own_beside_other_projects() {
    let worlds = [World::new(), World::new()];
    let script = "echo \"$VNX_PORT\"; touch begun; while [ ! -e go ]; do sleep 0.02; done; rm begun go";
    let args =
        ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "--detach", "--id", "same"];
    let first = worlds.each_ref().map(|world| {
        world.vnx(&[&args[..], &["-i", script]].concat()).expect(0);
        let tree = world.worktrees().join("same");
        world.until("it to begin", || tree.join("begun").exists());
        world.vnx(&["logs", "same"]).expect(0).out.trim().parse::<u16>().unwrap()
    });
    assert!(first[0].abs_diff(first[1]) >= 10, "{first:?}");
    for world in &worlds {
        std::fs::write(world.worktrees().join("same/go"), "").unwrap();
        world.vnx(&["wait", "same"]).expect(4);
    }
}

/// A name for temporary files that is taken costs nobody anything: the folder gets another name, which recovery
/// knows as well, and what had the name stays as it is.
#[test]
fn a_taken_name_for_temporary_files_is_left_alone() {
    let mut world = World::new();
    let tmp = world.root.join("tmp");
    std::fs::create_dir_all(tmp.join("vnx-taken")).unwrap();
    std::fs::write(tmp.join("vnx-taken/theirs"), "").unwrap();
    std::os::unix::fs::symlink(&world.root, tmp.join("vnx-linked")).unwrap();
    world.set("TMPDIR", &tmp);
    let script = "echo \"$TMPDIR\"; stat -c %a \"$TMPDIR\"; mktemp; touch begun; while [ ! -e go ]; do sleep 0.02; done; rm begun go";
    for id in ["taken", "linked"] {
        let mut running = world.start(&dispatch(script, &["--id", id]));
        world.until("the worker to begin", || world.worktrees().join(id).join("begun").exists());
        let said = world.vnx(&["logs", id]).expect(0).out;
        assert!(said.contains(&format!("/tmp/vnx-{id}-")) && said.contains("\n700\n"), "{said}");
        assert_eq!(names(&tmp).len(), 3);
        if id == "linked" {
            std::fs::write(world.worktrees().join(id).join("go"), "").unwrap();
        } else {
            let supervisor = world.processes().into_iter().find(|(_, c)| c.contains("supervise"));
            kill_process(Pid::from_raw(supervisor.unwrap().0).unwrap(), Signal::KILL).unwrap();
        }
        let _ = running.wait();
        world.vnx(&["ps"]).expect(0);
        assert_eq!(names(&tmp), ["vnx-linked", "vnx-taken"]);
    }
    assert!(tmp.join("vnx-taken/theirs").exists() && world.repo.exists());
}

/// Each attempt is a dispatch of its own; what cannot get better is not tried again, and another provider is
/// tried where the agent lists one.
#[test]
fn attempts_are_dispatches_of_their_own() {
    let world = World::new();
    let count = world.root.join("count");
    let script =
        format!("echo x >> {0}; test $(wc -l < {0}) -ge 3; echo y > f; git add f; git commit -qm f", count.display());
    let args = dispatch(&script, &["--retry", "5"]);
    let run = world.vnx(&args).expect(0);
    assert_eq!((world.count("dispatch.closed"), run.err.matches("again ").count()), (3, 2), "{}", run.err);
    let plan =
        std::fs::read_to_string(world.state().join("dispatches").join(world.last_id()).join("plan.json")).unwrap();
    assert!(plan.contains("another attempt at "), "{plan}");
    // Nothing was changed: no second attempt makes that better.
    world.vnx(&dispatch("true", &["--retry", "5"])).expect(4);
    assert_eq!(world.count("dispatch.closed"), 4);
    world.vnx(&dispatch("exit 1", &["--retry", "2"])).expect(1);
    assert_eq!(world.count("dispatch.closed"), 7);
    world.agent("patient", "provider: codex-oss\nfallbacks: [shell]");
    let args = ["dispatch-agent", "--agent", "patient", "--no-pane", "-i", "echo z > g; git add g; git commit -qm g"];
    let run = world.vnx(&args).expect(0);
    assert!(run.err.contains("another attempt on shell"), "{}", run.err);
    world.vnx(&[&args[..], &["--retry", "1", "--detach"]].concat()).expect(2);
    world.assert_nothing_left();
}

/// The key that leaves a screen leaves a stream, too, and ends nobody.
#[test]
fn the_key_that_detaches_leaves_a_headless_worker() {
    let world = World::new();
    let go = world.root.join("go");
    let running = world.start_script(&format!("echo here; until [ -e {} ]; do sleep 0.02; done", go.display()));
    world.until("the worker", || world.count("dispatch.started") == 1);
    let mut attached = world.start(&["attach"]);
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(attached.stdout.take().unwrap()));
    assert!(said.any(|line| line.unwrap().contains("here")));
    let attached_to = rustix::process::Pid::from_child(&attached);
    rustix::process::kill_process(attached_to, rustix::process::Signal::QUIT).unwrap();
    assert_eq!(attached.wait().unwrap().code(), Some(0));
    std::fs::write(go, "").unwrap();
    assert_eq!(running.wait_with_output().unwrap().status.code(), Some(4));
    world.assert_nothing_left();
}
