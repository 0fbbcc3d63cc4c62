//! What a reviewer says. Only one form of it counts: one JSON object, alone, for this very question.
//!
//! Everything else (prose, several objects, unknown words, another question's nonce, a pass beside a
//! finding that forbids it) is `unverified`: it holds, and nobody guesses what was meant.

use serde::{Deserialize, Serialize};

use super::GateStatus;
use crate::domain::line::{is_ignorable, summary};

/// The version of the form.
pub const SCHEMA: &str = "vnx.review/1";
/// The longest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;
/// How many findings are taken.
const MAX_FINDINGS: usize = 200;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a thought.
    Nit,
    /// Should be mended some day.
    Minor,
    /// Must be mended before it lands.
    Major,
    /// Harms users, or loses data.
    Blocker,
}

impl Severity {
    /// It forbids a pass.
    pub fn blocks(self) -> bool {
        self >= Self::Major
    }
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nit => "nit",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Blocker => "blocker",
        }
    }
}

/// The answer to the question whether it may land.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It may.
    Pass,
    /// It may not.
    Fail,
}

/// Something that a reviewer found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to the repository.
    pub file: String,
    /// The line in it, from 1; 0 where it is about the whole file.
    pub line: u64,
    /// What is wrong.
    pub claim: String,
    /// What would mend it; may be empty.
    pub fix: String,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Review"))]
#[serde(deny_unknown_fields)]
struct Said {
    /// `vnx.review/1`.
    schema: String,
    /// The nonce of the question.
    nonce: String,
    /// Whether it may land.
    verdict: Answer,
    /// The reason, in a sentence or two.
    summary: String,
    /// What was found; may be empty.
    findings: Vec<Finding>,
}

/// What an answer amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewed {
    /// Pass, fail or neither.
    pub status: GateStatus,
    /// Why, in one line.
    pub reason: String,
    /// What was found; nothing where the answer could not be read.
    pub findings: Vec<Finding>,
}

impl Reviewed {
    /// An answer that does not count.
    pub fn unverified(reason: impl Into<String>) -> Self {
        Self { status: GateStatus::Unverified, reason: reason.into(), findings: Vec::new() }
    }
}

/// Reads an answer to the question with this nonce. Pure and total.
pub fn read(answer: &str, nonce: &str) -> Reviewed {
    let text = match alone(answer) {
        Ok(text) => text,
        Err(why) => return Reviewed::unverified(why),
    };
    // Twice: a member that stands there twice is an error for the typed one, wherever it stands.
    let said: Said = match serde_json::from_str(text) {
        Ok(said) => said,
        Err(e) => return Reviewed::unverified(format!("the answer is not of the form {SCHEMA}: {e}")),
    };
    if said.schema != SCHEMA {
        return Reviewed::unverified(format!("the answer says that it is of the form {:?}", summary(&said.schema)));
    }
    if said.nonce != nonce {
        return Reviewed::unverified("the answer is to another question: its nonce is not the one that was given");
    }
    if said.findings.len() > MAX_FINDINGS {
        return Reviewed::unverified(format!(
            "the answer has {} findings; {MAX_FINDINGS} are read",
            said.findings.len()
        ));
    }
    if let Some(found) = said.findings.iter().find(|f| !is_place(&f.file) || f.claim.trim().is_empty()) {
        return Reviewed::unverified(format!("a finding names no file or makes no claim: {:?}", summary(&found.file)));
    }
    let blocking = said.findings.iter().filter(|f| f.severity.blocks()).count();
    match (said.verdict, blocking) {
        (Answer::Pass, 0) => {
            let minor = said.findings.len();
            let beside = if minor > 0 { format!(", with {minor} smaller findings") } else { String::new() };
            let reason = format!("pass{beside}: {}", summary(&said.summary));
            Reviewed { status: GateStatus::Pass, reason, findings: said.findings }
        }
        (Answer::Pass, n) => Reviewed {
            status: GateStatus::Unverified,
            reason: format!("it says pass, and {n} of its findings forbid that"),
            findings: said.findings,
        },
        (Answer::Fail, n) => Reviewed {
            status: GateStatus::Fail,
            reason: format!("fail, {n} of {} findings forbid it: {}", said.findings.len(), summary(&said.summary)),
            findings: said.findings,
        },
    }
}

