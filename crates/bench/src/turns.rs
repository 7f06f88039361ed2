//! Two measurements that take turns in small slices, so that whatever else the machine does hits both.
//!
//! Each has a seat. A measurement begins when it is its turn, hands over once it is ready, so that the other sets up, too, before
//! either is accounted for, and from then on whenever a slice of its work is done. One that is over leaves the rest to the other.

use std::cell::Cell;

use tokio::sync::Notify;

/// Slices of a measurement.
const SLICES: u64 = 50;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns {
    whose: Cell<usize>,
    over: [Cell<bool>; 2],
    slices: [Cell<u64>; 2],
    changed: Notify,
}

impl Turns {
    /// The turn of `first`; the other comes when it hands over.
    pub(crate) fn beginning_with(first: usize) -> Self {
        Self { whose: Cell::new(first), over: Default::default(), slices: Default::default(), changed: Notify::new() }
    }

    /// Waits for the turn of a seat.
    pub(crate) async fn wait(&self, seat: usize) {
        while self.whose.get() != seat {
            self.changed.notified().await;
        }
    }

    /// A measurement has done so much of its work: hands over when a slice is done, and waits for its turn.
    pub(crate) async fn take(&self, seat: usize, done: u64, work: u64) {
        let slices = 1 + done * SLICES / work.max(1);
        // Fewer than before: whoever has the seat has begun another measurement.
        if slices != self.slices[seat].get() {
            self.slices[seat].set(slices);
            self.hand_over(seat);
        }
        self.wait(seat).await;
    }

    /// A measurement is over.
    pub(crate) fn leave(&self, seat: usize) {
        self.over[seat].set(true);
        self.hand_over(seat);
    }

    fn hand_over(&self, seat: usize) {
        let other = 1 - seat;
        if self.whose.get() == seat && !self.over[other].get() {
            self.whose.set(other);
            self.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Works in steps of one and notes its name at each.
    async fn measure(turns: &Turns, seat: usize, work: u64, steps: &RefCell<Vec<usize>>) {
        turns.wait(seat).await;
        for done in 0..work {
            turns.take(seat, done, work).await;
            steps.borrow_mut().push(seat);
        }
        turns.leave(seat);
    }

    #[tokio::test]
    async fn slices_are_done_in_turns() {
        for first in [0, 1] {
            let (turns, steps) = (Turns::beginning_with(first), RefCell::default());
            tokio::join!(measure(&turns, 0, 2 * SLICES, &steps), measure(&turns, 1, 2 * SLICES, &steps));
            let wanted: Vec<usize> = (0..SLICES).flat_map(|_| [first, first, 1 - first, 1 - first]).collect();
            assert_eq!(steps.into_inner(), wanted);
        }
    }

    #[tokio::test]
    async fn another_measurement_on_a_seat_takes_turns_as_the_first_did() {
        let (turns, steps) = (Turns::beginning_with(0), RefCell::<Vec<usize>>::default());
        let twice = async |seat: usize| {
            turns.wait(seat).await;
            for done in (0..SLICES).chain(0..SLICES) {
                turns.take(seat, done, SLICES).await;
                steps.borrow_mut().push(seat);
            }
            turns.leave(seat);
        };
        tokio::join!(twice(0), twice(1));
        let wanted: Vec<usize> = (0..2 * SLICES).flat_map(|_| [0, 1]).collect();
        assert_eq!(steps.into_inner(), wanted);
    }

    #[tokio::test]
    async fn whoever_is_left_goes_on_alone() {
        let (turns, steps) = (Turns::beginning_with(0), RefCell::default());
        tokio::join!(measure(&turns, 0, 0, &steps), measure(&turns, 1, 50, &steps));
        assert_eq!(steps.into_inner(), vec![1; 50]);
    }

    #[tokio::test]
    async fn several_tasks_of_one_measurement_wait_together() {
        let (turns, steps) = (Turns::beginning_with(0), RefCell::<Vec<usize>>::default());
        let done = Cell::new(0);
        let task = || async {
            while done.get() < 100 {
                turns.take(0, done.get(), 100).await;
                done.set(done.get() + 1);
                steps.borrow_mut().push(0);
                tokio::task::yield_now().await;
            }
        };
        let both = async {
            turns.wait(0).await;
            tokio::join!(task(), task());
            turns.leave(0);
        };
        tokio::join!(both, measure(&turns, 1, 40, &steps));
        let steps = steps.into_inner();
        assert_eq!(steps.iter().filter(|seat| **seat == 1).count(), 40);
        assert!(steps.iter().filter(|seat| **seat == 0).count() >= 100);
    }
}
