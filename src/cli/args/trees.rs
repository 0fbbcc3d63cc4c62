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

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WorktreeCommand {
    /// List the worktrees of dispatches and of persons
    List(JsonArgs),
    /// Make a worktree of your own: the same steps as for a dispatch, on a new branch
    ///
    /// It lies beside the others and is yours: nothing of vnx removes it. `git worktree remove` does.
    New(NewArgs),
    /// Say what may go and why, or with --apply reclaim it
    ///
    /// Of a dispatch's worktree nothing is lost: `vnx undo` brings it back. A folder that belongs to nobody known
    /// goes only when it is named, and for good.
    Gc(GcArgs),
    /// The rescues: what was in worktrees that are gone
    #[command(subcommand)]
    Rescue(RescueCommand),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// The new branch; its folder is called alike
    pub(in crate::cli) name: String,
    /// Begin at this commit, branch or tag instead of the current one
    #[arg(long, value_name = "REV")]
    pub(in crate::cli) base: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GcArgs {
    /// Only these folders, by their whole name or as `@last`; one that belongs to nobody goes only when it is named
    #[arg(value_name = "NAME")]
    pub(in crate::cli) names: Vec<String>,
    /// Really do it
    #[arg(long)]
    pub(in crate::cli) apply: bool,
    /// Kept worktrees that nothing was done to for at least this long, as 14d [default: worktree.keep]; those that
    /// are named go in any case
    #[arg(long, value_name = "AGE")]
    pub(in crate::cli) older_than: Option<Span>,
    /// And the oldest of the others, until all worktrees together take no more than this, as 20GiB
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
    /// Name the files in one
    Show {
        /// The dispatch: its id, a unique prefix, its last part, or @last
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give one up for good
    Drop {
        /// The dispatch: its whole id
        id: String,
        /// Say that it is really meant
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
