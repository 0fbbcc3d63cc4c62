//! Where a provider is really reached: what its manifest says, moved by what the worker's environment says.
//!
//! A switch whose target nobody can tell beforehand, or a value that is no sound address, makes the endpoint unknown,
//! and what is unknown satisfies no constraint that wants something of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::{Address, Pattern, Place};

/// What a manifest says of where its CLI sends what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSpec {
    /// The variable that moves it.
    pub variable: Option<String>,
    /// Where it is while nothing moves it. Absent: the CLI's own configuration decides.
    pub usual: Option<String>,
    /// The same while the CLI's own login pays, where that is another address.
    pub usual_with_login: Option<String>,
    /// The variable may leave out the scheme and the port, which is then this one.
    pub default_port: Option<u16>,
    /// What is for this machine itself goes through no proxy.
    pub direct_loopback: bool,
    /// Variables that choose another service.
    pub switches: Option<Vec<Switch>>,
    /// Variables, by their name or `PREFIX_*`, that move it in ways that the manifest does not follow; `!NAME` is none.
    pub unknown_with: Option<Vec<String>>,
    /// Files of the CLI's own in which it can be moved.
    pub settings: Option<Vec<SettingsFile>>,
}

/// A variable that chooses another service, unless it is empty or says no.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// The variable.
    pub when: String,
    /// Variables that say where that service is. Without a value in one of them nobody knows.
    #[serde(default)]
    pub variables: Vec<String>,
    /// Variables that it needs, by their names or `PREFIX_*`: its credentials, mostly. They pass while it is on.
    #[serde(default)]
    pub pass: Vec<String>,
}

/// A file of the CLI's own that can move its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsFile {
    /// The variable that names its folder, and the folder below HOME otherwise.
    pub variable: String,
    /// That folder.
    pub usual: String,
    /// Its name.
    pub file: String,
    /// Words of which one stands in a file that moves it.
    pub words: Vec<String>,
}

impl EndpointSpec {
    /// What a variant says, on top of what it is a variant of: the place is the variant's, what moves it stays.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        Self {
            switches: self.switches.or(base.switches),
            unknown_with: self.unknown_with.or(base.unknown_with),
            settings: self.settings.or(base.settings),
            ..self
        }
    }

    /// The variables that the service needs which an environment chooses.
    pub fn passed<'a>(&'a self, said: impl Fn(&str) -> Option<String> + 'a) -> impl Iterator<Item = &'a String> {
        let on = self.switches.iter().flatten().filter(move |s| said(&s.when).is_some_and(|value| is_on(&value)));
        on.flat_map(|switch| &switch.pass)
    }

    /// An address that a manifest gives has to be one.
    pub fn check(&self) -> Result<(), String> {
        [&self.usual, &self.usual_with_login]
            .into_iter()
            .flatten()
            .try_for_each(|url| Address::parse(url).map(drop).map_err(|why| format!("endpoint {url:?}: {why}")))
    }

    /// The usual address or addresses, for people.
    pub fn told(&self) -> String {
        let usual = self.usual.as_deref().unwrap_or("as its own configuration says");
        let variables = self.variable.iter().chain(self.switches.iter().flatten().map(|switch| &switch.when));
        let variables: Vec<String> = variables.map(|name| format!("${name}")).collect();
        if variables.is_empty() { usual.to_owned() } else { format!("{usual} (or {})", variables.join(", ")) }
    }
}

/// Where the data goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The address; absent where nobody can tell before the worker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The variable or file that moved it from where it usually is, or that makes it unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_by: Option<String>,
    /// The proxy on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// A proxy that the worker's environment names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The variable.
    pub variable: String,
    /// Its address, if that is a sound one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

impl Proxy {
    fn is_private(&self) -> bool {
        self.address.as_ref().is_some_and(|address| address.place().is_private())
    }
}

impl Endpoint {
    fn unknown(moved_by: impl Into<String>) -> Self {
        Self { address: None, moved_by: Some(moved_by.into()), proxy: None }
    }

    /// Whether the pattern of a constraint matches; `None` where that cannot be told.
    pub fn is(&self, pattern: &Pattern) -> Option<bool> {
        let to = self.address.as_ref()?;
        if !pattern.matches(to) {
            return Some(false);
        }
        // An encrypted connection ends at the host, whoever hands it on; where the host must be near, so must they.
        let readable = !to.is_tls() || pattern.is_of_places();
        let diverted = self.proxy.as_ref().is_some_and(|proxy| readable && !proxy.is_private());
        (!diverted).then_some(true)
    }

