//! A review: other models read the change, through the door like everybody else.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::job::Job;
use super::runner::Found;
use crate::dispatch::door::{self, Options};
use crate::dispatch::request::Request;
use crate::dispatch::steer;
use crate::dispatch::view;
use crate::domain::gate::check::short_ref;
use crate::domain::gate::review::{self, Reviewed};
use crate::domain::gate::{GateStatus, Review};
use crate::domain::outcome::{Decision, Outcome};
use crate::domain::span::Span;
use crate::domain::{DispatchId, Fault, Name};
use crate::gate::{Reviewer, Shown, instruction};
use crate::git::Git;
use crate::project::{Paths, Project};
use crate::sys::files;

/// How often it is looked whether the gate was cancelled.
const LOOK: Duration = Duration::from_millis(100);
/// What decides who reviews, and how.
const DECIDES: [&str; 5] =
    [".vnx/config.yaml", ".vnx/provider_constraints.yaml", ".vnx/agents", ".vnx/skills", ".vnx/providers"];

/// Asks the reviewers of a gate, all at once.
pub(super) fn review(paths: &Paths, job: &Job, folder: &Path, asked: &Review) -> Result<Found, Fault> {
    let repository = Git::repository(&job.common_dir);
    let patch = repository.shown(&job.fork, &job.binding.head)?;
    if patch.len() as u64 > asked.max_diff.0 {
        let size = patch.len();
        return Ok(Found::unverified(format!(
            "the change has {size} bytes and at most {} are shown; one that is not shown whole is not reviewed",
            asked.max_diff
        )));
    }
    let Some(patch) = String::from_utf8(patch).ok().filter(|text| !text.contains('\0')) else {
        return Ok(Found::unverified("the change is not all UTF-8 text, so it cannot be shown whole: a person looks"));
    };
    if let Some((line, words)) = review::speaks_to_reviewers(&patch) {
        return Ok(Found::unverified(format!(
            "line {line} of the change speaks to its reviewer ({words:?}), so no model is asked: a person looks"
        )));
    }
    if let Some(path) = unlike_the_target(&repository, Path::new(&job.main), &job.binding.base)? {
        return Ok(Found::unverified(format!(
            "{path} in {} is not what {} has, and decides who reviews and how: check out or commit what counts",
            job.main,
            short_ref(&job.binding.target)
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
    let ids: Vec<DispatchId> = opened.iter().flatten().map(|opened| opened.id.clone()).collect();
    let heard: Vec<_> = while_wanted(&project, folder, &ids, || {
        let all = providers.iter().zip(opened);
        all.map(|(provider, opened)| heard(&project, job, provider.as_ref(), opened)).collect()
    });
    for (reviewer, found_by_it, said, cut_off) in heard {
        found.cut_off |= cut_off;
        // Writing to a String cannot fail.
        let _ = write!(found.report, "# {}\n\n{said}\n\n", reviewer.provider);
        found.reviewers.push(reviewer);
        found.findings.extend(found_by_it.findings);
    }
    (found.status, found.reason) = together(&found.reviewers);
    Ok(found)
}

/// A file that decides who reviews, and that the main checkout has in another form than the target.
fn unlike_the_target(repository: &Git, main: &Path, base: &str) -> Result<Option<String>, Fault> {
    let decides = |path: &Path| DECIDES.iter().any(|name| path.starts_with(name));
    let committed: Vec<_> = repository.files_of(base)?.into_iter().filter(|e| decides(&e.path)).collect();
    let mut unlike = None;
    repository.contents(committed.iter().map(|e| e.oid.as_str()), |at, content| {
        let path = &committed[at].path;
        if unlike.is_none() && !files::open_regular(&main.join(path)).is_ok_and(|file| files::same_bytes(file, content))
        {
            unlike = Some(path.display().to_string());
        }
        Ok(())
    })?;
    let known = |path: &Path| committed.iter().any(|e| e.path == path);
    for name in DECIDES {
        let more = files::below(&main.join(name)).map_err(|e| Fault::io(e.to_string()))?;
        let more = more.iter().filter_map(|path| path.strip_prefix(main).ok());
        unlike = unlike.or(more.into_iter().find(|path| !known(path)).map(|path| path.display().to_string()));
    }
    Ok(unlike)
}

/// What had been asked of whoever wrote the change.
fn assignment(paths: &Paths, job: &Job) -> Option<String> {
    Request::read(paths, &job.dispatch)?.instruction
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
    let opened = door::open(project, &request, &options)?;
    // It is nobody's `@last`.
    files::replace(&view::of_gate(project, &opened.id), job.binding.nonce.as_bytes())?;
    Ok(opened)
}

/// What came of one reviewer: its word, what it found, its report, and whether somebody ended it.
fn heard(
    project: &Project,
    job: &Job,
    provider: Option<&Name>,
    opened: Result<door::Opened, Fault>,
) -> (Reviewer, Reviewed, String, bool) {
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
        (reviewer, answer, String::new(), false)
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
    (reviewer, answer, said, verdict.outcome == Outcome::Cancelled)
}

/// Cancels the reviewers when the gate is cancelled, which its folder tells.
fn while_wanted<T>(project: &Project, folder: &Path, ids: &[DispatchId], work: impl FnOnce() -> T) -> T {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // Without it they end by themselves, only later.
        let _watch = std::thread::Builder::new().spawn_scoped(scope, move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if folder.join("cancelled").exists() {
                    // One that is over is over.
                    for id in ids {
                        let _ = steer::cancel(project, id, false);
                    }
                    return;
                }
            }
        });
        let heard = work();
        drop(done);
        heard
    })
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
