//! `vnx logs` and `vnx attach`: the recording, as it grows. Readers only read files, so no
//! reader can slow a worker down.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use super::args::{AttachArgs, LogsArgs};
use super::exit::Answer;
use super::screen::{self, Tone, printable, said, toned};
use crate::dispatch::view;
use crate::domain::event::Event;
use crate::domain::plan::{Lane, ParserKind};
use crate::domain::{DispatchId, Fault};
use crate::project::Project;
use crate::sys::watch::FolderWatch;
use crate::sys::{files, lock, process};
use crate::worker::{self, Left, Plain, Recorded, Replay, Source, drawn};

/// The key that detaches unless another is named, as in dtach and abduco.
const CTRL_BACKSLASH: u8 = 0x1c;
/// The recording of an interactive worker's terminal, in its folder.
const CAST: &str = "terminal.cast";
/// How soon a worker that has no screen yet is asked again.
const SOON: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    People,
    Raw,
    Json,
}

pub(super) fn logs(context: &Context, args: &LogsArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let id = view::resolve(&project, &args.id)?;
    let form = if args.json {
        Form::Json
    } else if args.raw {
        Form::Raw
    } else {
        Form::People
    };
    if !args.follow && form != Form::Json && shows_a_screen(&project, &id) {
        return screen_text(context, &project, &id, form);
    }
    follow(context, &project, &id, form, args.follow)?;
    Ok(Answer::Good)
}

/// Whether what a worker says is to be read on a screen that it draws again and again, and there is a recording of that.
fn shows_a_screen(project: &Project, id: &DispatchId) -> bool {
    let is_interactive = || view::plan(project, id).is_ok_and(|plan| plan.lane == Lane::Interactive);
    is_interactive() && !only_draws(project, id) && project.paths.dispatch(id).join(CAST).exists()
}

/// Prints what a terminal would have shown, or the recording itself.
fn screen_text(context: &Context, project: &Project, id: &DispatchId, form: Form) -> Result<Answer, Fault> {
    let mut cast = Growing::at(project.paths.dispatch(id).join(CAST));
    if form == Form::Raw {
        cast.read(|line| context.screen.bytes(&[line, b"\n"].concat()))?;
        return Ok(Answer::Good);
    }
    let mut replay = Replay::default();
    cast.read(|line| replay.take(line))?;
    let lines = replay.lines();
    for line in &lines {
        context.screen.answer(&said(line.trim_end()));
    }
    if lines.is_empty() {
        let is_over = view::is_closed(project, id);
        context.screen.story(if is_over { "its screen stayed empty" } else { "its screen is empty so far" });
    }
    Ok(Answer::Good)
}

pub(super) fn attach(context: &Context, args: &AttachArgs) -> Result<Answer, Fault> {
    // A pane is a view: it must never do the work of recovery.
    let project = if args.pane { context.project_as_it_is()? } else { context.project_to_look_at()? };
    let id = view::resolve(&project, &args.id)?;
    let plan = view::plan(&project, &id)?;
    let key = args.detach_key.as_deref().map(detach_key).transpose()?.unwrap_or(CTRL_BACKSLASH);
    if plan.lane == Lane::Interactive && !view::is_closed(&project, &id) {
        let folder = project.paths.dispatch(&id);
        let lock = folder.join("lock");
        loop {
            match worker::attach(&folder, args.read_only, key)? {
                Some(Left::Detached) => {
                    context.screen.story(&format!("detached; {id} goes on"));
                    return Ok(Answer::Good);
                }
                Some(Left::Ended) => break,
                // Not yet, while it is being prepared, or not any more.
                None if view::is_closed(&project, &id) || lock::is_free(&lock)? => break,
                None => std::thread::sleep(SOON),
            }
        }
        // The screen is gone; what became of it comes in a moment.
        view::wait_for_end(&project, &id)?;
        if !view::is_closed(&project, &id) {
            return Err(lost(&id));
        }
        return verdict(context, &project, &id);
    }
    if let Some(key) = args.detach_key.as_ref().filter(|_| plan.lane != Lane::Interactive) {
        return Err(Fault::input(format!(
            "--detach-key {key}: this worker has no screen of its own to keep keys from"
        ))
        .fix("leave it out: ctrl-\\ leaves"));
    }
    process::leave_on_quit();
    context.screen.answer(&toned(Tone::Strong, &format!("{id}  {} on {}", plan.agent, plan.provider)));
    if !args.pane && std::io::stdin().is_terminal() && !view::is_closed(&project, &id) {
        context.screen.story("ctrl-\\ leaves; the worker goes on");
    }
    follow(context, &project, &id, Form::People, true)?;
    verdict(context, &project, &id)
}

fn lost(id: &DispatchId) -> Fault {
    Fault::environment(format!("the supervisor of {id} is gone"))
        .fix(format!("`vnx show {id}` recovers the dispatch and says what became of it"))
}

/// `ctrl-x` as the character that a terminal sends for it.
fn detach_key(text: &str) -> Result<u8, Fault> {
    let key = text.strip_prefix("ctrl-").or_else(|| text.strip_prefix("C-")).map(str::as_bytes);
    match key {
        Some([key @ (b'a'..=b'z' | b'\\' | b']' | b'^' | b'_')]) if !b"ijm".contains(key) => {
            Ok(key.to_ascii_uppercase() & 0x1f)
        }
        _ => Err(Fault::input(format!("--detach-key {text:?} is not a control key"))
            .fix("write it as ctrl-x; ctrl-i, ctrl-j and ctrl-m are Tab and Enter")),
    }
}

