//! The acp lane of the real CLIs: a session that can be steered, without a screen.

use super::*;

fn in_lane(world: &World, cli: Cli, more: &[&str]) -> common::Run {
    dispatch(world, cli, &[&["--lane", "acp"][..], more].concat())
}

#[track_caller]
fn ends_with(cli: Cli, steps: Vec<Step>, more: &[&str], outcome: &str, code: i32) -> World {
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let run = in_lane(&world, cli, more);
    let closed = world.last("dispatch.closed");
    let logs = || world.vnx(&["logs", "--raw"]).out.lines().rev().take(4).collect::<Vec<_>>().join("\n");
    assert_eq!(closed["verdict"]["outcome"], outcome, "{}{}\n{}", run.out, run.err, logs());
    run.expect(code);
    world.assert_verified();
    world
}

pub fn edits_and_commits(cli: Cli) {
    let steps = vec![
        Step::Write { path: "hello.txt".into(), content: "hello\n".into() },
        Step::Bash("echo more > more.txt && git add . && git commit -q -m 'feat: say hello'".into()),
        Step::Say("Done: two files, checked with git log.".into()),
    ];
    let world = ends_with(cli, steps, &[], "done", 0);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["lane"], &closed["diff"]["files"]), (&"acp".into(), &2.into()), "{closed}");
    assert!(closed["session"].as_str().is_some_and(|s| s.len() > 20), "{closed}");
    // Gemini's figure leaves out what it thought; Kimi's comes from its own files.
    let tokens = [102, 102, 78, 102][cli as usize];
    assert_eq!(closed["usage"]["output_tokens"].as_u64().unwrap_or(0), tokens, "{}", closed["usage"]);
    let report = world.vnx(&["show", "--report"]).expect(0).out;
    assert!(report.starts_with("Done: two files, checked with git log."), "{report}");
    assert!(!world.root.join("ambient").exists(), "an ambient MCP server was started");
    world.assert_nothing_left();
}

fn fails(cli: Cli, status: u16, kind: FailKind, outcome: &str) {
    ends_with(cli, vec![Step::Fail { status, kind, times: None }], &[], outcome, 1).assert_nothing_left();
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
    ends_with(cli, vec![Step::Hang], &["--idle", "8s"], "timeout_idle", 1).assert_nothing_left();
}

pub fn says_done_and_did_nothing(cli: Cli) {
    ends_with(cli, vec![Step::Say("All done.".into())], &[], "empty", 4).assert_nothing_left();
}

pub fn a_long_prompt(cli: Cli) {
    let stub = Stub::start(vec![Step::Say("I have read it.".into())]);
    let world = world(cli, &stub.url());
    let text = "0123456789 abcdefghijklmnopqrstuvwxyz äöü 漢字 🙂\n".repeat(9000);
    let file = world.root.join("long");
    std::fs::write(&file, &text).unwrap();
    let args = [
        "dispatch-agent",
        "--agent",
        "backend-developer",
        "--provider",
        cli.name(),
        "--model",
        "stub-model",
        "--lane",
        "acp",
    ];
    world.vnx(&[&args[..], &["-f", file.to_str().unwrap(), "--deadline", "60s"]].concat()).expect(4);
    assert!(stub.longest_prompt_bytes() > text.len(), "{} bytes arrived", stub.longest_prompt_bytes());
}

fn detached(world: &World, cli: Cli, agent: &str, more: &[&str]) -> String {
    let args = ["dispatch-agent", "--agent", agent, "--provider", cli.name(), "--model", "stub-model", "--lane", "acp"];
    let rest = ["-i", "Say hello in hello.txt and commit it.", "--deadline", "60s", "--detach"];
    world.vnx(&[&args[..], &rest, more].concat()).expect(0).out.trim().to_owned()
}

fn state(world: &World) -> String {
    let ps = world.vnx(&["ps", "--json"]).json();
    ps["dispatches"][0]["state"].as_str().unwrap_or("gone").to_owned()
}

pub fn a_permission(cli: Cli) {
    for decision in ["allow", "deny"] {
        let command = "echo hi > hello.txt && git add . && git commit -q -m y";
        let stub = Stub::start(vec![Step::Escalate(command.into()), Step::Say("Done.".into())]);
        let world = world(cli, &stub.url());
        world.agent("careful", "permissions: ask");
        let id = detached(&world, cli, "careful", &[]);
        world.until("the question", || state(&world) == "waiting_permission");
        let ps = world.vnx(&["ps"]).expect(0).out;
        assert!(ps.contains("echo hi > hello.txt"), "{ps}");
        world.vnx(&["permit", &id, decision]).expect(0);
        let run = world.vnx(&["wait", &id]);
        if decision == "allow" {
            assert!(run.out.contains("accept"), "{}", run.out);
        } else {
            assert_ne!(run.code, 0, "{}", run.out);
            assert_eq!(world.last("dispatch.closed")["commits"], 0);
        }
        world.assert_nothing_left();
    }
}

pub fn messages_cancel_and_resume(cli: Cli) {
    let stub = Stub::start(vec![Step::Say("Heard.".into())]);
    let world = world(cli, &stub.url());
    let id = detached(&world, cli, "backend-developer", &["--end", "manual"]);
    world.until("the turn to end", || state(&world) == "idle");
    for text in ["plain words", "!echo this is no command", "two\nlines \t with a tab", "שלום 漢字 🙂"] {
        let answer = world.vnx_with_input(&["send", &id, "-", "--json"], text.as_bytes()).expect(0).json();
        assert_eq!(answer["delivery"], "delivered", "{answer}");
        world.until("the turn to end", || state(&world) == "idle");
        assert!(stub.heard(text), "{text:?} did not arrive");
    }
    world.vnx(&["cancel", &id]).expect(0);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "cancelled");
    let session = world.last("dispatch.closed")["session"].clone();
    if cli == Cli::Gemini {
        // It cannot load a session within the minute in which the session began.
        return;
    }
    world.vnx(&["resume", &id, "-i", "And now?", "--deadline", "60s"]).expect(4);
    assert_eq!(world.last("dispatch.closed")["session"], session);
    assert!(stub.heard("And now?"));
    world.assert_nothing_left();
}
