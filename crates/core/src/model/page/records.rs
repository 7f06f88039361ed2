//! Records: events encoded as a page holds them, before their place in the log is known.
//!
//! Whoever brings events encodes them where it stands; giving them positions is then a copy of bytes. The layout of a record
//! is told in the parent module; its topic is a number into the table of whoever holds it.

use bytes::{BufMut, BytesMut};

use super::{FLAG_EXTENSIONS, FLAG_OWN_ID, FLAG_SCHEMA, FLAG_SUBJECT, FLAG_TIME, FORM_SHIFT, RECORD_HEAD_BYTES, RECORD_TOPIC_AT};
use crate::clock::Timestamp;
use crate::model::Topic;
use crate::model::event::NewEvent;

/// Encoded events in their order.
#[derive(Debug, Default)]
pub struct Records {
    bytes: BytesMut,
    /// Where each record begins.
    offsets: Vec<u32>,
    topics: Vec<Topic>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) topic: &'a Topic,
}

impl Records {
    /// None yet, with room for so many bytes of data.
    #[must_use]
    pub fn with_capacity(events: usize, data_bytes: usize) -> Self {
        let bytes = BytesMut::with_capacity(data_bytes + events * (RECORD_HEAD_BYTES + 128));
        Self { bytes, offsets: Vec::with_capacity(events), topics: Vec::new() }
    }

    /// Adds an event that passed [`NewEvent::check`].
    ///
    /// # Panics
    /// When the event did not pass the check and an attribute is too long to be written.
    pub fn push(&mut self, event: &NewEvent) {
        let topic = number_of(&mut self.topics, &event.topic);
        self.offsets.push(u32::try_from(self.bytes.len()).expect("invariant: a request is far below 4 GiB"));
        encode(&mut self.bytes, event, topic);
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The records in their order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let ends = self.offsets.iter().skip(1).map(|end| *end as usize).chain([self.bytes.len()]);
        self.offsets.iter().zip(ends).map(|(start, end)| {
            let bytes = &self.bytes[*start as usize..end];
            Record { bytes, topic: &self.topics[topic_of(bytes)] }
        })
    }
}

impl<'a> Record<'a> {
    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &'a Topic {
        self.topic
    }

    /// As it will stand in a page, but for the number of its topic.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same under another id, written into `room`.
    ///
    /// # Panics
    /// When the id is longer than one may be.
    pub fn under<'b>(self, id: &str, room: &'b mut BytesMut) -> Record<'b>
    where
        'a: 'b,
    {
        let own_bytes = u16::from_le_bytes([self.bytes[RECORD_HEAD_BYTES], self.bytes[RECORD_HEAD_BYTES + 1]]);
        room.clear();
        room.extend_from_slice(&self.bytes[..RECORD_HEAD_BYTES]);
        put_text(room, id);
        room.extend_from_slice(&self.bytes[RECORD_HEAD_BYTES + 2 + usize::from(own_bytes)..]);
        put_length(room, 0);
        Record { bytes: room, topic: self.topic }
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> &'a str {
        super::read_fields(&self.bytes[4..]).map_or("", |fields| fields.id)
    }

    /// The event's source.
    #[must_use]
    pub fn source(&self) -> &'a str {
        super::read_fields(&self.bytes[4..]).map_or("", |fields| fields.source)
    }

    /// When it came in.
    ///
    /// # Panics
    /// Never: a record begins with a head of fixed length.
    #[must_use]
    pub fn arrived_at(&self) -> Timestamp {
        Timestamp(i64::from_le_bytes(self.bytes[4..12].try_into().expect("invariant: eight bytes")))
    }
}

fn topic_of(record: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([record[RECORD_TOPIC_AT], record[RECORD_TOPIC_AT + 1]]))
}

/// The number of a topic in a table, which takes it up when it is new.
pub(super) fn number_of(topics: &mut Vec<Topic>, topic: &Topic) -> u16 {
    let number = topics.iter().position(|known| known == topic).unwrap_or_else(|| {
        topics.push(topic.clone());
        topics.len() - 1
    });
    u16::try_from(number).expect("invariant: few events have few topics")
}

/// Writes one record behind `out`.
pub(super) fn encode(out: &mut BytesMut, event: &NewEvent, topic: u16) {
    let start = out.len();
    out.reserve(RECORD_HEAD_BYTES + 128 + event.data.len());
    out.put_u32_le(0);
    out.put_i64_le(event.arrived_at.0);
    out.put_u8(flags_of(event));
    out.put_u8(event.hops);
    out.put_u16_le(topic);
    for text in [&event.id, &event.source, &event.kind, &event.content_type] {
        put_text(out, text);
    }
    for text in [&event.subject, &event.time, &event.data_schema].into_iter().flatten() {
        put_text(out, text);
    }
    if !event.extensions.is_empty() {
        let at = out.len();
        out.put_u32_le(0);
        for (name, value) in &event.extensions {
            put_text(out, name);
            put_text(out, value);
        }
        put_length(out, at);
    }
    out.extend_from_slice(&event.data);
    put_length(out, start);
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

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16_le(u16::try_from(text.len()).expect("invariant: attributes were checked at the door"));
    out.extend_from_slice(text.as_bytes());
}

fn put_length(out: &mut BytesMut, at: usize) {
    let length = u32::try_from(out.len() - at - 4).expect("invariant: records are far below 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}
