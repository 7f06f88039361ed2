//! The leader's loop: take, remove repeats, make pages, commit, publish, answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::dedupe::{Fingerprint, Known, Verdict};
use super::{COMMIT_BYTES_SOFT_MAX, COMMIT_EVENTS_MAX, IngestError, Item, Placed};
use crate::clock::Clock;
use crate::model::{Page, PageBuilder, Record, Seq};
use crate::storage::{Append, EventLog, StorageError};
use crate::tail::Tail;

type Reply = oneshot::Sender<Result<Vec<Placed>, IngestError>>;

/// The one writer of the log.
pub(super) struct Leader {
    log: Arc<dyn EventLog>,
    tail: Arc<Tail>,
    clock: Arc<dyn Clock>,
    known: Known,
    oldest_known: Arc<AtomicU64>,
    /// The page that is being filled; its memory is used again for every page.
    open: PageBuilder,
}

/// What goes into one commit, and who waits for it.
struct Draft {
    head: Seq,
    pages: Vec<Arc<Page>>,
    append: Append,
    waiting: Vec<(Reply, Vec<Placed>, tokio::sync::OwnedSemaphorePermit)>,
}

impl Leader {
    pub(super) fn new(log: Arc<dyn EventLog>, tail: Arc<Tail>, clock: Arc<dyn Clock>, known: Known) -> Self {
        let oldest_known = Arc::new(AtomicU64::new(known.oldest().0));
        Self { log, tail, clock, known, oldest_known, open: PageBuilder::starting_at(Seq::ZERO) }
    }

    /// Where the oldest position is kept whose key is known.
    pub(super) fn oldest_known(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.oldest_known)
    }

    /// Works until every way in is closed and the queue is empty.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Item>) {
        while let Some(first) = inbox.recv().await {
            self.step(first, &mut inbox).await;
        }
    }

    /// One commit: `first` and what waits behind it, up to the limits.
    async fn step(&mut self, first: Item, inbox: &mut mpsc::Receiver<Item>) {
        let mut draft = Draft::behind(self.tail.head());
        self.open.restart_at(draft.head.next());
        self.known.begin(self.clock.now());
        let (mut events, mut bytes) = (first.offer.len(), first.offer.bytes());
        self.take(&mut draft, first);
        // Where processors are scarce, whoever brought this goes on bringing what it has; where one is free, nothing happens.
        std::thread::yield_now();
        while events < COMMIT_EVENTS_MAX && bytes < COMMIT_BYTES_SOFT_MAX {
            let Ok(item) = inbox.try_recv() else { break };
            events += item.offer.len();
            bytes += item.offer.bytes();
            self.take(&mut draft, item);
        }
        if draft.waiting.is_empty() {
            return;
        }
        if !self.open.is_empty() {
            draft.pages.push(self.open.turn());
        }
        let (append, pages, waiting) = draft.close(self.known.full_chunk());
        let nothing_new = append.pages.is_empty() && append.resume_tokens.is_empty() && append.gaps.is_empty();
        let stored = if nothing_new { Ok(()) } else { self.log.append(append).await };
        self.answer(stored, &pages, waiting);
    }

    fn answer(
        &mut self,
        stored: Result<(), StorageError>,
        pages: &[Arc<Page>],
        waiting: Vec<(Reply, Vec<Placed>, tokio::sync::OwnedSemaphorePermit)>,
    ) {
        match stored {
            Ok(()) => {
                self.known.keep();
                self.oldest_known.store(self.known.oldest().0, Ordering::Relaxed);
                self.tail.publish(pages);
                for (reply, placed, _room) in waiting {
                    let _ = reply.send(Ok(placed));
                }
            }
            Err(error) => {
                tracing::error!(%error, "events could not be stored");
                self.known.undo();
                for (reply, ..) in waiting {
                    let _ = reply.send(Err(IngestError::from(&error)));
                }
            }
        }
    }

    /// Puts one request into the draft, or refuses it whole.
    fn take(&mut self, draft: &mut Draft, item: Item) {
        let Item { offer, source, reply, _room: room } = item;
        if source.is_none()
            && let Some(index) = self.mismatch(offer.fingerprints())
        {
            let _ = reply.send(Err(IngestError::Mismatch { index }));
            return;
        }
        let mut placed = Vec::with_capacity(offer.len());
        for (record, fingerprint) in offer.events() {
            placed.push(match self.known.look_up(fingerprint) {
                Verdict::New => {
                    let seq = draft.push(&mut self.open, record);
                    self.known.note(fingerprint, seq, record.arrived_at());
                    Placed { seq, duplicate: false }
                }
                Verdict::Repeat(seq) | Verdict::Mismatch(seq) => Placed { seq, duplicate: true },
            });
        }
        if let Some(source) = source {
            draft.append.resume_tokens.extend(source.resume);
            draft.append.gaps.extend(source.gap);
        }
        draft.waiting.push((reply, placed, room));
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

    #[allow(clippy::type_complexity, reason = "the three parts of one commit, taken apart once")]
    fn close(
        mut self,
        chunk: Option<crate::storage::FingerprintChunk>,
    ) -> (Append, Vec<Arc<Page>>, Vec<(Reply, Vec<Placed>, tokio::sync::OwnedSemaphorePermit)>) {
        self.append.pages.clone_from(&self.pages);
        self.append.fingerprints.extend(chunk);
        (self.append, self.pages, self.waiting)
    }
}

#[cfg(test)]
mod tests;
