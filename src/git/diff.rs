//! The change between two commits.

use super::{Git, Result, expect, unreadable};
use crate::domain::receipt::DiffStat;

/// How many paths a receipt names.
const PATHS: usize = 100;

/// Nothing in the repository decides what is left out, and no program of its own what is shown.
const PLAIN: [&str; 3] = ["--no-ext-diff", "--no-textconv", "--ignore-submodules=none"];

impl Git {
    /// Files and lines changed from `base` to `head`.
    pub fn diff_stat(&self, base: &str, head: &str) -> Result<DiffStat> {
        let args = ["diff-tree", "-r", "-z", "--numstat", "--no-renames"];
        let output = expect("diff-tree", self.cmd().args(args).args(PLAIN).args([base, head, "--"]).run()?)?;
        let mut stat = DiffStat::default();
        for entry in output.stdout.split(|b| *b == 0).filter(|e| !e.is_empty()) {
            let text = String::from_utf8_lossy(entry);
            let mut fields = text.splitn(3, '\t');
            let (Some(added), Some(removed), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(unreadable("diff-tree"));
            };
            stat.files += 1;
            // Binary files have "-" for both.
            stat.added += added.parse::<u64>().unwrap_or(0);
            stat.removed += removed.parse::<u64>().unwrap_or(0);
            if stat.paths.len() < PATHS {
                stat.paths.push(path.to_owned());
            }
        }
        Ok(stat)
    }

    /// The change as a patch that `git apply` takes.
    pub fn patch(&self, base: &str, head: &str) -> Result<Vec<u8>> {
        let args = ["diff-tree", "-r", "-p", "--binary", "--full-index"];
        Ok(expect("diff-tree", self.cmd().args(args).args(PLAIN).args([base, head, "--"]).run()?)?.stdout)
    }

    /// The change as it is read: every byte of it, whatever attributes call binary.
    pub fn shown(&self, base: &str, head: &str) -> Result<Vec<u8>> {
        let args = ["diff-tree", "-r", "-p", "--text", "--full-index", "--no-renames"];
        Ok(expect("diff-tree", self.cmd().args(args).args(PLAIN).args([base, head, "--"]).run()?)?.stdout)
    }

    /// Changed paths from `base` to `head` that none of `globs` covers.
    pub fn changed_outside(&self, base: &str, head: &str, globs: &[String]) -> Result<Vec<String>> {
        let mut args = vec!["diff".to_owned(), "--name-only".into(), "-z".into(), "--no-renames".into()];
        args.extend(PLAIN.map(str::to_owned));
        args.extend([base.to_owned(), head.to_owned(), "--".into(), ":(top)".into()]);
        args.extend(globs.iter().map(|g| format!(":(top,exclude,glob){g}")));
        let output = expect("diff", self.cmd().args(args).run()?)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect())
    }
}