    /// Whether it is, or goes through, a metadata service.
    pub fn is_metadata(&self) -> bool {
        let all = self.address.iter().chain(self.proxy.iter().filter_map(|proxy| proxy.address.as_ref()));
        all.into_iter().any(|address| address.place() == Place::Metadata)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unknown")?,
        }
        match (&self.address, &self.moved_by) {
            (Some(_), Some(by)) => write!(f, ", set by {by}")?,
            (None, Some(by)) => write!(f, ", because of {by}")?,
            (_, None) => {}
        }
        self.proxy.iter().try_for_each(|proxy| write!(f, ", through the proxy of {}", proxy.variable))
    }
}

/// Where the worker's data will go. `login`: the CLI's own login pays; `moved_in`: the settings file that can move it.
pub fn resolve(spec: &EndpointSpec, env: &BTreeMap<String, String>, login: bool, moved_in: Option<String>) -> Endpoint {
    let mut found = place_of(spec, env, login, moved_in);
    found.proxy = found.address.as_ref().and_then(|address| proxy_for(address, spec.direct_loopback, env));
    found
}

fn place_of(spec: &EndpointSpec, env: &BTreeMap<String, String>, login: bool, moved_in: Option<String>) -> Endpoint {
    let said = |name: &String| env.get(name).filter(|value| !value.trim().is_empty());
    if let Some(file) = moved_in {
        return Endpoint::unknown(file);
    }
    if let Some(name) = unfollowed(spec, env) {
        return Endpoint::unknown(name);
    }
    let on: Vec<&Switch> =
        spec.switches.iter().flatten().filter(|s| said(&s.when).is_some_and(|value| is_on(value))).collect();
    let variables: Vec<&String> = match on.as_slice() {
        [] => spec.variable.iter().collect(),
        [one] => one.variables.iter().collect(),
        [one, other, ..] => return Endpoint::unknown(format!("{} and {}", one.when, other.when)),
    };
    let usual = if login { spec.usual_with_login.as_ref().or(spec.usual.as_ref()) } else { spec.usual.as_ref() };
    let usual = usual.filter(|_| on.is_empty()).and_then(|text| Address::parse(text).ok());
    let moved: Vec<(&String, &String)> = variables.into_iter().filter_map(|name| Some((name, said(name)?))).collect();
    let values: BTreeSet<&String> = moved.iter().map(|(_, value)| *value).collect();
    match (moved.first(), on.first()) {
        (Some((name, _)), _) if values.len() > 1 => Endpoint::unknown(format!("{name} and {}", moved[1].0)),
        (Some((name, value)), _) => {
            let address = match spec.default_port {
                Some(port) => Address::parse_host(value, port),
                None => Address::parse(value),
            };
            match address {
                Ok(address) => {
                    let moved_by = (Some(&address) != usual.as_ref()).then(|| (*name).clone());
                    Endpoint { address: Some(address), moved_by, proxy: None }
                }
                Err(why) => Endpoint::unknown(format!("{name}: {why}")),
            }
        }
        (None, Some(switch)) => Endpoint::unknown(switch.when.as_str()),
        (None, None) => Endpoint { address: usual, moved_by: None, proxy: None },
    }
}

/// A variable that moves the endpoint in a way that the manifest does not follow.
fn unfollowed<'a>(spec: &EndpointSpec, env: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let switches = || spec.switches.iter().flatten();
    let followed: BTreeSet<&String> =
        spec.variable.iter().chain(switches().flat_map(|s| s.variables.iter().chain([&s.when]))).collect();
    let excepted = |name: &str| spec.unknown_with.iter().flatten().any(|one| one.strip_prefix('!') == Some(name));
    let named = |name: &str| {
        !excepted(name)
            && spec.unknown_with.iter().flatten().any(|pattern| match pattern.split_once('*') {
                Some((begin, end)) => {
                    name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
                }
                None => name == pattern,
            })
    };
    env.iter()
        .find(|(name, value)| is_on(value) && !followed.contains(name) && named(name))
        .map(|(name, _)| name.as_str())
}

/// What programs take for a yes varies; what they take for a no does not.
fn is_on(value: &str) -> bool {
    !["", "0", "false", "no", "off"].contains(&value.trim().to_ascii_lowercase().as_str())
}

