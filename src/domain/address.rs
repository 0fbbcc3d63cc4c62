//! Where an address on the network leads: one reading of URLs and one table of addresses.
//!
//! CLIs read URLs in two ways, by RFC 3986 and as browsers do (WHATWG), and a text that the two take for different
//! hosts is how a policy is passed by: `http://evil.example\@127.0.0.1/`. So an address is one only where a strict
//! reading by RFC 3986 and the crate `url` find the same scheme, host, port and path. Everything else has no place.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This machine.
    Loopback,
    /// A private network of IPv4 (RFC 1918).
    Private,
    /// A private network of IPv6 (RFC 4193).
    UniqueLocal,
    /// This machine, by the address that stands for none (`0.0.0.0`, `::`).
    Unspecified,
    /// The same cable or virtual switch, where cloud platforms put services of their own.
    LinkLocal,
    /// A metadata service of a cloud platform, which gives out credentials of the machine.
    Metadata,
    /// Behind a carrier's address translation, shared with strangers (RFC 6598).
    CarrierNat,
    /// Anywhere: a public address, or a name, which anybody's name server may lead anywhere.
    Public,
}

impl Place {
    /// Whether what is sent there stays on this machine or in a private network.
    pub fn is_private(self) -> bool {
        matches!(self, Self::Loopback | Self::Private | Self::UniqueLocal | Self::Unspecified)
    }
}

/// Metadata services by IPv4: AWS, Azure, Google and most others; AWS containers; Alibaba; Azure's wire server;
/// Oracle; Scaleway; Tencent.
const METADATA_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(169, 254, 42, 42),
    Ipv4Addr::new(169, 254, 0, 23),
];

/// Metadata services by IPv6: AWS, AWS containers, Google, Oracle, Scaleway.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Metadata services by name: Google, AWS, Tencent, Equinix, IBM.
const METADATA_NAMES: [&str; 9] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
    "api.metadata.cloud.ibm.com",
];

/// The table of addresses.
pub fn place(ip: IpAddr) -> Place {
    match ip {
        IpAddr::V4(ip) => place_v4(ip),
        IpAddr::V6(ip) => place_v6(ip),
    }
}

fn place_v4(ip: Ipv4Addr) -> Place {
    let [a, b, ..] = ip.octets();
    match () {
        () if METADATA_V4.contains(&ip) => Place::Metadata,
        () if ip.is_loopback() => Place::Loopback,
        () if ip.is_private() => Place::Private,
        () if ip.is_link_local() => Place::LinkLocal,
        () if ip.is_unspecified() => Place::Unspecified,
        () if a == 100 && b & 0xc0 == 64 => Place::CarrierNat,
        () => Place::Public,
    }
}

fn place_v6(ip: Ipv6Addr) -> Place {
    // The kernel sends this form as IPv4, so it is what it embeds.
    if let Some(four) = ip.to_ipv4_mapped() {
        return place_v4(four);
    }
    match () {
        () if METADATA_V6.contains(&ip) => Place::Metadata,
        () if ip.is_loopback() => Place::Loopback,
        () if ip.is_unspecified() => Place::Unspecified,
        () if ip.is_unique_local() => Place::UniqueLocal,
        () if ip.is_unicast_link_local() => Place::LinkLocal,
        // A gateway somewhere makes IPv4 of it: its private networks are not ours, but a metadata service may be near.
        () if translated(ip).is_some_and(|four| METADATA_V4.contains(&four)) => Place::Metadata,
        () => Place::Public,
    }
}

/// The IPv4 address that a gateway would take out of this one: IPv4-compatible, NAT64 (RFC 6052, RFC 8215), 6to4.
fn translated(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = ip.segments();
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0 | 1, _, _, _, high, low] | [0x2002, high, low, ..] => {
            four(high, low)
        }
        _ => None,
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Not `http://` or `https://`.
    #[error("it does not begin with http:// or https://")]
    Scheme,
    /// A character that one of the readings gives a meaning, or drops.
    #[error("it holds a space, a control character, a backslash, an @, a # or another character that no address needs")]
    Character,
    /// Not a name, and not an address as it is usually written.
    #[error("its host is neither a plain name nor an IP address in its usual form")]
    Host,
    /// No port from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// `.` or `..`, plain or encoded.
    #[error("its path holds . or ..")]
    Path,
    /// The two readings differ.
    #[error("programs that read it would not agree where it leads")]
    Ambiguous,
}

/// A URL of which every program finds the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    is_tls: bool,
    host: Host<String>,
    port: u16,
    path: String,
}

impl Address {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, Unsound> {
        let strict = strict(text)?;
        let url = Url::parse(text).map_err(|_| Unsound::Ambiguous)?;
        let same = url.scheme() == if strict.is_tls { "https" } else { "http" }
            && url.host().is_some_and(|host| host.to_owned() == strict.host)
            && url.port_or_known_default() == Some(strict.port)
            && url.path() == strict.path
            && url.username().is_empty()
            && url.password().is_none();
        if same { Ok(strict) } else { Err(Unsound::Ambiguous) }
    }

