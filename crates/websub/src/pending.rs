//! Requests whose verification is under way: few in all, fewer to one host, the newest of each subscriber counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookcast_core::model::SubscriptionId;

/// Verifications under way at the same time.
pub const PENDING_MAX: usize = 256;
/// Of these, to one host: the hub must not be turned against somebody.
pub const PENDING_HOST_MAX: usize = 8;

/// What is under way; a handle to share.
#[derive(Clone, Debug, Default)]
pub struct Pending(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    count: usize,
    rounds: u64,
    by_host: HashMap<String, usize>,
    /// The newest round of each subscription.
    newest: HashMap<SubscriptionId, u64>,
}

/// The place of one verification; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    pending: Pending,
    host: String,
    id: SubscriptionId,
    round: u64,
}

impl Pending {
    /// A place for a verification of `id` at `host`; `None` when there are too many.
    #[must_use]
    pub fn enter(&self, id: &SubscriptionId, host: &str) -> Option<Place> {
        let mut state = self.state();
        let at_host = state.by_host.get(host).copied().unwrap_or(0);
        if state.count >= PENDING_MAX || at_host >= PENDING_HOST_MAX {
            return None;
        }
        state.count += 1;
        state.rounds += 1;
        let round = state.rounds;
        state.by_host.insert(host.to_owned(), at_host + 1);
        state.newest.insert(id.clone(), round);
        Some(Place { pending: self.clone(), host: host.to_owned(), id: id.clone(), round })
    }

    /// Whether a verification of this subscription is under way.
    #[must_use]
    pub fn has(&self, id: &SubscriptionId) -> bool {
        self.state().newest.contains_key(id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether nothing newer was asked for the same subscription.
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.pending.state().newest.get(&self.id) == Some(&self.round)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.pending.state();
        state.count -= 1;
        if let Some(count) = state.by_host.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                state.by_host.remove(&self.host);
            }
        }
        if state.newest.get(&self.id) == Some(&self.round) {
            state.newest.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> SubscriptionId {
        SubscriptionId::parse(&format!("s{n}")).unwrap()
    }

    #[test]
    fn there_are_few_places_and_fewer_at_one_host() {
        let pending = Pending::default();
        let mut held: Vec<_> = (0..PENDING_HOST_MAX).map(|n| pending.enter(&id(n), "a").unwrap()).collect();
        assert!(pending.enter(&id(999), "a").is_none());
        held.extend((0..PENDING_MAX - PENDING_HOST_MAX).map(|n| pending.enter(&id(n), &format!("h{n}")).unwrap()));
        assert!(pending.enter(&id(999), "b").is_none());
        drop(held);
        assert!(pending.enter(&id(999), "a").is_some());
        assert!(!pending.has(&id(999)) && pending.state().by_host.is_empty() && pending.state().newest.is_empty());
    }

    #[test]
    fn only_the_newest_request_of_a_subscriber_counts() {
        let pending = Pending::default();
        let old = pending.enter(&id(1), "a").unwrap();
        let new = pending.enter(&id(1), "a").unwrap();
        assert!(!old.is_newest() && new.is_newest());
        drop(old);
        assert!(new.is_newest() && pending.has(&id(1)));
    }
}
