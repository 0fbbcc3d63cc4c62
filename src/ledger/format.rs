//! One line of the ledger: built and read here and nowhere else.
//!
//! ```text
//! {"v":1,"prev":"<64 hex>","seq":41,"ts":"…","kind":"…","dispatch":"…","attempt":1,"key":"…","data":{…},"hash":"<64 hex>"}
//! ```
//!
//! `body` is the line up to but not including `,"hash":"`; `hash` is SHA-256(0x00 ‖ body), the
//! leaf hash of RFC 6962. `prev` and `hash` stand at fixed offsets from the two ends, so the
//! chain can be checked without a JSON parser.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::domain::receipt::{Body, Entry, Kind, is_list};
use crate::domain::redact::Redactor;
use crate::domain::{Digest, DispatchId, Timestamp};

/// The longest line in bytes, without its line feed.
pub const MAX_LINE: usize = 1 << 20;
/// What a disk writes as a whole, at least.
const SECTOR: usize = 512;
/// The largest integer that every JSON reader keeps exactly: 2^53 - 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
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

/// A receipt as far as it can be built before its place is known.
#[derive(Debug)]
pub struct Draft {
    /// From `kind` to the end of `data`.
    rest: String,
}

impl Draft {
    /// Serialises `entry`. Secrets are replaced here, before the hash, because a secret in a chain can
    /// never be taken out again.
    ///
    /// # Errors
    /// A payload that no reader would take back as it is.
    pub fn of(entry: &Entry, redactor: &Redactor) -> Result<Self, String> {
        use std::fmt::Write as _;
        let mut rest = String::with_capacity(1024);
        let data = entry.body.to_json().map_err(|e| e.to_string())?;
        let (data, redacted) = redactor.redact_counted(&data);
        if beyond(&data) {
            return Err(format!("a number is not within {MAX_INTEGER}"));
        }
        // Writing to a String cannot fail.
        let _ = write!(rest, ",\"kind\":\"{}\"", entry.body.kind().word());
        if let Some(dispatch) = &entry.dispatch {
            let _ = write!(rest, ",\"dispatch\":\"{dispatch}\",\"attempt\":{}", entry.attempt);
        }
        // A key is made of ids and needs no escapes.
        let _ = write!(rest, ",\"key\":\"{}\"", entry.key());
        if redacted > 0 {
            let _ = write!(rest, ",\"redacted\":{redacted}");
        }
        let _ = write!(rest, ",\"data\":{data}");
        let draft = Self { rest };
        // What a reader would not take back must not get in, wherever it will stand.
        let (line, _) = draft.line(&Digest::ZERO, MAX_INTEGER, Timestamp::EPOCH);
        if line.len() > MAX_LINE {
            return Err(format!("its line of {} bytes is over the limit of {MAX_LINE}", line.len()));
        }
        links(line.as_bytes()).and_then(|links| links.payload().map(drop))?;
        Ok(draft)
    }

    /// The line (without line feed) at its place, and its hash.
    pub fn line(&self, prev: &Digest, seq: u64, ts: Timestamp) -> (String, Digest) {
        use std::fmt::Write as _;
        let mut line = String::with_capacity(self.rest.len() + 256);
        let _ = write!(line, "{{\"v\":{VERSION},\"prev\":\"{prev}\",\"seq\":{seq},\"ts\":\"{ts}\"{}", self.rest);
        let hash = Digest::leaf(line.as_bytes());
        let _ = write!(line, ",\"hash\":\"{hash}\"}}");
        (line, hash)
    }
}

/// Builds the line of `entry` (without line feed) and its hash.
///
/// # Errors
/// As [`Draft::of`].
pub fn build(
    entry: &Entry,
    prev: &Digest,
    seq: u64,
    ts: Timestamp,
    redactor: &Redactor,
) -> Result<(String, Digest), String> {
    Ok(Draft::of(entry, redactor)?.line(prev, seq, ts))
}

