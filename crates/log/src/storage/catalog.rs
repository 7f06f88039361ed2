//! What the catalog of definitions must do: subscriptions and sources by name, with revisions.

use async_trait::async_trait;

use super::Result;
use hookcast_core::model::SubscriptionId;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::SubscriptionRecord;

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
    /// `Conflict` when the stored revision is another one, or `expected` is not 0 and the stored ordinal is not the record's: what was
    /// made anew under the same id counts its revisions from the beginning.
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
    /// `Conflict` when the stored revision is another one, or `expected` is not 0 and the stored one was made at another time.
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
