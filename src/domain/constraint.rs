//! Provider constraints: which provider, model or lane may serve which role. Deny wins.

use serde::{Deserialize, Serialize};

use super::id::Name;
use super::plan::{Lane, Override};

/// What happens when a constraint is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The dispatch is refused.
    Blocking,
    /// The plan says so and goes on.
    Warn,
}

/// Where a constraint is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// At the door, when a plan is compiled.
    Door,
    /// In CI, over the source tree.
    Ci,
}

/// What a rule looks for; an absent field matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The provider.
    #[serde(default)]
    pub provider: Option<Name>,
    /// The model, with `*` at the end as a wildcard.
    #[serde(default)]
    pub model: Option<String>,
    /// The lane.
    #[serde(default)]
    pub lane: Option<Lane>,
    /// The agent.
    #[serde(default)]
    pub agent: Option<Name>,
    /// Where the provider is reached: an address with `*` at the end as a wildcard, or `private` for
    /// this machine and private networks.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The CLI's own login pays (a subscription), not a key.
    #[serde(default)]
    pub login: Option<bool>,
    /// MCP servers of the user's own configuration come along.
    #[serde(default)]
    pub ambient_mcp: Option<bool>,
}

/// One rule. Exactly one of the three verbs is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// Its name, used by overrides and receipts.
    pub id: Name,
    /// Why it exists; shown when it refuses.
    pub reason: String,
    /// What happens.
    pub severity: Severity,
    /// Where.
    #[serde(default = "door")]
    pub enforcement: Enforcement,
    /// `--override id=REASON` may set it aside.
    #[serde(default)]
    pub overridable: bool,
    /// This route is forbidden.
    #[serde(default)]
    pub forbid_route: Option<Route>,
    /// Where `when` matches, the rest must match too.
    #[serde(default)]
    pub require_route: Option<Required>,
    /// A package name that must not be imported by vnx itself (checked in CI).
    #[serde(default)]
    pub forbid_import: Option<String>,
}

fn door() -> Enforcement {
    Enforcement::Door
}

/// A requirement on matching routes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Required {
    /// The routes it speaks of.
    pub when: Route,
    /// What they must look like.
    pub must: Route,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Format version, 1.
    pub version: u32,
    /// The rules.
    pub constraints: Vec<Constraint>,
}

/// The route that a plan is about to take.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// The provider.
    pub provider: &'a Name,
    /// The model, if one was chosen.
    pub model: Option<&'a str>,
    /// The lane.
    pub lane: Lane,
    /// The agent.
    pub agent: &'a Name,
    /// Where the provider is reached, as far as that is known.
    pub endpoint: Option<&'a str>,
    /// The CLI's own login pays.
    pub login: bool,
    /// MCP servers of the user's own configuration come along.
    pub ambient_mcp: bool,
}

/// Whether an address is this machine or in a private network. A name other than `localhost` may
/// be anywhere, so it is not.
pub fn is_private(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => host,
    };
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => {
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
        }
        Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost",
    }
}

impl Route {
    fn matches(&self, taken: Taken<'_>) -> bool {
        let like = |pattern: &str, text: Option<&str>| match (pattern.strip_suffix('*'), text) {
            (Some(prefix), Some(text)) => text.starts_with(prefix),
            (None, Some(text)) => text == pattern,
            (_, None) => false,
        };
        let endpoint = |pattern: &str| match pattern {
            "private" => taken.endpoint.is_some_and(is_private),
            pattern => like(pattern, taken.endpoint),
        };
        self.provider.as_ref().is_none_or(|p| p == taken.provider)
            && self.model.as_deref().is_none_or(|m| like(m, taken.model))
            && self.lane.is_none_or(|l| l == taken.lane)
            && self.agent.as_ref().is_none_or(|a| a == taken.agent)
            && self.endpoint.as_deref().is_none_or(endpoint)
            && self.login.is_none_or(|l| l == taken.login)
            && self.ambient_mcp.is_none_or(|m| m == taken.ambient_mcp)
    }
}

impl Constraint {
    /// Exactly one verb; says what is wrong otherwise.
    pub fn check_shape(&self) -> Result<(), String> {
        let verbs = usize::from(self.forbid_route.is_some())
            + usize::from(self.require_route.is_some())
            + usize::from(self.forbid_import.is_some());
        if verbs == 1 {
            return Ok(());
        }
        Err(format!("constraint {} must have exactly one of forbid_route, require_route, forbid_import", self.id))
    }

    fn hits(&self, taken: Taken<'_>) -> bool {
        let forbidden = self.forbid_route.as_ref().is_some_and(|r| r.matches(taken));
        let missed = self.require_route.as_ref().is_some_and(|r| r.when.matches(taken) && !r.must.matches(taken));
        self.enforcement == Enforcement::Door && (forbidden || missed)
    }
}

/// What the constraints say of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Blocking constraints that stand: the dispatch is refused.
    pub refused: Vec<Constraint>,
    /// Warnings, for the plan's reasons.
    pub warnings: Vec<String>,
    /// Overrides that were needed and allowed.
    pub used: Vec<Override>,
}

