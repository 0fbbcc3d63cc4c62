//! `vnx status`: the screen that one leaves open.

use serde_json::json;

use crate::common::World;

#[test]
fn one_screen_tells_what_there_is_and_what_to_do() {
    let world = World::new();
    let told = |world: &World| world.vnx(&["status"]).expect(0).out;
    let empty = told(&world);
    for line in ["running  0 of 32", "today    nothing closed", "verified, never anchored", "nothing is running"] {
        assert!(empty.contains(line), "{empty}");
    }
    assert!(empty.contains("start one: `vnx dispatch-agent --agent hello-world`"), "{empty}");
    // What it suggests is what one can type.
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    world.script("exit 3").expect(1);
    let later = told(&world);
    assert!(later.contains("today    1 accept, 1 reject"), "{later}");
    assert!(later.contains(&world.last_id()) && later.contains("reject cli_crash"), "{later}");
    let json = world.vnx(&["status", "--json"]).expect(0).json();
    assert_eq!(
        (&json["schema"], &json["today"]["accepted"], &json["today"]["rejected"]),
        (&json!("vnx.status/1"), &json!(1), &json!(1))
    );
    assert_eq!(json["ledger"]["receipts"], world.receipts().len());
    assert_eq!(json["last"][1]["data"]["verdict"]["outcome"], "cli_crash");
    // Looking wrote nothing.
    assert_eq!(world.vnx(&["status", "--json"]).json()["ledger"], json["ledger"]);
    world.assert_verified();
}

#[test]
fn a_ledger_that_was_edited_is_the_first_thing_one_sees() {
    let world = World::new();
    world.script("exit 3").expect(1);
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), text.replacen("cli_crash", "cli_cras!", 1)).unwrap();
    let run = world.vnx(&["status"]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.out.contains("does not verify") && run.out.contains("vnx audit-chain verify"), "{}", run.out);
    assert!(world.vnx(&["status", "--json"]).json()["ledger"]["disbelieved"].is_string());
    // Also where it is the last receipt, after which nothing can be appended: what runs is still to be seen.
    std::fs::write(world.ledger(), text.replacen("\"code\":3", "\"code\":0", 9)).unwrap();
    let run = world.vnx(&["status"]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.out.contains("running  0 of 32") && run.out.contains("does not verify"), "{}", run.out);
}

/// Looking opens files in the folder that is watched: that must not wake whoever looks.
#[test]
fn it_sleeps_while_nothing_happens() {
    let world = World::new();
    world.script("exit 3").expect(1);
    let mut child = world.start(&["status", "--watch"]);
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<u64> = stat.rsplit(") ").next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
        // utime and stime, in hundredths of a second; the state is no number.
        fields[10] + fields[11]
    };
    let (before, begun) = (cpu(), std::time::Instant::now());
    world.until("three seconds to pass", || begun.elapsed().as_secs() >= 3);
    let used = cpu() - before;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(used < 60, "it used {used} hundredths of a second of three");
}

/// `q` leaves it, Ctrl-C as well, and the terminal is as it was.
#[test]
fn a_key_leaves_it() {
    let world = World::new();
    for (key, code) in [("q", 0), ("C-c", 130)] {
        let command = format!(
            "{} status --watch; echo left with $?; stty -a | grep -o ' echo '; exec sleep 1000",
            World::binary()
        );
        world.tmux(&["new-session", "-d", "-s", "status", "-x", "100", "-y", "20", &command]);
        let screen = || world.tmux(&["capture-pane", "-p", "-t", "=status:"]);
        world.until("the screen", || screen().contains("q leaves"));
        world.tmux(&["send-keys", "-t", "=status:", key]);
        world.until("its end", || screen().contains(&format!("left with {code}\n echo")));
        world.tmux(&["kill-session", "-t", "=status"]);
    }
}

