//! What storage must do, whoever does it: the log of events, the ledger of progress, the catalog of definitions.
//!
//! The contract is order and idempotence, not multi-key atomicity, except where a method says "together". Positions rise;
//! lists page by key. Errors are a few kinds that say what the caller can do. One conformance suite runs over every row of
//! [`BACKENDS`]. Nothing here knows SQL or who delivers.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::delivery::{ExpiredRange, KeptException};
use crate::model::source::{SourceGap, SourceRecord};
use crate::model::subscription::{Ordinal, SubscriptionRecord};
use crate::model::{Attempt, Event, Exception, ExceptionState, Page, PageBuilder, ResumeToken, Seq, SubscriptionId};

pub mod memory;
pub mod sqlite;

/// What a caller can do about a storage failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// Somebody else changed it first: read again.
    Conflict,
    /// The lease was taken over: stop.
    Fenced,
    /// No room: refuse intake, try later.
    Full,
    /// It did not work this time: try later.
    Unavailable,
    /// The data is damaged or of a newer version: stop and tell the operator.
    Corrupt,
    /// Another process holds it.
    InUse,
    /// It cannot be made or opened at all.
    CannotOpen,
}

/// A storage failure.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    /// What can be done about it.
    pub kind: StorageErrorKind,
    /// One line for a person.
    pub message: String,
    /// What the backend said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StorageError {
    /// A failure that the backend did not cause itself.
    #[must_use]
    pub fn new(kind: StorageErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
}

/// Result of storage.
pub type Result<T> = std::result::Result<T, StorageError>;

/// What goes into the log in one commit.
#[derive(Debug, Default)]
pub struct Append {
    /// Consecutive pages, the first at `expected_head + 1`; may be empty (only tokens move).
    pub pages: Vec<Arc<Page>>,
    /// The head that the caller believes in.
    pub expected_head: Seq,
    /// Positions of sources after these events.
    pub resume_tokens: Vec<(String, ResumeToken)>,
    /// A full chunk of fingerprints, when one was filled by these events.
    pub fingerprints: Vec<FingerprintChunk>,
    /// Gaps of sources that were noticed.
    pub gaps: Vec<SourceGap>,
}

/// Encoded fingerprints of consecutive identified events; the bytes belong to ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintChunk {
    /// Position of the first event in it; the key.
    pub first: Seq,
    /// Position of the last.
    pub last: Seq,
    /// Arrival time of the last; chunks older than the window are dropped.
    pub last_at: Timestamp,
    /// The fingerprints.
    pub bytes: Vec<u8>,
}

/// Both ends of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Oldest position kept; `head + 1` when nothing is.
    pub first: Seq,
    /// Newest position ever given.
    pub head: Seq,
    /// Encoded bytes of the pages kept.
    pub bytes: u64,
}

/// What was kept of a topic; a line of `GET /v1/topics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// The topic.
    pub topic: String,
    /// Events kept.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
    /// Oldest and newest position.
    pub first_seq: Seq,
    /// Newest position.
    pub last_seq: Seq,
}

/// The append-only record of events.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Eight base32 characters fixed when the log was made; part of every `webhook-id`.
    fn log_id(&self) -> &str;

    /// Appends all of it together, or nothing. Durable when it returns.
    ///
    /// # Errors
    /// `Conflict` when `expected_head` is not the head, `Full` when the disk reserve is reached, else as the backend fails.
    async fn append(&self, append: Append) -> Result<()>;

    /// Whole pages that hold positions after `after`, oldest first: at least one if any exists, then up to `bytes_max`.
    ///
    /// Positions may be missing at the front: the first page begins behind `after + 1` when retention took some.
    ///
    /// # Errors
    /// As the backend fails; `Corrupt` for a page that does not decode.
    async fn read(&self, after: Seq, bytes_max: usize) -> Result<Vec<Arc<Page>>>;

    /// The events at these positions, from the log or from what outlived it; absent ones are left out.
    ///
    /// # Errors
    /// As the backend fails.
    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>>;

    /// Both ends.
    ///
    /// # Errors
    /// As the backend fails.
    async fn bounds(&self) -> Result<Bounds>;

    /// The last position whose page ended before `time`: everything that arrived at `time` or later stands behind it.
    ///
    /// # Errors
    /// As the backend fails.
    async fn before_time(&self, time: Timestamp) -> Result<Seq>;

    /// Drops whole pages from the old end, at most `pages_max`, while the page arrived before `older_than` or the log is
    /// larger than `bytes_max`; events that an exception needs are kept aside together with it. The newest page stays.
    /// Gives the new bounds and whether more could be dropped.
    ///
    /// # Errors
    /// As the backend fails.
    async fn trim(&self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<(Bounds, bool)>;

    /// All fingerprint chunks, oldest first.
    ///
    /// # Errors
    /// As the backend fails.
    async fn fingerprints(&self) -> Result<Vec<FingerprintChunk>>;

    /// Drops fingerprint chunks whose key is below `first`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn drop_fingerprints(&self, first: Seq) -> Result<()>;

    /// Whether a write would go through now; for `/readyz`.
    ///
    /// # Errors
    /// `Full` or as the backend fails.
    async fn writable(&self) -> Result<()>;
}

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

