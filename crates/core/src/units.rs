//! Durations and sizes as people write them: `250ms`, `15s`, `7d`, `64KiB`, `10GiB`.
//!
//! One number, one unit, nothing else: `1h30m`, `1.5s` and a bare `10` are refused, because each of them has been read in two
//! ways by two programs. Pure text work; what range a value may have is the reader's business.

use std::time::Duration;

/// Units of a duration in milliseconds, largest first.
const DURATION_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of a size in bytes, largest first.
const SIZE_UNITS: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is not a duration or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Digits without a unit.
    #[error("needs a unit")]
    NeedsUnit,
    /// Not digits followed by one of the units.
    #[error("is not a whole number followed by a unit")]
    Malformed,
    /// More than 64 bits of the smallest unit.
    #[error("is too large")]
    TooLarge,
}

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// [`UnitError`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, DURATION_UNITS).map(Duration::from_millis)
}

/// Writes a duration with the largest unit that divides it; what is finer than a millisecond is cut.
#[must_use]
pub fn format_duration(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    // Zero is written in the unit people expect, not in the largest one.
    if millis == 0 { "0s".to_owned() } else { format(millis, DURATION_UNITS) }
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
///
/// # Errors
/// [`UnitError`] for anything else.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, SIZE_UNITS)
}

/// Writes a size with the largest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 { "0B".to_owned() } else { format(bytes, SIZE_UNITS) }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(UnitError::Malformed);
    }
    if unit.is_empty() {
        return Err(UnitError::NeedsUnit);
    }
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or(UnitError::Malformed)?;
    // Only digits are left, so the one way to fail is to be too large.
    let number: u64 = digits.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(factor).ok_or(UnitError::TooLarge)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units.iter().find(|(_, factor)| value.is_multiple_of(*factor)).unwrap_or(&("", 1));
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_unit_is_understood() {
        for (text, millis) in
            [("250ms", 250), ("15s", 15_000), ("30m", 1_800_000), ("2h", 7_200_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, bytes) in [("1B", 1), ("64KiB", 65_536), ("1MiB", 1 << 20), ("10GiB", 10 << 30), ("2TiB", 2 << 40)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        assert_eq!(parse_duration("10"), Err(UnitError::NeedsUnit));
        assert_eq!(parse_duration("99999999999999999999h"), Err(UnitError::TooLarge));
        assert_eq!(parse_duration("9999999999999999h"), Err(UnitError::TooLarge));
        for text in ["", "s", "-5s", "+5s", "1.5s", "1h30m", "5 s", " 5s", "5S", "5sec", "٥s", "0x5s"] {
            assert_eq!(parse_duration(text), Err(UnitError::Malformed), "{text:?}");
        }
        for text in ["10GB", "10K", "1e3B", "10 MiB"] {
            assert_eq!(parse_size(text), Err(UnitError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn values_are_written_in_their_largest_unit() {
        assert_eq!(format_duration(Duration::from_secs(15)), "15s");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_hours(24)), "1d");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_size(10 << 30), "10GiB");
        assert_eq!(format_size(1_000), "1000B");
    }

    proptest! {
        #[test]
        fn a_duration_survives_its_text_form(millis in any::<u64>()) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(value)), Ok(value));
        }

        #[test]
        fn a_size_survives_its_text_form(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
