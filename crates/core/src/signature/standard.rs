//! Standard Webhooks 1.0, symmetric: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
//!
//! Signing is on the path of every delivery, so a key is expanded once ([`PreparedKey`]) and a signature is written straight
//! into the caller's buffer. Verifying is for receivers (`hookcast listen`) and tests.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BufMut;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::keys::Keys;
use super::verify::{Moment, SIGNATURES_MAX, VerifyError, check_time};
use super::{KeyError, Signer};
use crate::model::subscription::parse::decode_secret;
use crate::model::subscription::{Secret, Signature};

/// Name of the header.
pub const HEADER: &str = "webhook-signature";
/// Length of one signature: `v1,` and 44 characters of base64.
pub const SIGNATURE_BYTES: usize = VERSION.len() + MAC_CHARS;

const VERSION: &str = "v1,";
const MAC_BYTES: usize = 32;
const MAC_CHARS: usize = 44;

/// A key whose expansion is done: starting a MAC costs a copy instead of two compressions.
#[derive(Clone)]
pub struct PreparedKey(Hmac<Sha256>);

impl PreparedKey {
    /// Expands a `whsec_` secret.
    ///
    /// # Errors
    /// [`KeyError`] when it is malformed.
    pub fn new(secret: &Secret) -> Result<Self, KeyError> {
        Self::parse(secret.expose())
    }

    /// Expands the text form of a secret.
    ///
    /// # Errors
    /// [`KeyError`] when it is not `whsec_` and base64 of 24 to 64 bytes.
    pub fn parse(secret: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(&decode_secret(secret).map_err(KeyError)?))
    }

    /// Expands a key of any bytes.
    pub(super) fn from_bytes(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("invariant: HMAC takes a key of any length"))
    }

    /// The MAC over all parts, one behind the other.
    pub(super) fn mac_of(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }

    fn mac(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(id);
        mac.update(b".");
        mac.update(timestamp);
        mac.update(b".");
        mac.update(body);
        mac
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedKey(…)")
    }
}

/// Appends one signature a key, in the order given, separated by spaces; `timestamp_s` is Unix seconds.
///
/// # Panics
/// Never: 32 bytes are always 44 characters.
pub fn sign_into<'k>(
    keys: impl IntoIterator<Item = &'k PreparedKey>,
    id: impl AsRef<[u8]>,
    timestamp_s: i64,
    body: &[u8],
    out: &mut impl BufMut,
) {
    let mut digits = itoa::Buffer::new();
    let timestamp = digits.format(timestamp_s).as_bytes();
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 {
            out.put_slice(b" ");
        }
        let mac = key.mac(id.as_ref(), timestamp, body).finalize().into_bytes();
        let mut encoded = [0; MAC_CHARS];
        let written = BASE64.encode_slice(mac, &mut encoded).expect("invariant: 32 bytes are 44 characters");
        out.put_slice(VERSION.as_bytes());
        out.put_slice(&encoded[..written]);
    }
}

/// Prepares the keys of a subscription.
///
/// # Errors
/// [`KeyError`] when there is no key, or a malformed one.
pub fn prepare(signature: &Signature) -> Result<Signer, KeyError> {
    Keys::prepare(signature, PreparedKey::new).map(Signer::Standard)
}

/// The headers of a received message, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signatures: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Verifies a received message: one fitting pair of a signature and a key is enough; compares in constant time.
///
/// # Errors
/// [`VerifyError`]; do not tell the sender which.
pub fn verify(keys: &[PreparedKey], received: &Received<'_>, now: impl Into<Moment>) -> Result<(), VerifyError> {
    if received.id.is_empty() {
        return Err(VerifyError::MissingId);
    }
    let text = received.timestamp;
    check_time(text, now)?;
    let mut error = VerifyError::NoSignature;
    for encoded in received.signatures.split(' ').filter_map(|part| part.strip_prefix(VERSION)).take(SIGNATURES_MAX) {
        error = VerifyError::Mismatch;
        // A whole MAC or nothing: a shortened one would be guessable.
        let Some(mac) = BASE64.decode(encoded).ok().filter(|mac| mac.len() == MAC_BYTES) else { continue };
        let fits = |key: &PreparedKey| key.mac(received.id.as_bytes(), text.as_bytes(), received.body).verify_slice(&mac).is_ok();
        if keys.iter().any(fits) {
            return Ok(());
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests;
