//! The real CLIs, from their packages, against a stub model server on loopback: what they do in
//! a worktree, and how each way of failing ends. `bin/test` installs them and runs this.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::manual_assert,
    clippy::needless_pass_by_value,
    clippy::unused_self,
    dead_code,
    reason = "a test that fails may panic, and its helpers serve the reader of the test"
)]

#[path = "clis_acp.rs"]
mod acp;
mod common;
#[path = "common/stub/mod.rs"]
mod stub;
#[path = "clis_terminals.rs"]
mod terminals;

use std::time::Instant;

use common::World;
use stub::{FailKind, Step, Stub};

#[derive(Clone, Copy, PartialEq)]
enum Cli {
    Claude,
    Codex,
    Gemini,
    Kimi,
}

impl Cli {
    fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Kimi => "kimi",
        }
    }
}

/// A fresh HOME, a fresh repository, the CLI on PATH and its endpoint on loopback.
fn world(cli: Cli, url: &str) -> World {
    let clis = std::env::var("VNX_TEST_CLIS").expect("VNX_TEST_CLIS is not set: run bin/test, which installs the CLIs");
    let mut world = World::new();
    world.set("PATH", format!("{clis}/bin:{}", std::env::var("PATH").unwrap()));
    match cli {
        Cli::Claude => {
            // Its headless lane is refused unless a project allows it: see tests/constraints.rs.
            let file = world.repo.join(".vnx/provider_constraints.yaml");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(
                &file,
                text.replace("  - id: claude-headless\n", "  - id: claude-headless\n    enforcement: ci\n"),
            )
            .unwrap();
            world.set("ANTHROPIC_BASE_URL", url);
            world.set("ANTHROPIC_API_KEY", format!("sk-ant-test-{}", "0".repeat(28)));
            world.set("CLAUDE_CODE_MAX_RETRIES", "1");
        }
        Cli::Codex => {
            let home = world.root.join("home/.codex");
            std::fs::create_dir(&home).unwrap();
            let config = format!(
                "model_provider = \"stub\"\n[model_providers.stub]\nname = \"stub\"\nbase_url = \"{url}/v1\"\n\
                 env_key = \"CODEX_API_KEY\"\nwire_api = \"responses\"\nrequest_max_retries = 1\nstream_max_retries = 1\n"
            );
            std::fs::write(home.join("config.toml"), config).unwrap();
            world.set("CODEX_HOME", &home);
            world.set("CODEX_API_KEY", "sk-test-000000000000");
        }
        Cli::Gemini => {
            let home = world.root.join("home/.gemini");
            std::fs::create_dir(&home).unwrap();
            // An MCP server that leaves a trace if it is ever started.
            let settings = serde_json::json!({
                "security": { "auth": { "selectedType": "gemini-api-key" } },
                "privacy": { "usageStatisticsEnabled": false },
                "general": { "enableAutoUpdate": false, "maxAttempts": 2 },
                "mcpServers": { "ambient": { "command": "touch", "args": [world.root.join("ambient")] } }
            });
            std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
            // It leaves the whole conversation there when a request fails.
            std::fs::create_dir(world.root.join("tmp")).unwrap();
            world.set("TMPDIR", world.root.join("tmp"));
            world.set("GOOGLE_GEMINI_BASE_URL", url);
            world.set("GEMINI_API_KEY", "sk-test-000000000000");
        }
        Cli::Kimi => {
            kimi_config(&world, url, "api_key = \"sk-test-000000000000\"");
            world.set("KIMI_LOOP_MAX_ATTEMPTS_PER_STEP", "2");
        }
    }
    world
}

fn kimi_config(world: &World, url: &str, key: &str) {
    let home = world.root.join("home/.kimi-code");
    std::fs::create_dir_all(&home).unwrap();
    let config = format!(
        "default_model = \"stub-model\"\ntelemetry = false\n\
         [providers.stub]\ntype = \"openai\"\nbase_url = \"{url}/v1\"\n{key}\n\
         [models.stub-model]\nprovider = \"stub\"\nmodel = \"stub-model\"\nmax_context_size = 200000\n\
         capabilities = [\"tool_use\"]\n"
    );
    std::fs::write(home.join("config.toml"), config).unwrap();
}

fn dispatch(world: &World, cli: Cli, more: &[&str]) -> common::Run {
    let args = ["dispatch-agent", "--agent", "backend-developer", "--provider", cli.name(), "--model", "stub-model"];
    let lane = if more.contains(&"--lane") { &[][..] } else { &["--lane", "headless"] };
    world.vnx(&[&args[..], lane, &["-i", "Say hello in hello.txt and commit it.", "--deadline", "60s"], more].concat())
}

