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

pub fn a_hang(cli: Cli) {
    ends_with(cli, vec![Step::Hang], &["--idle", "4s"], "timeout_idle", 1).assert_nothing_left();
}

pub fn says_done_and_did_nothing(cli: Cli) {
    ends_with(cli, vec![Step::Say("All done.".into())], &[], "empty", 4).assert_nothing_left();
}
