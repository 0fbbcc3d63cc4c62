//! Which ignored files of the main checkout a worktree gets: the patterns of the configuration, and what is
//! there now.

use std::collections::BTreeSet;
use std::path::Path;

use crate::domain::Fault;
use crate::domain::glob::Glob;
use crate::git::Git;
use crate::project::Project;

/// How many paths a worktree may get.
const MOST: usize = 1000;

/// Paths relative to the main checkout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supplies {
    /// Copied or cloned.
    pub copies: Vec<String>,
    /// Linked to.
    pub links: Vec<String>,
    /// Named in the configuration and not there.
    pub absent: Vec<String>,
}

/// Finds them.
pub fn supplies(project: &Project) -> Result<Supplies, Fault> {
    let config = &project.config.worktree;
    let mut found = Supplies::default();
    if config.copy.is_empty() && config.link.is_empty() {
        return Ok(found);
    }
    let main = project.located.main_top();
    let git_dir = main.join(".git");
    let git = Git::tree(if git_dir.is_dir() { git_dir } else { project.located.git_dir.clone() }, &main);
    let look =
        Look { file: project.folder().join("config.yaml").display().to_string(), ignored: git.ignored()?, git, main };
    found.links = look.all("worktree.link", &config.link, &mut found.absent)?;
    found.copies = look.all("worktree.copy", &config.copy, &mut found.absent)?;
    let within = |path: &str, other: &str| path.strip_prefix(other).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    for link in &found.links {
        if let Some(copy) = found.copies.iter().find(|copy| within(copy, link) || within(link, copy)) {
            return Err(look.wrong(&format!("{copy} is to be copied and {link} to be linked"), "name it once"));
        }
    }
    // What lies in a folder comes with it.
    let folders = found.copies.clone();
    found.copies.retain(|path| !folders.iter().any(|other| other != path && within(path, other)));
    Ok(found)
}

/// Where environment files stand that tools read, by their usual name.
const ENVIRONMENT_FILES: &str = ".env*";

/// What stands in a checkout and not in the worktree of a dispatch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacking {
    /// What is not committed.
    pub uncommitted: Vec<String>,
    /// Ignored environment files that the configuration neither copies nor links.
    pub environment_files: Vec<String>,
}

/// Looks at the checkout that the project was opened in. Nothing where it cannot be read: it is a hint.
pub fn lacking(project: &Project) -> Lacking {
    let git = Git::tree(&project.located.git_dir, &project.located.top);
    let mut uncommitted = git.uncommitted().unwrap_or_default();
    // Agents and configuration count as they stand here.
    uncommitted.retain(|path| !path.starts_with(".vnx/"));
    let mut environment_files = git.ignored_here(ENVIRONMENT_FILES).unwrap_or_default();
    if !environment_files.is_empty() {
        let given = supplies(project).unwrap_or_default();
        environment_files.retain(|path| !given.copies.iter().chain(&given.links).any(|other| other == path));
    }
    Lacking { uncommitted, environment_files }
}

struct Look {
    file: String,
    main: std::path::PathBuf,
    git: Git,
    /// What git ignores, folders as one.
    ignored: Vec<String>,
}

impl Look {
    fn wrong(&self, what: &str, fix: &str) -> Fault {
        Fault::input(format!("{}: {what}", self.file)).fix(fix)
    }

    fn all(&self, key: &str, patterns: &[String], absent: &mut Vec<String>) -> Result<Vec<String>, Fault> {
        let mut all = BTreeSet::new();
        for pattern in patterns {
            let glob =
                Glob::parse(pattern).map_err(|why| self.wrong(&format!("{key}, {pattern:?}: {why}"), "correct it"))?;
            let found = self.one(&glob);
            if found.is_empty() && glob.is_literal() {
                self.refuse_what_is_not_ignored(key, pattern.trim_end_matches('/'))?;
                absent.push(pattern.clone());
            }
            all.extend(found);
        }
        if all.len() > MOST {
            return Err(
                self.wrong(&format!("{key} names {} paths, more than {MOST}", all.len()), "name folders instead")
            );
        }
        for path in &all {
            self.refuse_what_leads_out(key, path)?;
        }
        Ok(all.into_iter().collect())
    }

    fn one(&self, glob: &Glob) -> Vec<String> {
        let mut found = Vec::new();
        for path in &self.ignored {
            let path = path.trim_end_matches('/');
            if glob.matches(path) {
                found.push(path.to_owned());
            } else if let Some(rest) = glob.below(path) {
                walk(&self.main, path, &rest, &mut found);
            }
        }
        found
    }

    /// A name that is there and not taken is a mistake, and not nothing.
    fn refuse_what_is_not_ignored(&self, key: &str, path: &str) -> Result<(), Fault> {
        if self.main.join(path).symlink_metadata().is_err() {
            return Ok(());
        }
        if self.git.is_tracked(path)? {
            return Err(self.wrong(
                &format!("{key} names {path}, which git tracks"),
                "take it out: a worktree has it from its commit",
            ));
        }
        Err(self.wrong(
            &format!("{key} names {path}, which git does not ignore"),
            "add it to .gitignore, or a worker could commit it by accident",
        ))
    }

    fn refuse_what_leads_out(&self, key: &str, path: &str) -> Result<(), Fault> {
        let real = self.main.join(path).canonicalize();
        let main = self.main.canonicalize();
        let inside = matches!((&real, &main), (Ok(real), Ok(main)) if real.starts_with(main) && !real.starts_with(main.join(".git")));
        if inside {
            return Ok(());
        }
        Err(self.wrong(
            &format!("{key} takes {path}, a symbolic link that leads out of the main checkout, or nowhere"),
            "take it out, or put the file itself there",
        ))
    }
}

/// Follows a pattern into a folder that git lists as one.
fn walk(main: &Path, folder: &str, glob: &Glob, found: &mut Vec<String>) {
    let (step, rest) = glob.step();
    for name in crate::sys::files::names(&main.join(folder)).unwrap_or_default() {
        if !step.matches(&name) || found.len() > MOST {
            continue;
        }
        let path = format!("{folder}/{name}");
        match &rest {
            None => found.push(path),
            // No link is followed on the way.
            Some(rest) if main.join(&path).symlink_metadata().is_ok_and(|m| m.is_dir()) => {
                walk(main, &path, rest, found);
            }
            Some(_) => {}
        }
    }
}
