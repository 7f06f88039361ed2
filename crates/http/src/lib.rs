//! The edge: REST over HTTP/1.1, every refusal a problem (RFC 9457), no decision of its own about events or deliveries.
//!
//! Owns routes, answers and the server's limits. What happens behind them comes in through [`ports`]. What actix answers
//! itself, because a request cannot even be parsed (400, 431) or its head is late (408), has an empty body.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_http::{HttpService, KeepAlive};
use actix_service::{fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::guard::{self, GuardContext};
use actix_web::http::Method;
use actix_web::middleware::Condition;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, Resource, Route};

use hookcast_core::clock::Clock;
use hookcast_core::model::subscription::parse::{TextJudge, UrlJudge};
use hookcast_log::follow::Follow;
use hookcast_log::ingest::Ingest;
use hookcast_log::storage::EventLog;
use hookcast_registry::{Registry, SourceRegistry};
use hookcast_streams::Egress;
use hookcast_streams::handover::Wire;
use hookcast_supervise::readiness::Readiness;

mod ask;
mod attendance;
pub mod audit;
pub mod auth;
pub mod body;
mod connections;
mod definition;
mod events;
mod gate;
mod health;
pub mod ports;
mod posted;
pub mod problem;
mod publish;
mod pull;
mod query;
mod quota;
mod sources;
mod streams;
mod subscriptions;
pub mod tcp;
mod tickets;
pub mod tokens;
mod views;
pub mod webhook;
mod websocket;
pub mod websub;

use attendance::Attendance;
use audit::Audit;
use auth::Auth;
use body::BodyLimits;
use connections::{Connections, PARTING_MAX, Room, Times};
use ports::{Deliveries, SourceControl};
use problem::Problem;
use tokens::Tokens;

/// Largest definition of a subscription or source, in bytes.
pub const DEFINITION_BYTES_MAX: usize = 256 * 1024;

/// Time for the peer to take the end of a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sizes and times of requests.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Largest event, in bytes.
    pub event_bytes: usize,
    /// Most events in one request.
    pub batch_events: usize,
    /// Largest body of a batch, in bytes; never below what one event needs.
    pub request_bytes: usize,
    /// Most subscriptions.
    pub subscriptions: usize,
    /// Time for a body; fast ones get more.
    pub body_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            event_bytes: 1024 * 1024,
            batch_events: 1000,
            request_bytes: 16 * 1024 * 1024,
            subscriptions: 200_000,
            body_timeout: Duration::from_secs(15),
        }
    }
}

impl HttpLimits {
    /// Limits of a body of at most `bytes_max`, or of a batch.
    fn body(self, bytes_max: Option<usize>) -> BodyLimits {
        // The JSON form of an event is larger than its data: base64, escapes, attributes.
        let batch = self.request_bytes.max(self.event_bytes.saturating_mul(2));
        BodyLimits { bytes_max: bytes_max.unwrap_or(batch), timeout: self.body_timeout }
    }
}

/// What a definition is completed with.
#[derive(Clone, Copy, Debug)]
pub struct DefinitionDefaults {
    /// `timeout` of a subscription that names none.
    pub timeout: Duration,
    /// `max_in_flight` of a subscription that names none.
    pub max_in_flight: u32,
}

