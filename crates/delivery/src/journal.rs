//! What a lane has decided and not yet saved: exceptions, failures, expired ranges and which partitions moved. No I/O.
//!
//! Changes of one delivery replace each other, so that a save carries only the last word on it. What could not be saved comes
//! back by [`Journal::give_back`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use self::word::Word;
use super::book::Book;
use hookcast_core::model::delivery::{ExpiredRange, KeptException};
use hookcast_core::model::subscription::{Ordinal, PARTITIONS};
use hookcast_core::model::{Attempt, Event, Exception, HistoryPage, RecoveryJob, Seq, Success};
use hookcast_log::storage::{Checkpoint, Lease, LedgerChange, Marks};

mod word;

/// Exceptions that may wait to be saved in one lane; then no attempt begins until a save went through.
const EXCEPTIONS_MAX: usize = 65_536;
/// Failed attempts that may wait to be saved in one partition; more are counted only.
const FAILURES_MAX: usize = 8_192;

/// The unsaved changes of a lane's partitions.
#[derive(Debug, Default)]
pub struct Journal {
    partitions: BTreeMap<u16, Unsaved>,
    /// Changes that were taken and are not known to be saved, oldest first.
    under_way: Vec<Rc<Vec<LedgerChange>>>,
    left_out: u64,
    /// Successful attempts, when they are remembered.
    book: Option<Box<Book>>,
    /// Exceptions put since the last save, at least.
    unsaved: usize,
}

#[derive(Debug, Default)]
struct Unsaved {
    exceptions: BTreeMap<(Ordinal, Seq), Word>,
    failures: Vec<(Ordinal, Attempt)>,
    expired: Vec<ExpiredRange>,
    reopened: BTreeMap<Ordinal, Seq>,
    skipped: Vec<ExpiredRange>,
    jobs: BTreeMap<(Ordinal, u64), RecoveryJob>,
}

impl Journal {
    /// Remembers successful attempts as well.
    pub fn remember_successes(&mut self) {
        self.book = Some(Box::default());
    }

    /// Attempts that nobody remembers, because storage took nothing for too long.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// Notes a successful attempt; whoever does also touches the partition.
    pub fn success(&mut self, success: impl FnOnce() -> Success) {
        if let Some(book) = &mut self.book {
            book.push(success());
        }
    }

    /// Notes a range that was skipped.
    pub fn skipped(&mut self, range: ExpiredRange) {
        self.of(range.ordinal).skipped.push(range);
    }

    /// Notes that a subscription passes everything behind `after` once more: nothing there is skipped any more.
    pub fn reopen(&mut self, ordinal: Ordinal, after: Seq) {
        let unsaved = self.of(ordinal);
        cut(&mut unsaved.skipped, ordinal, after);
        let known = unsaved.reopened.entry(ordinal).or_insert(after);
        *known = after.min(*known);
    }

    /// Notes how a job stands.
    pub fn job(&mut self, job: RecoveryJob) {
        self.of(job.ordinal).jobs.insert((job.ordinal, job.id.0), job);
    }

    /// Notes an exception made or changed.
    pub fn put(&mut self, exception: Exception, event: Option<Event>) {
        let key = (exception.ordinal, exception.seq);
        self.unsaved += 1;
        let exceptions = &mut self.of(exception.ordinal).exceptions;
        // A word without the event must not take away the event of the word before, which nobody has saved yet.
        let event = event.or_else(|| exceptions.remove(&key).and_then(Word::into_event));
        exceptions.insert(key, Word::Put(KeptException { exception, event }));
    }

