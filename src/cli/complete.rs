//! What shells complete, with the ids that there are, and man pages: both from the one command line.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use super::Context;
use super::args::{ManArgs, ShellArg, Top};
use super::exit::Answer;
use crate::domain::Fault;
use crate::project::Project;
use crate::prompt;
use crate::provider;
use crate::sys::files::{self, At};
use crate::sys::reader;

/// The variable by which a shell's script asks.
const VARIABLE: &str = "VNX_COMPLETE";
/// How many ids are offered: more are not read by anybody.
const MANY: usize = 200;

/// Answers a shell that asks what can follow; `false` when none asks.
pub(super) fn answered() -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let here = std::env::current_dir().ok();
    // A line that cannot be completed is completed by nothing; an error would stand in the middle of it.
    let asked = CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), here.as_deref());
    asked.unwrap_or(true)
}

/// `vnx completions`.
pub(super) fn script(context: &Context, shell: ShellArg) -> Result<Answer, Fault> {
    let shell = match shell {
        ShellArg::Bash => "bash",
        ShellArg::Elvish => "elvish",
        ShellArg::Fish => "fish",
        ShellArg::Zsh => "zsh",
    };
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or_else(|| Fault::internal(format!("{shell} is not known")))?;
    let mut text = Vec::new();
    completer
        .write_registration(VARIABLE, "vnx", "vnx", "vnx", &mut text)
        .map_err(|e| Fault::internal(format!("the script for {shell} could not be made: {e}")))?;
    context.screen.bytes(&text);
    Ok(Answer::Good)
}

/// `vnx man`.
pub(super) fn man(context: &Context, args: &ManArgs) -> Result<Answer, Fault> {
    let mut top = Top::command();
    top.build();
    if let Some(folder) = &args.dir {
        // For all who read there, as the user's umask has it.
        std::fs::create_dir_all(folder).at("create", folder)?;
        let written = pages(&top, folder)?;
        context.screen.story(&format!("{written} pages in {}", folder.display()));
        return Ok(Answer::Good);
    }
    let mut found = &top;
    for name in &args.command {
        let known =
            found.get_subcommands().find(|sub| sub.get_name() == name || sub.get_all_aliases().any(|a| a == name));
        found = known.ok_or_else(|| {
            Fault::input(format!("there is no command {:?}", args.command.join(" "))).fix("see `vnx --help`")
        })?;
    }
    let source = page(found)?;
    if std::io::stdout().is_terminal() {
        reader::manual(&source);
        // Nobody here can set it: `--help` says the same.
        let help = found.clone().render_long_help().to_string();
        context.screen.read(help.as_bytes(), |_| None);
    } else {
        context.screen.bytes(&source);
    }
    Ok(Answer::Good)
}

fn page(command: &Command) -> Result<Vec<u8>, Fault> {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).manual("vnx");
    man.render(&mut text).map_err(|e| Fault::internal(format!("a page could not be made: {e}")))?;
    Ok(text)
}

/// Writes the page of a command and of all below it.
fn pages(command: &Command, folder: &Path) -> Result<usize, Fault> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).at("write", &path)?;
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.map(|sub| pages(sub, folder)).try_fold(1, |sum, written| Ok(sum + written?))
}

/// The command line, whose values are completed.
fn command() -> Command {
    with_values(Top::command())
}

fn with_values(command: Command) -> Command {
    let is_new = matches!(command.get_name(), "dispatch-agent" | "stage");
    let below = command.get_name().to_owned();
    let names: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    let command = names.iter().fold(command, |command, name| {
        let values: fn(&OsStr) -> Vec<CompletionCandidate> = match (name.as_str(), below.as_str()) {
            ("id", "promote") => return command,
            ("id" | "ids", "cancel" | "send" | "permit" | "wait" | "attach") => |so_far| ids(so_far, true),
            ("id" | "ids", _) if !is_new => |so_far| ids(so_far, false),
            ("agent", _) => |so_far| offer(so_far, |project| names_of_agents(&project.folder())),
            ("provider", _) | ("name", "show" | "check") => {
                |so_far| offer(so_far, |project| providers(&project.folder()))
            }
            ("gate" | "gates", _) => {
                |so_far| offer(so_far, |p| p.config.gates.keys().map(ToString::to_string).collect())
            }
            _ => return command,
        };
        command.mut_arg(name, |arg| arg.add(ArgValueCompleter::new(values)))
    });
    command.mut_subcommands(with_values)
}

/// Dispatches, the newest first.
fn ids(so_far: &OsStr, open: bool) -> Vec<CompletionCandidate> {
    offer(so_far, |project| {
        let folder = if open { project.paths.open() } else { project.paths.dispatches() };
        let mut names = files::names(&folder).unwrap_or_default();
        names.retain(|name| so_far.to_str().is_some_and(|begin| name.starts_with(begin)));
        names.reverse();
        names.truncate(MANY);
        names.push("@last".to_owned());
        names
    })
}

fn names_of_agents(folder: &Path) -> Vec<String> {
    prompt::agents(folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|agent| agent.description.is_ok())
        .map(|agent| agent.name)
        .collect()
}

fn providers(folder: &Path) -> Vec<String> {
    provider::names(folder).unwrap_or_default()
}

/// The project that the words on the line name, which are this process's arguments.
fn named() -> PathBuf {
    let mut words = std::env::args_os().skip_while(|word| word != "--");
    let mut folder = None;
    while let Some(word) = words.next() {
        if word == "--project" {
            folder = words.next().map(PathBuf::from);
        } else if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--project=")) {
            folder = Some(PathBuf::from(path));
        }
    }
    folder.unwrap_or_else(|| PathBuf::from("."))
}

/// What of a project begins like this. Nothing is touched, and where there is no project there is nothing.
fn offer(so_far: &OsStr, values: impl Fn(&Project) -> Vec<String>) -> Vec<CompletionCandidate> {
    let (Some(so_far), Ok(project)) = (so_far.to_str(), Project::open(&named())) else { return Vec::new() };
    let all = values(&project).into_iter().filter(|value| value.starts_with(so_far));
    let nth = |(n, value): (usize, String)| CompletionCandidate::new(value).display_order(Some(n));
    all.enumerate().map(nth).collect()
}
