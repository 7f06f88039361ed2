//! Deliveries of a desk that wait for another attempt: which there are, which is due, what becomes of them.

use super::Desk;
use crate::job::{Errand, Job, Next};
use crate::order::{Fate, Found};
use crate::window::Ticket;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{Exception, ExceptionState, Seq};

/// A delivery that waits for its next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts that counted.
    pub attempts: u32,
    /// All attempts made.
    pub sent: u32,
    /// When the first one failed.
    pub since: Timestamp,
    /// When the next one is due.
    pub due_at: Timestamp,
    /// The last failure.
    pub reason: String,
    /// The attempt that is under way, while one is.
    pub(super) flight: Option<Ticket>,
    /// Whether the failed batch that it is of keeps the id that builds before gave it.
    pub(super) has_old_batch_id: bool,
    /// The failed batch that it is of, by its first event.
    pub(super) group: Seq,
}

impl Desk {
    /// The oldest event that waits for another attempt.
    #[must_use]
    pub fn oldest_retry(&self) -> Option<Seq> {
        self.retries.keys().next().copied()
    }

    /// The retry that waits for `seq`.
    #[must_use]
    pub fn retry(&self, seq: Seq) -> Option<&Retry> {
        self.retries.get(&seq)
    }

    /// Lets a stored retry wait.
    pub fn resume_retry(&mut self, exception: &Exception) {
        // The cursor may come to it yet: a job can have left it.
        self.again_to = self.again_to.max(exception.seq);
        self.keep_retry(exception);
        if let Some(order) = &mut self.order {
            order.find(exception.seq, Found::Retry);
        }
    }

    fn keep_retry(&mut self, exception: &Exception) {
        let group = match &mut self.batching {
            Some(batching) => batching.join(exception.since, exception.due_at, exception.seq),
            None => Seq::ZERO,
        };
        let retry = Retry {
            attempts: exception.attempts,
            sent: exception.sent,
            since: exception.since,
            due_at: exception.due_at,
            reason: exception.reason.clone(),
            flight: None,
            has_old_batch_id: exception.has_old_batch_id,
            group,
        };
        if let Some(old) = self.retries.insert(exception.seq, retry) {
            self.due.remove(&(old.due_at, exception.seq));
        }
        self.due.insert((exception.due_at, exception.seq));
    }

    /// Forgets retries of events behind `to`, which will come again; gives which.
    pub fn forget_retries_after(&mut self, to: Seq) -> Vec<Seq> {
        let forgotten = self.retries.split_off(&to.next());
        for (seq, retry) in &forgotten {
            self.due.remove(&(retry.due_at, *seq));
        }
        if let Some(batching) = &mut self.batching {
            batching.forget_after(to);
        }
        if self.order.is_some() {
            self.begin_rule();
        }
        forgotten.into_keys().collect()
    }

    /// Gives a waiting retry up; `false` when there is none. What it held up goes on.
    pub fn drop_retry(&mut self, seq: Seq) -> bool {
        let Some(retry) = self.retries.remove(&seq) else { return false };
        self.due.remove(&(retry.due_at, seq));
        let next = self.order.as_mut().and_then(|order| order.forget(seq));
        self.arm(next);
        true
    }

    /// The retry to make now: the earliest due; for a probe, whether it is due or not. One that must wait for another of its
    /// key is taken off the list; [`Desk::arm`] puts it back.
    pub(super) fn retry_to_make(&mut self, now: Timestamp, probing: bool) -> Option<Seq> {
        let order = self.order.as_deref();
        let may_go = |seq: Seq| order.is_none_or(|order| order.lets_retry(seq));
        if probing {
            // The oldest, but behind those that could not be made: what is damaged must not keep the others from it.
            let waiting = self.retries.iter().filter(|(seq, retry)| retry.flight.is_none() && may_go(**seq));
            let waiting = waiting.map(|(seq, _)| *seq);
            let other = waiting.clone().find(|seq| !self.unmade.contains(seq));
            let next = other.or_else(|| waiting.clone().next());
            if other.is_none() {
                self.unmade.clear();
            }
            return next;
        }
        while let Some((at, seq)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            if may_go(seq) {
                return Some(seq);
            }
            self.due.remove(&(at, seq));
        }
        None
    }

    /// Sees to it that a retry is found when it is due.
    pub(super) fn arm(&mut self, seq: Option<Seq>) {
        if let Some((seq, retry)) = seq.and_then(|seq| Some((seq, self.retries.get(&seq)?)))
            && retry.flight.is_none()
        {
            self.due.insert((retry.due_at, seq));
        }
    }

    pub(super) fn take_retry(&mut self, seq: Seq) -> Next {
        let Some(attempt) = self.lift_off(seq, false) else { return Next::Nothing };
        Next::Job(Job { seq, parcel: None, attempt, ticket: self.ticket(), errand: Errand::Retry, batch: None })
    }

    /// Puts a retry into flight; gives the number of its attempt.
    pub(super) fn lift_off(&mut self, seq: Seq, gathers: bool) -> Option<u32> {
        let ticket = self.ticket();
        let retry = self.retries.get_mut(&seq)?;
        retry.flight = Some(ticket);
        self.due.remove(&(retry.due_at, seq));
        if let Some(order) = &mut self.order {
            order.start_retry(seq, gathers);
        }
        Some(retry.sent + 1)
    }

    /// Takes in what became of an event: a retry, a dead letter or nothing more.
    pub(super) fn apply(&mut self, seq: Seq, put: Option<&Exception>) {
        let fate = match put {
            Some(exception) if exception.state == ExceptionState::Retry => {
                self.keep_retry(exception);
                Fate::Waits
            }
            Some(_) => {
                self.bury(seq);
                Fate::Dead
            }
            None => Fate::Done,
        };
        let next = self.order.as_mut().and_then(|order| order.settle(seq, fate));
        self.arm(next);
    }
}
