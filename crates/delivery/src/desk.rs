//! One subscription inside its lane: what may go out next, and what follows from an outcome. No I/O; time is an argument.
//!
//! It owns window, waiting retries, circuit, limiter and counters. It does not know who posts, who saves or who else there is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::batch::Batching;
use super::circuit::{Circuit, Permit};
use super::floor::LANE_QUEUE_BYTES_MAX;
use super::job::{Effect, Job, Next, attempt_of};
use super::limits::{Allowance, Leave, Pass};
use super::order::Order;
use super::pace::Pace;
use super::parcel::Parcel;
use super::policy::{self, Verdict};
use super::replays::Replays;
use super::sieve::Filtering;
use super::window::{Position, Ticket, Window};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{OnFull, Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Exception, ExceptionState, Outcome, Seq};

mod batching;
mod choice;
mod flight;
mod health;
mod ordering;
mod recovery;
mod retries;
mod totals;

use batching::NewWork;
use choice::Earlier;
use flight::Flight;
pub use retries::Retry;
pub use totals::Totals;

/// How it stands with being fed from the log; the lane's floor keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Feeding {
    /// Whether it is listed among the desks that want to be fed.
    pub is_listed: bool,
    /// Whether it was fed since it began to lag.
    pub has_boarded: bool,
    /// Whether the pages being fed are for it, too.
    pub rides_along: bool,
}

/// Whether order and batches are those of the definition in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// They are.
    InForce,
    /// They begin anew once nothing is on the wire.
    Due,
}

/// The state of one subscription in its lane.
#[derive(Debug)]
pub struct Desk {
    /// The definition in force.
    pub record: Arc<SubscriptionRecord>,
    /// Progress.
    pub window: Window<Rc<Parcel>>,
    /// Totals.
    pub totals: Totals,
    /// What its filter did, once it did something.
    pub filtering: Option<Box<Filtering>>,
    /// The newest attempt.
    pub last_attempt: Option<Attempt>,
    /// Whether it stands in the lane's ready queue.
    pub is_ready: bool,
    /// Whether it is listed among the desks whose progress is saved one by one.
    pub is_busy: bool,
    /// How it stands with being fed from the log.
    pub feeding: Feeding,
    /// No dead letter lies behind this, when there are any.
    pub dead_to: Seq,
    /// Events up to here may have had an attempt before their first: in front of a seek back, in an earlier process, by a job.
    pub again_to: Seq,
    /// What became of attempts that may have been of dead letters nobody knew as such: dead letters that are not counted yet, and
    /// retries that may still be counted.
    doubtful: Vec<(Seq, ExceptionState)>,
    /// The earliest time at which the lane's timer looks at it again.
    pub wakes_at: Option<Timestamp>,
    /// Whoever stores a change of what it wants and waits until it is judged by it; nothing is looked at meanwhile.
    pub(super) freezes: u32,
    /// Where somebody put the cursor last: no change that is stored meanwhile judges what was passed over by that.
    pub(super) put_at: Seq,
    /// How often a seek moved the cursor.
    pub(super) seeks: u64,
    /// What it wanted before, while not everything is behind it that was looked at then.
    earlier: Option<Box<Earlier>>,
    retries: BTreeMap<Seq, Retry>,
    due: BTreeSet<(Timestamp, Seq)>,
    /// Requests on the wire, also those that were called off: their endpoint does not know it.
    flights: u32,
    /// Attempts that began.
    begun: u64,
    rules: Rules,
    circuit: Circuit,
    pace: Option<Box<Pace>>,
    failing_since: Option<Timestamp>,
    allowance: Option<Box<Allowance>>,
    /// What the attempt that was given out last holds of shared limits.
    pub pass: Option<Box<Pass>>,
    hold_until: Timestamp,
    /// Retries that could not be made while the circuit was open; forgotten when the endpoint takes something, or no other waits.
    unmade: BTreeSet<Seq>,
    retry_went_last: bool,
    replays: Option<Box<Replays>>,
    order: Option<Box<Order>>,
    batching: Option<Box<Batching>>,
}

impl Desk {
    /// A desk for a subscription that stands at `position`.
    #[must_use]
    pub fn new(record: Arc<SubscriptionRecord>, position: Position) -> Self {
        let (order, batching) = (Order::of(&record.spec), record.spec.batch.map(Batching::new));
        Self {
            record,
            window: Window::at(position),
            totals: Totals::default(),
            filtering: None,
            last_attempt: None,
            is_ready: false,
            is_busy: false,
            feeding: Feeding::default(),
            dead_to: Seq::ZERO,
            again_to: Seq::ZERO,
            doubtful: Vec::new(),
            wakes_at: None,
            freezes: 0,
            put_at: Seq::ZERO,
            seeks: 0,
            earlier: None,
            retries: BTreeMap::new(),
            due: BTreeSet::new(),
            flights: 0,
            begun: 0,
            rules: Rules::InForce,
            circuit: Circuit::default(),
            pace: None,
            failing_since: None,
            allowance: None,
            pass: None,
            hold_until: Timestamp(0),
            unmade: BTreeSet::new(),
            retry_went_last: false,
            replays: None,
            order,
            batching,
        }
    }

