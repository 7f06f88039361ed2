//! `webhook`: a source that is called instead of calling. Its door judges what comes and makes events of it.
//!
//! Nothing is dialled: its task only stands. Who serves the door, and who stores what it lets in, is not known here; an event
//! counts once that is told by [`Door::stored`].

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use subtle::ConstantTimeEq as _;

use super::reconnect::{Ending, EndingClass};
use super::record::{EventMapper, Record};
use super::status::{SkippedSample, StatusCell};
use super::{Protocol, Session, SettingsError, Source, Taken, record_bytes_max, runner};
use hookcast_core::clock::Timestamp;
use hookcast_core::codec::SkipReason;
use hookcast_core::codec::cloudevents::Attributes;
use hookcast_core::codec::pointer::Pointer;
use hookcast_core::model::event::{ATTRIBUTE_BYTES_MAX, DataForm, data_form};
use hookcast_core::model::source::own::OwnSettings;
use hookcast_core::model::source::own::webhook::{PROTOCOL as NAME, SenderScheme, WebhookSettings};
use hookcast_core::model::source::{SourceRecord, SourceSpec};
use hookcast_core::model::{NewEvent, Topic};
use hookcast_core::signature::receive::{HeaderOf, Lock};

pub use hookcast_core::signature::verify::VerifyError;

pub(super) const PROTOCOL: Protocol = Protocol { name: NAME, check, open: |_| Box::new(Standing) };

/// Content type of a body that says none.
const UNKNOWN_TYPE: &str = "application/octet-stream";

fn check(spec: &SourceSpec) -> Result<(), SettingsError> {
    match settings(spec).map(|own| Lock::new(&own.verify)) {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(SettingsError { pointer: "/settings/verify/secret", problem: error.to_string() }),
        None => Err(SettingsError { pointer: "/settings/verify", problem: "is required".to_owned() }),
    }
}

fn settings(spec: &SourceSpec) -> Option<&WebhookSettings> {
    match &spec.settings.own {
        OwnSettings::Webhook(own) => Some(own),
        _ => None,
    }
}

struct Standing;

#[async_trait]
impl Source for Standing {
    async fn run(&mut self, session: &mut Session) -> Ending {
        session.stand().await
    }
}

/// What came, besides its signature.
#[derive(Debug, Default)]
pub struct Arrival {
    /// The content type, if it says one.
    pub content_type: Option<String>,
    /// What its `ce-*` headers say, if it has any.
    pub attributes: Option<Attributes>,
    /// How many relays it came through.
    pub hops: u8,
    /// The body.
    pub body: Bytes,
}

/// What a definition makes of incoming webhooks; one a revision.
#[derive(Debug)]
pub struct Door {
    pub(super) revision: u64,
    lock: Lock,
    own: WebhookSettings,
    topic: Topic,
    bytes_max: usize,
    /// Where the definition says that the id is; none says that the sender's usual place is.
    has_id_pointer: bool,
    content_type: bool,
    mapper: Mutex<EventMapper>,
    status: Arc<StatusCell>,
}

/// Where senders of a scheme usually have the id and the type of an event.
struct Usual {
    id_headers: &'static [&'static str],
    id: Option<&'static str>,
    type_headers: &'static [&'static str],
    kind: Option<&'static str>,
}

fn usual(scheme: SenderScheme) -> Usual {
    let (id_headers, id, type_headers, kind): (&[&str], _, &[&str], _) = match scheme {
        SenderScheme::Standard | SenderScheme::StandardEd25519 => (&["webhook-id"], None, &[], Some("/type")),
        SenderScheme::Hub | SenderScheme::Github => (&["x-github-delivery"], None, &["x-github-event"], None),
        SenderScheme::Shopify => (&["x-shopify-webhook-id"], None, &["x-shopify-topic"], None),
        SenderScheme::Stripe => (&[], Some("/id"), &[], Some("/type")),
        SenderScheme::Slack => (&[], Some("/event_id"), &[], Some("/event/type")),
        SenderScheme::Gitlab => (&["idempotency-key", "x-gitlab-event-uuid"], None, &["x-gitlab-event"], None),
        SenderScheme::Token | SenderScheme::None => (&[], None, &[], None),
    };
    Usual { id_headers, id, type_headers, kind }
}

impl Door {
    /// The door of a record; `None` when its definition is of another protocol or its stored keys are damaged.
    pub(super) fn new(record: &SourceRecord, status: Arc<StatusCell>) -> Option<Self> {
        let spec = &record.spec;
        let own = settings(spec)?.clone();
        let lock = Lock::new(&own.verify)
            .inspect_err(|error| tracing::error!(source.name = %spec.name, %error, "the keys of a source cannot be used"))
            .ok()?;
        Some(Self {
            revision: record.revision,
            lock,
            topic: spec.topic.clone(),
            bytes_max: record_bytes_max(&spec.settings),
            has_id_pointer: spec.settings.id.is_some(),
            content_type: spec.settings.content_type.is_some(),
            mapper: Mutex::new(EventMapper::new(spec, runner::seed())),
            status,
            own,
        })
    }

