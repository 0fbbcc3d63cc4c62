//! Commits that vnx writes for itself, outside of any worktree: files in, commit out.

use super::{FATAL, Git, Result, expect, unreadable};
use crate::sys::cmd::Cmd;

/// A commit in the making.
#[derive(Debug, Clone, Copy)]
pub struct NewCommit<'a> {
    /// Name and content of each file, by name.
    pub files: &'a [(&'a str, &'a [u8])],
    /// The commit before it.
    pub parent: Option<&'a str>,
    /// The message.
    pub message: &'a str,
    /// Signed with the SSH key that git is configured to sign with.
    pub signed: bool,
}

/// git waits until what it writes is on the disk (from 2.36 on; older ones do not know it).
pub(super) const SYNCED: [&str; 2] = ["-c", "core.fsync=all"];

impl Git {
    /// Writes a commit and returns its id; no ref is moved. `self` is the repository.
    pub fn write_commit(&self, new: NewCommit<'_>) -> Result<String> {
        // The ledger will tell of it, and waits for the disk itself.
        let cmd = || self.cmd().args(SYNCED);
        let mut listing = String::new();
        for (name, content) in new.files {
            let hash = stored("hash-object", || cmd().args(["hash-object", "-w", "--stdin"]).stdin(*content))?;
            listing += &["100644 blob ", &hash, "\t", name, "\n"].concat();
        }
        let tree = stored("mktree", || cmd().arg("mktree").stdin(listing.as_str()))?;
        let commit = || {
            let mut cmd = signing(cmd()).args(["commit-tree", &tree]);
            if let Some(parent) = new.parent {
                cmd = cmd.args(["-p", parent]);
            }
            if new.signed {
                cmd = cmd.arg("-S");
            }
            as_vnx(cmd).stdin(new.message)
        };
        if new.signed {
            // Whoever was asked for a passphrase is not asked twice.
            return Ok(expect("commit-tree", commit().run()?)?.text());
        }
        stored("commit-tree", commit)
    }

    /// Sets a ref if it still has the expected value; `None` means that it must not exist yet.
    pub fn move_ref(&self, full_name: &str, new: &str, old: Option<&str>, why: &str) -> Result<()> {
        let args = ["update-ref", "--no-deref", "-m", why, full_name, new, old.unwrap_or_default()];
        expect("update-ref", self.cmd().args(SYNCED).args(args).run()?).map(drop)
    }

    /// The commits of a ref, newest first, first parents only.
    pub fn first_parents(&self, full_name: &str) -> Result<Vec<String>> {
        let output = self.cmd().args(["rev-list", "--first-parent", "--end-of-options", full_name, "--"]).run()?;
        Ok(expect("rev-list", output)?.text().lines().map(str::to_owned).collect())
    }

    /// The last of them before one that is not there: git names a commit when it has read its parents.
    pub fn last_first_parent(&self, full_name: &str) -> Result<Option<String>> {
        let output = self.cmd().args(["rev-list", "--first-parent", "--end-of-options", full_name, "--"]).run()?;
        Ok(output.text().lines().last().map(str::to_owned))
    }

    /// Reads commits as they stand in the object store, each held against its own id: git itself does
    /// not when it reads a loose object, and whoever can write the store can write anything there.
    /// Nothing stands in for them (`refs/replace`, grafts), nothing is fetched.
    pub fn raw_commits(&self, ids: &[String]) -> Result<Vec<Commit>> {
        let bad = || unreadable("cat-file");
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.cmd().args(["cat-file", "--batch"]).stdin(ids.join("\n") + "\n").run()?;
        let mut rest = &expect("cat-file", output)?.stdout[..];
        let mut commits = Vec::new();
        for id in ids {
            let end = rest.iter().position(|b| *b == b'\n').ok_or_else(bad)?;
            let header = String::from_utf8_lossy(&rest[..end]).into_owned();
            let size = header.strip_prefix(id.as_str()).and_then(|h| h.strip_prefix(" commit "));
            let size: usize = size.and_then(|s| s.parse().ok()).ok_or_else(bad)?;
            let raw = rest.get(end + 1..end + 1 + size).ok_or_else(bad)?;
            rest = rest.get(end + size + 2..).ok_or_else(bad)?;
            commits.push(Commit::parse(id, raw).ok_or_else(bad)?);
        }
        Ok(commits)
    }
}

/// The name of an object that a call writes. Older git makes a folder in the store and a file in it in two steps, and
/// whoever collects garbage may take the folder away in between: the same object is written again.
pub(super) fn stored(verb: &str, call: impl Fn() -> Cmd) -> Result<String> {
    let mut output = call().run()?;
    for _ in 0..2 {
        if output.code == Some(FATAL) {
            output = call().run()?;
        }
    }
    Ok(expect(verb, output)?.text())
}

