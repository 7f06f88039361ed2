//! Streams out: every client is a position in the log and a body that the server asks for more.
//!
//! [`Egress`] is made once, a [`Worker`] from it in every server worker, and [`respond`] makes the response of one stream.
//! A worker has a ring of encoded events for each distinct kind of stream, fed by one task that follows the log; clients
//! read the ring, or the log while they are further back than the ring. Knows neither tokens nor URLs.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::{BoxBody, None as NoBody};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS};
use actix_web::http::{ConnectionType, Method, Version};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use tokio_util::sync::CancellationToken;

use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::{PatternList, Seq};
use hookcast_log::follow::{Follow, StorageError};
use hookcast_supervise::Supervisor;

mod chunk;
mod client;
mod counts;
mod feeder;
pub mod format;
pub mod gather;
pub mod handover;
mod history;
pub mod plain;
mod ring;
mod segment;
mod sleepers;
pub mod socket;
pub mod start;
pub mod websocket;
mod wheel;
mod worker;
mod writer;

use chunk::Wrapping;
pub use client::StreamBroken;
pub use counts::{Allowance, StreamCounts};
use counts::{Counters, Hold, Permit};
use format::{Envelope, Format, Notice, Style};
use handover::Connection;
use ring::{Encoding, Selection};
use sleepers::Schedule;
use start::Start;
use worker::State;

/// Shortest heartbeat that a client may ask for.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Longest heartbeat that a client may ask for.
pub const HEARTBEAT_MAX: Duration = Duration::from_mins(5);
/// Most event types a stream may name.
pub const TYPES_MAX: usize = 64;

/// Limits of all streams.
#[derive(Clone, Copy, Debug)]
pub struct EgressSettings {
    /// Most streams open at once in the process.
    pub streams_max: usize,
    /// Longest silence on a stream that does not say otherwise.
    pub heartbeat: Duration,
    /// How often heartbeats and ends are looked at; both are at most this late.
    pub tick: Duration,
    /// Most encoded bytes a ring keeps; its newest event always stays.
    pub ring_bytes_max: usize,
    /// Most encoded bytes all rings of one worker keep, beyond the newest of each.
    pub worker_bytes_max: usize,
    /// Bytes of pages read from the log at once for a client behind its ring; a larger page is read whole.
    pub load_bytes_max: usize,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            streams_max: 15_000,
            heartbeat: Duration::from_secs(15),
            tick: Duration::from_secs(1),
            ring_bytes_max: 256 * 1024,
            worker_bytes_max: 16 * 1024 * 1024,
            load_bytes_max: 96 * 1024,
        }
    }
}

/// The streams of the whole process. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

struct Shared {
    follow: Follow,
    clock: Arc<dyn Clock>,
    closing: CancellationToken,
    settings: EgressSettings,
    counters: Arc<Counters>,
    supervisor: Supervisor,
    /// Workers that were numbered.
    workers: AtomicUsize,
}

/// The streams of one server worker: made inside the worker, handed to its application as data. Cheap to clone, not `Send`.
#[derive(Clone)]
pub struct Worker(Rc<State>);

