//! The small languages: times of resets, globs, spans, sizes, names, checkpoints, redaction.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::domain::checkpoint::Checkpoint;
use vnx::domain::glob::Glob;
use vnx::domain::line;
use vnx::domain::redact::Redactor;
use vnx::domain::reset::reset_at;
use vnx::domain::span::{Size, Span};
use vnx::domain::{DispatchId, Name, Timestamp};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    reset_at(&text, jiff::Timestamp::UNIX_EPOCH, &jiff::tz::TimeZone::UTC);
    if let Some(time) = Timestamp::strict(&text) {
        assert_eq!(time.to_string(), text);
    }
    if let Ok(glob) = Glob::parse(&text) {
        glob.matches("src/a/b.rs");
        glob.matches(&text);
    }
    if let Ok(span) = Span::parse(&text) {
        assert_eq!(Span::parse(&span.to_string()), Ok(span));
    }
    if let Some(point) = Checkpoint::parse(&text) {
        assert_eq!(point.to_text(), text);
    }
    let _ = (Size::parse(&text), Name::parse("name", &text), DispatchId::parse(&text));
    assert!(line::summary(&text).chars().all(line::shows_itself));
    line::drawn(&text);
    let redactor = Redactor::new(vec![("TOKEN".into(), "hunter2hunter2".into())]);
    assert!(!redactor.redact(&format!("{text} hunter2hunter2 ")).contains("hunter2hunter2"));
});
