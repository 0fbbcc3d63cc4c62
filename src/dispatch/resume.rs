//! `vnx resume`: the request that continues an earlier dispatch's CLI session.

use std::path::Path;

use super::request::Request;
use super::view;
use crate::domain::event::Usage;
use crate::domain::plan::Resume;
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

/// The request. It is a dispatch of its own, with a branch of its own that begins where the
/// earlier one ended, in a worktree at the same path.
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
    // Where it ended, if its branch still stands; else where it began.
    let repository = Git::repository(&project.located.common_dir);
    let branch = id.branch_ref();
    let base = if repository.ref_commit(&branch)?.is_some() { id.branch() } else { plan.base.commit.clone() };
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
        resume: Some(Resume { dispatch: id.clone(), session, worktree: plan.worktree, config_of, used }),
        env_file: plan.launch.env_file,
        paths: plan.paths,
        overrides: plan.overrides,
        ..Request::of(plan.agent)
    })
}
