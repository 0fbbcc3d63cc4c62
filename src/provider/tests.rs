//! The corpus: real outputs of real CLIs, each with the one outcome it stands for.

use std::path::{Path, PathBuf};

use super::*;
use crate::domain::agent::Deliverable;
use crate::domain::event::Listener;
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
    load(Path::new("/nonexistent"), &Name::parse("provider", name).unwrap()).unwrap()
}

#[test]
fn every_sample_has_its_outcome() {
    let mut wrong = Vec::new();
    for provider in ["claude", "codex"] {
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
                git: GitEvidence {
                    commits: Some(1),
                    uncommitted: Tri::No,
                    on_own_branch: Tri::Yes,
                    elsewhere: false,
                    empty_diff: Tri::No,
                },
                delivers: Deliverable::Commit,
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
    let read = |provider: &str| {
        let manifest = manifest(provider);
        let sample = samples(provider).into_iter().find(|s| s.name.ends_with("/commit.txt")).unwrap();
        let mut stream = Stream::new(manifest.lanes[&Lane::Headless].parser, &manifest.failures);
        sample.stdout.lines().for_each(|l| drop(stream.stdout_line(l)));
        stream.finish(&sample.end)
    };
    let (claude, report) = read("claude");
    assert_eq!(claude.usage.input_tokens, Some(3600));
    assert_eq!(claude.usage.output_tokens, Some(102));
    assert!(claude.usage.cost_micro_usd.is_some_and(|c| c > 0));
    assert!(claude.session.is_some() && claude.model.is_some() && report.starts_with("Done"), "{claude:?} {report}");
    let (codex, report) = read("codex");
    assert_eq!((codex.usage.input_tokens, codex.usage.cache_read_tokens), (Some(3300), Some(300)));
    assert_eq!(codex.usage.cost_micro_usd, None, "unknown is not zero");
    assert!(codex.session.is_some() && report.starts_with("Done"), "{codex:?} {report}");
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
    let all = all(Path::new("/nonexistent")).unwrap();
    assert_eq!(all.len(), 3);
    for manifest in all {
        assert!(manifest.lanes.contains_key(&Lane::Headless), "{}", manifest.name);
        assert_eq!(manifest.permissions.len(), 3, "{}", manifest.name);
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
