//! `POST /v1/topics/{topic}/events`: takes one event or a batch, whole or not at all.
//!
//! Owns what a request turns into ([`decode`]) and what is answered. It is the hot path: no span, no copy of the body, no
//! JSON tree. Must not know how events are stored.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{BufMut, BytesMut};

use super::HttpState;
use super::auth::Scope;
use super::body::{read_body, refuse_encoding};
use super::problem::{self, Problem};
use hookcast_core::codec::cloudevents::write_json_text;
use hookcast_core::model::Topic;
use hookcast_log::ingest::{IngestError, Offer, Placed};

mod decode;
mod ids;

use decode::{Form, Request};

/// The receiver's word that an event must not be sent again; another relay understands it.
pub(super) const ABORT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("webhook-delivery"), HeaderValue::from_static("abort"));

/// Takes the events of a request to a topic; answers once they are durable.
pub(super) async fn publish(
    state: Data<HttpState>,
    request: HttpRequest,
    topic: &str,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Publish)?;
    let topic = open_topic(topic)?;
    caller.touch(&topic)?;
    refuse_encoding(&request)?;
    let form = Form::of(request.headers())?;
    let limits = state.limits;
    let body = read_body(&request, payload, limits.body(form.is_single().then_some(limits.event_bytes))).await?;
    let wanted = Request { headers: request.headers(), topic: &topic, now: state.clock.now(), limits };
    let mut offer = Offer::with_capacity(1, body.len());
    decode::events(&wanted, form, body, &mut |event| offer.push(event))?;
    if let Some(usage) = caller.usage() {
        usage.publish(offer.len())?;
    }
    let offer = Arc::new(offer);
    let placed = state.ingest.publish_offer(Arc::clone(&offer)).await.map_err(|error| refused(&error))?;
    Ok(accepted(offer.ids(), &placed))
}

fn open_topic(text: &str) -> Result<Topic, Problem> {
    let topic = Topic::parse(text).map_err(|error| Problem::of_slug("topic", 422, error.to_string()))?;
    if topic.is_own() {
        return Err(Problem::new(problem::OWN_TOPIC, "publish to another topic"));
    }
    Ok(topic)
}

/// 202: `accepted` counts the events that are new, `duplicates` the repeats.
fn accepted<'a>(ids: impl Iterator<Item = &'a str>, placed: &[Placed]) -> HttpResponse {
    let duplicates = placed.iter().filter(|event| event.duplicate).count();
    let mut body = BytesMut::with_capacity(48 + placed.len() * 88);
    body.put_slice(b"{\"accepted\":");
    put_number(&mut body, (placed.len() - duplicates) as u64);
    body.put_slice(b",\"duplicates\":");
    put_number(&mut body, duplicates as u64);
    body.put_slice(b",\"events\":[");
    for (index, (id, event)) in ids.zip(placed).enumerate() {
        body.put_slice(if index == 0 { b"{\"id\":" } else { b",{\"id\":" });
        write_json_text(&mut body, id);
        body.put_slice(b",\"seq\":");
        put_number(&mut body, event.seq.0);
        body.put_slice(if event.duplicate { b",\"duplicate\":true}" } else { b",\"duplicate\":false}" });
    }
    body.put_slice(b"]}");
    HttpResponse::Accepted()
        .insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(body.freeze())
}

fn put_number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return out.put_slice(&digits[at..]);
        }
    }
}

pub(super) fn refused(error: &IngestError) -> Problem {
    match error {
        IngestError::Busy => Problem::new(problem::BUSY, "send the same request again in a moment").retry_after(1),
        IngestError::Full(room) => Problem::storage_full(*room),
        IngestError::Mismatch { index } => Problem::new(
            problem::IDEMPOTENCY_MISMATCH,
            format!(
                "event {index} of the request has the id of an earlier event \
                of this topic and source, but other bytes; nothing was stored"
            ),
        ),
        IngestError::Unknown => Problem::outcome_unknown(),
        _ => Problem::storage_unavailable(),
    }
}

#[cfg(test)]
mod tests;
