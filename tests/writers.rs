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
use vnx::ledger::verify::{Options, Status, verify};
use vnx::ledger::{Ledger, Limit};

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

const ONE_OF_MANY: [&str; 3] = ["--exact", "writers::one_of_many", "--test-threads=1"];

/// Appends and notes what was acknowledged, as one writer of many. By itself it is the smallest case.
#[test]
fn one_of_many() {
    let asked = std::env::var("VNX_TEST_WRITER").ok();
    // Whoever is asked may be killed, and leaves nothing of its own.
    let temp = asked.is_none().then(|| tempfile::tempdir().unwrap());
    let (folder, [writer, from, to, receipts]) = match &asked {
        Some(asked) => {
            let parts: Vec<&str> = asked.split(',').collect();
            (PathBuf::from(parts[0]), [1, 2, 3, 4].map(|n: usize| parts[n].parse::<usize>().unwrap()))
        }
        None => (temp.iter().map(|temp| temp.path().to_owned()).collect(), [0, 0, 20, 100_000]),
    };
    let ledger = Ledger::at(folder.join("ledger")).with_limit(segments_of(receipts));
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

fn segments_of(receipts: usize) -> Limit {
    Limit { receipts: receipts as u64, ..Limit::default() }
}

fn start(folder: &Path, writer: usize, from: usize, to: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(ONE_OF_MANY)
        .env("VNX_TEST_WRITER", format!("{},{writer},{from},{to},100000", folder.display()))
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
    let noted = |writer| std::fs::read_to_string(acks(folder, writer)).unwrap_or_default().lines().count();
    for kill in 0.. {
        // In full, every writer comes to its thousand as well.
        if kill >= kills && (!full() || (0..writers).all(|writer| noted(writer) >= 1000)) {
            break;
        }
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
fn injected(call: &str, what: &str, command: &str) {
    let world = World::new();
    world.script("true").expect(4);
    let older = world.root.join("older.ndjson");
    let ledger = world.ledger_as_vnx();
    let agent = Name::parse("agent", "test").unwrap();
    for n in 1..200 {
        let refused =
            DispatchRefused { agent: agent.clone(), rule: "test".into(), reason: format!("{call} {what} {n}") };
        ledger.append(&[Entry::ledger(Body::DispatchRefused(refused))]).unwrap();
        std::fs::write(&older, format!("{{\"dispatch_id\":\"{n}\"}}\n").repeat(50)).unwrap();
        let arguments: &[&str] =
            if command == "import" { &["import", "--json", older.to_str().unwrap()] } else { &["seal", "--json"] };
        let log = world.root.join("strace.log");
        let inject = format!("inject={call}:{what}:when={n}");
        let output = world
            .command("strace")
            .args(["-q", "-o", log.to_str().unwrap(), "-e", &format!("trace={call}"), "-e", &inject])
            .args([World::binary(), "audit-chain"])
            .args(arguments)
            .output()
            .unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        let came = log.contains("(INJECTED)") || log.contains("killed by SIGKILL");
        let told = format!("{command}: {call} {what} at {n}: {output:?}");
        let after = world.vnx(&["audit-chain", "verify"]);
        assert!([0, 4].contains(&after.code), "{told}\n{}{}", after.out, after.err);
        if command == "import" {
            // Said to be there, or taken over by the next one: once in any case.
            world.vnx(&["audit-chain", "import", older.to_str().unwrap()]).expect(0);
            assert_eq!(world.count("ledger.imported"), n, "{told}");
            assert!(crate::common::names(&world.state().join("receipts/imported")).len() == n + 1, "{told}");
        } else if output.status.success() && !what.starts_with("retval") {
            // A write that only says that it took something may have been the one to the terminal.
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
    let write: &[&str] = &["signal=SIGKILL", "error=EIO", "error=ENOSPC", "retval=10"];
    std::thread::scope(|scope| {
        for (call, faults) in [("write", write), ("fdatasync", all), ("pread64", all), ("flock", kill), ("wait4", kill)]
        {
            scope.spawn(move || faults.iter().for_each(|what| injected(call, what, "seal")));
        }
        for (call, faults) in [("write", write), ("fdatasync", all), ("rename", all), ("read", all), ("openat", kill)] {
            scope.spawn(move || faults.iter().for_each(|what| injected(call, what, "import")));
        }
    });
}

/// The same for a writer by itself, on a ledger of segments of `receipts`, with a torn end or without.
/// How often that came.
fn injected_writer(call: &str, what: &str, receipts: usize, torn: bool) -> usize {
    for n in 1..400 {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path();
        let ledger = Ledger::at(folder.join("ledger")).with_limit(segments_of(receipts));
        ledger.create(&Name::parse("project", "test").unwrap()).unwrap();
        ledger.append(&entries(7, 0)).unwrap();
        std::fs::write(acks(folder, 7), "0 2\n").unwrap();
        if torn {
            let mut file = std::fs::File::options().append(true).open(ledger.file()).unwrap();
            file.write_all(b"{\"v\":1,\"prev\":\"torn").unwrap();
        }
        let log = folder.join("strace.log");
        let mut command = Command::new("strace");
        command.args(["-q", "-f", "-o", log.to_str().unwrap(), "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{what}:when={n}")]).arg(std::env::current_exe().unwrap());
        command.args(ONE_OF_MANY).env("VNX_TEST_WRITER", format!("{},0,0,3,{receipts}", folder.display()));
        let output = command.output().unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        let told = format!("{call} {what} at {n}, segments of {receipts}, torn {torn}: {output:?}\n{log}");
        let report = verify(ledger.folder(), &Options::default());
        assert!(matches!(report.status, Status::Verified | Status::TornTail), "{report:?}\n{told}");
        ledger.append(&entries(999, 0)).unwrap_or_else(|e| panic!("{e}: {told}"));
        check(folder, &ledger, 8);
        if !log.contains("(INJECTED)") && !log.contains("killed by SIGKILL") {
            assert!(output.status.success(), "{told}");
            return n - 1;
        }
    }
    panic!("{call} never ends");
}

#[test]
fn a_writer_survives_every_system_call_when_it_appends_seals_and_repairs() {
    let kill: &[&str] = &["signal=SIGKILL"];
    let all: &[&str] = &["signal=SIGKILL", "error=EIO", "error=ENOSPC"];
    let write: &[&str] = &["signal=SIGKILL", "error=EIO", "error=ENOSPC", "retval=10"];
    let calls = [
        ("write", write),
        ("fdatasync", all),
        ("fsync", all),
        ("rename", all),
        ("pread64", all),
        ("ftruncate", all),
        ("flock", kill),
    ];
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((call, faults)) = calls.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let cases = [(100_000, false), (100_000, true), (4, false)];
                    let came = |(receipts, torn)| -> usize {
                        faults.iter().map(|what| injected_writer(call, what, receipts, torn)).sum()
                    };
                    assert!(cases.into_iter().map(came).sum::<usize>() > 0, "{call} was never called");
                }
            });
        }
    });
}
