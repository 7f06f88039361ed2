//! `Stripe-Signature: t=<seconds>,v1=<hex>`, HMAC-SHA256 over `<seconds>.<body>`, one `v1` a key during a rotation.
//!
//! The whole text of the secret is the key, its `whsec_` included.

use bytes::BufMut;
use hmac::Mac as _;

use super::hub::put_hex;
use super::keys::Keys;
use super::standard::PreparedKey;
use super::verify::{Moment, SIGNATURES_MAX, VerifyError, check_time, decode_hex};
use super::{KeyError, Message, Signer};
use crate::model::subscription::Signature;

/// Name of the header.
pub const HEADER: &str = "stripe-signature";
/// Length of one signature: `,v1=` and 64 digits.
pub const SIGNATURE_BYTES: usize = 4 + 64;
/// Longest time in front of the signatures.
pub(super) const TIME_BYTES_MAX: usize = 2 + 20;

/// Prepares the keys of a subscription.
///
/// # Errors
/// [`KeyError`] when there is no key.
pub fn prepare(signature: &Signature) -> Result<Signer, KeyError> {
    Keys::prepare(signature, |secret| Ok(PreparedKey::from_bytes(secret.expose().as_bytes()))).map(Signer::Stripe)
}

/// Appends the time, and one signature a key, in the order given.
pub(super) fn sign_into<'k>(keys: impl Iterator<Item = &'k PreparedKey>, message: &Message<'_>, out: &mut impl BufMut) {
    let mut digits = itoa::Buffer::new();
    let time = digits.format(message.at.as_secs()).as_bytes();
    out.put_slice(b"t=");
    out.put_slice(time);
    for key in keys {
        out.put_slice(b",v1=");
        put_hex(&key.mac_of(&[time, b".", message.body]).finalize().into_bytes(), out);
    }
}

/// The time in the value of the header, empty if there is none.
pub(super) fn time_of(value: &str) -> &str {
    let mut members = value.split(',').filter_map(|member| member.trim().split_once('='));
    members.find(|(name, _)| *name == "t").map_or("", |(_, time)| time)
}

/// Verifies the value of the header: one fitting pair of a signature and a key is enough; compares in constant time.
///
/// # Errors
/// [`VerifyError`]; do not tell the sender which.
pub fn verify(keys: &[PreparedKey], value: &str, body: &[u8], now: impl Into<Moment>) -> Result<(), VerifyError> {
    let members = || value.split(',').filter_map(|member| member.trim().split_once('='));
    let time = time_of(value);
    check_time(time, now)?;
    let mut error = VerifyError::NoSignature;
    for (_, digits) in members().filter(|(name, _)| *name == "v1").take(SIGNATURES_MAX) {
        error = VerifyError::Mismatch;
        let Some(mac) = decode_hex(digits) else { continue };
        if keys.iter().any(|key| key.mac_of(&[time.as_bytes(), b".", body]).verify_slice(&mac).is_ok()) {
            return Ok(());
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn every_key_signs_and_each_of_them_verifies() {
        let keys = [PreparedKey::from_bytes(b"whsec_new_and_long"), PreparedKey::from_bytes(b"whsec_old_and_long")];
        let at = Timestamp(1_800_000_000_000);
        let mut value = Vec::new();
        sign_into(keys.iter(), &Message { id: "msg_1", at, body: b"{}" }, &mut value);
        let value = String::from_utf8(value).unwrap();
        assert!(value.starts_with("t=1800000000,v1=") && value.matches(",v1=").count() == 2, "{value}");
        assert_eq!(value.len(), "t=1800000000".len() + 2 * SIGNATURE_BYTES);
        for key in &keys {
            assert_eq!(verify(std::slice::from_ref(key), &value, b"{}", at), Ok(()));
        }
        let other = [PreparedKey::from_bytes(b"another")];
        assert_eq!(verify(&other, &value, b"{}", at), Err(VerifyError::Mismatch));
        assert_eq!(verify(&keys, &value, b"{ }", at), Err(VerifyError::Mismatch));
        assert_eq!(verify(&keys, &value.replace("00,", "01,"), b"{}", at), Err(VerifyError::Mismatch));
        assert_eq!(verify(&keys, "t=1800000000", b"{}", at), Err(VerifyError::NoSignature));
        assert_eq!(verify(&keys, &value[15..], b"{}", at), Err(VerifyError::MalformedTimestamp));
        assert_eq!(verify(&keys, &value, b"{}", Timestamp(at.0 + 301_000)), Err(VerifyError::TooOld));
    }
}
