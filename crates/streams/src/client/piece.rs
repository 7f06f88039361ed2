//! A client whose pieces are gathered into one answer, by the same steps as a stream.
//!
//! Knows neither what the answer looks like nor when it is full.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Client, Step};
use hookcast_core::model::Seq;

/// What a client that gathers finds next.
pub(crate) enum Piece {
    /// Whole events, or a notice.
    Events(Bytes),
    /// All that there was up to `scanned` is handed out. The place is parked, unless its time is over.
    Nothing { scanned: Seq, is_over: bool },
    /// Its time is over before the log was searched to the end.
    Over,
    /// The log cannot be read.
    Broken,
}

impl Client {
    /// Everything up to here was sent or is not for this client.
    pub(crate) fn position(&self) -> Seq {
        self.after
    }

    /// Events it may still get.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Lets a client that has got all it may look whether there is another event.
    pub(crate) fn allow_one_more(&mut self) {
        self.left = 1;
    }

    /// The next piece for somebody who gathers what there is, by the same steps as a stream.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        loop {
            if !self.pending.is_empty() {
                self.worker.count_sent(0, self.pending.len());
                return Poll::Ready(Piece::Events(std::mem::take(&mut self.pending)));
            }
            match self.step() {
                Step::Went => {}
                Step::Sleep => {
                    self.ring.park(self.place, context.waker());
                    let is_over = self.worker.is_closing() || self.ring.sleepers.is_ended(self.place);
                    if self.ring.covers(self.after) {
                        return Poll::Ready(Piece::Nothing { scanned: self.worker.scanned(), is_over });
                    }
                    return if is_over { Poll::Ready(Piece::Over) } else { Poll::Pending };
                }
                Step::Broken => return Poll::Ready(Piece::Broken),
            }
        }
    }
}
