//! The repository's configuration, as far as it decides what our own calls would run.

use std::collections::BTreeMap;

use super::{Git, Result, expect};
use crate::domain::Digest;

/// Every setting that applies, in the order git reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitConfig {
    entries: Vec<(String, String)>,
    /// How many of them are the machine's and the person's, which come first.
    above: usize,
    /// How many are those of every worktree, with the ones above; a worktree's own come last.
    shared: usize,
}

impl Git {
    /// Reads the whole configuration in one call.
    pub fn config(&self) -> Result<GitConfig> {
        let output =
            expect("config", self.cmd().args(["config", "--list", "--null", "--show-scope", "--includes"]).run()?)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let split = |[scope, entry]: [&str; 2]| {
            let (key, value) = entry.split_once('\n').unwrap_or((entry, "true"));
            (scope.to_owned(), (key.to_owned(), value.to_owned()))
        };
        // The command line's own settings come last and are ours, not the repository's.
        let ours = [
            "advice.graftfiledeprecated",
            "core.fsmonitor",
            "core.hookspath",
            "core.ignorecase",
            "log.showsignature",
            "gc.auto",
            "maintenance.auto",
            "core.quotepath",
            "core.filesreflocktimeout",
            "core.packedrefstimeout",
        ];
        let parts: Vec<&str> = text.split('\0').filter(|e| !e.is_empty()).collect();
        let pairs = parts.chunks_exact(2).map(|pair| split([pair[0], pair[1]]));
        let (mut scopes, mut entries): (Vec<String>, Vec<_>) = pairs.unzip();
        let keep = entries.len().saturating_sub(ours.len());
        entries.truncate(keep);
        scopes.truncate(keep);
        let up_to = |last: &[&str]| scopes.iter().take_while(|scope| last.contains(&scope.as_str())).count();
        let (above, shared) = (up_to(&["system", "global"]), up_to(&["system", "global", "local"]));
        Ok(GitConfig { entries, above, shared })
    }
}

impl GitConfig {
    /// The value that counts.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The filters without which git writes no file that they are for (gitattributes(5), `filter.<name>.required`), as
    /// far as their names can stand in a pathspec.
    pub fn required_filters(&self) -> impl Iterator<Item = &str> {
        let on = |value: &str| !matches!(value, "false" | "no" | "off" | "0" | "");
        let required = self.entries.iter().filter(move |(_, value)| on(value));
        let names = required.filter_map(|(key, _)| key.strip_prefix("filter.")?.strip_suffix(".required"));
        names.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
    }

    /// Files may stand on disk in another form than git stores them.
    pub fn converts(&self) -> bool {
        let on = |key| self.value(key).is_some_and(|v| !matches!(v, "false" | "no" | "off" | "0" | ""));
        ["core.autocrlf", "core.eol", "core.attributesfile", "attr.tree"].into_iter().any(on)
    }

    /// Files are written in another form than git stores them, or some of them are not what they are called.
    pub fn writes_otherwise(&self) -> bool {
        let off = |key| self.value(key).is_some_and(|v| matches!(v, "false" | "no" | "off" | "0" | ""));
        let on = |key| self.value(key).is_some() && !off(key);
        self.converts() || off("core.symlinks") || on("core.ignorecase") || on("core.precomposeunicode")
    }

    /// Without what one worktree has for itself alone.
    #[must_use]
    pub fn shared(&self) -> Self {
        Self { entries: self.entries[..self.shared].to_vec(), ..*self }
    }

    /// Each setting with a digest of its values, in their order.
    pub fn digests(&self) -> BTreeMap<String, Digest> {
        let mut values: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (key, value) in &self.entries {
            values.entry(key).or_default().extend([value.as_bytes(), b"\0"].concat());
        }
        values.into_iter().map(|(key, values)| (key.to_owned(), Digest::of(&values))).collect()
    }

    /// A committer identity is configured.
    pub fn has_identity(&self) -> bool {
        self.value("user.name").is_some_and(|v| !v.is_empty())
            && self.value("user.email").is_some_and(|v| !v.is_empty())
    }

    /// A digest of who commits and speaks in this repository, as far as the repository itself says it: a worker can.
    pub fn own_identity(&self) -> Digest {
        let mut text = String::new();
        for (key, value) in self.entries.iter().skip(self.above) {
            if ["user.", "author.", "committer."].iter().any(|section| key.starts_with(section)) {
                text.extend([key, "\n", value, "\0"]);
            }
        }
        Digest::of(text.as_bytes())
    }

