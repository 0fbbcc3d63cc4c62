//! Submodules, from what the main repository has of them: no network, no hooks, no templates.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::{FATAL, Git, Result, expect, refused, unreadable};

/// A submodule of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// What `.gitmodules` calls it.
    pub name: String,
    /// Where it belongs.
    pub path: String,
    /// The commit that it stands at.
    pub commit: String,
}

impl Git {
    /// The submodules of HEAD. `self` is the worktree.
    pub fn submodules(&self) -> Result<Vec<Submodule>> {
        let args = ["config", "--blob", "HEAD:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$"];
        let output = self.cmd().args(args).run()?;
        match output.code {
            Some(0) => {}
            // Without the file there are none; nor are there in one that names none.
            Some(1 | FATAL) => return Ok(Vec::new()),
            _ => return Err(refused("config", &output)),
        }
        let mut found = Vec::new();
        for entry in String::from_utf8_lossy(&output.stdout).split('\0').filter(|entry| !entry.is_empty()) {
            let (key, path) = entry.split_once('\n').ok_or_else(|| unreadable("config"))?;
            let name = key.strip_prefix("submodule.").and_then(|k| k.strip_suffix(".path")).unwrap_or_default();
            if let Some(commit) = self.gitlink(path)? {
                found.push(Submodule { name: name.to_owned(), path: path.to_owned(), commit });
            }
        }
        Ok(found)
    }

    /// The commit of a submodule in the index; `None` where the index has none there.
    fn gitlink(&self, path: &str) -> Result<Option<String>> {
        let args = ["--literal-pathspecs", "ls-files", "--stage", "-z", "--", path];
        let text = expect("ls-files", self.cmd().args(args).run()?)?.text();
        let entry = text.split('\0').next().and_then(|entry| entry.strip_prefix("160000 "));
        let found = entry.and_then(|rest| rest.split_once('\t')).filter(|(_, at)| *at == path);
        Ok(found.and_then(|(rest, _)| rest.split(' ').next()).map(str::to_owned))
    }

    /// A repository of a submodule in a worktree, with the objects of `source`, its HEAD at a commit and without
    /// files yet. Its origin is that of `source`, not `source` itself.
    pub fn clone_submodule(
        source: &Path,
        git_dir: &Path,
        path: &Path,
        commit: &str,
        held: Option<File>,
    ) -> Result<Self> {
        let args = ["clone", "--quiet", "--no-checkout", "--local", "--template=", "--separate-git-dir"];
        let clone = Self::bare_cmd().args(args).arg(git_dir).arg("--").arg(source).arg(path);
        expect("clone", clone.cwd(source).limit(Duration::from_mins(10)).holding(held).run()?)?;
        let git = Self::tree(git_dir, path);
        if let Some(url) = Self::repository(source).config()?.value("remote.origin.url") {
            expect("config", git.cmd().args(["config", "--local", "remote.origin.url", url]).run()?)?;
        }
        expect("update-ref", git.cmd().args(["update-ref", "--no-deref", "HEAD", commit]).run()?)?;
        Ok(git)
    }
}
