//! `…/stream?format=conduit`: a request that stays open until there are events, is answered with them and asked again.
//!
//! The answer is a JSON list of JSON forms, or `null` when nothing came in time; the header `hookcast-next` moves the client on in
//! both cases. Its length is known, so the connection serves the next request, too.

use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::{NEXT, limit, take};
use crate::ask::{self, Query};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::{HttpState, tickets};

/// Its name in `?format=`.
const NAME: &str = "conduit";
/// Time after which a silent conduit is answered with `null`.
const SILENCE: Duration = Duration::from_secs(30);

const KNOWN: &[&str] = &["format", "since", "last_event_id", "types", "filter", "limit", "heartbeat", tickets::PARAMETER];

/// Whether a request for a stream wants this form.
pub(crate) fn is_asked(request: &HttpRequest) -> bool {
    let mut pairs = url::form_urlencoded::parse(request.query_string().as_bytes());
    pairs.any(|(name, value)| name == "format" && value == NAME)
}

/// Answers with the first events behind the position, once there are some.
pub(crate) async fn respond(state: &HttpState, request: &HttpRequest, caller: &Caller) -> Result<HttpResponse, Problem> {
    let query = Query::read(request.query_string(), KNOWN)?;
    let silence =
        ask::duration(&query, "heartbeat", hookcast_streams::HEARTBEAT_MIN, hookcast_streams::HEARTBEAT_MAX)?.unwrap_or(SILENCE);
    let wait = (request.method() != Method::HEAD).then_some(silence);
    let mut ask = ask::list(ask::patterns(request)?, ask::start(request, &query)?, &query)?;
    (ask.limit, ask.max_duration) = (Some(limit(&query)?), wait);
    let gathered = take(state, request, caller, ask).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((NEXT, gathered.next.to_string()))
        .body(body(&gathered.events)))
}

fn body(events: &Bytes) -> Bytes {
    if events.is_empty() {
        return Bytes::from_static(b"null");
    }
    let mut out = BytesMut::with_capacity(events.len() + 2);
    out.put_u8(b'[');
    out.put_slice(events);
    out.put_u8(b']');
    out.freeze()
}
