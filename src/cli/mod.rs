//! The command line: one file for each command, arguments → one call → render. No decisions
//! here, and the only room that prints.

mod agent;
mod args;
mod audit;
mod authority;
mod complete;
mod demo;
mod dispatch;
mod doctor;
mod exit;
mod export;
mod follow;
mod gate;
mod init;
mod items;
mod list;
mod live;
mod logs;
mod merge;
mod path;
mod provider;
mod rebuild;
mod receipts;
#[cfg(test)]
mod reference;
mod request;
mod screen;
mod show;
mod status;
mod steer;
mod table;
mod trees;
mod trust;
mod why;
mod worktree;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::{ContextKind, ErrorKind};

use args::{Command, Top};
use exit::Answer;
use screen::Screen;

use crate::dispatch::{GUARD, guard};
use crate::domain::{DispatchId, Fault};
use crate::project::{Paths, Project};
use crate::provider::hooks::HOOK;
use crate::worker::{LAUNCH, launch};

/// What a command needs of the global flags.
struct Context {
    from: PathBuf,
    screen: Screen,
}

impl Context {
    /// Opens the project and finishes what an earlier command left half done.
    fn project(&self) -> Result<Project, Fault> {
        let project = self.project_as_it_is()?;
        self.finished(crate::dispatch::tidy(&project));
        if let Some(finished) = crate::merge::tidy(&project) {
            let words = finished.unwrap_or_else(|fault| {
                format!("a merge was cut off and could not be finished: {fault}; {}", fault.next())
            });
            self.screen.story(&words);
        }
        Ok(project)
    }

    fn finished(&self, dispatches: Vec<(DispatchId, Result<(), Fault>)>) {
        for (id, result) in dispatches {
            self.screen.story(&match result {
                Ok(()) => format!("finished dispatch {id}, which had lost its supervisor"),
                Err(fault) => {
                    format!("dispatch {id} lost its supervisor and could not be finished: {fault}; {}", fault.next())
                }
            });
        }
    }

    /// The same for whoever looks at what runs, or ends it: a word in the configuration that is wrong must not be in
    /// the way of that.
    fn project_to_look_at(&self) -> Result<Project, Fault> {
        self.project().or_else(|fault| match Project::without_config(&self.from) {
            Some(project) => {
                self.screen.story(&format!("{fault}; {}", fault.next()));
                self.finished(crate::dispatch::recover_all(&project.paths));
                Ok(project)
            }
            None => Err(fault),
        })
    }

    /// Opens the project and touches nothing: for views that others wait for.
    fn project_as_it_is(&self) -> Result<Project, Fault> {
        let project = Project::open(&self.from)?;
        screen::know_secrets(&project.config.redact.names);
        Ok(project)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // Doors before the parser: the launcher, the guard and the hook must be small and fast.
    let _name = args.next();
    match args.next() {
        Some(first) if first == LAUNCH => return launch(args),
        Some(first) if first == GUARD => return guard(args),
        Some(first) if first == HOOK => return steer::hook(args),
        _ => {}
    }
    if complete::answered() {
        return ExitCode::SUCCESS;
    }
    crate::sys::process::survive_file_limit();
    let typed = args::typed(std::env::args_os());
    let top = match args::command().try_get_matches_from(typed).and_then(|found| Top::from_arg_matches(&found)) {
        Ok(top) => top,
        Err(mut error) => {
            args::suggest(&mut error);
            // Help and version are answers; everything else is a usage error.
            let code = if error.use_stderr() { 2 } else { 0 };
            // The command that lacks one is named where one that does not exist would be.
            let lacking = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
            if error.kind() == ErrorKind::MissingSubcommand && lacking.as_deref() == Some("vnx") {
                // Which commands there are is what help is for.
                let _ = write!(anstream::stderr(), "{}", args::command().render_help().ansi());
            } else {
                let _ = error.print();
            }
            return ExitCode::from(code);
        }
    };
    let screen = Screen::new(top.quiet, top.verbose);
    let from = top.project.clone().unwrap_or_else(|| PathBuf::from("."));
    let context = Context { from, screen };
    match run(&context, top.command).and_then(|answer| screen::unprinted().map_or(Ok(answer), Err)) {
        Ok(answer) => answer.code(),
        Err(fault) => context.screen.fault(&fault),
    }
}

fn run(context: &Context, command: Command) -> Result<Answer, Fault> {
    authority::check(context, &command)?;
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Trust(args) => trust::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::DispatchAgent(args) => dispatch::run(context, *args),
        Command::Stage(args) => dispatch::stage(context, *args),
        Command::Promote(args) => dispatch::promote(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Ps(args) => live::ps(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Wait(args) => live::wait(context, &args),
        Command::Cancel(args) => live::cancel(context, &args),
        Command::Show(args) => show::run(context, &args),
        Command::Logs(args) => logs::logs(context, &args),
        Command::Attach(args) => logs::attach(context, &args),
        Command::Send(args) => steer::send(context, args),
        Command::Resume(args) => dispatch::resume(context, *args),
        Command::Permit(args) => steer::permit(context, &args),
        Command::Undo(args) => trees::undo(context, &args),
        Command::Drop(args) => trees::give_up(context, &args),
        Command::Worktree(command) => trees::run(context, &command),
        Command::Gate(command) => gate::run(context, command),
        Command::GateCheck(args) => gate::check(context, &args),
        Command::Approve(args) => gate::approve(context, args),
        Command::Merge(args) => merge::run(context, &args),
        Command::Pr { which, json } => merge::pr(context, &which, json),
        Command::Revert(args) => merge::revert(context, &args),
        Command::Items(command) => items::run(context, command),
        Command::Agent(command) => agent::run(context, &command),
        Command::Provider(command) => provider::run(context, command),
        Command::Receipts(args) => receipts::run(context, &args),
        Command::AuditChain(args) => audit::run(context, &args),
        Command::Rebuild(args) => rebuild::run(context, &args),
        Command::Path(args) => path::run(context, &args),
        Command::Demo(args) => demo::run(context, &args),
        Command::Completions { shell } => complete::script(context, shell),
        Command::Man(args) => complete::man(context, &args),
        Command::Supervise(args) => {
            let id = DispatchId::parse(&args.id)?;
            crate::dispatch::supervise(&Paths::at(args.state), &id)?;
            Ok(Answer::Good)
        }
        Command::GateRunner(args) => {
            let id = DispatchId::parse(&args.id)?;
            crate::dispatch::gates::run_gate(&Paths::at(args.state), &id, &args.nonce)?;
            Ok(Answer::Good)
        }
        Command::Probe { file } => gate::probe(context, &file),
    }
}

/// A text argument that must be UTF-8.
fn utf8(text: OsString, flag: &str) -> Result<String, Fault> {
    text.into_string()
        .map_err(|_| Fault::input(format!("{flag} is not UTF-8")).fix("give it as UTF-8, or put it into a file"))
}
