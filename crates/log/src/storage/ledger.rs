//! What the ledger of progress must do: a checkpoint a partition, a row an exception. Knows nothing of the log's form.

use async_trait::async_trait;

use super::Result;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::{ExpiredRange, KeptException};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Attempt, Exception, ExceptionState, HistoryPage, RecoveryJob, Seq};

/// Jobs of a subscription that are remembered after their end.
pub const JOBS_ENDED_MAX: u32 = 32;

/// Ranges of dead letters that were taken which are remembered of a subscription; the oldest go.
pub const BURIED_MAX: u32 = 10_000;

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
    /// Dead letters that get another reason and are the same otherwise. One that is no longer kept does not come back by it:
    /// [`Ledger::trim`] waits for nobody.
    pub marked: Vec<Exception>,
    /// Failed attempts to remember.
    pub failures: Vec<(Ordinal, Attempt)>,
    /// Successful attempts to remember, of whatever partitions.
    pub history: Vec<HistoryPage>,
    /// Ranges that retention took.
    pub expired: Vec<ExpiredRange>,
    /// Subscriptions that pass everything behind a position once more: what was skipped there is not any more, nor is what
    /// died there and was taken. Comes before `skipped`.
    pub reopened: Vec<(Ordinal, Seq)>,
    /// Ranges that were skipped.
    pub skipped: Vec<ExpiredRange>,
    /// Jobs made or changed.
    pub jobs: Vec<RecoveryJob>,
    /// The new progress, when it moved.
    pub checkpoint: Option<Checkpoint>,
    /// Writes something in any case, although nothing may change: to learn whether storage takes changes. What is stored over
    /// itself is not written.
    pub is_proof: bool,
}

impl LedgerChange {
    /// A change that does nothing yet.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self {
            lease,
            put: Vec::new(),
            clear: Vec::new(),
            marked: Vec::new(),
            failures: Vec::new(),
            history: Vec::new(),
            expired: Vec::new(),
            reopened: Vec::new(),
            skipped: Vec::new(),
            jobs: Vec::new(),
            checkpoint: None,
            is_proof: false,
        }
    }

    /// Leaves out what is about subscriptions that are no more; the memory of successes stays.
    pub fn keep(&mut self, is_there: impl Fn(Ordinal) -> bool) {
        self.put.retain(|kept| is_there(kept.exception.ordinal));
        self.clear.retain(|(ordinal, _)| is_there(*ordinal));
        self.marked.retain(|exception| is_there(exception.ordinal));
        self.failures.retain(|(ordinal, _)| is_there(*ordinal));
        self.expired.retain(|range| is_there(range.ordinal));
        self.reopened.retain(|(ordinal, _)| is_there(*ordinal));
        self.skipped.retain(|range| is_there(range.ordinal));
        self.jobs.retain(|job| is_there(job.ordinal));
    }
}

/// What of the remembered attempts is looked for.
#[derive(Clone, Copy, Debug)]
pub struct HistoryQuery {
    /// Pages with subscriptions of this partition.
    pub partition: u16,
    /// Pages that can hold one of these positions, both inclusive.
    pub seqs: (Seq, Seq),
    /// Pages with attempts that began then or later.
    pub from: Timestamp,
    /// Pages with attempts that began then or earlier.
    pub to: Timestamp,
    /// Pages behind this one, in the order of the answer: by [`HistoryPage::last_at`] and key, falling.
    pub before: Option<(Timestamp, u64)>,
    /// Most pages.
    pub limit: u32,
}

/// The place of an attempt in the list of a subscription's attempts: when it began, its event, its number.
pub type AttemptKey = (Timestamp, Seq, u32);

/// What retention asks of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerTrim {
    /// Dead letters given up before then go.
    pub dead_before: Timestamp,
    /// Attempts from before then go.
    pub attempts_before: Timestamp,
    /// The oldest attempts go until all take no more than this; rows are counted with their indexes, roughly.
    pub attempts_bytes_max: u64,
    /// Most rows of each kind.
    pub rows_max: u32,
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerTrimmed {
    /// The dead letters.
    pub dead: Vec<(Ordinal, Seq)>,
    /// Whether there may be more to drop.
    pub more: bool,
}

