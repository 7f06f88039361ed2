//! The end of subscriptions whose endpoints want no more: stored by the registry, tried again while it refuses.
//!
//! Owns how many of them are not stored yet. Knows nothing of attempts and desks.

use std::cell::Cell;
use std::time::Duration;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{DisabledReason, SubscriptionRecord};
use hookcast_registry::Registry;

/// How long after a refusal it is tried again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// Ends of subscriptions that are being stored.
#[derive(Debug, Default)]
pub struct Endings {
    open: Cell<u32>,
    is_over: Cell<bool>,
}

impl Endings {
    /// Counts one that is to be stored; [`Endings::store`] follows.
    pub fn begin(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// Whether one is not stored yet.
    #[must_use]
    pub fn is_any_open(&self) -> bool {
        self.open.get() > 0
    }

    /// Nobody waits for them any more; gives how many are not stored.
    pub fn leave(&self) -> u32 {
        self.is_over.set(true);
        self.open.get()
    }

    /// Stores one, however often that is refused. Whether it was disabled by this: not when it was moved to another URL meanwhile,
    /// nor when it is disabled already, nor when nobody waits any more.
    pub async fn store(&self, registry: &Registry, stopped: &SubscriptionRecord, reason: DisabledReason, now: Timestamp) -> bool {
        loop {
            match registry.disable(stopped, reason, now).await {
                Ok(is_disabled) => {
                    self.open.set(self.open.get() - 1);
                    return is_disabled;
                }
                Err(error) => {
                    tracing::error!(subscription.id = %stopped.spec.id, reason = reason.word(), %error,
                        "the disabled state is not stored; trying again");
                }
            }
            tokio::time::sleep(STORE_AGAIN).await;
            if self.is_over.get() {
                return false;
            }
        }
    }
}
