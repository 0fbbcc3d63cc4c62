//! `vnx demo`: the whole story with real commands in a throw-away repository. Everything it
//! shows comes from running this very binary; it ends non-zero if anything is not as told.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Context;
use super::args::DemoArgs;
use super::exit::Answer;
use super::screen::{Screen, Tone, printable, toned};
use crate::domain::{Fault, Name};
use crate::sys::files::{self, At};
use crate::sys::path;
use crate::tmux::{Socket, Tmux};

/// One dispatch of the demo: its id, title, script, the decision that must come out, its exit code.
const DISPATCHES: [(&str, &str, &str, &str, i32); 3] = [
    (
        WORKS,
        "does its work and commits it",
        "echo 'reading the assignment'; sleep 1\nprintf 'Hello from %s.\\n' \"$VNX_DISPATCH_ID\" > HELLO.md\ngit add HELLO.md; git commit --quiet --message 'docs: say hello'; echo 'committed'",
        "accept",
        0,
    ),
    (
        "demo-claims",
        "claims that it is done and did nothing",
        "echo 'thinking hard'; sleep 1; echo 'All done! Everything is implemented and all tests pass.'",
        "unproven",
        4,
    ),
    (
        "demo-forgets",
        "leaves its work uncommitted",
        "echo 'writing the parser'; sleep 1; echo 'fn parse() {}' > parser.rs; echo 'finished'",
        "unproven",
        4,
    ),
];

/// The id of the one that can land.
const WORKS: &str = "demo-works";
/// What has to hold before a branch lands there.
const GATES: &str = "\ngates:\n  says-hello: {command: 'grep -q Hello HELLO.md'}\n";

pub(super) fn run(context: &Context, args: &DemoArgs) -> Result<Answer, Fault> {
    let stop = Arc::new(AtomicBool::new(false));
    watch_for_ctrl_c(&stop)?;
    let stage = Stage::build(context.screen, args.keep, stop)?;
    let told = stage.tell();
    if args.keep {
        context.screen.answer(&format!("the repository stays at {}", stage.repository().display()));
    }
    told.map(|good| if good { Answer::Good } else { Answer::No })
}

/// Ctrl-C reaches the dispatches by itself; the demo only has to clean up and not die.
fn watch_for_ctrl_c(stop: &Arc<AtomicBool>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fault::io(format!("cannot listen for signals: {e}")))?;
    let stop = Arc::clone(stop);
    crate::sys::thread(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.store(true, Ordering::Relaxed);
            }
        });
    })
}

struct Stage {
    screen: Screen,
    root: PathBuf,
    vnx: PathBuf,
    keep: bool,
    stop: Arc<AtomicBool>,
    tmux: bool,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.tmux {
            let _ = self.server().end_private_server();
        }
        if !self.keep {
            // Supervisors delete what they removed; the last one may still be at it.
            let lock = self.repository().join(".git/vnx/locks/trash.lock");
            if lock.exists() {
                let _ = crate::sys::lock::exclusive(&lock, Duration::from_secs(5));
            }
            let _ = files::delete_tree(&self.root);
        }
    }
}

impl Stage {
    fn build(screen: Screen, keep: bool, stop: Arc<AtomicBool>) -> Result<Self, Fault> {
        let base = std::env::temp_dir();
        let root = tempfile::Builder::new().prefix("vnx-demo-").tempdir_in(&base).at("create", &base)?.keep();
        let search = std::env::var_os("PATH").unwrap_or_default();
        let stage = Self { screen, root, vnx: path::own_executable()?, keep, stop, tmux: Tmux::installed(&search) };
        for folder in ["home", "tmux", "repo"] {
            files::private_folder(&stage.root.join(folder))?;
        }
        Ok(stage)
    }

    fn repository(&self) -> PathBuf {
        self.root.join("repo")
    }

