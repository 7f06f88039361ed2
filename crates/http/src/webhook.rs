//! `POST /v1/sources/{name}/webhook`: other people's webhooks, taken in; and the questions that senders ask first.
//!
//! Open to everybody, because a signature is the credential: what can be judged without the body is judged before it is read,
//! what many send without a proof is counted by address, and bodies that are not small share a bounded room. A good signature
//! is never refused for the bad ones of others. Answers 2xx only once the event is durable. What a signature is, and how an
//! event is made, is `source::webhook`'s business.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::form_urlencoded;

use super::auth::guesses::Guesses;
use super::auth::{Caller, Scope};
use super::body::{BodyLimits, read_body, refuse_encoding};
use super::problem::{self, Problem};
use super::{HttpState, at};
use hookcast_core::codec::cloudevents::decode_headers;
use hookcast_core::model::event::HOPS_MAX;
use hookcast_log::ingest::Offer;
use hookcast_source::webhook::{Arrival, Door, VerifyError};

/// Requests without a proof a minute that an address is told the reason of; more are told to wait.
pub(super) const FORGERIES_MAX: u32 = 60;
/// Longest body that needs no room, in bytes.
pub(super) const SMALL_BODY_BYTES: usize = 64 * 1024;
/// Bytes of larger bodies that may be on their way in at the same time.
pub(super) const LARGE_BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest challenge that is given back, in bytes.
pub(super) const CHALLENGE_BYTES_MAX: usize = 1024;

const ROOM_UNIT_BYTES: usize = 1024;
/// Longest wait for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
const ALLOWED: &str = "GET, POST, OPTIONS";

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
const HOPS: HeaderName = HeaderName::from_static("hookcast-hops");
const NO_SNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// What senders of webhooks have in use.
#[derive(Debug)]
pub struct Senders {
    forgeries: Guesses,
    room: Arc<Semaphore>,
}

impl Default for Senders {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(LARGE_BODIES_BYTES_MAX / ROOM_UNIT_BYTES));
        Self { forgeries: Guesses::default(), room }
    }
}

impl Senders {
    /// Room for the body of a request; none is needed for a small one.
    async fn room(&self, request: &HttpRequest, bytes_max: usize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = announced.unwrap_or(bytes_max).min(bytes_max).min(LARGE_BODIES_BYTES_MAX);
        if bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(ROOM_TIMEOUT, Arc::clone(&self.room).acquire_many_owned(units)).await;
        let busy = || Problem::new(problem::BUSY, "too many large webhooks are on their way; send it again").retry_after(1);
        room.ok().and_then(Result::ok).map(Some).ok_or_else(busy)
    }
}

/// Adds the route.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    let place = at("/v1/sources/{name}/webhook", ALLOWED)
        .route(web::post().to(take))
        .route(web::get().to(challenged))
        .route(web::method(Method::OPTIONS).to(asked));
    config.service(place);
}

/// The door of the path, if there is a source of webhooks of this name.
fn door(state: &HttpState, request: &HttpRequest) -> Result<Arc<Door>, Problem> {
    let record = request.match_info().get("name").and_then(|name| state.sources.get(name));
    record.and_then(|record| state.source_control.door(&record)).ok_or_else(Problem::not_found)
}

/// The value of a header as text, empty if it is absent or no text.
fn header_of<'r>(request: &'r HttpRequest) -> impl Fn(&str) -> &'r str {
    move |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Takes one webhook; answers once it is durable.
async fn take(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let door = door(&state, &request)?;
    let now = state.clock.now();
    let caller = admit(&state, &request, &door)?;
    refuse_encoding(&request)?;
    let _room = state.senders.room(&request, door.bytes_max()).await?;
    let limits = BodyLimits { bytes_max: door.bytes_max(), timeout: state.limits.body_timeout };
    let body = read_body(&request, payload, limits).await.inspect_err(|problem| {
        if problem.slug() == problem::PAYLOAD_TOO_LARGE.slug {
            door.too_large(now);
        }
    })?;
    let header = header_of(&request);
    door.lock().open(&header, &body, now).map_err(|error| forged(&state, &request, &door, error))?;
    let hops = hops(&request)?;
    if let Some(challenge) = challenge_of(&body) {
        return echo(&challenge);
    }
    door.read(body.len());
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_cloudevent = request.headers().contains_key("ce-type");
    let pairs = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    // Attributes that cannot be read are left out: the body is what was signed, and it is taken.
    let attributes = is_cloudevent.then(|| decode_headers(pairs).ok()).flatten();
    let size = body.len();
    let event = door.event(&header, Arrival { content_type, attributes, hops, body }, now);
    event.check().map_err(|error| Problem::new(problem::INVALID_EVENT, error.to_string()))?;
    if let Some(usage) = caller.as_ref().and_then(Caller::usage) {
        usage.publish(1)?;
    }
    let mut offer = Offer::with_capacity(1, size);
    offer.push(&event);
    drop(event);
    let placed = state.ingest.publish_sent(Arc::new(offer)).await.map_err(|error| super::publish::refused(&error))?;
    let is_new = placed.first().is_some_and(|placed| !placed.duplicate);
    if is_new {
        door.stored(now);
    } else {
        door.repeated(now);
    }
    let answer = if is_new { r#"{"accepted":1,"duplicates":0}"# } else { r#"{"accepted":0,"duplicates":1}"# };
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(answer))
}

