//! `seal`: writes an anchor, from bytes that are read back from the disk, after the ledger was
//! proven consistent with every anchor before.

use std::time::Duration;

use serde::Serialize;

use super::audit::Loss;
use super::signature::Signers;
use super::{ANCHORS, Anchor, Audit, CHECKPOINT, Options, audit, message, parse, read, repository, witness};
use crate::domain::checkpoint::{Checkpoint, Resume};
use crate::domain::gate::check::short;
use crate::domain::receipt::{Actor, AnchorWritten, Attestation, Body, Entry, LedgerLost};
use crate::domain::{Digest, Fault};
use crate::git::{self, NewCommit};
use crate::ledger::LedgerError;
use crate::ledger::verify::{self, Status};
use crate::project::Project;
use crate::sys::lock;

/// Where anchors are kept that a person has given up.
const LOST: &str = "refs/vnx/lost-anchors";

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
    /// The witness remembers it too; `false` for a user without a home to write to.
    pub witnessed: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwitnessed: Option<String>,
}

/// Writes an anchor of the ledger as it is now. `Err` with the audit when the ledger does not
/// verify: then nothing is written.
pub fn seal(project: &Project) -> Result<Result<Sealed, Audit>, Fault> {
    seal_by(project, &Options { unsigned: true, ..Options::default() })
}

/// [`seal`], also where the last anchor is gone from git for good and the witness remembers what it said: the
/// receipts that it covered are held against that.
pub fn seal_lost(project: &Project) -> Result<Result<Sealed, Audit>, Fault> {
    seal_by(project, &Options { unsigned: true, lost: true, ..Options::default() })
}

/// Accepts that the ledger is what it is now, and not what was written: a receipt says what is gone and who accepts it, and
/// an anchor covers the rest. Anchors of more than that are put aside. Where nothing is gone, nothing is written, and
/// `Err` has the audit.
///
/// `decide` has the person decide, once it is known that there is something to decide about.
pub fn accept(
    project: &Project,
    by: Actor,
    reason: String,
    decide: impl FnOnce(&str) -> Result<Attestation, Fault>,
) -> Result<Result<Sealed, Audit>, Fault> {
    if reason.trim().is_empty() {
        return Err(
            Fault::input("--reason says nothing").fix("say why they are gone, so that a reader understands it later")
        );
    }
    let audit = audit(project, &Options { unsigned: true, ..Options::default() });
    let Some(Loss { known, holds }) = &audit.loss else { return Ok(Err(audit)) };
    let why = audit.report.first_bad.as_ref().map_or("it is not what was written", |fault| fault.reason.as_str());
    let attestation = decide(&format!("accept this ledger of {} receipts: {why}", audit.report.receipts))?;
    put_aside(project, audit.anchors.commit.as_deref(), holds.as_ref())?;
    witness::forget(&project.located.common_dir, audit.report.ledger.as_deref())?;
    let lost =
        LedgerLost { size: audit.report.receipts, known: *known, dispatches: audit.missing, by, reason, attestation };
    project.ledger().append_loss(project.id(), lost)?;
    seal(project)
}

/// Goes back to an anchor that is still true; the later ones stay in a ref of their own.
fn put_aside(project: &Project, newest: Option<&str>, holds: Option<&Anchor>) -> Result<(), Fault> {
    let holds = holds.map(|anchor| anchor.commit.id.as_str());
    let Some(newest) = newest.filter(|newest| holds != Some(newest)) else { return Ok(()) };
    let repository = repository(project);
    repository.set_ref(&format!("{LOST}/{}", short(newest)), newest, "vnx: given up")?;
    match holds {
        Some(holds) => repository.move_ref(ANCHORS, holds, Some(newest), "vnx: given up")?,
        None => repository.delete_ref(ANCHORS, newest)?,
    }
    Ok(())
}

