//! The Merkle tree over receipts: RFC 6962 section 2.1, proofs as in RFC 9162 section 2.1.3.
//!
//! A leaf is a receipt's own hash, SHA-256(0x00 ‖ body); an inner node is
//! SHA-256(0x01 ‖ left ‖ right). Everything here is built on compact ranges: the roots of the
//! perfect subtrees that cover a run of leaves. Ranges that touch can be joined, so parts of a
//! ledger can be hashed apart, and a range from 0 is all that is needed to go on.

use std::collections::BTreeMap;
use std::ops::Range;

use super::digest::Digest;

/// The root of a perfect subtree: `2^level` leaves from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    start: u64,
    level: u32,
    hash: Digest,
}

/// A run of leaves, as the roots of the fewest perfect subtrees that cover it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRange {
    begin: u64,
    end: u64,
    nodes: Vec<Node>,
}

impl CompactRange {
    /// No leaves, at `begin`.
    pub fn empty(begin: u64) -> Self {
        Self { begin, end: begin, nodes: Vec::new() }
    }
    /// The tree of `size` leaves from its subtree roots, largest first; `None` if the count does
    /// not fit the size.
    pub fn from_nodes(size: u64, hashes: &[Digest]) -> Option<Self> {
        if size.count_ones() as usize != hashes.len() {
            return None;
        }
        let mut start = 0;
        let levels = (0..64).rev().filter(|level| size >> level & 1 == 1);
        let nodes = levels.zip(hashes).map(|(level, hash)| {
            let node = Node { start, level, hash: *hash };
            start += 1 << level;
            node
        });
        Some(Self { begin: 0, end: size, nodes: nodes.collect() })
    }
    /// The subtree roots, left to right.
    pub fn nodes(&self) -> Vec<Digest> {
        self.nodes.iter().map(|n| n.hash).collect()
    }
    /// The first leaf.
    pub fn begin(&self) -> u64 {
        self.begin
    }
    /// One past the last leaf; the size of the tree when it begins at 0.
    pub fn end(&self) -> u64 {
        self.end
    }
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: Digest) {
        self.push_seen(leaf, |_| {});
    }
    /// Adds the next leaf, and shows every perfect subtree that is complete with it.
    fn push_seen(&mut self, leaf: Digest, seen: impl FnMut(&Node)) {
        self.add(Node { start: self.end, level: 0, hash: leaf }, seen);
    }
    /// Adds the range that begins where this one ends; `false` (and nothing) if it does not.
    #[must_use]
    pub fn join(&mut self, right: &Self) -> bool {
        if right.begin != self.end {
            return false;
        }
        right.nodes.iter().for_each(|node| self.add(*node, |_| {}));
        true
    }
    fn add(&mut self, mut node: Node, mut seen: impl FnMut(&Node)) {
        self.end = node.start + (1 << node.level);
        seen(&node);
        // A left sibling stands at an even place of its level.
        while let Some(left) = self.nodes.pop_if(|l| l.level == node.level && (l.start >> l.level) & 1 == 0) {
            node = Node { start: left.start, level: node.level + 1, hash: Digest::node(&left.hash, &node.hash) };
            seen(&node);
        }
        self.nodes.push(node);
    }
    /// The root hash of the leaves as a tree of their own: MTH of RFC 6962. Right for any run
    /// that is a subtree of a larger tree, too.
    pub fn root(&self) -> Digest {
        let hashes = self.nodes.iter().rev().map(|n| n.hash);
        hashes.reduce(|right, left| Digest::node(&left, &right)).unwrap_or_else(|| Digest::of(b""))
    }
}

/// The subtrees whose roots prove that leaf `index` is in a tree of `size` leaves, from the leaf
/// upwards: PATH of RFC 9162 section 2.1.3.1. Empty if it is not in it.
pub fn inclusion_path(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while index < size && high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(middle..high);
            high = middle;
        } else {
            path.push(low..middle);
            low = middle;
        }
    }
    path.reverse();
    path
}

/// Inclusion proofs of many leaves, collected while all leaves of the tree go by once.
#[derive(Debug, Clone)]
pub struct Paths {
    size: u64,
    tree: CompactRange,
    /// The subtrees that the proofs are made of, each with its hash once that is known.
    subtrees: BTreeMap<(u64, u64), Option<Digest>>,
}

