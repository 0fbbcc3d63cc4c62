//! The bars of the ledger, as ratios against named baselines in the same run.
//!
//! `cargo bench --bench ledger [-- verify|append|project] [--receipts N]`, 1,000,000 receipts unless told.
//! Runs on `/dev/shm` where there is one; `append` runs on the disk, because the disk is its point.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and may stop at the first surprise"
)]

#[path = "place/line.rs"]
mod figures;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use figures::{alone, compared, line};
use vnx::domain::receipt::{Body, DispatchRefused, DispatchRequested, Entry, Kind};
use vnx::domain::{Digest, DispatchId, Name};
use vnx::ledger::{Ledger, Limit};

const VNX: &str = env!("CARGO_BIN_EXE_vnx");

/// The first and the last receipt of a dispatch as `vnx dispatch-agent` writes them, 1.1 KB each on average.
fn receipts(n: usize) -> [Entry; 2] {
    let id = DispatchId::parse(&format!("20261121-100000-hello-world-{n:07}")).unwrap();
    let (request, plan) = (Digest::of(&n.to_be_bytes()), Digest::of(&n.to_le_bytes()));
    let commit = &request.to_string()[..40];
    let data = format!(
        r#"{{"request":"{request}","plan":"{plan}","agent":"hello-world","provider":"claude","model":"a-model-of-today","session":"5a1f3c9e-8f54-4b1c-9d0e-6f6f8b1f2a77","lane":"headless","base":{{"name":"refs/heads/master","commit":"b3bdb6f3b7f66fc75a00beeb79cb7d7ca2e4d9e9"}},"branch":"vnx/{id}","head":"{commit}","commits":1,"diff":{{"files":1,"added":1,"removed":0,"paths":["src/a/rather/long/path/to/a/file.rs","src/another/rather/long/path/to/a/file.rs","tests/of/these/two.rs","docs/and/their/documentation.md","CHANGELOG.md","src/a/rather/long/path/to/a/module.rs","src/another/rather/long/path/to/a/module.rs","tests/of/those/two.rs","README.md"]}},"end":{{"how":"exited","code":0}},"containment":{{"empty":true}},"usage":{{"input_tokens":{n},"output_tokens":2143,"cache_read_tokens":118224,"cost_micro_usd":91532,"source":"claude:result"}},"verdict":{{"decision":"accept","outcome":"done","reason":"1 commit on the dispatch branch","evidence":["worker: exit 0","process tree: empty","commits since the base: 1","uncommitted changes: no"]}},"teardown":{{"class":"committed","tree":"removed","branch_kept":true}},"took_ms":{{"prepare":44,"run":90,"close":12}}}}"#
    );
    let agent = Name::parse("agent", "hello-world").unwrap();
    let requested = DispatchRequested { request, agent };
    [
        Entry::of(&id, Body::DispatchRequested(requested)),
        Entry::of(&id, Body::from_json(Kind::DispatchClosed, &data).unwrap()),
    ]
}

fn ledger(folder: &Path, count: usize, limit: Limit) -> Ledger {
    let ledger = Ledger::at(folder).with_limit(limit);
    ledger.create(&Name::parse("project", "bench").unwrap()).unwrap();
    let numbers: Vec<usize> = (1..=count / 2).collect();
    for block in numbers.chunks(500) {
        ledger.append(&block.iter().flat_map(|n| receipts(*n)).collect::<Vec<_>>()).unwrap();
    }
    ledger
}

