//! What the edge needs from the rest of the relay, as small traits; the composition root brings the real ones.
//!
//! Owns the shapes that answers are made of. Must not know who stands behind a port.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Exception, JobId, RecoveryJob, ResumeToken, Seq};
use hookcast_delivery::Lanes;
use hookcast_delivery::attempts::{AttemptsPage, AttemptsQuery};
use hookcast_delivery::consent::Verification;
use hookcast_delivery::question::{Stillness, SubscriptionStatus};
use hookcast_delivery::recovery::{Count, Recovering, Recovery};
use hookcast_delivery::telling::DeliveryView;
use hookcast_delivery::undelivered::UndeliveredPage;
use hookcast_log::storage::{PageRequest, StorageError};
use hookcast_source::webhook::Door;

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

    /// Which of these fail; `None` when the deliveries end.
    async fn failing(&self, records: &[Arc<SubscriptionRecord>]) -> Option<HashSet<Ordinal>>;

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

    /// Lets it stand still while the second lasts; gives the first position that a definition stored meanwhile judges.
    async fn freeze(&self, record: &Arc<SubscriptionRecord>) -> Option<(Seq, Stillness)>;

    /// Moves the cursor: everything behind `after` is its duty from now on.
    ///
    /// # Errors
    /// As storage fails; nothing is changed then, unless it is `Unknown`.
    async fn seek(&self, record: &Arc<SubscriptionRecord>, after: Seq) -> Result<bool, StorageError>;

    /// Has events posted once more.
    ///
    /// # Errors
    /// As storage fails.
    async fn recover(&self, record: &Arc<SubscriptionRecord>, what: Recovery) -> Result<Recovering, StorageError>;

    /// How many events that would be.
    ///
    /// # Errors
    /// As storage fails.
    async fn count(&self, record: &Arc<SubscriptionRecord>, what: &Recovery) -> Result<Count, StorageError>;

    /// Recovery jobs, newest first.
    ///
    /// # Errors
    /// As storage fails.
    async fn jobs(&self, record: &Arc<SubscriptionRecord>) -> Result<Option<Vec<RecoveryJob>>, StorageError>;

    /// Ends a job that runs; `None` when there is none of this name that does.
    ///
    /// # Errors
    /// As storage fails; nothing is changed then, unless it is `Unknown`.
    async fn cancel(&self, record: &Arc<SubscriptionRecord>, id: JobId) -> Result<Option<RecoveryJob>, StorageError>;

    /// Settles everything up to a position.
    ///
    /// # Errors
    /// As storage fails; nothing is changed then, unless it is `Unknown`.
    async fn skip(&self, record: &Arc<SubscriptionRecord>, to: Seq) -> Result<bool, StorageError>;

    /// How things stand with one event; `None` also when there never was such an event.
    ///
    /// # Errors
    /// As storage fails.
    async fn delivery(&self, record: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError>;

    /// Attempts, newest first.
    ///
    /// # Errors
    /// As storage fails.
    async fn attempts(
        &self,
        record: &Arc<SubscriptionRecord>,
        query: AttemptsQuery,
    ) -> Result<Option<AttemptsPage>, StorageError>;

    /// What is not delivered, by position.
    ///
    /// # Errors
    /// As storage fails.
    async fn undelivered(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Option<UndeliveredPage>, StorageError>;

    /// Dead letters by position; `None` when the subscription is gone.
    ///
    /// # Errors
    /// As storage fails.
    async fn dead_letters(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Option<Vec<Exception>>, StorageError>;
}

#[async_trait]
impl Deliveries for Lanes {
    async fn status(
        &self,
        record: &Arc<SubscriptionRecord>,
    ) -> Result<Option<(SubscriptionStatus, Option<Timestamp>)>, StorageError> {
        let Some(mut status) = Lanes::status(self, record).await else { return Ok(None) };
        if status.last_attempt.is_none() {
            status.last_attempt = self.last_attempt(record).await?;
        }
        let oldest = self.oldest_undelivered_at(&status).await?;
        Ok(self.is_there(record).then_some((status, oldest)))
    }

    async fn failing(&self, records: &[Arc<SubscriptionRecord>]) -> Option<HashSet<Ordinal>> {
        Lanes::failing(self, records).await
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

    async fn freeze(&self, record: &Arc<SubscriptionRecord>) -> Option<(Seq, Stillness)> {
        Lanes::freeze(self, record).await
    }

    async fn seek(&self, record: &Arc<SubscriptionRecord>, after: Seq) -> Result<bool, StorageError> {
        Lanes::seek(self, record, after).await
    }

    async fn recover(&self, record: &Arc<SubscriptionRecord>, what: Recovery) -> Result<Recovering, StorageError> {
        Lanes::recover(self, record, what).await
    }

    async fn count(&self, record: &Arc<SubscriptionRecord>, what: &Recovery) -> Result<Count, StorageError> {
        Lanes::count(self, record, what).await
    }

    async fn jobs(&self, record: &Arc<SubscriptionRecord>) -> Result<Option<Vec<RecoveryJob>>, StorageError> {
        Lanes::jobs(self, record).await
    }

    async fn cancel(&self, record: &Arc<SubscriptionRecord>, id: JobId) -> Result<Option<RecoveryJob>, StorageError> {
        Lanes::cancel(self, record, id).await
    }

    async fn skip(&self, record: &Arc<SubscriptionRecord>, to: Seq) -> Result<bool, StorageError> {
        Lanes::skip(self, record, to).await
    }

    async fn delivery(&self, record: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError> {
        Lanes::delivery(self, record, seq).await
    }

    async fn attempts(
        &self,
        record: &Arc<SubscriptionRecord>,
        query: AttemptsQuery,
    ) -> Result<Option<AttemptsPage>, StorageError> {
        Lanes::attempts(self, record, query).await
    }

    async fn undelivered(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Option<UndeliveredPage>, StorageError> {
        Lanes::undelivered(self, record, page).await
    }

    async fn dead_letters(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Option<Vec<Exception>>, StorageError> {
        Lanes::dead_letters(self, record, page).await
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
    /// Repeats of events, not stored again.
    pub repeats: u64,
    /// Other events under the id of one that was there.
    pub reused_ids: u64,
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

    /// The door of a source that is called; `None` when it is none.
    fn door(&self, _: &SourceRecord) -> Option<Arc<Door>> {
        None
    }

    /// Stretches that were missed, newest first, at most `limit`.
    ///
    /// # Errors
    /// As storage fails.
    async fn gaps(&self, name: &str, limit: u32) -> Result<Vec<SourceGap>, StorageError>;
}
