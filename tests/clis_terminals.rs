//! The interactive lane of the real CLIs: a fresh HOME, a fresh worktree, nobody at the keyboard.

use std::time::Instant;

use super::*;

fn start(cli: Cli, steps: Vec<Step>, more: &[&str]) -> (World, Stub, common::Run) {
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let lane = ["--lane", "interactive"];
    let run = dispatch(&world, cli, &[&lane[..], more].concat());
    (world, stub, run)
}

#[track_caller]
fn ends_with(cli: Cli, steps: Vec<Step>, more: &[&str], outcome: &str, code: i32) -> World {
    let begun = Instant::now();
    let (world, _stub, run) = start(cli, steps, more);
    let closed = world.last("dispatch.closed");
    let cast = || world.vnx(&["logs", "--raw"]).out;
    assert_eq!(closed["verdict"]["outcome"], outcome, "{}{}\n{}", run.out, run.err, cast());
    run.expect(code);
    assert!(begun.elapsed().as_secs() < 60, "it took until the deadline");
    world.assert_verified();
    world
}

fn works() -> Vec<Step> {
    vec![
        Step::Write { path: "hello.txt".into(), content: "hello\n".into() },
        Step::Write { path: "more.txt".into(), content: "more\n".into() },
        Step::Bash("git add . && git commit -q -m 'feat: say hello'".into()),
        Step::Say("Done: two files, checked with git log.".into()),
    ]
}

pub fn edits_and_commits(cli: Cli) {
    let world = ends_with(cli, works(), &[], "done", 0);
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["diff"]["files"], 2, "{closed}");
    assert_eq!(closed["usage"]["output_tokens"], 136, "{}", closed["usage"]);
    assert!(closed["session"].as_str().is_some_and(|s| s.len() > 20), "{closed}");
    let report = world.vnx(&["show", "--report"]).expect(0).out;
    assert!(report.contains("checked with git log"), "{report}");
    assert!(!world.root.join("ambient").exists(), "an ambient MCP server was started");
    world.assert_nothing_left();
}

fn fails(cli: Cli, status: u16, kind: FailKind, outcome: &str) {
    if cli == Cli::Gemini && (status == 429 || status >= 500) {
        return gemini_tries_for_ever(status, kind);
    }
    ends_with(cli, vec![Step::Fail { status, kind, times: None }], &[], outcome, 1).assert_nothing_left();
}

/// Where Gemini CLI gives up without a terminal, its TUI begins anew, for ever, and shows nothing of
/// it. Only if its user wants to know more, it asks what to do; why it failed is not told even then.
fn gemini_tries_for_ever(status: u16, kind: FailKind) {
    let steps = || vec![Step::Fail { status, kind, times: None }];
    ends_with(Cli::Gemini, steps(), &["--idle", "8s"], "timeout_idle", 1).assert_nothing_left();
    let stub = Stub::start(steps());
    let world = world(Cli::Gemini, &stub.url());
    let file = world.root.join("home/.gemini/settings.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    settings["ui"]["errorVerbosity"] = "full".into();
    std::fs::write(file, settings.to_string()).unwrap();
    dispatch(&world, Cli::Gemini, &["--lane", "interactive", "--idle", "30s"]).expect(1);
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["verdict"]["outcome"], "provider_error", "{closed}");
    world.assert_nothing_left();
}

pub fn http_401(cli: Cli) {
    fails(cli, 401, FailKind::Plain, "auth_rejected");
}
pub fn http_403(cli: Cli) {
    fails(cli, 403, FailKind::Plain, "auth_rejected");
}
pub fn http_404(cli: Cli) {
    fails(cli, 404, FailKind::Plain, "model_unavailable");
}
pub fn http_429(cli: Cli) {
    fails(cli, 429, FailKind::Plain, "rate_limited");
}
pub fn http_500(cli: Cli) {
    fails(cli, 500, FailKind::Plain, "provider_error");
}
pub fn http_529(cli: Cli) {
    fails(cli, 529, FailKind::Plain, "provider_error");
}
pub fn context_overflow(cli: Cli) {
    fails(cli, 400, FailKind::Context, "context_overflow");
}

pub fn a_used_up_allowance(cli: Cli) {
    // What the stub can say of it is a throttled request to Claude Code.
    let outcome = if cli == Cli::Claude { "rate_limited" } else { "usage_limit" };
    let steps = vec![Step::Fail { status: 429, kind: FailKind::UsageLimit, times: None }];
    ends_with(cli, steps, &[], outcome, 1).assert_nothing_left();
}

pub fn a_disconnect_before_the_answer(cli: Cli) {
    ends_with(cli, vec![Step::Drop { mid: false }], &["--idle", "20s"], "network", 1).assert_nothing_left();
}

pub fn a_hang(cli: Cli) {
    ends_with(cli, vec![Step::Hang], &["--idle", "4s"], "timeout_idle", 1).assert_nothing_left();
}

pub fn says_done_and_did_nothing(cli: Cli) {
    ends_with(cli, vec![Step::Say("All done.".into())], &[], "empty", 4).assert_nothing_left();
}

/// The dispatch's id, once it runs in the background.
fn detached(world: &World, cli: Cli, agent: &str, more: &[&str]) -> String {
    let args = [
        "dispatch-agent",
        "--agent",
        agent,
        "--provider",
        cli.name(),
        "--model",
        "stub-model",
        "--lane",
        "interactive",
    ];
    let rest = ["-i", "Say hello in hello.txt and commit it.", "--deadline", "60s", "--detach"];
    world.vnx(&[&args[..], &rest, more].concat()).expect(0).out.trim().to_owned()
}

