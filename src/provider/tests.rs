//! The corpus: real outputs of real CLIs, each with the one outcome it stands for.

use std::path::{Path, PathBuf};

use super::*;
use crate::domain::agent::{Deliverable, Permissions};
use crate::domain::event::{Claim, Event, Heard, Listener, Notice, Permit, Usage, WorkerState};
use crate::domain::plan::Lane;
use crate::domain::tree::Tri;
use crate::domain::verdict::{Containment, End, Evidence, GitEvidence, judge};
use crate::domain::{Name, Outcome};

struct Sample {
    name: String,
    outcome: String,
    end: End,
    stdout: String,
    stderr: String,
}

fn samples(provider: &str) -> Vec<Sample> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(provider);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once("--- stdout\n").unwrap();
        let (stdout, stderr) = rest.split_once("--- stderr\n").unwrap();
        let field = |key: &str| head.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_owned();
        let end = match field("exit:").as_str() {
            "idle" => End::Idle,
            code => End::Exited { code: code.parse().unwrap() },
        };
        Sample {
            name: path.display().to_string(),
            outcome: field("outcome:"),
            end,
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    };
    std::fs::read_dir(folder).unwrap().map(|e| read(e.unwrap().path())).collect()
}

fn manifest(name: &str) -> Manifest {
    shipped_or_own(Path::new("/nonexistent"), &Name::parse("provider", name).unwrap()).unwrap()
}

/// What one sample of the corpus amounts to.
fn read(provider: &str, name: &str) -> (Claim, String) {
    let manifest = manifest(provider);
    let sample = samples(provider).into_iter().find(|s| s.name.ends_with(&format!("/{name}.txt"))).unwrap();
    let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
    sample.stdout.lines().for_each(|l| drop(stream.stdout_line(l)));
    sample.stderr.lines().for_each(|l| drop(stream.stderr_line(l)));
    stream.finish(&sample.end)
}

