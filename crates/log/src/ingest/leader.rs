//! The leader's loop: take, remove repeats, make pages, commit, publish, answer.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::dedupe::{Fingerprint, Known, Verdict, id_behind};
use super::{Bringer, COMMIT_BYTES_SOFT_MAX, COMMIT_EVENTS_MAX, IngestError, Item, Placed};
use crate::storage::{Append, EventLog, FingerprintChunk, StorageError};
use crate::tail::Tail;
use hookcast_core::clock::Clock;
use hookcast_core::model::source::OnReusedId;
use hookcast_core::model::{Page, PageBuilder, Record, Seq};
use hookcast_supervise::Supervisor;

/// Where the event of a topic, a source and an id stands, while its key is known.
pub(super) type Finder = Arc<dyn Fn(&str, &str, &str) -> Option<Seq> + Send + Sync>;

type Reply = oneshot::Sender<Result<Vec<Placed>, IngestError>>;

/// The one writer of the log.
pub(super) struct Leader {
    log: Arc<dyn EventLog>,
    drafting: Arc<Mutex<Drafting>>,
}

/// What waits, what is known, and what is under way. Storage has the draft made when it can commit it.
struct Drafting {
    inbox: mpsc::Receiver<Item>,
    /// What the leader was woken for.
    first: Option<Item>,
    tail: Arc<Tail>,
    clock: Arc<dyn Clock>,
    known: Known,
    oldest_known: Arc<AtomicU64>,
    /// The page that is being filled; its memory is used again for every page.
    open: PageBuilder,
    /// A draft was begun and did not come to its end: whoever made it panicked.
    is_half: bool,
    under_way: Option<UnderWay>,
}

/// A commit that was handed to storage, and who waits for it.
struct UnderWay {
    pages: Vec<Arc<Page>>,
    waiting: Vec<Waiting>,
}

type Waiting = (Reply, Vec<Placed>, tokio::sync::OwnedSemaphorePermit);

/// What goes into one commit, and who waits for it.
struct Draft {
    head: Seq,
    pages: Vec<Arc<Page>>,
    append: Append,
    waiting: Vec<Waiting>,
}

impl Leader {
    pub(super) fn new(
        log: Arc<dyn EventLog>,
        tail: Arc<Tail>,
        clock: Arc<dyn Clock>,
        known: Known,
        inbox: mpsc::Receiver<Item>,
    ) -> Self {
        let oldest_known = Arc::new(AtomicU64::new(known.oldest().0));
        let open = PageBuilder::starting_at(Seq::ZERO);
        let drafting = Drafting { inbox, first: None, tail, clock, known, oldest_known, open, is_half: false, under_way: None };
        Self { log, drafting: Arc::new(Mutex::new(drafting)) }
    }

    /// Where the oldest position is kept whose key is known.
    pub(super) fn oldest_known(&self) -> Arc<AtomicU64> {
        Arc::clone(&lock(&self.drafting).oldest_known)
    }

    /// What looks for events by their keys.
    pub(super) fn finder(&self) -> Finder {
        let drafting = Arc::downgrade(&self.drafting);
        Arc::new(move |topic, source, id| lock(&*drafting.upgrade()?).known.position(topic, source, id))
    }

    /// Starts the loop on this runtime. Not async, so that the loop is compiled here, and not where the relay is put together.
    pub(super) fn begin(self, supervisor: &Supervisor, home: &Handle) -> JoinHandle<()> {
        supervisor.essential("intake", self.run()).spawn_on(home)
    }

    /// Works until every way in is closed and the queue is empty.
    async fn run(self) {
        while let Some(first) = poll_fn(|cx| lock(&self.drafting).inbox.poll_recv(cx)).await {
            lock(&self.drafting).first = Some(first);
            let drafting = Arc::clone(&self.drafting);
            let stored = self.log.append_late(Box::new(move || lock(&drafting).draft())).await;
            lock(&self.drafting).answer(stored);
        }
    }
}

