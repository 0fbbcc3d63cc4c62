//! Many dispatches of mixed fate in one repository, with kills thrown in: nothing is lost, nothing leaks, the chain
//! holds. 60 of them; `VNX_TEST_FULL=1` makes 500.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{World, names};

/// So many at once.
const LANES: usize = 4;

/// What the `n`th worker does. Each writes a file of its own first, and says so where vnx does not look.
fn script(n: usize, wrote: &str) -> String {
    let begin = format!("printf 'soak {n}\\n' > f{n} && touch {wrote}/{n}");
    let commit = format!("git add f{n} && git commit -qm {n}");
    let then = match n % 12 {
        0 => commit,
        1 => format!("{commit}; echo more > beside"),
        2 => return "true".to_owned(),
        3 => "exit 3".to_owned(),
        4 => format!("{commit}; setsid sleep 300 & setsid setsid nohup sleep 300 >/dev/null 2>&1 &"),
        5 => "exec sleep 300".to_owned(),
        6 => format!("git checkout -q --detach; {commit}"),
        7 => format!("git add f{n}; git stash -q"),
        8 => format!("mv f{n} f{n}.env"),
        9 | 10 => format!("{commit}; for i in 1 2 3 4 5 6; do echo $i > g; git add g; git commit -qm $i; done"),
        _ => format!("{commit}; git bisect start -q 2>/dev/null || git bisect start; echo half > done"),
    };
    format!("{begin}; {then}")
}

/// Kills one of the world's processes whose command has this in it, some way into its life.
fn kill_one(world: &World, what: &str, n: usize) {
    let begun = Instant::now();
    let moment = Duration::from_millis((n as u64).wrapping_mul(7919) % 150);
    while begun.elapsed() < Duration::from_secs(10) {
        let found = world.processes().into_iter().find(|(_, command)| command.contains(what));
        if let Some((pid, _)) = found.filter(|_| begun.elapsed() > moment) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            return;
        }
        std::thread::yield_now();
    }
}

/// Dispatches, and says how long that took before it is merged or undone.
fn dispatch(world: &World, n: usize, wrote: &str) -> Duration {
    let begun = Instant::now();
    let (script, id) = (script(n, wrote), format!("soak-{n}"));
    let deadline = if n % 12 == 5 { "1s" } else { "60s" };
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "--id", &id];
    let mut child = world.start(&[&args[..], &["--deadline", deadline, "-i", &script]].concat());
    match n % 12 {
        9 => kill_one(world, &format!(" supervise --state {} {id}", world.state().display()), n),
        10 => {
            std::thread::sleep(Duration::from_millis((n as u64).wrapping_mul(104_729) % 200));
            let _ = child.kill();
        }
        _ => {}
    }
    let _ = child.wait_with_output().unwrap();
    let took = begun.elapsed();
    if n.is_multiple_of(24) {
        let run = world.vnx(&["merge", &id]);
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    }
    if n % 24 == 12 {
        world.vnx(&["undo", &id]).expect(0);
    }
    took
}

/// Every file below a folder.
fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { files(&e.path()) } else { 1 }).sum()
}

/// The blobs that a ref keeps, a stash among them.
fn kept(world: &World) -> HashSet<String> {
    let stashes = world.git(&["log", "-g", "--format=%H", "refs/stash", "--"]);
    let all = [&["rev-list", "--objects", "--all"][..], &stashes.lines().collect::<Vec<_>>()].concat();
    world.git(&all).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// What was measured, by quarter: the most memory that a supervisor had, in KiB, and how long dispatches took.
type Measured = (BTreeMap<usize, u64>, BTreeMap<usize, Vec<Duration>>);

/// Dispatches all of them, some at once.
fn run(world: &World, many: usize, wrote: &str) -> Measured {
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (memory, took) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let quarter = next.load(Ordering::Relaxed).saturating_sub(LANES).min(many - 1) * 4 / many;
                for (pid, _) in world.processes().iter().filter(|(_, command)| command.contains(" supervise ")) {
                    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                    let peak = status
                        .lines()
                        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
                    let mut memory = memory.lock().unwrap();
                    let most = memory.entry(quarter).or_insert(0);
                    *most = peak.unwrap_or(0).max(*most);
                }
                std::thread::yield_now();
            }
        });
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= many {
                            break;
                        }
                        let one = dispatch(world, n, wrote);
                        if n % 12 == 0 {
                            took.lock().unwrap().entry(n * 4 / many).or_insert_with(Vec::new).push(one);
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = lanes.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        sampler.join().unwrap();
        assert!(results.iter().all(Result::is_ok));
    });
    (memory.into_inner().unwrap(), took.into_inner().unwrap())
}

