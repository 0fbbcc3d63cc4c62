//! `vnx doctor`: predicts whether a dispatch will succeed, from the same snapshot that the door
//! takes. What the door would refuse is FAIL here; what it would do with less is WARN.

mod providers;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

pub use providers::provider_check;

use super::budget::{self, Used};
use super::leftovers::{Fix, leftovers};
use super::plan::Refusal;
use super::request::Request;
use super::snapshot::{Snapshot, snapshot};
use super::trees;
use crate::anchor::{self, NoWitness};
use crate::domain::gate::check::short_ref;
use crate::domain::{DispatchId, Fault, Name};
use crate::gate;
use crate::git::{Git, GitConfig};
use crate::ledger::verify::Status;
use crate::project::Project;
use crate::project::config::Panes;
use crate::project::trust;
use crate::provider;
use crate::sys::folder::{self, FolderId};
use crate::sys::{self, lock};
use crate::tmux::Tmux;
use crate::worktree;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Fine.
    Pass,
    /// A dispatch works, with less or with a risk.
    Warn,
    /// A dispatch is refused or fails.
    Fail,
}

impl Level {
    /// The word on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub id: String,
    /// How it came out.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Check {
    pub(super) fn new(id: &str, level: Level, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id: id.to_owned(), level, what: what.into(), fix: fix.into() }
    }
    fn of<T>(id: &str, result: &Result<T, Fault>, pass: impl FnOnce(&T) -> String) -> Self {
        match result {
            Ok(value) => Self::new(id, Level::Pass, pass(value), ""),
            Err(fault) => Self::new(id, Level::Fail, &fault.what, fault.next()),
        }
    }
}

/// The whole examination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Format of this report.
    pub schema: &'static str,
    /// No FAIL.
    pub ok: bool,
    /// The rows.
    pub checks: Vec<Check>,
    /// What `--fix` would do or did.
    pub fixes: Vec<Fix>,
}

/// Examines the project that `from` lies in. `wanted` makes one provider a must.
pub fn examine(from: &Path, wanted: Option<&Name>) -> Report {
    let mut checks = Vec::new();
    match Project::open(from) {
        Err(fault) => {
            checks.push(Check::of("git", &super::snapshot::git_version(), Clone::clone));
            checks.push(Check::new("project", Level::Fail, &fault.what, fault.next()));
        }
        Ok(project) => {
            checks.push(Check::new(
                "project",
                Level::Pass,
                format!("{} in {}", project.id(), project.located.top.display()),
                "",
            ));
            examine_project(&project, wanted, &mut checks);
        }
    }
    let ok = checks.iter().all(|c| c.level != Level::Fail);
    Report { schema: "vnx.doctor/1", ok, checks, fixes: Vec::new() }
}

fn examine_project(project: &Project, wanted: Option<&Name>, checks: &mut Vec<Check>) {
    let agent = Name::try_from("hello-world".to_owned()).unwrap_or_else(|_| unreachable!("follows the id rule"));
    let request = Request {
        // For a provider that needs one; an agent with a command of its own prefers this too.
        instruction: wanted.map(|_| "true".to_owned()),
        provider: wanted.cloned(),
        ..Request::of(agent)
    };
    let (seen, providers, own_view, tmux) = std::thread::scope(|scope| {
        let providers = crate::sys::beside(scope, || providers::examine(project, wanted));
        let own_view = crate::sys::beside(scope, || agrees_with_git(project));
        let tmux = crate::sys::beside(scope, || examine_tmux(project));
        let seen = snapshot(project, &request);
        (seen, providers.join(), own_view.join(), tmux.join())
    });
    let crashed = |id: &str| {
        Check::new(id, Level::Fail, "the check itself ended early", "run `vnx doctor` again; report it if it stays")
    };
    checks.push(trust_row(project));
    rows_of(project, &seen, checks);
    checks.extend(budget_row(project, &seen));
    checks.push(plan_row(project, &request));
    checks.push(own_view.unwrap_or_else(|_| crashed("repository")));
    checks.push(round_trip(project, &seen));
    checks.push(tmux.unwrap_or_else(|_| crashed("tmux")));
    checks.extend(providers.unwrap_or_else(|_| vec![crashed("providers")]));
    checks.extend(examine_agents(project));
    checks.extend(examine_names(project));
    checks.extend(leftovers(project));
}

