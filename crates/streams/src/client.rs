//! One client: a position, and the body that the server asks for more.
//!
//! A client is either the body of an answer or, when it has the connection for itself, asked for chunks by its writer. It never blocks, holds no timer and no channel. Behind its ring it reads the log, inside it the ring, by the same
//! position, so there is no seam between history and live. Everything it hands out is at most a chunk long.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};

use super::chunk::{Chunk, Wrapping};
use super::counts::Permit;
use super::format::{Notice, Prologue};
use super::history::{self, Loaded};
use super::ring::{Encoding, Ring};
use super::segment::{Cut, Part};
use super::sleepers::{Load, Schedule, Served};
use super::socket::CHUNK_BYTES;
use super::websocket::Ending;
use super::worker::State;
use hookcast_core::model::Seq;

mod piece;

pub(super) use piece::Piece;

/// The log cannot be read where this stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot be read at the position of this stream")]
pub struct StreamBroken;

/// The body of one stream.
pub(super) struct Client {
    worker: Rc<State>,
    ring: Rc<Ring>,
    place: usize,
    /// Everything up to here was sent or is not for this client.
    after: Seq,
    /// Bytes that were taken for this client and not yet handed out.
    pending: Bytes,
    /// The same for a client that writes chunks itself, when others stand at the same place.
    shared: Option<Chunk>,
    /// How it lies on its connection, when it writes to that itself.
    wrapping: Option<Wrapping>,
    /// What was read from the log and is not used up.
    loaded: Option<Rc<Loaded>>,
    /// When it was given that.
    loaded_at: u64,
    /// Events it may still get.
    left: u64,
    ended: bool,
    /// Whether what stands behind everything was handed out.
    closed: bool,
    permit: Permit,
}

/// What a client begins with.
pub(super) struct Opening {
    pub(super) after: Seq,
    pub(super) reset: Option<Notice>,
    pub(super) events_max: u64,
    pub(super) schedule: Schedule,
    pub(super) padding: bool,
}

/// What a sleeping client finds.
pub(super) enum Found {
    /// The next chunk.
    Chunk(Bytes),
    /// Nothing new.
    Nothing,
    /// Something that it has to wake up for.
    Else,
}

/// Who takes the next part of the log within so many ticks is read ahead for.
const QUICK_TICKS: u64 = 1;

enum Step {
    /// There is something to hand out, or the position moved.
    Went,
    /// Nothing now; the place will be woken.
    Sleep,
    Broken,
}

impl Client {
    pub(super) fn new(worker: Rc<State>, ring: Rc<Ring>, opening: &Opening, permit: Permit) -> Self {
        let Encoding { format, style } = &ring.encoding;
        let mut first = BytesMut::new();
        (format.opening)(&mut first, &Prologue { spread: worker.next_spread(), padding: opening.padding, style });
        if let Some(notice) = &opening.reset {
            (format.notice)(&mut first, notice, style);
        }
        let now = worker.tick();
        let (place, holder) = ring.sleepers.enter(opening.schedule, now);
        let due = opening.schedule.end.min(now + opening.schedule.heartbeat);
        worker.wheel.add(&ring, place, holder, due);
        if let Some(allowance) = permit.allowance() {
            worker.wheel.watch(&ring, place, holder, allowance);
        }
        Self {
            worker,
            ring,
            place,
            after: opening.after,
            pending: first.freeze(),
            shared: None,
            wrapping: None,
            loaded: None,
            loaded_at: 0,
            left: opening.events_max,
            ended: false,
            closed: false,
            permit,
        }
    }

    /// Moves on: fills `pending`, or moves the position, or finds that there is nothing.
    fn step(&mut self) -> Step {
        if let Some(step) = self.step_through_history() {
            return step;
        }
        if self.takes_chunks() {
            if let Some(part) = self.ring.share(self.after) {
                self.take_part(part);
                return Step::Went;
            }
        } else if let Some(cut) = self.ring.read(self.after, self.left) {
            self.take(cut);
            return Step::Went;
        }
        // The ring has nothing behind the position, so all that was scanned is behind this client.
        self.after = self.after.max(self.worker.scanned());
        self.heartbeat_or(Step::Sleep)
    }

