//! What an order does not know yet: events of which only the position is known. Pure; lines and keys are not known here.

use std::collections::BTreeMap;

use hookcast_core::model::Seq;

/// What is known of an event whose key is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It stands aside.
    Aside,
    /// A retry that waits.
    Retry,
}

/// All that is known of one event. Both facts may hold: a recovery job posts in vain what stands aside, and it is a retry, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) stands_aside: bool,
    pub(super) is_retry: bool,
}

impl Facts {
    fn get_mut(&mut self, found: Found) -> &mut bool {
        match found {
            Found::Aside => &mut self.stands_aside,
            Found::Retry => &mut self.is_retry,
        }
    }
}

/// Events that have to be read before anything of a subscription begins.
#[derive(Debug, Default)]
pub(super) struct Unsorted {
    events: BTreeMap<Seq, Facts>,
    /// Whether somebody is at it.
    is_attended: bool,
}

impl Unsorted {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn has(&self, seq: Seq) -> bool {
        self.events.contains_key(&seq)
    }

    /// One more fact of an event.
    pub(super) fn note(&mut self, seq: Seq, found: Found) {
        *self.events.entry(seq).or_default().get_mut(found) = true;
    }

    /// A fact holds no longer; the other one stays.
    pub(super) fn lose(&mut self, seq: Seq, found: Found) {
        let Some(facts) = self.events.get_mut(&seq) else { return };
        *facts.get_mut(found) = false;
        if !facts.stands_aside && !facts.is_retry {
            self.events.remove(&seq);
        }
    }

    /// The event was read.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Facts> {
        self.events.remove(&seq)
    }

    /// Whether nobody was at it; somebody is from now on.
    pub(super) fn attend(&mut self) -> bool {
        !std::mem::replace(&mut self.is_attended, true)
    }

    pub(super) fn rest(&mut self) {
        self.is_attended = false;
    }

    /// The next positions, at most `count`, rising.
    pub(super) fn next(&self, count: usize) -> Vec<Seq> {
        self.events.keys().copied().take(count).collect()
    }
}
