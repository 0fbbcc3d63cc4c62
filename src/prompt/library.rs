//! Finding agents and skills: the project's own shadow the embedded ones by name.

use std::path::{Path, PathBuf};

use crate::domain::agent::{Agent, AgentHead, Resource, Skill, SkillHead};
use crate::domain::id::MAX_AGENT;
use crate::domain::setup::sparse_fault;
use crate::domain::{Fault, Name};
use crate::project::{MAX_CONFIG, yaml};
use crate::sys::files;

const AGENTS: [(&str, &str); 4] = [
    ("backend-developer", include_str!("../../agents/backend-developer/AGENT.md")),
    ("code-reviewer", include_str!("../../agents/code-reviewer/AGENT.md")),
    ("hello-world", include_str!("../../agents/hello-world/AGENT.md")),
    ("test-engineer", include_str!("../../agents/test-engineer/AGENT.md")),
];

const SKILLS: [(&str, &str); 3] = [
    ("implement-change", include_str!("../../skills/implement-change/SKILL.md")),
    ("review-code", include_str!("../../skills/review-code/SKILL.md")),
    ("write-tests", include_str!("../../skills/write-tests/SKILL.md")),
];

/// An agent in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name of its folder, which may be no name for an agent.
    pub name: String,
    /// Its front matter could be read, and says this.
    pub description: Result<String, Fault>,
}

/// Every agent that can be dispatched.
pub fn agents(vnx_folder: &Path) -> Result<Vec<Listed>, Fault> {
    let own = files::names(&vnx_folder.join("agents"))?;
    let own = own.iter().filter(|n| vnx_folder.join("agents").join(n).join("AGENT.md").exists());
    let mut names: Vec<&str> = own.map(String::as_str).chain(AGENTS.iter().map(|(n, _)| *n)).collect();
    names.sort_unstable();
    names.dedup();
    let listed = names.into_iter().map(|name| {
        let read = Name::parse("agent", name).and_then(|name| agent(vnx_folder, &name));
        Listed { name: name.to_owned(), description: read.map(|agent| agent.head.description) }
    });
    Ok(listed.collect())
}

/// Reads one agent.
pub fn agent(vnx_folder: &Path, name: &Name) -> Result<Agent, Fault> {
    if name.as_str().len() > MAX_AGENT {
        return Err(Fault::input(format!("agent name {:?} is longer than {MAX_AGENT} characters", name.as_str()))
            .fix("give the agent a shorter name"));
    }
    let Some((file, text, origin)) = find(vnx_folder, "agents", "AGENT.md", name, &AGENTS)? else {
        let known: Vec<String> =
            agents(vnx_folder)?.into_iter().filter_map(|l| l.description.ok().map(|_| l.name)).collect();
        return Err(Fault::input(format!("unknown agent {:?}", name.as_str()))
            .fix(format!("use one of {}; or write .vnx/agents/{name}/AGENT.md", known.join(", "))));
    };
    let (head, body) = split::<AgentHead>(&file, &text)?;
    check_name(&file, &head.name, name)?;
    if let Some((folder, why)) = head.sparse.iter().find_map(|f| Some((f, sparse_fault(f)?))) {
        return Err(Fault::input(format!("{}: sparse, {folder:?}: {why}", file.display()))
            .fix("name folders of the repository, for example sparse: [src, docs/api]"));
    }
    Ok(Agent { head, body, origin })
}

/// Reads the skills of an agent, in its order.
pub fn skills_of(vnx_folder: &Path, agent: &Agent) -> Result<Vec<Skill>, Fault> {
    agent.head.skills.iter().map(|name| skill(vnx_folder, name)).collect()
}

fn skill(vnx_folder: &Path, name: &Name) -> Result<Skill, Fault> {
    let Some((file, text, origin)) = find(vnx_folder, "skills", "SKILL.md", name, &SKILLS)? else {
        return Err(Fault::input(format!("unknown skill {:?}", name.as_str()))
            .fix(format!("write .vnx/skills/{name}/SKILL.md, or take it out of the agent's `skills`")));
    };
    let (head, body) = split::<SkillHead>(&file, &text)?;
    check_name(&file, &head.name, name)?;
    let resources = if origin == "embedded" { Vec::new() } else { resources(file.parent().unwrap_or(vnx_folder))? };
    Ok(Skill { head, body, resources })
}

type Found = (PathBuf, String, String);

fn find(
    vnx: &Path,
    kind: &str,
    file_name: &str,
    name: &Name,
    embedded: &[(&str, &str)],
) -> Result<Option<Found>, Fault> {
    let file = vnx.join(kind).join(name.as_str()).join(file_name);
    if let Some(bytes) = files::read_capped(&file, MAX_CONFIG)? {
        let text = String::from_utf8(bytes)
            .map_err(|_| Fault::input(format!("{} is not UTF-8", file.display())).fix("save the file as UTF-8"))?;
        let origin = file.display().to_string();
        return Ok(Some((file, text, origin)));
    }
    let text = embedded.iter().find(|(known, _)| *known == name.as_str()).map(|(_, text)| (*text).to_owned());
    Ok(text.map(|text| (PathBuf::from(format!("{kind}/{name}/{file_name}")), text, "embedded".to_owned())))
}

fn split<T: serde::de::DeserializeOwned>(file: &Path, text: &str) -> Result<(T, String), Fault> {
    let text = text.replace("\r\n", "\n");
    let Some((head, body)) = yaml::front_matter(&text) else {
        return Err(Fault::input(format!("{} has no front matter", file.display()))
            .fix("begin the file with a line ---, then name: and description:, then a line ---"));
    };
    Ok((yaml::parse(file, head.as_bytes())?, body.trim().to_owned()))
}

fn check_name(file: &Path, given: &Name, wanted: &Name) -> Result<(), Fault> {
    if given == wanted {
        return Ok(());
    }
    Err(Fault::input(format!("{}: name is {:?}, but its folder is called {wanted}", file.display(), given.as_str()))
        .fix("make the two equal"))
}

/// Files beside a SKILL.md, one level deep, links not followed.
fn resources(folder: &Path) -> Result<Vec<Resource>, Fault> {
    let mut found = Vec::new();
    for name in files::names(folder)?.into_iter().filter(|n| n != "SKILL.md").take(50) {
        let path = folder.join(&name);
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if !meta.is_file() {
            continue;
        }
        let head = files::read_capped(&path, MAX_CONFIG).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&head).into_owned();
        let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
        let first_line = first.chars().filter(|c| !c.is_control()).take(80).collect();
        found.push(Resource { path: path.display().to_string(), bytes: meta.len(), first_line });
    }
    Ok(found)
}
