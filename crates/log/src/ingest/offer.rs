//! What is offered to the log: events encoded and fingerprinted by whoever brings them, so that the one leader only decides
//! and copies. Pure.

use super::dedupe::Fingerprint;
use hookcast_core::model::{NewEvent, Record, Records};

/// Events of one request, in their order.
#[derive(Debug, Default)]
pub struct Offer {
    records: Records,
    /// One an event once any has an id of its own; empty before that.
    fingerprints: Vec<Option<Fingerprint>>,
}

impl Offer {
    /// Nothing yet, with room for about so many events with so many bytes of data in all.
    #[must_use]
    pub fn with_capacity(events: usize, data_bytes: usize) -> Self {
        Self { records: Records::with_capacity(events, data_bytes), fingerprints: Vec::new() }
    }

    /// These events, each of which passed [`NewEvent::check`].
    #[must_use]
    pub fn of(events: &[NewEvent]) -> Self {
        let data_bytes = events.iter().map(|event| event.data.len()).sum();
        let mut offer = Self::with_capacity(events.len(), data_bytes);
        for event in events {
            offer.push(event);
        }
        offer
    }

    /// These events of a source, each of which passed [`NewEvent::check`].
    #[must_use]
    pub fn of_source(events: &[NewEvent]) -> Self {
        let data_bytes = events.iter().map(|event| event.data.len()).sum();
        let mut offer = Self::with_capacity(events.len(), data_bytes);
        for event in events {
            offer.add(event, Fingerprint::of_sourced(event));
        }
        offer
    }

    /// Adds an event that passed [`NewEvent::check`].
    pub fn push(&mut self, event: &NewEvent) {
        self.add(event, Fingerprint::of(event));
    }

    fn add(&mut self, event: &NewEvent, fingerprint: Option<Fingerprint>) {
        if fingerprint.is_some() || !self.fingerprints.is_empty() {
            self.fingerprints.resize(self.records.len(), None);
            self.fingerprints.push(fingerprint);
        }
        self.records.push(event);
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.bytes_len() + self.fingerprints.len() * size_of::<Option<Fingerprint>>()
    }

    /// The ids of the events.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.records.iter().map(|record| record.id())
    }

    /// What tells its events from others; empty when none has an id of its own.
    pub(super) fn fingerprints(&self) -> &[Option<Fingerprint>] {
        &self.fingerprints
    }

    /// The events, with what tells each from others.
    pub(super) fn events(&self) -> impl Iterator<Item = (Record<'_>, Option<Fingerprint>)> {
        let fingerprints = self.fingerprints.iter().copied().chain(std::iter::repeat(None));
        self.records.iter().zip(fingerprints)
    }
}
