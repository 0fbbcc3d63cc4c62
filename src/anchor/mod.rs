//! What a ledger is held against: checkpoints of it that stand in places with other owners.
//!
//! An anchor is a commit on `refs/vnx/anchors`: its tree holds a checkpoint (size and root), its
//! parent is the anchor before, and git signs it where an SSH key is configured. The ref is
//! pushed with plain `git push`. A witness file outside of the repository remembers the last
//! one. A chain alone cannot show that its end is missing or that all of it was rewritten; an
//! anchor can.

mod audit;
mod prove;
mod seal;
mod witness;

pub use audit::{Anchored, Audit, Options, audit, audit_file};
pub use prove::{Proof, prove};
pub use seal::{Sealed, seal};

use crate::domain::Fault;
use crate::domain::checkpoint::{Checkpoint, Resume};
use crate::git::{Git, GitError};
use crate::project::Project;

/// Where this clone keeps its anchors.
pub const ANCHORS: &str = "refs/vnx/anchors";
/// The file with the checkpoint in an anchor's tree, and the one that helps to go on from it.
const CHECKPOINT: &str = "checkpoint";
const RESUME: &str = "resume.json";

/// One anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The commit that holds it.
    pub commit: String,
    /// What it says.
    pub checkpoint: Checkpoint,
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

/// The anchors of a ref, newest first; none where the ref does not exist.
fn read(repository: &Git, reference: &str) -> Result<Vec<Anchor>, AnchorError> {
    if repository.ref_commit(reference)?.is_none() {
        return Ok(Vec::new());
    }
    let commits = repository.first_parents(reference)?;
    let names: Vec<String> = commits.iter().map(|c| format!("{c}:{CHECKPOINT}")).collect();
    let mut anchors: Vec<Anchor> = Vec::new();
    for (commit, text) in commits.into_iter().zip(repository.files_of(&names)?) {
        let bad = |what: &str| AnchorError::Bad(format!("anchor {} {what}", &commit[..commit.len().min(12)]));
        let text = text.and_then(|t| String::from_utf8(t).ok()).ok_or_else(|| bad("holds no checkpoint"))?;
        let checkpoint = Checkpoint::parse(&text).ok_or_else(|| bad("holds something else than a checkpoint"))?;
        if let Some(younger) = anchors.last().map(|a| &a.checkpoint) {
            if younger.origin != checkpoint.origin {
                return Err(bad("is of another ledger than the one after it"));
            }
            if younger.size <= checkpoint.size {
                return Err(bad("covers as much as the one after it"));
            }
        }
        anchors.push(Anchor { commit, checkpoint });
    }
    Ok(anchors)
}

/// How to go on from an anchor; what it holds must lead to the anchor's own root.
fn resume(repository: &Git, anchor: &Anchor) -> Result<Option<Resume>, GitError> {
    let file = repository.files_of(&[format!("{}:{RESUME}", anchor.commit)])?.pop().flatten();
    Ok(file.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Who is trusted to sign; `None` where the project names nobody.
fn allowed_signers(project: &Project) -> Option<std::path::PathBuf> {
    let path = project.folder().join("allowed_signers");
    let text = crate::sys::files::read_capped(&path, 1 << 20).ok()??;
    let names_somebody = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    String::from_utf8_lossy(&text).lines().any(names_somebody).then_some(path)
}
