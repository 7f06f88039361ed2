//! What a desk makes of how its endpoint fares: circuit, pace, and since when there was nothing but failure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Desk;
use crate::checkpoint::Hold;
use crate::circuit::Circuit;
use crate::floor::Assignment;
use crate::job::Effect;
use crate::limits::{Bell, LimitBook, SharedLimit, own_rate};
use crate::notice::Notice;
use crate::pace::{self, Pace};
use crate::policy::{self, Before, Decision};
use hookcast_core::clock::{RETRY_AFTER_MAX, Timestamp};
use hookcast_core::model::outcome::Ending;
use hookcast_core::model::subscription::{DisabledReason, SubscriptionRecord};
use hookcast_core::model::{ErrorKind, Exception, Outcome, Seq};

/// After a start, time in which an endpoint that failed before it may show that it is well, but for half of `disable_after`:
/// while the relay was away, it could not.
const START_GRACE: Duration = Duration::from_mins(10);

/// What tells one URL from another in a checkpoint.
fn mark_of(url: &str) -> u64 {
    let digest = Sha256::digest(url.as_bytes());
    digest.iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
}

/// What is known of an endpoint, apart from the deliveries to it.
#[derive(Clone, Debug)]
pub struct Condition {
    circuit: Circuit,
    pace: Option<Box<Pace>>,
    failing_since: Option<Timestamp>,
    hold_until: Timestamp,
    unmade: BTreeSet<Seq>,
}

