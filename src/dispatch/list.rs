//! All dispatches, running and closed, in short.

use serde::Serialize;

use super::view::{self, Live};
use crate::domain::{DispatchId, Fault};
use crate::project::Project;
use crate::state::{Known, State, Wanted};

/// A dispatch as a list shows it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// What the receipts tell.
    #[serde(flatten)]
    pub known: Known,
    /// The first line of its instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is doing, while it is not closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// Those that are wanted, the one that was asked for last first; at most so many. Dispatches of reviewers are gates'.
/// `progress` hears how many receipts are read, if that has to be.
pub fn list(project: &Project, wanted: &Wanted, most: usize, progress: &dyn Fn(u64)) -> Result<Vec<Listed>, Fault> {
    let of_gate = |id: &DispatchId| view::of_gate(project, id).exists();
    let known = State::ask(project, progress, |state| state.dispatches(wanted, most, of_gate))?;
    let mut live = view::live(project)?;
    let listed = |known: Known| {
        let at = live.iter().position(|one| one.id == known.id);
        let live = at.map(|at| live.swap_remove(at));
        Listed { title: view::title(project, &known.id), known, live }
    };
    Ok(known.into_iter().map(listed).collect())
}
