//! Ledgers of the Python VNX (`t0_receipts.ndjson`) under their own rules.
//!
//! There the hash of an entry is the SHA-256 of its canonical JSON without `prev_hash`, and the
//! `prev_hash` of the next entry holds it, so a link binds only the entry before it: what is
//! `verified` here was checked as well as its format can be, which is far less than a chain of ours.
//! A file may begin unchained, and a marker (`chain_epoch_start`) begins a chain anew.

mod json;

use crate::domain::Digest;
use crate::domain::receipt::{ImportStatus, ImportViolation};

/// `prev_hash` of the first entry of a chain.
const GENESIS: [u8; 64] = [b'0'; 64];

/// An entry of an older ledger, as far as its rules look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderEntry {
    /// The hash that the next entry's `prev_hash` must hold.
    pub hash: Digest,
    /// Its own `prev_hash` as canonical JSON.
    prev: Option<String>,
    /// It begins an epoch.
    marker: bool,
}

impl OlderEntry {
    /// Reads a line (without line feed) as Python does.
    ///
    /// # Errors
    /// What keeps Python from reading it as an object.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let mut members = json::members(line)?;
        let named = |members: &[(Vec<u32>, String)], name: &str| {
            members.iter().position(|(n, _)| n.iter().copied().eq(name.bytes().map(u32::from)))
        };
        let prev = named(&members, "prev_hash").map(|at| members.remove(at).1);
        let marker = named(&members, "type").is_some_and(|at| members[at].1 == "\"chain_epoch_start\"");
        Ok(Self { hash: Digest::of(json::object(&members).as_bytes()), prev, marker })
    }

    fn follows(&self, hash: &[u8; 64]) -> bool {
        let prev = self.prev.as_deref().and_then(|p| p.strip_prefix('"')).and_then(|p| p.strip_suffix('"'));
        prev.is_some_and(|prev| prev.as_bytes() == hash)
    }
}

/// Walks an older ledger line by line.
#[derive(Debug, Default)]
pub struct Walk {
    /// Lines that are not blank.
    pub lines: u64,
    /// Entries that carry a `prev_hash`.
    pub chained: u64,
    /// Markers that begin an epoch.
    pub epochs: u64,
    /// Lines that break the rules.
    pub violations: u64,
    /// The first of them.
    pub first_bad: Option<ImportViolation>,
    /// Lines that are JSON objects.
    pub objects: u64,
    /// Entries before the first chained one.
    prefix: u64,
    /// What the next entry's `prev_hash` must be, once a chain has begun.
    expected: Option<[u8; 64]>,
    line: u64,
}

impl Walk {
    /// Takes the next line, without its line feed; `whole` when it had one.
    pub fn line(&mut self, line: &[u8], whole: bool) {
        self.line += 1;
        if line.trim_ascii().is_empty() {
            return;
        }
        self.lines += 1;
        match OlderEntry::read(line) {
            Ok(entry) => {
                self.objects += 1;
                if let Err(reason) = self.entry(&entry) {
                    self.violation(reason);
                }
            }
            Err(_) if !whole => self.violation("the last line is incomplete"),
            Err(reason) => self.violation(reason),
        }
    }

    /// Takes a line that is too long to be looked at.
    pub fn too_long(&mut self) {
        self.line += 1;
        self.lines += 1;
        self.violation("it is longer than a receipt can be");
    }

