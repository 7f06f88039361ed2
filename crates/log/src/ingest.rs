//! Intake: the one leader that decides what is new, gives positions, and commits.
//!
//! Everything that wants into the log is encoded by whoever brings it and waits in one bounded queue. The leader takes what
//! waits, removes repeats, makes pages, commits them, lets the readers see them, and only then answers. There is no timer:
//! batches come from the commit in progress. It knows storage and the tail; it does not know who reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::storage::{EventLog, Room, StorageError, StorageErrorKind};
use crate::tail::Tail;
use hookcast_core::clock::Clock;
use hookcast_core::model::source::{OnReusedId, SourceGap, SourcePosition};
use hookcast_core::model::{NewEvent, Seq};
use hookcast_supervise::Supervisor;

pub mod dedupe;
mod leader;
mod offer;

pub use dedupe::DedupeSettings;
pub use offer::Offer;

/// Bytes of events that may wait for the leader.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Requests that may wait for the leader.
pub const QUEUE_ITEMS_MAX: usize = 4096;
/// Most events in one commit.
pub const COMMIT_EVENTS_MAX: usize = 2048;
/// A commit is closed once it holds this many bytes.
pub const COMMIT_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// The queue's bytes are counted in units of this size.
const PERMIT_BYTES: usize = 256;

/// Where one event ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its position; of the first one when it is a repeat.
    pub seq: Seq,
    /// Whether it had been stored before.
    pub duplicate: bool,
    /// The newest other event that bore its id, when it is one of a source and not that one over again.
    pub other: Option<Seq>,
}

impl Placed {
    /// A new event.
    #[must_use]
    pub fn new(seq: Seq) -> Self {
        Self { seq, duplicate: false, other: None }
    }

    /// A repeat of the event there.
    #[must_use]
    pub fn repeat(seq: Seq) -> Self {
        Self { seq, duplicate: true, other: None }
    }
}

/// Why a request was not taken; nothing of it is stored, but for `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The queue is full.
    #[error("the intake queue is full")]
    Busy,
    /// The disk reserve is reached.
    #[error("the disk reserve is reached")]
    Full(Option<Room>),
    /// The event at this index has the key of an earlier one and other bytes.
    #[error("event {index} has the id of an earlier one and other bytes")]
    Mismatch {
        /// Index in the request.
        index: usize,
    },
    /// Storage did not take it, or the relay is stopping.
    #[error("the events could not be stored")]
    Unavailable,
    /// Storage failed in a way that leaves open whether it took it.
    #[error("whether the events were stored is not known")]
    Unknown,
}

impl From<&StorageError> for IngestError {
    fn from(error: &StorageError) -> Self {
        match error.kind {
            StorageErrorKind::Full => Self::Full(error.room()),
            StorageErrorKind::Unknown => Self::Unknown,
            _ => Self::Unavailable,
        }
    }
}

/// What comes with events from a source.
#[derive(Clone, Debug, Default)]
pub struct FromSource {
    /// The source's position after these events, unless it reads another upstream by then.
    pub resume: Option<SourcePosition>,
    /// A stretch that it missed before them.
    pub gap: Option<SourceGap>,
    /// What becomes of another event with a known id.
    pub on_reused_id: OnReusedId,
    /// Ids of events up to there were another upstream's.
    pub ids_after: Seq,
}

/// Who is asked, and how, whether an event was there before.
enum Bringer {
    /// A publisher: other bytes under a known id refuse the whole request.
    Publisher,
    /// A sender of webhooks, who builds the bytes anew for each try: a known id is a repeat, whatever they are.
    Sender,
    /// An upstream, which has nobody to be answered: what is like the newest event with its id is a repeat.
    Upstream(FromSource),
}

/// What waits for the leader.
struct Item {
    offer: Arc<Offer>,
    bringer: Bringer,
    reply: oneshot::Sender<Result<Vec<Placed>, IngestError>>,
    /// Given back when the item is done.
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// The way into the log. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    oldest_known: Arc<AtomicU64>,
    finder: leader::Finder,
}

