//! Secrets are replaced before anything is hashed or stored: one redactor for receipts,
//! recordings and reports.
//!
//! Two sources: the exact values of secret-looking variables that the worker was given, and a
//! short list of shapes with fixed prefixes. A keyword pass (Aho-Corasick, more than 1 GB/s)
//! runs over everything; a shape's regular expression is compiled at its first keyword hit.

use std::borrow::Cow;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;

struct Shape {
    name: &'static str,
    keyword: &'static str,
    pattern: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Shape {
    const fn new(name: &'static str, keyword: &'static str, pattern: &'static str) -> Self {
        Self { name, keyword, pattern, compiled: OnceLock::new() }
    }
}

/// Shapes match only bytes that JSON does not escape, so a redacted JSON text stays JSON.
static SHAPES: [Shape; 21] = [
    Shape::new("anthropic-key", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{16,}"),
    Shape::new("openai-key", "sk-proj-", r"sk-proj-[A-Za-z0-9_-]{20,}"),
    Shape::new("github-token", "ghp_", r"ghp_[A-Za-z0-9]{36,}"),
    Shape::new("github-token", "gho_", r"gho_[A-Za-z0-9]{36,}"),
    Shape::new("github-token", "github_pat_", r"github_pat_[A-Za-z0-9_]{50,}"),
    Shape::new("github-token", "ghs_", r"ghs_[A-Za-z0-9]{36,}"),
    Shape::new("github-token", "ghu_", r"ghu_[A-Za-z0-9]{36,}"),
    Shape::new("github-token", "ghr_", r"ghr_[A-Za-z0-9]{36,}"),
    Shape::new("gitlab-token", "glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),
    Shape::new("aws-key-id", "AKIA", r"\bAKIA[A-Z0-9]{16}\b"),
    Shape::new("aws-key-id", "ASIA", r"\bASIA[A-Z0-9]{16}\b"),
    Shape::new("google-key", "AIza", r"\bAIza[A-Za-z0-9_-]{35}"),
    Shape::new("slack-token", "xox", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    Shape::new("google-token", "ya29.", r"\bya29\.[A-Za-z0-9_-]{20,}"),
    Shape::new("hugging-face-token", "hf_", r"\bhf_[A-Za-z0-9]{30,}"),
    Shape::new("npm-token", "npm_", r"\bnpm_[A-Za-z0-9]{36,}"),
    Shape::new("stripe-key", "_live_", r"\b[sr]k_live_[A-Za-z0-9]{16,}"),
    Shape::new("json-web-token", "eyJ", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    Shape::new("password", "://", r"\b(?:[a-z][a-z0-9+.-]*)://[^\s/:@?#\x22\\]*:[^\s/@?#\x22\\]{3,}@"),
    Shape::new("bearer", "Bearer ", r"Bearer [A-Za-z0-9._~+/=-]{20,}"),
    Shape::new(
        "private-key",
        "PRIVATE KEY-----",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\\nr\s]*(-----END [A-Z ]*PRIVATE KEY-----)?",
    ),
];

/// The shortest value that is treated as a secret: shorter ones would shred ordinary text.
const MIN_SECRET: usize = 8;

/// Replaces secrets by `[redacted:<what>]`.
#[derive(Debug, Clone)]
pub struct Redactor {
    keywords: Option<AhoCorasick>,
    known: Vec<(String, String)>,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Redactor {
    /// A redactor that also knows these `(name, value)` pairs.
    pub fn new(secrets: Vec<(String, String)>) -> Self {
        let mut known: Vec<(String, String)> = Vec::new();
        for (name, value) in secrets {
            if value.len() < MIN_SECRET {
                continue;
            }
            // The form a value takes inside a JSON string, when it differs.
            let escaped = serde_json::to_string(&value).unwrap_or_default();
            let escaped = escaped.trim_matches('"').to_owned();
            if escaped != value {
                known.push((name.clone(), escaped));
            }
            // Printed as it is, it comes line by line.
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= MIN_SECRET && *line != value);
            known.extend(lines.map(|line| (name.clone(), line.to_owned())).collect::<Vec<_>>());
            known.push((name, value));
        }
        // Longest first, so that a secret that contains another is replaced whole.
        known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        let words = known.iter().map(|(_, value)| value.as_str()).chain(SHAPES.iter().map(|s| s.keyword));
        // Leftmost-first matching lets it skip ahead with SIMD.
        let keywords = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(words).ok();
        Self { keywords, known }
    }

    /// Whether a variable of this name holds a secret.
    pub fn is_secret_name(name: &str) -> bool {
        let name = name.to_ascii_uppercase();
        ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"]
            .iter()
            .any(|word| name.contains(word))
    }

    /// The values of an environment that must not be written down: by the names of their variables, by those that
    /// somebody has named, and passwords that stand in URLs.
    pub fn secrets<'e>(
        env: impl IntoIterator<Item = (&'e String, &'e String)>,
        named: &[String],
    ) -> Vec<(String, String)> {
        let of_one = |(name, value): (&'e String, &'e String)| {
            if Self::is_secret_name(name) || named.contains(name) {
                return Some((name.clone(), value.clone()));
            }
            let authority = value.split_once("://")?.1.split(['/', '?', '#']).next()?;
            let (user, _) = authority.rsplit_once('@')?;
            Some((name.clone(), user.split_once(':')?.1.to_owned()))
        };
        env.into_iter().filter_map(of_one).collect()
    }

    /// What need not be text, without its secrets. Where there are none every byte stays.
    pub fn redact_bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match self.redact_counted(&String::from_utf8_lossy(bytes)) {
            (_, 0) => Cow::Borrowed(bytes),
            (clean, _) => Cow::Owned(clean.into_owned().into_bytes()),
        }
    }

    /// The text without its secrets; borrowed when there are none.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.redact_counted(text).0
    }

    /// The same, and how many were replaced.
    pub fn redact_counted<'t>(&self, text: &'t str) -> (Cow<'t, str>, u64) {
        // Without its keyword pass the redactor still works, only slower.
        if self.keywords.as_ref().is_some_and(|k| !k.is_match(text)) {
            return (Cow::Borrowed(text), 0);
        }
        let (mut out, mut count) = (Cow::Borrowed(text), 0);
        for (name, value) in &self.known {
            let found = out.matches(value.as_str()).count() as u64;
            if found > 0 {
                out = Cow::Owned(out.replace(value.as_str(), &format!("[redacted:{name}]")));
                count += found;
            }
        }
        for shape in &SHAPES {
            if !out.contains(shape.keyword) {
                continue;
            }
            let Some(regex) = shape.compiled.get_or_init(|| Regex::new(shape.pattern).ok()) else {
                continue;
            };
            let found = regex.find_iter(&out).count() as u64;
            if found > 0 {
                let replacement = format!("[redacted:{}]", shape.name);
                out = Cow::Owned(regex.replace_all(&out, replacement.as_str()).into_owned());
                count += found;
            }
        }
        (out, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_compiles_and_is_found() {
        let samples = [
            "sk-ant-api03-abcdefghijklmnop",
            "sk-proj-abcdefghijklmnopqrstuv",
            &format!("ghp_{}", "a".repeat(36)),
            &format!("gho_{}", "a".repeat(36)),
            &format!("github_pat_{}", "a".repeat(60)),
            &format!("ghs_{}", "a".repeat(36)),
            &format!("ghu_{}", "a".repeat(36)),
            &format!("ghr_{}", "a".repeat(36)),
            "glpat-abcdefghijklmnopqrst",
            "AKIAABCDEFGHIJKLMNOP",
            "ASIAABCDEFGHIJKLMNOP",
            &format!("AIza{}", "a".repeat(35)),
            "xoxb-1234567890-abc",
            &format!("ya29.{}", "a".repeat(30)),
            &format!("hf_{}", "a".repeat(34)),
            &format!("npm_{}", "a".repeat(36)),
            &format!("sk_live_{}", "a".repeat(24)),
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
            "https://user:hunter2@",
            "Bearer abcdefghijklmnopqrstuvwx",
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
        ];
        let redactor = Redactor::default();
        for (shape, sample) in SHAPES.iter().zip(samples) {
            assert_eq!(redactor.redact(&format!("x {sample} y")), format!("x [redacted:{}] y", shape.name));
        }
        assert!(matches!(redactor.redact("the author wrote 1500 lines"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_name_of_a_variable_tells_a_secret() {
        for name in ["ANTHROPIC_API_KEY", "gh_token", "MY_SECRETS", "PGPASSWORD", "passwd_file", "AWS_CREDENTIALS"] {
            assert!(Redactor::is_secret_name(name), "{name}");
        }
        assert!(["PATH", "HOME", "LANG", "PASS", ""].iter().all(|name| !Redactor::is_secret_name(name)));
    }

    #[test]
    fn secrets_of_an_environment() {
        let env: std::collections::BTreeMap<String, String> = [
            ("A_TOKEN", "first-secret"),
            ("DATABASE_URL", "postgres://me:second-secret@db.example/x"),
            ("HTTPS_PROXY", "http://me@proxy.example"),
            ("LANG", "C"),
            ("MINE", "third-secret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let secrets = Redactor::secrets(&env, &["MINE".to_owned()]);
        let values: Vec<&str> = secrets.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["first-secret", "second-secret", "third-secret"]);
        let redactor = Redactor::new(secrets);
        let latin = b"caf\xe9 and nothing";
        assert_eq!(redactor.redact_bytes(latin), Cow::Borrowed(&latin[..]));
        let clean = redactor.redact_bytes(b"caf\xe9 second-secret");
        assert!(String::from_utf8_lossy(&clean).ends_with(" [redacted:DATABASE_URL]"));
    }

    #[test]
    fn known_values_go_in_plain_and_in_json_form() {
        let redactor = Redactor::new(vec![("MY_KEY".into(), "pa\"ss\\word".into()), ("SHORT".into(), "abc".into())]);
        assert_eq!(redactor.redact("a pa\"ss\\word b"), "a [redacted:MY_KEY] b");
        assert_eq!(redactor.redact(r#"{"x":"pa\"ss\\word"}"#), r#"{"x":"[redacted:MY_KEY]"}"#);
        assert_eq!(redactor.redact("abc"), "abc");
        let twice = "pa\"ss\\word, pa\"ss\\word and Bearer abcdefghijklmnopqrstuvwx";
        assert_eq!(redactor.redact_counted(twice).1, 3);
    }
}
