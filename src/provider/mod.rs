//! Providers: a YAML manifest each and, where the event stream needs it, one parser.

mod claude;
mod codex;
pub mod constraints;
pub mod environment;
mod failures;
mod manifest;
mod stream;

pub use manifest::{LaneSpec, Manifest, VersionProbe, all, load};
pub use stream::Stream;

#[cfg(test)]
mod tests;
