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

/// Ends of the subscriptions of one lane that are being stored.
#[derive(Debug)]
pub struct Endings {
    lane: String,
    open: Cell<u32>,
    /// Those that nobody stores any more, and that may not be stored.
    lost: Cell<u32>,
    is_over: Cell<bool>,
}

impl Endings {
    /// None yet, in the lane of this name.
    #[must_use]
    pub fn of_lane(name: &str) -> Rc<Self> {
        Rc::new(Self { lane: name.to_owned(), open: Cell::new(0), lost: Cell::new(0), is_over: Cell::new(false) })
    }

    /// One that is to be stored; it counts until it is dropped.
    pub fn begin(self: &Rc<Self>) -> Ending {
        self.open.set(self.open.get() + 1);
        Ending { all: Rc::clone(self), is_settled: false, is_late: self.is_over.get() }
    }

    /// Whether one is not stored yet.
    #[must_use]
    pub fn is_any_open(&self) -> bool {
        self.open.get() > 0
    }

    /// Nobody waits for them any more; says in the log how many may not be stored.
    pub fn leave(&self) {
        self.is_over.set(true);
        self.tell_lost(self.unsettled());
    }

    /// Those of which nobody knows that they are stored.
    fn unsettled(&self) -> u32 {
        self.open.get() + self.lost.get()
    }

    fn tell_lost(&self, endings: u32) {
        if endings > 0 {
            tracing::error!(
                lane = self.lane,
                endings,
                "that subscriptions are disabled may not be stored; they may go on when the relay starts again"
            );
        }
    }
}

/// The end of one subscription, which counts as open as long as this lives.
#[derive(Debug)]
pub struct Ending {
    all: Rc<Endings>,
    is_settled: bool,
    /// Whether it began when nobody waited for it any more.
    is_late: bool,
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
                    refusals = refusals.wrapping_add(1);
                    if refusals % REFUSALS_TOLD == 1 {
                        tracing::error!(subscription.id = %stopped.spec.id, reason = reason.word(), refusals, %error,
                            "the disabled state is not stored; trying again every second");
                    }
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
            self.all.tell_lost(u32::from(self.is_late));
        }
    }
}

#[cfg(test)]
mod tests {
    use hookcast_log::storage::memory;

    use super::*;

    fn record() -> SubscriptionRecord {
        serde_json::from_value(serde_json::json!({
            "spec": {
                "id": "s", "url": "https://example.com/", "topics": ["t"], "types": [], "signatures": [{"scheme": "none", "keys": []}],
                "disable_after": 1000, "headers": {}, "payload": "binary", "max_in_flight": 1, "max_retrying": 1, "on_full": "wait",
                "retry": {"max_attempts": 1, "schedule": [1], "jitter": 0.0}, "timeout": 1000, "description": "", "metadata": {},
            },
            "ordinal": 0, "revision": 0, "activity": "active", "starts_after": 0,
            "revisions": [{"from_seq": 1, "topics": ["t"], "types": []}], "declared": false, "created_at": 1, "updated_at": 1,
        }))
        .unwrap()
    }

    #[test]
    fn an_end_is_open_until_it_is_dropped_and_lost_when_nobody_stored_it() {
        let all = Endings::of_lane("lane-0");
        let lost = all.begin();
        assert_eq!((all.is_any_open(), all.unsettled()), (true, 1));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _lost = lost;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!((all.is_any_open(), all.unsettled()), (false, 1));
    }

    #[tokio::test]
    async fn an_end_that_is_stored_is_settled() {
        let registry = Registry::open(memory::open().unwrap().catalog).await.unwrap();
        let stopped = registry.put(record(), 0).await.unwrap();
        let all = Endings::of_lane("lane-0");
        let is_disabled = all.begin().store(&registry, &stopped, DisabledReason::Gone, Timestamp(7)).await;
        assert_eq!((is_disabled, all.is_any_open(), all.unsettled()), (true, false, 0));
    }
}
