//! The catalog in memory. It knows nothing of what a definition means.

use async_trait::async_trait;

use super::{Memory, conflict};
use crate::storage::{Catalog, Result, limit_of};
use hookcast_core::model::SubscriptionId;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};

#[async_trait]
impl Catalog for Memory {
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>> {
        Ok(self.state().subscriptions.values().cloned().collect())
    }

    async fn put_subscription(&self, mut record: SubscriptionRecord, expected: u64) -> Result<SubscriptionRecord> {
        let state = &mut *self.state();
        let id = record.spec.id.as_str();
        let known = state.subscriptions.get(id).map(|known| (known.revision, known.ordinal));
        // One that was made anew counts its revisions from the beginning.
        let is_other = known.is_some_and(|(_, ordinal)| ordinal != record.ordinal) && expected > 0;
        if known.map_or(0, |(revision, _)| revision) != expected || is_other {
            return Err(conflict(format!("subscription {id} is not at revision {expected}")));
        }
        record.revision = expected + 1;
        record.ordinal = if let Some((_, ordinal)) = known {
            ordinal
        } else {
            state.ordinal += 1;
            Ordinal(state.ordinal)
        };
        state.subscriptions.insert(id.to_owned(), record.clone());
        Ok(record)
    }

    async fn delete_subscription(&self, id: &SubscriptionId) -> Result<bool> {
        Ok(self.state().subscriptions.remove(id.as_str()).is_some())
    }

    async fn sources(&self) -> Result<Vec<SourceRecord>> {
        Ok(self.state().sources.values().cloned().collect())
    }

    async fn put_source(&self, mut record: SourceRecord, expected: u64) -> Result<SourceRecord> {
        let state = &mut *self.state();
        let name = record.spec.name.clone();
        let known = state.sources.get(&name);
        // One that was made anew counts its revisions from the beginning.
        let is_other = known.is_some_and(|known| known.created_at != record.created_at) && expected > 0;
        if known.map_or(0, |known| known.revision) != expected || is_other {
            return Err(conflict(format!("source {name} is not at revision {expected}")));
        }
        record.revision = expected + 1;
        if std::mem::take(&mut record.forgets_position) {
            record.resume_token = None;
            record.ids_after = record.ids_after.max(state.bounds().head);
        } else if let Some(known) = known {
            record.resume_token.clone_from(&known.resume_token);
        }
        state.sources.insert(name, record.clone());
        Ok(record)
    }

    async fn delete_source(&self, name: &str) -> Result<bool> {
        let state = &mut *self.state();
        state.gaps.retain(|gap| gap.source != name);
        Ok(state.sources.remove(name).is_some())
    }

    async fn gaps(&self, source: &str, limit: u32) -> Result<Vec<SourceGap>> {
        let state = self.state();
        Ok(state.gaps.iter().rev().filter(|gap| gap.source == source).take(limit_of(limit)).cloned().collect())
    }
}
