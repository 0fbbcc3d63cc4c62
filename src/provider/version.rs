//! Which version of a CLI is installed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::manifest::VersionProbe;
use crate::domain::Digest;
use crate::sys::cmd::{Cmd, CmdError};
use crate::sys::{self, files, path};

/// How long a CLI may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a version that is new enough is believed of a program that has not changed: what it starts may have.
const BELIEVED_US: i64 = 24 * 3600 * 1_000_000;

/// What came of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Its version.
    Version(String),
    /// It answered with something else.
    Nothing,
    /// It did not answer in time.
    Late,
    /// It could not be run, or failed: why.
    Failed(String),
}

/// Asks a program.
pub fn ask(probe: &VersionProbe, program: &Path, env: &BTreeMap<String, String>) -> Asked {
    match Cmd::new(program).args(&probe.args).only_env(env.clone()).limit(PATIENCE).cwd("/").run() {
        Ok(output) if output.ok() => version_in(&output.text()).map_or(Asked::Nothing, Asked::Version),
        Ok(output) => Asked::Failed(output.complaint()),
        Err(CmdError::TimedOut { .. }) => Asked::Late,
        Err(e) => Asked::Failed(e.to_string()),
    }
}

/// A version that was found new enough.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    min: String,
    ino: u64,
    size: u64,
    /// When the program was written, in nanoseconds since 1970.
    written: i64,
    /// When it was asked, in microseconds since 1970.
    asked: i64,
}

/// The version of a program, if it tells one that is older than the probe wants. A program that was new enough is not
/// asked again for a day, unless it changes.
pub fn too_old(probe: &VersionProbe, program: &Path, env: &BTreeMap<String, String>) -> Option<String> {
    let meta = program.metadata().ok()?;
    let now = sys::now().micros();
    let written = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    let found = Found { min: probe.min.clone(), ino: meta.ino(), size: meta.size(), written, asked: now };
    let name = Digest::of(program.as_os_str().as_encoded_bytes());
    let file = path::user_state().map(|state| state.join("versions").join(name.short()));
    let known = file.as_ref().and_then(|file| files::read_capped(file, 4096).ok()?);
    let known: Option<Found> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let is_believed = |known: &Found| (0..BELIEVED_US).contains(&(now - known.asked));
    if known.is_some_and(|known| is_believed(&known) && Found { asked: now, ..known } == found) {
        return None;
    }
    match ask(probe, program, env) {
        Asked::Version(version) if is_too_old(&version, probe) => Some(version),
        Asked::Version(_) => {
            // What cannot be remembered is asked again.
            if let (Some(file), Ok(json)) = (file, serde_json::to_vec(&found))
                && file.parent().is_some_and(|folder| files::private_folder(folder).is_ok())
            {
                let _ = files::replace(&file, &json);
            }
            None
        }
        // `vnx doctor` tells of it; that it is too old is not known.
        Asked::Nothing | Asked::Late | Asked::Failed(_) => None,
    }
}

/// Whether a version is older than the oldest that is supported.
pub fn is_too_old(version: &str, probe: &VersionProbe) -> bool {
    parts(version) < parts(&probe.min)
}

fn version_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '(' || c == ',');
    let is_version =
        |w: &&str| w.contains('.') && w.trim_start_matches('v').chars().all(|c| c.is_ascii_digit() || c == '.');
    words.map(|w| w.trim_start_matches('v')).find(is_version).map(str::to_owned)
}

fn parts(version: &str) -> Vec<u64> {
    version.split('.').map(|p| p.parse().unwrap_or(0)).collect()
}
