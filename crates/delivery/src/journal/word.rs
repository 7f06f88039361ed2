//! The last word on one delivery, and how it takes in an earlier or a later one. Pure.

use hookcast_core::model::delivery::KeptException;
use hookcast_core::model::{Event, Exception};

/// What is to be saved of one delivery.
#[derive(Debug)]
pub(super) enum Word {
    /// It is an exception, all of which is stored.
    Put(KeptException),
    /// It is a dead letter that has another reason now, and is stored as it is, unless retention took it.
    Marked(Exception),
    /// It is none any more.
    Ended,
}

impl Word {
    /// The exception that it is.
    pub(super) fn exception(&self) -> Option<&Exception> {
        match self {
            Self::Put(kept) => Some(&kept.exception),
            Self::Marked(exception) => Some(exception),
            Self::Ended => None,
        }
    }

    /// The event that nobody has saved yet.
    pub(super) fn into_event(self) -> Option<Event> {
        match self {
            Self::Put(kept) => kept.event,
            Self::Marked(_) | Self::Ended => None,
        }
    }

    /// Takes a mark in: what is not stored yet is stored with it.
    pub(super) fn mark(&mut self, marked: Exception) {
        match self {
            Self::Put(kept) => kept.exception = marked,
            Self::Marked(exception) => *exception = marked,
            Self::Ended => {}
        }
    }

    /// Takes an earlier word in, which was not saved after all.
    pub(super) fn on_top_of(&mut self, earlier: KeptException) {
        match self {
            Self::Put(kept) => kept.event = kept.event.take().or(earlier.event),
            Self::Marked(exception) => *self = Self::Put(KeptException { exception: exception.clone(), event: earlier.event }),
            Self::Ended => {}
        }
    }
}
