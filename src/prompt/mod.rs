//! Agents, skills and the one composer that turns them and an assignment into a prompt.

mod compose;
mod library;

pub use compose::{Assignment, Composed, compose, go_on};
pub use library::{Listed, agent, agents, skills_of};

#[cfg(test)]
mod tests;
