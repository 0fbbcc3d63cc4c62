//! `worktree.budget`: how much the worktrees of a project may take together.
//!
//! Looking through a tree costs some 2 µs a file, so what was found is remembered for a while: longer
//! for trees in which nobody works.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::span::Size;
use crate::domain::{Fault, Timestamp};
use crate::project::Project;
use crate::sys::{self, files};
use crate::worktree::POOL;

/// How long a size is believed, in seconds: of a tree whose dispatch runs, and of another.
const RUNNING: i64 = 5;
const AT_REST: i64 = 600;

/// What was found of one tree.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Found {
    bytes: u64,
    at: Timestamp,
    /// Somebody worked in it.
    running: bool,
}

/// What the worktrees take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// All together, in bytes.
    pub bytes: u64,
    /// How many there are.
    pub trees: usize,
    /// The largest and its bytes.
    pub largest: Option<(String, u64)>,
}

/// Measures them; refuses where they have used up what they may take. `None` where there is no limit.
pub fn within_budget(project: &Project) -> Result<Option<Used>, Fault> {
    let Some(budget) = project.config.worktree.budget else { return Ok(None) };
    let used = measure(project, sys::now())?;
    if used.bytes < budget.0 {
        return Ok(Some(used));
    }
    let largest = used.largest.map(|(name, bytes)| format!("; the largest is {name} with {} MiB", bytes >> 20));
    Err(Fault::refused(format!(
        "the {} worktrees in {} take {} MiB, and worktree.budget is {budget}{}",
        used.trees,
        project.worktrees().display(),
        used.bytes >> 20,
        largest.unwrap_or_default()
    ))
    .fix("see `vnx worktree list`; wait for running ones, commit what kept ones hold and remove them, or raise worktree.budget"))
}

fn measure(project: &Project, now: Timestamp) -> Result<Used, Fault> {
    let (root, note) = (project.worktrees(), project.paths.state().join("sizes.json"));
    let known = files::read_capped(&note, 4 << 20).ok().flatten();
    let known: BTreeMap<String, Found> = known.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    let open = files::names(&project.paths.open())?;
    // What waits for its deletion is as good as gone.
    let counts = |name: &String| !name.starts_with('.') || name == POOL;
    let names: Vec<String> = files::names(&root)?.into_iter().filter(counts).collect();
    let fresh = |name: &String, found: &Found| {
        // What was seen of a tree that has come to rest since says little of it.
        let patience = if found.running || open.contains(name) { RUNNING } else { AT_REST };
        (0..patience * 1_000_000).contains(&(now.micros() - found.at.micros()))
    };
    let mut all = BTreeMap::new();
    let mut looked = false;
    for name in names {
        let found = known.get(&name).copied().filter(|found| fresh(&name, found));
        looked |= found.is_none();
        let found = found.unwrap_or_else(|| Found {
            bytes: files::disk_usage(&root.join(&name)),
            at: now,
            running: open.contains(&name),
        });
        all.insert(name, found);
    }
    if looked && let Ok(json) = serde_json::to_vec(&all) {
        // Only a memory: without it the next one looks again.
        let _ = files::replace(&note, &json);
    }
    let largest = all.iter().max_by_key(|(_, found)| found.bytes).map(|(name, found)| (name.clone(), found.bytes));
    Ok(Used { bytes: all.values().map(|found| found.bytes).sum(), trees: all.len(), largest })
}

/// For people.
pub(super) fn told(used: &Used, budget: Option<Size>) -> String {
    let of = budget.map(|budget| format!(" of {budget}")).unwrap_or_default();
    format!("{} worktrees take {} MiB{of}", used.trees, used.bytes >> 20)
}
