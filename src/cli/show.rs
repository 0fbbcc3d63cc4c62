//! `vnx show`.

use std::path::Path;

use serde::Serialize;

use super::Context;
use super::args::ShowArgs;
use super::exit::Answer;
use super::screen::{Tone, printable, toned, zone};
use super::table::{Fit, table};
use super::{live, why};
use crate::dispatch::view::{Live, Standing};
use crate::dispatch::{Request, view};
use crate::domain::event::PaidBy;
use crate::domain::gate::check::{short, short_ref};
use crate::domain::line::quoted;
use crate::domain::outcome::{Decision, Outcome};
use crate::domain::plan::Plan;
use crate::domain::receipt::{Body, DispatchClosed, Kind, Strategy, TreeEnd};
use crate::domain::span::{counted, dollars, human_millis};
use crate::domain::tree::Tri;
use crate::domain::{DispatchId, Fault, Name, Timestamp};
use crate::git::Git;
use crate::ledger::Receipt;
use crate::project::Project;
use crate::provider;
use crate::sys::now;

/// The change of a dispatch, in its folder.
const DIFF: &str = "diff.patch";

/// A dispatch as JSON, whatever its state.
#[derive(Serialize)]
struct Shown<'a> {
    schema: &'static str,
    id: &'a DispatchId,
    state: State,
    /// The first line of the instruction that says something.
    title: Option<String>,
    /// The instruction; absent where its file is gone.
    instruction: Option<String>,
    /// The plan; absent where its file is gone.
    plan: Option<Plan>,
    /// When it was planned.
    begun: Option<Timestamp>,
    /// When it was closed.
    ended: Option<Timestamp>,
    /// What it is doing, while it is not closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
    /// Its closing receipt.
    closed: Option<&'a DispatchClosed>,
    /// Its last landing, unless that was taken back.
    landed: Option<Landing>,
    /// What a person does next.
    next: String,
}

/// Where a dispatch landed.
#[derive(Serialize)]
struct Landing {
    target: Option<String>,
    commit: String,
    at: Timestamp,
}

/// Where a dispatch stands.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Running,
    Closed,
    Lost,
    Broken,
}

impl State {
    /// What a person does next, where it is not closed.
    fn next(self, id: &DispatchId) -> String {
        match self {
            Self::Running | Self::Closed => {
                format!("`vnx logs {id} -f` or `vnx attach {id}` follows it, `vnx cancel {id}` ends it")
            }
            Self::Lost => "any next command finishes it, such as `vnx ps`".to_owned(),
            Self::Broken => "`vnx audit-chain verify` says what is missing".to_owned(),
        }
    }
}

/// Prints a dispatch as JSON.
pub(super) fn json(context: &Context, project: &Project, id: &DispatchId, closed: Option<&DispatchClosed>) {
    let state = if closed.is_some() { State::Closed } else { State::Running };
    shown(context, project, id, state, closed);
}

fn shown(context: &Context, project: &Project, id: &DispatchId, state: State, closed: Option<&DispatchClosed>) {
    let receipts = view::receipts(project, id).unwrap_or_default();
    let plan = view::plan(project, id).ok();
    let at = |kind: Kind| receipts.iter().find(|r| r.body.kind() == kind).map(|r| r.ts);
    context.screen.json(&Shown {
        schema: "vnx.dispatch/1",
        id,
        state,
        title: view::title(project, id),
        instruction: Request::read(&project.paths, id).and_then(|request| request.instruction),
        begun: plan.as_ref().map(|plan| plan.made),
        plan,
        ended: at(Kind::DispatchClosed),
        live: if closed.is_none() { view::one(project, id) } else { None },
        landed: landing(&receipts),
        next: closed.map_or_else(|| state.next(id), |closed| next(project, &receipts, id, closed)),
        closed,
    });
}

