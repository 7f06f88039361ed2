//! Storage that refuses, loses answers and takes its time, as the seed says; what is really stored is told to [`Truth`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Event, Exception, ExceptionState, HistoryPage, Page, RecoveryJob, Seq, SubscriptionId};
use hookcast_log::storage::{
    Append, AttemptKey, Bounds, Catalog, Checkpoint, EventLog, FingerprintChunk, HistoryQuery, LateAppend, Lease, Ledger,
    LedgerChange, LedgerTrim, LedgerTrimmed, LogRead, Marks, PageRequest, Result, StorageError, StorageErrorKind, Store,
};

use crate::coverage::Coverage;
use crate::truth::{Stored, Truth};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Refused,
    Full,
    /// Nothing is stored, and nobody knows.
    Lost,
    /// It is stored, and nobody knows.
    StoredUnsaid,
}

/// Who decides about every call.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Mutex<fastrand::Rng>,
    /// One call of so many fails; none, if 0.
    rate: Mutex<u32>,
    /// Whether nothing can be taken out of storage.
    keeps_everything: AtomicBool,
    /// Whether the process ends now: of what it stored last, nobody was told.
    is_killed: AtomicBool,
    truth: Arc<Truth>,
    coverage: Arc<Coverage>,
}

impl Faults {
    pub(crate) fn new(seed: u64, truth: Arc<Truth>, coverage: Arc<Coverage>) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let (keeps_everything, is_killed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { random, rate: Mutex::new(0), keeps_everything, is_killed, truth, coverage }
    }

    /// Whether the process ends now, once.
    pub(crate) fn takes_life(&self) -> bool {
        self.is_killed.swap(false, Ordering::Relaxed)
    }

    /// The process ends before this call does.
    async fn kill(&self) {
        self.coverage.note("crash/behind_a_write");
        self.is_killed.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    }

    /// One call of `rate` fails from now on; none, if 0.
    pub(crate) fn set_rate(&self, rate: u32) {
        *self.rate.lock().unwrap() = rate;
    }

    /// Retention takes nothing from now on, or does so again.
    pub(crate) fn keep_everything(&self, keeps: bool) {
        self.keeps_everything.store(keeps, Ordering::Relaxed);
    }

    fn random(&self, below: u32) -> u32 {
        self.random.lock().unwrap().u32(..below)
    }

    /// What becomes of a write, by its name.
    fn write(&self, name: &str) -> Fate {
        if name.starts_with("trim") && self.keeps_everything.load(Ordering::Relaxed) {
            return Fate::Refused;
        }
        let rate = *self.rate.lock().unwrap();
        // What is rare fails more often.
        let rate = if matches!(name, "delete_subscription" | "forget") { rate.div_ceil(8) } else { rate };
        if rate == 0 || self.random(rate) > 0 {
            return Fate::Done;
        }
        let fate = [Fate::Refused, Fate::Full, Fate::Lost, Fate::StoredUnsaid][self.random(4) as usize];
        self.coverage.note(format!("storage/{name}/{fate:?}"));
        fate
    }

