//! The only reader of the log: from memory when the tail reaches back far enough, else from storage, by one position.
//!
//! Deliveries and streams follow the log through this and nothing else, so there is no seam between history and live.

use std::sync::Arc;

use tokio::sync::watch;

pub use crate::storage::Room;
use crate::storage::{Bounds, EventLog, LogRead, TopicSummary};
pub use crate::storage::{StorageError, StorageErrorKind};
use crate::tail::Tail;
pub use crate::tail::TailRead;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{Event, Jumps, Page, Seq};

mod shared;

use shared::{Look, Shared};

/// Reads the log from any position on. Cheap to clone.
#[derive(Clone)]
pub struct Follow {
    log: Arc<dyn EventLog>,
    tail: Arc<Tail>,
    shared: Arc<Shared>,
}

/// Pages behind a position, and what is missing in front of them.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whole pages; the first may begin before the position asked for. Empty at the head.
    pub pages: Vec<Arc<Page>>,
    /// Positions that retention took before they could be read, or that are damaged, both inclusive. There may be no page behind
    /// it.
    pub gap: Option<(Seq, Seq)>,
}

impl Batch {
    fn behind(after: Seq, read: LogRead) -> Self {
        let LogRead { damaged, pages } = read;
        let to = pages.first().map(|page| page.first().prev()).or(damaged.map(|(_, to)| to));
        let gap = to.filter(|to| *to > after).map(|to| (after.next(), to));
        Self { pages, gap }
    }

    /// The last position that was read or passed over; `None` at the head.
    #[must_use]
    pub fn end(&self) -> Option<Seq> {
        self.pages.last().map(|page| page.last()).or(self.gap.map(|(_, to)| to))
    }
}

fn intact(pages: Vec<Arc<Page>>) -> LogRead {
    LogRead { damaged: None, pages }
}