fn lock(drafting: &Mutex<Drafting>) -> MutexGuard<'_, Drafting> {
    drafting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drafting {
    /// One commit: what waits, up to the limits. It may hold nothing new.
    fn draft(&mut self) -> Append {
        let mut draft = Draft::behind(self.tail.head());
        self.open.restart_at(draft.head.next());
        self.known.begin(self.clock.now());
        self.is_half = true;
        let (mut events, mut bytes) = (0, 0);
        while events < COMMIT_EVENTS_MAX && bytes < COMMIT_BYTES_SOFT_MAX {
            let Some(item) = self.first.take().or_else(|| self.inbox.try_recv().ok()) else { break };
            events += item.offer.len();
            bytes += item.offer.bytes();
            self.take(&mut draft, item);
        }
        if !self.open.is_empty() {
            draft.pages.push(self.open.turn());
        }
        let (append, under_way) = draft.close(self.known.full_chunk());
        self.under_way = Some(under_way);
        self.is_half = false;
        append
    }

    fn answer(&mut self, stored: Result<(), StorageError>) {
        let Some(UnderWay { pages, waiting }) = self.under_way.take() else {
            // Storage is closed and never asked for the draft, or a panic ended it: nothing of that was stored.
            if std::mem::take(&mut self.is_half) {
                self.known.undo();
            }
            if let Some(first) = self.first.take() {
                let _ = first.reply.send(Err(IngestError::Unavailable));
            }
            return;
        };
        match stored {
            Ok(()) => {
                self.known.keep();
                self.oldest_known.store(self.known.oldest().0, Ordering::Relaxed);
                self.tail.publish(&pages);
                for (reply, placed, _room) in waiting {
                    let _ = reply.send(Ok(placed));
                }
            }
            Err(error) => {
                if error.is_refusal() {
                    // Storage says once what is the matter, and every publisher is told.
                    tracing::debug!(%error, "events could not be stored");
                } else {
                    tracing::error!(%error, "events could not be stored");
                }
                self.known.undo();
                for (reply, ..) in waiting {
                    let _ = reply.send(Err(IngestError::from(&error)));
                }
            }
        }
    }

    /// Puts one request into the draft, or refuses it whole.
    fn take(&mut self, draft: &mut Draft, item: Item) {
        let Item { offer, bringer, reply, _room: room } = item;
        if matches!(bringer, Bringer::Publisher)
            && let Some(index) = self.mismatch(offer.fingerprints())
        {
            let _ = reply.send(Err(IngestError::Mismatch { index }));
            return;
        }
        let mut placed = Vec::with_capacity(offer.len());
        for (record, fingerprint) in offer.events() {
            let (ids_after, on_reused) = match &bringer {
                Bringer::Upstream(from) => (from.ids_after, Some(from.on_reused_id)),
                Bringer::Publisher | Bringer::Sender => (Seq::ZERO, None),
            };
            placed.push(match (self.known.look_up_behind(fingerprint, ids_after), on_reused, fingerprint) {
                (Verdict::New, ..) => {
                    let seq = draft.push(&mut self.open, record);
                    self.known.note(fingerprint, seq, record.arrived_at());
                    Placed::new(seq)
                }
                (Verdict::Mismatch(earlier), Some(OnReusedId::Keep), Some(came)) => {
                    Placed { other: Some(earlier), ..Placed::new(self.rename(draft, record, came)) }
                }
                (Verdict::Mismatch(earlier), Some(_), _) => Placed { other: Some(earlier), ..Placed::repeat(earlier) },
                (Verdict::Repeat(seq) | Verdict::Mismatch(seq), ..) => Placed::repeat(seq),
            });
        }
        if let Bringer::Upstream(source) = bringer {
            draft.append.resume_tokens.extend(source.resume);
            draft.append.gaps.extend(source.gap);
        }
        draft.waiting.push((reply, placed, room));
    }

    /// Puts an event into the draft whose id another one bears; gives its position, which makes its id one of its own.
    fn rename(&mut self, draft: &mut Draft, record: Record<'_>, came: Fingerprint) -> Seq {
        let (id, is_cut) = id_behind(record.id(), draft.head.next());
        let mut room = BytesMut::new();
        let seq = draft.push(&mut self.open, record.under(&id, &mut room));
        let stored = came.under(record.topic().as_str(), record.source(), &id);
        self.known.note_renamed(came, stored, seq, record.arrived_at(), is_cut);
        seq
    }

    /// The first event whose key is known, from before or from this very request, with other bytes.
    fn mismatch(&self, fingerprints: &[Option<Fingerprint>]) -> Option<usize> {
        let mut seen = std::collections::HashMap::new();
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            let Some(fingerprint) = *fingerprint else { continue };
            if matches!(self.known.look_up(Some(fingerprint)), Verdict::Mismatch(_)) {
                return Some(index);
            }
            if seen.insert(fingerprint.key(), fingerprint).is_some_and(|earlier| earlier != fingerprint) {
                return Some(index);
            }
        }
        None
    }
}

impl Draft {
    fn behind(head: Seq) -> Self {
        Self { head, pages: Vec::new(), append: Append { expected_head: head, ..Append::default() }, waiting: Vec::new() }
    }

    fn push(&mut self, open: &mut PageBuilder, record: Record<'_>) -> Seq {
        if !open.has_room_for_record(record) {
            self.pages.push(open.turn());
        }
        self.head = open.push_record(record);
        self.head
    }

    fn close(mut self, chunk: Option<FingerprintChunk>) -> (Append, UnderWay) {
        self.append.pages.clone_from(&self.pages);
        self.append.fingerprints.extend(chunk);
        (self.append, UnderWay { pages: self.pages, waiting: self.waiting })
    }
}

#[cfg(test)]
mod tests;
