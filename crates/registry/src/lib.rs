//! The definitions in force, in memory: what the catalog stores, for everyone who asks or wants to hear of changes.
//!
//! Owns the order of changes: one at a time, durable first, then visible, then announced to every listener in that order.
//! Must not know who listens, how definitions are judged, or anything of HTTP. Read by http, delivery and source supervision.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::SubscriptionId;
use hookcast_core::model::source::SourceRecord;
use hookcast_core::model::subscription::{Activity, DisabledReason, Ordinal, SubscriptionRecord};
use hookcast_log::storage::{Catalog, Result};

mod judge;
mod shelf;

pub use judge::Texts;
use shelf::{Kept, Shelf};

/// What happened to a subscription.
#[derive(Clone, Debug)]
pub enum RegistryChange {
    /// It was made or changed.
    Put {
        /// As it is now.
        record: Arc<SubscriptionRecord>,
        /// Whether it was not there before.
        created: bool,
    },
    /// It is gone.
    Removed {
        /// Its incarnation.
        ordinal: Ordinal,
        /// Its id.
        id: SubscriptionId,
    },
}

/// What happened to a source.
#[derive(Clone, Debug)]
pub enum SourceChange {
    /// It was made or changed.
    Put {
        /// As it is now; its resume token is the one stored at that time.
        record: Arc<SourceRecord>,
        /// Whether it was not there before.
        created: bool,
    },
    /// It is gone.
    Removed {
        /// Its name.
        name: String,
    },
}

impl Kept for SubscriptionRecord {
    type Change = RegistryChange;

    fn shared_key(&self) -> Arc<str> {
        self.spec.id.shared()
    }

    fn order(&self) -> (u64, u64) {
        (self.ordinal.0, self.revision)
    }

    fn incarnation(&self) -> u64 {
        self.ordinal.0
    }

    fn put_change(record: Arc<Self>, created: bool) -> RegistryChange {
        RegistryChange::Put { record, created }
    }

    fn removed_change(&self) -> RegistryChange {
        RegistryChange::Removed { ordinal: self.ordinal, id: self.spec.id.clone() }
    }

    async fn store(catalog: &dyn Catalog, record: Self, expected: u64) -> Result<Self> {
        catalog.put_subscription(record, expected).await
    }

    async fn erase(&self, catalog: &dyn Catalog) -> Result<bool> {
        catalog.delete_subscription(&self.spec.id).await
    }
}

impl Kept for SourceRecord {
    type Change = SourceChange;

    fn shared_key(&self) -> Arc<str> {
        self.spec.name.as_str().into()
    }

    fn order(&self) -> (u64, u64) {
        (0, self.revision)
    }

    fn incarnation(&self) -> u64 {
        self.created_at.0.cast_unsigned()
    }

    fn put_change(record: Arc<Self>, created: bool) -> SourceChange {
        SourceChange::Put { record, created }
    }

    fn removed_change(&self) -> SourceChange {
        SourceChange::Removed { name: self.spec.name.clone() }
    }

    async fn store(catalog: &dyn Catalog, record: Self, expected: u64) -> Result<Self> {
        catalog.put_source(record, expected).await
    }

    async fn erase(&self, catalog: &dyn Catalog) -> Result<bool> {
        catalog.delete_source(&self.spec.name).await
    }
}

/// All subscriptions; a handle to share.
#[derive(Clone)]
pub struct Registry {
    shelf: Shelf<SubscriptionRecord>,
    /// The groups of limits that there are, once they are known.
    limit_groups: Option<Arc<BTreeSet<String>>>,
}

impl Registry {
    /// Reads every subscription of the catalog.
    ///
    /// # Errors
    /// As the catalog fails.
    pub async fn open(catalog: Arc<dyn Catalog>) -> Result<Self> {
        let records = catalog.subscriptions().await?;
        Ok(Self { shelf: Shelf::new(catalog, records), limit_groups: None })
    }

    /// The same where only these groups of limits exist: whoever names another does not run.
    #[must_use]
    pub fn with_limit_groups(self, names: BTreeSet<String>) -> Self {
        Self { limit_groups: Some(Arc::new(names)), ..self }
    }

