//! A moment in UTC with microseconds, as receipts write it (RFC 3339, always `Z`).

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch. Time is a claim of the local clock: order in the ledger
/// comes from `seq`, never from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// From microseconds since the epoch; `None` outside the years -9999 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        jiff::Timestamp::from_microsecond(micros).ok().map(Self)
    }
    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0.as_microsecond()
    }
    /// Reads exactly the form that this type prints: `2026-11-21T01:02:03.456789Z`.
    pub fn strict(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let shape = b"0000-00-00T00:00:00.000000Z";
        let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
        if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
            return None;
        }
        let number =
            |from: usize, to: usize| bytes[from..to].iter().fold(0, |n, digit| n * 10 + i32::from(digit - b'0'));
        let part = |from: usize| i8::try_from(number(from, from + 2)).ok();
        let year = i16::try_from(number(0, 4)).ok()?;
        // Leap seconds are refused, and so are the years that not every reader knows.
        let date = Date::new(year, part(5)?, part(8)?).ok().filter(|_| (1..9999).contains(&year))?;
        let time = Time::new(part(11)?, part(14)?, part(17)?, number(20, 26) * 1000).ok()?;
        jiff::tz::Offset::UTC.to_timestamp(DateTime::from_parts(date, time)).ok().map(Self)
    }
    /// `YYYYMMDD-HHMMSS`, the head of a dispatch id.
    pub fn compact(self) -> String {
        self.0.strftime("%Y%m%d-%H%M%S").to_string()
    }
    /// `HH:MM:SS` in a time zone.
    pub fn clock(self, zone: &TimeZone) -> String {
        zone.to_datetime(self.0).strftime("%H:%M:%S").to_string()
    }
    /// For lists, in a time zone: `HH:MM:SS`, and on another day than `now`'s `YYYY-MM-DD HH:MM`.
    pub fn moment(self, now: Self, zone: &TimeZone) -> String {
        let day = |at: Self| zone.to_datetime(at.0).date();
        let text = || zone.to_datetime(self.0).strftime("%Y-%m-%d %H:%M").to_string();
        if day(self) == day(now) { self.clock(zone) } else { text() }
    }
    /// Milliseconds from `earlier` to here, zero if the clock went back.
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from((self.micros() - earlier.micros()) / 1000).unwrap_or(0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}
impl From<Timestamp> for String {
    fn from(at: Timestamp) -> Self {
        at.to_string()
    }
}
impl TryFrom<String> for Timestamp {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_distances() {
        let at = Timestamp::from_micros(1_795_255_323_000_001).unwrap();
        assert_eq!((at.compact(), at.clock(&TimeZone::UTC)), ("20261121-100203".to_owned(), "10:02:03".to_owned()));
        let later = |hours: i64| Timestamp::from_micros(at.micros() + hours * 3_600_000_000).unwrap();
        let moment = |hours: i64| at.moment(later(hours), &TimeZone::UTC);
        // It is 23:02 there, and another day an hour later.
        let east = TimeZone::fixed(jiff::tz::offset(13));
        assert_eq!(
            (at.clock(&east), at.moment(later(1), &east)),
            ("23:02:03".to_owned(), "2026-11-21 23:02".to_owned())
        );
        assert_eq!((moment(13), moment(14)), ("10:02:03".to_owned(), "2026-11-21 10:02".to_owned()));
        let later = Timestamp::from_micros(at.micros() + 2_500_999).unwrap();
        assert_eq!((later.millis_since(at), at.millis_since(later)), (2500, 0));
        for edge in ["0001-01-01T00:00:00.000000Z", "9998-12-31T23:59:59.999999Z"] {
            assert_eq!(Timestamp::strict(edge).unwrap().to_string(), edge);
        }
    }

    #[test]
    fn it_prints_as_rfc_3339_with_six_digits_and_reads_back() {
        let at = Timestamp::from_micros(1_795_255_323_000_001).unwrap();
        assert_eq!(at.to_string(), "2026-11-21T10:02:03.000001Z");
        assert_eq!(Timestamp::try_from(String::from(at)).unwrap(), at);
        assert_eq!(Timestamp::strict(&at.to_string()), Some(at));
        for other in [
            "2026-11-21T10:02:03Z",
            "2026-11-21T10:02:60.000001Z",
            "2026-11-21 10:02:03.000001Z",
            "",
            "é",
            "0000-01-01T00:00:00.000000Z",
            "9999-01-01T00:00:00.000000Z",
        ] {
            assert_eq!(Timestamp::strict(other), None, "{other}");
        }
    }
}
