//! A batch: what several jobs change, put together so that it is one transaction of few statements.
//!
//! It keeps the end of every key, not the steps to it, so that the order of its statements does not matter, but for ranges. Jobs are judged
//! here, against the state ahead; a refused job leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::administration::Change;
use super::job::{Answer, Work};
use super::state::{Ahead, KnownSource, KnownSubscription, State};
use crate::storage::{
    Append, Checkpoint, FingerprintChunk, Lease, LedgerChange, Result, StorageError, StorageErrorKind, kept_apart, leave_out,
    page_time, pages_follow,
};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::{ExpiredRange, KeptException};
use hookcast_core::model::source::{SourceGap, SourcePosition, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Exception, ExceptionState, HistoryPage, Page, RecoveryJob, ResumeToken, Seq};

mod write;

pub(super) use self::write::release;

/// Events that one transaction takes at most; a single larger job still goes through.
const EVENTS_MAX: usize = 2048;
/// Bytes that one transaction takes at most; a single larger job still goes through.
const BYTES_MAX: usize = 1024 * 1024;
/// Rows of exceptions and failures that one transaction takes at most; a single larger job still goes through.
const ROWS_MAX: usize = 4096;

/// A step of what is skipped.
enum Skipped {
    Range(ExpiredRange),
    Reopened(Ordinal, Seq),
}

