//! How the relay shows itself to an endpoint, and how an endpoint shows that it wants deliveries. Data only.

use serde::{Deserialize, Serialize};

use super::signing::Secret;
use crate::clock::Timestamp;

/// What the relay shows an endpoint besides signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// `authorization: Basic …` (RFC 7617).
    Basic {
        /// Without a colon.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// A bearer token by client credentials (RFC 6749 §4.4).
    Oauth2 {
        /// Where tokens are given; canonical.
        token_url: String,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// What the token is asked for; may be empty.
        scopes: Vec<String>,
    },
    /// A client certificate.
    Mtls {
        /// The chain, leaf first.
        cert_pem: String,
        /// The key of the leaf.
        key_pem: Secret,
    },
}

/// How an endpoint proves that it wants deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// It need not.
    #[default]
    None,
    /// It echoes a challenge that only the receiver of a request can know.
    Challenge,
    /// It answers the `OPTIONS` request of the CloudEvents `WebHook` specification.
    Cloudevents,
}

impl Verify {
    /// The word of definitions.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Challenge => "challenge",
            Self::Cloudevents => "cloudevents",
        }
    }
}

/// What an endpoint said when it was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consent {
    /// The URL that was asked.
    pub url: String,
    /// How it was asked.
    pub verify: Verify,
    /// When it agreed.
    pub at: Timestamp,
    /// Deliveries a minute that it allows; absent = as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
}
