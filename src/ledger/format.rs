//! One line of the ledger: built and read here and nowhere else.
//!
//! ```text
//! {"v":1,"prev":"<64 hex>","seq":41,"ts":"…","kind":"…","dispatch":"…","attempt":1,"key":"…","data":{…},"hash":"<64 hex>"}
//! ```
//!
//! `body` is the line up to but not including `,"hash":"`; `hash` is SHA-256(0x00 ‖ body), the
//! leaf hash of RFC 6962. `prev` and `hash` stand at fixed offsets from the two ends, so the
//! chain can be checked without a JSON parser.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::receipt::{Body, Entry, Kind};
use crate::domain::redact::Redactor;
use crate::domain::{Digest, DispatchId, Timestamp};

/// The longest line in bytes, without its line feed.
pub const MAX_LINE: usize = 1 << 20;
/// The format version that this code writes; it refuses newer ones by name.
pub const VERSION: u32 = 1;

const HEAD: &[u8] = b"{\"v\":1,\"prev\":\"";
const AFTER_PREV: &[u8] = b"\",\"seq\":";
const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const TAIL: &[u8] = b"\"}";
/// Length of `,"hash":"<64 hex>"}`.
const SUFFIX: usize = BEFORE_HASH.len() + 64 + TAIL.len();

/// A receipt as read from a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the ledger, from 0.
    pub seq: u64,
    /// When its writer says it was written.
    pub ts: Timestamp,
    /// The dispatch it belongs to.
    pub dispatch: Option<DispatchId>,
    /// The attempt.
    pub attempt: u32,
    /// The idempotency key.
    pub key: String,
    /// The payload.
    pub body: Body,
    /// Its own hash.
    pub hash: Digest,
    /// The hash of the receipt before it.
    pub prev: Digest,
}

/// Builds the line of `entry` (without line feed) and its hash. Secrets are replaced here,
/// before the hash, because a secret in a chain can never be taken out again.
pub fn build(
    entry: &Entry,
    prev: &Digest,
    seq: u64,
    ts: Timestamp,
    redactor: &Redactor,
) -> Result<(String, Digest), serde_json::Error> {
    use std::fmt::Write as _;
    let mut line = String::with_capacity(1024);
    let data = entry.body.to_json()?;
    let data = redactor.redact(&data);
    let quoted = |text: &str| serde_json::to_string(text);
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "{{\"v\":{VERSION},\"prev\":\"{prev}\",\"seq\":{seq},\"ts\":\"{ts}\",\"kind\":\"{}\"",
        entry.body.kind().word()
    );
    if let Some(dispatch) = &entry.dispatch {
        let _ = write!(line, ",\"dispatch\":\"{dispatch}\",\"attempt\":{}", entry.attempt);
    }
    let _ = write!(line, ",\"key\":{},\"data\":{data}", quoted(&entry.key())?);
    let hash = Digest::leaf(line.as_bytes());
    let _ = write!(line, ",\"hash\":\"{hash}\"}}");
    Ok((line, hash))
}

/// The two digests and the sequence number of a line, by offset alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// `prev`.
    pub prev: Digest,
    /// `seq`.
    pub seq: u64,
    /// `hash`, as it stands in the line.
    pub hash: Digest,
    /// `hash`, as it should be.
    pub computed: Digest,
}

/// Reads the links of a line (without line feed) at their fixed offsets.
pub fn links(line: &[u8]) -> Result<Links, String> {
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} bytes"));
    }
    let rest = line.strip_prefix(HEAD).ok_or_else(|| match line.strip_prefix(b"{\"v\":") {
        Some(v) => format!(
            "format version {} is not {VERSION}; use a newer vnx",
            String::from_utf8_lossy(v.split(|b| !b.is_ascii_digit()).next().unwrap_or_default())
                .chars()
                .take(10)
                .collect::<String>()
        ),
        None => "the line does not begin as a receipt does".to_owned(),
    })?;
    let prev = rest.get(..64).and_then(Digest::from_hex).ok_or("prev is not 64 lower-case hex digits")?;
    let rest = rest.get(64..).and_then(|r| r.strip_prefix(AFTER_PREV)).ok_or("seq does not follow prev")?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let seq = std::str::from_utf8(&rest[..digits])
        .ok()
        .filter(|d| *d == "0" || !d.starts_with('0'))
        .and_then(|d| d.parse::<u64>().ok())
        .ok_or("seq is not a number")?;
    let cut = line.len().checked_sub(SUFFIX).ok_or("the line is too short")?;
    let (body, suffix) = line.split_at(cut);
    let hash = suffix
        .strip_prefix(BEFORE_HASH)
        .and_then(|s| s.strip_suffix(TAIL))
        .and_then(Digest::from_hex)
        .ok_or("the line does not end with its hash")?;
    Ok(Links { prev, seq, hash, computed: Digest::leaf(body) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    v: u32,
    prev: Digest,
    seq: u64,
    ts: Timestamp,
    kind: String,
    dispatch: Option<DispatchId>,
    attempt: Option<u32>,
    key: String,
    #[serde(borrow)]
    data: &'a RawValue,
    hash: Digest,
}

/// Parses a line strictly: known kind, known members, right types, no duplicate members.
pub fn parse(line: &[u8]) -> Result<Receipt, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
    let read: Line<'_> = serde_json::from_str(text).map_err(|e| format!("the line is not a receipt: {e}"))?;
    if read.v != VERSION {
        return Err(format!("format version {} is not {VERSION}; use a newer vnx", read.v));
    }
    let kind = Kind::from_word(&read.kind).ok_or_else(|| format!("kind {:?} is not known to this vnx", read.kind))?;
    let body =
        Body::from_json(kind, read.data.get()).map_err(|e| format!("the payload is not a {}: {e}", read.kind))?;
    if read.dispatch.is_some() != read.attempt.is_some() {
        return Err("dispatch and attempt go together".to_owned());
    }
    let receipt = Receipt {
        seq: read.seq,
        ts: read.ts,
        dispatch: read.dispatch,
        attempt: read.attempt.unwrap_or(1),
        key: read.key,
        body,
        hash: read.hash,
        prev: read.prev,
    };
    // Two readers of one line must see one receipt: the offsets and the parser have to agree.
    let by_offset = links(line)?;
    if (by_offset.prev, by_offset.seq, by_offset.hash) != (receipt.prev, receipt.seq, receipt.hash) {
        return Err("the members and their offsets disagree".to_owned());
    }
    Ok(receipt)
}
