//! The stories: one test binary that drives the built `vnx` against real git, real tmux and
//! real processes, each test in a world of its own.

mod common;

mod layering;
