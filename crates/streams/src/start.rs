//! Where a stream begins, as clients say it: `since`, `Last-Event-ID`. Text in, a position or a time out.

use std::time::Duration;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_core::units;

/// Longest `Last-Event-ID` that is read.
pub const LAST_EVENT_ID_BYTES_MAX: usize = 64;

/// Where a stream begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Behind the newest event.
    #[default]
    Latest,
    /// At the oldest event kept.
    Earliest,
    /// Behind this position; behind zero is [`Start::Earliest`].
    After(Seq),
    /// With the first event that arrived at this time or later.
    At(Timestamp),
    /// With the first event that arrived this long ago or later.
    Ago(Duration),
}

/// Why a text says no beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Not one of the forms of `since`.
    #[error("`since` is `latest`, `earliest`, a position, an RFC 3339 time or a duration such as `10m`")]
    Since,
    /// Not a position.
    #[error("a last event id is the position of an event: decimal digits, at most {LAST_EVENT_ID_BYTES_MAX} of them")]
    LastEventId,
}

impl Start {
    /// Reads the value of `since`.
    ///
    /// # Errors
    /// [`StartError::Since`] when it is none of the forms.
    pub fn parse_since(text: &str) -> Result<Self, StartError> {
        match text {
            "latest" => return Ok(Self::Latest),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        if let Some(seq) = parse_seq(text) {
            return Ok(Self::After(seq));
        }
        if let Ok(ago) = units::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        // The `+` of an offset that was not percent-encoded arrives as a space.
        let time = Timestamp::parse_rfc3339(text).or_else(|_| Timestamp::parse_rfc3339(&text.replace(' ', "+")));
        time.map(Self::At).map_err(|_| StartError::Since)
    }

    /// Reads a `Last-Event-ID`: the position of the last event a client has seen, as it was sent.
    ///
    /// # Errors
    /// [`StartError::LastEventId`] for anything but a bounded number of digits.
    pub fn parse_last_event_id(text: &[u8]) -> Result<Self, StartError> {
        let text = std::str::from_utf8(text).ok().and_then(parse_seq);
        text.map(Self::After).ok_or(StartError::LastEventId)
    }
}

/// A number too large for a position stands beyond every log, and so does the largest position.
pub(super) fn parse_seq(text: &str) -> Option<Seq> {
    let digits = (1..=LAST_EVENT_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Seq(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn since_has_five_forms() {
        assert_eq!(Start::parse_since("latest"), Ok(Start::Latest));
        assert_eq!(Start::parse_since("earliest"), Ok(Start::Earliest));
        assert_eq!(Start::parse_since("42"), Ok(Start::After(Seq(42))));
        assert_eq!(Start::parse_since("10m"), Ok(Start::Ago(Duration::from_mins(10))));
        let noon = Timestamp::parse_rfc3339("2026-01-01T12:00:00Z").unwrap();
        assert_eq!(Start::parse_since("2026-01-01T12:00:00Z"), Ok(Start::At(noon)));
        assert_eq!(Start::parse_since("2026-01-01T14:00:00+02:00"), Ok(Start::At(noon)));
        assert_eq!(Start::parse_since("2026-01-01T14:00:00 02:00"), Ok(Start::At(noon)));
        for wrong in ["", "yesterday", "-1", "1.5m", "2026-01-01", "latest "] {
            assert_eq!(Start::parse_since(wrong), Err(StartError::Since), "{wrong:?}");
        }
    }

    #[test]
    fn a_last_event_id_is_a_position_even_a_huge_one() {
        assert_eq!(Start::parse_last_event_id(b"0"), Ok(Start::After(Seq(0))));
        assert_eq!(Start::parse_last_event_id(b"99999999999999999999"), Ok(Start::After(Seq(u64::MAX))));
        let long = [b'1'; 10_240];
        for wrong in [&b""[..], b"-1", b"+1", b"1 ", b"abc", b"0x1", b"\xff", &long] {
            assert_eq!(Start::parse_last_event_id(wrong), Err(StartError::LastEventId), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = Start::parse_since(&text);
            let _ = Start::parse_last_event_id(text.as_bytes());
        }
    }
}
