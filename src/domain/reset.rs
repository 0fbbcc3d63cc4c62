//! When a provider's limit resets, as its CLI words it. Pure.
//!
//! Codex: "… try again at Nov 18th, 2026 11:06 AM." in local time. Claude Code: "… resets 11:06am (UTC)", or
//! "resets 3pm (Europe/Amsterdam)", which is the next such moment.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

const JUST_PASSED: SignedDuration = SignedDuration::from_mins(5);

/// The moment that a message names, if it names one. `local` is the time zone of this machine.
pub fn reset_at(message: &str, now: Timestamp, local: &TimeZone) -> Option<Timestamp> {
    if let Some((_, rest)) = message.split_once("try again at ") {
        return absolute(rest).and_then(|at| at.to_zoned(local.clone()).ok()).map(|zoned| zoned.timestamp());
    }
    let (_, rest) = message.split_once("resets ")?;
    let (clock, rest) = rest.split_once(" (")?;
    let zone = TimeZone::get(rest.split_once(')')?.0).ok()?;
    let today = now.to_zoned(zone.clone()).date();
    let at = |date: Date| date.to_datetime(time(clock)?).to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp());
    // Clocks differ: a moment that has just passed is that one and not tomorrow's.
    at(today).filter(|at| *at + JUST_PASSED >= now).or_else(|| at(today.checked_add(1.day()).ok()?))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Nov 18th, 2026 11:06 AM`, whatever follows.
fn absolute(text: &str) -> Option<DateTime> {
    let mut words = text.split_whitespace();
    let month = words.next()?;
    let month = i8::try_from(MONTHS.iter().position(|m| month.starts_with(m))?).ok()? + 1;
    let day: i8 = words.next()?.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    let year: i16 = words.next()?.parse().ok()?;
    let (clock, half) = (words.next()?, words.next()?.trim_end_matches('.'));
    Some(Date::new(year, month, day).ok()?.to_datetime(time(&format!("{clock}{half}"))?))
}

/// `11:06am`, `3pm`.
fn time(text: &str) -> Option<Time> {
    let text = text.to_ascii_lowercase();
    let (clock, afternoon) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(clock), _) => (clock, false),
        (None, Some(clock)) => (clock, true),
        (None, None) => return None,
    };
    let (hour, minute) = clock.split_once(':').unwrap_or((clock, "0"));
    let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
    let hour = (1..=12).contains(&hour).then_some(hour % 12 + if afternoon { 12 } else { 0 })?;
    Time::new(hour, minute, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(message: &str, now: &str) -> Option<String> {
        let now = now.parse().unwrap();
        reset_at(message, now, &TimeZone::UTC).map(|t| t.to_string())
    }

    #[test]
    fn the_words_of_the_clis_name_a_moment() {
        let codex = "You’ve hit your usage limit. Upgrade to Pro or try again at Nov 18th, 2026 11:06 PM.";
        assert_eq!(at(codex, "2026-11-18T01:00:00Z").unwrap(), "2026-11-18T23:06:00Z");
        let claude = "You've hit your 5-hour limit · resets 11:06am (UTC)";
        assert_eq!(at(claude, "2026-11-18T10:00:00Z").unwrap(), "2026-11-18T11:06:00Z");
        assert_eq!(at(claude, "2026-11-18T12:00:00Z").unwrap(), "2026-11-19T11:06:00Z");
        // A clock that is ahead of the provider's does not cost a day.
        assert_eq!(at(claude, "2026-11-18T11:06:00Z").unwrap(), "2026-11-18T11:06:00Z");
        assert_eq!(at(claude, "2026-11-18T11:11:00Z").unwrap(), "2026-11-18T11:06:00Z");
        assert_eq!(at(claude, "2026-11-18T11:11:01Z").unwrap(), "2026-11-19T11:06:00Z");
        assert_eq!(at("limit · resets 12am (UTC)", "2026-11-18T12:00:00Z").unwrap(), "2026-11-19T00:00:00Z");
        assert_eq!(at("limit · resets 3pm (UTC)", "2026-11-18T12:00:00Z").unwrap(), "2026-11-18T15:00:00Z");
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "try again at noon",
            "try again at Foo 1st, 2026 1:00 AM",
            "try again at Nov 31st, 2026 1:00 AM",
            "resets 25pm (UTC)",
            "resets 3 (UTC)",
            "resets 3pm (Nowhere/At-All)",
            "resets soon",
            "try again at Nov 18th, 2026 13:00 PM",
        ] {
            assert_eq!(at(text, "2026-11-18T12:00:00Z"), None, "{text}");
        }
    }
}
