//! Successful attempts of a lane that are not written, or stand on a page that is not full: turned into pages when the lane
//! saves. No I/O.
//!
//! A page that is not full stays open: the next save writes it again under its key with what came in between, so that a calm
//! lane fills its pages, too, and a busy one writes few attempts twice.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::history::PAGE_ATTEMPTS_MAX;
use hookcast_core::model::subscription::{Ordinal, PARTITIONS};
use hookcast_core::model::{HistoryPage, Seq, Success};

/// Successful attempts that may wait to be saved in one lane; more are counted only.
const SUCCESSES_MAX: usize = 65_536;
/// A page with fewer attempts stays open.
const OPEN_BELOW: usize = 96;

/// The successes of one lane that are not on full pages.
#[derive(Debug, Default)]
pub struct Book {
    unsaved: Vec<Success>,
    open: Vec<Success>,
    open_id: Option<u64>,
    last_ms: u64,
    left_out: u64,
}

impl Book {
    /// Notes a success.
    pub fn push(&mut self, success: Success) {
        if self.unsaved.len() < SUCCESSES_MAX {
            self.unsaved.push(success);
        } else {
            self.left_out += 1;
        }
    }

    /// Successes that nobody remembers, because storage took none for too long.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// The pages to be written: with everything that waits, and the open page again. `lane` is a partition of the lane, which no
    /// other lane has: it makes the keys different.
    pub fn take(&mut self, lane: u16) -> Vec<HistoryPage> {
        if self.unsaved.is_empty() {
            return Vec::new();
        }
        let mut all = std::mem::take(&mut self.open);
        all.append(&mut self.unsaved);
        all.sort_unstable();
        let mut pages = Vec::with_capacity(all.len() / PAGE_ATTEMPTS_MAX + 1);
        for attempts in all.chunks(PAGE_ATTEMPTS_MAX) {
            let id = self.open_id.take().unwrap_or_else(|| self.next_id(lane, attempts));
            pages.extend(HistoryPage::encode(id, attempts));
        }
        let last = all.len() - (all.len() - 1) % PAGE_ATTEMPTS_MAX - 1;
        if all.len() - last < OPEN_BELOW {
            self.open = all.split_off(last);
            self.open_id = pages.last().map(|page| page.id);
        }
        pages
    }

    /// A key that rises: the time in milliseconds, and who made it.
    fn next_id(&mut self, lane: u16, attempts: &[Success]) -> u64 {
        let now = attempts.iter().map(|success| success.at.0).max().unwrap_or_default();
        self.last_ms = (self.last_ms + 1).max(u64::try_from(now).unwrap_or_default());
        self.last_ms * u64::from(PARTITIONS) + u64::from(lane % PARTITIONS)
    }

    /// Takes back pages that could not be written. The first is the open one, or new: its key is used again, for the state of
    /// before may stand under it.
    pub fn give_back(&mut self, pages: &[HistoryPage]) {
        let Some(first) = pages.first() else { return };
        let mut all: Vec<Success> = pages.iter().filter_map(HistoryPage::decode).flatten().collect();
        all.append(&mut self.unsaved);
        all.truncate(SUCCESSES_MAX);
        self.unsaved = all;
        self.open.clear();
        self.open_id = Some(first.id);
    }

    /// Drops what concerns a deleted subscription and is not written.
    pub fn forget(&mut self, ordinal: Ordinal) {
        self.unsaved.retain(|success| success.ordinal != ordinal);
    }

    /// What is not written yet of one subscription, or of one of its deliveries.
    pub fn of(&self, ordinal: Ordinal, seq: Option<Seq>) -> impl Iterator<Item = Success> + '_ {
        let wanted = move |success: &&Success| success.ordinal == ordinal && seq.is_none_or(|seq| success.seq == seq);
        self.unsaved.iter().filter(wanted).copied()
    }

    /// When the newest attempt that is not written began.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.unsaved.iter().map(|success| success.at).max()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn success(n: u64) -> Success {
        let at = Timestamp(1_700_000_000_000 + i64::try_from(n).unwrap());
        Success { ordinal: Ordinal(1 + n * 7 % 5), seq: Seq(n), at, n: 1, latency_ms: 3, status: 200 }
    }

    fn everything(stored: &BTreeMap<u64, HistoryPage>) -> Vec<u64> {
        let mut seqs: Vec<u64> = stored.values().flat_map(|page| page.decode().unwrap()).map(|success| success.seq.0).collect();
        seqs.sort_unstable();
        seqs
    }

    proptest! {
        /// Whatever sizes come and whichever saves fail, every attempt stands on exactly one page.
        #[test]
        fn every_success_stands_on_one_page(saves in prop::collection::vec((0u64..700, any::<bool>()), 1..12)) {
            let (mut book, mut stored, mut n) = (Book::default(), BTreeMap::new(), 0);
            for (count, works) in saves.into_iter().chain([(1, true)]) {
                for _ in 0..count {
                    n += 1;
                    book.push(success(n));
                }
                let pages = book.take(3);
                if works {
                    prop_assert!(pages.iter().all(|page| page.id % 64 == 3));
                    stored.extend(pages.into_iter().map(|page| (page.id, page)));
                    prop_assert_eq!(everything(&stored), (1..=n).collect::<Vec<_>>());
                } else {
                    book.give_back(&pages);
                }
            }
        }
    }

    #[test]
    fn a_calm_lane_fills_its_pages_as_well() {
        let (mut book, mut stored) = (Book::default(), BTreeMap::new());
        for n in 1..=1000 {
            book.push(success(n));
            stored.extend(book.take(0).into_iter().map(|page| (page.id, page)));
        }
        assert!(stored.len() <= 1000 / OPEN_BELOW + 1, "{}", stored.len());
        let bytes: usize = stored.values().map(|page| page.bytes.len() + 96).sum();
        assert!(bytes <= 20 * 1000, "{bytes}");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut book = Book::default();
        for n in 0..SUCCESSES_MAX as u64 + 3 {
            book.push(success(n));
        }
        assert_eq!((book.take_left_out(), book.take_left_out()), (3, 0));
        assert_eq!(book.of(Ordinal(1), Some(Seq(0))).count(), 1);
    }
}
