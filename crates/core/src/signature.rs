//! Signatures on deliveries: the table of schemes and the keys prepared for one subscription.
//!
//! Pure: takes the id, the time and the stored bytes, knows no request and no clock. To add a scheme: one file below this one,
//! a variant of [`Signer`] and a row in [`SCHEMES`]; [`verify::Verifier`] is what a receiver does with the headers.

use bytes::BufMut;

use crate::clock::Timestamp;
use crate::model::subscription::{Signature, SignatureScheme};

pub mod ed25519;
pub mod hub;
pub mod keys;
pub mod receive;
pub mod slack;
pub mod standard;
pub mod stripe;
pub mod verify;

use keys::Keys;

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
    Scheme { name: "standard-ed25519", kind: SignatureScheme::StandardEd25519, prepare: ed25519::prepare },
    Scheme { name: "hub", kind: SignatureScheme::Hub, prepare: hub::prepare },
    Scheme { name: "stripe", kind: SignatureScheme::Stripe, prepare: stripe::prepare },
    Scheme { name: "none", kind: SignatureScheme::None, prepare: |_| Ok(Signer::None) },
];

/// The prepared keys of one scheme of one subscription.
#[derive(Clone, Debug)]
pub enum Signer {
    /// Standard Webhooks 1.0, symmetric.
    Standard(Keys<standard::PreparedKey>),
    /// Standard Webhooks 1.0, asymmetric.
    Ed25519(Keys<ed25519::PrivateKey>),
    /// As WebSub and GitHub have it.
    Hub(Keys<standard::PreparedKey>),
    /// As Stripe has it.
    Stripe(Keys<standard::PreparedKey>),
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

    /// The header that [`Signer::sign`] writes a value for; the values of two schemes with one header stand in one line,
    /// separated by a space.
    #[must_use]
    pub fn header(&self) -> Option<&'static str> {
        match self {
            Self::Standard(_) | Self::Ed25519(_) => Some(standard::HEADER),
            Self::Hub(_) => Some(hub::HEADER),
            Self::Stripe(_) => Some(stripe::HEADER),
            Self::None => None,
        }
    }

    /// Appends the header value for `message` to `out` and names the header; `None` when this scheme adds none.
    ///
    /// Allocates nothing but what `out` needs to grow: at most [`Signer::value_bytes`].
    pub fn sign(&self, message: &Message<'_>, out: &mut impl BufMut) -> Option<&'static str> {
        let at = message.at;
        match self {
            Self::Standard(keys) => standard::sign_into(keys.in_force(at), message.id, at.as_secs(), message.body, out),
            Self::Ed25519(keys) => ed25519::sign_into(keys.in_force(at), message, out),
            Self::Hub(keys) => hub::sign_into(keys, message, out),
            Self::Stripe(keys) => stripe::sign_into(keys.in_force(at), message, out),
            Self::None => {}
        }
        self.header()
    }

    /// Room that a value takes at most.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Standard(keys) => keys.count() * (standard::SIGNATURE_BYTES + 1),
            Self::Ed25519(keys) => keys.count() * (ed25519::SIGNATURE_BYTES + 1),
            Self::Hub(_) => hub::SIGNATURE_BYTES,
            Self::Stripe(keys) => stripe::TIME_BYTES_MAX + keys.count() * stripe::SIGNATURE_BYTES,
            Self::None => 0,
        }
    }
}
