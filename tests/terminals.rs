//! The interactive lane: a worker on a terminal of its own, which outlives every view of it.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Run, World};

/// A world with a provider of its own: a terminal program that records what it is given.
fn tui_world(end: &str) -> World {
    let mut world = World::new();
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs/tui.py");
    let manifest = format!(
        "version: 1\nname: tui\ntitle: a test program\nruns_assignment: true\nbinaries: [python3]\nlanes:\n  interactive:\n    args: [\"{}\"]\n    prompt_by: argument\n    parser: terminal\n    linger: 5s\n    \
         interactive: {{end: {end}, settle: 100ms, quit: [quit, \"\\r\"], allow_keys: y, deny_keys: n, dialogs: [{{name: permission, screen: Allow this, state: waiting_permission}}]}}\n\
         permissions: {{read: [], work: [], full: []}}\nenv: {{pass: [TUI_RECORD]}}\n",
        program.display()
    );
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    std::fs::write(world.repo.join(".vnx/providers/tui.yaml"), manifest).unwrap();
    let record = world.root.join("record");
    world.set("TUI_RECORD", &record);
    world
}

/// What the program was given, of one kind.
fn recorded(world: &World, key: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(world.root.join("record")).unwrap_or_default();
    let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines.filter_map(|l| l.get(key).cloned()).collect()
}

fn messages(world: &World) -> Vec<String> {
    let all = std::fs::read_to_string(world.root.join("record")).unwrap_or_default();
    let lines = all.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines.filter_map(|l| Some(l.get("message")?.as_str()?.to_owned())).collect()
}

#[track_caller]
fn start(world: &World, more: &[&str]) -> String {
    let args = ["dispatch-agent", "--provider", "tui", "--agent", "hello-world", "--lane", "interactive", "--detach"];
    world.vnx(&[&args[..], more].concat()).expect(0).out.trim().to_owned()
}

/// `vnx ps` says this of the one worker.
fn state(world: &World) -> String {
    let ps = world.vnx(&["ps", "--json"]).json();
    ps["dispatches"][0]["state"].as_str().unwrap_or("gone").to_owned()
}

#[track_caller]
fn until_state(world: &World, want: &str) {
    world.until(want, || state(world) == want);
}

#[test]
fn a_turn_that_is_over_ends_the_worker_and_its_reports_are_known() {
    let world = tui_world("after_turn");
    let args = ["dispatch-agent", "--provider", "tui", "--agent", "hello-world", "--lane", "interactive"];
    world.vnx(&[&args[..], &["-i", "do it"]].concat()).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["lane"], &closed["verdict"]["outcome"]), (&"interactive".into(), &"done".into()));
    assert_eq!(closed["containment"]["sigterm"], 0, "it was asked, not signalled: {closed}");
    let last = messages(&world);
    assert_eq!(last.last().map(String::as_str), Some("quit"));
    // The terminal answered with nobody attached.
    let queries = &recorded(&world, "queries")[0];
    assert_eq!(queries["version"], "\u{1b}[0n", "the terminal keeps its name to itself");
    assert_eq!(queries["da1"], "\u{1b}[?62;22c");
    assert_eq!(queries["cursor"], "\u{1b}[3;7R");
    assert_eq!(queries["status"], "\u{1b}]7501;?\u{1b}\\");
    assert_eq!(queries["size"], "\u{1b}[8;50;200t");
    let logs = world.vnx(&["logs"]).expect(0).out;
    assert!(logs.starts_with("tui is ready\n"), "{logs}");
    let json = world.vnx(&["logs", "--json"]).expect(0).out;
    assert!(json.matches("status_report").count() >= 2, "{json}");
    let raw = world.vnx(&["logs", "--raw"]).expect(0).out;
    assert!(raw.starts_with('{') && raw.contains("\"version\":2"), "{raw}");
    let cast = std::fs::read_to_string(world.state().join("dispatches").join(world.last_id()).join("terminal.cast"));
    assert!(cast.unwrap().contains("tui is ready"));
    world.assert_nothing_left();
    world.assert_verified();
}

