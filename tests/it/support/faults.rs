//! Storage that fails on demand: the next writes do what a script says, in its order; all others go through.

pub(crate) mod catalog;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Attempt, Event, Exception, ExceptionState, HistoryPage, RecoveryJob, Seq};
use hookcast_log::storage::{
    Append, AttemptKey, Bounds, Checkpoint, EventLog, FingerprintChunk, HistoryQuery, LateAppend, Lease, Ledger, LedgerChange,
    LedgerTrim, LedgerTrimmed, LogRead, Marks, PageRequest, Result, StorageError, StorageErrorKind,
};
use tokio::sync::Semaphore;

/// What becomes of the next writes: nothing special, or a failure of this kind; what fails is not stored.
#[derive(Clone, Default)]
pub(crate) struct Script {
    outcomes: Arc<Mutex<VecDeque<Option<StorageErrorKind>>>>,
    /// Exceptions that were looked up one by one.
    looked_up: Arc<AtomicUsize>,
    /// Proofs that did what the script says.
    proofs: Arc<AtomicUsize>,
    holds: Arc<Mutex<Vec<Hold>>>,
    /// Why exceptions cannot be listed and counted, if so.
    lists_fail: Arc<Mutex<Option<StorageErrorKind>>>,
    /// Whose dead letters cannot be counted.
    uncountable: Arc<Mutex<BTreeSet<Ordinal>>>,
    /// When lists of exceptions were asked for in vain.
    failed_lists: Arc<Mutex<Vec<Instant>>>,
    /// Trims of the ledger whose answers are lost from now on.
    trims_lost: Arc<AtomicUsize>,
}

/// Calls of storage that can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The commit of a proof, before anything is done.
    Proof,
    /// The commit of what was saved, before anything is done.
    Save,
    /// One of these that has exceptions in it.
    Exceptions,
    /// A list of exceptions, which has been read.
    Listed,
    /// The look at the ranges of a position, before it.
    Marks,
    /// Pages of successes, which have been read.
    History,
}

/// A call that is held until somebody lets it go.
#[derive(Clone)]
pub(crate) struct Hold {
    point: Point,
    has_come: Arc<AtomicBool>,
    goes_on: Arc<Semaphore>,
}

impl Hold {
    /// Whether the call is there.
    pub(crate) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Relaxed)
    }

    /// Lets it go.
    pub(crate) fn let_go(&self) {
        self.goes_on.add_permits(1);
    }
}

impl Script {
    pub(crate) fn then(&self, outcomes: &[Option<StorageErrorKind>]) {
        self.outcomes.lock().unwrap().extend(outcomes);
    }

    pub(crate) fn is_played(&self) -> bool {
        self.outcomes.lock().unwrap().is_empty()
    }

    pub(crate) fn looked_up(&self) -> usize {
        self.looked_up.load(Ordering::Relaxed)
    }

    pub(crate) fn proofs(&self) -> usize {
        self.proofs.load(Ordering::Relaxed)
    }

    /// Lets lists and counts of exceptions fail like this from now on, or no longer.
    pub(crate) fn fail_lists(&self, kind: Option<StorageErrorKind>) {
        *self.lists_fail.lock().unwrap() = kind;
    }

    /// Lets the dead letters of these subscriptions not be counted from now on.
    pub(crate) fn fail_counts_of(&self, ordinals: impl IntoIterator<Item = Ordinal>) {
        self.uncountable.lock().unwrap().extend(ordinals);
    }

    /// Loses the answers of the next so many trims of the ledger, which are done.
    pub(crate) fn lose_trims(&self, count: usize) {
        self.trims_lost.store(count, Ordering::Relaxed);
    }

    fn list(&self) -> Result<()> {
        let kind = *self.lists_fail.lock().unwrap();
        kind.map_or(Ok(()), |kind| Err(StorageError::new(kind, "the test says so")))
    }

    /// When lists of exceptions were asked for in vain.
    pub(crate) fn failed_lists(&self) -> Vec<Instant> {
        self.failed_lists.lock().unwrap().clone()
    }

    /// Holds the next call at this point.
    pub(crate) fn hold(&self, point: Point) -> Hold {
        let hold = Hold { point, has_come: Arc::default(), goes_on: Arc::new(Semaphore::new(0)) };
        self.holds.lock().unwrap().push(hold.clone());
        hold
    }

    async fn pass(&self, point: Point) {
        let hold = {
            let mut holds = self.holds.lock().unwrap();
            let index = holds.iter().position(|hold| hold.point == point);
            index.map(|index| holds.remove(index))
        };
        if let Some(hold) = hold {
            hold.has_come.store(true, Ordering::Relaxed);
            let _let_go = hold.goes_on.acquire().await;
        }
    }

    fn next(&self) -> Result<()> {
        let kind = self.outcomes.lock().unwrap().pop_front().flatten();
        kind.map_or(Ok(()), |kind| Err(StorageError::new(kind, "the test says so")))
    }
}

/// A ledger whose commits follow a script.
pub(crate) struct FaultyLedger {
    pub(crate) inner: Arc<dyn Ledger>,
    pub(crate) script: Script,
}

/// A log whose appends follow a script.
pub(crate) struct FaultyLog {
    pub(crate) inner: Arc<dyn EventLog>,
    pub(crate) script: Script,
}

