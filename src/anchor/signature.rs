//! Who signed an anchor: asked of `ssh-keygen` directly, because git takes the program that checks
//! a signature from the repository's configuration, by what kind the signature says it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::git::Commit;
use crate::project::Project;
use crate::sys::cmd::{Cmd, CmdError};
use crate::sys::files;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";

/// The keys that are trusted to sign anchors, in the format of ssh-keygen's ALLOWED SIGNERS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signers {
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

    /// Who of them signed this commit. `None` if it is not signed with an SSH key, or by nobody of
    /// them.
    pub(super) fn of_commit(&self, commit: &Commit) -> Result<Option<String>, String> {
        let Some(signature) = commit.signature.as_ref().filter(|s| s.starts_with(BEGIN)) else { return Ok(None) };
        let folder = std::env::temp_dir();
        let scratch = |bytes: &[u8]| files::scratch(&folder, bytes, SystemTime::now()).map_err(|e| e.to_string());
        let (signature, allowed) = (scratch(signature.as_bytes())?, scratch(&self.text)?);
        let call = |args: &[&str]| {
            let cmd = Cmd::new("ssh-keygen").args(args).arg("-s").arg(signature.path()).arg("-f").arg(allowed.path());
            cmd.limit(Duration::from_secs(10))
        };
        let say = |e: CmdError| format!("the signature of the last anchor cannot be checked: {e}");
        let found = call(&["-Y", "find-principals"]).run().map_err(say)?;
        for principal in found.text().lines().filter(|_| found.ok()) {
            let verified = call(&["-Y", "verify", "-n", "git", "-I", principal]).stdin(commit.signed.clone());
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
