//! Sources: reads upstream event streams and hands their events on, in order, with the upstream's own position.
//!
//! A protocol is one file and one row of [`SOURCES`]. `supervisor` keeps one task a source, `runner` goes round
//! connect–read–reconnect, `reconnect` decides when, `session` is what a protocol works with, `stream` reads bodies that are
//! one endless sequence of records, `twitter` what one service says inside them, `record` makes events, `status` is what operators see. Knows nothing of storage,
//! deduplication or HTTP serving: events leave through an [`Emitter`], connections come from an
//! [`UpstreamClient`], which `fetcher` makes of the relay's gate.

mod connection;
mod credentials;
mod fetcher;
mod json_seq;
mod length;
mod long_poll;
mod multipart;
mod ndjson;
mod poll;
mod raw;
mod record;
mod request;
mod runner;
mod session;
mod sse;
mod status;
mod stream;
mod supervisor;
mod twitter;
mod watch;
mod websocket;

pub mod reconnect;
pub mod webhook;

pub use connection::{
    BodyFault, ConnectFault, UpstreamBody, UpstreamClient, UpstreamPipe, UpstreamRequest, UpstreamResponse, UpstreamUpgrade,
};
pub use credentials::TokenRequest;
pub use reconnect::{Ending, EndingClass, ReconnectSettings, SourceState};
pub use record::EventMapper;
pub use session::Session;
pub use status::{LastError, SkippedSample, SourceStatus};
pub use supervisor::Sources;
pub use watch::Turn;

use std::sync::Arc;

use async_trait::async_trait;

use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::codec::pointer::{Pointer, PointerError};
use hookcast_core::model::source::{Incarnation, SourceGap, SourceSettings, SourceSpec};
use hookcast_core::model::{NewEvent, ResumeToken, Seq};

/// Every protocol an upstream can be read with.
pub static SOURCES: &[Protocol] = &[
    ndjson::PROTOCOL,
    sse::PROTOCOL,
    json_seq::PROTOCOL,
    length::PROTOCOL,
    raw::PROTOCOL,
    multipart::PROTOCOL,
    poll::PROTOCOL,
    long_poll::PROTOCOL,
    websocket::PROTOCOL,
    webhook::PROTOCOL,
];

/// Most events handed on at once.
pub const BATCH_EVENTS_MAX: usize = 2048;
/// A batch is handed on once its data has this many bytes.
pub const BATCH_BYTES_SOFT_MAX: usize = 1024 * 1024;

/// One way of reading an upstream.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// The word in `protocol`.
    pub name: &'static str,
    /// Checks what is special about its settings; the common ones are checked by [`check_settings`] before.
    pub check: fn(&SourceSpec) -> Result<(), SettingsError>,
    /// Makes a reader for a spec that passed the check.
    pub open: fn(&SourceSpec) -> Box<dyn Source>,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocol").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The protocol of that name.
#[must_use]
pub fn protocol(name: &str) -> Option<&'static Protocol> {
    SOURCES.iter().find(|protocol| protocol.name == name)
}

/// The names of all protocols, for messages and checks.
#[must_use]
pub fn protocol_names() -> Vec<&'static str> {
    SOURCES.iter().map(|protocol| protocol.name).collect()
}

