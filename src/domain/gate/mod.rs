//! Gates: what must hold before a dispatch's branch lands on its target.
//!
//! The gates that count are those of the target's own `.vnx/config.yaml`, so a branch that edits
//! that file changes nothing of what it is held against.

pub mod check;
pub mod counts;
mod given;
mod probe;
pub mod review;
mod risk;
mod situation;
mod spec;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use probe::{Probe, ProbeCheck, Ready};
pub use risk::{strict_links, strict_paths};
pub use spec::{Asked, Ci, Gate, Human, Review, When, Work, fault};

use super::digest::Digest;
use super::id::Name;

/// What a gate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// A command that must exit with 0.
    Command,
    /// The built thing is started and asked.
    Probe,
    /// A model reads the change.
    Review,
    /// A person says yes.
    Human,
    /// A system elsewhere says that it has built this commit.
    Ci,
}

impl GateKind {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Probe => "probe",
            Self::Review => "review",
            Self::Human => "human",
            Self::Ci => "ci",
        }
    }
}

/// When a gate runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// On the branch as it is.
    #[default]
    PreMerge,
    /// On what the target would become, while it is being merged.
    PostMerge,
}

/// The reason in the receipt of a gate that somebody cancelled: nobody was asked to the end, so it may be asked again.
pub const CANCELLED: &str = "cancelled";

/// What came of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    /// It was asked exactly this, and said yes.
    Pass,
    /// It said no.
    Fail,
    /// It did not say either in a way that counts. Holds as a no does.
    Unverified,
}

impl GateStatus {
    /// The word used in files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unverified => "unverified",
        }
    }
}

/// What a result is about: it counts for this and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The gate.
    pub gate: Name,
    /// SHA-256 over request, plan, prompt and the gate's configuration.
    pub contract: Digest,
    /// SHA-256 of the gate's configuration alone.
    pub config: Digest,
    /// The full name of the branch that it shall land on.
    pub target: String,
    /// The commit that branch was at.
    pub base: String,
    /// The commit that was looked at.
    pub head: String,
    /// Its tree.
    pub tree: String,
    /// 128 random bits in hex: an answer to another question is none to this one.
    pub nonce: String,
}

impl Binding {
    /// Whether two requests ask the same of the same; each has a nonce of its own.
    pub fn asks_as(&self, other: &Self) -> bool {
        *self == Self { nonce: self.nonce.clone(), ..other.clone() }
    }
}

/// What was asked of a dispatch, as far as its gates are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contract {
    /// SHA-256 of `request.yaml`.
    pub request: Digest,
    /// SHA-256 of `plan.json`.
    pub plan: Digest,
    /// SHA-256 of `prompt.md`.
    pub prompt: Digest,
}

impl Contract {
    /// The contract hash of one gate.
    pub fn hash(&self, gate: &Name, config: Digest) -> Digest {
        let text = format!(
            "vnx.contract/1\nrequest {}\nplan {}\nprompt {}\ngate {gate}\nconfig {config}\n",
            self.request, self.plan, self.prompt
        );
        Digest::of(text.as_bytes())
    }
}

/// 128 random bits in hex.
pub fn nonce(random: [u8; 16]) -> String {
    random.iter().fold(String::with_capacity(32), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether a text has the form of a nonce: such a one is safe as the name of a folder.
pub fn is_nonce(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod words {
    use super::*;

    #[test]
    fn words_are_those_of_the_files() {
        for kind in [GateKind::Command, GateKind::Probe, GateKind::Review, GateKind::Human, GateKind::Ci] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.word()));
        }
        for status in [GateStatus::Pass, GateStatus::Fail, GateStatus::Unverified] {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("{:?}", status.word()));
        }
    }

    #[test]
    fn a_nonce_is_32_hex_digits_and_nothing_else_is_one() {
        let one = nonce([0, 1, 0x10, 0xff, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0xab, 0xcd]);
        assert_eq!(one, "000110ff09080706050403020100abcd");
        assert!(is_nonce(&one));
        let long = format!("{one}0");
        for bad in ["", &one[1..], &long, &one.to_uppercase(), &one.replace("ff", "../"), &one.replace("ff", "fg")] {
            assert!(!is_nonce(bad), "{bad}");
        }
    }
}
