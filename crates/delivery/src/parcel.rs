//! An event made ready to be posted: what all subscriptions share of a request is made once.

use std::cell::OnceCell;
use std::fmt;
use std::io::Write as _;

use actix_http::header::HeaderName;
use bytes::Bytes;

use hookcast_core::codec::cloudevents;
use hookcast_core::model::Event;
use hookcast_net::client::{HeaderLines, is_value};

/// Headers and body that are the same for every subscription of one payload form.
#[derive(Clone, Debug)]
pub struct Content {
    /// The body.
    pub body: Bytes,
    /// `content-type`, `webhook-id`, `hookcast-hops` and, in binary form, the `ce-*` headers.
    pub headers: HeaderLines,
    /// The `webhook-id`, which is also signed.
    pub webhook_id: String,
}

/// An event and, once somebody needed them, the contents made of it.
pub struct Parcel {
    event: Event,
    // Asked for by every desk, and each reading of the event's fields goes through its texts.
    weight: usize,
    hops: u8,
    binary: OnceCell<Content>,
    structured: OnceCell<Content>,
    json: OnceCell<Bytes>,
}

impl Parcel {
    /// Wraps an event; nothing is encoded yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        const OVERHEAD_BYTES: usize = 512;
        let fields = event.fields();
        let (weight, hops) = (fields.data.len() + OVERHEAD_BYTES, fields.hops);
        Self { event, weight, hops, binary: OnceCell::new(), structured: OnceCell::new(), json: OnceCell::new() }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// About how many bytes of memory it holds: its data, and its share of the page that it keeps.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// How many relays the event went through before this one.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.hops
    }

    /// The event's bytes with `ce-*` headers.
    pub fn binary(&self, log_id: &str) -> &Content {
        self.binary.get_or_init(|| binary(&self.event, log_id))
    }

    /// The JSON form as a request.
    pub fn structured(&self, log_id: &str) -> &Content {
        self.structured.get_or_init(|| headed(&self.event, log_id, cloudevents::STRUCTURED_TYPE, self.json().clone()))
    }

    /// The JSON form, made once.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| json(&self.event))
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

/// Room for the lines of an ordinary event.
const LINES_BYTES: usize = 512;

/// `msg_<log>_<seq>`: one for all subscriptions, retries and restarts.
#[must_use]
pub fn webhook_id(event: &Event, log_id: &str) -> String {
    format!("msg_{log_id}_{}", event.seq())
}

fn binary(event: &Event, log_id: &str) -> Content {
    let fields = event.fields();
    let webhook_id = webhook_id(event, log_id);
    // The event's own content type is no attribute of CloudEvents in a header, so it is not percent-encoded.
    let known = is_value(fields.content_type.as_bytes());
    let content_type = if known { fields.content_type } else { "application/octet-stream" };
    let mut headers = common(fields.hops, &webhook_id, content_type);
    headers.push(&CE_SPECVERSION, cloudevents::SPEC_VERSION);
    for (name, text) in [(&CE_ID, fields.id), (&CE_SOURCE, fields.source), (&CE_TYPE, fields.kind)] {
        push_encoded(&mut headers, name, text);
    }
    match fields.time {
        Some(time) => push_encoded(&mut headers, &CE_TIME, time),
        None => headers.push_written(&CE_TIME, |line| {
            let _ = write!(line, "{}", event.arrived_at());
        }),
    }
    headers.push(&CE_TOPIC, event.topic().as_str());
    headers.push_number(&CE_SEQ, event.seq().0);
    for (name, text) in [(&CE_SUBJECT, fields.subject), (&CE_DATASCHEMA, fields.data_schema)] {
        if let Some(text) = text {
            push_encoded(&mut headers, name, text);
        }
    }
    for (name, text) in fields.extensions() {
        if let Ok(name) = HeaderName::from_bytes(format!("ce-{name}").as_bytes()) {
            push_encoded(&mut headers, &name, text);
        }
    }
    Content { body: event.data(), headers, webhook_id }
}

/// A body of its own, with the lines that all bodies of an event share.
#[must_use]
pub fn headed(event: &Event, log_id: &str, content_type: &str, body: Bytes) -> Content {
    let webhook_id = webhook_id(event, log_id);
    let headers = common(event.fields().hops, &webhook_id, content_type);
    Content { body, headers, webhook_id }
}

fn json(event: &Event) -> Bytes {
    let mut body = bytes::BytesMut::with_capacity(event.fields().data.len() + 512);
    cloudevents::write_event(&mut body, event);
    body.freeze()
}

/// The lines that every delivery has: type, identity, and how many relays it went through with this one.
pub(super) fn common(hops: u8, webhook_id: &str, content_type: &str) -> HeaderLines {
    let mut headers = HeaderLines::with_capacity(LINES_BYTES);
    headers.push(&CONTENT_TYPE, content_type);
    headers.push(&WEBHOOK_ID, webhook_id);
    headers.push_number(&HOOKCAST_HOPS, hops.saturating_add(1));
    headers
}

/// An attribute as CloudEvents puts it into a header: percent-encoded where it has to be.
fn push_encoded(headers: &mut HeaderLines, name: &HeaderName, text: &str) {
    headers.push(name, cloudevents::encode_value(text).as_bytes());
}
