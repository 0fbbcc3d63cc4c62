//! `vnx gate-runner`: one run of one gate, from its question to its receipt.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use super::items;
use super::job::Job;
use super::review;
use crate::dispatch::claim::refuse_swapped;
use crate::dispatch::guard::watch_guard;
use crate::dispatch::surroundings::{self, Surroundings};
use crate::domain::event::Usage;
use crate::domain::gate::counts::Tests;
use crate::domain::gate::review::Finding;
use crate::domain::gate::{CANCELLED, Ci, GateStatus, Phase, Work};
use crate::domain::line::summary;
use crate::domain::receipt::{Body, Entry, GateResulted};
use crate::domain::redact::Redactor;
use crate::domain::setup::Lfs;
use crate::domain::span::Span;
use crate::domain::verdict::{Containment, End};
use crate::domain::{DispatchId, Fault};
use crate::gate::{self, Evidence, PROBE, ProbeSaid, Reviewer};
use crate::git::Git;
use crate::project::{Paths, Project};
use crate::provider::environment;
use crate::sys::cmd::Cmd;
use crate::sys::files::HeldFolder;
use crate::sys::{self, files, lock, path};
use crate::worker::{CommandJob, Ended, Spoken, Traces, control, run_command, shell, sweep_lost};
use crate::worktree::Place;

/// What came of the work itself.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) status: Option<GateStatus>,
    pub(super) reason: String,
    pub(super) report: String,
    pub(super) tries: u32,
    pub(super) end: Option<End>,
    pub(super) containment: Option<Containment>,
    pub(super) tests: Option<Tests>,
    pub(super) checks: Vec<ProbeSaid>,
    pub(super) reviewers: Vec<Reviewer>,
    pub(super) findings: Vec<Finding>,
    /// It was ended before it had an answer.
    pub(super) cut_off: bool,
}

impl Found {
    pub(super) fn unverified(reason: impl Into<String>) -> Self {
        Self { status: Some(GateStatus::Unverified), reason: reason.into(), ..Self::default() }
    }
    fn cancelled() -> Self {
        Self { cut_off: true, ..Self::unverified(CANCELLED) }
    }
}

/// Runs the gate whose question stands in the folder of this nonce.
pub fn run_gate(paths: &Paths, id: &DispatchId, nonce: &str) -> Result<(), Fault> {
    // Away from the terminal of whoever started us; already a leader is as good.
    let _ = rustix::process::setsid();
    watch_guard();
    let lock = std::io::stdin().as_fd().try_clone_to_owned();
    let _lock = lock.map_err(|e| Fault::io(format!("the lock was not handed over: {e}")))?;
    let folder = gate::folder(&paths.dispatch(id), nonce).ok_or_else(|| Fault::internal("that is no nonce"))?;
    let job = Job::read(&folder)?;
    let begun = Instant::now();
    let held = HeldFolder::open(&folder)?;
    let running = Running { paths, job: &job, folder: &folder, held: &held };
    let found = running.work().unwrap_or_else(|fault| {
        if running.is_cancelled() { Found::cancelled() } else { Found::unverified(fault.what) }
    });
    running.record(found, begun)?;
    // What is left of its checkout is only disk space.
    let _ = running.place().clear();
    Ok(files::remove(&paths.open_gates().join(nonce))?)
}

/// One try of a command.
struct Try<'a> {
    env: &'a BTreeMap<String, String>,
    nth: u32,
    control: UnixListener,
}

struct Running<'a> {
    paths: &'a Paths,
    job: &'a Job,
    folder: &'a Path,
    /// The same folder, whatever a gate's command puts in its place.
    held: &'a HeldFolder,
}

