//! `prove`: shows that one receipt is in the ledger, to somebody who has only a checkpoint.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ANCHORS, CHECKPOINT, read, repository};
use crate::domain::checkpoint::Checkpoint;
use crate::domain::merkle::{Paths, root_of_proof};
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
    let mut receipt = None;
    let proven = Proven::of(project, &[seq], |_, line| receipt = Some(String::from_utf8_lossy(line).into_owned()))?;
    let receipt = receipt.ok_or_else(|| Fault::internal(format!("receipt {seq} was not read")))?;
    let (_, path) = proven.path(seq)?;
    let checkpoint = proven.checkpoint.to_text();
    Ok(Proof { schema: "vnx.proof/1", receipt, seq, checkpoint, path, anchor: proven.anchor })
}

/// How many receipts the last anchor covers.
pub fn covered(project: &Project) -> Result<u64, Fault> {
    let anchors = read(&repository(project), ANCHORS)?.unwrap_or_default();
    Ok(anchors.first().map_or(0, |a| a.checkpoint.size))
}

/// A checkpoint, and the paths of some receipts to it.
pub(super) struct Proven {
    pub(super) checkpoint: Checkpoint,
    paths: Paths,
    leaves: BTreeMap<u64, Digest>,
    /// The commit that holds the checkpoint.
    pub(super) anchor: Option<String>,
}

impl Proven {
    /// Reads the ledger once and shows `wanted` the lines of these receipts, which are ascending.
    pub(super) fn of(project: &Project, seqs: &[u64], mut wanted: impl FnMut(u64, &[u8])) -> Result<Self, Fault> {
        let ledger = project.ledger();
        let last = seqs.last().copied().unwrap_or_default();
        let anchors = read(&repository(project), ANCHORS)?.unwrap_or_default();
        let anchor = anchors.into_iter().next().filter(|a| a.checkpoint.size > last);
        let size = match &anchor {
            Some(anchor) => anchor.checkpoint.size,
            None => ledger.head()?.seq + 1,
        };
        if last >= size {
            return Err(Fault::input(format!("there is no receipt {last}; the last one is {}", size - 1))
                .fix("`vnx receipts list --all` shows what there is"));
        }
        let mut paths = Paths::new(seqs.iter().copied(), size);
        let (mut reader, mut leaves) = (ledger.all()?, BTreeMap::new());
        for at in 0..size {
            let broken =
                |why: &str| Fault::environment(format!("receipt {at} {why}")).fix("run `vnx audit-chain verify`");
            let (_, line) = reader.next_line()?.ok_or_else(|| broken("is missing"))?;
            let links = format::links(&line).map_err(|why| broken(&why))?;
            let leaf = links.sound_hash().map_err(|_| broken("has the wrong hash"))?;
            paths.push(leaf);
            if seqs.binary_search(&at).is_ok() {
                leaves.insert(at, leaf);
                wanted(at, &line);
            }
        }
        let root = paths.root().ok_or_else(|| Fault::internal("the proof does not fit"))?;
        let origin = Checkpoint::origin_of(&ledger.created()?.ledger);
        let checkpoint = Checkpoint { origin, size, root };
        if anchor.as_ref().is_some_and(|a| a.checkpoint != checkpoint) {
            return Err(Fault::refused("the ledger is not what was anchored, so nothing is proven from it")
                .fix(format!("run `vnx audit-chain verify`; the {CHECKPOINT} is in {ANCHORS}")));
        }
        Ok(Self { checkpoint, paths, leaves, anchor: anchor.map(|a| a.commit.id) })
    }

    /// The hash of a receipt that was asked for, and the path from it to the checkpoint.
    pub(super) fn path(&self, seq: u64) -> Result<(Digest, Vec<Digest>), Fault> {
        let found = self.leaves.get(&seq).copied().zip(self.paths.path(seq));
        let Checkpoint { size, root, .. } = self.checkpoint;
        found
            .filter(|(leaf, path)| root_of_proof(seq, size, *leaf, path) == Some(root))
            .ok_or_else(|| Fault::internal(format!("the proof of receipt {seq} does not fit")))
    }
}
