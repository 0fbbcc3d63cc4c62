//! What a person does while a worker runs, or after it: permissions, messages, resuming, and a tmux
//! server that dies.

use super::*;

/// The dispatch's id, once it runs in the background.
fn detached(world: &World, cli: Cli, lane: Lane, agent: &str, more: &[&str]) -> String {
    let run = dispatch_to(agent, world, cli, lane, TASK, &[&["--detach"][..], more].concat());
    run.expect(0).out.trim().to_owned()
}

fn state(world: &World) -> String {
    let ps = world.vnx(&["ps", "--json"]).json();
    ps["dispatches"][0]["state"].as_str().unwrap_or("gone").to_owned()
}

/// What the CLI's modes do not give is asked for; a person allows it, or denies it.
fn a_permission(cli: Cli, lane: Lane) {
    for decision in ["allow", "deny"] {
        // Outside of what the sandbox gives; Claude Code asks where no rule allows it.
        let command =
            "git -c user.name=x commit --allow-empty -q -m x && echo hi > hello.txt && git add . && git commit -q -m y";
        let stub = Stub::start(vec![Step::Escalate(command.into()), Step::Say("Done.".into())]);
        let world = world(cli, &stub.url());
        world.agent("careful", "permissions: ask");
        let id = detached(&world, cli, lane, "careful", &[]);
        world.until("the question", || state(&world) == "waiting_permission");
        let ps = world.vnx(&["ps"]).expect(0).out;
        // A screen says that it asks; acp also says for what.
        let what = if lane == Lane::Acp { "echo hi > hello.txt" } else { "asks a permission" };
        assert!(ps.contains(what) && ps.contains("vnx permit"), "{ps}");
        world.vnx(&["permit", &id, decision]).expect(0);
        let run = world.vnx(&["wait", &id]);
        if decision == "allow" {
            ended(&world, &run, "done", 0);
        } else {
            assert_ne!(run.code, 0, "{}", run.out);
            assert_eq!(world.last("dispatch.closed")["commits"], 0);
        }
        world.assert_nothing_left();
    }
}

/// Follow-up messages: delivered with proof, and as the model sees them what was sent. A cancelled
/// session goes on when it is resumed.
fn messages_cancel_and_resume(cli: Cli, lane: Lane) {
    let stub = Stub::start(vec![Step::Say("Heard.".into())]);
    let world = world(cli, &stub.url());
    let id = detached(&world, cli, lane, "backend-developer", &["--end", "manual"]);
    world.until("the turn to end", || state(&world) == "idle");
    let long = "a longer text with many words in it ".repeat(1000);
    let texts = ["plain words", "two\nlines", "שלום 漢字 🙂", long.trim_end(), "!echo this is no command"];
    for text in texts {
        let answer = world.vnx_with_input(&["send", &id, "-", "--json"], text.as_bytes()).expect(0).json();
        assert_eq!(answer["delivery"], "delivered", "{answer}");
        world.until("the turn to end", || state(&world) == "idle");
        assert!(stub.heard(text), "{text:?} did not arrive");
    }
    world.vnx(&["cancel", &id]).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["verdict"]["outcome"], "cancelled");
    world.assert_nothing_left();
    if (cli, lane) == (Cli::Gemini, Lane::Acp) {
        // It cannot load a session within the minute in which the session began.
        return;
    }
    let run = world.vnx(&["resume", &id, "-i", "And now?", "--deadline", "60s"]);
    ended(&world, &run, "empty", 4);
    assert_eq!(world.last("dispatch.closed")["session"], closed["session"]);
    assert!(stub.heard("And now?"));
}

/// A session goes on: the same one, in a tree at the same path, from where it ended; also from lane to lane.
fn resumes(cli: Cli) {
    let steps = vec![
        Step::Bash("date +%N >> log && git add log && git commit -q -m 'one more'".into()),
        Step::Say("Done.".into()),
    ];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    dispatch(&world, cli, Lane::Interactive, &[]).expect(0);
    let first = world.last("dispatch.closed");
    let id = world.last_id();
    for (turn, more) in [vec!["-i", "Once more."], vec!["--lane", "headless"], vec![]].into_iter().enumerate() {
        let run = world.vnx(&[&["resume", "@last", "--deadline", "60s"][..], &more].concat());
        ended(&world, &run, "done", 0);
        let next = world.last("dispatch.closed");
        assert_eq!(next["session"], first["session"], "{next}");
        // What it used itself, whatever the CLI counts: as many answers as the first one, and not those before.
        let used = |closed: &serde_json::Value| closed["usage"]["output_tokens"].as_u64();
        if let (Some(before), Some(now)) = (used(&first), used(&next)) {
            assert!(now < 2 * before && before < 2 * now, "turn {turn}: {first:#}\n{next:#}");
        }
        let log = world.git(&["log", "--format=%s", &format!("vnx/{}", world.last_id())]);
        assert_eq!(log.matches("one more").count(), turn + 2, "{log}");
    }
    assert!(stub.heard("Go on with your assignment"));
    assert_ne!(world.last_id(), id);
}