/// What a client wants.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Which topics.
    pub patterns: PatternList,
    /// Which event types, at most [`TYPES_MAX`]; empty = all.
    pub types: Vec<String>,
    /// Which of them, by their content; a checked expression.
    pub filter: Option<Box<str>>,
    /// How it is written.
    pub format: &'static Format,
    /// How it is dressed.
    pub style: Style,
    /// Whether bytes that fill the buffers on the way come first.
    pub padding: bool,
    /// Where it begins.
    pub start: Start,
    /// Ends behind this many events.
    pub limit: Option<u64>,
    /// Ends after this long.
    pub max_duration: Option<Duration>,
    /// Longest silence, when not the usual one.
    pub heartbeat: Option<Duration>,
    /// Origins whose pages may show the answer in a frame.
    pub origins: Vec<String>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// As many streams are open as allowed.
    #[error("as many streams are open as `limits.streams` allows")]
    TooMany,
    /// The relay is shutting down.
    #[error("the relay is shutting down")]
    Closing,
    /// The log is damaged where it would go on.
    #[error("the log cannot be read at the position of this stream")]
    Broken,
    /// The server does not let go of the connection.
    #[error("the connection cannot be taken over from the server")]
    NoConnection,
    /// The log did not say where the stream begins.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Egress {
    /// Streams over this log. Cancelling `closing` ends every stream cleanly and refuses new ones.
    #[must_use]
    pub fn new(
        follow: Follow,
        clock: Arc<dyn Clock>,
        closing: CancellationToken,
        settings: EgressSettings,
        supervisor: Supervisor,
    ) -> Self {
        let (counters, workers) = (Arc::default(), AtomicUsize::default());
        Self(Arc::new(Shared { follow, clock, closing, settings, counters, supervisor, workers }))
    }

    /// The part of one server worker; to be called on its thread, where everybody who asks gets the same.
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker(State::of_thread(self))
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> StreamCounts {
        self.0.counters.read()
    }

    fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }

    /// A number for a worker, from 1.
    fn next_worker(&self) -> usize {
        self.0.workers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn follow(&self) -> &Follow {
        &self.0.follow
    }

    fn settings(&self) -> &EgressSettings {
        &self.0.settings
    }

    fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    fn count_sent(&self, events: u64, bytes: u64) {
        self.0.counters.add_sent(events, bytes);
    }

    fn admit(&self) -> Result<Permit, StreamError> {
        if self.is_closing() {
            return Err(StreamError::Closing);
        }
        self.0.counters.admit(self.0.settings.streams_max as u64).ok_or(StreamError::TooMany)
    }

    /// The same for a position.
    fn locate_after(&self, seq: Seq) -> (Seq, Option<Notice>) {
        let head = self.0.follow.head();
        if seq == Seq::ZERO {
            (self.0.follow.first_kept().prev(), None)
        } else if seq > head {
            (head, Some(Notice::Reset { head }))
        } else {
            (seq, None)
        }
    }

    /// The position behind which a stream begins, and whether it asked for one beyond the log.
    async fn locate(&self, start: Start) -> Result<(Seq, Option<Notice>), StorageError> {
        let follow = &self.0.follow;
        let earliest = || follow.first_kept().prev();
        Ok(match start {
            Start::Latest => (follow.head(), None),
            Start::Earliest => (earliest(), None),
            Start::After(seq) => self.locate_after(seq),
            Start::At(time) => (follow.before_time(time).await?.max(earliest()), None),
            Start::Ago(ago) => (follow.before_time(self.0.clock.now().minus(ago)).await?.max(earliest()), None),
        })
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

/// Answers a request for a stream: the head at once, then events as they come. A `HEAD` request leaves nothing behind.
///
/// # Errors
/// [`StreamError`] when no stream can begin now.
pub async fn respond(request: &HttpRequest, worker: &Worker, ask: Ask) -> Result<HttpResponse, StreamError> {
    let format = ask.format;
    let mut answer = head(request, format, &ask.origins);
    if request.method() == Method::HEAD {
        return Ok(answer.set_body(BoxBody::new(NoBody::new())));
    }
    let mut permit = worker.0.egress.admit()?;
    permit.keep(request.extensions_mut().remove());
    // Behind a stream that may end another request may follow; the server keeps such a connection.
    let is_endless = ask.limit.is_none() && ask.max_duration.is_none();
    let (client, unsaid) = open(worker, ask, permit).await?;
    if let Some((name, value)) = unsaid {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
    // What knows no chunks ends with its connection.
    let wrapping = if request.version() >= Version::HTTP_11 { Wrapping::Chunked } else { Wrapping::Bare };
    let connection = request.conn_data::<Connection>();
    if let Some(connection) = connection.filter(|_| format.is_silent()) {
        connection.probe();
    }
    let Some(connection) = connection.filter(|_| is_endless) else { return Ok(answer.set_body(BoxBody::new(client))) };
    // The connection ends with the stream, so nobody may keep it for the next request.
    answer.head_mut().set_connection_type(ConnectionType::Close);
    Ok(answer.set_body(BoxBody::new(connection.give_to(client, wrapping))))
}

/// Leaves with a request what its stream is allowed by. It is dropped with the stream, or when there is none; once it is over,
/// the stream ends within a tick.
pub fn hold(request: &HttpRequest, allowance: impl Allowance + 'static) {
    request.extensions_mut().insert(Hold(Rc::new(allowance)));
}

/// A header that says what a format cannot say in the body.
type Unsaid = Option<(&'static str, HeaderValue)>;

async fn open(worker: &Worker, mut ask: Ask, permit: Permit) -> Result<(client::Client, Unsaid), StorageError> {
    let state = &worker.0;
    let (after, reset) = state.egress.locate(ask.start).await?;
    if reset.is_some() {
        permit.count_reset();
    }
    let unsaid = if ask.format.gap_ends { unsaid(after, reset.as_ref(), state.egress.follow().first_kept()) } else { None };
    ask.types.sort_unstable();
    ask.types.dedup();
    let envelope = if ask.format.has_envelope { ask.style.envelope } else { Envelope::Native };
    let style = Style { envelope, ..ask.style };
    let (patterns, types, filter) = (ask.patterns, ask.types.into(), ask.filter.map(Rc::from));
    let selection = Selection { patterns, types, filter, format: ask.format.name, style: style.clone() };
    let settings = state.egress.settings();
    let ticks =
        |time: Duration| u64::try_from(time.as_nanos().div_ceil(settings.tick.as_nanos().max(1))).unwrap_or(u64::MAX).max(1);
    let schedule = Schedule {
        heartbeat: ticks(ask.heartbeat.unwrap_or(settings.heartbeat)),
        // The present tick is already under way.
        end: ask.max_duration.map_or(u64::MAX, |time| state.tick().saturating_add(ticks(time)).saturating_add(1)),
    };
    let opening = client::Opening { after, reset, events_max: ask.limit.unwrap_or(u64::MAX), schedule, padding: ask.padding };
    let ring = state.join(selection, Encoding { format: ask.format, style });
    Ok((client::Client::new(Rc::clone(state), ring, &opening, permit), unsaid))
}

fn unsaid(after: Seq, reset: Option<&Notice>, first_kept: Seq) -> Unsaid {
    if let Some(reset) = reset {
        return Some((format::UNSAID_RESET, HeaderValue::from(reset.seq().0)));
    }
    let missing = after.next()..first_kept;
    let value = || HeaderValue::try_from(format!("{}-{}", missing.start, missing.end.prev())).ok();
    if missing.is_empty() { None } else { value().map(|value| (format::UNSAID_GAP, value)) }
}

fn head(request: &HttpRequest, format: &Format, origins: &[String]) -> HttpResponse<()> {
    let mut response = HttpResponse::Ok().finish().drop_body();
    let head = response.head_mut();
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type));
    // Nothing in between may keep, gather, compress or guess at a stream.
    head.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    head.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    head.headers_mut().insert(HeaderName::from_static("incremental"), HeaderValue::from_static("?1"));
    head.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    head.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    (format.head)(head.headers_mut(), origins);
    if request.version() < Version::HTTP_11 {
        // Chunks are not known there: the end of the connection is the end of the body.
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    response
}
