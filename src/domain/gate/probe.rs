//! Runtime evidence: the built thing is started, asked, and stopped.

use serde::{Deserialize, Serialize};

use crate::domain::span::Span;

/// How many checks a probe may have.
const MAX_CHECKS: usize = 50;

/// A probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// For `sh -c`: what is started and stays until the checks are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// When it can be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// What it is asked, in order. The first that fails ends the probe.
    pub checks: Vec<ProbeCheck>,
}

/// When what was started can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// Somebody listens on this port of the loopback interface; `$VNX_PORT` stands for the first of its own ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// It has said a line that holds this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// How long that may take.
    #[serde(default = "half_a_minute")]
    pub within: Span,
}

fn half_a_minute() -> Span {
    Span(30_000)
}

/// One question. It has exactly one of `http`, `run` and `file`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProbeCheck {
    /// An address to GET; `$VNX_PORT` stands for the port. Redirects are answers, and not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The status that it must have; 200 where it is not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A command for `sh -c` that must exit with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// A file below the worktree that must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What the body, the output or the file must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

impl ProbeCheck {
    /// What it asks, in half a line.
    pub fn title(&self) -> String {
        let what = [("GET", &self.http), ("run", &self.run), ("file", &self.file)];
        let named = what.into_iter().find_map(|(word, value)| Some(format!("{word} {}", value.as_ref()?)));
        crate::domain::line::summary(&named.unwrap_or_default())
    }

    fn fault(&self) -> Option<&'static str> {
        let asked = [&self.http, &self.run, &self.file].into_iter().flatten().count();
        let is_http = |url: &String| url.starts_with("http://") && !url.contains(char::is_whitespace);
        match self {
            _ if asked != 1 => Some("it needs exactly one of `http`, `run` and `file`"),
            Self { http: Some(url), .. } if !is_http(url) => Some("`http` must be an address that begins with http://"),
            Self { http: None, status: Some(_), .. } => Some("`status` belongs to `http`"),
            Self { file: Some(path), .. } if !is_below(path) => Some("`file` must be a path below the worktree"),
            Self { contains: Some(text), .. } if text.is_empty() => Some("`contains` is empty"),
            _ => None,
        }
    }
}

fn is_below(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

impl Probe {
    /// What is wrong with it, if anything is.
    pub fn fault(&self) -> Option<String> {
        if self.checks.is_empty() || self.checks.len() > MAX_CHECKS {
            return Some(format!("`checks` needs 1 to {MAX_CHECKS} entries"));
        }
        match &self.ready {
            Some(_) if self.start.is_none() => return Some("`ready` belongs to `start`".to_owned()),
            Some(ready) if ready.port.is_some() == ready.line.is_some() => {
                return Some("`ready` needs exactly one of `port` and `line`".to_owned());
            }
            Some(Ready { port: Some(port), .. }) if port != "$VNX_PORT" && port.parse::<u16>().is_err() => {
                return Some(format!("`ready.port` {port:?} is neither a port nor $VNX_PORT"));
            }
            Some(Ready { within: Span(0), .. }) => return Some("`ready.within` must be longer than 0s".to_owned()),
            _ => {}
        }
        let wrong = |(check, nth): (&ProbeCheck, usize)| Some(format!("check {nth}: {}", check.fault()?));
        self.checks.iter().zip(1..).find_map(wrong)
    }
}
