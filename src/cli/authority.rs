//! Who may run which command: asked once, before the command runs.

use super::Context;
use super::args::{
    AuditCommand, Command, GateCommand, ItemsCommand, ProviderCommand, ReceiptsCommand, RescueCommand, WorktreeCommand,
};
use crate::dispatch::{self, gates, view};
use crate::domain::Fault;
use crate::domain::authority::{Agents, Deciding, Operation};
use crate::gate;

/// What a command does, as far as it matters who asks for it. A new command has to say so here.
fn operation(command: &Command) -> Operation {
    match command {
        Command::Doctor(args) if args.fix && args.yes => Operation::Operate,
        Command::DispatchAgent(args) if args.dry_run => Operation::Read,
        Command::DispatchAgent(args) if !args.overrides.is_empty() => Operation::Decide(Deciding::Override),
        Command::DispatchAgent(_) | Command::Resume(_) => Operation::Dispatch,
        Command::Stage(_) => Operation::Propose,
        Command::Promote(args) => match &args.id {
            None => Operation::Read,
            Some(_) if args.withdraw => Operation::Manage,
            Some(_) => Operation::Decide(Deciding::Promote),
        },
        Command::Attach(args) if !args.read_only => Operation::Operate,
        Command::Worktree(command) => match command {
            WorktreeCommand::List(_)
            | WorktreeCommand::Rescue(RescueCommand::List { .. } | RescueCommand::Show { .. }) => Operation::Read,
            WorktreeCommand::Gc(args) if !args.apply => Operation::Read,
            // What is named may be nobody's, and goes for good.
            WorktreeCommand::Gc(args) if !args.names.is_empty() => Operation::Manage,
            WorktreeCommand::New(_) | WorktreeCommand::Gc(_) => Operation::Operate,
            WorktreeCommand::Rescue(RescueCommand::Drop { .. }) => Operation::Decide(Deciding::Drop),
        },
        Command::Gate(command) => match command {
            GateCommand::List { .. } | GateCommand::Status { .. } | GateCommand::Show { .. } => Operation::Read,
            GateCommand::Run(_) => Operation::Operate,
            GateCommand::Override { .. } => Operation::Decide(Deciding::Override),
        },
        Command::Trust(args) if args.list => Operation::Read,
        Command::Trust(_) => Operation::Decide(Deciding::Trust),
        Command::Approve(_) => Operation::Decide(Deciding::Approve),
        Command::Merge(_) => Operation::Merge,
        Command::Revert(_) | Command::Drop(_) => Operation::Manage,
        Command::Items(command) => match command {
            ItemsCommand::List { .. } => Operation::Read,
            ItemsCommand::Add { .. } => Operation::Operate,
            ItemsCommand::Close { .. } => Operation::Decide(Deciding::Override),
        },
        Command::Provider(command) => match command {
            ProviderCommand::Check { live: true, .. } => Operation::Dispatch,
            ProviderCommand::List { .. } | ProviderCommand::Show { .. } | ProviderCommand::Check { .. } => {
                Operation::Read
            }
        },
        Command::Receipts(command) => match command {
            ReceiptsCommand::Export { .. } => Operation::Operate,
            ReceiptsCommand::List { .. }
            | ReceiptsCommand::Tail { .. }
            | ReceiptsCommand::Query { .. }
            | ReceiptsCommand::Show { .. } => Operation::Read,
        },
        Command::AuditChain(command) => match command {
            AuditCommand::Verify { .. } | AuditCommand::Prove { .. } => Operation::Read,
            // Says that what nobody can check any more is as it was.
            AuditCommand::Seal { lost: true, .. } => Operation::Manage,
            AuditCommand::Accept { .. } => Operation::Decide(Deciding::Accept),
            AuditCommand::Seal { .. } | AuditCommand::Import { .. } => Operation::Operate,
        },
        Command::Init(args) if args.diff => Operation::Read,
        Command::Init(_)
        | Command::Send(_)
        | Command::Permit(_)
        | Command::Cancel(_)
        | Command::Undo(_)
        | Command::Pr { .. }
        | Command::Rebuild(_)
        | Command::Demo(_) => Operation::Operate,
        Command::Doctor(_)
        | Command::Status(_)
        | Command::List(_)
        | Command::Ps(_)
        | Command::Show(_)
        | Command::Logs(_)
        | Command::Attach(_)
        | Command::Wait(_)
        | Command::GateCheck(_)
        | Command::Agent(_)
        | Command::Path(_)
        | Command::Completions { .. }
        | Command::Man(_)
        // What vnx starts itself; whoever asked for it was asked then.
        | Command::Supervise(_)
        | Command::GateRunner(_)
        | Command::Probe { .. } => Operation::Read,
    }
}

/// Refuses a command that is not its caller's.
pub(super) fn check(context: &Context, command: &Command) -> Result<(), Fault> {
    let operation = operation(command);
    dispatch::caller::require(operation, || agents(context, command, operation))
}

/// What agents may, where this command is about.
fn agents(context: &Context, command: &Command, operation: Operation) -> Result<Agents, Fault> {
    if !matches!(operation, Operation::Dispatch | Operation::Queue | Operation::Merge) {
        return Ok(Agents::default());
    }
    let project = context.project_as_it_is()?;
    let Command::Merge(args) = command else { return Ok(gate::standing(&project, None)?.agents) };
    let mut all = Agents { merge: true, ..Agents::default() };
    for id in &args.ids {
        let id = view::resolve(&project, id)?;
        let target = gates::target(&project, &view::plan(&project, &id)?, args.into.as_deref())?;
        all.merge &= gate::standing(&project, Some(&target))?.agents.merge;
    }
    Ok(all)
}
