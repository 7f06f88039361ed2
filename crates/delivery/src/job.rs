//! One attempt from the desk's side: what is to be made, what came of it, how it is remembered. Pure data.

use std::rc::Rc;

use super::batch::Gathered;
use super::parcel::Parcel;
use super::window::Ticket;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{DisabledReason, Ordinal};
use hookcast_core::model::{Attempt, Event, Exception, JobId, Outcome, Seq, Success};

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// The event came up in the log.
    First,
    /// An earlier attempt failed.
    Retry,
    /// A recovery job wants it posted once more.
    Replay(JobId),
}

/// One attempt to make.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which event.
    pub seq: Seq,
    /// The event, for a first attempt; a retry reads it.
    pub parcel: Option<Rc<Parcel>>,
    /// For `hookcast-attempt`: 1 for the first.
    pub attempt: u32,
    /// Which of the subscription's attempts it is.
    pub ticket: Ticket,
    /// Why it is made.
    pub errand: Errand,
    /// The events that go out together, `seq` the first of them, where the subscription gathers.
    pub batch: Option<Rc<Gathered>>,
}

impl Job {
    /// The recovery job that wants it, for `hookcast-replay`.
    #[must_use]
    pub fn replay(&self) -> Option<JobId> {
        match self.errand {
            Errand::Replay(id) => Some(id),
            _ => None,
        }
    }
}

/// What a subscription wants now.
#[derive(Debug)]
pub enum Next {
    /// Make this attempt.
    Job(Job),
    /// Nothing before then.
    WaitUntil(Timestamp),
    /// Nothing until something changes.
    Nothing,
}

/// What must be remembered of an attempt.
#[derive(Debug, Default)]
pub struct Effect {
    /// An exception made or changed.
    pub put: Option<Exception>,
    /// The exception that ended.
    pub clear: Option<Seq>,
    /// The failure.
    pub failure: Option<Attempt>,
    /// The event that retention took before its first attempt.
    pub expired: Option<Seq>,
    /// The subscription must be disabled.
    pub disable: Option<DisabledReason>,
    /// The same of further events of a batch, each with its event where that is known.
    pub rest: Vec<(Effect, Option<Event>)>,
}

/// How a successful attempt is remembered in the history.
#[must_use]
pub fn success_of(ordinal: Ordinal, seq: Seq, n: u32, outcome: &Outcome, began: Timestamp) -> Success {
    Success { ordinal, seq, at: began, n, latency_ms: outcome.latency_ms, status: outcome.status().unwrap_or(200) }
}

impl Effect {
    /// Whether there is nothing to remember of the event; whether to disable is not asked.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.put.is_none() && self.clear.is_none() && self.failure.is_none() && self.expired.is_none() && self.rest.is_empty()
    }
}

/// How an attempt is remembered.
#[must_use]
pub fn attempt_of(job: &Job, outcome: &Outcome, began: Timestamp) -> Attempt {
    let failed = !outcome.is_success();
    Attempt {
        seq: job.seq,
        n: job.attempt,
        at: began,
        outcome: if failed { "failure" } else { "success" }.to_owned(),
        status: outcome.status(),
        error: failed.then(|| outcome.describe()),
        latency_ms: outcome.latency_ms,
        response: outcome.said(),
    }
}
