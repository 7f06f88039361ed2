//! Turns a publish request into events: raw, `CloudEvents` binary, structured and batch, NDJSON.
//!
//! Data are slices of the body. Every event is checked before any is handed on. Pure: the time comes in.

use std::fmt::Write as _;

use actix_web::http::header::{self, HeaderMap, HeaderName};
use bytes::Bytes;

use super::ids;
use crate::HttpLimits;
use crate::problem::{self, Problem};
use hookcast_core::clock::Timestamp;
use hookcast_core::codec::cloudevents::{
    Attributes, BATCH_TYPE, CloudEvent, CloudEventError, EventDefaults, STRUCTURED_TYPE, decode_batch, decode_headers,
    decode_structured,
};
use hookcast_core::codec::json;
use hookcast_core::model::event::{DataForm, EventError, HOPS_MAX, ID_BYTES_MAX, is_json_type};
use hookcast_core::model::{NewEvent, Topic};

/// `source` of events that name none.
const SOURCE: &str = "/publish";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const HOPS: HeaderName = HeaderName::from_static("hookcast-hops");

/// How the events lie in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The body is the data.
    Raw,
    /// One event in JSON form.
    Structured,
    /// A JSON array of events.
    Batch,
    /// A line is the data of one event.
    Ndjson,
}

impl Form {
    /// By the content type of the request.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Raw) };
        let Ok(text) = value.to_str() else {
            return Err(Problem::new(problem::MEDIA_TYPE, "the Content-Type is not printable ASCII"));
        };
        let essence = text.split(';').next().unwrap_or_default().trim_ascii();
        let forms = [(STRUCTURED_TYPE, Self::Structured), (BATCH_TYPE, Self::Batch), ("application/x-ndjson", Self::Ndjson)];
        Ok(forms.into_iter().find(|(name, _)| essence.eq_ignore_ascii_case(name)).map_or(Self::Raw, |(_, form)| form))
    }

    /// Whether the body is at most as large as one event.
    pub(super) fn is_single(self) -> bool {
        self == Self::Raw
    }
}

/// A request as far as it concerns its events.
pub(super) struct Request<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) topic: &'a Topic,
    pub(super) now: Timestamp,
    pub(super) limits: HttpLimits,
}

/// Hands every event of a request to `take`, each checked; what was handed on counts only when all are.
///
/// # Errors
/// The problem of the first event that cannot be taken.
pub(super) fn events(request: &Request<'_>, form: Form, body: Bytes, take: &mut impl FnMut(&NewEvent)) -> Result<(), Problem> {
    let hops = hops(request.headers)?;
    match form {
        Form::Raw => take(&raw(request, hops, body)?),
        Form::Ndjson => lines(request, hops, &body, take)?,
        Form::Structured => {
            let event = decode_structured(&body).map_err(|error| not_an_event(&error, None))?;
            take(&structured(request, hops, event, None)?);
        }
        Form::Batch => {
            let decoded = decode_batch(&body, request.limits.batch_events).map_err(|(at, error)| not_an_event(&error, at))?;
            if decoded.is_empty() {
                return Err(empty());
            }
            for (index, event) in decoded.into_iter().enumerate() {
                take(&structured(request, hops, event, Some(index))?);
            }
        }
    }
    Ok(())
}

fn raw(request: &Request<'_>, hops: u8, data: Bytes) -> Result<NewEvent, Problem> {
    let key = own_key(request.headers)?;
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/octet-stream");
    let mut attributes = binary_attributes(request.headers, key)?;
    let id = if attributes.id.is_some() { String::new() } else { ids::fresh(request.now) };
    attributes.content_type = Some(content_type.to_owned());
    let event = NewEvent { hops, ..attributes.into_event(data, defaults(request, id)) };
    if event.form != DataForm::Json && is_json_type(content_type) {
        let detail = "the body is not JSON as its Content-Type says; send it as text/plain to have it kept as it is";
        return Err(Problem::new(problem::INVALID_JSON, detail));
    }
    event.check().map_err(|error| unfit(&error, key.is_some(), None))?;
    Ok(event)
}

fn structured(request: &Request<'_>, hops: u8, event: CloudEvent, index: Option<usize>) -> Result<NewEvent, Problem> {
    if event.data.len() > request.limits.event_bytes {
        return Err(event_too_large(request.limits.event_bytes, index));
    }
    let mut attributes = event.attributes;
    if attributes.content_type.is_none() {
        attributes.content_type = Some("application/octet-stream".to_owned());
    }
    let event = NewEvent { hops, ..attributes.into_event(event.data, defaults(request, String::new())) };
    event.check().map_err(|error| unfit(&error, false, index))?;
    Ok(event)
}

