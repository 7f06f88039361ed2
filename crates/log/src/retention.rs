//! Retention: old pages, dead letters, attempts and fingerprints are dropped in small slices, never in front of a commit.
//!
//! It waits for nobody: what a cursor did not reach becomes expired when its lane notices, what an exception needs is kept by
//! storage. It knows storage and the tail; [`Retention::turn`] is one slice, the loop around it only waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::storage::{LedgerTrim, LedgerTrimmed, StorageError, StorageErrorKind, Store};
use crate::tail::Tail;
use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::Ordinal;

/// Pages dropped in one slice.
const SLICE_PAGES: u32 = 16;
/// Dead letters and failures dropped in one slice.
const SLICE_ROWS: u32 = 5_000;
/// Distance of slices while there is more to drop.
const SLICE_EVERY: Duration = Duration::from_millis(2);
/// Distance of looks when nothing is to be dropped.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionSettings {
    /// Events older than this are dropped.
    pub max_age: Duration,
    /// The log is kept below this many bytes.
    pub max_bytes: u64,
    /// Dead letters older than this are dropped.
    pub dead_letters_max_age: Duration,
    /// Attempts older than this are forgotten.
    pub attempts_max_age: Duration,
    /// The oldest attempts are forgotten until all take no more than this.
    pub attempts_max_bytes: u64,
}

/// Gives the oldest position whose key intake still knows.
pub type OldestKnown = Box<dyn Fn() -> Seq + Send + Sync>;

/// Chunks of fingerprints that are not needed any more are dropped when the oldest one that is went on by so many positions.
const FINGERPRINTS_EVERY: u64 = 32_768;

/// Drops what is over its time.
pub struct Retention {
    oldest_known: OldestKnown,
    fingerprints_from: AtomicU64,
    /// Whether letters may have gone of which nobody heard: a panic came while some were dropped or told.
    is_untold: AtomicBool,
    store: Store,
    tail: Arc<Tail>,
    clock: Arc<dyn Clock>,
    settings: RetentionSettings,
}

/// What one slice did.
#[derive(Debug)]
pub struct Slice {
    /// Whether there is more to drop now.
    pub more: bool,
    /// Dead letters that went.
    pub buried: Vec<(Ordinal, Seq)>,
}

/// Dead letters that went.
#[derive(Debug)]
pub enum Buried {
    /// These.
    These(Vec<(Ordinal, Seq)>),
    /// Some may have gone of which nobody knows whose they were.
    Unknown,
}

impl Retention {
    /// Retention over this store.
    #[must_use]
    pub fn new(
        store: Store,
        tail: Arc<Tail>,
        clock: Arc<dyn Clock>,
        settings: RetentionSettings,
        oldest_known: OldestKnown,
    ) -> Self {
        Self {
            oldest_known,
            fingerprints_from: AtomicU64::new(0),
            is_untold: AtomicBool::new(false),
            store,
            tail,
            clock,
            settings,
        }
    }

    /// Drops one slice.
    ///
    /// # Errors
    /// As storage fails; the next slice tries again.
    pub async fn step(&self) -> Result<Slice, StorageError> {
        let now = self.clock.now();
        let older_than = now.minus(self.settings.max_age);
        let (bounds, more) = self.store.log.trim(older_than, self.settings.max_bytes, SLICE_PAGES).await?;
        self.tail.set_first_kept(bounds.first);
        let trimmed = self.bury(now).await?;
        if let Err(error) = self.drop_fingerprints().await {
            // The letters that went have to be told all the same.
            tracing::error!(%error, "fingerprints of events could not be dropped; trying again");
        }
        Ok(Slice { more: more || trimmed.more, buried: trimmed.dead })
    }

    async fn bury(&self, now: Timestamp) -> Result<LedgerTrimmed, StorageError> {
        let trim = LedgerTrim {
            dead_before: now.minus(self.settings.dead_letters_max_age),
            attempts_before: now.minus(self.settings.attempts_max_age),
            attempts_bytes_max: self.settings.attempts_max_bytes,
            rows_max: SLICE_ROWS,
        };
        self.store.ledger.trim(trim).await
    }

    async fn drop_fingerprints(&self) -> Result<(), StorageError> {
        let oldest = (self.oldest_known)();
        if oldest.0 >= self.fingerprints_from.load(Ordering::Relaxed) + FINGERPRINTS_EVERY {
            self.store.log.drop_fingerprints(oldest).await?;
            self.fingerprints_from.store(oldest.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Drops slices until cancelled; `on_buried` hears of dead letters that went.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken, on_buried: impl AsyncFn(Buried)) {
        loop {
            let wait = match self.turn(&on_buried).await {
                Ok(wait) => wait,
                // A relay that ends tries nothing again, and its storage may be closed.
                Err(_) if cancel.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(%error, "retention could not drop what is over its time; trying again");
                    LOOK_EVERY
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Drops one slice and tells `on_buried` of dead letters that went, or may have; gives how long the next has time.
    ///
    /// # Errors
    /// As storage fails; what may have gone all the same is told.
    pub async fn turn(&self, on_buried: &impl AsyncFn(Buried)) -> Result<Duration, StorageError> {
        let is_untold = self.is_untold.swap(true, Ordering::Relaxed);
        let slice = self.step().await;
        if is_untold || slice.as_ref().is_err_and(|error| error.kind == StorageErrorKind::Unknown) {
            on_buried(Buried::Unknown).await;
        }
        let wait = match slice {
            Ok(slice) => {
                if !slice.buried.is_empty() {
                    on_buried(Buried::These(slice.buried)).await;
                }
                Ok(if slice.more { SLICE_EVERY } else { LOOK_EVERY })
            }
            Err(error) => Err(error),
        };
        self.is_untold.store(false, Ordering::Relaxed);
        wait
    }
}
