//! How far one subscription has come: what waits, what is in flight, and the cursor that follows from it. Pure.
//!
//! Matched events queue in order; those taken are open until they are settled. An attempt that failed is settled too: its
//! exception carries the duty on. So the holes behind a cursor are at most what is in flight, and what stands aside: events
//! of an ordered subscription that must wait for others, so that those behind them can pass.

use std::collections::VecDeque;

use hookcast_core::model::Seq;

mod aside;

use aside::Aside;

/// Most events that wait in memory for one subscription; more stay in the log.
pub const QUEUE_MAX: usize = 256;
/// Most bytes that wait in memory for one subscription, but for a single larger event.
pub const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most positions of one subscription that are open at once past its cursor, where it orders or gathers events.
pub const OPEN_MAX: usize = 4_096;

/// Which of a subscription's attempts it is: two of one event are told apart by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// Where the matching of a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// With the lane's reader at the head; events up to `not_before` are not for it.
    Riding {
        /// Events up to here were matched before, or lie before its start.
        not_before: Seq,
    },
    /// Behind: everything up to here was matched, the rest is read from the log when there is room.
    Lagging(Seq),
}

/// Progress that differs from "everything up to the frontier is settled".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to here is settled, but for the holes.
    pub base: Seq,
    /// Unsettled positions up to `base`, rising.
    pub holes: Vec<Seq>,
}

/// Progress of one subscription; `T` is what waits with a position.
#[derive(Debug)]
pub struct Window<T> {
    position: Position,
    /// Open when the process ended: they go first, and stay holes until they are settled.
    reopened: VecDeque<(Seq, T)>,
    queue: VecDeque<(Seq, T, usize)>,
    queue_bytes: usize,
    open: Vec<(Seq, Ticket)>,
    aside: Option<Box<Aside<T>>>,
}

impl<T> Window<T> {
    /// A window with nothing in it.
    #[must_use]
    pub fn at(position: Position) -> Self {
        let (reopened, queue) = (VecDeque::new(), VecDeque::new());
        Self { position, reopened, queue, queue_bytes: 0, open: Vec::new(), aside: None }
    }

    /// Where matching stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Changes where matching stands; what waits stays.
    pub fn set_position(&mut self, position: Position) {
        self.position = position;
    }

