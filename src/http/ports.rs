//! What the edge needs from the rest of the relay, as small traits; the composition root brings the real ones.
//!
//! Owns the shapes that answers are made of. Must not know who stands behind a port.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::source::SourceGap;
use crate::model::subscription::SubscriptionRecord;
use crate::model::{Attempt, Exception, NewEvent, ResumeToken, Seq};
use crate::storage::{PageRequest, StorageError};

/// Where one event of a publish request ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its id.
    pub id: String,
    /// Its position; of the first one when it is a repeat.
    pub seq: Seq,
    /// Whether it had been stored before.
    pub duplicate: bool,
}

/// Why events were not taken; none of the request's was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The intake queue is full: try again at once.
    #[error("the intake queue is full")]
    Busy,
    /// The disk reserve is reached.
    #[error("the disk reserve is reached")]
    Full,
    /// The event at this index has the key of an earlier one and other bytes.
    #[error("event {index} has the id of an earlier one and other bytes")]
    Mismatch {
        /// Index in the request.
        index: usize,
    },
    /// The storage did not answer, or the relay is stopping.
    #[error("the events could not be stored")]
    Unavailable,
}

/// Takes events into the log.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Stores all events together; they are durable when it returns, in the order given.
    ///
    /// # Errors
    /// [`PublishError`]; nothing of the request is stored then.
    async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<Placed>, PublishError>;
}

/// How things stand with a subscription.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionStatus {
    /// How far it has come.
    pub cursor: Seq,
    /// How far the log has come.
    pub head: Seq,
    /// Matching events behind the cursor where that is cheap to know, else positions.
    pub lag: u64,
    /// Age of the oldest matching event that is not delivered.
    pub oldest_undelivered_age_s: Option<u64>,
    /// Attempts under way.
    pub in_flight: u32,
    /// Retries waiting.
    pub retrying: u32,
    /// Dead letters kept.
    pub dead: u64,
    /// Events that retention took first.
    pub expired: u64,
    /// `closed`, `open` or `half_open`.
    pub circuit: &'static str,
    /// Events delivered.
    pub delivered_total: u64,
    /// Attempts that failed.
    pub failed_attempts_total: u64,
    /// The newest attempt.
    pub last_attempt: Option<Attempt>,
    /// Whether its cursor stands still because of its endpoint.
    pub failing: bool,
}

/// How things stand with one event for one subscription.
#[derive(Clone, Debug, Default)]
pub struct DeliveryView {
    /// `delivered`, `pending`, `retrying`, `dead`, `filtered`, `expired` or `before_start`.
    pub state: &'static str,
    /// Why, for `dead` and `retrying`.
    pub reason: Option<String>,
    /// Attempts that are remembered, oldest first.
    pub attempts: Vec<Attempt>,
    /// When the next one is due.
    pub next_attempt_at: Option<Timestamp>,
}

/// One event that is not delivered yet.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// Which.
    pub seq: Seq,
    /// `pending`, `retrying` or `dead`.
    pub state: &'static str,
    /// The last failure.
    pub reason: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// When the next one is due.
    pub next_attempt_at: Option<Timestamp>,
}

/// Which dead letters to send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redrive {
    /// All that there are now.
    All,
    /// Those of these events.
    Seqs(Vec<Seq>),
}

/// The delivery side of subscriptions.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// How things stand.
    ///
    /// # Errors
    /// As storage fails.
    async fn status(&self, record: &SubscriptionRecord) -> Result<SubscriptionStatus, StorageError>;

    /// Sends one signed test event now and gives what came of it; the attempt's `seq` is zero.
    ///
    /// # Errors
    /// As the relay fails; a failing endpoint is not an error.
    async fn ping(&self, record: &SubscriptionRecord) -> Result<Attempt, StorageError>;

    /// Moves the cursor: everything behind `after` is its duty from now on.
    ///
    /// # Errors
    /// As storage fails.
    async fn seek(&self, record: &SubscriptionRecord, after: Seq) -> Result<(), StorageError>;

    /// Makes dead letters due again and gives how many.
    ///
    /// # Errors
    /// As storage fails.
    async fn redrive(&self, record: &SubscriptionRecord, which: Redrive) -> Result<u64, StorageError>;

    /// How things stand with one event.
    ///
    /// # Errors
    /// As storage fails.
    async fn delivery(&self, record: &SubscriptionRecord, seq: Seq) -> Result<DeliveryView, StorageError>;

    /// Dead letters by position.
    ///
    /// # Errors
    /// As storage fails.
    async fn dead_letters(&self, record: &SubscriptionRecord, page: PageRequest) -> Result<Vec<Exception>, StorageError>;

    /// Events that are not delivered, by position.
    ///
    /// # Errors
    /// As storage fails.
    async fn undelivered(&self, record: &SubscriptionRecord, page: PageRequest) -> Result<Vec<Undelivered>, StorageError>;
}

/// How things stand with a source.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// `connecting`, `connected`, `backoff` or `stopped`.
    pub state: &'static str,
    /// When its last event came in.
    pub last_event_at: Option<Timestamp>,
    /// The upstream's position.
    pub resume_token: Option<ResumeToken>,
    /// Events taken.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
    /// Records left out, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Connections after the first.
    pub reconnects: u64,
    /// Stretches that were missed.
    pub gaps: u64,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
}

/// The running side of sources.
#[async_trait]
pub trait SourceControl: Send + Sync {
    /// How things stand; `None` when it is not running.
    async fn status(&self, name: &str) -> Option<SourceStatus>;

    /// Drops its connection and makes a new one at once.
    async fn restart(&self, name: &str);

    /// Stretches that were missed, newest first, at most `limit`.
    ///
    /// # Errors
    /// As storage fails.
    async fn gaps(&self, name: &str, limit: u32) -> Result<Vec<SourceGap>, StorageError>;
}
