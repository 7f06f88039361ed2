//! The ledger in memory. It knows nothing of what a checkpoint's bytes say.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Memory, State};
use crate::clock::Timestamp;
use crate::model::delivery::{ExpiredRange, KeptException};
use crate::model::subscription::Ordinal;
use crate::model::{Attempt, Exception, ExceptionState, Seq};
use crate::storage::{
    Checkpoint, Lease, Ledger, LedgerChange, PageRequest, Result, StorageError, StorageErrorKind, kept_apart, limit_of,
};

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

    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>> {
        let state = self.state();
        Ok(state.expired.get(&ordinal).into_iter().flatten().take(limit_of(limit)).copied().collect())
    }

    async fn trim(&self, dead_before: Timestamp, failures_before: Timestamp, rows_max: u32) -> Result<Vec<(Ordinal, Seq)>> {
        let state = &mut *self.state();
        let is_old = |exception: &&Exception| exception.state == ExceptionState::Dead && exception.due_at < dead_before;
        let mut old: Vec<_> = state.exceptions.values().filter(is_old).map(|e| (e.due_at, e.ordinal, e.seq)).collect();
        old.sort_unstable();
        old.truncate(limit_of(rows_max));
        let gone: Vec<_> = old.into_iter().map(|(_, ordinal, seq)| (ordinal, seq)).collect();
        for key in &gone {
            state.exceptions.remove(key);
            state.release(key.1);
        }
        let mut room = limit_of(rows_max);
        state.failures.retain(|(_, attempt)| {
            let goes = room > 0 && attempt.at < failures_before;
            room -= usize::from(goes);
            !goes
        });
        Ok(gone)
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