/// Every line is the same event but for id and data, so one is made and changed from line to line.
fn lines(request: &Request<'_>, hops: u8, body: &Bytes, take: &mut impl FnMut(&NewEvent)) -> Result<(), Problem> {
    let key = own_key(request.headers)?;
    let mut shared = binary_attributes(request.headers, key)?;
    let key = shared.id.take();
    shared.content_type = Some("application/json".to_owned());
    let shared = NewEvent { hops, ..shared.into_event(Bytes::new(), defaults(request, ids::fresh(request.now))) };
    let mut event = NewEvent { form: DataForm::Json, own_id: key.is_some(), ..shared };
    event.check().map_err(|error| unfit(&error, false, None))?;
    if key.as_ref().is_some_and(|key| key.len() + 1 + digits(request.limits.batch_events) > ID_BYTES_MAX) {
        return Err(bad_key("is too long to name every line of a batch"));
    }
    let mut count = 0;
    let mut rest = &body[..];
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            continue;
        }
        if count == request.limits.batch_events {
            return Err(too_many(request.limits.batch_events));
        }
        if line.len() > request.limits.event_bytes {
            return Err(event_too_large(request.limits.event_bytes, Some(count)));
        }
        json::check(line).map_err(|fault| {
            Problem::new(problem::INVALID_LINE, format!("line {number} is {fault}; nothing was stored"))
                .at("", format!("line {number}"))
        })?;
        event.id.clear();
        match &key {
            None => ids::push_fresh(request.now, &mut event.id),
            Some(key) => drop(write!(event.id, "{key}-{count}")),
        }
        event.data = body.slice_ref(line);
        take(&event);
        count += 1;
    }
    if count == 0 { Err(empty()) } else { Ok(()) }
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn defaults<'a>(request: &Request<'a>, id: String) -> EventDefaults<'a> {
    EventDefaults { topic: request.topic, id, source: SOURCE, content_type: "application/json", arrived_at: request.now }
}

/// The `ce-*` headers, with the idempotency key as the id.
fn binary_attributes(headers: &HeaderMap, key: Option<&str>) -> Result<Attributes, Problem> {
    let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut attributes = decode_headers(pairs).map_err(|error| not_an_event(&error, None))?;
    match (key, &attributes.id) {
        (Some(key), Some(id)) if key != id => return Err(bad_key("differs from `ce-id`; send one of them")),
        (Some(key), None) => attributes.id = Some(key.to_owned()),
        _ => {}
    }
    Ok(attributes)
}

fn own_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        _ if values.next().is_some() => Err(bad_key("is given twice")),
        Ok(key) if (1..=ID_BYTES_MAX).contains(&key.len()) => Ok(Some(key)),
        _ => Err(bad_key("is not 1 to 255 printable ASCII characters")),
    }
}

fn bad_key(what: &str) -> Problem {
    Problem::new(problem::IDEMPOTENCY_KEY, format!("the Idempotency-Key {what}"))
}

fn hops(headers: &HeaderMap) -> Result<u8, Problem> {
    let Some(value) = headers.get(HOPS) else { return Ok(0) };
    let hops = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    let hops = hops.ok_or_else(|| Problem::new(problem::INVALID_EVENT, "`hookcast-hops` is not a whole number"))?;
    match u8::try_from(hops) {
        Ok(hops) if hops <= HOPS_MAX => Ok(hops),
        _ => Err(looped(&EventError::TooManyHops(u8::try_from(hops).unwrap_or(u8::MAX)))),
    }
}

fn looped(error: &EventError) -> Problem {
    let (name, value) = super::ABORT;
    Problem::new(problem::LOOP_DETECTED, error.to_string()).header(name, value)
}

fn empty() -> Problem {
    Problem::new(problem::EMPTY_BATCH, "send at least one event")
}

fn too_many(events_max: usize) -> Problem {
    Problem::new(
        problem::BATCH_TOO_LARGE,
        format!("allowed: at most {events_max} events (`limits.batch_events`); nothing was stored"),
    )
}

fn event_too_large(bytes_max: usize, index: Option<usize>) -> Problem {
    let detail = format!("an event has at most {bytes_max} bytes (`limits.event_bytes`); nothing was stored");
    let problem = Problem::new(problem::PAYLOAD_TOO_LARGE, detail);
    match index {
        Some(index) => problem.at(format!("/{index}"), "is too large"),
        None => problem,
    }
}

fn not_an_event(error: &CloudEventError, index: Option<usize>) -> Problem {
    match error {
        CloudEventError::Json(fault) => Problem::new(problem::INVALID_JSON, format!("the body is {fault}")),
        CloudEventError::TooMany(events_max) => too_many(*events_max),
        error => {
            let place = index.map(|index| format!("/{index}")).unwrap_or_default();
            let pointer = format!("{place}{}", error.field().map(|field| format!("/{field}")).unwrap_or_default());
            let text = error.to_string();
            let detail = index.map_or_else(|| text.clone(), |index| format!("event {index}: {text}"));
            Problem::new(problem::INVALID_CLOUDEVENT, detail).at(pointer, text)
        }
    }
}

fn unfit(error: &EventError, id_is_key: bool, index: Option<usize>) -> Problem {
    match error {
        EventError::TooManyHops(_) => looped(error),
        EventError::Attribute { attribute: "id", problem } if id_is_key => bad_key(problem),
        error => {
            let place = index.map(|index| format!("/{index}")).unwrap_or_default();
            let name = match error {
                EventError::Attribute { attribute, .. } => attribute,
                EventError::Extension(name) => name.as_str(),
                _ => "",
            };
            Problem::new(problem::INVALID_EVENT, error.to_string()).at(format!("{place}/{name}"), error.to_string())
        }
    }
}