fn seal_by(project: &Project, options: &Options<'_>) -> Result<Result<Sealed, Audit>, Fault> {
    // One at a time: the second one finds that nothing is left to do.
    let _one = lock::exclusive(&project.paths.locks().join("seal.lock"), Duration::from_mins(1))?;
    // What is to be mended comes before the anchor, and not with the receipt that tells of it. What
    // cannot be mended is the audit's to say.
    match project.ledger().settle() {
        Ok(()) | Err(LedgerError::BrokenHead { .. } | LedgerError::Differs(_) | LedgerError::Missing(_)) => {}
        Err(other) => return Err(other.into()),
    }
    // What they are before every byte of them is read.
    let files = project.ledger().packed_files().ok().flatten();
    let audit = audit(project, options);
    if audit.report.status != Status::Verified {
        return Ok(Err(audit));
    }
    let (Some(tree), Some(ledger), Some(head)) = (&audit.report.tree, &audit.report.ledger, audit.report.head) else {
        return Err(Fault::internal("a verified ledger has a tree, an id and a head"));
    };
    let signers = Signers::of(project, None).map_err(|why| Fault::environment(why).fix("mend .vnx/allowed_signers"))?;
    let newest = read(&repository(project), ANCHORS)?.unwrap_or_default().into_iter().next();
    let newest_is_good = signers.is_none() || audit.anchors.signer.is_some();
    let (anchor, new) = match newest {
        Some(newest) if audit.anchors.unanchored == 0 && newest_is_good => (newest, false),
        newest => {
            let size = tree.end();
            let checkpoint = Checkpoint { origin: Checkpoint::origin_of(ledger), size, root: tree.root() };
            second_reading(project, &checkpoint)?;
            // What it covers is on the disk before it is.
            project.ledger().sync()?;
            let place = &audit.report.position;
            let resume = Resume { segment: place.segment, offset: place.offset, head, nodes: tree.nodes() };
            let parent = newest.map(|a| a.commit.id);
            (write(project, &checkpoint, &resume, signers.as_ref(), parent.as_deref())?, true)
        }
    };
    let Checkpoint { size, root, .. } = anchor.checkpoint;
    let (commit, signed) = (anchor.commit.id.clone(), anchor.commit.signature.is_some());
    // Also where an earlier seal was cut off before it could tell.
    if audit.report.last_anchor.is_none_or(|(_, told)| told.commit != commit) {
        let body = AnchorWritten { size, root, commit: commit.clone(), signed };
        project.ledger().append(&[Entry::ledger(Body::AnchorWritten(body))])?;
    }
    let unwitnessed = witness::remember(&project.located.common_dir, &anchor.checkpoint)?;
    let witnessed = unwitnessed.is_none();
    if let Some(files) = files.filter(|_| witnessed) {
        witness::remember_files(&project.located.common_dir, &anchor.checkpoint, files)?;
    }
    Ok(Ok(Sealed { schema: "vnx.seal/1", size, root, commit, signed, new, witnessed, unwitnessed }))
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
    signers: Option<&Signers>,
    parent: Option<&str>,
) -> Result<Anchor, Fault> {
    let repository = repository(project);
    let config = repository.config()?;
    // Signed where the project names who may: a signature of somebody whom nobody names says nothing.
    let signed = signers.is_some();
    let can_sign = config.value("gpg.format") == Some("ssh") && config.value("user.signingkey").is_some();
    if signed && !can_sign {
        return Err(Fault::refused(
            "anchors of this project are signed, and git is not configured to sign with an SSH key",
        )
        .fix("git config --global gpg.format ssh; git config --global user.signingkey <public key file>"));
    }
    let collected = git::anyone_collects();
    let message = message(checkpoint, resume)?;
    let text = checkpoint.to_text();
    let files = [(CHECKPOINT, text.as_bytes())];
    let commit = repository.write_commit(NewCommit { files: &files, parent, message: &message, signed })?;
    // What git now has must be what was meant, and signed by somebody who is trusted.
    let back = repository.raw_commits(std::slice::from_ref(&commit))?.pop().and_then(parse);
    let anchor = back.filter(|a| &a.checkpoint == checkpoint && &a.resume == resume);
    let anchor = anchor.ok_or_else(|| {
        Fault::io("git did not keep the anchor as it was written").fix("run `git fsck`, then try again")
    })?;
    if let Some(signers) = signers
        && signers.of_commit(&anchor.commit).map_err(Fault::environment)?.is_none()
    {
        return Err(Fault::refused(format!("the key that git signs with is not in {}", signers.path().display()))
            .fix("add `<name> <public key>` to it, or set user.signingkey to a key that is"));
    }
    let moved = repository.move_ref(ANCHORS, &commit, parent, &format!("vnx: {} receipts", checkpoint.size));
    moved.map_err(|e| {
        let fix = e.about_lock().unwrap_or_else(|| "run `vnx audit-chain seal` again".to_owned());
        Fault::busy(format!("{ANCHORS} was moved meanwhile: {e}")).fix(fix)
    })?;
    let secured = repository.secure(&[&commit], &parent.into_iter().collect::<Vec<_>>(), collected);
    let Err(e) = secured else { return Ok(anchor) };
    if repository.resolve(&commit)?.is_some() {
        return Err(e.into());
    }
    // Nobody has been told of it yet.
    match parent {
        Some(parent) => repository.move_ref(ANCHORS, parent, Some(&commit), "vnx: taken back")?,
        None => repository.delete_ref(ANCHORS, &commit)?,
    }
    Err(Fault::busy("somebody collects garbage, and the new anchor went with it")
        .fix("run `vnx audit-chain seal` when it is over"))
}
