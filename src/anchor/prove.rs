//! `prove`: shows that one receipt is in the ledger, to somebody who has only a checkpoint.

use serde::Serialize;

use super::{ANCHORS, CHECKPOINT, read, repository};
use crate::domain::checkpoint::Checkpoint;
use crate::domain::merkle::{CompactRange, inclusion_path, root_of_proof};
use crate::domain::{Digest, Fault};
use crate::ledger::format;
use crate::project::Project;

/// An inclusion proof (RFC 9162 section 2.1.3) with all that it takes to check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Format of this proof.
    pub schema: &'static str,
    /// The receipt, exactly as it stands in the ledger.
    pub receipt: String,
    /// Its place.
    pub seq: u64,
    /// The checkpoint's text.
    pub checkpoint: String,
    /// The hashes from the leaf upwards.
    pub path: Vec<Digest>,
    /// The commit that holds the checkpoint; without one it is only this ledger's word.
    pub anchor: Option<String>,
}

/// Proves receipt `seq` against the last anchor, or against the ledger as it is where the
/// receipt is younger than any anchor.
pub fn prove(project: &Project, seq: u64) -> Result<Proof, Fault> {
    let ledger = project.ledger();
    let anchors = read(&repository(project), ANCHORS)?.unwrap_or_default();
    let anchor = anchors.into_iter().next().filter(|a| a.checkpoint.size > seq);
    let size = match &anchor {
        Some(anchor) => anchor.checkpoint.size,
        None => ledger.head()?.seq + 1,
    };
    if seq >= size {
        return Err(Fault::input(format!("there is no receipt {seq}; the last one is {}", size - 1))
            .fix("`vnx receipts list --all` shows what there is"));
    }
    let sides = inclusion_path(seq, size);
    let mut ranges: Vec<CompactRange> = sides.iter().map(|side| CompactRange::empty(side.start)).collect();
    let mut wanted = None;
    let mut reader = ledger.all()?;
    for at in 0..size {
        let broken = |why: &str| Fault::environment(format!("receipt {at} {why}")).fix("run `vnx audit-chain verify`");
        let (_, line) = reader.next_line()?.ok_or_else(|| broken("is missing"))?;
        let links = format::links(&line).map_err(|why| broken(&why))?;
        let hash = links.sound_hash().map_err(|_| broken("has the wrong hash"))?;
        if at == seq {
            wanted = Some((hash, String::from_utf8_lossy(&line).into_owned()));
        } else if let Some(side) = sides.iter().position(|side| side.contains(&at)) {
            ranges[side].push(hash);
        }
    }
    let (leaf, receipt) = wanted.ok_or_else(|| Fault::internal("the receipt was not read"))?;
    let path: Vec<Digest> = ranges.iter().map(CompactRange::root).collect();
    let root = root_of_proof(seq, size, leaf, &path).ok_or_else(|| Fault::internal("the proof does not fit"))?;
    let origin = Checkpoint::origin_of(&ledger.created()?.ledger);
    let checkpoint = Checkpoint { origin, size, root };
    if anchor.as_ref().is_some_and(|a| a.checkpoint != checkpoint) {
        return Err(Fault::refused("the ledger is not what was anchored, so nothing is proven from it")
            .fix(format!("run `vnx audit-chain verify`; the {CHECKPOINT} is in {ANCHORS}")));
    }
    Ok(Proof {
        schema: "vnx.proof/1",
        receipt,
        seq,
        checkpoint: checkpoint.to_text(),
        path,
        anchor: anchor.map(|a| a.commit.id),
    })
}
