//! The ledger in memory. It knows nothing of what a checkpoint's bytes say.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Memory, State};
use crate::storage::{
    AttemptKey, BURIED_MAX, Checkpoint, HistoryQuery, Lease, Ledger, LedgerChange, LedgerTrim, LedgerTrimmed, Marks, PageRequest,
    Result, StorageError, StorageErrorKind, kept_apart, limit_of,
};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::{ExpiredRange, KeptException};
use hookcast_core::model::job::JobState;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Attempt, Exception, ExceptionState, HistoryPage, JobId, RecoveryJob, Seq};

#[async_trait]
impl Ledger for Memory {
    async fn lease(&self, partition: u16) -> Result<Lease> {
        let epoch = &mut *self.state();
        let epoch = epoch.epochs.entry(partition).or_default();
        *epoch += 1;
        Ok(Lease { partition, epoch: *epoch })
    }

    async fn load(&self, partition: u16) -> Result<Checkpoint> {
        Ok(self.state().checkpoints.get(&partition).cloned().unwrap_or_default())
    }

    async fn exceptions(&self, partition: u16) -> Result<(Vec<Exception>, Vec<(Ordinal, u64)>)> {
        let state = self.state();
        let (mut waiting, mut dead) = (Vec::new(), BTreeMap::new());
        for exception in state.exceptions.values().filter(|exception| exception.ordinal.partition() == partition) {
            match exception.state {
                ExceptionState::Retry => waiting.push(exception.clone()),
                ExceptionState::Dead => *dead.entry(exception.ordinal).or_default() += 1,
            }
        }
        Ok((waiting, dead.into_iter().collect()))
    }

    async fn commit(&self, changes: Vec<LedgerChange>) -> Result<()> {
        let state = &mut *self.state();
        let mut fenced = None;
        for change in changes {
            if state.epochs.get(&change.lease.partition) == Some(&change.lease.epoch) {
                state.apply(change);
            } else {
                fenced = Some(change.lease.partition);
            }
        }
        fenced.map_or(Ok(()), |partition| {
            Err(StorageError::new(StorageErrorKind::Fenced, format!("partition {partition} was taken over")))
        })
    }

    async fn exception(&self, ordinal: Ordinal, seq: Seq) -> Result<Option<Exception>> {
        Ok(self.state().exceptions.get(&(ordinal, seq)).cloned())
    }

    async fn list(&self, ordinal: Ordinal, state: ExceptionState, page: PageRequest) -> Result<Vec<Exception>> {
        let all = self.state();
        let behind = all.exceptions.range((ordinal, page.after.next())..=(ordinal, Seq(u64::MAX)));
        let of_state = behind.map(|(_, exception)| exception).filter(|exception| exception.state == state);
        Ok(of_state.take(limit_of(page.limit)).cloned().collect())
    }

    async fn failures(&self, ordinal: Ordinal, seq: Option<Seq>, limit: u32) -> Result<Vec<Attempt>> {
        let state = self.state();
        let of_delivery = |(of, attempt): &&(Ordinal, Attempt)| *of == ordinal && seq.is_none_or(|seq| attempt.seq == seq);
        let mut found: Vec<_> = state.failures.iter().filter(of_delivery).map(|(_, attempt)| attempt.clone()).collect();
        found.sort_by_key(|attempt| (attempt.at, attempt.seq, attempt.n));
        Ok(found.split_off(found.len().saturating_sub(limit_of(limit))))
    }

    async fn failures_before(&self, ordinal: Ordinal, since: Timestamp, before: AttemptKey, limit: u32) -> Result<Vec<Attempt>> {
        let state = self.state();
        let key = |attempt: &Attempt| (attempt.at, attempt.seq, attempt.n);
        let wanted = |(of, attempt): &&(Ordinal, Attempt)| *of == ordinal && attempt.at >= since && key(attempt) < before;
        let mut found: Vec<_> = state.failures.iter().filter(wanted).map(|(_, attempt)| attempt.clone()).collect();
        found.sort_by_key(|attempt| std::cmp::Reverse(key(attempt)));
        found.truncate(limit_of(limit));
        Ok(found)
    }

    async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryPage>> {
        Ok(self.state().history_pages(query))
    }

    async fn count_dead(&self, ordinal: Ordinal, from: Seq, to: Seq) -> Result<u64> {
        if from > to {
            return Ok(0);
        }
        let all = self.state();
        let inside = all.exceptions.range((ordinal, from)..=(ordinal, to));
        Ok(inside.filter(|(_, exception)| exception.state == ExceptionState::Dead).count() as u64)
    }

    async fn dead_among(&self, ordinal: Ordinal, seqs: &[Seq]) -> Result<Vec<Seq>> {
        let all = self.state();
        let is_dead = |seq: &Seq| all.exceptions.get(&(ordinal, *seq)).is_some_and(|found| found.state == ExceptionState::Dead);
        Ok(seqs.iter().copied().filter(is_dead).collect())
    }

    async fn running_jobs(&self, partition: u16) -> Result<Vec<RecoveryJob>> {
        let all = self.state();
        let runs = |job: &&RecoveryJob| job.state == JobState::Running && job.ordinal.partition() == partition;
        let mut jobs: Vec<_> = all.jobs.values().filter(runs).cloned().collect();
        jobs.sort_by_key(|job| job.id);
        Ok(jobs)
    }