/// The payload as it would stand in a line.
pub(super) fn payload(body: &Body, redactor: &Redactor) -> Option<String> {
    body.to_json().ok().map(|json| redactor.redact(&json).into_owned())
}

/// How many of these bytes, which stand at `offset` of the file, were ever written. A crash can
/// lose sectors of what was appended last and keep others; then they are zeros, which no receipt
/// holds. Everything from the line on that has such a sector is torn.
pub(super) fn written(bytes: &[u8], offset: u64) -> usize {
    let Some(zero) = memchr::memchr(0, bytes) else { return bytes.len() };
    let into = usize::try_from(offset % SECTOR as u64).unwrap_or(0);
    let first = (SECTOR - into) % SECTOR;
    let sectors = bytes.get(first..).unwrap_or_default().chunks(SECTOR);
    let lost = sectors.enumerate().find(|(_, sector)| sector.iter().all(|b| *b == 0)).map(|(n, _)| first + n * SECTOR);
    let lost = lost.or_else(|| bytes[zero..].iter().all(|b| *b == 0).then_some(zero));
    lost.map_or(bytes.len(), |at| memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |feed| feed + 1))
}

/// What stands at fixed offsets of a line: all that the chain is made of, without a JSON parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links<'a> {
    /// `prev`, as 64 hex digits.
    pub prev: &'a [u8],
    /// `seq`.
    pub seq: u64,
    /// What stands between `seq` and `hash`, from the comma on.
    rest: &'a [u8],
    /// The bytes that are hashed.
    pub body: &'a [u8],
    /// `hash` as it stands in the line, as 64 bytes that should be hex digits.
    pub hash: &'a [u8],
}

impl Links<'_> {
    /// `hash`, if it is what it should be.
    pub fn sound_hash(&self) -> Result<Digest, (Digest, String)> {
        let computed = Digest::leaf(self.body);
        if computed.hex() == *self.hash {
            Ok(computed)
        } else {
            Err((computed, String::from_utf8_lossy(self.hash).into_owned()))
        }
    }
}

/// Reads the links of a line (without line feed) at their fixed offsets.
pub fn links(line: &[u8]) -> Result<Links<'_>, String> {
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} bytes"));
    }
    let rest = line.strip_prefix(HEAD).ok_or_else(|| match line.strip_prefix(b"{\"v\":") {
        Some(v) => {
            let version: String =
                v.iter().take(10).map_while(|b| b.is_ascii_digit().then_some(char::from(*b))).collect();
            // Version 1 is the first: nothing older has to be read.
            match version.parse::<u64>() {
                Ok(n) if n > 1 && !version.starts_with('0') => {
                    format!("format version {n} is newer than {VERSION}; use a newer vnx")
                }
                _ => format!("there is no format version {version:?}"),
            }
        }
        None => "the line does not begin as a receipt does".to_owned(),
    })?;
    let (prev, rest) = rest.split_at_checked(64).ok_or("the line is too short")?;
    let rest = rest.strip_prefix(AFTER_PREV).ok_or("seq does not follow prev")?;
    let (seq, rest) = number(rest).ok_or("seq is not a number")?;
    let cut = line.len().checked_sub(SUFFIX).ok_or("the line is too short")?;
    let (body, suffix) = line.split_at(cut);
    let hash = suffix
        .strip_prefix(BEFORE_HASH)
        .and_then(|s| s.strip_suffix(TAIL))
        .ok_or("the line does not end with its hash")?;
    let rest = rest.len().checked_sub(SUFFIX).and_then(|n| rest.get(..n)).ok_or("the line is too short")?;
    Ok(Links { prev, seq, rest, body, hash })
}

/// `seq` of a line, from its first bytes.
pub(super) fn seq_of(start: &[u8]) -> Option<u64> {
    let rest = start.strip_prefix(HEAD)?.get(64..)?.strip_prefix(AFTER_PREV)?;
    number(rest).map(|(seq, _)| seq)
}