/// A commit as it stands in the object store (gitformat: the header, an empty line, the message).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id, which is the hash of what follows.
    pub id: String,
    /// The commits before it.
    pub parents: Vec<String>,
    /// The message.
    pub message: String,
    /// The signature in its header, whatever kind it is.
    pub signature: Option<String>,
    /// What was signed: the commit without the signature.
    pub signed: Vec<u8>,
}

impl Commit {
    /// `None` if these bytes are no commit, or not this one.
    fn parse(id: &str, raw: &[u8]) -> Option<Self> {
        if object_id(raw, id.len())? != id {
            return None;
        }
        let text = std::str::from_utf8(raw).ok()?;
        let (header, message) = text.split_once("\n\n")?;
        let name = if id.len() == 64 { "gpgsig-sha256 " } else { "gpgsig " };
        let (mut parents, mut signature, mut signed) = (Vec::new(), None::<String>, String::new());
        let mut within = false;
        for line in header.lines() {
            match (line.strip_prefix(' '), line.strip_prefix(name)) {
                (Some(more), _) if within => {
                    signature.as_mut()?.push_str(&[more, "\n"].concat());
                    continue;
                }
                (_, Some(first)) if signature.is_none() => {
                    (within, signature) = (true, Some([first, "\n"].concat()));
                    continue;
                }
                (_, Some(_)) => return None,
                _ => within = false,
            }
            if let Some(parent) = line.strip_prefix("parent ") {
                parents.push(parent.to_owned());
            }
            signed += &[line, "\n"].concat();
        }
        signed += &["\n", message].concat();
        let (id, message) = (id.to_owned(), message.to_owned());
        Some(Self { id, parents, message, signature, signed: signed.into_bytes() })
    }
}

/// The name of a commit object with this content, by the hash that names of `length` digits come from.
fn object_id(raw: &[u8], length: usize) -> Option<String> {
    let mut hasher = ObjectHasher::new("commit", raw.len() as u64, length)?;
    hasher.update(raw);
    Some(hasher.name())
}

/// Computes the name of an object from its bytes as they come: the hash of `<kind> <size>\0` and the content.
#[derive(Debug)]
pub(super) enum ObjectHasher {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl ObjectHasher {
    /// `None` where names of `length` digits come from no hash that git knows.
    pub(super) fn new(kind: &str, size: u64, length: usize) -> Option<Self> {
        let mut hasher = match length {
            40 => Self::Sha1(sha1::Digest::new()),
            64 => Self::Sha256(sha2::Digest::new()),
            _ => return None,
        };
        hasher.update(format!("{kind} {size}\0").as_bytes());
        Some(hasher)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => sha1::Digest::update(hash, bytes),
            Self::Sha256(hash) => sha2::Digest::update(hash, bytes),
        }
    }

    pub(super) fn name(self) -> String {
        let hash = match self {
            Self::Sha1(hash) => sha1::Digest::finalize(hash).to_vec(),
            Self::Sha256(hash) => sha2::Digest::finalize(hash).to_vec(),
        };
        hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// What git names objects by and ends its files with: SHA-1 where that has 20 bytes, SHA-256 for 32.
pub(super) fn hash(parts: &[&[u8]], bytes: usize) -> Option<Vec<u8>> {
    use sha1::Digest as _;
    match bytes {
        20 => Some(parts.iter().fold(sha1::Sha1::new(), sha2::Digest::chain_update).finalize().to_vec()),
        32 => Some(crate::domain::Digest::of(&parts.concat()).bytes().to_vec()),
        _ => None,
    }
}

/// The repository's configuration may be a worker's: it does not name the programs that sign.
fn signing(cmd: Cmd) -> Cmd {
    let cmd = cmd.args(["-c", "gpg.format=ssh", "-c", "gpg.ssh.program=ssh-keygen"]);
    let cmd = cmd.args(["-c", "gpg.ssh.defaultKeyCommand="]);
    match std::env::var_os("SSH_AUTH_SOCK") {
        Some(agent) => cmd.env("SSH_AUTH_SOCK", agent),
        None => cmd,
    }
}

/// Commits of vnx do not depend on an identity being configured.
pub(super) fn as_vnx(cmd: Cmd) -> Cmd {
    let cmd = cmd.env("GIT_AUTHOR_NAME", "vnx").env("GIT_COMMITTER_NAME", "vnx");
    cmd.env("GIT_AUTHOR_EMAIL", "vnx@localhost").env("GIT_COMMITTER_EMAIL", "vnx@localhost")
}
