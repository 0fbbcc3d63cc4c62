//! What can be typed. Doc comments are the help text.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

mod gates;
mod help;
mod trees;
mod workers;

pub(super) use gates::{
    ApproveArgs, GateCheckArgs, GateCommand, GateRunArgs, ItemsCommand, MergeArgs, PromoteArgs, RevertArgs, WhichArgs,
};
pub(super) use help::{command, suggest, typed};
pub(super) use trees::{DropArgs, GcArgs, NewArgs, RescueCommand, UndoArgs, WorktreeCommand};
pub(super) use workers::{
    AttachArgs, CancelArgs, DispatchArgs, ListArgs, LogsArgs, PermitArg, PermitArgs, PsArgs, ResumeArgs, SendArgs,
    StatusArgs, WaitArgs,
};

/// What every command takes.
const EVERYWHERE: &str = "Global options";

const EXIT_CODES: &str = "\
Exit codes:
  0    done and good
  1    done, and the answer is no (worker failed, chain broken, gate held, doctor FAIL)
  2    usage or bad input
  3    refused by policy (constraint, limit, approval missing)
  4    finished but unproven
  5    the environment is missing something (no CLI, no git, no disk)
  70   internal error
  74   I/O error
  75   a lock did not come free
  124  the total deadline passed, or the time of `wait --timeout`
  130  cancelled";

