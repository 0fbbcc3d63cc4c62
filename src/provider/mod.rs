//! Providers: a YAML manifest each and, where the event stream needs it, one parser.

pub mod acp;
mod claude;
mod codex;
pub mod constraints;
pub mod environment;
mod failures;
mod first_start;
mod gemini;
pub mod hooks;
mod json;
mod kimi;
mod manifest;
pub mod prices;
mod stream;
mod transcript;
mod turns;
mod version;

pub use environment::moved_in;
pub use first_start::prepare;
pub use manifest::{
    AcpLevel, AcpSpec, LaneSpec, Manifest, Probe, VersionProbe, all, load, marks, names, shipped_or_own,
};
pub use stream::Stream;
pub use transcript::counts_the_session;
pub use version::{Asked, ask, is_too_old, too_old};

#[cfg(test)]
mod tests;
