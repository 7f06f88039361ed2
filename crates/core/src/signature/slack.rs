//! `X-Slack-Signature: v0=<hex>`, HMAC-SHA256 over `v0:<seconds>:<body>`, the seconds in a header of their own.
//!
//! The whole text of the secret is the key. Only ever received: nobody but Slack signs so.

use hmac::Mac as _;

use super::standard::PreparedKey;
use super::verify::{Moment, SIGNATURES_MAX, VerifyError, check_time, decode_hex};

/// Name of the header.
pub const HEADER: &str = "x-slack-signature";
/// Name of the header with the time.
pub const TIME_HEADER: &str = "x-slack-request-timestamp";

const VERSION: &str = "v0=";

/// Verifies the values of both headers; compares in constant time.
///
/// # Errors
/// [`VerifyError`]; do not tell the sender which.
pub fn verify(keys: &[PreparedKey], time: &str, value: &str, body: &[u8], now: impl Into<Moment>) -> Result<(), VerifyError> {
    check_time(time, now)?;
    let mut error = VerifyError::NoSignature;
    // Slack sends one; others that sign alike send one a key, as they do for `standard`.
    for digits in value.split([',', ' ']).filter_map(|part| part.trim().strip_prefix(VERSION)).take(SIGNATURES_MAX) {
        error = VerifyError::Mismatch;
        let Some(mac) = decode_hex(digits) else { continue };
        let parts: [&[u8]; 4] = [b"v0:", time.as_bytes(), b":", body];
        if keys.iter().any(|key| key.mac_of(&parts).verify_slice(&mac).is_ok()) {
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
    fn published_signatures_are_judged_as_published() {
        let file = include_str!("../../../../tests/data/signatures/slack.json");
        let vectors: serde_json::Value = serde_json::from_str(file).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert!(vectors.len() > 1);
        for vector in vectors {
            let field = |name: &str| vector[name].as_str().unwrap();
            let key = [PreparedKey::from_bytes(field("secret").as_bytes())];
            let at = |seconds: i64| Timestamp((field("timestamp").parse::<i64>().unwrap() + seconds) * 1000);
            let verdict = |at| verify(&key, field("timestamp"), field("signature"), field("payload").as_bytes(), at).is_ok();
            let is_valid = vector["valid"] == true;
            assert_eq!([verdict(at(0)), verdict(at(299)), verdict(at(301))], [is_valid, is_valid, false], "{}", field("name"));
        }
    }

    #[test]
    fn what_is_no_whole_signature_is_refused() {
        let key = [PreparedKey::from_bytes(b"8f742231b10e8888abcd99yyyzzz85a5")];
        for value in ["", "v0=", "v0=00", "v1=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503", "a2114d57"] {
            assert!(verify(&key, "1531420618", value, b"", Timestamp(1_531_420_618_000)).is_err(), "{value:?}");
        }
        assert_eq!(verify(&key, "", "v0=00", b"", Timestamp(0)), Err(VerifyError::MalformedTimestamp));
    }
}