    /// Notes that a dead letter has another reason. Whether it is still kept, storage knows: retention may have taken it.
    pub fn mark(&mut self, exception: Exception) {
        let key = (exception.ordinal, exception.seq);
        self.unsaved += 1;
        match self.of(exception.ordinal).exceptions.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Word::Marked(exception));
            }
            Entry::Occupied(mut entry) => entry.get_mut().mark(exception),
        }
    }

    /// Whether the word on a delivery is a mark of [`Journal::mark`], not saved yet.
    #[must_use]
    pub fn is_mark(&self, ordinal: Ordinal, seq: Seq) -> bool {
        let unsaved = self.partitions.get(&ordinal.partition()).and_then(|unsaved| unsaved.exceptions.get(&(ordinal, seq)));
        matches!(unsaved, Some(Word::Marked(_)))
    }

    /// Notes that an exception ended.
    pub fn clear(&mut self, ordinal: Ordinal, seq: Seq) {
        self.of(ordinal).exceptions.insert((ordinal, seq), Word::Ended);
    }

    /// Notes a failed attempt.
    pub fn failure(&mut self, ordinal: Ordinal, attempt: Attempt) {
        let failures = &mut self.of(ordinal).failures;
        if failures.len() < FAILURES_MAX {
            failures.push((ordinal, attempt));
        } else {
            self.left_out += 1;
        }
    }

    /// Notes a range that retention took; ranges that touch are joined.
    pub fn expired(&mut self, range: ExpiredRange) {
        let expired = &mut self.of(range.ordinal).expired;
        match expired.iter_mut().rev().find(|last| last.ordinal == range.ordinal) {
            Some(last) if last.to.next() == range.from => last.to = range.to,
            _ => expired.push(range),
        }
    }

    /// Marks the partition of a subscription as moved.
    pub fn touch(&mut self, ordinal: Ordinal) {
        self.of(ordinal);
    }

    /// Marks a partition as moved.
    pub fn touch_partition(&mut self, partition: u16) {
        debug_assert!(partition < PARTITIONS);
        self.partitions.entry(partition).or_default();
    }

    /// Whether so much is unsaved that nothing more may be added to it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.unsaved >= EXCEPTIONS_MAX
    }

    /// Whether anything waits to be saved.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// Drops what concerns a deleted subscription.
    pub fn forget(&mut self, ordinal: Ordinal) {
        if let Some(unsaved) = self.partitions.get_mut(&ordinal.partition()) {
            unsaved.exceptions.retain(|(other, _), _| *other != ordinal);
            unsaved.failures.retain(|(other, _)| *other != ordinal);
            unsaved.expired.retain(|range| range.ordinal != ordinal);
            unsaved.reopened.remove(&ordinal);
            unsaved.skipped.retain(|range| range.ordinal != ordinal);
            unsaved.jobs.retain(|(other, _), _| *other != ordinal);
        }
        if let Some(book) = &mut self.book {
            book.forget(ordinal);
        }
    }

    /// Takes everything that waits, with the progress of each partition that moved.
    pub fn take(&mut self, mut progress: impl FnMut(u16) -> Option<(Lease, Checkpoint)>) -> Vec<LedgerChange> {
        let mut changes = Vec::with_capacity(self.partitions.len());
        self.unsaved = 0;
        for (partition, unsaved) in std::mem::take(&mut self.partitions) {
            let Some((lease, checkpoint)) = progress(partition) else { continue };
            let mut change = LedgerChange {
                failures: unsaved.failures,
                expired: unsaved.expired,
                reopened: unsaved.reopened.into_iter().collect(),
                skipped: unsaved.skipped,
                jobs: unsaved.jobs.into_values().collect(),
                checkpoint: Some(checkpoint),
                ..LedgerChange::new(lease)
            };
            for (key, word) in unsaved.exceptions {
                match word {
                    Word::Put(kept) => change.put.push(kept),
                    Word::Marked(exception) => change.marked.push(exception),
                    Word::Ended => change.clear.push(key),
                }
            }
            changes.push(change);
        }
        if let (Some(book), Some(first)) = (&mut self.book, changes.first_mut()) {
            // One lane holds a partition, so its number tells lanes apart.
            first.history = book.take(first.lease.partition);
            self.left_out += book.take_left_out();
        }
        changes
    }

    /// Remembers changes while they are being saved, so that nobody is told of a state before them.
    pub fn begin(&mut self, changes: &Rc<Vec<LedgerChange>>) {
        self.under_way.push(Rc::clone(changes));
    }

    /// Forgets changes that were saved, or will be given back.
    pub fn end(&mut self, changes: &Rc<Vec<LedgerChange>>) {
        self.under_way.retain(|other| !Rc::ptr_eq(other, changes));
    }

    /// The last word on a delivery that storage may not have yet; the inner `None` means that its exception ended.
    #[must_use]
    pub fn last_word(&self, ordinal: Ordinal, seq: Seq) -> Option<Option<Exception>> {
        let unsaved = self.partitions.get(&ordinal.partition()).and_then(|unsaved| unsaved.exceptions.get(&(ordinal, seq)));
        if let Some(word) = unsaved {
            return Some(word.exception().cloned());
        }
        self.under_way.iter().rev().flat_map(|changes| changes.iter()).find_map(|change| {
            let put = put_by(change).find(|put| (put.ordinal, put.seq) == (ordinal, seq));
            put.map(|put| Some(put.clone())).or_else(|| change.clear.contains(&(ordinal, seq)).then_some(None))
        })
    }

    /// The last words on deliveries behind `after` that storage may not have yet.
    #[must_use]
    pub fn words(&self, ordinal: Ordinal, after: Seq) -> BTreeMap<Seq, Option<Exception>> {
        let mut words = BTreeMap::new();
        for change in self.under_way.iter().flat_map(|changes| changes.iter()) {
            let put = put_by(change).filter(|put| put.ordinal == ordinal && put.seq > after);
            words.extend(put.map(|put| (put.seq, Some(put.clone()))));
            let cleared = change.clear.iter().filter(|(other, seq)| *other == ordinal && *seq > after);
            words.extend(cleared.map(|(_, seq)| (*seq, None)));
        }
        let unsaved = self.partitions.get(&ordinal.partition()).into_iter();
        let unsaved = unsaved.flat_map(|unsaved| unsaved.exceptions.range((ordinal, after.next())..=(ordinal, Seq(u64::MAX))));
        words.extend(unsaved.map(|((_, seq), word)| (*seq, word.exception().cloned())));
        words
    }

    /// What ranges say of a position that storage may not have yet, and whether it is passed once more, so that what storage
    /// says of its being skipped or buried is out of date.
    #[must_use]
    pub fn marks(&self, ordinal: Ordinal, seq: Seq) -> (Marks, bool) {
        let holds = |ranges: &[ExpiredRange]| {
            ranges.iter().any(|range| range.ordinal == ordinal && (range.from..=range.to).contains(&seq))
        };
        let mut marks = Marks::default();
        let mut is_reopened = false;
        if let Some(unsaved) = self.partitions.get(&ordinal.partition()) {
            marks.is_expired = holds(&unsaved.expired);
            marks.is_skipped = holds(&unsaved.skipped);
            is_reopened = unsaved.reopened.get(&ordinal).is_some_and(|after| seq > *after);
        }
        for change in self.under_way.iter().rev().flat_map(|changes| changes.iter()) {
            marks.is_expired |= holds(&change.expired);
            if !is_reopened {
                marks.is_skipped |= holds(&change.skipped);
                is_reopened = change.reopened.iter().any(|(other, after)| *other == ordinal && seq > *after);
            }
        }
        (marks, is_reopened)
    }

    /// Attempts of a subscription, or of one of its deliveries, that storage may not have yet.
    #[must_use]
    pub fn attempts(&self, ordinal: Ordinal, seq: Option<Seq>) -> Vec<Attempt> {
        let mut attempts = self.failures(ordinal, seq);
        let pages = self.under_way.iter().flat_map(|changes| changes.iter()).flat_map(|change| &change.history);
        let taken = pages.filter_map(HistoryPage::decode).flatten();
        let taken = taken.filter(|success| success.ordinal == ordinal && seq.is_none_or(|seq| success.seq == seq));
        let unsaved = self.book.iter().flat_map(|book| book.of(ordinal, seq));
        attempts.extend(taken.chain(unsaved).map(|success| success.attempt()));
        attempts
    }

    fn failures(&self, ordinal: Ordinal, seq: Option<Seq>) -> Vec<Attempt> {
        let taken = self.under_way.iter().flat_map(|changes| changes.iter()).flat_map(|change| &change.failures);
        let unsaved = self.partitions.get(&ordinal.partition()).into_iter().flat_map(|unsaved| &unsaved.failures);
        let wanted = |(other, attempt): &&(Ordinal, Attempt)| *other == ordinal && seq.is_none_or(|seq| attempt.seq == seq);
        let all = taken.chain(unsaved).filter(wanted);
        all.map(|(_, attempt)| attempt.clone()).collect()
    }

    /// Takes back what could not be saved; newer words on the same delivery stay.
    pub fn give_back(&mut self, changes: Vec<LedgerChange>) {
        for change in changes {
            let unsaved = self.partitions.entry(change.lease.partition).or_default();
            self.unsaved += change.put.len() + change.marked.len();
            for kept in change.put {
                match unsaved.exceptions.entry((kept.exception.ordinal, kept.exception.seq)) {
                    Entry::Vacant(entry) => {
                        entry.insert(Word::Put(kept));
                    }
                    Entry::Occupied(mut entry) => entry.get_mut().on_top_of(kept),
                }
            }
            for exception in change.marked {
                unsaved.exceptions.entry((exception.ordinal, exception.seq)).or_insert(Word::Marked(exception));
            }
            for key in change.clear {
                unsaved.exceptions.entry(key).or_insert(Word::Ended);
            }
            unsaved.failures.splice(0..0, change.failures);
            unsaved.failures.truncate(FAILURES_MAX);
            unsaved.expired.splice(0..0, change.expired);
            let mut skipped = change.skipped;
            for (ordinal, after) in &unsaved.reopened {
                cut(&mut skipped, *ordinal, *after);
            }
            unsaved.skipped.splice(0..0, skipped);
            for (ordinal, after) in change.reopened {
                let known = unsaved.reopened.entry(ordinal).or_insert(after);
                *known = after.min(*known);
            }
            for job in change.jobs {
                unsaved.jobs.entry((job.ordinal, job.id.0)).or_insert(job);
            }
            if let Some(book) = &mut self.book {
                book.give_back(&change.history);
            }
        }
    }

    fn of(&mut self, ordinal: Ordinal) -> &mut Unsaved {
        self.partitions.entry(ordinal.partition()).or_default()
    }
}

/// Exceptions as they are once a change is saved.
fn put_by(change: &LedgerChange) -> impl Iterator<Item = &Exception> {
    change.put.iter().map(|kept| &kept.exception).chain(&change.marked)
}

/// Takes everything behind `after` out of the ranges of a subscription.
fn cut(ranges: &mut Vec<ExpiredRange>, ordinal: Ordinal, after: Seq) {
    ranges.retain_mut(|range| {
        if range.ordinal == ordinal {
            range.to = range.to.min(after);
        }
        range.from <= range.to
    });
}

#[cfg(test)]
mod tests;
