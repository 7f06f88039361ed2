//! A desk that keeps order: what stands aside, and what has to be known before anything begins.

use super::{Desk, Rules};
use crate::job::{Errand, Job, Next};
use crate::order::{Found, Line, Order};
use crate::window::QUEUE_MAX;
use hookcast_core::model::subscription::Ordering;
use hookcast_core::model::{Event, Seq};

impl Desk {
    /// The order that is kept, while one is.
    #[must_use]
    pub fn order(&mut self) -> Option<&mut Order> {
        self.order.as_deref_mut()
    }

    /// The same, to look at.
    #[must_use]
    pub fn order_in_force(&self) -> Option<&Order> {
        self.order.as_deref()
    }

    /// Whether the lane has to look after it when it was asked for work: its window moves without an attempt.
    #[must_use]
    pub fn keeps_order(&self) -> bool {
        self.order.is_some()
    }

    /// Order and batches begin anew, by the definition in force: what is open ends as it began, and nothing else begins before.
    pub(super) fn begin_rule(&mut self) {
        self.rules = Rules::Due;
        self.take_up_rule();
    }

    /// Begins order and batches anew if that is due and nothing is on the wire any more; `false` while something is.
    pub(super) fn take_up_rule(&mut self) -> bool {
        if self.rules == Rules::InForce {
            return true;
        }
        let spec = &self.record.spec;
        let is_bound = spec.ordering != Ordering::None || self.order.as_ref().is_some_and(|order| !order.is_free());
        let gathers_anew = self.batching.as_ref().map(|batching| batching.terms) != spec.batch;
        if self.flights > 0 && (is_bound || gathers_anew) {
            return false;
        }
        self.rules = Rules::InForce;
        if gathers_anew {
            self.gather_anew();
        }
        self.reorder();
        true
    }

    /// Starts the order anew from what stands aside and what waits.
    fn reorder(&mut self) {
        let left = self.window.standing_aside() > 0;
        self.order = Order::of(&self.record.spec).or_else(|| left.then(Order::free));
        // Those that waited for others of their line are found again, also when there are no lines any more. One that is under way
        // where no order is kept goes on beside what is left of one.
        for (seq, retry) in self.retries.iter().filter(|(_, retry)| retry.flight.is_none()) {
            self.due.insert((retry.due_at, *seq));
        }
        let Some(order) = &mut self.order else { return };
        for seq in self.window.aside() {
            order.find(seq, Found::Aside);
        }
        for (seq, _) in self.retries.iter().filter(|(_, retry)| retry.flight.is_none()) {
            order.find(*seq, Found::Retry);
        }
    }

    /// Lets positions stand aside that were open when the process ended, when order is kept or they are many; `false` when
    /// their events are to be offered instead.
    pub fn reopen_aside(&mut self, holes: &[Seq]) -> bool {
        if holes.is_empty() || (self.order.is_none() && holes.len() <= QUEUE_MAX) {
            return false;
        }
        self.window.stand_aside(holes.iter().copied());
        let order = self.order.get_or_insert_with(Order::free);
        for seq in holes {
            order.find(*seq, Found::Aside);
        }
        true
    }

    /// Takes in what was read of an unsorted event; `None` when it is gone: `true` when that was its end. A retry of it says so
    /// itself.
    pub fn sort(&mut self, seq: Seq, event: Option<&Event>) -> bool {
        let Some(order) = &mut self.order else { return false };
        let is_left = event.is_none() && self.window.aside().any(|aside| aside == seq);
        if is_left {
            order.leave(seq);
            self.window.leave_aside(seq);
        }
        let line = event.and_then(|event| order.line_of(event));
        let next = order.sort(seq, line);
        self.arm(next);
        is_left && !self.retries.contains_key(&seq)
    }

    /// Dead letters up to `to` hold nothing up any more; gives which did.
    pub fn release(&mut self, to: Seq) -> Vec<Seq> {
        let Some(order) = &mut self.order else { return Vec::new() };
        let blocking: Vec<Seq> = order.blocking().filter(|seq| *seq <= to).collect();
        for seq in &blocking {
            order.forget(*seq);
        }
        blocking
    }

    /// An order that is there only for what stood aside goes with the last of it.
    pub(super) fn let_order_go(&mut self) {
        if self.window.standing_aside() == 0 {
            self.order.take_if(|order| order.is_free());
        }
    }

    /// Lets waiting events stand aside until one is found that may go, or there is no more room.
    pub(super) fn pass_by(&mut self) -> Option<(Seq, Option<Line>)> {
        let order = self.order.as_mut()?;
        // While the endpoint takes nothing, the log keeps what waits, and a retry is there to find out when it does again.
        let is_down = self.circuit.is_open() && !self.retries.is_empty();
        loop {
            let (seq, parcel) = self.window.waiting_events().next()?;
            let line = order.line_of(parcel.event());
            if order.lets_pass(seq, line) {
                return (!order.is_choked()).then_some((seq, line));
            }
            if is_down || self.window.open_room() == 0 {
                return None;
            }
            order.stand_aside(seq, line);
            self.window.set_aside();
        }
    }

    /// The next event, in flight now.
    pub(super) fn take_new(&mut self) -> Next {
        let ticket = self.ticket();
        let taken = if self.order.is_none() {
            self.window.take(ticket).map(|(seq, parcel)| (seq, Some(parcel)))
        } else if let Some(seq) = self.order.as_mut().and_then(|order| order.take_ready(false)) {
            Some((seq, self.window.take_aside(seq, ticket)))
        } else if let (Some((seq, line)), Some(order)) = (self.pass_by(), &mut self.order) {
            order.start(seq, line, false);
            self.window.take(ticket).map(|(seq, parcel)| (seq, Some(parcel)))
        } else {
            None
        };
        match taken {
            Some((seq, parcel)) => Next::Job(Job { seq, parcel, attempt: 1, ticket, errand: Errand::First, batch: None }),
            None => Next::Nothing,
        }
    }
}
