//! When to ask again after an answer that was good. Pure: time and chance come in as arguments.
//!
//! What failed is waited for by `reconnect`.

use std::time::Duration;

use hyper::header::{AGE, CACHE_CONTROL, HeaderMap};

/// Longest wait that an upstream may ask for.
const ASKED_MAX: Duration = Duration::from_hours(24);
/// Longest wait after requests that time out in a row.
const TIMEOUT_WAIT_MAX: Duration = Duration::from_mins(5);
/// A request that was held this long before it timed out is what a long poll without news looks like.
pub(super) const HELD_AFTER: Duration = Duration::from_secs(5);

/// What an answer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Events, and a position behind them that is new: there may be more at once.
    Further,
    /// Events without that.
    Events,
    /// Nothing.
    Nothing,
    /// The upstream's own time was up (408, 504).
    TimedOut,
}

/// The waits between the requests of one source.
#[derive(Debug)]
pub(super) struct Pace {
    is_long: bool,
    every: Duration,
    timeouts: u32,
}

impl Pace {
    pub(super) fn new(is_long: bool, every: Duration) -> Self {
        Self { is_long, every, timeouts: 0 }
    }

    /// How long to wait after an answer that took `took`; `asked` is what the upstream wants, `random` uniform over all values.
    pub(super) fn wait(&mut self, came: Came, took: Duration, asked: Duration, random: u64) -> Duration {
        let is_timeout = came == Came::TimedOut && took < HELD_AFTER;
        self.timeouts = if is_timeout { (self.timeouts + 1).min(20) } else { 0 };
        let own = if is_timeout {
            let ceiling = self.every.saturating_mul(1 << self.timeouts).min(TIMEOUT_WAIT_MAX).max(self.every);
            self.every + part(ceiling.saturating_sub(self.every), random)
        } else if !self.is_long {
            // Sources that were made together do not ask together for ever.
            (self.every + part(self.every / 10, random)).saturating_sub(took)
        } else if came == Came::Further {
            Duration::ZERO
        } else {
            self.every.saturating_sub(took)
        };
        own.max(asked.min(ASKED_MAX))
    }
}

fn part(span: Duration, random: u64) -> Duration {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random % micros.saturating_add(1).max(1))
}

/// How long an answer is fresh, as its `Cache-Control` says.
///
/// Spec: RFC 9111 §4.2.
pub(super) fn fresh_for(headers: &HeaderMap) -> Duration {
    let texts = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> = texts.flat_map(|text| text.split(',')).map(|one| one.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|one| one == "no-cache" || one == "no-store") {
        return Duration::ZERO;
    }
    let age = headers.get(AGE).and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0_u64);
    let seconds = directives.iter().find_map(|one| one.strip_prefix("max-age=")?.trim_matches('"').parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or(0).saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_long_poll_waits_only_for_what_came_at_once_and_brought_nothing_further() {
        let mut pace = Pace::new(true, SECOND);
        assert_eq!(pace.wait(Came::Further, NOW, NOW, 7), NOW);
        assert_eq!(pace.wait(Came::Events, NOW, NOW, 7), SECOND);
        assert_eq!(pace.wait(Came::Nothing, Duration::from_millis(400), NOW, 7), Duration::from_millis(600));
        assert_eq!(pace.wait(Came::Nothing, Duration::from_secs(30), NOW, 7), NOW);
        assert_eq!(pace.wait(Came::TimedOut, Duration::from_secs(30), NOW, 7), NOW, "held as long as the upstream could");
        assert_eq!(pace.wait(Came::Further, NOW, Duration::from_secs(7), 7), Duration::from_secs(7));
    }

    #[test]
    fn requests_that_time_out_at_once_are_made_less_and_less_often() {
        let mut pace = Pace::new(true, SECOND);
        for round in 1..30 {
            let wait = pace.wait(Came::TimedOut, NOW, NOW, u64::MAX / 3);
            assert!(wait >= SECOND && wait <= (SECOND * 2_u32.saturating_pow(round)).min(TIMEOUT_WAIT_MAX), "{round}: {wait:?}");
        }
        assert_eq!(pace.wait(Came::Nothing, NOW, NOW, 7), SECOND);
        assert!(pace.wait(Came::TimedOut, NOW, NOW, u64::MAX) <= 2 * SECOND);
    }

    #[test]
    fn a_poll_keeps_its_interval_and_what_the_upstream_asks_for() {
        let mut pace = Pace::new(false, Duration::from_mins(1));
        assert_eq!(pace.wait(Came::Further, NOW, NOW, 0), Duration::from_mins(1));
        assert_eq!(pace.wait(Came::Nothing, Duration::from_secs(10), NOW, 0), Duration::from_secs(50));
        assert_eq!(pace.wait(Came::Nothing, NOW, Duration::from_hours(1), 5), Duration::from_hours(1));
        assert_eq!(pace.wait(Came::Nothing, NOW, Duration::from_hours(99), 5), ASKED_MAX);
    }

    #[test]
    fn freshness_is_what_the_cache_may_assume() {
        let fresh = |text: &'static str, age: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
            headers.insert(AGE, HeaderValue::from_static(age));
            fresh_for(&headers).as_secs()
        };
        assert_eq!(fresh("public, Max-Age=60", "10"), 50);
        assert_eq!(fresh("max-age=\"60\"", "99"), 0);
        assert_eq!(fresh("max-age=60, no-cache", "0"), 0);
        assert_eq!(fresh("max-age=soon", "x"), 0);
    }

    proptest! {
        #[test]
        fn any_wait_is_bounded(came in 0_usize..4, took in 0_u64..100_000, asked in any::<u64>(), random in any::<u64>(), long: bool) {
            let came = [Came::Further, Came::Events, Came::Nothing, Came::TimedOut][came];
            let wait = Pace::new(long, SECOND).wait(came, Duration::from_millis(took), Duration::from_secs(asked), random);
            prop_assert!(wait <= ASKED_MAX);
        }
    }
}