impl Ingest {
    /// Starts the leader beside the storage, or on the current runtime where storage has none; gives the way in, and the leader's end once every [`Ingest`] is dropped.
    ///
    /// # Errors
    /// When what is known of earlier events cannot be read.
    pub async fn start(
        log: Arc<dyn EventLog>,
        tail: Arc<Tail>,
        clock: Arc<dyn Clock>,
        settings: DedupeSettings,
        supervisor: &Supervisor,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StorageError> {
        let known = dedupe::load(&*log, settings, clock.now()).await?;
        let (queue, inbox) = mpsc::channel(QUEUE_ITEMS_MAX);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / PERMIT_BYTES));
        let home = log.home().unwrap_or_else(tokio::runtime::Handle::current);
        let leader = leader::Leader::new(log, tail, clock, known, inbox);
        let (oldest_known, finder) = (leader.oldest_known(), leader.finder());
        Ok((Self { queue, room, oldest_known, finder }, leader.begin(supervisor, &home)))
    }

    /// The oldest position whose key is known; stored fingerprints from before it can be dropped.
    #[must_use]
    pub fn oldest_known(&self) -> Seq {
        Seq(self.oldest_known.load(Ordering::Relaxed))
    }

    /// Where the event with this key stands; `None` when it is unknown, or so old that it is forgotten.
    #[must_use]
    pub fn position(&self, topic: &str, source: &str, id: &str) -> Option<Seq> {
        (self.finder)(topic, source, id)
    }

    /// Stores all events together; they are durable when it returns, one answer an event, in order.
    ///
    /// # Errors
    /// [`IngestError`]; nothing of the request is stored then, unless it is `Unknown`.
    ///
    /// # Cancellation
    /// A dropped future may or may not have stored the events.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<Placed>, IngestError> {
        let offer = Arc::new(Offer::of(&events));
        drop(events);
        self.publish_offer(offer).await
    }

    /// As [`Ingest::publish`], for events that are encoded already.
    ///
    /// # Errors
    /// [`IngestError`]; nothing of the request is stored then, unless it is `Unknown`.
    ///
    /// # Cancellation
    /// A dropped future may or may not have stored the events.
    pub async fn publish_offer(&self, offer: Arc<Offer>) -> Result<Vec<Placed>, IngestError> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits(&offer)).map_err(|_| IngestError::Busy)?;
        self.submit(offer, Bringer::Publisher, room).await
    }

    /// As [`Ingest::publish_offer`], for what a sender of webhooks sent: an event with a known key is a repeat whatever its bytes, since
    /// who sends it again would go on sending it.
    ///
    /// # Errors
    /// [`IngestError`], never `Mismatch`; nothing of the request is stored then, unless it is `Unknown`.
    ///
    /// # Cancellation
    /// A dropped future may or may not have stored the events.
    pub async fn publish_sent(&self, offer: Arc<Offer>) -> Result<Vec<Placed>, IngestError> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits(&offer)).map_err(|_| IngestError::Busy)?;
        self.submit(offer, Bringer::Sender, room).await
    }

    /// Stores events of a source with its position; waits while the queue is full, and as long as storage refuses.
    ///
    /// What storage is not certain about is stored again: it writes over a commit in doubt before it takes anything else, so the
    /// events are in the log once. If the process ends before that, they and the position are there together or not at all.
    ///
    /// # Errors
    /// `Unavailable` when the relay is stopping.
    pub fn publish_from_source(&self, offer: Arc<Offer>, from: FromSource) -> BoxFuture<'_, Result<Vec<Placed>, IngestError>> {
        self.insist(offer, from).boxed()
    }

    async fn insist(&self, offer: Arc<Offer>, from: FromSource) -> Result<Vec<Placed>, IngestError> {
        const AGAIN: Duration = Duration::from_secs(1);
        loop {
            let room = Arc::clone(&self.room).acquire_many_owned(permits(&offer)).await.map_err(|_| IngestError::Unavailable)?;
            match self.submit(Arc::clone(&offer), Bringer::Upstream(from.clone()), room).await {
                Err(IngestError::Full(_) | IngestError::Unavailable | IngestError::Unknown) if !self.queue.is_closed() => {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    async fn submit(
        &self,
        offer: Arc<Offer>,
        bringer: Bringer,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<Vec<Placed>, IngestError> {
        let (reply, answer) = oneshot::channel();
        let item = Item { offer, bringer, reply, _room: room };
        self.queue.send(item).await.map_err(|_| IngestError::Unavailable)?;
        answer.await.map_err(|_| IngestError::Unknown)?
    }
}

/// Room that a request takes; one larger than the queue takes the whole of it.
fn permits(offer: &Offer) -> u32 {
    u32::try_from(offer.bytes().div_ceil(PERMIT_BYTES).clamp(1, QUEUE_BYTES_MAX / PERMIT_BYTES)).unwrap_or(u32::MAX)
}
