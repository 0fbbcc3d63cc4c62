//! `vnx path`.

use super::Context;
use super::args::{PathArgs, Place};
use super::exit::Answer;
use crate::dispatch::view;
use crate::domain::Fault;

pub(super) fn run(context: &Context, args: &PathArgs) -> Result<Answer, Fault> {
    let project = context.project_as_it_is()?;
    let path = match (args.what, &args.id) {
        (Place::Ledger, _) => project.ledger().file(),
        (Place::State, _) => project.paths.state().to_owned(),
        (Place::Worktrees, _) => project.worktrees(),
        (Place::Dispatch, id) => project.paths.dispatch(&view::resolve(&project, id.as_deref().unwrap_or("@last"))?),
    };
    if args.json {
        context.screen.json(&serde_json::json!({ "schema": "vnx.path/1", "path": path.to_string_lossy() }));
    } else {
        context.screen.answer(&path.display().to_string());
    }
    Ok(Answer::Good)
}
