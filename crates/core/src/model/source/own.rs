//! Settings that only one protocol has: one file and one row of [`ROWS`] each.
//!
//! Owns which names belong to which protocol. What the settings mean is the protocol's business in `source`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parse::SourceRules;
use crate::model::fields::Fields;

pub mod poll;
pub mod profile;
pub mod raw;
pub mod webhook;
pub mod websocket;

/// Settings of one protocol beyond those that all have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnSettings {
    /// The protocol has none.
    #[default]
    None,
    /// Of `long-poll` and `poll`.
    Poll(poll::PollSettings),
    /// Of `ndjson` and `length`, when they have one.
    Profile(profile::Profile),
    /// Of `raw`.
    Raw(raw::RawSettings),
    /// Of `webhook`.
    Webhook(Box<webhook::WebhookSettings>),
    /// Of `websocket`; boxed, because it is the large one.
    #[serde(rename = "websocket")]
    WebSocket(Box<websocket::WebSocketSettings>),
}

/// The settings of one protocol, as definitions have them.
pub(super) struct Row {
    /// The word in `protocol`.
    pub(super) protocol: &'static str,
    /// Names inside `settings`.
    pub(super) names: &'static [&'static str],
    /// Reads them; what is wrong is noted with the fields.
    pub(super) read: fn(&Fields<'_>, &SourceRules<'_>) -> OwnSettings,
}

/// Every protocol with settings of its own.
pub(super) const ROWS: &[Row] =
    &[poll::LONG_ROW, poll::ROW, profile::NDJSON, profile::LENGTH, raw::ROW, webhook::ROW, websocket::ROW];

/// The row of a protocol, if it has settings of its own.
pub(super) fn row(protocol: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.protocol == protocol)
}

impl OwnSettings {
    /// The profile of the stream, if it has one.
    #[must_use]
    pub const fn profile(&self) -> Option<profile::Profile> {
        match self {
            Self::Profile(profile) => Some(*profile),
            _ => None,
        }
    }

    /// Adds what GET shows of them to `settings`; no secrets.
    pub(super) fn show(&self, settings: &mut Map<String, Value>) {
        match self {
            Self::None => {}
            Self::Poll(poll) => poll.show(settings),
            Self::Profile(profile) => profile.show(settings),
            Self::Raw(raw) => raw.show(settings),
            Self::WebSocket(websocket) => websocket.show(settings),
            Self::Webhook(webhook) => webhook.show(settings),
        }
    }

    /// Adds the secrets that [`OwnSettings::show`] leaves out.
    pub(super) fn add_secrets(&self, settings: &mut Map<String, Value>) {
        if let Self::Webhook(webhook) = self {
            webhook.add_secrets(settings);
        }
    }
}
