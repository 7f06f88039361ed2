//! A sorted set of shared records with one writer at a time and any number of listeners.
//!
//! Owns the turn of writers and the order durable → visible → announced. Must not know what the records mean.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, oneshot};

use hookcast_log::storage::{Catalog, Result, StorageError, StorageErrorKind};
use hookcast_supervise::caught;

/// Records that are stored in one turn: whoever waits for the turn of another is stored together with it.
const TURN_RECORDS_MAX: usize = 256;

/// A record that the catalog keeps under a key.
pub(super) trait Kept: Clone + Send + Sync + Sized + 'static {
    /// How a change of it is announced.
    type Change: Clone + Send + 'static;

    /// Its key.
    fn shared_key(&self) -> Arc<str>;

    /// Rises with the order in which the catalog took records.
    fn order(&self) -> (u64, u64);

    /// Differs between two that were made under one key, one after the other: both count their revisions from the beginning. Where
    /// it is a time, two of one millisecond are the same.
    fn incarnation(&self) -> u64;

    /// The news that it was stored.
    fn put_change(record: Arc<Self>, created: bool) -> Self::Change;

    /// The news that it was removed.
    fn removed_change(&self) -> Self::Change;

    /// Stores it.
    fn store(catalog: &dyn Catalog, record: Self, expected: u64) -> impl Future<Output = Result<Self>> + Send;

    /// Removes it.
    fn erase(&self, catalog: &dyn Catalog) -> impl Future<Output = Result<bool>> + Send;
}

struct State<R: Kept> {
    records: BTreeMap<Arc<str>, Arc<R>>,
    listeners: Vec<UnboundedSender<R::Change>>,
    announced: u64,
}

struct Inner<R: Kept> {
    catalog: Arc<dyn Catalog>,
    // Held over a store, so that changes become visible in the order in which they became durable.
    turn: Mutex<()>,
    /// Records to be stored by whoever has the next turn.
    waiting: std::sync::Mutex<VecDeque<Waiting<R>>>,
    state: RwLock<State<R>>,
}

struct Waiting<R> {
    record: R,
    expected: u64,
    reply: oneshot::Sender<Result<Arc<R>>>,
}

pub(super) struct Shelf<R: Kept>(Arc<Inner<R>>);

impl<R: Kept> Clone for Shelf<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Kept> Shelf<R> {
    pub(super) fn new(catalog: Arc<dyn Catalog>, records: Vec<R>) -> Self {
        let records = records.into_iter().map(|record| (record.shared_key(), Arc::new(record))).collect();
        let state = RwLock::new(State { records, listeners: Vec::new(), announced: 0 });
        Self(Arc::new(Inner { catalog, turn: Mutex::new(()), waiting: std::sync::Mutex::default(), state }))
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<R>> {
        self.0.read().records.get(key).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().records.len()
    }

    pub(super) fn count(&self, is_counted: impl Fn(&R) -> bool) -> usize {
        self.0.read().records.values().filter(|record| is_counted(record)).count()
    }

    pub(super) fn list(&self, after: Option<&str>, limit: usize) -> Vec<Arc<R>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.read().records.range::<str, _>((from, Bound::Unbounded)).take(limit).map(|(_, record)| record.clone()).collect()
    }

    /// All records, all changes from now on, and how many were announced before.
    pub(super) fn listen(&self) -> (Vec<Arc<R>>, UnboundedReceiver<R::Change>, u64) {
        let (sender, receiver) = unbounded_channel();
        let mut state = self.0.write();
        state.listeners.push(sender);
        (state.records.values().cloned().collect(), receiver, state.announced)
    }

    pub(super) fn announced(&self) -> u64 {
        self.0.read().announced
    }

    pub(super) async fn put(&self, record: R, expected: u64) -> Result<Arc<R>> {
        let inner = Arc::clone(&self.0);
        let (reply, answer) = oneshot::channel();
        inner.waiting().push_back(Waiting { record, expected, reply });
        to_the_end(async move {
            let turn = inner.turn.lock().await;
            inner.store_waiting().await;
            drop(turn);
            answer.await.unwrap_or_else(|_| Err(cut_off(None)))
        })
        .await
    }