fn seconds(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut took: Vec<f64> = (0..runs)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[runs / 2]
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn verify(count: usize) {
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let temp = tempfile::Builder::new().prefix("vnx-bench-").tempdir_in(base).unwrap();
    // One file, so that the baseline reads the same bytes.
    let ledger = ledger(&temp.path().join("receipts"), count, Limit { bytes: u64::MAX, receipts: u64::MAX });
    let file = ledger.file();
    let file = file.to_str().unwrap();
    let digest = seconds(5, || drop(run("openssl", &["dgst", "-sha256", file])));
    let quick = seconds(5, || drop(run(VNX, &["audit-chain", "verify", "--quick", "--file", file])));
    let strict = seconds(5, || drop(run(VNX, &["audit-chain", "verify", "--file", file])));
    line("verify, hashes and links", quick, "openssl dgst -sha256", digest, "0.55");
    line("verify, payloads too", strict, "openssl dgst -sha256", digest, "1.50");
    let peak = run(
        "/usr/bin/env",
        &[
            "bash",
            "-c",
            &format!(
                "{VNX} audit-chain verify --file {file} >/dev/null & pid=$!; peak=0; while kill -0 $pid 2>/dev/null; do peak=$(awk '/VmHWM/{{print $2}}' /proc/$pid/status 2>/dev/null || echo $peak); [ -n \"$peak\" ] && last=$peak; sleep 0.01; done; echo $last"
            ),
        ],
    );
    alone("peak memory of verify", peak.trim().parse::<f64>().unwrap_or(f64::NAN) / 1e3, "MB", "64 MB");
    std::io::stdout().flush().unwrap();
}

/// A receipt that waits for the disk.
fn refused(n: usize) -> Entry {
    let agent = Name::parse("agent", "hello-world").unwrap();
    let reason = format!("receipt number {n}").repeat(40);
    Entry::ledger(Body::DispatchRefused(DispatchRefused { agent, rule: "a-rule".into(), reason }))
}

/// The value below which this share of them lies.
fn share(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the values")]
    let at = (values.len() as f64 * share) as usize;
    values[at.min(values.len() - 1)]
}

fn append() {
    const EACH: usize = 400;
    let temp = tempfile::Builder::new().prefix("vnx-bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ledger = ledger(&temp.path().join("receipts"), 2, Limit::default());
    let bare = std::fs::File::options().create(true).append(true).open(temp.path().join("bare")).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let bytes = vec![b'x'; 1100];
    for n in 0..EACH {
        let begun = Instant::now();
        ledger.append(&[refused(n)]).unwrap();
        ours.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        (&bare).write_all(&bytes).unwrap();
        bare.sync_data().unwrap();
        theirs.push(begun.elapsed().as_secs_f64());
    }
    let one = 1.0 / (ours.iter().sum::<f64>() / EACH as f64);
    line(
        "durable append, one writer (median)",
        share(ours, 0.5),
        "write + fdatasync",
        share(theirs.clone(), 0.5),
        "1.25",
    );
    let begun = Instant::now();
    let times: Vec<f64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let folder = ledger.folder().to_owned();
                scope.spawn(move || {
                    let ledger = Ledger::at(folder);
                    let times = (0..EACH).map(|n| {
                        let begun = Instant::now();
                        ledger.append(&[refused(writer * EACH + n)]).unwrap();
                        begun.elapsed().as_secs_f64()
                    });
                    times.collect::<Vec<f64>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    compared("durable append, 16 writers", (rate, one, "/s"), "one writer", "at least 3.00");
    line("durable append, 16 writers, p99", share(times, 0.99), "the device's own", share(theirs, 0.99), "+10 ms");
}

/// A project with a long ledger and a signed anchor.
fn project(count: usize) {
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let temp = tempfile::Builder::new().prefix("vnx-bench-").tempdir_in(base).unwrap();
    let repo = temp.path().join("bench");
    let command = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", temp.path());
        command.current_dir(if repo.is_dir() { &repo } else { temp.path() });
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    command("git", &["init", "-q", "bench"]);
    let key = temp.path().join("key");
    command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    for (name, value) in [("user.name", "b"), ("user.email", "b@vnx.invalid"), ("gpg.format", "ssh")] {
        command("git", &["config", name, value]);
    }
    command("git", &["config", "user.signingkey", key.to_str().unwrap()]);
    command("git", &["commit", "-q", "--allow-empty", "-m", "x"]);
    command(VNX, &["-q", "init"]);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    std::fs::write(repo.join(".vnx/allowed_signers"), format!("b@vnx.invalid {public}")).unwrap();
    std::fs::remove_dir_all(repo.join(".git/vnx/receipts")).unwrap();
    let ledger = ledger(&repo.join(".git/vnx/receipts"), count, Limit::default());
    command(VNX, &["audit-chain", "seal"]);
    let opening = seconds(11, || drop(ledger.append(&receipts(count + 7)[..1]).unwrap()));
    let vnx = |args: &[&str]| seconds(11, || drop(command(VNX, args)));
    let nothing = seconds(11, || drop(command("true", &[])));
    let folder = ledger.folder().display().to_string();
    let digest = seconds(3, || drop(command("sh", &["-c", &format!("cat {folder}/*.ndjson | openssl dgst -sha256")])));
    line("opening for append, nothing to wait for", opening, "true", nothing, "2 ms");
    line(
        "verify --since-anchor after one append",
        vnx(&["audit-chain", "verify", "--since-anchor"]),
        "true",
        nothing,
        "20 ms",
    );
    line("receipts list -n 20", vnx(&["receipts", "list", "-n", "20"]), "true", nothing, "20 ms");
    let begun = Instant::now();
    let middle = receipts(count / 4)[0].dispatch.clone().unwrap().to_string();
    let query = ["receipts", "query", "--dispatch", middle.as_str()];
    assert!(command(VNX, &query).contains("accept done"));
    alone("receipts list -n 20 without state.db, which it makes", begun.elapsed().as_secs_f64() * 1e3, "ms", "-");
    line("receipts query --dispatch", vnx(&query), "true", nothing, "20 ms");
    for _ in 0..2 {
        ledger.pack().unwrap();
    }
    line("receipts query --dispatch, segments compressed", vnx(&query), "true", nothing, "20 ms");
    line("verify with the roots of the anchors", vnx(&["audit-chain", "verify"]), "openssl dgst -sha256", digest, "-");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| args.iter().position(|a| a == flag).and_then(|at| args.get(at + 1));
    let count = after("--receipts").map_or(1_000_000, |n| n.parse().unwrap());
    let names = ["verify", "append", "project"];
    let wanted = |name: &str| args.iter().any(|a| a == name) || !args.iter().any(|a| names.contains(&a.as_str()));
    if wanted("verify") {
        verify(count);
    }
    if wanted("append") {
        append();
    }
    if wanted("project") {
        project(count);
    }
}
