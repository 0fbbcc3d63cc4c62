//! Nothing that a worker or a gate has started outlives it, and nothing that a worker leaves keeps anybody waiting.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::World;

const SHELL: [&str; 6] = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];

fn dispatch(world: &World, id: &str, script: &str) -> crate::common::Run {
    world.vnx(&[&SHELL[..], &["--id", id, "-i", script]].concat())
}

fn is_over(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

fn pid_in(file: &Path) -> i32 {
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Each process of a chain forks the next one and exits, so that a listing meets only the dead. The kernel knows.
#[test]
fn a_chain_of_forks_ends_with_its_worker() {
    let world = World::new();
    world.config("defaults: {grace: 100ms}\n");
    // In one group, each in a session of its own, several at once, and with a pause.
    for (n, (chains, new_session, pause)) in
        [(1, false, 0.0), (1, true, 0.0), (6, true, 0.0), (2, true, 0.002)].iter().enumerate()
    {
        let (id, beat) = (format!("chain{n}"), world.root.join(format!("beat{n}")));
        let python = format!(
            "import os,signal,time\nfor s in range(1,32):\n  try: signal.signal(s,signal.SIG_IGN)\n  except (OSError,ValueError): pass\n\
             f=os.open(\"{beat}\",os.O_RDWR|os.O_CREAT)\nn=os.open(os.devnull,os.O_RDWR)\n\
             for i in range(3): os.dup2(n,i)\nos.setsid()\nfor i in range({chains}-1):\n  if not os.fork(): break\n\
             end=time.monotonic()+60\nwhile time.monotonic()<end:\n  if os.fork(): os._exit(0)\n  os.write(f,b\"x\")\n  {setsid}\n  time.sleep({pause})",
            beat = beat.display(),
            setsid = if *new_session { "os.setsid()" } else { "pass" },
        );
        let script = format!(
            "echo {n} > f; git add f; git commit -qm f; python3 -c '{python}' & until [ -s {} ]; do sleep 0.02; done",
            beat.display()
        );
        let run = dispatch(&world, &id, &script).expect(0);
        let beats = || std::fs::metadata(&beat).unwrap().len();
        let then = beats();
        std::thread::sleep(Duration::from_millis(100));
        assert!(then > 0 && beats() == then, "{n}: it goes on; {}", run.out);
        assert_eq!(world.last("dispatch.closed")["containment"]["empty"], true);
        assert!(world.last("dispatch.closed")["containment"]["sigkill"].as_u64() > Some(0));
    }
}

/// What a killed supervisor leaves is ended before the dispatch is free, whatever it has shed; its story is not good.
#[test]
fn a_killed_supervisors_guard_ends_what_it_leaves() {
    let world = World::new();
    let pid = world.root.join("pid");
    let script = format!(
        "echo 1 > f; git add f; git commit -qm f\n\
         env -i setsid sh -c 'cd /; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300' & until [ -e {0} ]; do sleep 0.01; done\n\
         kill -9 $PPID; sleep 300",
        pid.display()
    );
    let run = dispatch(&world, "lost", &script).expect(4);
    assert!(run.out.contains("supervisor_lost"), "{}", run.out);
    assert!(is_over(pid_in(&pid)));
    assert_eq!(world.last("dispatch.closed")["containment"]["empty"], false, "nobody saw it end");
    // A gate's runner has a guard too.
    world.config("gates:\n  tests: {command: \"env -i setsid sh -c 'cd /; echo $$ > FILE.new; mv FILE.new FILE; exec sleep 300' & until [ -e FILE ]; do sleep 0.01; done; kill -9 $PPID; sleep 300\"}\n".replace("FILE", &format!("{}.gate", pid.display())).as_str());
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "-qm", "gates"]);
    dispatch(&world, "good", "echo 2 > g; git add g; git commit -qm g").expect(0);
    world.vnx(&["gate", "run", "good"]).expect(1);
    assert_eq!(world.last("gate.resulted")["status"], "unverified");
    assert!(is_over(pid_in(&world.root.join("pid.gate"))));
}