    /// Events that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.reopened.len() + self.queue.len()
    }

    /// Attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Bytes of the events that wait, reopened ones left out.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.queue_bytes + self.aside.as_ref().map_or(0, |aside| aside.bytes)
    }

    /// Whether another event may wait here; an empty queue takes any.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_room_up_to(QUEUE_MAX, QUEUE_BYTES_MAX)
    }

    /// Whether another event may wait here where `events` of `bytes` may; an empty queue takes any.
    #[must_use]
    pub fn has_room_up_to(&self, events: usize, bytes: usize) -> bool {
        self.queue.is_empty() || (self.queue.len() < events && self.queue_bytes < bytes)
    }

    /// Lets a matched event of `bytes` bytes wait; positions must rise.
    pub fn offer(&mut self, seq: Seq, item: T, bytes: usize) {
        debug_assert!(self.queue.back().is_none_or(|(last, ..)| *last < seq), "positions rise");
        self.queue.push_back((seq, item, bytes));
        self.queue_bytes += bytes;
    }

    /// Lets an event that was open before a restart wait again, ahead of all others; positions must rise.
    pub fn offer_again(&mut self, seq: Seq, item: T) {
        self.reopened.push_back((seq, item));
    }

    /// The oldest waiting event, now in flight by this attempt.
    pub fn take(&mut self, ticket: Ticket) -> Option<(Seq, T)> {
        let (seq, item) = if let Some(reopened) = self.reopened.pop_front() {
            reopened
        } else {
            let (seq, item, bytes) = self.queue.pop_front()?;
            self.queue_bytes -= bytes;
            (seq, item)
        };
        self.open.push((seq, ticket));
        Some((seq, item))
    }

    /// The waiting events in the order in which they are taken.
    pub fn waiting_events(&self) -> impl Iterator<Item = (Seq, &T)> {
        let reopened = self.reopened.iter().map(|(seq, item)| (*seq, item));
        reopened.chain(self.queue.iter().map(|(seq, item, _)| (*seq, item)))
    }

    /// Ends an attempt; `false` when it is not this one that the position is in flight by (after a seek, say).
    pub fn settle(&mut self, seq: Seq, ticket: Ticket) -> bool {
        match self.open.iter().position(|open| *open == (seq, ticket)) {
            Some(index) => {
                self.open.swap_remove(index);
                true
            }
            None => false,
        }
    }

    /// Everything up to here was taken or settled; `lane` is where the lane's reader stands.
    #[must_use]
    pub fn base(&self, lane: Seq) -> Seq {
        match (self.queue.front(), self.position) {
            (Some((first, ..)), _) => first.prev(),
            (None, Position::Riding { not_before }) => lane.max(not_before),
            (None, Position::Lagging(scanned_to)) => scanned_to,
        }
    }

    /// Everything up to here is settled or an exception.
    #[must_use]
    pub fn cursor(&self, lane: Seq) -> Seq {
        let base = self.base(lane);
        self.holes().map(Seq::prev).min().map_or(base, |oldest| oldest.min(base))
    }

    /// Whether `seq` is waiting or in flight.
    #[must_use]
    pub fn holds(&self, seq: Seq) -> bool {
        self.holes().any(|hole| hole == seq) || self.queue.binary_search_by_key(&seq, |(waiting, ..)| *waiting).is_ok()
    }

    /// What a checkpoint must say of this window; `None` when it is simply at `lane`.
    #[must_use]
    pub fn progress(&self, lane: Seq) -> Option<Progress> {
        let base = self.base(lane);
        let mut holes: Vec<Seq> = self.holes().collect();
        if base == lane && holes.is_empty() {
            return None;
        }
        holes.sort_unstable();
        Some(Progress { base, holes })
    }

    /// Gives back the memory of a burst while nothing waits and nothing is in flight.
    pub fn rest(&mut self) {
        if self.waiting() == 0 && self.open.is_empty() {
            (self.reopened, self.queue, self.open) = (VecDeque::new(), VecDeque::new(), Vec::new());
        }
    }

    /// Unsettled positions before the queue.
    fn holes(&self) -> impl Iterator<Item = Seq> + '_ {
        self.open.iter().map(|(seq, _)| *seq).chain(self.reopened.iter().map(|(seq, _)| *seq)).chain(self.aside())
    }

    /// Forgets what waits behind `at` and stands there, or where it has come to; `lane` is where the lane's reader stands.
    pub fn stand_at(&mut self, at: Seq, lane: Seq) {
        while let Some((_, _, bytes)) = self.queue.pop_back_if(|(seq, ..)| *seq > at) {
            self.queue_bytes -= bytes;
        }
        self.position = match self.position {
            Position::Lagging(scanned_to) => Position::Lagging(scanned_to.min(at)),
            Position::Riding { not_before } => Position::Lagging(lane.max(not_before).min(at)),
        };
    }

    /// Forgets the queue and stands still before it; what is in flight, reopened or aside stays, the latter without items.
    pub fn rewind(&mut self, lane: Seq) {
        self.position = Position::Lagging(self.base(lane));
        self.queue.clear();
        self.queue_bytes = 0;
        self.drop_aside_items();
    }

    /// Settles everything up to `to`; gives what waited or was in flight there. `lane` is where the lane's reader stands.
    pub fn skip(&mut self, to: Seq, lane: Seq) -> Vec<Seq> {
        let mut dropped = Vec::new();
        self.reopened.retain(|(seq, _)| {
            *seq > to || {
                dropped.push(*seq);
                false
            }
        });
        self.open.retain(|(seq, _)| {
            *seq > to || {
                dropped.push(*seq);
                false
            }
        });
        for seq in self.aside().take_while(|seq| *seq <= to).collect::<Vec<_>>() {
            self.leave_aside(seq);
            dropped.push(seq);
        }
        while let Some((seq, _, bytes)) = self.queue.pop_front_if(|(seq, ..)| *seq <= to) {
            dropped.push(seq);
            self.queue_bytes -= bytes;
        }
        self.position = match self.position {
            Position::Lagging(at) if at < to && to < lane => Position::Lagging(to),
            Position::Lagging(at) if at < to => Position::Riding { not_before: to },
            Position::Riding { not_before } => Position::Riding { not_before: not_before.max(to) },
            lagging @ Position::Lagging(_) => lagging,
        };
        dropped
    }

    /// Unsettled positions up to `to` that do not wait in the queue, in no order.
    #[must_use]
    pub fn holes_to(&self, to: Seq) -> Vec<Seq> {
        self.holes().filter(|seq| *seq <= to).collect()
    }

    /// Goes to another place; attempts in flight end without effect on the cursor.
    pub fn jump(&mut self, scanned_to: Seq) {
        self.reopened.clear();
        self.queue.clear();
        self.queue_bytes = 0;
        self.open.clear();
        self.aside = None;
        self.position = Position::Lagging(scanned_to);
    }
}

#[cfg(test)]
mod tests;
