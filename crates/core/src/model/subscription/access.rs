//! How the relay shows itself to an endpoint, and how an endpoint shows that it wants deliveries. Data only.

use serde::{Deserialize, Serialize};

use super::signing::Secret;
use super::{RateLimit, SubscriptionRecord, SubscriptionSpec};
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
    /// `authorization: Bearer …` (RFC 6750); of sources only.
    Bearer {
        /// The token.
        token: Secret,
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

/// What makes a subscription one of the `WebSub` hub: it ends with its lease unless it is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSub {
    /// The topic's URL as the subscriber gave it.
    pub topic: String,
    /// When the lease ends.
    pub lease_ends_at: Timestamp,
}

impl Consent {
    /// Whether it was given for what the definition says now.
    #[must_use]
    pub fn is_for(&self, spec: &SubscriptionSpec) -> bool {
        self.url == spec.url && self.verify == spec.verify
    }

    /// The allowed deliveries as a rate: no stretch of a minute sees more of them than were allowed.
    fn rate_limit(&self) -> Option<RateLimit> {
        /// Part of a minute's deliveries, as a divisor, that may go out at once: timers are no finer.
        const BURST_SHARE: u32 = 600;
        let allowed = self.per_minute?.max(1);
        let burst = (allowed / BURST_SHARE).max(1);
        Some(RateLimit { per_second: f64::from(allowed - (burst - 1)) / 60.0, burst })
    }
}

impl SubscriptionRecord {
    /// The limit in force: the lower of what the definition says and what the endpoint allowed when it was asked.
    #[must_use]
    pub fn effective_rate_limit(&self) -> Option<RateLimit> {
        let own = self.spec.rate_limit;
        let Some(allowed) = self.consent.as_deref().filter(|consent| consent.is_for(&self.spec)).and_then(Consent::rate_limit)
        else {
            return own;
        };
        let lower = |own: RateLimit| RateLimit {
            per_second: own.per_second.min(allowed.per_second),
            burst: own.burst.min(allowed.burst),
        };
        Some(own.map_or(allowed, lower))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(per_minute: u32) -> RateLimit {
        let consent = Consent { url: String::new(), verify: Verify::Cloudevents, at: Timestamp(0), per_minute: Some(per_minute) };
        consent.rate_limit().unwrap()
    }

    #[test]
    fn no_minute_sees_more_than_was_allowed() {
        for per_minute in [1, 7, 60, 599, 600, 1200, 60_000, 1_000_000, u32::MAX] {
            let limit = limit_of(per_minute);
            let at_most = f64::from(limit.burst - 1) + limit.per_second * 60.0;
            assert!(at_most <= f64::from(per_minute) + 1e-6, "{per_minute}: {limit:?}");
            assert!(at_most > f64::from(per_minute) * 0.999, "{per_minute}: {limit:?}");
        }
    }
}