/// Where the guard was killed too, the next command ends what stands in the worktree, and nobody who only looks at it.
#[test]
fn the_next_command_ends_what_stands_in_a_lost_worktree() {
    let world = World::new();
    let pid = world.root.join("pid");
    let script =
        format!("env -i setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300' & sleep 300", pid.display());
    world.vnx(&[&SHELL[..], &["--id", "lost", "--detach", "-i", &script]].concat()).expect(0);
    world.until("what it starts", || pid.exists());
    let mut looks = world.command("sleep").arg("300").current_dir(world.worktrees().join("lost")).spawn().unwrap();
    world.kill_supervisor_and_guard();
    assert!(!is_over(pid_in(&pid)));
    world.vnx(&["ps"]).expect(0);
    assert!(is_over(pid_in(&pid)));
    assert!(looks.try_wait().unwrap().is_none(), "a person's own was ended");
    looks.kill().unwrap();
    looks.wait().unwrap();
    let closed = world.last("dispatch.closed");
    assert_eq!(
        (&closed["verdict"]["outcome"], &closed["containment"]["empty"]),
        (&"supervisor_lost".into(), &false.into())
    );
}

/// Whoever kills the guard first ends the worker with it.
#[test]
fn a_dispatch_ends_with_its_guard() {
    let world = World::new();
    let guard = "$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' /proc/$PPID/stat)";
    let run = dispatch(&world, "unguarded", &format!("setsid sleep 300 & kill -9 {guard}; sleep 300"));
    assert_ne!(run.code, 0);
    world.until("nothing of it to run", || world.processes().is_empty());
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.last("dispatch.closed")["verdict"]["decision"], "reject");
}

/// Pipes, devices and links to them in the place of files that git opens.
#[test]
fn nobody_waits_for_a_pipe_in_the_place_of_a_file() {
    let world = World::new();
    world.git(&["pack-refs", "--all"]);
    let places = [
        ("rm $G/index; mkfifo $G/index", ""),
        ("rm $G/index; mkfifo $G/aside; ln -s aside $G/index", ""),
        ("rm $G/HEAD; ln -s /dev/zero $G/HEAD", ""),
        ("rm $G/logs/HEAD $G/commondir; mkfifo $G/logs/HEAD $G/commondir $G/MERGE_HEAD", ""),
        ("rm $G/gitdir; mkfifo $G/gitdir", ""),
        ("rm .git; mkfifo .git", ""),
        ("mkdir sub; mkfifo .gitignore sub/.gitattributes .gitmodules", ""),
        (
            "git commit -q --allow-empty -m x; mkfifo $C/pipe; mv $C/pipe $C/refs/heads/vnx/$VNX_DISPATCH_ID",
            "refs/heads/vnx/place7",
        ),
        ("mkfifo $C/pipe; mv $C/pipe $C/info/exclude", "info/exclude"),
        ("mkfifo $C/pipe; mv $C/pipe $C/packed-refs", "packed-refs"),
    ];
    let common = world.repo.join(".git");
    for (n, (script, shared)) in places.iter().enumerate() {
        let before = std::fs::read(common.join("packed-refs")).unwrap();
        let (id, begun) = (format!("place{n}"), Instant::now());
        let script =
            format!("G=$(git rev-parse --git-dir) C=$(git rev-parse --git-common-dir); echo x > precious; {script}");
        let run = dispatch(&world, &id, &script).expect(4);
        assert!(begun.elapsed() < Duration::from_secs(20), "{n}: {:?}", begun.elapsed());
        assert!(world.worktrees().join(&id).join("precious").exists(), "{n}: {}", run.out);
        if !shared.is_empty() {
            // That is for a person to mend, who is told.
            let kept = world.last("worktree.kept")["reason"].as_str().unwrap().to_owned();
            assert!(kept.contains(shared), "{n}: {kept}");
            std::fs::remove_file(common.join(shared)).unwrap();
            std::fs::write(common.join("packed-refs"), before).unwrap();
        }
        dispatch(&world, &format!("next{n}"), "echo y > y; git add y; git commit -qm y").expect(0);
    }
    world.vnx(&["worktree", "gc"]);
    world.until("no git to wait", || !world.processes().iter().any(|(_, command)| command.contains("git ")));
}