/// Decides a route. An override counts only for a constraint that was hit and allows it.
pub fn rule(constraints: &Constraints, taken: Taken<'_>, overrides: &[Override]) -> Ruling {
    let mut ruling = Ruling::default();
    for constraint in constraints.constraints.iter().filter(|c| c.hits(taken)) {
        let given = overrides.iter().find(|o| o.id == constraint.id && constraint.overridable);
        match (constraint.severity, given) {
            (Severity::Warn, _) => ruling.warnings.push(format!("{}: {}", constraint.id, constraint.reason)),
            (Severity::Blocking, Some(o)) => ruling.used.push(o.clone()),
            (Severity::Blocking, None) => ruling.refused.push(constraint.clone()),
        }
    }
    ruling
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse("test", text).unwrap()
    }

    fn forbid(overridable: bool) -> Constraints {
        Constraints {
            version: 1,
            constraints: vec![Constraint {
                id: name("no-x"),
                reason: "because".into(),
                severity: Severity::Blocking,
                enforcement: Enforcement::Door,
                overridable,
                forbid_route: Some(Route {
                    provider: Some(name("x")),
                    model: Some("big-*".into()),
                    ..Route::default()
                }),
                require_route: None,
                forbid_import: None,
            }],
        }
    }

    #[test]
    fn deny_wins_and_an_override_must_be_allowed() {
        let (x, agent) = (name("x"), name("a"));
        let taken = Taken {
            provider: &x,
            model: Some("big-1"),
            lane: Lane::Headless,
            agent: &agent,
            endpoint: None,
            login: false,
            ambient_mcp: false,
        };
        let given = [Override { id: name("no-x"), reason: "test".into() }];
        assert_eq!(rule(&forbid(false), taken, &given).refused.len(), 1);
        assert_eq!(rule(&forbid(true), taken, &[]).refused.len(), 1);
        assert_eq!(rule(&forbid(true), taken, &given).used.len(), 1);
        let small = Taken { model: Some("small"), ..taken };
        assert_eq!(rule(&forbid(false), small, &[]), Ruling::default());
    }

    #[test]
    fn private_is_what_cannot_be_elsewhere() {
        for yes in [
            "http://127.0.0.1:11434",
            "127.0.0.1",
            "localhost:11434",
            "http://[::1]:1/",
            "10.1.2.3:80",
            "http://192.168.0.2/v1",
            "0.0.0.0:11434",
            "[fd00::1]",
            "::1",
        ] {
            assert!(is_private(yes), "{yes}");
        }
        for no in [
            "http://example.org",
            "8.8.8.8",
            "http://127.0.0.1@example.org",
            "http://127.0.0.1.example.org",
            "localhost.example.org",
            "",
            "http://[2001:db8::1]",
            "2001:db8::1",
        ] {
            assert!(!is_private(no), "{no}");
        }
    }

    #[test]
    fn a_route_matches_by_each_of_its_members() {
        let (x, y, agent) = (name("x"), name("y"), name("a"));
        let taken = Taken {
            provider: &x,
            model: Some("m"),
            lane: Lane::Headless,
            agent: &agent,
            endpoint: Some("http://127.0.0.1:1"),
            login: true,
            ambient_mcp: true,
        };
        let all = Route {
            provider: Some(x.clone()),
            model: Some("m".into()),
            lane: Some(Lane::Headless),
            agent: Some(agent.clone()),
            endpoint: Some("private".into()),
            login: Some(true),
            ambient_mcp: Some(true),
        };
        assert!(all.matches(taken) && Route::default().matches(taken));
        for (other, what) in [
            (Taken { provider: &y, ..taken }, "provider"),
            (Taken { model: Some("m2"), ..taken }, "model"),
            (Taken { model: None, ..taken }, "no model"),
            (Taken { lane: Lane::Acp, ..taken }, "lane"),
            (Taken { agent: &y, ..taken }, "agent"),
            (Taken { endpoint: Some("http://8.8.8.8"), ..taken }, "endpoint"),
            (Taken { endpoint: None, ..taken }, "no endpoint"),
            (Taken { login: false, ..taken }, "login"),
            (Taken { ambient_mcp: false, ..taken }, "MCP"),
        ] {
            assert!(!all.matches(other), "{what}");
        }
    }

    #[test]
    fn what_is_required_is_required_where_it_applies_and_at_the_door() {
        let (x, agent) = (name("x"), name("a"));
        let taken = Taken {
            provider: &x,
            model: None,
            lane: Lane::Headless,
            agent: &agent,
            endpoint: None,
            login: false,
            ambient_mcp: false,
        };
        let when = Route { provider: Some(x.clone()), ..Route::default() };
        let must = Route { lane: Some(Lane::Acp), ..Route::default() };
        let mut constraints = forbid(false);
        constraints.constraints[0].forbid_route = None;
        constraints.constraints[0].require_route = Some(Required { when, must });
        let refused = |c: &Constraints, taken| rule(c, taken, &[]).refused.len();
        assert_eq!(refused(&constraints, taken), 1);
        assert_eq!(refused(&constraints, Taken { lane: Lane::Acp, ..taken }), 0);
        assert_eq!(refused(&constraints, Taken { provider: &agent, ..taken }), 0);
        constraints.constraints[0].enforcement = Enforcement::Ci;
        assert_eq!(refused(&constraints, taken), 0, "not the door's to enforce");
    }

    #[test]
    fn a_constraint_has_one_verb() {
        let mut one = forbid(false).constraints.remove(0);
        let require = Required { when: Route::default(), must: Route::default() };
        assert_eq!(one.check_shape(), Ok(()));
        one.require_route = Some(require.clone());
        assert!(one.check_shape().is_err());
        one.forbid_route = None;
        assert_eq!(one.check_shape(), Ok(()));
        one.forbid_import = Some("requests".into());
        assert!(one.check_shape().is_err());
        one.require_route = None;
        assert_eq!(one.check_shape(), Ok(()));
        one.forbid_import = None;
        assert!(one.check_shape().unwrap_err().contains("no-x"));
    }
}
