//! A catalog that takes no definitions for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{SubscriptionId, SubscriptionRecord};
use hookcast_log::storage::{Catalog, Result, StorageError, StorageErrorKind};

/// Refuses to store the next so many subscriptions.
pub(crate) struct FaultyCatalog {
    pub(crate) inner: Arc<dyn Catalog>,
    pub(crate) refusals: AtomicU32,
}

#[async_trait]
impl Catalog for FaultyCatalog {
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>> {
        self.inner.subscriptions().await
    }

    async fn put_subscription(&self, record: SubscriptionRecord, expected: u64) -> Result<SubscriptionRecord> {
        let left = |left: u32| left.checked_sub(1);
        if self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
            return Err(StorageError::new(StorageErrorKind::Unavailable, "the test says so"));
        }
        self.inner.put_subscription(record, expected).await
    }

    async fn delete_subscription(&self, id: &SubscriptionId) -> Result<bool> {
        self.inner.delete_subscription(id).await
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
