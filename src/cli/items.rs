//! `vnx items`.

use serde::Serialize;

use super::Context;
use super::args::ItemsCommand;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::dispatch::gates::{self, Item};
use crate::dispatch::view;
use crate::domain::Fault;

#[derive(Serialize)]
struct List {
    schema: &'static str,
    items: Vec<Item>,
}

pub(super) fn run(context: &Context, command: ItemsCommand) -> Result<Answer, Fault> {
    let project = context.project()?;
    match command {
        ItemsCommand::List { id, all, json } => {
            let id = id.map(|id| view::resolve(&project, &id)).transpose()?;
            let mut items = gates::items(&project)?;
            items.retain(|i| (all || i.closed.is_none()) && id.as_ref().is_none_or(|id| i.dispatch == *id));
            if json {
                context.screen.json(&List { schema: "vnx.items/1", items });
                return Ok(Answer::Good);
            }
            if items.is_empty() {
                context.screen.story("nothing is to be done");
                return Ok(Answer::Good);
            }
            let mut rows = vec![["ITEM", "HOLDS", "DISPATCH", "WHAT"].map(|h| toned(Tone::Dim, h)).to_vec()];
            for Item { dispatch, item, closed } in items {
                let line = item.line.map(|n| format!(":{n}")).unwrap_or_default();
                let place = item.file.as_ref().map(|f| format!("{f}{line}: ")).unwrap_or_default();
                let closed = closed.map(|why| format!(" (closed: {why})")).unwrap_or_default();
                let what = printable(&format!("{place}{}{closed}", item.claim));
                rows.push(vec![item.item.to_string(), item.destination.word().to_owned(), dispatch.to_string(), what]);
            }
            context.screen.table(&rows, Fit::Wrap);
        }
        ItemsCommand::Add { id, text, holds, json } => {
            let id = view::resolve(&project, &id)?;
            let added = gates::add_item(&project, &id, &text, holds.into())?;
            if json {
                let mut items = gates::items(&project)?;
                items.retain(|i| i.dispatch == id && i.item.item == added);
                context.screen.json(&List { schema: "vnx.items/1", items });
                return Ok(Answer::Good);
            }
            context.screen.answer(added.as_str());
        }
        ItemsCommand::Close { item, reason, sign, json } => {
            let closed = gates::close_item(&project, &item, &reason, sign)?;
            if json {
                context.screen.json(&List { schema: "vnx.items/1", items: vec![closed] });
                return Ok(Answer::Good);
            }
            context.screen.answer(&format!("closed {}: {}", closed.item.item, printable(&closed.item.claim)));
        }
    }
    Ok(Answer::Good)
}
