//! Attempts a second: a token bucket over `governor`'s atomic state, for one subscription or for many on several threads.
//!
//! Whoever wants a token is given the next one and the time at which it is there, so that those who wait stand in line,
//! wake one by one and never in vain. Never more than rate and burst leave in any second: a token that is used late, because
//! something else was waited for, counts as if it had lain in the bucket until then. Time is an argument.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};

use hookcast_core::model::subscription::RateLimit;

const SECOND: f64 = 1e9;
/// Lateness of a timer that must not cost rate, as a part of a second. A burst gives that by itself; where there is next to
/// none, so much is taken from the rate and lent to the burst, and rate and burst together stay what they are.
const LATENESS: f64 = 0.02;

/// A moment on the clock that never steps, in nanoseconds since some beginning.
pub type Tick = u64;

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    state: InMemoryState,
    /// Tokens that were given and not yet used.
    given: AtomicU32,
    token_ns: u64,
    depth_ns: u64,
}

impl Bucket {
    /// A full bucket for a checked limit.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and bounded by the clamps")]
    pub fn new(limit: RateLimit) -> Self {
        let burst = f64::from(limit.burst.max(1));
        let lent = (LATENESS - (burst - 1.0) / limit.per_second).clamp(0.0, LATENESS);
        let token_ns = (SECOND / (limit.per_second * (1.0 - lent))).clamp(1.0, SECOND * SECOND);
        let depth_ns = (token_ns * (burst + limit.per_second * lent)).min(SECOND * SECOND);
        Self { state: InMemoryState::default(), given: AtomicU32::new(0), token_ns: token_ns as u64, depth_ns: depth_ns as u64 }
    }

    /// Gives the next token away and says when it is there; it must be used ([`Bucket::use_token`]) or given up.
    pub fn give(&self, now: Tick) -> Tick {
        self.given.fetch_add(1, Ordering::Relaxed);
        self.change(|empty_at| {
            let next = empty_at.max(now).saturating_add(self.token_ns);
            (next.saturating_sub(self.depth_ns), next)
        })
    }

    /// Uses a token that is there.
    pub fn use_token(&self, now: Tick) {
        let given = u64::from(self.given.fetch_sub(1, Ordering::Relaxed));
        let full = now.saturating_add(given.saturating_mul(self.token_ns));
        self.change(|empty_at| ((), empty_at.max(full)));
    }

    /// Gives up a token that will not be used; it is lost.
    pub fn give_up(&self) {
        self.given.fetch_sub(1, Ordering::Relaxed);
    }

    fn change<T>(&self, step: impl Fn(Tick) -> (T, Tick)) -> T {
        let change = |before: Option<Nanos>| -> Result<(T, Nanos), std::convert::Infallible> {
            let (result, after) = step(before.map_or(0, Nanos::as_u64));
            Ok((result, Nanos::new(after)))
        };
        match self.state.measure_and_replace(&NotKeyed::NonKey, change) {
            Ok(result) => result,
            Err(never) => match never {},
        }
    }
}

/// How long until `at`, in whole milliseconds, at least one.
#[must_use]
pub fn wait_until(at: Tick, now: Tick) -> Duration {
    Duration::from_millis(at.saturating_sub(now).div_ceil(1_000_000).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const START: Tick = 5_000 * MS;

    fn limit(per_second: f64, burst: u32) -> RateLimit {
        RateLimit { per_second, burst }
    }

    /// Most of `times` that lie in any one second.
    #[allow(clippy::cast_precision_loss)]
    fn peak(times: &[Tick]) -> f64 {
        let within = |from: usize| times[from..].iter().take_while(|at| **at < times[from] + 1000 * MS).count();
        (0..times.len()).map(within).max().unwrap_or(0) as f64
    }

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let bucket = Bucket::new(limit(0.5, 3));
        for _ in 0..3 {
            assert!(bucket.give(START) <= START);
        }
        assert_eq!(bucket.give(START), START + 2_000 * MS);
        assert_eq!(bucket.give(START), START + 4_000 * MS, "the next in line");
    }

    #[test]
    fn tokens_that_were_held_back_do_not_add_up_to_more_than_a_burst() {
        let bucket = Bucket::new(limit(10.0, 4));
        let held: Vec<Tick> = (0..4).map(|_| bucket.give(START)).collect();
        assert!(held.iter().all(|at| *at <= START));
        // The bucket filled up meanwhile, but what is held lay in it.
        let late = START + 10_000 * MS;
        for _ in 0..4 {
            bucket.use_token(late);
        }
        assert!(bucket.give(late) > late);
    }

    proptest! {
        /// Any number of desks with timers that are late, which wait for other things in between, on one bucket.
        #[test]
        fn never_more_than_rate_and_burst_in_any_second(
            rate in 1u32..400, burst in 1u32..50,
            desks in prop::collection::vec(prop::collection::vec(0u64..30, 1..20), 1..6),
        ) {
            let bucket = Bucket::new(limit(f64::from(rate), burst));
            let mut waiting: Vec<(Tick, usize, usize)> = (0..desks.len()).map(|desk| (bucket.give(START), desk, 0)).collect();
            let mut sent: Vec<Tick> = Vec::new();
            let mut now = START;
            while sent.len() < 600 {
                waiting.sort_unstable();
                let (at, desk, round) = waiting.remove(0);
                now = now.max(at) + desks[desk][round % desks[desk].len()] * MS / 4;
                bucket.use_token(now);
                sent.push(now);
                waiting.push((bucket.give(now), desk, round + 1));
            }
            prop_assert!(peak(&sent) <= f64::from(rate) + f64::from(burst) + 1e-6, "{} of {rate} and {burst}", peak(&sent));
        }

        /// One desk whose timer is up to 10 ms late keeps 97 % of the rate, whatever the burst is.
        #[test]
        fn a_late_timer_costs_at_most_three_percent(rate in 1u32..2000, burst in 1u32..100, late in 0u64..10) {
            let bucket = Bucket::new(limit(f64::from(rate), burst));
            let (mut now, mut sent) = (START, 0u32);
            let end = START + 20_000 * MS;
            while now < end {
                let at = bucket.give(now);
                if at > now {
                    now = at.next_multiple_of(MS) + late * MS;
                }
                bucket.use_token(now);
                sent += u32::from(now < end);
            }
            prop_assert!(f64::from(sent) >= 0.97 * f64::from(rate) * 20.0 - 1.0, "{sent} at {rate}/s with a burst of {burst}");
        }
    }
}
