//! Unified diffs in the answer of a text worker. Pure: an answer in, one patch for `git apply` out.
//!
//! What is changed is what stands there; nothing of it is guessed. One thing is mended, the counts in
//! the head of a hunk: models write the lines and miscount them, and in a fenced block it is plain
//! where a hunk ends. Whatever else is not understood makes the whole answer unusable, because half
//! of a change is no change.

use serde::{Deserialize, Serialize};

/// What an answer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// No diff.
    Nothing,
    /// This patch.
    Patch(String),
    /// A diff that cannot be used, and why.
    Unusable(String),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// There was none.
    Nothing,
    /// It was applied and is this commit.
    Committed(String),
    /// The worktree no longer stood where it began, so it was left alone: the worker made commits, or
    /// this was done before.
    Stands,
    /// It was not applied, and nothing of it: why.
    Refused(String),
}

type Unusable = String;

/// Finds the change in an answer: every block fenced as `diff` or `patch`; without any, the diffs
/// that stand in the text.
pub fn find(answer: &str) -> Offer {
    let lines: Vec<&str> = answer.split('\n').collect();
    match read(&lines) {
        Ok(patch) if patch.is_empty() => Offer::Nothing,
        // Bytes that were no text have become this character: what it stands for is lost.
        Ok(patch) if patch.contains('\u{fffd}') => Offer::Unusable("it holds bytes that are no UTF-8".to_owned()),
        Ok(patch) => Offer::Patch(patch),
        Err(why) => Offer::Unusable(why),
    }
}

fn read(lines: &[&str]) -> Result<String, Unusable> {
    let blocks = fenced(lines)?;
    let mut patch = String::new();
    for block in &blocks {
        let before = patch.len();
        Reader { lines: block, fenced: true }.read(&mut patch)?;
        if patch.len() == before {
            return Err("a diff block names no file: it has no line `--- a/...`".to_owned());
        }
    }
    if blocks.is_empty() {
        Reader { lines, fenced: false }.read(&mut patch)?;
    }
    Ok(patch)
}

/// The opening line of a fence: its indentation, its length and what follows.
fn opening(line: &str) -> Option<(usize, usize, &str)> {
    let rest = line.trim_start_matches(' ');
    let info = rest.trim_start_matches('`');
    let length = rest.len() - info.len();
    (length >= 3 && !info.contains('`')).then(|| (line.len() - rest.len(), length, info.trim()))
}

/// The blocks that are fenced as a diff, without the indentation of their fence.
fn fenced<'a>(lines: &[&'a str]) -> Result<Vec<Vec<&'a str>>, Unusable> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some((indent, length, info)) = opening(lines[at]) else {
            at += 1;
            continue;
        };
        let is_diff = ["diff", "patch"]
            .iter()
            .any(|word| info.split_whitespace().next().is_some_and(|first| first.eq_ignore_ascii_case(word)));
        // A fence in a changed Markdown file stands behind the sign of its line.
        let closes = |line: &&str| {
            opening(line).is_some_and(|(i, n, rest)| rest.is_empty() && n >= length && (i == indent || !is_diff))
        };
        let end = lines[at + 1..].iter().position(closes).map(|n| at + 1 + n);
        match end {
            Some(end) if is_diff => {
                let inner = |line: &&'a str| {
                    let blanks = line.bytes().take(indent).take_while(|b| *b == b' ').count();
                    &line[blanks..]
                };
                blocks.push(lines[at + 1..end].iter().map(inner).collect());
            }
            None if is_diff => return Err("the answer ends within a diff block".to_owned()),
            Some(_) | None => {}
        }
        at = end.unwrap_or(at) + 1;
    }
    Ok(blocks)
}

/// Reads the files of a diff.
struct Reader<'a> {
    lines: &'a [&'a str],
    /// The lines are a diff and nothing else, so that a hunk ends where something else begins.
    fenced: bool,
}

/// What git writes between `diff --git` and the lines.
const EXTENDED: [&str; 11] = [
    "old mode ",
    "new mode ",
    "deleted file mode ",
    "new file mode ",
    "copy from ",
    "copy to ",
    "rename from ",
    "rename to ",
    "similarity index ",
    "dissimilarity index ",
    "index ",
];