/// What the repository brings that would be run.
fn trust_row(project: &Project) -> Check {
    match trust::refusal(&project.untrusted) {
        Some(fault) => Check::new("trust", Level::Fail, &fault.what, fault.next()),
        None if trust::standing(&project.paths).made_here => Check::new("trust", Level::Pass, "made here", ""),
        None => Check::new("trust", Level::Pass, "nothing of it is run that was not accepted here", ""),
    }
}

/// What gates and merges name, and there is none of: it would show when somebody merges.
fn examine_names(project: &Project) -> Vec<Check> {
    let (folder, mut faults) = (project.folder(), Vec::new());
    for (name, gate) in &project.config.gates {
        let review = gate.review.iter();
        let providers = review.clone().flat_map(|r| &r.providers).filter_map(|p| provider::load(project, p).err());
        let agents = review.map(|r| &r.agent).chain(&gate.when.agents);
        let agents = agents.filter_map(|agent| crate::prompt::agent(&folder, agent).err());
        let of_gate = |fault: Fault| (format!("gate {name}: {}", fault.what), fault.next().to_owned());
        faults.extend(providers.chain(agents).map(of_gate));
    }
    if let Some(target) = project.config.merge.target.as_deref().map(short_ref) {
        let repository = Git::repository(&project.located.common_dir);
        if matches!(repository.ref_commit(&format!("refs/heads/{target}")), Ok(None)) {
            let fix = "make it, or correct merge.target in .vnx/config.yaml";
            faults.push((format!("merge.target: there is no branch {target}"), fix.to_owned()));
        }
    }
    faults.into_iter().map(|(what, fix)| Check::new("config", Level::Warn, what, fix)).collect()
}

/// The plan that a dispatch would get: what the door refuses for any other reason shows here.
fn plan_row(project: &Project, request: &Request) -> Check {
    match super::plan_only(project, request) {
        Ok(planned) => {
            Check::new("plan", Level::Pass, format!("{} on {} compiles", planned.plan.agent, planned.plan.provider), "")
        }
        Err(Refusal::Fault(fault) | Refusal::Policy { fault, .. }) => {
            Check::new("plan", Level::Fail, &fault.what, fault.next())
        }
    }
}

fn rows_of(project: &Project, seen: &Snapshot, checks: &mut Vec<Check>) {
    checks.push(Check::of("git", &seen.git, Clone::clone));
    checks.push(Check::of("base", &seen.base, |b| format!("{} at {}", b.name, &b.commit[..b.commit.len().min(12)])));
    checks.push(match &seen.git_config {
        Ok(config) if config.has_identity() => {
            Check::new("identity", Level::Pass, "git user.name and user.email are set", "")
        }
        Ok(_) => Check::new(
            "identity",
            Level::Warn,
            "git has no user.name and user.email: workers commit as `vnx worker`",
            "git config --global user.name NAME; git config --global user.email ADDRESS",
        ),
        Err(fault) => Check::new("identity", Level::Fail, &fault.what, fault.next()),
    });
    checks.extend(committed_row(project));
    checks.extend(seen.git_config.as_ref().ok().and_then(signing_row));
    checks.push(Check::of("constraints", &seen.constraints, |c| format!("{} rules", c.constraints.len())));
    let audit = seen.ledger.is_ok().then(|| anchor::believed(project, true));
    checks.push(match audit.and_then(|audit| Some((anchor::why_not(&audit)?, audit.report.status))) {
        Some((why, Status::TornTail)) => {
            Check::new("ledger", Level::Warn, why, "`vnx audit-chain seal`, or any next dispatch, mends a torn end")
        }
        Some((why, Status::Undecided)) => Check::new(
            "ledger",
            Level::Warn,
            why,
            "`vnx audit-chain verify` says what is missing; nothing lands until then",
        ),
        Some((why, _)) => {
            let fix =
                "`vnx audit-chain verify` says where; dispatch nothing meanwhile, and nothing lands until it holds";
            Check::new("ledger", Level::Fail, why, fix)
        }
        None => Check::of("ledger", &seen.ledger, |head| format!("it verifies, up to receipt {}", head.seq)),
    });
    checks.push(Check::of("writable", &seen.writable, |()| "state and worktrees can be written".to_owned()));
    checks.extend(witness_row(project));
    checks.extend(changed_files_row(project));
    checks.extend(trees::misplaced(project).map(|(what, fix)| Check::new("worktrees", Level::Warn, what, fix)));
    checks.push(Check::of("disk", &seen.disk, |free| format!("{} MiB free", free >> 20)));
}

