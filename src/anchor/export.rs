//! `export`: a copy of some receipts for somebody else, without what is not for them, and with proofs.

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;
use serde::Serialize;

use super::prove::Proven;
use crate::domain::redact::Redactor;
use crate::domain::{Digest, Fault, Timestamp};
use crate::project::Project;
use crate::sys;

/// Receipts with their inclusion proofs (RFC 9162 section 2.1.3) against one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Format of this copy.
    pub schema: &'static str,
    /// The project.
    pub project: String,
    /// When it was made.
    pub made: Timestamp,
    /// The checkpoint's text.
    pub checkpoint: String,
    /// The commit that holds the checkpoint; without one it is only this ledger's word.
    pub anchor: Option<String>,
    /// The receipts, oldest first.
    pub receipts: Vec<Exported>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Its place.
    pub seq: u64,
    /// Its hash in the ledger: what the proof is about.
    pub hash: Digest,
    /// How many texts were replaced in this copy. With none, `hash` is the hash of `receipt`; with
    /// some, the proof shows that there is such a receipt, and not what stands in it.
    pub redacted: u64,
    /// Its line.
    pub receipt: String,
    /// The hashes from the leaf upwards.
    pub path: Vec<Digest>,
}

/// Copies the receipts `seqs`, which are ascending. Secrets, and what `hide` matches in a text, are
/// replaced.
pub fn export(project: &Project, seqs: &[u64], hide: &[Regex]) -> Result<Export, Fault> {
    let redactor = Redactor::default();
    let mut lines = Vec::new();
    let proven = Proven::of(project, seqs, |seq, line| {
        let line = String::from_utf8_lossy(line);
        let (shown, secrets) = redactor.redact_counted(&line);
        let (shown, hidden) = hidden(&shown, hide);
        lines.push((seq, secrets + hidden, shown.into_owned()));
    })?;
    let receipts = lines.into_iter().map(|(seq, redacted, receipt)| {
        let (hash, path) = proven.path(seq)?;
        Ok(Exported { seq, hash, redacted, receipt, path })
    });
    Ok(Export {
        schema: "vnx.export/1",
        receipts: receipts.collect::<Result<_, Fault>>()?,
        project: masked(project.id().as_str(), hide).0,
        made: sys::now(),
        checkpoint: proven.checkpoint.to_text(),
        anchor: proven.anchor,
    })
}

/// The JSON text with every match in one of its texts replaced, and how many those are. Names of
/// members stay.
fn hidden<'t>(json: &'t str, hide: &[Regex]) -> (Cow<'t, str>, u64) {
    let (mut out, mut count, mut rest) = (String::new(), 0, json);
    while let Some(open) = rest.find('"') {
        let mut texts = serde_json::Deserializer::from_str(&rest[open..]).into_iter::<String>();
        let Some(Ok(text)) = texts.next() else { break };
        let end = open + texts.byte_offset();
        let is_name = rest[end..].starts_with(':');
        match if is_name { (text, 0) } else { masked(&text, hide) } {
            (_, 0) => out.push_str(&rest[..end]),
            (shown, found) => {
                count += found;
                out.push_str(&rest[..open]);
                out.push_str(&serde_json::Value::String(shown).to_string());
            }
        }
        rest = &rest[end..];
    }
    if count == 0 {
        return (Cow::Borrowed(json), 0);
    }
    out.push_str(rest);
    (Cow::Owned(out), count)
}

/// The text without what any pattern matches in it as it was: matches that overlap go together.
fn masked(text: &str, hide: &[Regex]) -> (String, u64) {
    let mut found: Vec<Range<usize>> = hide.iter().flat_map(|p| p.find_iter(text)).map(|m| m.range()).collect();
    found.retain(|range| !range.is_empty());
    found.sort_by_key(|range| range.start);
    let (mut out, mut end, mut count) = (String::new(), 0, 0);
    for range in found {
        if range.start >= end || count == 0 {
            out.push_str(&text[end..range.start]);
            out.push_str("[redacted]");
            count += 1;
        }
        end = end.max(range.end);
    }
    out.push_str(&text[end..]);
    (out, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_replaced_in_texts_and_nowhere_else() {
        let json = r#"{"path":"/home/me/x","n":12,"list":["/home/me","a\"/home/me\"b"],"/home/me":true}"#;
        let hide = [Regex::new("/home/me").unwrap(), Regex::new("12|true|^$").unwrap()];
        let (shown, count) = hidden(json, &hide);
        assert_eq!(
            (shown.as_ref(), count),
            (r#"{"path":"[redacted]/x","n":12,"list":["[redacted]","a\"[redacted]\"b"],"/home/me":true}"#, 3)
        );
        assert!(matches!(hidden(json, &hide[1..]), (Cow::Borrowed(_), 0)));
        // Patterns see the text as it was, in any order.
        for words in [["SECRET", "SECRETNAME"], ["SECRETNAME", "SECRET"], ["CRETN", "SECRETNAME"]] {
            let hide = words.map(|word| Regex::new(word).unwrap());
            assert_eq!(
                masked("a SECRETNAME b SECRET", &hide[..]).0.replace("SECRET", "?"),
                if words[0] == "CRETN" { "a [redacted] b ?" } else { "a [redacted] b [redacted]" }
            );
        }
    }
}