/// Why a source cannot be read as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {problem}")]
pub struct SettingsError {
    /// JSON pointer into the source's definition, such as `/settings/id`.
    pub pointer: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Checks the protocol and the settings of a source.
///
/// # Errors
/// The first [`SettingsError`]: unknown protocol, malformed pointer, method, or what the protocol itself refuses.
pub fn check_settings(spec: &SourceSpec) -> Result<(), SettingsError> {
    let Some(protocol) = protocol(&spec.protocol) else {
        let problem = format!("{:?} is not a protocol; known are {}", spec.protocol, protocol_names().join(", "));
        return Err(SettingsError { pointer: "/protocol", problem });
    };
    let settings = &spec.settings;
    for (pointer, text) in [
        ("/settings/id", &settings.id),
        ("/settings/type", &settings.kind),
        ("/settings/subject", &settings.subject),
        ("/settings/time", &settings.time),
    ] {
        if let Some(text) = text {
            Pointer::parse(text).map_err(|error: PointerError| SettingsError { pointer, problem: error.to_string() })?;
        }
    }
    if !matches!(settings.method.as_str(), "GET" | "POST") {
        return Err(SettingsError { pointer: "/settings/method", problem: "must be GET or POST".to_owned() });
    }
    if settings.body.is_some() && settings.method == "GET" {
        return Err(SettingsError { pointer: "/settings/body", problem: "needs the method POST".to_owned() });
    }
    (protocol.check)(spec)
}

/// Cap on one record, as a length.
fn record_bytes_max(settings: &SourceSettings) -> usize {
    usize::try_from(settings.max_event_bytes).unwrap_or(usize::MAX / 2)
}

/// Reads one upstream; keeps what must outlive a connection.
#[async_trait]
pub trait Source: Send {
    /// One connection from the request to its end; everything that came was handed on when it returns.
    async fn run(&mut self, session: &mut Session) -> Ending;
}

/// An event and how far the upstream has come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// The event.
    pub event: NewEvent,
    /// The upstream's position after it, to be stored in the same transaction; `None` = unchanged.
    pub resume: Option<ResumeToken>,
}

impl Emission {
    /// The events of a batch, and the upstream's position behind it; `None` = unchanged.
    #[must_use]
    pub fn parts(batch: Vec<Self>) -> (Vec<NewEvent>, Option<ResumeToken>) {
        let resume = batch.iter().rev().find_map(|emission| emission.resume.clone());
        (batch.into_iter().map(|emission| emission.event).collect(), resume)
    }
}

/// What an upstream says about its stream rather than in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The type of the notice that it becomes, such as `source.limit`.
    pub kind: &'static str,
    /// What it said, as JSON.
    pub data: serde_json::Value,
    /// Id of an event whose data is to be purged.
    pub purge: Option<String>,
}

/// An upstream as its reader knows it, whatever has become of its source since.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The definition of the source.
    pub spec: Arc<SourceSpec>,
    /// Tells it from others that the name of the source stood for, or stands for by now.
    pub incarnation: Incarnation,
    /// Ids of events up to there were another upstream's.
    pub ids_after: Seq,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events stored.
    pub events: usize,
    /// Repeats, not stored again.
    pub repeats: usize,
    /// Other events under a known id, stored or left out as the source says.
    pub reused_ids: usize,
}

/// Why events were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The relay is going down; nothing of the batch was taken.
    #[error("the relay is shutting down")]
    ShuttingDown,
}

/// Where events go.
#[async_trait]
pub trait Emitter: Send + Sync {
    /// Takes a batch of one upstream in order; waits while the intake is full, which holds up the upstream's socket.
    ///
    /// # Errors
    /// [`EmitError::ShuttingDown`]: the batch is not stored and the source stops.
    async fn emit(&self, upstream: &Upstream, batch: Vec<Emission>) -> Result<Taken, EmitError>;

    /// Takes note of a stretch that was missed for good; `at_seq` is for the emitter to fill.
    async fn gap(&self, spec: &SourceSpec, gap: SourceGap);

    /// Takes note of what an upstream says about its stream; everything that came before it was handed on.
    async fn said(&self, _upstream: &Upstream, _said: Said) {}

    /// Takes note of a position that no event carries.
    async fn moved(&self, _upstream: &Upstream, _position: ResumeToken) {}

    /// The newest position of the log: everything that was taken stands up to there.
    fn head(&self) -> Seq {
        Seq::ZERO
    }

    /// Takes note that a source is down, or up again, or that something is wrong with it.
    async fn turned(&self, _source: &str, _turn: Turn) {}
}

/// What all sources of a relay share.
#[derive(Clone)]
pub struct SourceContext {
    /// Opens connections.
    pub client: Arc<dyn UpstreamClient>,
    /// Takes events.
    pub emitter: Arc<dyn Emitter>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Delays between connections.
    pub reconnect: ReconnectSettings,
    /// When this relay was last at work: older sources that cannot resume have a gap from then on. `None` = never.
    pub away_since: Option<Timestamp>,
}

impl std::fmt::Debug for SourceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceContext").field("reconnect", &self.reconnect).finish_non_exhaustive()
    }
}
