//! Any bytes as a ledger file: no panic, an answer, and "verified" only for what begins as one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::ledger::verify::{Options, Status, verify};

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("vnx-fuzz-{}.ndjson", std::process::id()));
    std::fs::write(&path, bytes).expect("a temporary file");
    let sizes = [1, 2, 7];
    for quick in [false, true] {
        let report = verify(&path, &Options { quick, roots: Some(&sizes), ..Options::default() });
        assert!(report.bytes <= bytes.len() as u64);
        if report.status == Status::Verified {
            assert!(report.receipts > 0 && report.bytes == bytes.len() as u64 && bytes.starts_with(b"{\"v\":1,"));
        } else {
            assert!(report.first_bad.is_some());
        }
    }
});
