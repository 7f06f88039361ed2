//! Events: what arrives ([`NewEvent`]) and what the log holds ([`Event`]).
//!
//! An [`Event`] is a view into a shared [`Page`]: cloning it costs one reference count, its data is a slice of the page.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::page::{Page, RecordFields};
use super::topic::Topic;
use crate::clock::Timestamp;

/// Longest id, source, type, subject, schema or extension value, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;
/// Longest event id and idempotency key, in bytes.
pub const ID_BYTES_MAX: usize = 255;
/// Longest event type, in bytes.
pub const TYPE_BYTES_MAX: usize = 256;
/// Most extension attributes on an event.
pub const EXTENSIONS_MAX: usize = 32;
/// Longest name of an extension attribute, in bytes.
pub const EXTENSION_NAME_BYTES_MAX: usize = 64;
/// More relay hops than this and an event is refused: somewhere a relay feeds itself.
pub const HOPS_MAX: u8 = 8;

/// Position in the log: 1-based, strictly rising over all topics. Zero stands before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// How far a log goes on behind all that it may have given out when a copy of it is put back, and how many positions are
    /// left out for each hour: what was accepted after the copy was made had positions there, and none is given twice.
    pub const RESTORE_JUMP: u64 = 1 << 32;

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before this one; stays at zero.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How the bytes of an event read, decided once at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DataForm {
    /// Valid JSON in UTF-8.
    Json = 0,
    /// UTF-8 text that is not JSON.
    Text = 1,
    /// Anything else.
    Binary = 2,
}

/// An event before it has a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Where it belongs.
    pub topic: Topic,
    /// Its id; unique inside (topic, source) when [`NewEvent::own_id`] is set.
    pub id: String,
    /// Whether the publisher gave the id: only then can the event be a repeat.
    pub own_id: bool,
    /// `CloudEvents` `source`.
    pub source: String,
    /// `CloudEvents` `type`.
    pub kind: String,
    /// `CloudEvents` `subject`.
    pub subject: Option<String>,
    /// `CloudEvents` `time` as the publisher wrote it; absent = the time of arrival.
    pub time: Option<String>,
    /// When it came in.
    pub arrived_at: Timestamp,
    /// Content type of `data`.
    pub content_type: String,
    /// `CloudEvents` `dataschema`.
    pub data_schema: Option<String>,
    /// Other `CloudEvents` attributes, by name.
    pub extensions: Vec<(String, String)>,
    /// How many relays have handed it on.
    pub hops: u8,
    /// How `data` reads.
    pub form: DataForm,
    /// The payload, byte for byte.
    pub data: Bytes,
}

/// Why an event cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// An attribute that would break a header, an SSE line or a limit.
    #[error("{attribute} {problem}")]
    Attribute {
        /// Name of the attribute, as publishers write it.
        attribute: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Came through too many relays.
    #[error("the event passed {0} relays; more than {HOPS_MAX} mean a loop")]
    TooManyHops(u8),
    /// More than [`EXTENSIONS_MAX`] extensions, or a malformed extension name.
    #[error("extension {0:?} has a malformed name, or there are more than {EXTENSIONS_MAX}")]
    Extension(String),
}

