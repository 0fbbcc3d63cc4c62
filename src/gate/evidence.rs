//! What a gate leaves behind: `report.txt`, which is what was said, and `result.json`, which is what it
//! amounts to. Their digests stand in the receipt; neither counts for anything without the other two.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::probe::ProbeSaid;
use crate::domain::event::Usage;
use crate::domain::gate::check::Proof;
use crate::domain::gate::counts::Tests;
use crate::domain::gate::review::Finding;
use crate::domain::gate::{Binding, GateKind, GateStatus, is_nonce};
use crate::domain::receipt::{GateRequested, GateResulted};
use crate::domain::redact::Redactor;
use crate::domain::span::human_millis;
use crate::domain::verdict::{Containment, End};
use crate::domain::{Digest, DispatchId, Fault, Timestamp};
use crate::sys::files;

const REPORT: &str = "report.txt";
const RESULT: &str = "result.json";
/// The largest of either that is read, in bytes.
const MAX: u64 = 64 << 20;

/// What a gate's run amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// `vnx.gate/1`.
    pub schema: String,
    /// The dispatch.
    pub dispatch: DispatchId,
    /// What it is about.
    pub binding: Binding,
    /// What the gate is.
    pub kind: GateKind,
    /// What came of it.
    pub status: GateStatus,
    /// Why, in one line.
    pub reason: String,
    /// When it was over.
    pub at: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How its command ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The proof that nothing is left of its command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containment: Option<Containment>,
    /// What a test runner counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<Tests>,
    /// What a probe asked, and heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<ProbeSaid>,
    /// Who reviewed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reviewers: Vec<Reviewer>,
    /// What they found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// One reviewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewer {
    /// Its CLI.
    pub provider: String,
    /// Its model, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The dispatch that it was, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<DispatchId>,
    /// What it said.
    pub status: GateStatus,
    /// Why, in one line.
    pub reason: String,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
}

/// Where the run of a gate keeps what it leaves. `nonce` is checked, because it becomes part of a path.
pub fn folder(dispatch: &Path, nonce: &str) -> Option<PathBuf> {
    is_nonce(nonce).then(|| dispatch.join("gates").join(nonce))
}

/// Keeps what a run leaves; returns the digests of report and result.
pub fn keep(folder: &Path, redactor: &Redactor, report: &str, evidence: &Evidence) -> Result<(Digest, Digest), Fault> {
    let json = serde_json::to_string_pretty(evidence).map_err(|e| Fault::internal(format!("a result: {e}")))?;
    let (report, json) = (redactor.redact(report), redactor.redact(&json));
    files::replace(&folder.join(REPORT), report.as_bytes())?;
    files::replace(&folder.join(RESULT), json.as_bytes())?;
    Ok((Digest::of(report.as_bytes()), Digest::of(json.as_bytes())))
}

/// Whether of a run's reviewers one says yes and another no, whatever the others say.
pub fn is_split(dispatch: &Path, said: &GateResulted) -> bool {
    let Some(folder) = folder(dispatch, &said.nonce) else { return false };
    let bytes = files::read_capped(&folder.join(RESULT), MAX).ok().flatten().unwrap_or_default();
    let evidence = serde_json::from_slice::<Evidence>(&bytes).ok();
    let says = |status| evidence.iter().flat_map(|e| &e.reviewers).any(|reviewer| reviewer.status == status);
    says(GateStatus::Pass) && says(GateStatus::Fail)
}

/// Whether a run's files are those of its receipt, and say what it says.
pub fn proof(dispatch: &Path, id: &DispatchId, asked: &GateRequested, said: &GateResulted) -> Proof {
    let broken = |why: &str| Proof::Broken(why.to_owned());
    let Some(folder) = folder(dispatch, &said.nonce) else { return broken("its nonce is none") };
    if said.nonce != asked.binding.nonce || said.gate != asked.binding.gate {
        return broken("it answers another question");
    }
    let read = |name: &str, digest: Option<Digest>| {
        let digest = digest.ok_or_else(|| format!("its receipt names no {name}"))?;
        let bytes = files::read_capped(&folder.join(name), MAX).map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("{name} is missing"))?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(format!("{name} was edited")) }
    };
    let both = read(REPORT, said.report).and_then(|_| read(RESULT, said.result));
    let evidence = both.and_then(|json| {
        serde_json::from_slice::<Evidence>(&json).map_err(|e| format!("{RESULT} cannot be read: {e}"))
    });
    match evidence {
        Err(why) => Proof::Broken(why),
        Ok(e) if e.binding != asked.binding || e.dispatch != *id => broken("its result is about something else"),
        Ok(e) if e.status != said.status || e.kind != asked.kind => broken("result and receipt differ"),
        Ok(_) => Proof::Sound,
    }
}

/// What the end of a command amounts to: status and reason.
pub fn ended(end: &End, containment: &Containment, timeout_ms: u64, last: Option<&str>) -> (GateStatus, String) {
    let said = last.map(|line| format!(": {line}")).unwrap_or_default();
    let (status, how) = match end {
        End::Exited { code: 0 } if !containment.empty => {
            (GateStatus::Unverified, "it left processes that do not end".to_owned())
        }
        End::Exited { code: 0 } if containment.was_forced() => {
            let left = containment.survivors.first().map(|first| format!(", first {first}")).unwrap_or_default();
            (GateStatus::Fail, format!("it left processes behind, which were ended{left}"))
        }
        End::Exited { code: 0 } => (GateStatus::Pass, "exit 0".to_owned()),
        End::TimedOut => (GateStatus::Fail, format!("it did not end within {}", human_millis(timeout_ms))),
        End::Exited { .. } | End::Signaled { .. } => (GateStatus::Fail, end.to_string()),
        End::NeverStarted { reason, .. } => (GateStatus::Unverified, reason.clone()),
        End::Idle | End::Cancelled | End::Lost => (GateStatus::Unverified, end.to_string()),
    };
    (status, format!("{how}{said}"))
}