    /// How long a call takes: often no time, but others go on meanwhile.
    async fn pass(&self) {
        let ms = [0, 0, 0, 1, 2, 9][self.random(6) as usize];
        if ms == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    async fn read(&self, name: &str) -> Result<()> {
        self.pass().await;
        let rate = *self.rate.lock().unwrap();
        if rate > 0 && self.random(rate * 2) == 0 {
            self.coverage.note(format!("storage/{name}/Refused"));
            return Err(error(StorageErrorKind::Unavailable));
        }
        Ok(())
    }

    /// What a process reads when it starts, often.
    async fn start(&self) -> Result<()> {
        tokio::task::yield_now().await;
        let rate = *self.rate.lock().unwrap();
        if rate > 0 && self.random(rate * 100) == 0 {
            self.coverage.note("storage/start/Refused");
            return Err(error(StorageErrorKind::Unavailable));
        }
        Ok(())
    }

    /// As [`Faults::done`], for what the next write of its kind stands on: that it was stored and nobody knows happens at the end of a
    /// process only, since storage makes sure of what was in doubt before it goes on.
    async fn known<T>(&self, name: &str, write: impl Future<Output = Result<T>>) -> Result<T> {
        self.attempt(name, write, true).await
    }

    /// Does a write, or not, and says so, or not.
    async fn done<T>(&self, name: &str, write: impl Future<Output = Result<T>>) -> Result<T> {
        self.attempt(name, write, false).await
    }

    async fn attempt<T>(&self, name: &str, write: impl Future<Output = Result<T>>, kills_unsaid: bool) -> Result<T> {
        self.pass().await;
        let done = match self.write(name) {
            Fate::Done => write.await,
            Fate::Refused => Err(error(StorageErrorKind::Unavailable)),
            Fate::Full => Err(error(StorageErrorKind::Full)),
            Fate::Lost => Err(error(StorageErrorKind::Unknown)),
            Fate::StoredUnsaid => {
                let stored = write.await?;
                if kills_unsaid {
                    self.kill().await;
                }
                drop(stored);
                Err(error(StorageErrorKind::Unknown))
            }
        };
        self.pass().await;
        done
    }
}

fn error(kind: StorageErrorKind) -> StorageError {
    StorageError::new(kind, "the simulation says so")
}

/// A backend that fails.
pub(crate) struct Faulty<T: ?Sized> {
    inner: Arc<T>,
    faults: Arc<Faults>,
}

/// The same store, with faults.
pub(crate) fn over(store: &Store, faults: &Arc<Faults>) -> Store {
    Store::new(
        Arc::new(Faulty { inner: Arc::clone(&store.log), faults: Arc::clone(faults) }),
        Arc::new(Faulty { inner: Arc::clone(&store.ledger), faults: Arc::clone(faults) }),
        Arc::new(Faulty { inner: Arc::clone(&store.catalog), faults: Arc::clone(faults) }),
        Arc::clone(&store.administration),
        || Box::pin(async {}),
    )
}

fn stored(page: &Arc<Page>) -> Vec<Stored> {
    let of = |event: Event| Stored {
        seq: event.seq(),
        topic: event.topic().as_str().to_owned(),
        kind: event.fields().kind.to_owned(),
        data: serde_json::from_slice(&event.data()).unwrap_or_default(),
    };
    page.events_after(Seq::ZERO).map(of).collect()
}

#[async_trait]
impl EventLog for Faulty<dyn EventLog> {
    fn log_id(&self) -> &str {
        self.inner.log_id()
    }

    async fn append(&self, append: Append) -> Result<()> {
        let events: Vec<Stored> = append.pages.iter().flat_map(stored).collect();
        let write = async {
            self.inner.append(append).await?;
            self.faults.truth.store(events);
            Ok(())
        };
        self.faults.known("append", write).await
    }

