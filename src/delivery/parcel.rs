//! An event made ready to be posted: what all subscriptions share of a request is made once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use actix_http::header::{HeaderName, HeaderValue};
use bytes::Bytes;

use crate::codec::cloudevents;
use crate::model::Event;

/// Headers and body that are the same for every subscription of one payload form.
#[derive(Clone, Debug)]
pub struct Content {
    /// The body.
    pub body: Bytes,
    /// `content-type`, `webhook-id`, `hookcast-hops` and, in binary form, the `ce-*` headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The `webhook-id`, which is also signed.
    pub webhook_id: String,
}

/// An event and, once somebody needed them, the contents made of it.
pub struct Parcel {
    event: Event,
    binary: OnceCell<Content>,
    structured: OnceCell<Content>,
}

impl Parcel {
    /// Wraps an event; nothing is encoded yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self { event, binary: OnceCell::new(), structured: OnceCell::new() }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// About how many bytes of memory it holds: its data, and its share of the page that it keeps.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD_BYTES: usize = 512;
        self.event.fields().data.len() + OVERHEAD_BYTES
    }

    /// The event's bytes with `ce-*` headers.
    pub fn binary(&self, log_id: &str) -> &Content {
        self.binary.get_or_init(|| binary(&self.event, log_id))
    }

    /// The JSON form.
    pub fn structured(&self, log_id: &str) -> &Content {
        self.structured.get_or_init(|| structured(&self.event, log_id))
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.event, f)
    }
}

const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
const CE_TIME: HeaderName = HeaderName::from_static("ce-time");
const CE_SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
const CE_DATASCHEMA: HeaderName = HeaderName::from_static("ce-dataschema");
const CE_TOPIC: HeaderName = HeaderName::from_static("ce-topic");
const CE_SEQ: HeaderName = HeaderName::from_static("ce-seq");
const CONTENT_TYPE: HeaderName = actix_http::header::CONTENT_TYPE;
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const HOOKCAST_HOPS: HeaderName = HeaderName::from_static("hookcast-hops");

/// `msg_<log>_<seq>`: one for all subscriptions, retries and restarts.
#[must_use]
pub fn webhook_id(event: &Event, log_id: &str) -> String {
    format!("msg_{log_id}_{}", event.seq())
}

fn binary(event: &Event, log_id: &str) -> Content {
    let fields = event.fields();
    let mut headers = common(event, log_id, content_type(event, fields.content_type));
    headers.push((CE_SPECVERSION, HeaderValue::from_static("1.0")));
    headers.push((CE_ID, value_of(event, fields.id)));
    headers.push((CE_SOURCE, value_of(event, fields.source)));
    headers.push((CE_TYPE, value_of(event, fields.kind)));
    let time = match fields.time {
        Some(time) => value_of(event, time),
        None => fresh(event.arrived_at().to_string()),
    };
    headers.push((CE_TIME, time));
    headers.push((CE_TOPIC, fresh(event.topic().as_str().to_owned())));
    headers.push((CE_SEQ, fresh(event.seq().to_string())));
    for (name, text) in [(CE_SUBJECT, fields.subject), (CE_DATASCHEMA, fields.data_schema)] {
        if let Some(text) = text {
            headers.push((name, value_of(event, text)));
        }
    }
    for (name, text) in fields.extensions() {
        if let Ok(name) = HeaderName::from_bytes(format!("ce-{name}").as_bytes()) {
            headers.push((name, value_of(event, text)));
        }
    }
    Content { body: event.data(), headers, webhook_id: webhook_id(event, log_id) }
}

fn structured(event: &Event, log_id: &str) -> Content {
    let mut body = bytes::BytesMut::with_capacity(event.fields().data.len() + 512);
    cloudevents::write_event(&mut body, event);
    let headers = common(event, log_id, HeaderValue::from_static("application/cloudevents+json"));
    Content { body: body.freeze(), headers, webhook_id: webhook_id(event, log_id) }
}

fn common(event: &Event, log_id: &str, content_type: HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    let hops = event.fields().hops.saturating_add(1);
    let mut headers = Vec::with_capacity(14);
    headers.push((CONTENT_TYPE, content_type));
    headers.push((WEBHOOK_ID, fresh(webhook_id(event, log_id))));
    headers.push((HOOKCAST_HOPS, HeaderValue::from(u16::from(hops))));
    headers
}

/// The text as a header value: the page's own bytes when they may stand there as they are, else percent-encoded.
fn value_of(event: &Event, text: &str) -> HeaderValue {
    if let Cow::Owned(encoded) = cloudevents::encode_value(text) {
        return fresh(encoded);
    }
    HeaderValue::from_maybe_shared(event.share(text.as_bytes())).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The event's own content type: no attribute of CloudEvents in a header, so it is not percent-encoded.
fn content_type(event: &Event, text: &str) -> HeaderValue {
    let unknown = HeaderValue::from_static("application/octet-stream");
    HeaderValue::from_maybe_shared(event.share(text.as_bytes())).unwrap_or(unknown)
}

fn fresh(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}
