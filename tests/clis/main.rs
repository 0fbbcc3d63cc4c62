//! The real CLIs, from their packages, against a stub model server on loopback: what they do in
//! a worktree, in each lane, and how each way of failing ends. `bin/test` installs them and runs this.
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

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/stub/mod.rs"]
mod stub;

/// `for_each! { all: { name => body; … } }`: a test of each body for each CLI in each lane;
/// `steered:` leaves out the lane that takes no messages, `once:` is without a lane.
macro_rules! for_each {
    (@cli $cli:ident $name:ident [$($lanes:ident $tests:tt)*]) => {
        mod $cli { $(for_each!(@$lanes $name $tests);)* }
    };
    (@all $name:ident $tests:tt) => {
        for_each!(@lane headless [Cli::$name, Lane::Headless] $tests);
        for_each!(@steered $name $tests);
    };
    (@steered $name:ident $tests:tt) => {
        for_each!(@lane interactive [Cli::$name, Lane::Interactive] $tests);
        for_each!(@lane acp [Cli::$name, Lane::Acp] $tests);
    };
    (@once $name:ident $tests:tt) => { for_each!(@lane once [Cli::$name] $tests); };
    (@lane $lane:ident $args:tt { $($test:ident => $body:expr;)* }) => {
        mod $lane {
            $(for_each!(@test $test $body, $args);)*
        }
    };
    (@test $test:ident $body:expr, [$($arg:expr),*]) => {
        #[test]
        fn $test() {
            use super::super::*;
            let _ = ($body)($($arg),*);
        }
    };
    ($($lanes:ident: $tests:tt)*) => {
        for_each!(@cli claude Claude [$($lanes $tests)*]);
        for_each!(@cli codex Codex [$($lanes $tests)*]);
        for_each!(@cli gemini Gemini [$($lanes $tests)*]);
        for_each!(@cli kimi Kimi [$($lanes $tests)*]);
    };
}

mod failures;
mod reviews;
mod steering;
mod work;

use std::time::Instant;

use common::{Run, World};
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

#[derive(Clone, Copy, PartialEq)]
enum Lane {
    Headless,
    Interactive,
    Acp,
}

const LANES: [Lane; 3] = [Lane::Headless, Lane::Interactive, Lane::Acp];

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Self::Headless => "headless",
            Self::Interactive => "interactive",
            Self::Acp => "acp",
        }
    }
}

/// A fresh HOME, a fresh repository, the CLI on PATH and its endpoint on loopback.
fn world(cli: Cli, url: &str) -> World {
    let mut world = World::new();
    set_up(&mut world, cli, url);
    world
}

/// Puts a CLI into a world.
fn set_up(world: &mut World, cli: Cli, url: &str) {
    let clis = std::env::var("VNX_TEST_CLIS").expect("VNX_TEST_CLIS is not set: run bin/test, which installs the CLIs");
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
            kimi_config(world, url, "api_key = \"sk-test-000000000000\"");
            world.set("KIMI_LOOP_MAX_ATTEMPTS_PER_STEP", "2");
        }
    }
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

/// Dispatches to an agent; `task` is how it is told what to do.
fn dispatch_to(agent: &str, world: &World, cli: Cli, lane: Lane, task: [&str; 2], more: &[&str]) -> Run {
    let who = ["dispatch-agent", "--agent", agent, "--provider", cli.name(), "--model", "stub-model"];
    world.vnx(&[&who[..], &["--lane", lane.name(), "--deadline", "60s"], &task, more].concat())
}

const TASK: [&str; 2] = ["-i", "Say hello in hello.txt and commit it."];

fn dispatch(world: &World, cli: Cli, lane: Lane, more: &[&str]) -> Run {
    dispatch_to("backend-developer", world, cli, lane, TASK, more)
}

/// Plays a script of answers and checks the outcome, the exit code, and that nothing is left.
#[track_caller]
fn ends(cli: Cli, lane: Lane, steps: Vec<Step>, more: &[&str], outcome: &str, code: i32) -> World {
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let begun = Instant::now();
    let run = dispatch(&world, cli, lane, more);
    ended(&world, &run, outcome, code);
    assert!(begun.elapsed().as_secs() < 60, "it took until the deadline");
    world
}

/// The last dispatch ended like this, and left nothing.
#[track_caller]
fn ended(world: &World, run: &Run, outcome: &str, code: i32) {
    judged(world, run, outcome, code);
    world.assert_nothing_left();
}

/// The last dispatch ended like this.
#[track_caller]
fn judged(world: &World, run: &Run, outcome: &str, code: i32) {
    let closed = world.last("dispatch.closed");
    let found = (closed["verdict"]["outcome"].as_str().unwrap_or_default(), run.code);
    assert_eq!(found, (outcome, code), "{}{}\n{}", run.out, run.err, told(world, &world.last_id()));
    world.assert_verified();
}

/// What is known of a dispatch that went wrong.
fn told(world: &World, id: &str) -> String {
    let logs = world.vnx(&["logs", id, "--raw"]).out;
    let logs = logs.lines().rev().take(12).map(|line| line.chars().take(2000).collect::<String>() + "\n");
    let sessions = world.command("sh").args(["-c", "cat $CODEX_HOME/sessions/*/*/*/*"]).output().unwrap();
    let sessions = String::from_utf8_lossy(&sessions.stdout).into_owned();
    format!("{}\n{}\n{}", world.vnx(&["show", id]).out, logs.collect::<String>(), sessions)
}
