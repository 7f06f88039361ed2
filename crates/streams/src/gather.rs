//! Answers that end: the events behind a position as elements of a JSON list, at once or as soon as there are some.
//!
//! Who waits is a client of the same rings as a stream, in a place of its own: no task, no timer, nothing asked of storage while
//! nothing comes. It goes on exactly where the position of the answer stands, so between two answers nothing is lost.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::{HttpMessage as _, HttpRequest};
use bytes::{Bytes, BytesMut};

use super::client::{Client, Piece};
use super::format::LIST;
use super::{Ask, StreamError, Worker, open};
use hookcast_core::model::Seq;

/// Most events in one answer.
pub const EVENTS_MAX: u64 = 1000;
/// Bytes of events behind which no further one is added to an answer.
pub const BYTES_SOFT_MAX: usize = 1024 * 1024;
/// Longest search of the log for an answer that is not waited for.
const SEARCH_MAX: Duration = Duration::from_secs(10);

/// What was gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// JSON forms joined by commas, without brackets; gaps and resets among them.
    pub events: Bytes,
    /// Everything up to here is among the events or was not asked for: the position of the next answer.
    pub next: Seq,
    /// Whether nothing that was asked for was left behind `next`.
    pub done: bool,
}

/// Gathers what `ask` chooses, whatever its format: at most `limit` events, [`EVENTS_MAX`] when it has none. With
/// `max_duration` it waits that long for the first.
///
/// It counts as a stream while it lasts, under what was left by [`hold`](super::hold).
///
/// # Errors
/// [`StreamError`] when it cannot begin now, or when the log cannot be read at its position.
pub async fn gather(request: &HttpRequest, worker: &Worker, ask: Ask) -> Result<Gathered, StreamError> {
    let mut permit = worker.0.egress.admit()?;
    permit.keep(request.extensions_mut().remove());
    let (limit, wait) = (ask.limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX), ask.max_duration);
    let time = wait.unwrap_or(SEARCH_MAX);
    // Silence needs no heartbeat: the answer comes before one is due.
    let ask = Ask { format: &LIST, limit: Some(limit), max_duration: Some(time), heartbeat: Some(time * 2), ..ask };
    let newest = worker.0.egress.follow().head();
    let (client, _) = open(worker, ask, permit).await?;
    let mut gathering = Gathering { client, newest, waits: wait.is_some(), events: BytesMut::new(), full_at: None };
    std::future::poll_fn(|context| gathering.poll(context)).await
}

/// An answer that is being put together.
struct Gathering {
    client: Client,
    /// Newest position when the request came: an answer without looking that far would deny what the asker may know of.
    newest: Seq,
    waits: bool,
    events: BytesMut,
    /// Where the answer ends because it is full; what is looked at from then on only tells whether there is more.
    full_at: Option<Seq>,
}

impl Gathering {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Gathered, StreamError>> {
        loop {
            if self.full_at.is_none() && (self.client.left() == 0 || self.events.len() >= BYTES_SOFT_MAX) {
                self.full_at = Some(self.client.position());
                self.client.allow_one_more();
            }
            let done = match ready!(self.client.poll_piece(context)) {
                Piece::Events(piece) if self.full_at.is_none() => {
                    self.events.extend_from_slice(&piece);
                    continue;
                }
                Piece::Events(_) => return Poll::Ready(Ok(self.end(self.full_at, false))),
                Piece::Nothing { scanned, is_over } => {
                    if scanned < self.newest && !is_over {
                        // Committed, and about to be taken up by the feeder, which runs on this thread.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    if self.waits && self.events.is_empty() && !is_over {
                        return Poll::Pending;
                    }
                    scanned >= self.newest
                }
                Piece::Over => false,
                Piece::Broken => return Poll::Ready(Err(StreamError::Broken)),
            };
            return Poll::Ready(Ok(self.end(None, done)));
        }
    }

    fn end(&mut self, at: Option<Seq>, done: bool) -> Gathered {
        let mut events = std::mem::take(&mut self.events);
        // The comma behind the last.
        events.truncate(events.len().saturating_sub(1));
        Gathered { events: events.freeze(), next: at.unwrap_or_else(|| self.client.position()), done }
    }
}