/// Three workers, and their tmux server dies in the middle of their turns.
fn three_outlive_tmux(cli: Cli) {
    // Claude Code refuses a bare sleep, and Gemini CLI asks before it runs what it cannot parse.
    let moment = if cli == Cli::Gemini { "sleep 0.05" } else { "read -t 0.05 x <> <(:)" };
    let steps = vec![
        Step::Bash(format!("touch begun; while [ ! -e ../go ]; do {moment}; done; rm begun")),
        Step::Bash("echo hi > hello.txt && git add hello.txt && git commit -q -m hello".into()),
        Step::Say("Done.".into()),
    ];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let ids = [(); 3].map(|()| detached(&world, cli, Lane::Interactive, "backend-developer", &[]));
    for id in &ids {
        world.until("the turn to begin", || world.worktrees().join(id).join("begun").exists());
    }
    assert_eq!(world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "x"]).lines().count(), 3);
    world.tmux(&["kill-server"]);
    std::fs::write(world.worktrees().join("go"), "").unwrap();
    for id in &ids {
        let run = world.vnx(&["wait", id]);
        assert_eq!(run.code, 0, "{}{}\n{}", run.out, run.err, told(&world, id));
    }
    std::fs::remove_file(world.worktrees().join("go")).unwrap();
    // Whoever is the last takes the folder away: a supervisor, or we.
    world.until("the trees to be gone", || {
        std::fs::remove_dir(world.worktrees()).is_ok() || !world.worktrees().exists()
    });
    world.assert_nothing_left();
}

for_each! { steered: {
    a_permission => a_permission;
    messages_cancel_and_resume => messages_cancel_and_resume;
} once: {
    resumes => resumes;
    three_outlive_tmux => three_outlive_tmux;
}}

/// Codex's sandboxes do not get into each other's way: workers of a repository share the folders of git, and those of
/// a machine share /tmp.
#[test]
fn several_of_codex_share_a_machine() {
    let steps = (0..8).map(|n| Step::Bash(format!("echo {n} > f && git add f && git commit -q -m {n}")));
    let stub = Stub::start(steps.chain([Step::Say("Done.".into())]).collect());
    let worlds = [(); 2].map(|()| world(Cli::Codex, &stub.url()));
    let start = |world| [(); 4].map(|()| detached(world, Cli::Codex, Lane::Headless, "backend-developer", &[]));
    let ids = worlds.each_ref().map(start);
    for (world, ids) in worlds.iter().zip(ids) {
        for id in &ids {
            let run = world.vnx(&["wait", id]);
            let commits = world.git(&["rev-list", "--count", &format!("main..vnx/{id}")]);
            assert_eq!((run.code, commits.as_str()), (0, "8"), "{}{}\n{}", run.out, run.err, told(world, id));
        }
        let git = world.repo.join(".git");
        let stands = || ["objects", "refs", "logs"].iter().any(|f| git.join(f).join(".codex").exists());
        world.until("the shared folders to be gone", || !stands());
        world.assert_nothing_left();
    }
}

/// It writes to its worktree and its own TMPDIR, and not to /tmp, in which the worlds of these tests are.
#[test]
fn codex_leaves_what_is_shared_alone() {
    let steps = vec![
        Step::Bash(
            "touch ../beside && exit; echo 1 > $TMPDIR/own && mv $TMPDIR/own f && git add f && git commit -q -m f"
                .into(),
        ),
        Step::Say("Done.".into()),
    ];
    let stub = Stub::start(steps);
    for lane in [Lane::Headless, Lane::Interactive] {
        let world = world(Cli::Codex, &stub.url());
        ended(&world, &dispatch(&world, Cli::Codex, lane, &[]), "done", 0);
        world.assert_nothing_left();
    }
}
