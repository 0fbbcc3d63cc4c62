use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Place {
    Address::parse_host(text, 11434).unwrap_or_else(|why| panic!("{text}: {why}")).place()
}

#[test]
fn the_table_of_addresses() {
    use Place::{CarrierNat, LinkLocal, Loopback, Metadata, Private, Public, UniqueLocal, Unspecified};
    for (text, place) in [
        ("http://127.0.0.1:11434", Loopback),
        ("https://127.255.255.254/v1?a=b", Loopback),
        ("127.0.0.1", Loopback),
        ("localhost", Loopback),
        ("LOCALHOST:11434", Loopback),
        ("HTTP://localhost/", Loopback),
        ("http://[::1]:1/", Loopback),
        ("::1", Loopback),
        ("[0:0:0:0:0:0:0:1]:8080", Loopback),
        ("[::ffff:127.0.0.1]", Loopback),
        ("10.1.2.3:80", Private),
        ("http://192.168.0.2/v1", Private),
        ("172.16.0.1", Private),
        ("[::ffff:10.0.0.1]", Private),
        ("172.32.0.1", Public),
        ("0.0.0.0:11434", Unspecified),
        ("[::]", Unspecified),
        ("0.0.0.1", Public),
        ("[fd00::1]", UniqueLocal),
        ("[fc00::1]", UniqueLocal),
        ("[fec0::1]", Public),
        ("169.254.1.1", LinkLocal),
        ("[fe80::1]", LinkLocal),
        ("100.64.0.1", CarrierNat),
        ("100.127.255.255", CarrierNat),
        ("100.128.0.1", Public),
        ("8.8.8.8", Public),
        ("2001:db8::1", Public),
        ("http://example.org", Public),
        ("localhost.example.org", Public),
        ("a.localhost", Public),
        ("ollama", Public),
        // What a gateway would make of these is in its network, not in ours.
        ("[::127.0.0.1]", Public),
        ("[64:ff9b::10.0.0.1]", Public),
        ("[2002:7f00:1::]", Public),
        ("169.254.169.254", Metadata),
        ("http://169.254.170.2/v2/credentials", Metadata),
        ("169.254.170.23", Metadata),
        ("100.100.100.200", Metadata),
        ("168.63.129.16", Metadata),
        ("192.0.0.192", Metadata),
        ("[fd00:ec2::254]", Metadata),
        ("[fd00:ec2::23]", Metadata),
        ("[fd20:ce::254]", Metadata),
        ("[::ffff:169.254.169.254]", Metadata),
        ("[::a9fe:a9fe]", Metadata),
        ("[64:ff9b::a9fe:a9fe]", Metadata),
        ("[64:ff9b:1::a9fe:a9fe]", Metadata),
        ("[2002:a9fe:a9fe::]", Metadata),
        ("http://metadata.google.internal/", Metadata),
        ("METADATA.goog", Metadata),
        ("instance-data", Metadata),
    ] {
        assert_eq!(at(text), place, "{text}");
    }
    let private = [Loopback, Private, UniqueLocal, Unspecified, LinkLocal, Metadata, CarrierNat, Public];
    assert_eq!(private.map(Place::is_private), [true, true, true, true, false, false, false, false]);
}

/// Texts of which two programs can think differently are no address.
#[test]
fn what_leaves_a_question_is_refused() {
    use Unsound::{Character, Host, Path, Port, Scheme};
    for (text, why) in [
        (r"http://evil.example\@127.0.0.1/", Character),
        (r"http://127.0.0.1\@evil.example/", Character),
        ("http://127.0.0.1@evil.example/", Character),
        ("http://user:pass@127.0.0.1/", Character),
        ("http://127.0.0.1#@evil.example/", Character),
        ("http://127.0.0.1?@evil.example/", Character),
        (" http://127.0.0.1", Scheme),
        ("http://127.0.0.1 ", Character),
        ("http://127.0.0.1\t.evil.example", Character),
        ("http://127.0.0.1\n", Character),
        ("http://127.0.0.1\0", Character),
        ("http://127。0。0。1", Character),
        ("http://localhoſt", Character),
        ("http://%31%32%37.0.0.1", Host),
        ("http://127.0.0.1%2f.evil.example", Host),
        ("http://0x7f.1", Host),
        ("http://0x7f000001", Host),
        ("http://2130706433", Host),
        ("http://127.1", Host),
        ("http://0177.0.0.1", Host),
        ("http://127.0.0.01", Host),
        ("http://1.2.3.4.5", Host),
        ("http://127.0.0.1.", Host),
        ("http://localhost.", Host),
        ("http://.localhost", Host),
        ("http://a..b", Host),
        ("http://xn--bcher-kva.example", Host),
        ("http://-a.example", Host),
        ("http://[::1%25eth0]", Host),
        ("http://[fe80::1%eth0]", Host),
        ("http://[::1", Host),
        ("http://[::1]x", Host),
        ("http://[v1.a]", Host),
        ("http://", Host),
        ("http:///127.0.0.1", Host),
        ("http://:80", Host),
        ("http://::1", Host),
        ("http:127.0.0.1", Scheme),
        ("http:/127.0.0.1", Scheme),
        ("//127.0.0.1", Scheme),
        ("127.0.0.1", Scheme),
        ("", Scheme),
        ("file:///etc/passwd", Scheme),
        ("socks5://127.0.0.1:1080", Scheme),
        ("http://127.0.0.1:0", Port),
        ("http://127.0.0.1:", Port),
        ("http://127.0.0.1:65536", Port),
        ("http://127.0.0.1:080", Port),
        ("http://127.0.0.1:+80", Port),
        ("http://127.0.0.1:80:80", Port),
        ("http://127.0.0.1/a/../b", Path),
        ("http://127.0.0.1/a/%2E./b", Path),
    ] {
        assert_eq!(Address::parse(text), Err(why), "{text:?}");
    }
    for text in ["127.0.0.1:0", "a b", "user@127.0.0.1", "127.1", "[::1]:x", "\"127.0.0.1\""] {
        assert!(Address::parse_host(text, 11434).is_err(), "{text:?}");
    }
}