    /// Its incarnation.
    #[must_use]
    pub fn ordinal(&self) -> Ordinal {
        self.record.ordinal
    }

    /// Whether deliveries go out at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.record.may_deliver()
    }

    /// Whether it may be fed from the log: active, behind, half empty, and not stopped by its circuit.
    #[must_use]
    pub fn is_hungry(&self) -> bool {
        matches!(self.window.position(), Position::Lagging(_))
            && self.freezes == 0
            && self.is_active()
            && !(self.circuit.is_open() && self.window.waiting() > 0)
            && self.window.waiting() <= self.queue_max().0 / 2
    }

    /// Whether another event may wait here while `lane_bytes` wait in the whole lane. An endpoint that only probes reach
    /// holds one event; a few are always taken, so that the lane's memory is nobody's to occupy.
    #[must_use]
    pub fn has_room(&self, lane_bytes: usize) -> bool {
        const ALWAYS: usize = 4;
        if self.circuit.is_open() {
            return self.window.waiting() == 0;
        }
        let (events, bytes) = self.queue_max();
        self.window.has_room_up_to(events, bytes) && (lane_bytes < LANE_QUEUE_BYTES_MAX || self.window.waiting() < ALWAYS)
    }

    /// Requests on the wire; a batch is one.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.flights
    }

    /// The attempt that begins next.
    fn ticket(&self) -> Ticket {
        Ticket(self.begun)
    }

    /// Retries that wait or are in flight.
    #[must_use]
    pub fn retrying(&self) -> u32 {
        u32::try_from(self.retries.len()).unwrap_or(u32::MAX)
    }

    /// Whether no more retries may wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.retrying() >= self.record.spec.max_retrying
    }

    /// The circuit.
    #[must_use]
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Takes a changed definition.
    pub fn redefine(&mut self, record: Arc<SubscriptionRecord>) {
        let before = std::mem::replace(&mut self.record, record);
        if before.spec.url != self.record.spec.url || before.activity != self.record.activity {
            // Another endpoint, or one that was said to be well again, starts without its past.
            self.begin_anew(before.activity.is_ended_by_endpoint());
        }
        let (old, new) = (&before.spec, &self.record.spec);
        let reorders = (&old.ordering, old.on_dead) != (&new.ordering, new.on_dead);
        if reorders || old.batch != new.batch {
            self.begin_rule();
        }
    }

    /// Drops what waits in memory and stands still at the cursor.
    pub fn rewind(&mut self, lane: Seq) {
        self.window.rewind(lane);
    }

    /// What goes out next; it is on the wire until [`Desk::settle`].
    pub fn next(&mut self, now: Timestamp) -> Next {
        let next = self.choose(now);
        if matches!(next, Next::Job(_)) {
            self.flights += 1;
            self.begun += 1;
        }
        next
    }

    fn choose(&mut self, now: Timestamp) -> Next {
        if !self.is_active() || !self.take_up_rule() {
            return Next::Nothing;
        }
        if self.hold_until > now {
            return Next::WaitUntil(self.hold_until);
        }
        self.hold_until = Timestamp(0);
        let probing = match self.circuit.permit(self.in_flight_allowed()) {
            Permit::UpTo(limit) if self.in_flight() >= limit => return Next::Nothing,
            Permit::UpTo(_) => false,
            Permit::ProbeAt(_) if self.in_flight() > 0 => return Next::Nothing,
            Permit::ProbeAt(at) if at > now => return Next::WaitUntil(at),
            Permit::ProbeAt(_) => true,
        };
        self.let_order_go();
        if self.order.as_ref().is_some_and(|order| order.is_unsorted()) {
            return Next::Nothing;
        }
        let retry = self.retry_to_make(now, probing);
        let new = self.new_work(now, probing);
        let has_live = retry.is_some() || new == NewWork::Now;
        // A job probes only where nothing else can: the letters that it posts may hold up everything else.
        let as_replay = !(probing && has_live) && self.replay_goes(has_live);
        let as_retry = match (retry, new) {
            _ if as_replay => false,
            (Some(_), NewWork::Now) => !self.retry_went_last,
            (Some(_), _) => true,
            (None, NewWork::Now) => false,
            (None, NewWork::At(at)) => return Next::WaitUntil(self.due.first().map_or(at, |(due, _)| at.min(*due))),
            (None, NewWork::None) => return self.due.first().map_or(Next::Nothing, |(at, _)| Next::WaitUntil(*at)),
        };
        if let Some(allowance) = &mut self.allowance {
            match allowance.ask() {
                Leave::Go(pass) => self.pass = pass,
                Leave::In(wait) => return Next::WaitUntil(now.plus(wait)),
                Leave::WhenCalled => return Next::Nothing,
            }
        }
        if as_replay {
            return self.take_replay();
        }
        self.note_live();
        self.retry_went_last = as_retry;
        match retry {
            Some(seq) if as_retry && self.batching.is_some() => self.take_failed_batch(seq),
            Some(seq) if as_retry => self.take_retry(seq),
            _ if self.batching.is_some() => self.take_batch(),
            _ => self.take_new(),
        }
    }

    /// Takes in the outcome of an attempt that began at `began`. `chance` is uniform in `0.0..1.0`.
    pub fn settle(&mut self, job: &Job, outcome: &Outcome, began: Timestamp, now: Timestamp, chance: f64) -> Effect {
        debug_assert!(self.flights > 0, "an attempt ends once");
        self.flights = self.flights.saturating_sub(1);
        match &job.batch {
            Some(batch) => return self.settle_batch(job, batch, outcome, (began, now), chance),
            None if self.postpone_replay(job, outcome, (began, now), chance) => return Effect::default(),
            None => {}
        }
        let attempt = attempt_of(job, outcome, began);
        let failure = (!outcome.is_success() && !outcome.is_own_fault()).then(|| attempt.clone());
        if !outcome.is_own_fault() {
            self.last_attempt = Some(attempt);
        }
        let flight = self.end_flight((job.errand, job.ticket), job.seq, outcome, now);
        let Some(history) = flight.history(now) else { return Effect { failure, ..Effect::default() } };
        let decision = self.judge(std::iter::once(job.seq), outcome, history, (began, now), chance);
        let mut effect = self.conclude((job.seq, job.attempt), &flight, outcome, &decision.verdict, now);
        effect.failure = failure;
        effect
    }

    /// Does what was decided about one event whose flight ended.
    fn conclude(
        &mut self,
        (seq, sent): (Seq, u32),
        flight: &Flight,
        outcome: &Outcome,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Effect {
        let Some(history) = flight.history(now) else { return Effect::default() };
        let was_retry = matches!(flight, Flight::Again(_) | Flight::Recovered { before: Some(_), .. });
        let mut effect = Effect::default();
        let is_own = outcome.is_own_fault();
        self.totals.delivered += u64::from(outcome.is_success());
        self.totals.failed_attempts += u64::from(!outcome.is_success() && !is_own);
        // What could not be sent has no number: the next attempt has it.
        let sent = sent - u32::from(is_own);
        let has_old_batch_id = flight.has_old_batch_id();
        let remembered = |state, attempts, due_at, reason| {
            let ordinal = self.record.ordinal;
            Some(Exception { ordinal, seq, state, attempts, sent, due_at, since: history.since, reason, has_old_batch_id })
        };
        let dead_for = |reason| remembered(ExceptionState::Dead, history.attempts + 1, now, reason);
        match verdict {
            Verdict::Settled => {
                effect.clear = was_retry.then_some(seq);
                effect.disable = policy::farewell(outcome);
            }
            Verdict::RetryAt { .. } if !was_retry && !is_own && self.is_full() && self.record.spec.on_full == OnFull::Dead => {
                effect.put = dead_for(outcome.describe());
            }
            Verdict::RetryAt { at, counts } => {
                let attempts = history.attempts + u32::from(*counts);
                effect.put = remembered(ExceptionState::Retry, attempts, *at, outcome.describe());
            }
            // Before its first attempt, retention took it from a cursor that stood still, as it takes what was never read.
            Verdict::EventGone if !was_retry => effect.expired = Some(seq),
            Verdict::EventGone => effect.put = dead_for(policy::NO_LONGER_KEPT.to_owned()),
            Verdict::Dead(reason) => effect.put = dead_for(reason.clone()),
            Verdict::Disable(reason) => {
                effect.disable = Some(*reason);
                effect.put = remembered(ExceptionState::Retry, history.attempts, now, outcome.describe());
            }
        }
        if matches!(flight, Flight::First) && self.retries.contains_key(&seq) {
            return self.leave_to_retry(seq, outcome.is_success(), effect);
        }
        let may_be_dead = self.may_be_dead(seq)
            && match flight {
                Flight::First => seq <= self.again_to,
                // It died, or was delivered, since the job found it.
                Flight::Recovered { before, .. } => before.is_none(),
                _ => false,
            };
        let dead = self.totals.dead;
        match flight {
            Flight::Recovered { is_kept, line, .. } => self.apply_recovered(*is_kept, *line, &mut effect),
            _ => self.apply(seq, effect.put.as_ref()),
        }
        if may_be_dead && let Some(exception) = &effect.put {
            self.totals.dead = dead;
            self.doubtful.push((seq, exception.state));
        }
        effect
    }
}

#[cfg(test)]
mod tests;
