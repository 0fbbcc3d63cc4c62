//! Who signed something: asked of `ssh-keygen` directly, because git takes the program that checks
//! a signature from the repository's configuration, by what kind the signature says it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::git::Commit;
use crate::project::Project;
use crate::sys::cmd::{Cmd, CmdError};
use crate::sys::files;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";

/// The keys that are trusted to sign, in the format of ssh-keygen's ALLOWED SIGNERS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    path: PathBuf,
    text: Vec<u8>,
}

impl Signers {
    /// The project's, or those in the file that was named. `None` where nobody is listed; a file
    /// that cannot be read is an error.
    pub(super) fn of(project: &Project, named: Option<&Path>) -> Result<Option<Self>, String> {
        let path = named.map_or_else(|| project.folder().join("allowed_signers"), Path::to_owned);
        let text = files::read_capped(&path, 1 << 20).map_err(|e| e.to_string())?;
        let Some(text) = text else {
            let missing = named.map(|path| format!("there is no file {}", path.display()));
            return missing.map_or(Ok(None), Err);
        };
        if text.contains(&0) {
            return Err(format!("{} is not a text", path.display()));
        }
        let names_somebody = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let any = String::from_utf8_lossy(&text).lines().any(names_somebody);
        Ok(any.then_some(Self { path, text }))
    }

    /// Those in a text that was read from somewhere; `from` says where, for messages.
    pub fn in_text(text: Vec<u8>, from: impl Into<PathBuf>) -> Self {
        Self { path: from.into(), text }
    }

    /// Who of them signed this commit. `None` if it is not signed with an SSH key, or by nobody of
    /// them.
    pub(super) fn of_commit(&self, commit: &Commit) -> Result<Option<String>, String> {
        commit.signature.as_ref().map_or(Ok(None), |signature| self.of_text(&commit.signed, signature, "git"))
    }

    /// Who of them signed this text, for this purpose (ssh-keygen, `-n`).
    pub fn of_text(&self, text: &[u8], signature: &str, namespace: &str) -> Result<Option<String>, String> {
        if !signature.starts_with(BEGIN) {
            return Ok(None);
        }
        let folder = std::env::temp_dir();
        let scratch = |bytes: &[u8]| files::scratch(&folder, bytes, SystemTime::now()).map_err(|e| e.to_string());
        let (signature, allowed) = (scratch(signature.as_bytes())?, scratch(&self.text)?);
        let call = |args: &[&str]| {
            let cmd = Cmd::new("ssh-keygen").args(args).arg("-s").arg(signature.path()).arg("-f").arg(allowed.path());
            cmd.limit(Duration::from_secs(10))
        };
        let say = |e: CmdError| format!("a signature cannot be checked: {e}");
        let found = call(&["-Y", "find-principals"]).run().map_err(say)?;
        for principal in found.text().lines().filter(|_| found.ok()) {
            let verified = call(&["-Y", "verify", "-n", namespace, "-I", principal]).stdin(text.to_vec());
            if verified.run().map_err(say)?.ok() {
                return Ok(Some(principal.to_owned()));
            }
        }
        Ok(None)
    }

    /// Where they are listed, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