#[test]
fn every_sample_has_its_outcome() {
    let mut wrong = Vec::new();
    for provider in ["claude", "codex", "gemini", "kimi"] {
        let manifest = manifest(provider);
        let samples = samples(provider);
        assert!(samples.len() > 20, "the {provider} corpus is thin");
        for sample in samples {
            let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
            sample.stdout.lines().for_each(|l| drop(stream.stdout_line(l)));
            sample.stderr.lines().for_each(|l| drop(stream.stderr_line(l)));
            let (claim, _) = stream.finish(&sample.end);
            let verdict = judge(&Evidence {
                end: sample.end,
                containment: Containment { empty: true, ..Containment::default() },
                claim,
                has_closing_event: true,
                // The sample's tree is not at stake here: what the CLI says is.
                git: GitEvidence { commits: Some(1), empty_diff: Tri::No, ..GitEvidence::nothing() },
                delivers: Deliverable::Commit,
                patched: None,
                outside: None,
                held_by: Vec::new(),
            });
            if verdict.outcome.word() != sample.outcome {
                wrong.push(format!(
                    "{}: {} instead of {} ({})",
                    sample.name, verdict.outcome, sample.outcome, verdict.reason
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn usage_cost_session_and_report_come_from_the_stream() {
    let (claude, report) = read("claude", "commit");
    assert_eq!(claude.usage.input_tokens, Some(3600));
    assert_eq!(claude.usage.output_tokens, Some(102));
    assert!(claude.usage.cost_micro_usd.is_some_and(|c| c > 0));
    assert!(claude.session.is_some() && claude.model.is_some() && report.starts_with("Done"), "{claude:?} {report}");
    let (codex, report) = read("codex", "commit");
    assert_eq!((codex.usage.input_tokens, codex.usage.cache_read_tokens), (Some(3300), Some(300)));
    assert_eq!(codex.usage.cost_micro_usd, None, "unknown is not zero");
    assert!(codex.session.is_some() && report.starts_with("Done"), "{codex:?} {report}");
    let (gemini, report) = read("gemini", "commit");
    assert_eq!((gemini.usage.input_tokens, gemini.usage.cache_read_tokens), (Some(3300), Some(300)));
    assert_eq!(gemini.usage.output_tokens, Some(102), "78 of output and 24 of thoughts");
    assert_eq!(gemini.model.as_deref(), Some("stub-model"));
    assert!(gemini.session.is_some() && report == "Done: committed hello.txt.", "{gemini:?} {report}");
    let (kimi, report) = read("kimi", "commit");
    assert_eq!(kimi.usage, Usage::default(), "it prints no figures");
    assert!(kimi.session.is_some_and(|s| s.starts_with("session_")));
    assert_eq!(report, "Done: committed hello.txt.");
}

/// Gemini CLI sends a message in pieces: each is progress, the message is one event.
#[test]
fn a_message_in_pieces_is_one_event() {
    let manifest = manifest("gemini");
    let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
    let first = r#"{"type":"message","timestamp":"2026-11-21T01:10:09.033Z","role":"assistant","content":"Done: committed hello.tx","delta":true}"#;
    let second =
        r#"{"type":"message","timestamp":"2026-11-21T01:10:09.034Z","role":"assistant","content":"t.","delta":true}"#;
    let tool = r#"{"type":"tool_use","timestamp":"2026-11-21T01:10:09.035Z","tool_name":"write_file","tool_id":"write_file__1","parameters":{"file_path":"f","content":"x"}}"#;
    for piece in [first, second] {
        assert_eq!(stream.stdout_line(piece), Heard { progress: true, ..Heard::default() });
    }
    let heard = stream.stdout_line(tool);
    assert_eq!(heard.events[0], Event::Text { text: "Done: committed hello.txt.".into() });
    assert!(
        matches!(&heard.events[1], Event::ToolUse { name, input } if name == "write_file" && input.contains("file_path"))
    );
    stream.stdout_line(first);
    let (claim, report) = stream.finish(&End::Idle);
    assert_eq!((claim.ok, report.as_str()), (None, "Done: committed hello.tx"), "what came before a cut is kept");
}

#[test]
fn a_report_that_is_too_long_says_that_its_beginning_is_left_out() {
    let lane = &manifest("ollama").lanes[&Lane::Headless];
    for (lines, is_cut) in [(100, false), (100_000, true)] {
        let mut stream = Stream::new(lane.parser, &[]);
        for n in 0..lines {
            stream.stdout_line(&format!("line {n}"));
        }
        let (claim, report) = stream.finish(&End::Exited { code: 0 });
        assert_eq!(report.starts_with("[the beginning is left out"), is_cut, "{:?}", report.lines().next());
        assert!(report.ends_with(&format!("line {}", lines - 1)) && claim.report_bytes == report.len() as u64);
    }
    // A message in pieces, of which one is too long by itself.
    let manifest = manifest("gemini");
    let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
    let long = "x".repeat(300 << 10);
    stream.stdout_line(&format!(r#"{{"type":"message","timestamp":"2026-11-21T01:10:09.033Z","role":"assistant","content":"{long}","delta":true}}"#));
    let (_, report) = stream.finish(&End::Exited { code: 0 });
    assert!(report.starts_with("[the beginning is left out") && report.len() < 257 << 10, "{}", report.len());
}

#[test]
fn gemini_names_what_failed_and_what_was_refused() {
    let (claim, _) = read("gemini", "e401");
    let failure = claim.failure.unwrap();
    assert_eq!(failure.message, "Request had invalid authentication credentials.");
    // Classified by its exit code, told in the words of the closing event.
    let (claim, _) = read("gemini", "e503");
    let failure = claim.failure.unwrap();
    assert_eq!(failure.outcome, Some(Outcome::ProviderError));
    assert_eq!(failure.message, "The model is overloaded. Please try again later.");
    assert_eq!(read("gemini", "policy").0.denied, 1);
}

/// What Kimi Code ends with counts, not what it tried again before.
#[test]
fn the_last_word_of_kimi_is_on_standard_error() {
    let manifest = manifest("kimi");
    let retry = r#"{"role":"meta","type":"turn.step.retrying","failed_attempt":1,"next_attempt":2,"max_attempts":2,"delay_ms":545.1558070877679,"error_name":"APIProviderRateLimitError","error_message":"429 Rate limit reached for requests","status_code":429}"#;
    let finish = |end: End, stderr: &str| {
        let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
        let heard = stream.stdout_line(retry);
        assert!(matches!(heard.events[0], Event::Error { class: Some(Outcome::RateLimited), retrying: true, .. }));
        assert!(!heard.progress, "a retry is no progress");
        stream.stderr_line(stderr);
        stream.finish(&end).0.failure.unwrap().outcome
    };
    let refused = "error: failed to run prompt: provider.auth_error: 401 Incorrect API key provided: sk-test.";
    assert_eq!(finish(End::Exited { code: 1 }, refused), Some(Outcome::AuthRejected));
    assert_eq!(finish(End::Exited { code: 1 }, "a tool's last words"), Some(Outcome::RateLimited));
    assert_eq!(finish(End::Idle, ""), Some(Outcome::RateLimited));
}

fn interactive(name: &str) -> Stream {
    asked(name, "do it")
}

fn asked(name: &str, prompt: &str) -> Stream {
    let manifest = manifest(name);
    let lane = &manifest.lanes[&Lane::Interactive];
    Stream::new(lane.parser, &manifest.failures).interactive(lane.interactive.as_ref(), prompt)
}

fn states(heard: &Heard) -> Vec<WorkerState> {
    let state = |event: &Event| if let Event::State { state, .. } = event { Some(*state) } else { None };
    heard.events.iter().filter_map(state).collect()
}

/// Kimi Code's progress bar goes between two steps as well, and for a question: only a screen at
/// rest without a question is the end of a turn.
#[test]
fn a_turn_of_kimi_is_over_when_its_screen_says_nothing_else() {
    use WorkerState::{Idle, Ready, Starting, WaitingPermission, Working};
    let footer = " stub-model  …/repo\n                 context: 1% (1k/195k)";
    let question = format!("  ▶ Run this command?\n  $ make all\n  ▶ 1. Approve once\n{footer}");
    let mut kimi = interactive("kimi");
    let trust = kimi.screen(" Trust this folder?\n ❯ Trust this folder");
    assert_eq!((states(&trust), trust.keys.as_deref()), (vec![Starting], Some("\r")));
    assert_eq!(states(&kimi.screen(footer)), [Ready]);
    assert_eq!(states(&kimi.notice(&Notice::Progress(true))), [Working]);
    let between = kimi.notice(&Notice::Progress(false));
    assert!(between.events.is_empty() && kimi.notice(&Notice::Progress(true)).events.is_empty());
    kimi.notice(&Notice::Progress(false));
    let asked = kimi.screen(&question);
    assert_eq!((states(&asked), asked.closing), (vec![WaitingPermission], false));
    assert_eq!(kimi.permit(true, false), Permit::Keys("1".into()));
    assert_eq!(states(&kimi.notice(&Notice::Progress(true))), [Working]);
    kimi.notice(&Notice::Progress(false));
    let over = kimi.screen(footer);
    assert_eq!((states(&over), over.closing), (vec![Idle], true));
    let (claim, _) = kimi.finish(&End::Exited { code: 0 });
    assert_eq!(claim.ok, Some(true));
}

/// Trust starts what the repository brings along: that is not for vnx to say.
#[test]
fn a_repository_with_mcp_servers_of_its_own_is_not_trusted_by_key() {
    let mut kimi = interactive("kimi");
    let heard =
        kimi.screen(" Trust this folder?\n Project MCP targets:\n   x (stdio): command=x\n ❯ Trust this folder");
    assert_eq!((states(&heard), heard.keys), (vec![WorkerState::Blocked], None));
}

/// What a worker is asked to write, reads and writes stands on its screen too.
#[test]
fn words_of_a_dialog_on_the_screen_of_a_worker_are_no_dialog() {
    let working = Notice::Status("state=working:app=x".into());
    let busy =
        |name: &str| if name == "gemini" { Notice::Title("✦  Working… (repo)".into()) } else { working.clone() };
    for (name, words) in [
        ("claude", "  12  label: \"Select login method:\""),
        ("claude", "Choose the text style"),
        ("codex", "# Welcome to Codex"),
        ("codex", "Update available!"),
        ("codex", "grep 'Would you like to run the following command?' src"),
        ("codex", "\"waiting for network\""),
        ("gemini", "│ 3  msg = \"Usage limit reached for \" + model"),
        ("gemini", "it says: We are currently experiencing high demand"),
        ("gemini", "Allow execution of hooks"),
        ("kimi", "Trust this folder?"),
        ("kimi", "Run this command?"),
    ] {
        // Once it works, and before that where it was asked about these very words.
        let mut stream = interactive(name);
        stream.notice(&busy(name));
        let heard = stream.screen(words);
        assert_eq!((heard.events.as_slice(), heard.keys), ([].as_slice(), None), "{name}: {words}");
        let heard = asked(name, &format!("Translate {words} into French.")).screen(words);
        assert_eq!((heard.events.as_slice(), heard.keys), ([].as_slice(), None), "{name}: {words}, asked for");
    }
    let blocked = interactive("claude").screen("Choose the text style that looks best");
    assert_eq!(states(&blocked), [WorkerState::Blocked]);
    assert!(interactive("codex").screen("  Welcome to Codex, OpenAI's command-line agent").closing);
}

/// Gemini CLI tells its states by title, and how a turn failed by its screen only.
#[test]
fn what_gemini_shows_below_the_last_message_counts() {
    let title = |title: &str| Notice::Title(format!("{title} (repo)      "));
    let mut gemini = interactive("gemini");
    gemini.notice(&title("◇  Ready"));
    gemini.notice(&title("✦  Working…"));
    assert!(gemini.notice(&title("◇  Ready")).closing);
    let error = "✕ [API Error: {\"error\":{\"code\":401,\"message\":\"Request had invalid\n  credentials.\",\"status\":\"X\"}}]";
    gemini.screen(&format!(" > do it\n{error}\n >   Type your message"));
    // The next turn is a new chance, and what failed before still stands above it.
    gemini.notice(&title("✦  Working…"));
    gemini.notice(&title("◇  Ready"));
    let heard = gemini.screen(&format!(" > do it\n{error}\n > again\n✦ Done.\n >   Type your message"));
    assert_eq!(heard.events, []);
    gemini.notice(&title("✦  Working…"));
    gemini.notice(&title("◇  Ready"));
    gemini.screen(&format!(" > do it\n{error}\n >   Type your message"));
    let (claim, _) = gemini.finish(&End::Exited { code: 0 });
    let failure = claim.failure.unwrap();
    assert_eq!((claim.ok, failure.outcome), (Some(false), Some(Outcome::AuthRejected)));
    assert_eq!(failure.message, "Request had invalid credentials.");
}

/// What a CLI keeps of its sessions, in the form that it has.
#[test]
fn usage_report_and_failure_stand_in_transcripts() {
    let home = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let env = std::collections::BTreeMap::from([("HOME".to_owned(), home.path().to_str().unwrap().to_owned())]);
    put(".gemini/projects.json", r#"{"projects": {"/w/one": "one"}}"#);
    let message = r#"{"id":"m1","type":"gemini","content":"Done.","tokens":{"input":1200,"output":26,"cached":100,"thoughts":8}}"#;
    let chat = format!("{{\"sessionId\":\"s-1\"}}\n{message}\n{message}\n{{\"cut");
    put(".gemini/tmp/one/chats/session-2026-11-21T20-10-4117a83c.jsonl", &chat);
    let mut gemini = interactive("gemini");
    gemini.read_transcript(&env, "/w/one");
    let (claim, report) = gemini.finish(&End::Exited { code: 0 });
    assert_eq!(
        (claim.usage.input_tokens, claim.usage.output_tokens),
        (Some(1100), Some(34)),
        "a repeated id counts once"
    );
    assert_eq!((claim.session.as_deref(), report.as_str()), (Some("s-1"), "Done."));

    let session = home.path().join(".kimi-code/sessions/wd_one/session_1");
    let line = serde_json::json!({"workDir": "/w/one", "sessionDir": session});
    put(".kimi-code/session_index.jsonl", &format!("{line}\n"));
    let used = r#"{"type":"usage.record","usage":{"inputOther":1100,"output":34,"inputCacheRead":100,"inputCacheCreation":0}}"#;
    let ended = r#"{"type":"turn.ended","reason":"failed","error":{"code":"provider.auth_error","message":"401 Incorrect API key"}}"#;
    put(".kimi-code/sessions/wd_one/session_1/agents/main/wire.jsonl", &format!("{used}\n{ended}\n"));
    put(".kimi-code/sessions/wd_one/session_1/agents/agent-1/wire.jsonl", used);
    let mut kimi = interactive("kimi");
    kimi.read_transcript(&env, "/w/one");
    let (claim, _) = kimi.finish(&End::Exited { code: 0 });
    assert_eq!((claim.usage.output_tokens, claim.usage.cache_read_tokens), (Some(68), Some(200)), "of both agents");
    assert_eq!((claim.ok, claim.failure.unwrap().outcome), (Some(false), Some(Outcome::AuthRejected)));
    let mut elsewhere = interactive("kimi");
    elsewhere.read_transcript(&env, "/w/two");
    assert_eq!(elsewhere.finish(&End::Exited { code: 0 }).0.usage, Usage::default(), "unknown is not zero");
}

/// Words that look like failures are not: the traps of earlier systems.
#[test]
fn an_agent_that_talks_about_failures_has_not_failed() {
    let manifest = manifest("claude");
    for text in [
        "wrote 1500 lines then stopped",
        "error: author field missing",
        "the API returns 401 here, as specified",
        "You've hit your limit, says the fixture",
        "prompt is too long",
    ] {
        let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
        let block = serde_json::json!({"type":"assistant","message":{"content":[{"type":"text","text":text}]}});
        let closing = serde_json::json!({"type":"result","is_error":false,"result":text,"usage":{}});
        stream.stdout_line(&block.to_string());
        stream.stdout_line(&closing.to_string());
        let (claim, _) = stream.finish(&End::Exited { code: 0 });
        assert_eq!((claim.ok, claim.failure), (Some(true), None), "{text}");
    }
}

#[test]
fn every_embedded_manifest_loads_and_names_only_known_outcomes() {
    let folder = Path::new("/nonexistent");
    let all: Vec<Manifest> = names(folder).unwrap().iter().map(|name| manifest(name)).collect();
    assert_eq!(all.len(), 10);
    let own = all.iter().filter(|manifest| manifest.extends.is_none()).flat_map(|manifest| manifest.marks.clone());
    assert_eq!(own.collect::<Vec<_>>(), marks(), "the short way to the marks finds all of them");
    assert!(marks().contains(&"CLAUDECODE") && marks().contains(&"GEMINI_CLI"));
    for manifest in all {
        assert!(manifest.lanes.contains_key(&Lane::Headless), "{}", manifest.name);
        for level in [Permissions::Read, Permissions::Work, Permissions::Full] {
            assert!(manifest.permissions.contains_key(&level), "{} {}", manifest.name, level.word());
        }
        assert!(manifest.failures.iter().all(|r| Outcome::ALL.contains(&r.outcome)));
    }
}

#[test]
fn the_shipped_constraints_load() {
    let folder = tempfile::tempdir().unwrap();
    assert!(constraints::load(folder.path()).is_err(), "no file, no dispatch");
    std::fs::write(folder.path().join("provider_constraints.yaml"), constraints::SHIPPED).unwrap();
    let loaded = constraints::load(folder.path()).unwrap();
    let lock = include_str!("../../Cargo.lock");
    for import in loaded.constraints.iter().filter_map(|c| c.forbid_import.as_ref()) {
        assert!(!lock.contains(&format!("name = \"{import}\"")), "{import} is a forbidden dependency");
    }
    let twice = "version: 1\nconstraints:\n- {id: a, reason: x, severity: warn, forbid_route: {}}\n- {id: a, reason: x, severity: warn, forbid_route: {}}\n";
    std::fs::write(folder.path().join("provider_constraints.yaml"), twice).unwrap();
    assert!(constraints::load(folder.path()).unwrap_err().what.contains("stands twice"));
}

/// Whatever a CLI says, in whatever lane, the supervisor goes on.
#[test]
fn fuzz_what_workers_say() {
    for (name, lane) in ["claude", "codex", "gemini", "kimi"]
        .into_iter()
        .flat_map(|name| [(name, Lane::Headless), (name, Lane::Interactive)])
    {
        let manifest = manifest(name);
        let all: Vec<Vec<u8>> =
            samples(name).into_iter().map(|sample| (sample.stdout + &sample.stderr).into_bytes()).collect();
        crate::domain::fuzz::fuzz(&all, |bytes| {
            let mut stream = Stream::new(manifest.lanes[&lane].parser, &manifest.failures);
            for line in String::from_utf8_lossy(bytes).lines() {
                stream.stdout_line(line);
                stream.stderr_line(line);
            }
            stream.finish(&End::Exited { code: 0 });
        });
    }
}

#[test]
fn fuzz_manifests_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("providers")).unwrap();
    let (file, name) = (folder.path().join("providers/claude.yaml"), Name::parse("provider", "claude").unwrap());
    let samples = crate::domain::fuzz::samples_in("providers");
    crate::domain::fuzz::fuzz(&samples, |bytes| {
        std::fs::write(&file, bytes).unwrap();
        if let Err(fault) = shipped_or_own(folder.path(), &name) {
            assert!(!fault.fix.is_empty(), "{fault:?}");
        }
        let _ = super::environment::parse_file(&String::from_utf8_lossy(bytes));
    });
}
