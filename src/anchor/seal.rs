//! `seal`: writes an anchor, from bytes that are read back from the disk, after the ledger was
//! proven consistent with every anchor before.

use serde::Serialize;

use super::{ANCHORS, Audit, CHECKPOINT, Options, RESUME, allowed_signers, audit, repository, witness};
use crate::domain::checkpoint::{Checkpoint, Resume};
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{AnchorWritten, Body, Entry};
use crate::domain::{Digest, Fault};
use crate::git::NewCommit;
use crate::ledger::verify::{self, Status};
use crate::project::Project;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// Format of this report.
    pub schema: &'static str,
    /// Receipts that the last anchor covers.
    pub size: u64,
    /// Their root.
    pub root: Digest,
    /// The anchor's commit.
    pub commit: String,
    /// It is signed.
    pub signed: bool,
    /// It was written now; otherwise nothing had happened since it was.
    pub new: bool,
}

/// Writes an anchor of the ledger as it is now. `Err` with the audit when the ledger does not
/// verify: then nothing is written.
pub fn seal(project: &Project) -> Result<Result<Sealed, Audit>, Fault> {
    let audit = audit(project, &Options { unsigned: true, ..Options::default() });
    if audit.report.status != Status::Verified {
        return Ok(Err(audit));
    }
    let (Some(tree), Some(ledger), Some(head)) = (&audit.report.tree, &audit.report.ledger, audit.report.head) else {
        return Err(Fault::internal("a verified ledger has a tree, an id and a head"));
    };
    let checkpoint = Checkpoint { origin: Checkpoint::origin_of(ledger), size: tree.end(), root: tree.root() };
    if let (0, Some(commit), Some(root)) =
        (audit.anchors.unanchored, &audit.anchors.commit, audit.report.roots.get(&audit.anchors.size))
        && (audit.anchors.signer.is_some() || allowed_signers(project).is_none())
    {
        let (size, signed) = (audit.anchors.size, audit.anchors.signer.is_some());
        return Ok(Ok(Sealed { schema: "vnx.seal/1", size, root: *root, commit: commit.clone(), signed, new: false }));
    }
    second_reading(project, &checkpoint)?;
    let place = &audit.report.position;
    let resume = Resume { segment: place.segment, offset: place.offset, head, nodes: tree.nodes() };
    let (commit, signed) = write(project, &checkpoint, &resume, tree, audit.anchors.commit.as_deref())?;
    let Checkpoint { size, root, .. } = checkpoint;
    let body = AnchorWritten { size, root, commit: commit.clone(), signed };
    project.ledger().append(&[Entry::ledger(Body::AnchorWritten(body))])?;
    witness::remember(&checkpoint)?;
    Ok(Ok(Sealed { schema: "vnx.seal/1", size, root, commit, signed, new: true }))
}

/// A bit that flips in memory between reading and hashing would make a checkpoint that never
/// fits again, so what is signed has been read and computed twice.
fn second_reading(project: &Project, checkpoint: &Checkpoint) -> Result<(), Fault> {
    let sizes = [checkpoint.size];
    let options = verify::Options { quick: true, roots: Some(&sizes), ..verify::Options::default() };
    let again = verify::verify(project.ledger().folder(), &options);
    if again.roots.get(&checkpoint.size) == Some(&checkpoint.root) {
        return Ok(());
    }
    Err(Fault::io("two readings of the ledger differ, so no anchor was written")
        .fix("check memory and disk, then run `vnx audit-chain verify`"))
}

fn write(
    project: &Project,
    checkpoint: &Checkpoint,
    resume: &Resume,
    tree: &CompactRange,
    parent: Option<&str>,
) -> Result<(String, bool), Fault> {
    let repository = repository(project);
    let text = checkpoint.to_text();
    let resume_text = serde_json::to_string(resume).map_err(|e| Fault::internal(e.to_string()))?;
    let config = repository.config()?;
    let signed = config.value("gpg.format") == Some("ssh") && config.value("user.signingkey").is_some();
    if !signed && allowed_signers(project).is_some() {
        return Err(Fault::refused(
            "anchors of this project are signed, and git is not configured to sign with an SSH key",
        )
        .fix("git config --global gpg.format ssh; git config --global user.signingkey <public key file>"));
    }
    let message = format!("anchor {} receipts\n\n{text}", checkpoint.size);
    let files = [(CHECKPOINT, text.as_bytes()), (RESUME, resume_text.as_bytes())];
    let commit = repository.write_commit(NewCommit { files: &files, parent, message: &message, signed })?;
    // What git now has must be what was meant.
    let back = repository.files_of(&[format!("{commit}:{CHECKPOINT}"), format!("{commit}:{RESUME}")])?;
    let same = back == [Some(text.into_bytes()), Some(resume_text.into_bytes())]
        && resume.tree(checkpoint).as_ref() == Some(tree);
    if !same {
        return Err(Fault::io("git did not keep the anchor as it was written").fix("run `git fsck`, then try again"));
    }
    let moved = repository.move_ref(ANCHORS, &commit, parent, &format!("vnx: {} receipts", checkpoint.size));
    moved.map_err(|e| {
        Fault::busy(format!("{ANCHORS} was moved meanwhile: {e}")).fix("run `vnx audit-chain seal` again")
    })?;
    Ok((commit, signed))
}
