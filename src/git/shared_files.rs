//! Files outside of worktrees that hold for every worktree: what git ignores (gitignore(5)) and the attributes of files
//! (gitattributes(5)). Whoever changes one changes what is seen of the work of all others, and what their merges come to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::{FIRST_INDEX, Git, GitConfig, Result, Staged, Status, unreadable};
use crate::sys::files::{self, At};

/// More of one is not read.
const MAX: u64 = 4 << 20;

/// One of these files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedFile {
    /// `info/exclude` of the repository.
    RepositoryExcludes,
    /// `core.excludesFile` of the user.
    UserExcludes,
    /// `info/attributes` of the repository.
    RepositoryAttributes,
    /// `core.attributesFile` of the user.
    UserAttributes,
}

impl SharedFile {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RepositoryExcludes, Self::UserExcludes, Self::RepositoryAttributes, Self::UserAttributes];

    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RepositoryExcludes => ".git/info/exclude",
            Self::UserExcludes => "the user's git ignore file (core.excludesFile)",
            Self::RepositoryAttributes => ".git/info/attributes",
            Self::UserAttributes => "the user's git attributes file (core.attributesFile)",
        }
    }

    /// Where it stands; `None` for a user without a home.
    fn path(self, common_dir: &Path, config: &GitConfig) -> Option<PathBuf> {
        let of_user = |key: &str, name: &str| {
            let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            match config.value(key).filter(|path| !path.is_empty()) {
                Some(path) => match path.strip_prefix("~/") {
                    Some(rest) => Some(var("HOME")?.join(rest)),
                    None => Some(PathBuf::from(path)),
                },
                None => {
                    Some(var("XDG_CONFIG_HOME").or_else(|| Some(var("HOME")?.join(".config")))?.join("git").join(name))
                }
            }
        };
        match self {
            Self::RepositoryExcludes => Some(common_dir.join("info/exclude")),
            Self::UserExcludes => of_user("core.excludesfile", "ignore"),
            Self::RepositoryAttributes => Some(common_dir.join("info/attributes")),
            Self::UserAttributes => of_user("core.attributesfile", "attributes"),
        }
    }
}

/// What they say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SharedFiles(BTreeMap<SharedFile, String>);

impl SharedFiles {
    /// Reads them; one that is not there says nothing.
    pub fn read(common_dir: &Path, config: &GitConfig) -> Result<Self> {
        let mut all = BTreeMap::new();
        for file in SharedFile::ALL {
            let Some(path) = file.path(common_dir, config) else { continue };
            let bytes = match files::read_capped(&path, MAX) {
                // A home that is no folder (`/dev/null`) has nothing in it.
                Err(e) if e.source.kind() == ErrorKind::NotADirectory => None,
                other => other?,
            };
            let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            if !text.is_empty() {
                all.insert(file, text);
            }
        }
        Ok(Self(all))
    }

    /// What one says; nothing where there is none.
    pub fn text(&self, file: SharedFile) -> &str {
        self.0.get(&file).map_or("", String::as_str)
    }

    /// Puts another text in the place of one.
    pub fn set(&mut self, file: SharedFile, text: &str) {
        self.0.insert(file, text.to_owned());
    }

    /// Those that say something else than others do.
    pub fn differing(&self, others: &Self) -> Vec<SharedFile> {
        SharedFile::ALL.into_iter().filter(|file| self.text(*file) != others.text(*file)).collect()
    }

    /// Whether they ignore the same.
    pub fn excludes_like(&self, others: &Self) -> bool {
        let excludes = [SharedFile::RepositoryExcludes, SharedFile::UserExcludes];
        excludes.iter().all(|file| self.text(*file) == others.text(*file))
    }
}

/// Which rules may hide files of a worktree.
#[derive(Debug, Clone, Copy)]
pub struct IgnoreRules<'a> {
    /// The commit that the worktree was made with, whose `.gitignore` files count.
    pub base: &'a str,
    /// The files outside of the worktree that count.
    pub counted: &'a SharedFiles,
    /// The same files as they are now.
    pub now: &'a SharedFiles,
}

