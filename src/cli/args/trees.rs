//! Arguments of `vnx undo` and `vnx worktree`.

use clap::{Args, Subcommand};

use super::JsonArgs;
use crate::domain::span::{Size, Span};

#[derive(Debug, Args)]
pub(in crate::cli) struct UndoArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    pub(in crate::cli) id: String,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DropArgs {
    /// Dispatch ids, unique prefixes, last parts, or @last
    #[arg(required = true, value_name = "ID")]
    pub(in crate::cli) ids: Vec<String>,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WorktreeCommand {
    /// List all worktrees: those of dispatches and your own
    List(JsonArgs),
    /// Create a worktree of your own on a new branch, as for a dispatch
    ///
    /// It stands beside the others and is yours: vnx never removes it; `git worktree remove` does.
    New(NewArgs),
    /// Say which worktrees may go and why; with --apply, reclaim them
    ///
    /// `vnx undo` brings a dispatch's worktree back. A folder that belongs to no dispatch goes only when it
    /// is named, and for good.
    Gc(GcArgs),
    /// List, show and drop rescues
    #[command(subcommand)]
    Rescue(RescueCommand),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// The new branch; its folder gets the same name
    pub(in crate::cli) name: String,
    /// The commit, branch or tag to start from [default: the current commit]
    #[arg(long, value_name = "REV")]
    pub(in crate::cli) base: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GcArgs {
    /// Only these folders, by full name or as `@last`; one that belongs to no dispatch goes only when it is named
    #[arg(value_name = "NAME")]
    pub(in crate::cli) names: Vec<String>,
    /// Reclaim them
    #[arg(long)]
    pub(in crate::cli) apply: bool,
    /// Kept worktrees untouched for at least this long, for example 14d [default: worktree.keep]; named ones go at
    /// any age
    #[arg(long, value_name = "AGE")]
    pub(in crate::cli) older_than: Option<Span>,
    /// Also the oldest others, until all worktrees together take no more than this, for example 20GiB
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) max_total: Option<Size>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RescueCommand {
    /// List them, oldest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the files in one
    Show {
        /// The dispatch: its id, a unique prefix, its last part, or @last
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete one for good
    Drop {
        /// The dispatch: its whole id
        id: String,
        /// Confirm
        #[arg(long)]
        yes: bool,
        /// Sign it with the SSH key that git signs with
        #[arg(long)]
        sign: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