impl Running<'_> {
    fn place(&self) -> At<'_> {
        At { job: self.job, paths: self.paths }
    }

    fn is_cancelled(&self) -> bool {
        self.folder.join("cancelled").exists()
    }

    fn work(&self) -> Result<Found, Fault> {
        let Some(work) = self.job.gate.work() else { return Ok(Found::unverified("the gate says nothing")) };
        if self.is_cancelled() {
            return Ok(Found::cancelled());
        }
        match work {
            Work::Command(line) => self.tried(|one| {
                let (program, args) = shell(line);
                Ok(self.command_found(self.contained(program, args, one)?))
            }),
            Work::Probe(probe) => self.tried(|one| {
                let file = self.folder.join("probe.json");
                let json = serde_json::to_vec(probe).map_err(|e| Fault::internal(format!("a probe: {e}")))?;
                files::replace(&file, &json)?;
                let (vnx, file) = (path::text(&path::own_executable()?)?, path::text(&file)?);
                let (ended, said) = self.contained(&vnx, vec![PROBE.to_owned(), file], one)?;
                let checks =
                    said.stdout.lines().filter_map(|line| serde_json::from_str::<ProbeSaid>(line).ok()).collect();
                Ok(probed(self.command_found((ended, said)), checks))
            }),
            Work::Ci(Ci { file: Some(file), .. }) => Ok(self.ci_file(Path::new(file))),
            Work::Ci(Ci { command: Some(line), .. }) => self.tried(|one| {
                let (program, args) = shell(line);
                let (ended, said) = self.contained(program, args, one)?;
                let mut found = self.command_found((ended, said.clone()));
                if found.status == Some(GateStatus::Pass) {
                    (found.status, found.reason) = self.ci_said(said.stdout.trim());
                }
                Ok(found)
            }),
            Work::Ci(Ci { forge: Some(workflow), .. }) => Ok(self.ci_forge(workflow)),
            Work::Review(asked) => review::review(self.paths, self.job, self.folder, asked),
            Work::Ci(_) | Work::Human(_) => Ok(Found::unverified("nothing can be run for it")),
        }
    }

    /// Tries a command in a clean checkout, again where it fails and may be tried again.
    fn tried(&self, one: impl Fn(Try<'_>) -> Result<Found, Fault>) -> Result<Found, Fault> {
        let id = DispatchId::parse(&self.job.binding.nonce)?;
        let around = Surroundings::take(self.folder, &id)?;
        let mut env = environment::build(&self.job.env_pass, &self.job.env_set, &BTreeMap::new(), None)?;
        env.extend(around.variables()?);
        let mut nth = 1;
        loop {
            if self.is_cancelled() {
                return Ok(Found { tries: nth, ..Found::cancelled() });
            }
            let place = self.place();
            let git = place.make()?;
            let risk = git.config()?.risk();
            // Whoever cancels writes it down and then knocks, so what is not heard here is heard there.
            let control = control::bind(self.folder)?;
            if self.is_cancelled() {
                return Ok(Found { tries: nth, ..Found::cancelled() });
            }
            let mut found = one(Try { env: &env, nth, control })?;
            found.tries = nth;
            if let Some(why) = self.spoilt(&git, risk) {
                found.status = Some(GateStatus::Unverified);
                found.reason = why;
            }
            let again = found.status == Some(GateStatus::Fail) && nth <= self.job.gate.retries;
            if !again {
                return Ok(found);
            }
            nth += 1;
            place.clear()?;
        }
    }

    /// What a command did to what it was to look at.
    fn spoilt(&self, git: &Git, risk: crate::domain::Digest) -> Option<String> {
        // Configuration first: it decides what reading the files would run.
        match git.config() {
            Ok(config) if config.risk() == risk => {}
            Ok(_) => return Some("it changed git's configuration".to_owned()),
            Err(e) => return Some(format!("git cannot be read after it: {e}")),
        }
        match git.not_as_committed(&self.job.binding.head, &self.folder.join("index")) {
            Ok(paths) if paths.is_empty() => None,
            Ok(paths) => {
                let more = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
                Some(format!("it changed what it was to look at: {:?}{more}", paths[0]))
            }
            Err(e) => Some(format!("what it was to look at cannot be read after it: {e}")),
        }
    }

    fn contained(&self, program: &str, args: Vec<String>, one: Try<'_>) -> Result<(Ended, Spoken), Fault> {
        let Try { env, nth, control } = one;
        let secrets = Redactor::secrets(env, &self.job.secret_names);
        let place = self.place().place().path();
        run_command(CommandJob {
            program,
            args,
            timeout: self.job.gate.timeout,
            keep: usize::try_from(self.job.gate.output.0).unwrap_or(usize::MAX),
            name: &format!("try-{nth}"),
            env: env.clone(),
            cwd: &place,
            grace: self.job.grace,
            folder: self.folder,
            redactor: &Redactor::new(secrets),
            control,
        })
    }

    fn command_found(&self, (ended, said): (Ended, Spoken)) -> Found {
        let timeout = self.job.gate.timeout.0;
        let (status, mut reason) = gate::ended(&ended.end, &ended.containment, timeout, said.last.as_deref());
        let tests = said.tests.or_else(|| self.junit());
        if let Some(tests) = tests {
            reason = format!("{reason} ({})", tests.words());
        }
        Found {
            status: Some(status),
            reason,
            report: said.text,
            cut_off: ended.end == End::Cancelled,
            end: Some(ended.end),
            containment: Some(ended.containment),
            tests,
            ..Found::default()
        }
    }

    /// What a report in the usual places counts.
    fn junit(&self) -> Option<Tests> {
        let place = self.place().place().path();
        let usual = [
            "junit.xml",
            "target/nextest/ci/junit.xml",
            "target/nextest/default/junit.xml",
            "test-results/junit.xml",
            "reports/junit.xml",
        ];
        usual.iter().find_map(|name| {
            let bytes = files::read_capped(&place.join(name), 16 << 20).ok().flatten()?;
            crate::domain::gate::counts::junit(&String::from_utf8_lossy(&bytes))
        })
    }

    fn ci_file(&self, file: &Path) -> Found {
        let path = Path::new(&self.job.main).join(file);
        match files::read_capped(&path, 1 << 20) {
            Err(e) => Found::unverified(e.to_string()),
            Ok(None) => Found::unverified(format!("there is no {}, so no CI has said anything", file.display())),
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let (status, reason) = self.ci_said(text.trim());
                Found { status, reason, report: text, tries: 1, ..Found::default() }
            }
        }
    }

    /// What a CI's own words amount to. Only a plain yes for exactly this commit is one.
    fn ci_said(&self, text: &str) -> (Option<GateStatus>, String) {
        let head = &self.job.binding.head;
        let said: CiSaid = match serde_json::from_str(text) {
            Ok(said) => said,
            Err(e) => return (Some(GateStatus::Unverified), format!("what CI says cannot be read: {e}")),
        };
        let place = said.url.map(|url| format!(" ({})", summary(&url))).unwrap_or_default();
        match (said.commit == *head, said.status.as_str()) {
            (false, _) => {
                let other = crate::domain::gate::check::short(&said.commit).to_owned();
                (Some(GateStatus::Unverified), format!("CI speaks of another commit, {other}{place}"))
            }
            (true, "pass") => (Some(GateStatus::Pass), format!("CI passed{place}")),
            (true, "fail") => (Some(GateStatus::Fail), format!("CI failed{place}")),
            (true, other) => (Some(GateStatus::Unverified), format!("CI says {:?}{place}", summary(other))),
        }
    }

    fn ci_forge(&self, workflow: &str) -> Found {
        let fields = "status,conclusion,headSha,url";
        let args = ["run", "list", "--workflow", workflow, "--commit", &self.job.binding.head, "--json", fields];
        let env = environment::build(&self.job.env_pass, &BTreeMap::new(), &BTreeMap::new(), None).unwrap_or_default();
        let token = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let env = env
            .into_iter()
            .chain(["GH_TOKEN", "GITHUB_TOKEN", "GH_HOST", "GH_CONFIG_DIR"].iter().filter_map(|n| token(n)));
        let asked = Cmd::new("gh").args(args).only_env(env).cwd(&self.job.main).limit(Duration::from_mins(1)).run();
        let output = match asked {
            Err(e) => return Found::unverified(format!("the forge cannot be asked: {e}")),
            Ok(output) if !output.ok() => {
                return Found::unverified(format!("the forge cannot be asked: {}", output.complaint()));
            }
            Ok(output) => output,
        };
        let runs: Vec<ForgeRun> = match serde_json::from_slice(&output.stdout) {
            Ok(runs) => runs,
            Err(e) => return Found::unverified(format!("what the forge says cannot be read: {e}")),
        };
        let report = output.text();
        let (status, reason) = forge_says(workflow, &runs, &self.job.binding.head);
        Found { status: Some(status), reason, report, tries: 1, ..Found::default() }
    }

    /// Writes down what came of it: files first, then the receipt that names them.
    fn record(&self, found: Found, begun: Instant) -> Result<(), Fault> {
        let job = self.job;
        let status = found.status.unwrap_or(GateStatus::Unverified);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let env = environment::build(&job.env_pass, &job.env_set, &BTreeMap::new(), None).unwrap_or_default();
        let redactor = Redactor::new(Redactor::secrets(&env, &job.secret_names));
        let cancelled = status == GateStatus::Unverified && found.cut_off && self.is_cancelled();
        let reason = if cancelled { CANCELLED.to_owned() } else { summary(&redactor.redact(&found.reason)) };
        let usage = sum(&found.reviewers);
        let evidence = Evidence {
            schema: "vnx.gate/1".to_owned(),
            dispatch: job.dispatch.clone(),
            binding: job.binding.clone(),
            kind: job.gate.kind(),
            status,
            reason: reason.clone(),
            at: sys::now(),
            tries: found.tries.max(1),
            took_ms,
            end: found.end,
            containment: found.containment,
            tests: found.tests,
            checks: found.checks,
            reviewers: found.reviewers,
            findings: found.findings,
        };
        let (report, result) = gate::keep(&self.held.path(), &redactor, &found.report, &evidence)?;
        let ledger = self.paths.ledger();
        let body = GateResulted {
            gate: job.binding.gate.clone(),
            nonce: job.binding.nonce.clone(),
            status,
            reason,
            report: Some(report),
            result: Some(result),
            tries: evidence.tries,
            took_ms,
            tests: evidence.tests,
            usage,
        };
        let mut entries = vec![Entry::of(&job.dispatch, Body::GateResulted(body))];
        let receipts = ledger.of_dispatch(&job.dispatch)?;
        // One that was cancelled has found nothing.
        let failed = job.claim.as_deref().filter(|_| status != GateStatus::Pass && !cancelled);
        // What the target would have become is nobody's to mend: the merge is refused, and that is on record.
        if job.phase == Phase::PreMerge {
            let (gate, looked) = (&job.binding.gate, status != GateStatus::Unverified);
            let findings = if cancelled { &[][..] } else { &evidence.findings };
            entries.extend(items::of_gate(&job.dispatch, &receipts, gate, looked, failed, findings)?);
        }
        Ok(ledger.append(&entries).map(drop)?)
    }
}

