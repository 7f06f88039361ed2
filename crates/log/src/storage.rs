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

use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::SourcePosition;
use hookcast_core::model::{Event, Page, PageBuilder, Seq};

mod administration;
mod catalog;
mod error;
mod ledger;
mod log;
pub mod memory;
mod room;
pub mod sqlite;

pub use administration::{ACTS_MAX, Administration, StoredTokens};
pub use catalog::Catalog;
pub use error::{Result, StorageError, StorageErrorKind, Written};
pub use ledger::{
    AttemptKey, BURIED_MAX, Checkpoint, HistoryQuery, JOBS_ENDED_MAX, Lease, Ledger, LedgerChange, LedgerTrim, LedgerTrimmed,
    Marks, PageRequest,
};
pub use log::{Append, Bounds, EventLog, FingerprintChunk, LateAppend, LogRead, TopicSummary};
pub use room::{RESERVE_PERCENT_MAX, Reserve, Room};

/// The four together, as one backend gives them.
#[derive(Clone)]
pub struct Store {
    /// The events.
    pub log: Arc<dyn EventLog>,
    /// The progress.
    pub ledger: Arc<dyn Ledger>,
    /// The definitions.
    pub catalog: Arc<dyn Catalog>,
    /// The tokens, and who did what.
    pub administration: Arc<dyn Administration>,
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
        administration: Arc<dyn Administration>,
        closer: impl Fn() -> Closing + Send + Sync + 'static,
    ) -> Self {
        Self { log, ledger, catalog, administration, closer: Arc::new(closer) }
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
    /// Free bytes of the file system below which intake is refused.
    pub reserve: Reserve,
    /// What definitions are sealed with, for backends on disk; absent = they are stored in the clear.
    pub seals: Option<Arc<crate::seal::Seals>>,
    /// Where a backend says that it cannot go on.
    pub readiness: hookcast_supervise::readiness::Readiness,
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
pub static BACKENDS: &[Backend] = &[sqlite::BACKEND, memory::BACKEND];

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
    page.latest_arrival()
}

/// The same event in a page of its own, so that keeping it does not keep its neighbours.
fn kept_apart(event: &Event) -> Event {
    let mut builder = PageBuilder::starting_at(event.seq());
    builder.push(&event.to_new_event());
    builder.finish().get(event.seq()).expect("invariant: the page was made for this event")
}

/// Counts a position of an upstream that is not read any more.
fn leave_out(position: &SourcePosition) {
    metrics::counter!("hookcast_source_positions_left_out_total").increment(1);
    tracing::debug!(source.name = %position.source, "a position of an upstream that was replaced is not stored");
}

fn limit_of(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
