//! Any bytes as a line of a Python ledger: no panic, and what is read as canonical reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::ledger::older::{OlderEntry, Walk};

fuzz_target!(|text: &[u8]| {
    let mut walk = Walk::default();
    for line in text.split(|b| *b == b'\n') {
        let read = OlderEntry::read(line);
        assert!(read.is_err() || read == OlderEntry::read(line));
        walk.line(line, true);
    }
    walk.status();
});
