//! Keeping a tree that its class would let go.

use super::{Done, Tree};

/// Leaves everything as it is and says why: nothing is removed, so there is nothing to rescue.
pub fn keep(tree: &Tree<'_>, why: String) -> Done {
    // Without the lock the tree is still kept: nothing of ours removes it.
    let _ = tree.repository().worktree_lock(tree.path, &format!("{}: kept, {why}", tree.lock_reason()));
    Done { kept_because: Some(why), ..Done::default() }
}
