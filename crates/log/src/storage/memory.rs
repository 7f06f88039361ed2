//! Storage in memory: the readable reference for every other backend, and what `memory://` runs on.
//!
//! One lock over plain maps; nothing survives the process. It must not know what the things it keeps mean.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, Bounds, Checkpoint, FingerprintChunk, Result, StorageError, StorageErrorKind, Store, fresh_log_id};
use hookcast_core::model::administration::{Act, TokenRecord};
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Event, Exception, HistoryPage, JobId, Page, RecoveryJob, Seq};

mod administration;
mod catalog;
mod history;
mod ledger;
mod log;

/// `memory://`.
pub const BACKEND: Backend = Backend { scheme: "memory", open: |_| Box::pin(async { open() }) };

/// Makes an empty store.
///
/// # Errors
/// `CannotOpen` when the system gives no random bytes for the log id.
pub fn open() -> Result<Store> {
    let memory = Arc::new(Memory { log_id: fresh_log_id()?, state: Mutex::default() });
    Ok(Store::new(memory.clone(), memory.clone(), memory.clone(), memory, || Box::pin(async {})))
}

struct Memory {
    log_id: String,
    state: Mutex<State>,
}

/// Everything that is kept.
#[derive(Default)]
struct State {
    pages: VecDeque<Arc<Page>>,
    bounds: Option<Bounds>,
    fingerprints: BTreeMap<Seq, FingerprintChunk>,
    kept: BTreeMap<Seq, Event>,
    epochs: HashMap<u16, u64>,
    checkpoints: HashMap<u16, Checkpoint>,
    exceptions: BTreeMap<(Ordinal, Seq), Exception>,
    failures: Vec<(Ordinal, Attempt)>,
    history: BTreeMap<u64, HistoryPage>,
    expired: BTreeMap<Ordinal, Vec<ExpiredRange>>,
    skipped: BTreeMap<Ordinal, Vec<ExpiredRange>>,
    buried: BTreeMap<Ordinal, Vec<ExpiredRange>>,
    jobs: BTreeMap<(Ordinal, JobId), RecoveryJob>,
    ordinal: u64,
    subscriptions: BTreeMap<String, SubscriptionRecord>,
    sources: BTreeMap<String, SourceRecord>,
    gaps: Vec<SourceGap>,
    tokens: BTreeMap<String, TokenRecord>,
    is_guarded: bool,
    acts: VecDeque<Act>,
    acts_noted: u64,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave these maps half changed in a way that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bounds(&self) -> Bounds {
        self.bounds.unwrap_or(Bounds { first: Seq(1), head: Seq::ZERO, bytes: 0 })
    }

    /// Drops the event kept for an exception that was the last one to need it.
    fn release(&mut self, seq: Seq) {
        if self.kept.contains_key(&seq) && !self.exceptions.keys().any(|(_, needed)| *needed == seq) {
            self.kept.remove(&seq);
        }
    }
}

fn conflict(message: impl Into<String>) -> StorageError {
    StorageError::new(StorageErrorKind::Conflict, message)
}
