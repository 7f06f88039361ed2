//! In which order the events of a subscription go out. Data only.

use serde::{Deserialize, Serialize};

/// In which order the events of a subscription go out.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// Started in order, side by side; a retry may be overtaken.
    #[default]
    None,
    /// One at a time; a retry holds up what is behind it.
    Strict,
    /// One at a time for each key; events without the key are not ordered.
    Key(OrderKey),
}

/// What orders events: where their key stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKey {
    /// JSON pointer (RFC 6901) into the event's data.
    Pointer(String),
    /// An attribute of the event, without its `ce-`.
    Attribute(String),
}

impl OrderKey {
    /// The key as definitions name it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Pointer(pointer) => pointer.clone(),
            Self::Attribute(name) => format!("ce-{name}"),
        }
    }
}

/// What a dead letter means for the events behind it, where order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDead {
    /// They go on.
    #[default]
    Skip,
    /// They wait until it was redriven or skipped.
    Block,
}

impl OnDead {
    /// The word of definitions.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Block => "block",
        }
    }
}