/// A supervisor that was stopped says nothing; everybody else says so, and the order to end its worker ends it.
#[test]
fn nobody_waits_for_a_supervisor_that_is_stopped() {
    let world = World::new();
    for who in [" supervise ", " __guard "] {
        let id = format!("stopped{}", usize::from(who.contains("guard")));
        world.vnx(&[&SHELL[..], &["--id", &id, "--detach", "-i", "setsid sleep 300 & sleep 300"]].concat()).expect(0);
        world.until("the worker", || world.vnx(&["ps", "--json"]).out.contains("\"state\":\"working\""));
        let (pid, _) = world.processes().into_iter().find(|(_, command)| command.contains(who)).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
        let waited = world.vnx(&["wait", &id]).expect(75);
        assert!(
            waited.err.contains("is stopped") && waited.err.contains(&format!("kill -CONT {pid}")),
            "{}",
            waited.err
        );
        if who.contains("supervise") {
            let said = world.vnx(&["cancel", &id]).expect(75);
            assert!(said.err.contains("cancel --now"), "{}", said.err);
            world.vnx(&["send", &id, "hello"]).expect(75);
        }
        world.vnx(&["ps"]).expect(0);
        world.vnx(&["show", &id]).expect(0);
        world.vnx(&["cancel", "--now", &id]).expect(0);
        assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "cancelled");
        world.until("nothing of it to run", || world.processes().is_empty());
    }
}

/// A command that leaves something running has not passed, and what it left is ended; a probe's service is ended by the
/// probe.
#[test]
fn a_gate_that_leaves_processes_behind_does_not_pass() {
    let world = World::new();
    world.config(
        "gates:\n  leaves: {command: 'setsid sleep 300 >/dev/null 2>&1 & true'}\n  \
         waits: {command: 'sleep 0.3 & wait'}\n  \
         probe: {probe: {start: 'setsid sleep 300 & sleep 300', checks: [{run: 'true'}]}}\n",
    );
    world.git(&["add", ".vnx"]);
    world.git(&["commit", "-qm", "gates"]);
    dispatch(&world, "work", "echo 1 > f; git add f; git commit -qm f").expect(0);
    for (gate, status, code) in [("leaves", "fail", 1), ("waits", "pass", 0), ("probe", "pass", 0)] {
        world.vnx(&["gate", "run", "work", gate]).expect(code);
        let said = world.last("gate.resulted");
        assert_eq!(said["status"], status, "{gate}: {said}");
        if gate == "leaves" {
            assert!(said["reason"].as_str().unwrap().contains("left processes behind"), "{said}");
        }
        world.until("nothing of it to run", || world.processes().is_empty());
    }
    world.vnx(&["gate-check", "work"]).expect(1);
}

/// Where no thread and no process can be had, vnx does it in turn or says why it cannot; it does not crash.
#[test]
fn a_limit_on_processes_is_an_error_and_no_crash() {
    let world = World::new();
    let go = |args: &[&str], from: usize| {
        let inject = format!("inject=clone3:error=EAGAIN:when={from}+");
        let strace =
            ["-f", "-b", "execve", "-q", "-o", "/dev/null", "-e", "trace=clone3", "-e", &inject, World::binary()];
        let output = world.command("strace").args(strace).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code().is_some_and(|code| code < 70) && !said.contains("panicked"),
            "{args:?} {from}: {said}"
        );
        (output.status.code(), said)
    };
    for from in 1..8 {
        go(&["doctor"], from);
        go(&["status"], from);
        go(&["audit-chain", "verify"], from);
        let (code, said) = go(&[&SHELL[..], &["--detach", "--dry-run", "-i", "true"]].concat(), from);
        assert!(code == Some(0) || code == Some(5) && said.contains("ulimit -u"), "{from}: {code:?} {said}");
    }
}