    /// Stores what `change` makes of the record, when it makes something, and gives what it says besides; `None` when there is no
    /// record.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        key: &str,
        change: impl FnOnce(&R) -> (Option<R>, T) + Send + 'static,
    ) -> Result<Option<(Arc<R>, T)>>
    where
        R: Revised,
    {
        let inner = Arc::clone(&self.0);
        let key: Arc<str> = key.into();
        to_the_end(async move {
            let _turn = inner.turn.lock().await;
            let Some(present) = inner.read().records.get(&key).cloned() else { return Ok(None) };
            match change(&present) {
                (None, said) => Ok(Some((present, said))),
                (Some(next), said) => inner.store(next, present.revision()).await.map(|stored| Some((stored, said))),
            }
        })
        .await
    }

    /// Removes the record that the caller knows, `Conflict` when it is another one by now; `None` when there is none.
    pub(super) async fn delete(&self, known: &R) -> Result<Option<Arc<R>>> {
        let inner = Arc::clone(&self.0);
        let (key, known) = (known.shared_key(), (known.order(), known.incarnation()));
        to_the_end(async move {
            let _turn = inner.turn.lock().await;
            let Some(present) = inner.read().records.get(&key).cloned() else { return Ok(None) };
            if (present.order(), present.incarnation()) != known {
                return Err(StorageError::new(StorageErrorKind::Conflict, format!("{key} was changed meanwhile")));
            }
            present.erase(inner.catalog.as_ref()).await?;
            let mut state = inner.write();
            state.records.remove(&key);
            state.announce(&present.removed_change());
            Ok(Some(present))
        })
        .await
    }
}

/// A record whose changes are counted.
pub(super) trait Revised {
    /// The present count.
    fn revision(&self) -> u64;
}

impl Revised for hookcast_core::model::subscription::SubscriptionRecord {
    fn revision(&self) -> u64 {
        self.revision
    }
}

impl<R: Kept> Inner<R> {
    fn read(&self) -> RwLockReadGuard<'_, State<R>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<R>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting<R>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what waits, together, so that many changes cost the catalog few commits; its turn must be held. They are shown and
    /// announced in the order in which the catalog took them: who hears of one record must have heard of all before it.
    async fn store_waiting(&self) {
        let some: Vec<Waiting<R>> = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(TURN_RECORDS_MAX);
            waiting.drain(..count).collect()
        };
        let (records, replies): (Vec<_>, Vec<_>) = some.into_iter().map(|one| ((one.record, one.expected), one.reply)).unzip();
        let asked = records.into_iter().map(|(record, expected)| R::store(self.catalog.as_ref(), record, expected));
        let mut stored: Vec<_> = join_all(asked).await.into_iter().zip(replies).collect();
        stored.sort_by_key(|(stored, _)| stored.as_ref().map_or((0, 0), R::order));
        for (stored, reply) in stored {
            // A caller that went away has nobody to tell; what it asked for is done all the same.
            let _ = reply.send(stored.map(|stored| self.show(stored)));
        }
    }

    async fn store(&self, record: R, expected: u64) -> Result<Arc<R>> {
        Ok(self.show(R::store(self.catalog.as_ref(), record, expected).await?))
    }

    /// Makes a record visible that is durable.
    fn show(&self, stored: R) -> Arc<R> {
        let stored = Arc::new(stored);
        let mut state = self.write();
        let created = state.records.insert(stored.shared_key(), Arc::clone(&stored)).is_none();
        state.announce(&R::put_change(Arc::clone(&stored), created));
        stored
    }
}

impl<R: Kept> State<R> {
    fn announce(&mut self, change: &R::Change) {
        self.announced += 1;
        self.listeners.retain(|listener| listener.send(change.clone()).is_ok());
    }
}

/// Runs a change as a task of its own: a caller that goes away must not leave memory and catalog different.
async fn to_the_end<T: Send + 'static>(change: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(caught(Box::pin(change))).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            panic.tell("definition", "the change is answered as cut off");
            Err(cut_off(None))
        }
        Err(error) => Err(cut_off(Some(Box::new(error)))),
    }
}

fn cut_off(source: Option<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError { kind: StorageErrorKind::Unknown, message: "the change was cut off".to_owned(), source }
}
