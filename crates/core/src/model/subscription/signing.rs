//! How deliveries are signed: schemes, keys and how long each key signs. Data only; the mechanisms are in `signature`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A text that is never shown after it was given, and never logged: a signing key, a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that was checked by [`parse`](super::parse).
    #[must_use]
    pub fn trusted(text: String) -> Self {
        Self(text)
    }

    /// The text; only for its use and for the one answer that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How deliveries are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureScheme {
    /// Standard Webhooks 1.0, `v1,` HMAC-SHA256 in `webhook-signature`.
    Standard,
    /// Standard Webhooks 1.0, `v1a,` Ed25519 in `webhook-signature`.
    StandardEd25519,
    /// `X-Hub-Signature-256: sha256=<hex>` over the body, as WebSub and GitHub have it.
    Hub,
    /// `Stripe-Signature: t=<seconds>,v1=<hex>` over `<seconds>.<body>`.
    Stripe,
    /// Not signed.
    None,
}

impl SignatureScheme {
    /// Every scheme, in the order in which definitions list what is allowed.
    pub const ALL: [Self; 5] = [Self::Standard, Self::StandardEd25519, Self::Hub, Self::Stripe, Self::None];

    /// The scheme as definitions name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::StandardEd25519 => "standard-ed25519",
            Self::Hub => "hub",
            Self::Stripe => "stripe",
            Self::None => "none",
        }
    }
}

/// A signing key and until when it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// The key.
    pub secret: Secret,
    /// A rotated-out key signs until then; the current one has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Scheme and keys, newest key first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The scheme.
    pub scheme: SignatureScheme,
    /// At most [`SIGNING_KEYS_MAX`] keys; none for [`SignatureScheme::None`].
    pub keys: Vec<SigningKey>,
}

impl Signature {
    /// Deliveries that are not signed.
    #[must_use]
    pub const fn none() -> Self {
        Self { scheme: SignatureScheme::None, keys: Vec::new() }
    }

    /// The newest key.
    #[must_use]
    pub fn newest(&self) -> Option<&Secret> {
        self.keys.first().map(|key| &key.secret)
    }
}

/// Most keys of one scheme that sign at the same time; a rotation beyond it is refused.
pub const SIGNING_KEYS_MAX: usize = 10;
/// Most schemes that sign one delivery, so that a receiver can move from one to another.
pub const SIGNATURES_MAX: usize = 3;