/// Git's shared files that somebody changed while a dispatch ran.
fn changed_files_row(project: &Project) -> Option<Check> {
    let changed = super::trust::changed_files(project).ok()?;
    let told: Vec<String> = changed.iter().map(|(name, by)| format!("{name} was changed while {by} ran")).collect();
    let what = format!("{}; what stood there before counts", told.join(", "));
    let fix = "take the change back, or accept it: `vnx trust`";
    (!changed.is_empty()).then(|| Check::new("git files", Level::Warn, what, fix))
}

fn witness_row(project: &Project) -> Option<Check> {
    let (level, what, fix) = match anchor::no_witness(&project.located.common_dir)? {
        NoWitness::Blank(why) => (
            Level::Warn,
            format!("{why}: nothing outside of the repository remembers its ledger"),
            "set XDG_STATE_HOME to a folder of yours; push the anchors",
        ),
        NoWitness::Stuck(why) => (
            Level::Fail,
            format!("gates and merges wait for what this user remembers of the ledger: {why}"),
            "make it readable and writable, or set XDG_STATE_HOME to a folder of yours",
        ),
    };
    Some(Check::new("witness", level, what, fix))
}

/// Merges go by the committed configuration, and git does not take it everywhere.
fn committed_row(project: &Project) -> Option<Check> {
    let how = gate::how_to_add(&project.located);
    let what = ".vnx is not committed, and `git add` refuses it: git ignores it, or this checkout is sparse";
    (how != gate::ADD).then(|| Check::new(".vnx", Level::Warn, what, how))
}

/// Workers are not given the ssh agent, so git cannot sign what they commit where the key is only there.
fn signing_row(config: &GitConfig) -> Option<Check> {
    config.signing_key().filter(|key| key.agent_only && config.signs_commits())?;
    Some(Check::new(
        "signing",
        Level::Warn,
        "git signs commits with a key that only an ssh agent has, and workers do not reach one: they cannot commit",
        "keep the private key in a file that user.signingKey names, or `git config commit.gpgSign false` here",
    ))
}

fn budget_row(project: &Project, seen: &Snapshot) -> Option<Check> {
    let told = |used: &Option<Used>| used.as_ref().map(|used| budget::told(used, project.config.worktree.budget));
    match &seen.budget {
        Ok(used) => told(used).map(|what| Check::new("budget", Level::Pass, what, "")),
        Err(fault) => Some(Check::new("budget", Level::Fail, &fault.what, fault.next())),
    }
}

/// Our own discovery reads files; git has the last word.
fn agrees_with_git(project: &Project) -> Check {
    let located = &project.located;
    if located.common_dir.join("reftable").is_dir() {
        let what = "references are kept in tables (reftable), which vnx does not read: every worktree is kept";
        return Check::new("repository", Level::Warn, what, "work in a `git clone --ref-format=files` of it");
    }
    match Git::examine(&located.top) {
        Ok((false, common, own, top)) => {
            let same = |a: &Path, b: &Path| a.canonicalize().ok() == b.canonicalize().ok();
            if same(&common, &located.common_dir) && same(&own, &located.git_dir) && same(&top, &located.top) {
                return Check::new("repository", Level::Pass, "git and vnx see the same checkout", "");
            }
            let what = format!("git sees {} where vnx sees {}", top.display(), located.top.display());
            Check::new("repository", Level::Warn, what, "check core.worktree and the .git file; vnx goes by the files")
        }
        Ok((true, ..)) => {
            Check::new("repository", Level::Fail, "git calls the repository bare", "git config core.bare false")
        }
        Err(e) => Check::new("repository", Level::Warn, e.to_string(), "run `git status` here and follow its advice"),
    }
}

