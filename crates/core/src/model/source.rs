//! Sources: the upstream streams that are read, and the upstream's own position in them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Seq;
use super::topic::Topic;
use crate::clock::Timestamp;

pub mod access;
pub mod own;
pub mod parse;

use access::Access;
use own::OwnSettings;

/// Longest resume token, in bytes; a longer one from upstream is not kept.
pub const RESUME_TOKEN_BYTES_MAX: usize = 4096;

/// The upstream's position: what is handed back to it to go on where we stopped. Opaque.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// Takes a token that is safe in a request header; `None` when it is empty, too long or holds control characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let safe = !text.is_empty() && text.len() <= RESUME_TOKEN_BYTES_MAX && !text.chars().any(char::is_control);
        safe.then(|| Self(text.to_owned()))
    }

    /// The token as upstream gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of an event whose id another event of its source bears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReusedId {
    /// It is stored, its position behind its id.
    #[default]
    Keep,
    /// It is left out and counted.
    Drop,
}

impl OnReusedId {
    /// Every word.
    pub const WORDS: [&str; 2] = ["keep", "drop"];

    /// The word of definitions.
    #[must_use]
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Of its word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Keep, Self::Drop].into_iter().find(|known| known.word() == word)
    }
}

/// How records of a source become events and how long silence may last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSettings {
    /// JSON pointer to the id of an event.
    pub id: Option<String>,
    /// JSON pointer to its type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// JSON pointer to its subject.
    pub subject: Option<String>,
    /// JSON pointer to its time (RFC 3339).
    pub time: Option<String>,
    /// Content type of the data, over what the protocol says.
    pub content_type: Option<String>,
    /// Request method, `GET` or `POST`.
    pub method: String,
    /// Request body, a template.
    pub body: Option<String>,
    /// Silence after which the connection is given up.
    pub idle_timeout: Duration,
    /// Longest record in bytes; a longer one is skipped.
    pub max_event_bytes: u64,
    /// What becomes of another event with a known id.
    #[serde(default)]
    pub on_reused_id: OnReusedId,
    /// What only its protocol has.
    #[serde(default)]
    pub own: OwnSettings,
    /// Query parameters, credentials and trust; definitions have them beside `settings`.
    #[serde(default)]
    pub access: Access,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            id: None,
            kind: None,
            subject: None,
            time: None,
            content_type: None,
            method: "GET".to_owned(),
            body: None,
            idle_timeout: Duration::from_secs(90),
            max_event_bytes: 1024 * 1024,
            on_reused_id: OnReusedId::Keep,
            own: OwnSettings::None,
            access: Access::default(),
        }
    }
}

/// One configured upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Its name: `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// Row of the protocol table, such as `sse`.
    pub protocol: String,
    /// Canonical URL.
    pub url: String,
    /// Where its events go.
    pub topic: Topic,
    /// Request headers, lower-case names; values are templates.
    pub headers: BTreeMap<String, String>,
    /// How it is read.
    pub settings: SourceSettings,
    /// Whether it is read at all.
    pub enabled: bool,
}

/// What the catalog keeps about one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The definition.
    pub spec: SourceSpec,
    /// Rises with every change; the `ETag`.
    pub revision: u64,
    /// Whether `config.toml` declares it.
    pub declared: bool,
    /// Id of the token that made it, or `operator`; absent for those of earlier builds. Says nothing of who may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Box<str>>,
    /// The upstream's position, stored with the events it covers.
    pub resume_token: Option<ResumeToken>,
    /// Ids of events up to there were given by another upstream, from before the URL changed.
    #[serde(default)]
    pub ids_after: Seq,
    /// The revision that made it read another upstream than before; 0 = none did.
    #[serde(default)]
    pub upstream_since: u64,
    /// Storing it forgets the position that is stored, since that is another upstream's; not itself stored.
    #[serde(skip)]
    pub forgets_position: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl SourceRecord {
    /// The record of a source made at `now` that was never stored.
    #[must_use]
    pub fn new(spec: SourceSpec, now: Timestamp) -> Self {
        Self {
            spec,
            revision: 0,
            declared: false,
            made_by: None,
            resume_token: None,
            ids_after: Seq::ZERO,
            upstream_since: 0,
            forgets_position: false,
            created_at: now,
            updated_at: now,
        }
    }

    /// The record with another definition; `head` is the newest position of the log. Another URL or protocol is another
    /// upstream, whose ids and positions have nothing to do with those of the one before.
    #[must_use]
    pub fn with_spec(&self, spec: SourceSpec, head: Seq, now: Timestamp) -> Self {
        let stays = spec.is_of_same_upstream(&self.spec);
        let ids_after = if stays { self.ids_after } else { head };
        let upstream_since = if stays { self.upstream_since } else { self.revision + 1 };
        Self { spec, ids_after, upstream_since, forgets_position: !stays, updated_at: now, ..self.clone() }
    }

    /// Which of the upstreams it is that its name has stood for.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { created_at: self.created_at, upstream_since: self.upstream_since }
    }
}

/// Tells the upstreams apart that one name has stood for: the source was deleted and made again, or its URL changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// When the source was made.
    pub created_at: Timestamp,
    /// The revision from which it reads this upstream.
    pub upstream_since: u64,
}

/// How far an upstream has come, as whoever reads it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePosition {
    /// Name of the source.
    pub source: String,
    /// Whose position it is; when the source reads another upstream by now, it is left out.
    pub incarnation: Incarnation,
    /// The position.
    pub token: ResumeToken,
}

impl SourceSpec {
    /// Whether both read the same upstream.
    #[must_use]
    pub fn is_of_same_upstream(&self, other: &Self) -> bool {
        (&self.url, &self.protocol) == (&other.url, &other.protocol)
    }
}

/// A stretch of an upstream that was missed and cannot be had again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGap {
    /// Name of the source.
    pub source: String,
    /// When the last connection ended.
    pub from: Timestamp,
    /// When the next one began.
    pub to: Timestamp,
    /// Head of the log when it was noticed.
    pub at_seq: Seq,
}
