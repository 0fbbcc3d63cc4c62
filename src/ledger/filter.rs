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

#[cfg(test)]
mod tests {
    use super::*;

    /// Against what the JSON of each line says, read by somebody else.
    #[test]
    fn what_is_asked_for_is_what_the_lines_say() {
        let text = include_str!("../../receipts/golden/sound.ndjson");
        let lines: Vec<(&[u8], serde_json::Value)> =
            text.lines().map(|line| (line.as_bytes(), serde_json::from_str(line).unwrap())).collect();
        let name = |text: &str| Name::parse("name", text).unwrap();
        let holds = |filter: &Filter, says: &dyn Fn(&serde_json::Value) -> bool| {
            let found = lines.iter().filter(|(line, json)| {
                assert_eq!(filter.wants(line), says(json), "{filter:?}: {json}");
                says(json)
            });
            found.count()
        };
        assert_eq!(holds(&Filter::default(), &|_| true), lines.len());
        for kind in Kind::ALL {
            holds(&Filter { kind: Some(*kind), ..Filter::default() }, &|json| json["kind"] == kind.word());
        }
        // Who asks by the role or the CLI means the receipts that have one, whatever others say in passing.
        let of = |json: &serde_json::Value, kinds: &[&str], member: &str, text: &str| {
            kinds.iter().any(|kind| json["kind"] == **kind) && json["data"][member] == text
        };
        let mut seen = 0;
        for (_, json) in &lines {
            for text in [&json["data"]["agent"], &json["data"]["provider"]].into_iter().filter_map(|v| v.as_str()) {
                let kinds = ["dispatch.requested", "dispatch.refused", "dispatch.claimed", "dispatch.closed"];
                let agent = Filter { agent: Some(name(text)), ..Filter::default() };
                seen += holds(&agent, &|json| of(json, &kinds, "agent", text));
                let provider = Filter { provider: Some(name(text)), ..Filter::default() };
                seen += holds(&provider, &|json| of(json, &kinds[2..], "provider", text));
            }
            let ts = Timestamp::strict(json["ts"].as_str().unwrap()).unwrap();
            let at = |json: &serde_json::Value| Timestamp::strict(json["ts"].as_str().unwrap()).unwrap();
            seen += holds(&Filter { since: Some(ts), ..Filter::default() }, &|json| at(json) >= ts);
            seen += holds(&Filter { until: Some(ts), ..Filter::default() }, &|json| at(json) < ts);
        }
        for outcome in Outcome::ALL {
            let closed = |json: &serde_json::Value| of(json, &["dispatch.closed"], "outcome", outcome.word());
            let verdict = |json: &serde_json::Value| {
                json["kind"] == "dispatch.closed" && json["data"]["verdict"]["outcome"] == outcome.word()
            };
            let filter = Filter { outcome: Some(*outcome), ..Filter::default() };
            seen += holds(&filter, &|json| closed(json) || verdict(json));
        }
        assert!(seen > 100, "{seen}");
        assert!(!Filter::default().wants(b"{}"), "what cannot be read is not asked for");
    }
}
