//! The bars of the main job, as ratios against named baselines in the same run.
//!
//! `cargo bench --bench main_job [-- first|ten|memory|reading]`. Runs on `/dev/shm` where there is one, because a slow disk
//! hides everything; rounds of vnx and baseline alternate, so that a busy moment hits both.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and may stop at the first surprise"
)]

#[path = "place/line.rs"]
mod figures;
#[path = "place/mod.rs"]
mod place;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use figures::{alone, line};
use place::{Place, STAMP, VNX, median, moment, now, settle};

const FILES: usize = 2000;

const DISPATCH: [&str; 7] = ["-q", "dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i"];

fn first_instruction(place: &Place) {
    let (mut ours, mut bare, mut tails, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..15 {
        let (first, last) = (place.stamp("first"), place.stamp("last"));
        let script = format!(
            "{STAMP} {}; git commit -q --allow-empty -m $VNX_DISPATCH_ID; {STAMP} {}",
            first.display(),
            last.display()
        );
        let begun = now();
        let output = place.command(VNX).args(DISPATCH).arg(&script).output().unwrap();
        let ended = now();
        // An empty commit changes nothing: the verdict is `unproven`, which is exit 4.
        assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
        ours.push(moment(&first) - begun);
        tails.push(ended - moment(&last));
        settle(&place.repo);

        let (first, branch) = (place.stamp("first"), format!("bare-{round}"));
        let tree = place.root.join(&branch);
        let begun = now();
        place.run("git", &["worktree", "add", "-q", "--no-track", "-b", &branch, tree.to_str().unwrap()]);
        let script = format!("{STAMP} {}", first.display());
        place.run(
            "tmux",
            &[
                "new-window",
                "-d",
                "-t",
                "=vnx-repo:",
                "-n",
                &branch,
                "-c",
                tree.to_str().unwrap(),
                "--",
                "sh",
                "-c",
                &script,
            ],
        );
        bare.push(moment(&first) - begun);
        let begun = now();
        place.run(
            "git",
            &[
                "-C",
                tree.to_str().unwrap(),
                "status",
                "--porcelain=v2",
                "-z",
                "--untracked-files=all",
                "--ignored=matching",
            ],
        );
        place.run("git", &["worktree", "remove", tree.to_str().unwrap()]);
        status.push(now() - begun);
        place.run("git", &["branch", "-q", "-D", &branch]);
    }
    line(
        "start to the worker's first instruction, with pane",
        median(ours),
        "worktree add + new-window",
        median(bare),
        "1.20",
    );
    line("worker's exit to the command's exit", median(tails), "status + worktree remove", median(status), "60 ms");
}

fn ten_at_once(place: &Place) {
    let (mut ours, mut bare, mut torn_down) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..5 {
        let begun = now();
        let script = "echo $VNX_DISPATCH_ID > f; git add f; git commit -q -m x";
        let children: Vec<_> = (0..10)
            .map(|_| place.command(VNX).args(DISPATCH).arg(script).stdout(Stdio::null()).spawn().unwrap())
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        ours.push(now() - begun);
        settle(&place.repo);

        let begun = now();
        let threads: Vec<_> = (0..10)
            .map(|n| {
                let branch = format!("ten-{round}-{n}");
                let (tree, done) = (place.root.join(&branch), place.stamp(&format!("done-{n}")));
                let commands: Vec<Command> = {
                    let mut add = place.command("git");
                    add.args(["worktree", "add", "-q", "--no-track", "-b", &branch]).arg(&tree);
                    let script =
                        format!("echo {branch} > f; git add f; git commit -q -m x; {STAMP} {}", done.display());
                    let mut window = place.command("tmux");
                    window
                        .args(["new-window", "-d", "-t", "=vnx-repo:", "-n", &branch, "-c"])
                        .arg(&tree)
                        .args(["--", "sh", "-euc", &script]);
                    vec![add, window]
                };
                std::thread::spawn(move || {
                    for mut command in commands {
                        // Bare git loses races for its own locks; a person would try again.
                        while !command.output().unwrap().status.success() {}
                    }
                    let _ = moment(&done);
                    tree
                })
            })
            .collect();
        let trees: Vec<PathBuf> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        bare.push(now() - begun);
        // What a dispatch also does, done by hand as fast as two cores allow.
        std::thread::scope(|scope| {
            for tree in &trees {
                scope.spawn(move || {
                    let tree = tree.to_str().unwrap();
                    place.run("git", &["-C", tree, "status", "--porcelain=v2", "-z", "--untracked-files=all"]);
                    while !place.command("git").args(["worktree", "remove", tree]).output().unwrap().status.success() {}
                });
            }
        });
        torn_down.push(now() - begun);
    }
    let ours = median(ours);
    line("10 at the same instant, all closed", ours, "10 bare ones, left standing", median(bare), "1.30");
    line(
        "10 at the same instant, beside checks and removal",
        ours,
        "10 bare ones, checked and removed",
        median(torn_down),
        "-",
    );
}

fn reading(place: &Place) {
    use vnx::domain::receipt::{Body, DispatchRefused, Entry};
    let refused = |n: usize| {
        let agent = vnx::domain::Name::parse("agent", "hello-world").unwrap();
        let reason =
            format!("receipt number {n} of a long ledger, with a reason of some length so that its line is not tiny");
        Entry::ledger(Body::DispatchRefused(DispatchRefused { agent, rule: "a-rule".into(), reason }))
    };
    let ledger = vnx::ledger::Ledger::at(place.repo.join(".git/vnx/receipts")).witnessed(None);
    for block in 0..100 {
        let entries: Vec<Entry> = (0..1000).map(|n| refused(block * 1000 + n)).collect();
        ledger.append(&entries).unwrap();
    }
    let time = |program: &str, args: &[&str]| {
        median(
            (0..21)
                .map(|_| {
                    let begun = Instant::now();
                    place.run(program, args);
                    begun.elapsed().as_secs_f64()
                })
                .collect(),
        )
    };
    let nothing = time("true", &[]);
    line("vnx --version", time(VNX, &["--version"]), "true", nothing, "15 ms");
    line(
        "vnx receipts list -n 10 of 100,000",
        time(VNX, &["receipts", "list", "--all", "-n", "10"]),
        "true",
        nothing,
        "15 ms",
    );
    let verify = time(VNX, &["audit-chain", "verify"]);
    let digest = time("sha256sum", &[ledger.file().to_str().unwrap()]);
    line("vnx audit-chain verify of 100,000", verify, "sha256sum of the file", digest, "-");
    let doctor = time(VNX, &["doctor"]);
    line("vnx doctor, without login probes", doctor, "true", nothing, "300 ms");
}

fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Highest resident size of the supervisor in kB while `script` runs.
fn supervisor_peak(place: &Place, script: &str) -> u64 {
    let mut child = place.command(VNX).args(DISPATCH).arg(script).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // The supervisor is the child of its guard.
        for pid in children(child.id()).into_iter().flat_map(children) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let resident =
                status.lines().find(|l| l.starts_with("VmHWM")).and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
            if command.contains("supervise") {
                peak = peak.max(resident.unwrap_or(0));
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    settle(&place.repo);
    peak
}

fn memory(place: &Place) {
    let idle = supervisor_peak(place, "sleep 1");
    alone("supervisor while its worker idles", idle as f64 / 1e3, "MB", "10 MB");
    let begun = Instant::now();
    let bytes = 1_000_000_000.0;
    let busy = supervisor_peak(place, "head -c 1000000000 /dev/zero | tr '\\0' x | fold -w 120");
    let rate = bytes / begun.elapsed().as_secs_f64() / 1e6;
    alone("supervisor while its worker streams", busy as f64 / 1e3, "MB", "20 MB");
    alone("what it streams", rate, "MB/s", "-");
}

fn main() {
    type Bench = fn(&Place);
    let place = Place::new(FILES);
    // `cargo bench --bench main_job -- ten` runs only that one.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let benches: [(&str, Bench); 4] =
        [("first", first_instruction), ("ten", ten_at_once), ("memory", memory), ("reading", reading)];
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            bench(&place);
        }
    }
}
