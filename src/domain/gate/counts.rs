//! What test runners count, read from what they print. A claim like any other: it never makes a result better.

use serde::{Deserialize, Serialize};

/// Tests that were run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tests {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed, errors included.
    pub failed: u64,
    /// Those that were not run.
    pub skipped: u64,
}

impl Tests {
    /// As people say it.
    pub fn words(self) -> String {
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }
    fn add(&mut self, more: Self) {
        self.passed = self.passed.saturating_add(more.passed);
        self.failed = self.failed.saturating_add(more.failed);
        self.skipped = self.skipped.saturating_add(more.skipped);
    }
}

/// Adds up what runners say, line by line.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    /// The runner of Rust says it once for each binary, so it is added up.
    cargo: Option<Tests>,
    /// The others say it once, at their end.
    last: Option<Tests>,
    /// `go test -v` says it for each test.
    go: Option<Tests>,
}

impl Counter {
    /// Hears a line.
    pub fn line(&mut self, line: &str) {
        let plain = without_colour(line);
        let text = plain.trim();
        if let Some(rest) = text.strip_prefix("test result: ") {
            if let Some(tests) = words(rest, &[("passed", 0), ("failed", 1), ("ignored", 2)]) {
                self.cargo.get_or_insert_default().add(tests);
            }
        } else if let Some(rest) = text.strip_prefix("Summary [") {
            // nextest: "Summary [   0.4s] 12 tests run: 11 passed (1 leaky), 1 failed, 2 skipped"
            let said = rest.split_once(" run: ").map(|(_, said)| said);
            self.last = said
                .and_then(|s| words(s, &[("passed", 0), ("failed", 1), ("timed", 1), ("skipped", 2)]))
                .or(self.last);
        } else if text.starts_with("Tests: ") && text.ends_with(" total") {
            // jest: "Tests:       1 failed, 2 skipped, 12 passed, 15 total"
            self.last = words(&text[7..], &[("passed", 0), ("failed", 1), ("skipped", 2), ("todo", 2)]).or(self.last);
        } else if text.starts_with("Tests  ") && text.contains(['|', '(']) {
            // vitest: "Tests  1 failed | 12 passed | 2 skipped (15)"
            self.last = words(&text[7..], &[("passed", 0), ("failed", 1), ("skipped", 2), ("todo", 2)]).or(self.last);
        } else if text.starts_with('=') && text.ends_with('=') && text.contains(" in ") {
            // pytest: "==== 1 failed, 12 passed, 2 skipped in 0.31s ===="
            self.last = pytest(text).or(self.last);
        } else if text.contains(" in ") && text.ends_with('s') && text.starts_with(|c: char| c.is_ascii_digit()) {
            // pytest -q: "12 passed in 0.31s"
            self.last = pytest(text).or(self.last);
        } else {
            self.go_line(text);
        }
    }

    fn go_line(&mut self, text: &str) {
        let one = match text.split_once(": ") {
            Some(("--- PASS", _)) => Tests { passed: 1, ..Tests::default() },
            Some(("--- FAIL", _)) => Tests { failed: 1, ..Tests::default() },
            Some(("--- SKIP", _)) => Tests { skipped: 1, ..Tests::default() },
            _ => return,
        };
        self.go.get_or_insert_default().add(one);
    }

    /// What was counted, if anybody counted.
    pub fn tests(&self) -> Option<Tests> {
        let all: Vec<Tests> = [self.cargo, self.last, self.go].into_iter().flatten().collect();
        (!all.is_empty()).then(|| {
            all.into_iter().fold(Tests::default(), |mut sum, tests| {
                sum.add(tests);
                sum
            })
        })
    }
}

fn pytest(text: &str) -> Option<Tests> {
    let known =
        [("passed", 0), ("failed", 1), ("error", 1), ("errors", 1), ("skipped", 2), ("xpassed", 0), ("xfailed", 0)];
    let (said, took) = text.split_once(" in ")?;
    words(said, &known).filter(|_| took.starts_with(|c: char| c.is_ascii_digit()))
}

/// Numbers that stand before words: "11 passed, 1 failed".
fn words(text: &str, known: &[(&str, usize)]) -> Option<Tests> {
    let parts: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || ",;|.".contains(c)).filter(|p| !p.is_empty()).collect();
    let mut found = [None::<u64>; 3];
    for pair in parts.windows(2) {
        let at = known.iter().find(|(word, _)| *word == pair[1]).map(|(_, at)| *at);
        if let (Some(at), Ok(n)) = (at, pair[0].parse::<u64>()) {
            found[at] = Some(found[at].unwrap_or(0).saturating_add(n));
        }
    }
    let [passed, failed, skipped] = found;
    let any = passed.or(failed).or(skipped);
    any.map(|_| Tests { passed: passed.unwrap_or(0), failed: failed.unwrap_or(0), skipped: skipped.unwrap_or(0) })
}

