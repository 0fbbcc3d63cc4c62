//! `vnx resume`: the request that continues an earlier dispatch's CLI session.

use std::path::Path;

use super::request::Request;
use super::{gates, view};
use crate::domain::event::Usage;
use crate::domain::gate::check::short_ref;
use crate::domain::plan::{Plan, Resume};
use crate::domain::{DispatchId, Fault};
use crate::git::Git;
use crate::project::Project;
use crate::sys::files;

/// What a session has used so far, in every dispatch that went on with it.
fn used_by(project: &Project, session: &str) -> Result<Usage, Fault> {
    let mut used = Usage::default();
    for name in files::names(&project.paths.dispatches())? {
        let Ok(id) = DispatchId::parse(&name) else { continue };
        // Few of many are looked at closer.
        let named = |file: &str| {
            let text = files::read_capped(&project.paths.dispatch(&id).join(file), 16 << 20).ok().flatten();
            text.is_some_and(|text| memchr::memmem::find(&text, session.as_bytes()).is_some())
        };
        if !named("closed.json") && !named("plan.json") {
            continue;
        }
        if let Some(closed) = view::closed(project, &id)?.filter(|closed| closed.session.as_deref() == Some(session)) {
            used = used.and(&closed.usage);
        }
    }
    Ok(used)
}

/// Where it goes on, if not simply where its base is now: at the end of a branch that has not landed.
fn unlanded(project: &Project, plan: &Plan) -> Result<Option<String>, Fault> {
    let repository = Git::repository(&project.located.common_dir);
    let Some(tip) = repository.ref_commit(&plan.id.branch_ref())? else { return Ok(None) };
    let has_landed = match gates::target(project, plan, None).ok() {
        Some(target) if repository.ref_commit(&target)?.is_some() => repository.is_ancestor(&tip, &target)?,
        _ => false,
    };
    Ok((!has_landed).then_some(tip))
}

/// The request. It is a dispatch of its own, with a branch of its own towards the same target, in a worktree at the
/// same path: it begins where the earlier one ended or, if that has landed, where the target is now.
pub fn resume(project: &Project, id: &DispatchId, instruction: Option<String>) -> Result<Request, Fault> {
    let Some(closed) = view::closed(project, id)? else {
        return Err(Fault::input(format!("dispatch {id} is still running"))
            .fix(format!("give it a message with `vnx send {id} TEXT`, or wait for it")));
    };
    let plan = view::plan(project, id)?;
    let Some(session) = closed.session.clone() else {
        return Err(Fault::input(format!("{} named no session in dispatch {id}", plan.provider))
            .fix("dispatch anew, with what should go on in the instruction"));
    };
    if Path::new(&plan.worktree).exists() {
        return Err(Fault::refused(format!("the worktree of {id} still stands at {}", plan.worktree))
            .fix(format!("commit what is in it; `vnx worktree gc --apply {id}` takes it away, then resume")));
    }
    let start = unlanded(project, &plan)?;
    let is_branch = plan.base.name.starts_with("refs/heads/");
    let stands = is_branch && Git::repository(&project.located.common_dir).ref_commit(&plan.base.name)?.is_some();
    let base = if stands { short_ref(&plan.base.name).to_owned() } else { plan.base.commit.clone() };
    let config_of = match &plan.resume {
        Some(Resume { config_of: Some(first), .. }) => Some(first.clone()),
        _ => project.paths.dispatch(id).join("config").is_dir().then(|| id.clone()),
    };
    let used = used_by(project, &session)?;
    Ok(Request {
        instruction: Some(instruction.unwrap_or_else(|| "Go on with your assignment.".to_owned())),
        provider: Some(plan.provider),
        model: plan.model,
        lane: Some(plan.lane),
        base: Some(base),
        resume: Some(Resume { dispatch: id.clone(), session, worktree: plan.worktree, start, config_of, used }),
        env_file: plan.launch.env_file,
        paths: plan.paths,
        overrides: plan.overrides,
        ..Request::of(plan.agent)
    })
}
