//! Gates of a dispatch: what is known of them, running them, and what persons say.

mod approvals;
mod items;
mod job;
mod look;
mod review;
mod runner;
mod start;

pub(super) use approvals::accepted;
pub use approvals::{Terms, accept_loss, actor, approve, override_gate};
pub(super) use items::of_report;
pub use items::{Listed as Item, add as add_item, close as close_item, list as items};
pub use look::{CONFLICT, Looked, by_the_branch, check, git_config, look, look_back, runs, target};
pub use runner::{run_gate, tidy};
pub use start::{Ran, Wanted, post_merge, run};