    /// A digest of the settings that decide what git reads, hides or runs. If a worker changed
    /// one of them, our own `git status` in its tree would run its code or overlook its work.
    pub fn risk(&self) -> Digest {
        let mut text = String::new();
        for (key, value) in self.entries.iter().filter(|(key, value)| !is_harmless(key, value)) {
            text.extend([key, "\n", value, "\0"]);
        }
        Digest::of(text.as_bytes())
    }
}

/// Whether a setting only concerns commits, branches and display, or is what an ordinary tool writes: it makes git run
/// nothing but that tool, and hides nothing.
fn is_harmless(key: &str, value: &str) -> bool {
    const SECTIONS: [&str; 20] = [
        "user.",
        "author.",
        "committer.",
        "branch.",
        "alias.",
        "push.",
        "pull.",
        "commit.",
        "color.",
        "advice.",
        "init.",
        "merge.",
        "rebase.",
        "gc.",
        "log.",
        "format.",
        "tag.",
        "rerere.",
        "safe.",
        "lfs.",
    ];
    let last = key.rsplit('.').next().unwrap_or_default();
    let words: Vec<&str> = value.split_whitespace().collect();
    match key.split('.').next().unwrap_or_default() {
        // A merge driver is a program.
        _ if last == "driver" => false,
        // The command of a large-file agent is one too (git-lfs-config(5)).
        "lfs" if key.starts_with("lfs.customtransfer.") || key.starts_with("lfs.extension.") => false,
        _ if SECTIONS.iter().any(|section| key.starts_with(section)) => true,
        // What is not checked out is told by the index; a worktree's own settings stand here for themselves.
        "core" if matches!(last, "sparsecheckout" | "sparsecheckoutcone") => true,
        "index" => last == "sparse",
        "extensions" => last == "worktreeconfig",
        "remote" => matches!(last, "fetch" | "push" | "pushurl" | "prune" | "gh-resolved" | "glab-resolved"),
        // Our own calls run no hooks. Those of a folder of the project are as much its own as its other files (husky).
        "core" if last == "hookspath" => {
            !value.is_empty() && !value.starts_with(['/', '~', '%']) && !value.split('/').any(|part| part == "..")
        }
        "filter" if key.starts_with("filter.lfs.") => matches!(
            (last, words.as_slice()),
            ("clean", ["git-lfs", "clean", "--", "%f"])
                | ("smudge", ["git-lfs", "smudge", "--", "%f"] | ["git-lfs", "smudge", "--skip", "--", "%f"])
                | ("process", ["git-lfs", "filter-process"] | ["git-lfs", "filter-process", "--skip"])
                | ("required", ["true"])
        ),
        "credential" if last == "helper" => matches!(
            words.as_slice(),
            [] | ["store" | "cache" | "manager" | "manager-core" | "osxkeychain" | "libsecret" | "wincred", ..]
                | ["!gh" | "!glab" | "!/usr/bin/gh" | "!/usr/bin/glab", "auth", "git-credential"]
        ),
        "credential" => matches!(last, "username" | "usehttppath" | "provider"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_harmless;

    #[test]
    fn what_ordinary_tools_write_is_told_from_what_runs_or_hides() {
        for (key, value) in [
            ("remote.origin.gh-resolved", "base"),
            ("core.hookspath", ".husky/_"),
            ("filter.lfs.clean", "git-lfs clean -- %f"),
            ("filter.lfs.process", "git-lfs filter-process"),
            ("filter.lfs.required", "true"),
            ("lfs.repositoryformatversion", "0"),
            ("credential.helper", "store"),
            ("credential.https://github.com.helper", "!/usr/bin/gh auth git-credential"),
            ("credential.https://github.com.helper", ""),
            ("user.name", "A"),
            ("branch.main.merge", "refs/heads/main"),
        ] {
            assert!(is_harmless(key, value), "{key}={value}");
        }
        for (key, value) in [
            ("core.hookspath", "/tmp/hooks"),
            ("core.hookspath", "../hooks"),
            ("core.hookspath", "~/hooks"),
            ("core.fsmonitor", "x"),
            ("core.excludesfile", "/tmp/all"),
            ("core.worktree", "/"),
            ("filter.lfs.clean", "git-lfs clean -- %f; x"),
            ("filter.lfs.clean", "sh"),
            ("filter.other.clean", "git-lfs clean -- %f"),
            ("lfs.customtransfer.x.path", "x"),
            ("credential.helper", "!x"),
            ("credential.helper", "/tmp/store"),
            ("merge.x.driver", "x"),
            ("include.path", "x"),
            ("remote.origin.url", "x"),
            ("url.x.insteadof", "y"),
        ] {
            assert!(!is_harmless(key, value), "{key}={value}");
        }
    }
}
