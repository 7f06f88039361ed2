//! What anybody may want to know of deliveries: status, one delivery, dead letters, what is undelivered; and the commands
//! that move them. Joins what the lane has in memory with what the ledger has stored.

use std::sync::Arc;

use super::Lanes;
use super::question::{Fresh, Question, Standing, Stillness, SubscriptionStatus};
use super::sieve;
use crate::clock::Timestamp;
use crate::model::subscription::SubscriptionRecord;
use crate::model::{Attempt, Exception, ExceptionState, Seq};
use crate::storage::{PageRequest, StorageError};

/// The words for where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// The endpoint took it.
    Delivered,
    /// Not tried yet, or being tried.
    Pending,
    /// Failed and waiting for the next attempt.
    Retrying,
    /// Given up.
    Dead,
    /// Not for this subscription.
    Filtered,
    /// Retention took it before it was delivered.
    Expired,
    /// From before the subscription began.
    BeforeStart,
}

impl DeliveryState {
    /// The word in answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Dead => "dead",
            Self::Filtered => "filtered",
            Self::Expired => "expired",
            Self::BeforeStart => "before_start",
        }
    }
}

/// Everything about one delivery.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// Where it stands.
    pub state: DeliveryState,
    /// Why, when there is more to say.
    pub reason: Option<String>,
    /// Its attempts, oldest first; after very many the newest.
    pub attempts: Vec<Attempt>,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
}

impl Lanes {
    /// How a subscription is doing; `None` when it is gone.
    pub async fn status(&self, record: &Arc<SubscriptionRecord>) -> Option<SubscriptionStatus> {
        self.ask(record, Question::Status).await
    }

    /// When the oldest undelivered event of `status` arrived.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn oldest_undelivered_at(&self, status: &SubscriptionStatus) -> Result<Option<Timestamp>, StorageError> {
        let Some(seq) = status.oldest_undelivered else { return Ok(None) };
        Ok(self.context.follow.get(seq).await?.map(|event| event.arrived_at()))
    }

    /// Posts one signed test event now; `None` when the subscription is gone.
    pub async fn ping(&self, record: &Arc<SubscriptionRecord>) -> Option<Attempt> {
        self.ask(record, Question::Ping).await
    }

    /// Lets a subscription stand still where it is; gives the first position that a definition stored meanwhile judges. `None`
    /// when it is gone.
    pub async fn freeze(&self, record: &Arc<SubscriptionRecord>) -> Option<(Seq, Stillness)> {
        self.ask(record, Question::Freeze).await
    }

    /// Moves the cursor so that the next event is the one behind `to`; `false` when the subscription is gone.
    ///
    /// # Errors
    /// As storage fails; nothing is changed then, unless it is `Unknown`.
    pub async fn seek(&self, record: &Arc<SubscriptionRecord>, to: Seq) -> Result<bool, StorageError> {
        Ok(self.ask(record, |reply| Question::Seek(to, reply)).await.transpose()?.is_some())
    }

    /// Dead letters by position.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn dead_letters(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Vec<Exception>, StorageError> {
        // Memory first: what it has not saved then, storage has later, or it is in the answer.
        let waiting = self.ask(record, |reply| Question::Waiting(page.after, 0, reply)).await;
        let words = waiting.map(|waiting| waiting.words).unwrap_or_default();
        let (limit, mut after, mut found) = (page.limit as usize, page.after, Vec::new());
        let read_to = loop {
            let stored = self.context.ledger.list(record.ordinal, ExceptionState::Dead, PageRequest { after, ..page }).await?;
            let last = stored.last().map(|last| last.seq).filter(|_| stored.len() >= limit);
            found.extend(stored.into_iter().filter(|dead| !words.contains_key(&dead.seq)));
            match last {
                Some(last) if found.len() < limit => after = last,
                last => break last.unwrap_or(Seq(u64::MAX)),
            }
        };
        let unsaved = words.into_values().flatten().filter(|word| word.state == ExceptionState::Dead && word.seq <= read_to);
        found.extend(unsaved);
        found.sort_by_key(|dead| dead.seq);
        found.truncate(limit);
        Ok(found)
    }

    /// Tells the lane that retention forgot `count` dead letters.
    pub async fn buried(&self, record: &Arc<SubscriptionRecord>, count: u64) {
        let command = super::LaneCommand::Ask(Arc::clone(record), Question::Buried(count));
        let _ = self.lane_of(record.ordinal).send(command).await;
    }

    /// Everything about one delivery; `None` when there never was such an event, or the subscription is gone.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn delivery(&self, record: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError> {
        if seq == Seq::ZERO || seq > self.context.follow.head() {
            return Ok(None);
        }
        let view = |state, reason: Option<&str>| DeliveryView {
            state,
            reason: reason.map(str::to_owned),
            attempts: Vec::new(),
            next_attempt_at: None,
        };
        // The lane first: what it has not saved then, storage has later, or it is in the answer.
        let Some(fresh) = self.ask(record, |reply| Question::Standing(seq, reply)).await else { return Ok(None) };
        let Fresh { standing, last_word, attempts } = fresh;
        let attempts = self.attempts_of(record, seq, attempts).await?;
        let stored = match last_word {
            Some(word) => word,
            None => self.context.ledger.exception(record.ordinal, seq).await?,
        };
        let mut found = match (standing, stored) {
            (Standing::Retrying(at), stored) => DeliveryView {
                next_attempt_at: Some(at),
                ..view(DeliveryState::Retrying, stored.as_ref().map(|exception| &*exception.reason))
            },
            (_, Some(exception)) if exception.state == ExceptionState::Dead => view(DeliveryState::Dead, Some(&exception.reason)),
            _ if seq <= record.starts_after => view(DeliveryState::BeforeStart, None),
            (standing, _) => self.passed_or_pending(record, seq, standing).await?,
        };
        if found.state == DeliveryState::Delivered
            && attempts.iter().all(|attempt| attempt.error.is_some())
            && self.context.ledger.is_skipped(record.ordinal, seq).await?
        {
            found = view(DeliveryState::Filtered, Some("skipped"));
        }
        found.attempts = attempts;
        Ok(Some(found))
    }

    async fn passed_or_pending(
        &self,
        record: &SubscriptionRecord,
        seq: Seq,
        standing: Standing,
    ) -> Result<DeliveryView, StorageError> {
        let view = |state, reason| DeliveryView { state, reason, attempts: Vec::new(), next_attempt_at: None };
        let expired = self.context.ledger.expired(record.ordinal, 1000).await?;
        if expired.iter().any(|range| (range.from..=range.to).contains(&seq)) {
            return Ok(view(DeliveryState::Expired, None));
        }
        let judged_by = record.revisions.iter().rev().find(|revision| revision.from_seq <= seq).or(record.revisions.first());
        if let (Some(event), Some(revision)) = (self.context.follow.get(seq).await?, judged_by) {
            if !revision.topics.matches(event.topic().as_str()) {
                return Ok(view(DeliveryState::Filtered, Some("the topic matches no pattern".to_owned())));
            }
            let kind = event.fields().kind;
            if !revision.types.is_empty() && !revision.types.iter().any(|wanted| wanted == kind) {
                return Ok(view(DeliveryState::Filtered, Some(format!("the type {kind:?} is not among the types"))));
            }
            if let Some(reason) = revision.filter.as_deref().and_then(|filter| sieve::refusal(filter, &event)) {
                return Ok(view(DeliveryState::Filtered, Some(reason)));
            }
        }
        Ok(match standing {
            Standing::Pending => view(DeliveryState::Pending, None),
            _ => view(DeliveryState::Delivered, None),
        })
    }
}