impl Reader<'_> {
    fn line(&self, at: usize) -> &str {
        self.lines.get(at).map_or("", |line| line.trim_end_matches('\r'))
    }

    /// A file begins here.
    fn is_head(&self, at: usize) -> bool {
        let plain = self.line(at).starts_with("--- ")
            && self.line(at + 1).starts_with("+++ ")
            && self.line(at + 2).starts_with("@@ ");
        plain || self.line(at).starts_with("diff --git ")
    }

    fn read(&self, patch: &mut String) -> Result<(), Unusable> {
        let mut at = 0;
        while at < self.lines.len() {
            at = if self.is_head(at) { self.file(at, patch)? } else { at + 1 };
        }
        Ok(())
    }

    /// Takes one file; returns where it ends.
    fn file(&self, mut at: usize, patch: &mut String) -> Result<usize, Unusable> {
        let first = self.line(at);
        let by_git = first.starts_with("diff --git ");
        let mut says_something = false;
        if by_git {
            check_git_head(first)?;
            push(patch, first);
            at += 1;
            while EXTENDED.iter().any(|word| self.line(at).starts_with(word)) {
                says_something |= !self.line(at).starts_with("index ");
                push(patch, self.line(at));
                at += 1;
            }
            if self.line(at).starts_with("GIT binary patch") || self.line(at).starts_with("Binary files ") {
                return Err(format!("it holds a binary change: {first}"));
            }
        }
        if !(self.line(at).starts_with("--- ") && self.line(at + 1).starts_with("+++ ")) {
            return if says_something { Ok(at) } else { Err(format!("it changes nothing of a file: {first}")) };
        }
        check_names(self.line(at), self.line(at + 1), by_git)?;
        push(patch, self.line(at));
        push(patch, self.line(at + 1));
        at += 2;
        if !self.line(at).starts_with("@@ ") {
            return Err(format!("it changes no line of a file: {}", self.line(at - 1)));
        }
        while self.line(at).starts_with("@@ ") {
            at = self.hunk(at, patch)?;
        }
        Ok(at)
    }

    /// Takes one hunk; returns where it ends.
    fn hunk(&self, at: usize, patch: &mut String) -> Result<usize, Unusable> {
        let text = self.line(at);
        let head = Head::parse(text).ok_or_else(|| format!("a hunk has no line numbers: {text}"))?;
        let counted = self.by_counts(at + 1, head.old, head.new);
        if let Some(end) = counted.filter(|end| !self.fenced || self.is_boundary(*end)) {
            push(patch, text);
            for line in &self.lines[at + 1..end] {
                push(patch, line);
            }
            return Ok(end);
        }
        if !self.fenced {
            return Err(format!("the counts of a hunk do not fit its lines: {text}"));
        }
        self.recount(at, &head, patch)
    }

    /// Where a hunk ends that has as many lines as its head says.
    fn by_counts(&self, mut at: usize, mut old: u64, mut new: u64) -> Option<usize> {
        while old > 0 || new > 0 {
            let (before, after) = sides(self.lines.get(at)?)?;
            old = old.checked_sub(before)?;
            new = new.checked_sub(after)?;
            at += 1;
        }
        Some(if self.line(at).starts_with('\\') { at + 1 } else { at })
    }

    /// Nothing of a hunk stands here or follows before something else begins.
    fn is_boundary(&self, mut at: usize) -> bool {
        while at < self.lines.len() && self.line(at).is_empty() {
            at += 1;
        }
        // The last is the signature of `git format-patch`.
        at >= self.lines.len() || self.is_head(at) || self.line(at).starts_with("@@ ") || self.line(at) == "-- "
    }

    /// Takes every line up to where something else begins, and writes their number in the head.
    fn recount(&self, at: usize, head: &Head<'_>, patch: &mut String) -> Result<usize, Unusable> {
        let starts = |at: &usize| self.is_head(*at) || self.line(*at).starts_with("@@ ");
        let end = (at + 1..self.lines.len()).find(starts).unwrap_or(self.lines.len());
        let blank = |line: &&&str| line.trim_end_matches('\r').is_empty();
        let body = &self.lines[at + 1..end];
        let body = &body[..body.len() - body.iter().rev().take_while(blank).count()];
        let (mut old, mut new) = (0, 0);
        for line in body {
            let (before, after) = sides(line).ok_or_else(|| format!("a hunk holds a line of no diff: {line:?}"))?;
            (old, new) = (old + before, new + after);
        }
        push(patch, &format!("@@ -{},{old} +{},{new} @@{}", head.old_start, head.new_start, head.rest));
        for line in body {
            push(patch, line);
        }
        Ok(end)
    }
}

