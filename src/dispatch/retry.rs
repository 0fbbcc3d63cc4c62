//! Trying again: what follows from an outcome, and the loop around the door. Every attempt is a
//! dispatch of its own, with its own worktree and its own receipts.

use std::time::Duration;

use jiff::Timestamp as Moment;
use jiff::tz::TimeZone;

use super::door::{Options, Progress, open};
use super::request::Request;
use tokio::signal::unix::{SignalKind, signal};

use crate::domain::outcome::{Outcome, Retry};
use crate::domain::receipt::DispatchClosed;
use crate::domain::reset::reset_at;
use crate::domain::{DispatchId, Fault, FaultKind, Name};
use crate::project::Project;
use crate::prompt;

/// The longest time that a limit is waited for.
const PARKED_AT_MOST: Duration = Duration::from_hours(24);

/// What follows an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: why, where that is not plain.
    Stop(Option<String>),
    /// Another attempt.
    Again {
        /// After this time.
        after: Duration,
        /// On this provider; `None`: on the same one.
        provider: Option<Name>,
    },
}

/// What an attempt came to, as far as the next one depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What happened.
    pub outcome: Outcome,
    /// In the CLI's words.
    pub reason: &'a str,
    /// Which attempt it was, from 1.
    pub number: u32,
}

/// Decides. `fallbacks` are the providers that are left to try. Pure.
pub fn next(attempt: Attempt<'_>, retries: u32, fallbacks: &[Name], now: Moment, local: &TimeZone) -> Next {
    let again = |after| Next::Again { after, provider: None };
    // Another provider helps where this one is the obstacle, and costs no attempt.
    let elsewhere = || fallbacks.first().map(|p| Next::Again { after: Duration::ZERO, provider: Some(p.clone()) });
    let left = attempt.number <= retries;
    match attempt.outcome.retry() {
        Retry::Never => match attempt.outcome {
            Outcome::NotLoggedIn | Outcome::AuthRejected | Outcome::CliMissing => elsewhere(),
            _ => None,
        }
        .unwrap_or(Next::Stop(None)),
        Retry::After(seconds) if left => again(Duration::from_secs(seconds)),
        Retry::OtherProvider | Retry::After(_) => elsewhere().unwrap_or(Next::Stop(None)),
        Retry::AtReset => elsewhere().unwrap_or_else(|| {
            if !left {
                return Next::Stop(None);
            }
            let Some(at) = reset_at(attempt.reason, now, local) else {
                return Next::Stop(Some("the CLI does not say when its limit resets".to_owned()));
            };
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            if wait > PARKED_AT_MOST {
                return Next::Stop(Some(format!("the limit resets at {at}, which is more than a day away")));
            }
            // A little later, because clocks differ.
            again(wait + Duration::from_secs(5))
        }),
    }
}

