//! What is asked for: the request that the command line, an editor and the configuration come to.

use std::io::{IsTerminal, Read};
use std::path::Path;

use super::args::DispatchArgs;
use super::{Context, utf8};
use crate::dispatch::Request;
use crate::dispatch::request::{MAX_INSTRUCTION, parse_override};
use crate::domain::{DispatchId, Fault, Name};
use crate::git::Git;
use crate::project::Project;
use crate::prompt;
use crate::sys::{editor, path};

/// The request, as far as the command line says it.
pub(super) fn request(context: &Context, args: DispatchArgs) -> Result<Request, Fault> {
    let instruction = match (args.instruction.or(args.text), args.file) {
        (Some(text), _) if text == "-" => Some(text_of(std::io::stdin().lock(), "standard input")?),
        (Some(text), _) => Some(utf8(text, "the instruction")?),
        (None, Some(file)) => Some(read_instruction(&file)?),
        (None, None) => None,
    };
    let name = |what: &str, text: Option<String>| text.map(|t| Name::parse(what, &t)).transpose();
    let agent = match name("agent", args.agent)? {
        Some(agent) => agent,
        None => context.project_as_it_is()?.config.defaults.agent.ok_or_else(|| {
            Fault::input("no agent is named, and defaults.agent in .vnx/config.yaml names none")
                .fix("name one with --agent; `vnx agent list` lists them")
        })?,
    };
    Ok(Request {
        instruction,
        id: args.id.map(|id| DispatchId::typed(&id)).transpose()?,
        provider: name("provider", args.provider)?,
        model: args.model,
        lane: args.lane.map(Into::into),
        base: args.base,
        deadline: args.deadline,
        idle: args.idle,
        end: args.end.map(Into::into),
        track: name("track", args.track)?,
        env_file: args.env_file.map(|f| env_file(&f)).transpose()?,
        paths: args.path,
        overrides: args.overrides.iter().map(|o| parse_override(o)).collect::<Result<_, _>>()?,
        ..Request::of(agent)
    })
}

/// What stands between the instruction and what an editor shows beside it.
const CUT: &str = "----- what stands below this line is left out -----";

/// Lets a person write the instruction that a request lacks, where somebody sits at a terminal and the agent has no
/// command of its own. The words of the project's agents are checked elsewhere.
pub(super) fn written(project: &Project, request: Request) -> Result<Request, Fault> {
    let needs_one = || prompt::agent(&project.folder(), &request.agent).is_ok_and(|agent| agent.head.command.is_none());
    if request.instruction.is_some() || !std::io::stdin().is_terminal() || !needs_one() {
        return Ok(request);
    }
    let shown =
        format!("\n\n{CUT}\nThe instruction for {} goes above it. An empty one dispatches nothing.\n", request.agent);
    let editor = Git::tree(&project.located.git_dir, &project.located.top).editor()?;
    let text = editor::edit(&editor, &shown)?;
    let instruction = text.split(CUT).next().unwrap_or_default().trim();
    if instruction.is_empty() {
        return Err(Fault::input("the instruction is empty: nothing was dispatched")
            .fix("write it above the line, or give it as an argument"));
    }
    let request = Request { instruction: Some(instruction.to_owned()), ..request };
    request.check()?;
    Ok(request)
}

fn read_instruction(file: &Path) -> Result<String, Fault> {
    let unreadable = |e: std::io::Error| {
        Fault::input(format!("--file {} cannot be read: {e}", file.display())).fix("check the path and its permissions")
    };
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    if opened.metadata().map_err(unreadable)?.is_dir() {
        return Err(Fault::input(format!("--file {} is a folder", file.display())).fix("name a file"));
    }
    text_of(opened, &format!("--file {}", file.display()))
}

pub(super) fn text_of(reader: impl Read, what: &str) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    reader.take(MAX_INSTRUCTION + 1).read_to_end(&mut bytes).map_err(|e| {
        Fault::input(format!("{what} cannot be read: {e}"))
            .fix("name a file that you may read, or give the text with -i")
    })?;
    if bytes.len() as u64 > MAX_INSTRUCTION {
        return Err(Fault::input(format!("{what} is longer than {MAX_INSTRUCTION} bytes"))
            .fix("put the material into a file of the repository and name it in a shorter instruction"));
    }
    // A mark at the beginning is the editor's, not the author's.
    let text = if bytes.starts_with("\u{feff}".as_bytes()) { bytes.split_off(3) } else { bytes };
    String::from_utf8(text).map_err(|e| {
        Fault::input(format!("{what} is not UTF-8 (byte {})", e.utf8_error().valid_up_to())).fix("save it as UTF-8")
    })
}

fn env_file(file: &Path) -> Result<String, Fault> {
    let bad = |why: String| {
        Fault::input(format!("--env-file {}: {why}", file.display())).fix("one NAME=value a line, # for comments")
    };
    let absolute = file.canonicalize().map_err(|e| bad(e.to_string()))?;
    let text = std::fs::read_to_string(&absolute).map_err(|e| bad(e.to_string()))?;
    crate::provider::environment::parse_file(&text).map_err(bad)?;
    path::text(&absolute)
}
