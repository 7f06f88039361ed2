//! What anybody may want to know of deliveries: status, dead letters; and the commands that move them. Joins what the lane has in memory with what the ledger has stored.

use std::collections::HashMap;
use std::sync::Arc;

use super::Lanes;
use super::question::{Question, Stillness, SubscriptionStatus, Told};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Exception, ExceptionState, Seq, TopicPattern};
use hookcast_log::retention::Buried;
use hookcast_log::storage::{PageRequest, StorageError};

impl Lanes {
    /// Whether it is still there: what was read of one that is being removed may be half gone, and would tell of another past.
    #[must_use]
    pub fn is_there(&self, record: &SubscriptionRecord) -> bool {
        self.context.registry.get(record.spec.id.as_str()).is_some_and(|present| present.ordinal == record.ordinal)
    }

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

    /// Dead letters by position; `None` when the subscription is gone.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn dead_letters(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Option<Vec<Exception>>, StorageError> {
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
        Ok(self.is_there(record).then_some(found))
    }

    /// Tells the lanes which dead letters retention forgot.
    pub async fn buried(&self, buried: Buried) {
        let mut letters: HashMap<Ordinal, Vec<Seq>> = HashMap::new();
        let is_anybody = match buried {
            Buried::These(these) => {
                for (ordinal, seq) in these {
                    letters.entry(ordinal).or_default().push(seq);
                }
                false
            }
            Buried::Unknown => true,
        };
        for record in self.context.registry.all() {
            match letters.get(&record.ordinal) {
                Some(seqs) => self.buried_of(&record, seqs).await,
                None if is_anybody => self.buried_of(&record, &[]).await,
                None => {}
            }
        }
    }

    /// Tells the lane that these dead letters went; with none, that some may have gone.
    async fn buried_of(&self, record: &Arc<SubscriptionRecord>, seqs: &[Seq]) {
        let mut told = Vec::new();
        let hears_own = record.spec.topics.patterns().iter().any(TopicPattern::is_own);
        for seq in seqs {
            // A word about a notice would be one about itself, for ever. Where the event went with its letter nobody knows.
            let is_foreign =
                !hears_own || matches!(self.context.follow.get(*seq).await, Ok(Some(event)) if !event.topic().is_own());
            told.extend(is_foreign.then_some(*seq));
        }
        let told = match (told.iter().min(), told.iter().max()) {
            (Some(from), Some(to)) => Some(Told { count: told.len() as u64, from: *from, to: *to }),
            _ => None,
        };
        let command = super::LaneCommand::Ask(Arc::clone(record), Question::Buried(told));
        let _ = self.lane_of(record.ordinal).send(command).await;
    }
}
