//! Attempts a second for one subscription: a token bucket by `governor`.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::model::subscription::RateLimit;

/// The bucket of one subscription.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    bucket: RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>,
    clock: DefaultClock,
}

impl Limiter {
    /// A full bucket for a checked limit.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let period = Duration::from_secs_f64((1.0 / limit.per_second).clamp(1e-9, 1e9));
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        Self { limit, bucket: RateLimiter::direct(quota), clock: DefaultClock::default() }
    }

    /// The limit it keeps.
    #[must_use]
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Spends a token, or says how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn spend(&self) -> Result<(), Duration> {
        self.bucket.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let limiter = Limiter::new(RateLimit { per_second: 0.5, burst: 3 });
        for _ in 0..3 {
            assert!(limiter.spend().is_ok());
        }
        let wait = limiter.spend().unwrap_err();
        assert!(wait > Duration::from_millis(1900) && wait <= Duration::from_secs(2), "{wait:?}");
    }
}
