//! Limits that desks share with other lanes, and clocks that step.

use std::sync::Arc;

use super::Floor;
use crate::limits::{Bell, LimitBook, SharedLimit};
use hookcast_core::model::subscription::Ordinal;

impl Floor {
    /// Puts the shared limits of `book` in force for desks that are set up from now on.
    pub fn limit_by(&mut self, book: Arc<LimitBook>) {
        self.book = book;
    }

    /// Where the lane hears that places were handed over.
    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Gives a desk the place that it waited for, or gives it back.
    pub fn hand_over(&mut self, ordinal: Ordinal, limit: &Arc<SharedLimit>) {
        let Some(place) = self.by_ordinal.get(&ordinal).copied() else { return limit.return_place() };
        if self.desks[place].as_deref_mut().is_some_and(|desk| desk.take_handed(limit)) {
            self.make_ready(place);
        } else {
            limit.return_place();
        }
    }

    /// Moves everything that is waited for by as much as the wall clock was moved.
    pub fn shift(&mut self, by_ms: i64) {
        self.timers.clear();
        for place in 0..self.desks.len() {
            let Some(desk) = self.desks[place].as_deref_mut() else { continue };
            desk.shift(by_ms);
            if desk.wakes_at.take().is_some() {
                self.make_ready(place);
            }
        }
    }
}
