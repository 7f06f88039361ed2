//! The delays that Twitter's streams ask for: by the kind of failure, each growing by itself, without jitter.
//!
//! Broken connections wait 250 ms longer each time, up to 16 s; unusable answers 5 s, doubling up to 320 s; 420 and 429 a
//! minute, doubling up to an hour. A stream that was read again begins from the start.

use std::time::Duration;

use super::{Ending, EndingClass, Next, ReconnectSettings};
use hookcast_core::clock::RETRY_AFTER_MAX;

const NETWORK_STEP: Duration = Duration::from_millis(250);
const NETWORK_MAX: Duration = Duration::from_secs(16);
const ANSWER_MIN: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(320);
const LIMITED_MIN: Duration = Duration::from_mins(1);
/// Nobody says how long; an hour keeps a source that was let in again from being away for days.
const LIMITED_MAX: Duration = Duration::from_hours(1);

/// Failures in a row of one kind.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    kind: Option<Kind>,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No connection, or one that broke or fell silent.
    Network,
    /// An answer that cannot be read.
    Answer,
    /// An answer that asks for fewer requests.
    Limited,
}

impl Kind {
    fn of(ending: &Ending) -> Self {
        match (ending.class, ending.slug) {
            (_, "rate_limited") => Self::Limited,
            (EndingClass::Denied, _)
            | (_, "status" | "empty" | "content_type" | "content_encoding" | "decode" | "decompression_limit") => Self::Answer,
            _ => Self::Network,
        }
    }
}

impl Backoff {
    /// A connection ended, or did not come about; `was_read` = it held or brought something.
    pub(super) fn ended(&mut self, ending: &Ending, was_read: bool, settings: &ReconnectSettings) -> Next {
        if matches!(ending.class, EndingClass::Stop | EndingClass::Cancelled) {
            return Next::Stop;
        }
        let kind = Kind::of(ending);
        if was_read || self.kind != Some(kind) {
            self.failures = 0;
        }
        self.kind = Some(kind);
        self.failures = self.failures.saturating_add(1);
        let doubled = |first: Duration| first.saturating_mul(1 << (self.failures - 1).min(20));
        let delay = match kind {
            Kind::Network => NETWORK_STEP.saturating_mul(self.failures).min(NETWORK_MAX),
            Kind::Answer => doubled(ANSWER_MIN).min(ANSWER_MAX),
            Kind::Limited => doubled(LIMITED_MIN).min(LIMITED_MAX),
        };
        let floor = if ending.class == EndingClass::Denied { settings.auth_delay_min } else { Duration::ZERO };
        let asked = ending.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        Next::After(delay.max(floor).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays_ms(endings: &[(EndingClass, &'static str)]) -> Vec<u128> {
        let (mut backoff, settings) = (Backoff::default(), ReconnectSettings::default());
        let delays = endings.iter().map(|(class, slug)| match backoff.ended(&Ending::new(*class, slug, ""), false, &settings) {
            Next::After(delay) => delay.as_millis(),
            Next::Stop => panic!("stopped"),
        });
        delays.collect()
    }

    #[test]
    fn each_kind_of_failure_has_its_own_growth_and_end() {
        use EndingClass::{Denied, Failed, Lost};
        assert_eq!(delays_ms(&[(Lost, "eof"), (Failed, "connect"), (Lost, "idle"), (Failed, "dns")]), [250, 500, 750, 1000]);
        assert_eq!(delays_ms(&[(Failed, "connect"); 100])[62..66], [15_750, 16_000, 16_000, 16_000]);
        assert_eq!(
            delays_ms(&[(Failed, "status"); 9]),
            [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 320_000, 320_000]
        );
        assert_eq!(delays_ms(&[(Failed, "rate_limited"); 3]), [60_000, 120_000, 240_000]);
        assert_eq!(delays_ms(&[(Failed, "rate_limited"); 40])[39], 3_600_000);
        assert_eq!(delays_ms(&[(Denied, "auth"), (Denied, "auth")]), [60_000, 60_000]);
    }

    #[test]
    fn another_kind_and_a_stream_that_was_read_begin_anew() {
        use EndingClass::{Failed, Lost};
        assert_eq!(
            delays_ms(&[(Failed, "status"), (Failed, "status"), (Lost, "eof"), (Failed, "status")]),
            [5_000, 10_000, 250, 5_000]
        );
        let (mut backoff, settings) = (Backoff::default(), ReconnectSettings::default());
        for _ in 0..3 {
            let lost = Ending::new(Lost, "eof", "");
            assert_eq!(backoff.ended(&lost, true, &settings), Next::After(NETWORK_STEP));
        }
    }

    #[test]
    fn what_the_upstream_asks_for_is_a_floor_and_a_stop_is_one() {
        let (mut backoff, settings) = (Backoff::default(), ReconnectSettings::default());
        let limited = Ending::new(EndingClass::Failed, "rate_limited", "").with_retry_after(Some(Duration::from_mins(5)));
        assert_eq!(backoff.ended(&limited, false, &settings), Next::After(Duration::from_mins(5)));
        assert_eq!(backoff.ended(&Ending::cancelled(), false, &settings), Next::Stop);
    }
}
