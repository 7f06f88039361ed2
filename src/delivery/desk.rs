//! One subscription inside its lane: what may go out next, and what follows from an outcome. No I/O; time is an argument.
//!
//! It owns window, waiting retries, circuit, limiter and counters. It does not know who posts, who saves or who else there is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::circuit::{Circuit, Permit};
use super::floor::LANE_QUEUE_BYTES_MAX;
use super::job::{Effect, Errand, Job, Next, attempt_of};
use super::limiter::Limiter;
use super::parcel::Parcel;
use super::policy::{self, Before, Verdict};
use super::window::{Position, Window};
use crate::clock::Timestamp;
use crate::model::subscription::{OnFull, Ordinal, SubscriptionRecord};
use crate::model::{Attempt, ErrorKind, Exception, ExceptionState, Outcome, Seq};

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
    in_flight: bool,
}

/// Running totals since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Events delivered.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Dead letters kept.
    pub dead: u64,
    /// Positions that retention took.
    pub expired: u64,
}

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

/// The state of one subscription in its lane.
#[derive(Debug)]
pub struct Desk {
    /// The definition in force.
    pub record: Arc<SubscriptionRecord>,
    /// Progress.
    pub window: Window<Rc<Parcel>>,
    /// Totals.
    pub totals: Totals,
    /// The newest attempt.
    pub last_attempt: Option<Attempt>,
    /// Whether it stands in the lane's ready queue.
    pub is_ready: bool,
    /// Whether it is listed among the desks whose progress is saved one by one.
    pub is_busy: bool,
    /// How it stands with being fed from the log.
    pub feeding: Feeding,
    /// The earliest time at which the lane's timer looks at it again.
    pub wakes_at: Option<Timestamp>,
    retries: BTreeMap<Seq, Retry>,
    due: BTreeSet<(Timestamp, Seq)>,
    retries_in_flight: u32,
    circuit: Circuit,
    limiter: Option<Box<Limiter>>,
    hold_until: Timestamp,
    retry_went_last: bool,
}

