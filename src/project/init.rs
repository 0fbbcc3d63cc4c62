//! `vnx init`: scaffolds a project, idempotently. It never overwrites a file that exists;
//! `--diff` shows what the shipped version would change, `--force` keeps a backup beside it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{MAX_CONFIG, Paths, config, locate, trust};
use crate::domain::trust::Standing;
use crate::domain::{Fault, Name};
use crate::ledger::Ledger;
use crate::sys::files::{self, At};

/// What happened to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// It was not there and is now.
    Created,
    /// It is not there; nothing is written with `--diff`.
    WouldCreate,
    /// It is as shipped.
    Unchanged,
    /// It differs from the shipped version and was left alone.
    Kept,
    /// It was replaced; the old one is beside it.
    Replaced,
}

/// One file or folder of the scaffold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Relative to the repository.
    pub path: String,
    /// What happened.
    pub written: Written,
    /// The backup, if one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// With `--diff`: the shipped text, for a file that differs.
    #[serde(skip)]
    pub shipped: Option<String>,
}

/// What `vnx init` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// Format of this report.
    pub schema: &'static str,
    /// The repository.
    pub project: PathBuf,
    /// Its id.
    pub project_id: Name,
    /// The files.
    pub items: Vec<Item>,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// The ledger was created now.
    pub ledger_created: bool,
}

/// What to scaffold.
#[derive(Debug, Clone, Copy)]
pub struct Scaffold<'a> {
    /// The shipped constraints file.
    pub constraints: &'a str,
    /// The line of an allowed signers file for the key that this user's git signs with.
    pub signer: Option<&'a str>,
    /// Replace files that differ, keeping a backup.
    pub force: bool,
    /// Write nothing, only compare.
    pub diff: bool,
}

/// Scaffolds the repository that `from` lies in.
pub fn init(from: &Path, scaffold: Scaffold<'_>) -> Result<InitReport, Fault> {
    let located = locate(from)?;
    let folder = located.top.join(".vnx");
    if is_link(&folder) {
        return Err(Fault::input(format!(
            "{} is a link, and what vnx writes must stay in the repository",
            folder.display()
        ))
        .fix("put a folder in its place"));
    }
    let paths = Paths::of(&located)?;
    // Another checkout may have begun the ledger.
    let begun = || paths.ledger().created().ok().map(|created| created.project);
    let id = existing_id(&folder)?.or_else(begun).unwrap_or_else(|| id_from(&located.name()));
    let signers = signers(scaffold.signer);
    let texts = [
        ("config.yaml", config::template(&id)),
        ("provider_constraints.yaml", scaffold.constraints.to_owned()),
        ("allowed_signers", signers),
        (".gitignore", "/receipts\n".to_owned()),
        (
            "agents/README.md",
            "Agents of this project: `agents/<name>/AGENT.md`. They shadow vnx's own of the same name.\n".to_owned(),
        ),
        (
            "skills/README.md",
            "Skills of this project: `skills/<name>/SKILL.md`. They shadow vnx's own of the same name.\n".to_owned(),
        ),
        (
            "providers/README.md",
            "Providers of this project: `providers/<name>.yaml`. They shadow vnx's own of the same name.\n".to_owned(),
        ),
    ];
    // Whoever makes a project out of a repository that brings nothing answers for what it says later.
    let made_here = folder.join("config.yaml").symlink_metadata().is_err()
        && trust::providers(&folder)?.is_empty()
        && trust::agents(&folder)?.is_empty();
    let mut items = Vec::new();
    for (name, text) in texts {
        items.push(place(&folder, name, &text, scaffold)?);
    }
    let ledger = paths.ledger();
    let mut created = false;
    if !scaffold.diff {
        for folder in paths.folders() {
            files::private_folder(&folder)?;
        }
        refuse_to_replace_a_lost_ledger(&paths, &ledger)?;
        if made_here {
            trust::remember(&paths, Standing { made_here, accepted: Vec::new() })?;
        }
        created = ledger.create(&id)?;
        items.push(link(&folder, &paths.receipts())?);
    }
    Ok(InitReport {
        schema: "vnx.init/1",
        project: located.top,
        project_id: id,
        items,
        ledger: ledger.file(),
        ledger_created: created,
    })
}

