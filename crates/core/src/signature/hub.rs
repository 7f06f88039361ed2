//! `X-Hub-Signature-256: sha256=<hex>`, HMAC-SHA256 over the body alone: what WebSub hubs and GitHub send.
//!
//! The whole text of the secret is the key. A header holds one signature, so after a rotation the newest key signs and no other.
//! Spec: W3C WebSub, section 7.1.

use bytes::BufMut;
use hmac::Mac as _;

use super::keys::Keys;
use super::standard::PreparedKey;
use super::verify::{VerifyError, decode_hex};
use super::{KeyError, Message, Signer};
use crate::model::subscription::Signature;

/// Name of the header.
pub const HEADER: &str = "x-hub-signature-256";
/// Length of a signature: `sha256=` and 64 digits.
pub const SIGNATURE_BYTES: usize = METHOD.len() + 64;

pub(super) const METHOD: &str = "sha256=";

/// Prepares the keys of a subscription.
///
/// # Errors
/// [`KeyError`] when there is no key.
pub fn prepare(signature: &Signature) -> Result<Signer, KeyError> {
    Keys::prepare(signature, |secret| Ok(PreparedKey::from_bytes(secret.expose().as_bytes()))).map(Signer::Hub)
}

/// Appends the signature of the newest key.
pub(super) fn sign_into(keys: &Keys<PreparedKey>, message: &Message<'_>, out: &mut impl BufMut) {
    let Some(key) = keys.in_force(message.at).next() else { return };
    out.put_slice(METHOD.as_bytes());
    put_hex(&key.mac_of(&[message.body]).finalize().into_bytes(), out);
}

/// Appends bytes as lower-case digits.
pub(super) fn put_hex(bytes: &[u8], out: &mut impl BufMut) {
    for byte in bytes {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        out.put_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Verifies the value of the header; compares in constant time. It says nothing of when the message was made.
///
/// # Errors
/// [`VerifyError`]; do not tell the sender which.
pub fn verify(keys: &[PreparedKey], value: &str, body: &[u8]) -> Result<(), VerifyError> {
    let digits = value.trim().strip_prefix(METHOD).ok_or(VerifyError::NoSignature)?;
    let mac = decode_hex(digits).ok_or(VerifyError::Mismatch)?;
    let fits = |key: &PreparedKey| key.mac_of(&[body]).verify_slice(&mac).is_ok();
    keys.iter().any(fits).then_some(()).ok_or(VerifyError::Mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_signatures_are_made_and_judged_as_published() {
        let file = include_str!("../../../../tests/data/signatures/hub.json");
        let vectors: serde_json::Value = serde_json::from_str(file).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert!(vectors.len() > 2);
        for vector in vectors {
            let field = |name: &str| vector[name].as_str().unwrap();
            let key = PreparedKey::from_bytes(field("secret").as_bytes());
            let body = field("payload").as_bytes();
            assert_eq!(
                verify(std::slice::from_ref(&key), field("signature"), body).is_ok(),
                vector["valid"] == true,
                "{}",
                field("name")
            );
            let mut made = METHOD.as_bytes().to_vec();
            put_hex(&key.mac_of(&[body]).finalize().into_bytes(), &mut made);
            assert_eq!(made == field("signature").as_bytes(), vector["valid"] == true);
            assert_eq!(made.len(), SIGNATURE_BYTES);
        }
    }

    #[test]
    fn what_is_no_whole_signature_is_refused() {
        let key = [PreparedKey::from_bytes(b"secret")];
        for value in ["", "sha1=00", "sha256=", "sha256=0", "sha256=zz", "sha256=00", "757107ea"] {
            assert!(verify(&key, value, b"").is_err(), "{value:?}");
        }
    }
}
