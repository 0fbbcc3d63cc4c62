//! What `vnx --help` and `vnx COMMAND --help` look like: commands by what one wants to do, in one line each.

use std::ffi::OsString;
use std::fmt::Write;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory, Error};

use super::{EVERYWHERE, Top};

/// The commands by what they are for; a test holds them against the commands that there are.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Set up", &["init", "trust", "doctor", "agent", "provider", "demo"]),
    ("Dispatch", &["dispatch-agent", "resume", "stage", "promote"]),
    ("Watch and steer", &["status", "ps", "list", "show", "logs", "attach", "send", "permit", "wait", "cancel"]),
    ("Land", &["gate", "gate-check", "approve", "merge", "revert", "pr", "items"]),
    ("Worktrees", &["worktree", "drop", "undo"]),
    ("Ledger", &["receipts", "audit-chain", "rebuild"]),
    ("Shell", &["path", "completions", "man"]),
];

/// The command line with its help as it is printed. Manual pages and completions are made from [`Top`] itself.
pub(in crate::cli) fn command() -> Command {
    let top = with_paragraphs(Top::command());
    let heading = top.get_styles().get_header();
    let options = format!("{heading}{EVERYWHERE}:{heading:#}\n{{options}}{{after-help}}");
    let template = format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\n{options}", groups(&top));
    top.help_template(template)
}

/// Short help leaves out what follows the first line of a command's description; here it comes at the end.
fn with_paragraphs(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_paragraphs));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    match command.get_long_about().map(ToString::to_string) {
        Some(long) if command.get_after_help().is_none() => {
            let rest = long.strip_prefix(about.as_str()).unwrap_or(&long).trim().to_owned();
            command.after_help(rest)
        }
        _ => command,
    }
}

fn groups(top: &Command) -> String {
    let heading = top.get_styles().get_header();
    let literal = top.get_styles().get_literal();
    let mut text = String::new();
    for (group, names) in GROUPS {
        let _ = write!(text, "\n{heading}{group}:{heading:#}\n");
        for sub in names.iter().filter_map(|name| top.find_subcommand(name)) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let alias = sub.get_visible_aliases().next().map(|alias| format!(" [alias: {alias}]")).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{:<15}{literal:#} {about}{alias}", sub.get_name());
        }
    }
    text
}

/// What people type who know other tools, and what it is called here.
const CALLED: [(&[&str], &str); 15] = [
    (&["run", "start", "new", "exec", "create"], "dispatch --agent NAME 'TEXT'"),
    (&["rm", "remove", "delete", "discard"], "drop ID"),
    (&["agents", "roles"], "agent list"),
    (&["providers", "models"], "provider list"),
    (&["ls", "history", "jobs"], "list"),
    (&["diff", "patch"], "show ID --diff"),
    (&["log", "tail", "output"], "logs ID"),
    (&["kill", "stop", "abort"], "cancel ID"),
    (&["land", "ship"], "merge ID --gates"),
    (&["verify", "audit"], "audit-chain verify"),
    (&["watch", "top", "dashboard"], "status --watch"),
    (&["open", "enter"], "attach ID"),
    (&["continue"], "resume ID"),
    (&["clean", "gc", "prune"], "worktree gc"),
    (&["allow", "deny", "answer"], "permit ID allow|deny"),
];

/// Tells whoever typed such a word how it is called here, instead of commands that are only written alike.
pub(in crate::cli) fn suggest(error: &mut Error) {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return };
    if let Some((_, called)) = CALLED.iter().find(|(words, _)| words.contains(&word.as_str())) {
        error.remove(ContextKind::SuggestedSubcommand);
        let tip = StyledStr::from(format!("it is called `vnx {called}`"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
}

/// What was typed, with `vnx help COMMAND` as the `vnx COMMAND --help` that it means.
pub(in crate::cli) fn typed(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|first| first == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::{CALLED, GROUPS, command, suggest};

    #[test]
    fn what_others_call_it_leads_to_a_command_that_there_is() {
        for (words, called) in CALLED {
            let name = called.split(' ').next().unwrap();
            assert!(command().find_subcommand(name).is_some(), "{called}");
            for word in words {
                let mut error = command().try_get_matches_from(["vnx", word]).unwrap_err();
                suggest(&mut error);
                let told = error.to_string();
                assert!(told.contains(&format!("tip: it is called `vnx {called}`")), "{told}");
                assert!(!told.contains("similar"), "{told}");
            }
        }
    }

    #[test]
    fn every_command_is_in_one_group() {
        let top = command();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut there: Vec<&str> =
            top.get_subcommands().filter(|s| !s.is_hide_set()).map(clap::Command::get_name).collect();
        grouped.sort_unstable();
        there.sort_unstable();
        assert_eq!(grouped, there);
    }

    #[test]
    fn the_help_of_vnx_fits_eighty_columns() {
        let help = command().term_width(80).render_help().to_string();
        for line in help.lines().take_while(|line| !line.starts_with("Exit codes")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
