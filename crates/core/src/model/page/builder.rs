//! Writes pages: collects events until one is full. The layout is told in the parent module.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::records::{Record, encode, number_of};
use super::{HEAD_BYTES, MAGIC, PAGE_BYTES_SOFT_MAX, PAGE_EVENTS_MAX, Page, RECORD_TOPIC_AT};
use crate::model::Topic;
use crate::model::event::{NewEvent, Seq};

/// Collects events into the next page.
#[derive(Debug)]
pub struct PageBuilder {
    first: Seq,
    records: BytesMut,
    offsets: Vec<u32>,
    topics: Vec<Topic>,
}

impl PageBuilder {
    /// A page whose first event will stand at `first`.
    #[must_use]
    pub fn starting_at(first: Seq) -> Self {
        Self { first, records: BytesMut::new(), offsets: Vec::new(), topics: Vec::new() }
    }

    /// Begins anew at `first`; what was added is forgotten, the memory kept.
    pub fn restart_at(&mut self, first: Seq) {
        self.first = first;
        self.records.clear();
        self.offsets.clear();
        self.topics.clear();
    }

    /// Whether `event` still fits; an empty page takes any event.
    #[must_use]
    pub fn has_room_for(&self, event: &NewEvent) -> bool {
        self.has_room(event.data.len() + 256)
    }

    /// Whether this record still fits; an empty page takes any.
    #[must_use]
    pub fn has_room_for_record(&self, record: Record<'_>) -> bool {
        self.has_room(record.bytes.len())
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.offsets.is_empty() || (self.offsets.len() < PAGE_EVENTS_MAX && self.records.len() + bytes <= PAGE_BYTES_SOFT_MAX)
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Adds an event that passed [`NewEvent::check`] and gives its position.
    ///
    /// # Panics
    /// When the event did not pass the check and an attribute is too long to be written.
    pub fn push(&mut self, event: &NewEvent) -> Seq {
        let topic = number_of(&mut self.topics, &event.topic);
        self.begin_record();
        encode(&mut self.records, event, topic);
        self.last()
    }

    /// Adds an event that is encoded already and gives its position.
    ///
    /// # Panics
    /// Never: a page has few topics and is far below 4 GiB.
    pub fn push_record(&mut self, record: Record<'_>) -> Seq {
        let topic = number_of(&mut self.topics, record.topic);
        self.begin_record();
        let start = self.records.len();
        self.records.extend_from_slice(record.bytes);
        self.records[start + RECORD_TOPIC_AT..start + RECORD_TOPIC_AT + 2].copy_from_slice(&topic.to_le_bytes());
        self.last()
    }

    fn begin_record(&mut self) {
        self.offsets.push(u32::try_from(self.records.len()).expect("invariant: pages are far below 4 GiB"));
    }

    fn last(&self) -> Seq {
        Seq(self.first.0 + self.offsets.len() as u64 - 1)
    }

    /// Closes the page.
    ///
    /// # Panics
    /// When nothing was added.
    #[must_use]
    pub fn finish(mut self) -> Arc<Page> {
        self.turn()
    }

    /// Closes the page and begins the next one behind it, in the same memory.
    ///
    /// # Panics
    /// When nothing was added.
    pub fn turn(&mut self) -> Arc<Page> {
        assert!(!self.offsets.is_empty(), "invariant: a page holds at least one event");
        let topic_bytes: usize = self.topics.iter().map(|topic| topic.as_str().len() + 1).sum();
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + 2 + topic_bytes + self.records.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.first.0);
        bytes.put_u32_le(u32::try_from(self.offsets.len()).expect("invariant: few events"));
        bytes.put_u16_le(u16::try_from(self.topics.len()).expect("invariant: few topics"));
        for topic in &self.topics {
            bytes.put_u8(u8::try_from(topic.as_str().len()).expect("invariant: topics have at most 255 bytes"));
            bytes.extend_from_slice(topic.as_str().as_bytes());
        }
        let base = u32::try_from(bytes.len()).expect("invariant: short head");
        bytes.extend_from_slice(&self.records);
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        let offsets = self.offsets.iter().map(|offset| offset + base).collect();
        let page = Page { first: self.first, bytes: bytes.freeze(), offsets, topics: std::mem::take(&mut self.topics) };
        self.first = page.last().next();
        if self.records.capacity() > 2 * PAGE_BYTES_SOFT_MAX {
            // A single huge event must not hold its room for ever.
            self.records = BytesMut::new();
        }
        self.records.clear();
        self.offsets.clear();
        Arc::new(page)
    }
}
