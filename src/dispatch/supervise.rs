//! `vnx supervise <id>`: the process that owns one dispatch from its claim to its close.
//!
//! It inherits the dispatch's lock as standard input and tells its story as JSON lines on
//! standard output, for a foreground command that may be gone at any moment.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::door::Progress;
use super::finish::Finish;
use super::guard::watch_guard;
use super::hooks::Running;
use super::plan::pointer;
use super::pool;
use super::recover::{PIDS, where_pids_count};
use super::surroundings::{self, Surroundings};
use crate::domain::event::{Claim as Said, Failure, Listener, PaidBy};
use crate::domain::outcome::Outcome;
use crate::domain::patch::Offer;
use crate::domain::plan::{ParserKind, Plan, PromptBy};
use crate::domain::receipt::{Body, DispatchExited, DispatchPrepared, DispatchStarted, Entry};
use crate::domain::redact::Redactor;
use crate::domain::verdict::{Containment, End, Verdict};
use crate::domain::{Digest, DispatchId, Fault};
use crate::git::Git;
use crate::ledger::Ledger;
use crate::project::Paths;
use crate::provider::{self, Stream, environment};
use crate::sys::cmd::Cmd;
use crate::sys::files::HeldFolder;
use crate::sys::{self, files};
use crate::worker::{self, Job, Recorder, Started, control};
use crate::worktree::{self, Baseline, Tree};

/// The longest prompt that is pasted into a terminal.
const MAX_PASTED: usize = 32_000;

/// How long a CLI may take to say whether it has a model.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Owns the dispatch `id` until it is closed.
pub fn supervise(paths: &Paths, id: &DispatchId) -> Result<(), Fault> {
    // Away from the terminal of whoever started us; already a leader is as good.
    let _ = rustix::process::setsid();
    watch_guard();
    let lock = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Fault::io(format!("the lock was not handed over: {e}")))?;
    let folder = paths.dispatch(id);
    let held = HeldFolder::open(&folder)?;
    let (plan, plan_digest) = read_plan(&folder)?;
    let launch = &plan.launch;
    let around = Surroundings::take(&folder, id);
    let own = around.as_ref().map_err(Clone::clone).and_then(Surroundings::variables);
    let env = own.clone().and_then(|own| {
        let build = environment::build;
        let mut env = build(&launch.env_pass, &launch.env_set, &launch.env_from, launch.env_file.as_deref())?;
        env.extend(own);
        Ok(env)
    });
    let redactor = Redactor::new(env.as_ref().map(|env| secrets(&plan, env)).unwrap_or_default());
    let ledger = paths.ledger().with_redactor(redactor.clone());
    let begun = Instant::now();
    let lock = std::fs::File::from(lock);
    let life = Life {
        lock: &lock,
        paths,
        ledger: &ledger,
        redactor: &redactor,
        plan: &plan,
        folder: &folder,
        held: &held,
        begun,
    };

    let lived = life.live(env);
    let (prepare_ms, run_ms) = (lived.prepare_ms, lived.run_ms);
    let finish = Finish {
        paths,
        held: &held,
        lock: &lock,
        ledger: &ledger,
        redactor: &redactor,
        plan: &plan,
        plan_digest,
        end: lived.end,
        containment: lived.containment,
        said: lived.said,
        has_tree: lived.has_tree,
        prepare_ms,
        run_ms,
        recovered: false,
        left_over: None,
        already_collected: false,
        hooks: Ok(Vec::new()),
        surroundings: own.unwrap_or_default(),
    };
    let is_ended = finish.containment.empty;
    let closed = finish.run(|verdict: &Verdict| {
        tell(&Progress::Judged { verdict: verdict.clone() });
    })?;
    drop(closed);
    drop(around);
    // The lock goes before the last word, so that whoever hears it finds the dispatch closed.
    let _ = lock.unlock();
    tell(&Progress::Closed);
    if !is_ended {
        // On record as not proven to be ended; it is not let go for that.
        worker::sweep_all(Duration::from_mins(1));
    }
    // Nobody waits for this: it must not slow down those who work.
    let _ = rustix::process::nice(19);
    surroundings::remove_mount_points(&launch.mount_points, paths);
    // Sealed segments of the ledger become small; so far they are only large.
    ledger.pack()?;
    // What is left is only disk space; the next command goes on where this one stops.
    if let Some(worktrees) = Path::new(&plan.worktree).parent() {
        worktree::delete_removed(paths, worktrees, Duration::from_hours(1))?;
    }
    if Git::repository(&plan.git_common_dir).odd_shared().is_some() {
        return Ok(());
    }
    pool::fill(Path::new(&plan.setup.main), &plan.base)
}

