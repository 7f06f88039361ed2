//! What is told of one delivery: out of what the lane has in memory, what the ledger has stored, and the log. Only what is known:
//! `delivered` is what was passed, is wanted by the definition in force there, and of which nothing else is on record.

use std::sync::Arc;

use super::Lanes;
use super::question::{Fresh, Question, Standing};
use super::sieve;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Revision, SubscriptionRecord};
use hookcast_core::model::{Attempt, Event, Exception, ExceptionState, Seq};
use hookcast_log::storage::{Marks, StorageError};

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
    /// Skipped by hand, or passed over by a seek.
    Skipped,
    /// Retention took it before it was delivered.
    Expired,
    /// From before the subscription began.
    BeforeStart,
    /// What became of it is not known any more.
    Unknown,
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
            Self::Skipped => "skipped",
            Self::Expired => "expired",
            Self::BeforeStart => "before_start",
            Self::Unknown => "unknown",
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

/// How often a delivery is read that moves while it is.
const TURNS_MAX: u32 = 4;

fn view(state: DeliveryState, reason: Option<&str>) -> DeliveryView {
    DeliveryView { state, reason: reason.map(str::to_owned), attempts: Vec::new(), next_attempt_at: None }
}

fn retrying(next: Timestamp, stored: Option<&Exception>) -> DeliveryView {
    let reason = stored.map(|exception| &*exception.reason);
    DeliveryView { next_attempt_at: Some(next), ..view(DeliveryState::Retrying, reason) }
}

impl Lanes {
    /// Everything about one delivery; `None` when there never was such an event, or the subscription is gone.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn delivery(&self, record: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError> {
        let follow = &self.context.follow;
        if seq == Seq::ZERO || seq > follow.head() || follow.jumps().contains(seq) {
            return Ok(None);
        }
        let ask = async || self.ask(record, |reply| Question::Standing(seq, reply)).await;
        // The lane first: what it has not saved then, storage has later, or it is in the answer.
        let Some(mut fresh) = ask().await else { return Ok(None) };
        let mut turns_left = TURNS_MAX;
        loop {
            let found = self.found(record, seq, &fresh).await?;
            turns_left -= 1;
            match ask().await {
                // It went on, or a seek took away what storage was read for.
                Some(again) if again.moved_since(&fresh) && turns_left > 0 => fresh = again,
                _ => return Ok(self.is_there(record).then_some(found)),
            }
        }
    }

    /// One delivery, by where it stands and by what storage has later.
    async fn found(&self, record: &SubscriptionRecord, seq: Seq, fresh: &Fresh) -> Result<DeliveryView, StorageError> {
        // Before its attempts: its success is stored together with the end of an exception, and is among them then.
        let stored = match &fresh.last_word {
            Some(word) => word.clone(),
            None => self.context.ledger.exception(record.ordinal, seq).await?,
        };
        let attempts = self.attempts_of(record, seq, fresh.attempts.clone()).await?;
        let found = match (&fresh.standing, &stored) {
            (Standing::Retrying(at), stored) => retrying(*at, stored.as_ref()),
            (Standing::Open, _) => view(DeliveryState::Pending, None),
            (Standing::Ahead, _) => self.ahead(&fresh.record, seq).await?,
            (Standing::Passed, Some(exception)) => match exception.state {
                ExceptionState::Dead => view(DeliveryState::Dead, Some(&exception.reason)),
                ExceptionState::Retry => retrying(exception.due_at, Some(exception)),
            },
            (Standing::Passed, None) => self.passed(seq, fresh, &attempts).await?,
        };
        Ok(DeliveryView { attempts, ..found })
    }

    /// What the cursor has not come to: it is judged by the definition that it will meet.
    async fn ahead(&self, record: &SubscriptionRecord, seq: Seq) -> Result<DeliveryView, StorageError> {
        let first_kept = self.context.follow.first_kept();
        let Some(event) = self.context.follow.get(seq).await?.filter(|event| event.seq() >= first_kept) else {
            return Ok(view(DeliveryState::Expired, None));
        };
        let refusal = record.revision_at(seq).or(record.revisions.first()).and_then(|revision| refusal(revision, &event));
        Ok(match refusal {
            Some(reason) => view(DeliveryState::Filtered, Some(&reason)),
            None => view(DeliveryState::Pending, None),
        })
    }

    /// What is behind the cursor and no exception.
    async fn passed(&self, seq: Seq, fresh: &Fresh, attempts: &[Attempt]) -> Result<DeliveryView, StorageError> {
        // Whoever asks may have read it before a change by which the cursor went on since.
        let record = &*fresh.record;
        if attempts.iter().any(|attempt| attempt.error.is_none()) {
            return Ok(view(DeliveryState::Delivered, None));
        }
        let marks = self.marks(record, seq, fresh).await?;
        if marks.is_buried {
            return Ok(view(DeliveryState::Dead, Some("no_longer_kept")));
        }
        let by_mark = if marks.is_skipped {
            Some(DeliveryState::Skipped)
        } else if marks.is_expired {
            Some(DeliveryState::Expired)
        } else {
            (seq <= record.starts_after).then_some(DeliveryState::BeforeStart)
        };
        let unknown = |reason| Ok(by_mark.map_or_else(|| view(DeliveryState::Unknown, Some(reason)), |state| view(state, None)));
        let Some(event) = self.context.follow.get(seq).await? else { return unknown("event_gone") };
        if by_mark == Some(DeliveryState::BeforeStart) {
            return Ok(view(DeliveryState::BeforeStart, None));
        }
        let Some(revision) = record.revision_at(seq) else { return unknown("definition_gone") };
        if let Some(reason) = refusal(revision, &event) {
            return Ok(view(DeliveryState::Filtered, Some(&reason)));
        }
        // A success is stored together with the end of a retry, where successes are remembered.
        if by_mark.is_some() || (self.context.remembers_successes && !attempts.is_empty()) {
            return unknown("no_success_on_record");
        }
        Ok(view(DeliveryState::Delivered, None))
    }

    /// What ranges say of a position, stored or not.
    async fn marks(&self, record: &SubscriptionRecord, seq: Seq, fresh: &Fresh) -> Result<Marks, StorageError> {
        let stored = self.context.ledger.marks(record.ordinal, seq).await?;
        let (unsaved, is_reopened) = fresh.marks;
        Ok(Marks {
            is_expired: stored.is_expired || unsaved.is_expired,
            is_skipped: (stored.is_skipped && !is_reopened) || unsaved.is_skipped,
            is_buried: stored.is_buried && !is_reopened,
        })
    }
}

/// Why a definition does not want an event; `None` when it does.
fn refusal(revision: &Revision, event: &Event) -> Option<String> {
    if !revision.topics.matches(event.topic().as_str()) {
        return Some("the topic matches no pattern".to_owned());
    }
    let kind = event.fields().kind;
    if !revision.types.is_empty() && !revision.types.iter().any(|wanted| wanted == kind) {
        return Some(format!("the type {kind:?} is not among the types"));
    }
    revision.filter.as_deref().and_then(|filter| sieve::refusal(filter, event))
}
