//! Anything that a test runner prints: as lines, and as a JUnit report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::domain::gate::counts::{Counter, junit};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = junit(&text).map(|tests| tests.words());
    let mut counter = Counter::default();
    text.lines().for_each(|line| counter.line(line));
    counter.tests();
});
