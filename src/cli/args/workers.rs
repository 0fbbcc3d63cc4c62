//! What can be typed to start, watch and steer workers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::domain::plan::{EndPolicy, Lane};
use crate::domain::span::Span;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum LaneArg {
    Headless,
    Interactive,
    Acp,
}

impl From<LaneArg> for Lane {
    fn from(lane: LaneArg) -> Self {
        match lane {
            LaneArg::Headless => Self::Headless,
            LaneArg::Interactive => Self::Interactive,
            LaneArg::Acp => Self::Acp,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum EndArg {
    /// When its turn is over
    AfterTurn,
    /// When its turn is over and it has left a report
    AfterReport,
    /// Not at all: you end it
    Manual,
}

impl From<EndArg> for EndPolicy {
    fn from(end: EndArg) -> Self {
        match end {
            EndArg::AfterTurn => Self::AfterTurn,
            EndArg::AfterReport => Self::AfterReport,
            EndArg::Manual => Self::Manual,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DispatchArgs {
    /// The instruction; `-` reads it from standard input [default: opens your editor]
    #[arg(value_name = "INSTRUCTION", conflicts_with_all = ["instruction", "file"])]
    pub(in crate::cli) text: Option<OsString>,
    /// The agent: one of the project's or one that vnx ships [default: `defaults.agent` of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// The instruction, also one that begins with a dash
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "file")]
    pub(in crate::cli) instruction: Option<OsString>,
    /// Read the instruction from a file
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,
    /// The CLI to use
    #[arg(long, value_name = "NAME", help_heading = "Worker")]
    pub(in crate::cli) provider: Option<String>,
    /// The model to ask the CLI for
    #[arg(long, value_name = "MODEL", allow_hyphen_values = true, help_heading = "Worker")]
    pub(in crate::cli) model: Option<String>,
    /// How the worker is connected
    #[arg(long, help_heading = "Worker")]
    pub(in crate::cli) lane: Option<LaneArg>,
    /// The commit to start from [default: the current checkout's]
    #[arg(long, value_name = "REF", allow_hyphen_values = true)]
    pub(in crate::cli) base: Option<String>,
    /// End the worker after this long, for example 30m
    #[arg(long, value_name = "SPAN", help_heading = "Limits")]
    pub(in crate::cli) deadline: Option<Span>,
    /// End the worker after this long without progress
    #[arg(long, value_name = "SPAN", help_heading = "Limits")]
    pub(in crate::cli) idle: Option<Span>,
    /// When to ask an interactive worker to leave [default: after-turn]
    #[arg(long, help_heading = "Limits")]
    pub(in crate::cli) end: Option<EndArg>,
    /// Retry up to N times where the outcome allows it: after a minute, or when a limit resets
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "detach", help_heading = "Limits")]
    pub(in crate::cli) retry: u32,
    /// Print the id and return at once
    #[arg(long)]
    pub(in crate::cli) detach: bool,
    /// Print the plan and stop
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Choose the dispatch id
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) id: Option<String>,
    /// Add the NAME=value lines of this file to the worker's environment
    #[arg(long, value_name = "FILE", help_heading = "Worker")]
    pub(in crate::cli) env_file: Option<PathBuf>,
    /// The change must stay within these globs; may be repeated
    #[arg(long, value_name = "GLOB", allow_hyphen_values = true)]
    pub(in crate::cli) path: Vec<String>,
    /// The planned work it belongs to; gates can select by it
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) track: Option<String>,
    /// Override a constraint, with a reason; may be repeated
    #[arg(long = "override", value_name = "ID=REASON", help_heading = "Worker")]
    pub(in crate::cli) overrides: Vec<String>,
    /// Wait for a free slot instead of being refused
    #[arg(long, help_heading = "Limits")]
    pub(in crate::cli) wait_slot: bool,
    /// Open no tmux pane
    #[arg(long, help_heading = "Pane")]
    pub(in crate::cli) no_pane: bool,
    /// Use a private tmux server (`tmux -L NAME`)
    #[arg(long, value_name = "NAME", help_heading = "Pane")]
    pub(in crate::cli) tmux_socket: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AttachArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    #[arg(default_value = "@last")]
    pub(in crate::cli) id: String,
    /// Only watch: pass no keys on, and ignore this terminal's size
    #[arg(short, long)]
    pub(in crate::cli) read_only: bool,
    /// The key that detaches [default: ctrl-\]
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) detach_key: Option<String>,
    /// This is a dispatch's own pane
    #[arg(long, hide = true)]
    pub(in crate::cli) pane: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SendArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    pub(in crate::cli) id: String,
    /// The message; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(in crate::cli) text: OsString,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResumeArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    pub(in crate::cli) id: String,
    /// What to do next [default: continue the assignment]
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) instruction: Option<OsString>,
    /// How the worker is connected [default: as before]
    #[arg(long)]
    pub(in crate::cli) lane: Option<LaneArg>,
    /// End the worker after this long, for example 30m
    #[arg(long, value_name = "SPAN")]
    pub(in crate::cli) deadline: Option<Span>,
    /// When to ask an interactive worker to leave [default: after-turn]
    #[arg(long)]
    pub(in crate::cli) end: Option<EndArg>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PermitArg {
    Allow,
    Deny,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PermitArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    pub(in crate::cli) id: String,
    /// The decision
    pub(in crate::cli) decision: PermitArg,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// Dispatch ids, unique prefixes, last parts, or @last
    #[arg(required = true, value_name = "ID")]
    pub(in crate::cli) ids: Vec<String>,
    /// Return as soon as one of them is closed
    #[arg(long)]
    pub(in crate::cli) any: bool,
    /// Give up waiting after this long, for example 30m (exit 124)
    #[arg(long, value_name = "SPAN")]
    pub(in crate::cli) timeout: Option<Span>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CancelArgs {
    /// Dispatch ids, unique prefixes, last parts, or @last
    #[arg(required = true, value_name = "ID")]
    pub(in crate::cli) ids: Vec<String>,
    /// Send SIGKILL at once, without the grace after SIGTERM
    #[arg(long)]
    pub(in crate::cli) now: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    #[arg(default_value = "@last")]
    pub(in crate::cli) id: String,
    /// Follow until the dispatch is closed
    #[arg(short, long)]
    pub(in crate::cli) follow: bool,
    /// Print the worker's original lines; of an interactive one the recording (asciicast)
    #[arg(long, conflicts_with = "json")]
    pub(in crate::cli) raw: bool,
    /// Print the recording as it is stored, one JSON object a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Stay open and redraw whenever something changes
    #[arg(short, long)]
    pub(in crate::cli) watch: bool,
    /// Print JSON; with --watch one object a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// At most this many
    #[arg(short, default_value_t = 20)]
    pub(in crate::cli) n: usize,
    /// All of them
    #[arg(short, long, conflicts_with = "n")]
    pub(in crate::cli) all: bool,
    /// Only those that are not closed
    #[arg(long, conflicts_with_all = ["verdict", "outcome", "landed"])]
    pub(in crate::cli) running: bool,
    /// Only what has landed and was not taken back
    #[arg(long)]
    pub(in crate::cli) landed: bool,
    /// Of this agent
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// On this provider
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) provider: Option<String>,
    /// With this verdict
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) verdict: Option<String>,
    /// With this outcome, for example empty
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) outcome: Option<String>,
    /// Asked for since then: a time (2026-11-21T00:00:00Z) or how long ago (90s, 10m, 2h)
    #[arg(long, value_name = "WHEN")]
    pub(in crate::cli) since: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PsArgs {
    /// Reopen panes that were lost
    #[arg(long)]
    pub(in crate::cli) repane: bool,
    /// Use a private tmux server (`tmux -L NAME`)
    #[arg(long, value_name = "NAME", requires = "repane")]
    pub(in crate::cli) tmux_socket: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
