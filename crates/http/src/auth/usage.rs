//! What a token has in use, held against its limits: streams, events a second, and a turn to make definitions in.
//!
//! Lives as long as the token is in force, shared by all workers. Knows neither definitions nor streams.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::tickets::Pass;
use crate::problem::{self, Problem};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::administration::TokenLimits;
use hookcast_streams::Allowance;

/// Events that may come at once however low the rate is, so that a whole request of the usual size fits.
const BURST_MIN: u32 = 1000;

/// What one token has in use.
#[derive(Debug)]
pub struct Usage {
    limits: TokenLimits,
    expires_at: Option<Timestamp>,
    /// No longer in force: what it holds open ends.
    is_over: AtomicBool,
    streams: AtomicU32,
    publish: Option<DefaultDirectRateLimiter>,
    making: Arc<Mutex<()>>,
}

/// A stream that counts for a token; no longer when dropped.
#[derive(Debug)]
pub struct Seat {
    usage: Arc<Usage>,
    pass: Option<Pass>,
}

impl Usage {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: TokenLimits, expires_at: Option<Timestamp>) -> Self {
        let rate = limits.publish_per_second.and_then(NonZeroU32::new);
        let burst = |rate: NonZeroU32| rate.max(NonZeroU32::new(BURST_MIN).unwrap_or(rate));
        let publish = rate.map(|rate| RateLimiter::direct(Quota::per_second(rate).allow_burst(burst(rate))));
        Self { limits, expires_at, is_over: AtomicBool::new(false), streams: AtomicU32::new(0), publish, making: Arc::default() }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> TokenLimits {
        self.limits
    }

    /// Ends what the token holds open: it was revoked.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether the token is no longer in force.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.is_over.load(Ordering::Acquire) || self.expires_at.is_some_and(|end| now >= end)
    }

    /// The turn to make a definition: counting and making are one step, so that two requests cannot share the last place.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.making).lock_owned().await
    }

    /// Takes a place for a stream.
    ///
    /// # Errors
    /// `token_limit`
    pub fn seat(self: &Arc<Self>) -> Result<Seat, Problem> {
        let most = self.limits.streams.unwrap_or(u32::MAX);
        let taken = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < most).then(|| open + 1));
        taken.map(|_| Seat { usage: Arc::clone(self), pass: None }).map_err(|_| reached(most, "streams").retry_after(5))
    }

    /// Takes events of one request from the rate.
    ///
    /// # Errors
    /// `too_many_requests` with the seconds to wait, `batch_too_large` for more events than may ever come at once.
    pub fn publish(&self, events: usize) -> Result<(), Problem> {
        let (Some(limiter), Some(rate)) = (&self.publish, self.limits.publish_per_second) else { return Ok(()) };
        let Some(events) = NonZeroU32::new(u32::try_from(events).unwrap_or(u32::MAX)) else { return Ok(()) };
        let not_until = match limiter.check_n(events) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until,
            Err(_) => {
                let detail = format!("this token may publish {} events at once", rate.max(BURST_MIN));
                return Err(Problem::new(problem::BATCH_TOO_LARGE, detail));
            }
        };
        let wait = not_until.wait_time_from(DefaultClock::default().now());
        let wait_s = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let detail = format!("this token may publish {rate} events a second; nothing of the request was stored");
        Err(Problem::new(problem::TOO_MANY_REQUESTS, detail).retry_after(wait_s))
    }
}

impl Seat {
    /// The same under a ticket, with which it ends, too.
    pub(super) fn under(self, pass: Option<Pass>) -> Self {
        let mut seat = self;
        seat.pass = pass;
        seat
    }
}

impl Allowance for Seat {
    fn is_over(&self, now: Timestamp) -> bool {
        self.usage.is_over(now) || self.pass.as_ref().is_some_and(|pass| pass.is_over(now))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.usage.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A limit of the token is reached.
#[must_use]
pub fn reached(most: u32, what: &str) -> Problem {
    Problem::new(problem::TOKEN_LIMIT, format!("this token may have {most} {what}, and has them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(streams: u32, publish: u32) -> Arc<Usage> {
        let limits = TokenLimits { streams: Some(streams), publish_per_second: Some(publish), ..TokenLimits::default() };
        Arc::new(Usage::new(limits, Some(Timestamp(1000))))
    }

    #[test]
    fn a_seat_that_is_given_back_can_be_taken_again() {
        let usage = usage(1, 1);
        let seat = usage.seat().unwrap();
        assert_eq!(usage.seat().unwrap_err().slug(), "token_limit");
        drop(seat);
        let seat = usage.seat().unwrap();
        assert!(!seat.is_over(Timestamp(999)) && seat.is_over(Timestamp(1000)));
        usage.end();
        assert!(seat.is_over(Timestamp(0)));
    }

    #[test]
    fn a_burst_fits_once_and_then_the_rate_holds() {
        let usage = usage(1, 1);
        assert!(usage.publish(0).is_ok());
        assert_eq!(usage.publish(5000).unwrap_err().slug(), "batch_too_large");
        assert!(usage.publish(1000).is_ok());
        let refused = usage.publish(500).unwrap_err();
        assert_eq!(refused.slug(), "too_many_requests");
        assert!(refused.response().headers().contains_key("retry-after"));
    }
}