    async fn jobs(&self, ordinal: Ordinal) -> Result<Vec<RecoveryJob>> {
        let all = self.state();
        let of_this = all.jobs.range((ordinal, JobId(0))..=(ordinal, JobId(u64::MAX)));
        Ok(of_this.rev().map(|(_, job)| job.clone()).collect())
    }

    async fn marks(&self, ordinal: Ordinal, seq: Seq) -> Result<Marks> {
        let state = self.state();
        let holds = |ranges: &BTreeMap<Ordinal, Vec<ExpiredRange>>| {
            ranges.get(&ordinal).into_iter().flatten().any(|range| (range.from..=range.to).contains(&seq))
        };
        Ok(Marks { is_expired: holds(&state.expired), is_skipped: holds(&state.skipped), is_buried: holds(&state.buried) })
    }

    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>> {
        let state = self.state();
        Ok(state.expired.get(&ordinal).into_iter().flatten().take(limit_of(limit)).copied().collect())
    }

    async fn trim(&self, trim: LedgerTrim) -> Result<LedgerTrimmed> {
        let state = &mut *self.state();
        let rows_max = trim.rows_max;
        let is_old = |exception: &&Exception| exception.state == ExceptionState::Dead && exception.due_at < trim.dead_before;
        let mut old: Vec<_> = state.exceptions.values().filter(is_old).map(|e| (e.due_at, e.ordinal, e.seq)).collect();
        old.sort_unstable();
        old.truncate(limit_of(rows_max));
        let gone: Vec<_> = old.into_iter().map(|(_, ordinal, seq)| (ordinal, seq)).collect();
        for key in &gone {
            state.exceptions.remove(key);
            state.release(key.1);
            let ranges = state.buried.entry(key.0).or_default();
            merge(ranges, ExpiredRange { ordinal: key.0, from: key.1, to: key.1 });
            ranges.drain(..ranges.len().saturating_sub(limit_of(BURIED_MAX)));
        }
        let more = state.trim_attempts(trim) || gone.len() >= limit_of(rows_max);
        Ok(LedgerTrimmed { dead: gone, more })
    }

    async fn forget(&self, ordinal: Ordinal) -> Result<()> {
        let state = &mut *self.state();
        let seqs: Vec<_> = state.exceptions.keys().filter(|key| key.0 == ordinal).map(|key| key.1).collect();
        for seq in seqs {
            state.exceptions.remove(&(ordinal, seq));
            state.release(seq);
        }
        state.failures.retain(|(of, _)| *of != ordinal);
        state.expired.remove(&ordinal);
        state.skipped.remove(&ordinal);
        state.buried.remove(&ordinal);
        state.jobs.retain(|(of, _), _| *of != ordinal);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, change: LedgerChange) {
        for KeptException { exception, event } in change.put {
            let seq = exception.seq;
            if let Some(event) = event.filter(|_| seq < self.bounds().first) {
                self.kept.insert(seq, kept_apart(&event));
            }
            self.exceptions.insert((exception.ordinal, seq), exception);
        }
        for key in change.clear {
            self.exceptions.remove(&key);
            self.release(key.1);
        }
        for marked in change.marked {
            let known = self.exceptions.get_mut(&(marked.ordinal, marked.seq));
            if let Some(known) = known.filter(|known| known.state == ExceptionState::Dead) {
                known.reason = marked.reason;
            }
        }
        for (ordinal, attempt) in change.failures {
            let same = |(of, known): &(Ordinal, Attempt)| {
                *of == ordinal && (known.seq, known.n, known.at) == (attempt.seq, attempt.n, attempt.at)
            };
            if !self.failures.iter().any(same) {
                self.failures.push((ordinal, attempt));
            }
        }
        for range in change.expired {
            merge(self.expired.entry(range.ordinal).or_default(), range);
        }
        for (ordinal, after) in change.reopened {
            for ranges in self.skipped.get_mut(&ordinal).into_iter().chain(self.buried.get_mut(&ordinal)) {
                cut(ranges, after);
            }
        }
        for range in change.skipped {
            merge(self.skipped.entry(range.ordinal).or_default(), range);
        }
        self.history.extend(change.history.into_iter().map(|page| (page.id, page)));
        for job in change.jobs {
            self.put_job(job);
        }
        if let Some(checkpoint) = change.checkpoint {
            self.checkpoints.insert(change.lease.partition, checkpoint);
        }
    }
}

/// Adds a range; ranges that touch become one.
fn merge(ranges: &mut Vec<ExpiredRange>, mut new: ExpiredRange) {
    ranges.retain(|known| {
        let touches = known.from <= new.to.next() && new.from <= known.to.next();
        if touches {
            new.from = new.from.min(known.from);
            new.to = new.to.max(known.to);
        }
        !touches
    });
    ranges.insert(ranges.partition_point(|known| known.from < new.from), new);
}

/// Takes everything behind `after` out of ranges.
fn cut(ranges: &mut Vec<ExpiredRange>, after: Seq) {
    ranges.retain_mut(|range| {
        range.to = range.to.min(after);
        range.from <= range.to
    });
}
