//! The limits of a line, and what is said of one that is none.

use super::*;
use crate::domain::Name;
use crate::domain::receipt::DispatchRefused;

#[test]
fn a_number_is_one_that_every_reader_keeps() {
    for (text, value, rest) in [
        ("0", 0, ""),
        ("7,", 7, ","),
        ("10:", 10, ":"),
        ("1:", 1, ":"),
        ("9007199254740991\"", MAX_INTEGER, "\""),
        ("0x", 0, "x"),
    ] {
        assert_eq!(number(text.as_bytes()), Some((value, rest.as_bytes())), "{text}");
    }
    for bad in ["", "-1", "00", "01", "+1", "9007199254740992", "99999999999999999999", ":"] {
        assert_eq!(number(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn integers_beyond_what_readers_keep_are_found_wherever_they_stand() {
    for before in ["", " ", "   ", "       "] {
        for (number, is) in [
            ("9007199254740991", false),
            ("9007199254740992", true),
            ("-9007199254740991", false),
            ("-9007199254740992", true),
            ("123456789012345678901", true),
            ("1234567890123456", false),
            ("12345678", false),
        ] {
            for json in [format!("{{{before}\"n\":{number}}}"), format!("{{{before}\"n\":[1,{number}]}}")] {
                assert_eq!(beyond(&json), is, "{json}");
            }
            assert!(!beyond(&format!("{{{before}\"n\":\"{number}\"}}")), "a text is none");
        }
    }
    // The first long one may be harmless.
    assert!(beyond(r#"{"a":"99999999999999999999","b":1234567890123456,"c":99999999999999999999}"#));
    for (block, is) in [
        (*b"01234567", true),
        (*b"99999999", true),
        (*b"0123456:", false),
        (*b"/1234567", false),
        (*b"0123 567", false),
    ] {
        assert_eq!(all_digits(block), is);
    }
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
    let name = Name::parse("agent", "a").unwrap();
    let of = |bytes: usize| {
        let refused = DispatchRefused { agent: name.clone(), rule: "x".into(), reason: "r".repeat(bytes) };
        Draft::of(&Entry::ledger(Body::DispatchRefused(refused)), &Redactor::default())
    };
    let longest = |draft: &Draft| draft.line(&Digest::ZERO, MAX_INTEGER, Timestamp::EPOCH).0;
    let beside = longest(&of(1).unwrap()).len() - 1;
    let line = longest(&of(MAX_LINE - beside).unwrap());
    assert_eq!(line.len(), MAX_LINE);
    assert!(links(line.as_bytes()).is_ok() && parse(line.as_bytes()).is_ok());
    assert!(links(format!("{line}x").as_bytes()).unwrap_err().contains("longer than"));
    assert!(of(MAX_LINE - beside + 1).unwrap_err().contains("over the limit"));
}

#[test]
fn only_a_version_that_is_newer_is_called_newer() {
    let said = |v: &str| links(format!("{{\"v\":{v},\"prev\":").as_bytes()).unwrap_err();
    assert!(said("2").contains("is newer than 1") && said("10").contains("is newer than 1"));
    for other in ["0", "02", "x", "", "1.0"] {
        assert!(said(other).contains("there is no format version"), "{other}: {}", said(other));
    }
}

#[test]
fn what_is_wrong_is_named_and_what_is_the_ledgers_own_is_known() {
    let text = include_str!("../../../receipts/golden/sound.ndjson");
    let line = text.lines().nth(1).unwrap();
    let said = |from: &str, to: &str| {
        assert!(line.contains(from), "{line}");
        links(line.replacen(from, to, 1).as_bytes()).and_then(|links| links.payload().map(drop)).unwrap_err()
    };
    assert_eq!(said("\"ts\":\"20", "\"ts\":\"x0"), "ts is not as the format has it");
    assert_eq!(said(",\"data\":{", ",\"data\":["), "data is not as the format has it");
    assert_eq!(said("},\"hash\"", "}],\"hash\""), "data is not as the format has it");
    assert_eq!(said("\"key\":\"", "\"key\":\"x"), "key is not as the format has it");
    for line in text.lines() {
        let own = line.contains("\"kind\":\"ledger.") || line.contains("\"kind\":\"anchor.");
        assert_eq!(links(line.as_bytes()).unwrap().is_structural(), own, "{line}");
    }
}

/// Every place of a payload in which a blank may stand, and every text that looks like one.
#[test]
fn blanks_stand_in_texts_only() {
    let json = r#"{"a":1,"b":[1,-2,"x"],"c":{"d":true,"e":"p, q: {r} [s] \"t\": 1 , \\"},"f":[],"g":"","h":null,"i":[{"j":false}]}"#;
    assert!(!is_spaced(json));
    let outside = |at: usize| {
        let (mut inside, mut escaped) = (false, false);
        for byte in json.bytes().take(at) {
            (inside, escaped) = match byte {
                b'"' if !escaped => (!inside, false),
                b'\\' => (inside, !escaped),
                _ => (inside, false),
            };
        }
        !inside
    };
    for blank in [" ", "\t", "\r", "  "] {
        for at in 1..json.len() {
            let spaced = format!("{}{blank}{}", &json[..at], &json[at..]);
            // Within a number or a word it would be no JSON, which the parser refuses.
            if serde_json::from_str::<serde_json::Value>(&spaced).is_ok() {
                assert_eq!(is_spaced(&spaced), outside(at), "{spaced}");
            }
        }
    }
}
