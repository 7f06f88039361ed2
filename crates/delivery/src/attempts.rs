//! The history of attempts as it is read: failures are rows, successes stand on pages, the newest are in memory only.
//!
//! A list goes by when attempts began, newest first. Pages are read by their latest time, falling, so that whatever began
//! after the latest time of the next page is complete.

use std::sync::Arc;
use std::time::Duration;

use super::Lanes;
use super::question::Question;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::{Attempt, HistoryPage, Seq, Success};
use hookcast_log::storage::{AttemptKey, HistoryQuery, StorageError};

/// Attempts shown of one delivery.
const ATTEMPTS_MAX: u32 = 100;
/// History pages read at once.
const PAGES_READ: u32 = 32;
/// History pages that one request reads, about; a list goes on behind them in its next request.
const PAGES_MAX: usize = 512;

/// By how much the clock is believed to have been moved back at most, once it has gone on again.
const CLOCK_STEP_MAX: Duration = Duration::from_hours(24);

/// Which attempts of a subscription are asked for.
#[derive(Clone, Copy, Debug)]
pub struct AttemptsQuery {
    /// Only those that succeeded, or that failed.
    pub is_success: Option<bool>,
    /// Those that began then or later.
    pub since: Timestamp,
    /// Those behind this one, in the order of the list.
    pub before: Place,
    /// Most of them.
    pub limit: usize,
}

/// The place of an attempt in a list: when it began, its event, its number, and whether it succeeded. A failure and a success of one
/// moment are two: a seek can begin an event anew within a millisecond.
pub type Place = (Timestamp, Seq, u32, bool);

/// Behind no attempt: where a list begins.
pub const NEWEST: Place = (Timestamp(i64::MAX), Seq(u64::MAX), u32::MAX, true);

/// A part of the list of attempts.
#[derive(Clone, Debug, Default)]
pub struct AttemptsPage {
    /// Newest first.
    pub items: Vec<Attempt>,
    /// Where the list goes on; there may be a next part although this one is empty.
    pub next: Option<Place>,
}

fn place(attempt: &Attempt) -> Place {
    (attempt.at, attempt.seq, attempt.n, attempt.error.is_none())
}

/// The failures behind a place: behind a success, the failure of its own moment is one.
fn failures_behind((at, seq, n, is_success): Place) -> AttemptKey {
    (at, seq, if is_success { n.saturating_add(1) } else { n })
}

/// Oldest first, each once: memory and storage may both have one.
fn in_order(mut all: Vec<Attempt>) -> Vec<Attempt> {
    all.sort_by_key(place);
    all.dedup_by_key(|attempt| place(attempt));
    all
}