impl Desk {
    /// Whether the cursor stands still because too many retries wait or the circuit is open.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_full() || self.circuit.is_open()
    }

    /// Takes in the outcome of an attempt made by a definition that may have changed since; gives also what is to be said of
    /// the endpoint.
    pub fn settle_in_force(
        &mut self,
        assignment: &Assignment,
        outcome: &Outcome,
        (began, now): (Timestamp, Timestamp),
        chance: f64,
    ) -> (Effect, Option<Notice>) {
        if self.record.spec.url != assignment.record.spec.url {
            // Another endpoint than the one in force said so; the event goes out again, to the new one.
            let known = self.condition();
            let effect = self.settle(&assignment.job, outcome, began, now, chance);
            self.restore(known);
            return (Effect { disable: None, ..effect }, None);
        }
        let was_closed = self.circuit.is_closed();
        let mut effect = self.settle(&assignment.job, outcome, began, now, chance);
        if self.failing_since.is_some_and(|since| now.since(since) >= self.record.spec.disable_after) {
            effect.disable.get_or_insert(DisabledReason::Failing);
        }
        let has_turned = was_closed != self.circuit.is_closed();
        (effect, has_turned.then(|| Notice::turned(self, outcome)))
    }

    /// What follows from an outcome for the events `of` it; what the endpoint has done is taken in.
    pub(super) fn judge(
        &mut self,
        of: impl Iterator<Item = Seq>,
        outcome: &Outcome,
        history: Before,
        (began, now): (Timestamp, Timestamp),
        chance: f64,
    ) -> Decision {
        // An event that could not be read or filled in, or over which the relay broke, says nothing of the endpoint.
        match &outcome.ending {
            Ending::EventGone | Ending::Unmade(_) | Ending::Failed { kind: ErrorKind::OwnFault | ErrorKind::Template, .. } => {}
            Ending::Failed { kind: ErrorKind::Storage | ErrorKind::Internal, .. } => {
                if self.circuit.is_open() {
                    // Mostly a probe; of what else was in flight when it opened the order is of no weight.
                    self.unmade.extend(of);
                }
                // A probe takes no heed of when a retry is due: without this the next one would go at once.
                self.circuit.put_off(now, chance);
            }
            Ending::Answered(_) | Ending::Failed { .. } => self.weigh(outcome, began, now, chance),
        }
        let decision = policy::decide(outcome, history, &self.record.spec.retry, now, chance);
        if let Some(until) = decision.hold_until {
            self.hold_until = self.hold_until.max(until);
        }
        decision
    }

    /// Takes note of what an attempt says of the endpoint.
    pub(super) fn weigh(&mut self, outcome: &Outcome, began: Timestamp, now: Timestamp, chance: f64) {
        let was_open = self.circuit.is_open();
        self.circuit.record(policy::blames_endpoint(outcome), now, chance);
        if self.pace.is_some() || pace::is_too_much(outcome) {
            let before = self.pace.as_deref().copied();
            self.pace = Pace::after(before, outcome, began, now, self.record.spec.max_in_flight).map(Box::new);
        }
        if outcome.is_success() {
            self.unmade.clear();
            self.failing_since = None;
            if was_open {
                self.pace = Some(Box::new(Pace::from_one(now)));
            }
        } else {
            self.failing_since.get_or_insert(now);
        }
    }

    /// Attempts that may be in flight while the circuit is closed.
    pub(super) fn in_flight_allowed(&self) -> u32 {
        let max = self.record.spec.max_in_flight;
        self.pace.as_deref().map_or(max, |pace| pace.allowed().min(max))
    }

    /// Since when there was nothing but failure, if the last attempt failed.
    #[must_use]
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    /// Goes on counting failure that began before the start, which is now.
    pub fn resume_failing(&mut self, since: Timestamp, now: Timestamp) {
        let limit = self.record.spec.disable_after;
        let earliest = now.minus(limit.saturating_sub(START_GRACE.min(limit / 2)));
        self.failing_since = Some(since.max(earliest).min(now));
    }

    /// Until when its endpoint is left alone, if it asked for it.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        (self.hold_until.0 > 0).then(|| Hold { until: self.hold_until, mark: mark_of(&self.record.spec.url) })
    }

    /// Goes on leaving an endpoint alone that asked for it before the start, which is now; not longer than any may ask for,
    /// whatever clocks did, and not another endpoint.
    pub fn resume_hold(&mut self, hold: Hold, now: Timestamp) {
        if hold.mark == mark_of(&self.record.spec.url) {
            self.hold_until = hold.until.min(now.plus(RETRY_AFTER_MAX));
        }
    }

    /// Lets a retry wait that was stored before the start, which is now. No clock that stepped meanwhile makes it wait longer
    /// than any retry may: one that failed in what is now the future is due as long after now as it was after that.
    pub fn resume_stored(&mut self, stored: &Exception, now: Timestamp) {
        let policy = &self.record.spec.retry;
        let longest = policy.schedule.iter().max().copied().unwrap_or_default().mul_f64(1.0 + policy.jitter);
        let mut retry = stored.clone();
        if retry.since > now {
            retry.due_at = now.plus(retry.due_at.since(retry.since));
            retry.since = now;
        }
        retry.due_at = retry.due_at.min(now.plus(longest.max(RETRY_AFTER_MAX)));
        self.resume_retry(&retry);
    }

    /// Forgets what is known of the endpoint: it is another one, or was said to be well again. `slowly` begins with one attempt.
    pub(super) fn begin_anew(&mut self, slowly: bool) {
        self.circuit = Circuit::default();
        self.hold_until = Timestamp(0);
        self.failing_since = None;
        self.unmade.clear();
        self.pace = slowly.then(|| Box::new(Pace::from_one(Timestamp(0))));
    }

    /// What is known of the endpoint.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let (circuit, pace, unmade) = (self.circuit.clone(), self.pace.clone(), self.unmade.clone());
        Condition { circuit, pace, failing_since: self.failing_since, hold_until: self.hold_until, unmade }
    }

    /// Puts back what was known of the endpoint.
    pub fn restore(&mut self, condition: Condition) {
        let Condition { circuit, pace, failing_since, hold_until, unmade } = condition;
        (self.circuit, self.pace, self.unmade) = (circuit, pace, unmade);
        (self.failing_since, self.hold_until) = (failing_since, hold_until);
    }

    /// Puts the limits of `book` in force; unless `before` had the same, for which they go on.
    pub fn limit(&mut self, book: &LimitBook, bell: &Arc<Bell>, before: Option<&SubscriptionRecord>) {
        let terms = |record: &SubscriptionRecord| (own_rate(record), record.spec.limit_group.clone(), record.spec.url.clone());
        if before.is_some_and(|before| terms(before) == terms(&self.record)) {
            return;
        }
        let fresh = book.allowance(&self.record, bell);
        let old = std::mem::replace(&mut self.allowance, fresh);
        if let (Some(mut old), Some(fresh)) = (old, &mut self.allowance)
            && before.is_some_and(|before| own_rate(before) == own_rate(&self.record))
        {
            fresh.inherit(&mut old);
        }
    }

    /// Takes a place of a shared limit that was handed over; `false` when it is not waited for.
    pub fn take_handed(&mut self, limit: &Arc<SharedLimit>) -> bool {
        self.allowance.as_mut().is_some_and(|allowance| allowance.take_handed(limit))
    }

    /// Lets others have the places that the desk holds and did not ask for when it was looked at.
    pub fn step_aside(&mut self) {
        self.pass = None;
        if let Some(allowance) = &mut self.allowance {
            allowance.step_aside();
        }
    }

    /// Moves every time that is waited for by as much as the wall clock was moved.
    pub fn shift(&mut self, by_ms: i64) {
        let moved = |at: Timestamp| Timestamp(at.0.saturating_add(by_ms));
        for retry in self.retries.values_mut() {
            retry.due_at = moved(retry.due_at);
            retry.since = moved(retry.since);
        }
        self.due = std::mem::take(&mut self.due).into_iter().map(|(at, seq)| (moved(at), seq)).collect();
        self.circuit.shift(by_ms);
        if let Some(batching) = &mut self.batching {
            batching.shift(by_ms);
        }
        if let Some(pace) = &mut self.pace {
            pace.shift(by_ms);
        }
        self.failing_since = self.failing_since.map(moved);
        if self.hold_until.0 > 0 {
            self.hold_until = moved(self.hold_until);
        }
    }
}
