//! What an attempt of a desk turns out to be when it ends.

use super::{Desk, Retry};
use crate::job::Errand;
use crate::order::Line;
use crate::policy::Before;
use crate::window::Ticket;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{Outcome, Seq};

impl Desk {
    /// Ends the flight of an event.
    ///
    /// Of an attempt that was called off nothing follows, although the same event may be in flight once more by now.
    pub(super) fn end_flight(
        &mut self,
        (errand, ticket): (Errand, Ticket),
        seq: Seq,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Flight {
        match errand {
            Errand::First if self.window.settle(seq, ticket) => return Flight::First,
            Errand::First => return Flight::CalledOff,
            Errand::Replay(id) => return self.end_replay(id, seq, outcome.is_success(), now),
            Errand::Retry => {}
        }
        if self.retries.get(&seq).is_none_or(|retry| retry.flight != Some(ticket)) {
            return Flight::CalledOff;
        }
        self.retries.remove(&seq).map_or(Flight::CalledOff, Flight::Again)
    }
}

/// What an attempt turned out to be when it ended.
pub(super) enum Flight {
    /// Nobody waits for it any more, after a seek, say.
    CalledOff,
    /// The first attempt of its event.
    First,
    /// A retry.
    Again(Retry),
    /// An event that a recovery job posted: what is known of it, and whether it stays the dead letter that it is.
    Recovered {
        /// The exception that it was.
        before: Option<Retry>,
        /// Whether that stays, whatever came of it.
        is_kept: bool,
        /// What it is ordered with, where order is kept.
        line: Option<Line>,
    },
}

impl Flight {
    /// Whether it was of a batch that keeps the id that builds before gave it.
    pub(super) fn has_old_batch_id(&self) -> bool {
        matches!(self, Self::Again(retry) if retry.has_old_batch_id)
    }

    /// What is known of the delivery from before this attempt; `None` when nobody waits for it.
    pub(super) fn history(&self, now: Timestamp) -> Option<Before> {
        match self {
            Self::CalledOff => None,
            Self::First | Self::Recovered { before: None, .. } => Some(Before { attempts: 0, since: now }),
            Self::Again(retry) | Self::Recovered { before: Some(retry), .. } => {
                Some(Before { attempts: retry.attempts, since: retry.since })
            }
        }
    }
}