/// A number without sign, leading zeros or a value that JSON readers would round.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut digits) = (0_u64, 0);
    while let Some(digit) = text.get(digits).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        value = value * 10 + u64::from(digit);
        digits += 1;
        if value > MAX_INTEGER {
            return None;
        }
    }
    let plain = digits == 1 || digits > 1 && text[0] != b'0';
    plain.then(|| (value, &text[digits..]))
}

/// Parses a line strictly: members in their order, known kind, known members of the payload,
/// right types, no duplicates, and the key that belongs to it.
pub fn parse(line: &[u8]) -> Result<Receipt, String> {
    let links = links(line)?;
    let digest = |hex| Digest::from_hex(hex).ok_or("a digest is not 64 lower-case hex digits");
    let (prev, hash) = (digest(links.prev)?, digest(links.hash)?);
    let (Subject { ts, dispatch, attempt, .. }, key, body) = links.payload()?;
    let dispatch = dispatch.map(DispatchId::parse).transpose().map_err(|e| e.what)?;
    Ok(Receipt { seq: links.seq, ts, key: key.to_owned(), dispatch, attempt, body, hash, prev })
}

/// The same for a reader who shows it: a line whose hash does not fit was edited.
pub fn read(line: &[u8]) -> Result<Receipt, String> {
    let receipt = parse(line)?;
    let sound = links(line)?.sound_hash();
    sound.map(|_| ()).map_err(|_| format!("receipt {} was edited: its hash does not fit its bytes", receipt.seq))?;
    Ok(receipt)
}

