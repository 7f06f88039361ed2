//! What the body of a delivery is: one event in one of three forms, or a batch of them. Data only.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the body of a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadForm {
    /// The event's bytes with `ce-*` headers.
    Binary,
    /// The JSON form.
    Structured,
    /// What [`Template`] makes of the event.
    Template,
}

impl PayloadForm {
    /// The form as definitions name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Structured => "structured",
            Self::Template => "template",
        }
    }
}

/// A body written by the subscriber, with the event filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The text, in minijinja's syntax.
    pub body: String,
    /// `content-type` of the result.
    pub content_type: String,
}

/// Longest template body, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;

/// How events are gathered into one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Most events in one request, at least 1.
    pub max_events: u32,
    /// Most bytes of one body, but for a single larger event.
    pub max_bytes: u32,
    /// Longest time that the first event waits for company.
    #[serde(with = "super::millis")]
    pub max_wait: Duration,
    /// What the body is.
    pub format: BatchFormat,
}

/// Most events in one batch.
pub const BATCH_EVENTS_MAX: u32 = 1000;
/// Most bytes of one batch.
pub const BATCH_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Longest wait for company.
pub const BATCH_WAIT_MAX: Duration = Duration::from_mins(1);

/// The body of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchFormat {
    /// A JSON array of JSON forms, `application/json`.
    JsonArray,
    /// A JSON form a line, `application/x-ndjson`.
    Ndjson,
    /// CloudEvents' JSON batch, `application/cloudevents-batch+json`.
    Cloudevents,
}

impl BatchFormat {
    /// The format as definitions name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::JsonArray => "json-array",
            Self::Ndjson => "ndjson",
            Self::Cloudevents => "cloudevents",
        }
    }
}
