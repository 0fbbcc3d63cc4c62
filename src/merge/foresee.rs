//! What a merge would be refused for whatever its gates say, found out before they are asked: they take time and money.

use std::fs::File;

use super::integrate::Integrate;
use super::journal::Merging;
use super::{Ended, Landing, Merged, Trailers, broken, hold};
use crate::anchor;
use crate::dispatch::gates::Looked;
use crate::domain::Fault;
use crate::domain::gate::check::Subject;
use crate::domain::receipt::Strategy;
use crate::git::{CheckedOut, Foreseen, Git};
use crate::project::Project;

/// A refusal, on record as any other, because git cannot join the branch with its target or who has the target checked
/// out cannot come along. `None` is no promise: a conflict of a rebase is only seen where a merge has one too.
pub(super) fn refused(
    project: &Project,
    looked: &Looked,
    strategy: Strategy,
    lock: &File,
) -> Result<Option<Merged>, Fault> {
    let repository = Git::repository(&project.located.common_dir);
    let Subject { target, base, head, .. } = &looked.situation.subject;
    let Some(foreseen) = repository.foresee(base, head) else { return Ok(None) };
    let places = repository.who_has(target, &project.located.main_top())?;
    if matches!(foreseen, Foreseen::Tree(_)) && places.is_empty() {
        return Ok(None);
    }
    let mut merging = super::begin(project, looked, strategy)?;
    let comes_along = |merging: &mut Merging<'_>, tree: &str| -> Result<(), Ended> {
        // Somebody's git works there at this moment, and it says nothing of the next.
        if places.iter().any(CheckedOut::is_locked) {
            return Ok(());
        }
        merging.about_to_hold(&places)?;
        hold(&places, target, merging.nonce(), lock, base, tree).map(drop)
    };
    if let Foreseen::Tree(tree) = &foreseen
        && comes_along(&mut merging, tree).is_ok()
    {
        return merging.clear().map(|()| None);
    }
    let Ok(sealed) = anchor::seal(project)? else {
        merging.clear()?;
        return Ok(Some(Merged::Held(Box::new(broken(looked)))));
    };
    let landing = Landing { project, looked, strategy, sealed: &sealed, lock };
    let tried = landing.joins(&merging).and_then(|tree| comes_along(&mut merging, &tree));
    let Err(ended) = tried else { return merging.clear().map(|()| None) };
    landing.started(&merging)?;
    landing.refused(&merging, ended).map(Some)
}

impl Landing<'_> {
    /// The tree that it comes to. Attributes may settle what looks like a conflict, or make another one of it; a checkout
    /// has them.
    fn joins(&self, merging: &Merging<'_>) -> Result<String, Ended> {
        let trailers = Trailers::of(self.looked, self.sealed, self.project)?;
        Integrate::begin(self.project, self.looked, merging.nonce(), &trailers, self.strategy)?.joins()
    }
}
