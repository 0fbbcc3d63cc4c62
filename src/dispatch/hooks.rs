//! The project's own commands around a dispatch: run as the plan has them, each with a receipt.
//!
//! They run contained as a worker does, in its environment. What the supervisor runs was decided before
//! the worker started; a recovery runs only a plan that is still the one in the ledger.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::supervise::secrets;
use crate::domain::plan::Plan;
use crate::domain::receipt::{Body, Entry, WorktreeHook};
use crate::domain::redact::Redactor;
use crate::domain::setup::{Hook, Moment, Setup};
use crate::domain::span::human_millis;
use crate::domain::verdict::End;
use crate::domain::{Digest, Fault};
use crate::ledger::{Ledger, Receipt};
use crate::provider::environment;
use crate::sys::files;
use crate::worker::{CommandJob, control, run_command, shell};

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
        let (program, args) = shell(&hook.run);
        let job = CommandJob {
            program,
            args,
            timeout: hook.timeout,
            keep: 0,
            name,
            env,
            cwd: Path::new(&self.plan.worktree),
            grace: self.plan.limits.grace,
            folder: &folder,
            redactor,
            control,
        };
        let (ended, said) = run_command(job).map_err(failed)?;
        let done = WorktreeHook {
            hook: name.to_owned(),
            end: ended.end,
            containment: ended.containment,
            took_ms: ended.ran_ms,
            said: said.last,
        };
        let result = outcome(hook, &done);
        self.ledger.append(&[Entry::of(&self.plan.id, Body::WorktreeHook(done))]).map_err(|e| failed(e.into()))?;
        result
    }
}

/// What the receipt of a hook amounts to.
pub(super) fn outcome(hook: &Hook, done: &WorktreeHook) -> Result<(), Failed> {
    let how = match &done.end {
        End::Exited { code: 0 } if done.containment.empty => return Ok(()),
        End::Exited { code: 0 } => "left processes that do not end".to_owned(),
        End::Exited { code } => format!("exit {code}"),
        End::Signaled { signal } => format!("ended by signal {signal}"),
        End::TimedOut => format!("did not end within {}", human_millis(hook.timeout.0)),
        End::Cancelled => "cancelled".to_owned(),
        End::NeverStarted { reason, .. } => reason.clone(),
        End::Idle | End::Lost => "its end was not seen".to_owned(),
    };
    let said = done.said.as_ref().map(|line| format!(": {line}")).unwrap_or_default();
    Err(Failed { cancelled: done.end == End::Cancelled, why: format!("hook {}, {how}{said}", done.hook) })
}
