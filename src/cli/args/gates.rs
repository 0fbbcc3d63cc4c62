//! What can be typed between done and landed.

use clap::{Args, Subcommand, ValueEnum};

use crate::domain::receipt::{Destination, Strategy};
use crate::domain::span::Span;

/// Which dispatch, and where it shall land.
#[derive(Debug, Args)]
pub(in crate::cli) struct WhichArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    #[arg(default_value = "@last")]
    pub(in crate::cli) id: String,
    /// The branch to land on [default: merge.target, or the one it began on]
    #[arg(long, value_name = "BRANCH")]
    pub(in crate::cli) into: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GateCommand {
    /// List the gates of a branch
    List {
        /// The branch [default: merge.target, or the current one]
        #[arg(long, value_name = "BRANCH")]
        into: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the gates of a dispatch that have not passed for its commit
    Run(GateRunArgs),
    /// Show the state of a dispatch's gates
    Status {
        #[command(flatten)]
        which: WhichArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a gate's last result: what it said and why
    Show {
        /// The dispatch: its id, a unique prefix, its last part, or @last
        id: String,
        /// The gate
        gate: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Override a gate for a dispatch's commit, in your name
    ///
    /// GATE may also be verdict (not accept), strict (paths that need a person), items, no-gate or git-config.
    /// The audit of the ledger cannot be overridden.
    Override {
        /// The dispatch: its id, a unique prefix, its last part, or @last
        id: String,
        /// The gate
        gate: String,
        /// Why
        #[arg(long, value_name = "WHY")]
        reason: String,
        /// For how long, for example 24h [default: merge.approval]
        #[arg(long = "for", value_name = "SPAN")]
        holds: Option<Span>,
        /// Sign it with the SSH key that git signs with
        #[arg(long)]
        sign: bool,
        /// The branch to land on [default: merge.target, or the one it began on]
        #[arg(long, value_name = "BRANCH")]
        into: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GateRunArgs {
    #[command(flatten)]
    pub(in crate::cli) which: WhichArgs,
    /// Run these gates, whatever they said before
    #[arg(value_name = "GATE")]
    pub(in crate::cli) gates: Vec<String>,
    /// Also run those that have passed
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// How many at a time [default: one per processor]
    #[arg(short, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(in crate::cli) jobs: usize,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GateCheckArgs {
    #[command(flatten)]
    pub(in crate::cli) which: WhichArgs,
    /// Instead check what let this commit land, by its trailers
    #[arg(long, value_name = "SHA", conflicts_with_all = ["id", "into"])]
    pub(in crate::cli) commit: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveArgs {
    #[command(flatten)]
    pub(in crate::cli) which: WhichArgs,
    /// Why
    #[arg(long, value_name = "WHY")]
    pub(in crate::cli) reason: String,
    /// For how long, for example 24h [default: merge.approval]
    #[arg(long = "for", value_name = "SPAN")]
    pub(in crate::cli) holds: Option<Span>,
    /// Sign it with the SSH key that git signs with
    #[arg(long)]
    pub(in crate::cli) sign: bool,
    /// Settle this review gate, whose reviewers disagree
    #[arg(long, value_name = "GATE")]
    pub(in crate::cli) gate: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum DestinationArg {
    /// The merge
    Merge,
    /// Nothing: for later
    Later,
}

impl From<DestinationArg> for Destination {
    fn from(destination: DestinationArg) -> Self {
        match destination {
            DestinationArg::Merge => Self::Merge,
            DestinationArg::Later => Self::Later,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ItemsCommand {
    /// List open items
    List {
        /// Of this dispatch: its id, a unique prefix, its last part, or @last
        id: Option<String>,
        /// Also closed ones
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add an item to a dispatch
    Add {
        /// The dispatch: its id, a unique prefix, its last part, or @last
        id: String,
        /// What is to be done
        text: String,
        /// What waits until it is closed
        #[arg(long, default_value = "merge")]
        holds: DestinationArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Close an item, in your name
    Close {
        /// Its id, as `vnx items list` shows it
        item: String,
        /// Why
        #[arg(long, value_name = "WHY")]
        reason: String,
        /// Sign it with the SSH key that git signs with
        #[arg(long)]
        sign: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum StrategyArg {
    /// A commit with both as parents
    Merge,
    /// One commit with all of it
    Squash,
    /// Its commits, on top of the target
    Rebase,
}

impl From<StrategyArg> for Strategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Merge => Self::Merge,
            StrategyArg::Squash => Self::Squash,
            StrategyArg::Rebase => Self::Rebase,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MergeArgs {
    /// Dispatch ids, unique prefixes, last parts, or @last; several need --queue
    #[arg(value_name = "ID", default_value = "@last")]
    pub(in crate::cli) ids: Vec<String>,
    /// The branch to land on [default: merge.target, or the one each began on]
    #[arg(long, value_name = "BRANCH")]
    pub(in crate::cli) into: Option<String>,
    /// How to integrate [default: merge.strategy]
    #[arg(long)]
    pub(in crate::cli) strategy: Option<StrategyArg>,
    /// First run the gates that have not passed for what the target is now
    #[arg(long)]
    pub(in crate::cli) gates: bool,
    /// Land several, one after the other; each is checked again on what the target has become. One that
    /// is held does not stop the rest
    #[arg(long)]
    pub(in crate::cli) queue: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PromoteArgs {
    /// The proposal: its id, a unique prefix or its last part; without one, proposals are listed
    pub(in crate::cli) id: Option<String>,
    /// Why
    #[arg(long, value_name = "WHY")]
    pub(in crate::cli) reason: Option<String>,
    /// Sign it with the SSH key that git signs with
    #[arg(long, requires = "id", conflicts_with = "withdraw")]
    pub(in crate::cli) sign: bool,
    /// Withdraw it instead
    #[arg(long, requires = "id", conflicts_with = "reason")]
    pub(in crate::cli) withdraw: bool,
    /// Print the id and return at once
    #[arg(long)]
    pub(in crate::cli) detach: bool,
    /// Open no tmux pane
    #[arg(long)]
    pub(in crate::cli) no_pane: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevertArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    pub(in crate::cli) id: String,
    /// Why
    #[arg(long, value_name = "WHY")]
    pub(in crate::cli) reason: String,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