/// What a CI that vnx does not know says.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CiSaid {
    commit: String,
    status: String,
    url: Option<String>,
}

/// A run of a workflow, as `gh run list --json` tells it.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForgeRun {
    status: String,
    conclusion: String,
    head_sha: String,
}

fn forge_says(workflow: &str, runs: &[ForgeRun], head: &str) -> (GateStatus, String) {
    let here: Vec<&ForgeRun> = runs.iter().filter(|run| run.head_sha == head).collect();
    let bad = here.iter().find(|run| run.status == "completed" && run.conclusion != "success");
    match (here.first(), bad) {
        (None, _) => (GateStatus::Unverified, format!("the workflow {workflow} has not run for this commit")),
        (_, Some(run)) => (GateStatus::Fail, format!("the workflow {workflow} came to {:?}", summary(&run.conclusion))),
        _ if here.iter().any(|run| run.status != "completed") => {
            (GateStatus::Unverified, format!("the workflow {workflow} is still running"))
        }
        _ => (GateStatus::Pass, format!("the workflow {workflow} passed")),
    }
}

/// What a probe's own lines make of it: an exit code of 0 without a good answer to every question is none.
fn probed(mut found: Found, checks: Vec<ProbeSaid>) -> Found {
    if let Some(bad) = checks.iter().find(|c| !c.good) {
        found.reason = format!("{}: {}", bad.asked, bad.heard);
    } else if found.status == Some(GateStatus::Pass) && checks.is_empty() {
        found = Found { status: Some(GateStatus::Unverified), reason: "the probe asked nothing".to_owned(), ..found };
    } else if checks.is_empty() && matches!(found.end, Some(End::Exited { .. })) {
        // It could not begin, and says first why.
        found.status = Some(GateStatus::Unverified);
        found.reason = found.report.lines().find(|line| !line.trim().is_empty()).map(summary).unwrap_or(found.reason);
    } else if found.status == Some(GateStatus::Pass) {
        found.reason = format!("{} answers are as they must be", checks.len());
    }
    found.checks = checks;
    found
}

