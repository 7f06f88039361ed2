//! What follows from an attempt or from being asked for work: what is written down, said, fed and read.

use super::{Assignment, Floor};
use crate::job::Effect;
use crate::matcher::Place;
use crate::notice::Notice;
use crate::order::Order;
use hookcast_core::model::{Event, ExceptionState};

impl Floor {
    /// Notes what follows for one event.
    pub(super) fn remember(&mut self, assignment: &Assignment, effect: &mut Effect, event: Option<Event>) {
        if let Some(exception) = effect.put.take() {
            if exception.state == ExceptionState::Dead
                && let Some(desk) = self.desks[assignment.place].as_deref()
            {
                self.recovered.remove(&(exception.ordinal, exception.seq));
                self.notices.push(Notice::dead(&desk.record, exception.seq, event.as_ref(), &exception.reason));
            }
            self.journal.put(exception, event);
        }
        if let Some(seq) = effect.clear {
            self.journal.clear(assignment.ordinal, seq);
        }
        if let Some(attempt) = effect.failure.take() {
            self.journal.failure(assignment.ordinal, attempt);
        }
        if let Some(seq) = effect.expired {
            self.expire(assignment.place, seq, seq);
        }
    }

    /// Looks after a desk that keeps order: it may want to be fed although nothing went out, or keys to be read.
    pub(super) fn attend(&mut self, place: Place) {
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        let ordinal = desk.ordinal();
        if desk.order().is_some_and(Order::attend) {
            self.unsorted.push(ordinal);
            self.has_moved = true;
        }
        let listed = self.hungry.len();
        self.note_hunger(place);
        self.has_moved |= self.hungry.len() > listed;
    }
}
