//! What git ignores, and what it tracks.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Git, Result, Staged, expect, refused};

impl Git {
    /// Every ignored path of this worktree, an ignored folder as one with a slash at its end.
    pub fn ignored(&self) -> Result<Vec<String>> {
        let args = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"];
        let output = expect("ls-files", self.cmd().args(args).run()?)?;
        Ok(paths(&output.stdout))
    }

    /// Paths of this worktree that are in no commit as they stand: files that differ from HEAD, and what git neither tracks
    /// nor ignores, a folder as one with a slash at its end.
    pub fn uncommitted(&self) -> Result<Vec<String>> {
        let args =
            ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=dirty"];
        let output = expect("status", self.cmd().args(args).run()?)?;
        // `XY path`.
        Ok(paths(&output.stdout).into_iter().filter_map(|entry| entry.get(3..).map(str::to_owned)).collect())
    }

    /// Ignored files of this worktree's own folder that a pattern names.
    pub fn ignored_here(&self, pattern: &str) -> Result<Vec<String>> {
        let args = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory", "--"];
        let output = expect("ls-files", self.cmd().args(args).arg(format!(":(top,glob){pattern}")).run()?)?;
        Ok(paths(&output.stdout).into_iter().filter(|path| !path.ends_with('/')).collect())
    }

    /// Whether git tracks a path, or something below it.
    pub fn is_tracked(&self, path: &str) -> Result<bool> {
        let args = ["--literal-pathspecs", "ls-files", "-z", "--cached", "--", path];
        Ok(!expect("ls-files", self.cmd().args(args).run()?)?.stdout.is_empty())
    }

    /// Whether git tracks something in a folder of this worktree, or stands there itself; where that cannot be told, it
    /// does. `staged` is the index.
    pub fn tracks_below(&self, staged: &Staged, folder: &Path) -> bool {
        match &staged.index {
            Some(index) => index.has_below(folder),
            None => folder.to_str().is_none_or(|folder| self.is_tracked(folder).unwrap_or(true)),
        }
    }

    /// Those of some paths that git would not ignore as they stand in this worktree.
    pub fn not_ignored(&self, asked: &[String]) -> Result<Vec<String>> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.cmd().args(["check-ignore", "-z", "--stdin"]).stdin(asked.join("\0")).run()?;
        // 1 means that it ignores none of them.
        if !matches!(output.code, Some(0 | 1)) || output.truncated {
            return Err(refused("check-ignore", &output));
        }
        let ignored = paths(&output.stdout);
        Ok(asked.iter().filter(|path| !ignored.contains(path)).cloned().collect())
    }
}

impl Git {
    /// Those of some paths that the rules of this worktree and a file of the user do not ignore; one that ends in a slash
    /// is a folder.
    pub(super) fn not_ignored_by(&self, user: &Path, asked: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let mut setting = OsString::from("core.excludesFile=");
        setting.push(user);
        let input: Vec<&[u8]> = asked.iter().map(|path| path.as_os_str().as_bytes()).collect();
        let cmd = self.cmd().arg("-c").arg(setting).args(["check-ignore", "--no-index", "-z", "--stdin"]);
        let output = cmd.stdin(input.join(&0)).run()?;
        if !matches!(output.code, Some(0 | 1)) || output.truncated {
            return Err(refused("check-ignore", &output));
        }
        let ignored: BTreeSet<&[u8]> = output.stdout.split(|b| *b == 0).collect();
        Ok(asked.iter().filter(|path| !ignored.contains(path.as_os_str().as_bytes())).cloned().collect())
    }
}

fn paths(bytes: &[u8]) -> Vec<String> {
    // A name that is no text can be in no configuration.
    bytes
        .split(|b| *b == 0)
        .filter_map(|p| std::str::from_utf8(p).ok())
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect()
}