    /// The record as it is stored: it runs only where its group of limits is known.
    #[must_use]
    pub fn within_limits(&self, record: SubscriptionRecord) -> SubscriptionRecord {
        within_limits(self.limit_groups.as_deref(), record)
    }

    /// The subscription of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<SubscriptionRecord>> {
        self.shelf.get(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shelf.len() == 0
    }

    /// How many there are for which this holds.
    pub fn count(&self, is_counted: impl Fn(&SubscriptionRecord) -> bool) -> usize {
        self.shelf.count(is_counted)
    }

    /// At most `limit` of them by id, behind `after`.
    #[must_use]
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<Arc<SubscriptionRecord>> {
        self.shelf.list(after, limit)
    }

    /// All of them by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<SubscriptionRecord>> {
        self.shelf.list(None, usize::MAX)
    }

    /// All of them by id, and every change after that, in order, each once it is durable and visible to [`Registry::get`].
    /// The number is what [`Registry::announced`] says before the first of these changes.
    #[must_use]
    pub fn listen(&self) -> (Vec<Arc<SubscriptionRecord>>, UnboundedReceiver<RegistryChange>, u64) {
        self.shelf.listen()
    }

    /// How many changes were announced so far.
    #[must_use]
    pub fn announced(&self) -> u64 {
        self.shelf.announced()
    }

    /// Stores a definition over the revision it replaces (0 for a new one) and announces it.
    ///
    /// # Cancellation
    /// Once it began to store, it goes on to the end although the caller went away.
    ///
    /// # Errors
    /// `Conflict` when the revision is another one, or it was removed and made anew, else as the catalog fails; nothing is changed or
    /// announced then.
    pub async fn put(&self, record: SubscriptionRecord, expected_revision: u64) -> Result<Arc<SubscriptionRecord>> {
        self.shelf.put(self.within_limits(record), expected_revision).await
    }

    /// Pauses it or lets it go on, whatever its revision. What is disabled stays as it is.
    ///
    /// Setting what is already set stores and announces nothing. Reads and stores in one turn, so it cannot conflict with
    /// other changes made here.
    ///
    /// # Errors
    /// As the catalog fails.
    pub async fn set_paused(&self, known: &SubscriptionRecord, is_paused: bool, now: Timestamp) -> Result<Pausing> {
        let activity = if is_paused { Activity::Paused } else { Activity::Active };
        let change = move |record: &SubscriptionRecord| {
            let is_disabled = matches!(record.activity, Activity::Disabled(_));
            let changes = record.activity != activity && !is_disabled;
            (changes.then(|| SubscriptionRecord { activity, updated_at: now, ..record.clone() }), is_disabled)
        };
        Ok(match self.turn(known, change).await? {
            None => Pausing::Gone,
            Some((_, true)) => Pausing::Disabled,
            Some((record, false)) => Pausing::Done(record),
        })
    }

    /// Disables it because of what its endpoint said: not one that was moved to another URL since, nor one that is disabled already,
    /// for of many reasons the first counts. Whether this disabled it.
    ///
    /// # Errors
    /// As the catalog fails.
    pub async fn disable(&self, known: &SubscriptionRecord, reason: DisabledReason, now: Timestamp) -> Result<bool> {
        let (url, activity) = (known.spec.url.clone(), Activity::Disabled(reason));
        let change = move |record: &SubscriptionRecord| {
            let is_meant = record.spec.url == url && !matches!(record.activity, Activity::Disabled(_));
            (is_meant.then(|| SubscriptionRecord { activity, updated_at: now, ..record.clone() }), is_meant)
        };
        Ok(self.turn(known, change).await?.is_some_and(|(_, is_meant)| is_meant))
    }

    /// Stores what `change` makes of it, when it makes something, whatever its revision; `None` when it is no more. One that was
    /// made anew under its id is another one. Reads and stores in one turn, as [`Registry::set_paused`].
    ///
    /// # Errors
    /// As the catalog fails.
    pub async fn change(
        &self,
        known: &SubscriptionRecord,
        change: impl FnOnce(&SubscriptionRecord) -> Option<SubscriptionRecord> + Send + 'static,
    ) -> Result<Option<Arc<SubscriptionRecord>>> {
        let changed = self.turn(known, move |present| (change(present), ())).await?;
        Ok(changed.map(|(record, ())| record))
    }

    /// As [`Registry::change`]; gives also what `change` says besides.
    async fn turn<T: Send + 'static>(
        &self,
        known: &SubscriptionRecord,
        change: impl FnOnce(&SubscriptionRecord) -> (Option<SubscriptionRecord>, T) + Send + 'static,
    ) -> Result<Option<(Arc<SubscriptionRecord>, T)>> {
        let (groups, ordinal) = (self.limit_groups.clone(), known.ordinal);
        let change = move |present: &SubscriptionRecord| {
            if present.ordinal != ordinal {
                return (None, None);
            }
            let (changed, said) = change(present);
            let changed = changed.map(|record| within_limits(groups.as_deref(), record)).filter(|record| record != present);
            (changed, Some(said))
        };
        let changed = self.shelf.change(known.spec.id.as_str(), change).await?;
        Ok(changed.and_then(|(record, said)| Some((record, said?))))
    }

    /// Removes it and gives what it was; `None` when there is no such subscription.
    ///
    /// # Errors
    /// `Conflict` when it was changed or made anew since it was read, else as the catalog fails; nothing is removed then.
    pub async fn delete(&self, known: &SubscriptionRecord) -> Result<Option<Arc<SubscriptionRecord>>> {
        self.shelf.delete(known).await
    }
}