/// Reads a dispatch's plan.
pub(super) fn read_plan(folder: &Path) -> Result<(Plan, Digest), Fault> {
    let path = folder.join("plan.json");
    let bytes =
        files::read_capped(&path, 16 << 20)?.ok_or_else(|| Fault::io(format!("{} is missing", path.display())))?;
    let plan = serde_json::from_slice(&bytes).map_err(|e| {
        let id = folder.file_name().unwrap_or_default().display();
        Fault::io(format!("{} cannot be read: {e}", path.display()))
            .fix(format!("use the vnx that began this dispatch, or look at `vnx receipts query --dispatch {id}`"))
    })?;
    Ok((plan, Digest::of(&bytes)))
}

/// One line of the story. A foreground that is gone is no reason to stop.
fn tell(progress: &Progress) {
    if let Ok(line) = serde_json::to_string(progress) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// The variables of the worker that must not be written down: the one place that says which.
pub(super) fn secrets(plan: &Plan, env: &BTreeMap<String, String>) -> Vec<(String, String)> {
    Redactor::secrets(env, &plan.launch.secret_names)
}

struct Life<'a> {
    lock: &'a std::fs::File,
    paths: &'a Paths,
    ledger: &'a Ledger,
    redactor: &'a Redactor,
    plan: &'a Plan,
    folder: &'a Path,
    /// The same folder, whatever the worker puts in its place.
    held: &'a HeldFolder,
    begun: Instant,
}

struct Lived {
    end: End,
    containment: Containment,
    said: Said,
    has_tree: bool,
    prepare_ms: u64,
    run_ms: u64,
}

