//! What of a subscription is not delivered, by position: events that wait for their first attempt, waiting retries, dead
//! letters. Joins memory, ledger and log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Lanes;
use super::question::{Question, Waiting};
use super::sieve::Choices;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::{Exception, ExceptionState, Seq};
use hookcast_log::storage::{PageRequest, StorageError};

/// Bytes of the log read at once.
const READ_BYTES: usize = 256 * 1024;
/// Reads of the log in one request; a list goes on behind them in its next request.
const READS_MAX: usize = 32;

/// A part of the list.
#[derive(Clone, Debug, Default)]
pub struct UndeliveredPage {
    /// By position: the exception, or nothing for an event that waits for its first attempt.
    pub items: Vec<(Seq, Option<Exception>)>,
    /// The position behind which the list goes on; there may be a next part although this one is empty.
    pub next: Option<Seq>,
}

impl Lanes {
    /// What is not delivered behind a position; `None` when the subscription is gone.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn undelivered(
        &self,
        record: &Arc<SubscriptionRecord>,
        page: PageRequest,
    ) -> Result<Option<UndeliveredPage>, StorageError> {
        let limit = page.limit as usize;
        // One more than asked for tells whether there is a next page.
        let waiting = self.ask(record, |reply| Question::Waiting(page.after, limit + 1, reply)).await;
        let Some(Waiting { retries, words, open, base }) = waiting else { return Ok(None) };
        let one_more = PageRequest { limit: page.limit + 1, ..page };
        let dead = self.context.ledger.list(record.ordinal, ExceptionState::Dead, one_more).await?;
        // Behind the last one read there may be more dead letters, which do not fit anyway.
        let dead_to = dead.last().filter(|_| dead.len() > limit).map(|last| last.seq);
        let stored = dead.into_iter().filter(|exception| !words.contains_key(&exception.seq));
        let mut items: BTreeMap<Seq, Option<Exception>> = stored.map(|exception| (exception.seq, Some(exception))).collect();
        let unsaved = words.into_values().flatten().filter(|word| word.state == ExceptionState::Dead);
        items.extend(unsaved.map(|exception| (exception.seq, Some(exception))));
        items.extend(open.into_iter().map(|seq| (seq, None)));
        items.extend(retries.into_iter().map(|exception| (exception.seq, Some(exception))));
        let known_to = dead_to.unwrap_or(Seq(u64::MAX));
        let before_base = items.range(..=base.min(known_to)).count();
        let mut scanned = None;
        if before_base <= limit && known_to > base {
            scanned = self.pending(record, page.after.max(base), limit, &mut items).await?;
        }
        // Fewer than were read may be left: the list goes on behind those.
        let read_to = scanned.into_iter().chain(dead_to).min();
        let mut items: Vec<_> = items.into_iter().filter(|(seq, _)| read_to.is_none_or(|read_to| *seq <= read_to)).collect();
        let next = if items.len() > limit {
            items.truncate(limit);
            items.last().map(|(seq, _)| *seq)
        } else {
            read_to
        };
        Ok(self.is_there(record).then_some(UndeliveredPage { items, next }))
    }

    /// Adds events behind `after` that wait for their first attempt; gives how far it looked if that is not the head.
    async fn pending(
        &self,
        record: &SubscriptionRecord,
        mut after: Seq,
        limit: usize,
        items: &mut BTreeMap<Seq, Option<Exception>>,
    ) -> Result<Option<Seq>, StorageError> {
        let mut choices = Choices::of(record);
        for _ in 0..READS_MAX {
            let batch = self.context.follow.read(after, READ_BYTES).await?;
            let Some(last) = batch.end() else { return Ok(None) };
            for page in &batch.pages {
                for event in page.events_after(after) {
                    if choices.takes(&event) {
                        let item = items.entry(event.seq()).or_default();
                        // What a seek back made pending is that, whatever became of it before.
                        item.take_if(|exception| exception.state == ExceptionState::Dead);
                    }
                }
            }
            after = last;
            if items.range(..=after).count() > limit {
                return Ok(Some(after));
            }
        }
        Ok(Some(after))
    }
}
