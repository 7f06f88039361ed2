//! `GET` and `POST /v1/topics/{patterns}/stream`: reads what the client wants and hands it to `egress`.
//!
//! Must know neither how parameters are read nor how streams are fed.

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse, web};

use super::auth::Caller;
use super::problem::{self, Problem};
use super::pull::conduit;
use super::tickets::caller_of;
use super::{HttpState, ask, at, get, posted, websocket, websub};

use hookcast_streams::websocket::Handshake;
use hookcast_streams::{Ask, StreamError, Worker};

/// Formats that are pages: whoever frames one cannot set a header, and must not be let in by what a browser adds by itself.
const PAGES: &[&str] = &["html"];

/// Adds the stream of topics. The application must hold a [`Worker`] as data.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    let resource = at("/v1/topics/{patterns}/stream", "GET, HEAD, POST");
    config.service(resource.route(get().to(stream)).route(web::post().to(posted_stream)));
}

async fn stream(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = caller_of(&state, &request)?;
    if conduit::is_asked(&request) {
        return Box::pin(conduit::respond(&state, &request, &caller)).await;
    }
    let handshake = websocket::handshake(&request, &state.cors_origins)?;
    let ask = ask::stream(&request)?;
    answer(&state, &request, &caller, ask, handshake).await
}

/// A stream whose parameters, or some of them, are too long for an address.
async fn posted_stream(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = caller_of(&state, &request)?;
    let posted = posted::parameters(&request, payload, &state).await?;
    let ask = ask::posted_stream(&request, posted)?;
    answer(&state, &request, &caller, ask, None).await
}

async fn answer(
    state: &HttpState,
    request: &HttpRequest,
    caller: &Caller,
    mut ask: Ask,
    handshake: Option<Handshake>,
) -> Result<HttpResponse, Problem> {
    let worker = request.app_data::<Worker>().expect("invariant: every worker has its streams");
    ask.origins.clone_from(&state.cors_origins);
    caller.follow(&ask.patterns)?;
    if PAGES.contains(&ask.format.name) {
        caller.must_have_ticket()?;
    }
    if let Some(seat) = caller.seat(&state.clock)? {
        hookcast_streams::hold(request, seat);
    }
    let link = websub::discovery(state, request, &ask.patterns);
    let mut response = match handshake {
        Some(handshake) => hookcast_streams::websocket::upgrade(request, worker, ask, handshake).await?,
        None => hookcast_streams::respond(request, worker, ask).await?,
    };
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::TooMany => {
                Self::of_slug("too_many_streams", 503, "as many streams are open as `limits.streams` allows; come back later")
                    .retry_after(5)
            }
            StreamError::Closing => {
                Self::of_slug("unavailable", 503, "the relay is shutting down; come back in a moment").retry_after(1)
            }
            StreamError::Broken => {
                Self::new(problem::INTERNAL, "the log cannot be read at this position; the relay's log says more")
            }
            error => {
                tracing::warn!(%error, "a stream could not begin");
                Self::of_slug("unavailable", 503, "the storage did not say where the stream begins; repeat in a moment")
                    .retry_after(1)
            }
        }
    }
}