/// Texts that would break out, be cut, or be changed on their way: each arrives as it is, or is refused.
#[test]
fn every_message_arrives_as_it_is_or_is_refused() {
    let world = tui_world("manual");
    let id = start(&world, &["-i", "first"]);
    until_state(&world, "idle");
    let large = "0123456789 abcdefghijklmnopqrstuvwxyz äöü 漢字 🙂\n".repeat(15_000);
    let arrives = [
        "plain",
        "two\nlines and\n\nmore",
        "a\ttab",
        "emoji 🙂 👩‍👩‍👧, right to left: שלום עולם مرحبا, combining e\u{301}",
        "$(touch pwned) `touch pwned` ; touch pwned | & > x \\ ' \"",
        "#(touch pwned) #{pane_id} %1 ~/x !! -flag",
        "--help",
        &large,
    ];
    for text in arrives {
        let run = world.vnx_with_input(&["send", &id, "-", "--json"], text.as_bytes());
        let answer = run.expect(0).json();
        assert_eq!(answer["delivery"], "delivered", "{answer}");
        let got = messages(&world).pop().unwrap();
        assert_eq!(got, text.trim_end_matches('\n'), "{} of {} bytes", got.len(), text.len());
        until_state(&world, "idle");
    }
    let before = messages(&world).len();
    for bad in ["\u{1b}[201~\rrm -rf x\r", "a\u{1b}b", "nul\0byte", "a\rb", "\u{9b}31m", "\u{7f}", "", "  \n ", "\u{3}"]
    {
        let answer = world.vnx_with_input(&["send", &id, "-", "--json"], bad.as_bytes()).expect(1).json();
        assert_eq!(answer["delivery"], "refused", "{bad:?}: {answer}");
        assert!(answer["fix"].is_string(), "{bad:?}: {answer}");
    }
    world.vnx_with_input(&["send", &id, "-"], b"\xff\xfe not UTF-8").expect(2);
    world.vnx_with_input(&["send", &id, "-"], &vec![b'x'; 1_000_001]).expect(2);
    assert_eq!(messages(&world).len(), before);
    assert!(!world.worktrees().join(&id).join("pwned").exists());
    world.vnx(&["send", &id, "quit"]);
    world.vnx(&["wait", &id]).expect(0);
    let over = world.vnx(&["send", &id, "too late"]).expect(1).out;
    assert!(over.contains("is over (done)") && over.contains("fix: `vnx show "), "{over}");
    world.assert_nothing_left();
}

#[test]
fn a_text_for_a_busy_worker_is_staged_and_one_for_a_headless_worker_is_refused() {
    let world = tui_world("manual");
    let id = start(&world, &["-i", "hang"]);
    until_state(&world, "working");
    let run = world.vnx(&["send", &id, "later"]).expect(4);
    assert!(run.out.starts_with("queued"), "{}", run.out);
    world.vnx(&["cancel", &id, "--now"]).expect(0);
    let script = "while [ ! -e go ]; do sleep 0.02; done; rm go";
    let id = world.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script]);
    let id = id.expect(0).out.trim().to_owned();
    until_state(&world, "working");
    let run = world.vnx(&["send", &id, "hello"]).expect(1);
    assert!(run.out.contains("only the interactive and acp lanes"), "{}", run.out);
    assert!(run.out.contains("fix: ") && run.out.contains("--lane interactive"), "{}", run.out);
    let run = world.vnx(&["permit", &id, "allow"]).expect(1);
    assert!(run.out.contains("waits for no permission, it is working") && run.out.contains("fix: "), "{}", run.out);
    world.vnx(&["cancel", &id, "--now"]).expect(0);
    world.assert_nothing_left();
}

#[test]
fn a_permission_is_asked_for_shown_and_answered() {
    let world = tui_world("after_turn");
    for (decision, key) in [("allow", "y"), ("deny", "n")] {
        let id = start(&world, &["-i", "ask"]);
        until_state(&world, "waiting_permission");
        let ps = world.vnx(&["ps"]).expect(0).out;
        assert!(ps.contains("approve Bash: rm -rf build") && ps.contains("vnx permit"), "{ps}");
        let sent = world.vnx(&["send", &id, "something else", "--json"]).expect(1).json();
        assert_eq!(sent["why"], "the worker waits for a permission");
        assert!(sent["fix"].as_str().unwrap().contains(&format!("vnx permit {id} allow|deny")), "{sent}");
        let run = world.vnx(&["permit", &id, decision]).expect(0);
        assert!(run.out.contains("approve Bash"), "{}", run.out);
        world.vnx(&["wait", &id]).expect(0);
        assert_eq!(recorded(&world, "permission").last().unwrap(), key);
        let over = world.vnx(&["permit", &id, "allow"]).expect(1).out;
        assert!(over.contains("is over (done)") && over.contains("fix: `vnx show "), "{over}");
        let over = world.vnx(&["permit", &id, "allow", "--json"]).expect(1).json();
        assert!(over["accepted"] == false && over["asked"].is_null() && over["fix"].is_string(), "{over}");
    }
    world.assert_nothing_left();
}

