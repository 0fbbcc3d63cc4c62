//! Commits that vnx writes for itself, outside of any worktree: files in, commit out.

use std::path::Path;

use super::{Git, Result, expect, unreadable};
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

impl Git {
    /// Writes a commit and returns its id; no ref is moved. `self` is the repository.
    pub fn write_commit(&self, new: NewCommit<'_>) -> Result<String> {
        let mut listing = String::new();
        for (name, content) in new.files {
            let hash = self.cmd().args(["hash-object", "-w", "--stdin"]).stdin(*content).run()?;
            let hash = expect("hash-object", hash)?.text();
            listing += &["100644 blob ", &hash, "\t", name, "\n"].concat();
        }
        let tree = expect("mktree", self.cmd().arg("mktree").stdin(listing).run()?)?.text();
        let mut cmd = signing(self.cmd()).args(["commit-tree", &tree]);
        if let Some(parent) = new.parent {
            cmd = cmd.args(["-p", parent]);
        }
        if new.signed {
            cmd = cmd.arg("-S");
        }
        Ok(expect("commit-tree", as_vnx(cmd).stdin(new.message).run()?)?.text())
    }

    /// Sets a ref if it still has the expected value; `None` means that it must not exist yet.
    pub fn move_ref(&self, full_name: &str, new: &str, old: Option<&str>, why: &str) -> Result<()> {
        let args = ["update-ref", "--no-deref", "-m", why, full_name, new, old.unwrap_or_default()];
        expect("update-ref", self.cmd().args(args).run()?).map(drop)
    }

    /// The commits of a ref, newest first, first parents only.
    pub fn first_parents(&self, full_name: &str) -> Result<Vec<String>> {
        let output = self.cmd().args(["rev-list", "--first-parent", "--end-of-options", full_name, "--"]).run()?;
        Ok(expect("rev-list", output)?.text().lines().map(str::to_owned).collect())
    }

    /// Files of commits, named as `<commit>:<path>`; `None` for one that is not there.
    pub fn files_of(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let bad = || unreadable("cat-file");
        let output = self.cmd().args(["cat-file", "--batch"]).stdin(names.join("\n") + "\n").run()?;
        let mut rest = &expect("cat-file", output)?.stdout[..];
        let mut files = Vec::new();
        for _ in names {
            let end = rest.iter().position(|b| *b == b'\n').ok_or_else(bad)?;
            let (header, after) = (String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 1..]);
            rest = after;
            let fields: Vec<&str> = header.rsplitn(3, ' ').collect();
            match fields[..] {
                ["missing", ..] => files.push(None),
                [size, "blob", _] => {
                    let size: usize = size.parse().map_err(|_| bad())?;
                    files.push(Some(rest.get(..size).ok_or_else(bad)?.to_vec()));
                    rest = rest.get(size + 1..).ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
        Ok(files)
    }

    /// Who signed a commit, by the keys that `allowed` lists (ssh-keygen's ALLOWED SIGNERS);
    /// `None` where it is not signed, or by nobody of them.
    pub fn signer(&self, commit: &str, allowed: &Path) -> Result<Option<String>> {
        let allowed = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
        let cmd = signing(self.cmd()).args(["-c", &allowed, "verify-commit", "--raw", commit]);
        let output = cmd.run()?;
        // `Good "git" signature for <principal> with <type> key <fingerprint>`
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let named = text.lines().find_map(|l| l.strip_prefix("Good \"git\" signature for ")?.rsplit_once(" with "));
        Ok(named.filter(|_| output.ok()).map(|(principal, _)| principal.to_owned()))
    }
}

/// The repository's configuration may be a worker's: it does not name the programs that sign.
fn signing(cmd: Cmd) -> Cmd {
    let cmd = cmd.args(["-c", "gpg.format=ssh", "-c", "gpg.ssh.program=ssh-keygen"]);
    let cmd = cmd.args(["-c", "gpg.ssh.defaultKeyCommand=", "-c", "gpg.ssh.revocationFile="]);
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
