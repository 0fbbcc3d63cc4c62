//! `vnx pr`: a pull request for a dispatch's branch, where a forge is used. It is for people to look at: nothing of
//! it is evidence, and its failure changes no verdict.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dispatch::gates;
use crate::domain::gate::check::{GateCheck, check, short_ref};
use crate::domain::redact::Redactor;
use crate::domain::{DispatchId, Fault};
use crate::git::Git;
use crate::project::Project;
use crate::sys::cmd::{Cmd, Output};

/// How long the forge may take.
const LIMIT: Duration = Duration::from_mins(2);
/// Variables by which `gh` knows who asks and whom.
const FORGE: [&str; 6] = ["GH_TOKEN", "GITHUB_TOKEN", "GH_HOST", "GH_REPO", "GH_CONFIG_DIR", "SSH_AUTH_SOCK"];

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requested {
    /// Format of this answer.
    pub schema: &'static str,
    /// The dispatch.
    pub dispatch: DispatchId,
    /// Where its branch was pushed to.
    pub remote: String,
    /// The request's address.
    pub url: String,
    /// It was opened now; otherwise it was brought up to date.
    pub new: bool,
}

#[derive(Deserialize)]
struct Known {
    number: u64,
    url: String,
}

/// Pushes the branch and opens or updates its request.
pub fn request(project: &Project, id: &DispatchId, into: Option<&str>) -> Result<Requested, Fault> {
    let looked = gates::look(project, id, into)?;
    let checked = check(&looked.situation);
    if let Some(why) = &looked.situation.nothing {
        return Err(Fault::refused(why.as_str()).fix(format!("see `vnx gate-check {id}`")));
    }
    let (branch, remote) = (looked.plan.branch.clone(), looked.policy.merge.remote.clone());
    let repository = Git::repository(&project.located.common_dir);
    let config = Git::tree(&project.located.common_dir, project.located.main_top()).config()?;
    let hooks = repository.hooks_folder(&config, &project.located.main_top());
    repository.push(&remote, &format!("refs/heads/{branch}:refs/heads/{branch}"), &hooks, LIMIT).map_err(|e| {
        Fault::environment(format!("{branch} was not pushed to {remote}: {e}"))
            .fix("check merge.remote and your access to it; nothing else was done")
    })?;
    let target = short_ref(&checked.subject.target);
    let (title, body) = (title(&checked), body(&checked));
    let args = ["pr", "list", "--head", &branch, "--state", "open", "--json", "number,url"];
    let known = gh(project, &args)?;
    let known: Vec<Known> = serde_json::from_slice(&known.stdout).map_err(|e| unclear(&e.to_string()))?;
    let new = known.is_empty();
    let url = if let Some(Known { number, url }) = known.first() {
        gh(project, &["pr", "edit", &number.to_string(), "--title", &title, "--body", &body])?;
        url.clone()
    } else {
        let args = ["pr", "create", "--head", &branch, "--base", target, "--title", &title, "--body", &body];
        gh(project, &args)?.text().lines().last().unwrap_or_default().to_owned()
    };
    Ok(Requested { schema: "vnx.pr/1", dispatch: id.clone(), remote, url, new })
}

fn unclear(why: &str) -> Fault {
    Fault::environment(format!("the branch was pushed, and the forge cannot be asked: {why}"))
        .fix("install `gh` and log it in, or open the request by hand; a merge needs none")
}

fn gh(project: &Project, args: &[&str]) -> Result<Output, Fault> {
    let mut cmd = Cmd::new("gh").args(args).cwd(project.located.main_top()).limit(LIMIT);
    for name in FORGE {
        if let Some(value) = std::env::var_os(name) {
            cmd = cmd.env(name, value);
        }
    }
    let output = cmd.run().map_err(|e| unclear(&e.to_string()))?;
    if output.ok() { Ok(output) } else { Err(unclear(&output.complaint())) }
}

fn title(checked: &GateCheck) -> String {
    format!("vnx: {}", checked.dispatch)
}

/// What there is to know, redacted: it leaves this machine.
fn body(checked: &GateCheck) -> String {
    let mut lines =
        vec![format!("Dispatch `{}`, {}.", checked.dispatch, if checked.go { "GO" } else { "HOLD" }), String::new()];
    lines.extend(checked.gates.iter().map(|row| format!("- {} `{}`: {}", row.standing.word(), row.gate, row.reason)));
    lines.extend(checked.reasons.iter().map(|reason| format!("- held: {}", reason.what)));
    Redactor::default().redact(&lines.join("\n")).into_owned()
}
