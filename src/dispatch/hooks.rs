//! The project's own commands around a dispatch: run as the plan has them, each with a receipt.
//!
//! They run contained as a worker does, in its environment. What the supervisor runs was decided before
//! the worker started; a recovery runs only a plan that is still the one in the ledger.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::supervise::secrets;
use crate::domain::gate::GateStatus;
use crate::domain::plan::Plan;
use crate::domain::receipt::{Body, Entry, WorktreeHook};
use crate::domain::redact::Redactor;
use crate::domain::setup::{Hook, Moment, Setup};
use crate::domain::span::Span;
use crate::domain::verdict::End;
use crate::domain::{Digest, Fault};
use crate::gate;
use crate::ledger::{Ledger, Receipt};
use crate::provider::environment;
use crate::sys::files;
use crate::worker::{CommandJob, Ended, control, run_command, shell};

/// Where the recordings of a dispatch's hooks are.
const FOLDER: &str = "hooks";

/// A hook that did not do its work.
#[derive(Debug)]
pub(super) struct Failed {
    /// A person cancelled it.
    pub(super) cancelled: bool,
    /// What to say.
    pub(super) why: String,
}

impl Failed {
    fn because(why: impl Into<String>) -> Self {
        Self { cancelled: false, why: why.into() }
    }
}

/// Whether any hook of a dispatch has begun: until then nothing but vnx wrote to its worktree.
pub(super) fn begun(dispatch: &Path) -> bool {
    dispatch.join(FOLDER).exists()
}

/// Whether the plan is the one that was claimed: what it says to run may be run.
pub(super) fn is_claimed(receipts: &[Receipt], plan: Digest) -> bool {
    receipts.iter().any(|r| matches!(&r.body, Body::DispatchClaimed(claimed) if claimed.plan == plan))
}

/// Variables that a hook has beside the worker's.
pub(super) fn variables(setup: &Setup, worktree: &str) -> [(String, String); 2] {
    [("VNX_WORKTREE".to_owned(), worktree.to_owned()), ("VNX_MAIN_CHECKOUT".to_owned(), setup.main.clone())]
}

/// Runs the hooks of one dispatch.
pub(super) struct Running<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) plan: &'a Plan,
    /// The dispatch's folder.
    pub(super) folder: &'a Path,
    /// Receipts that stand already: their hooks are not run again.
    pub(super) on_record: Vec<WorktreeHook>,
    /// Variables for hooks that run when the worker's environment is gone.
    pub(super) around: &'a [(String, String)],
}

impl Running<'_> {
    /// Runs those of `PostCreate` until one fails.
    pub(super) fn post_create(&self, env: &BTreeMap<String, String>, control: &UnixListener) -> Result<(), Failed> {
        let redactor = Redactor::new(secrets(self.plan, env));
        self.hooks(Moment::PostCreate).try_for_each(|(hook, name)| {
            // The same queue that the worker will be asked through: a cancel finds whoever is at it.
            let control = control.try_clone().map_err(|e| Failed::because(format!("{name}: {e}")))?;
            self.one(hook, &name, env, control, &redactor)
        })
    }

    /// Runs all of `PreRemove`; what the first one that failed says.
    pub(super) fn pre_remove(&self) -> Result<(), Failed> {
        let ended = self.hooks(Moment::PreRemove).map(|(hook, name)| {
            let on_record = self.on_record.iter().find(|done| done.hook == name);
            on_record.map_or_else(|| self.by_itself(hook, &name), |done| outcome(hook, done))
        });
        // All of them, also after one that failed.
        ended.fold(Ok(()), Result::and)
    }

    /// Runs a hook when the worker, its environment and its socket are gone.
    fn by_itself(&self, hook: &Hook, name: &str) -> Result<(), Failed> {
        let failed = |fault: Fault| Failed::because(format!("hook {name}: {fault}"));
        let launch = &self.plan.launch;
        let env = environment::build(&launch.env_pass, &launch.env_set, &launch.env_from, launch.env_file.as_deref());
        let mut env = env.map_err(failed)?;
        env.extend(self.around.iter().cloned());
        let control = control::bind(self.folder).map_err(failed)?;
        self.one(hook, name, &env, control, &Redactor::new(secrets(self.plan, &env)))
    }

    fn hooks(&self, moment: Moment) -> impl Iterator<Item = (&Hook, String)> {
        self.plan
            .setup
            .hooks
            .at(moment)
            .iter()
            .zip(1..)
            .map(move |(hook, nth)| (hook, format!("{}-{nth}", moment.word())))
    }

    fn one(
        &self,
        hook: &Hook,
        name: &str,
        env: &BTreeMap<String, String>,
        control: UnixListener,
        redactor: &Redactor,
    ) -> Result<(), Failed> {
        let failed = |fault: Fault| Failed::because(format!("hook {name}: {fault}"));
        let folder = self.folder.join(FOLDER);
        files::private_folder(&folder).map_err(|e| failed(e.into()))?;
        let mut env = env.clone();
        env.extend(variables(&self.plan.setup, &self.plan.worktree));
        let (cwd, grace) = (Path::new(&self.plan.worktree), self.plan.limits.grace);
        let done = run(hook, Place { name, env, cwd, grace, folder: &folder, redactor, control }).map_err(failed)?;
        let result = outcome(hook, &done);
        self.ledger.append(&[Entry::of(&self.plan.id, Body::WorktreeHook(done))]).map_err(|e| failed(e.into()))?;
        result
    }
}

/// Where and how one hook runs.
pub(super) struct Place<'a> {
    /// What it is called: its moment and its number.
    pub(super) name: &'a str,
    /// Its whole environment.
    pub(super) env: BTreeMap<String, String>,
    /// The worktree.
    pub(super) cwd: &'a Path,
    /// Between SIGTERM and SIGKILL.
    pub(super) grace: Span,
    /// The folder for its recording.
    pub(super) folder: &'a Path,
    /// Secrets that must not be written down.
    pub(super) redactor: &'a Redactor,
    /// Where it can be cancelled.
    pub(super) control: UnixListener,
}

/// Runs one hook to its end.
pub(super) fn run(hook: &Hook, place: Place) -> Result<WorktreeHook, Fault> {
    let Place { name, env, cwd, grace, folder, redactor, control } = place;
    let (program, args) = shell(&hook.run);
    let timeout = hook.timeout;
    let job = CommandJob { program, args, timeout, keep: 0, name, env, cwd, grace, folder, redactor, control };
    let (Ended { end, containment, ran_ms, .. }, said) = run_command(job)?;
    Ok(WorktreeHook { hook: name.to_owned(), end, containment, took_ms: ran_ms, said: said.last })
}

/// What the receipt of a hook amounts to.
pub(super) fn outcome(hook: &Hook, done: &WorktreeHook) -> Result<(), Failed> {
    let (status, how) = gate::ended(&done.end, &done.containment, hook.timeout.0, done.said.as_deref());
    if status == GateStatus::Pass {
        return Ok(());
    }
    Err(Failed { cancelled: done.end == End::Cancelled, why: format!("hook {}: {how}", done.hook) })
}
