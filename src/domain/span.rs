//! Lengths of time and of data as people write them: `90s`, `10m`, `64MiB`. Stored as integers.

use serde::{Deserialize, Serialize};

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub u64);

impl Span {
    /// Parses `500ms`, `90s`, `10m`, `2h`, `14d`; a bare number is refused, because its unit is a guess.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => {
                return Err(format!("{text:?} is not a duration; write it as 500ms, 90s, 10m, 2h or 14d"));
            }
        };
        scaled(number, scale, text).map(Self)
    }
    /// As the standard library's type.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}
impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}
impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}
impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            ms if ms % 86_400_000 == 0 => write!(f, "{}d", ms / 86_400_000),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// An amount of data in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

impl Size {
    /// Parses `0B`, `64KiB`, `32MiB`, `2GiB`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let scale = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => {
                return Err(format!("{text:?} is not an amount of data; write it as 64KiB, 32MiB or 2GiB"));
            }
        };
        scaled(number, scale, text).map(Self)
    }
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}
impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}
impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}
impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("0B"),
            b if b % (1 << 30) == 0 => write!(f, "{}GiB", b >> 30),
            b if b % (1 << 20) == 0 => write!(f, "{}MiB", b >> 20),
            b if b % (1 << 10) == 0 => write!(f, "{}KiB", b >> 10),
            b => write!(f, "{b}B"),
        }
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scaled(number: &str, scale: u64, text: &str) -> Result<u64, String> {
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .filter(|n| *n < (1 << 53))
        .ok_or_else(|| format!("{text:?} is too large or has no number"))
}

/// Milliseconds for people: `80 ms`, `4.2 s`, `3m 05s`, `2h 07m`, `3d 04h`.
pub fn human_millis(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", ms / 60_000, ms % 60_000 / 1000),
        3_600_000..86_400_000 => format!("{}h {:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{}d {:02}h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// So many of a thing, as people write it: `1 receipt`, `2 receipts`.
pub fn counted(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Millionths of a US dollar as people write them: `$0.05`, and more digits of what is less than a cent.
pub fn dollars(micros: u64) -> String {
    match micros {
        0 => "$0".to_owned(),
        1..100 => "<$0.0001".to_owned(),
        100..10_000 => format!("$0.{:04}", micros / 100),
        // To the next cent, as a price is.
        _ => {
            let cents = (micros + 5_000) / 10_000;
            format!("${}.{:02}", cents / 100, cents % 100)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_back_what_they_print() {
        for text in ["500ms", "90s", "10m", "2h", "0s"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for text in ["0B", "3B", "64KiB", "32MiB", "2GiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "10", "s", "1.5s", "-1s", "10 m", "99999999999999999h"] {
            assert!(Span::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Size::parse("10MB").is_err(), "decimal units are a guess too many");
        assert_eq!((Span::parse("2m"), Span::parse("1d")), (Ok(Span(120_000)), Ok(Span(86_400_000))));
        assert_eq!((Size::parse("2MiB"), Size::parse("1GiB")), (Ok(Size(2 << 20)), Ok(Size(1 << 30))));
        assert_eq!((Span(86_400_000).to_string(), Span(1500).to_string()), ("1d".to_owned(), "1500ms".to_owned()));
        assert_eq!((String::from(Span(1500)), String::from(Size(1024))), ("1500ms".to_owned(), "1KiB".to_owned()));
        assert_eq!(Span(1500).duration(), std::time::Duration::from_millis(1500));
        // A number that every reader of JSON holds exactly.
        assert_eq!(Size::parse("9007199254740991B"), Ok(Size((1 << 53) - 1)));
        assert!(Size::parse("9007199254740992B").is_err());
    }

    #[test]
    fn lengths_of_time_and_money_are_told_as_people_say_them() {
        for (ms, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1.0 s"),
            (4250, "4.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1m 00s"),
            (185_900, "3m 05s"),
            (3_599_999, "59m 59s"),
            (7_620_000, "2h 07m"),
            (273_600_000, "3d 04h"),
        ] {
            assert_eq!(human_millis(ms), words);
        }
        let told = [0, 99, 4_310, 53_100, 995_000, 12_000_001].map(dollars);
        assert_eq!(told, ["$0", "<$0.0001", "$0.0043", "$0.05", "$1.00", "$12.00"]);
    }
}