/// What came of a pause or a resume.
#[derive(Debug, PartialEq)]
pub enum Pausing {
    /// It is as it was to be, or was so already.
    Done(Arc<SubscriptionRecord>),
    /// It is disabled, and stays so.
    Disabled,
    /// It is no more.
    Gone,
}

fn within_limits(groups: Option<&BTreeSet<String>>, mut record: SubscriptionRecord) -> SubscriptionRecord {
    if let Some(groups) = groups {
        record.activity = record.activity.with_group(record.spec.limit_group.as_deref().is_none_or(|name| groups.contains(name)));
    }
    record
}

/// All sources; a handle to share.
#[derive(Clone)]
pub struct SourceRegistry(Shelf<SourceRecord>);

impl SourceRegistry {
    /// Reads every source of the catalog.
    ///
    /// # Errors
    /// As the catalog fails.
    pub async fn open(catalog: Arc<dyn Catalog>) -> Result<Self> {
        let records = catalog.sources().await?;
        Ok(Self(Shelf::new(catalog, records)))
    }

    /// The source of this name. Its resume token is the one of the last change, not the present one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<SourceRecord>> {
        self.0.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// How many there are for which this holds.
    pub fn count(&self, is_counted: impl Fn(&SourceRecord) -> bool) -> usize {
        self.0.count(is_counted)
    }

    /// At most `limit` of them by name, behind `after`.
    #[must_use]
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<Arc<SourceRecord>> {
        self.0.list(after, limit)
    }

    /// All of them by name, and every change after that, as [`Registry::listen`].
    #[must_use]
    pub fn listen(&self) -> (Vec<Arc<SourceRecord>>, UnboundedReceiver<SourceChange>) {
        let (records, changes, _) = self.0.listen();
        (records, changes)
    }

    /// Stores a definition over the revision it replaces (0 for a new one) and announces it, as [`Registry::put`].
    ///
    /// # Errors
    /// `Conflict` when the revision is another one, or it was removed and made anew, else as the catalog fails.
    pub async fn put(&self, record: SourceRecord, expected_revision: u64) -> Result<Arc<SourceRecord>> {
        self.0.put(record, expected_revision).await
    }

    /// Removes it and gives what it was; `None` when there is no such source.
    ///
    /// # Errors
    /// `Conflict` when it was changed since it was read, else as the catalog fails; nothing is removed then.
    pub async fn delete(&self, known: &SourceRecord) -> Result<Option<Arc<SourceRecord>>> {
        self.0.delete(known).await
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SourceRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceRegistry").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