    async fn append_late(&self, make: LateAppend) -> Result<()> {
        self.append(make()).await
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<LogRead> {
        self.faults.read("read").await?;
        self.inner.read(after, bytes_max).await
    }

    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>> {
        self.faults.read("get").await?;
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
        self.faults.done("trim_log", self.inner.trim(older_than, bytes_max, pages_max)).await
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
impl Ledger for Faulty<dyn Ledger> {
    async fn commit(&self, changes: Vec<LedgerChange>) -> Result<()> {
        // Whatever had ended when the changes were taken is among them.
        let ends = self.faults.truth.ends();
        let saved: Vec<u16> =
            changes.iter().filter(|change| change.checkpoint.is_some()).map(|change| change.lease.partition).collect();
        let is_proof = changes.first().is_some_and(|change| change.is_proof);
        let write = async {
            self.inner.commit(changes).await?;
            for partition in saved {
                self.faults.truth.save(partition, ends);
            }
            Ok(())
        };
        self.faults.done(if is_proof { "proof" } else { "save" }, write).await
    }

    async fn lease(&self, partition: u16) -> Result<Lease> {
        self.faults.start().await?;
        self.inner.lease(partition).await
    }

    async fn load(&self, partition: u16) -> Result<Checkpoint> {
        self.faults.start().await?;
        self.inner.load(partition).await
    }

    async fn exceptions(&self, partition: u16) -> Result<(Vec<Exception>, Vec<(Ordinal, u64)>)> {
        self.faults.start().await?;
        self.inner.exceptions(partition).await
    }

    async fn exception(&self, ordinal: Ordinal, seq: Seq) -> Result<Option<Exception>> {
        self.faults.read("exception").await?;
        self.inner.exception(ordinal, seq).await
    }

    async fn list(&self, ordinal: Ordinal, state: ExceptionState, page: PageRequest) -> Result<Vec<Exception>> {
        self.faults.read("list").await?;
        let listed = self.inner.list(ordinal, state, page).await;
        self.faults.pass().await;
        listed
    }

    async fn failures(&self, ordinal: Ordinal, seq: Option<Seq>, limit: u32) -> Result<Vec<Attempt>> {
        self.faults.read("failures").await?;
        self.inner.failures(ordinal, seq, limit).await
    }

    async fn failures_before(&self, ordinal: Ordinal, since: Timestamp, before: AttemptKey, limit: u32) -> Result<Vec<Attempt>> {
        self.faults.read("failures").await?;
        self.inner.failures_before(ordinal, since, before, limit).await
    }

    async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryPage>> {
        self.faults.read("history").await?;
        self.inner.history(query).await
    }

    async fn dead_among(&self, ordinal: Ordinal, seqs: &[Seq]) -> Result<Vec<Seq>> {
        self.faults.read("dead_among").await?;
        let dead = self.inner.dead_among(ordinal, seqs).await;
        self.faults.pass().await;
        dead
    }

    async fn count_dead(&self, ordinal: Ordinal, from: Seq, to: Seq) -> Result<u64> {
        self.faults.read("count_dead").await?;
        self.inner.count_dead(ordinal, from, to).await
    }

    async fn running_jobs(&self, partition: u16) -> Result<Vec<RecoveryJob>> {
        self.faults.start().await?;
        self.inner.running_jobs(partition).await
    }

    async fn jobs(&self, ordinal: Ordinal) -> Result<Vec<RecoveryJob>> {
        self.faults.read("jobs").await?;
        self.inner.jobs(ordinal).await
    }

    async fn marks(&self, ordinal: Ordinal, seq: Seq) -> Result<Marks> {
        self.faults.read("marks").await?;
        self.inner.marks(ordinal, seq).await
    }

    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>> {
        self.inner.expired(ordinal, limit).await
    }

    async fn trim(&self, trim: LedgerTrim) -> Result<LedgerTrimmed> {
        self.faults.done("trim_ledger", self.inner.trim(trim)).await
    }

    async fn forget(&self, ordinal: Ordinal) -> Result<()> {
        self.faults.done("forget", self.inner.forget(ordinal)).await
    }
}

#[async_trait]
impl Catalog for Faulty<dyn Catalog> {
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>> {
        self.faults.start().await?;
        self.inner.subscriptions().await
    }

    async fn put_subscription(&self, record: SubscriptionRecord, expected: u64) -> Result<SubscriptionRecord> {
        self.faults.known("put_subscription", self.inner.put_subscription(record, expected)).await
    }

    async fn delete_subscription(&self, id: &SubscriptionId) -> Result<bool> {
        self.faults.known("delete_subscription", self.inner.delete_subscription(id)).await
    }

    async fn sources(&self) -> Result<Vec<SourceRecord>> {
        self.inner.sources().await
    }

    async fn put_source(&self, record: SourceRecord, expected: u64) -> Result<SourceRecord> {
        self.inner.put_source(record, expected).await
    }

    async fn delete_source(&self, name: &str) -> Result<bool> {
        self.inner.delete_source(name).await
    }

    async fn gaps(&self, source: &str, limit: u32) -> Result<Vec<SourceGap>> {
        self.inner.gaps(source, limit).await
    }
}
