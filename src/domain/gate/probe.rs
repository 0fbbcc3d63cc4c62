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
            Some(Ready { port: Some(port), .. })
                if port != "$VNX_PORT" && !port.parse::<u16>().is_ok_and(|n| n > 0) =>
            {
                return Some(format!("`ready.port` {port:?} is neither a port nor $VNX_PORT"));
            }
            Some(Ready { within: Span(0), .. }) => return Some("`ready.within` must be longer than 0s".to_owned()),
            _ => {}
        }
        let wrong = |(check, nth): (&ProbeCheck, usize)| Some(format!("check {nth}: {}", check.fault()?));
        self.checks.iter().zip(1..).find_map(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> ProbeCheck {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn a_check_asks_one_thing() {
        for (good, title) in [
            ("http: 'http://127.0.0.1:$VNX_PORT/health'\nstatus: 204", "GET http://127.0.0.1:$VNX_PORT/health"),
            ("run: 'true'\ncontains: x", "run true"),
            ("file: target/a b.txt", "file target/a b.txt"),
        ] {
            let check = check(good);
            assert_eq!((check.fault(), check.title().as_str()), (None, title));
        }
        for (bad, what) in [
            ("contains: x", "exactly one of"),
            ("{run: 'true', file: a}", "exactly one of"),
            ("http: 'https://127.0.0.1/'", "begins with http://"),
            ("http: 'http://127.0.0.1/a b'", "begins with http://"),
            ("{run: 'true', status: 200}", "belongs to `http`"),
            ("file: ../a", "below the worktree"),
            ("file: /etc/passwd", "below the worktree"),
            ("file: a//b", "below the worktree"),
            ("file: ./a", "below the worktree"),
            ("file: ''", "below the worktree"),
            ("{run: 'true', contains: ''}", "`contains` is empty"),
        ] {
            let fault = check(bad).fault().unwrap();
            assert!(fault.contains(what), "{bad}: {fault}");
        }
    }

    #[test]
    fn a_probe_that_cannot_be_is_named() {
        let one = check("run: 'true'");
        let probe = |start: bool, ready: Option<&str>, checks: usize| Probe {
            start: start.then(|| "serve".to_owned()),
            ready: ready.map(|yaml| serde_saphyr::from_str(yaml).unwrap()),
            checks: vec![one.clone(); checks],
        };
        for ready in [None, Some("port: $VNX_PORT"), Some("port: '1'"), Some("port: '65535'"), Some("line: listening")]
        {
            assert_eq!(probe(true, ready, MAX_CHECKS).fault(), None, "{ready:?}");
        }
        for (bad, what) in [
            (probe(false, None, 0), "1 to"),
            (probe(false, None, MAX_CHECKS + 1), "1 to"),
            (probe(false, Some("line: x"), 1), "belongs to `start`"),
            (probe(true, Some("{line: x, port: '1'}"), 1), "exactly one of"),
            (probe(true, Some("within: 1s"), 1), "exactly one of"),
            (probe(true, Some("port: '0'"), 1), "neither a port"),
            (probe(true, Some("port: '65536'"), 1), "neither a port"),
            (probe(true, Some("{port: '1', within: 0s}"), 1), "longer than 0s"),
        ] {
            let fault = bad.fault().unwrap();
            assert!(fault.contains(what), "{bad:?}: {fault}");
        }
        let mut bad = probe(false, None, 2);
        bad.checks[1].run = None;
        assert!(bad.fault().unwrap().starts_with("check 2: it needs exactly one"));
    }
}
