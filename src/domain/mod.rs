//! The words of vnx as types, and the decisions as pure functions.
//!
//! Nothing here reads a file, a clock or a process: what a function needs is an argument.
//! That is what makes `classify` and `judge` testable as tables.

pub mod address;
pub mod agent;
pub mod authority;
pub mod checkpoint;
pub mod constraint;
pub mod digest;
pub mod endpoint;
pub mod event;
pub mod fault;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod gate;
pub mod glob;
pub mod id;
pub mod line;
pub mod merkle;
pub mod outcome;
pub mod patch;
pub mod plan;
pub mod receipt;
pub mod redact;
pub mod reset;
pub mod rules;
#[cfg(test)]
mod schema;
pub mod setup;
pub mod span;
pub mod sshsig;
pub mod time;
pub mod tree;
pub mod trust;
pub mod variable;
pub mod verdict;

pub use digest::Digest;
pub use fault::{Fault, FaultKind};
pub use id::{DispatchId, Name};
pub use outcome::{Decision, Outcome};
pub use time::Timestamp;