    /// Reads `HOST`, `HOST:PORT` or a URL, as `OLLAMA_HOST` and proxies may be given. Without a scheme it is plain HTTP.
    pub fn parse_host(text: &str, default_port: u16) -> Result<Self, Unsound> {
        if text.contains("://") {
            return Self::parse(text);
        }
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let is_six = authority.parse::<Ipv6Addr>().is_ok();
        let authority = if is_six { format!("[{authority}]") } else { authority.to_owned() };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, end)| !end.contains(']'));
        let port = if has_port { String::new() } else { format!(":{default_port}") };
        Self::parse(&format!("http://{authority}{port}{path}"))
    }

    /// Where it leads.
    pub fn place(&self) -> Place {
        match &self.host {
            Host::Ipv4(ip) => place_v4(*ip),
            Host::Ipv6(ip) => place_v6(*ip),
            Host::Domain(name) if name == "localhost" => Place::Loopback,
            Host::Domain(name) if METADATA_NAMES.contains(&name.as_str()) => Place::Metadata,
            Host::Domain(_) => Place::Public,
        }
    }

    /// Whether what is sent is encrypted up to the host itself.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host as it is written in lists of hosts, such as `NO_PROXY`.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Ipv6(ip) => ip.to_string(),
            other => other.to_string(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The address without its path, which may hold what is not for everybody's eyes.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual_port(self.is_tls) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = Unsound;
    fn try_from(text: String) -> Result<Self, Unsound> {
        Self::parse(&text)
    }
}

fn usual_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

/// The reading by RFC 3986, of only those texts that leave no question.
fn strict(text: &str) -> Result<Address, Unsound> {
    let (scheme, rest) = text.split_once("://").ok_or(Unsound::Scheme)?;
    let is_tls = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err(Unsound::Scheme),
    };
    if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\"#<>@\\^`{|}".contains(&b)) {
        return Err(Unsound::Character);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = (&rest[..end], rest[end..].split('?').next().unwrap_or_default());
    let (host, port) = if let Some(six) = authority.strip_prefix('[') {
        let (six, port) = six.split_once(']').ok_or(Unsound::Host)?;
        (Host::Ipv6(six.parse().map_err(|_| Unsound::Host)?), port)
    } else {
        let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        (plain_host(name).ok_or(Unsound::Host)?, port)
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => plain_port(digits).ok_or(Unsound::Port)?,
        None if port.is_empty() => usual_port(is_tls),
        None => return Err(Unsound::Host),
    };
    let dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(dots) {
        return Err(Unsound::Path);
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Address { is_tls, host, port, path: path.to_owned() })
}

fn plain_port(digits: &str) -> Option<u16> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0)
}

/// A name of letters, digits, `-` and `_`, or IPv4 in its four decimal numbers. No form in which some program finds a
/// number (`127.1`, `0x7f000001`), no encoded name (`xn--…`), no dot at the end.
fn plain_host(text: &str) -> Option<Host<String>> {
    if let Ok(four) = text.parse::<Ipv4Addr>() {
        return Some(Host::Ipv4(four));
    }
    let name = text.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
            && !label.ends_with('-')
            // Also what is reserved beside: `--` at that place is for encodings.
            && label.as_bytes().get(2..4) != Some(b"--")
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|c: char| c.is_ascii_digit());
    (name.len() <= 253 && name.split('.').all(label) && !is_number).then_some(Host::Domain(name))
}

/// What a constraint says of an address: `private`, or a URL that may end with `*`; `:*` stands for every port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// This machine and private networks.
    Private,
    /// Any address that is known.
    Any,
    /// This origin.
    Of { address: Address, every_port: bool, path_begins: bool },
}

impl TryFrom<String> for Pattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let form = match text.as_str() {
            "private" => Form::Private,
            "*" => Form::Any,
            url => {
                let (begin, path_begins) = url.strip_suffix('*').map_or((url, false), |begin| (begin, true));
                let (begin, every_port) = begin.strip_suffix(':').map_or((begin, false), |b| (b, path_begins));
                let address = Address::parse(begin).map_err(|why| {
                    format!("endpoint {text:?}: {why}; write private, or a URL as https://host/path, with * at its end")
                })?;
                Form::Of { address, every_port, path_begins }
            }
        };
        Ok(Self { text, form })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl Pattern {
    /// Every address that is known.
    pub fn any() -> Self {
        Self { text: "*".to_owned(), form: Form::Any }
    }

    /// Whether an address is what the pattern stands for.
    pub fn matches(&self, to: &Address) -> bool {
        match &self.form {
            Form::Private => to.place().is_private(),
            Form::Any => true,
            Form::Of { address, every_port, path_begins } => {
                address.is_tls == to.is_tls
                    && address.host == to.host
                    && (*every_port || address.port == to.port)
                    && if *path_begins { to.path.starts_with(&address.path) } else { to.path == address.path }
            }
        }
    }

    /// Whether it is about the nature of the place, and not about one host.
    pub fn is_of_places(&self) -> bool {
        matches!(self.form, Form::Private)
    }

    /// Whether it names a host.
    pub fn names_a_host(&self) -> bool {
        matches!(self.form, Form::Of { .. })
    }
}

#[cfg(test)]
mod tests;
