//! How many attempts an endpoint that was slowed down may have at the same time. Pure.
//!
//! Every answer that says "too much" (429, 502, 504, a time-out) halves it, once for all attempts that were under way then.
//! After as many successes as may be in flight, one more may be, until the subscription's own limit is reached; then there is
//! no pace to keep any more.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::{ErrorKind, Outcome};

/// Steps in which even the highest limit is reached again.
const STEPS: u32 = 64;

/// The pace of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    allowed: u32,
    successes: u32,
    slowed_at: Timestamp,
}

impl Pace {
    /// Begins with one attempt at a time.
    #[must_use]
    pub fn from_one(now: Timestamp) -> Self {
        Self { allowed: 1, successes: 0, slowed_at: now }
    }

    /// Attempts at the same time.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        self.allowed
    }

    /// The pace after an attempt that began at `began`; `None` = as fast as `in_flight_max`, the limit of a healthy endpoint.
    #[must_use]
    pub fn after(before: Option<Self>, outcome: &Outcome, began: Timestamp, now: Timestamp, in_flight_max: u32) -> Option<Self> {
        if is_too_much(outcome) {
            let old = before.unwrap_or(Self { allowed: in_flight_max, successes: 0, slowed_at: Timestamp(i64::MIN) });
            // Those that were under way when it was slowed down say the same thing again.
            let allowed = if began < old.slowed_at { old.allowed } else { (old.allowed / 2).max(1) };
            let slowed_at = if began < old.slowed_at { old.slowed_at } else { now };
            return Some(Self { allowed, successes: 0, slowed_at });
        }
        let mut pace = before?;
        if outcome.is_success() {
            pace.successes += 1;
            if pace.successes >= pace.allowed {
                pace.successes = 0;
                pace.allowed += (in_flight_max / STEPS).max(1);
            }
        }
        (pace.allowed < in_flight_max).then_some(pace)
    }

    /// The same on a clock that was moved by `by_ms`.
    pub fn shift(&mut self, by_ms: i64) {
        self.slowed_at = Timestamp(self.slowed_at.0.saturating_add(by_ms));
    }
}

/// Whether an outcome says that it was too much at a time.
#[must_use]
pub fn is_too_much(outcome: &Outcome) -> bool {
    match (outcome.error(), outcome.status()) {
        (Some(ErrorKind::Status), Some(status)) => matches!(status, 429 | 502 | 504),
        (Some(ErrorKind::Timeout), _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::model::outcome::Answer;
    use proptest::prelude::*;

    fn answer(status: u16) -> Outcome {
        Outcome::answered(Answer::of(status), 1)
    }

    fn hung() -> Outcome {
        Outcome::failed(ErrorKind::Timeout, 1)
    }

    fn after(pace: Option<Pace>, outcome: &Outcome, now: i64) -> Option<Pace> {
        Pace::after(pace, outcome, Timestamp(now), Timestamp(now), 16)
    }

    #[test]
    fn too_much_halves_and_other_failures_do_not() {
        let mut pace = None;
        let answers = [answer(429), answer(502), answer(504), hung(), answer(429)];
        for ((now, wanted), answer) in [(1, 8), (2, 4), (3, 2), (4, 1), (5, 1)].into_iter().zip(&answers) {
            pace = after(pace, answer, now);
            assert_eq!(pace.unwrap().allowed(), wanted);
        }
        assert_eq!(after(None, &answer(500), 1), None);
        assert_eq!(after(pace, &answer(503), 9).unwrap().allowed(), 1);
    }

    #[test]
    fn what_was_under_way_together_halves_once() {
        let mut pace = Pace::after(None, &answer(502), Timestamp(0), Timestamp(10), 16);
        for ended in 11..20 {
            pace = Pace::after(pace, &answer(502), Timestamp(1), Timestamp(ended), 16);
        }
        assert_eq!(pace.unwrap().allowed(), 8);
    }

    #[test]
    fn a_window_of_successes_allows_one_more_until_nothing_holds_it_back() {
        let mut pace = Some(Pace::from_one(Timestamp(0)));
        let mut windows = Vec::new();
        let mut seen = 0;
        while let Some(now) = pace {
            windows.push(now.allowed());
            seen += 1;
            pace = after(pace, &answer(200), 1);
        }
        assert_eq!(seen, (1..16).sum::<u32>());
        assert!(windows.windows(2).all(|pair| pair[1] - pair[0] <= 1));
    }

    proptest! {
        #[test]
        fn the_pace_is_never_nothing_and_never_over_the_limit(
            statuses in prop::collection::vec(prop::sample::select(vec![200u16, 204, 400, 429, 500, 502, 503, 504]), 0..300),
            limit in 1u32..5000,
        ) {
            let mut pace = None;
            for (now, status) in statuses.into_iter().enumerate() {
                let now = Timestamp(i64::try_from(now).unwrap());
                pace = Pace::after(pace, &answer(status), now, now, limit);
                prop_assert!(pace.is_none_or(|pace| pace.allowed() >= 1 && pace.allowed() <= limit));
            }
        }
    }
}
