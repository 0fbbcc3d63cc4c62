//! What else there is of dispatches beside their receipts: their folders, their branches, their rescues. Each names a
//! dispatch that the ledger must tell of, so receipts that are gone are missed. The reverse shows nothing: a person may
//! take away folders and branches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::receipt::Kind;
use crate::domain::{Digest, DispatchId};
use crate::git::{Commit, FOR_DISPATCH, Git};
use crate::ledger::verify::{Flaw, Report, Status};
use crate::ledger::{Differs, Marks};
use crate::project::{Paths, Project};
use crate::sys::files::{self, PathError};

/// The first thing that a supervisor writes once `dispatch.prepared` is on the disk.
const BEGUN: &str = "events.ndjson";

/// Where git says who made a branch (gitrepository-layout(5)). These logs stay where they were written: a branch that came
/// with a fetch is not one that this ledger must know.
const BRANCH_LOGS: &str = "logs/refs/heads/vnx";
/// Where rescues are, as long as git has not packed them.
const RESCUES: &str = "refs/vnx/rescue";

/// In the folder of a dispatch that is closed: which receipt closed it.
const CLOSING: &str = "closing.json";

/// What [`CLOSING`] says. The hash of a receipt stands for all receipts before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closing {
    seq: u64,
    hash: Digest,
}

/// Leaves in the folder of a dispatch which receipt closed it.
pub fn note_closing(folder: &Path, seq: u64, hash: Digest) -> Result<(), PathError> {
    let json = serde_json::to_string(&Closing { seq, hash }).unwrap_or_default();
    files::replace(&folder.join(CLOSING), json.as_bytes())
}

/// What the folder of a dispatch says of that.
fn closing(paths: &Paths, id: &DispatchId) -> Option<Closing> {
    serde_json::from_slice(&files::read_capped(&paths.dispatch(id).join(CLOSING), 4096).ok()??).ok()
}

/// The receipt that the ledger must have of a dispatch, by what its folder says.
pub fn required(paths: &Paths, id: &DispatchId) -> Option<Kind> {
    let has = |name: &str| paths.dispatch(id).join(name).exists();
    if !has("plan.json") && !has("closed.json") {
        return None;
    }
    // The marker goes when the closing receipt is on the disk.
    if !paths.open_marker(id).exists() {
        return Some(Kind::DispatchClosed);
    }
    has(BEGUN).then_some(Kind::DispatchPrepared)
}

/// What is known of a ledger that nobody needs to have sealed, asked before it is read.
pub(super) struct Evidence {
    marks: Marks,
    /// The receipts that dispatches must have, ascending by dispatch.
    expected: Vec<(DispatchId, Kind)>,
}

impl Evidence {
    /// Where a part of the ledger is not read again, only the marks: the rest may be about that part.
    pub(super) fn of(project: &Project, in_part: bool) -> Self {
        let marks = project.ledger().marks();
        let expected = if in_part { Vec::new() } else { expected(project) };
        Self { marks, expected }
    }

    /// The sizes at which the hash of the last receipt must be known.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.marks.sizes()
    }

    /// The receipts that must be there.
    pub(super) fn expected(&self) -> &[(DispatchId, Kind)] {
        &self.expected
    }

    /// How many receipts there are known to be.
    pub(super) fn most(&self) -> Option<u64> {
        self.marks.size()
    }

    /// Holds a ledger against all of it, unless anchors have shown already that it is not what it was. Returns the
    /// dispatches whose receipts are not here.
    pub(super) fn compare(self, report: &mut Report, project: &Project) -> Vec<DispatchId> {
        let Report { seen, lost, heads, last_loss, closing, .. } = &*report;
        let differs =
            project.ledger().differs(&self.marks, report.receipts, report.head, |size| heads.get(&size).copied());
        // The last one that is here stands for all before it. What a person has accepted since is not what it was.
        let last = closing.filter(|(_, seq, _)| last_loss.is_none_or(|accepted| accepted < *seq));
        let other = last.filter(|(at, seq, hash)| {
            let (id, _) = &self.expected[*at];
            self::closing(&project.paths, id).is_some_and(|noted| noted != Closing { seq: *seq, hash: *hash })
        });
        let differs = differs.or(other.map(|(_, seq, _)| Differs::Rewritten { size: seq + 1 }));
        let missing = missing(project, self.expected, |at, id| seen.contains(&at) || lost.contains(id));
        if report.status == Status::AnchorMismatch {
            return missing;
        }
        let more = |all: &[_]| if all.len() == 1 { String::new() } else { format!(", and of {} more", all.len() - 1) };
        let gone = missing.first().map(|first| format!("receipts of dispatch {first} are missing{}", more(&missing)));
        let (flaw, why) = match (differs, gone) {
            (None, None) => return missing,
            (None, Some(gone)) => {
                (Flaw::Missing, format!("{gone}, though its folder, its branch or its rescue is there"))
            }
            (Some(differs), gone) => {
                let flaw = match differs {
                    Differs::Truncated { .. } => Flaw::Truncated,
                    Differs::Rewritten { .. } => Flaw::Rewritten,
                    Differs::Inserted { .. } => Flaw::Inserted,
                };
                (flaw, gone.map_or_else(|| differs.to_string(), |gone| format!("{differs}; {gone}")))
            }
        };
        report.fail(Status::AnchorMismatch, flaw, why);
        missing
    }
}

