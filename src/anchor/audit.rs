//! The whole verification: the chain by itself, then against its anchors and the witness.

use std::path::Path;

use serde::Serialize;

use super::evidence::Evidence;
use super::signature::Signers;
use super::witness::{self, Files};
use super::{AGAIN, ANCHORS, Anchor, AnchorError, parse, read, repository};
use crate::domain::DispatchId;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::receipt::AnchorWritten;
use crate::git::Git;
use crate::ledger::verify::{self, Flaw, Report, Since, Status};
use crate::project::Project;

/// What to hold the ledger against.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// The full name of the ref with the anchors, if it is not this clone's own.
    pub reference: Option<&'a str>,
    /// Who is trusted to sign, if not whom the project names.
    pub signers: Option<&'a Path>,
    /// Do not parse payloads.
    pub quick: bool,
    /// Nothing may lie after the last anchor, and there must be one.
    pub require: bool,
    /// Go on from the last anchor, which must be signed by somebody who is trusted.
    pub since: bool,
    /// Do not unpack files that are, byte for byte, those that the witness has seen verified.
    pub packed: bool,
    /// An anchor that nobody trusted has signed is as good: for whoever is about to sign one.
    pub unsigned: bool,
    /// The last anchor may be gone from git, where the witness remembers what it said: for whoever writes another one.
    pub lost: bool,
    /// Hears how many bytes are done.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

/// What the ledger was held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchored {
    /// The ref.
    pub reference: String,
    /// How many anchors.
    pub count: u64,
    /// How many receipts the last one covers.
    pub size: u64,
    /// Its commit.
    pub commit: Option<String>,
    /// Who signed it, of those who are trusted to.
    pub signer: Option<String>,
    /// How many receipts the witness has seen.
    pub witness: Option<u64>,
    /// Receipts that no anchor covers, without the one that tells of the last anchor.
    pub unanchored: u64,
    /// Receipts that were not read again, because a signed anchor covers them, or the witness knows their files.
    pub skipped: u64,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The chain, and what came of everything together.
    #[serde(flatten)]
    pub report: Report,
    /// The anchors.
    pub anchors: Anchored,
    /// Dispatches that there were, and whose receipts are not here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<DispatchId>,
    /// What a person may accept, where nothing else is wrong.
    #[serde(skip)]
    pub(super) loss: Option<Loss>,
}

/// That receipts are not those which were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    /// How many there were known to be.
    pub(super) known: Option<u64>,
    /// The last anchor that is still true.
    pub(super) holds: Option<Anchor>,
}

impl Audit {
    /// Whether nothing is wrong but that receipts are not those that vnx wrote, which a person may accept ([`super::accept`]).
    pub fn is_acceptable(&self) -> bool {
        self.loss.is_some()
    }
}

/// What is known of a ledger from elsewhere; what could not be learnt says why.
struct Known {
    list: Result<Option<Vec<Anchor>>, AnchorError>,
    signers: Result<Option<Signers>, String>,
    /// Who signed the last anchor.
    signer: Result<Option<String>, String>,
    witness: Result<Vec<Checkpoint>, String>,
}

impl Known {
    fn of(project: &Project, options: &Options<'_>) -> Self {
        let list = read(&repository(project), options.reference.unwrap_or(ANCHORS));
        let signers = Signers::of(project, options.signers);
        let newest = list.as_ref().ok().and_then(|l| l.as_ref()?.first());
        let signer = match (newest, &signers) {
            (Some(anchor), Ok(Some(signers))) => signers.of_commit(&anchor.commit),
            _ => Ok(None),
        };
        let origin = project.ledger().created().ok().map(|c| Checkpoint::origin_of(&c.ledger));
        let witness = witness::read(&project.located.common_dir, origin.as_deref());
        Self { list, signers, signer, witness }
    }

    fn anchors(&self) -> &[Anchor] {
        self.list.as_ref().ok().and_then(Option::as_deref).unwrap_or_default()
    }

    fn checkpoints(&self) -> Vec<&Checkpoint> {
        let anchors = self.anchors().iter().map(|a| &a.checkpoint);
        anchors.chain(self.witness.iter().flatten()).collect()
    }

