//! Where it is remembered that a person accepted what a repository brings, and what it brings.
//!
//! A record stands in the repository's state and in the user's own state folder, both under a random id. The first
//! counts only where it was made: it names the folder that it was made in by inode and time of birth, which no archive
//! and no clone can bring along. The second makes a copy of the repository keep its standing.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CONFIG, Config, Located, MAX_CONFIG, Paths, Project, lexically, read_config, yaml};
use crate::domain::agent::AgentHead;
use crate::domain::gate::nonce;
use crate::domain::trust::{Brought, Standing, of_gates, of_hooks};
use crate::domain::{Digest, Fault};
use crate::sys::files;
use crate::sys::{self, folder, path, process};

/// What a folder for worktrees elsewhere is called.
pub(super) const ROOT: &str = "worktree.root";

/// One record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: u32,
    /// Random: 32 hexadecimal digits.
    id: String,
    /// The state folder that it was made in.
    place: Digest,
    standing: Standing,
}

/// What tells a folder from every other one, also from a copy of itself.
fn place(folder: &Path) -> Option<Digest> {
    Some(Digest::of(folder::lasting_id(folder)?.as_bytes()))
}

fn read(file: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&files::read_capped(file, 4 << 20).ok()??).ok()?;
    let is_id = record.id.len() == 32 && record.id.bytes().all(|b| b.is_ascii_hexdigit());
    // What others could have written says nothing for this user.
    let meta = file.symlink_metadata().ok()?;
    let is_ours = meta.is_file() && meta.uid() == process::uid() && meta.mode() & 0o022 == 0;
    (record.v == 1 && is_id && is_ours).then_some(record)
}

/// The record of the user.
fn of_user(id: &str) -> Option<PathBuf> {
    Some(path::user_state()?.join("trust").join(id))
}

/// How the repository of this state stands with this user.
pub fn standing(paths: &Paths) -> Standing {
    let Some(local) = read(&paths.trust()) else { return Standing::default() };
    let of_user = of_user(&local.id).and_then(|file| read(&file)).filter(|record| record.id == local.id);
    let of_user = of_user.map(|record| record.standing).unwrap_or_default();
    if Some(local.place) == place(paths.state()) { local.standing.and(of_user) } else { of_user }
}

/// Remembers something beside what is remembered already.
pub(super) fn remember(paths: &Paths, more: Standing) -> Result<(), Fault> {
    files::private_folder(paths.state())?;
    let here = place(paths.state()).ok_or_else(|| Fault::io(format!("cannot examine {}", paths.state().display())))?;
    let (local, standing) = (read(&paths.trust()), standing(paths).and(more));
    // A copy of a repository goes on under an id of its own.
    let id = match local.filter(|record| record.place == here) {
        Some(record) => record.id,
        None => nonce(sys::random::<16>()?),
    };
    let record = Record { v: 1, id, place: here, standing };
    let text = serde_json::to_vec_pretty(&record).map_err(|e| Fault::internal(format!("a record of trust: {e}")))?;
    files::replace(&paths.trust(), &text)?;
    // A user without a home, or with one that cannot be written to, does with the first record.
    if let Some(file) = of_user(&record.id)
        && files::private_folder(file.parent().unwrap_or(&file)).is_ok()
    {
        let _ = files::replace(&file, &text);
    }
    Ok(())
}

/// Remembers that a person has accepted these things.
pub fn accept(paths: &Paths, brought: &[Brought]) -> Result<(), Fault> {
    remember(paths, Standing { made_here: false, accepted: brought.iter().map(|one| one.digest).collect() })
}

/// What the checkout of a project brings, whether it was accepted or not.
pub fn of_checkout(project: &Project) -> Result<Vec<Brought>, Fault> {
    brought(&project.located, &read_config(&project.located)?)
}

/// What a checkout brings.
pub(super) fn brought(located: &Located, config: &Config) -> Result<Vec<Brought>, Fault> {
    let folder = located.top.join(".vnx");
    let mut all = of_hooks(CONFIG, &config.worktree.hooks);
    all.extend(of_gates(CONFIG, &config.gates));
    all.extend(root_elsewhere(located, config));
    all.extend(passed(config));
    all.extend(providers(&folder)?);
    all.extend(agents(&folder)?);
    Ok(all)
}