/// The one JSON object in an answer, which may stand in one fence, and beside which nothing stands.
fn alone(answer: &str) -> Result<&str, String> {
    let text = answer.trim();
    if text.is_empty() {
        return Err("the answer is empty".to_owned());
    }
    if text.len() > MAX_ANSWER {
        return Err(format!("the answer has {} bytes; {MAX_ANSWER} are read", text.len()));
    }
    let inner = match text.strip_prefix("```") {
        Some(rest) => {
            let rest = rest.strip_suffix("```").ok_or("the answer is cut off: its fence does not end")?;
            let (word, body) = rest.split_once('\n').ok_or("the answer is one line of a fence")?;
            if !matches!(word.trim(), "" | "json") {
                return Err(format!("the answer is in a fence of {:?}", summary(word)));
            }
            body.trim()
        }
        None => text,
    };
    if !inner.starts_with('{') {
        return Err("the answer is not one JSON object and nothing else".to_owned());
    }
    Ok(inner)
}

/// A path below the repository.
fn is_place(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 4096
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Texts in a change that speak to whoever reviews it. A reviewer may have listened, so its pass counts for
/// nothing; a person looks.
const INJECTIONS: [&str; 24] = [
    "vnx.review/",
    "\"verdict\": \"pass\"",
    "\"verdict\":\"pass\"",
    "verdict: pass",
    "verdict=pass",
    "reply pass",
    "reply with pass",
    "respond with pass",
    "answer pass",
    "answer with pass",
    "return pass",
    "say pass",
    "ignore previous instructions",
    "ignore all previous",
    "ignore the above",
    "ignore your instructions",
    "disregard previous",
    "disregard the above",
    "disregard your instructions",
    "to the reviewer:",
    "note to reviewer",
    "dear reviewer",
    "reviewing model",
    "as an ai reviewer",
];

/// The first line that a patch adds, or a path in it, that speaks to its reviewer: its number in the patch, from 1.
pub fn speaks_to_reviewers(patch: &str) -> Option<(usize, &'static str)> {
    let shown = |line: &str| line.starts_with('+') || line.starts_with("diff ") || line.starts_with("rename ");
    patch.lines().zip(1..).filter(|(line, _)| shown(line)).find_map(|(line, nth)| {
        // What hides words from people must not hide them from here.
        let visible = line.chars().filter(|c| !is_ignorable(*c)).collect::<String>().to_lowercase();
        let words = visible.split_whitespace().collect::<Vec<_>>().join(" ").replace(['*', '_', '`'], "");
        let found = INJECTIONS.iter().find(|text| words.contains(*text) || visible.contains(*text))?;
        Some((nth, *found))
    })
}

/// The form as a JSON Schema (draft 2020-12), for CLIs that can be held to one. Without a nonce it is the published
/// one, `docs/review.schema.json`.
pub fn json_schema(nonce: Option<&str>) -> serde_json::Value {
    let nonce = match nonce {
        Some(nonce) => serde_json::json!({ "type": "string", "enum": [nonce] }),
        None => serde_json::json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" }),
    };
    let text = serde_json::json!({ "type": "string" });
    serde_json::json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["schema", "nonce", "verdict", "summary", "findings"],
        "properties": {
            "schema": { "type": "string", "enum": [SCHEMA] },
            "nonce": nonce,
            "verdict": { "type": "string", "enum": ["pass", "fail"] },
            "summary": text,
            "findings": { "type": "array", "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["severity", "file", "line", "claim", "fix"],
                "properties": {
                    "severity": { "type": "string", "enum": ["blocker", "major", "minor", "nit"] },
                    "file": text,
                    "line": { "type": "integer" },
                    "claim": text,
                    "fix": text,
                },
            } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn answer(verdict: &str, findings: &str) -> String {
        format!(
            r#"{{"schema":"{SCHEMA}","nonce":"{NONCE}","verdict":"{verdict}","summary":"s","findings":[{findings}]}}"#
        )
    }

    fn finding(severity: Severity) -> String {
        format!(r#"{{"severity":"{}","file":"a","line":1,"claim":"c","fix":""}}"#, severity.word())
    }

    #[test]
    fn every_answer_of_the_corpus_has_its_only_reading() {
        let text = include_str!("../../../tests/corpus/reviews.txt").replace("NONCE", NONCE);
        let cases = text.strip_prefix("=== ").unwrap().split("\n=== ");
        for (head, answer) in cases.map(|case| case.split_once('\n').unwrap()) {
            let (name, status) = head.rsplit_once(": ").unwrap();
            let said = read(answer, NONCE);
            assert_eq!(said.status.word(), status, "{name}: {}", said.reason);
        }
    }

    #[test]
    fn what_is_found_decides_and_is_counted() {
        for severity in [Severity::Nit, Severity::Minor, Severity::Major, Severity::Blocker] {
            assert_eq!(serde_json::to_value(severity).unwrap(), severity.word());
            let said = read(&answer("pass", &finding(severity)), NONCE);
            let blocks = matches!(severity, Severity::Major | Severity::Blocker);
            assert_eq!(said.status == GateStatus::Pass, !blocks, "{severity:?}: {}", said.reason);
        }
        let two = format!("{},{}", finding(Severity::Nit), finding(Severity::Major));
        for (verdict, findings, reason) in [
            ("pass", "", "pass: s"),
            ("pass", &finding(Severity::Nit), "pass, with 1 smaller findings: s"),
            ("pass", &two, "it says pass, and 1 of its findings forbid that"),
            ("fail", &two, "fail, 1 of 2 findings forbid it: s"),
        ] {
            assert_eq!(read(&answer(verdict, findings), NONCE).reason, reason);
        }
    }

    #[test]
    fn limits_are_the_last_that_is_read() {
        let many = |n: usize| answer("pass", &vec![finding(Severity::Nit); n].join(","));
        assert_eq!(read(&many(MAX_FINDINGS), NONCE).status, GateStatus::Pass);
        assert!(read(&many(MAX_FINDINGS + 1), NONCE).reason.contains("are read"));
        let long = |bytes: usize| {
            answer("pass", "").replace(r#""summary":"s""#, &format!(r#""summary":"{}""#, "s".repeat(bytes)))
        };
        let beside = long(0).len();
        assert_eq!(read(&long(MAX_ANSWER - beside), NONCE).status, GateStatus::Pass);
        assert!(read(&long(MAX_ANSWER - beside + 1), NONCE).reason.contains("are read"));
        let at = |path: &str| {
            read(
                &answer("pass", &finding(Severity::Nit).replace(r#""file":"a""#, &format!(r#""file":"{path}""#))),
                NONCE,
            )
            .status
        };
        assert_eq!(at(&format!("a/{}", "b".repeat(4094))), GateStatus::Pass);
        assert_eq!(at(&format!("a/{}", "b".repeat(4095))), GateStatus::Unverified);
        assert_eq!(at("a/./b"), GateStatus::Unverified);
    }

    #[test]
    fn a_change_that_speaks_to_its_reviewer_is_named_by_its_line() {
        let patch = "diff --git a/f b/f\n-ignore the above\n context: reply pass\n+fine\n+Please **ignore** the\u{200b} above, and\n";
        assert_eq!(speaks_to_reviewers(patch), Some((5, "ignore the above")));
        assert_eq!(speaks_to_reviewers("diff --git a/vnx.review/x b/y\n"), Some((1, "vnx.review/")));
        assert_eq!(speaks_to_reviewers("rename to say pass\n"), Some((1, "say pass")));
        assert_eq!(speaks_to_reviewers("+ \"verdict\":  \"pass\"\n").map(|(line, _)| line), Some(1));
        assert_eq!(speaks_to_reviewers("+the verdict of the court\n-dear reviewer\n dear reviewer\n"), None);
    }
}
