//! The SSH key that this user's git signs with (git-config(1), `gpg.format` and `user.signingKey`).

use std::path::{Path, PathBuf};

use super::GitConfig;
use crate::sys::files;

/// A key that signs commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Type and key, as a line of an allowed signers file has them; `None` if the file cannot be read.
    pub public: Option<String>,
    /// No file has its private half, so it is with an ssh agent.
    pub agent_only: bool,
}

impl GitConfig {
    /// The SSH key that git signs with, where it is configured to.
    pub fn signing_key(&self) -> Option<SigningKey> {
        let named = self.value("user.signingkey").filter(|_| self.value("gpg.format") == Some("ssh"))?;
        let literal = named.strip_prefix("key::").or_else(|| named.starts_with("ssh-").then_some(named));
        if let Some(literal) = literal {
            return Some(SigningKey { public: key_in(literal.as_bytes()), agent_only: true });
        }
        let path = named.strip_prefix("~/").map_or_else(|| PathBuf::from(named), super::merging::home);
        let (private, public) = match path.to_str().and_then(|path| path.strip_suffix(".pub")) {
            Some(private) => (PathBuf::from(private), path.clone()),
            None => (path.clone(), PathBuf::from(format!("{}.pub", path.display()))),
        };
        let text = |path: &Path| files::read_capped(path, 64 << 10).ok().flatten();
        // A public key may stand in a file of any name.
        let public = text(&public).or_else(|| text(&path)).and_then(|text| key_in(&text));
        let agent_only = text(&private).is_none_or(|text| key_in(&text).is_some());
        Some(SigningKey { public, agent_only })
    }

    /// Every commit is signed unless somebody says otherwise.
    pub fn signs_commits(&self) -> bool {
        self.value("commit.gpgsign").is_some_and(|value| !matches!(value, "false" | "no" | "off" | "0" | ""))
    }
}

/// Type and key of a public key (sshd(8), AUTHORIZED_KEYS FILE FORMAT), without its comment.
fn key_in(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let mut words = text.lines().next()?.split_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
    known.then(|| format!("{kind} {key}"))
}
