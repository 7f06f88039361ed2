//! Subscriptions as last accepted: where events go, which, how fast and how stubbornly.
//!
//! The REST and TOML forms are read in [`parse`]; this file owns the checked form, which is also what storage keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Seq;
use super::topic::PatternList;
use crate::clock::Timestamp;

pub use access::{Auth, Consent, Verify, WebSub};
pub use order::{OnDead, OrderKey, Ordering};
pub use payload::{Batch, BatchFormat, PayloadForm, Template};
pub use revision::{REVISIONS_BYTES_MAX, REVISIONS_MAX, Revision};
pub use signing::{SIGNATURES_MAX, SIGNING_KEYS_MAX, Secret, Signature, SignatureScheme, SigningKey};

pub mod access;
pub mod change;
pub mod order;
pub mod parse;
pub mod payload;
pub mod revision;
pub mod signing;

/// Name of a subscription: `[A-Za-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionId(Arc<str>);

impl SubscriptionId {
    /// Takes an id when it has the right form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_id(text).then(|| Self(text.into()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, shared with this one.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a well-formed id of a subscription, source or token.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// One incarnation of a subscription: rises with every creation and is never used twice.
///
/// Everything the ledger keeps hangs on it, so that a deleted id made again starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(pub u64);

/// Number of ledger partitions; fixed, because the partition of a subscription is stored.
pub const PARTITIONS: u16 = 64;

impl Ordinal {
    /// The ledger partition that this subscription belongs to, below [`PARTITIONS`].
    #[must_use]
    pub fn partition(self) -> u16 {
        u16::try_from(self.0 % u64::from(PARTITIONS)).unwrap_or(0)
    }
}

/// How many attempts a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Sustained rate, more than zero.
    pub per_second: f64,
    /// Attempts that may start at once, at least 1.
    pub burst: u32,
}

/// What happens when [`SubscriptionSpec::max_retrying`] retries wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The cursor stands still.
    Wait,
    /// Further failures are dead letters at once.
    Dead,
}

/// When and how often a failed delivery is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    /// Delay before attempt 2, 3, …; the last entry repeats. Never empty.
    #[serde(with = "millis_list")]
    pub schedule: Vec<Duration>,
    /// Part of a delay that is random, both ways: 0.2 = ±20 %.
    pub jitter: f64,
}

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartFrom {
    /// Behind the head at the commit.
    Latest,
    /// At the oldest event that is kept.
    Earliest,
    /// At this position, inclusive.
    Seq(Seq),
    /// At the first event that arrived then or later.
    Time(Timestamp),
}

/// A subscription as last accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    /// Its name.
    pub id: SubscriptionId,
    /// Canonical callback URL.
    pub url: String,
    /// Which topics.
    pub topics: PatternList,
    /// Which event types; empty = all.
    pub types: Vec<String>,
    /// Which of them, by their content; a CEL expression that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Box<str>>,
    /// How deliveries are signed: one to [`SIGNATURES_MAX`] different schemes.
    pub signatures: Vec<Signature>,
    /// Headers added to each delivery, lower-case names.
    pub headers: BTreeMap<String, String>,
    /// What the body is.
    pub payload: PayloadForm,
    /// The template of [`PayloadForm::Template`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Box<Template>>,
    /// How events are gathered into one request; absent = they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// In which order they go out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ordering: Ordering,
    /// What a dead letter means for the order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_dead: OnDead,
    /// How the endpoint proves that it wants deliveries.
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify: Verify,
    /// What the relay shows it besides signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Box<Auth>>,
    /// Certificates that this endpoint is trusted by instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<Box<str>>,
    /// Name of the limits that it shares with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_group: Option<Box<str>>,
    /// Time of nothing but failure after which it is disabled.
    #[serde(with = "millis")]
    pub disable_after: Duration,
    /// Attempts a second; absent = no limit.
    pub rate_limit: Option<RateLimit>,
    /// Attempts at the same time, at least 1.
    pub max_in_flight: u32,
    /// Retries that may wait, at least 1.
    pub max_retrying: u32,
    /// What happens when they do.
    pub on_full: OnFull,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Longest whole attempt.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Free text for people.
    pub description: String,
    /// Free text by key, for programs.
    pub metadata: BTreeMap<String, String>,
}

