//! `POST /websub`, where subscribers of the hub ask, and `GET /v1/topics/{pattern}`, where they learn of it.
//!
//! Open to everybody, since a subscriber is believed only once its callback has confirmed; so what one address may ask is
//! counted, and bodies are small. Must not know what becomes of a request.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::auth::guesses::Guesses;
use super::body::{BodyLimits, read_body, refuse_encoding};
use super::problem::{self, Problem};
use super::{HttpState, at, get};
use hookcast_core::model::PatternList;
use hookcast_websub::{Hub, SubmitError};

/// Requests a minute that an address may make.
pub(super) const REQUESTS_MAX: u32 = 60;
/// Largest form, in bytes.
pub(super) const FORM_BYTES_MAX: usize = 16 * 1024;
/// Media type of the form.
const FORM_TYPE: &str = "application/x-www-form-urlencoded";
/// Seconds after which a hub with much to do may be asked again.
const BUSY_S: u32 = 10;

/// The hub as the edge shows it.
#[derive(Debug)]
pub struct Door {
    hub: Arc<Hub>,
    peers: Guesses,
}

impl Door {
    /// A door to a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, peers: Guesses::default() }
    }
}

/// Adds the routes; both answer 404 while there is no hub.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(at("/websub", "POST").route(web::post().to(submit)))
        .service(at("/v1/topics/{patterns}", "GET, HEAD").route(get().to(topic)));
}

fn door(state: &HttpState) -> Result<&Door, Problem> {
    state.hub.as_ref().filter(|door| door.hub.is_open()).ok_or_else(Problem::not_found)
}

async fn submit(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let Door { hub, peers } = door(&state)?;
    let peer: Option<IpAddr> = request.peer_addr().map(|address| address.ip());
    if let Some(wait_s) = peers.count(peer, state.clock.now(), REQUESTS_MAX) {
        let detail = format!("allowed: {REQUESTS_MAX} requests a minute from one address");
        return Err(Problem::new(problem::TOO_MANY_REQUESTS, detail).retry_after(wait_s));
    }
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM_TYPE) {
        return Err(Problem::new(problem::MEDIA_TYPE, format!("send a form: {FORM_TYPE}")));
    }
    refuse_encoding(&request)?;
    let limits = BodyLimits { bytes_max: FORM_BYTES_MAX, timeout: state.limits.body_timeout };
    let form = read_body(&request, payload, limits).await?;
    match hub.submit(&form) {
        Ok(()) => Ok(HttpResponse::Accepted().finish()),
        Err(SubmitError::Invalid(invalid)) => Err(Problem::of_slug(invalid.slug, 422, invalid.detail)),
        Err(SubmitError::Busy) => {
            Err(Problem::new(problem::BUSY, "too many verifications are under way; repeat in a moment").retry_after(BUSY_S))
        }
    }
}

/// What a subscriber must know of a topic: its URL and its hub. Of topics that are not offered nothing is said.
async fn topic(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    door(&state)?;
    let patterns = request.match_info().get("patterns").unwrap_or_default();
    let patterns: PatternList = patterns.parse().map_err(|_| Problem::not_found())?;
    let link = discovery(&state, &request, &patterns).ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(json!({ "topics": patterns })))
}

/// The `Link` header that tells of the hub, for topics that it offers.
pub(super) fn discovery(state: &HttpState, request: &HttpRequest, patterns: &PatternList) -> Option<HeaderValue> {
    let door = state.hub.as_ref().filter(|door| door.hub.is_open())?;
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    // Somebody who names no host, or no possible one, is told nothing that would lead nowhere.
    let seen_at = (!host.is_empty() && host.bytes().all(is_host)).then(|| format!("http://{host}"));
    HeaderValue::from_str(&door.hub.discovery(patterns, seen_at.as_deref())?).ok()
}