    /// What a sender must show.
    #[must_use]
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Where its events go.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Longest body.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether a hub knows what only one that we asked to send can know; compares in constant time.
    #[must_use]
    pub fn is_verify_token(&self, given: &str) -> bool {
        self.own.verify_token.as_ref().is_some_and(|token| token.expose().as_bytes().ct_eq(given.as_bytes()).into())
    }

    /// The event of something that its sender proved to be its own.
    ///
    /// The id, by which a repeat is known: what the definition names, else the usual place of the scheme, else `ce-id`, else
    /// what is signed if a time is. The type likewise.
    pub fn event(&self, header: HeaderOf<'_, '_>, arrival: Arrival, now: Timestamp) -> NewEvent {
        let Arrival { content_type, attributes, hops, body } = arrival;
        let mut attributes = attributes.unwrap_or_default();
        let fits = |text: &String| text.len() <= ATTRIBUTE_BYTES_MAX && !text.chars().any(char::is_control);
        let content_type = content_type.filter(fits).unwrap_or_else(|| UNKNOWN_TYPE.to_owned());
        let form = data_form(&content_type, &body);
        let json = (form == DataForm::Json).then(|| std::str::from_utf8(&body).ok()).flatten();
        let usual = usual(self.lock.scheme());
        let id = match &self.own.id_header {
            Some(name) => value_of(header, &[name]),
            None if self.has_id_pointer => None,
            None => value_of(header, usual.id_headers).or_else(|| find(usual.id, json)).or(attributes.id.take()),
        };
        let kind = match &self.own.type_header {
            Some(name) => value_of(header, &[name]),
            None => value_of(header, usual.type_headers).or(attributes.kind.take()).or_else(|| find(usual.kind, json)),
        };
        let name = id.is_none().then(|| self.lock.name_of(header, &body)).flatten();
        let is_json = json.is_some();
        let record = Record { data: body, is_json, id, kind, ..Record::default() };
        let mut event = {
            let mut mapper = self.mapper.lock().unwrap_or_else(PoisonError::into_inner);
            let event = mapper.event(record, now);
            self.status.attributes_dropped(mapper.take_dropped());
            event
        };
        if !event.own_id
            && let Some(name) = name
        {
            (event.id, event.own_id) = (name, true);
        }
        if !self.content_type {
            (event.content_type, event.form) = (content_type, form);
        }
        event.hops = hops;
        event.subject = event.subject.or(attributes.subject);
        event.time = event.time.or(attributes.time);
        event
    }

    /// Counts bytes that came in.
    pub fn read(&self, bytes: usize) {
        self.status.read(bytes);
    }

    /// Counts an event that is durable.
    pub fn stored(&self, at: Timestamp) {
        self.status.handed_on(Taken { events: 1, ..Taken::default() }, at);
    }

    /// Counts one that had been stored before.
    pub fn repeated(&self, at: Timestamp) {
        self.status.handed_on(Taken { repeats: 1, ..Taken::default() }, at);
    }

    /// Counts a request that nothing proves to be its sender's; `is_told` = as the last error, too.
    pub fn refused(&self, error: VerifyError, is_told: bool, at: Timestamp) {
        self.skipped(SkipReason::BadSignature, "bad_signature", &error.to_string(), is_told, at);
    }

    /// Counts a body that is longer than [`Door::bytes_max`].
    pub fn too_large(&self, at: Timestamp) {
        self.skipped(SkipReason::EventTooLarge, "event_too_large", "a webhook is larger than `max_event_bytes`", true, at);
    }

    fn skipped(&self, reason: SkipReason, slug: &'static str, detail: &str, is_told: bool, at: Timestamp) {
        self.status.skipped(SkippedSample { reason, at, record: 0, head: Bytes::new() });
        if is_told {
            self.status.complained(&Ending::new(EndingClass::Failed, slug, detail), at);
        }
    }
}

/// The first of these headers that is there.
fn value_of(header: HeaderOf<'_, '_>, names: &[&str]) -> Option<String> {
    names.iter().map(|name| header(name)).find(|value| !value.is_empty()).map(str::to_owned)
}

fn find(pointer: Option<&str>, json: Option<&str>) -> Option<String> {
    Pointer::parse(pointer?).ok()?.text(json?).map(Cow::into_owned).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
