//! How far one subscription has come: what waits, what is in flight, and the cursor that follows from it. Pure.
//!
//! Matched events queue in order; those taken are open until they are settled. An attempt that failed is settled too: its
//! exception carries the duty on. So the holes behind a cursor are at most what is in flight.

use std::collections::VecDeque;

use crate::model::Seq;

/// Most events that wait in memory for one subscription; more stay in the log.
pub const QUEUE_MAX: usize = 256;
/// Most bytes that wait in memory for one subscription, but for a single larger event.
pub const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

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
    open: Vec<Seq>,
}

impl<T> Window<T> {
    /// A window with nothing in it.
    #[must_use]
    pub fn at(position: Position) -> Self {
        Self { position, reopened: VecDeque::new(), queue: VecDeque::new(), queue_bytes: 0, open: Vec::new() }
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
        self.queue_bytes
    }

    /// Whether another event may wait here; an empty queue takes any.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.is_empty() || (self.queue.len() < QUEUE_MAX && self.queue_bytes < QUEUE_BYTES_MAX)
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

    /// The oldest waiting event, now in flight.
    pub fn take(&mut self) -> Option<(Seq, T)> {
        let (seq, item) = if let Some(reopened) = self.reopened.pop_front() {
            reopened
        } else {
            let (seq, item, bytes) = self.queue.pop_front()?;
            self.queue_bytes -= bytes;
            (seq, item)
        };
        self.open.push(seq);
        Some((seq, item))
    }

    /// Ends an attempt; `false` when the position was not in flight (after a seek, say).
    pub fn settle(&mut self, seq: Seq) -> bool {
        match self.open.iter().position(|open| *open == seq) {
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
        self.open.iter().copied().chain(self.reopened.iter().map(|(seq, _)| *seq))
    }

    /// Forgets the queue and stands still before it; what is in flight or reopened stays.
    pub fn rewind(&mut self, lane: Seq) {
        self.position = Position::Lagging(self.base(lane));
        self.queue.clear();
        self.queue_bytes = 0;
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
        self.open.retain(|seq| {
            *seq > to || {
                dropped.push(*seq);
                false
            }
        });
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

    /// Goes to another place; attempts in flight end without effect on the cursor.
    pub fn jump(&mut self, scanned_to: Seq) {
        self.reopened.clear();
        self.queue.clear();
        self.queue_bytes = 0;
        self.open.clear();
        self.position = Position::Lagging(scanned_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        Event(bool),
        Take,
        Settle(usize),
        Rewind,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<bool>().prop_map(Step::Event),
            3 => Just(Step::Take),
            3 => (0usize..8).prop_map(Step::Settle),
            1 => Just(Step::Rewind),
        ]
    }

    proptest! {
        /// Whatever happens, a restart from the saved progress delivers every matched event that was not settled.
        #[test]
        fn a_checkpoint_never_skips_an_unsettled_event(steps in prop::collection::vec(step(), 1..200)) {
            let mut window = Window::at(Position::Riding { not_before: Seq(0) });
            let mut head = Seq(0);
            let mut unsettled = BTreeSet::new();
            let mut matched = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Event(matches) => {
                        head = head.next();
                        if matches {
                            matched.insert(head);
                            unsettled.insert(head);
                        }
                        if let Position::Riding { .. } = window.position() && matches {
                            window.offer(head, (), 1);
                        }
                    }
                    Step::Take => { window.take(); }
                    Step::Settle(index) => {
                        if let Some(seq) = window.open.get(index).copied() {
                            prop_assert!(window.settle(seq));
                            unsettled.remove(&seq);
                        }
                    }
                    Step::Rewind => {
                        window.rewind(head);
                        // Catching up again: everything behind the position that matches is offered anew.
                        let Position::Lagging(from) = window.position() else { unreachable!() };
                        for seq in matched.range(from.next()..) { window.offer(*seq, (), 1); }
                        window.set_position(Position::Riding { not_before: Seq(0) });
                    }
                }
                let covered: BTreeSet<Seq> = match window.progress(head) {
                    None => BTreeSet::new(),
                    Some(Progress { base, holes }) => {
                        prop_assert!(holes.iter().all(|hole| *hole <= base));
                        holes.into_iter().chain(matched.range(base.next()..).copied()).collect()
                    }
                };
                prop_assert!(unsettled.is_subset(&covered), "unsettled {unsettled:?} not in {covered:?}");
                prop_assert!(unsettled.iter().all(|seq| *seq > window.cursor(head)));
            }
        }
    }

    #[test]
    fn one_hanging_attempt_leaves_one_hole() {
        let mut window = Window::at(Position::Riding { not_before: Seq(0) });
        for seq in 1..=1000 {
            window.offer(Seq(seq), (), 1);
            window.take();
            if seq != 3 {
                window.settle(Seq(seq));
            }
        }
        assert_eq!(window.progress(Seq(1000)), Some(Progress { base: Seq(1000), holes: vec![Seq(3)] }));
        assert_eq!(window.cursor(Seq(1000)), Seq(2));
        window.settle(Seq(3));
        assert_eq!(window.progress(Seq(1000)), None);
    }

    #[test]
    fn what_is_reopened_stays_a_hole_and_does_not_pull_the_base_back() {
        let mut window = Window::at(Position::Riding { not_before: Seq(100) });
        window.offer_again(Seq(5), ());
        window.offer_again(Seq(8), ());
        window.offer(Seq(101), (), 1);
        let holes = vec![Seq(5), Seq(8)];
        assert_eq!(window.progress(Seq(101)), Some(Progress { base: Seq(100), holes: holes.clone() }));
        assert_eq!(window.cursor(Seq(101)), Seq(4));
        window.rewind(Seq(101));
        assert_eq!(window.position(), Position::Lagging(Seq(100)));
        assert_eq!(window.progress(Seq(101)), Some(Progress { base: Seq(100), holes }));
        assert_eq!(window.take().unwrap().0, Seq(5));
        assert!(window.settle(Seq(5)) && window.holds(Seq(8)));
    }

    #[test]
    fn a_burst_is_given_back_only_when_nothing_is_left_of_it() {
        let mut window = Window::at(Position::Riding { not_before: Seq(0) });
        for seq in 1..=100 {
            window.offer(Seq(seq), (), 1);
        }
        while let Some((seq, ())) = window.take() {
            window.rest();
            assert!(window.holds(seq), "what is in flight stays");
            window.settle(seq);
        }
        window.rest();
        assert_eq!((window.queue.capacity(), window.open.capacity()), (0, 0));
        assert_eq!(window.progress(Seq(100)), None);
    }
}
