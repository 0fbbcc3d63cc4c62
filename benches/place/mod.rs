//! A repository to measure in, on `/dev/shm` where there is one, because a slow disk hides everything.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const VNX: &str = env!("CARGO_BIN_EXE_vnx");
/// Writes the moment at which it runs, in nanoseconds since the epoch.
pub const STAMP: &str = "date +%s%N >";

pub struct Place {
    _temp: tempfile::TempDir,
    pub root: PathBuf,
    pub repo: PathBuf,
}

impl Place {
    /// A project with so many files.
    pub fn new(files: usize) -> Self {
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let temp = tempfile::Builder::new().prefix("vnx-bench-").tempdir_in(base).unwrap();
        let root = temp.path().to_owned();
        let place = Self { repo: root.join("repo"), root, _temp: temp };
        for folder in ["home", "tmux", "repo"] {
            std::fs::create_dir(place.root.join(folder)).unwrap();
        }
        std::fs::write(place.root.join("home/.gitconfig"), "[user]\n\tname = b\n\temail = b@vnx.invalid\n").unwrap();
        for n in 0..files {
            let folder = place.repo.join(format!("src/m{:02}", n % 50));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("f{n}.rs")), format!("fn f{n}() {{}}\n").repeat(200)).unwrap();
        }
        place.run("git", &["init", "-q"]);
        place.run("git", &["add", "."]);
        place.run("git", &["commit", "-q", "-m", "files"]);
        place.run("git", &["repack", "-adq"]);
        place.run(VNX, &["-q", "init"]);
        // Both sides open a window in a session that exists, on a server that runs.
        // It ends with this process, however that ends.
        let owner = format!("--pid={}", std::process::id());
        let first = ["--", "tail", "-f", "/dev/null", &owner];
        place.run(
            "tmux",
            &[["new-session", "-d", "-s", "vnx-repo", "-x", "200", "-y", "50"].as_slice(), &first].concat(),
        );
        place
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.repo).stdin(Stdio::null());
        command.env("PATH", std::env::var("PATH").unwrap()).env("HOME", self.root.join("home"));
        command.env("TMUX_TMPDIR", self.root.join("tmux")).env("TERM", "xterm");
        command
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    pub fn stamp(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        let _ = std::fs::remove_file(&path);
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.command("tmux").arg("kill-server").output();
        settle(&self.repo);
    }
}

/// Waits until supervisors have deleted what they removed: that is not what is measured.
pub fn settle(repo: &Path) {
    let root = repo.with_file_name("repo.worktrees");
    let is_removed = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".gone-");
    let removed = || std::fs::read_dir(&root).is_ok_and(|all| all.flatten().any(|e| is_removed(&e.file_name())));
    let begun = Instant::now();
    while removed() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
}

/// Waits until something is so, a minute at most.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what} took longer than a minute");
        std::thread::yield_now();
    }
}

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The moment in a stamp file, once it is written.
pub fn moment(path: &Path) -> f64 {
    let mut nanos = None;
    until(&path.display().to_string(), || {
        nanos = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<f64>().ok());
        nanos.is_some()
    });
    nanos.unwrap() / 1e9
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
