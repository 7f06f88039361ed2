//! How many streams there are and may be, and what went out: numbers shared by all workers.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hookcast_core::clock::Timestamp;

/// Numbers of all streams since the start; `open` is the present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Streams open now.
    pub open: u64,
    /// Streams that were opened.
    pub opened: u64,
    /// Streams refused because there were too many.
    pub refused: u64,
    /// Events handed to the server, counted once a client. At most a tick old.
    pub events: u64,
    /// Bytes handed to the server, with heartbeats and notices. At most a tick old.
    pub bytes: u64,
    /// Gaps announced, counted once a client.
    pub gaps: u64,
    /// Resets announced.
    pub resets: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    open: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    gaps: AtomicU64,
    resets: AtomicU64,
}

/// The right to be one of the open streams; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Counters>, Option<Hold>);

/// What a stream is allowed by: dropped with it, and asked now and then whether it still allows it.
pub trait Allowance: std::fmt::Debug {
    /// Whether the stream must end.
    fn is_over(&self, now: Timestamp) -> bool;
}

/// An allowance on its way to its stream.
#[derive(Debug)]
pub(super) struct Hold(pub(super) Rc<dyn Allowance>);

impl Counters {
    /// Counts one more stream, unless `open_max` are open.
    pub(super) fn admit(self: &Arc<Self>, open_max: u64) -> Option<Permit> {
        let room = self.open.fetch_update(Relaxed, Relaxed, |open| (open < open_max).then_some(open + 1));
        if room.is_err() {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        self.opened.fetch_add(1, Relaxed);
        Some(Permit(Arc::clone(self), None))
    }

    pub(super) fn add_sent(&self, events: u64, bytes: u64) {
        self.events.fetch_add(events, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn read(&self) -> StreamCounts {
        StreamCounts {
            open: self.open.load(Relaxed),
            opened: self.opened.load(Relaxed),
            refused: self.refused.load(Relaxed),
            events: self.events.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            resets: self.resets.load(Relaxed),
        }
    }
}

impl Permit {
    /// Keeps something for as long as the stream lives.
    pub(super) fn keep(&mut self, hold: Option<Hold>) {
        self.1 = hold;
    }

    /// What the stream is allowed by, if that can end.
    pub(super) fn allowance(&self) -> Option<Weak<dyn Allowance>> {
        self.1.as_ref().map(|hold| Rc::downgrade(&hold.0))
    }

    /// Whether what the stream is allowed by is over.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.1.as_ref().is_some_and(|hold| hold.0.is_over(now))
    }

    pub(super) fn count_gap(&self) {
        self.0.gaps.fetch_add(1, Relaxed);
    }

    pub(super) fn count_reset(&self) {
        self.0.resets.fetch_add(1, Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_makes_room_for_the_next() {
        let counters = Arc::new(Counters::default());
        let first = counters.admit(1).unwrap();
        assert!(counters.admit(1).is_none());
        drop(first);
        assert!(counters.admit(1).is_some());
        assert_eq!(counters.read(), StreamCounts { open: 0, opened: 2, refused: 1, ..StreamCounts::default() });
    }
}