/// What all reviewers used together.
fn sum(reviewers: &[Reviewer]) -> Option<Usage> {
    if reviewers.is_empty() {
        return None;
    }
    let mut all = Usage::default();
    let add = |sum: &mut Option<u64>, more: Option<u64>| {
        if let Some(more) = more {
            *sum = Some(sum.unwrap_or(0).saturating_add(more));
        }
    };
    for Reviewer { usage, .. } in reviewers {
        add(&mut all.input_tokens, usage.input_tokens);
        add(&mut all.output_tokens, usage.output_tokens);
        add(&mut all.cache_read_tokens, usage.cache_read_tokens);
        add(&mut all.cache_write_tokens, usage.cache_write_tokens);
        add(&mut all.cost_micro_usd, usage.cost_micro_usd);
    }
    all.source = Some("reviewers".to_owned());
    Some(all)
}

/// The checkout of a run.
struct At<'a> {
    job: &'a Job,
    paths: &'a Paths,
}

impl At<'_> {
    fn place(&self) -> Place<'_> {
        Place {
            common_dir: Path::new(&self.job.common_dir),
            root: Path::new(&self.job.root),
            paths: self.paths,
            name: &self.job.binding.nonce,
        }
    }
    fn make(&self) -> Result<Git, Fault> {
        self.place().make(&self.job.binding.head, Lfs::Git, || None)
    }
    fn clear(&self) -> Result<(), Fault> {
        self.place().clear()
    }
}