/// The list of signers, with a line for whoever sets the project up: nobody is trusted unasked.
fn signers(own: Option<&str>) -> String {
    let about = "# SSH public keys trusted to sign anchors of the ledger, one `<principal> <key>` a line\n# (the format of ssh-keygen's ALLOWED SIGNERS). Empty: anchors are unsigned.\n";
    let own = own.map(|line| {
        format!("# Your git signs with this key. Without the `#`, anchors are signed with it:\n# {line}\n")
    });
    format!("{about}{}", own.unwrap_or_default())
}

/// A ledger that is gone while its dispatches are on record was lost or taken away. A new one
/// in its place would verify, and hide that.
fn refuse_to_replace_a_lost_ledger(paths: &Paths, ledger: &Ledger) -> Result<(), Fault> {
    let on_record = files::names(&paths.dispatches())?.len();
    if on_record == 0 || ledger.file().exists() {
        return Ok(());
    }
    Err(Fault::environment(format!(
        "the ledger is gone, though {on_record} dispatches are on record: {}",
        ledger.file().display()
    ))
    .fix("restore it; or, if it is lost for good, `vnx audit-chain accept --reason WHY` begins another one"))
}

/// An id that a person or an earlier init chose stays, whatever the folder is called now.
fn existing_id(folder: &Path) -> Result<Option<Name>, Fault> {
    let file = folder.join("config.yaml");
    let Some(bytes) = files::read_capped(&file, MAX_CONFIG)? else {
        return Ok(None);
    };
    super::yaml::parse::<super::Config>(&file, &bytes).map(|c| Some(c.project_id))
}

fn id_from(name: &str) -> Name {
    let mut id = String::new();
    for c in name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => id.push(c),
            _ if !id.is_empty() && !id.ends_with('-') => id.push('-'),
            _ => {}
        }
    }
    id.truncate(40);
    let id = id.trim_end_matches('-');
    Name::parse("project", if id.is_empty() { "project" } else { id })
        .unwrap_or_else(|_| unreachable!("made of the allowed characters"))
}

fn place(folder: &Path, name: &str, text: &str, scaffold: Scaffold<'_>) -> Result<Item, Fault> {
    let path = folder.join(name);
    let mut item = Item { path: format!(".vnx/{name}"), written: Written::Unchanged, backup: None, shipped: None };
    if [path.as_path(), path.parent().unwrap_or(folder)].into_iter().any(is_link) {
        // Somebody else's file, wherever it is; it may not even be there.
        item.written = Written::Kept;
        return Ok(item);
    }
    match files::read_capped(&path, 16 << 20)? {
        Some(old) if old == text.as_bytes() => {}
        Some(_) if scaffold.diff || !scaffold.force => {
            item.written = Written::Kept;
            item.shipped = Some(text.to_owned());
        }
        old => {
            if scaffold.diff {
                item.written = Written::WouldCreate;
                return Ok(item);
            }
            item.written = if old.is_some() { Written::Replaced } else { Written::Created };
            let parent = path.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent).at("create", parent)?;
            if let Some(old) = old {
                let backup = format!("{name}.{}.bak", crate::sys::now().compact());
                files::create_new(&folder.join(&backup), &old)?;
                item.backup = Some(format!(".vnx/{backup}"));
            }
            files::replace_shared(&path, text.as_bytes())?;
        }
    }
    Ok(item)
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}

/// `.vnx/receipts` → the ledger's folder, for `tail -f .vnx/receipts/ledger.ndjson`.
fn link(folder: &Path, receipts: &Path) -> Result<Item, Fault> {
    let path = folder.join("receipts");
    // A copy of the whole folder then has a link to its own ledger.
    let top = folder.parent().unwrap_or(folder);
    let relative = receipts.strip_prefix(top).map(|inside| Path::new("..").join(inside));
    let receipts = relative.as_deref().unwrap_or(receipts);
    let mut item = Item { path: ".vnx/receipts".to_owned(), written: Written::Unchanged, backup: None, shipped: None };
    match std::fs::read_link(&path) {
        Ok(target) if target == receipts => {}
        Ok(_) => {
            // Our own link of an earlier place: state moved.
            std::fs::remove_file(&path).at("replace", &path)?;
            std::os::unix::fs::symlink(receipts, &path).at("link", &path)?;
            item.written = Written::Replaced;
        }
        Err(_) if path.exists() => item.written = Written::Kept,
        Err(_) => {
            std::os::unix::fs::symlink(receipts, &path).at("link", &path)?;
            item.written = Written::Created;
        }
    }
    Ok(item)
}
