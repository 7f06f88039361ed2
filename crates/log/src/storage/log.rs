//! What the log of events must do: append, read, look up, trim. Knows nothing of who delivers.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Result, Room};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::{SourceGap, SourcePosition};
use hookcast_core::model::{Event, Jumps, Page, Seq};

/// What goes into the log in one commit.
#[derive(Debug, Default)]
pub struct Append {
    /// Consecutive pages, the first at `expected_head + 1`; may be empty (only tokens move).
    pub pages: Vec<Arc<Page>>,
    /// The head that the caller believes in.
    pub expected_head: Seq,
    /// Positions of sources after these events; those of an upstream that is not read any more are left out and counted.
    pub resume_tokens: Vec<SourcePosition>,
    /// A full chunk of fingerprints, when one was filled by these events.
    pub fingerprints: Vec<FingerprintChunk>,
    /// Gaps of sources that were noticed.
    pub gaps: Vec<SourceGap>,
}

/// What a read of the log gives.
#[derive(Clone, Debug, Default)]
pub struct LogRead {
    /// Positions whose pages are damaged, both inclusive; in front of `pages`, nothing that can be read lies between.
    pub damaged: Option<(Seq, Seq)>,
    /// Whole pages, oldest first.
    pub pages: Vec<Arc<Page>>,
}

/// Encoded fingerprints of consecutive identified events; the bytes belong to ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintChunk {
    /// Position of the first event in it; the key.
    pub first: Seq,
    /// Position of the last.
    pub last: Seq,
    /// Arrival time of the last; chunks older than the window are dropped.
    pub last_at: Timestamp,
    /// The fingerprints.
    pub bytes: Vec<u8>,
}

/// Both ends of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Oldest position kept; `head + 1` when nothing is.
    pub first: Seq,
    /// Newest position ever given.
    pub head: Seq,
    /// Encoded bytes of the pages kept.
    pub bytes: u64,
}

/// What was kept of a topic; a line of `GET /v1/topics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// The topic.
    pub topic: String,
    /// Events kept.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
    /// Oldest and newest position.
    pub first_seq: Seq,
    /// Newest position.
    pub last_seq: Seq,
}

/// Makes what is to be appended at the moment when it can be.
pub type LateAppend = Box<dyn FnOnce() -> Append + Send>;

/// The append-only record of events.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Eight base32 characters fixed when the log was made; part of every `webhook-id`.
    fn log_id(&self) -> &str;

    /// The runtime beside which appending costs least, for a backend that commits on a thread of its own.
    fn home(&self) -> Option<tokio::runtime::Handle> {
        None
    }

    /// Positions between those of its events that no event ever had; the same as long as the log is open.
    fn jumps(&self) -> &Jumps {
        const { &Jumps::NONE }
    }

    /// What is free where it is kept, and what of it is left alone; `None` where that is not known.
    fn room(&self) -> Option<Room> {
        None
    }

    /// Appends all of it together, or nothing. Durable when it returns.
    ///
    /// # Errors
    /// `Conflict` when `expected_head` is not the head, `Full` when the disk reserve is reached, else as the backend fails.
    async fn append(&self, append: Append) -> Result<()>;

    /// As [`EventLog::append`], for what `make` gives once the backend turns to it: whatever came in while an earlier commit was
    /// under way is part of it. `make` is dropped uncalled when the backend is closed.
    ///
    /// # Errors
    /// As [`EventLog::append`].
    async fn append_late(&self, make: LateAppend) -> Result<()> {
        self.append(make()).await
    }

    /// Whole pages that hold positions after `after`, oldest first: at least one if any exists, then up to `bytes_max`.
    ///
    /// Positions may be missing at the front: the first page begins behind `after + 1` when retention took some. The pages end in
    /// front of one that is damaged; read on from there, such pages are passed over, named, and what is intact behind them
    /// follows, if there is any.
    ///
    /// # Errors
    /// As the backend fails; `Corrupt` when it cannot even be said which pages there are.
    async fn read(&self, after: Seq, bytes_max: usize) -> Result<LogRead>;

    /// The events at these positions, from the log or from what outlived it; absent and damaged ones are left out.
    ///
    /// # Errors
    /// As the backend fails.
    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>>;

    /// Takes the data of one event out of the log for good, also where it is kept aside; its place, id and attributes stay, and
    /// it gets the extension [`hookcast_core::model::page::PURGED_EXTENSION`]. Durable when it returns. Gives whether there is such an
    /// event; one whose data is gone already is one. The size of the log counts the data until its page goes.
    ///
    /// # Errors
    /// As the backend fails.
    async fn purge(&self, seq: Seq) -> Result<bool>;

    /// Both ends.
    ///
    /// # Errors
    /// As the backend fails.
    async fn bounds(&self) -> Result<Bounds>;

    /// The last position whose page ended before `time`: everything that arrived at `time` or later stands behind it.
    ///
    /// # Errors
    /// As the backend fails.
    async fn before_time(&self, time: Timestamp) -> Result<Seq>;

    /// Drops whole pages from the old end, at most `pages_max`, while the page arrived before `older_than` or the log is
    /// larger than `bytes_max`; events that an exception needs are kept aside together with it. The newest page stays.
    /// Gives the new bounds and whether more could be dropped.
    ///
    /// # Errors
    /// As the backend fails.
    async fn trim(&self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<(Bounds, bool)>;

    /// All fingerprint chunks, oldest first.
    ///
    /// # Errors
    /// As the backend fails.
    async fn fingerprints(&self) -> Result<Vec<FingerprintChunk>>;

    /// Drops fingerprint chunks that end before `oldest`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn drop_fingerprints(&self, oldest: Seq) -> Result<()>;

    /// Whether a write would go through now; for `/readyz`.
    ///
    /// # Errors
    /// `Full` or as the backend fails.
    async fn writable(&self) -> Result<()>;
}
