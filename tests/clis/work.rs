//! What the CLIs do in their worktrees, and what vnx says of it: a fresh HOME, a fresh worktree,
//! nobody at the keyboard.

use super::*;

/// The main job, with everything that the receipt and the views say of it.
fn edits_and_commits(cli: Cli, lane: Lane) {
    let steps = vec![
        Step::Write { path: "hello.txt".into(), content: "hello from a real CLI\n".into() },
        Step::Write { path: "more.txt".into(), content: "more\n".into() },
        Step::Bash("git add . && git commit -q -m 'feat: say hello'".into()),
        Step::Say("Done: two files, checked with git log.".into()),
    ];
    let world = ends(cli, lane, steps, &[], "done", 0);
    let id = world.last_id();
    assert_eq!(world.git(&["show", &format!("vnx/{id}:hello.txt")]), "hello from a real CLI");
    assert_eq!(world.git(&["log", "-1", "--format=%s", &format!("vnx/{id}")]), "feat: say hello");
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["lane"], &closed["diff"]["files"]), (&lane.name().into(), &2.into()), "{closed}");
    assert!(closed["session"].as_str().is_some_and(|s| s.len() > 20), "{closed}");
    let usage = &closed["usage"];
    // Over acp, Gemini CLI leaves out what it thought and what was cached.
    let (output, cached) = if (cli, lane) == (Cli::Gemini, Lane::Acp) { (104, None) } else { (136, Some(400)) };
    assert_eq!(
        (usage["output_tokens"].as_u64(), usage["cache_read_tokens"].as_u64()),
        (Some(output), cached),
        "{usage}"
    );
    // Only Claude Code names a cost, and not in its TUI: unknown is not zero.
    let priced = cli == Cli::Claude && lane != Lane::Interactive;
    assert_eq!(usage["cost_micro_usd"].as_u64().is_some_and(|cost| cost > 0), priced, "{usage}");
    let report = world.vnx(&["show", "--report"]).expect(0).out;
    assert!(report.starts_with("Done: two files, checked with git log."), "{report}");
    let prompt = world.vnx(&["show", "--prompt"]).expect(0).out;
    assert!(prompt.contains("# Assignment\n\nSay hello in hello.txt"), "{prompt}");
    let logs = world.vnx(&["logs"]).expect(0).out;
    assert!(logs.contains("Done: two files"), "{logs}");
    assert!(!world.root.join("ambient").exists(), "an ambient MCP server was started");
}

fn a_reviewer_reports_and_cannot_write(cli: Cli, lane: Lane) {
    let steps = vec![
        Step::Bash("echo evil > evil.txt".into()),
        Step::Say("Review: src/lib.rs is fine; I looked at every line of it.".into()),
    ];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let run = dispatch_to("code-reviewer", &world, cli, lane, ["-i", "Review src/lib.rs."], &[]).expect(0);
    assert!(run.out.contains("accept  done: a report of"), "{}", run.out);
    assert!(world.vnx(&["show", "--report"]).expect(0).out.contains("src/lib.rs is fine"));
    world.assert_nothing_left();
}

fn leaves_its_work_uncommitted(cli: Cli, lane: Lane) {
    let steps = vec![Step::Write { path: "draft.txt".into(), content: "draft\n".into() }, Step::Say("Done.".into())];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let run = dispatch(&world, cli, lane, &[]);
    judged(&world, &run, "uncommitted", 4);
    assert_eq!(world.git(&["show", &format!("refs/vnx/rescue/{}:draft.txt", world.last_id())]), "draft");
}

fn a_long_prompt_arrives_whole(cli: Cli, lane: Lane) {
    let stub = Stub::start(vec![Step::Say("I have read it.".into())]);
    let world = world(cli, &stub.url());
    let text = "0123456789 abcdefghijklmnopqrstuvwxyz äöü 漢字 🙂\n".repeat(9000);
    let file = world.root.join("long");
    std::fs::write(&file, &text).unwrap();
    let run = dispatch_to("backend-developer", &world, cli, lane, ["-f", file.to_str().unwrap()], &[]);
    if (cli, lane) == (Cli::Kimi, Lane::Headless) {
        // It takes the prompt as an argument, and Linux ends an argument at 128 KiB.
        assert!(run.expect(2).err.contains("which ends at 120000"));
        assert_eq!(stub.requests(), 0);
        return;
    }
    ended(&world, &run, "empty", 4);
    if lane == Lane::Interactive {
        // A terminal gets a text that says where it is.
        assert!(stub.heard("prompt.md"), "{}", stub.last_prompt());
        assert!(world.vnx(&["show", "--prompt"]).expect(0).out.contains(&text));
    } else {
        assert!(stub.longest_prompt_bytes() > text.len(), "{} bytes arrived", stub.longest_prompt_bytes());
    }
}

fn doctor_and_a_missing_login_agree(cli: Cli, lane: Lane) {
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
    if (cli, lane) == (Cli::Kimi, Lane::Interactive) {
        // Its TUI asks the server without a key, and ours answers.
        return;
    }
    let run = dispatch(&world, cli, lane, &["--idle", "10s"]);
    // Over acp, Claude Code says the same of a missing login and of a rejected one.
    let outcome = if (cli, lane) == (Cli::Claude, Lane::Acp) { "auth_rejected" } else { "not_logged_in" };
    ended(&world, &run, outcome, 1);
    assert_eq!(stub.requests(), 0);
}

/// One after the other, through every lane: no false status and nothing left. Twenty with `VNX_TEST_FULL=1`.
fn many_in_a_row(cli: Cli) {
    let steps = vec![Step::Bash("date +%s%N > f && git add f && git commit -q -m f".into()), Step::Say("Done.".into())];
    let stub = Stub::start(steps);
    let world = world(cli, &stub.url());
    let rounds = if std::env::var_os("VNX_TEST_FULL").is_some() { 20 } else { 3 };
    for round in 0..rounds {
        let lane = LANES[round % LANES.len()];
        let run = dispatch(&world, cli, lane, &[]);
        assert_eq!(run.code, 0, "round {round}, {}: {}{}", lane.name(), run.out, run.err);
    }
    assert_eq!(world.count("dispatch.closed"), rounds);
    world.assert_nothing_left();
    world.assert_verified();
}

for_each! { all: {
    edits_and_commits => edits_and_commits;
    a_reviewer_reports_and_cannot_write => a_reviewer_reports_and_cannot_write;
    says_done_and_did_nothing => |cli, lane| ends(cli, lane, vec![Step::Say("All done, it is committed.".into())], &[], "empty", 4);
    leaves_its_work_uncommitted => leaves_its_work_uncommitted;
    a_long_prompt_arrives_whole => a_long_prompt_arrives_whole;
    doctor_and_a_missing_login_agree => doctor_and_a_missing_login_agree;
} once: {
    many_in_a_row => many_in_a_row;
}}

/// Gemini CLI hides the user's configuration from git, so vnx tells its worker who it is.
#[test]
fn commits_of_gemini_have_an_author() {
    let steps = vec![Step::Bash("echo 1 > f && git add f && git commit -q -m f".into()), Step::Say("Done.".into())];
    let world = ends(Cli::Gemini, Lane::Headless, steps, &[], "done", 0);
    let author = world.git(&["log", "-1", "--format=%an <%ae>", &format!("vnx/{}", world.last_id())]);
    assert_eq!(author, "Test <test@vnx.invalid>");
}
