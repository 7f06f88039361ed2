//! The end of subscriptions whose endpoints want no more: stored by the registry, tried again while it refuses.
//!
//! Owns how many of them are not stored, and says so when the lane ends. Knows nothing of attempts and desks.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use metrics::counter;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{DisabledReason, SubscriptionRecord};
use hookcast_registry::Registry;

/// How long after a refusal it is tried again.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// The log says of every so many refusals of one subscription that it is not stored: once a minute.
const REFUSALS_TOLD: u32 = 60;

/// Ends of subscriptions that are being stored.
#[derive(Debug, Default)]
pub struct Endings {
    open: Cell<u32>,
    /// Those that nobody stores any more, and that may not be stored.
    lost: Cell<u32>,
    is_over: Cell<bool>,
}

impl Endings {
    /// One that is to be stored; it counts until it is dropped.
    pub fn begin(self: &Rc<Self>) -> Ending {
        self.open.set(self.open.get() + 1);
        Ending { all: Rc::clone(self), is_settled: false }
    }

    /// Whether one is not stored yet.
    #[must_use]
    pub fn is_any_open(&self) -> bool {
        self.open.get() > 0
    }

    /// Nobody waits for them any more; says in the log how many may not be stored.
    pub fn leave(&self, lane: &str) {
        self.is_over.set(true);
        let subscriptions = self.open.get() + self.lost.get();
        if subscriptions > 0 {
            tracing::error!(
                lane,
                subscriptions,
                "what endpoints said that want no more may not be stored; their subscriptions may go on when the relay starts again"
            );
        }
    }
}

/// The end of one subscription, which counts as open as long as this lives.
#[derive(Debug)]
pub struct Ending {
    all: Rc<Endings>,
    is_settled: bool,
}

impl Ending {
    /// Stores it, however often that is refused. Whether the subscription was disabled by this: not when it was moved to another URL
    /// meanwhile, nor when it is disabled already, nor when nobody waits any more.
    pub async fn store(
        mut self,
        registry: &Registry,
        stopped: &SubscriptionRecord,
        reason: DisabledReason,
        now: Timestamp,
    ) -> bool {
        let mut refusals = 0_u32;
        loop {
            match registry.disable(stopped, reason, now).await {
                Ok(is_disabled) => {
                    self.is_settled = true;
                    return is_disabled;
                }
                Err(error) => {
                    counter!("hookcast_disablings_refused_total").increment(1);
                    if refusals.is_multiple_of(REFUSALS_TOLD) {
                        tracing::error!(subscription.id = %stopped.spec.id, reason = reason.word(), refusals, %error,
                            "the disabled state is not stored; trying again every second");
                    }
                    refusals = refusals.wrapping_add(1);
                }
            }
            tokio::time::sleep(STORE_AGAIN).await;
            if self.all.is_over.get() {
                return false;
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.all.open.set(self.all.open.get() - 1);
        if !self.is_settled {
            self.all.lost.set(self.all.lost.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_open_until_it_is_dropped_however_that_happens() {
        let all: Rc<Endings> = Rc::default();
        let (mut stored, second) = (all.begin(), all.begin());
        stored.is_settled = true;
        drop(stored);
        assert!(all.is_any_open());
        assert_eq!(all.lost.get(), 0);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _second = second;
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && !all.is_any_open());
        assert_eq!(all.lost.get(), 1, "nobody stores it");
    }
}