/// Why a subscription is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DisabledReason {
    /// By `enabled: false`.
    Manual,
    /// The endpoint answered 410.
    Gone,
    /// It failed for too long.
    Failing,
    /// The endpoint asked for it with `webhook-delivery: disable`.
    Receiver,
    /// Its group of limits is not in the configuration, and without it nothing would hold it back.
    #[serde(rename = "limit_group")]
    LimitGroup,
}

impl DisabledReason {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Receiver => "receiver",
            Self::LimitGroup => "limit_group",
        }
    }
}

/// What is stored about whether a subscription runs; `failing` and lag are observed, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Deliveries go out.
    Active,
    /// Held by `pause` until `resume`; the cursor stays.
    Paused,
    /// Held until `enabled: true`; the cursor stays.
    Disabled(DisabledReason),
}

impl Activity {
    /// Whether it was disabled for what its endpoint answered or did not.
    #[must_use]
    pub const fn is_ended_by_endpoint(self) -> bool {
        matches!(self, Self::Disabled(DisabledReason::Gone | DisabledReason::Failing | DisabledReason::Receiver))
    }

    /// The same where the group of limits is known, or is not: without it nothing goes out, and its return ends that.
    #[must_use]
    pub fn with_group(self, is_known: bool) -> Self {
        match (self, is_known) {
            (Self::Active, false) => Self::Disabled(DisabledReason::LimitGroup),
            (Self::Disabled(DisabledReason::LimitGroup), true) => Self::Active,
            (activity, _) => activity,
        }
    }
}

/// What the catalog keeps about one subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// The definition.
    pub spec: SubscriptionSpec,
    /// Its incarnation, given by the catalog.
    pub ordinal: Ordinal,
    /// Rises with every change; the `ETag`.
    pub revision: u64,
    /// Whether it runs.
    pub activity: Activity,
    /// Everything after this position is its duty, from the start or since it was moved back before it.
    pub starts_after: Seq,
    /// What the endpoint said when it was asked whether it wants deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<Box<Consent>>,
    /// What the `WebSub` hub knows of it; absent for those made by a definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websub: Option<Box<WebSub>>,
    /// Earlier and present definitions, oldest first, never empty.
    pub revisions: Vec<Revision>,
    /// Whether `config.toml` declares it: such a one cannot be changed over REST.
    pub declared: bool,
    /// Id of the token that made it, or `operator`; absent for those of earlier builds. Says nothing of who may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Box<str>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl SubscriptionRecord {
    /// The same without spare room, its parts shared where they are equal: what is read from a text grows by doubling.
    #[must_use]
    pub fn compacted(mut self) -> Self {
        self.spec.types.shrink_to_fit();
        self.spec.signatures.shrink_to_fit();
        for signature in &mut self.spec.signatures {
            signature.keys.shrink_to_fit();
        }
        self.spec.retry.schedule.shrink_to_fit();
        self.revisions.shrink_to_fit();
        for revision in &mut self.revisions {
            revision.types.shrink_to_fit();
            if revision.topics == self.spec.topics {
                revision.topics = self.spec.topics.clone();
            }
        }
        self
    }

    /// Whether the endpoint has agreed to deliveries, as far as it has to.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.spec.verify == Verify::None || self.consent.as_deref().is_some_and(|consent| consent.is_for(&self.spec))
    }

    /// Whether deliveries may go out.
    #[must_use]
    pub fn may_deliver(&self) -> bool {
        self.activity == Activity::Active && self.is_verified()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl SubscriptionSpec {
    /// Whether an event of this topic and type is for this subscription.
    #[must_use]
    pub fn wants(&self, topic: &str, kind: &str) -> bool {
        self.topics.matches(topic) && (self.types.is_empty() || self.types.iter().any(|wanted| wanted == kind))
    }
}

mod millis {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

mod millis_list {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<u64>::deserialize(deserializer)?.into_iter().map(Duration::from_millis).collect())
    }
}
