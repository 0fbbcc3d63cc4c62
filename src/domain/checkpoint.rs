//! A checkpoint: the size and root of a ledger at one moment, as the text of C2SP
//! tlog-checkpoint (origin, size, base64 root, each on a line of its own).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::merkle::CompactRange;

/// What was true of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which ledger: `vnx/<ledger id>`.
    pub origin: String,
    /// How many receipts.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The origin of the ledger with this id.
    pub fn origin_of(ledger: &str) -> String {
        format!("vnx/{ledger}")
    }
    /// The text, three lines.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.bytes()))
    }
    /// Reads the text; lines after the third are refused, because nobody here writes them.
    pub fn parse(text: &str) -> Option<Self> {
        let [origin, size, root, ""] = text.split('\n').collect::<Vec<_>>()[..] else { return None };
        let root: [u8; 32] = STANDARD.decode(root).ok()?.try_into().ok()?;
        // One receipt at least, and few enough for every JSON reader.
        let plain =
            (1..=15).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_digit()) && !size.starts_with('0');
        let size = plain.then(|| size.parse().ok()).flatten()?;
        let known =
            origin.strip_prefix("vnx/").is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()));
        known.then(|| Self { origin: origin.to_owned(), size, root: Digest::from_bytes(root) })
    }
}

/// What it takes to go on from a checkpoint without reading what lies before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The segment in which the next receipt begins, from 1.
    pub segment: u32,
    /// The byte in it.
    pub offset: u64,
    /// The hash of the last receipt.
    pub head: Digest,
    /// The roots of the perfect subtrees, largest first; they fold to the root.
    pub nodes: Vec<Digest>,
}

impl Resume {
    /// The tree that `checkpoint` is about; `None` if the nodes do not lead to its root.
    pub fn tree(&self, checkpoint: &Checkpoint) -> Option<CompactRange> {
        CompactRange::from_nodes(checkpoint.size, &self.nodes).filter(|tree| tree.root() == checkpoint.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_one_of_the_specification_and_reads_back() {
        let checkpoint = Checkpoint { origin: "vnx/00ff".into(), size: 42, root: Digest::of(b"abc") };
        let text = checkpoint.to_text();
        assert_eq!(text, "vnx/00ff\n42\nungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=\n");
        assert_eq!(Checkpoint::parse(&text), Some(checkpoint));
        for bad in [
            "",
            "vnx/00ff\n42\n",
            &text[1..],
            &text.replace("42", "042"),
            &text.replace("42", "0"),
            &text.replace("42", "+42"),
            &format!("{text}x\n"),
        ] {
            assert_eq!(Checkpoint::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_a_ledger_of_vnx_is_an_origin() {
        assert_eq!(Checkpoint::origin_of("00ff"), "vnx/00ff");
        let root = Digest::of(b"abc");
        for bad in ["vnx/", "vnx/xyz", "00ff", "other/00ff"] {
            let text = Checkpoint { origin: bad.into(), size: 1, root }.to_text();
            assert_eq!(Checkpoint::parse(&text), None, "{bad}");
        }
    }

    #[test]
    fn nodes_that_lead_elsewhere_are_no_tree() {
        let mut tree = CompactRange::empty(0);
        (0..5_u8).for_each(|n| tree.push(Digest::leaf(&[n])));
        let checkpoint = Checkpoint { origin: "vnx/00ff".into(), size: 5, root: tree.root() };
        let resume = Resume { segment: 1, offset: 0, head: Digest::ZERO, nodes: tree.nodes() };
        assert_eq!(resume.tree(&checkpoint).map(|t| (t.end(), t.root())), Some((5, tree.root())));
        assert_eq!(resume.tree(&Checkpoint { root: Digest::of(b"other"), ..checkpoint.clone() }), None);
        assert_eq!(resume.tree(&Checkpoint { size: 4, ..checkpoint }), None);
    }
}
