//! Many writers of one ledger, killed, robbed of their lock file and failed by the system: nothing
//! that was acknowledged is lost, nothing stands twice, no link forks.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vnx::domain::receipt::{Body, DispatchPrepared, DispatchRefused, DispatchRequested, Entry};
use vnx::domain::{Digest, DispatchId, Name};
use vnx::ledger::Ledger;
use vnx::ledger::verify::{Options, Status, verify};

use crate::common::World;

/// `VNX_TEST_FULL=1` runs the numbers that the ledger is meant for; without it fewer of the same.
fn full() -> bool {
    std::env::var_os("VNX_TEST_FULL").is_some()
}

fn entries(writer: usize, n: usize) -> [Entry; 2] {
    let id = DispatchId::parse(&format!("writer-{writer:03}-{n:05}")).unwrap();
    let agent = Name::parse("agent", "test").unwrap();
    let prepared = DispatchPrepared { head: "0".repeat(40), prompt: Digest::ZERO, took_ms: n as u64 };
    [
        Entry::of(&id, Body::DispatchRequested(DispatchRequested { request: Digest::ZERO, agent })),
        Entry::of(&id, Body::DispatchPrepared(prepared)),
    ]
}

fn acks(folder: &Path, writer: usize) -> PathBuf {
    folder.join(format!("acks-{writer}"))
}

/// Appends and notes what was acknowledged, as one writer of many. By itself it is the smallest case.
#[test]
fn one_of_many() {
    let asked = std::env::var("VNX_TEST_WRITER").ok();
    let temp = tempfile::tempdir().unwrap();
    let (folder, writer, from, to) = match &asked {
        Some(asked) => {
            let parts: Vec<&str> = asked.split(',').collect();
            (PathBuf::from(parts[0]), parts[1].parse().unwrap(), parts[2].parse().unwrap(), parts[3].parse().unwrap())
        }
        None => (temp.path().to_owned(), 0, 0, 20),
    };
    let ledger = Ledger::at(folder.join("ledger"));
    if asked.is_none() {
        ledger.create(&Name::parse("project", "test").unwrap()).unwrap();
    }
    let mut noted = std::fs::File::options().create(true).append(true).open(acks(&folder, writer)).unwrap();
    for n in from..to {
        let done = ledger.append(&entries(writer, n)).unwrap();
        // Only what is noted counts as acknowledged: a kill may come before this.
        noted.write_all(format!("{n} {}\n", done[1].seq).as_bytes()).unwrap();
    }
    if asked.is_none() {
        check(&folder, &ledger, 1);
    }
}

fn start(folder: &Path, writer: usize, from: usize, to: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writers::one_of_many", "--test-threads=1"])
        .env("VNX_TEST_WRITER", format!("{},{writer},{from},{to}", folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Everything acknowledged stands where its writer was told, once, and the ledger is sound.
fn check(folder: &Path, ledger: &Ledger, writers: usize) -> usize {
    let report = verify(ledger.folder(), &Options::default());
    assert_eq!(report.status, Status::Verified, "{report:?}");
    let mut seqs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut reader = ledger.all().unwrap();
    while let Some(receipt) = reader.next_receipt().unwrap() {
        seqs.entry(receipt.key).or_default().push(receipt.seq);
    }
    let mut count = 0;
    for writer in 0..writers {
        for line in std::fs::read_to_string(acks(folder, writer)).unwrap_or_default().lines() {
            let (n, seq) = line.split_once(' ').unwrap();
            let key = entries(writer, n.parse().unwrap())[1].key();
            assert_eq!(seqs.get(&key), Some(&vec![seq.parse().unwrap()]), "{key}");
            count += 1;
        }
    }
    let twice = seqs.iter().find(|(key, seqs)| seqs.len() > 1 && !key.starts_with("ledger/"));
    assert_eq!(twice, None, "a receipt stands twice");
    count
}

/// A small linear congruential generator (Numerical Recipes).
fn numbers(seed: u32) -> impl Iterator<Item = usize> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    })
}

