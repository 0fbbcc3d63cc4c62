//! Finding the repository by its files alone (gitrepository-layout(5)): commands that only read
//! need no git process, which keeps them under a few milliseconds. `vnx doctor` checks the
//! answer against git's own.

use std::path::{Path, PathBuf};

use crate::domain::Fault;

/// A repository and the checkout that a command runs in. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The root of this checkout.
    pub top: PathBuf,
    /// The git folder of this checkout.
    pub git_dir: PathBuf,
    /// The git folder shared by all checkouts.
    pub common_dir: PathBuf,
    /// There is no main checkout: all are linked worktrees.
    pub bare: bool,
}

/// Finds the checkout that `from` lies in.
pub fn locate(from: &Path) -> Result<Located, Fault> {
    let start = from
        .canonicalize()
        .map_err(|e| Fault::input(format!("cannot open the folder {}: {e}", from.display())).fix("check --project"))?;
    for folder in start.ancestors() {
        let dot_git = folder.join(".git");
        if dot_git.is_dir() && is_git_dir(&dot_git) {
            return finish(folder, &dot_git);
        }
        if dot_git.is_file() {
            let git_dir = read_pointer(&dot_git, "gitdir: ").map(|p| folder.join(p)).ok_or_else(|| {
                Fault::environment(format!("{} is not a valid git link", dot_git.display()))
                    .fix("run `git worktree repair`")
            })?;
            return finish(folder, &git_dir);
        }
        if is_git_dir(folder) {
            let is_dot_git = folder.file_name().is_some_and(|n| n == ".git");
            let what = if is_dot_git { "inside a .git folder" } else { "a bare repository" };
            return Err(no_checkout(folder, what));
        }
    }
    Err(Fault::environment(format!("{} is not inside a git repository", start.display()))
        .fix("run `git init` and commit something, or go to your repository"))
}

fn is_git_dir(path: &Path) -> bool {
    path.join("HEAD").exists() && path.join("objects").is_dir() && path.join("refs").exists()
}

fn read_pointer(file: &Path, prefix: &str) -> Option<PathBuf> {
    let text = crate::sys::files::read_text(file).ok()?;
    let path = text.strip_prefix(prefix)?.trim_end_matches(['\n', '\r']);
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn finish(top: &Path, git_dir: &Path) -> Result<Located, Fault> {
    let broken = |path: &Path| {
        Fault::environment(format!("the git folder {} cannot be opened", path.display()))
            .fix("run `git worktree repair`")
    };
    let git_dir = git_dir.canonicalize().map_err(|_| broken(git_dir))?;
    let common_dir = match read_pointer(&git_dir.join("commondir"), "") {
        Some(relative) => git_dir.join(relative),
        None => git_dir.clone(),
    };
    let common_dir = common_dir.canonicalize().map_err(|_| broken(&common_dir))?;
    let bare = is_bare(&common_dir);
    if bare && git_dir == common_dir {
        return Err(no_checkout(top, "the folder of a bare repository"));
    }
    Ok(Located { top: top.to_owned(), git_dir, common_dir, bare })
}

fn no_checkout(folder: &Path, what: &str) -> Fault {
    Fault::environment(format!("{} is {what}, and vnx needs a checkout", folder.display()))
        .fix("run it in a checkout: `git clone` or `git worktree add` makes one")
}

/// Whether a repository says that it has no checkout of its own (git-config(1), `core.bare`). git writes that into one
/// of two files.
fn is_bare(common_dir: &Path) -> bool {
    let says_so = |name: &str| {
        let text = crate::sys::files::read_text(&common_dir.join(name)).unwrap_or_default().to_ascii_lowercase();
        let mut section = "";
        let settings = text.lines().map(str::trim).filter_map(|line| {
            if line.starts_with('[') {
                section = line;
                return None;
            }
            line.split_once('=').filter(|_| section == "[core]")
        });
        settings.into_iter().any(|(key, value)| key.trim() == "bare" && value.trim() == "true")
    };
    ["config", "config.worktree"].into_iter().any(says_so)
}

/// A git folder: that of a repository, or what it has of a worktree.
fn is_of_git(path: &Path) -> bool {
    path.join("HEAD").exists()
}

/// The main checkout of a git folder, or the folder itself where it stands alone. That of a worktree,
/// `<git folder>/worktrees/<name>`, is its repository's.
fn main_of(git_dir: &Path) -> &Path {
    let above = git_dir.parent().filter(|above| above.ends_with("worktrees")).and_then(Path::parent);
    let common = above.filter(|common| is_git_dir(common)).unwrap_or(git_dir);
    if common.ends_with(".git") { common.parent().unwrap_or(common) } else { common }
}

impl Located {
    /// The root of the main checkout, beside which worktrees are put.
    pub fn main_top(&self) -> PathBuf {
        match (self.common_dir.file_name(), self.common_dir.parent()) {
            (Some(name), Some(parent)) if name == ".git" && !self.bare => parent.to_owned(),
            // A separate git folder: the checkout itself is the best that is known.
            _ => self.top.clone(),
        }
    }

    /// Where worktrees are put beside, and what `worktree.root` is relative to: the same for every checkout, so it
    /// is the main one, or what stands for it where there is none (a bare repository, a git folder elsewhere).
    pub fn beside(&self) -> PathBuf {
        let common = &self.common_dir;
        if common.ends_with(".git") {
            return common.parent().unwrap_or(common).to_owned();
        }
        // A submodule's, `<superproject's git folder>/modules/<name>`: outside of the superproject, too.
        let is_inside = |folder: &&Path| folder.ends_with("modules") && folder.parent().is_some_and(is_of_git);
        let inside = common.ancestors().skip(1).filter(is_inside).last();
        if let Some((modules, below)) = inside.and_then(|modules| Some((modules, common.strip_prefix(modules).ok()?))) {
            let main = main_of(modules.parent().unwrap_or(modules));
            let mut name = main.file_name().map_or_else(|| "repository".into(), std::ffi::OsStr::to_owned);
            for part in below {
                name.push(".");
                name.push(part);
            }
            return main.with_file_name(name);
        }
        // A folder with a dot is none that tools look into.
        let name = common.file_name().map(|name| name.to_string_lossy().trim_start_matches('.').to_owned());
        common.with_file_name(name.filter(|name| !name.is_empty()).unwrap_or_else(|| "repository".to_owned()))
    }

    /// What people call the repository, whichever of its checkouts they are in.
    pub fn name(&self) -> String {
        let common = &self.common_dir;
        let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // `.git`, and `.bare` in a folder of worktrees.
        if last(common).starts_with('.') {
            return common.parent().map(last).unwrap_or_default();
        }
        let name = last(&if self.bare { common.clone() } else { self.beside() });
        name.strip_suffix(".git").map_or(name.clone(), str::to_owned)
    }

    /// `<repository>.worktrees` beside it: the same file system, outside the repository, so that no tool inherits its
    /// configuration and none refuses to run there.
    pub fn default_worktrees(&self) -> PathBuf {
        let main = self.beside();
        let mut name = main.file_name().map_or_else(|| "repository".into(), std::ffi::OsStr::to_owned);
        name.push(".worktrees");
        main.with_file_name(name)
    }
}
