//! What a ledger is held against: checkpoints of it that stand in places with other owners.
//!
//! An anchor is a commit on `refs/vnx/anchors`: its tree holds a checkpoint (size and root), its
//! parent is the anchor before, and git signs it where an SSH key is configured. The ref is
//! pushed with plain `git push`. A witness file outside of the repository remembers the last
//! one. A chain alone cannot show that its end is missing or that all of it was rewritten; an
//! anchor can. Where nobody seals, the marks that vnx leaves beside the ledger can (`ledger/known.rs`),
//! and whatever else names a dispatch.

mod audit;
mod evidence;
mod export;
mod prove;
mod seal;
mod signature;
mod witness;

pub use audit::{Anchored, Audit, Options, audit, audit_file, believed, disbelieved, why_not};
pub use evidence::{note_closing, required};
pub use export::{Export, Exported, export};
pub use prove::{Proof, covered, prove};
pub use seal::{Sealed, accept, seal, seal_lost};
pub use signature::Signers;
pub use witness::{NoWitness, no_witness};

use crate::domain::Fault;
use crate::domain::checkpoint::{Checkpoint, Resume};
use crate::git::{Commit, Git, GitError};
use crate::project::Project;

/// Where this clone keeps its anchors.
pub const ANCHORS: &str = "refs/vnx/anchors";
/// The file with the checkpoint in an anchor's tree, for people and for other tools. What counts
/// stands in the message, which the signature covers.
const CHECKPOINT: &str = "checkpoint";

/// One anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Anchor {
    /// The commit that holds it.
    commit: Commit,
    /// What it says.
    checkpoint: Checkpoint,
    /// How to go on from it.
    resume: Resume,
}

/// Why anchors cannot be used.
#[derive(Debug, thiserror::Error)]
enum AnchorError {
    /// git did not answer.
    #[error(transparent)]
    Git(#[from] GitError),
    /// They are not what vnx writes.
    #[error("{0}")]
    Bad(String),
}

impl From<AnchorError> for Fault {
    fn from(error: AnchorError) -> Self {
        match error {
            AnchorError::Git(error) => error.into(),
            AnchorError::Bad(what) => Self::refused(what).fix("run `vnx audit-chain verify`"),
        }
    }
}

fn repository(project: &Project) -> Git {
    Git::repository(&project.located.common_dir)
}

/// Why nothing lands while the witness knows another ledger of this repository than the one that is here. Cheap enough for
/// every dispatch: it reads two small files.
pub fn replaced(project: &Project) -> Option<Fault> {
    let own = Checkpoint::origin_of(&project.ledger().created().ok()?.ledger);
    let known = witness::read(&project.located.common_dir, None).ok()?;
    let other = known.into_iter().find(|checkpoint| checkpoint.origin != own)?;
    let size = other.size;
    let what = format!(
        "a ledger of {size} receipts was here before, and this one is another: nothing lands until you say which counts"
    );
    Some(Fault::refused(what).fix(format!("{AGAIN}; otherwise put the other one back")))
}

/// How a person settles that there is another ledger.
const AGAIN: &str = "if you began again here, `vnx audit-chain accept --reason WHY` lets this one count";

/// The message of an anchor's commit: a subject, the checkpoint, and how to go on from it.
fn message(checkpoint: &Checkpoint, resume: &Resume) -> Result<String, Fault> {
    let resume = serde_json::to_string(resume).map_err(|e| Fault::internal(e.to_string()))?;
    Ok(format!("anchor {} receipts\n\n{}\n{resume}\n", checkpoint.size, checkpoint.to_text()))
}

fn parse(commit: Commit) -> Option<Anchor> {
    let mut parts = commit.message.splitn(3, "\n\n");
    let (_subject, checkpoint, resume) = (parts.next()?, parts.next()?, parts.next()?);
    let checkpoint = Checkpoint::parse(&format!("{checkpoint}\n"))?;
    let resume: Resume = serde_json::from_str(resume).ok()?;
    // It must lead to the anchor's own root.
    resume.tree(&checkpoint)?;
    Some(Anchor { commit, checkpoint, resume })
}

/// The first of the commits from this one back, first parents only, that is not there.
fn lost(repository: &Git, newest: String) -> Result<Option<String>, GitError> {
    let mut next = Some(newest);
    while let Some(id) = next {
        if repository.resolve(&id)?.is_none() {
            return Ok(Some(id));
        }
        next = repository.raw_commits(&[id])?.pop().and_then(|commit| commit.parents.into_iter().next());
    }
    Ok(None)
}

/// The anchors of a ref, newest first; `None` where the ref does not exist.
fn read(repository: &Git, reference: &str) -> Result<Option<Vec<Anchor>>, AnchorError> {
    let Some(newest) = repository.ref_commit(reference)? else { return Ok(None) };
    let ids = match repository.first_parents(reference) {
        Err(e) => {
            let near = repository.last_first_parent(reference)?.unwrap_or(newest);
            return Err(lost(repository, near)?.map_or(AnchorError::Git(e), |commit| {
                let way =
                    format!("`git update-ref -d {reference}`, and `vnx audit-chain verify` says how it comes back");
                AnchorError::Bad(format!("{reference} leads to {commit}, which git has lost: {way}"))
            }));
        }
        Ok(ids) => ids,
    };
    let mut anchors: Vec<Anchor> = Vec::new();
    for commit in repository.raw_commits(&ids)? {
        let id = commit.id.clone();
        let bad = |what: &str| AnchorError::Bad(format!("anchor {} {what}", &id[..id.len().min(12)]));
        let anchor = parse(commit).ok_or_else(|| bad("holds something else than a checkpoint"))?;
        if let Some(younger) = anchors.last() {
            if younger.commit.parents.first() != Some(&id) {
                return Err(bad("is not the parent of the one after it"));
            }
            if younger.checkpoint.origin != anchor.checkpoint.origin {
                return Err(bad("is of another ledger than the one after it"));
            }
            if younger.checkpoint.size <= anchor.checkpoint.size {
                return Err(bad("covers as much as the one after it"));
            }
        }
        anchors.push(anchor);
    }
    // A shallow clone ends early; the last anchor covers everything all the same.
    Ok(Some(anchors))
}
