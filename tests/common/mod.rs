//! A world for one test: a folder of its own with HOME, tmux server and repository. When it is
//! dropped it proves that nothing is left of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a run of vnx left behind.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not JSON ({e}):\n{}\n{}", self.out, self.err))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub struct World {
    _root: tempfile::TempDir,
    pub root: PathBuf,
    pub repo: PathBuf,
    pub env: BTreeMap<String, String>,
    unprivileged: bool,
}

impl World {
    /// A repository with one commit on `main`, not yet a vnx project.
    pub fn bare(name: &str) -> Self {
        Self::below(&std::env::temp_dir(), name)
    }

    /// Initialised, and in memory where that can be: for what would take long on a slow disk.
    pub fn in_memory() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let world = Self::below(&base, "repo");
        world.vnx(&["init"]).expect(0);
        world
    }

    fn below(base: &Path, name: &str) -> Self {
        let temp = tempfile::Builder::new().prefix("vnx-test-").tempdir_in(base).unwrap();
        let root = temp.path().canonicalize().unwrap();
        let repo = root.join(name);
        for folder in ["home", "tmux"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        std::fs::create_dir_all(&repo).unwrap();
        let init = "[init]\n\tdefaultBranch = main\n\tdefaultRefFormat = files\n";
        let gitconfig = format!("[user]\n\tname = Test\n\temail = test@vnx.invalid\n{init}");
        std::fs::write(root.join("home/.gitconfig"), gitconfig).unwrap();
        let mut env = BTreeMap::new();
        for name in ["PATH", "LANG", "CARGO_HOME"] {
            if let Ok(value) = std::env::var(name) {
                env.insert(name.to_owned(), value);
            }
        }
        env.insert("HOME".into(), root.join("home").display().to_string());
        env.insert("TMUX_TMPDIR".into(), root.join("tmux").display().to_string());
        env.insert("TERM".into(), "xterm-256color".into());
        let world = Self { _root: temp, root, repo, env, unprivileged: false };
        world.git(&["init", "--quiet"]);
        std::fs::write(world.repo.join("README.md"), "# A project\n").unwrap();
        std::fs::create_dir(world.repo.join("src")).unwrap();
        std::fs::write(world.repo.join("src/lib.rs"), "pub fn one() -> u8 {\n    1\n}\n").unwrap();
        world.git(&["add", "."]);
        world.git(&["commit", "--quiet", "-m", "first"]);
        world
    }

    /// The same, initialised.
    pub fn new() -> Self {
        let world = Self::bare("repo");
        world.vnx(&["init"]).expect(0);
        world
    }

    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.env.insert(name.to_owned(), value.as_ref().to_str().unwrap().to_owned());
    }
    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Runs commands from here on as somebody to whom permissions apply: root passes them by.
    pub fn drop_privileges(&mut self) {
        self.unprivileged = rustix::process::geteuid().is_root();
    }

    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // The same user, so that it reaches all that the tests reach, without any capability.
        let mut command = if self.unprivileged {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env_clear().envs(&self.env).current_dir(&self.repo).stdin(Stdio::null());
        command
    }

    pub fn binary() -> &'static str {
        env!("CARGO_BIN_EXE_vnx")
    }

    pub fn vnx(&self, args: &[&str]) -> Run {
        Run::of(self.command(Self::binary()).args(args).output().unwrap())
    }

    /// Runs vnx as a person does, on a terminal that is nobody else's, and types the code back that it asks for.
    pub fn person(&self, args: &[&str]) -> Run {
        self.person_typing(args, str::to_owned)
    }

    /// The same, typing what `answer` makes of the code.
    pub fn person_typing(&self, args: &[&str], answer: fn(&str) -> String) -> Run {
        let mut vnx = self.command(Self::binary());
        vnx.args(args);
        self.on_terminal(&vnx, answer)
    }

    /// Runs a command with a terminal as its controlling one; standard output and error stay apart from it.
    pub fn on_terminal(&self, command: &Command, answer: fn(&str) -> String) -> Run {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear().envs(&self.env);
        session.current_dir(command.get_current_dir().unwrap_or(&self.repo));
        session.stdin(slave).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = session.spawn().unwrap();
        // The parent's copy of the slave goes, so that reading ends when nobody has the terminal any more.
        drop(session);
        std::thread::spawn(move || type_codes(&mut std::fs::File::from(master), answer));
        Run::of(child.wait_with_output().unwrap())
    }

    pub fn vnx_in(&self, folder: &Path, args: &[&str]) -> Run {
        Run::of(self.command(Self::binary()).current_dir(folder).args(args).output().unwrap())
    }

    pub fn vnx_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut child = self
            .command(Self::binary())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // vnx may refuse before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(child.wait_with_output().unwrap())
    }

    /// Gives the project this configuration, beside what it must have.
    pub fn config(&self, text: &str) {
        let text = format!("version: 1\nproject_id: repo\n{text}");
        std::fs::write(self.repo.join(".vnx/config.yaml"), text).unwrap();
    }

    /// Gives the project an agent of its own, with these lines in its front matter.
    pub fn agent(&self, name: &str, head: &str) {
        let folder = self.repo.join(".vnx/agents").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!("---\nname: {name}\ndescription: for a test\n{head}\n---\nDo what is assigned.\n");
        std::fs::write(folder.join("AGENT.md"), text).unwrap();
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(Self::binary()).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a dispatch of a script, without a pane.
    pub fn start_script(&self, script: &str) -> Child {
        self.start(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i", script])
    }

    /// A dispatch of a script.
    pub fn script(&self, script: &str) -> Run {
        self.vnx(&["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "-i", script])
    }

    /// Runs vnx and kills it at the `n`th call of `call` in one of its threads; `false` when there are not so many.
    pub fn killed_at(&self, call: &str, n: usize, args: &[&str], stdin: Stdio) -> bool {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={n}"));
        // Its threads are followed, the programs that it starts are not.
        let strace = ["-f", "-b", "execve", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject, Self::binary()];
        let mut command = self.command("strace");
        command.args(strace).args(args).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        drop(command);
        // What it had started ends by itself.
        self.until("nothing of it to run", || self.processes().is_empty());
        !status.success()
    }

    /// Kills the supervisor of the only dispatch that runs, once there is one.
    #[track_caller]
    pub fn kill_supervisor(&self) {
        let its = |(_, command): &(i32, String)| command.contains(" supervise ");
        self.until("a supervisor", || self.processes().iter().any(its));
        let supervisor = self.processes().into_iter().find(its).unwrap().0;
        let pid = rustix::process::Pid::from_raw(supervisor).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        self.until("its end", || !self.processes().iter().any(|(pid, _)| *pid == supervisor));
    }

    /// Kills the supervisor of the only dispatch that runs with its guard, so that nobody ends what they leave.
    #[track_caller]
    pub fn kill_supervisor_and_guard(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        self.until("a supervisor", || self.processes().iter().any(|(_, command)| command.contains(" supervise ")));
        let is_one = |command: &str| command.contains(" supervise ") || command.contains(" __guard ");
        let both: Vec<Pid> =
            self.processes().iter().filter(|(_, c)| is_one(c)).filter_map(|(pid, _)| Pid::from_raw(*pid)).collect();
        // Neither sees the other die.
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in &both {
                kill_process(*pid, signal).unwrap();
            }
        }
        self.until("their end", || !self.processes().iter().any(|(_, command)| is_one(command)));
    }

    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.repo, args)
    }

    #[track_caller]
    pub fn git_in(&self, folder: &Path, args: &[&str]) -> String {
        // A test's own git leaves no housekeeping behind that runs on.
        let quiet = ["-c", "maintenance.auto=false", "-c", "gc.auto=0"];
        let output = self.command("git").current_dir(folder).args(quiet).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    pub fn state(&self) -> PathBuf {
        self.repo.join(".git/vnx")
    }

    pub fn ledger(&self) -> PathBuf {
        self.state().join("receipts/ledger.ndjson")
    }

    /// What vnx has noted of the ledger beside it, and in the user's state folder.
    pub fn marks(&self) -> Vec<PathBuf> {
        let witness = self.root.join("home/.local/state/vnx/witness");
        let heads = names(&witness).into_iter().filter(|name| name.starts_with("place-"));
        let beside = ["ledger.written", "ledger.synced"].map(|name| self.state().join(name));
        heads.map(|name| witness.join(name)).chain(beside).filter(|path| path.exists()).collect()
    }

    /// As if vnx had noted nothing.
    pub fn forget_marks(&self) {
        for path in self.marks() {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// The ledger as vnx itself writes it, so that nothing it appends is taken for somebody else's.
    pub fn ledger_as_vnx(&self) -> vnx::ledger::Ledger {
        vnx::ledger::Ledger::at(self.state().join("receipts")).witnessed(None)
    }

    /// Every receipt, parsed.
    pub fn receipts(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.ledger()).unwrap_or_default();
        // What is being written at this moment is not a line yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// The payload of the last receipt of a kind.
    #[track_caller]
    pub fn last(&self, kind: &str) -> Value {
        let all = self.receipts();
        all.iter().rev().find(|r| r["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))["data"].clone()
    }

    pub fn count(&self, kind: &str) -> usize {
        self.receipts().iter().filter(|r| r["kind"] == kind).count()
    }

    pub fn last_id(&self) -> String {
        let all = self.receipts();
        all.iter().rev().find_map(|r| r["dispatch"].as_str().map(str::to_owned)).unwrap()
    }

    pub fn worktrees(&self) -> PathBuf {
        let mut name = self.repo.file_name().unwrap().to_owned();
        name.push(".worktrees");
        self.repo.with_file_name(name)
    }

    /// Live processes whose environment belongs to this world, as `pid command`.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let marker = format!("HOME={}", self.env["HOME"]);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|b| *b == 0).any(|e| e == marker.as_bytes()) {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, text(&command).replace('\0', " ")));
            }
        }
        found
    }

    /// The refs that are not vnx's own (`--exclude` is newer than the oldest git).
    pub fn foreign_refs(&self) -> String {
        let all = self.git(&["for-each-ref"]);
        all.lines().filter(|line| !line.contains("\trefs/vnx/")).collect::<Vec<_>>().join("\n")
    }

    /// Waits until a condition holds; the bound only exists so that a broken build ends.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) {
        until(what, condition);
    }

    pub fn tmux(&self, args: &[&str]) -> String {
        let output = self.command("tmux").args(args).output().unwrap();
        text(&output.stdout).trim_end().to_owned()
    }

    /// Nothing is left but what `kept` names: no open dispatch, no process, no folder.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let of_dispatches = |(_, c): &(i32, String)| c.contains(" supervise ") || c.contains(" __guard ");
        until("supervisors to end", || !self.processes().iter().any(of_dispatches));
        assert_eq!(names(&self.state().join("open")), Vec::<String>::new(), "open dispatches");
        let why = || {
            let of_trees = |r: &&Value| matches!(r["kind"].as_str(), Some("worktree.kept" | "dispatch.collected"));
            self.receipts().iter().filter(of_trees).map(Value::to_string).collect::<Vec<_>>().join("\n")
        };
        assert!(!self.worktrees().exists(), "{:?}\n{}", names(&self.worktrees()), why());
        let registered = self.git(&["worktree", "list", "--porcelain"]);
        // A test's own are called `place…`.
        let own = format!("worktree {}/place", self.root.display());
        assert_eq!(registered.matches("worktree ").count() - registered.matches(&own).count(), 1, "{registered}");
        until("panes to close", || !self.processes().iter().any(|(_, c)| c.contains(" attach ")));
        assert_eq!(self.processes(), Vec::new());
    }

    /// By both verifiers.
    #[track_caller]
    pub fn assert_verified(&self) {
        self.vnx(&["audit-chain", "verify"]).expect(0);
        let folder = self.ledger();
        let (code, said) = self.second_verifier(&[folder.parent().unwrap().to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");
    }
    /// What `receipts/verify.py` says.
    pub fn second_verifier(&self, args: &[&str]) -> (i32, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receipts/verify.py");
        let output = self.command("python3").arg(script).args(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.command("tmux").args(["kill-server"]).output();
        let begun = Instant::now();
        while !self.processes().is_empty() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        let left = self.processes();
        if !left.is_empty() && !std::thread::panicking() {
            panic!("processes are left: {left:?}");
        }
    }
}

#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Answers every code that is asked for on a terminal until it is closed.
fn type_codes(terminal: &mut std::fs::File, answer: fn(&str) -> String) {
    use std::io::Read;
    let (mut seen, mut bytes) = (String::new(), [0; 1024]);
    while let Ok(n) = terminal.read(&mut bytes) {
        if n == 0 {
            return;
        }
        seen += &text(&bytes[..n]);
        let asked = seen.split_once("type ").and_then(|(_, rest)| rest.split_once(" to decide"));
        if let Some((code, rest)) = asked.map(|(code, rest)| (code.to_owned(), rest.to_owned())) {
            seen = rest;
            let _ = terminal.write_all(format!("{}\n", answer(&code)).as_bytes());
        }
    }
}

/// A shell script that can be run.
pub fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Lines with their places, links and hashes made anew, as somebody with the source could.
pub fn rechained<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    use vnx::domain::Digest;
    let (mut prev, mut text) = (Digest::ZERO, String::new());
    for (seq, line) in lines.into_iter().enumerate() {
        let body = line.rsplit_once(",\"hash\":\"").unwrap().0;
        let rest = body[79..].split_once(",\"ts\":").unwrap().1;
        let body = format!("{}{prev}\",\"seq\":{seq},\"ts\":{rest}", &body[..15]);
        prev = Digest::leaf(body.as_bytes());
        text.push_str(&[body.as_str(), ",\"hash\":\"", &prev.to_string(), "\"}\n"].concat());
    }
    text
}
