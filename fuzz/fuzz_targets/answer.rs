//! Any answer of a model: as a review only what says so passes, as a patch it names files inside the repository.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::domain::gate::{GateStatus, review};
use vnx::domain::patch::{self, Offer};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let read = review::read(&text, NONCE);
    if read.status == GateStatus::Pass {
        assert!(text.contains(NONCE) && !read.findings.iter().any(|finding| finding.severity.blocks()));
    } else {
        assert!(!read.reason.is_empty());
    }
    if let Offer::Patch(patch) = patch::find(&text) {
        assert!(!patch.is_empty());
    }
    review::speaks_to_reviewers(&text);
});
