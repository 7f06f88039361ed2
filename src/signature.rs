//! Signatures on deliveries: the table of schemes and the keys prepared for one subscription.
//!
//! Pure: takes the id, the time and the stored bytes, knows no request and no clock. To add a scheme: one file below this one,
//! a variant of [`Signer`] and a row in [`SCHEMES`].

use bytes::BufMut;

use crate::clock::Timestamp;
use crate::model::subscription::{Signature, SignatureScheme};

pub mod hub;
pub mod standard;

/// What is signed: one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// When the attempt is made; `webhook-timestamp` is its seconds. Also decides which rotated-out keys still sign.
    pub at: Timestamp,
    /// The bytes that go out.
    pub body: &'a [u8],
}

/// A stored key that cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signing key {0}")]
pub struct KeyError(pub &'static str);

/// One scheme.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    /// As definitions name it.
    pub name: &'static str,
    /// As it is stored.
    pub kind: SignatureScheme,
    /// Prepares the keys of a subscription, once for many messages.
    pub prepare: fn(&Signature) -> Result<Signer, KeyError>,
}

/// Every scheme there is.
pub const SCHEMES: &[Scheme] = &[
    Scheme { name: "standard", kind: SignatureScheme::Standard, prepare: standard::prepare },
    Scheme { name: "hub", kind: SignatureScheme::Hub, prepare: hub::prepare },
    Scheme { name: "none", kind: SignatureScheme::None, prepare: |_| Ok(Signer::None) },
];

/// The prepared keys of one subscription.
#[derive(Clone, Debug)]
pub enum Signer {
    /// Standard Webhooks 1.0.
    Standard(standard::Keys),
    /// `X-Hub-Signature-256`.
    Hub(hub::Key),
    /// Nothing is signed.
    None,
}

impl Signer {
    /// Prepares the keys of a stored signature.
    ///
    /// # Errors
    /// [`KeyError`] when a stored key is malformed, which only a damaged store can bring about.
    pub fn prepare(signature: &Signature) -> Result<Self, KeyError> {
        match SCHEMES.iter().find(|scheme| scheme.kind == signature.scheme) {
            Some(scheme) => (scheme.prepare)(signature),
            None => Err(KeyError("is of a scheme that this version does not have")),
        }
    }

    /// The header that [`Signer::sign`] writes a value for.
    #[must_use]
    pub fn header(&self) -> Option<&'static str> {
        match self {
            Self::Standard(_) => Some(standard::HEADER),
            Self::Hub(_) => Some(hub::HEADER),
            Self::None => None,
        }
    }

    /// Appends the header value for `message` to `out` and names the header; `None` when this scheme adds none.
    ///
    /// Allocates nothing but what `out` needs to grow: [`standard::SIGNATURE_BYTES`] a key, plus a space between two.
    pub fn sign(&self, message: &Message<'_>, out: &mut impl BufMut) -> Option<&'static str> {
        match self {
            Self::Standard(keys) => keys.sign(message, out).then_some(standard::HEADER),
            Self::Hub(key) => {
                key.sign(message.body, out);
                Some(hub::HEADER)
            }
            Self::None => None,
        }
    }
}
