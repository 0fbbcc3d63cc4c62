//! Who asks, from what the kernel shows above a process.

use crate::domain::Fault;
use crate::domain::authority::{Agents, Ancestor, Caller, Fact, Operation, Refusal, caller, may};
use crate::provider;
use crate::sys::process::{self, Process};

/// Refuses an operation that is not its caller's. `agents` says what the target lets agents do, where that matters.
pub fn require(operation: Operation, agents: impl FnOnce() -> Result<Agents, Fault>) -> Result<(), Fault> {
    // What everybody may is not worth a look at the processes.
    if may(Caller::Worker, operation, &Agents::default()).is_ok() {
        return Ok(());
    }
    let (caller, fact) = of(i32::try_from(std::process::id()).unwrap_or(0));
    let agents = if caller == Caller::Agent { agents()? } else { Agents::default() };
    may(caller, operation, &agents).map_err(|refusal| refused(refusal, fact.as_ref()))
}

fn refused(refusal: Refusal, fact: Option<&Fact>) -> Fault {
    let because = fact.map(|fact| format!(" ({fact})")).unwrap_or_default();
    match refusal {
        Refusal::Worker => Fault::refused(format!("a worker looks and proposes, and does nothing else{because}"))
            .fix("`vnx stage --agent NAME -i TEXT` proposes a dispatch; say the rest in your report"),
        Refusal::NeedsPerson => Fault::refused(format!("an agent cannot speak for a person{because}"))
            .fix("ask a person to run it in a terminal of their own"),
        Refusal::Configured(key) => {
            Fault::refused(format!("the target's configuration has `agents: {{{key}: false}}`{because}"))
                .fix("ask a person to run it, or to commit another configuration there (.vnx/config.yaml)")
        }
    }
}

/// Who a process is, by itself and what runs above it.
pub(super) fn of(pid: i32) -> (Caller, Option<Fact>) {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let ancestor = |process: &Process| {
        let is_vnx = process::is_own_program(process.pid);
        Ancestor {
            label: process.label(),
            is_self: process.pid == me,
            is_vnx,
            arguments: if is_vnx { process.arguments() } else { Vec::new() },
            variables: process.variables(),
        }
    };
    let (lineage, is_whole) = process::lineage(pid);
    let lineage: Vec<Ancestor> = lineage.iter().map(ancestor).collect();
    caller(&lineage, is_whole, &provider::marks())
}
