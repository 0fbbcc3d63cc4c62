//! The stories: one test binary that drives the built `vnx` against real git, real tmux and
//! real processes, each test in a world of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::manual_assert,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::unused_self,
    reason = "a test that fails may panic, and its helpers serve the reader of the test"
)]

mod common;

mod anchors;
mod answers;
mod asked;
mod attacks;
mod authority;
mod bad_input;
mod book;
mod constraints;
mod contained;
mod corners;
mod crashes;
mod creation;
mod deletions;
mod documentation;
mod environments;
mod errors;
mod everyday;
mod exposure;
mod first_day;
mod gates;
mod housekeeping;
mod imports;
mod kept;
mod kills;
mod landed;
mod layering;
mod layouts;
mod ledger;
mod main_job;
mod merge_kills;
mod merges;
mod ollama;
mod own_work;
mod packaging;
mod panes;
mod parallel;
mod pool;
mod projections;
mod repositories;
mod reviews;
mod shared_files;
mod shared_refs;
mod shells;
mod soak;
mod stages;
mod status;
mod tampering;
mod teardown;
mod terminals;
mod transcripts;
mod trust;
mod ugly;
mod undo;
mod workers;
mod writers;
