//! Standard Webhooks 1.0, asymmetric: `v1a,` and the base64 of Ed25519 over `id.timestamp.body`.
//!
//! The receiver needs nothing secret: it verifies with the public key that a subscription shows. The signature stands in the same
//! header as those of `standard`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BufMut;
use ed25519_dalek::ed25519::signature::MultipartSigner as _;
use ed25519_dalek::{Signature as Signed, SigningKey, VerifyingKey};

use super::keys::Keys;
use super::standard::Received;
use super::verify::{Moment, SIGNATURES_MAX, VerifyError, check_time};
use super::{KeyError, Message, Signer};
use crate::model::subscription::parse::{PUBLIC_KEY_PREFIX, decode_private_key};
use crate::model::subscription::{Secret, Signature};

/// Length of one signature: `v1a,` and 88 characters of base64.
pub const SIGNATURE_BYTES: usize = VERSION.len() + SIGNED_CHARS;

const VERSION: &str = "v1a,";
const SIGNED_CHARS: usize = 88;

/// A private key with its public half.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Takes a `whsk_` secret.
    ///
    /// # Errors
    /// [`KeyError`] when it is malformed.
    pub fn new(secret: &Secret) -> Result<Self, KeyError> {
        Self::parse(secret.expose())
    }

    /// Takes the text form of a secret.
    ///
    /// # Errors
    /// [`KeyError`] when it is not `whsk_` and base64 of 32 or 64 bytes.
    pub fn parse(secret: &str) -> Result<Self, KeyError> {
        Ok(Self(SigningKey::from_bytes(&decode_private_key(secret).map_err(KeyError)?)))
    }

    /// What receivers verify with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// Prepares the keys of a subscription.
///
/// # Errors
/// [`KeyError`] when there is no key, or a malformed one.
pub fn prepare(signature: &Signature) -> Result<Signer, KeyError> {
    Keys::prepare(signature, PrivateKey::new).map(Signer::Ed25519)
}

/// Appends one signature a key, in the order given, separated by spaces.
///
/// # Panics
/// Never: 64 bytes are always 88 characters, and signing in memory does not fail.
pub fn sign_into<'k>(keys: impl IntoIterator<Item = &'k PrivateKey>, message: &Message<'_>, out: &mut impl BufMut) {
    let mut digits = itoa::Buffer::new();
    let timestamp = digits.format(message.at.as_secs()).as_bytes();
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 {
            out.put_slice(b" ");
        }
        let parts: [&[u8]; 5] = [message.id.as_bytes(), b".", timestamp, b".", message.body];
        let signed = key.0.try_multipart_sign(&parts).expect("invariant: signing in memory does not fail").to_bytes();
        let mut encoded = [0; SIGNED_CHARS];
        let written = BASE64.encode_slice(signed, &mut encoded).expect("invariant: 64 bytes are 88 characters");
        out.put_slice(VERSION.as_bytes());
        out.put_slice(&encoded[..written]);
    }
}

/// What a receiver has of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes a `whpk_` text.
    ///
    /// # Errors
    /// [`KeyError`] when it is not `whpk_` and base64 of a point on the curve.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.strip_prefix(PUBLIC_KEY_PREFIX).ok_or(KeyError("does not begin with `whpk_`"))?;
        let bytes = BASE64.decode(encoded).map_err(|_| KeyError("is not base64 after `whpk_`"))?;
        let bytes = bytes.try_into().map_err(|_| KeyError("does not hold 32 bytes"))?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| KeyError("is no Ed25519 key"))
    }

    /// Whether a signature is one over `content`; strict, so that no two signatures stand for one.
    fn fits(&self, content: &[u8], signed: &[u8]) -> bool {
        Signed::from_slice(signed).is_ok_and(|signed| self.0.verify_strict(content, &signed).is_ok())
    }
}