/// Runs a script of answers and checks the outcome, the exit code and that nothing is left.
#[track_caller]
fn ends(cli: Cli, steps: Vec<Step>, more: &[&str], outcome: &str, code: i32) -> World {
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let begun = Instant::now();
    let run = dispatch(&world, cli, more);
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["verdict"]["outcome"], outcome, "{}{}\n{closed}", run.out, run.err);
    run.expect(code);
    assert!(begun.elapsed().as_secs() < 60, "it took until the deadline");
    world.assert_verified();
    world
}

fn fail(status: u16, kind: FailKind) -> Vec<Step> {
    vec![Step::Fail { status, kind, times: None }]
}

fn edits_and_commits(cli: Cli) {
    let steps = vec![
        Step::Write { path: "hello.txt".into(), content: "hello from a real CLI\n".into() },
        Step::Bash("git add hello.txt && git commit -q -m 'feat: say hello'".into()),
        Step::Say("Done: hello.txt says hello; checked with git log.".into()),
    ];
    let world = ends(cli, steps, &[], "done", 0);
    let id = world.last_id();
    assert_eq!(world.git(&["show", &format!("vnx/{id}:hello.txt")]), "hello from a real CLI");
    assert_eq!(world.git(&["log", "-1", "--format=%s", &format!("vnx/{id}")]), "feat: say hello");
    let closed = world.last("dispatch.closed");
    let usage = &closed["usage"];
    assert_eq!(usage["output_tokens"], 102, "{usage}");
    assert_eq!(usage["cache_read_tokens"], 300, "{usage}");
    assert!(closed["session"].as_str().is_some_and(|s| s.len() > 20), "{closed}");
    match cli {
        Cli::Claude => assert!(usage["cost_micro_usd"].as_u64().unwrap() > 0, "{usage}"),
        // The others report no cost: unknown is not zero.
        Cli::Codex | Cli::Gemini | Cli::Kimi => assert!(usage["cost_micro_usd"].is_null(), "{usage}"),
    }
    let report = world.vnx(&["show", "--report"]).expect(0).out;
    assert!(report.contains("hello.txt says hello"), "{report}");
    let prompt = world.vnx(&["show", "--prompt"]).expect(0).out;
    assert!(prompt.contains("# Assignment\n\nSay hello in hello.txt"), "{prompt}");
    let logs = world.vnx(&["logs"]).expect(0).out;
    assert!(logs.contains("Done: hello.txt"), "{logs}");
    assert!(!world.root.join("ambient").exists(), "an ambient MCP server was started");
    world.assert_nothing_left();
}

fn a_reviewer_reports_and_cannot_write(cli: Cli) {
    let steps = vec![
        Step::Bash("echo evil > evil.txt".into()),
        Step::Say("Review: src/lib.rs is fine; I looked at every line of it.".into()),
    ];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let args = [
        "dispatch-agent",
        "--agent",
        "code-reviewer",
        "--provider",
        cli.name(),
        "--model",
        "stub-model",
        "--lane",
        "headless",
    ];
    let run = world.vnx(&[&args[..], &["-i", "Review src/lib.rs.", "--deadline", "60s"]].concat());
    let run = run.expect(0);
    assert!(run.out.contains("accept  done: a report of"), "{}", run.out);
    assert!(world.vnx(&["show", "--report"]).expect(0).out.contains("src/lib.rs is fine"));
    world.assert_nothing_left();
}

fn doctor_and_a_missing_login_agree(cli: Cli) {
    let stub = Stub::start(vec![Step::Say("never asked".into())]);
    let mut world = world(cli, &stub.url());
    let doctor = world.vnx(&["doctor", "--provider", cli.name()]).expect(0);
    assert!(
        doctor.out.contains(&format!("provider {}", cli.name())) && doctor.out.contains("verified with"),
        "{}",
        doctor.out
    );
    for key in ["ANTHROPIC_API_KEY", "CODEX_API_KEY", "GEMINI_API_KEY"] {
        world.unset(key);
    }
    match cli {
        Cli::Claude | Cli::Codex => {
            let doctor = world.vnx(&["doctor", "--provider", cli.name(), "--strict"]).expect(1);
            assert!(doctor.out.contains("not logged in"), "{}", doctor.out);
        }
        // These two cannot be asked.
        Cli::Gemini => {}
        Cli::Kimi => kimi_config(&world, &stub.url(), ""),
    }
    let run = dispatch(&world, cli, &[]).expect(1);
    assert!(run.out.contains("not_logged_in"), "{}", run.out);
    assert_eq!(stub.requests(), 0);
}