/// An answer that the CLI does not take, or asks about again, leaves the worker waiting for one.
#[test]
fn a_question_that_still_stands_waits_again() {
    for word in ["picky", "deaf"] {
        let world = tui_world("after_turn");
        let id = start(&world, &["-i", word]);
        until_state(&world, "waiting_permission");
        world.vnx(&["permit", &id, "allow"]).expect(0);
        until_state(&world, "waiting_permission");
        let ps = world.vnx(&["ps"]).expect(0).out;
        assert!(ps.contains("approve Bash: rm -rf build"), "{ps}");
        world.vnx(&["permit", &id, "deny"]).expect(0);
        world.vnx(&["wait", &id]).expect(0);
        assert_eq!(recorded(&world, "permission"), ["n"]);
        world.assert_nothing_left();
    }
}

#[test]
fn a_permission_that_nobody_answers_ends_the_worker() {
    let world = tui_world("after_turn");
    world.agent("asker", "questions: {within: 300ms}");
    let args = ["dispatch-agent", "--provider", "tui", "--agent", "asker", "--lane", "interactive", "-i", "ask"];
    let run = world.vnx(&args).expect(1);
    assert!(run.out.contains("permission_blocked") && run.out.contains("rm -rf build"), "{}", run.out);
    // An agent that refuses what nothing allows waits for nobody.
    world.agent("refuser", "questions: {otherwise: deny}");
    let args = ["dispatch-agent", "--provider", "tui", "--agent", "refuser", "--lane", "interactive", "-i", "ask"];
    world.vnx(&args).expect(0);
    assert_eq!(recorded(&world, "permission"), ["n"]);
    world.agent("wrong", "questions: {allow: [\"Bash(a*b)\"]}");
    let args = ["dispatch-agent", "--provider", "tui", "--agent", "wrong", "--lane", "interactive", "-i", "ask"];
    let run = world.vnx(&args).expect(2);
    assert!(run.err.contains("is no tool rule"), "{}", run.err);
    world.assert_nothing_left();
}

/// Three workers, and their tmux server dies: they go on, and get their panes back.
#[test]
fn workers_outlive_their_tmux_server_and_get_their_panes_back() {
    let world = tui_world("manual");
    let ids: Vec<String> = (0..3).map(|_| start(&world, &["-i", "first"])).collect();
    world.until("three idle workers", || {
        let ps = world.vnx(&["ps", "--json"]).json();
        ps["dispatches"].as_array().unwrap().iter().filter(|d| d["state"] == "idle").count() == 3
    });
    assert_eq!(world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "x"]).lines().count(), 3);
    world.tmux(&["kill-server"]);
    world.until("the server to end", || world.tmux(&["list-sessions"]).is_empty());
    // Two at once: still one pane for each.
    let runs = std::thread::scope(|scope| {
        let two = [0, 1].map(|_| scope.spawn(|| world.vnx(&["ps", "--repane"])));
        two.map(|run| run.join().unwrap().expect(0).err).concat()
    });
    assert_eq!(runs.matches("has a pane again").count(), 3, "{runs}");
    let windows = world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "#{window_name}"]);
    let mut sorted: Vec<&str> = windows.lines().collect();
    sorted.sort_unstable();
    let mut ids = ids;
    ids.sort_unstable();
    assert_eq!(sorted, ids);
    for id in &ids {
        world.until("the screen to be restored", || {
            world.tmux(&["capture-pane", "-p", "-t", &format!("=vnx-repo:={id}")]).contains("tui is ready")
        });
        world.vnx(&["send", id, "again"]).expect(0);
    }
    assert!(world.vnx(&["ps", "--repane"]).expect(0).err.is_empty(), "a second time nothing is opened");
    for id in &ids {
        world.vnx(&["send", id, "quit"]);
        world.vnx(&["wait", id]).expect(0);
    }
    world.assert_nothing_left();
}