impl Git {
    /// Ignored paths that only rules hide which were not there when the worker began: what it has written into its
    /// `.gitignore`, or anybody into the files that hold for all worktrees. A tool's own folder that ignores itself
    /// (`.venv/.gitignore` with a `*`) hides nothing of a project. `self` is the worktree; `scratch` is a folder of ours.
    pub fn newly_hidden(
        &self,
        rules: IgnoreRules<'_>,
        staged: &Staged,
        status: &Status,
        scratch: &Path,
    ) -> Result<Vec<PathBuf>> {
        let tree = self.work_tree.as_deref().ok_or_else(|| unreadable("check-ignore"))?;
        if status.ignored.is_empty() {
            return Ok(Vec::new());
        }
        let same_excludes = rules.counted.excludes_like(rules.now);
        let tracked = self.rule_files(staged)?;
        let is_rule = |path: &&PathBuf| path.file_name().is_some_and(|name| name == ".gitignore");
        let loose = status.untracked.iter().chain(&status.ignored).filter(is_rule);
        let of_tool = |path: &PathBuf| {
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            folder.is_some_and(|folder| !tracked.folders.contains(folder))
        };
        let (of_tools, of_project): (Vec<&PathBuf>, Vec<&PathBuf>) = loose.partition(|path| of_tool(path));
        let first = self.first_rule_files(rules.base)?;
        let edited = status.changed.iter().any(|changed| is_rule(&&changed.path));
        if same_excludes && of_project.is_empty() && !edited && tracked.files == first {
            return Ok(Vec::new());
        }
        let root = scratch.join("rules");
        files::delete_tree(&root)?;
        let (git_dir, place) = (root.join("git"), root.join("tree"));
        let asked = || -> Result<Vec<PathBuf>> {
            let write = |path: &Path, bytes: &[u8]| -> Result<()> {
                let path = place.join(path);
                let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                made.at("create", &path)?;
                Ok(files::replace(&path, bytes)?)
            };
            write(Path::new(".gitignore"), b"")?;
            let (paths, oids): (Vec<&PathBuf>, Vec<&str>) =
                first.iter().map(|(path, oid)| (path, oid.as_str())).unzip();
            for (path, text) in paths.iter().zip(self.texts(oids)?) {
                write(path, text.as_bytes())?;
            }
            for path in of_tools {
                let text = files::read_capped(&tree.join(path), MAX).ok().flatten().unwrap_or_default();
                write(path, &text)?;
            }
            let user = root.join("user");
            let git = Self::room(&git_dir, &root.join("none"), &place, &git_dir, rules.base.len() / 2)?;
            let exclude = rules.counted.text(SharedFile::RepositoryExcludes);
            files::private_folder(&git_dir.join("info"))?;
            files::replace(&git_dir.join("info/exclude"), exclude.as_bytes())?;
            files::replace(&user, rules.counted.text(SharedFile::UserExcludes).as_bytes())?;
            git.not_ignored_by(&user, &status.ignored)
        };
        let found = asked();
        files::delete_tree(&root)?;
        found
    }

    /// The `.gitignore` files in the index, and every folder that has a tracked file.
    fn rule_files(&self, staged: &Staged) -> Result<Tracked> {
        let entries: Vec<(PathBuf, String)> = match &staged.index {
            Some(index) => index.objects(),
            None => {
                self.index_entries()?.into_iter().map(|mut e| (e.path, e.staged.pop().unwrap_or_default())).collect()
            }
        };
        let mut tracked = Tracked::default();
        for (path, oid) in entries {
            let above = path.ancestors().skip(1).filter(|folder| *folder != Path::new(""));
            for folder in above {
                if !tracked.folders.insert(folder.to_owned()) {
                    break;
                }
            }
            if path.file_name().is_some_and(|name| name == ".gitignore") {
                tracked.files.insert(path, oid);
            }
        }
        Ok(tracked)
    }

    /// The `.gitignore` files that the worktree was made with.
    fn first_rule_files(&self, base: &str) -> Result<BTreeMap<PathBuf, String>> {
        let entries = match Index::read(&self.git_dir.join(FIRST_INDEX), base.len() / 2) {
            Some(first) => first.objects(),
            None => self.files_of(base)?.into_iter().map(|entry| (entry.path, entry.oid)).collect(),
        };
        Ok(entries.into_iter().filter(|(path, _)| path.file_name().is_some_and(|name| name == ".gitignore")).collect())
    }
}

/// What the index tracks, as far as rules are about it.
#[derive(Default)]
struct Tracked {
    files: BTreeMap<PathBuf, String>,
    folders: BTreeSet<PathBuf>,
}
