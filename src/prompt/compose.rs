//! The one composer: role → method → assignment → resource index → report contract.
//!
//! Pure. The overhead (everything but the assignment) is counted and shown; for a bare agent
//! it stays under 2 KB.

use std::fmt::Write as _;

use crate::domain::agent::{Agent, Deliverable, Skill};

/// What the worker is asked to do, and where.
#[derive(Debug, Clone, Copy)]
pub struct Assignment<'a> {
    /// The instruction.
    pub text: &'a str,
    /// Its branch.
    pub branch: &'a str,
    /// The path globs it must stay within; empty means everywhere.
    pub paths: &'a [String],
    /// It can only answer: its change is the diff in what it says.
    pub by_answer: bool,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The text. It begins with `#`, never with `/`: CLIs take a slash for a command.
    pub text: String,
    /// Bytes that are not the assignment.
    pub overhead: u64,
}

/// The message that continues a session: it knows everything else already.
pub fn go_on(assignment: Assignment<'_>) -> Composed {
    let text = assignment.text.trim_end();
    let note = format!(
        "\n\n# Ground rules\n\nYour worktree stands again at the same path, on a new branch `{}` that begins where the last one\n\
         ended. Everything else holds as before.\n",
        assignment.branch
    );
    let head = "# Assignment\n\n";
    Composed { text: format!("{head}{text}{note}"), overhead: (head.len() + note.len()) as u64 }
}

/// Composes the prompt.
pub fn compose(agent: &Agent, skills: &[Skill], assignment: Assignment<'_>) -> Composed {
    let mut out = String::with_capacity(assignment.text.len() + 4096);
    // Writing to a String cannot fail.
    let _ = write!(out, "# Role: {}\n\n{}\n", agent.head.name, agent.body);
    for skill in skills {
        let _ = write!(out, "\n# Method: {}\n\n{}\n", skill.head.name, skill.body);
    }
    let _ = write!(out, "\n# Assignment\n\n{}\n", assignment.text.trim_end());
    let resources: Vec<_> = skills.iter().flat_map(|s| &s.resources).collect();
    if !resources.is_empty() {
        out.push_str("\n# Resources (read them when you need them)\n\n");
        for resource in resources {
            let _ = writeln!(out, "- {} ({} bytes): {}", resource.path, resource.bytes, resource.first_line);
        }
    }
    out.push_str("\n# Ground rules\n\n");
    if !assignment.by_answer {
        let _ = writeln!(out, "You work alone in a git worktree of your own, on branch `{}`.", assignment.branch);
    }
    match agent.head.delivers {
        Deliverable::Commit if assignment.by_answer => out.push_str(
            "You have no tools and see nothing but this text. Deliver the change as one unified diff in a block that\n\
             begins with ```diff: paths from the top of the repository behind a/ and b/, `--- /dev/null` for a new file,\n\
             unchanged lines exactly as they are. It is applied and committed for you, whole or not at all.\n",
        ),
        Deliverable::Commit => out.push_str(
            "Commit your work on this branch; what is not committed does not count. Do not switch branches,\n\
             rewrite commits that are not yours, push, or touch other worktrees. Leave no stray files.\n",
        ),
        Deliverable::Report => out.push_str("Change no file and make no commit: your deliverable is the report.\n"),
    }
    if !assignment.paths.is_empty() {
        let _ = writeln!(out, "Change only files that match: {}.", assignment.paths.join(", "));
    }
    out.push_str(match agent.head.delivers {
        Deliverable::Commit if assignment.by_answer => {
            "Before it, report shortly what you changed and why, and what is open. If nothing needs to change, say so\n\
             and why, without a diff.\n"
        }
        Deliverable::Commit => {
            "End with a short report: what you changed and why, how you checked it (commands and results),\n\
             what is open, as a list under the heading `## Open items`. If nothing needs to change, say so and why.\n"
        }
        Deliverable::Report => {
            "End with the report itself as your last message, complete: nothing before it is kept.\n"
        }
    });
    let overhead = (out.len() - assignment.text.trim_end().len()) as u64;
    Composed { text: out, overhead }
}
