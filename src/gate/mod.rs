//! Gates at work: which apply, how one is run, what it leaves behind, and whether that still counts.
//!
//! What is decided is decided in `domain::gate`; here is what it takes to know and to act.

mod evidence;
mod policy;
mod probe;
mod reviewing;
mod setup;

pub use evidence::{Evidence, Reviewer, ended, folder, is_split, keep, proof};
pub use policy::{Authority, Policy, policy, standing};
pub use probe::{PROBE, ProbeSaid, probe};
pub use reviewing::{Shown, instruction};
pub use setup::{ADD, how_to_add, own_signer};
