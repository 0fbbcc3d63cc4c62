//! `vnx agent list`.

use serde::Serialize;

use super::Context;
use super::args::AgentCommand;
use super::exit::Answer;
use super::screen::{Tone, printable, toned};
use super::table::Fit;
use crate::domain::agent::{Agent, Deliverable, Permissions};
use crate::domain::{Fault, Name};
use crate::prompt;

#[derive(Serialize)]
struct Row {
    name: String,
    /// Its file, or `embedded`: it came with vnx.
    origin: Option<String>,
    description: Option<String>,
    /// The CLI that it asks for; absent: the project's default.
    provider: Option<Name>,
    permissions: Option<Permissions>,
    delivers: Option<Deliverable>,
    skills: Vec<Name>,
    /// Why it cannot be dispatched.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Rows {
    schema: &'static str,
    agents: Vec<Row>,
}

impl Row {
    fn of(name: String, read: Result<Agent, Fault>) -> Self {
        match read {
            Ok(Agent { head, origin, .. }) => Self {
                name,
                origin: Some(origin),
                description: Some(head.description),
                provider: head.provider,
                permissions: Some(head.permissions),
                delivers: Some(head.delivers),
                skills: head.skills,
                error: None,
            },
            Err(fault) => Self {
                name,
                origin: None,
                description: None,
                provider: None,
                permissions: None,
                delivers: None,
                skills: Vec::new(),
                error: Some(fault.what),
            },
        }
    }

    /// What a person reads of it.
    fn told(&self) -> [String; 4] {
        let origin = match self.origin.as_deref() {
            Some("embedded") => "vnx",
            Some(_) => "the project",
            None => "-",
        };
        let provider = self.provider.as_ref().map_or("default", Name::as_str);
        let what = match (&self.error, &self.description) {
            (Some(error), _) => toned(Tone::Bad, &printable(error)),
            (None, description) => printable(description.as_deref().unwrap_or_default()),
        };
        [printable(&self.name), provider.to_owned(), origin.to_owned(), what]
    }
}

pub(super) fn run(context: &Context, command: &AgentCommand) -> Result<Answer, Fault> {
    let AgentCommand::List(args) = command;
    let folder = context.project_as_it_is()?.folder();
    let listed = prompt::agents(&folder)?.into_iter();
    let read = |name: &str| Name::parse("agent", name).and_then(|name| prompt::agent(&folder, &name));
    let agents: Vec<Row> = listed.map(|one| Row::of(one.name.clone(), read(&one.name))).collect();
    if args.json {
        context.screen.json(&Rows { schema: "vnx.agents/1", agents });
        return Ok(Answer::Good);
    }
    let header = ["NAME", "PROVIDER", "FROM", "WHAT"].iter().map(|h| toned(Tone::Dim, h)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(agents.iter().map(|row| row.told().to_vec())).collect();
    context.screen.table(&rows, Fit::Wrap);
    Ok(Answer::Good)
}
