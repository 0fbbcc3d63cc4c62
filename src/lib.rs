//! vnx: a local control plane for the coding CLIs that sit on this machine.
//!
//! One dispatch is one unit of work: one worker (a CLI as a subprocess), one git worktree,
//! one verdict from evidence, one chain of receipts. `docs/architecture.md` draws the picture;
//! the rooms below depend on each other in one direction only, top to bottom, and
//! `tests/layering.rs` holds them to it.

pub mod domain;

pub mod sys;

pub mod git;
pub mod ledger;
pub mod project;
pub mod tmux;

pub mod anchor;
pub mod prompt;
pub mod provider;
pub mod state;
pub mod worker;
pub mod worktree;

pub mod gate;

pub mod dispatch;

pub mod merge;

pub mod cli;
