//! One rule for every id: `^[a-z0-9][a-z0-9-]{0,62}$`.
//!
//! An id that follows it is safe as a file name, a git ref component, a tmux target and a DNS
//! label, so nothing after the check at the edge needs to escape it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::time::Timestamp;

/// The longest id, in bytes.
pub const MAX_ID: usize = 63;
/// The longest agent name: a dispatch id adds 21 bytes to it.
pub const MAX_AGENT: usize = MAX_ID - 21;

fn follows_rule(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !bytes.is_empty() && bytes.len() <= MAX_ID && bytes[0] != b'-' && bytes.iter().all(inner)
}

/// The rule in words.
const RULE: &str = "it may have 1 to 63 characters: lower-case letters, digits, and - but not at its beginning";

/// A name that a person gave: an agent, a skill, a provider, a project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Parses `text` by the id rule; `what` names the thing in the error ("agent", "provider").
    pub fn parse(what: &str, text: &str) -> Result<Self, Fault> {
        if follows_rule(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::input(format!("{what} name {text:?} is not valid")).fix(RULE))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        Self::parse("the", &text)
    }
}
impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The id of one dispatch: `YYYYMMDD-HHMMSS-<agent>-<4 chars>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DispatchId(String);

impl DispatchId {
    /// Makes an id from the moment, the agent and 20 random bits.
    pub fn compose(at: Timestamp, agent: &Name, random: u32) -> Result<Self, Fault> {
        // No i, l, o, u: the id is read aloud and typed.
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let suffix: String =
            (0..4).map(|i| char::from(ALPHABET[usize::try_from((random >> (5 * i)) & 31).unwrap_or(0)])).collect();
        Self::parse(&format!("{}-{agent}-{suffix}", at.compact()))
    }
    /// The id that a person means who types it: that of an issue is written in capitals (`JIRA-123`).
    pub fn typed(text: &str) -> Result<Self, Fault> {
        Self::parse(&text.to_ascii_lowercase())
    }
    /// Parses a full id.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Self::check(text).map(|()| Self(text.to_owned()))
    }
    /// Whether a text is an id, without making one.
    pub fn check(text: &str) -> Result<(), Fault> {
        if follows_rule(text) {
            return Ok(());
        }
        Err(Fault::input(format!("dispatch id {text:?} is not valid")).fix(RULE))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// What follows the time in an id that vnx made, `<agent>-<4 chars>`; `None` of one that a person chose.
    pub fn without_time(&self) -> Option<&str> {
        let (time, rest) = self.0.split_at_checked("YYYYMMDD-HHMMSS-".len())?;
        let is_time = |(at, byte): (usize, u8)| if matches!(at, 8 | 15) { byte == b'-' } else { byte.is_ascii_digit() };
        (time.bytes().enumerate().all(is_time) && rest.contains('-')).then_some(rest)
    }
    /// The branch of this dispatch: `vnx/<id>`.
    pub fn branch(&self) -> String {
        format!("vnx/{}", self.0)
    }
    /// The full name of the branch ref.
    pub fn branch_ref(&self) -> String {
        format!("refs/heads/vnx/{}", self.0)
    }
    /// The ref that keeps a branch that has landed.
    pub fn landed_ref(&self) -> String {
        format!("refs/vnx/landed/{}", self.0)
    }
    /// The ref that keeps a branch that was given up.
    pub fn dropped_ref(&self) -> String {
        format!("refs/vnx/dropped/{}", self.0)
    }
    /// The ref that keeps what a teardown could have lost.
    pub fn rescue_ref(&self) -> String {
        format!("refs/vnx/rescue/{}", self.0)
    }
}

impl TryFrom<String> for DispatchId {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        Self::parse(&text)
    }
}
impl From<DispatchId> for String {
    fn from(id: DispatchId) -> Self {
        id.0
    }
}
impl fmt::Display for DispatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The one of `all` that an abbreviation means: the one called so, else the only one that it begins, else the
/// only one whose last part it is (`k3p9` of `20261121-100203-hello-world-k3p9`).
///
/// # Errors
///
/// Those that it may mean: none, or several.
pub fn meant<T>(all: impl IntoIterator<Item = T>, id: impl Fn(&T) -> &str, text: &str) -> Result<T, Vec<T>> {
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    for one in all {
        let name = id(&one);
        if name == text {
            return Ok(one);
        }
        if !text.is_empty() && name.starts_with(text) {
            begun.push(one);
        } else if name.rsplit_once('-').is_some_and(|(_, last)| last == text) {
            ended.push(one);
        }
    }
    let mut found = if begun.is_empty() { ended } else { begun };
    if found.len() == 1 { found.pop().ok_or_else(Vec::new) } else { Err(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abbreviation_means_one_or_says_which() {
        let all = ["20261121-a-k3p9", "20261121-b-00ab", "20261122-a-00ab", "own", "own-2", "k3p9-x"];
        let is = |text: &str| meant(all, |id| id, text);
        for (text, id) in [
            ("own", "own"),
            ("own-", "own-2"),
            ("20261122", "20261122-a-00ab"),
            ("20261121-b-00ab", "20261121-b-00ab"),
            ("x", "k3p9-x"),
            // What it begins comes first.
            ("k3p9", "k3p9-x"),
            ("2", "20261121-a-k3p9"),
        ] {
            match is(text) {
                Ok(found) => assert_eq!(found, id, "{text}"),
                Err(several) => assert!(several.len() > 1 && several[0] == id, "{text}: {several:?}"),
            }
        }
        assert_eq!(is("00ab"), Err(vec!["20261121-b-00ab", "20261122-a-00ab"]));
        for nothing in ["", "-", "3p9", "a-00ab", "@last"] {
            assert_eq!(is(nothing), Err(vec![]), "{nothing}");
        }
    }

    #[test]
    fn the_time_is_told_from_the_rest_of_an_id() {
        let rest = |text: &str| DispatchId::parse(text).unwrap().without_time().map(str::to_owned);
        assert_eq!(rest("20261121-100203-hello-world-k3p9").as_deref(), Some("hello-world-k3p9"));
        for chosen in ["fix-2", "20261121-100203", "20261121-100203-k3p9", "2026-1121-10020-hello-world-k3p9"] {
            assert_eq!(rest(chosen), None, "{chosen}");
        }
    }

    #[test]
    fn the_rule_refuses_everything_that_would_need_escaping() {
        for bad in ["", "-a", "A", "a/b", "../x", "a b", "a.b", "ä", "#(touch x)", "a\n", &"a".repeat(64)] {
            assert!(Name::parse("agent", bad).is_err(), "{bad:?} must be refused");
            assert!(DispatchId::parse(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["a", "0", "a-b-9", &"a".repeat(63)] {
            assert!(Name::parse("agent", good).is_ok(), "{good:?} must pass");
        }
    }

    #[test]
    fn an_id_sorts_by_time_and_names_its_agent() {
        let agent = Name::parse("agent", "hello-world").unwrap();
        let at = Timestamp::from_micros(1_795_255_323_456_789).unwrap();
        let id = DispatchId::compose(at, &agent, 0).unwrap();
        assert_eq!(id.as_str(), "20261121-100203-hello-world-0000");
        assert_eq!(id.branch_ref(), "refs/heads/vnx/20261121-100203-hello-world-0000");
    }

    #[test]
    fn the_longest_agent_still_makes_a_valid_id() {
        let agent = Name::parse("agent", &"a".repeat(MAX_AGENT)).unwrap();
        let at = Timestamp::from_micros(0).unwrap();
        assert_eq!(DispatchId::compose(at, &agent, u32::MAX).unwrap().as_str().len(), MAX_ID);
    }

    #[test]
    fn what_an_id_names_is_named_after_it() {
        let id = DispatchId::parse("a-1").unwrap();
        assert_eq!((id.branch().as_str(), id.rescue_ref().as_str()), ("vnx/a-1", "refs/vnx/rescue/a-1"));
        assert_eq!(
            (id.landed_ref().as_str(), id.dropped_ref().as_str()),
            ("refs/vnx/landed/a-1", "refs/vnx/dropped/a-1")
        );
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"a-1\"");
        let name = Name::parse("agent", "a").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"a\"");
        assert_eq!(format!("{id:>5}|{name:<3}|"), "  a-1|a  |");
        // 20 bits, five to each character, the lowest first.
        let at = Timestamp::from_micros(0).unwrap();
        assert!(DispatchId::compose(at, &name, 1 | 10 << 5 | 31 << 15).unwrap().as_str().ends_with("-a-1a0z"));
    }
}
