//! CloudEvents 1.0: the JSON form (structured mode, batches) and the `ce-*` headers of the binary mode, both directions.
//!
//! The relay's own attributes are `topic` and `seq`: written on every event, ignored when they come in. Whether a request is
//! allowed, and where its events go, is decided elsewhere.
//!
//! Spec: CloudEvents 1.0.2, JSON event format, HTTP protocol binding.

mod decode;
mod encode;
mod headers;
#[cfg(test)]
mod tests;

pub use decode::{decode_batch, decode_structured};
pub use encode::{write_event, write_json_text};
pub use headers::{decode_headers, decode_value, encode_value, for_each_header};

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::model::event::{DataForm, data_form};
use crate::model::{NewEvent, Topic};

/// The version of the specification that is spoken.
pub const SPEC_VERSION: &str = "1.0";
/// Media type of one event in JSON form.
pub const STRUCTURED_TYPE: &str = "application/cloudevents+json";
/// Media type of a JSON array of events.
pub const BATCH_TYPE: &str = "application/cloudevents-batch+json";

/// Why something is not a CloudEvents event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloudEventError {
    /// Not JSON at all.
    #[error("the body is {0}")]
    Json(#[from] super::json::JsonFault),
    /// JSON, but not an object (or, for a batch, not an array of objects).
    #[error("an event is a JSON object, a batch a JSON array of them")]
    Shape,
    /// A required attribute is absent.
    #[error("the attribute {0:?} is required")]
    Missing(&'static str),
    /// An attribute has a wrong type or value.
    #[error("{field} {problem}")]
    Field {
        /// The attribute as the publisher wrote it.
        field: String,
        /// What is wrong, to be read after the name.
        problem: &'static str,
    },
    /// More events in a batch than allowed.
    #[error("a batch holds at most {0} events")]
    TooMany(usize),
}

impl CloudEventError {
    /// Name of the attribute that is wrong, when it is one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Missing(field) => Some(field),
            Self::Field { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// The attributes of one incoming event, as far as the publisher gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `id`.
    pub id: Option<String>,
    /// `source`.
    pub source: Option<String>,
    /// `type`.
    pub kind: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// `time`, checked to be RFC 3339.
    pub time: Option<String>,
    /// `datacontenttype`; in binary mode the caller fills it from `Content-Type`.
    pub content_type: Option<String>,
    /// `dataschema`.
    pub data_schema: Option<String>,
    /// All others but `topic` and `seq`, in the order given.
    pub extensions: Vec<(String, String)>,
}

/// What stands in for attributes that the publisher left out.
#[derive(Clone, Debug)]
pub struct EventDefaults<'a> {
    /// Where the event goes.
    pub topic: &'a Topic,
    /// Its id, when it has none of its own.
    pub id: String,
    /// Its source.
    pub source: &'a str,
    /// Its content type.
    pub content_type: &'a str,
    /// When it came in.
    pub arrived_at: Timestamp,
}

impl Attributes {
    /// Makes the event of these attributes and `data`; it still has to pass [`NewEvent::check`].
    #[must_use]
    pub fn into_event(self, data: Bytes, defaults: EventDefaults<'_>) -> NewEvent {
        let content_type = self.content_type.unwrap_or_else(|| defaults.content_type.to_owned());
        let form = data_form(&content_type, &data);
        NewEvent {
            topic: defaults.topic.clone(),
            own_id: self.id.is_some(),
            id: self.id.unwrap_or(defaults.id),
            source: self.source.unwrap_or_else(|| defaults.source.to_owned()),
            kind: self.kind.unwrap_or_else(|| "message".to_owned()),
            subject: self.subject,
            time: self.time,
            arrived_at: defaults.arrived_at,
            content_type,
            data_schema: self.data_schema,
            extensions: self.extensions,
            hops: 0,
            form,
            data,
        }
    }

    /// Takes one attribute under its name; `false` when the name is not one this relay keeps.
    fn set(&mut self, name: &str, value: String) -> Result<bool, CloudEventError> {
        let place = match name {
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.content_type,
            "dataschema" => &mut self.data_schema,
            "specversion" if value == SPEC_VERSION => return Ok(true),
            "specversion" => return Err(wrong(name, "must be \"1.0\"")),
            "topic" | "seq" => return Ok(false),
            _ => {
                if self.extensions.iter().any(|(known, _)| known == name) {
                    return Err(wrong(name, "is given twice"));
                }
                self.extensions.push((name.to_owned(), value));
                return Ok(true);
            }
        };
        if value.is_empty() {
            return Err(wrong(name, "must not be empty"));
        }
        if name == "time" && Timestamp::parse_rfc3339(&value).is_err() {
            return Err(wrong(name, "must be an RFC 3339 date and time"));
        }
        if place.replace(value).is_some() { Err(wrong(name, "is given twice")) } else { Ok(true) }
    }
}

/// One incoming event in JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// Its attributes; `id`, `source` and `type` are there.
    pub attributes: Attributes,
    /// Its data: the very slice of the body for JSON, the text or bytes it stands for otherwise.
    pub data: Bytes,
}

/// Whether an attribute may not be used as the name of an extension.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "subject"
            | "time"
            | "topic"
            | "seq"
            | "datacontenttype"
            | "dataschema"
            | "data"
            | "data_base64"
    )
}

/// How data of `content_type` is written in the JSON form.
fn is_json_content(content_type: Option<&str>) -> bool {
    content_type.is_none_or(crate::model::event::is_json_type)
}

fn wrong(field: &str, problem: &'static str) -> CloudEventError {
    // A name is the publisher's text: keep what is needed to find it.
    CloudEventError::Field { field: field.chars().take(64).collect(), problem }
}

/// The form of data as it is written; text that is not UTF-8 cannot be text.
fn written_form(form: DataForm, data: &[u8]) -> WrittenData<'_> {
    match form {
        DataForm::Json => WrittenData::Json(data),
        DataForm::Text => std::str::from_utf8(data).map_or(WrittenData::Base64(data), WrittenData::Text),
        DataForm::Binary => WrittenData::Base64(data),
    }
}

enum WrittenData<'a> {
    Json(&'a [u8]),
    Text(&'a str),
    Base64(&'a [u8]),
}
