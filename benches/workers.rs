//! The bars of interactive workers: their terminals, viewers, messages and ends.
//!
//! `cargo bench --bench workers [-- throughput|attach|idle|viewers|cancel|delivery]`. `delivery` drives the real Claude Code and needs
//! `VNX_TEST_CLIS`, the folder that `tools/install-clis` prints.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and may stop at the first surprise"
)]

#[path = "place/line.rs"]
mod figures;
#[path = "place/mod.rs"]
mod place;
#[path = "../tests/common/stub/mod.rs"]
#[expect(dead_code, reason = "a bench needs one answer of it")]
mod stub;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use figures::{alone, line};
use place::{Place, STAMP, VNX, median, moment, now, until};
use vnx::sys::pty::{Pty, Size};

const LANE: [&str; 7] = ["-q", "dispatch-agent", "--agent", "hello-world", "--lane", "interactive", "--no-pane"];

fn ids(place: &Place) -> Vec<String> {
    let ps: serde_json::Value = serde_json::from_slice(&place.run(VNX, &["ps", "--json"]).stdout).unwrap();
    ps["dispatches"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect()
}

fn states(place: &Place, state: &str) -> usize {
    let ps: serde_json::Value = serde_json::from_slice(&place.run(VNX, &["ps", "--json"]).stdout).unwrap();
    ps["dispatches"].as_array().unwrap().iter().filter(|d| d["state"] == state).count()
}

/// A program that writes much: within ours, and under script(1).
fn throughput(place: &Place) {
    let work = "head -c 200000000 /dev/zero | tr '\\0' a | fold -w 100";
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (first, last) = (place.stamp("first"), place.stamp("last"));
        let script = format!("{STAMP} {}; {work}; {STAMP} {}", first.display(), last.display());
        place.command(VNX).args(LANE).args(["--provider", "shell", "-i", &script]).output().unwrap();
        ours.push(moment(&last) - moment(&first));
        let (first, last) = (place.stamp("first"), place.stamp("last"));
        let script = format!("{STAMP} {}; {work}; {STAMP} {}", first.display(), last.display());
        place.command("script").args(["-q", "-c", &script, "/dev/null"]).stdout(Stdio::null()).status().unwrap();
        theirs.push(moment(&last) - moment(&first));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    line("200 MB through the terminal", ours, "script -q /dev/null", theirs, "1.30");
}

/// From the start of `vnx attach` to a whole screen.
fn attach(place: &Place) {
    let draw = "i=0; while [ $i -lt 49 ]; do printf '\\033[3%dm%0180d\\033[0m\\n' $((i % 8)) $i; i=$((i+1)); done; printf END; read x";
    place.run(VNX, &[&LANE[..], &["--provider", "shell", "--detach", "-i", draw]].concat());
    until("a worker's start", || states(place, "working") == 1);
    let mut times = Vec::new();
    for _ in 0..30 {
        let pty = Pty::open(Size::UNWATCHED).unwrap();
        let begun = Instant::now();
        let mut command = place.command(VNX);
        command.args(["attach", "@last"]);
        command.stdin(Stdio::from(pty.slave.try_clone().unwrap())).stdout(Stdio::from(pty.slave.try_clone().unwrap()));
        let mut child = command.stderr(Stdio::from(pty.slave)).spawn().unwrap();
        drop(command);
        let mut master = std::fs::File::from(pty.master);
        let (mut seen, mut buffer) = (Vec::new(), [0; 65536]);
        until("a screen", || {
            if let Ok(n) = master.read(&mut buffer) {
                seen.extend_from_slice(&buffer[..n]);
            }
            seen.windows(3).any(|w| w == b"END")
        });
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        std::io::Write::write_all(&mut master, b"\x1c").unwrap();
        until("a viewer's end", || {
            let _ = master.read(&mut buffer);
            matches!(child.try_wait(), Ok(Some(_)))
        });
    }
    alone("attach to a full screen, until all of it is there", median(times), "ms", "50 ms");
    place.command(VNX).args(["cancel", "--now", "@last"]).output().unwrap();
}

/// 50 workers that do nothing: what their supervisors cost.
fn idle(place: &Place) {
    let config = place.repo.join(".vnx/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\nlimits: {{parallel: 64}}\n")).unwrap();
    for _ in 0..50 {
        place.run(VNX, &[&LANE[..], &["--provider", "shell", "--detach", "-i", "echo ready; read x"]].concat());
    }
    until("50 workers' start", || states(place, "working") == 50);
    let supervisors = processes(place, "supervise");
    assert_eq!(supervisors.len(), 50);
    let memory = |key: &str| -> f64 {
        let of = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            text.lines().find(|l| l.starts_with(key)).and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok())
        };
        supervisors.iter().filter_map(of).sum::<f64>() / 1e3
    };
    alone("50 idle interactive workers: memory of their supervisors", memory("Pss:"), "MB", "400 MB");
    alone("50 idle interactive workers, shared pages 50 times", memory("Rss:"), "MB", "-");
    alone("CPU of 50 idle ones over ten seconds, of one core", busy(&supervisors), "%", "2 %");
    end_all(place);
}

