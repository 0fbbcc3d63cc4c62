//! What a commit says of where it comes from: git trailers, so that every clone has them.

use crate::anchor::Sealed;
use crate::dispatch::gates::Looked;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::receipt::Kind;
use crate::domain::{Digest, DispatchId, Fault};
use crate::project::Project;

/// The trailers of a commit that vnx landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    /// `Vnx-Dispatch`.
    pub dispatch: DispatchId,
    /// `Vnx-Receipt`: the place and the hash of the receipt that closed the dispatch.
    pub receipt: (u64, Digest),
    /// `Vnx-Checkpoint`: the ledger as it was when the merge began.
    pub checkpoint: Checkpoint,
}

impl Trailers {
    pub(super) fn of(looked: &Looked, sealed: &Sealed, project: &Project) -> Result<Self, Fault> {
        let closed = looked.receipts.iter().find(|r| r.body.kind() == Kind::DispatchClosed);
        let closed = closed.ok_or_else(|| Fault::internal("a dispatch that may land is closed"))?;
        let origin = Checkpoint::origin_of(&project.ledger().created()?.ledger);
        let checkpoint = Checkpoint { origin, size: sealed.size, root: sealed.root };
        Ok(Self { dispatch: looked.situation.dispatch.clone(), receipt: (closed.seq, closed.hash), checkpoint })
    }

    /// As lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let Checkpoint { origin, size, root } = &self.checkpoint;
        vec![
            format!("Vnx-Dispatch: {}", self.dispatch),
            format!("Vnx-Receipt: {} {}", self.receipt.0, self.receipt.1),
            format!("Vnx-Checkpoint: {origin} {size} {root}"),
        ]
    }
}

/// The trailers in a commit's message: the last of each, which is the one that was added.
pub fn trailers_of(message: &str) -> Option<Trailers> {
    let value = |name: &str| {
        let mut lines = message.lines().rev();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    };
    let dispatch = DispatchId::parse(value("Vnx-Dispatch")?).ok()?;
    let (seq, hash) = value("Vnx-Receipt")?.split_once(' ')?;
    let receipt = (seq.parse().ok()?, Digest::from_hex(hash.as_bytes())?);
    let mut words = value("Vnx-Checkpoint")?.split(' ');
    let (origin, size, root) = (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?);
    let checkpoint = Checkpoint { origin, size, root: Digest::from_hex(root.as_bytes())? };
    words.next().is_none().then_some(Trailers { dispatch, receipt, checkpoint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let trailers = Trailers {
            dispatch: DispatchId::parse("20261121-010203-a-b").unwrap(),
            receipt: (41, Digest::of(b"x")),
            checkpoint: Checkpoint { origin: "vnx/0011".to_owned(), size: 42, root: Digest::of(b"y") },
        };
        let message = format!("Merge it\n\nText\n\n{}\n", trailers.lines().join("\n"));
        assert_eq!(trailers_of(&message), Some(trailers.clone()));
        assert_eq!(trailers_of(&message.replace("Vnx-Receipt: 41", "Vnx-Receipt: x")), None);
        assert_eq!(trailers_of("Vnx-Dispatch: a\n"), None);
        // What a worker wrote further up counts for nothing.
        let forged = format!("Vnx-Dispatch: other\n{message}");
        assert_eq!(trailers_of(&forged).unwrap().dispatch, trailers.dispatch);
    }
}
