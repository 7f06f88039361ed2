//! Whose dead letters are counted anew from what storage has, because what became of some could not be looked up. Must not know
//! how they are counted.

use std::collections::BTreeSet;

use hookcast_core::model::subscription::Ordinal;

/// Subscriptions whose dead letters are to be counted anew, or were.
#[derive(Debug, Default)]
pub(super) struct Recounts {
    due: BTreeSet<Ordinal>,
    /// Those that were, or are about to be: what retention says of theirs may be counted already.
    begun: BTreeSet<Ordinal>,
}

impl Recounts {
    pub(super) fn ask_for(&mut self, ordinal: Ordinal) {
        self.due.insert(ordinal);
    }

    pub(super) fn take_due(&mut self) -> BTreeSet<Ordinal> {
        let due = std::mem::take(&mut self.due);
        self.begun.extend(&due);
        due
    }

    pub(super) fn are_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn has_begun(&self, ordinal: Ordinal) -> bool {
        self.begun.contains(&ordinal)
    }

    pub(super) fn forget(&mut self, ordinal: Ordinal) {
        self.due.remove(&ordinal);
        self.begun.remove(&ordinal);
    }
}
