//! How each way of failing ends, for each CLI in each lane: with its own outcome, within its deadline.

use super::*;

fn fails(cli: Cli, lane: Lane, steps: Vec<Step>, outcome: &str) {
    ends(cli, lane, steps, &[], outcome, 1);
}

/// Every request is answered by this status.
fn http(cli: Cli, lane: Lane, status: u16, kind: FailKind, outcome: &str) {
    let steps = vec![Step::Fail { status, kind, times: None }];
    let temporary = status == 429 || status >= 500;
    if (cli, lane, temporary) == (Cli::Gemini, Lane::Interactive, true) && kind == FailKind::Plain {
        gemini_tries_for_ever(steps);
    } else {
        fails(cli, lane, steps, outcome);
    }
}

/// Where Gemini CLI gives up without a terminal, its TUI begins anew, for ever, and shows nothing of
/// it. Only if its user wants to know more, it asks what to do; why it failed is not told even then.
fn gemini_tries_for_ever(steps: Vec<Step>) {
    ends(Cli::Gemini, Lane::Interactive, steps.clone(), &["--idle", "8s"], "timeout_idle", 1);
    let stub = Stub::start(steps);
    let world = world(Cli::Gemini, &stub.url());
    let file = world.root.join("home/.gemini/settings.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    settings["ui"]["errorVerbosity"] = "full".into();
    std::fs::write(file, settings.to_string()).unwrap();
    let run = dispatch(&world, Cli::Gemini, Lane::Interactive, &["--idle", "30s"]);
    ended(&world, &run, "provider_error", 1);
}

/// What the stub can say of a used-up allowance is a throttled request to Claude Code.
fn used_up(cli: Cli, lane: Lane) {
    let outcome = if cli == Cli::Claude { "rate_limited" } else { "usage_limit" };
    http(cli, lane, 429, FailKind::UsageLimit, outcome);
}

/// Nothing comes any more, from the beginning or in the middle of an answer. The adapters of the acp
/// lane need seconds to begin.
fn hangs(cli: Cli, lane: Lane, step: Step) {
    let idle = if lane == Lane::Acp { "8s" } else { "4s" };
    ends(cli, lane, vec![step], &["--idle", idle], "timeout_idle", 1);
}

/// The connection ends in the middle of an answer. Claude Code asks again without streaming and gets its answer;
/// over acp, Gemini CLI takes the half for the whole and says that its turn is over.
fn cut(cli: Cli, lane: Lane) {
    let unaware = cli == Cli::Claude || (cli, lane) == (Cli::Gemini, Lane::Acp);
    let (outcome, code) = if unaware { ("empty", 4) } else { ("network", 1) };
    ends(cli, lane, vec![Step::Drop { mid: true }], &["--idle", "20s"], outcome, code);
}

/// A port that is taken, so that no other test gets it, and on which nobody listens.
fn refused(cli: Cli, lane: Lane) {
    use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, getsockname, socket};
    let taken = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&taken, &SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&taken).unwrap()).unwrap();
    let world = world(cli, &format!("http://{address}"));
    // Codex waits for the network for ever; Gemini CLI waits five seconds before it tries again.
    let idle = if cli == Cli::Gemini { "30s" } else { "6s" };
    let run = dispatch(&world, cli, lane, &["--idle", idle]);
    ended(&world, &run, "network", 1);
}

/// What needs a permission that the worker does not have. Where somebody could be asked, nobody answers.
/// Headless, only Claude Code tells that it refused something: the sandbox of Codex lets a command fail like
/// any other, and the other two do not offer the tool at all.
fn a_permission(cli: Cli, lane: Lane) {
    let command =
        "git -c user.name=x commit --allow-empty -q -m x && echo hi > hello.txt && git add . && git commit -q -m y";
    let stub = Stub::start(vec![Step::Escalate(command.into()), Step::Say("Done.".into())]);
    let world = world(cli, &stub.url());
    let permissions = if lane == Lane::Headless { "read" } else { "ask\nquestions: {within: 2s}" };
    world.agent("careful", &format!("permissions: {permissions}"));
    let run = dispatch_to("careful", &world, cli, lane, TASK, &[]);
    let silent = lane == Lane::Headless && cli != Cli::Claude;
    let (outcome, code) = if silent { ("empty", 4) } else { ("permission_blocked", 1) };
    ended(&world, &run, outcome, code);
    assert_eq!(world.last("dispatch.closed")["commits"], 0);
}

/// One failure that the CLI gets over by itself does not spoil the work.
fn recovered_from(cli: Cli, lane: Lane) {
    let steps = vec![
        Step::Fail { status: 429, kind: FailKind::Plain, times: Some(1) },
        Step::Bash("echo 1 > f && git add f && git commit -q -m f".into()),
        Step::Say("Done.".into()),
    ];
    ends(cli, lane, steps, &[], "done", 0);
}

for_each! { all: {
    http_401 => |cli, lane| http(cli, lane, 401, FailKind::Plain, "auth_rejected");
    http_403 => |cli, lane| http(cli, lane, 403, FailKind::Plain, "auth_rejected");
    http_404 => |cli, lane| http(cli, lane, 404, FailKind::Plain, "model_unavailable");
    http_429 => |cli, lane| http(cli, lane, 429, FailKind::Plain, "rate_limited");
    http_500 => |cli, lane| http(cli, lane, 500, FailKind::Plain, "provider_error");
    http_529 => |cli, lane| http(cli, lane, 529, FailKind::Plain, "provider_error");
    context_overflow => |cli, lane| http(cli, lane, 400, FailKind::Context, "context_overflow");
    a_used_up_allowance => used_up;
    connection_refused => refused;
    a_disconnect_before_the_answer => |cli, lane| fails(cli, lane, vec![Step::Drop { mid: false }], "network");
    a_disconnect_in_the_middle => cut;
    a_hang => |cli, lane| hangs(cli, lane, Step::Hang);
    a_hang_in_the_middle => |cli, lane| hangs(cli, lane, Step::HangMid);
    a_permission => a_permission;
    recovered_from => recovered_from;
}}