    /// The demo's own tmux server, on a socket in its own folder.
    fn server(&self) -> Tmux {
        Tmux::on(Socket::At(
            self.root.join("tmux").join(format!("tmux-{}", crate::sys::process::uid())).join("default"),
        ))
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // A HOME of its own: no configuration and no login of the user plays a part.
        command
            .current_dir(self.repository())
            .env("HOME", self.root.join("home"))
            .env("TMUX_TMPDIR", self.root.join("tmux"));
        for name in
            ["TMUX", "VNX_STATE_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"]
        {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    fn say(&self, text: &str) -> Result<(), Fault> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Fault::refused("the demo was interrupted; everything it made is gone again")
                .fix("`vnx demo` begins anew"));
        }
        self.screen.answer("");
        self.screen.answer(&toned(Tone::Strong, text));
        Ok(())
    }

    /// Runs vnx and shows the command with what it printed; `true` when it ended as it must.
    fn show(&self, args: &[&str], code: i32) -> Result<bool, Fault> {
        self.screen.answer(&toned(Tone::Dim, &format!("$ vnx {}", args.join(" "))));
        let output =
            self.command(&self.vnx).args(args).output().map_err(|e| Fault::io(format!("cannot run vnx: {e}")))?;
        self.print(&output);
        Ok(self.ended(&output, code))
    }

    fn print(&self, output: &Output) {
        for stream in [&output.stderr, &output.stdout] {
            for line in String::from_utf8_lossy(stream).lines() {
                self.screen.answer(&format!("  {}", coloured(&printable(line))));
            }
        }
    }

    fn ended(&self, output: &Output, code: i32) -> bool {
        let good = output.status.code() == Some(code);
        if !good {
            let got = output.status.code().map_or_else(|| "a signal".to_owned(), |c| c.to_string());
            self.screen.answer(&toned(Tone::Bad, &format!("  this should have ended with {code}, not with {got}")));
        }
        good
    }

    fn tell(&self) -> Result<bool, Fault> {
        let mut good = true;
        self.say("1. A throw-away repository, set up for vnx")?;
        self.make_repository()?;
        good &= self.show(&["init"], 0)?;
        good &= self.show(&["doctor", "--quiet"], 0)?;
        self.set_up_gates()?;

        self.say("2. Three dispatches at the same time. Each worker has a worktree and a branch of its own:")?;
        let running = self.start()?;
        self.show_panes();

        self.say("3. vnx judges by evidence (git, exit code, processes), never by what a worker says:")?;
        for ((_, title, _, decision, code), child) in DISPATCHES.iter().zip(running) {
            let output = child.wait_with_output().map_err(|e| Fault::io(format!("cannot wait for vnx: {e}")))?;
            let word = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            self.screen.answer(&format!("  the one that {title}:"));
            let word_of = coloured(&printable(&word));
            self.screen.answer(&format!("    {word_of} (exit code {})", output.status.code().unwrap_or(-1)));
            good &= self.ended(&output, *code) && word.starts_with(decision);
        }
        self.screen
            .answer(&toned(Tone::Dim, "  the uncommitted work is kept twice, in its worktree and in a rescue commit:"));
        good &= self.show_git(&["for-each-ref", "--format=%(refname)", "refs/heads/vnx", "refs/vnx/rescue"])?;

        self.say("4. Nothing lands unproven. main asks for a gate: grep -q Hello HELLO.md")?;
        good &= self.show(&["gate-check", WORKS], 1)?;
        good &= self.show(&["gate", "run", WORKS], 0)?;
        good &= self.show(&["gate-check", WORKS], 0)?;
        // What the demo shows is the way to a merge, and the merge is its reader's.
        self.screen.answer(&toned(Tone::Dim, &format!("  now `vnx merge {WORKS}` would land it")));

        self.say("5. Every step is a receipt in a hash-chained ledger:")?;
        good &= self.show(&["receipts", "list"], 0)?;
        good &= self.show(&["audit-chain", "verify"], 0)?;

        self.say("6. A copy of the ledger in which somebody turns one \"unproven\" into \"accept\":")?;
        let copy = self.root.join("tampered.ndjson");
        self.tamper(&copy)?;
        good &= self.show(&["audit-chain", "verify", "--file", "../tampered.ndjson"], 1)?;

        self.say("7. Your turn, in a repository of yours:")?;
        for (command, what) in [
            ("vnx init && vnx doctor", "set up, and see what would not work"),
            ("vnx dispatch-agent --agent backend-developer -i 'TASK'", "with claude or codex, whichever is installed"),
            ("vnx ps; vnx logs -f; vnx attach", "watch; a pane waits in tmux session vnx-<project>"),
            ("vnx show; vnx show --diff; vnx receipts list", "what it did, and the proof"),
            ("vnx gate-check; vnx merge --gates; vnx revert ID --reason WHY", "from done to landed, and back"),
        ] {
            self.screen.answer(&format!("  {command:<56} {}", toned(Tone::Dim, what)));
        }
        self.screen.answer("");
        Ok(good)
    }

    fn make_repository(&self) -> Result<(), Fault> {
        let readme = self.repository().join("README.md");
        std::fs::write(&readme, "# A project\n\nNothing here yet.\n").at("write", &readme)?;
        // Whoever runs the demo need not have told git who they are.
        let identity = self.root.join("home/.gitconfig");
        let text = "[user]\n\tname = demo\n\temail = demo@vnx.invalid\n\
                    [init]\n\tdefaultBranch = main\n\tdefaultRefFormat = files\n";
        std::fs::write(&identity, text).at("write", &identity)?;
        self.must(&[&["init", "--quiet"], &["add", "."], &["commit", "--quiet", "--message", "the first commit"]])
    }

    fn set_up_gates(&self) -> Result<(), Fault> {
        use std::io::Write;
        let config = self.repository().join(".vnx/config.yaml");
        let opened = std::fs::OpenOptions::new().append(true).open(&config);
        opened.and_then(|mut file| file.write_all(GATES.as_bytes())).at("write", &config)?;
        self.must(&[&["add", ".vnx"], &["commit", "--quiet", "--message", "vnx, and a gate"]])
    }

    fn must(&self, calls: &[&[&str]]) -> Result<(), Fault> {
        for args in calls {
            let output = self.command("git").args(*args).output();
            let output = output.map_err(|e| Fault::environment(format!("cannot run git: {e}")).fix("install git"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Fault::environment(format!("git failed: {said}")));
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<Vec<Child>, Fault> {
        let mut running = Vec::new();
        for (id, title, script, ..) in DISPATCHES {
            let command = format!("$ vnx dispatch-agent --provider shell --agent hello-world --id {id} -i SCRIPT");
            self.screen.answer(&toned(Tone::Dim, &format!("{command}   # {title}")));
            let agent = ["--quiet", "dispatch-agent", "--provider", "shell", "--agent", "hello-world"];
            let args = [agent.as_slice(), &["--id", id, "-i", script]].concat();
            let child = self.command(&self.vnx).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            running.push(child.map_err(|e| Fault::io(format!("cannot run vnx: {e}")))?);
        }
        Ok(running)
    }

    /// Shows each pane once its worker has said something, or moves on after a moment.
    fn show_panes(&self) {
        if !self.tmux {
            self.screen
                .answer("  (tmux is not installed: the workers run without panes; `vnx attach` works all the same)");
            return;
        }
        let Ok(session) = Name::parse("session", "vnx-repo") else {
            return;
        };
        let server = self.server();
        let begun = Instant::now();
        let mut shown: Vec<String> = Vec::new();
        while shown.len() < DISPATCHES.len() && begun.elapsed() < Duration::from_millis(900) {
            for (pane, window) in server.panes(&session).unwrap_or_default() {
                let text = server.capture(&pane).unwrap_or_default();
                let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
                if lines.len() > 1 && !shown.contains(&window) {
                    self.screen.answer(&format!("  pane {pane}, window {window}:"));
                    for line in lines {
                        self.screen.answer(&format!("    | {}", printable(line)));
                    }
                    shown.push(window);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs git and shows what it printed.
    fn git(&self, args: &[&str]) -> Result<Output, Fault> {
        self.screen.answer(&toned(Tone::Dim, &format!("$ git {}", args.join(" "))));
        let output = self.command("git").args(args).output().map_err(|e| Fault::io(format!("cannot run git: {e}")))?;
        self.print(&output);
        Ok(output)
    }

    fn show_git(&self, args: &[&str]) -> Result<bool, Fault> {
        let output = self.git(args)?;
        // Two branches with work or a kept tree, one rescue commit.
        let refs = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success() && refs.contains("refs/vnx/rescue/") && refs.contains("refs/heads/vnx/"))
    }

    fn tamper(&self, copy: &Path) -> Result<(), Fault> {
        let ledger = self.repository().join(".git/vnx/receipts/ledger.ndjson");
        let text = std::fs::read_to_string(&ledger).at("read", &ledger)?;
        let forged = text.replacen("\"decision\":\"unproven\"", "\"decision\":\"accept\"", 1);
        std::fs::write(copy, forged).at("write", copy)?;
        Ok(())
    }
}

/// A line of vnx with its first word as a terminal would show it: here it went through a pipe.
fn coloured(line: &str) -> String {
    let begin = line.len() - line.trim_start().len();
    let (indent, rest) = line.split_at(begin);
    let (word, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
    let tone = match word {
        "accept" | "PASS" | "pass" | "GO" | "verified" => Tone::Good,
        "unproven" | "WARN" | "HOLD" => Tone::Doubt,
        "reject" | "FAIL" | "fail" | "broken" => Tone::Bad,
        _ => return line.to_owned(),
    };
    format!("{indent}{}{rest}", toned(tone, word))
}