/// The last landing, unless that was one that took another back.
fn landing(receipts: &[Receipt]) -> Option<Landing> {
    let last =
        receipts.iter().rev().find_map(|r| if let Body::MergeLanded(m) = &r.body { Some((m, r.ts)) } else { None });
    let (landed, at) = last?;
    let started = receipts.iter().find_map(|r| match &r.body {
        Body::MergeStarted(m) if m.nonce == landed.nonce => Some(m),
        _ => None,
    });
    if started.is_some_and(|m| m.strategy == Strategy::Revert) {
        return None;
    }
    Some(Landing { target: started.map(|m| short_ref(&m.target).to_owned()), commit: landed.commit.clone(), at })
}

pub(super) fn run(context: &Context, args: &ShowArgs) -> Result<Answer, Fault> {
    let project = context.project_to_look_at()?;
    let id = view::resolve(&project, &args.id)?;
    if args.why {
        return why::run(context, &project, &id, args.json);
    }
    for (wanted, name, what) in
        [(args.prompt, "prompt.md", "prompt"), (args.report, "report.md", "report"), (args.diff, DIFF, "change")]
    {
        if wanted {
            return file(context, &project, &id, (name, what), args.json);
        }
    }
    let closed = match view::standing(&project, &id)? {
        Standing::Closed(closed) => *closed,
        Standing::Broken => return not_closed(context, &project, &id, State::Broken, args.json),
        Standing::Open => {
            let state = if view::is_lost(&project, &id)? { State::Lost } else { State::Running };
            return not_closed(context, &project, &id, state, args.json);
        }
    };
    if args.json {
        json(context, &project, &id, Some(&closed));
        return Ok(Answer::Good);
    }
    let verdict = &closed.verdict;
    let begun = view::plan(&project, &id).map(|plan| plan.made).ok();
    head(context, &project, &id, (&closed.agent, &closed.provider, &closed.base.name), begun);
    context.screen.answer(&format!(
        "{}  {}: {}",
        toned(Tone::of(verdict.decision), verdict.decision.word()),
        verdict.outcome,
        printable(&verdict.reason)
    ));
    for line in details(&project, &id, &closed) {
        context.screen.answer(&line);
    }
    context.screen.answer(&toned(Tone::Dim, "evidence"));
    for line in &verdict.evidence {
        context.screen.answer(&format!("  {}", printable(line)));
    }
    facts(context, &project, &id)?;
    Ok(Answer::Good)
}

/// What it is, and what it is about.
fn head(
    context: &Context,
    project: &Project,
    id: &DispatchId,
    (agent, provider, base): (&Name, &Name, &str),
    begun: Option<Timestamp>,
) {
    let begun = begun.map(|at| format!("{} ", at.moment(now(), zone()))).unwrap_or_default();
    let route = format!("{agent} on {provider}, {begun}from {}", short_ref(base));
    context.screen.answer(&format!("{}  {}", toned(Tone::Strong, id.as_str()), printable(&route)));
    if let Some(title) = view::title(project, id) {
        let (start, more): (String, _) =
            (title.chars().take(120).collect(), title.chars().nth(120).map_or("", |_| "…"));
        context.screen.answer(&toned(Tone::Dim, &format!("{}{more}", printable(&start))));
    }
}

fn not_closed(
    context: &Context,
    project: &Project,
    id: &DispatchId,
    state: State,
    json: bool,
) -> Result<Answer, Fault> {
    let answer = if state == State::Broken { Answer::No } else { Answer::Good };
    if json {
        shown(context, project, id, state, None);
        return Ok(answer);
    }
    let plan = view::plan(project, id)?;
    head(context, project, id, (&plan.agent, &plan.provider, &plan.base.name), Some(plan.made));
    let live = view::one(project, id);
    let word = match (state, &live) {
        (State::Running | State::Closed, Some(live)) => {
            let since = human_millis(now().millis_since(live.state_since));
            let detail = live.detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
            format!("{} for {since}{}", toned(live::tone(live.state), live.state.word()), printable(&detail))
        }
        (State::Running | State::Closed, None) => toned(Tone::Good, "running"),
        (State::Lost, _) => format!("{}: its supervisor is gone, and it is not finished", toned(Tone::Bad, "lost")),
        (State::Broken, _) => {
            format!("{}: receipts of it are missing from the ledger", toned(Tone::Bad, "broken"))
        }
    };
    context.screen.answer(&word);
    let mut rows = Vec::new();
    if let Some(live) = &live {
        rows.extend(live.doing.as_ref().map(|doing| ("now", doing.clone())));
        let pid = live.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        rows.push(("worker", format!("{}, {} lane{pid}", live.provider, live.lane.word())));
        rows.extend(live.pane.as_ref().map(|pane| ("pane", pane.clone())));
    }
    rows.push(("branch", plan.branch.clone()));
    rows.push(("worktree", plan.worktree.clone()));
    rows.push(("limits", format!("{} in all, {} without progress", plan.limits.deadline, plan.limits.idle)));
    rows.push(("next", state.next(id)));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(k, v)| vec![format!("  {}", toned(Tone::Dim, k)), printable(&v)]).collect();
    for line in table(&rows) {
        context.screen.answer(&line);
    }
    Ok(answer)
}

