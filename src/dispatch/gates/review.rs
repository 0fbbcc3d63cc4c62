//! A review: other models read the change, through the door like everybody else.

use std::fmt::Write as _;
use std::path::Path;

use super::job::Job;
use super::runner::Found;
use crate::dispatch::door::{self, Options};
use crate::dispatch::request::Request;
use crate::dispatch::view;
use crate::domain::gate::review::{self, Reviewed};
use crate::domain::gate::{GateStatus, Review};
use crate::domain::outcome::{Decision, Outcome};
use crate::domain::span::Span;
use crate::domain::{Fault, Name};
use crate::gate::{Reviewer, Shown, instruction};
use crate::git::Git;
use crate::project::{Paths, Project};
use crate::sys::files;

/// Asks the reviewers of a gate, all at once.
pub(super) fn review(paths: &Paths, job: &Job, asked: &Review) -> Result<Found, Fault> {
    let repository = Git::repository(&job.common_dir);
    let patch = repository.patch(&job.fork, &job.binding.head)?;
    if patch.len() as u64 > asked.max_diff.0 {
        let size = patch.len();
        return Ok(Found::unverified(format!(
            "the change has {size} bytes and at most {} are shown; one that is not shown whole is not reviewed",
            asked.max_diff
        )));
    }
    let Ok(patch) = String::from_utf8(patch) else {
        return Ok(Found::unverified("the change is not UTF-8, so it cannot be shown whole"));
    };
    if let Some((line, words)) = review::speaks_to_reviewers(&patch) {
        return Ok(Found::unverified(format!(
            "line {line} of the change speaks to its reviewer ({words:?}), so no model is asked: a person looks"
        )));
    }
    // The main checkout's agents and providers: the branch's own may be what is reviewed.
    let project = Project { paths: paths.clone(), ..Project::open(Path::new(&job.main))? };
    let assignment = assignment(paths, job);
    let text = instruction(Shown { binding: &job.binding, assignment: assignment.as_deref(), patch: &patch });
    let providers: Vec<Option<Name>> = match &asked.providers[..] {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let opened: Vec<_> = providers.iter().map(|provider| open(&project, job, asked, provider.clone(), &text)).collect();
    let mut found = Found { tries: 1, ..Found::default() };
    for (provider, opened) in providers.iter().zip(opened) {
        let (reviewer, found_by_it, said) = heard(&project, job, provider.as_ref(), opened);
        // Writing to a String cannot fail.
        let _ = write!(found.report, "# {}\n\n{said}\n\n", reviewer.provider);
        found.reviewers.push(reviewer);
        found.findings.extend(found_by_it.findings);
    }
    (found.status, found.reason) = together(&found.reviewers);
    Ok(found)
}

/// What had been asked of whoever wrote the change.
fn assignment(paths: &Paths, job: &Job) -> Option<String> {
    let bytes = files::read_capped(&paths.dispatch(&job.dispatch).join("request.yaml"), 4 << 20).ok()??;
    let request: Request = crate::project::yaml::parse(Path::new("request.yaml"), &bytes).ok()?;
    request.instruction
}

fn open(
    project: &Project,
    job: &Job,
    asked: &Review,
    provider: Option<Name>,
    text: &str,
) -> Result<door::Opened, Fault> {
    let mut request = Request::of(asked.agent.clone());
    request.instruction = Some(text.to_owned());
    let named = provider.as_ref().and_then(|name| asked.models.get(name));
    request.model = named.or(asked.model.as_ref()).cloned();
    request.provider = provider;
    request.base = Some(job.binding.head.clone());
    request.deadline = Some(Span(job.gate.timeout.0));
    request.answers = Some(review::json_schema(Some(&job.binding.nonce)).to_string());
    let options = Options { wait_slot: true, ..Options::default() };
    door::open(project, &request, &options)
}

fn heard(
    project: &Project,
    job: &Job,
    provider: Option<&Name>,
    opened: Result<door::Opened, Fault>,
) -> (Reviewer, Reviewed, String) {
    let nobody = |fault: Fault| {
        let name = provider.map_or_else(|| "no provider".to_owned(), Name::to_string);
        let answer = Reviewed::unverified(fault.what);
        let reviewer = Reviewer {
            provider: name,
            model: None,
            dispatch: None,
            status: answer.status,
            reason: answer.reason.clone(),
            usage: crate::domain::event::Usage::default(),
        };
        (reviewer, answer, String::new())
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(fault) => return nobody(fault),
    };
    let id = opened.id.clone();
    let closed = match opened.watch(project, |_| {}) {
        Ok(closed) => closed,
        Err(fault) => return nobody(fault),
    };
    let report = view::file(project, &id, "report.md").ok().flatten();
    let said = report.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let verdict = &closed.verdict;
    let answer = match (verdict.decision, verdict.outcome) {
        (Decision::Accept, Outcome::Done | Outcome::NoChangeNeeded) => review::read(&said, &job.binding.nonce),
        _ => Reviewed::unverified(format!("the reviewer ended as {}: {}", verdict.outcome, verdict.reason)),
    };
    let reviewer = Reviewer {
        provider: closed.provider.to_string(),
        model: closed.model.clone(),
        dispatch: Some(id),
        status: answer.status,
        reason: answer.reason.clone(),
        usage: closed.usage.clone(),
    };
    (reviewer, answer, said)
}

/// What several reviewers come to: all must say yes, and where they disagree a person decides.
fn together(reviewers: &[Reviewer]) -> (Option<GateStatus>, String) {
    let said = |status| reviewers.iter().find(|r| r.status == status);
    let named = |r: &Reviewer| format!("{}: {}", r.provider, r.reason);
    match (said(GateStatus::Unverified), said(GateStatus::Fail), said(GateStatus::Pass)) {
        (Some(one), ..) => (Some(GateStatus::Unverified), named(one)),
        (None, Some(no), Some(yes)) => {
            let what =
                format!("{} says no and {} says yes, so a person decides; {}", no.provider, yes.provider, no.reason);
            (Some(GateStatus::Unverified), what)
        }
        (None, Some(no), None) => (Some(GateStatus::Fail), named(no)),
        (None, None, Some(_)) => {
            let all: Vec<String> = reviewers.iter().map(named).collect();
            (Some(GateStatus::Pass), all.join("; "))
        }
        (None, None, None) => (Some(GateStatus::Unverified), "nobody was asked".to_owned()),
    }
}
