//! The pane is a view: it shows the stream, and losing it loses nothing. Real tmux, on the
//! world's own socket.

use crate::common::World;

#[test]
fn the_pane_shows_the_stream_and_killing_the_server_does_not_touch_the_worker() {
    let world = World::new();
    let script = "echo visible-in-the-pane; while [ ! -e go ]; do sleep 0.02; done; rm go; echo x > x; git add x; git commit -qm x";
    let id = world
        .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script])
        .expect(0);
    let id = id.out.trim().to_owned();
    let windows = world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "#{window_name}"]);
    assert_eq!(windows, id);
    world.until("the pane to show it", || {
        world.tmux(&["capture-pane", "-p", "-t", "=vnx-repo:"]).contains("visible-in-the-pane")
    });
    world.tmux(&["kill-server"]);
    let go = world.worktrees().join(&id).join("go");
    std::fs::write(go, "").unwrap();
    world.vnx(&["wait", &id]).expect(0);
    world.assert_nothing_left();
}

/// A person's tmux may end what nobody is attached to, and keep what has ended.
#[test]
fn a_pane_lives_as_long_as_its_dispatch_whatever_tmux_is_told_otherwise() {
    for (setting, panes) in [("window", ""), ("split", "tmux: {panes: split}\n")] {
        let world = World::new();
        std::fs::write(world.root.join("home/.tmux.conf"), "set -g destroy-unattached on\nset -g remain-on-exit on\n")
            .unwrap();
        let config = format!("version: 1\nproject_id: repo\n{panes}");
        std::fs::write(world.repo.join(".vnx/config.yaml"), config).unwrap();
        // A window of the person's keeps the server.
        world.tmux(&["new-session", "-d", "-s", "own", "sleep 60", ";", "set-option", "destroy-unattached", "off"]);
        let script = "while [ ! -e go ]; do sleep 0.02; done; rm go";
        let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script];
        let ids = [0, 1].map(|_| world.vnx(&args).expect(0).out.trim().to_owned());
        let list = || world.tmux(&["list-panes", "-s", "-t", "=vnx-repo:"]);
        world.until("two panes", || list().lines().count() == 2);
        for id in &ids {
            world.until("the tree", || world.worktrees().join(id).is_dir());
            std::fs::write(world.worktrees().join(id).join("go"), "").unwrap();
            world.vnx(&["wait", id]).expect(4);
        }
        world.until(setting, || list().is_empty());
        world.tmux(&["kill-server"]);
    }
}

#[test]
fn closing_one_pane_leaves_the_others_and_all_workers() {
    let world = World::new();
    let script = "echo here; while [ ! -e go ]; do sleep 0.02; done; rm go; echo x > x; git add x; git commit -qm x";
    let ids: Vec<String> = (0..3)
        .map(|_| {
            world
                .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script])
                .expect(0)
                .out
                .trim()
                .to_owned()
        })
        .collect();
    assert_eq!(world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "x"]).lines().count(), 3);
    world.tmux(&["kill-window", "-t", &format!("=vnx-repo:={}", ids[1])]);
    assert_eq!(world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "x"]).lines().count(), 2);
    for id in &ids {
        let tree = world.worktrees().join(id);
        world.until("the worker", || world.vnx(&["logs", id]).out.contains("here"));
        std::fs::write(tree.join("go"), "").unwrap();
    }
    let all: Vec<&str> = std::iter::once("wait").chain(ids.iter().map(String::as_str)).collect();
    world.vnx(&all).expect(0);
    world.assert_nothing_left();
}

/// tmux runs `#(command)` that it finds in names, folders and formats (threat T-10).
#[test]
fn nothing_in_a_path_is_run_by_tmux_or_a_shell() {
    let marker = std::env::temp_dir().join(format!("vnx-pwned-{}", std::process::id()));
    let name = format!("#(touch {m}) $(touch {m}) `touch {m}` ;'\"", m = marker.file_name().unwrap().to_str().unwrap());
    let world = World::bare(&name);
    world.vnx(&["init"]).expect(0);
    world.vnx(&["doctor"]).expect(0);
    let script = "echo shown; while [ ! -e go ]; do sleep 0.02; done; rm go; echo x > x; git add x; git commit -qm x";
    let id = world
        .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script])
        .expect(0);
    let id = id.out.trim().to_owned();
    let sessions = world.tmux(&["list-sessions", "-F", "#{session_name}"]);
    assert!(sessions.starts_with("vnx-touch-vnx-pwned"), "{sessions}");
    world.until("the pane to show it", || {
        world.tmux(&["capture-pane", "-p", "-t", &format!("={sessions}:")]).contains("shown")
    });
    std::fs::write(world.worktrees().join(&id).join("go"), "").unwrap();
    world.vnx(&["wait", &id]).expect(0);
    let name = marker.file_name().unwrap();
    for place in [marker.clone(), world.repo.join(name), world.root.join(name), std::path::Path::new("/").join(name)] {
        assert!(!place.exists(), "{} was made", place.display());
    }
    world.assert_nothing_left();
}

/// A tmux client hands its whole environment to the server that it starts (threat T-14).
#[test]
fn the_tmux_server_does_not_learn_our_environment() {
    let mut world = World::new();
    world.set("PLANTED_SECRET", "do-not-leak");
    let script = "while [ ! -e go ]; do sleep 0.02; done; rm go";
    let id = world
        .vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--detach", "-i", script])
        .expect(0);
    let id = id.out.trim().to_owned();
    let environment = world.tmux(&["show-environment", "-g"]);
    assert!(environment.contains("HOME=") && !environment.contains("do-not-leak"), "{environment}");
    world.until("the worker's tree", || world.worktrees().join(&id).is_dir());
    std::fs::write(world.worktrees().join(&id).join("go"), "").unwrap();
    world.vnx(&["wait", &id]).expect(4);
}