/// Everything that handlers work with.
pub struct HttpState {
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// The tokens that were made.
    pub tokens: Arc<Tokens>,
    /// Who did what.
    pub audit: Arc<Audit>,
    /// The subscriptions.
    pub registry: Registry,
    /// The sources.
    pub sources: SourceRegistry,
    /// The log, for reading.
    pub follow: Follow,
    /// What is wrong with the relay as a whole.
    pub readiness: Readiness,
    /// The log, asked whether it can be written.
    pub log: Arc<dyn EventLog>,
    /// Where published events go.
    pub ingest: Ingest,
    /// The running deliveries.
    pub deliveries: Arc<dyn Deliveries>,
    /// The running sources.
    pub source_control: Arc<dyn SourceControl>,
    /// The `WebSub` hub, if there is one.
    pub hub: Option<websub::Door>,
    /// What senders of webhooks have in use.
    pub senders: webhook::Senders,
    /// Decides whether a URL may be dialled.
    pub urls: Arc<dyn UrlJudge + Send + Sync>,
    /// Decides whether filters, templates, certificates and names of groups can be used.
    pub texts: Arc<dyn TextJudge + Send + Sync>,
    /// Protocols that sources may have.
    pub protocols: &'static [&'static str],
    /// Completes definitions.
    pub defaults: DefinitionDefaults,
    /// Writes the metrics as Prometheus text.
    pub metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Sizes and times.
    pub limits: HttpLimits,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<String>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// How the server listens.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Threads that serve requests, at least 1.
    pub workers: usize,
    /// Most connections that a worker serves.
    pub connections_max: usize,
    /// Most connections of all workers, by every door; more are refused.
    pub room: usize,
    /// Time for the head of a request: of the first from the beginning of its connection, of a later one from its first byte, or
    /// from the end of the answer before it.
    pub head_timeout: Duration,
    /// Time that an idle connection is kept, and one whose socket takes no more of an answer.
    pub keep_alive: Duration,
    /// Time for requests under way when the server is stopped.
    pub shutdown_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            connections_max: 20_000,
            room: 20_000,
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(25),
        }
    }
}

/// Serves on a bound listener.
///
/// The server runs while the returned future is polled; it installs no signal handlers, its handle stops it. HTTP/1.1 only,
/// no TLS, no compression, no access log. Requests are limited by actix to 96 headers and 128 KiB of head (431).
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(listener: TcpListener, state: Arc<HttpState>, settings: ServerSettings, egress: &Egress) -> io::Result<Server> {
    serve_both(listener, None, state, settings, egress)
}

/// [`serve`], and beside it the door without HTTP ([`tcp`]) on a listener of its own, by the same workers.
///
/// # Errors
/// When a listener cannot be used.
pub fn serve_both(
    listener: TcpListener,
    plain: Option<TcpListener>,
    state: Arc<HttpState>,
    settings: ServerSettings,
    egress: &Egress,
) -> io::Result<Server> {
    let egress = egress.clone();
    let builder = Server::build();
    let draining = builder.graceful_shutdown_signal();
    let address = listener.local_addr()?;
    let room = Room::new(settings.room);
    // Beyond the room only as many as are being refused: the rest waits in the kernel, without a descriptor of ours.
    let workers = settings.workers.max(1);
    let places = settings.room.min(workers.saturating_mul(settings.connections_max));
    let most_of_worker = places.saturating_add(PARTING_MAX).div_ceil(workers);
    let builder = builder
        .workers(workers)
        .max_concurrent_connections(most_of_worker)
        .shutdown_timeout(settings.shutdown_timeout.as_secs())
        .disable_signals();
    let builder = match plain {
        None => builder,
        Some(plain) => {
            let (state, egress, room) = (Arc::clone(&state), egress.clone(), room.clone());
            builder.listen("hookcast-tcp", plain, move || {
                let (state, worker, room) = (Arc::clone(&state), egress.worker(), room.clone());
                fn_service(move |socket| tcp::serve(socket, Arc::clone(&state), worker.clone(), &room))
            })?
        }
    };
    let server = builder.listen("hookcast", listener, move || {
        let draining = draining.clone();
        let http = HttpService::build()
            // These two times are kept by what stands around it.
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .keep_alive(KeepAlive::Os)
            .h1_write_buffer_size(hookcast_streams::socket::WRITE_BUFFER_BYTES)
            // A client that shut its sending side down is gone: nothing else tells an abandoned stream from a quiet one.
            .h1_allow_half_closed(false)
            .local_addr(address)
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .on_connect_ext(|wire: &Wire, data| drop(data.insert(wire.connection())))
            .finish(map_config(application(&state, &egress), |()| AppConfig::default()));
        let times = Times { head: settings.head_timeout, keep_alive: settings.keep_alive };
        Connections { http, times, room: room.clone() }
    })?;
    Ok(server.run())
}