/// What is told between and during attempts.
#[derive(Debug)]
pub enum Told<'a> {
    /// An attempt has been opened.
    Opened(&'a DispatchId, &'a super::Planned),
    /// The supervisor said something.
    Progress(&'a Progress),
    /// Another attempt follows: its number, what came of this one, and after how long.
    Again {
        /// The attempt that follows.
        number: u32,
        /// What came of the one before.
        outcome: Outcome,
        /// After this time.
        after: Duration,
        /// On this provider, where it is another one.
        provider: Option<&'a Name>,
    },
    /// No other attempt follows, and why.
    Stopped(&'a str),
}

/// Dispatches until it is good, or nothing follows any more; returns the last attempt.
pub fn run(
    project: &Project,
    request: &Request,
    options: &Options,
    retries: u32,
    mut tell: impl FnMut(Told<'_>),
) -> Result<(DispatchId, DispatchClosed), Fault> {
    let mut fallbacks = match prompt::agent(&project.folder(), &request.agent) {
        Ok(agent) if request.provider.is_none() => agent.head.fallbacks,
        // The command line names one provider, and means it; a broken agent is refused at the door.
        Ok(_) | Err(_) => Vec::new(),
    };
    let (mut request, mut options) = (request.clone(), options.clone());
    let mut number = 1;
    loop {
        let opened = match open(project, &request, &options) {
            Ok(opened) => opened,
            // Most likely the CLI is not there; anything else is told by the next one as well.
            Err(fault) if fault.kind == FaultKind::Environment && !fallbacks.is_empty() => {
                let provider = fallbacks.remove(0);
                let (outcome, after) = (Outcome::CliMissing, Duration::ZERO);
                tell(Told::Again { number, outcome, after, provider: Some(&provider) });
                (request.provider, request.model) = (Some(provider), None);
                continue;
            }
            Err(fault) => return Err(fault),
        };
        let id = opened.id.clone();
        // A person was asked once.
        options.attested = opened.attested.clone().or(options.attested);
        tell(Told::Opened(&id, &opened.planned));
        let closed = opened.watch(project, |progress| tell(Told::Progress(progress)))?;
        let attempt = Attempt { outcome: closed.verdict.outcome, reason: &closed.verdict.reason, number };
        match next(attempt, retries, &fallbacks, Moment::now(), &TimeZone::system()) {
            Next::Stop(why) => {
                if let Some(why) = why {
                    tell(Told::Stopped(&why));
                }
                return Ok((id, closed));
            }
            Next::Again { after, provider } => {
                if provider.is_none() {
                    number += 1;
                }
                let outcome = closed.verdict.outcome;
                tell(Told::Again { number, outcome, after, provider: provider.as_ref() });
                if !waited(after)? {
                    tell(Told::Stopped("interrupted while it waited"));
                    return Ok((id, closed));
                }
                fallbacks.retain(|name| Some(name) != provider.as_ref());
                // An id that was chosen is the first attempt's.
                request.id = None;
                if provider.is_some() {
                    (request.provider, request.model) = (provider, None);
                }
                request.retries = Some(id);
            }
        }
    }
}

/// Waits; `false` when somebody ends the wait. Whoever has heard signals once hears them for good.
fn waited(after: Duration) -> Result<bool, Fault> {
    let io = |e: std::io::Error| Fault::io(format!("cannot wait: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    runtime.block_on(async {
        let (mut int, mut term) =
            (signal(SignalKind::interrupt()).map_err(io)?, signal(SignalKind::terminate()).map_err(io)?);
        Ok(tokio::select! {
            () = tokio::time::sleep(after) => true,
            _ = int.recv() => false,
            _ = term.recv() => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(outcome: Outcome, reason: &str, number: u32, retries: u32, fallbacks: &[&str]) -> Next {
        let names: Vec<Name> = fallbacks.iter().map(|n| Name::parse("provider", n).unwrap()).collect();
        let now = "2026-11-18T10:00:00Z".parse().unwrap();
        next(Attempt { outcome, reason, number }, retries, &names, now, &TimeZone::UTC)
    }

    fn again(seconds: u64, provider: Option<&str>) -> Next {
        let provider = provider.map(|p| Name::parse("provider", p).unwrap());
        Next::Again { after: Duration::from_secs(seconds), provider }
    }

    #[test]
    fn an_outcome_says_what_follows() {
        use Outcome::{AuthRejected, CliCrash, Done, Empty, ModelUnavailable, Network, UsageLimit};
        assert_eq!(decide(Done, "", 1, 3, &["codex"]), Next::Stop(None));
        assert_eq!(decide(Empty, "", 1, 3, &["codex"]), Next::Stop(None));
        assert_eq!(decide(Network, "", 1, 0, &[]), Next::Stop(None));
        assert_eq!(decide(Network, "", 1, 1, &[]), again(60, None));
        assert_eq!(decide(Network, "", 2, 1, &[]), Next::Stop(None));
        assert_eq!(decide(Network, "", 2, 1, &["codex"]), again(0, Some("codex")));
        assert_eq!(decide(CliCrash, "", 1, 1, &[]), again(0, None));
        assert_eq!(decide(AuthRejected, "", 1, 3, &[]), Next::Stop(None));
        assert_eq!(decide(AuthRejected, "", 1, 0, &["kimi", "codex"]), again(0, Some("kimi")));
        assert_eq!(decide(ModelUnavailable, "", 1, 3, &["codex"]), again(0, Some("codex")));
        let limit = "You've hit your limit · resets 11am (UTC)";
        assert_eq!(decide(UsageLimit, limit, 1, 1, &[]), again(3605, None));
        assert_eq!(decide(UsageLimit, limit, 1, 1, &["codex"]), again(0, Some("codex")));
        assert_eq!(decide(UsageLimit, limit, 2, 1, &[]), Next::Stop(None));
        assert!(matches!(decide(UsageLimit, "soon", 1, 1, &[]), Next::Stop(Some(_))));
    }

    #[test]
    fn every_outcome_is_decided_and_nothing_is_tried_for_ever() {
        for outcome in Outcome::ALL {
            assert!(matches!(decide(*outcome, "resets 11am (UTC)", 4, 3, &[]), Next::Stop(_)), "{outcome}");
        }
    }
}