impl Life<'_> {
    fn since(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Prepares and runs. Whatever goes wrong becomes the way it ended: a supervisor that has a
    /// claim always closes it.
    fn live(&self, env: Result<BTreeMap<String, String>, Fault>) -> Lived {
        let never = |outcome: Outcome, fault: Fault, has_tree: bool| Lived {
            end: End::NeverStarted { outcome, reason: fault.what },
            containment: Containment { empty: true, ..Containment::default() },
            said: Said::default(),
            has_tree,
            prepare_ms: self.since(),
            run_ms: 0,
        };
        let env = match env {
            Ok(env) => env,
            Err(fault) => return never(Outcome::SetupFailed, fault, false),
        };
        // Bound first, so that a cancel during the preparation waits in its queue.
        let control = match control::bind(self.folder) {
            Ok(control) => control,
            Err(fault) => return never(Outcome::SetupFailed, fault, false),
        };
        let tree = Tree::of(self.plan, self.folder, self.paths);
        let (made, remembered) = std::thread::scope(|scope| {
            let baseline =
                crate::sys::beside(scope, || Baseline::take(&tree).and_then(|baseline| baseline.store(self.folder)));
            let made = worktree::create(&tree, &self.plan.setup, Some(self.lock));
            (made, baseline.join().unwrap_or_else(|_| Err(Fault::internal("reading the repository ended early"))))
        });
        if let Err(fault) = made {
            return never(Outcome::WorktreeFailed, fault, false);
        }
        if let Err(fault) = remembered {
            return never(Outcome::WorktreeFailed, fault, true);
        }
        let supplied = surroundings::make_caches(&self.plan.setup);
        let supplied = match supplied.and_then(|()| worktree::supply(&tree, &self.plan.setup)) {
            Ok(supplied) => supplied,
            Err(fault) => return never(Outcome::SetupFailed, fault, true),
        };
        if let Err(failed) = self.hooks().post_create(&env, &control) {
            let outcome = if failed.cancelled { Outcome::Cancelled } else { Outcome::SetupFailed };
            return never(outcome, Fault::environment(failed.why), true);
        }
        let settled = worktree::settle(&tree, &self.plan.setup, supplied);
        let prompt = match settled.and_then(|()| self.prepared()) {
            Ok(prompt) => prompt,
            Err(fault) => return never(Outcome::SetupFailed, fault, true),
        };
        if let Err((outcome, fault)) = self.model_is_there(&env) {
            return never(outcome, fault, true);
        }
        let prepare_ms = self.since();
        match self.run(env, prompt, control) {
            Ok(mut lived) => {
                lived.prepare_ms = prepare_ms;
                lived
            }
            // It may have been started and not be watched any more.
            Err(fault) => Lived {
                containment: worker::sweep_all(worker::KILL_WITHIN),
                ..never(Outcome::SetupFailed, fault, true)
            },
        }
    }

    fn hooks(&self) -> Running<'_> {
        Running { ledger: self.ledger, plan: self.plan, folder: self.folder, on_record: Vec::new(), around: &[] }
    }

    /// Reads the prompt back, checks it against the plan, and records that all is ready: the
    /// worker's start cannot be undone, so this receipt is on the disk before it.
    fn prepared(&self) -> Result<Vec<u8>, Fault> {
        let path = self.folder.join("prompt.md");
        let prompt = files::read_capped(&path, 16 << 20)?.unwrap_or_default();
        let digest = Digest::of(&prompt);
        if digest != self.plan.prompt {
            return Err(Fault::io(format!("{} is not the prompt of the plan", path.display())));
        }
        let body = DispatchPrepared { head: self.plan.base.commit.clone(), prompt: digest, took_ms: self.since() };
        self.ledger.append(&[Entry::of(&self.plan.id, Body::DispatchPrepared(body))])?;
        tell(&Progress::Prepared { took_ms: self.since() });
        Ok(prompt)
    }

    /// Asks the CLI whether it has the model: one that would fetch it must not be started without.
    fn model_is_there(&self, env: &BTreeMap<String, String>) -> Result<(), (Outcome, Fault)> {
        let launch = &self.plan.launch;
        if launch.model_probe.is_empty() {
            return Ok(());
        }
        let cmd = Cmd::new(&launch.program).args(&launch.model_probe).only_env(env.clone()).cwd("/");
        let output =
            cmd.limit(PROBE_LIMIT).run().map_err(|e| (Outcome::SetupFailed, Fault::environment(e.to_string())))?;
        if output.ok() {
            return Ok(());
        }
        // It fails as the worker itself would, so it is read in the same way.
        let mut stream = Stream::new(ParserKind::Text, &launch.failures);
        String::from_utf8_lossy(&output.stderr).lines().for_each(|line| drop(stream.stderr_line(line)));
        let (said, _) = stream.finish(&End::Exited { code: output.code.unwrap_or(-1) });
        let failure = said.failure.unwrap_or_else(|| Failure { outcome: None, message: output.complaint() });
        Err((failure.outcome.unwrap_or(Outcome::ModelUnavailable), Fault::environment(failure.message)))
    }

    /// What the answer offers to commit. A secret in it cannot be kept for a later process, and a
    /// placeholder in its place would be committed as if somebody had written it.
    fn offer(&self, stream: &Stream) -> Option<Offer> {
        self.plan.commit_answer.as_ref()?;
        Some(match stream.offer() {
            Offer::Patch(patch) if self.redactor.redact_counted(&patch).1 > 0 => {
                Offer::Unusable("it holds what looks like a secret".to_owned())
            }
            offer => offer,
        })
    }

    /// The prompt as it can be pasted: a text that a terminal does not take is pointed to.
    fn pasted(&self, prompt: &[u8]) -> Result<String, Fault> {
        let text = String::from_utf8_lossy(prompt).replace("\r\n", "\n");
        let fits = text.len() <= MAX_PASTED && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        if fits { Ok(text) } else { pointer(self.folder) }
    }

    /// Writes the files that the plan has for the CLI.
    fn write_files(&self) -> Result<(), Fault> {
        let folder = self.folder.join("files");
        if !self.plan.launch.files.is_empty() {
            files::private_folder(&folder)?;
        }
        for (name, text) in &self.plan.launch.files {
            files::replace(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    fn run(
        &self,
        mut env: BTreeMap<String, String>,
        prompt: Vec<u8>,
        control: std::os::unix::net::UnixListener,
    ) -> Result<Lived, Fault> {
        let launch = &self.plan.launch;
        self.write_files()?;
        let resume = self.plan.resume.as_ref().map(|r| r.session.as_str());
        let words = String::from_utf8_lossy(&prompt).into_owned();
        let mut stream = Stream::new(launch.parser, &launch.failures)
            .interactive(launch.interactive.as_ref(), &words)
            .acp(launch.acp.as_ref(), &self.plan.worktree, &words, resume);
        let mut recorder =
            Recorder::create(&self.folder.join("events.ndjson"), self.plan.limits.record.0, self.redactor.clone())?;
        if let Some(first) = &launch.first_start {
            // A session that is continued lies where it was begun.
            let earlier =
                self.plan.resume.as_ref().and_then(|r| r.config_of.as_ref()).map(|id| self.paths.dispatch(id));
            if let Some(earlier) = earlier {
                provider::prepare(first, &mut env, &earlier)?;
            } else if launch.interactive.is_some() {
                provider::prepare(first, &mut env, self.folder)?;
            }
        }
        surroundings::make_mount_points(&launch.mount_points, self.paths)?;
        let job = Job {
            vnx: sys::path::own_executable()?,
            program: launch.program.clone(),
            args: launch.args.clone(),
            env,
            cwd: PathBuf::from(&self.plan.worktree),
            prompt: (launch.prompt_by == PromptBy::Paste).then(|| self.pasted(&prompt)).transpose()?,
            stdin: if launch.prompt_by == PromptBy::Stdin { prompt } else { Vec::new() },
            limits: self.plan.limits.clone(),
            linger: launch.linger,
            acp: launch.acp.as_ref().map(|acp| (acp.questions.within, acp.end)),
            terminal: launch.interactive.clone().map(|i| (i, self.folder.join("terminal.cast"))),
            note: self.folder.join("launch.note"),
            cancels_late: false,
        };
        let read_with = job.env.clone();
        let ended = worker::run(job, &mut stream, &mut recorder, control, |started: Started| {
            let body =
                DispatchStarted { pid: started.pid, start_ticks: started.start_ticks, supervisor: std::process::id() };
            files::replace(&self.held.path().join(PIDS), where_pids_count().as_bytes())?;
            self.ledger.append(&[Entry::of(&self.plan.id, Body::DispatchStarted(body))])?;
            tell(&Progress::Started { pid: started.pid });
            Ok(())
        })?;
        stream.read_transcript(&read_with, &self.plan.worktree);
        let offer = self.offer(&stream);
        let (mut said, report) = stream.finish(&ended.end);
        said.offer = offer;
        said.fit();
        let model = said.model.clone().or_else(|| self.plan.model.clone());
        if let Some(earlier) = self.plan.resume.as_ref().filter(|_| provider::counts_the_session(&said.usage)) {
            said.usage = said.usage.since(&earlier.used);
        }
        provider::prices::add_cost(&mut said.usage, model.as_deref());
        if said.usage.source.is_some() && !launch.keys.is_empty() {
            let by_key = launch.keys.iter().any(|name| read_with.get(name).is_some_and(|key| !key.is_empty()));
            said.usage.paid_by = Some(if by_key { PaidBy::Key } else { PaidBy::Login });
        }
        Finish::store_claim(&self.held.path(), self.redactor, &said, &report);
        let body = DispatchExited {
            end: ended.end.clone(),
            containment: ended.containment.clone(),
            ran_ms: ended.ran_ms,
            stdout_bytes: ended.stdout_bytes,
            stderr_bytes: ended.stderr_bytes,
        };
        self.ledger.append(&[Entry::of(&self.plan.id, Body::DispatchExited(body))])?;
        tell(&Progress::Exited { end: ended.end.clone(), ran_ms: ended.ran_ms });
        Ok(Lived {
            end: ended.end,
            containment: ended.containment,
            said,
            has_tree: true,
            prepare_ms: 0,
            run_ms: ended.ran_ms,
        })
    }
}
