//! `Retry-After`, read in one way for everybody who is told to wait: whole seconds, or any of the three forms of an HTTP date.
//!
//! Spec: RFC 9110 §10.2.3 and §5.6.7.

use std::time::Duration;

use jiff::fmt::rfc2822;

use super::Timestamp;

/// Longest time that anybody can ask to be left alone.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// Longest date that is read, in bytes; of digits there may be more.
const DATE_BYTES_MAX: usize = 64;
/// How far ahead a year of two digits can lie.
const YEARS_AHEAD_MAX: i16 = 50;

/// How long the value of a `Retry-After` header asks to wait, at most [`RETRY_AFTER_MAX`]; nothing for a date that is over. `None`
/// for anything that is neither whole seconds nor a date: signs, fractions, words.
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs);
        return Some(seconds.min(RETRY_AFTER_MAX));
    }
    http_date(text, now).map(|date| date.since(now).min(RETRY_AFTER_MAX))
}

/// An HTTP date; the day of the week is decoration, which senders get wrong.
fn http_date(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text.len() > DATE_BYTES_MAX {
        return None;
    }
    imf_fixdate(text).or_else(|| rfc850(text, now)).or_else(|| asctime(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, with whatever zone.
fn imf_fixdate(text: &str) -> Option<Timestamp> {
    let date = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Timestamp(date.as_millisecond()))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`: of the years that end so, the last that is not more than fifty years ahead.
fn rfc850(text: &str, now: Timestamp) -> Option<Timestamp> {
    let (_, date) = text.split_once(", ")?;
    let (day, rest) = date.split_once('-')?;
    let (month, rest) = rest.split_once('-')?;
    let (digits, time) = rest.split_once(' ')?;
    let is_short = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let short: i16 = digits.parse().ok().filter(|_| is_short)?;
    let today = jiff::Timestamp::from_millisecond(now.0).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    let latest = today.checked_add(jiff::Span::new().years(YEARS_AHEAD_MAX)).ok()?;
    let year = latest.year() - (latest.year() - short).rem_euclid(100);
    let of = |year: i16| imf_fixdate(&format!("{day} {month} {year:04} {time}"));
    let at_most = Timestamp(latest.timestamp().as_millisecond());
    of(year).filter(|date| *date <= at_most).or_else(|| of(year - 100))
}

/// `Sun Nov  6 08:49:37 1994`, always UTC.
fn asctime(text: &str) -> Option<Timestamp> {
    let (_, date) = text.split_once(' ')?;
    let mut parts = date.split_ascii_whitespace();
    let (month, day, time, year) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_year = year.len() == 4 && parts.next().is_none();
    is_year.then(|| imf_fixdate(&format!("{day} {month} {year} {time} GMT"))).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn waits(text: &str) -> Option<u64> {
        retry_after(text, at("2026-11-29T08:00:00Z")).map(|wait| wait.as_secs())
    }

    #[test]
    fn whole_seconds_are_read_and_nothing_like_them() {
        for (text, wanted) in [
            ("120", Some(120)),
            (" \t120 ", Some(120)),
            ("0", Some(0)),
            ("007", Some(7)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("", None),
            (" ", None),
            ("-5", None),
            ("+5", None),
            ("120.5", None),
            ("1e3", None),
            ("0x10", None),
            ("٣", None),
            ("120, 60", None),
            ("120 s", None),
            ("soon", None),
        ] {
            assert_eq!(waits(text), wanted, "{text:?}");
        }
        assert_eq!(waits(&"9".repeat(60_000)), Some(86_400));
        assert_eq!(waits(&format!("Sun, {}", "9".repeat(60_000))), None);
    }

    #[test]
    fn each_form_of_a_date_says_the_same() {
        for text in [
            "Sun, 29 Nov 2026 08:00:20 GMT",
            "Sunday, 29-Nov-26 08:00:20 GMT",
            "Sun Nov 29 08:00:20 2026",
            // The wrong day of the week, and a zone.
            "Mon, 29 Nov 2026 08:00:20 GMT",
            "Monday, 29-Nov-26 08:00:20 GMT",
            "Mon Nov 29 08:00:20 2026",
            "Sun, 29 Nov 2026 10:00:20 +0200",
        ] {
            assert_eq!(waits(text), Some(20), "{text:?}");
        }
        for over in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(waits(over), Some(0), "{over:?}");
        }
        for far in ["Fri, 31 Dec 2099 23:59:59 GMT", "Tuesday, 31-Dec-30 23:59:59 GMT", "Fri Dec 31 23:59:59 2099"] {
            assert_eq!(waits(far), Some(86_400), "{far:?}");
        }
        for none in [
            "Sunday, 32-Nov-26 08:00:20 GMT",
            "Sunday, 29-Nov-2026 08:00:20 GMT",
            "Sunday, 29-Nov-+6 08:00:20 GMT",
            "Sunday, 29-Nov-26 08:00:20",
            "Sun Nov 29 08:00:20 26",
            "Sun Nov 29 08:00:20 2026 GMT",
            "Sun Nov 29 25:00:20 2026",
            "2026-11-29T08:00:20Z",
            ", --",
        ] {
            assert_eq!(waits(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        for (now, text, wanted) in [
            ("2026-11-29T08:00:00Z", "Sunday, 29-Nov-76 08:00:00 GMT", "2076-11-29T08:00:00Z"),
            ("2026-11-29T08:00:00Z", "Sunday, 29-Nov-76 08:00:01 GMT", "1976-11-29T08:00:01Z"),
            ("2026-11-29T08:00:00Z", "Sunday, 01-Jan-77 00:00:00 GMT", "1977-01-01T00:00:00Z"),
            ("2026-11-29T08:00:00Z", "Sunday, 01-Jan-26 00:00:00 GMT", "2026-01-01T00:00:00Z"),
            ("2026-11-29T08:00:00Z", "Sunday, 06-Nov-94 08:49:37 GMT", "1994-11-06T08:49:37Z"),
            ("2099-12-31T23:59:50Z", "Friday, 01-Jan-00 00:00:00 GMT", "2100-01-01T00:00:00Z"),
            ("1999-12-31T23:59:50Z", "Saturday, 01-Jan-00 00:00:00 GMT", "2000-01-01T00:00:00Z"),
            // Only one of the years has such a day.
            ("2026-11-29T08:00:00Z", "Tuesday, 29-Feb-00 00:00:00 GMT", "2000-02-29T00:00:00Z"),
        ] {
            assert_eq!(rfc850(text, at(now)), Some(at(wanted)), "{text} at {now}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_form_a_date_within_a_day_is_waited_for(now_s in 0i64..4_000_000_000, wait_s in 0u64..86_400) {
            let now = Timestamp(now_s * 1000);
            let then = jiff::Timestamp::from_second(now_s + wait_s.cast_signed()).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            for form in ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"] {
                let text = then.strftime(form).to_string();
                prop_assert_eq!(retry_after(&text, now), Some(Duration::from_secs(wait_s)), "{}", text);
            }
            prop_assert_eq!(retry_after(&wait_s.to_string(), now), Some(Duration::from_secs(wait_s)));
        }

        #[test]
        fn no_text_is_waited_for_longer_than_a_day(text in "\\PC{0,80}", now in any::<i64>()) {
            prop_assert!(retry_after(&text, Timestamp(now)).is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        }

        #[test]
        fn nor_is_anything_like_a_date(
            text in "(Sun|Sunday)?,? ?[0-9]{0,3}[- ]?(Nov|nov|Feb)?[- ]?[0-9]{0,5} [0-9:]{0,9} ?(GMT|UTC|[+-][0-9]{4})?( [0-9]{4})?",
            now in any::<i64>(),
        ) {
            prop_assert!(retry_after(&text, Timestamp(now)).is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        }
    }
}
