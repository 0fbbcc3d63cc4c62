//! One run of a gate: everything that its runner needs, as a file in its folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::gate::{Binding, Gate, Phase};
use crate::domain::span::Span;
use crate::domain::{DispatchId, Fault};
use crate::sys::files;

/// What a runner is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    /// Format version, 1.
    pub(super) v: u32,
    /// The dispatch.
    pub(super) dispatch: DispatchId,
    /// What the result will be about.
    pub(super) binding: Binding,
    /// When it runs.
    pub(super) phase: Phase,
    /// What it says.
    pub(super) gate: Gate,
    /// What it is as an open item when it does not pass; absent where it holds nothing.
    pub(super) claim: Option<String>,
    /// Where branch and target parted.
    pub(super) fork: String,
    /// The repository's common git folder.
    pub(super) common_dir: String,
    /// The main checkout.
    pub(super) main: String,
    /// The folder of the worktrees.
    pub(super) root: String,
    /// Names of variables that pass from the caller's environment.
    pub(super) env_pass: Vec<String>,
    /// Variables that are set.
    pub(super) env_set: BTreeMap<String, String>,
    /// Variables whose values are secrets although their names do not say so.
    pub(super) secret_names: Vec<String>,
    /// Between SIGTERM and SIGKILL.
    pub(super) grace: Span,
}

const FILE: &str = "job.json";

impl Job {
    pub(super) fn write(&self, folder: &Path) -> Result<(), Fault> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Fault::internal(format!("a gate's job: {e}")))?;
        Ok(files::replace(&folder.join(FILE), &json)?)
    }

    pub(super) fn read(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join(FILE);
        let missing = || Fault::io(format!("{} is missing", path.display()));
        let bytes = files::read_capped(&path, 16 << 20)?.ok_or_else(missing)?;
        serde_json::from_slice(&bytes).map_err(|e| Fault::io(format!("{} cannot be read: {e}", path.display())))
    }

    /// What only the processes of this run have in their environment.
    pub(super) fn marker(nonce: &str) -> String {
        format!("VNX_GATE_RUN={nonce}")
    }
}