/// A folder for worktrees that is not beside the repository: worktrees are written and deleted there.
fn root_elsewhere(located: &Located, config: &Config) -> Option<Brought> {
    let root = config.worktree.root.as_ref()?;
    let beside = located.beside();
    let parent = beside.parent().unwrap_or(&beside);
    let wanted = lexically(&beside.join(root));
    let leads = wanted.ancestors().find_map(|place| place.canonicalize().ok()).unwrap_or_else(|| wanted.clone());
    let parent_leads = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    let near = wanted.starts_with(parent) && leads.starts_with(&parent_leads);
    (!near).then(|| Brought::command(CONFIG, ROOT, root))
}

/// Variables of the user's that workers would get.
fn passed(config: &Config) -> impl Iterator<Item = Brought> {
    let named = config.providers.iter().filter(|(_, settings)| !settings.env.pass.is_empty());
    named.map(|(name, settings)| {
        let what = format!("variables for {name}");
        Brought::command(CONFIG, what, &settings.env.pass.join(" "))
    })
}

/// Manifests: they name programs, arguments and variables, so all of a file counts.
pub(super) fn providers(folder: &Path) -> Result<Vec<Brought>, Fault> {
    let folder = folder.join("providers");
    let names = files::names(&folder)?;
    let manifests = names.iter().filter_map(|name| Some((name, name.strip_suffix(".yaml")?)));
    let read = |(name, provider): (&String, &str)| {
        let path = folder.join(name);
        let bytes = files::read_capped(&path, MAX_CONFIG)?.unwrap_or_default();
        let file = format!(".vnx/providers/{name}");
        Ok(Brought::file(&file, format!("provider {provider}"), &programs(&path, &bytes), &bytes))
    };
    manifests.map(read).collect()
}

/// What a manifest runs, for people.
fn programs(path: &Path, bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Probe {
        args: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Shown {
        extends: Option<String>,
        #[serde(default)]
        binaries: Vec<String>,
        version_probe: Option<Probe>,
        login_probe: Option<Probe>,
        server_probe: Option<Probe>,
        model_probe: Option<Probe>,
    }
    let Ok(shown) = yaml::parse::<Shown>(path, bytes) else { return "(not readable as a manifest)".to_owned() };
    let program = match shown.extends {
        Some(base) => format!("{base} with other arguments and variables"),
        None => shown.binaries.join(" or "),
    };
    let probes = [shown.version_probe, shown.login_probe, shown.server_probe, shown.model_probe];
    let probes = probes.into_iter().flatten().map(|probe| format!("; {program} {}", probe.args.join(" ")));
    // Arguments and variables run things too, so all that it says is shown.
    let text = String::from_utf8_lossy(bytes);
    let said = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    format!("{program}{}\n{}", probes.collect::<String>(), said.collect::<Vec<_>>().join("\n"))
}

/// Agents that bring a command.
pub(super) fn agents(folder: &Path) -> Result<Vec<Brought>, Fault> {
    let folder = folder.join("agents");
    let mut all = Vec::new();
    for name in files::names(&folder)? {
        let path = folder.join(&name).join("AGENT.md");
        // One that cannot be read cannot be dispatched either, and says so then.
        let Ok(Some(bytes)) = files::read_capped(&path, MAX_CONFIG) else { continue };
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        let head =
            yaml::front_matter(&text).and_then(|(head, _)| yaml::parse::<AgentHead>(&path, head.as_bytes()).ok());
        if let Some(command) = head.and_then(|head| head.command) {
            all.push(Brought::command(&format!(".vnx/agents/{name}/AGENT.md"), format!("agent {name}"), &command));
        }
    }
    Ok(all)
}

/// Why nothing of this is run.
pub fn refusal(untrusted: &[Brought]) -> Option<Fault> {
    let first = untrusted.first()?;
    let files: BTreeSet<&str> = untrusted.iter().map(|one| one.file.as_str()).collect();
    let more = if files.len() > 1 { format!(", and more in {} other files", files.len() - 1) } else { String::new() };
    let what =
        format!("{} brings what would be run ({}{more}), and nobody has accepted it here", first.file, first.what);
    Some(Fault::refused(what).fix("`vnx trust` shows all of it and lets you accept it"))
}