/// 10 workers that do nothing, each in a pane: what those who look cost.
fn viewers(place: &Place) {
    let args =
        ["-q", "dispatch-agent", "--agent", "hello-world", "--provider", "shell", "--detach", "-i", "sleep 1000"];
    for _ in 0..10 {
        place.run(VNX, &args);
    }
    until("10 panes' start", || processes(place, "attach").len() == 10 && states(place, "working") == 10);
    alone("CPU of 10 panes over ten seconds, of one core", busy(&processes(place, "attach")), "%", "2 %");
    end_all(place);
}

/// Processes of vnx that work for this place, by their command.
fn processes(place: &Place, command: &str) -> Vec<u32> {
    // They are started by what /proc/self/exe leads to.
    let binary = std::fs::canonicalize(VNX).unwrap();
    let binary = binary.to_str().unwrap();
    let is_one = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(binary) && line.contains(command) && line.contains(place.repo.to_str().unwrap())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// How much of one core they take together, in percent, over ten seconds.
fn busy(pids: &[u32]) -> f64 {
    // A tick is 10 ms.
    let ticks = || -> f64 {
        let of = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
            Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
        };
        pids.iter().filter_map(of).sum()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(10));
    (ticks() - before) / 10.0
}

fn end_all(place: &Place) {
    for id in ids(place) {
        place.command(VNX).args(["cancel", "--now", &id]).output().unwrap();
    }
}

/// Ten workers that ignore SIGTERM, each with a grandchild in a session of its own.
fn cancel(place: &Place) {
    let config = place.repo.join(".vnx/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\ndefaults: {{grace: 1s}}\n")).unwrap();
    let script = "trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1000; done\" & echo up; while :; do sleep 1000; done";
    for _ in 0..10 {
        place.run(VNX, &[&LANE[..], &["--provider", "shell", "--detach", "-i", script]].concat());
    }
    until("10 workers' start", || states(place, "working") == 10);
    let all = ids(place);
    let begun = now();
    let children: Vec<_> =
        all.iter().map(|id| place.command(VNX).args(["cancel", id]).stdout(Stdio::null()).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    alone("cancel of 10, beyond their grace of one second", (now() - begun - 1.0) * 1e3, "ms", "500 ms");
    std::fs::write(&config, text).unwrap();
}

/// A message for an idle Claude Code, from `vnx send` to its own word that it took it.
fn delivery(place: &Place) {
    let Ok(clis) = std::env::var("VNX_TEST_CLIS") else {
        println!("delivery needs VNX_TEST_CLIS: the folder that tools/install-clis prints");
        return;
    };
    let stub = stub::Stub::start(vec![stub::Step::Say("Heard.".into())]);
    let command = |args: &[&str]| -> Command {
        let mut command = place.command(VNX);
        command.env("PATH", format!("{clis}/bin:{}", std::env::var("PATH").unwrap())).args(args);
        command.env("ANTHROPIC_BASE_URL", stub.url()).env("ANTHROPIC_API_KEY", "sk-ant-test-0000000000000000000000");
        command
    };
    let args = ["--provider", "claude", "--model", "stub-model", "--end", "manual", "--detach", "-i", "Say hello."];
    let run = command(&[&LANE[..], &args].concat()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let wait_idle = || {
        while states(place, "idle") == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_idle();
    let mut times = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        let run = command(&["send", "@last", &format!("message number {n}")]).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        wait_idle();
    }
    alone("a message to the real claude, from `vnx send` to proof", median(times), "ms", "150 ms");
    let _ = command(&["cancel", "@last", "--now"]).output();
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    for name in ["throughput", "attach", "idle", "viewers", "cancel", "delivery"].into_iter().filter(|n| is_wanted(n)) {
        let place = Place::new(50);
        match name {
            "throughput" => throughput(&place),
            "attach" => attach(&place),
            "idle" => idle(&place),
            "viewers" => viewers(&place),
            "cancel" => cancel(&place),
            _ => delivery(&place),
        }
    }
}
