//! In what form files stand on disk: as git stores them, or as attributes and settings want them
//! (gitattributes(5)).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::index::Index;
use super::{Git, GitConfig, Result, Staged, expect, unreadable};
use crate::domain::Digest;
use crate::sys::files;

/// The index as it was when git had written the worktree, in git's folder of it.
pub const FIRST_INDEX: &str = "vnx-index";

/// What is said of all worktrees outside of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    text: Vec<u8>,
}

impl Attributes {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
    /// The same digest: the same is said.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }
    /// Files may be written in another form than git stores them.
    pub fn ask_for_another_form(&self) -> bool {
        asks_for_another_form(&self.text)
    }
}

/// What is known of the forms in one worktree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forms {
    /// Files that were written after git wrote them: git may find them unchanged although their bytes are others.
    pub touched: Vec<PathBuf>,
    /// git writes some files in another form than it stores them.
    pub others: bool,
}

impl Git {
    /// The editor that git would open, a command for a shell (git-var(1), `GIT_EDITOR`).
    pub fn editor(&self) -> Result<String> {
        Ok(expect("var", self.cmd().args(["var", "GIT_EDITOR"]).limit(Duration::from_secs(10)).run()?)?.text())
    }

    /// Reads the attributes that hold for all worktrees of the repository.
    pub fn attributes(&self, common_dir: &Path) -> Result<Attributes> {
        let mut places = vec![common_dir.join("info/attributes")];
        // Everything that git calls a variable, in one call. The value of a setting may look like a line of it: then
        // one file more is read.
        let told = expect("var", self.cmd().args(["var", "-l"]).limit(Duration::from_secs(10)).run()?)?.text();
        let path = |line: &str| {
            let path = line.strip_prefix("GIT_ATTR_SYSTEM=").or_else(|| line.strip_prefix("GIT_ATTR_GLOBAL="));
            path.map(PathBuf::from)
        };
        let named: Vec<PathBuf> = told.lines().filter_map(path).collect();
        places.extend(if named.is_empty() { self.attribute_files()? } else { named });
        let mut text = Vec::new();
        for place in places {
            let read = files::read_capped(&place, 1 << 20).map_err(|_| unreadable("attributes"))?;
            text.extend(read.unwrap_or_default());
        }
        Ok(Attributes { text })
    }

    /// The files that git before 2.42 reads for all repositories, and does not tell (gitattributes(5)): where the
    /// system's may be, and the user's.
    fn attribute_files(&self) -> Result<Vec<PathBuf>> {
        let ask = |args: &[&str]| self.cmd().args(args).limit(Duration::from_secs(10)).run();
        let own = PathBuf::from(expect("--exec-path", ask(&["--exec-path"])?)?.text());
        let prefix =
            own.ancestors().nth(2).filter(|_| own.ends_with("git-core")).ok_or_else(|| unreadable("--exec-path"))?;
        let mut places = vec![PathBuf::from("/etc/gitattributes"), prefix.join("etc/gitattributes")];
        let named = ask(&["config", "--type=path", "--get", "core.attributesFile"])?;
        match (named.code, named.text()) {
            (Some(0), path) if !path.is_empty() => places.push(PathBuf::from(path)),
            (Some(0 | 1), _) => {
                let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
                let home = var("XDG_CONFIG_HOME").or_else(|| Some(var("HOME")?.join(".config")));
                places.extend(home.map(|home| home.join("git/attributes")));
            }
            _ => return Err(unreadable("core.attributesFile")),
        }
        Ok(places)
    }

    /// Whether two commits say the same of the forms of their files.
    pub fn same_attributes(&self, a: &str, b: &str) -> Result<bool> {
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", a, b, "--"];
        let output = expect("diff-tree", self.cmd().args(args).run()?)?;
        let named = |path: &[u8]| path.rsplit(|b| *b == b'/').next() == Some(b".gitattributes");
        Ok(!output.stdout.split(|b| *b == 0).any(named))
    }

    /// What is known of the forms of this worktree's files. `self` is the worktree.
    pub fn forms(&self, staged: &Staged, config: &GitConfig, attributes: Option<&Attributes>) -> Forms {
        let (Some(index), Some(tree)) = (&staged.index, &self.work_tree) else {
            return Forms { others: true, touched: Vec::new() };
        };
        let in_tree = index.attributes();
        let first = Index::read(&self.git_dir.join(FIRST_INDEX), index.hash());
        let of_first = first.as_ref().map(Index::attributes).unwrap_or_default();
        let says_nothing = in_tree.is_empty() && of_first.is_empty();
        if !config.converts() && says_nothing && attributes.is_some_and(Attributes::is_empty) {
            return Forms::default();
        }
        let since = |first: Option<&Index>| index.written_since(first, tree);
        let written = since(first.as_ref());
        // What was added meanwhile may have been added under other rules than those that stand there now.
        let rules_changed = in_tree != of_first || written.iter().any(|path| in_tree.contains(path));
        let asks = |path: &PathBuf| match files::read_capped(&tree.join(path), 1 << 20) {
            Ok(text) => asks_for_another_form(&text.unwrap_or_default()),
            Err(_) => true,
        };
        let others = config.writes_otherwise()
            || attributes.is_none_or(Attributes::ask_for_another_form)
            || rules_changed
            || in_tree.iter().any(asks);
        Forms { touched: if others { written } else { since(Some(index)) }, others }
    }

    /// Remembers what git itself has written by now: later a worker's `git add` takes whatever stands on disk for
    /// that, although git would write other bytes. `self` is the worktree.
    pub fn remember_checkout(&self) -> Result<()> {
        let (index, first) = (self.git_dir.join("index"), self.git_dir.join(FIRST_INDEX));
        // git never writes an index in place, so a second name keeps this one.
        let linked = std::fs::remove_file(&first).or_else(|e| match e.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        });
        let linked = linked.and_then(|()| std::fs::hard_link(&index, &first));
        linked
            .or_else(|_| files::copy_with_time(&index, &first).map_err(std::io::Error::other))
            .map_err(|_| unreadable("index"))
    }

    /// Files that were written after git wrote them; `None` where that cannot be told. `hash` is the length of an
    /// object name in bytes. `self` is the worktree.
    pub fn touched(&self, hash: usize) -> Option<Vec<PathBuf>> {
        let read = |name: &str| Index::read(&self.git_dir.join(name), hash);
        Some(read("index")?.written_since(read(FIRST_INDEX).as_ref(), self.work_tree.as_deref()?))
    }

    /// Writes files of the index in the form that git gives them, whatever stands there. `self` is the worktree.
    pub fn write_as_configured(&self, paths: &BTreeSet<PathBuf>) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let names: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
        let cmd = self.cmd().args(["checkout-index", "--force", "--index", "--quiet", "-z", "--stdin"]);
        let output = cmd.stdin(names.join(&0)).limit(Duration::from_mins(30)).run()?;
        expect("checkout-index", output).map(drop)
    }
}

/// Words of gitattributes(5) that change what is written; `text` alone does so only with a setting.
pub(super) fn asks_for_another_form(attributes: &[u8]) -> bool {
    let has = |word: &str| memchr::memmem::find(attributes, word.as_bytes()).is_some();
    ["filter", "ident", "crlf", "encoding"].into_iter().any(has)
}
