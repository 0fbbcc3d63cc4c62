//! What happened to a dispatch, one word of a closed set, and what follows from the word.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The three answers of `judge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Positive evidence that the work is done.
    Accept,
    /// Finished, but unproven: a person looks.
    Unproven,
    /// It failed.
    Reject,
}

impl Decision {
    /// Every decision.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Unproven, Self::Reject];

    /// The word used in receipts and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Unproven => "unproven",
            Self::Reject => "reject",
        }
    }
}

/// When the same request may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not without a change by a person.
    Never,
    /// After this many seconds.
    After(u64),
    /// When the provider's limit resets.
    AtReset,
    /// On another provider.
    OtherProvider,
}

macro_rules! outcomes {
    ($($variant:ident $word:literal $retry:expr, $hint:literal;)*) => {
        /// What happened. Closed: a word that is not here cannot be recorded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum Outcome {
            $(#[doc = $hint] #[serde(rename = $word)] $variant,)*
        }
        impl Outcome {
            /// Every outcome, in the order of the design.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The word used in receipts and on screen.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            /// When to try again.
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => $retry,)* }
            }
            /// What to do next, one line. `ID` in it stands for the dispatch.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

outcomes! {
    Done "done" Retry::Never, "look at `vnx show ID --diff`; `vnx gate-check ID` says whether it may land, `vnx merge ID --gates` lands it";
    NoChangeNeeded "no_change_needed" Retry::Never, "nothing to merge";
    Empty "empty" Retry::Never, "the worker committed nothing: read what it said with `vnx logs ID`";
    Uncommitted "uncommitted" Retry::Never, "the work is in the kept worktree: take from it what is good, or give it up (`vnx worktree gc --apply ID` reclaims it, with a rescue)";
    ContractMissing "contract_missing" Retry::Never, "it is not what the agent must deliver: `vnx show ID --why` says what is missing or too much";
    ProbeFailed "probe_failed" Retry::Never, "a probe failed: read its evidence with `vnx show ID --why`";
    GateFailed "gate_failed" Retry::Never, "a gate failed: read its findings with `vnx show ID --why`";
    TimeoutTotal "timeout_total" Retry::Never, "raise --deadline or make the task smaller";
    TimeoutIdle "timeout_idle" Retry::After(60), "no progress until the idle limit: read `vnx logs ID`, raise --idle if the silence was work";
    Cancelled "cancelled" Retry::Never, "dispatch it again when you are ready";
    Killed "killed" Retry::Never, "something outside vnx ended the worker: look at `dmesg` for the OOM killer";
    PermissionBlocked "permission_blocked" Retry::Never, "the CLI refused a tool: raise `permissions` in the agent, or narrow the task";
    DialogBlocked "dialog_blocked" Retry::Never, "the CLI asked something: answer it once in its own terminal";
    UsageLimit "usage_limit" Retry::AtReset, "the plan's usage limit is reached: wait for the reset or name another provider";
    RateLimited "rate_limited" Retry::After(60), "the provider throttles: wait a minute, or run fewer at once";
    NotLoggedIn "not_logged_in" Retry::Never, "log the CLI in, or set its key in the environment";
    AuthRejected "auth_rejected" Retry::Never, "the provider refused the key or the login: renew it";
    ContextOverflow "context_overflow" Retry::Never, "the task is larger than the model's context: split it";
    ModelUnavailable "model_unavailable" Retry::OtherProvider, "the provider does not know this model: name another with --model";
    ProviderError "provider_error" Retry::After(60), "the provider failed: try again later or name another";
    Network "network" Retry::After(60), "the provider cannot be reached: check the network, the proxy and the base URL";
    CliMissing "cli_missing" Retry::Never, "install the CLI or fix PATH, then `vnx doctor`";
    CliVersion "cli_version" Retry::Never, "this version of the CLI is not supported: `vnx doctor` names the range";
    CliCrash "cli_crash" Retry::After(0), "the worker ended with an error that no pattern explains: read `vnx logs ID`";
    CliUsage "cli_usage" Retry::Never, "the CLI refused its arguments: its version may have changed, see `vnx doctor`";
    DiskFull "disk_full" Retry::Never, "free disk space; nothing was deleted";
    SetupFailed "setup_failed" Retry::Never, "preparing the dispatch failed: read its reason with `vnx show ID --why`";
    WorktreeFailed "worktree_failed" Retry::After(0), "git could not create the worktree: read its reason with `vnx show ID --why`";
    PromptNotDelivered "prompt_not_delivered" Retry::After(0), "the prompt did not reach the worker: try again";
    SupervisorLost "supervisor_lost" Retry::After(0), "the supervisor died and its end was not seen: what the worker left is on the branch or in the rescue commit";
    Unknown "unknown" Retry::Never, "not enough was seen to decide: look at the branch and at `vnx show ID --why`";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serialised_word_is_the_word() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_string(outcome).unwrap(), format!("{:?}", outcome.word()));
        }
        assert_eq!(Outcome::ALL.len(), 31);
    }

    #[test]
    fn words_are_shown_as_they_are_written() {
        for decision in [Decision::Accept, Decision::Unproven, Decision::Reject] {
            assert_eq!(serde_json::to_string(&decision).unwrap(), format!("\"{decision}\""));
            assert_eq!(format!("{decision:<12}|").len(), 13);
        }
        assert_eq!((format!("{}", Outcome::Done), format!("{:>6}", Outcome::Done)), ("done".into(), "  done".into()));
    }
}
