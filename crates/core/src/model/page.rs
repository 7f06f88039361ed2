//! Log pages: up to [`PAGE_EVENTS_MAX`] events in one run of bytes, the same for commit, memory and disk.
//!
//! Layout, little-endian: `"HP"`, version `1`, zero, `crc32` of all that follows, `first: u64`, `n: u32`, topic table
//! (`count: u16`, then `len: u8` + bytes each), then `n` records. A record is `len: u32` of what follows, `arrived_ms: i64`,
//! `flags: u8`, `hops: u8`, `topic: u16`, then id, source, type, content type and, as the flags say, subject, time, schema
//! and extensions, each as `len: u16` + bytes; the data is the rest. It knows nothing of where pages are kept.

use std::sync::Arc;

use bytes::Bytes;

use super::event::{DataForm, Event, Seq};
use super::topic::Topic;
use crate::clock::Timestamp;

mod builder;
mod purge;
mod records;

pub use builder::PageBuilder;
pub use purge::PURGED_EXTENSION;
pub use records::{Record, Records};

/// Most events in one page.
pub const PAGE_EVENTS_MAX: usize = 64;
/// A page is closed once it holds this many bytes; a single larger event has a page of its own.
pub const PAGE_BYTES_SOFT_MAX: usize = 64 * 1024;

const MAGIC: [u8; 4] = [b'H', b'P', 1, 0];
const HEAD_BYTES: usize = 4 + 4 + 8 + 4;
const RECORD_HEAD_BYTES: usize = 4 + 8 + 1 + 1 + 2;
/// Where a record holds the number of its topic.
const RECORD_TOPIC_AT: usize = 4 + 8 + 1 + 1;
const FLAG_OWN_ID: u8 = 1;
const FLAG_SUBJECT: u8 = 2;
const FLAG_TIME: u8 = 4;
const FLAG_SCHEMA: u8 = 8;
const FLAG_EXTENSIONS: u8 = 16;
const FORM_SHIFT: u8 = 6;

/// Why bytes are not a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// Another magic or version.
    #[error("not a log page of a known version")]
    Version,
    /// The checksum does not match.
    #[error("the checksum of a log page does not match its bytes")]
    Checksum,
    /// Lengths inside the page contradict each other.
    #[error("a log page ends inside a record")]
    Truncated,
}

/// A run of consecutive events, encoded once.
#[derive(Debug)]
pub struct Page {
    first: Seq,
    bytes: Bytes,
    offsets: Vec<u32>,
    topics: Vec<Topic>,
}

/// The attributes of one event, borrowed from its page.
#[derive(Clone, Copy, Debug)]
pub struct RecordFields<'a> {
    /// `CloudEvents` `id`.
    pub id: &'a str,
    /// Whether the publisher gave the id.
    pub own_id: bool,
    /// `CloudEvents` `source`.
    pub source: &'a str,
    /// `CloudEvents` `type`.
    pub kind: &'a str,
    /// Content type of the data.
    pub content_type: &'a str,
    /// `CloudEvents` `subject`.
    pub subject: Option<&'a str>,
    /// `CloudEvents` `time` as the publisher wrote it.
    pub time: Option<&'a str>,
    /// `CloudEvents` `dataschema`.
    pub data_schema: Option<&'a str>,
    /// How many relays have handed it on.
    pub hops: u8,
    /// How the data reads.
    pub form: DataForm,
    /// The payload.
    pub data: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> RecordFields<'a> {
    /// The other attributes, name and value.
    pub fn extensions(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = Cursor(self.extensions);
        std::iter::from_fn(move || {
            let name = rest.text()?;
            Some((name, rest.text()?))
        })
    }
}

impl Page {
    /// Reads a page; the bytes are kept, not copied.
    ///
    /// # Errors
    /// [`PageError`] when the bytes are not an intact page.
    ///
    /// # Panics
    /// Never: every length is checked before it is used.
    pub fn decode(bytes: Bytes) -> Result<Self, PageError> {
        if bytes.len() < HEAD_BYTES {
            return Err(PageError::Truncated);
        }
        if bytes[..4] != MAGIC {
            return Err(PageError::Version);
        }
        let crc = u32::from_le_bytes(bytes[4..8].try_into().expect("invariant: four bytes"));
        if crc32fast::hash(&bytes[8..]) != crc {
            return Err(PageError::Checksum);
        }
        let mut rest = Cursor(&bytes[8..]);
        let first = Seq(rest.u64().ok_or(PageError::Truncated)?);
        let count = rest.u32().ok_or(PageError::Truncated)?;
        let topic_count = rest.u16().ok_or(PageError::Truncated)?;
        let mut topics = Vec::with_capacity(usize::from(topic_count));
        for _ in 0..topic_count {
            let length = rest.take(1).ok_or(PageError::Truncated)?[0];
            let name = rest.take(usize::from(length)).ok_or(PageError::Truncated)?;
            topics.push(Topic::trusted(std::str::from_utf8(name).map_err(|_| PageError::Truncated)?));
        }
        let mut offsets = Vec::with_capacity((count as usize).min(PAGE_EVENTS_MAX));
        for _ in 0..count {
            let at = bytes.len() - rest.0.len();
            let length = rest.u32().ok_or(PageError::Truncated)? as usize;
            let record = rest.take(length).ok_or(PageError::Truncated)?;
            let topic = record.get(10..12).ok_or(PageError::Truncated)?;
            if usize::from(u16::from_le_bytes([topic[0], topic[1]])) >= topics.len() {
                return Err(PageError::Truncated);
            }
            offsets.push(u32::try_from(at).map_err(|_| PageError::Truncated)?);
        }
        if !rest.0.is_empty() {
            return Err(PageError::Truncated);
        }
        Ok(Self { first, bytes, offsets, topics })
    }