/// Registers a worktree without files and takes it away again, branch included.
fn round_trip(project: &Project, seen: &Snapshot) -> Check {
    let fail =
        |what: String| Check::new("worktree", Level::Fail, what, "see whether `git worktree add` works here by hand");
    let (Ok(base), Ok(()), Ok(random)) = (&seen.base, &seen.writable, sys::random::<4>()) else {
        return Check::new("worktree", Level::Warn, "not tried: see above", "");
    };
    let Ok(id) = DispatchId::parse(&format!("doctor-{:08x}", u32::from_le_bytes(random))) else {
        return fail("no id for the trial".to_owned());
    };
    let path = project.worktrees().join(id.as_str());
    let repository = Git::repository(&project.located.common_dir);
    let tried = || -> Result<(), Fault> {
        let _guard = lock::exclusive(&project.paths.repo_lock(), Duration::from_secs(30))?;
        let stood = project.worktrees().exists();
        let made = repository.create_branch(&id.branch_ref(), &base.commit, "vnx: trial", None);
        let added = made.and_then(|()| repository.worktree_add_bare(&path, &id.branch(), "vnx doctor", || None));
        // What stands there otherwise is not the trial's.
        let trial = added.is_ok().then(|| FolderId::of(&path).ok()).flatten();
        let found = added.map_err(Fault::from).and_then(|()| worktree::is_found_by_git(&path));
        let found = found.and_then(|()| filters_work(project, seen, &path, &base.commit));
        let _ = trial.map(|trial| folder::delete(&path, Some(trial)));
        let forgotten = repository.worktree_forget(&path);
        let deleted = repository.delete_ref(&id.branch_ref(), &base.commit);
        if !stood {
            let _ = std::fs::remove_dir(project.worktrees());
        }
        found.and(forgotten.and(deleted).map_err(Fault::from))
    };
    match tried() {
        Ok(()) => Check::new(
            "worktree",
            Level::Pass,
            format!("added and removed one below {}", project.worktrees().display()),
            "",
        ),
        Err(fault) if fault.fix.is_empty() => fail(fault.what),
        Err(fault) => Check::new("worktree", Level::Fail, fault.what, fault.fix),
    }
}

/// Writes one file through each filter that git requires: one may look for its key in the git folder of the checkout,
/// where it is in no other one.
fn filters_work(project: &Project, seen: &Snapshot, trial: &Path, base: &str) -> Result<(), Fault> {
    let Ok(config) = &seen.git_config else { return Ok(()) };
    let located = &project.located;
    let files = Git::tree(&located.git_dir, &located.top).filtered_files(config)?;
    let Some(git_dir) = Git::worktree_git_dir(&located.common_dir, trial)?.filter(|_| !files.is_empty()) else {
        return Ok(());
    };
    let trial = Git::tree(git_dir, trial);
    trial.checkout_some(base, &files).map_err(|e| {
        Fault::environment(format!("git cannot write all files of a new worktree: {e}"))
            .fix("let the filter find its key from there (`git worktree add` fails alike), or leave its files out: `sparse` of the agent")
    })
}

fn examine_tmux(project: &Project) -> Check {
    if project.config.tmux.panes == Panes::Off {
        return Check::new("tmux", Level::Pass, "panes are off", "");
    }
    match Tmux::version() {
        Ok(version) => Check::new("tmux", Level::Pass, version, ""),
        Err(e) => Check::new(
            "tmux",
            Level::Warn,
            format!("{e}: workers run without a pane"),
            "install tmux to watch them; `vnx attach` works without it",
        ),
    }
}

/// How many agents are named: nothing else lists them.
const NAMED: usize = 8;

fn examine_agents(project: &Project) -> Vec<Check> {
    let warn = |fault: &Fault| Check::new("agents", Level::Warn, &fault.what, fault.next());
    let list = match crate::prompt::agents(&project.folder()) {
        Ok(list) => list,
        Err(fault) => return vec![warn(&fault)],
    };
    let sound: Vec<&str> = list.iter().filter(|l| l.description.is_ok()).map(|l| l.name.as_str()).collect();
    let more = if sound.len() > NAMED { ", …" } else { "" };
    let named = sound.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let what = format!("{} can be dispatched: {named}{more}", sound.len());
    let broken = list.iter().filter_map(|l| l.description.as_ref().err());
    broken.map(warn).chain([Check::new("agents", Level::Pass, what, "")]).collect()
}