#[test]
fn several_viewers_see_the_same_and_only_some_may_type() {
    let world = tui_world("manual");
    let id = start(&world, &["-i", "first", "--no-pane"]);
    until_state(&world, "idle");
    let vnx = World::binary();
    let repo = world.repo.to_str().unwrap();
    let open = |name: &str, cols: &str, args: &[&str]| {
        let attach = [&[vnx, "--project", repo, "attach", id.as_str()][..], args].concat();
        let args = ["new-session", "-d", "-s", name, "-x", cols, "-y", "30", "--"];
        world.tmux(&[&args[..], &attach].concat());
    };
    let shows = |name: &str, text: &str| {
        let target = format!("={name}:");
        world.until(text, || world.tmux(&["capture-pane", "-p", "-t", &target]).contains(text));
    };
    open("one", "120", &[]);
    shows("one", "tui is ready");
    world.until("the worker to get the viewer's size", || {
        recorded(&world, "size").last() == Some(&serde_json::json!([120, 30]))
    });
    open("looker", "90", &["-r"]);
    shows("looker", "tui is ready");
    // A narrower window shows the part that it has room for, each row in its place.
    let ruler = |name: &str| {
        let rows = world.tmux(&["capture-pane", "-p", "-t", &format!("={name}:")]);
        rows.lines().find(|l| l.starts_with("0123456789")).map(str::len)
    };
    assert_eq!((ruler("one"), ruler("looker")), (Some(120), Some(90)));
    world.tmux(&["send-keys", "-t", "=looker:", "nothing", "Enter"]);
    world.tmux(&["send-keys", "-t", "=one:", "typed in", "Enter"]);
    shows("one", "got 8 bytes");
    shows("looker", "got 8 bytes");
    assert_eq!(messages(&world).last().unwrap(), "typed in", "what a looker types goes nowhere");
    assert_eq!(recorded(&world, "size").last(), Some(&serde_json::json!([120, 30])), "nor does its size count");
    // The detach key leaves the worker alone.
    world.tmux(&["send-keys", "-t", "=one:", "C-\\"]);
    world.until("the viewer to leave", || !world.tmux(&["list-sessions", "-F", "#{session_name}"]).contains("one"));
    until_state(&world, "idle");
    world.vnx(&["send", &id, "quit"]);
    world.vnx(&["wait", &id]).expect(0);
    world.until("the looker to leave", || !world.tmux(&["list-sessions", "-F", "#{session_name}"]).contains("looker"));
    world.assert_nothing_left();
}

#[test]
fn panes_can_share_windows() {
    for (layout, windows) in [("split", 1), ("grid", 2)] {
        let world = tui_world("manual");
        let config = world.repo.join(".vnx/config.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}\ntmux: {{panes: {layout}, grid: 2}}\n")).unwrap();
        let ids: Vec<String> = (0..3).map(|_| start(&world, &["-i", "first"])).collect();
        let panes = world.tmux(&["list-panes", "-s", "-t", "=vnx-repo:", "-F", "#{window_name} #{@vnx}"]);
        assert_eq!(panes.lines().count(), 3, "{panes}");
        assert_eq!(world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "x"]).lines().count(), windows, "{panes}");
        assert!(ids.iter().all(|id| panes.contains(id.as_str())), "{panes}");
        // None is cancelled in the middle of its commit: that would be work to keep.
        world.until("all of them to be idle", || {
            let ps = world.vnx(&["ps", "--json"]).json();
            ps["dispatches"]
                .as_array()
                .is_some_and(|all| all.len() == 3 && all.iter().all(|one| one["state"] == "idle"))
        });
        for id in &ids {
            world.vnx(&["cancel", id, "--now"]).expect(0);
        }
        world.assert_nothing_left();
    }
}