impl NewEvent {
    /// Checks every attribute against its limit and against what cannot go into a header or an SSE line.
    ///
    /// # Errors
    /// [`EventError`] naming the first attribute that is wrong.
    pub fn check(&self) -> Result<(), EventError> {
        if self.hops > HOPS_MAX {
            return Err(EventError::TooManyHops(self.hops));
        }
        check_attribute("id", &self.id, ID_BYTES_MAX)?;
        check_attribute("source", &self.source, ATTRIBUTE_BYTES_MAX)?;
        check_attribute("type", &self.kind, TYPE_BYTES_MAX)?;
        check_attribute("datacontenttype", &self.content_type, ATTRIBUTE_BYTES_MAX)?;
        for (name, value) in [("subject", &self.subject), ("dataschema", &self.data_schema), ("time", &self.time)] {
            if let Some(value) = value {
                check_attribute(name, value, ATTRIBUTE_BYTES_MAX)?;
            }
        }
        if self.extensions.len() > EXTENSIONS_MAX {
            return Err(EventError::Extension(self.extensions[EXTENSIONS_MAX].0.clone()));
        }
        for (name, value) in &self.extensions {
            let well_formed = (1..=EXTENSION_NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if !well_formed || (!value.is_empty() && check_attribute("extension", value, ATTRIBUTE_BYTES_MAX).is_err()) {
                return Err(EventError::Extension(name.clone()));
            }
        }
        Ok(())
    }
}

fn check_attribute(attribute: &'static str, value: &str, bytes_max: usize) -> Result<(), EventError> {
    let problem = if value.is_empty() {
        "must not be empty"
    } else if value.len() > bytes_max {
        "is too long"
    } else if value.chars().any(char::is_control) {
        "must not hold control characters"
    } else {
        return Ok(());
    };
    Err(EventError::Attribute { attribute, problem })
}

/// Finds out how `data` of the given content type reads.
///
/// JSON content types (`application/json`, `…+json`, in UTF-8) must parse to count as [`DataForm::Json`].
#[must_use]
pub fn data_form(content_type: &str, data: &[u8]) -> DataForm {
    if is_json_type(content_type)
        && serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
        && std::str::from_utf8(data).is_ok()
    {
        DataForm::Json
    } else if is_text_charset(content_type) && std::str::from_utf8(data).is_ok() {
        DataForm::Text
    } else {
        DataForm::Binary
    }
}

/// Whether a content type says JSON in UTF-8.
#[must_use]
pub fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (essence == "application/json" || essence.ends_with("+json") || essence == "text/json") && is_text_charset(content_type)
}

fn is_text_charset(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let Some((_, charset)) = lower.split_once("charset=") else { return true };
    let charset = charset.split(';').next().unwrap_or_default().trim().trim_matches('"');
    matches!(charset, "utf-8" | "utf8" | "us-ascii" | "ascii")
}

/// An event of the log: a cheap handle on its place in a page.
#[derive(Clone)]
pub struct Event {
    page: Arc<Page>,
    index: u32,
}

impl Event {
    pub(super) fn new(page: Arc<Page>, index: u32) -> Self {
        Self { page, index }
    }

    /// Its position.
    #[inline]
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.page.seq_at(self.index)
    }

    /// Its topic.
    #[inline]
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.page.topic_at(self.index)
    }

    /// When it came in.
    #[inline]
    #[must_use]
    pub fn arrived_at(&self) -> Timestamp {
        self.page.arrived_at(self.index)
    }

    /// Its attributes, decoded from the page on every call: take it once.
    #[inline]
    #[must_use]
    pub fn fields(&self) -> RecordFields<'_> {
        self.page.fields_at(self.index)
    }

    /// The payload, sharing the page's memory.
    #[inline]
    #[must_use]
    pub fn data(&self) -> Bytes {
        self.page.slice(self.fields().data)
    }

    /// A part of this event (a field or the data) as bytes that share the page's memory.
    ///
    /// `part` must come from [`Event::fields`] of the same event.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.page.slice(part)
    }

    /// The page it lies in.
    #[inline]
    #[must_use]
    pub fn page(&self) -> &Arc<Page> {
        &self.page
    }

    /// The whole record as it stands in the page, for keeping it outside the log.
    #[must_use]
    pub fn to_new_event(&self) -> NewEvent {
        let fields = self.fields();
        NewEvent {
            topic: self.topic().clone(),
            id: fields.id.to_owned(),
            own_id: fields.own_id,
            source: fields.source.to_owned(),
            kind: fields.kind.to_owned(),
            subject: fields.subject.map(str::to_owned),
            time: fields.time.map(str::to_owned),
            arrived_at: self.arrived_at(),
            content_type: fields.content_type.to_owned(),
            data_schema: fields.data_schema.map(str::to_owned),
            extensions: fields.extensions().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            hops: fields.hops,
            form: fields.form,
            data: Bytes::copy_from_slice(fields.data),
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("seq", &self.seq()).field("topic", self.topic()).finish_non_exhaustive()
    }
}
