//! Which receipts somebody asks for. Looks at raw bytes first, so that lines that nobody wants are
//! never parsed.

use super::format;
use crate::domain::receipt::{Body, Kind};
use crate::domain::{Name, Outcome, Timestamp};

/// What a receipt must be; everything that is named must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Its kind.
    pub kind: Option<Kind>,
    /// The role of its dispatch, where the receipt says so.
    pub agent: Option<Name>,
    /// The CLI of its dispatch, where the receipt says so.
    pub provider: Option<Name>,
    /// How its dispatch came out: only closing receipts say so.
    pub outcome: Option<Outcome>,
    /// Written at this moment or later.
    pub since: Option<Timestamp>,
    /// Written before this moment.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether the line is one that is asked for. A line that cannot be read is none.
    pub fn wants(&self, line: &[u8]) -> bool {
        let Ok(links) = format::links(line) else { return false };
        if self.kind.is_some_and(|kind| !links.says(kind)) {
            return false;
        }
        let texts = [self.agent.as_ref().map(Name::as_str), self.provider.as_ref().map(Name::as_str)];
        let texts = texts.into_iter().chain([self.outcome.map(Outcome::word)]).flatten();
        if texts.into_iter().any(|text| memchr::memmem::find(line, text.as_bytes()).is_none()) {
            return false;
        }
        let Ok((subject, _, body)) = links.payload() else { return false };
        let (agent, provider, outcome) = match &body {
            Body::DispatchRequested(r) => (Some(&r.agent), None, None),
            Body::DispatchRefused(r) => (Some(&r.agent), None, None),
            Body::DispatchClaimed(c) => (Some(&c.agent), Some(&c.provider), None),
            Body::DispatchClosed(c) => (Some(&c.agent), Some(&c.provider), Some(c.outcome())),
            _ => (None, None, None),
        };
        self.since.is_none_or(|since| subject.ts >= since)
            && self.until.is_none_or(|until| subject.ts < until)
            && self.agent.as_ref().is_none_or(|wanted| agent == Some(wanted))
            && self.provider.as_ref().is_none_or(|wanted| provider == Some(wanted))
            && self.outcome.is_none_or(|wanted| outcome == Some(wanted))
    }
}