fn push(patch: &mut String, line: &str) {
    patch.push_str(line);
    patch.push('\n');
}

/// How many lines a line of a hunk is before and after the change. An empty one is an empty line of
/// context whose blank was lost.
fn sides(line: &str) -> Option<(u64, u64)> {
    match line.bytes().next() {
        Some(b' ' | b'\r') | None => Some((1, 1)),
        Some(b'-') => Some((1, 0)),
        Some(b'+') => Some((0, 1)),
        Some(b'\\') => Some((0, 0)),
        Some(_) => None,
    }
}

/// `git apply` takes the first part of every path away, whatever it is: only these two are one that
/// may go.
fn check_git_head(line: &str) -> Result<(), Unusable> {
    let names = line.trim_start_matches("diff --git ");
    let good =
        (names.starts_with("a/") || names.starts_with("\"a/")) && (names.contains(" b/") || names.contains(" \"b/"));
    if good { Ok(()) } else { Err(format!("its paths do not begin with a/ and b/: {line}")) }
}

fn check_names(old: &str, new: &str, by_git: bool) -> Result<(), Unusable> {
    const NONE: &str = "/dev/null";
    let name = |line: &str, sign: &str, side: &str| {
        let name = line.trim_start_matches(sign).split('\t').next().unwrap_or_default().trim_end().to_owned();
        let bare = name.trim_start_matches('"');
        let known = bare.starts_with(side) || name == NONE;
        let shown = if known { bare.trim_start_matches(side).to_owned() } else { String::new() };
        known.then_some(if name == NONE { name } else { shown })
    };
    let wrong = |line: &str| format!("its paths do not begin with a/ and b/: {line}");
    let before = name(old, "--- ", "a/").ok_or_else(|| wrong(old))?;
    let after = name(new, "+++ ", "b/").ok_or_else(|| wrong(new))?;
    if by_git || before == after || before == NONE || after == NONE {
        return Ok(());
    }
    Err(format!("it names two files and does not say that one becomes the other: {old}, {new}"))
}

/// The head of a hunk: `@@ -1,2 +1,3 @@ fn main()`.
struct Head<'a> {
    old_start: u64,
    old: u64,
    new_start: u64,
    new: u64,
    rest: &'a str,
}