impl Follow {
    /// Reads this log through this tail.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, tail: Arc<Tail>) -> Self {
        Self { log, tail, shared: Arc::default() }
    }

    /// The newest committed position.
    #[inline]
    #[must_use]
    pub fn head(&self) -> Seq {
        self.tail.head()
    }

    /// Oldest position still kept.
    #[must_use]
    pub fn first_kept(&self) -> Seq {
        self.tail.first_kept()
    }

    /// A coalescing wake-up that carries the head: register, then read, then wait.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.tail.watch()
    }

    /// Eight characters that name the log in every `webhook-id`.
    #[inline]
    #[must_use]
    pub fn log_id(&self) -> &str {
        self.log.log_id()
    }

    /// Positions up to the head that no event ever had.
    #[must_use]
    pub fn jumps(&self) -> &Jumps {
        self.log.jumps()
    }

    /// What is free where the log is kept, and what of it is left alone.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        self.log.room()
    }

    /// What memory has behind `after`; never touches storage.
    #[must_use]
    pub fn read_tail(&self, after: Seq, bytes_max: usize) -> TailRead {
        self.tail.read(after, bytes_max)
    }

    /// Pages behind `after`, about `bytes_max` bytes of them, from memory or storage.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn read(&self, after: Seq, bytes_max: usize) -> Result<Batch, StorageError> {
        let read = match self.tail.read(after, bytes_max) {
            TailRead::Pages(pages) => intact(pages),
            TailRead::AtHead => return Ok(Batch::default()),
            TailRead::Behind => self.read_log(after, bytes_max).await?,
        };
        Ok(Batch::behind(after, read))
    }

    /// As [`Follow::read`], for readers that are many and stand near each other: what one of them has read from storage lately
    /// serves the others, and who comes while it is being read waits for it.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn read_shared(&self, after: Seq, bytes_max: usize) -> Result<Batch, StorageError> {
        match self.tail.read(after, bytes_max) {
            TailRead::Pages(pages) => return Ok(Batch::behind(after, intact(pages))),
            TailRead::AtHead => return Ok(Batch::default()),
            TailRead::Behind => {}
        }
        let reading = loop {
            match self.shared.look(after, bytes_max) {
                Look::Found(pages) => return Ok(Batch::behind(after, intact(pages))),
                Look::UnderWay(ended) => ended.cancelled().await,
                Look::Read(reading) => break reading,
            }
        };
        let read = self.read_log(after, bytes_max).await?;
        reading.end(&read.pages);
        Ok(Batch::behind(after, read))
    }

    async fn read_log(&self, after: Seq, bytes_max: usize) -> Result<LogRead, StorageError> {
        let head = self.tail.head();
        let mut read = self.log.read(after, bytes_max).await?;
        // Storage may already show a commit that its writer has not been told of; readers see only told ones.
        read.pages.retain(|page| page.last() <= head);
        read.damaged = read.damaged.filter(|(_, to)| *to <= head);
        // A log that was restored has a hole; what lies behind it is read next, with the hole as the gap in front of it.
        if let Some(end) = read.pages.windows(2).position(|pair| pair[1].first() != pair[0].last().next()) {
            read.pages.truncate(end + 1);
        }
        self.shared.count();
        Ok(read)
    }

    /// The position behind which everything is in memory.
    #[must_use]
    pub fn remembers_from(&self) -> Seq {
        self.tail.reaches_back_to()
    }

    /// How often pages were read from storage so far.
    #[must_use]
    pub fn log_reads(&self) -> u64 {
        self.shared.reads()
    }

    /// One event, from memory, the log, or what outlived it.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn get(&self, seq: Seq) -> Result<Option<Event>, StorageError> {
        if let Some(event) = self.tail.get(seq) {
            return Ok(Some(event));
        }
        if seq > self.head() {
            return Ok(None);
        }
        Ok(self.log.get(&[seq]).await?.pop())
    }

    /// Takes the data of one event out of the log and out of memory for good. Gives whether there is such an event.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn purge(&self, seq: Seq) -> Result<bool, StorageError> {
        let is_known = seq <= self.head() && self.log.purge(seq).await?;
        if is_known {
            self.shared.forget();
            self.tail.purge(seq);
        }
        Ok(is_known)
    }

    /// How often something was purged: what a reader encoded before is out of date when this has changed.
    #[must_use]
    pub fn purges(&self) -> u64 {
        self.tail.purges()
    }

    /// Up to which position a copy that was made earlier may hold what was purged since, and is to be read again.
    #[inline]
    #[must_use]
    pub fn purged_to(&self) -> Seq {
        self.tail.purged_to()
    }

    /// The position before the first event that arrived at `time` or later.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn before_time(&self, time: Timestamp) -> Result<Seq, StorageError> {
        self.log.before_time(time).await
    }

    /// Both ends of the log.
    ///
    /// # Errors
    /// As storage fails.
    pub async fn bounds(&self) -> Result<Bounds, StorageError> {
        self.log.bounds().await
    }
}

/// Counts what is kept by topic, page by page.
///
/// # Errors
/// As storage fails.
pub async fn topics(follow: &Follow) -> Result<Vec<TopicSummary>, StorageError> {
    const PAGES_BYTES: usize = 1024 * 1024;
    let mut found: std::collections::BTreeMap<String, TopicSummary> = std::collections::BTreeMap::new();
    let mut after = follow.first_kept().prev();
    loop {
        let batch = follow.read(after, PAGES_BYTES).await?;
        let Some(last) = batch.end() else { break };
        for event in batch.pages.iter().flat_map(|page| page.events_after(after)) {
            let bytes = event.fields().data.len() as u64;
            let summary = found.entry(event.topic().as_str().to_owned()).or_insert_with(|| TopicSummary {
                topic: event.topic().as_str().to_owned(),
                events: 0,
                bytes: 0,
                first_seq: event.seq(),
                last_seq: event.seq(),
            });
            summary.events += 1;
            summary.bytes += bytes;
            summary.last_seq = event.seq();
        }
        after = last;
    }
    Ok(found.into_values().collect())
}