/// The tones of a unified diff.
fn of_diff(line: &str) -> Option<Tone> {
    match line.as_bytes() {
        [b'd', b'i', b'f', b'f', ..] | [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => {
            Some(Tone::Strong)
        }
        [b'@', b'@', ..] => Some(Tone::Dim),
        [b'+', ..] => Some(Tone::Added),
        [b'-', ..] => Some(Tone::Removed),
        _ => None,
    }
}

fn file(
    context: &Context,
    project: &Project,
    id: &DispatchId,
    (name, what): (&str, &str),
    json: bool,
) -> Result<Answer, Fault> {
    if let Some(bytes) = view::file(project, id, name)? {
        if json {
            let text = String::from_utf8_lossy(&bytes);
            context.screen.json(&serde_json::json!({ "schema": "vnx.text/1", "id": id, "what": what, "text": text }));
            return Ok(Answer::Good);
        }
        let tone: fn(&str) -> Option<Tone> = if name == DIFF { of_diff } else { |_| None };
        context.screen.read(&bytes, tone);
        return Ok(Answer::Good);
    }
    let rescue = format!("refs/vnx/rescue/{id}");
    let kept = Git::repository(&project.located.common_dir).ref_commit(&rescue)?;
    let next = match kept.filter(|_| name == DIFF) {
        None if !view::is_closed(project, id) => format!("it has not ended; `vnx logs {id} -f` follows it"),
        Some(_) => format!("it committed nothing; `git show {rescue}` is what it left"),
        None => "see `vnx show` for what there is".to_owned(),
    };
    Err(Fault::environment(format!("dispatch {id} has no {what}")).fix(next))
}

/// What a person wants to know after the verdict.
pub(super) fn details(project: &Project, id: &DispatchId, closed: &DispatchClosed) -> Vec<String> {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let model = closed.model.as_ref().map(|m| format!(" ({})", printable(m))).unwrap_or_default();
    rows.push((
        "worker",
        format!(
            "{}{model}, {}, {}",
            closed.provider,
            printable(&closed.end.to_string()),
            human_millis(closed.took_ms.run)
        ),
    ));
    if let Some(diff) = closed.diff.as_ref().filter(|d| d.files > 0) {
        let commits = closed.commits.unwrap_or(0);
        rows.push((
            "change",
            format!(
                "{}, {}, +{} -{}",
                counted(commits, "commit"),
                counted(diff.files, "file"),
                diff.added,
                diff.removed
            ),
        ));
    }
    let usage = &closed.usage;
    if usage.input_tokens.is_some() || usage.output_tokens.is_some() {
        let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let cost = usage.cost_micro_usd.map_or_else(|| "cost unknown".to_owned(), dollars);
        // A subscription is not paid by the token.
        let cost = match usage.paid_by {
            Some(PaidBy::Login) => format!("paid by its login ({cost} by key)"),
            Some(PaidBy::Key) | None => cost,
        };
        rows.push((
            "usage",
            format!(
                "{} in, {} out, {} from cache, {cost}",
                count(usage.input_tokens),
                count(usage.output_tokens),
                count(usage.cache_read_tokens)
            ),
        ));
    }
    let t = &closed.teardown;
    let receipts = view::receipts(project, id).unwrap_or_default();
    let repository = Git::repository(&project.located.common_dir);
    let is_gone = |name: &str| repository.ref_commit(name).is_ok_and(|commit| commit.is_none());
    let Left { branch, branch_gone, dropped, elsewhere, has_landed } = Left::of(id, closed, &receipts, is_gone);
    // A kept tree may have been reclaimed since.
    let place = view::plan(project, id).map(|p| p.worktree).unwrap_or_default();
    let common_dir = &project.located.common_dir;
    let is_ours = || {
        let on_record = matches!(Git::worktree_git_dir(common_dir, Path::new(&place)), Ok(Some(_)));
        (t.tree == TreeEnd::Kept || on_record) && !Git::is_of_another(Path::new(&place), common_dir)
    };
    let stands = Path::new(&place).exists() && is_ours();
    rows.push(("kept", if stands { format!("{branch} and the worktree {}", printable(&place)) } else { branch }));
    let left_out = receipts
        .iter()
        .find_map(|r| if let Body::WorktreeRescued(w) = &r.body { Some(w.left_out.len()) } else { None });
    if let Some(n) = left_out.filter(|n| *n > 0) {
        rows.push((
            "not in it",
            format!("{n} ignored paths are over worktree.rescue_ignored_max and in the kept tree only"),
        ));
    }
    let rescue = t.rescue.as_ref().map(|rescue| (rescue, is_gone(rescue)));
    if let Some((rescue, gone)) = rescue {
        let how = if gone { "dropped since".to_owned() } else { format!("git show {rescue}") };
        rows.push(("rescue", format!("{rescue} ({how})")));
    }
    let reclaimed = t.tree == TreeEnd::Kept && !stands && closed.verdict.decision != Decision::Accept && !has_landed;
    let name = Path::new(&place).file_name().unwrap_or_default();
    let is_recorded = !matches!(Git::worktree_recorded(&project.located.common_dir, name), Ok(None));
    rows.push((
        "next",
        match rescue {
            _ if reclaimed && is_recorded => {
                format!("{} is gone: `vnx worktree gc {id}` says how it comes back", printable(&place))
            }
            Some((_, false)) if reclaimed => format!("its worktree was reclaimed; `vnx undo {id}` brings it back"),
            _ if reclaimed && branch_gone => "its worktree, its branch and its rescue were taken away since".to_owned(),
            _ if dropped => format!("`vnx undo {id}` brings its branch back"),
            _ if t.branch_kept && branch_gone && !has_landed && closed.head.is_some() => {
                let head = closed.head.as_deref().map_or("", |head| head.get(..12).unwrap_or(head));
                format!("`git branch {} {head}` gives it its branch again", closed.branch)
            }
            _ if elsewhere.is_some() && branch_gone => {
                let name = quoted(elsewhere.as_deref().unwrap_or_default());
                let target = short_ref(&closed.base.name);
                format!(
                    "`git log {target}..{name}` shows them, `git merge {name}` lands them; vnx judges its own branch"
                )
            }
            _ if branch_gone && !has_landed && closed.commits.is_some_and(|n| n > 0) => {
                format!("`vnx undo {id}` brings its branch back, then `vnx merge {id} --gates` lands it")
            }
            _ => next(project, &receipts, id, closed),
        },
    ));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(k, v)| vec![format!("  {}", toned(Tone::Dim, k)), v]).collect();
    table(&rows)
}

