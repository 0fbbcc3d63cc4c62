//! Which commits there are that others do not have, and whether all of them is there.

use std::collections::BTreeSet;

use super::{Git, Result, expect};

impl Git {
    /// Those of `tips` that none of these commits reaches. One that is not there any more is left out.
    pub fn unreachable_tips<'a>(
        &self,
        tips: &[String],
        from: impl Iterator<Item = &'a String>,
    ) -> Result<BTreeSet<String>> {
        let mut input: String = tips.iter().flat_map(|oid| [oid.as_str(), "\n"]).collect();
        input.extend(from.flat_map(|oid| ["^", oid, "\n"]));
        let cmd = self.cmd().args(["rev-list", "--ignore-missing", "--stdin"]).stdin(input);
        let listed: BTreeSet<String> = expect("rev-list", cmd.run()?)?.text().lines().map(str::to_owned).collect();
        // A tag is an object of its own, which nothing else names.
        let kinds = self.kinds_of(tips)?;
        Ok(kinds.into_iter().filter(|(oid, kind)| kind == "tag" || listed.contains(oid)).map(|(oid, _)| oid).collect())
    }

    /// Commits among `tips` (and their ancestors) that no branch, tag or remote ref reaches. A rescue does not count:
    /// the next one of the same worktree takes its place, and another one may be dropped.
    pub fn unreachable_from_refs(&self, tips: &[String]) -> Result<Vec<String>> {
        let mut input = String::new();
        for tip in tips {
            input.push_str(tip);
            input.push('\n');
        }
        let options = ["--not", "--branches", "--tags", "--remotes"];
        let output = expect("rev-list", self.cmd().args(["rev-list", "--stdin"]).args(options).stdin(input).run()?)?;
        Ok(output.text().lines().map(str::to_owned).collect())
    }
}

/// Whether git complains of an object that ought to be there.
pub(super) fn is_loss(complaint: &str) -> bool {
    [
        "missing blob",
        "missing object",
        "missing tree object",
        "missing commit object",
        "bad object",
        "bad tree object",
        "unable to read tree",
        "Not a valid commit name",
        "Blob not found",
    ]
    .iter()
    .any(|words| complaint.contains(words))
}
