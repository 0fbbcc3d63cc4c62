//! Provider constraints: which provider, model or lane may serve which role. Deny wins.

use serde::{Deserialize, Serialize};

use super::address::Pattern;
use super::endpoint::Endpoint;
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
    /// Where the provider is reached: a URL with `*` at the end as a wildcard, or `private` for
    /// this machine and private networks.
    #[serde(default)]
    pub endpoint: Option<Pattern>,
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
    /// Where the provider is reached, if its manifest tells of that.
    pub endpoint: Option<&'a Endpoint>,
    /// The CLI's own login pays.
    pub login: bool,
    /// MCP servers of the user's own configuration come along.
    pub ambient_mcp: bool,
}

impl Route {
    /// `unknown`: what an endpoint that cannot be told counts as.
    fn matches(&self, taken: Taken<'_>, unknown: bool) -> bool {
        let like = |pattern: &str, text: Option<&str>| match (pattern.strip_suffix('*'), text) {
            (Some(prefix), Some(text)) => text.starts_with(prefix),
            (None, Some(text)) => text == pattern,
            (_, None) => false,
        };
        let endpoint = |pattern| taken.endpoint.is_some_and(|endpoint| endpoint.is(pattern).unwrap_or(unknown));
        self.provider.as_ref().is_none_or(|p| p == taken.provider)
            && self.model.as_deref().is_none_or(|m| like(m, taken.model))
            && self.lane.is_none_or(|l| l == taken.lane)
            && self.agent.as_ref().is_none_or(|a| a == taken.agent)
            && self.endpoint.as_ref().is_none_or(endpoint)
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
        // Where it cannot be told, the rule applies: deny wins.
        let forbidden = self.forbid_route.as_ref().is_some_and(|r| r.matches(taken, true));
        let missed =
            self.require_route.as_ref().is_some_and(|r| r.when.matches(taken, true) && !r.must.matches(taken, false));
        self.enforcement == Enforcement::Door && (forbidden || missed)
    }

    /// It says in so many words that the route may lead to where it does.
    fn names_the_endpoint(&self, taken: Taken<'_>) -> bool {
        let required =
            self.require_route.as_ref().filter(|r| r.when.matches(taken, false) && r.must.matches(taken, false));
        let named = required.and_then(|r| r.must.endpoint.as_ref()).is_some_and(Pattern::names_a_host);
        self.enforcement == Enforcement::Door && named
    }

    /// It has a say in where a provider is reached.
    pub fn is_about_endpoints(&self) -> bool {
        let required = self.require_route.iter().flat_map(|r| [&r.when, &r.must]);
        required.chain(&self.forbid_route).any(|route| route.endpoint.is_some())
    }

    /// What no file has to say: the credentials of the machine are no model's to see.
    fn no_metadata() -> Self {
        Self {
            id: Name::try_from("no-metadata-service".to_owned())
                .unwrap_or_else(|_| unreachable!("follows the id rule")),
            reason: "a metadata service of a cloud platform is no provider, unless a require_route names its address"
                .to_owned(),
            severity: Severity::Blocking,
            enforcement: Enforcement::Door,
            overridable: false,
            forbid_route: Some(Route { endpoint: Some(Pattern::any()), ..Route::default() }),
            require_route: None,
            forbid_import: None,
        }
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
    let is_metadata = taken.endpoint.is_some_and(Endpoint::is_metadata);
    if is_metadata && !constraints.constraints.iter().any(|c| c.names_the_endpoint(taken)) {
        ruling.refused.push(Constraint::no_metadata());
    }
    ruling
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::address::Address;

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

    fn at(url: &str) -> Endpoint {
        Endpoint { address: Some(Address::parse(url).unwrap()), moved_by: None, proxy: None }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).unwrap()
    }

    /// Deny wins: what cannot be told is forbidden where it could be, and is not what is required.
    #[test]
    fn an_endpoint_that_is_unknown_satisfies_nothing() {
        let (x, agent) = (name("x"), name("a"));
        let unknown = Endpoint { address: None, moved_by: Some("X_USE".into()), proxy: None };
        let taken = |endpoint| Taken {
            provider: &x,
            model: None,
            lane: Lane::Headless,
            agent: &agent,
            endpoint,
            login: false,
            ambient_mcp: false,
        };
        let (near, far) = (at("http://127.0.0.1"), at("https://example.org"));
        let mut constraints = forbid(false);
        for (pattern_text, forbids, endpoint, refused) in [
            ("private", false, Some(&near), 0),
            ("private", false, Some(&far), 1),
            ("private", false, Some(&unknown), 1),
            ("private", false, None, 1),
            ("https://example.org*", false, Some(&unknown), 1),
            ("*", false, Some(&unknown), 1),
            ("https://example.org*", true, Some(&far), 1),
            ("https://example.org*", true, Some(&near), 0),
            ("https://example.org*", true, Some(&unknown), 1),
            ("https://example.org*", true, None, 0),
        ] {
            let route = Route { endpoint: Some(pattern(pattern_text)), ..Route::default() };
            let when = Route::default();
            constraints.constraints[0].forbid_route = forbids.then(|| route.clone());
            constraints.constraints[0].require_route = (!forbids).then_some(Required { when, must: route });
            let ruling = rule(&constraints, taken(endpoint), &[]);
            assert_eq!(ruling.refused.len(), refused, "{pattern_text} {forbids} {endpoint:?}");
        }
        // The credentials of a machine are behind an address that no rule has to forbid.
        let metadata = at("http://169.254.169.254/latest");
        constraints.constraints[0].forbid_route = None;
        for (must, refused) in [("*", 1), ("http://169.254.169.254/*", 0), ("http://169.254.169.253/*", 2)] {
            let must = Route { endpoint: Some(pattern(must)), ..Route::default() };
            constraints.constraints[0].require_route = Some(Required { when: Route::default(), must });
            assert_eq!(rule(&constraints, taken(Some(&metadata)), &[]).refused.len(), refused);
        }
    }

    #[test]
    fn a_route_matches_by_each_of_its_members() {
        let (x, y, agent) = (name("x"), name("y"), name("a"));
        let (near, far) = (at("http://127.0.0.1:1"), at("http://8.8.8.8"));
        let taken = Taken {
            provider: &x,
            model: Some("m"),
            lane: Lane::Headless,
            agent: &agent,
            endpoint: Some(&near),
            login: true,
            ambient_mcp: true,
        };
        let all = Route {
            provider: Some(x.clone()),
            model: Some("m".into()),
            lane: Some(Lane::Headless),
            agent: Some(agent.clone()),
            endpoint: Some(pattern("private")),
            login: Some(true),
            ambient_mcp: Some(true),
        };
        assert!(all.matches(taken, false) && Route::default().matches(taken, false));
        for (other, what) in [
            (Taken { provider: &y, ..taken }, "provider"),
            (Taken { model: Some("m2"), ..taken }, "model"),
            (Taken { model: None, ..taken }, "no model"),
            (Taken { lane: Lane::Acp, ..taken }, "lane"),
            (Taken { agent: &y, ..taken }, "agent"),
            (Taken { endpoint: Some(&far), ..taken }, "endpoint"),
            (Taken { endpoint: None, ..taken }, "no endpoint"),
            (Taken { login: false, ..taken }, "login"),
            (Taken { ambient_mcp: false, ..taken }, "MCP"),
        ] {
            assert!(!all.matches(other, false), "{what}");
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
