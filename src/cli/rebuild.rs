//! `vnx rebuild`: makes the projections anew from the ledger.

use super::Context;
use super::args::JsonArgs;
use super::exit::Answer;
use super::receipts::indexing;
use crate::domain::Fault;
use crate::state::State;

pub(super) fn run(context: &Context, args: &JsonArgs) -> Result<Answer, Fault> {
    let project = context.project_as_it_is()?;
    let rebuilt = State::rebuild(&project, &indexing(context))?;
    context.screen.progress("");
    if args.json {
        context.screen.json(&serde_json::json!({
            "schema": "vnx.rebuild/1",
            "receipts": rebuilt.receipts,
            "dispatches": rebuilt.dispatches,
        }));
    } else {
        context.screen.answer(&format!("receipts: {}, dispatches: {}", rebuilt.receipts, rebuilt.dispatches));
    }
    Ok(Answer::Good)
}