/// The routes behind everything that a request passes.
fn application(
    state: &Arc<HttpState>,
    egress: &Egress,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    App::new()
        .app_data(Data::from(Arc::clone(state)))
        .app_data(egress.worker())
        .configure(configure)
        .default_service(web::to(problem::nothing_here))
        .wrap(gate::Gate { auth: Arc::clone(&state.auth), audit: Arc::clone(&state.audit) })
        .wrap(Condition::new(!state.cors_origins.is_empty(), cors(&state.cors_origins)))
        .wrap(Attendance)
}

/// Lets pages of these origins, and no others, call the API with a token.
fn cors(origins: &[String]) -> Cors {
    const PREFLIGHT_MAX_AGE_S: usize = 600;
    origins
        .iter()
        .fold(Cors::default(), |cors, origin| cors.allowed_origin(origin))
        .allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        .allowed_headers(["authorization", "content-type", "idempotency-key", "if-match", "if-none-match", "last-event-id"])
        .expose_headers(["etag", "hookcast-next", "location", "retry-after"])
        .block_on_origin_mismatch(false)
        .max_age(PREFLIGHT_MAX_AGE_S)
}

/// Registers every route of this module.
fn configure(config: &mut ServiceConfig) {
    config
        // Without a pattern: matching one would cost an event more than all other checks together.
        .service(web::scope("/v1/topics").guard(guard::fn_guard(is_for_events)).default_service(web::to(events_of_topic)))
        .service(at("/v1/topics", "GET, HEAD").route(get().to(events::topics)))
        .service(
            at("/v1/events/{seq}", "GET, HEAD, DELETE").route(get().to(events::event)).route(web::delete().to(events::purge)),
        )
        .service(at("/healthz", "GET, HEAD").route(get().to(health::alive)))
        .service(at("/readyz", "GET, HEAD").route(get().to(health::ready)))
        .service(at("/metrics", "GET, HEAD").route(get().to(health::metrics)))
        .service(at("/problems/{slug}", "GET, HEAD").route(get().to(problem::explain)))
        .configure(audit::configure)
        .configure(tokens::configure)
        .configure(streams::routes)
        .configure(tickets::configure)
        .configure(websub::routes)
        .configure(webhook::routes)
        .configure(subscriptions::configure)
        .configure(sources::configure);
}

fn is_for_events(request: &GuardContext<'_>) -> bool {
    request.head().uri.path().ends_with("/events")
}

/// `/v1/topics/{topic}/events`
async fn events_of_topic(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let topic = topic_of(request.match_info().unprocessed()).ok_or_else(Problem::not_found)?.to_owned();
    match *request.method() {
        Method::POST => publish::publish(state, request, &topic, payload).await,
        // In a box, so that what publishes is not as large as what waits.
        Method::GET | Method::HEAD => Box::pin(pull::events(&state, &request, &topic)).await,
        _ => Err(problem::wrong_method("GET, HEAD, POST")),
    }
}

/// The topic of `/{topic}/events`.
fn topic_of(rest: &str) -> Option<&str> {
    let topic = rest.strip_prefix('/')?.strip_suffix("/events")?;
    (!topic.is_empty() && !topic.contains('/')).then_some(topic)
}

/// A path that answers 405 with `Allow` to every other method.
fn at(path: &str, allowed: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move { Err::<HttpResponse, _>(problem::wrong_method(allowed)) }))
}

/// A route for GET and for HEAD, whose body actix leaves out.
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

#[cfg(test)]
mod tests {
    use super::topic_of;

    #[test]
    fn the_topic_of_a_publish_is_the_one_segment_before_events() {
        assert_eq!(topic_of("/a.b/events"), Some("a.b"));
        for rest in ["", "/", "/events", "//events", "/a/b/events", "/a/events/", "a/events"] {
            assert_eq!(topic_of(rest), None, "{rest}");
        }
    }
}