fn a_long_prompt_arrives_whole(cli: Cli) {
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
        "headless",
    ];
    let run = world.vnx(&[&args[..], &["-f", file.to_str().unwrap(), "--deadline", "60s"]].concat());
    if cli == Cli::Kimi {
        // It takes the prompt as an argument, and Linux ends an argument at 128 KiB.
        assert!(run.expect(2).err.contains("which ends at 120000"));
        assert_eq!(stub.requests(), 0);
        return;
    }
    run.expect(4);
    assert!(stub.last_prompt_bytes() > text.len(), "{} of {} bytes arrived", stub.last_prompt_bytes(), text.len());
}

/// One after the other, through every lane: no false status and nothing left. Twenty with `VNX_TEST_FULL=1`.
fn many_in_a_row(cli: Cli) {
    let steps = vec![Step::Bash("date +%s%N > f && git add f && git commit -q -m f".into()), Step::Say("Done.".into())];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let rounds = if std::env::var_os("VNX_TEST_FULL").is_some() { 20 } else { 3 };
    for round in 0..rounds {
        let lane = ["headless", "interactive", "acp"][round % 3];
        let run = dispatch(&world, cli, &["--lane", lane]);
        assert_eq!(run.code, 0, "round {round}, {lane}: {}{}", run.out, run.err);
    }
    assert_eq!(world.count("dispatch.closed"), rounds);
    world.assert_nothing_left();
    world.assert_verified();
}

/// A connection that is refused: a port on which nobody listens any more.
fn refused(cli: Cli) {
    let url = Stub::start(Vec::new()).url();
    let world = world(cli, &url);
    // Codex waits for the network for ever; Gemini CLI waits five seconds before it tries again.
    let idle = if cli == Cli::Gemini { "30s" } else { "6s" };
    let run = dispatch(&world, cli, &["--idle", idle]).expect(1);
    assert!(run.out.contains("network"), "{}{}", run.out, run.err);
    world.assert_nothing_left();
}