/// Verifies a received message: one fitting pair of a signature and a key is enough.
///
/// # Errors
/// [`VerifyError`]; do not tell the sender which.
pub fn verify(keys: &[PublicKey], received: &Received<'_>, now: impl Into<Moment>) -> Result<(), VerifyError> {
    if received.id.is_empty() {
        return Err(VerifyError::MissingId);
    }
    check_time(received.timestamp, now)?;
    let content = [received.id.as_bytes(), b".", received.timestamp.as_bytes(), b".", received.body].concat();
    let mut error = VerifyError::NoSignature;
    for encoded in received.signatures.split(' ').filter_map(|part| part.strip_prefix(VERSION)).take(SIGNATURES_MAX) {
        error = VerifyError::Mismatch;
        let Ok(signed) = BASE64.decode(encoded) else { continue };
        if keys.iter().any(|key| key.fits(&content, &signed)) {
            return Ok(());
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::subscription::SignatureScheme;
    use crate::model::subscription::parse::{parse_secret_of, public_key_of};

    /// The second vector of RFC 8032, section 7.1, has this key.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_private_key_with_or_without_its_public_half_is_the_same_key() {
        let alone = format!("whsk_{}", BASE64.encode(bytes(SEED)));
        let both = format!("whsk_{}", BASE64.encode([bytes(SEED), bytes(PUBLIC)].concat()));
        let public = format!("whpk_{}", BASE64.encode(bytes(PUBLIC)));
        for text in [&alone, &both] {
            assert_eq!(PrivateKey::parse(text).unwrap().public(), PublicKey::parse(&public).unwrap());
            let secret = parse_secret_of(SignatureScheme::StandardEd25519, text).unwrap();
            assert_eq!(public_key_of(&secret).as_deref(), Some(&*public));
        }
        let wrong = format!("whsk_{}", BASE64.encode([bytes(SEED), bytes(SEED)].concat()));
        assert!(PrivateKey::parse(&wrong).is_err(), "a public half of another key");
        assert!(!format!("{:?}", PrivateKey::parse(&alone).unwrap()).contains(SEED));
    }

    #[test]
    fn what_is_signed_verifies_and_any_other_message_does_not() {
        let key = PrivateKey::parse(&format!("whsk_{}", BASE64.encode(bytes(SEED)))).unwrap();
        let at = Timestamp(1_800_000_000_000);
        let mut value = Vec::new();
        sign_into([&key], &Message { id: "msg_1", at, body: b"{}" }, &mut value);
        let signatures = String::from_utf8(value).unwrap();
        assert_eq!(signatures.len(), SIGNATURE_BYTES);
        let keys = [key.public()];
        let check =
            |id, timestamp, signatures: &str, body: &[u8]| verify(&keys, &Received { id, timestamp, signatures, body }, at);
        assert_eq!(check("msg_1", "1800000000", &signatures, b"{}"), Ok(()));
        assert_eq!(check("msg_1", "1800000000", &format!("v1,x v1a,y {signatures}"), b"{}"), Ok(()));
        assert_eq!(check("msg_2", "1800000000", &signatures, b"{}"), Err(VerifyError::Mismatch));
        assert_eq!(check("msg_1", "1800000001", &signatures, b"{}"), Err(VerifyError::Mismatch));
        assert_eq!(check("msg_1", "1800000000", &signatures, b"{ }"), Err(VerifyError::Mismatch));
        assert_eq!(check("msg_1", "1800000301", &signatures, b"{}"), Err(VerifyError::TooNew));
        assert_eq!(check("", "1800000000", &signatures, b"{}"), Err(VerifyError::MissingId));
        assert_eq!(check("msg_1", "1800000000", "v1,AAAA", b"{}"), Err(VerifyError::NoSignature));
    }

    #[test]
    fn signatures_agree_with_wycheproof() {
        let file = include_str!("../../../../tests/data/signatures/wycheproof-ed25519.json");
        let vectors: serde_json::Value = serde_json::from_str(file).unwrap();
        let tests = vectors["tests"].as_array().unwrap();
        assert!(tests.len() > 100);
        for test in tests {
            let field = |name: &str| bytes(test[name].as_str().unwrap());
            let key = PublicKey(VerifyingKey::from_bytes(&field("key").try_into().unwrap()).unwrap());
            assert_eq!(key.fits(&field("msg"), &field("sig")), test["result"] == "valid", "tcId {}", test["tcId"]);
        }
    }
}
