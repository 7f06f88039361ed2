//! Signatures against the published vectors, and what keys are refused.

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::model::subscription::parse::parse_secret;
use crate::model::subscription::{SignatureScheme, SigningKey};
use crate::signature::Message;
use std::time::Duration;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: Timestamp = Timestamp(1_614_265_330_000);
const BODY: &[u8] = b"{\"test\": 2432232314}";
const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn signature(keys: &[(&str, Option<Timestamp>)]) -> Signature {
    let keys = keys.iter().map(|(text, expires_at)| SigningKey { secret: parse_secret(text).unwrap(), expires_at: *expires_at });
    Signature { scheme: SignatureScheme::Standard, keys: keys.collect() }
}

fn signed(signature: &Signature, message: &Message<'_>) -> (Option<&'static str>, String) {
    let mut out = Vec::new();
    let header = Signer::prepare(signature).unwrap().sign(message, &mut out);
    (header, String::from_utf8(out).unwrap())
}

fn check(secret: &str, timestamp: &str, signatures: &str, body: &[u8], now_s: i64) -> Result<(), VerifyError> {
    let keys = [PreparedKey::parse(secret).unwrap()];
    verify(&keys, &Received { id: ID, timestamp, signatures, body }, Timestamp(now_s * 1000))
}

const NOW: i64 = 1_614_265_330;

#[test]
fn the_reference_message_gets_the_reference_signature() {
    let (header, value) = signed(&signature(&[(SECRET, None)]), &Message { id: ID, at: AT, body: BODY });
    assert_eq!((header, value.as_str()), (Some("webhook-signature"), GOOD));
    assert_eq!(value.len(), SIGNATURE_BYTES);
}

#[test]
fn a_good_signature_is_believed_and_bad_ones_are_not() {
    let now = "1614265330";
    assert_eq!(check(SECRET, now, GOOD, BODY, NOW), Ok(()));
    assert_eq!(check(SECRET, now, &format!("v1,bad {GOOD}"), BODY, NOW), Ok(()));
    assert_eq!(check(SECRET, now, GOOD, b"{\"test\":  2432232314}", NOW), Err(VerifyError::Mismatch));
    assert_eq!(check(OTHER, now, GOOD, BODY, NOW), Err(VerifyError::Mismatch));
    assert_eq!(check(SECRET, now, &GOOD[..7], BODY, NOW), Err(VerifyError::Mismatch));
    assert_eq!(check(SECRET, now, "v1,", BODY, NOW), Err(VerifyError::Mismatch));
    for nothing in ["", " ", "v1", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
        assert_eq!(check(SECRET, now, nothing, BODY, NOW), Err(VerifyError::NoSignature), "{nothing:?}");
    }
    for nonsense in ["abc", "", "+1614265330", "-1", " 1614265330", "1614265330.0", "99999999999999999999"] {
        assert_eq!(check(SECRET, nonsense, GOOD, BODY, NOW), Err(VerifyError::MalformedTimestamp), "{nonsense:?}");
    }
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let at = |now| check(SECRET, "1614265330", GOOD, BODY, now);
    assert_eq!((at(NOW + 300), at(NOW - 300)), (Ok(()), Ok(())));
    assert_eq!((at(NOW + 301), at(NOW - 301)), (Err(VerifyError::TooOld), Err(VerifyError::TooNew)));
}

#[test]
fn signatures_beyond_the_limit_are_not_looked_at() {
    let padded = |n: usize| format!("{}{GOOD}", "v1,bad ".repeat(n));
    assert_eq!(check(SECRET, "1614265330", &padded(SIGNATURES_MAX - 1), BODY, NOW), Ok(()));
    assert_eq!(check(SECRET, "1614265330", &padded(SIGNATURES_MAX), BODY, NOW), Err(VerifyError::Mismatch));
}

#[test]
fn both_keys_sign_during_a_rotation_new_first() {
    let rotated = signature(&[(OTHER, None), (SECRET, Some(AT.plus(Duration::from_hours(24))))]);
    let message = |at| Message { id: ID, at, body: BODY };
    let (_, inside) = signed(&rotated, &message(AT));
    let parts: Vec<_> = inside.split(' ').collect();
    assert_eq!((parts.len(), parts[1]), (2, GOOD));
    assert_ne!(parts[0], GOOD);
    assert_eq!(check(SECRET, "1614265330", &inside, BODY, NOW), Ok(()));
    assert_eq!(check(OTHER, "1614265330", &inside, BODY, NOW), Ok(()));
    let (_, after) = signed(&rotated, &message(AT.plus(Duration::from_hours(24))));
    assert_eq!(after.split(' ').count(), 1);
}

#[test]
fn the_newest_key_always_signs() {
    let (header, value) = signed(&signature(&[(SECRET, Some(Timestamp(0)))]), &Message { id: ID, at: AT, body: BODY });
    assert_eq!((header, value.as_str()), (Some("webhook-signature"), GOOD));
}

#[test]
fn a_subscription_without_signature_adds_no_header() {
    let none = Signature { scheme: SignatureScheme::None, keys: Vec::new() };
    assert_eq!(signed(&none, &Message { id: ID, at: AT, body: BODY }), (None, String::new()));
    let keyless = Signature { scheme: SignatureScheme::Standard, keys: Vec::new() };
    assert!(Signer::prepare(&keyless).is_err());
}

#[test]
fn debug_output_shows_no_key() {
    let shown = format!("{:?}", Signer::prepare(&signature(&[(SECRET, None)])).unwrap());
    assert!(shown.contains("PreparedKey(…)") && shown.len() < 80, "{shown}");
}

#[test]
fn macs_agree_with_wycheproof() {
    let file = include_str!("../../../../../tests/data/signatures/wycheproof-hmac-sha256.json");
    let vectors: serde_json::Value = serde_json::from_str(file).unwrap();
    let bytes = |value: &serde_json::Value| -> Vec<u8> {
        let text = value.as_str().unwrap();
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    };
    let tests = vectors["tests"].as_array().unwrap();
    assert!(tests.len() > 80);
    for test in tests {
        let mut mac = PreparedKey::from_bytes(&bytes(&test["key"])).0.clone();
        mac.update(&bytes(&test["msg"]));
        assert_eq!(mac.verify_slice(&bytes(&test["tag"])).is_ok(), test["result"] == "valid", "tcId {}", test["tcId"]);
    }
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_any_other_body_does_not(
        body in prop::collection::vec(any::<u8>(), 0..200),
        other in prop::collection::vec(any::<u8>(), 0..200),
        at in 0_i64..4_000_000_000,
    ) {
        let at = Timestamp(at * 1000);
        let (_, value) = signed(&signature(&[(SECRET, None)]), &Message { id: ID, at, body: &body });
        prop_assert_eq!(check(SECRET, &at.as_secs().to_string(), &value, &body, at.as_secs()), Ok(()));
        if other != body {
            prop_assert!(check(SECRET, &at.as_secs().to_string(), &value, &other, at.as_secs()).is_err());
        }
    }
}