impl Desk {
    /// A desk for a subscription that stands at `position`.
    #[must_use]
    pub fn new(record: Arc<SubscriptionRecord>, position: Position) -> Self {
        let limiter = record.effective_rate_limit().map(Limiter::new).map(Box::new);
        Self {
            record,
            window: Window::at(position),
            totals: Totals::default(),
            last_attempt: None,
            is_ready: false,
            is_busy: false,
            feeding: Feeding::default(),
            wakes_at: None,
            retries: BTreeMap::new(),
            due: BTreeSet::new(),
            retries_in_flight: 0,
            circuit: Circuit::default(),
            limiter,
            hold_until: Timestamp(0),
            retry_went_last: false,
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
            && self.is_active()
            && !(self.circuit.is_open() && self.window.waiting() > 0)
            && self.window.waiting() <= super::window::QUEUE_MAX / 2
    }

    /// Whether another event may wait here while `lane_bytes` wait in the whole lane. An endpoint that only probes reach
    /// holds one event; a few are always taken, so that the lane's memory is nobody's to occupy.
    #[must_use]
    pub fn has_room(&self, lane_bytes: usize) -> bool {
        const ALWAYS: usize = 4;
        if self.circuit.is_open() {
            return self.window.waiting() == 0;
        }
        self.window.has_room() && (lane_bytes < LANE_QUEUE_BYTES_MAX || self.window.waiting() < ALWAYS)
    }

    /// Whether new events of this type are for it.
    #[must_use]
    pub fn wants_type(&self, kind: &str) -> bool {
        let types = &self.record.spec.types;
        types.is_empty() || types.iter().any(|wanted| wanted == kind)
    }

    /// Attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.window.in_flight()).unwrap_or(u32::MAX).saturating_add(self.retries_in_flight)
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

    /// Takes a changed definition; `true` when it chooses other events than the one before.
    pub fn redefine(&mut self, record: Arc<SubscriptionRecord>) -> bool {
        let before = std::mem::replace(&mut self.record, record);
        let (old, new) = (&before.spec, &self.record.spec);
        let limit = self.record.effective_rate_limit();
        if before.effective_rate_limit() != limit {
            self.limiter = limit.map(Limiter::new).map(Box::new);
        }
        if old.url != new.url || before.activity != self.record.activity {
            // Another endpoint, or one that was said to be well again, starts without its past.
            self.circuit = Circuit::default();
            self.hold_until = Timestamp(0);
        }
        old.topics != new.topics || old.types != new.types
    }

    /// Lets a stored retry wait.
    pub fn resume_retry(&mut self, exception: &Exception) {
        let retry = Retry {
            attempts: exception.attempts,
            sent: exception.sent,
            since: exception.since,
            due_at: exception.due_at,
            reason: exception.reason.clone(),
            in_flight: false,
        };
        if let Some(old) = self.retries.insert(exception.seq, retry) {
            self.due.remove(&(old.due_at, exception.seq));
            self.retries_in_flight -= u32::from(old.in_flight);
        }
        self.due.insert((exception.due_at, exception.seq));
    }

    /// Forgets retries of events behind `to`, which will come again; gives which.
    pub fn forget_retries_after(&mut self, to: Seq) -> Vec<Seq> {
        let forgotten = self.retries.split_off(&to.next());
        for (seq, retry) in &forgotten {
            self.due.remove(&(retry.due_at, *seq));
            self.retries_in_flight = self.retries_in_flight.saturating_sub(u32::from(retry.in_flight));
        }
        forgotten.into_keys().collect()
    }

    /// Drops what waits in memory and stands still at the cursor.
    pub fn rewind(&mut self, lane: Seq) {
        self.window.rewind(lane);
    }

    /// What goes out next.
    pub fn next(&mut self, now: Timestamp) -> Next {
        if !self.is_active() {
            return Next::Nothing;
        }
        if self.hold_until > now {
            return Next::WaitUntil(self.hold_until);
        }
        let probing = match self.circuit.permit(self.record.spec.max_in_flight) {
            Permit::UpTo(limit) if self.in_flight() >= limit => return Next::Nothing,
            Permit::UpTo(_) => false,
            Permit::ProbeAt(_) if self.in_flight() > 0 => return Next::Nothing,
            Permit::ProbeAt(at) if at > now => return Next::WaitUntil(at),
            Permit::ProbeAt(_) => true,
        };
        let retry = self.retry_to_make(now, probing);
        let new_allowed = self.window.waiting() > 0 && self.may_start_new();
        let as_retry = match (retry, new_allowed) {
            (Some(_), true) => !self.retry_went_last,
            (Some(_), false) => true,
            (None, true) => false,
            (None, false) => return self.due.first().map_or(Next::Nothing, |(at, _)| Next::WaitUntil(*at)),
        };
        if let Some(limiter) = &self.limiter
            && let Err(wait) = limiter.spend()
        {
            return Next::WaitUntil(now.plus(wait.max(Duration::from_millis(1))));
        }
        self.retry_went_last = as_retry;
        match retry {
            Some(seq) if as_retry => self.take_retry(seq),
            _ => self.take_new(),
        }
    }

    /// The retry to make now: the earliest due; for a probe the oldest, due or not.
    fn retry_to_make(&self, now: Timestamp, probing: bool) -> Option<Seq> {
        if probing {
            return self.retries.iter().find(|(_, retry)| !retry.in_flight).map(|(seq, _)| *seq);
        }
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, seq)| *seq)
    }

    /// Every attempt in flight may come back as a retry, so those count as if they had.
    fn may_start_new(&self) -> bool {
        let held = self.retrying() + u32::try_from(self.window.in_flight()).unwrap_or(u32::MAX);
        self.record.spec.on_full == OnFull::Dead || held < self.record.spec.max_retrying
    }

    fn take_retry(&mut self, seq: Seq) -> Next {
        let Some(retry) = self.retries.get_mut(&seq) else { return Next::Nothing };
        retry.in_flight = true;
        self.retries_in_flight += 1;
        self.due.remove(&(retry.due_at, seq));
        Next::Job(Job { seq, parcel: None, attempt: retry.sent + 1, errand: Errand::Retry })
    }

    fn take_new(&mut self) -> Next {
        match self.window.take() {
            Some((seq, parcel)) => Next::Job(Job { seq, parcel: Some(parcel), attempt: 1, errand: Errand::First }),
            None => Next::Nothing,
        }
    }

    /// Takes in the outcome of an attempt that began at `began`. `chance` is uniform in `0.0..1.0`.
    pub fn settle(&mut self, job: &Job, outcome: &Outcome, began: Timestamp, now: Timestamp, chance: f64) -> Effect {
        let attempt = attempt_of(job, outcome, began);
        let failure = (!outcome.is_success()).then(|| attempt.clone());
        self.last_attempt = Some(attempt);
        let before = match self.end_flight(job) {
            Flight::CalledOff => return Effect::default(),
            Flight::First => None,
            Flight::Again(retry) => Some(retry),
        };
        // An event that could not be read says nothing of the endpoint.
        if outcome.error != Some(ErrorKind::Storage) {
            self.circuit.record(policy::blames_endpoint(outcome), now, chance);
        }
        let history = Before {
            attempts: before.as_ref().map_or(0, |retry| retry.attempts),
            since: before.as_ref().map_or(now, |retry| retry.since),
        };
        let decision = policy::decide(outcome, history, &self.record.spec.retry, now, chance);
        if let Some(until) = decision.hold_until {
            self.hold_until = self.hold_until.max(until);
        }
        let mut effect = Effect::default();
        if outcome.is_success() {
            self.totals.delivered += 1;
        } else {
            self.totals.failed_attempts += 1;
            effect.failure = failure;
        }
        let was_retry = before.is_some();
        let remembered = |state, attempts, due_at, reason| Exception {
            ordinal: self.record.ordinal,
            seq: job.seq,
            state,
            attempts,
            sent: job.attempt,
            due_at,
            since: history.since,
            reason,
        };
        match decision.verdict {
            Verdict::Settled => effect.clear = was_retry.then_some(job.seq),
            Verdict::RetryAt { .. } if !was_retry && self.is_full() && self.record.spec.on_full == OnFull::Dead => {
                effect.put = Some(remembered(ExceptionState::Dead, history.attempts + 1, now, outcome.describe()));
            }
            Verdict::RetryAt { at, counts } => {
                let attempts = history.attempts + u32::from(counts);
                effect.put = Some(remembered(ExceptionState::Retry, attempts, at, outcome.describe()));
            }
            Verdict::Dead(reason) => {
                effect.put = Some(remembered(ExceptionState::Dead, history.attempts + 1, now, reason));
            }
            Verdict::Disable(reason) => {
                effect.disable = Some(reason);
                effect.put = Some(remembered(ExceptionState::Retry, history.attempts, now, outcome.describe()));
            }
        }
        self.apply(effect.put.as_ref());
        effect
    }

    fn apply(&mut self, put: Option<&Exception>) {
        match put {
            Some(exception) if exception.state == ExceptionState::Retry => self.resume_retry(exception),
            Some(_) => self.totals.dead += 1,
            None => {}
        }
    }

    /// Ends the flight of a job.
    fn end_flight(&mut self, job: &Job) -> Flight {
        if job.errand == Errand::First {
            return if self.window.settle(job.seq) { Flight::First } else { Flight::CalledOff };
        }
        let Some(retry) = self.retries.remove(&job.seq) else { return Flight::CalledOff };
        self.retries_in_flight = self.retries_in_flight.saturating_sub(u32::from(retry.in_flight));
        self.due.remove(&(retry.due_at, job.seq));
        Flight::Again(retry)
    }
}

/// What an attempt turned out to be when it ended.
enum Flight {
    /// Nobody waits for it any more, after a seek, say.
    CalledOff,
    /// The first attempt of its event.
    First,
    /// A retry.
    Again(Retry),
}
