//! Where state lives: `<git common dir>/vnx/`, shared by every worktree of the repository,
//! invisible to `git status` and out of reach of `git clean -fdx`.

use std::path::{Path, PathBuf};

use super::Located;
use crate::domain::line::quoted;
use crate::domain::{DispatchId, Fault};
use crate::ledger::{self, Ledger};

/// The folder of the state in a repository's common git folder.
pub const STATE: &str = "vnx";

/// The state folder and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
}

impl Paths {
    /// The state folder of a repository; `VNX_STATE_DIR` overrides it. Refuses a relative one: every process of a
    /// dispatch runs in another folder.
    pub fn of(located: &Located) -> Result<Self, Fault> {
        let state = match std::env::var_os("VNX_STATE_DIR").filter(|v| !v.is_empty()).map(PathBuf::from) {
            Some(state) if state.is_relative() => {
                let here = std::env::current_dir().unwrap_or_default().join(&state);
                return Err(Fault::input(format!("VNX_STATE_DIR {} is not an absolute path", state.display()))
                    .fix(format!("for example VNX_STATE_DIR={}", quoted(&here.display().to_string()))));
            }
            Some(state) => state,
            None => located.common_dir.join(STATE),
        };
        // The index of the ledger is opened through no link.
        Ok(Self { state: state.canonicalize().unwrap_or(state) })
    }
    /// The state folder at a known place (a supervisor is told by its parent).
    pub fn at(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into() }
    }
    /// The state folder itself.
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// The ledger's folder.
    pub fn receipts(&self) -> PathBuf {
        self.state.join("receipts")
    }
    /// The ledger.
    pub fn ledger(&self) -> Ledger {
        Ledger::at(self.receipts()).witnessed(ledger::witness_folder().as_deref())
    }
    /// The folder of all dispatches.
    pub fn dispatches(&self) -> PathBuf {
        self.state.join("dispatches")
    }
    /// One dispatch's folder.
    pub fn dispatch(&self, id: &DispatchId) -> PathBuf {
        self.dispatches().join(id.as_str())
    }
    /// One empty file for each dispatch that is not closed, so that the recovery scan costs
    /// what is open and not what ever was.
    pub fn open(&self) -> PathBuf {
        self.state.join("open")
    }
    /// The marker of one dispatch.
    pub fn open_marker(&self, id: &DispatchId) -> PathBuf {
        self.open().join(id.as_str())
    }
    /// One file for each run of a gate that is not over, with the id of its dispatch.
    pub fn open_gates(&self) -> PathBuf {
        self.state.join("open-gates")
    }
    /// Held while something is merged.
    pub fn merge_lock(&self) -> PathBuf {
        self.locks().join("merge.lock")
    }
    /// What a merge is in the middle of.
    pub fn merging(&self) -> PathBuf {
        self.state.join("merging.json")
    }
    /// What of the repository's own was accepted here.
    pub fn trust(&self) -> PathBuf {
        self.state.join("trust.json")
    }
    /// Proposed dispatches.
    pub fn staged(&self) -> PathBuf {
        self.state.join("staged")
    }
    /// What persons signed, with their signatures.
    pub fn signatures(&self) -> PathBuf {
        self.state.join("signatures")
    }
    /// What worktrees share, by configuration: nothing of vnx deletes it.
    pub fn caches(&self) -> PathBuf {
        self.state.join("caches")
    }
    /// The records of worktrees that persons made.
    pub fn trees(&self) -> PathBuf {
        self.state.join("trees")
    }
    /// One record for each folder beside the worktrees that vnx may delete, by device and inode.
    pub fn folders_of_ours(&self) -> PathBuf {
        self.state.join("folders")
    }
    /// Locks.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }
    /// Serialises the registration of worktrees.
    pub fn repo_lock(&self) -> PathBuf {
        self.locks().join("repo.lock")
    }
    /// Serialises claims, so that the limit on parallel dispatches holds.
    pub fn claim_lock(&self) -> PathBuf {
        self.locks().join("claim.lock")
    }
    /// Held while removed worktrees are being deleted.
    pub fn trash_lock(&self) -> PathBuf {
        self.locks().join("trash.lock")
    }
    /// Held while worktrees are made ahead.
    pub fn pool_lock(&self) -> PathBuf {
        self.locks().join("pool.lock")
    }
    /// Serializes the giving of new panes.
    pub fn panes_lock(&self) -> PathBuf {
        self.locks().join("panes.lock")
    }
    /// The projections of the ledger.
    pub fn state_db(&self) -> PathBuf {
        self.state.join("state.db")
    }
    /// Serialises whoever brings the projections up to date.
    pub fn state_lock(&self) -> PathBuf {
        self.locks().join("state.lock")
    }
    /// Every folder that must exist.
    pub fn folders(&self) -> [PathBuf; 5] {
        [self.state.clone(), self.receipts(), self.dispatches(), self.open(), self.locks()]
    }
}