fn state(world: &World) -> String {
    let ps = world.vnx(&["ps", "--json"]).json();
    ps["dispatches"][0]["state"].as_str().unwrap_or("gone").to_owned()
}

pub fn connection_refused(cli: Cli) {
    let url = Stub::start(Vec::new()).url();
    let world = world(cli, &url);
    // Gemini CLI waits five seconds before it tries again, and then says what it is.
    let idle = if cli == Cli::Gemini { "30s" } else { "6s" };
    let run = dispatch(&world, cli, &["--lane", "interactive", "--idle", idle]).expect(1);
    assert!(run.out.contains("network"), "{}{}", run.out, run.err);
    world.assert_nothing_left();
}

/// What the CLI's modes do not give is asked for; a person allows it, or denies it.
pub fn a_permission(cli: Cli) {
    for (decision, outcome) in [("allow", "done"), ("deny", "")] {
        // Outside of what the sandbox gives; Claude Code asks where no rule allows it.
        let command =
            "git -c user.name=x commit --allow-empty -q -m x && echo hi > hello.txt && git add . && git commit -q -m y";
        let stub = Stub::start(vec![Step::Escalate(command.into()), Step::Say("Done.".into())]);
        let world = world(cli, &stub.url());
        world.agent("careful", "permissions: ask");
        let id = detached(&world, cli, "careful", &[]);
        world.until("the question", || state(&world) == "waiting_permission");
        let ps = world.vnx(&["ps"]).expect(0).out;
        assert!(ps.contains("asks a permission") && ps.contains("vnx permit"), "{ps}");
        world.vnx(&["permit", &id, decision]).expect(0);
        let run = world.vnx(&["wait", &id]);
        if decision == "allow" {
            assert!(run.out.contains(outcome), "{}", run.out);
        } else {
            assert_ne!(run.code, 0, "{}", run.out);
            assert_eq!(world.last("dispatch.closed")["commits"], 0);
        }
        world.assert_nothing_left();
    }
}

/// Follow-up messages: delivered with proof, and as the model sees them what was sent.
pub fn messages(cli: Cli) {
    let stub = Stub::start(vec![Step::Say("Heard.".into())]);
    let world = world(cli, &stub.url());
    let id = detached(&world, cli, "code-reviewer", &["--end", "manual"]);
    world.until("the turn to end", || state(&world) == "idle");
    let mut texts = vec!["plain words".to_owned(), "two\nlines".to_owned(), "שלום 漢字 🙂".to_owned()];
    texts.push("a longer text with many words in it ".repeat(1000).trim_end().to_owned());
    texts.push("!echo this is no command".to_owned());
    for text in texts {
        let answer = world.vnx_with_input(&["send", &id, "-", "--json"], text.as_bytes()).expect(0).json();
        assert_eq!(answer["delivery"], "delivered", "{answer}");
        world.until("the turn to end", || state(&world) == "idle");
        assert!(stub.heard(&text), "{text:?} did not arrive");
    }
    world.vnx(&["cancel", &id]).expect(0);
    world.assert_nothing_left();
}

/// Three workers, and their tmux server dies in the middle of their turns.
pub fn three_outlive_tmux(cli: Cli) {
    // Claude Code refuses a bare sleep, and Gemini CLI asks before it runs what it cannot parse.
    let moment = if cli == Cli::Gemini { "sleep 0.05" } else { "read -t 0.05 x <> <(:)" };
    let steps = vec![
        Step::Bash(format!("touch begun; while [ ! -e ../go ]; do {moment}; done; rm begun")),
        Step::Bash("echo hi > hello.txt && git add hello.txt && git commit -q -m hello".into()),
        Step::Say("Done.".into()),
    ];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let ids: Vec<String> = (0..3).map(|_| detached(&world, cli, "backend-developer", &[])).collect();
    for id in &ids {
        world.until("the turn to begin", || world.worktrees().join(id).join("begun").exists());
    }
    assert_eq!(world.tmux(&["list-windows", "-t", "=vnx-repo:", "-F", "x"]).lines().count(), 3);
    world.tmux(&["kill-server"]);
    std::fs::write(world.worktrees().join("go"), "").unwrap();
    for id in &ids {
        world.vnx(&["wait", id]).expect(0);
    }
    std::fs::remove_file(world.worktrees().join("go")).unwrap();
    world.until("the trees to be gone", || std::fs::remove_dir(world.worktrees()).is_ok());
    world.assert_nothing_left();
}

/// A session goes on: the same one, in a tree at the same path, from where it ended; also from lane to lane.
pub fn resumes(cli: Cli) {
    let steps = vec![
        Step::Bash("date +%N >> log && git add log && git commit -q -m 'one more'".into()),
        Step::Say("Done.".into()),
    ];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    dispatch(&world, cli, &["--lane", "interactive"]).expect(0);
    let first = world.last("dispatch.closed");
    let id = world.last_id();
    for (turn, more) in [vec!["-i", "Once more."], vec!["--lane", "headless"], vec![]].into_iter().enumerate() {
        world.vnx(&[&["resume", "@last", "--deadline", "60s"][..], &more].concat()).expect(0);
        let next = world.last("dispatch.closed");
        assert_eq!(next["session"], first["session"], "{next}");
        let log = world.git(&["log", "--format=%s", &format!("vnx/{}", world.last_id())]);
        assert_eq!(log.matches("one more").count(), turn + 2, "{log}");
    }
    assert!(stub.heard("Go on with your assignment"));
    assert_ne!(world.last_id(), id);
    world.assert_nothing_left();
}