/// The definitions: subscriptions and sources.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// All subscriptions by id.
    ///
    /// # Errors
    /// As the backend fails.
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>>;

    /// Stores a subscription. `expected` is the revision it replaces, 0 for a new one; the record comes back with its
    /// new revision and, for a new one, its ordinal (both given here, whatever the record says).
    ///
    /// # Errors
    /// `Conflict` when the stored revision is another one.
    async fn put_subscription(&self, record: SubscriptionRecord, expected: u64) -> Result<SubscriptionRecord>;

    /// Removes a subscription; `false` when there was none.
    ///
    /// # Errors
    /// As the backend fails.
    async fn delete_subscription(&self, id: &SubscriptionId) -> Result<bool>;

    /// All sources by name.
    ///
    /// # Errors
    /// As the backend fails.
    async fn sources(&self) -> Result<Vec<SourceRecord>>;

    /// Stores a source as [`Catalog::put_subscription`] does; the stored resume token stays.
    ///
    /// # Errors
    /// `Conflict` when the stored revision is another one.
    async fn put_source(&self, record: SourceRecord, expected: u64) -> Result<SourceRecord>;

    /// Removes a source; `false` when there was none.
    ///
    /// # Errors
    /// As the backend fails.
    async fn delete_source(&self, name: &str) -> Result<bool>;

    /// Gaps of a source, newest first, at most `limit`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn gaps(&self, source: &str, limit: u32) -> Result<Vec<SourceGap>>;
}

/// The three together, as one backend gives them.
#[derive(Clone)]
pub struct Store {
    /// The events.
    pub log: Arc<dyn EventLog>,
    /// The progress.
    pub ledger: Arc<dyn Ledger>,
    /// The definitions.
    pub catalog: Arc<dyn Catalog>,
    closer: Arc<dyn Fn() -> Closing + Send + Sync>,
}

/// The end of a backend, to be awaited.
pub type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Store {
    /// Puts a backend together; `closer` flushes and closes it.
    pub fn new(
        log: Arc<dyn EventLog>,
        ledger: Arc<dyn Ledger>,
        catalog: Arc<dyn Catalog>,
        closer: impl Fn() -> Closing + Send + Sync + 'static,
    ) -> Self {
        Self { log, ledger, catalog, closer: Arc::new(closer) }
    }

    /// Finishes what is queued and closes the backend.
    pub async fn close(&self) {
        (self.closer)().await;
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// How safe a commit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Flushed to the disk before it counts.
    #[default]
    Full,
    /// Handed to the operating system; power loss may undo it.
    Normal,
}

/// What a backend is opened with.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// Path of the database, for backends on disk.
    pub path: PathBuf,
    /// How safe a commit is.
    pub durability: Durability,
    /// Free bytes on the disk below which intake is refused; `None` = max(256 MiB, 5 %).
    pub reserve_bytes: Option<u64>,
}

type Opening = Pin<Box<dyn Future<Output = Result<Store>> + Send>>;

/// A kind of storage: the scheme of its URL and how it is opened.
#[derive(Debug)]
pub struct Backend {
    /// Scheme of `storage.url`.
    pub scheme: &'static str,
    /// Opens or makes the store.
    pub open: fn(StorageSettings) -> Opening,
}

/// Every kind of storage.
pub const BACKENDS: &[Backend] = &[sqlite::BACKEND, memory::BACKEND];

/// A new log id: eight lower-case base32 characters.
fn fresh_log_id() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| StorageError {
        kind: StorageErrorKind::CannotOpen,
        message: "the system gives no random bytes".to_owned(),
        source: Some(Box::new(error)),
    })?;
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// Whether these pages go on where `head` ends, without a hole between them.
fn pages_follow(pages: &[Arc<Page>], mut head: Seq) -> bool {
    pages.iter().all(|page| {
        let follows = page.first() == head.next();
        head = page.last();
        follows
    })
}

/// The latest arrival in a page: retention must not take it earlier.
fn page_time(page: &Arc<Page>) -> Timestamp {
    page.events_after(Seq::ZERO).map(|event| event.arrived_at()).max().unwrap_or_default()
}

/// The same event in a page of its own, so that keeping it does not keep its neighbours.
fn kept_apart(event: &Event) -> Event {
    let mut builder = PageBuilder::starting_at(event.seq());
    builder.push(&event.to_new_event());
    builder.finish().get(event.seq()).expect("invariant: the page was made for this event")
}

fn limit_of(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