/// What is left of the branch of a dispatch.
struct Left {
    /// The row `kept` of `vnx show`, where no worktree stands.
    branch: String,
    /// The dispatch branch is not there.
    branch_gone: bool,
    /// It was given up, and a ref keeps its commits.
    dropped: bool,
    /// The branch that its HEAD was on instead, which is there.
    elsewhere: Option<String>,
    has_landed: bool,
}

impl Left {
    fn of(id: &DispatchId, closed: &DispatchClosed, receipts: &[Receipt], is_gone: impl Fn(&str) -> bool) -> Self {
        let has_landed = receipts.iter().any(|r| matches!(r.body, Body::MergeLanded(_)));
        // A merge puts the branch away, if it has not gone on; a person may have taken away anything since.
        let branch_gone = is_gone(&format!("refs/heads/{}", closed.branch));
        let landed = id.landed_ref();
        // A worker may have renamed its branch, or made another.
        let collected =
            receipts.iter().find_map(|r| if let Body::DispatchCollected(c) = &r.body { Some(c) } else { None });
        let elsewhere =
            collected.and_then(|c| c.on.as_deref()).filter(|on| *on != format!("refs/heads/{}", closed.branch));
        let elsewhere = elsewhere.filter(|on| !is_gone(on) && !has_landed).map(|on| short_ref(on).to_owned());
        let dropped = branch_gone && !is_gone(&id.dropped_ref());
        let branch = match (closed.teardown.branch_kept, branch_gone) {
            (_, true) if dropped => format!("its commits, as {}: it was given up", id.dropped_ref()),
            (true, true) if has_landed && !is_gone(&landed) => format!("its commits, as {landed}"),
            (true, true) => format!("nothing: the branch {} is gone since", closed.branch),
            // Kept, or brought back by `vnx undo`.
            (_, false) => format!("branch {}", closed.branch),
            (false, true) => match &elsewhere {
                Some(name) => format!("its commits, on {}", printable(name)),
                None => "no branch is left".to_owned(),
            },
        };
        Self { branch, branch_gone, dropped, elsewhere, has_landed }
    }
}