    fn entry(&mut self, entry: &OlderEntry) -> Result<(), &'static str> {
        if entry.prev.is_none() && self.expected.is_none() {
            self.prefix += 1;
            return Ok(());
        }
        let result = if entry.prev.is_none() {
            Err("an entry without prev_hash stands in a chain")
        } else if entry.marker {
            self.epochs += 1;
            if entry.follows(&GENESIS) { Ok(()) } else { Err("an epoch does not begin with the hash of 64 zeros") }
        } else {
            match &self.expected {
                Some(expected) if entry.follows(expected) => Ok(()),
                Some(_) => Err("its prev_hash is not the hash of the entry before it"),
                None if self.prefix > 0 => Err("a chain begins after unchained entries without a marker"),
                None if entry.follows(&GENESIS) => Ok(()),
                None => Err("the chain does not begin with the hash of 64 zeros"),
            }
        };
        self.chained += u64::from(entry.prev.is_some());
        self.expected = Some(entry.hash.hex());
        result
    }

    fn violation(&mut self, reason: impl Into<String>) {
        self.violations += 1;
        let line = self.line;
        self.first_bad.get_or_insert_with(|| ImportViolation { line, reason: reason.into() });
    }

    /// What the rules of the older ledger say of it.
    pub fn status(&self) -> ImportStatus {
        match (self.violations, self.chained, self.prefix + self.epochs) {
            (1.., _, _) => ImportStatus::Broken,
            (0, 0, _) => ImportStatus::Unchained,
            (0, _, 0) => ImportStatus::Verified,
            (0, _, _) => ImportStatus::Segmented,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_hash_as_the_published_vectors_say() {
        let vectors = [
            (r#"{"a":1}"#, "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"),
            (
                r#"{"b": "é", "a": [1, 2.0, 1e3, true, null]}"#,
                "49c34670065de864dc168c954751a749bcafa3be4632d933580b6d59f5466066",
            ),
            (
                r#"{"status":"done","prev_hash":"x","n":0,"dispatch_id":"d0"}"#,
                "3a32973af5657d450b991ee7775e5dd08277fadd22f86364c6f3c57318ab1dd7",
            ),
            (
                r#"{"type": "chain_epoch_start", "epoch": 1, "epoch_ts": "2026-01-01T00:00:00+00:00"}"#,
                "1101f925d3cbb51554a883746255581f383c4687944f25c20e34812916c1643b",
            ),
            (
                "{\"z\":-0.0,\"y\":123456789012345678901234567890,\"x\":0.0000001,\"u\":\"\u{2028}\\/\\\\\\\"\"}",
                "2bdb4978367364508daf378aa982671dc67c397d026d7c935280068e4d3673ce",
            ),
            // The last of two equal names counts, and the hash does not cover prev_hash.
            (r#"{"a":2,"prev_hash":"y","a":1}"#, "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"),
        ];
        for (line, hash) in vectors {
            assert_eq!(OlderEntry::read(line.as_bytes()).unwrap().hash.to_string(), hash, "{line}");
        }
    }

    /// `n` entries, each chained to the one before.
    fn chain(n: usize) -> Vec<String> {
        let mut prev = String::from_utf8(GENESIS.to_vec()).unwrap();
        let entry = |i: usize| {
            let line = format!(r#"{{"dispatch_id":"d{i}","n":{i},"status":"done","prev_hash":"{prev}"}}"#);
            prev = OlderEntry::read(line.as_bytes()).unwrap().hash.to_string();
            line
        };
        (0..n).map(entry).collect()
    }

    fn marker(epoch: u64) -> String {
        format!(r#"{{"type": "chain_epoch_start", "epoch": {epoch}, "prev_hash": "{}"}}"#, "0".repeat(64))
    }

    /// The entries of `chain` after another beginning.
    fn after(first: &str, n: usize) -> Vec<String> {
        let mut lines = vec![first.to_owned()];
        for i in 0..n {
            let prev = OlderEntry::read(lines[i].as_bytes()).unwrap().hash;
            lines.push(format!(r#"{{"n":{i},"prev_hash":"{prev}"}}"#));
        }
        lines
    }

    fn walked(lines: &[String]) -> Walk {
        let mut walk = Walk::default();
        for line in lines {
            walk.line(line.as_bytes(), true);
        }
        walk
    }

    #[test]
    fn its_own_rules_say_unchained_verified_segmented_or_broken() {
        let bare: Vec<String> = (0..3).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
        assert_eq!(walked(&bare).status(), ImportStatus::Unchained);
        assert_eq!(walked(&chain(5)).status(), ImportStatus::Verified);
        let sealed = [bare.clone(), after(&marker(1), 4), after(&marker(2), 3)].concat();
        let walk = walked(&sealed);
        assert_eq!((walk.status(), walk.epochs, walk.chained, walk.lines), (ImportStatus::Segmented, 2, 9, 12));
        let broken = |lines: &[String], line: u64, says: &str| {
            let walk = walked(lines);
            assert_eq!(walk.status(), ImportStatus::Broken, "{lines:?}");
            let bad = walk.first_bad.unwrap();
            assert_eq!(bad.line, line, "{bad:?}");
            assert!(bad.reason.contains(says), "{bad:?}");
        };
        let edited = |n: usize| {
            let mut lines = chain(5);
            lines[n] = lines[n].replace("done", "lost");
            lines
        };
        broken(&edited(1), 3, "not the hash of the entry before");
        // Its format cannot see this one; only our own chain can, from the import on.
        assert_eq!(walked(&edited(4)).status(), ImportStatus::Verified);
        let mut swapped = chain(5);
        swapped.swap(2, 3);
        broken(&swapped, 3, "not the hash");
        broken(&[chain(2), bare.clone()].concat(), 3, "without prev_hash");
        broken(&[bare.clone(), chain(2)].concat(), 4, "without a marker");
        broken(&chain(5)[1..], 1, "64 zeros");
        broken(&[marker(1).replace("00000", "00001")], 1, "64 zeros");
        broken(&["{\"n\":0}".into(), "[1]".into()], 2, "no JSON object");
        let mut walk = Walk::default();
        walk.line(chain(1)[0].as_bytes(), true);
        walk.line(b"", true);
        walk.line(b"{\"n\":1,\"prev_ha", false);
        assert_eq!(
            walk.first_bad.as_ref().map(|b| (b.line, b.reason.as_str())),
            Some((3, "the last line is incomplete"))
        );
    }
}