    /// Why nothing can be decided, whatever the ledger says.
    fn undecided(&self) -> Option<String> {
        match (&self.list, &self.signers, &self.signer, &self.witness) {
            (Err(AnchorError::Git(e)), ..) => Some(e.to_string()),
            (_, Err(why), ..) | (_, _, Err(why), _) | (.., Err(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// Why the last anchor is not one that is trusted, where only a signed one is.
    fn untrusted(&self, told_signed: bool) -> Option<String> {
        let newest = self.anchors().first();
        match (&self.signers, &self.signer) {
            (Ok(Some(_)), Ok(Some(_))) => None,
            (Ok(Some(signers)), _) => Some(match newest {
                Some(_) => format!("the last anchor is not signed by anybody in {}", signers.path().display()),
                None => format!("{} names who signs anchors, and there is none", signers.path().display()),
            }),
            // Somebody took the list away.
            _ if told_signed || newest.is_some_and(|a| a.commit.signature.is_some()) => {
                Some("anchors are signed, and .vnx/allowed_signers names nobody who may".to_owned())
            }
            _ => None,
        }
    }
}

/// Verifies the ledger of a project against everything that is known of it.
pub fn audit(project: &Project, options: &Options<'_>) -> Audit {
    let audit = once(project, options);
    // The anchors are read first: one that is written meanwhile is told of in the ledger and not known yet.
    let unknown = |bad: &verify::Fault| bad.kind == Flaw::BadAnchor;
    if audit.report.first_bad.as_ref().is_some_and(unknown) { once(project, options) } else { audit }
}

fn once(project: &Project, options: &Options<'_>) -> Audit {
    let known = Known::of(project, options);
    let newest = known.anchors().first();
    let (since, told) = match (options.since, newest) {
        (true, Some(anchor)) if matches!(known.signer, Ok(Some(_))) => (start(anchor), None),
        (false, Some(anchor)) if options.packed => after_packed(project, &anchor.checkpoint.origin).unzip(),
        _ => (None, None),
    };
    let mut checkpoints = known.checkpoints();
    checkpoints.extend(&told);
    let sizes = sizes_of(&checkpoints);
    // What is not read again is known by what lets it be skipped.
    let evidence = Evidence::of(project, since.is_some());
    let heads = evidence.sizes();
    let mut report = verify::verify(
        project.ledger().folder(),
        &verify::Options {
            project: Some(project.id()),
            quick: options.quick,
            roots: Some(&sizes),
            heads: &heads,
            expected: evidence.expected(),
            since: since.as_ref(),
            progress: options.progress,
        },
    );
    let size = newest.map_or(0, |a| a.checkpoint.size);
    let tells = |(seq, told): &(u64, _)| *seq + 1 == report.receipts && newest.is_some_and(|a| is_of(told, a));
    let covered = u64::from(report.last_anchor.as_ref().is_some_and(tells));
    let anchors = Anchored {
        reference: options.reference.unwrap_or(ANCHORS).to_owned(),
        count: known.anchors().len() as u64,
        size,
        commit: newest.map(|a| a.commit.id.clone()),
        signer: known.signer.as_ref().ok().cloned().flatten(),
        witness: known.witness.iter().flatten().map(|c| c.size).max(),
        unanchored: report.receipts.saturating_sub(size).saturating_sub(covered),
        skipped: since.as_ref().map_or(0, |s| s.tree.end()),
    };
    let (mut gone, mut loss) = (Vec::new(), None);
    // A chain that is broken in itself needs no further reason; then what is wrong, then what is
    // not known.
    if !matches!(report.status, Status::Broken | Status::Unreadable) {
        compare(&mut report, &checkpoints, anchors.skipped, &witness::place_of(&project.located.common_dir));
        let most = checkpoints.iter().map(|c| c.size).chain(evidence.most()).max();
        gone = evidence.compare(&mut report, project);
        // What somebody else added is taken out again; accepted, it would decide (an approval, for one).
        let is_added = report.first_bad.as_ref().is_some_and(|fault| fault.kind == Flaw::Inserted);
        if report.status == Status::AnchorMismatch && !is_added && options.reference.is_none() {
            let is_true = |anchor: &&Anchor| report.roots.get(&anchor.checkpoint.size) == Some(&anchor.checkpoint.root);
            loss = Some(Loss { known: most, holds: known.anchors().iter().find(is_true).cloned() });
        }
        if let (true, Err(AnchorError::Bad(why))) = (report.status != Status::AnchorMismatch, &known.list) {
            report.fail(Status::AnchorMismatch, Flaw::BadAnchor, why.as_str());
        }
        if report.status != Status::AnchorMismatch {
            missing(&mut report, &known, options, &repository(project));
        }
        if report.status == Status::Verified {
            doubts(&mut report, &known, &anchors, options);
        }
    }
    Audit { report, anchors, missing: gone, loss }
}

/// Why the ledger of a project is not believed, if it is not: the rule of whoever is about to act on it. One that has
/// never been anchored is believed as far as its chain goes, also where anchors are to be signed.
pub fn disbelieved(project: &Project, quick: bool) -> Option<String> {
    why_not(&believed(project, quick))
}

/// Why an audit is no reason to believe a ledger, if it is none.
pub fn why_not(audit: &Audit) -> Option<String> {
    if audit.report.status == Status::Verified {
        return None;
    }
    let why = audit.report.first_bad.as_ref().map_or_else(String::new, |bad| format!(": {}", bad.reason));
    Some(format!("the ledger does not verify{why}"))
}

/// The audit by that rule.
pub fn believed(project: &Project, quick: bool) -> Audit {
    let options = Options { quick, ..Options::default() };
    let mut audit = audit(project, &Options { packed: quick, ..options });
    // Less was read, so less is known: whatever is not plainly good is looked at whole.
    if audit.anchors.skipped > 0 && (audit.report.status != Status::Verified || audit.report.last_anchor.is_none()) {
        audit = self::audit(project, &options);
    }
    if audit.report.status == Status::Undecided && audit.anchors.count == 0 && audit.report.last_anchor.is_none() {
        audit = self::audit(project, &Options { unsigned: true, ..options });
    }
    audit
}

/// What is sound and still decides nothing.
fn doubts(report: &mut Report, known: &Known, anchors: &Anchored, options: &Options<'_>) {
    let told_signed = report.last_anchor.as_ref().is_some_and(|(_, told)| told.signed);
    let untrusted = known.untrusted(told_signed).filter(|_| !options.unsigned);
    let why = match (anchors.count, anchors.unanchored) {
        _ if known.undecided().is_some() => known.undecided().unwrap_or_default(),
        _ if untrusted.is_some() => untrusted.unwrap_or_default(),
        (0, _) if options.require || options.since || options.reference.is_some() => {
            format!("there is no anchor at {}", anchors.reference)
        }
        _ if options.since && anchors.skipped == 0 => {
            "no signed anchor says how to go on from it: .vnx/allowed_signers names nobody".to_owned()
        }
        (_, n) if options.require && n > 0 => {
            format!("{n} receipts lie after the last anchor, which covers {}", anchors.size)
        }
        _ => return,
    };
    report.fail(Status::Undecided, Flaw::Unanchored, why);
}

/// Verifies a file by itself and against checkpoints that were kept elsewhere.
pub fn audit_file(file: &Path, checkpoints: &[Checkpoint], options: &Options<'_>) -> Report {
    let known: Vec<&Checkpoint> = checkpoints.iter().collect();
    let sizes = sizes_of(&known);
    let roots = Some(&sizes[..]).filter(|s| !s.is_empty());
    let (quick, progress, require) = (options.quick, options.progress, options.require);
    let options = verify::Options { quick, roots, progress, ..verify::Options::default() };
    let mut report = verify::verify(file, &options);
    if !matches!(report.status, Status::Broken | Status::Unreadable) {
        compare(&mut report, &known, 0, "no part of this");
    }
    if require && report.status == Status::Verified {
        let size = sizes.last().copied().unwrap_or(0);
        let known = |a: &AnchorWritten| checkpoints.iter().any(|c| (c.size, c.root) == (a.size, a.root));
        let told = report.last_anchor.as_ref().is_some_and(|(seq, a)| seq + 1 == report.receipts && known(a));
        let after = report.receipts - size - u64::from(told);
        if size == 0 || after > 0 {
            let why = format!("{after} receipts lie after what the checkpoints cover, which is {size}");
            report.fail(Status::Undecided, Flaw::Unanchored, why);
        }
    }
    report
}

fn sizes_of(known: &[&Checkpoint]) -> Vec<u64> {
    let mut sizes: Vec<u64> = known.iter().map(|c| c.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Where to begin, if the files of the compressed segments are those that the witness has seen verified, for this ledger
/// and held against all that it knew before; and the checkpoint that this was told with, which must still be true.
fn after_packed(project: &Project, origin: &str) -> Option<(Since, Checkpoint)> {
    let ledger = project.ledger();
    let created = ledger.created().ok().filter(|c| c.project == *project.id())?;
    let known = witness::files_of(&project.located.common_dir, origin);
    let Files { size, root, digests } = known.filter(|_| Checkpoint::origin_of(&created.ledger) == origin)?;
    let since = ledger.after_packed(size, &digests, origin.trim_start_matches("vnx/"))?;
    Some((since, Checkpoint { origin: origin.to_owned(), size, root }))
}

/// Where to go on from.
fn start(anchor: &Anchor) -> Option<Since> {
    let (resume, checkpoint) = (&anchor.resume, &anchor.checkpoint);
    let ledger = checkpoint.origin.trim_start_matches("vnx/").to_owned();
    let tree = resume.tree(checkpoint)?;
    Some(Since { tree, head: resume.head, segment: resume.segment, offset: resume.offset, ledger })
}

/// Every checkpoint must have been true of this ledger. Those up to `from` are proven already.
fn compare(report: &mut Report, known: &[&Checkpoint], from: u64, place: &str) {
    let mut known = known.to_vec();
    known.sort_by_key(|c| c.size);
    let own = report.ledger.as_ref().map(|id| Checkpoint::origin_of(id));
    for checkpoint in known.into_iter().filter(|c| c.size > from || from == 0) {
        let Checkpoint { origin, size, root } = checkpoint;
        if own.as_ref().is_some_and(|own| own != origin) {
            let why = format!(
                "another ledger was anchored here, and this one took its place ({AGAIN}; the anchors are in {ANCHORS}, the witness is {place})"
            );
            report.fail(Status::AnchorMismatch, Flaw::Rewritten, why).differs(origin, &own.unwrap_or_default());
            return;
        }
        match report.roots.get(size).copied() {
            Some(found) if found == *root => {}
            Some(found) => {
                let why = format!("the first {size} receipts are not those that were anchored");
                report.fail(Status::AnchorMismatch, Flaw::Rewritten, why).differs(root, &found);
                return;
            }
            None => {
                let there = report.receipts;
                let why = format!("{size} receipts were anchored, and {there} are here");
                report.fail(Status::AnchorMismatch, Flaw::Truncated, why).differs(size, &there);
                return;
            }
        }
    }
}

/// The anchor that the ledger tells of last must stand in this clone's own ref, as it was told.
fn missing(report: &mut Report, known: &Known, options: &Options<'_>, repository: &Git) {
    let Some((_, told)) = report.last_anchor.clone() else { return };
    let found = known.anchors().iter().find(|a| a.commit.id == told.commit);
    let witnessed = known.witness.iter().flatten().any(|c| (c.size, c.root) == (told.size, told.root));
    let why = match found {
        Some(anchor) if is_of(&told, anchor) => return,
        Some(_) => format!("the receipt of the anchor of {} receipts says something else than the anchor", told.size),
        None if options.reference.is_some() || known.list.is_err() => return,
        None if options.lost && witnessed => return,
        None => format!(
            "the ledger tells of an anchor of {} receipts, which {ANCHORS} does not have; {}",
            told.size,
            way_back(&told, witnessed, repository)
        ),
    };
    let there = found.map_or_else(|| "nothing".to_owned(), |a| a.checkpoint.root.to_string());
    let expected = found.map_or(told.commit.clone(), |_| told.root.to_string());
    report.fail(Status::AnchorMismatch, Flaw::BadAnchor, why).differs(&expected, &there);
}

/// How an anchor comes back that the ref does not have: git keeps a commit for a while that no ref names.
fn way_back(told: &AnchorWritten, witnessed: bool, repository: &Git) -> String {
    let commits = repository.raw_commits(std::slice::from_ref(&told.commit)).unwrap_or_default();
    // With those before it: a chain with a gap cannot be read.
    let is_whole = || repository.first_parents(&told.commit).is_ok();
    if commits.into_iter().filter_map(parse).any(|anchor| is_of(told, &anchor)) && is_whole() {
        return format!("its commit is still here: git update-ref {ANCHORS} {}", told.commit);
    }
    let pushed = "fetch it from where it was pushed";
    if !witnessed {
        return pushed.to_owned();
    }
    format!("{pushed}, or, if it never was, as the witness knows what it said: vnx audit-chain seal --lost")
}

/// Whether this receipt tells of this anchor.
fn is_of(told: &AnchorWritten, anchor: &Anchor) -> bool {
    let Anchor { commit, checkpoint, .. } = anchor;
    (&told.commit, told.size, told.root, told.signed)
        == (&commit.id, checkpoint.size, checkpoint.root, commit.signature.is_some())
}