impl Paths {
    /// For the leaves `indices` of a tree of `size` leaves.
    pub fn new(indices: impl IntoIterator<Item = u64>, size: u64) -> Self {
        let sides = indices.into_iter().flat_map(|index| inclusion_path(index, size));
        let subtrees = sides.map(|side| ((side.start, side.end), None)).collect();
        Self { size, tree: CompactRange::empty(0), subtrees }
    }
    /// Takes the next leaf.
    pub fn push(&mut self, leaf: Digest) {
        let Self { size, tree, subtrees } = self;
        tree.push_seen(leaf, |node| {
            if let Some(hash) = subtrees.get_mut(&(node.start, node.start + (1 << node.level))) {
                *hash = Some(node.hash);
            }
        });
        // What is left is not perfect: it ends where the tree ends.
        if tree.end == *size {
            for ((start, _), hash) in subtrees.iter_mut().filter(|(_, hash)| hash.is_none()) {
                let right = tree.nodes.iter().filter(|node| node.start >= *start).copied().collect();
                *hash = Some(CompactRange { begin: *start, end: *size, nodes: right }.root());
            }
        }
    }
    /// The root, once all leaves were taken.
    pub fn root(&self) -> Option<Digest> {
        (self.tree.end == self.size).then(|| self.tree.root())
    }
    /// The proof of a leaf that was asked for, once all leaves were taken.
    pub fn path(&self, index: u64) -> Option<Vec<Digest>> {
        let hash = |side: Range<u64>| self.subtrees.get(&(side.start, side.end)).copied().flatten();
        inclusion_path(index, self.size).into_iter().map(hash).collect()
    }
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The root that an inclusion proof leads to: RFC 9162 section 2.1.3.2. `None` if the proof has
/// the wrong length for the place and the size.
pub fn root_of_proof(index: u64, size: u64, leaf: Digest, proof: &[Digest]) -> Option<Digest> {
    let path = inclusion_path(index, size);
    if index >= size || path.len() != proof.len() {
        return None;
    }
    let step = |hash: Digest, (side, sibling): (&Range<u64>, &Digest)| {
        if side.start > index { Digest::node(&hash, sibling) } else { Digest::node(sibling, &hash) }
    };
    Some(path.iter().zip(proof).fold(leaf, step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MTH as RFC 6962 writes it down.
    fn definition(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [one] => *one,
            more => {
                let (left, right) = more.split_at(usize::try_from(split(more.len() as u64)).unwrap());
                Digest::node(&definition(left), &definition(right))
            }
        }
    }

    fn leaves(n: u64) -> Vec<Digest> {
        (0..n).map(|i| Digest::leaf(&i.to_be_bytes())).collect()
    }

    fn range(leaves: &[Digest], of: Range<u64>) -> CompactRange {
        let mut range = CompactRange::empty(of.start);
        of.for_each(|i| range.push(leaves[usize::try_from(i).unwrap()]));
        range
    }

    #[test]
    fn it_agrees_with_the_published_vectors() {
        // The eight leaves and roots that certificate-transparency implementations share.
        let inputs: [&[u8]; 8] = [
            b"",
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let mut tree = CompactRange::empty(0);
        assert_eq!(tree.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (input, root) in inputs.iter().zip(roots) {
            tree.push(Digest::leaf(input));
            assert_eq!(tree.root().to_string(), root, "{} leaves", tree.end());
        }
    }

    proptest! {
        #[test]
        fn parts_hashed_apart_make_the_same_tree(n in 0u64..200, cuts in proptest::collection::vec(0u64..200, 0..6)) {
            let leaves = leaves(n);
            let mut cuts: Vec<u64> = cuts.into_iter().map(|c| c.min(n)).chain([0, n]).collect();
            cuts.sort_unstable();
            let mut whole = CompactRange::empty(0);
            for pair in cuts.windows(2) {
                prop_assert!(whole.join(&range(&leaves, pair[0]..pair[1])));
            }
            prop_assert_eq!(whole.root(), definition(&leaves));
            prop_assert!(!whole.join(&CompactRange::empty(n + 1)));
            prop_assert_eq!(CompactRange::from_nodes(n, &whole.nodes()), Some(whole));
        }

        #[test]
        fn proofs_collected_together_are_those_of_each(size in 1u64..200, wanted in proptest::collection::btree_set(0u64..200, 0..20)) {
            let leaves = leaves(size);
            let mut paths = Paths::new(wanted.iter().copied(), size);
            for leaf in &leaves {
                prop_assert_eq!(paths.root(), None);
                paths.push(*leaf);
            }
            prop_assert_eq!(paths.root(), Some(definition(&leaves)));
            for index in wanted.into_iter().filter(|i| *i < size) {
                let alone: Vec<Digest> =
                    inclusion_path(index, size).into_iter().map(|r| range(&leaves, r).root()).collect();
                prop_assert_eq!(paths.path(index), Some(alone));
            }
        }

        #[test]
        fn a_proof_leads_to_the_root_and_to_no_other(index in 0u64..150, more in 1u64..150, wrong: usize) {
            let leaves = leaves(index + more);
            let size = index + more;
            let proof: Vec<Digest> =
                inclusion_path(index, size).into_iter().map(|r| range(&leaves, r).root()).collect();
            let root = definition(&leaves);
            let leaf = leaves[usize::try_from(index).unwrap()];
            prop_assert_eq!(root_of_proof(index, size, leaf, &proof), Some(root));
            prop_assert_ne!(root_of_proof(index, size, Digest::ZERO, &proof), Some(root));
            if !proof.is_empty() {
                let mut forged = proof.clone();
                forged[wrong % proof.len()] = Digest::ZERO;
                prop_assert_ne!(root_of_proof(index, size, leaf, &forged), Some(root));
                prop_assert_eq!(root_of_proof(index, size, leaf, &proof[1..]), None);
            }
            prop_assert_eq!(root_of_proof(size, size, leaf, &proof), None);
        }
    }

    #[test]
    fn a_range_knows_where_it_is_and_a_leaf_beyond_it_has_no_proof() {
        let mut range = CompactRange::empty(4);
        assert_eq!((range.begin(), range.end()), (4, 4));
        (4..7_u8).for_each(|n| range.push(Digest::leaf(&[n])));
        assert_eq!((range.begin(), range.end(), range.nodes().len()), (4, 7, 2));
        assert_eq!(inclusion_path(2, 5), [3..4, 0..2, 4..5]);
        assert_eq!(inclusion_path(4, 5), std::slice::from_ref(&(0..4)));
        assert!(inclusion_path(5, 5).is_empty() && inclusion_path(0, 1).is_empty() && inclusion_path(9, 5).is_empty());
    }
}