impl<'a> Links<'a> {
    /// Whether the line says that it is of this kind, without a look at anything else.
    pub fn says(&self, kind: Kind) -> bool {
        let word = self.word().and_then(|w| w.strip_prefix(kind.word().as_bytes()));
        word.is_some_and(|after| after.starts_with(b"\""))
    }
    /// Whether it says that it is about the ledger itself: those receipts are read even where
    /// payloads are not.
    pub(super) fn is_structural(&self) -> bool {
        self.word().is_some_and(|word| word.starts_with(b"ledger.") || word.starts_with(b"anchor."))
    }
    /// Its kind and all that follows.
    fn word(&self) -> Option<&'a [u8]> {
        // `,"ts":"2026-11-21T01:02:03.456789Z"` has a fixed length.
        self.rest.get(35..).and_then(|r| r.strip_prefix(b",\"kind\":\""))
    }

    /// What the line is about, without a look at its payload.
    pub fn subject(&self) -> Result<Subject<'a>, String> {
        self.begin().map(|(subject, _)| subject)
    }

    /// The same, and everything from `key` on.
    fn begin(&self) -> Result<(Subject<'a>, &'a str), String> {
        let text = std::str::from_utf8(self.rest).map_err(|_| "the line is not UTF-8".to_owned())?;
        let (ts, rest) = plain(text, ",\"ts\":\"").ok_or_else(|| wrong("ts"))?;
        let ts = Timestamp::strict(ts).ok_or_else(|| wrong("ts"))?;
        let (word, mut rest) = plain(rest, ",\"kind\":\"").ok_or_else(|| wrong("kind"))?;
        let kind = Kind::from_word(word).ok_or_else(|| format!("kind {word:?} is not known to this vnx"))?;
        let (mut dispatch, mut attempt) = (None, 1);
        if let Some((id, after)) = plain(rest, ",\"dispatch\":\"") {
            DispatchId::check(id).map_err(|e| e.what)?;
            dispatch = Some(id);
            let after = after.strip_prefix(",\"attempt\":").ok_or_else(|| wrong("attempt"))?;
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let n = number(after.as_bytes()).and_then(|(n, _)| u32::try_from(n).ok()).filter(|n| *n > 0);
            (attempt, rest) = (n.ok_or_else(|| wrong("attempt"))?, &after[digits..]);
        }
        Ok((Subject { ts, kind, dispatch, attempt }, rest))
    }

    /// The members between `seq` and `hash`: what it is about, its key and its payload.
    pub fn payload(&self) -> Result<(Subject<'a>, &'a str, Body), String> {
        let (subject, key, data) = self.parts()?;
        let Subject { kind, dispatch, attempt, .. } = subject;
        if is_spaced(data) {
            return Err(SPACED.to_owned());
        }
        let body = Body::from_json(kind, data).map_err(|e| format!("the payload is not a {}: {e}", kind.word()))?;
        if body.has_key(dispatch, attempt, key) { Ok((subject, key, body)) } else { Err(wrong("key")) }
    }

    /// As strict as [`Links::payload`], for whoever needs no more than the payloads that are about the
    /// ledger itself.
    pub fn check(&self) -> Result<Option<Body>, String> {
        let (Subject { kind, dispatch, attempt, .. }, key, data) = self.parts()?;
        if is_spaced(data) {
            return Err(SPACED.to_owned());
        }
        let body = Body::checked(kind, data).map_err(|e| format!("the payload is not a {}: {e}", kind.word()))?;
        let fits = match &body {
            Some(body) => body.has_key(dispatch, attempt, key),
            None => kind.has_key(dispatch, attempt, key),
        };
        if fits { Ok(body) } else { Err(wrong("key")) }
    }

    /// What it is about, its key, and its payload as text.
    fn parts(&self) -> Result<(Subject<'a>, &'a str, &'a str), String> {
        let (subject, rest) = self.begin()?;
        let Subject { kind, dispatch, .. } = subject;
        let (key, rest) = plain(rest, ",\"key\":\"").ok_or_else(|| wrong("key"))?;
        let mut rest = rest;
        if let Some(after) = rest.strip_prefix(",\"redacted\":") {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            number(after.as_bytes()).filter(|(n, _)| *n > 0).ok_or_else(|| wrong("redacted"))?;
            rest = &after[digits..];
        }
        let data = rest.strip_prefix(",\"data\":").ok_or_else(|| wrong("data"))?;
        // serde would also take an array of the members' values.
        if !data.starts_with('{') || !data.ends_with('}') {
            return Err(wrong("data"));
        }
        if beyond(data) {
            return Err(format!("a number of the payload is not within {MAX_INTEGER}"));
        }
        if let Some(member) = differently(data) {
            return Err(format!("the payload's {member:?} is null, or an array where none belongs"));
        }
        if dispatch.is_some() != kind.is_of_dispatch() {
            let does = if kind.is_of_dispatch() { "does" } else { "does not" };
            return Err(format!("a {} {does} belong to a dispatch", kind.word()));
        }
        Ok((subject, key, data))
    }
}

fn wrong(what: &str) -> String {
    format!("{what} is not as the format has it")
}

/// What a line is about: its members before the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// When its writer says it was written.
    pub ts: Timestamp,
    /// Its kind.
    pub kind: Kind,
    /// The id of the dispatch it belongs to.
    pub dispatch: Option<&'a str>,
    /// The attempt.
    pub attempt: u32,
}

/// The member of a payload that says the same in another way than a writer does: serde reads null
/// for what is absent, and an array of values for an object.
fn differently(json: &str) -> Option<&str> {
    static NULL: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("null"));
    let bytes = json.as_bytes();
    // Within a text the quote before the colon would be escaped.
    let member = |at: usize| {
        let before = bytes[..at].strip_suffix(b"\":")?;
        let begin = memchr::memrchr(b'"', before)? + 1;
        (before.last() != Some(&b'\\')).then(|| &json[begin..before.len()])
    };
    let null = NULL.find_iter(bytes).find_map(member);
    null.or_else(|| memchr::memchr_iter(b'[', bytes).filter_map(member).find(|name| !is_list(name)))
}

