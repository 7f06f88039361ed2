//! What the edge needs from the rest of the relay, as small traits; the composition root brings the real ones.
//!
//! Owns the shapes that answers are made of. Must not know who stands behind a port.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::delivery::Lanes;
use crate::delivery::consent::Verification;
use crate::delivery::inspect::{DeliveryView, Redrive};
use crate::delivery::question::SubscriptionStatus;
use crate::model::source::SourceGap;
use crate::model::subscription::SubscriptionRecord;
use crate::model::{Attempt, Exception, ExceptionState, ResumeToken, Seq};
use crate::storage::{PageRequest, StorageError};

/// The delivery side of subscriptions. `None` and `false` mean that the subscription is gone.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// How things stand, and when the oldest undelivered event arrived.
    ///
    /// # Errors
    /// As storage fails.
    async fn status(
        &self,
        record: &Arc<SubscriptionRecord>,
    ) -> Result<Option<(SubscriptionStatus, Option<Timestamp>)>, StorageError>;

    /// Waits until the definitions in force are the ones that are delivered by.
    async fn caught_up(&self, _: &Arc<SubscriptionRecord>) {}

    /// Sends one signed test event now and gives what came of it.
    async fn ping(&self, record: &Arc<SubscriptionRecord>) -> Option<Attempt>;

    /// Asks the endpoint now whether it wants deliveries, and gives what came of it.
    async fn verify(&self, _: &Arc<SubscriptionRecord>) -> Option<Attempt> {
        None
    }

    /// Takes the consent of its endpoint: so many deliveries a minute, or any number.
    ///
    /// # Errors
    /// As storage fails.
    async fn agree(&self, _: &Arc<SubscriptionRecord>, _per_minute: Option<u32>) -> Result<(), StorageError> {
        Ok(())
    }

    /// How the asking for its consent stands.
    fn verification(&self, _: &SubscriptionRecord) -> Verification {
        Verification::default()
    }

    /// Moves the cursor: everything behind `after` is its duty from now on.
    async fn seek(&self, record: &Arc<SubscriptionRecord>, after: Seq) -> bool;

    /// Makes dead letters due again and gives how many.
    ///
    /// # Errors
    /// As storage fails.
    async fn redrive(&self, record: &Arc<SubscriptionRecord>, which: Redrive) -> Result<u64, StorageError>;

    /// How things stand with one event; `None` also when there never was such an event.
    ///
    /// # Errors
    /// As storage fails.
    async fn delivery(&self, record: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError>;

    /// Waiting retries or dead letters by position.
    ///
    /// # Errors
    /// As storage fails.
    async fn exceptions(
        &self,
        record: &SubscriptionRecord,
        state: ExceptionState,
        page: PageRequest,
    ) -> Result<Vec<Exception>, StorageError>;
}

#[async_trait]
impl Deliveries for Lanes {
    async fn status(
        &self,
        record: &Arc<SubscriptionRecord>,
    ) -> Result<Option<(SubscriptionStatus, Option<Timestamp>)>, StorageError> {
        let Some(status) = Lanes::status(self, record).await else { return Ok(None) };
        let oldest = self.oldest_undelivered_at(&status).await?;
        Ok(Some((status, oldest)))
    }

    async fn caught_up(&self, record: &Arc<SubscriptionRecord>) {
        Lanes::caught_up(self, record).await;
    }

    async fn ping(&self, record: &Arc<SubscriptionRecord>) -> Option<Attempt> {
        Lanes::ping(self, record).await
    }

    async fn verify(&self, record: &Arc<SubscriptionRecord>) -> Option<Attempt> {
        Some(self.consents().ask(record).await)
    }

    async fn agree(&self, record: &Arc<SubscriptionRecord>, per_minute: Option<u32>) -> Result<(), StorageError> {
        self.consents().agree(record, per_minute).await
    }

    fn verification(&self, record: &SubscriptionRecord) -> Verification {
        self.consents().verification(record)
    }

    async fn seek(&self, record: &Arc<SubscriptionRecord>, after: Seq) -> bool {
        Lanes::seek(self, record, after).await
    }

    async fn redrive(&self, record: &Arc<SubscriptionRecord>, which: Redrive) -> Result<u64, StorageError> {
        Lanes::redrive(self, record, which).await
    }

    async fn delivery(&self, record: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError> {
        Lanes::delivery(self, record, seq).await
    }

    async fn exceptions(
        &self,
        record: &SubscriptionRecord,
        state: ExceptionState,
        page: PageRequest,
    ) -> Result<Vec<Exception>, StorageError> {
        match state {
            ExceptionState::Retry => self.waiting_retries(record, page).await,
            ExceptionState::Dead => self.dead_letters(record, page).await,
        }
    }
}

/// How things stand with a source.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// `connecting`, `connected`, `backoff` or `stopped`.
    pub state: &'static str,
    /// When its last event came in.
    pub last_event_at: Option<Timestamp>,
    /// The upstream's position.
    pub resume_token: Option<ResumeToken>,
    /// Events taken.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
    /// Records left out, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Connections after the first.
    pub reconnects: u64,
    /// Stretches that were missed.
    pub gaps: u64,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
}

/// The running side of sources.
#[async_trait]
pub trait SourceControl: Send + Sync {
    /// How things stand; `None` when it is not running.
    async fn status(&self, name: &str) -> Option<SourceStatus>;

    /// Drops its connection and makes a new one at once.
    async fn restart(&self, name: &str);

    /// Stretches that were missed, newest first, at most `limit`.
    ///
    /// # Errors
    /// As storage fails.
    async fn gaps(&self, name: &str, limit: u32) -> Result<Vec<SourceGap>, StorageError>;
}