/// Keeps `writers` processes appending until `kills` of them were killed, each at a random moment.
fn storm(writers: usize, kills: usize, seed: u32, meanwhile: impl Fn(usize, &Ledger)) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let ledger = Ledger::at(folder.join("ledger"));
    ledger.create(&Name::parse("project", "test").unwrap()).unwrap();
    // Each life of a writer has numbers of its own: what was not acknowledged may stand all the same.
    let mut lives = vec![0; writers];
    let life = |writer: usize, lives: &mut Vec<usize>| {
        lives[writer] += 1;
        let from = lives[writer] * 100_000;
        start(folder, writer, from % 100_000 + (lives[writer] - 1) * 2000, lives[writer] * 2000)
    };
    let mut running: Vec<Child> = (0..writers).map(|w| life(w, &mut lives)).collect();
    let mut random = numbers(seed);
    for kill in 0..kills {
        std::thread::sleep(Duration::from_micros(random.next().unwrap() as u64 % 30_000));
        meanwhile(kill, &ledger);
        let victim = random.next().unwrap() % writers;
        let child = &mut running[victim];
        let _ = kill_process(Pid::from_child(child), Signal::KILL);
        child.wait().unwrap();
        running[victim] = life(victim, &mut lives);
    }
    for mut child in running {
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        child.wait().unwrap();
    }
    // Whoever comes next repairs what the last one left.
    ledger.append(&entries(999, 0)).unwrap();
    let acknowledged = check(folder, &ledger, writers);
    assert!(acknowledged > kills, "only {acknowledged} receipts were acknowledged");
}

#[test]
fn writers_that_are_killed_lose_nothing_that_was_acknowledged() {
    storm(4, if full() { 1000 } else { 40 }, 1, |_, _| {});
}

#[test]
fn a_lock_file_that_is_replaced_in_mid_run_forks_nothing() {
    storm(16, if full() { 200 } else { 20 }, 2, |_, ledger| {
        let _ = std::fs::remove_file(ledger.folder().join("LOCK"));
    });
}

/// The n-th system call of a kind fails, or is the last one, for every n until a run is clean.
fn injected(call: &str, what: &str) {
    let world = World::new();
    world.script("true").expect(4);
    let ledger = Ledger::at(world.state().join("receipts"));
    let agent = Name::parse("agent", "test").unwrap();
    for n in 1..200 {
        let refused =
            DispatchRefused { agent: agent.clone(), rule: "test".into(), reason: format!("{call} {what} {n}") };
        ledger.append(&[Entry::ledger(Body::DispatchRefused(refused))]).unwrap();
        let log = world.root.join("strace.log");
        let inject = format!("inject={call}:{what}:when={n}");
        let output = world
            .command("strace")
            .args(["-q", "-o", log.to_str().unwrap(), "-e", &format!("trace={call}"), "-e", &inject])
            .args([World::binary(), "audit-chain", "seal", "--json"])
            .output()
            .unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        let came = log.contains("(INJECTED)") || log.contains("killed by SIGKILL");
        let told = format!("{call} {what} at {n}: {output:?}");
        let after = world.vnx(&["audit-chain", "verify"]);
        assert!([0, 4].contains(&after.code), "{told}\n{}{}", after.out, after.err);
        if output.status.success() {
            let sealed: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{told}: {e}"));
            let anchors = world.git(&["rev-list", "refs/vnx/anchors"]);
            assert!(anchors.contains(sealed["commit"].as_str().unwrap()), "{told}: acknowledged and not there");
        }
        world.vnx(&["audit-chain", "seal"]).expect(0);
        world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(0);
        if !came {
            assert!(output.status.success(), "{told}");
            assert!(n > 1, "{call} was never called");
            return;
        }
    }
    panic!("{call} never ends");
}

#[test]
fn system_calls_that_fail_or_never_return() {
    let kill: &[&str] = &["signal=SIGKILL"];
    let all: &[&str] = &["signal=SIGKILL", "error=EIO", "error=ENOSPC"];
    std::thread::scope(|scope| {
        for (call, faults) in [("write", all), ("fdatasync", all), ("pread64", all), ("flock", kill), ("close", kill)] {
            scope.spawn(move || faults.iter().for_each(|what| injected(call, what)));
        }
    });
}