/// What the ledger must have.
fn expected(project: &Project) -> Vec<(DispatchId, Kind)> {
    let paths = &project.paths;
    let mut found: BTreeMap<DispatchId, Kind> = ids(&paths.dispatches()).map(|id| (id, Kind::DispatchClosed)).collect();
    let names: Vec<_> = branches(project, &found).chain(rescues(project, &found)).collect();
    for id in names {
        found.entry(id).or_insert(Kind::DispatchClosed);
    }
    // Listed after the folders: one that is claimed meanwhile has its marker first.
    for id in ids(&paths.open()) {
        match required(paths, &id) {
            Some(kind) => found.insert(id, kind),
            None => found.remove(&id),
        };
    }
    found.into_iter().collect()
}

/// Those whose receipts were not found, as long as what named them is still there.
fn missing(
    project: &Project,
    expected: Vec<(DispatchId, Kind)>,
    is_known: impl Fn(usize, &DispatchId) -> bool,
) -> Vec<DispatchId> {
    let unseen: Vec<_> =
        expected.into_iter().enumerate().filter(|(at, (id, _))| !is_known(*at, id)).map(|(_, named)| named).collect();
    if unseen.is_empty() {
        return Vec::new();
    }
    // A claim that failed meanwhile has left nothing.
    let none = BTreeMap::new();
    let refs: BTreeSet<_> = branches(project, &none).chain(rescues(project, &none)).collect();
    let stands = |(id, kind): &(DispatchId, Kind)| {
        let has_folder = project.paths.dispatch(id).exists();
        if has_folder { required(&project.paths, id) == Some(*kind) } else { refs.contains(id) }
    };
    unseen.into_iter().filter(stands).map(|(id, _)| id).collect()
}

fn ids(folder: &Path) -> impl Iterator<Item = DispatchId> + use<> {
    files::names(folder).unwrap_or_default().into_iter().filter_map(|name| DispatchId::parse(&name).ok())
}

/// Whether a line of a reflog has this message.
fn says(line: &[u8], message: &str) -> bool {
    line.strip_suffix(message.as_bytes()).is_some_and(|rest| rest.ends_with(b"\t"))
}

/// Other dispatches whose branch was made here.
fn branches(project: &Project, known: &BTreeMap<DispatchId, Kind>) -> impl Iterator<Item = DispatchId> {
    let logs = project.located.common_dir.join(BRANCH_LOGS);
    ids(&logs).filter(|id| !known.contains_key(id)).filter(move |id| {
        let log = files::read_capped(&logs.join(id.as_str()), 1 << 20).ok().flatten().unwrap_or_default();
        let begins = log.split(|b| *b == b'\n').next().is_some_and(|first| says(first, FOR_DISPATCH));
        // A person gave another dispatch's branch this name.
        begins && memchr::memmem::find(&log, b"\tBranch: ").is_none()
    })
}

/// Other dispatches that have a rescue here. One that is older than the ledger came with a mirror.
fn rescues(project: &Project, known: &BTreeMap<DispatchId, Kind>) -> Vec<DispatchId> {
    let common_dir = &project.located.common_dir;
    let packed = files::read(&common_dir.join("packed-refs")).unwrap_or_default();
    let is_packed = memchr::memmem::find(&packed, RESCUES.as_bytes()).is_some();
    // Usually all of them have folders, and git is not asked.
    if !is_packed && ids(&common_dir.join(RESCUES)).all(|id| known.contains_key(&id)) {
        return Vec::new();
    }
    let repository = Git::repository(common_dir);
    let begun = project.ledger().all().ok().and_then(|mut all| all.next_receipt().ok()?).map(|first| first.ts);
    let begun = begun.map_or(i64::MIN, |ts| ts.micros() / 1_000_000);
    let listed = repository.refs_with_times(RESCUES).unwrap_or_default().into_iter();
    let named = listed.filter(|(.., at)| *at >= begun).filter_map(|(name, commit, _)| {
        let id = DispatchId::parse(name.strip_prefix(RESCUES)?.strip_prefix('/')?).ok()?;
        (!known.contains_key(&id)).then_some((id, commit))
    });
    let (ids, commits): (Vec<_>, Vec<_>) = named.unzip();
    let commits = repository.raw_commits(&commits).unwrap_or_default();
    let is_its = |(id, commit): &(DispatchId, Commit)| {
        commit.message.lines().next() == Some(&format!("vnx rescue of dispatch {id}"))
    };
    ids.into_iter().zip(commits).filter(is_its).map(|(id, _)| id).collect()
}
