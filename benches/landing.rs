//! From done to landed: the decision on a large ledger, and a merge beside the git commands that it needs.
//!
//! `cargo bench --bench landing`. Runs on `/dev/shm` where there is one; rounds of vnx and baseline alternate.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may stop at the first surprise")]

#[expect(dead_code, reason = "it serves other benches too")]
#[path = "place/line.rs"]
mod figures;
#[expect(dead_code, reason = "it serves other benches too")]
#[path = "place/mod.rs"]
mod place;

use std::time::Instant;

use figures::line;
use place::{Place, VNX, median, until};
use vnx::domain::receipt::{Body, DispatchRequested, Entry};
use vnx::domain::{Digest, DispatchId, Name};
use vnx::ledger::Ledger;

const RECEIPTS: usize = 100_000;
const FILES: usize = 2000;
const ROUNDS: usize = 7;

fn commit(place: &Place, gates: &str) {
    let text = format!("version: 1\nproject_id: repo\ntmux: {{panes: off}}\n{gates}");
    std::fs::write(place.repo.join(".vnx/config.yaml"), text).unwrap();
    place.run("git", &["add", "."]);
    place.run("git", &["commit", "-q", "-m", "configuration"]);
}

fn dispatch(place: &Place, n: usize) {
    let script = format!("echo {n} > new{n}; git add .; git commit -q -m {n}");
    place.run(VNX, &["-q", "dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", &script]);
}

fn timed(place: &Place, program: &str, args: &[&str]) -> f64 {
    let begun = Instant::now();
    let _ = place.run(program, args);
    begun.elapsed().as_secs_f64()
}

/// Receipts of other dispatches, as large as most are.
fn fill(place: &Place) {
    let ledger = Ledger::at(place.repo.join(".git/vnx/receipts")).witnessed(None);
    let agent = Name::parse("agent", "hello-world").unwrap();
    for batch in 0..RECEIPTS / 1000 {
        let entries: Vec<Entry> = (0..1000)
            .map(|n| {
                let id = DispatchId::parse(&format!("filler-{batch}-{n}-{}", "x".repeat(30))).unwrap();
                let body = DispatchRequested { request: Digest::of(id.as_str().as_bytes()), agent: agent.clone() };
                Entry::of(&id, Body::DispatchRequested(body))
            })
            .collect();
        ledger.append(&entries).unwrap();
    }
}

fn decision() {
    let place = Place::new(50);
    commit(&place, "gates: {tests: {command: 'true'}}\n");
    fill(&place);
    dispatch(&place, 0);
    place.run(VNX, &["-q", "gate", "run", "@last"]);
    // The supervisor compresses the sealed segment after its dispatch has closed; the next anchor remembers its file.
    until("a segment's compression", || !place.repo.join(".git/vnx/receipts/0001.ndjson").exists());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut compare = |what: &str, against: &str, bar: &str| {
        for _ in 0..ROUNDS {
            ours.push(timed(&place, VNX, &["gate-check", "@last"]));
            theirs.push(timed(&place, VNX, &["audit-chain", "verify", "--quick"]));
        }
        line(what, median(std::mem::take(&mut ours)), against, median(std::mem::take(&mut theirs)), bar);
    };
    compare("the same before an anchor has seen the compressed file", "the audit of all of them", "-");
    place.run(VNX, &["-q", "audit-chain", "seal"]);
    compare("gate-check, 100,000 receipts", "the audit of all of them", "50 ms");
}

fn merge() {
    let place = Place::new(FILES);
    commit(&place, "merge: {ungated: ['*']}\n");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        dispatch(&place, round);
        ours.push(timed(&place, VNX, &["-q", "merge", "@last"]));
        // The same by hand: a checkout of its own, the merge, the move, who has it checked out, and away with it.
        let (branch, tree) = (format!("bare-{round}"), place.root.join(format!("bare-{round}")));
        let tree = tree.to_str().unwrap();
        place.run("git", &["worktree", "add", "-q", "-b", &branch, tree]);
        std::fs::write(std::path::Path::new(tree).join(&branch), "x").unwrap();
        place.run("git", &["-C", tree, "add", "."]);
        place.run("git", &["-C", tree, "commit", "-q", "-m", "x"]);
        place.run("git", &["worktree", "remove", tree]);
        let base = String::from_utf8(place.run("git", &["rev-parse", "HEAD"]).stdout).unwrap();
        let begun = Instant::now();
        place.run("git", &["worktree", "add", "-q", "--detach", tree]);
        place.run("git", &["-C", tree, "merge", "-q", "--no-ff", "-m", "x", &branch]);
        let new = String::from_utf8(place.run("git", &["-C", tree, "rev-parse", "HEAD"]).stdout).unwrap();
        place.run("git", &["update-ref", "refs/heads/master", new.trim(), base.trim()]);
        place.run("git", &["read-tree", "-m", "-u", base.trim(), new.trim()]);
        place.run("git", &["worktree", "remove", tree]);
        place.run("git", &["branch", "-q", "-D", &branch]);
        theirs.push(begun.elapsed().as_secs_f64());
    }
    let (ours, theirs) = (median(ours), median(theirs));
    line("merge without gates, 2,000 files", ours, "the git commands that it needs", theirs, "+150 ms");
}

fn main() {
    decision();
    merge();
}
