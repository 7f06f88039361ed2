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

/// Who made a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// Whoever runs the relay: without a token, with the one of the environment, or with one that is gone. Nobody else can be it.
    #[default]
    Operator,
    /// A token made over REST, by its id.
    Token(String),
    /// A token of the configuration, by its name.
    Declared(String),
}

impl Maker {
    /// The word for [`Maker::Operator`].
    pub const OPERATOR: &str = "operator";

    /// How it is shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Operator => Self::OPERATOR,
            Self::Token(id) => id,
            Self::Declared(name) => name,
        }
    }
}

/// A token that was made over REST; never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its id, `tok_` and 22 characters; earlier builds took any of `[A-Za-z0-9_-]{1,64}`.
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
    /// Its maker as shown. Earlier builds stored this alone: the id or name of a token, or `local`.
    pub made_by: String,
    /// Its maker; absent until what an earlier build stored was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<Maker>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not valid from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl TokenRecord {
    /// The same, made by `maker`.
    #[must_use]
    pub fn made_by(self, maker: Maker) -> Self {
        Self { made_by: maker.as_str().to_owned(), maker: Some(maker), ..self }
    }

    /// Whether a token made it.
    #[must_use]
    pub fn is_made_by(&self, id: &str) -> bool {
        matches!(&self.maker, Some(Maker::Token(maker)) if maker == id)
    }
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
