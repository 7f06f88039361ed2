//! Recovery as it is asked for: redrive, replay, their count beforehand, progress and cancelling, and skipping.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Lanes;
use super::question::Question;
use super::sieve::Choice;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::{ExceptionState, JobId, RecoveryJob, Seq};
use hookcast_log::storage::StorageError;

/// Bytes of the log read at once when events are counted.
const READ_BYTES: usize = 1024 * 1024;
/// Longest time that events are counted; then the count is estimated from what was seen.
const COUNT_TIME_MAX: Duration = Duration::from_secs(2);

/// Which events are to be posted once more.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// What asks for it.
    pub kind: JobKind,
    /// Which events of the range.
    pub selection: Selection,
    /// First position, inclusive.
    pub from: Seq,
    /// Last position, inclusive.
    pub to: Seq,
}

/// A number of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub events: u64,
    /// Whether all were counted; else it is an estimate.
    pub is_exact: bool,
}

/// What came of asking for a job.
#[derive(Clone, Debug)]
pub enum Recovering {
    /// It is under way, and durable.
    Job(Box<RecoveryJob>),
    /// The subscription has as many as it may have.
    TooMany,
    /// There is no such subscription any more.
    Gone,
}

impl Lanes {
    /// How many events a job would be about.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn count(&self, record: &Arc<SubscriptionRecord>, what: &Recovery) -> Result<Count, StorageError> {
        // Dead letters that are not stored yet would not be found.
        if let Some(saved) = self.ask(record, Question::Save).await {
            saved?;
        }
        let ledger = &self.context.ledger;
        let events = match &what.selection {
            Selection::All => return self.count_events(record, what.from, what.to).await,
            Selection::Failed => ledger.count_dead(record.ordinal, what.from, what.to).await?,
            Selection::Seqs(seqs) => {
                let mut dead = 0;
                for seq in seqs.iter() {
                    let found = ledger.exception(record.ordinal, *seq).await?;
                    dead += u64::from(found.is_some_and(|exception| exception.state == ExceptionState::Dead));
                }
                dead
            }
        };
        Ok(Count { events, is_exact: true })
    }

    async fn count_events(&self, record: &SubscriptionRecord, from: Seq, to: Seq) -> Result<Count, StorageError> {
        let choice = Choice::of(&record.spec);
        let (began, start) = (Instant::now(), from.prev().max(self.context.follow.first_kept().prev()));
        let (mut after, mut events) = (start, 0u64);
        while after < to {
            let batch = self.context.follow.read(after, READ_BYTES).await?;
            let Some(last) = batch.end() else { break };
            let inside = batch.pages.iter().flat_map(|page| page.events_after(after)).filter(|event| event.seq() <= to);
            events += inside.filter(|event| choice.takes(event)).count() as u64;
            after = last;
            if began.elapsed() >= COUNT_TIME_MAX && after < to {
                let jumps = self.context.follow.jumps();
                let (seen, all) = (u128::from(jumps.distance(start, after)), u128::from(jumps.distance(start, to)));
                let events = u64::try_from(u128::from(events) * all / seen.max(1)).unwrap_or(u64::MAX);
                return Ok(Count { events, is_exact: false });
            }
            tokio::task::yield_now().await;
        }
        Ok(Count { events, is_exact: true })
    }

    /// Makes a job; it is durable when this returns.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn recover(&self, record: &Arc<SubscriptionRecord>, what: Recovery) -> Result<Recovering, StorageError> {
        let count = self.count(record, &what).await?;
        let now = self.context.clock.now();
        let job = RecoveryJob {
            ordinal: record.ordinal,
            id: JobId::new(now, fastrand::u64(..)),
            kind: what.kind,
            selection: what.selection,
            from: what.from,
            to: what.to,
            state: JobState::Running,
            position: what.from.prev(),
            events: count.events,
            done: 0,
            failed: 0,
            created_at: now,
            ended_at: None,
        };
        let asked = self.ask(record, |reply| Question::Recover(Box::new(job.clone()), reply)).await;
        Ok(match asked.transpose()? {
            Some(true) => Recovering::Job(Box::new(job)),
            Some(false) => Recovering::TooMany,
            None => Recovering::Gone,
        })
    }

    /// Jobs, newest first: those that run and those that ended lately; `None` when the subscription is gone.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn jobs(&self, record: &Arc<SubscriptionRecord>) -> Result<Option<Vec<RecoveryJob>>, StorageError> {
        let Some(running) = self.ask(record, Question::Jobs).await else { return Ok(None) };
        let mut jobs = self.context.ledger.jobs(record.ordinal).await?;
        for newer in running {
            match jobs.iter_mut().find(|job| job.id == newer.id) {
                // What is stored may be the end, which came after the lane was asked.
                Some(stored) if stored.state == JobState::Running => *stored = newer,
                Some(_) => {}
                None => jobs.push(newer),
            }
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
        Ok(self.is_there(record).then_some(jobs))
    }

    /// Ends a job that runs; attempts in flight end as they may. `None` when there is none of this name that runs.
    ///
    /// # Errors
    /// As storage fails; nothing is changed then, unless it is `Unknown`.
    pub async fn cancel(&self, record: &Arc<SubscriptionRecord>, id: JobId) -> Result<Option<RecoveryJob>, StorageError> {
        Ok(self.ask(record, |reply| Question::Cancel(id, reply)).await.transpose()?.flatten())
    }

    /// Settles everything up to `to`; `false` when the subscription is gone.
    ///
    /// # Errors
    /// As storage fails; nothing is changed then, unless it is `Unknown`.
    pub async fn skip(&self, record: &Arc<SubscriptionRecord>, to: Seq) -> Result<bool, StorageError> {
        Ok(self.ask(record, |reply| Question::Skip(to, reply)).await.transpose()?.is_some())
    }
}