/// What is remembered of a position by ranges, not by an exception of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Retention took it before it was delivered.
    pub is_expired: bool,
    /// It was skipped.
    pub is_skipped: bool,
    /// It was a dead letter that [`Ledger::trim`] took.
    pub is_buried: bool,
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

    /// Failed attempts of a subscription that began at `since` or later and come before `before`, newest first.
    ///
    /// # Errors
    /// As the backend fails.
    async fn failures_before(&self, ordinal: Ordinal, since: Timestamp, before: AttemptKey, limit: u32) -> Result<Vec<Attempt>>;

    /// Pages of successful attempts, by their latest time, newest first.
    ///
    /// # Errors
    /// As the backend fails.
    async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryPage>>;

    /// How many dead letters there are between these positions, both inclusive.
    ///
    /// # Errors
    /// As the backend fails.
    async fn count_dead(&self, ordinal: Ordinal, from: Seq, to: Seq) -> Result<u64>;

    /// Which of these positions, which rise, are dead letters: as many lookups as there are positions.
    ///
    /// # Errors
    /// As the backend fails.
    async fn dead_among(&self, ordinal: Ordinal, seqs: &[Seq]) -> Result<Vec<Seq>>;

    /// Jobs of a partition that run, in the order in which they were made.
    ///
    /// # Errors
    /// As the backend fails.
    async fn running_jobs(&self, partition: u16) -> Result<Vec<RecoveryJob>>;

    /// Jobs of a subscription, newest first; of those that ended the newest [`JOBS_ENDED_MAX`].
    ///
    /// # Errors
    /// As the backend fails.
    async fn jobs(&self, ordinal: Ordinal) -> Result<Vec<RecoveryJob>>;

    /// What is remembered of a position by ranges.
    ///
    /// # Errors
    /// As the backend fails.
    async fn marks(&self, ordinal: Ordinal, seq: Seq) -> Result<Marks>;

    /// Ranges that retention took from this subscription, oldest first, at most `limit`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>>;

    /// Forgets old dead letters and attempts; that letters died is remembered.
    ///
    /// # Errors
    /// As the backend fails.
    async fn trim(&self, trim: LedgerTrim) -> Result<LedgerTrimmed>;

    /// Forgets everything about a deleted subscription, but for its successful attempts, which go by age. Idempotent.
    ///
    /// # Errors
    /// As the backend fails.
    async fn forget(&self, ordinal: Ordinal) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::model::JobId;
    use hookcast_core::model::job::{JobKind, JobState, Selection};

    #[test]
    fn what_is_about_subscriptions_that_are_no_more_is_left_out_whatever_it_is() {
        let now = Timestamp(1);
        let exception = |ordinal| Exception {
            ordinal: Ordinal(ordinal),
            seq: Seq(1),
            state: ExceptionState::Dead,
            attempts: 1,
            sent: 1,
            due_at: now,
            since: now,
            reason: String::new(),
            has_old_batch_id: false,
        };
        let range = |ordinal| ExpiredRange { ordinal: Ordinal(ordinal), from: Seq(1), to: Seq(2) };
        let job = |ordinal| RecoveryJob {
            ordinal: Ordinal(ordinal),
            id: JobId(1),
            kind: JobKind::Redrive,
            selection: Selection::Failed,
            from: Seq(1),
            to: Seq(2),
            state: JobState::Running,
            position: Seq::ZERO,
            events: 1,
            done: 0,
            failed: 0,
            created_at: now,
            ended_at: None,
        };
        let attempt = Attempt {
            seq: Seq(1),
            n: 1,
            at: now,
            outcome: "failure".to_owned(),
            status: None,
            error: None,
            latency_ms: 1,
            response: None,
        };
        let mut change = LedgerChange {
            put: [1, 65].map(|ordinal| KeptException { exception: exception(ordinal), event: None }).into(),
            clear: vec![(Ordinal(1), Seq(1)), (Ordinal(65), Seq(1))],
            marked: [1, 65].map(exception).into(),
            failures: [1, 65].map(|ordinal| (Ordinal(ordinal), attempt.clone())).into(),
            expired: [1, 65].map(range).into(),
            reopened: vec![(Ordinal(1), Seq(1)), (Ordinal(65), Seq(1))],
            skipped: [1, 65].map(range).into(),
            jobs: [1, 65].map(job).into(),
            ..LedgerChange::new(Lease { partition: 1, epoch: 1 })
        };
        change.keep(|ordinal| ordinal == Ordinal(65));
        let lists = [change.put.len(), change.clear.len(), change.marked.len(), change.failures.len(), change.expired.len()];
        assert_eq!((lists, change.reopened.len(), change.skipped.len(), change.jobs.len()), ([1; 5], 1, 1, 1));
        let ranges = [change.expired[0].ordinal, change.skipped[0].ordinal];
        let keys = [change.clear[0].0, change.reopened[0].0, change.failures[0].0];
        let rest = [change.put[0].exception.ordinal, change.marked[0].ordinal, change.jobs[0].ordinal];
        assert!(ranges.into_iter().chain(keys).chain(rest).all(|ordinal| ordinal == Ordinal(65)));
    }
}