/// What a person does next: what became of its branch decides, then its outcome.
fn next(project: &Project, receipts: &[Receipt], id: &DispatchId, closed: &DispatchClosed) -> String {
    let landed = receipts.iter().rev().find_map(|r| if let Body::MergeLanded(m) = &r.body { Some(m) } else { None });
    let Some(landed) = landed else {
        let name = view::short_name(project, id);
        let has_target = closed.base.name.starts_with("refs/heads/") || project.config.merge.target.is_some();
        let hint = match closed.verdict.outcome {
            Outcome::NotLoggedIn | Outcome::AuthRejected => {
                provider::load(project, &closed.provider).map_or(String::new(), |manifest| manifest.how_to_pay())
            }
            other => other.hint().to_owned(),
        };
        let hint = if has_target { hint } else { hint.replace("merge ID", "merge ID --into BRANCH") };
        return hint.replace("ID", &name);
    };
    let started = receipts.iter().find_map(|r| match &r.body {
        Body::MergeStarted(m) if m.nonce == landed.nonce => Some(m),
        _ => None,
    });
    let (commit, target) = (short(&landed.commit), started.map_or("its target", |m| short_ref(&m.target)));
    match (&landed.behind, started.map(|m| m.strategy)) {
        (Some(behind), _) => printable(behind),
        (None, Some(Strategy::Revert)) => format!("it was taken back from {target}, by {commit}; dispatch it again"),
        (None, _) => format!("it is on {target}, as {commit}; `vnx revert {id} --reason WHY` takes it back"),
    }
}

fn facts(context: &Context, project: &Project, id: &DispatchId) -> Result<(), Fault> {
    let receipts = view::receipts(project, id)?;
    let Some(collected) =
        receipts.iter().find_map(|r| if let Body::DispatchCollected(c) = &r.body { Some(c) } else { None })
    else {
        return Ok(());
    };
    context.screen.answer(&toned(Tone::Dim, "facts of the worktree"));
    let named = collected.facts.named();
    if context.screen.is_verbose() {
        let rows: Vec<Vec<String>> =
            named.iter().map(|(name, fact)| vec![format!("  {name}"), fact.word().to_owned()]).collect();
        context.screen.table(&rows, Fit::Wrap);
    } else {
        for wanted in [Tri::Yes, Tri::Unknown] {
            let such: Vec<&str> = named.iter().filter(|(_, fact)| *fact == wanted).map(|(name, _)| *name).collect();
            if !such.is_empty() {
                context.screen.answer(&format!("  {}: {}", wanted.word(), such.join(", ")));
            }
        }
    }
    for why in &collected.unknown_because {
        context.screen.answer(&format!("  unknown because {}", printable(why)));
    }
    Ok(())
}
