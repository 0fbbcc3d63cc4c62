//! Feeds parsers with samples that were changed in every way that comes to mind: none may panic, hang, or take what was
//! changed for what it was not.
//!
//! A thousand inputs each; `VNX_TEST_FUZZ=10m cargo test --release --lib fuzz` goes on for that long, with other ones.

use std::time::{Duration, Instant};

use super::span::Span;

/// How many inputs, where nobody says how long.
const INPUTS: u64 = 1000;
/// No input may take a parser longer than this, which is far more than any does.
const PATIENCE: Duration = Duration::from_secs(5);
/// What formats treat as more than a character.
const TOKENS: [&[u8]; 28] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"&a",
    b"*a",
    b"<<: ",
    b"!!",
    b"\x1b[",
    b"---\n",
    b"@@ -0,0 +1 @@\n",
    b"../",
    b"%n",
    b"\xe2\x80\xae",
];

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % n.max(1)
    }
}

fn changed(dice: &mut Dice, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = samples[dice.below(samples.len())].clone();
    for _ in 0..=dice.below(6) {
        let (a, b) = (dice.below(bytes.len() + 1), dice.below(bytes.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        match dice.below(9) {
            0 => bytes.truncate(a),
            1 => drop(bytes.drain(from..to.min(from + 40))),
            2 => drop(bytes.splice(a..a, TOKENS[dice.below(TOKENS.len())].iter().copied())),
            3 => {
                let again = bytes[from..to].repeat(1 + dice.below(3));
                bytes.splice(a..a, again);
            }
            4 => {
                let other = &samples[dice.below(samples.len())];
                let cut = dice.below(other.len() + 1);
                bytes.truncate(a);
                bytes.extend_from_slice(&other[cut..]);
            }
            5 => bytes.reverse(),
            6 if to > from => bytes[from..to].rotate_left(1),
            7 => drop(bytes.splice(from..to.min(from + 8), TOKENS[dice.below(TOKENS.len())].iter().copied())),
            _ => {
                let bit = 1 << dice.below(8);
                if let Some(byte) = bytes.get_mut(a) {
                    *byte ^= bit;
                }
            }
        }
        bytes.truncate(64 << 10);
    }
    bytes
}

/// Hands a parser the samples, and then changed ones.
pub(crate) fn fuzz(samples: &[Vec<u8>], mut parser: impl FnMut(&[u8])) {
    assert!(samples.iter().any(|sample| !sample.is_empty()), "there is nothing to change");
    let long = std::env::var("VNX_TEST_FUZZ").ok().map(|text| Span::parse(&text).unwrap().duration());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = long.map_or(1, |_| u64::from(now.subsec_nanos()) | 1);
    let (mut dice, begun) = (Dice(seed), Instant::now());
    let mut try_one = |bytes: &[u8]| {
        let before = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser(bytes)));
        let shown = || bytes.escape_ascii().to_string();
        assert!(result.is_ok(), "it panics at {}", shown());
        assert!(before.elapsed() < PATIENCE, "it takes {:?} for {}", before.elapsed(), shown());
    };
    for sample in samples {
        try_one(sample);
    }
    let mut tried = 0;
    while long.map_or(tried < INPUTS, |long| begun.elapsed() < long) {
        try_one(&changed(&mut dice, samples));
        tried += 1;
    }
    if long.is_some() {
        println!("{tried} inputs, seed {seed}");
    }
}

/// The files of a folder of the repository.
pub(crate) fn samples_in(folder: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn fuzz_answers() {
    use super::gate::{GateStatus, review};
    let nonce = "0123456789abcdef0123456789abcdef";
    fuzz(&samples_in("fuzz/seeds/answer"), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if review::read(&text, nonce).status == GateStatus::Pass {
            // Whatever passes says so, for this nonce, and finds nothing that blocks: as another reader has it.
            let inner = text.trim().trim_start_matches("```json").trim_matches('`');
            let said: serde_json::Value = serde_json::from_str(inner).unwrap();
            assert!(said["verdict"] == "pass" && said["nonce"] == nonce, "{text}");
            let findings = said["findings"].as_array().unwrap();
            assert!(findings.iter().all(|f| f["severity"] == "nit" || f["severity"] == "minor"), "{text}");
        }
        super::patch::find(&text);
    });
}

#[test]
fn fuzz_what_test_runners_print() {
    use super::gate::counts;
    fuzz(&samples_in("fuzz/seeds/counts"), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        counts::junit(&text);
        let mut counter = counts::Counter::default();
        text.lines().for_each(|line| counter.line(line));
        counter.tests();
    });
}

#[test]
fn fuzz_small_words() {
    use super::{DispatchId, Name, Timestamp};
    let mut samples: Vec<Vec<u8>> =
        include_str!("../../fuzz/seeds/words.txt").lines().map(|line| line.as_bytes().to_vec()).collect();
    samples.push(b"vnx/0a1b\n42\nAAAA\n".to_vec());
    let redactor = super::redact::Redactor::new(vec![("TOKEN".into(), "hunter2hunter2".into())]);
    fuzz(&samples, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        super::reset::reset_at(&text, jiff::Timestamp::UNIX_EPOCH, &jiff::tz::TimeZone::UTC);
        let _ = Timestamp::strict(&text).inspect(|ts| assert_eq!(ts.to_string(), text));
        if let Ok(glob) = super::glob::Glob::parse(&text) {
            glob.matches("src/a/b.rs");
            glob.matches(&text);
        }
        if let Ok(span) = Span::parse(&text) {
            assert_eq!(Span::parse(&span.to_string()), Ok(span));
        }
        let _ = super::span::Size::parse(&text);
        let _ = (Name::parse("name", &text), DispatchId::parse(&text));
        let _ = super::checkpoint::Checkpoint::parse(&text).inspect(|c| assert_eq!(c.to_text(), text));
        assert!(super::line::summary(&text).chars().all(super::line::shows_itself));
        assert!(!redactor.redact(&format!("{text} hunter2hunter2 ")).contains("hunter2hunter2"));
    });
}
