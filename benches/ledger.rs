//! The bars of the ledger, as ratios against named baselines in the same run.
//!
//! `cargo bench --bench ledger [-- verify|append] [--receipts N]`, 1,000,000 receipts unless told.
//! Runs on `/dev/shm` where there is one; `append` runs on the disk, because the disk is its point.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may stop at the first surprise")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use vnx::domain::receipt::{Body, Entry, Kind};
use vnx::domain::{DispatchId, Name};
use vnx::ledger::Ledger;

const VNX: &str = env!("CARGO_BIN_EXE_vnx");

/// A closing receipt as `vnx dispatch-agent` writes it, about 1.1 KB as a line.
fn receipt(n: usize) -> Entry {
    let id = DispatchId::parse(&format!("20261121-100000-hello-world-{n:07}")).unwrap();
    let data = format!(
        r#"{{"request":"{n:064x}","plan":"{n:064x}","agent":"hello-world","provider":"shell","lane":"headless","base":{{"name":"refs/heads/master","commit":"b3bdb6f3b7f66fc75a00beeb79cb7d7ca2e4d9e9"}},"branch":"vnx/{id}","head":"{n:040x}","commits":1,"diff":{{"files":1,"added":1,"removed":0,"paths":["f"]}},"end":{{"how":"exited","code":0}},"containment":{{"empty":true}},"usage":{{}},"verdict":{{"decision":"accept","outcome":"done","reason":"1 commit on the dispatch branch","evidence":["1 commit on the dispatch branch"]}},"teardown":{{"class":"committed","tree":"removed","branch_kept":true}},"took_ms":{{"prepare":44,"run":90,"close":12}}}}"#
    );
    Entry::of(&id, Body::from_json(Kind::DispatchClosed, &data).unwrap())
}

fn ledger(folder: &Path, receipts: usize) -> Ledger {
    let ledger = Ledger::at(folder.join("receipts"));
    ledger.create(&Name::parse("project", "bench").unwrap()).unwrap();
    let numbers: Vec<usize> = (1..receipts).collect();
    for block in numbers.chunks(1000) {
        ledger.append(&block.iter().map(|n| receipt(*n)).collect::<Vec<_>>()).unwrap();
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

fn line(what: &str, ours: f64, baseline: &str, theirs: f64, bar: &str) {
    let ratio = ours / theirs;
    println!(
        "{what:<52} {:>8.1} ms   {baseline}: {:>8.1} ms   ratio {ratio:>5.2}   bar {bar}",
        ours * 1e3,
        theirs * 1e3
    );
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn verify(receipts: usize) {
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let temp = tempfile::Builder::new().prefix("vnx-bench-").tempdir_in(base).unwrap();
    let ledger = ledger(temp.path(), receipts);
    let file = ledger.file();
    let file = file.to_str().unwrap();
    let bytes = std::fs::metadata(file).unwrap().len();
    println!("{receipts} receipts, {} bytes each", bytes / receipts as u64);
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
    println!(
        "{:<52} {:>8.1} MB   bar 64 MB",
        "peak memory of verify",
        peak.trim().parse::<f64>().unwrap_or(f64::NAN) / 1e3
    );
    std::io::stdout().flush().unwrap();
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| args.iter().position(|a| a == flag).and_then(|at| args.get(at + 1));
    let receipts = after("--receipts").map_or(1_000_000, |n| n.parse().unwrap());
    let wanted = |name: &str| args.iter().any(|a| a == name) || !args.iter().any(|a| a == "verify" || a == "append");
    if wanted("verify") {
        verify(receipts);
    }
}