impl Lanes {
    /// Attempts of a subscription, newest first; `None` when it is gone.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn attempts(
        &self,
        record: &Arc<SubscriptionRecord>,
        query: AttemptsQuery,
    ) -> Result<Option<AttemptsPage>, StorageError> {
        // Memory first: what it has not saved then, storage has later, or it is in the answer.
        let Some(mut all) = self.ask(record, Question::Attempts).await else { return Ok(None) };
        let wanted = |attempt: &Attempt| {
            attempt.at >= query.since
                && place(attempt) < query.before
                && query.is_success.is_none_or(|is_success| is_success == attempt.error.is_none())
        };
        all.retain(wanted);
        let one_more = u32::try_from(query.limit + 1).unwrap_or(u32::MAX);
        if query.is_success != Some(true) {
            let before = failures_behind(query.before);
            all.extend(self.context.ledger.failures_before(record.ordinal, query.since, before, one_more).await?);
        }
        let mut horizon = None;
        if query.is_success != Some(false) {
            let (successes, read_to) = self.successes(record, query).await?;
            all.extend(successes.iter().map(Success::attempt).filter(wanted));
            horizon = read_to;
        }
        all.retain(|attempt| horizon.is_none_or(|horizon| attempt.at > horizon));
        let mut all = in_order(all);
        all.reverse();
        let next = if all.len() > query.limit {
            all.truncate(query.limit);
            all.last().map(place)
        } else {
            horizon.map(|horizon| (Timestamp(horizon.0 + 1), Seq::ZERO, 0, false))
        };
        Ok(self.is_there(record).then_some(AttemptsPage { items: all, next }))
    }

    /// Whether the wall clock shows a time before a subscription was made, because it was moved back: nothing is known then of when its
    /// attempts began.
    fn is_before(&self, record: &SubscriptionRecord) -> bool {
        self.context.clock.now() < record.created_at
    }

    /// Where successes of a subscription can stand: on pages that are so new, with positions from there on; the newer ones first. When
    /// the clock has gone on since it was moved back, some began before the subscription was made; pages of then are told from those of
    /// others by their positions.
    fn own_pages(&self, record: &SubscriptionRecord) -> Vec<(Timestamp, Seq)> {
        let made_at = record.created_at;
        if self.is_before(record) {
            return vec![(Timestamp(i64::MIN), Seq::ZERO)];
        }
        vec![(made_at, Seq::ZERO), (made_at.minus(CLOCK_STEP_MAX), record.starts_after.next())]
    }

    /// The newest attempt that is remembered.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn last_attempt(&self, record: &Arc<SubscriptionRecord>) -> Result<Option<Attempt>, StorageError> {
        let since = if self.is_before(record) { Timestamp(i64::MIN) } else { record.created_at };
        let query = AttemptsQuery { is_success: None, since, before: NEWEST, limit: 1 };
        Ok(self.attempts(record, query).await?.and_then(|page| page.items.into_iter().next()))
    }

    /// Successes that began before the one asked for, and the time up to which there may be more on pages that were not read.
    async fn successes(
        &self,
        record: &SubscriptionRecord,
        query: AttemptsQuery,
    ) -> Result<(Vec<Success>, Option<Timestamp>), StorageError> {
        let (mut found, mut before, mut pages_read): (Vec<Success>, _, _) = (Vec::new(), None, 0);
        for (from, from_seq) in self.own_pages(record) {
            loop {
                let pages = HistoryQuery {
                    partition: record.ordinal.partition(),
                    seqs: (from_seq, Seq(u64::MAX)),
                    from: query.since.max(from),
                    to: query.before.0,
                    before,
                    limit: PAGES_READ,
                };
                let pages = self.context.ledger.history(pages).await?;
                let wanted = |success: &Success| {
                    success.ordinal == record.ordinal && (success.at, success.seq, success.n, true) < query.before
                };
                found.extend(pages.iter().flat_map(read).filter(wanted));
                let Some(last) = pages.last().filter(|_| pages.len() == PAGES_READ as usize) else { break };
                (before, pages_read) = (Some((last.last_at, last.id)), pages_read + pages.len());
                let is_enough = found.iter().filter(|success| success.at > last.last_at).count() > query.limit;
                // A request must bring the list on, however many pages overlap.
                if is_enough || (pages_read >= PAGES_MAX && last.last_at.0 < query.before.0.0 - 1) {
                    return Ok((found, Some(last.last_at)));
                }
            }
            // What began from then on is complete.
            if query.since >= from || found.iter().filter(|success| success.at >= from).count() > query.limit {
                return Ok((found, (query.since < from).then(|| Timestamp(from.0.saturating_sub(1)))));
            }
            before = Some((from, 0));
        }
        Ok((found, None))
    }

    /// The attempts of one delivery, oldest first; `unsaved` are those that memory has.
    pub(super) async fn attempts_of(
        &self,
        record: &SubscriptionRecord,
        seq: Seq,
        unsaved: Vec<Attempt>,
    ) -> Result<Vec<Attempt>, StorageError> {
        let mut all = self.context.ledger.failures(record.ordinal, Some(seq), ATTEMPTS_MAX).await?;
        all.extend(unsaved);
        let pages = HistoryQuery {
            partition: record.ordinal.partition(),
            seqs: (seq, seq),
            // Whatever the clock showed then: few pages have the position.
            from: Timestamp(i64::MIN),
            to: Timestamp(i64::MAX),
            before: None,
            limit: PAGES_READ,
        };
        let mut before = None;
        for _ in 0..PAGES_MAX / PAGES_READ as usize {
            let pages = self.context.ledger.history(HistoryQuery { before, ..pages }).await?;
            let successes = pages.iter().flat_map(read).filter(|success| (success.ordinal, success.seq) == (record.ordinal, seq));
            all.extend(successes.map(|success| success.attempt()));
            match pages.last().filter(|_| pages.len() == PAGES_READ as usize) {
                Some(last) => before = Some((last.last_at, last.id)),
                None => break,
            }
        }
        let mut all = in_order(all);
        Ok(all.split_off(all.len().saturating_sub(ATTEMPTS_MAX as usize)))
    }
}

fn read(page: &HistoryPage) -> Vec<Success> {
    page.decode().unwrap_or_else(|| {
        tracing::error!(page.id, "a page of the history of attempts is damaged; its attempts are not shown");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_and_a_success_of_one_moment_are_two_and_what_was_read_twice_is_one() {
        let attempt = |at: i64, error: Option<&str>| Attempt {
            seq: Seq(1),
            n: 1,
            at: Timestamp(at),
            outcome: if error.is_some() { "failure" } else { "success" }.to_owned(),
            status: None,
            error: error.map(str::to_owned),
            latency_ms: 1,
            response: None,
        };
        let (failed, succeeded, later) = (attempt(7, Some("status_500")), attempt(7, None), attempt(8, Some("timeout")));
        let read = [&later, &succeeded, &failed, &succeeded, &failed].map(Attempt::clone).to_vec();
        assert_eq!(in_order(read), [failed.clone(), succeeded.clone(), later]);
        // A page may end between the two: the next one begins with the failure, and the one behind that is past both.
        let of_failure = (failed.at, failed.seq, failed.n);
        assert!(place(&failed) < place(&succeeded) && of_failure < failures_behind(place(&succeeded)));
        assert!(of_failure >= failures_behind(place(&failed)));
    }
}
