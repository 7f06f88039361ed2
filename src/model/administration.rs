//! Tokens and acts of administration as they are kept. Data only.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What a token may have and do at most; absent = no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLimits {
    /// Subscriptions inside its topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u32>,
    /// Sources inside its topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<u32>,
    /// Streams that it holds open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
    /// Events a second that it publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_per_second: Option<u32>,
}

/// A token that was made over REST; never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its id, `[A-Za-z0-9_-]{1,64}`.
    pub id: String,
    /// For people and logs.
    pub name: String,
    /// SHA-256 of the token, as 64 hexadecimal digits.
    pub sha256: String,
    /// What it may do, as words.
    pub scopes: Vec<String>,
    /// Patterns of the only topics it sees and touches; empty = all.
    pub topics: Vec<String>,
    /// What it may have at most.
    pub limits: TokenLimits,
    /// Id of the token that made it; `local` when there was none.
    pub made_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not valid from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// One act of administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Rises; given by storage.
    pub id: u64,
    /// When it was answered.
    pub at: Timestamp,
    /// Name of the token, `local` or `config`.
    pub actor: String,
    /// Address of the connection.
    pub peer: Option<String>,
    /// `POST`, `PUT`, `PATCH`, `DELETE`, or `GET` for an export with secrets.
    pub method: String,
    /// Kind of what it was done to, as in the path: `subscriptions`.
    pub resource: String,
    /// Its id.
    pub target: Option<String>,
    /// What follows in the path: `secret/rotate`.
    pub action: Option<String>,
    /// Status of the answer.
    pub outcome: u16,
    /// Names of the members of the body; never values.
    pub fields: Vec<String>,
}