impl<'a> Head<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (ranges, rest) = line.strip_prefix("@@ -")?.split_once(" @@")?;
        let (old, new) = ranges.split_once(" +")?;
        let range = |text: &str| {
            let (start, count) = text.split_once(',').unwrap_or((text, "1"));
            Some((start.parse::<u32>().ok()?.into(), count.parse::<u32>().ok()?.into()))
        };
        let ((old_start, old), (new_start, new)) = (range(old)?, range(new)?);
        Some(Self { old_start, old, new_start, new, rest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n";
    const TWO: &str = "diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n";

    fn patch(answer: &str) -> String {
        match find(answer) {
            Offer::Patch(patch) => patch,
            other => panic!("{other:?}"),
        }
    }

    fn unusable(answer: &str, why: &str) {
        match find(answer) {
            Offer::Unusable(said) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}\n{answer}"),
        }
    }

    #[test]
    fn every_fenced_block_is_taken_as_it_stands() {
        assert_eq!(patch(&format!("Well.\n```diff\n{ONE}```\nand\n\n```PATCH x\n{TWO}\n```\n")), format!("{ONE}{TWO}"));
        // A list indents its blocks; a longer fence may hold a shorter one.
        let indented = ONE.replace('\n', "\n   ");
        assert_eq!(patch(&format!("1. so\n   ```diff\n   {indented}```\n")), ONE);
        let markdown = "--- a/x.md\n+++ b/x.md\n@@ -1,2 +1,3 @@\n ```\n+```diff\n ```\n";
        assert_eq!(patch(&format!("```diff\n{markdown}```")), markdown);
        assert_eq!(patch(&format!("````diff\n{markdown}````")), markdown);
        // What stands before the first file and what `git format-patch` signs with is no change.
        assert_eq!(patch(&format!("```diff\nSubject: x\n\n{ONE}-- \n2.47.3\n```\n")), ONE);
    }

    #[test]
    fn a_bare_diff_ends_where_its_counts_say() {
        assert_eq!(patch(&format!("I did:\n\n{ONE}- and a list\n- of things\n\n{TWO}\nBye.")), format!("{ONE}{TWO}"));
        // A fence without a name is no more than lines around it.
        assert_eq!(patch(&format!("```\n{ONE}```\n")), ONE);
        unusable(&ONE.replace("-1,2", "-1,9"), "counts");
    }

    #[test]
    fn miscounted_hunks_are_counted_again_in_a_block() {
        for wrong in ["@@ -1,9 +1,9 @@", "@@ -1 +1 @@", "@@ -1,1 +1,7 @@"] {
            assert_eq!(patch(&format!("```diff\n{}\n```", ONE.replace("@@ -1,2 +1,2 @@", wrong))), ONE, "{wrong}");
        }
        // Even where another file follows without git's own head.
        let both = format!("{ONE}{}", ONE.replace('x', "y"));
        assert_eq!(patch(&format!("```diff\n{}```", both.replace("1,2 +", "1,5 +"))), both);
        unusable("```diff\n--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n one\nand so on\n```", "and so on");
    }

    #[test]
    fn what_looks_like_a_head_is_one_only_in_its_place() {
        // A line that goes and begins with two dashes, one that comes and begins with two plus signs.
        for lines in [ONE.replace("-two", "--- two"), ONE.replace("-two", "--- two").replace("+2", "+++ 2")] {
            let wrong = lines.replace("-1,2 +1,2", "-1,7 +1");
            assert_eq!(patch(&format!("```diff\n{wrong}```\n")), lines);
        }
        // Only what is fenced as a diff is one, where anything is; and what is quoted within another fence is not.
        assert_eq!(patch(&format!("```text\n{TWO}```\n```diff\n{ONE}```\n")), ONE);
        unusable(&format!("````\n```diff\n{}```\n````\n", ONE.replace("-1,2", "-1,9")), "counts");
    }

    #[test]
    fn line_ends_stay_with_the_lines_and_not_with_the_heads() {
        let crlf = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-one\r\n+1\r\n\\ No newline at end of file\n";
        assert_eq!(
            patch(&format!("```diff\r\n{}```\r\n", crlf.replace("@@\n", "@@\r\n").replace("x\n", "x\r\n"))),
            crlf
        );
    }

    #[test]
    fn no_diff_is_nothing_and_half_a_diff_is_unusable() {
        for nothing in [
            "",
            "A report.\n\n---\n\nMore.",
            "```rust\nlet x = 1;\n```",
            "- a\n+ b\n",
            "```\ndiff -u\n```",
            "```rust\nlet x = 1;",
        ] {
            assert_eq!(find(nothing), Offer::Nothing, "{nothing}");
        }
        unusable(&format!("```diff\n{ONE}"), "ends within a diff block");
        unusable("```diff\n- old\n+ new\n```", "names no file");
        unusable("```diff\n--- a/x\n+++ b/x\n@@ ... @@\n-a\n```", "no line numbers");
        unusable("diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 1\n", "binary");
        unusable("diff --git a/x b/x\nBinary files a/x and b/x differ\n", "binary");
        unusable("diff --git a/x b/x\nindex 1..2 100644\n", "changes nothing");
        unusable("diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n@@ -1 +1 @@\n-a\n+b\n", "changes nothing");
        unusable(&ONE.replace("two", "\u{fffd}"), "UTF-8");
        for paths in [("a/x", "x"), ("b/x", "/etc/x"), ("a/x", "../x")] {
            unusable(&ONE.replace(paths.0, paths.1), "do not begin with a/ and b/");
        }
        unusable(&TWO.replace("a/old", "old"), "do not begin with a/ and b/");
        unusable(&ONE.replace("b/x", "b/y"), "two files");
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(lines in prop::collection::vec(
            prop_oneof![
                Just("```diff"), Just("```"), Just("--- a/x"), Just("+++ b/x"), Just("@@ -1,2 +1,1 @@"), Just("@@ -1 +1"),
                Just(" c"), Just("-c"), Just("+c"), Just(""), Just("\r"), Just("\\ No newline"), Just("diff --git a/x b/x"),
                Just("rename from x"), Just("ä"), Just("   ```"), Just("  --- a/x")
            ], 0..40,
        )) {
            let answer = lines.join("\n");
            if let Offer::Patch(patch) = find(&answer) {
                // What is found is found again, and is the same.
                prop_assert_eq!(find(&format!("`````diff\n{patch}`````\n")), Offer::Patch(patch));
            }
        }
    }
}