/// Those whose file is neither in a commit that a ref keeps nor in a worktree that stands.
fn lost<'a>(world: &World, written: &'a [String]) -> Vec<&'a String> {
    let survives = |n: &str| {
        let tree = world.worktrees().join(format!("soak-{n}"));
        let text = format!("soak {n}\n");
        let stands = |name: String| std::fs::read_to_string(tree.join(name)).is_ok_and(|found| found == text);
        stands(format!("f{n}")) || stands(format!("f{n}.env"))
    };
    let blob = |n: &str| {
        let path = world.root.join("blob");
        std::fs::write(&path, format!("soak {n}\n")).unwrap();
        world.git(&["hash-object", path.to_str().unwrap()])
    };
    let objects = kept(world);
    written.iter().filter(|n| !survives(n) && !objects.contains(&blob(n))).collect()
}

#[test]
fn nothing_is_lost_and_nothing_leaks() {
    let many = if std::env::var_os("VNX_TEST_FULL").is_some() { 500 } else { 60 };
    let world = World::in_memory();
    world.config("merge: {ungated: ['*']}\ntmux: {panes: off}\n");
    std::fs::write(world.repo.join(".gitignore"), "*.env\n").unwrap();
    world.git(&["add", "-A"]);
    world.git(&["commit", "-qm", "begin"]);
    let wrote = world.root.join("wrote");
    std::fs::create_dir(&wrote).unwrap();
    let (memory, took) = run(&world, many, wrote.to_str().unwrap());

    // Whatever was cut off is finished by the next command.
    world.until("supervisors to end", || !world.processes().iter().any(|(_, c)| c.contains(" supervise ")));
    world.vnx(&["ps"]).expect(0);
    assert_eq!(names(&world.state().join("open")), Vec::<String>::new());
    world.assert_verified();
    let receipts = world.receipts();
    let of = |kind: &str| -> Vec<&str> {
        receipts.iter().filter(|r| r["kind"] == kind).filter_map(|r| r["dispatch"].as_str()).collect()
    };
    let (claimed, closed) = (of("dispatch.claimed"), of("dispatch.closed"));
    assert_eq!(closed.len(), closed.iter().collect::<BTreeSet<_>>().len(), "one was closed twice");
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>(), closed.iter().collect::<BTreeSet<_>>());
    assert_eq!(of("merge.landed").len(), many.div_ceil(24));

    // What a worker wrote is kept; before and after all is reclaimed.
    let written = names(&wrote);
    assert!(written.len() > many * 3 / 4, "{} of {many}", written.len());
    assert_eq!(lost(&world, &written), Vec::<&String>::new());
    let standing = names(&world.worktrees()).len();
    for name in names(&world.worktrees()) {
        let run = world.vnx(&["worktree", "gc", "--apply", &name]);
        assert_eq!(run.code, 0, "{name}: {}{}", run.out, run.err);
    }
    world.git(&[
        "-c",
        "gc.reflogExpire=now",
        "-c",
        "gc.reflogExpireUnreachable=now",
        "reflog",
        "expire",
        "refs/heads/main",
    ]);
    world.git(&["prune", "--expire=now"]);
    assert_eq!(lost(&world, &written), Vec::<&String>::new(), "by gc");
    world.assert_verified();
    world.assert_nothing_left();
    let doctor = world.vnx(&["doctor"]);
    assert!(!doctor.out.contains("FAIL"), "{}", doctor.out);

    // Nothing grows but what is kept on purpose: a folder for each dispatch, and the ledger.
    let state = world.state();
    let rest: usize = names(&state)
        .iter()
        .filter(|name| !["dispatches", "receipts"].contains(&name.as_str()))
        .map(|name| files(&state.join(name)).max(1))
        .sum();
    // Each block of ports has a lock, made when it was first taken.
    let rest = rest - files(&state.join("locks/ports"));
    let each = files(&state.join("dispatches")) / claimed.len();
    let (first, last) = (memory[&0], *memory.values().last().unwrap());
    println!("dispatches {many}, receipts {}, worktrees kept at the end {standing}, lost 0", receipts.len());
    println!(
        "files of a dispatch {each}, other files of the state {rest}, ledger {} KiB",
        std::fs::metadata(world.ledger()).unwrap().len() >> 10
    );
    println!("most memory of a supervisor, by quarter: {memory:?} KiB");
    for (quarter, mut all) in took {
        all.sort();
        println!("a dispatch that commits, quarter {quarter}: median {:?} of {}", all[all.len() / 2], all.len());
    }
    assert!(rest < 20, "{:?}", names(&state));
    assert!(each < 20, "{each} files for each dispatch");
    assert!(last < first * 3 / 2 + 4096, "supervisors grow: {memory:?}");
}
