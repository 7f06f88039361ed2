//! The profile of a stream: what one service does beyond its framing. Protocols that have profiles share these settings.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{OwnSettings, Row};
use crate::model::fields::Fields;

/// A service with habits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Keep-alives every 30 s, messages about the stream inside it, backoff by kind of failure.
    Twitter,
}

impl Profile {
    /// The word of definitions.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Twitter => "twitter",
        }
    }

    /// JSON pointer to the id of an event, unless the settings say otherwise.
    #[must_use]
    pub const fn id_pointer(self) -> &'static str {
        match self {
            Self::Twitter => "/id_str",
        }
    }
}

pub(super) const NDJSON: Row = Row { protocol: "ndjson", names: &["profile"], read: |settings, _| read(settings) };
pub(super) const LENGTH: Row = Row { protocol: "length", names: &["profile"], read: |settings, _| read(settings) };

fn read(settings: &Fields<'_>) -> OwnSettings {
    match settings.choice("profile", &["twitter"], "profile") {
        Some(_) => OwnSettings::Profile(Profile::Twitter),
        None => OwnSettings::None,
    }
}

impl Profile {
    pub(super) fn show(self, settings: &mut Map<String, Value>) {
        settings.insert("profile".to_owned(), self.word().into());
    }
}
