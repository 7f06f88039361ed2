//! The newest pages of the log, shared in memory by every reader of this process, and the word that there are more.
//!
//! It holds what the ingest leader committed, at most [`TailSettings::bytes_max`]; a reader that is further behind reads the
//! log itself. It knows neither who reads nor why.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use hookcast_core::model::{Event, Page, Seq};

/// Limits of the tail.
#[derive(Clone, Copy, Debug)]
pub struct TailSettings {
    /// Most bytes of pages that are held; the newest page always is.
    pub bytes_max: usize,
}

impl Default for TailSettings {
    fn default() -> Self {
        Self { bytes_max: 16 * 1024 * 1024 }
    }
}

/// The newest pages and the head.
#[derive(Debug)]
pub struct Tail {
    settings: TailSettings,
    ring: RwLock<Ring>,
    /// Oldest position that the log still has.
    first_kept: AtomicU64,
    head: watch::Sender<Seq>,
    purges: AtomicU64,
    /// The head when something was purged last.
    purged_to: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    pages: VecDeque<Arc<Page>>,
    bytes: usize,
}

/// What the tail has for a reader.
#[derive(Debug)]
pub enum TailRead {
    /// The pages that hold the positions after the one asked for.
    Pages(Vec<Arc<Page>>),
    /// There is nothing newer.
    AtHead,
    /// The positions asked for are older than the tail.
    Behind,
}

impl Tail {
    /// An empty tail behind a log with these ends.
    #[must_use]
    pub fn new(settings: TailSettings, first_kept: Seq, head: Seq) -> Self {
        Self {
            settings,
            ring: RwLock::default(),
            first_kept: AtomicU64::new(first_kept.0),
            head: watch::Sender::new(head),
            purges: AtomicU64::new(0),
            purged_to: AtomicU64::new(0),
        }
    }

    /// Takes pages that were just committed and wakes every reader.
    pub fn publish(&self, pages: &[Arc<Page>]) {
        let Some(newest) = pages.last() else { return };
        {
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            for page in pages {
                ring.bytes += page.bytes().len();
                ring.pages.push_back(Arc::clone(page));
            }
            while ring.bytes > self.settings.bytes_max && ring.pages.len() > 1 {
                if let Some(oldest) = ring.pages.pop_front() {
                    ring.bytes -= oldest.bytes().len();
                }
            }
        }
        self.head.send_replace(newest.last());
    }

    /// Takes the data of one event out of what is held, and wakes every reader: what they made of it is out of date.
    pub fn purge(&self, seq: Seq) {
        {
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            let at = ring.pages.partition_point(|page| page.last() < seq);
            if let Some(purged) = ring.pages.get(at).and_then(|page| page.purged(seq)) {
                let before = std::mem::replace(&mut ring.pages[at], Arc::clone(&purged));
                ring.bytes = ring.bytes - before.bytes().len() + purged.bytes().len();
            }
        }
        self.purged_to.fetch_max(self.head().0, Ordering::Release);
        self.purges.fetch_add(1, Ordering::Release);
        self.head.send_modify(|_| {});
    }

    /// How often something was purged.
    #[must_use]
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// Up to which position a copy that was made earlier may hold what was purged since.
    #[must_use]
    pub fn purged_to(&self) -> Seq {
        Seq(self.purged_to.load(Ordering::Acquire))
    }

    /// The newest committed position.
    #[must_use]
    pub fn head(&self) -> Seq {
        *self.head.borrow()
    }

    /// Oldest position that the log still has, as far as this process knows.
    #[must_use]
    pub fn first_kept(&self) -> Seq {
        Seq(self.first_kept.load(Ordering::Relaxed))
    }

    /// Notes that retention took everything before `first`.
    pub fn set_first_kept(&self, first: Seq) {
        self.first_kept.store(first.0, Ordering::Relaxed);
    }

    /// The position behind which this has everything.
    #[must_use]
    pub fn reaches_back_to(&self) -> Seq {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.pages.front().map_or_else(|| self.head(), |oldest| oldest.first().prev())
    }

    /// A coalescing wake-up that carries the head.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.head.subscribe()
    }

    /// Pages behind `after`, at least one if the tail has it, then up to `bytes_max`.
    #[must_use]
    pub fn read(&self, after: Seq, bytes_max: usize) -> TailRead {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        if self.head() <= after {
            return TailRead::AtHead;
        }
        let covers = ring.pages.front().is_some_and(|oldest| oldest.first() <= after.next());
        if !covers {
            return TailRead::Behind;
        }
        let start = ring.pages.partition_point(|page| page.last() <= after);
        let mut bytes = 0;
        let mut pages = Vec::new();
        for page in ring.pages.range(start..) {
            if !pages.is_empty() && bytes + page.bytes().len() > bytes_max {
                break;
            }
            bytes += page.bytes().len();
            pages.push(Arc::clone(page));
        }
        if pages.is_empty() { TailRead::AtHead } else { TailRead::Pages(pages) }
    }

    /// The event at `seq`, when the tail has it.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<Event> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let at = ring.pages.partition_point(|page| page.last() < seq);
        ring.pages.get(at)?.get(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::clock::Timestamp;
    use hookcast_core::model::event::DataForm;
    use hookcast_core::model::{NewEvent, PageBuilder, Topic};

    fn page(first: u64, count: u64) -> Arc<Page> {
        let mut builder = PageBuilder::starting_at(Seq(first));
        for index in 0..count {
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
                data: bytes::Bytes::from_static(b"hello"),
            });
        }
        builder.finish()
    }

    #[test]
    fn a_reader_sees_each_page_once_and_learns_when_it_is_too_late() {
        let tail = Tail::new(TailSettings { bytes_max: 1 }, Seq(1), Seq(0));
        assert!(matches!(tail.read(Seq(0), 1), TailRead::AtHead));
        tail.publish(&[page(1, 3), page(4, 2)]);
        assert_eq!((tail.head(), tail.reaches_back_to()), (Seq(5), Seq(3)));
        assert!(matches!(tail.read(Seq(0), 1), TailRead::Behind), "the first page was let go");
        let TailRead::Pages(pages) = tail.read(Seq(4), 1) else { panic!("position 5 is in the tail") };
        assert_eq!(pages[0].first(), Seq(4));
        assert!(matches!(tail.read(Seq(5), 1), TailRead::AtHead));
        assert_eq!(tail.get(Seq(5)).unwrap().seq(), Seq(5));
        assert!(tail.get(Seq(3)).is_none());
    }
}