/// The proxy that a program would use for an address. The forms of `NO_PROXY` that programs read differently do not
/// count: only the host itself, as it is, and `*`.
fn proxy_for(to: &Address, direct_loopback: bool, env: &BTreeMap<String, String>) -> Option<Proxy> {
    if direct_loopback && to.place() == Place::Loopback {
        return None;
    }
    let said = |name: &&str| env.get(*name).is_some_and(|value| !value.trim().is_empty());
    let (host, with_port) = (to.host(), format!("{}:{}", to.host(), to.port()));
    let excepted = |list: &String| {
        list.split([',', ' '])
            .map(str::trim)
            .any(|e| e == "*" || e.eq_ignore_ascii_case(&host) || e.eq_ignore_ascii_case(&with_port))
    };
    // Programs read one of the two spellings: both have to agree that it goes without.
    let lists: Vec<&String> =
        ["no_proxy", "NO_PROXY"].iter().filter(|name| said(name)).map(|name| &env[*name]).collect();
    if !lists.is_empty() && lists.into_iter().all(excepted) {
        return None;
    }
    let own = if to.is_tls() { ["https_proxy", "HTTPS_PROXY"] } else { ["http_proxy", "HTTP_PROXY"] };
    let named = own.into_iter().chain(["all_proxy", "ALL_PROXY"]).filter(said);
    let proxies: Vec<Proxy> = named
        .map(|name| Proxy { variable: name.to_owned(), address: Address::parse_host(env[name].trim(), 80).ok() })
        .collect();
    // Which one a program takes is its own affair: the one that leads farthest counts.
    proxies.iter().find(|proxy| !proxy.is_private()).or(proxies.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> EndpointSpec {
        EndpointSpec {
            variable: Some("X_BASE_URL".into()),
            usual: Some("https://api.x.example".into()),
            usual_with_login: Some("https://login.x.example".into()),
            switches: Some(vec![
                Switch {
                    when: "X_USE_CLOUD".into(),
                    variables: vec!["X_CLOUD_BASE_URL".into(), "CLOUD_URL".into()],
                    pass: vec!["CLOUD_*".into()],
                },
                Switch { when: "X_USE_OTHER".into(), variables: Vec::new(), pass: Vec::new() },
            ]),
            unknown_with: Some(vec!["X_USE_*".into(), "X_*_BASE_URL".into()]),
            ..EndpointSpec::default()
        }
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn told(pairs: &[(&str, &str)]) -> String {
        resolve(&spec(), &env(pairs), false, None).to_string()
    }

    #[test]
    fn what_a_service_needs_passes_while_it_is_chosen() {
        let passed = |value: Option<&str>| {
            let spec = spec();
            let chosen = value.map(str::to_owned);
            spec.passed(|name| chosen.clone().filter(|_| name == "X_USE_CLOUD")).cloned().collect::<Vec<_>>()
        };
        assert_eq!((passed(Some("1")), passed(Some("0")), passed(None)), (vec!["CLOUD_*".to_owned()], vec![], vec![]));
    }

    #[test]
    fn what_moves_an_endpoint_is_followed_or_makes_it_unknown() {
        for (pairs, want) in [
            (&[][..], "https://api.x.example"),
            (&[("X_BASE_URL", "")], "https://api.x.example"),
            (&[("X_BASE_URL", "https://api.x.example/")], "https://api.x.example"),
            (&[("X_BASE_URL", "http://127.0.0.1:1")], "http://127.0.0.1:1, set by X_BASE_URL"),
            (&[("X_USE_CLOUD", "0")], "https://api.x.example"),
            (&[("X_USE_CLOUD", "False")], "https://api.x.example"),
            (&[("X_USE_CLOUD", "1")], "unknown, because of X_USE_CLOUD"),
            (&[("X_USE_CLOUD", "maybe"), ("X_BASE_URL", "http://127.0.0.1")], "unknown, because of X_USE_CLOUD"),
            (&[("X_USE_CLOUD", "1"), ("CLOUD_URL", "http://10.0.0.1")], "http://10.0.0.1, set by CLOUD_URL"),
            (
                &[("X_USE_CLOUD", "1"), ("CLOUD_URL", "http://10.0.0.1"), ("X_CLOUD_BASE_URL", "http://10.0.0.2")],
                "unknown, because of X_CLOUD_BASE_URL and CLOUD_URL",
            ),
            (&[("X_CLOUD_BASE_URL", "http://10.0.0.2")], "https://api.x.example"),
            (&[("X_USE_OTHER", "1"), ("X_USE_CLOUD", "1")], "unknown, because of X_USE_CLOUD and X_USE_OTHER"),
            (&[("X_USE_NEWS", "1")], "unknown, because of X_USE_NEWS"),
            (&[("X_NEW_BASE_URL", "http://127.0.0.1")], "unknown, because of X_NEW_BASE_URL"),
        ] {
            assert_eq!(told(pairs), want, "{pairs:?}");
        }
        let unsound = told(&[("X_BASE_URL", r"http://evil.example\@127.0.0.1/")]);
        assert!(
            unsound.starts_with("unknown, because of X_BASE_URL: it holds") && !unsound.contains("evil"),
            "{unsound}"
        );
        assert_eq!(resolve(&spec(), &env(&[]), true, None).to_string(), "https://login.x.example");
        let moved = resolve(&spec(), &env(&[("X_BASE_URL", "http://127.0.0.1")]), true, Some("settings.json".into()));
        assert_eq!(moved.to_string(), "unknown, because of settings.json");
    }

    #[test]
    fn a_variant_has_its_own_place_and_what_moves_it_stays() {
        let variant = EndpointSpec { usual: Some("http://127.0.0.1".into()), ..EndpointSpec::default() };
        let over = variant.over(spec());
        let to = |pairs: &[(&str, &str)]| resolve(&over, &env(pairs), true, None).to_string();
        assert_eq!(to(&[]), "http://127.0.0.1");
        assert_eq!(to(&[("X_USE_CLOUD", "1")]), "unknown, because of X_USE_CLOUD");
    }

    #[test]
    fn a_proxy_is_on_the_way_unless_the_host_itself_is_excepted() {
        let pattern = |text: &str| Pattern::try_from(text.to_owned()).unwrap();
        let at = |url: &str, pairs: &[(&str, &str)], direct_loopback: bool| {
            let spec = EndpointSpec { usual: Some(url.into()), direct_loopback, ..EndpointSpec::default() };
            resolve(&spec, &env(pairs), false, None)
        };
        let (near, far) = ("http://127.0.0.1:11434", "https://api.x.example/v1");
        let evil = ("http_proxy", "http://proxy.example:3128");
        for (pairs, is_private) in [
            (&[][..], Some(true)),
            (&[evil], None),
            (&[("HTTP_PROXY", "proxy.example:3128")], None),
            (&[("ALL_PROXY", "socks5://127.0.0.1:1080")], None),
            (&[("http_proxy", "http://u:p@127.0.0.1:3128")], None),
            (&[("http_proxy", "127.0.0.1:3128")], Some(true)),
            (&[("http_proxy", "127.0.0.1:3128"), ("HTTP_PROXY", "proxy.example:1")], None),
            (&[("https_proxy", "http://proxy.example")], Some(true)),
            (&[evil, ("no_proxy", "a.example, 127.0.0.1")], Some(true)),
            (&[evil, ("NO_PROXY", "127.0.0.1:11434")], Some(true)),
            (&[evil, ("NO_PROXY", "*")], Some(true)),
            (&[evil, ("NO_PROXY", "127.0.0.0/8")], None),
            (&[evil, ("NO_PROXY", "*"), ("no_proxy", "a.example")], None),
        ] {
            assert_eq!(at(near, pairs, false).is(&pattern("private")), is_private, "{pairs:?}");
        }
        assert_eq!(at(near, &[evil], true).is(&pattern("private")), Some(true), "a CLI that goes without");
        assert_eq!(at("http://10.0.0.1", &[evil], true).is(&pattern("private")), None);
        // TLS ends at the host; in the clear the proxy reads everything.
        let through = [("HTTPS_PROXY", "http://proxy.example")];
        assert_eq!(at(far, &through, false).is(&pattern("https://api.x.example/*")), Some(true));
        assert_eq!(at("http://api.x.example/v1", &[evil], false).is(&pattern("http://api.x.example/*")), None);
        assert_eq!(at(far, &through, false).is(&pattern("private")), Some(false));
        assert!(at(far, &[("https_proxy", "http://169.254.169.254")], false).is_metadata());
    }
}