    /// What has to come from the log; `None` once the ring covers the position.
    fn step_through_history(&mut self) -> Option<Step> {
        if let Some(loaded) = self.loaded.take() {
            return Some(self.step_through_load(loaded));
        }
        if self.ring.covers(self.after) {
            return None;
        }
        let loaded = match self.ring.sleepers.take_load(self.place) {
            Load::Ready(after, loaded) if after == self.after => Some(loaded),
            Load::Waiting => None,
            Load::Ready(..) | Load::None => history::ask(&self.worker, &self.ring, self.place, self.after),
        };
        let Some(loaded) = loaded else { return Some(self.heartbeat_or(Step::Sleep)) };
        if let Loaded::Events { gap: Some((from, to)), .. } = *loaded {
            self.tell_gap(from, to);
        }
        let last_at = std::mem::replace(&mut self.loaded_at, self.worker.tick());
        if let Loaded::Events { through, .. } = *loaded
            && last_at + QUICK_TICKS >= self.loaded_at
        {
            history::ahead(&self.worker, &self.ring, self.place, through);
        }
        self.loaded = Some(loaded);
        Some(Step::Went)
    }

    fn step_through_load(&mut self, loaded: Rc<Loaded>) -> Step {
        let Loaded::Events { segment, through, .. } = &*loaded else { return Step::Broken };
        if self.takes_chunks()
            && let Some(part) = segment.whole(self.after)
        {
            self.take_part(part);
            self.loaded = Some(loaded);
        } else if let Some(cut) = segment.cut(self.after, CHUNK_BYTES, self.left) {
            self.take(cut);
            self.loaded = Some(loaded);
        } else {
            self.after = self.after.max(*through);
        }
        Step::Went
    }

    fn take(&mut self, cut: Cut) {
        self.after = cut.through;
        // Without a limit the count never ends anything.
        self.left = if self.left == u64::MAX { u64::MAX } else { self.left - cut.events };
        self.worker.count_sent(cut.events, 0);
        self.pending = cut.bytes;
    }

    /// A client with a limit may have to cut what others share.
    fn takes_chunks(&self) -> bool {
        self.wrapping.is_some() && self.left == u64::MAX
    }

    fn take_part(&mut self, part: Part) {
        self.after = part.through;
        self.worker.count_sent(part.events, 0);
        self.shared = Some(part.chunk);
    }

    fn tell_gap(&mut self, from: Seq, to: Seq) {
        let encoding = &self.ring.encoding;
        self.permit.count_gap();
        self.after = to;
        if encoding.format.gap_ends {
            self.ended = true;
            return;
        }
        let mut out = BytesMut::new();
        (encoding.format.notice)(&mut out, &Notice::Gap { from, to }, &encoding.style);
        self.pending = out.freeze();
    }

    fn heartbeat_or(&mut self, otherwise: Step) -> Step {
        if !self.ring.sleepers.is_heartbeat_due(self.place) {
            return otherwise;
        }
        let mut out = BytesMut::new();
        (self.ring.encoding.format.heartbeat)(&mut out, self.after);
        self.pending = out.freeze();
        self.ring.sleepers.sent(self.place, self.worker.tick());
        if self.pending.is_empty() { otherwise } else { Step::Went }
    }

