//! Writes pages: collects events until one is full. The layout is told in the parent module.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::{
    FLAG_EXTENSIONS, FLAG_OWN_ID, FLAG_SCHEMA, FLAG_SUBJECT, FLAG_TIME, FORM_SHIFT, HEAD_BYTES, MAGIC, PAGE_BYTES_SOFT_MAX,
    PAGE_EVENTS_MAX, Page, RECORD_HEAD_BYTES,
};
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

    /// Whether `event` still fits; an empty page takes any event.
    #[must_use]
    pub fn has_room_for(&self, event: &NewEvent) -> bool {
        self.offsets.is_empty()
            || (self.offsets.len() < PAGE_EVENTS_MAX && self.records.len() + event.data.len() + 256 <= PAGE_BYTES_SOFT_MAX)
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
        let topic = self.topics.iter().position(|known| *known == event.topic).unwrap_or_else(|| {
            self.topics.push(event.topic.clone());
            self.topics.len() - 1
        });
        let start = self.records.len();
        self.offsets.push(u32::try_from(start).expect("invariant: pages are far below 4 GiB"));
        self.records.reserve(RECORD_HEAD_BYTES + 128 + event.data.len());
        self.records.put_u32_le(0);
        self.records.put_i64_le(event.arrived_at.0);
        self.records.put_u8(flags_of(event));
        self.records.put_u8(event.hops);
        self.records.put_u16_le(u16::try_from(topic).expect("invariant: a page has few topics"));
        for text in [&event.id, &event.source, &event.kind, &event.content_type] {
            put_text(&mut self.records, text);
        }
        for text in [&event.subject, &event.time, &event.data_schema].into_iter().flatten() {
            put_text(&mut self.records, text);
        }
        if !event.extensions.is_empty() {
            let at = self.records.len();
            self.records.put_u32_le(0);
            for (name, value) in &event.extensions {
                put_text(&mut self.records, name);
                put_text(&mut self.records, value);
            }
            put_length(&mut self.records, at);
        }
        self.records.extend_from_slice(&event.data);
        put_length(&mut self.records, start);
        Seq(self.first.0 + self.offsets.len() as u64 - 1)
    }

    /// Closes the page.
    ///
    /// # Panics
    /// When nothing was added.
    #[must_use]
    pub fn finish(self) -> Arc<Page> {
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
        Arc::new(Page { first: self.first, bytes: bytes.freeze(), offsets, topics: self.topics })
    }
}

fn flags_of(event: &NewEvent) -> u8 {
    let mut flags = (event.form as u8) << FORM_SHIFT;
    for (set, flag) in [
        (event.own_id, FLAG_OWN_ID),
        (event.subject.is_some(), FLAG_SUBJECT),
        (event.time.is_some(), FLAG_TIME),
        (event.data_schema.is_some(), FLAG_SCHEMA),
        (!event.extensions.is_empty(), FLAG_EXTENSIONS),
    ] {
        if set {
            flags |= flag;
        }
    }
    flags
}

fn put_text(records: &mut BytesMut, text: &str) {
    records.put_u16_le(u16::try_from(text.len()).expect("invariant: attributes were checked at the door"));
    records.extend_from_slice(text.as_bytes());
}

fn put_length(records: &mut BytesMut, at: usize) {
    let length = u32::try_from(records.len() - at - 4).expect("invariant: records are far below 4 GiB");
    records[at..at + 4].copy_from_slice(&length.to_le_bytes());
}