/// What must be there before anything is read: a signature that may be good, or the right to publish where none is asked for.
fn admit(state: &HttpState, request: &HttpRequest, door: &Door) -> Result<Option<Caller>, Problem> {
    if door.lock().is_open() {
        let caller = state.auth.require(request, Scope::Publish)?;
        caller.touch(door.topic())?;
        return Ok(Some(caller));
    }
    let glance = door.lock().glance(&header_of(request), state.clock.now());
    glance.map(|()| None).map_err(|error| forged(state, request, door, error))
}

/// Counts a request without a proof. Its sender is not told what was wrong with it; the operator is.
fn forged(state: &HttpState, request: &HttpRequest, door: &Door, error: VerifyError) -> Problem {
    let (peer, now): (Option<IpAddr>, _) = (request.peer_addr().map(|address| address.ip()), state.clock.now());
    let wait = state.senders.forgeries.count(peer, now, FORGERIES_MAX);
    door.refused(error, wait.is_none(), now);
    match wait {
        Some(wait_s) => {
            let detail = "too many webhooks without an acceptable signature came from this address";
            Problem::new(problem::TOO_MANY_REQUESTS, detail).retry_after(wait_s)
        }
        None => Problem::new(problem::BAD_SIGNATURE, "nothing was taken; the source's GET says what was wrong with it")
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Webhook")),
    }
}

/// How many relays it came through; one that comes round and round ends here.
fn hops(request: &HttpRequest) -> Result<u8, Problem> {
    let Some(value) = request.headers().get(HOPS) else { return Ok(0) };
    let hops: Option<u8> = value.to_str().ok().and_then(|text| text.parse().ok());
    hops.filter(|hops| *hops <= HOPS_MAX).ok_or_else(|| {
        let (name, value) = super::publish::ABORT;
        let detail = format!("`hookcast-hops` is not a number up to {HOPS_MAX}: the event went through too many relays");
        Problem::of_slug(problem::LOOP_DETECTED.slug, 508, detail).header(name, value)
    })
}

/// The challenge of a body that is nothing but one: Slack's, and what another relay posts to an endpoint that knows no GET.
fn challenge_of(body: &Bytes) -> Option<String> {
    const MARKS: [&[u8]; 2] = [b"url_verification", b"hookcast.verification"];
    const QUESTION_BYTES_MAX: usize = 4096;
    if body.len() > QUESTION_BYTES_MAX || !MARKS.iter().any(|mark| memchr::memmem::find(body, mark).is_some()) {
        return None;
    }
    let question: serde_json::Value = serde_json::from_slice(body).ok()?;
    let is_question = question["type"].as_str().is_some_and(|kind| MARKS.contains(&kind.as_bytes()));
    question["challenge"].as_str().filter(|_| is_question).map(str::to_owned)
}

/// `GET`: a challenge of a hub that knows our token, or a signed one of another relay.
async fn challenged(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let door = door(&state, &request)?;
    let find = |wanted: &str| {
        form_urlencoded::parse(request.query_string().as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value)
    };
    if let Some(mode) = find("hub.mode") {
        if !find("hub.verify_token").is_some_and(|token| door.is_verify_token(&token)) {
            return Err(forged(&state, &request, &door, VerifyError::Mismatch));
        }
        return match find("hub.challenge") {
            Some(challenge) => echo(&challenge),
            // A hub that says why it sends nothing.
            None if mode == "denied" => Ok(HttpResponse::Ok().finish()),
            None => Err(no_challenge()),
        };
    }
    let challenge = find("challenge").ok_or_else(no_challenge)?;
    admit(&state, &request, &door)?;
    let judged = door.lock().open(&header_of(&request), &[], state.clock.now());
    judged.map_err(|error| forged(&state, &request, &door, error))?;
    echo(&challenge)
}

fn no_challenge() -> Problem {
    problem::wrong_method("POST, OPTIONS")
}

/// Gives a challenge back as a text that no browser takes for more.
fn echo(challenge: &str) -> Result<HttpResponse, Problem> {
    if !(1..=CHALLENGE_BYTES_MAX).contains(&challenge.len()) || !challenge.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let detail = format!("a challenge is 1 to {CHALLENGE_BYTES_MAX} printable ASCII characters");
        return Err(Problem::of_slug("challenge", 422, detail));
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(NO_SNIFF)
        .body(challenge.to_owned()))
}

/// `OPTIONS`: whether a sender may send, as `CloudEvents` "HTTP 1.1 Web Hooks for Event Delivery" 1.0, section 4, has it asked.
/// Anybody may; what they send needs a proof all the same.
async fn asked(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    door(&state, &request)?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::ALLOW, ALLOWED));
    let origin = request.headers().get(&REQUEST_ORIGIN).filter(|origin| (1..=255).contains(&origin.len()));
    if let Some(origin) = origin {
        answer.insert_header((ALLOWED_ORIGIN, origin.clone()));
        if request.headers().contains_key(&REQUEST_RATE) {
            answer.insert_header((ALLOWED_RATE, "*"));
        }
    }
    Ok(answer.finish())
}
