//! Gates of a dispatch: what is known of them, running them, and what persons say.

mod items;
mod job;
mod look;
mod persons;
mod review;
mod runner;
mod start;

pub(super) use items::of_report;
pub use items::{Listed as Item, add as add_item, close as close_item, list as items};
pub use look::{CONFLICT, Looked, by_the_branch, check, git_config, look, look_back, runs};
pub use persons::{Spoken, actor, approve, refuse_workers, set_aside};
pub use runner::{run_gate, tidy};
pub use start::{Ran, Wanted, post_merge, run};
