//! `vnx send`, `vnx permit`, and the hook that a CLI calls.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::{PermitArg, PermitArgs, SendArgs};
use super::dispatch::text_of;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::{Context, utf8};
use crate::dispatch::view;
use crate::domain::{DispatchId, Fault};
use crate::worker::control::{self, Delivery, Request};

#[derive(Serialize)]
struct Sent {
    schema: &'static str,
    id: DispatchId,
    delivery: Delivery,
    why: String,
}

pub(super) fn send(context: &Context, args: SendArgs) -> Result<Answer, Fault> {
    let text = if args.text == "-" {
        text_of(std::io::stdin().lock(), "standard input")?
    } else {
        utf8(args.text, "the message")?
    };
    let project = context.project()?;
    let id = view::resolve(&project, &args.id)?;
    let (delivery, why) = view::send(&project, &id, &text)?;
    let (word, tone, answer) = match delivery {
        Delivery::Delivered => ("delivered", Tone::Good, Answer::Good),
        Delivery::Staged => ("staged", Tone::Doubt, Answer::Own(4)),
        Delivery::Unknown => ("unknown", Tone::Doubt, Answer::Own(4)),
        Delivery::Refused => ("refused", Tone::Bad, Answer::No),
    };
    if args.json {
        context.screen.json(&Sent { schema: "vnx.send/1", id, delivery, why });
    } else {
        context.screen.answer(&format!("{}  {}", toned(tone, word), printable(&why)));
    }
    Ok(answer)
}

#[derive(Serialize)]
struct Permitted {
    schema: &'static str,
    id: DispatchId,
    accepted: bool,
    asked: Option<String>,
}

pub(super) fn permit(context: &Context, args: &PermitArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &args.id)?;
    let allow = args.decision == PermitArg::Allow;
    let asked = view::permit(&project, &id, allow)?;
    let accepted = asked.is_some();
    if args.json {
        context.screen.json(&Permitted { schema: "vnx.permit/1", id, accepted, asked });
    } else if let Some(asked) = asked {
        context.screen.answer(&format!("{}: {}", if allow { "allowed" } else { "denied" }, printable(&asked)));
    } else {
        context.screen.answer(&format!("{id} waits for no permission; `vnx ps` shows what it does"));
    }
    Ok(if accepted { Answer::Good } else { Answer::No })
}

/// `vnx __hook <dispatch folder>`: hands what a CLI gives its hook to the supervisor, and its
/// answer to the CLI. A supervisor that is gone is no reason to stop the CLI.
pub(super) fn hook(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut payload = Vec::new();
    let Some(folder) = args.next() else { return ExitCode::from(70) };
    // Codex gives what it has to say as an argument, the others on standard input.
    if let Some(given) = args.next() {
        payload = given.into_encoded_bytes();
    } else if std::io::stdin().lock().read_to_end(&mut payload).is_err() {
        return ExitCode::from(70);
    }
    let request = Request::Hook { payload: String::from_utf8_lossy(&payload).into_owned() };
    let day = Duration::from_hours(24);
    if let Ok(Some(answer)) = control::ask(Path::new(&folder), &request, day)
        && let Some(reply) = answer.reply
    {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(reply.as_bytes()).and_then(|()| out.flush());
    }
    ExitCode::SUCCESS
}