#[test]
fn it_can_be_left_open_in_a_terminal_of_any_size() {
    let world = World::new();
    let mut child = world.start_script("while [ ! -e go ]; do sleep 0.05; done");
    world.until("the worker", || world.vnx(&["status", "--json"]).json()["dispatches"][0]["state"] == "working");
    let command = format!("{} status --watch; exec sleep 1000", World::binary());
    world.tmux(&["new-session", "-d", "-s", "status", "-x", "70", "-y", "14", &command]);
    let screen = || world.tmux(&["capture-pane", "-p", "-t", "=status:"]);
    let fits = |columns: usize| screen().lines().all(|line| line.chars().count() <= columns);
    world.until("the table", || screen().contains("working") && screen().contains("1 of 32"));
    assert!(fits(70) && !screen().contains("PANE") && !screen().contains("start one"), "{}", screen());
    world.tmux(&["resize-window", "-t", "=status:", "-x", "200", "-y", "14"]);
    world.until("the wide table", || screen().contains("PANE"));
    // What comes is shown, and what is gone is wiped.
    let id = world.vnx(&["status", "--json"]).json()["dispatches"][0]["id"].as_str().unwrap().to_owned();
    std::fs::write(world.worktrees().join(&id).join("go"), "").unwrap();
    child.wait().unwrap();
    world.until("the end", || screen().contains("nothing is running") && screen().contains("unproven"));
    assert!(!screen().contains("working") && screen().contains("kept     1 worktree"), "{}", screen());
    for n in 0..9 {
        world.script(&format!("exit {n}"));
    }
    world.tmux(&["resize-window", "-t", "=status:", "-x", "80", "-y", "12"]);
    // A tmux folds what stands there; it is drawn anew within a second.
    // Of an id it has what is not its time, so that there is room for what came of it.
    let short = || world.last_id().replacen(&world.last_id()[..16], "…", 1);
    let is_drawn = || screen().starts_with("vnx ") && screen().contains(&short()) && fits(80);
    world.until("the last receipts", is_drawn);
    world.tmux(&["kill-session", "-t", "=status"]);
}

/// Who only looks does not finish what lost its supervisor; it says who does.
#[test]
fn a_lost_supervisor_is_told_with_what_to_do() {
    let world = World::new();
    // A command in the foreground would finish it itself.
    let script = "while :; do sleep 0.05; done";
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "--detach", "-i"];
    world.vnx(&[&args[..], &[script]].concat()).expect(0);
    world.until("the worker", || world.vnx(&["status", "--json"]).json()["dispatches"][0]["state"] == "working");
    let said = world.root.join("said");
    let mut watch = world.command(World::binary());
    watch.args(["status", "--watch"]).stdout(std::fs::File::create(&said).unwrap());
    let mut watch = watch.spawn().unwrap();
    let says = |what: &str| world.until(what, || std::fs::read_to_string(&said).unwrap().contains(what));
    says("working");
    let supervisor = world.processes().into_iter().find(|(_, command)| command.contains(" supervise ")).unwrap();
    let pid = rustix::process::Pid::from_raw(supervisor.0).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    says("lost its supervisor\n  any next command finishes it");
    watch.kill().unwrap();
    watch.wait().unwrap();
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "supervisor_lost");
    world.assert_nothing_left();
}

#[test]
fn what_is_left_open_in_a_pipe_says_when_something_changes() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let world = World::new();
    let mut watch = world.command(World::binary());
    let mut child = watch.args(["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Read beside, so that what never comes ends the test.
    let (tell, told) = std::sync::mpsc::sync_channel(0);
    let reader = std::thread::spawn(move || {
        for line in lines {
            if tell.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    let next = || {
        let line = told.recv_timeout(std::time::Duration::from_mins(1)).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert_eq!(next()["today"]["rejected"], 0);
    world.script("exit 3").expect(1);
    while next()["today"]["rejected"] != 1 {}
    // Nobody listens any more: it ends when there is something to say.
    drop(told);
    world.script("exit 3").expect(1);
    world.until("the reader to leave", || reader.is_finished());
    world.script("exit 3").expect(1);
    let child = std::cell::RefCell::new(child);
    world.until("the watch to end", || child.borrow_mut().try_wait().unwrap().is_some());
    assert!(child.into_inner().wait().unwrap().success());
}
