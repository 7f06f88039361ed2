//! When subscriptions of the hub end. Pure.

use std::collections::{BTreeSet, HashMap};

use hookcast_core::clock::Timestamp;
use hookcast_core::model::SubscriptionId;
use hookcast_core::model::subscription::{Activity, DisabledReason, SubscriptionRecord};

/// Every lease, by subscription and by its end.
#[derive(Debug, Default)]
pub struct Leases {
    ends: HashMap<SubscriptionId, Timestamp>,
    due: BTreeSet<(Timestamp, SubscriptionId)>,
}

/// When a subscription of the hub is over: with its lease, or as soon as its callback answered 410. `None` for others.
#[must_use]
pub fn end_of(record: &SubscriptionRecord) -> Option<Timestamp> {
    let websub = record.websub.as_deref()?;
    let is_gone = record.activity == Activity::Disabled(DisabledReason::Gone);
    Some(if is_gone { Timestamp(i64::MIN) } else { websub.lease_ends_at })
}

impl Leases {
    /// Takes in a definition as it is now.
    pub fn see(&mut self, record: &SubscriptionRecord) {
        if let Some(end) = end_of(record) {
            self.set(record.spec.id.clone(), end);
        }
    }

    /// Sets when a subscription is looked at.
    pub fn set(&mut self, id: SubscriptionId, end: Timestamp) {
        if let Some(before) = self.ends.insert(id.clone(), end) {
            self.due.remove(&(before, id.clone()));
        }
        self.due.insert((end, id));
    }

    /// Forgets a subscription.
    pub fn forget(&mut self, id: &SubscriptionId) {
        if let Some(end) = self.ends.remove(id) {
            self.due.remove(&(end, id.clone()));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// When the next one ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.due.first().map(|(end, _)| *end)
    }

    /// Takes one that is over; it stays counted until [`Leases::forget`].
    pub fn take_over(&mut self, now: Timestamp) -> Option<SubscriptionId> {
        let (end, id) = self.due.first().filter(|(end, _)| *end <= now).cloned()?;
        self.due.remove(&(end, id.clone()));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_lease_ends_later_and_once() {
        let mut leases = Leases::default();
        let id = |text: &str| SubscriptionId::parse(text).unwrap();
        leases.set(id("a"), Timestamp(10));
        leases.set(id("b"), Timestamp(20));
        leases.set(id("a"), Timestamp(30));
        assert_eq!((leases.next_end(), leases.take_over(Timestamp(19))), (Some(Timestamp(20)), None));
        assert_eq!(leases.take_over(Timestamp(30)), Some(id("b")));
        assert_eq!(leases.take_over(Timestamp(30)), Some(id("a")));
        assert_eq!((leases.take_over(Timestamp(99)), leases.next_end(), leases.len()), (None, None, 2));
        leases.forget(&id("a"));
        leases.forget(&id("b"));
        assert!(leases.is_empty());
    }
}