/// A local control plane for the coding CLIs on your machine
#[derive(Debug, Parser)]
#[command(name = "vnx", version, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true, disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Top {
    /// Run as if started in DIR
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    pub(super) project: Option<PathBuf>,
    /// Print only the answer
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub(super) quiet: bool,
    /// Tell more: the reasons of the plan, the evidence of the verdict
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = EVERYWHERE)]
    pub(super) verbose: bool,
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort, help_heading = EVERYWHERE)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = EVERYWHERE)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Set this repository up for vnx; a second run changes nothing
    Init(InitArgs),
    /// Show what this repository would run here, and accept it
    ///
    /// In a clone, nothing of it is run until a person has accepted it here. What changes later is asked for again, and so
    /// are git's ignore and attribute files that somebody changed while dispatches ran.
    Trust(TrustArgs),
    /// Predict whether a dispatch will succeed
    Doctor(DoctorArgs),
    /// Dispatch an agent into a worktree of its own
    #[command(visible_alias = "dispatch")]
    DispatchAgent(Box<DispatchArgs>),
    /// Propose a dispatch for a person to promote
    ///
    /// Takes the arguments of dispatch-agent and starts nothing.
    Stage(Box<DispatchArgs>),
    /// Start a proposed dispatch, in your name
    Promote(PromoteArgs),
    /// Show what runs, what was done today, and the ledger's health
    Status(StatusArgs),
    /// List running dispatches
    Ps(PsArgs),
    /// List all dispatches, newest first
    List(ListArgs),
    /// Show one dispatch: verdict, evidence, facts
    Show(ShowArgs),
    /// Print what a worker said
    ///
    /// Of an interactive one that is the text of its screen, with what has scrolled off.
    Logs(LogsArgs),
    /// Open a worker's screen, or follow its event stream
    ///
    /// An interactive worker has a screen; a headless one is followed as `vnx logs -f` does.
    Attach(AttachArgs),
    /// Send a message to a running worker
    ///
    /// For the lanes interactive and acp. Says whether it was delivered.
    Send(SendArgs),
    /// Answer a worker's request for permission
    Permit(PermitArgs),
    /// Continue the CLI session of a closed dispatch in a new one
    Resume(Box<ResumeArgs>),
    /// Wait until dispatches are closed
    Wait(WaitArgs),
    /// Cancel dispatches; what they did until then is kept
    Cancel(CancelArgs),
    /// Give up the worktree and the branch of a dispatch
    ///
    /// Nothing is lost: a rescue holds what is not committed, a ref keeps the commits, and `vnx undo` brings both back.
    Drop(DropArgs),
    /// Bring back a removed worktree: files, index, branch, HEAD
    Undo(UndoArgs),
    /// List, create and reclaim worktrees; manage rescues
    #[command(subcommand)]
    Worktree(WorktreeCommand),
    /// List, run, inspect and override gates
    #[command(subcommand)]
    Gate(GateCommand),
    /// Say GO, or HOLD with every reason and how to clear it
    GateCheck(GateCheckArgs),
    /// Approve a dispatch's change, in your name
    Approve(ApproveArgs),
    /// Land a dispatch's branch on its target, whole or not at all
    ///
    /// Audit, gates, compare-and-swap, receipt, anchor: a failure at any step leaves the target as it was.
    Merge(MergeArgs),
    /// Push a dispatch's branch and open or update its pull request
    ///
    /// Through the `gh` command. It decides nothing.
    Pr {
        #[command(flatten)]
        which: WhichArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revert what a dispatch has landed
    Revert(RevertArgs),
    /// List, add and close follow-ups of dispatches
    #[command(subcommand)]
    Items(ItemsCommand),
    /// List the agents: the roles that can be dispatched
    #[command(subcommand)]
    Agent(AgentCommand),
    /// List, show and check the CLIs that can be workers
    #[command(subcommand)]
    Provider(ProviderCommand),
    /// Read the ledger
    #[command(subcommand)]
    Receipts(ReceiptsCommand),
    /// Verify, anchor and prove the ledger
    #[command(subcommand)]
    AuditChain(AuditCommand),
    /// Rebuild the projections (state.db) from the ledger
    Rebuild(JsonArgs),
    /// Print where vnx keeps things
    Path(PathArgs),
    /// Run the whole story in a throw-away repository, offline
    Demo(DemoArgs),
    /// Print a shell's completion script
    ///
    /// It completes commands, flags and live ids: `source <(vnx completions bash)`.
    Completions {
        /// The shell
        shell: ShellArg,
    },
    /// Show the manual page of a command
    ///
    /// For example `vnx man gate run`. Into a pipe or a file it prints the page's source.
    Man(ManArgs),
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    #[command(name = "__gate-runner", hide = true)]
    GateRunner(GateRunnerArgs),
    #[command(name = "__probe", hide = true)]
    Probe {
        /// The probe, as JSON
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct GateRunnerArgs {
    #[arg(long)]
    pub(super) state: PathBuf,
    pub(super) id: String,
    pub(super) nonce: String,
}

#[derive(Debug, Args)]
pub(super) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Replace files that differ from the shipped version, keeping a backup beside each
    #[arg(long, conflicts_with = "diff")]
    pub(super) force: bool,
    /// Show what the shipped version would change, and write nothing
    #[arg(long)]
    pub(super) diff: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// Only list it: decide nothing
    #[arg(long)]
    pub(super) list: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Show what can be repaired; with --yes, repair it
    #[arg(long)]
    pub(super) fix: bool,
    /// Do what --fix shows
    #[arg(long, requires = "fix")]
    pub(super) yes: bool,
    /// Warnings count as failures
    #[arg(long)]
    pub(super) strict: bool,
    /// Require that this provider works
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The dispatch: its id, a unique prefix, its last part, or @last
    #[arg(default_value = "@last")]
    pub(super) id: String,
    /// Explain the verdict: every rule and its result, then the gates
    #[arg(long, conflicts_with_all = ["prompt", "report", "diff"])]
    pub(super) why: bool,
    /// Print the prompt the worker got
    #[arg(long, conflicts_with_all = ["report", "diff"])]
    pub(super) prompt: bool,
    /// Print the worker's report
    #[arg(long, conflicts_with = "diff")]
    pub(super) report: bool,
    /// Print the change as a patch
    #[arg(long)]
    pub(super) diff: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// List them: the project's own and those that vnx ships
    List(JsonArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one: lanes, permissions, endpoint
    Show {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check whether one works
    Check {
        /// Its name
        name: String,
        /// Ask it something in a real dispatch: proves login, model and network; costs a few tokens
        #[arg(long)]
        live: bool,
        /// The model to ask for
        #[arg(long, value_name = "MODEL", requires = "live")]
        model: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which receipts.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Of this dispatch: its id, a unique prefix, its last part, or @last
    #[arg(long, value_name = "ID")]
    pub(super) dispatch: Option<String>,
    /// Of this kind, for example dispatch.closed
    #[arg(long)]
    pub(super) kind: Option<String>,
    /// Of dispatches of this agent
    #[arg(long)]
    pub(super) agent: Option<String>,
    /// Of dispatches on this provider
    #[arg(long)]
    pub(super) provider: Option<String>,
    /// Of dispatches with this outcome, for example empty
    #[arg(long)]
    pub(super) outcome: Option<String>,
    /// Written since then: a time (2026-11-21T00:00:00Z) or how long ago (90s, 10m, 2h)
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<String>,
    /// Written before then
    #[arg(long, value_name = "WHEN")]
    pub(super) until: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ReceiptsCommand {
    /// List the last receipts
    List {
        /// How many
        #[arg(short, default_value_t = 20)]
        n: usize,
        /// Every kind, not only those that close a dispatch
        #[arg(short, long)]
        all: bool,
        /// Print JSON, one receipt a line
        #[arg(long)]
        json: bool,
    },
    /// Print the last receipts; with -f, new ones as they come
    Tail {
        /// How many
        #[arg(short, default_value_t = 10)]
        n: usize,
        /// Follow until interrupted
        #[arg(short, long)]
        follow: bool,
        /// Print JSON, one receipt a line
        #[arg(long)]
        json: bool,
    },
    /// Find receipts that match all the given conditions
    Query {
        #[command(flatten)]
        filter: FilterArgs,
        /// At most this many, the last ones
        #[arg(short, default_value_t = 100)]
        n: usize,
        /// Print JSON, one receipt a line
        #[arg(long)]
        json: bool,
    },
    /// Export receipts for somebody else: redacted, with proofs against the last anchor
    ///
    /// `receipts/verify.py --proof EXPORT CHECKPOINT` checks the JSON, which also ends the Markdown.
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// Also replace what this regular expression matches; may be repeated. A short text can still be
        /// guessed from its hash
        #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
        redact: Vec<String>,
        /// Write Markdown instead of JSON
        #[arg(long)]
        markdown: bool,
    },
    /// Print one receipt
    Show {
        /// Its sequence number
        seq: u64,
        /// Print the line exactly as it stands in the ledger
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Read every byte of the ledger and check it
    ///
    /// Its end is held against the anchors, against what vnx noted of it at each write, and against
    /// whatever else names a dispatch: folders, branches, rescues. A file (--file) stands by itself.
    ///
    /// Exit codes: 0 verified, 1 broken, 2 usage, 3 not what was anchored or written, 4 torn tail only,
    /// 5 cannot decide (nothing to verify, or no anchor where one is required), 74 I/O error,
    /// 75 lock timeout.
    Verify {
        /// Verify this file instead of the project's ledger
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Compare the file with this checkpoint (three lines: origin, size, base64 root)
        #[arg(long, value_name = "CHECKPOINT", requires = "file")]
        against: Vec<PathBuf>,
        /// Check hashes and links only; do not parse payloads
        #[arg(long)]
        quick: bool,
        /// Read only what came after the last anchor, which must be signed
        #[arg(long, conflicts_with_all = ["file", "require_anchor"])]
        since_anchor: bool,
        /// Nothing may lie after the last anchor (or --against), and there must be one
        #[arg(long)]
        require_anchor: bool,
        /// Where the anchors are: a full ref name, or REMOTE/NAME of a remote-tracking ref
        #[arg(long, value_name = "REF", conflicts_with = "file")]
        anchor_ref: Option<String>,
        /// Who is trusted to sign anchors, instead of .vnx/allowed_signers
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        allowed_signers: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write an anchor: a checkpoint outside the ledger, signed where .vnx/allowed_signers names who may
    ///
    /// It goes to refs/vnx/anchors of this repository. Once .vnx/allowed_signers names somebody, it is
    /// signed with the SSH key that git signs with (gpg.format ssh, user.signingkey). Push it with
    /// `git push origin refs/vnx/anchors`.
    Seal {
        /// Replace an anchor that git has lost and nobody else has; the witness proves the ledger instead
        #[arg(long)]
        lost: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Accept that receipts are gone for good, in your name
    ///
    /// For a ledger that is sound and not the one that was written: an older backup, a disk that lost what
    /// it had confirmed, another ledger in the place of the old one. A receipt says how many receipts there were and
    /// which dispatches have none; anchors of more are kept as refs/vnx/lost-anchors/COMMIT; and the ledger is sealed.
    Accept {
        /// Why they are gone; it is recorded
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Import a ledger of the Python VNX (t0_receipts.ndjson)
    ///
    /// Its bytes are kept unchanged beside the segments; a receipt holds their digest and what their
    /// own rules say of them: unchained, verified, segmented or broken. All of them are imported, and
    /// the same bytes only once.
    Import {
        /// The older ledger's file, which stays where it is
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Prove that a receipt is in the ledger to somebody who has only a checkpoint
    ///
    /// Prints JSON that receipts/verify.py checks.
    Prove {
        /// Its sequence number
        seq: u64,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ShellArg {
    Bash,
    Elvish,
    Fish,
    Zsh,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command [default: vnx itself]
    pub(super) command: Vec<String>,
    /// Write the pages of all commands to this folder
    #[arg(long, conflicts_with = "command")]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Place {
    Ledger,
    State,
    Worktrees,
    Dispatch,
}

#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// What to find
    pub(super) what: Place,
    /// For `dispatch`: its id, a unique prefix, its last part, or @last
    #[arg(required_if_eq("what", "dispatch"))]
    pub(super) id: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Keep the repository and print where it is
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Args)]
pub(super) struct SuperviseArgs {
    #[arg(long)]
    pub(super) state: PathBuf,
    pub(super) id: String,
}