const SPACED: &str = "the payload has blanks between its members, which no writer puts there";

/// Whether blanks stand outside of the texts of a JSON text, where the checks of the format do not look for them.
fn is_spaced(json: &str) -> bool {
    let bytes = json.as_bytes();
    // Most blanks show by what stands around them that they are within a text.
    memchr::memchr3_iter(b' ', b'\t', b'\r', bytes).any(|at| may_be_outside(bytes, at)) && is_spaced_somewhere(bytes)
}

/// Whether a blank could stand between two members or values.
fn may_be_outside(bytes: &[u8], at: usize) -> bool {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r');
    let mut before = bytes[..at].iter().rev().skip_while(|b| is_blank(b)).copied();
    let after = bytes[at..].iter().find(|b| !is_blank(b)).copied().unwrap_or(b'}');
    let ends_value = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_digit() || b"\"]}el".contains(&b));
    match before.next() {
        None | Some(b'{' | b'[') => true,
        Some(b':') => before.next() == Some(b'"'),
        Some(b',') => ends_value(before.next()) && (after.is_ascii_digit() || b"\"{[-tfn".contains(&after)),
        value => ends_value(value) && b",:]}".contains(&after),
    }
}

fn is_spaced_somewhere(bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let quote = memchr::memchr(b'"', &bytes[at..]).map_or(bytes.len(), |next| at + next);
        if bytes[at..quote].iter().any(u8::is_ascii_whitespace) {
            return true;
        }
        at = quote + 1;
        // To the end of the text; what follows a backslash does not end it.
        while let Some(next) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            at += next + 1;
            if bytes[at - 1] == b'"' {
                break;
            }
            at += 1;
        }
    }
    false
}

/// Whether a JSON text holds an integer beyond [`MAX_INTEGER`], which not every reader keeps.
pub(super) fn beyond(json: &str) -> bool {
    let bytes = json.as_bytes();
    // A number that large has 16 digits in a row, so eight of them stand together in one block of eight.
    let (blocks, _) = bytes.as_chunks::<8>();
    // Without branches first, which is several times as fast.
    if !blocks.iter().fold(false, |any, block| any | all_digits(*block)) {
        return false;
    }
    let mut checked = 0;
    for (n, block) in blocks.iter().enumerate() {
        let at = n * 8;
        if at < checked || !all_digits(*block) {
            continue;
        }
        let start = bytes[..at].iter().rposition(|b| !b.is_ascii_digit()).map_or(0, |p| p + 1);
        let end = bytes[at..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |p| at + p);
        let is_number = start == 0 || b":,[-".contains(&bytes[start - 1]);
        if end - start >= 16 && is_number && holds_beyond(&serde_json::from_str(json).unwrap_or_default()) {
            return true;
        }
        checked = end;
    }
    false
}

/// Whether all eight bytes are digits: high halves of 3, and low ones that six does not carry over.
fn all_digits(block: [u8; 8]) -> bool {
    const THREES: u64 = 0x3030_3030_3030_3030;
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let block = u64::from_le_bytes(block);
    block & HIGH == THREES && block.wrapping_add(0x0606_0606_0606_0606) & HIGH == THREES
}

fn holds_beyond(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(n) => n.as_i64().is_none_or(|n| n.unsigned_abs() > MAX_INTEGER),
        serde_json::Value::Array(items) => items.iter().any(holds_beyond),
        serde_json::Value::Object(members) => members.values().any(holds_beyond),
        _ => false,
    }
}

/// The value of a text member that needs no escapes, and what follows its closing quote.
fn plain<'a>(text: &'a str, member: &str) -> Option<(&'a str, &'a str)> {
    let text = text.strip_prefix(member)?;
    let end = memchr::memchr2(b'"', b'\\', text.as_bytes())?;
    (text.as_bytes()[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests;
