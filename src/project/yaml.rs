//! YAML from files that people edit: one parser with one set of limits.
//!
//! Duplicate keys are errors (a second `deny:` must not silently win), so are unknown keys
//! (every struct denies them), aliases are few, nesting is shallow, and an error names the
//! file, the line and the column.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use crate::domain::Fault;

/// Parses `bytes` as a `T`; `file` is named in errors.
pub fn parse<T: DeserializeOwned>(file: &Path, bytes: &[u8]) -> Result<T, Fault> {
    let fix = || format!("correct {} and run `vnx doctor`", file.display());
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Fault::input(format!("{} is not UTF-8 (byte {})", file.display(), e.valid_up_to())).fix(fix()))?;
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 50_000,
            max_aliases: 32,
            max_anchors: 32,
            max_depth: 32,
            max_documents: 1,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|l| format!(":{}:{}", l.line(), l.column())).unwrap_or_default();
        let message = plain(error.without_snippet());
        Fault::input(format!("{}{place}: {message}", file.display())).fix(fix())
    })
}

/// What is wrong, in words for people and without the place, which stands in front already.
fn plain(error: &Error) -> String {
    match error {
        Error::Unexpected { expected: "string scalar", .. } => "a text belongs here".to_owned(),
        Error::Unexpected { expected: "mapping start", .. } => "keys with values belong here".to_owned(),
        Error::Unexpected { expected: "sequence start", .. } => "a list belongs here".to_owned(),
        Error::InvalidScalar { ty: "u32", .. } => "a whole number from 0 to 4294967295 belongs here".to_owned(),
        Error::InvalidScalar { ty: "usize", .. } => "a whole number from 0 on belongs here".to_owned(),
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("there is no key {field:?} here; the keys are {}", expected.join(", "))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{variant:?} is none of the words for this: {}", expected.join(", "))
        }
        other => {
            let text = other.to_string();
            let message = text.lines().next().unwrap_or_default();
            let message = message.split_once(" (defined at line ").map_or(message, |(before, _)| before);
            let message = message.rsplit_once(" at line ").map_or(message, |(before, _)| before);
            let message = message.rsplit_once(", set DuplicateKeyPolicy").map_or(message, |(before, _)| before);
            if message.starts_with("invalid boolean") { "true or false belongs here" } else { message }.to_owned()
        }
    }
}

/// Splits `---` front matter from the Markdown after it.
pub fn front_matter(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("---\n")?;
    let end = rest.find("\n---\n")?;
    Some((&rest[..=end], rest[end + 5..].trim_start_matches('\n')))
}
