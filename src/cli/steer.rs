//! `vnx send`, `vnx permit`, and the hook that a CLI calls.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::{PermitArg, PermitArgs, SendArgs};
use super::exit::Answer;
use super::request::text_of;
use super::screen::{Tone, printable, toned};
use super::{Context, utf8};
use crate::dispatch::{steer, view};
use crate::domain::{DispatchId, Fault};
use crate::worker::control::{self, Delivery, Request};

#[derive(Serialize)]
struct Sent {
    schema: &'static str,
    id: DispatchId,
    delivery: Delivery,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// What to do about what was just said.
fn fix_line(context: &Context, fix: &str) {
    context.screen.answer(&toned(Tone::Dim, &format!("  fix: {}", printable(fix))));
}

pub(super) fn send(context: &Context, args: SendArgs) -> Result<Answer, Fault> {
    let text = if args.text == "-" {
        text_of(std::io::stdin().lock(), "standard input")?
    } else {
        utf8(args.text, "the message")?
    };
    let project = context.project_to_look_at()?;
    let id = view::resolve(&project, &args.id)?;
    let steer::Sent { delivery, why, fix } = steer::send(&project, &id, &text)?;
    let (word, tone, answer) = match delivery {
        Delivery::Delivered => ("delivered", Tone::Good, Answer::Good),
        Delivery::Queued => ("queued", Tone::Doubt, Answer::Own(4)),
        Delivery::Unknown => ("unknown", Tone::Doubt, Answer::Own(4)),
        Delivery::Refused => ("refused", Tone::Bad, Answer::No),
    };
    if args.json {
        context.screen.json(&Sent { schema: "vnx.send/1", id, delivery, why, fix });
    } else {
        context.screen.answer(&format!("{}  {}", toned(tone, word), printable(&why)));
        if let Some(fix) = fix {
            fix_line(context, &fix);
        }
    }
    Ok(answer)
}

#[derive(Serialize)]
struct Permitted {
    schema: &'static str,
    id: DispatchId,
    accepted: bool,
    asked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

pub(super) fn permit(context: &Context, args: &PermitArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let id = view::resolve(&project, &args.id)?;
    let allow = args.decision == PermitArg::Allow;
    let answered = steer::permit(&project, &id, allow)?;
    let accepted = answered.is_ok();
    if args.json {
        let (asked, refused) = (answered.as_ref().ok().cloned(), answered.err());
        let (why, fix) = refused.map(|r| (r.why, r.fix)).unzip();
        context.screen.json(&Permitted { schema: "vnx.permit/1", id, accepted, asked, why, fix });
    } else {
        match answered {
            Ok(asked) => {
                context.screen.answer(&format!("{}: {}", if allow { "allowed" } else { "denied" }, printable(&asked)));
            }
            Err(refused) => {
                context.screen.answer(&format!("{}  {}", toned(Tone::Bad, "refused"), printable(&refused.why)));
                fix_line(context, &refused.fix);
            }
        }
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