    /// Position of the first event.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.first
    }

    /// Position of the last event.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + self.offsets.len() as u64 - 1)
    }

    /// Number of events, at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a page is never empty")]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The encoded form.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The distinct topics of its events; [`Page::topic_index_at`] points into it.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Arrival time of the last event.
    #[must_use]
    pub fn last_arrived_at(&self) -> Timestamp {
        self.arrived_at(u32::try_from(self.offsets.len() - 1).unwrap_or(u32::MAX))
    }

    /// Latest arrival time of its events.
    #[must_use]
    pub fn latest_arrival(&self) -> Timestamp {
        let count = u32::try_from(self.offsets.len()).unwrap_or(u32::MAX);
        (0..count).map(|index| self.arrived_at(index)).max().unwrap_or_default()
    }

    /// The event at `seq`, when the page holds it.
    #[must_use]
    pub fn get(self: &Arc<Self>, seq: Seq) -> Option<Event> {
        let index = seq.0.checked_sub(self.first.0)?;
        (index < self.offsets.len() as u64).then(|| Event::new(Arc::clone(self), u32::try_from(index).unwrap_or(u32::MAX)))
    }

    /// All events after `after`, in order.
    pub fn events_after(self: &Arc<Self>, after: Seq) -> impl Iterator<Item = Event> + '_ {
        let skip = u32::try_from(after.next().0.saturating_sub(self.first.0)).unwrap_or(u32::MAX);
        let count = u32::try_from(self.offsets.len()).unwrap_or(u32::MAX);
        (skip..count).map(move |index| Event::new(Arc::clone(self), index))
    }

    /// Place in [`Page::topics`] of the event at `index`.
    #[must_use]
    pub fn topic_index_at(&self, index: u32) -> usize {
        let at = self.offsets[index as usize] as usize + 4 + 8 + 2;
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    pub(super) fn seq_at(&self, index: u32) -> Seq {
        Seq(self.first.0 + u64::from(index))
    }

    pub(super) fn topic_at(&self, index: u32) -> &Topic {
        &self.topics[self.topic_index_at(index)]
    }

    pub(super) fn arrived_at(&self, index: u32) -> Timestamp {
        let at = self.offsets[index as usize] as usize + 4;
        Timestamp(i64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("invariant: eight bytes")))
    }

    pub(super) fn slice(&self, part: &[u8]) -> Bytes {
        if part.is_empty() { Bytes::new() } else { self.bytes.slice_ref(part) }
    }

    pub(super) fn fields_at(&self, index: u32) -> RecordFields<'_> {
        read_fields(self.record(index)).unwrap_or_else(|| RecordFields::broken(self.record(index)))
    }

    fn record(&self, index: u32) -> &[u8] {
        let at = self.offsets[index as usize] as usize;
        let length = u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("invariant: four bytes")) as usize;
        &self.bytes[at + 4..at + 4 + length]
    }
}

impl<'a> RecordFields<'a> {
    /// What is left of a record that passed the checksum and still does not read: its bytes as data.
    fn broken(record: &'a [u8]) -> Self {
        Self {
            id: "unreadable",
            own_id: false,
            source: "unreadable",
            kind: "unreadable",
            content_type: "application/octet-stream",
            subject: None,
            time: None,
            data_schema: None,
            hops: 0,
            form: DataForm::Binary,
            data: record,
            extensions: &[],
        }
    }
}

fn read_fields(record: &[u8]) -> Option<RecordFields<'_>> {
    let mut rest = Cursor(record);
    rest.take(8)?;
    let flags = rest.take(1)?[0];
    let hops = rest.take(1)?[0];
    rest.take(2)?;
    let (id, source, kind, content_type) = (rest.text()?, rest.text()?, rest.text()?, rest.text()?);
    let mut optional = |flag: u8| if flags & flag == 0 { Some(None) } else { rest.text().map(Some) };
    let (subject, time, data_schema) = (optional(FLAG_SUBJECT)?, optional(FLAG_TIME)?, optional(FLAG_SCHEMA)?);
    let extensions: &[u8] = if flags & FLAG_EXTENSIONS == 0 {
        &[]
    } else {
        let length = rest.u32()? as usize;
        rest.take(length)?
    };
    let form = match flags >> FORM_SHIFT {
        0 => DataForm::Json,
        1 => DataForm::Text,
        _ => DataForm::Binary,
    };
    let own_id = flags & FLAG_OWN_ID != 0;
    Some(RecordFields {
        id,
        own_id,
        source,
        kind,
        content_type,
        subject,
        time,
        data_schema,
        hops,
        form,
        data: rest.0,
        extensions,
    })
}

/// Reads from the front of a byte run; `None` past its end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_le_bytes(b.try_into().expect("invariant: two bytes")))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes(b.try_into().expect("invariant: four bytes")))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64::from_le_bytes(b.try_into().expect("invariant: eight bytes")))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }
}

#[cfg(test)]
mod tests;