    /// Moves on until there is something to hand out; `None` at the end.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), StreamBroken>>> {
        loop {
            if !self.pending.is_empty() || self.shared.is_some() {
                self.ring.sleepers.sent(self.place, self.worker.tick());
                return Poll::Ready(Some(Ok(())));
            }
            if self.ended || self.left == 0 || self.worker.is_closing() || self.ring.sleepers.is_ended(self.place) {
                if !std::mem::replace(&mut self.closed, true) {
                    let mut out = BytesMut::new();
                    (self.ring.encoding.format.closing)(&mut out);
                    self.pending = out.freeze();
                    continue;
                }
                return Poll::Ready(None);
            }
            match self.step() {
                Step::Went => {}
                Step::Sleep => {
                    self.ring.park(self.place, context.waker());
                    return Poll::Pending;
                }
                Step::Broken => return Poll::Ready(Some(Err(StreamBroken))),
            }
        }
    }

    /// The sleeper's `served`, or nothing for it; see [`Served`].
    pub(super) fn set_served(&self, served: Option<Rc<dyn Served>>) {
        self.ring.sleepers.set_served(self.place, served);
    }

    /// What the ring has for a client that sleeps; it may go on sleeping behind a chunk.
    pub(super) fn find(&mut self) -> Found {
        let is_amid = !self.pending.is_empty() || self.shared.is_some() || self.loaded.is_some();
        let Some(wrapping) = self.wrapping else { return Found::Else };
        let is_over = self.ended || self.worker.is_closing() || self.ring.sleepers.is_ended(self.place);
        if is_amid || is_over || !self.takes_chunks() || !self.ring.covers(self.after) {
            return Found::Else;
        }
        let Some(part) = self.ring.share(self.after) else {
            self.after = self.after.max(self.worker.scanned());
            return Found::Nothing;
        };
        self.after = part.through;
        self.worker.count_sent(part.events, part.chunk.len());
        self.ring.sleepers.sent(self.place, self.worker.tick());
        Found::Chunk(part.chunk.wrapped(wrapping))
    }

    /// Goes on behind another position; whatever is not yet handed out is forgotten.
    pub(super) fn resume(&mut self, seq: Seq) {
        (self.pending, self.shared, self.loaded) = (Bytes::new(), None, None);
        let (after, reset) = self.worker.egress.locate_after(seq);
        self.after = after;
        if let Some(notice) = reset {
            let mut out = BytesMut::new();
            (self.ring.encoding.format.notice)(&mut out, &notice, &self.ring.encoding.style);
            self.pending = out.freeze();
            self.permit.count_reset();
        }
    }

    /// Why there is nothing more.
    pub(super) fn ending(&self) -> Ending {
        let is_over = || self.permit.is_over(self.worker.egress.now());
        if self.left > 0 && self.worker.is_closing() {
            Ending::Closing
        } else if self.left > 0 && is_over() {
            Ending::Revoked
        } else {
            Ending::Done
        }
    }

    /// The present tick of its worker.
    pub(super) fn tick(&self) -> u64 {
        self.worker.tick()
    }

    fn next_piece(&mut self) -> Bytes {
        let piece = self.pending.split_to(self.pending.len().min(CHUNK_BYTES));
        self.worker.count_sent(0, piece.len());
        piece
    }

    fn whole_piece(&mut self) -> Bytes {
        self.worker.count_sent(0, self.pending.len());
        std::mem::take(&mut self.pending)
    }

    /// The next chunk for a client that writes to its connection itself; `None` at the end.
    pub(super) fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
        wrapping: Wrapping,
    ) -> Poll<Option<Result<Bytes, StreamBroken>>> {
        self.wrapping = Some(wrapping);
        self.poll_step(context).map_ok(|()| {
            let Some(shared) = self.shared.take() else {
                return match wrapping {
                    Wrapping::Chunked => wrapping.around(self.next_piece()),
                    // What is sent as it is stays whole, so that nothing can come inside a frame.
                    Wrapping::Bare => self.whole_piece(),
                };
            };
            self.worker.count_sent(0, shared.len());
            shared.wrapped(wrapping)
        })
    }
}

impl MessageBody for Client {
    type Error = StreamBroken;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamBroken>>> {
        let this = self.get_mut();
        this.poll_step(context).map_ok(|()| this.next_piece())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ring.sleepers.leave(self.place);
        self.worker.leave(&self.ring);
    }
}