/// What every command does: finishes the runs whose runner died.
pub fn tidy(project: &Project) {
    for nonce in files::names(&project.paths.open_gates()).unwrap_or_default() {
        // What cannot be mended now is tried again by whoever comes next.
        let _ = recover(project, &nonce);
    }
}

/// Finishes one run if its runner is dead: ends what it left, and writes down that nobody knows what came of it.
pub(super) fn recover(project: &Project, nonce: &str) -> Result<(), Fault> {
    let paths = &project.paths;
    let marker = paths.open_gates().join(nonce);
    let Some(text) = files::read_capped(&marker, 256)? else { return Ok(()) };
    let id = DispatchId::parse(String::from_utf8_lossy(&text).trim())?;
    let Some(folder) = gate::folder(&paths.dispatch(&id), nonce) else { return Ok(files::remove(&marker)?) };
    refuse_swapped(paths, &id)?;
    let lock_file = folder.join("lock");
    let Some(lock) = lock::try_exclusive(&lock_file)? else { return Ok(()) };
    if !marker.exists() {
        return Ok(());
    }
    let job = Job::read(&folder)?;
    let held = HeldFolder::open(&folder)?;
    let running = Running { paths, job: &job, folder: &folder, held: &held };
    let receipts = project.ledger().of_dispatch(&id)?;
    let is_open = !receipts.iter().any(|r| matches!(&r.body, Body::GateResulted(said) if said.nonce == nonce));
    if lock::is_copied(&lock, &lock_file)? {
        // Its processes, its checkout and its temporary folder are the original's; git's record of them came along.
        if is_open {
            running.record(Found::unverified("the repository was copied while it ran"), Instant::now())?;
        }
        let common_dir = &project.located.common_dir;
        let _held = lock::exclusive(&paths.repo_lock(), Duration::from_mins(1))?;
        let _ = Git::repository(common_dir).worktree_drop(&common_dir.join("worktrees").join(nonce));
        return Ok(files::remove(&marker)?);
    }
    let contained = {
        let marker = Job::marker(nonce);
        let traces = Traces { marker: Some(&marker), worker: None };
        sweep_lost(traces, Duration::from_secs(2).min(Span::duration(job.grace)))
    };
    surroundings::clear(&folder, &DispatchId::parse(nonce)?);
    if is_open {
        let mut found = Found::unverified("its runner died, and its end was not seen");
        found.containment = Some(contained);
        running.record(found, Instant::now())?;
    }
    let _ = running.place().clear();
    Ok(files::remove(&marker)?)
}
