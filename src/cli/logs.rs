//! `vnx logs` and `vnx attach`: the recording, as it grows. Readers only read files, so no
//! reader can slow a worker down.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::Context;
use super::args::{AttachArgs, LogsArgs};
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use crate::dispatch::view;
use crate::domain::event::Event;
use crate::domain::{DispatchId, Fault};
use crate::project::Project;
use crate::sys::watch::FolderWatch;
use crate::worker::{Recorded, Source};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    People,
    Raw,
    Json,
}

pub(super) fn logs(context: &Context, args: &LogsArgs) -> Result<Answer, Fault> {
    let project = context.project()?;
    let id = view::resolve(&project, &args.id)?;
    let form = if args.json {
        Form::Json
    } else if args.raw {
        Form::Raw
    } else {
        Form::People
    };
    follow(context, &project, &id, form, args.follow)?;
    Ok(Answer::Good)
}

pub(super) fn attach(context: &Context, args: &AttachArgs) -> Result<Answer, Fault> {
    // A pane is a view: it must never do the work of recovery.
    let project = if args.pane { context.project_as_it_is()? } else { context.project()? };
    let id = view::resolve(&project, &args.id)?;
    let plan = view::plan(&project, &id)?;
    context.screen.answer(&toned(Tone::Strong, &format!("{id}  {} on {}", plan.agent, plan.provider)));
    follow(context, &project, &id, Form::People, true)?;
    if let Some(closed) = view::closed(&project, &id)? {
        let verdict = &closed.verdict;
        let word = toned(Tone::of(verdict.decision), verdict.decision.word());
        context.screen.answer(&format!("{word}  {}: {}", verdict.outcome, printable(&verdict.reason)));
    }
    Ok(Answer::Good)
}

fn follow(context: &Context, project: &Project, id: &DispatchId, form: Form, on: bool) -> Result<(), Fault> {
    let folder = project.paths.dispatch(id);
    let path = folder.join("events.ndjson");
    // Watching begins before the first read, so nothing falls between.
    let watch = on.then(|| FolderWatch::on(&folder));
    let mut reader = None;
    let mut line = Vec::new();
    loop {
        // Asked before reading: what is written before the close is read after it.
        let over = view::is_closed(project, id);
        if reader.is_none() {
            reader = File::open(&path).ok().map(BufReader::new);
        }
        if let Some(reader) = &mut reader {
            while reader
                .read_until(b'\n', &mut line)
                .map_err(|e| Fault::io(format!("cannot read {}: {e}", path.display())))?
                > 0
            {
                if line.pop_if(|b| *b == b'\n').is_none() {
                    break;
                }
                print(context, &line, form);
                line.clear();
            }
        }
        match &watch {
            Some(watch) if !over => watch.wait(),
            _ => return Ok(()),
        }
    }
}

fn print(context: &Context, line: &[u8], form: Form) {
    if form == Form::Json {
        context.screen.bytes(&[line, b"\n"].concat());
        return;
    }
    let Ok(recorded) = serde_json::from_slice::<Recorded<'_>>(line) else {
        return;
    };
    if form == Form::Raw || recorded.events.is_empty() && recorded.src != Source::Out {
        let tone = if recorded.src == Source::Out { None } else { Some(Tone::Dim) };
        let text = printable(&recorded.raw);
        context.screen.answer(&tone.map_or_else(|| text.clone(), |t| toned(t, &text)));
        return;
    }
    if recorded.events.is_empty() && !recorded.raw.starts_with('{') {
        context.screen.answer(&printable(&recorded.raw));
    }
    for event in &recorded.events {
        if let Some(text) = words(event) {
            context.screen.answer(&text);
        }
    }
}

fn words(event: &Event) -> Option<String> {
    let block = |text: &str| text.lines().map(printable).collect::<Vec<_>>().join("\n");
    Some(match event {
        Event::Init { model, .. } => toned(
            Tone::Dim,
            &format!("session begins{}", model.as_ref().map(|m| format!(" on {}", printable(m))).unwrap_or_default()),
        ),
        Event::Text { text } => block(text),
        Event::ToolUse { name, input } => {
            format!("{} {}", toned(Tone::Strong, &format!("> {}", printable(name))), printable(input))
        }
        Event::Thinking { text } | Event::ToolResult { ok: true, text } => toned(Tone::Dim, &block(text)),
        Event::ToolResult { ok: false, text } => toned(Tone::Bad, &block(text)),
        Event::Error { message, retrying, .. } => {
            toned(Tone::Doubt, &format!("{}{}", if *retrying { "" } else { "error: " }, printable(message)))
        }
        Event::Denied { count } => toned(Tone::Doubt, &format!("{count} tool calls were refused")),
        Event::Usage(_) | Event::Result { .. } => return None,
    })
}
