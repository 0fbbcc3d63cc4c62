//! Why a command could not do what was asked: one line that says what, one that says what to do.

use std::fmt;

/// What kind of obstacle it is. The exit code follows from it (see `cli::exit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Usage or bad input: a flag, a file or an id is wrong. Exit 2.
    Input,
    /// Refused by policy: a constraint, a limit, a missing approval. Exit 3.
    Refused,
    /// The environment is missing something: a CLI, git, disk, a project. Exit 5.
    Environment,
    /// The operating system said no in a way nobody can plan for. Exit 74.
    Io,
    /// Another process holds a lock for too long. Exit 75.
    Busy,
    /// A bug in vnx. Exit 70.
    Internal,
}

/// An obstacle in words for people: `what` completes "failed: …" and `fix` says what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind, which decides the exit code.
    pub kind: FaultKind,
    /// Lower-case, one line, names the thing.
    pub what: String,
    /// What to do next; empty where nothing more is known than what helps with its kind (see [`Fault::next`]).
    pub fix: String,
}

impl Fault {
    fn new(kind: FaultKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), fix: String::new() }
    }
    /// Bad input by the user.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(FaultKind::Input, what)
    }
    /// Refused by policy.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(FaultKind::Refused, what)
    }
    /// Something is missing on this machine or in this repository.
    pub fn environment(what: impl Into<String>) -> Self {
        Self::new(FaultKind::Environment, what)
    }
    /// An I/O error.
    pub fn io(what: impl Into<String>) -> Self {
        Self::new(FaultKind::Io, what)
    }
    /// A lock that did not come free.
    pub fn busy(what: impl Into<String>) -> Self {
        Self::new(FaultKind::Busy, what)
    }
    /// A broken promise of our own code.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(FaultKind::Internal, what)
    }
    /// Adds what to do next.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
    /// What to do next: what was said when it was found, otherwise what helps with all of its kind.
    pub fn next(&self) -> &str {
        match (self.fix.as_str(), self.kind) {
            ("", FaultKind::Input) => "see --help of the command",
            ("", FaultKind::Refused) => "see `vnx status`",
            ("", FaultKind::Environment | FaultKind::Io) => {
                "run `vnx doctor`, which says what is wrong here; then try again"
            }
            ("", FaultKind::Busy) => "wait a moment, then try again",
            ("", FaultKind::Internal) => "run the command again; nothing that was recorded is lost",
            (fix, _) => fix,
        }
    }
    /// Puts a context in front: `context: what`.
    #[must_use]
    pub fn during(mut self, context: &str) -> Self {
        self.what = format!("{context}: {}", self.what);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_and_what_next() {
        let fault = Fault::input("no such thing").fix("name another");
        assert_eq!((fault.to_string().as_str(), fault.next()), ("no such thing", "name another"));
        assert!(!Fault::io("x").next().is_empty(), "every one has a next step");
    }
}
