//! The door and the life of a dispatch behind it:
//! request → snapshot → plan → claim → prepare → run → collect → judge → teardown → close.
//!
//! The foreground command goes as far as the claim; a supervisor process does the rest and
//! owns it. Whatever dies on the way, `recover` finishes the story from the receipts.

mod budget;
pub mod caller;
mod claim;
pub mod doctor;
mod door;
mod finish;
pub mod gates;
mod guard;
mod hooks;
mod launch;
pub mod leftovers;
pub mod list;
pub mod overview;
pub mod own;
mod panes;
pub mod plan;
mod pool;
pub mod presence;
mod recover;
pub mod request;
mod resume;
pub mod retry;
pub mod snapshot;
pub mod stage;
pub mod steer;
mod supervise;
mod supplies;
mod surroundings;
pub mod trees;
pub mod trust;
pub mod view;

pub use claim::Claim;
pub use door::{Opened, Options, Progress, open, plan_only};
pub use finish::Why;
pub use guard::{GUARD, guard};
pub use panes::repane;
pub use plan::{Planned, Refusal, compile};
pub use recover::{recover_all, recover_one, tidy};
pub use request::Request;
pub use resume::resume;
pub use snapshot::{Snapshot, snapshot};
pub use supervise::supervise;
pub use supplies::{Lacking, lacking};