#[test]
fn an_address_is_shown_without_its_path_and_read_back() {
    for (text, shown) in [
        ("https://Gateway.example.org:443/t/secret", "https://gateway.example.org"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.to_string(), shown);
        assert_eq!(Address::parse(shown).unwrap().to_string(), shown);
    }
    assert_eq!(Address::parse_host("10.0.0.7", 11434).unwrap().to_string(), "http://10.0.0.7:11434");
    assert_eq!(Address::parse_host("http://10.0.0.7", 11434).unwrap().to_string(), "http://10.0.0.7");
}

#[test]
fn a_pattern_is_an_origin_and_the_begin_of_a_path() {
    let matches = |pattern: &str, text: &str| {
        Pattern::try_from(pattern.to_owned()).unwrap().matches(&Address::parse(text).unwrap())
    };
    for (pattern, text) in [
        ("https://api.z.ai/*", "https://api.z.ai/api/anthropic"),
        ("https://api.z.ai*", "https://API.z.ai:443/api"),
        ("https://api.z.ai", "https://api.z.ai/"),
        ("http://127.0.0.1:*", "http://127.0.0.1:8080/v1"),
        ("*", "https://example.org"),
        ("private", "http://10.0.0.1"),
    ] {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("https://api.z.ai*", "https://api.z.ai.evil.example/"),
        ("https://api.z.ai/*", "http://api.z.ai/"),
        ("https://api.z.ai/a/*", "https://api.z.ai/b"),
        ("https://api.z.ai", "https://api.z.ai/a"),
        ("http://127.0.0.1*", "http://127.0.0.1:8080"),
        ("private", "http://169.254.169.254"),
    ] {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
    for bad in ["http://10.*", "https://*.z.ai", "api.z.ai", "https://u@h/*", "Private", ""] {
        assert!(Pattern::try_from(bad.to_owned()).is_err(), "{bad}");
    }
}

/// What hosts are made of where somebody wants to be taken for another.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "http://",
        "https://",
        "http:",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "#",
        "?",
        ".",
        "[",
        "]",
        "%",
        "%2e",
        "%00",
        "\t",
        "\n",
        " ",
        "127.0.0.1",
        "127.1",
        "0x7f",
        "0177",
        "2130706433",
        "::1",
        "::ffff:",
        "fe80::1",
        "10.0.0.1",
        "localhost",
        "evil.example",
        "169.254.169.254",
        "xn--",
        "ß",
        "。",
        "１",
        "80",
        "0",
        "v1",
    ];
    let word = prop_oneof![4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    proptest::collection::vec(word, 0..8).prop_map(|words| words.concat())
}

proptest! {
    /// No text on whose host the two readings differ is ever an address, and none has a place without both.
    #[test]
    fn readings_that_differ_are_never_private(text in prop_oneof![pieces(), pieces().prop_map(|t| format!("http://{t}"))]) {
        let Ok(address) = Address::parse(&text) else { return Ok(()) };
        let url = Url::parse(&text).unwrap();
        prop_assert_eq!(url.host().map(|h| h.to_owned()), Some(address.host.clone()));
        // RFC 3986, appendix B: the authority is what stands between `//` and the next of `/?#`, its host after `@`.
        let rest = text.split_once("//").unwrap().1;
        let authority = rest.split(['/', '?', '#']).next().unwrap();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = host.rsplit_once(':').filter(|(_, end)| !end.contains(']')).map_or(host, |(host, _)| host);
        prop_assert_eq!(Host::parse(host).ok(), Some(address.host.clone()));
        prop_assert!(!authority.contains(['@', '\\', '%']));
        prop_assert_eq!(Address::parse(&address.to_string()).unwrap().place(), address.place());
    }
}
