//! Which version of git's shared files counts: ignore rules and attributes that hold for all worktrees.
//!
//! A worker can write them as its user can, and what it writes would hide the work of the next one. So what is counted
//! is what stood there while nobody worked. A change while dispatches run is a suspect: it is told, and until it is taken
//! back or a person accepts it, new worktrees are looked at by what stood there before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{Digest, DispatchId, Fault};
use crate::git::{SharedFile, SharedFiles};
use crate::project::Paths;
use crate::sys::files;

/// In the state folder.
const FILE: &str = "git-files.json";

/// What is remembered of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// What counts; `None` before the first dispatch.
    counted: Option<SharedFiles>,
    /// What was changed while dispatches ran.
    suspects: BTreeMap<SharedFile, Suspect>,
}

/// A change that nobody has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suspect {
    /// What it says now.
    digest: Digest,
    /// A dispatch that ran meanwhile.
    dispatch: DispatchId,
}

impl Known {
    fn load(paths: &Paths) -> Result<Self, Fault> {
        let bytes = files::read_capped(&paths.state().join(FILE), 64 << 20)?;
        // What cannot be read is written anew, from what stands there.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    fn store(&self, paths: &Paths) -> Result<(), Fault> {
        let json = serde_json::to_vec(self).map_err(|e| Fault::internal(format!("git's shared files: {e}")))?;
        Ok(files::replace(&paths.state().join(FILE), &json)?)
    }

    /// The suspect that says what the file says now.
    fn suspect(&self, file: SharedFile, now: &SharedFiles) -> Option<&Suspect> {
        self.suspects.get(&file).filter(|suspect| suspect.digest == Digest::of(now.text(file).as_bytes()))
    }
}

/// What counts for a dispatch that begins: what stands there, but for what was changed while others ran.
pub(super) fn counted(paths: &Paths, id: &DispatchId, now: &SharedFiles) -> Result<SharedFiles, Fault> {
    let known = Known::load(paths)?;
    let Some(before) = known.counted.clone() else {
        Known { counted: Some(now.clone()), ..known }.store(paths)?;
        return Ok(now.clone());
    };
    let differing = before.differing(now);
    if differing.is_empty() && known.suspects.is_empty() {
        return Ok(before);
    }
    let other = files::names(&paths.open())?.into_iter().find(|name| name != id.as_str());
    let other = other.and_then(|name| DispatchId::parse(&name).ok());
    let (mut counted, mut suspects) = (now.clone(), BTreeMap::new());
    for file in differing {
        let suspect = known.suspect(file, now).cloned();
        let digest = Digest::of(now.text(file).as_bytes());
        let suspect = suspect.or_else(|| other.clone().map(|dispatch| Suspect { digest, dispatch }));
        if let Some(suspect) = suspect {
            counted.set(file, before.text(file));
            suspects.insert(file, suspect);
        }
    }
    let changed = Known { counted: Some(counted.clone()), suspects };
    if changed != known {
        changed.store(paths)?;
    }
    Ok(counted)
}

/// Notes what was changed while a dispatch ran.
pub fn note_changes(paths: &Paths, id: &DispatchId, changed: &[SharedFile], now: &SharedFiles) -> Result<(), Fault> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut known = Known::load(paths)?;
    for file in changed {
        let digest = Digest::of(now.text(*file).as_bytes());
        known.suspects.entry(*file).or_insert_with(|| Suspect { digest, dispatch: id.clone() }).digest = digest;
    }
    known.store(paths)
}

/// The files whose change nobody has accepted, each with a dispatch that ran meanwhile.
pub fn suspects(paths: &Paths, now: &SharedFiles) -> Result<Vec<(SharedFile, DispatchId)>, Fault> {
    let known = Known::load(paths)?;
    let such = |file| known.suspect(file, now).map(|suspect| (file, suspect.dispatch.clone()));
    Ok(SharedFile::ALL.into_iter().filter_map(such).collect())
}

/// Lets what stands there count from now on. A person says so.
pub fn accept(paths: &Paths, now: &SharedFiles) -> Result<(), Fault> {
    Known { counted: Some(now.clone()), suspects: BTreeMap::new() }.store(paths)
}