#[async_trait]
impl EventLog for FaultyLog {
    fn log_id(&self) -> &str {
        self.inner.log_id()
    }

    async fn append(&self, append: Append) -> Result<()> {
        self.script.next()?;
        self.inner.append(append).await
    }

    async fn append_late(&self, make: LateAppend) -> Result<()> {
        let append = make();
        self.append(append).await
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<LogRead> {
        self.inner.read(after, bytes_max).await
    }

    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>> {
        self.inner.get(seqs).await
    }

    async fn purge(&self, seq: Seq) -> Result<bool> {
        self.inner.purge(seq).await
    }

    async fn bounds(&self) -> Result<Bounds> {
        self.inner.bounds().await
    }

    async fn before_time(&self, time: Timestamp) -> Result<Seq> {
        self.inner.before_time(time).await
    }

    async fn trim(&self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<(Bounds, bool)> {
        self.inner.trim(older_than, bytes_max, pages_max).await
    }

    async fn fingerprints(&self) -> Result<Vec<FingerprintChunk>> {
        self.inner.fingerprints().await
    }

    async fn drop_fingerprints(&self, oldest: Seq) -> Result<()> {
        self.inner.drop_fingerprints(oldest).await
    }

    async fn writable(&self) -> Result<()> {
        self.inner.writable().await
    }
}

#[async_trait]
impl Ledger for FaultyLedger {
    async fn commit(&self, changes: Vec<LedgerChange>) -> Result<()> {
        let is_proof = changes.first().is_some_and(|change| change.is_proof);
        if changes.iter().any(|change| !change.put.is_empty()) {
            self.script.pass(Point::Exceptions).await;
        }
        self.script.pass(if is_proof { Point::Proof } else { Point::Save }).await;
        let said = self.script.next();
        self.script.proofs.fetch_add(usize::from(is_proof), Ordering::Relaxed);
        said?;
        self.inner.commit(changes).await
    }

    async fn lease(&self, partition: u16) -> Result<Lease> {
        self.inner.lease(partition).await
    }

    async fn load(&self, partition: u16) -> Result<Checkpoint> {
        self.inner.load(partition).await
    }

    async fn exceptions(&self, partition: u16) -> Result<(Vec<Exception>, Vec<(Ordinal, u64)>)> {
        self.inner.exceptions(partition).await
    }

    async fn exception(&self, ordinal: Ordinal, seq: Seq) -> Result<Option<Exception>> {
        self.script.looked_up.fetch_add(1, Ordering::Relaxed);
        self.inner.exception(ordinal, seq).await
    }

    async fn list(&self, ordinal: Ordinal, state: ExceptionState, page: PageRequest) -> Result<Vec<Exception>> {
        if let Err(error) = self.script.list() {
            self.script.failed_lists.lock().unwrap().push(Instant::now());
            return Err(error);
        }
        let listed = self.inner.list(ordinal, state, page).await;
        self.script.pass(Point::Listed).await;
        listed
    }

    async fn failures(&self, ordinal: Ordinal, seq: Option<Seq>, limit: u32) -> Result<Vec<Attempt>> {
        self.inner.failures(ordinal, seq, limit).await
    }

    async fn failures_before(&self, ordinal: Ordinal, since: Timestamp, before: AttemptKey, limit: u32) -> Result<Vec<Attempt>> {
        self.inner.failures_before(ordinal, since, before, limit).await
    }

    async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryPage>> {
        let pages = self.inner.history(query).await;
        self.script.pass(Point::History).await;
        pages
    }

    async fn dead_among(&self, ordinal: Ordinal, seqs: &[Seq]) -> Result<Vec<Seq>> {
        if let Err(error) = self.script.list() {
            self.script.failed_lists.lock().unwrap().push(Instant::now());
            return Err(error);
        }
        let dead = self.inner.dead_among(ordinal, seqs).await;
        self.script.pass(Point::Listed).await;
        dead
    }

    async fn count_dead(&self, ordinal: Ordinal, from: Seq, to: Seq) -> Result<u64> {
        self.script.list()?;
        if self.script.uncountable.lock().unwrap().contains(&ordinal) {
            return Err(StorageError::new(StorageErrorKind::Unavailable, "the test says so"));
        }
        self.inner.count_dead(ordinal, from, to).await
    }

    async fn running_jobs(&self, partition: u16) -> Result<Vec<RecoveryJob>> {
        self.inner.running_jobs(partition).await
    }

    async fn jobs(&self, ordinal: Ordinal) -> Result<Vec<RecoveryJob>> {
        self.inner.jobs(ordinal).await
    }

    async fn marks(&self, ordinal: Ordinal, seq: Seq) -> Result<Marks> {
        self.script.pass(Point::Marks).await;
        self.inner.marks(ordinal, seq).await
    }

    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>> {
        self.inner.expired(ordinal, limit).await
    }

    async fn trim(&self, trim: LedgerTrim) -> Result<LedgerTrimmed> {
        let trimmed = self.inner.trim(trim).await;
        let lost = &self.script.trims_lost;
        if lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(StorageError::new(StorageErrorKind::Unknown, "the test says so"));
        }
        trimmed
    }

    async fn forget(&self, ordinal: Ordinal) -> Result<()> {
        self.inner.forget(ordinal).await
    }
}