fn verdict(context: &Context, project: &Project, id: &DispatchId) -> Result<Answer, Fault> {
    if let Some(closed) = view::closed(project, id)? {
        let verdict = &closed.verdict;
        let word = toned(Tone::of(verdict.decision), verdict.decision.word());
        context.screen.answer(&format!("{word}  {}: {}", verdict.outcome, printable(&verdict.reason)));
    }
    Ok(Answer::Good)
}

/// A file that grows, line by line.
struct Growing {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl Growing {
    fn at(path: PathBuf) -> Self {
        Self { path, reader: None, line: Vec::new() }
    }

    /// Hands out every whole line that has come.
    fn read(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Fault> {
        if self.reader.is_none() {
            self.reader = files::open_regular(&self.path).ok().map(BufReader::new);
        }
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let unreadable = |e| Fault::io(format!("cannot read {}: {e}", self.path.display()));
        while reader.read_until(b'\n', &mut self.line).map_err(unreadable)? > 0 {
            if self.line.pop_if(|b| *b == b'\n').is_none() {
                break;
            }
            each(&self.line);
            self.line.clear();
        }
        Ok(())
    }
}

/// Whether all that a worker says is what it draws: no event stream and no transcript tells it.
fn only_draws(project: &Project, id: &DispatchId) -> bool {
    view::plan(project, id).is_ok_and(|p| p.lane == Lane::Interactive && p.launch.parser == ParserKind::Text)
}

fn follow(context: &Context, project: &Project, id: &DispatchId, form: Form, on: bool) -> Result<(), Fault> {
    let folder = project.paths.dispatch(id);
    // Watching begins before the first read, so nothing falls between.
    let watch = on.then(|| FolderWatch::on(&folder));
    let mut events = Growing::at(folder.join("events.ndjson"));
    let mut cast = (form != Form::Json && only_draws(project, id)).then(|| Growing::at(folder.join(CAST)));
    let mut plain = Plain::default();
    let answer = |line: &str| context.screen.answer(&said(line));
    let mut spoke = cast.is_some();
    loop {
        // Asked before reading: what is written before the close is read after it.
        let over = view::is_closed(project, id);
        if let Some(cast) = &mut cast {
            cast.read(|line| plain.take(&drawn(line).unwrap_or_default(), answer))?;
        }
        events.read(|line| spoke |= print(context, line, form))?;
        match &watch {
            Some(watch) if !over && !screen::unheard() => {
                // One that died tells nobody, and only another command finishes what it had open.
                if view::is_lost(project, id)? {
                    plain.finish(answer);
                    return Err(lost(id));
                }
                watch.wait();
            }
            _ => break,
        }
    }
    plain.finish(answer);
    if form == Form::People && !spoke {
        // A TUI says it on its screen only; its last message is the report.
        let report = files::read_capped(&folder.join("report.md"), 4 << 20)?.unwrap_or_default();
        if !report.is_empty() {
            context.screen.answer(&block(&String::from_utf8_lossy(&report), said));
        } else if view::is_closed(project, id) {
            context.screen.story("the worker said nothing");
        }
    }
    Ok(())
}

/// Prints one line of the recording; `true` if the worker says something in it.
fn print(context: &Context, line: &[u8], form: Form) -> bool {
    if form == Form::Json {
        context.screen.bytes(&[line, b"\n"].concat());
        return true;
    }
    let Ok(recorded) = serde_json::from_slice::<Recorded<'_>>(line) else {
        return false;
    };
    if form == Form::People && recorded.src == Source::In {
        // What vnx says in a protocol; what it amounts to comes back as events.
        return false;
    }
    if form == Form::Raw || recorded.events.is_empty() && recorded.src != Source::Out {
        let tone = if recorded.src == Source::Out { None } else { Some(Tone::Dim) };
        // Raw is everything that came; otherwise what a terminal would have shown of it.
        let text = block(&recorded.raw, if form == Form::Raw { printable } else { said });
        context.screen.answer(&tone.map_or_else(|| text.clone(), |t| toned(t, &text)));
        return false;
    }
    let plain = recorded.events.is_empty() && !recorded.raw.starts_with('{');
    if plain {
        context.screen.answer(&said(&recorded.raw));
    }
    for event in &recorded.events {
        if let Some(text) = words(event) {
            context.screen.answer(&text);
        }
    }
    plain || recorded.events.iter().any(|event| matches!(event, Event::Text { .. }))
}

fn block(text: &str, line: fn(&str) -> String) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn words(event: &Event) -> Option<String> {
    Some(match event {
        Event::Init { model, .. } => toned(
            Tone::Dim,
            &format!("session begins{}", model.as_ref().map(|m| format!(" on {}", printable(m))).unwrap_or_default()),
        ),
        Event::Text { text } => block(text, said),
        Event::ToolUse { name, input } => {
            format!("{} {}", toned(Tone::Strong, &format!("> {}", printable(name))), printable(input))
        }
        Event::Thinking { text } | Event::ToolResult { ok: true, text } => toned(Tone::Dim, &block(text, said)),
        Event::ToolResult { ok: false, text } => toned(Tone::Bad, &block(text, said)),
        Event::Error { message, retrying, .. } => {
            toned(Tone::Doubt, &format!("{}{}", if *retrying { "" } else { "error: " }, printable(message)))
        }
        Event::Denied { count } => toned(Tone::Doubt, &format!("{count} tool calls were refused")),
        Event::State { state, source, detail } => {
            let detail = detail.as_ref().map(|d| format!(": {}", printable(d))).unwrap_or_default();
            toned(Tone::Dim, &format!("{} ({}){detail}", state.word(), source.word()))
        }
        Event::Usage(_) | Event::Result { .. } => return None,
    })
}
