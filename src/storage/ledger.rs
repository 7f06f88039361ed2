//! What the ledger of progress must do: a checkpoint a partition, a row an exception. Knows nothing of the log's form.

use async_trait::async_trait;

use super::Result;
use crate::clock::Timestamp;
use crate::model::delivery::{ExpiredRange, KeptException};
use crate::model::subscription::Ordinal;
use crate::model::{Attempt, Exception, ExceptionState, Seq};

/// How far one partition of subscriptions has come; `state` belongs to delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every caught-up subscription has come this far.
    pub frontier: Seq,
    /// Encoded progress of all that are not simply there.
    pub state: Vec<u8>,
}

/// The right to move one partition; the epoch fences older holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The partition.
    pub partition: u16,
    /// Rises with every lease given.
    pub epoch: u64,
}

/// A change of one partition.
#[derive(Clone, Debug)]
pub struct LedgerChange {
    /// Who changes it.
    pub lease: Lease,
    /// Exceptions made or changed; durable before the checkpoint passes them.
    pub put: Vec<KeptException>,
    /// Exceptions that ended.
    pub clear: Vec<(Ordinal, Seq)>,
    /// Failed attempts to remember.
    pub failures: Vec<(Ordinal, Attempt)>,
    /// Ranges that retention took.
    pub expired: Vec<ExpiredRange>,
    /// The new progress, when it moved.
    pub checkpoint: Option<Checkpoint>,
}

/// A page of a list: `after` is the key of the last item seen.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Items behind this position.
    pub after: Seq,
    /// Most items.
    pub limit: u32,
}

/// Who has received what: progress a partition, a row an exception.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Takes the partition over from whoever held it.
    ///
    /// # Errors
    /// As the backend fails.
    async fn lease(&self, partition: u16) -> Result<Lease>;

    /// Its last checkpoint; default when there is none.
    ///
    /// # Errors
    /// As the backend fails.
    async fn load(&self, partition: u16) -> Result<Checkpoint>;

    /// All waiting retries and the number of dead letters by subscription, for a start.
    ///
    /// # Errors
    /// As the backend fails.
    async fn exceptions(&self, partition: u16) -> Result<(Vec<Exception>, Vec<(Ordinal, u64)>)>;

    /// Applies the changes in order, together for each partition; repeating it changes nothing.
    ///
    /// # Errors
    /// `Fenced` when a lease was taken over; nothing of that change is applied then, all others are.
    async fn commit(&self, changes: Vec<LedgerChange>) -> Result<()>;

    /// One exception.
    ///
    /// # Errors
    /// As the backend fails.
    async fn exception(&self, ordinal: Ordinal, seq: Seq) -> Result<Option<Exception>>;

    /// Exceptions of one state by position.
    ///
    /// # Errors
    /// As the backend fails.
    async fn list(&self, ordinal: Ordinal, state: ExceptionState, page: PageRequest) -> Result<Vec<Exception>>;

    /// Failed attempts of one delivery, or of all when `seq` is `None`, newest last, at most `limit`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn failures(&self, ordinal: Ordinal, seq: Option<Seq>, limit: u32) -> Result<Vec<Attempt>>;

    /// Ranges that retention took from this subscription, oldest first, at most `limit`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>>;

    /// Forgets dead letters given up before `dead_before` and failed attempts from before `failures_before`, at most
    /// `rows_max` of each. Gives whose dead letters went.
    ///
    /// # Errors
    /// As the backend fails.
    async fn trim(&self, dead_before: Timestamp, failures_before: Timestamp, rows_max: u32) -> Result<Vec<(Ordinal, Seq)>>;

    /// Forgets everything about a deleted subscription. Idempotent.
    ///
    /// # Errors
    /// As the backend fails.
    async fn forget(&self, ordinal: Ordinal) -> Result<()>;
}
