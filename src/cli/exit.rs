//! Exit codes, all of them, in one place (the table in `--help` and in README is this one).

use std::process::ExitCode;

use crate::domain::verdict::Verdict;
use crate::domain::{Decision, FaultKind, Outcome};

/// The code of a time that passed.
pub(super) const TIMED_OUT: u8 = 124;

/// How a command that ran to its end came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done and good.
    Good,
    /// Done, and the answer is no.
    No,
    /// A command with codes of its own (`audit-chain verify`).
    Own(u8),
}

impl Answer {
    pub(super) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Good => 0,
            Self::No => 1,
            Self::Own(code) => code,
        })
    }

    /// The code of a verdict.
    pub(super) fn of(verdict: &Verdict) -> Self {
        match (verdict.decision, verdict.outcome) {
            (_, Outcome::Cancelled) => Self::Own(130),
            (_, Outcome::TimeoutTotal) => Self::Own(TIMED_OUT),
            (Decision::Accept, _) => Self::Good,
            (Decision::Unproven, _) => Self::Own(4),
            (Decision::Reject, _) => Self::No,
        }
    }
}

/// The code of an obstacle.
pub(super) fn fault_code(kind: FaultKind) -> u8 {
    match kind {
        FaultKind::Input => 2,
        FaultKind::Refused => 3,
        FaultKind::Environment => 5,
        FaultKind::Internal => 70,
        FaultKind::Io => 74,
        FaultKind::Busy => 75,
    }
}