/// An attach without a terminal, a wrong key, a dispatch that is over: each says what to do.
#[test]
fn attach_and_its_mistakes() {
    let world = tui_world("manual");
    let id = start(&world, &["-i", "first"]);
    until_state(&world, "idle");
    let run: Run = world.vnx(&["attach", &id]).expect(2);
    assert!(run.err.contains("needs a terminal"), "{}", run.err);
    let run = world.vnx(&["attach", &id, "--detach-key", "ctrl-m"]).expect(2);
    assert!(run.err.contains("Enter"), "{}", run.err);
    world.vnx(&["cancel", &id, "--now"]).expect(0);
    let run = world.vnx(&["attach", &id]).expect(0);
    assert!(run.out.contains("cancelled"), "{}", run.out);
    world.assert_nothing_left();
}

/// A key that would do nothing is not taken.
#[test]
fn a_worker_without_a_screen_has_no_key_to_leave_it() {
    let world = World::new();
    world.script("true").expect(4);
    let run = world.vnx(&["attach", &world.last_id(), "--detach-key", "ctrl-q"]).expect(2);
    assert!(run.err.contains("ctrl-\\ leaves"), "{}", run.err);
}

/// What cannot be resumed says why.
#[test]
fn a_session_that_cannot_be_resumed() {
    let world = tui_world("manual");
    let id = start(&world, &["-i", "first"]);
    until_state(&world, "idle");
    let run = world.vnx(&["resume", &id]).expect(2);
    assert!(run.err.contains("still running") && run.err.contains("vnx send"), "{}", run.err);
    world.vnx(&["cancel", &id, "--now"]).expect(0);
    let run = world.vnx(&["resume", &id]).expect(2);
    assert!(run.err.contains("named no session"), "{}", run.err);
    world.vnx(&["resume", "nonsense"]).expect(2);
    world.assert_nothing_left();
}

/// A pane is opened before there is anything to see: the worker comes up in it all the same.
#[test]
fn a_pane_that_is_earlier_than_its_worker_shows_it() {
    let world = tui_world("manual");
    let config = world.repo.join(".vnx/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (began, go) = (world.root.join("began"), world.root.join("go"));
    let hook = format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done", began.display(), go.display());
    std::fs::write(&config, format!("{text}\nworktree: {{hooks: {{post_create: [{{run: '{hook}'}}]}}}}\n")).unwrap();
    let id = start(&world, &["-i", "first"]);
    let pane = || world.tmux(&["capture-pane", "-p", "-t", &format!("=vnx-repo:{id}")]);
    let attached = || world.processes().iter().any(|(_, command)| command.contains(" attach "));
    world.until("the hook and the pane", || began.exists() && attached());
    std::fs::write(go, "").unwrap();
    world.until("the worker's screen in the pane", || pane().contains("tui is ready"));
    // Not in the middle of its commit.
    until_state(&world, "idle");
    world.vnx(&["cancel", &id, "--now"]).expect(0);
    world.assert_nothing_left();
}

/// A worker that needs somebody rings: tmux marks its window.
#[test]
fn a_question_rings_in_the_pane() {
    let world = tui_world("manual");
    let first = start(&world, &["-i", "first"]);
    until_state(&world, "idle");
    let asking = start(&world, &["-i", "ask"]);
    let flags = || world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "#{window_name} #{window_bell_flag}"]);
    let begun = std::time::Instant::now();
    while !flags().contains(&format!("{asking} 1")) {
        let seen = || {
            let pane = world.tmux(&["capture-pane", "-p", "-t", &format!("=vnx-repo:={asking}")]);
            format!("{}\n{}\n{pane}", flags(), world.vnx(&["ps"]).out)
        };
        assert!(begun.elapsed().as_secs() < 30, "no bell: {}", seen());
    }
    assert!(flags().contains(&format!("{first} 0")), "{}", flags());
    for id in [&first, &asking] {
        world.vnx(&["cancel", id, "--now"]).expect(0);
    }
    world.assert_nothing_left();
}