/// A line without the sequences that colour it (ECMA-48 CSI).
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || ";:?".contains(c));
        rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

/// What a JUnit XML report counts: the `testsuite` elements that hold no other, which is what all of its dialects
/// agree on. `None` for what is none.
pub fn junit(xml: &str) -> Option<Tests> {
    let mut sum: Option<Tests> = None;
    let mut rest = xml;
    while let Some(at) = rest.find("<testsuite") {
        rest = &rest[at + "<testsuite".len()..];
        // `<testsuites` adds them up itself.
        if !rest.starts_with(|c: char| c.is_whitespace()) {
            continue;
        }
        let end = rest.find('>')?;
        let (tag, inner) = (&rest[..end], &rest[end + 1..]);
        let nested =
            inner.find("<testsuite").is_some_and(|next| inner.find("</testsuite").is_none_or(|close| next < close));
        if nested && !tag.ends_with('/') {
            continue;
        }
        let number = |name: &str| {
            let quoted = tag.split_once(&format!(" {name}=")).or_else(|| tag.split_once(&format!("\n{name}=")))?.1;
            let mark = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            quoted[1..].split(mark).next()?.parse::<u64>().ok()
        };
        let all = number("tests")?;
        let failed = number("failures").unwrap_or(0).saturating_add(number("errors").unwrap_or(0));
        let skipped = number("skipped").or_else(|| number("disabled")).unwrap_or(0);
        let passed = all.saturating_sub(failed).saturating_sub(skipped);
        sum.get_or_insert_default().add(Tests { passed, failed, skipped });
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Option<(u64, u64, u64)> {
        let mut counter = Counter::default();
        text.lines().for_each(|line| counter.line(line));
        counter.tests().map(|t| (t.passed, t.failed, t.skipped))
    }

    #[test]
    fn runners_are_understood() {
        let cargo = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                     test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out\n";
        assert_eq!(count(cargo), Some((3, 1, 1)));
        let nextest = "     Summary [   0.412s] 12 tests run: 11 passed (1 leaky), 1 failed, 2 skipped";
        assert_eq!(count(nextest), Some((11, 1, 2)));
        assert_eq!(count("\x1b[32m==== \x1b[1m1 failed\x1b[0m, 12 passed, 2 skipped in 0.31s ===="), Some((12, 1, 2)));
        assert_eq!(count("12 passed in 0.31s"), Some((12, 0, 0)));
        assert_eq!(count("=== 2 errors in 0.10s ==="), Some((0, 2, 0)));
        assert_eq!(count("Tests:       1 failed, 2 skipped, 12 passed, 15 total"), Some((12, 1, 2)));
        assert_eq!(count("      Tests  1 failed | 12 passed (13)"), Some((12, 1, 0)));
        assert_eq!(
            count("--- PASS: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n--- SKIP: TestC (0.00s)\nPASS"),
            Some((1, 1, 1))
        );
        // What only looks like it.
        for nothing in [
            "Tests: 3 passed",
            "we saw 3 passed, 9 total",
            "Tests  3 passed",
            "before 3 passed (3)",
            "== 3 passed in 2s",
            "of 3 passed in 2s ==",
            "== 3 passed, after 2s ==",
            "3 passed in 2s!",
            "all 3 passed in 2s",
            "3 passed after 2s",
        ] {
            assert_eq!(count(nothing), None, "{nothing:?}");
        }
        for nothing in ["", "3 passed the exam in class", "tests", "==== warnings in ====", "in 3s", "\x1b[", "\x1b[31"]
        {
            assert_eq!(count(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn counts_are_told_and_added() {
        let tests = |passed, failed, skipped| Tests { passed, failed, skipped };
        assert_eq!(tests(3, 1, 0).words(), "3 passed, 1 failed");
        assert_eq!(tests(3, 0, 2).words(), "3 passed, 0 failed, 2 skipped");
        // Of several runners in one output, each counts.
        assert_eq!(
            count("test result: ok. 2 passed; 0 failed; 1 ignored\n12 passed in 0.31s\n--- PASS: T"),
            Some((15, 0, 1))
        );
    }

    #[test]
    fn junit_reports_are_added_up() {
        let flat = r#"<?xml version="1.0"?><testsuites tests="9"><testsuite name="a" tests="4" failures="1" errors="1" skipped="1">
            <testcase/></testsuite><testsuite name='b' tests='2'/></testsuites>"#;
        assert_eq!(junit(flat), Some(Tests { passed: 3, failed: 2, skipped: 1 }));
        let nested = r#"<testsuite name="all" tests="3"><testsuite tests="3" failures="0"></testsuite></testsuite>"#;
        assert_eq!(junit(nested), Some(Tests { passed: 3, failed: 0, skipped: 0 }));
        assert_eq!(junit("<html>"), None);
        assert_eq!(junit("<testsuite tests=\"x\">"), None);
    }
}