macro_rules! for_each {
    ($($module:ident: $cli:expr;)* => $tests:tt) => { $(mod $module { use super::*; tests!($cli, $tests); })* };
}
macro_rules! tests {
    ($cli:expr, { $($name:ident => $body:expr;)* }) => {
        $(#[test] fn $name() { let body: fn(Cli) = $body; body($cli); })*
    };
}

for_each! { claude: Cli::Claude; codex: Cli::Codex; gemini: Cli::Gemini; kimi: Cli::Kimi; => {
    edits_and_commits => super::edits_and_commits;
    a_reviewer_reports_and_cannot_write => super::a_reviewer_reports_and_cannot_write;
    doctor_and_a_missing_login_agree => super::doctor_and_a_missing_login_agree;
    a_long_prompt_arrives_whole => super::a_long_prompt_arrives_whole;
    connection_refused => super::refused;
    says_done_and_did_nothing => |cli| drop(ends(cli, vec![Step::Say("All done, everything is committed.".into())], &[], "empty", 4));
    leaves_its_work_uncommitted => |cli| {
        let steps = vec![Step::Write { path: "draft.txt".into(), content: "draft\n".into() }, Step::Say("Done.".into())];
        let world = ends(cli, steps, &[], "uncommitted", 4);
        assert_eq!(world.git(&["show", &format!("refs/vnx/rescue/{}:draft.txt", world.last_id())]), "draft");
    };
    http_401 => |cli| drop(ends(cli, fail(401, FailKind::Plain), &[], "auth_rejected", 1));
    http_403 => |cli| drop(ends(cli, fail(403, FailKind::Plain), &[], "auth_rejected", 1));
    http_404 => |cli| drop(ends(cli, fail(404, FailKind::Plain), &[], "model_unavailable", 1));
    http_429 => |cli| drop(ends(cli, fail(429, FailKind::Plain), &[], "rate_limited", 1));
    http_500 => |cli| drop(ends(cli, fail(500, FailKind::Plain), &[], "provider_error", 1));
    http_529 => |cli| drop(ends(cli, fail(529, FailKind::Plain), &[], "provider_error", 1));
    context_overflow => |cli| drop(ends(cli, fail(400, FailKind::Context), &[], "context_overflow", 1));
    a_hang => |cli| drop(ends(cli, vec![Step::Hang], &["--idle", "4s"], "timeout_idle", 1));
    a_hang_in_the_middle => |cli| drop(ends(cli, vec![Step::HangMid], &["--idle", "4s"], "timeout_idle", 1));
    many_in_a_row => super::many_in_a_row;
    a_disconnect_before_the_answer => |cli| drop(ends(cli, vec![Step::Drop { mid: false }], &[], "network", 1));
}}

// The acp lane.
for_each! { claude_acp: Cli::Claude; codex_acp: Cli::Codex; gemini_acp: Cli::Gemini; kimi_acp: Cli::Kimi; => {
    edits_and_commits => super::acp::edits_and_commits;
    http_401 => super::acp::http_401;
    http_403 => super::acp::http_403;
    a_hang => super::acp::a_hang;
    says_done_and_did_nothing => super::acp::says_done_and_did_nothing;
    a_used_up_allowance => super::acp::a_used_up_allowance;
    a_disconnect_before_the_answer => super::acp::a_disconnect_before_the_answer;
    a_long_prompt => super::acp::a_long_prompt;
    a_permission => super::acp::a_permission;
    messages_cancel_and_resume => super::acp::messages_cancel_and_resume;
    http_404 => super::acp::http_404;
    http_429 => super::acp::http_429;
    http_500 => super::acp::http_500;
    http_529 => super::acp::http_529;
    context_overflow => super::acp::context_overflow;
}}

// The interactive lane.
for_each! {
    claude_terminal: Cli::Claude; codex_terminal: Cli::Codex; gemini_terminal: Cli::Gemini; kimi_terminal: Cli::Kimi;
=> {
    edits_and_commits => super::terminals::edits_and_commits;
    http_401 => super::terminals::http_401;
    http_403 => super::terminals::http_403;
    http_404 => super::terminals::http_404;
    http_429 => super::terminals::http_429;
    http_500 => super::terminals::http_500;
    http_529 => super::terminals::http_529;
    context_overflow => super::terminals::context_overflow;
    a_hang => super::terminals::a_hang;
    says_done_and_did_nothing => super::terminals::says_done_and_did_nothing;
    a_used_up_allowance => super::terminals::a_used_up_allowance;
    a_disconnect_before_the_answer => super::terminals::a_disconnect_before_the_answer;
    connection_refused => super::terminals::connection_refused;
    a_permission => super::terminals::a_permission;
    messages => super::terminals::messages;
    resumes => super::terminals::resumes;
    three_outlive_tmux => super::terminals::three_outlive_tmux;
}}

/// Three give up; Claude Code asks again without streaming and gets its answer.
#[test]
fn a_disconnect_in_the_middle() {
    for cli in [Cli::Codex, Cli::Gemini, Cli::Kimi] {
        drop(ends(cli, vec![Step::Drop { mid: true }], &[], "network", 1));
    }
    drop(ends(Cli::Claude, vec![Step::Drop { mid: true }], &[], "empty", 4));
}

#[test]
fn a_used_up_allowance() {
    for cli in [Cli::Codex, Cli::Gemini, Cli::Kimi] {
        drop(ends(cli, fail(429, FailKind::UsageLimit), &[], "usage_limit", 1));
    }
}

/// One failure that the CLI gets over by itself does not spoil the work.
#[test]
fn a_failure_that_is_recovered_from() {
    for cli in [Cli::Claude, Cli::Codex, Cli::Gemini, Cli::Kimi] {
        let steps = vec![
            Step::Fail { status: 429, kind: FailKind::Plain, times: Some(1) },
            Step::Bash("echo 1 > f && git add f && git commit -q -m f".into()),
            Step::Say("Done.".into()),
        ];
        drop(ends(cli, steps, &[], "done", 0));
    }
}

/// Gemini CLI hides the user's configuration from git, so vnx tells its worker who it is.
#[test]
fn commits_of_gemini_have_an_author() {
    let steps = vec![Step::Bash("echo 1 > f && git add f && git commit -q -m f".into()), Step::Say("Done.".into())];
    let world = ends(Cli::Gemini, steps, &[], "done", 0);
    let author = world.git(&["log", "-1", "--format=%an <%ae>", &format!("vnx/{}", world.last_id())]);
    assert_eq!(author, "Test <test@vnx.invalid>");
}
