//! `GET /v1/topics/{patterns}/events`: the events behind a position as one JSON answer, waited for if that is asked; as a script
//! with `callback=`.
//!
//! Owns the parameters and the form of the answer; what is gathered is the business of `hookcast_streams::gather`. The position of the next
//! answer is in `next` and, because a 304 has no body, in a header, too.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::{BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::HttpState;
use super::ask::{self, Query};
use super::auth::{Caller, origin};
use super::problem::Problem;
use super::tickets::{self, caller_of};
use hookcast_streams::gather::{EVENTS_MAX, Gathered, gather};
use hookcast_streams::start::Start;
use hookcast_streams::{Ask, Worker};

pub(super) mod conduit;
mod script;

/// Events of an answer when `limit` is not given.
const LIMIT_DEFAULT: u64 = 100;
/// Longest wait for the first event.
const WAIT_MAX_S: u64 = 120;
/// Position scanned so far, as in `next`.
pub(super) const NEXT: HeaderName = HeaderName::from_static("hookcast-next");

/// Parameters that a pull knows.
const KNOWN: &[&str] = &["after", "since", "last_event_id", "types", "filter", "limit", "wait", "callback", tickets::PARAMETER];

/// Answers with what stands behind the position.
pub(super) async fn events(state: &HttpState, request: &HttpRequest, patterns: &str) -> Result<HttpResponse, Problem> {
    let caller = caller_of(state, request)?;
    let query = Query::read(request.query_string(), KNOWN)?;
    let callback = script::callback(&query)?;
    if callback.is_some() {
        caller.must_have_ticket()?;
        if !state.auth.has_tokens() {
            origin::check_script(request.headers())?;
        }
    }
    let ask = wanted(request, &query, patterns)?;
    let gathered = take(state, request, &caller, ask).await?;
    let tag = tag(&gathered.events, callback);
    let mut response =
        if is_known(request.headers(), &tag) { HttpResponse::build(StatusCode::NOT_MODIFIED) } else { HttpResponse::Ok() };
    // A cache may keep it, but has to ask whether it is still the same.
    response.insert_header((header::CACHE_CONTROL, "private, no-cache")).insert_header((header::ETAG, tag));
    response.insert_header((NEXT, gathered.next.to_string())).insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    Ok(match callback {
        Some(callback) => script::finish(&mut response, callback, &body(&gathered)),
        None => finish(&mut response, body(&gathered)),
    })
}

fn finish(response: &mut HttpResponseBuilder, body: Bytes) -> HttpResponse {
    response.insert_header((header::CONTENT_TYPE, "application/json")).body(body)
}

/// Gathers for a caller who may have all of it; it counts as a stream of theirs.
async fn take(state: &HttpState, request: &HttpRequest, caller: &Caller, ask: Ask) -> Result<Gathered, Problem> {
    let worker = request.app_data::<Worker>().expect("invariant: every worker has its streams");
    caller.follow(&ask.patterns)?;
    if let Some(seat) = caller.seat(&state.clock)? {
        hookcast_streams::hold(request, seat);
    }
    Ok(gather(request, worker, ask).await?)
}

fn wanted(request: &HttpRequest, query: &Query<'_>, patterns: &str) -> Result<Ask, Problem> {
    let mut ask = ask::list(ask::parse_patterns(patterns)?, start(request, query)?, query)?;
    ask.limit = Some(limit(query)?);
    // Who only asks for the head has nothing to wait for.
    ask.max_duration = wait(query)?.filter(|wait| !wait.is_zero() && request.method() != Method::HEAD);
    Ok(ask)
}

/// Behind the last event seen, else behind `after`, else where `since` says; else at the earliest event kept.
fn start(request: &HttpRequest, query: &Query<'_>) -> Result<Start, Problem> {
    if let Some(start) = ask::last_event_id(request, query)? {
        return Ok(start);
    }
    if let Some(after) = query.get("after") {
        let refusal = |_| Problem::of_slug("after", 422, "allowed: the `next` of the answer before");
        return Start::parse_last_event_id(after.as_bytes()).map_err(refusal);
    }
    if query.get("since").is_some() { ask::start(request, query) } else { Ok(Start::Earliest) }
}

/// `limit` of an answer that ends.
fn limit(query: &Query<'_>) -> Result<u64, Problem> {
    let refusal = || Problem::of_slug("limit", 422, format!("allowed: a whole number from 1 to {EVENTS_MAX}"));
    let limit = ask::limit(query).map_err(|_| refusal())?.unwrap_or(LIMIT_DEFAULT);
    if limit > EVENTS_MAX { Err(refusal()) } else { Ok(limit) }
}

fn wait(query: &Query<'_>) -> Result<Option<Duration>, Problem> {
    let Some(text) = query.get("wait") else { return Ok(None) };
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse::<u64>().ok().filter(|seconds| is_plain && *seconds <= WAIT_MAX_S);
    let refusal = || Problem::of_slug("wait", 422, format!("allowed: whole seconds from 0 to {WAIT_MAX_S}"));
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(refusal)
}

/// `{"events":[…],"next":"…","done":…}`
fn body(gathered: &Gathered) -> Bytes {
    let end = format!("],\"next\":\"{}\",\"done\":{}}}", gathered.next, gathered.done);
    let mut out = BytesMut::with_capacity(gathered.events.len() + 16 + end.len());
    out.put_slice(b"{\"events\":[");
    out.put_slice(&gathered.events);
    out.put_slice(end.as_bytes());
    out.freeze()
}

/// A weak tag: the same as long as the events are, whatever was scanned behind them.
fn tag(events: &Bytes, callback: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update(callback.unwrap_or_default());
    hash.update(b"\0");
    hash.update(events);
    let digits = hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    format!("W/\"{digits}\"")
}

/// Whether the client says that it has this already; compared weakly (RFC 9110, section 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let given = headers.get_all(header::IF_NONE_MATCH).filter_map(|value: &HeaderValue| value.to_str().ok());
    given.flat_map(|value| value.split(',')).map(str::trim).any(|one| one == "*" || opaque(one) == opaque(tag))
}

#[cfg(test)]
mod tests;