/// What will be committed.
pub(super) struct Batch<'a> {
    state: &'a State,
    ahead: Ahead,
    /// Page, `t_last`, `total`.
    pages: Vec<(Arc<Page>, Timestamp, u64)>,
    /// Pages that take the place of others, and whether they are kept aside.
    rewritten: Vec<(Arc<Page>, bool)>,
    resume_tokens: BTreeMap<String, ResumeToken>,
    fingerprints_from: Option<Seq>,
    fingerprints: Vec<FingerprintChunk>,
    gaps: Vec<SourceGap>,
    checkpoints: BTreeMap<u16, Checkpoint>,
    exceptions: BTreeMap<(Ordinal, Seq), Option<Exception>>,
    /// Reasons of dead letters that are stored already, or are not kept any more.
    marked: BTreeMap<(Ordinal, Seq), String>,
    kept: BTreeMap<Seq, Bytes>,
    /// Positions whose event may not be needed any more.
    released: BTreeSet<Seq>,
    failures: Vec<(Ordinal, Attempt)>,
    history: Vec<HistoryPage>,
    expired: Vec<ExpiredRange>,
    /// In the order in which they come: what was skipped, and behind which position nothing is any more.
    skipped: Vec<Skipped>,
    jobs: Vec<RecoveryJob>,
    subscriptions: BTreeMap<String, Option<SubscriptionRecord>>,
    sources: BTreeMap<String, Option<SourceRecord>>,
    administration: Vec<Change>,
    is_probe: bool,
    events: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    /// Nothing yet.
    pub(super) fn on(state: &'a State) -> Self {
        Self {
            state,
            ahead: state.ahead(),
            pages: Vec::new(),
            rewritten: Vec::new(),
            resume_tokens: BTreeMap::new(),
            fingerprints_from: None,
            fingerprints: Vec::new(),
            gaps: Vec::new(),
            checkpoints: BTreeMap::new(),
            exceptions: BTreeMap::new(),
            marked: BTreeMap::new(),
            kept: BTreeMap::new(),
            released: BTreeSet::new(),
            failures: Vec::new(),
            history: Vec::new(),
            expired: Vec::new(),
            skipped: Vec::new(),
            jobs: Vec::new(),
            subscriptions: BTreeMap::new(),
            sources: BTreeMap::new(),
            administration: Vec::new(),
            is_probe: false,
            events: 0,
            bytes: 0,
        }
    }

    /// Whether more jobs fit.
    pub(super) fn has_room(&self) -> bool {
        let rows = self.exceptions.len() + self.marked.len() + self.failures.len();
        self.events < EVENTS_MAX && self.bytes < BYTES_MAX && rows < ROWS_MAX
    }

    /// The state once it is committed.
    pub(super) fn into_ahead(self) -> Ahead {
        self.ahead
    }

    /// Takes a job, or refuses it without a trace. The answer holds once the batch is committed.
    ///
    /// # Errors
    /// `Conflict`, or `Unavailable` for a record that cannot be encoded.
    pub(super) fn admit(&mut self, work: &Work) -> Result<Answer> {
        match work {
            Work::Append(append) => self.append(append).map(|()| Answer::Done),
            Work::Rewrite { page, is_aside } => {
                self.bytes += page.bytes().len();
                self.rewritten.push((Arc::clone(page), *is_aside));
                Ok(Answer::Done)
            }
            Work::DropFingerprints(oldest) => {
                self.fingerprints_from = self.fingerprints_from.max(Some(*oldest));
                self.fingerprints.retain(|chunk| chunk.last >= *oldest);
                Ok(Answer::Done)
            }
            Work::Lease(partition) => {
                let epoch = self.ahead.epoch(self.state, *partition) + 1;
                self.ahead.epochs.insert(*partition, epoch);
                Ok(Answer::Lease(Lease { partition: *partition, epoch }))
            }
            Work::Commit(changes) => Ok(self.commit(changes)),
            Work::PutSubscription(record, expected) => self.put_subscription(record, *expected),
            Work::DeleteSubscription(id) => {
                let known = self.ahead.subscription(self.state, id.as_str()).is_some();
                if known {
                    self.ahead.subscriptions.insert(id.as_str().to_owned(), None);
                    self.subscriptions.insert(id.as_str().to_owned(), None);
                }
                Ok(Answer::Removed(known))
            }
            Work::PutSource(record, expected) => self.put_source(record, *expected),
            Work::DeleteSource(name) => Ok(Answer::Removed(self.delete_source(name))),
            Work::Administer(change) => {
                self.administration.push(change.clone());
                Ok(Answer::Done)
            }
            Work::Probe => {
                self.is_probe = true;
                Ok(Answer::Done)
            }
            Work::Late(_) => Err(conflict("an append was not made before it was to be committed".to_owned())),
            Work::Close => Ok(Answer::Done),
        }
    }

    fn append(&mut self, append: &Append) -> Result<()> {
        let head = self.ahead.bounds.head;
        if append.expected_head != head || !pages_follow(&append.pages, head) {
            return Err(conflict(format!("the log stands at {head}, not at {}", append.expected_head)));
        }
        for page in &append.pages {
            let bytes = page.bytes().len();
            let (t_last, total) = self.ahead.advance(page.last(), bytes as u64, page_time(page));
            self.pages.push((Arc::clone(page), t_last, total));
            self.events += page.len();
            self.bytes += bytes;
        }
        for position in &append.resume_tokens {
            let SourcePosition { source: name, incarnation, token } = position;
            let known = self.ahead.source(self.state, name).filter(|known| known.incarnation == Some(*incarnation));
            let Some(known) = known else {
                leave_out(position);
                continue;
            };
            let known = KnownSource { resume_token: Some(token.clone()), ..*known };
            self.ahead.sources.insert(name.clone(), Some(known));
            if let Some(Some(record)) = self.sources.get_mut(name) {
                record.resume_token = Some(token.clone());
            } else {
                self.resume_tokens.insert(name.clone(), token.clone());
            }
        }
        self.bytes += append.fingerprints.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        self.fingerprints.extend(append.fingerprints.iter().cloned());
        self.gaps.extend(append.gaps.iter().cloned());
        Ok(())
    }

    fn commit(&mut self, changes: &[LedgerChange]) -> Answer {
        let mut answer = Answer::Done;
        for change in changes {
            if self.ahead.epoch(self.state, change.lease.partition) == change.lease.epoch {
                self.apply(change);
            } else {
                answer = Answer::Fenced(change.lease.partition);
            }
        }
        answer
    }

    fn apply(&mut self, change: &LedgerChange) {
        for KeptException { exception, event } in &change.put {
            let seq = exception.seq;
            // Retention runs between batches, so what is below the log now is below it when this is committed.
            if let Some(event) = event.as_ref().filter(|_| seq < self.state.bounds.first) {
                let page = kept_apart(event).page().bytes().clone();
                self.bytes += page.len();
                self.kept.insert(seq, page);
            }
            self.decide((exception.ordinal, seq), Some(exception.clone()));
        }
        for (ordinal, seq) in &change.clear {
            self.decide((*ordinal, *seq), None);
            if *seq < self.state.bounds.first {
                self.released.insert(*seq);
            }
        }
        for exception in &change.marked {
            self.mark(exception);
        }
        self.is_probe |= change.is_proof;
        self.failures.extend(change.failures.iter().cloned());
        self.bytes += change.history.iter().map(|page| page.bytes.len()).sum::<usize>();
        self.history.extend(change.history.iter().cloned());
        self.expired.extend(change.expired.iter().copied());
        self.skipped.extend(change.reopened.iter().map(|(ordinal, after)| Skipped::Reopened(*ordinal, *after)));
        self.skipped.extend(change.skipped.iter().copied().map(Skipped::Range));
        self.jobs.extend(change.jobs.iter().cloned());
        if let Some(checkpoint) = &change.checkpoint {
            self.bytes += checkpoint.state.len();
            self.checkpoints.insert(change.lease.partition, checkpoint.clone());
        }
    }

    /// This is all that is stored of an exception, or that nothing is.
    fn decide(&mut self, key: (Ordinal, Seq), exception: Option<Exception>) {
        self.marked.remove(&key);
        self.exceptions.insert(key, exception);
    }

    fn mark(&mut self, exception: &Exception) {
        let key = (exception.ordinal, exception.seq);
        match self.exceptions.get_mut(&key) {
            Some(Some(put)) if put.state == ExceptionState::Dead => put.reason.clone_from(&exception.reason),
            Some(_) => {}
            None => drop(self.marked.insert(key, exception.reason.clone())),
        }
    }

    fn put_subscription(&mut self, record: &SubscriptionRecord, expected: u64) -> Result<Answer> {
        let id = record.spec.id.as_str();
        let known = self.ahead.subscription(self.state, id);
        // One that was made anew counts its revisions from the beginning.
        let is_other = known.is_some_and(|known| known.ordinal != record.ordinal) && expected > 0;
        if known.map_or(0, |known| known.revision) != expected || is_other {
            return Err(conflict(format!("subscription {id} is not at revision {expected}")));
        }
        let ordinal = known.map_or(Ordinal(self.ahead.ordinal + 1), |known| known.ordinal);
        let revision = expected + 1;
        let record = SubscriptionRecord { ordinal, revision, ..record.clone() };
        self.ahead.ordinal = self.ahead.ordinal.max(ordinal.0);
        self.ahead.subscriptions.insert(id.to_owned(), Some(KnownSubscription { revision, ordinal }));
        self.subscriptions.insert(id.to_owned(), Some(record.clone()));
        Ok(Answer::Subscription(Box::new(record)))
    }

    fn put_source(&mut self, record: &SourceRecord, expected: u64) -> Result<Answer> {
        let name = &record.spec.name;
        let known = self.ahead.source(self.state, name);
        // One that was made anew counts its revisions from the beginning.
        let made_at = known.and_then(|known| known.incarnation).map(|incarnation| incarnation.created_at);
        let is_other = made_at.is_some_and(|made_at| made_at != record.created_at) && expected > 0;
        if known.map_or(0, |known| known.revision) != expected || is_other {
            return Err(conflict(format!("source {name} is not at revision {expected}")));
        }
        let resume_token = match known {
            _ if record.forgets_position => None,
            Some(known) => known.resume_token.clone(),
            None => record.resume_token.clone(),
        };
        // What comes in before this is committed is of the upstream before.
        let ids_after = if record.forgets_position { record.ids_after.max(self.ahead.bounds.head) } else { record.ids_after };
        let revision = expected + 1;
        let record = SourceRecord { revision, resume_token, ids_after, forgets_position: false, ..record.clone() };
        let incarnation = Some(record.incarnation());
        let known = KnownSource { revision, incarnation, resume_token: record.resume_token.clone() };
        self.ahead.sources.insert(name.clone(), Some(known));
        // The record brings the newest token with it.
        self.resume_tokens.remove(name);
        self.sources.insert(name.clone(), Some(record.clone()));
        Ok(Answer::Source(Box::new(record)))
    }

    fn delete_source(&mut self, name: &str) -> bool {
        let known = self.ahead.source(self.state, name).is_some();
        self.gaps.retain(|gap| gap.source != name);
        self.resume_tokens.remove(name);
        self.ahead.sources.insert(name.to_owned(), None);
        self.sources.insert(name.to_owned(), None);
        known
    }
}

fn conflict(message: String) -> StorageError {
    StorageError::new(StorageErrorKind::Conflict, message)
}