/// A supervisor that does not answer: what its worker did last is known from the files.
#[test]
fn a_silent_supervisor_has_left_its_last_state() {
    let world = tui_world("manual");
    let asking = start(&world, &["-i", "ask"]);
    until_state(&world, "waiting_permission");
    let answered = world.vnx(&["ps", "--json"]).json()["dispatches"][0].clone();
    let quiet = start_script(&world, "sleep 1000");
    world.until("a script at work", || world.count("dispatch.started") == 2);
    let supervisors: Vec<i32> =
        world.processes().into_iter().filter(|(_, c)| c.contains(" supervise ")).map(|(pid, _)| pid).collect();
    let signal =
        |signal| supervisors.iter().for_each(|pid| kill_process(Pid::from_raw(*pid).unwrap(), signal).unwrap());
    signal(Signal::STOP);
    let (json, words) = (world.vnx(&["ps", "--json"]), world.vnx(&["ps"]));
    signal(Signal::CONT);
    let all = json.expect(0).json();
    let of = |id: &str| all["dispatches"].as_array().unwrap().iter().find(|d| d["id"] == id).unwrap().clone();
    let one = of(&asking);
    assert_eq!((&answered["answering"], &one["answering"]), (&true.into(), &false.into()));
    for member in ["state", "source", "detail", "pid"] {
        assert_eq!(one[member], answered[member], "{member}: {one}");
    }
    assert_eq!((&of(&quiet)["state"], &of(&quiet)["source"]), (&"working".into(), &"process".into()));
    let words = words.expect(0).out;
    assert_eq!(words.matches("does not answer").count(), 2, "{words}");
    assert!(!words.contains("starting") && !words.contains("0 B"), "{words}");
    world.until("both to answer", || !world.vnx(&["ps", "--json"]).out.contains("\"answering\":false"));
    for id in [&asking, &quiet] {
        world.vnx(&["cancel", id, "--now"]).expect(0);
    }
    world.assert_nothing_left();
}

/// A script that says nothing is at work all the same, and can be given what it waits for.
#[test]
fn a_silent_script_can_be_answered() {
    let world = World::new();
    let script = "read x; echo \"$x\" > said.txt; git add said.txt; git commit -qm said";
    let id = start_script(&world, script);
    until_state(&world, "working");
    let sent = world.vnx(&["send", &id, "the word", "--json"]).expect(4).json();
    assert_eq!((&sent["delivery"], &sent["why"]), (&"unknown".into(), &"the worker ended meanwhile".into()));
    world.vnx(&["wait", &id]).expect(0);
    assert_eq!(world.last("dispatch.closed")["commits"], 1);
    world.assert_nothing_left();
}

/// Such a script says everything to its terminal: `logs` reads it from the recording, as it comes.
#[test]
fn the_logs_of_a_script_on_a_terminal_are_what_it_wrote() {
    let world = World::new();
    let file = world.root.join("env");
    std::fs::write(&file, "API_TOKEN=hunter2hunter2\n").unwrap();
    let script = r"printf '\033[1;31mred\033[0m\n10%%\r\033[K100%%\n'; echo token $API_TOKEN; printf 'name? '; read x; echo last";
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--lane", "interactive", "--detach"];
    let more = ["--env-file", file.to_str().unwrap(), "-i", script];
    let id = world.vnx(&[&args[..], &more].concat()).expect(0).out.trim().to_owned();
    world.until("the prompt", || world.vnx(&["logs", &id]).expect(0).out.ends_with("name?\n"));
    let following = world.start(&["logs", &id, "-f"]);
    world.vnx(&["send", &id, "me"]);
    world.vnx(&["wait", &id]).expect(4);
    let followed = String::from_utf8(following.wait_with_output().unwrap().stdout).unwrap();
    for logs in [followed, world.vnx(&["logs", &id]).expect(0).out, world.vnx(&["logs", &id, "--raw"]).expect(0).out] {
        let lines: Vec<&str> = logs.lines().collect();
        assert_eq!(lines[..2], ["red", "100%"], "{logs}");
        assert!(lines[2].starts_with("token [redacted") && lines[3..] == ["name? me", "last"], "{logs}");
    }
    let json = world.vnx(&["logs", &id, "--json"]).expect(0).out;
    assert!(json.lines().all(|line| line.starts_with("{\"t\":")), "{json}");
    world.assert_nothing_left();
}

fn start_script(world: &World, script: &str) -> String {
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--lane", "interactive", "--detach"];
    world.vnx(&[&args[..], &["-i", script]].concat()).expect(0).out.trim().to_owned()
}
