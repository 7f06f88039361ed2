//! What was read from storage lately, for readers that come the same way. Pure but for a lock; reads nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

use hookcast_core::model::{Page, Seq};

/// Most bytes of pages that are kept for others.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Who stands at most so many positions behind the start of a read that is under way waits for its end.
const NEAR: u64 = 256;

/// Pages that others may want, too.
#[derive(Debug, Default)]
pub(super) struct Shared {
    kept: Mutex<Kept>,
    reads: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// By first position.
    pages: BTreeMap<Seq, Arc<Page>>,
    /// First positions of `pages` in the order in which they came.
    order: VecDeque<Seq>,
    bytes: usize,
    /// Where reads began that have not ended.
    under_way: Vec<(Seq, CancellationToken)>,
}

/// What a reader finds.
pub(super) enum Look<'a> {
    /// Pages that hold the positions behind the one asked for.
    Found(Vec<Arc<Page>>),
    /// Somebody reads about the same; look again when it has ended.
    UnderWay(CancellationToken),
    /// Nothing: the reader reads, and says what it found.
    Read(Reading<'a>),
}

/// A read under way; dropped without an end, those who wait for it look again all the same.
pub(super) struct Reading<'a> {
    shared: &'a Shared,
    after: Seq,
    _ended: DropGuard,
}

impl Shared {
    /// Looks for pages behind `after`, about `bytes_max` bytes of them.
    pub(super) fn look(&self, after: Seq, bytes_max: usize) -> Look<'_> {
        let mut kept = self.kept();
        let pages = kept.behind(after, bytes_max);
        if !pages.is_empty() {
            return Look::Found(pages);
        }
        if let Some((_, ended)) = kept.under_way.iter().find(|(start, _)| (start.0..=start.0 + NEAR).contains(&after.0)) {
            return Look::UnderWay(ended.clone());
        }
        let ended = CancellationToken::new();
        kept.under_way.push((after, ended.clone()));
        Look::Read(Reading { shared: self, after, _ended: ended.drop_guard() })
    }

    /// Counts a read of storage.
    pub(super) fn count(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads of storage so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Forgets everything that was kept for others.
    pub(super) fn forget(&self) {
        let mut kept = self.kept();
        kept.pages.clear();
        kept.order.clear();
        kept.bytes = 0;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading<'_> {
    /// Keeps what was read for others.
    pub(super) fn end(self, pages: &[Arc<Page>]) {
        let mut kept = self.shared.kept();
        for page in pages {
            kept.keep(page);
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.shared.kept().under_way.retain(|(start, _)| *start != self.after);
    }
}

impl Kept {
    fn behind(&self, after: Seq, bytes_max: usize) -> Vec<Arc<Page>> {
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, after.next());
        let start = self.pages.range(..=next).next_back().map_or(next, |(first, _)| *first);
        for (first, page) in self.pages.range(start..) {
            if page.last() < next {
                continue;
            }
            // Only what follows without a hole: what lies between may be in the log.
            if *first > next || (!found.is_empty() && bytes + page.bytes().len() > bytes_max) {
                break;
            }
            bytes += page.bytes().len();
            next = page.last().next();
            found.push(Arc::clone(page));
        }
        found
    }

    fn keep(&mut self, page: &Arc<Page>) {
        if self.pages.insert(page.first(), Arc::clone(page)).is_none() {
            self.order.push_back(page.first());
            self.bytes += page.bytes().len();
        }
        while self.bytes > BYTES_MAX && self.order.len() > 1 {
            if let Some(oldest) = self.order.pop_front().and_then(|first| self.pages.remove(&first)) {
                self.bytes -= oldest.bytes().len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::clock::Timestamp;
    use hookcast_core::model::event::DataForm;
    use hookcast_core::model::{NewEvent, PageBuilder, Topic};

    fn page(first: u64, bytes: usize) -> Arc<Page> {
        let mut builder = PageBuilder::starting_at(Seq(first));
        for index in 0..10 {
            builder.push(&NewEvent {
                topic: Topic::parse("t").unwrap(),
                id: format!("{index}"),
                own_id: false,
                source: "/publish".into(),
                kind: "message".into(),
                subject: None,
                time: None,
                arrived_at: Timestamp(0),
                content_type: "text/plain".into(),
                data_schema: None,
                extensions: Vec::new(),
                hops: 0,
                form: DataForm::Text,
                data: bytes::Bytes::from(vec![b'x'; bytes]),
            });
        }
        builder.finish()
    }

    fn read(shared: &Shared, after: u64, pages: &[Arc<Page>]) {
        let Look::Read(reading) = shared.look(Seq(after), 1) else { panic!("nothing is known behind {after}") };
        reading.end(pages);
    }

    fn found(shared: &Shared, after: u64, bytes_max: usize) -> Option<Vec<u64>> {
        match shared.look(Seq(after), bytes_max) {
            Look::Found(pages) => Some(pages.iter().map(|page| page.first().0).collect()),
            _ => None,
        }
    }

    #[test]
    fn what_one_has_read_serves_the_next_without_a_hole() {
        let shared = Shared::default();
        read(&shared, 0, &[page(1, 5), page(11, 5)]);
        read(&shared, 30, &[page(31, 5)]);
        assert_eq!(found(&shared, 0, usize::MAX), Some(vec![1, 11]), "what lies before 31 may be in the log");
        assert_eq!(found(&shared, 15, usize::MAX), Some(vec![11]));
        assert_eq!(found(&shared, 0, 1), Some(vec![1]), "one page at least");
        assert_eq!(found(&shared, 20, usize::MAX), None);
        assert_eq!(found(&shared, 40, usize::MAX), None);
    }

    #[test]
    fn who_comes_while_it_is_read_waits_and_a_read_that_fails_sets_them_free() {
        let shared = Shared::default();
        let Look::Read(reading) = shared.look(Seq(100), 1) else { panic!("nobody has read yet") };
        let Look::UnderWay(ended) = shared.look(Seq(110), 1) else { panic!("somebody reads") };
        assert!(matches!(shared.look(Seq(99), 1), Look::Read(_)), "what lies before is not being read");
        assert!(!ended.is_cancelled());
        drop(reading);
        assert!(ended.is_cancelled());
        assert!(matches!(shared.look(Seq(110), 1), Look::Read(_)));
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let shared = Shared::default();
        for index in 0..30 {
            read(&shared, index * 10, &[page(index * 10 + 1, 100_000)]);
        }
        assert!(shared.kept().bytes <= BYTES_MAX);
        assert_eq!(found(&shared, 0, 1), None);
        assert_eq!(found(&shared, 290, 1), Some(vec![291]));
    }
}
