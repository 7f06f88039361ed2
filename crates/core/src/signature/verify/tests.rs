//! Receivers with the key of one scheme, and deliveries signed by several.

use super::*;
use crate::model::subscription::parse::generate_secret_of;
use crate::model::subscription::{Signature, SigningKey};
use crate::signature::{Message, SCHEMES, Signer};

const AT: Timestamp = Timestamp(1_800_000_000_000);
const BODY: &[u8] = b"{\"n\":1}";

fn signature(scheme: SignatureScheme, fill: u8) -> Signature {
    let secret = generate_secret_of(scheme, &mut |bytes| bytes.fill(fill));
    Signature { scheme, keys: vec![SigningKey { secret, expires_at: None }] }
}

/// The headers of a delivery signed by `signatures`, as `attempt.rs` joins them.
fn headers(signatures: &[Signature]) -> Vec<(&'static str, String)> {
    let mut headers: Vec<(&'static str, String)> = Vec::new();
    for signature in signatures {
        let mut value = Vec::new();
        let signer = Signer::prepare(signature).unwrap();
        let Some(name) = signer.sign(&Message { id: "msg_1", at: AT, body: BODY }, &mut value) else { continue };
        assert!(value.len() <= signer.value_bytes());
        let value = String::from_utf8(value).unwrap();
        match headers.iter_mut().find(|(other, _)| *other == name) {
            Some((_, joined)) => *joined = format!("{joined} {value}"),
            None => headers.push((name, value)),
        }
    }
    headers.push(("webhook-id", "msg_1".to_owned()));
    headers.push(("webhook-timestamp", "1800000000".to_owned()));
    headers
}

fn judged(secret: &str, headers: &[(&'static str, String)], body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
    let mut verifier = Verifier::default();
    verifier.add(secret).unwrap();
    let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value.as_str());
    verifier.verify(&header, body, now)
}

#[test]
fn every_scheme_is_verified_by_its_own_secret_and_no_other() {
    for scheme in SignatureScheme::ALL.into_iter().filter(|scheme| *scheme != SignatureScheme::None) {
        let signature = signature(scheme, 7);
        let headers = headers(std::slice::from_ref(&signature));
        let secret = signature.newest().unwrap().expose();
        assert_eq!(judged(secret, &headers, BODY, AT), Ok(()), "{}", scheme.word());
        assert_eq!(judged(secret, &headers, b"{}", AT), Err(VerifyError::Mismatch), "{}", scheme.word());
        let other = self::signature(scheme, 8);
        assert_eq!(judged(other.newest().unwrap().expose(), &headers, BODY, AT), Err(VerifyError::Mismatch));
        if scheme != SignatureScheme::Hub {
            assert_eq!(judged(secret, &headers, BODY, Timestamp(AT.0 + 301_000)), Err(VerifyError::TooOld));
        }
        assert_eq!(judged(secret, &headers[headers.len() - 2..], BODY, AT), Err(VerifyError::NoSignature));
    }
}

#[test]
fn one_of_several_schemes_is_enough() {
    let three = [
        signature(SignatureScheme::Standard, 1),
        signature(SignatureScheme::StandardEd25519, 2),
        signature(SignatureScheme::Hub, 3),
    ];
    let headers = headers(&three);
    assert_eq!(headers.len(), 4, "the two of Standard Webhooks share a header");
    assert!(headers[0].1.starts_with("v1,") && headers[0].1.contains(" v1a,"), "{}", headers[0].1);
    for signature in &three {
        assert_eq!(judged(signature.newest().unwrap().expose(), &headers, BODY, AT), Ok(()));
    }
}

#[test]
fn a_secret_of_no_scheme_is_refused() {
    for bad in ["", "short", "whsec_AAAA", "whsk_AAAA", "whpk_AAAA", "whsec_%%%", "sixteen characters with spaces"] {
        assert!(Verifier::default().add(bad).is_err(), "{bad:?}");
    }
    assert!(Verifier::default().is_empty());
}

#[test]
fn every_scheme_has_one_row() {
    for kind in SignatureScheme::ALL {
        let rows: Vec<_> = SCHEMES.iter().filter(|scheme| scheme.kind == kind).collect();
        assert_eq!((rows.len(), rows[0].name), (1, kind.word()));
    }
}

#[test]
fn digits_are_read_whole_or_not_at_all() {
    assert_eq!(decode_hex(&"0f".repeat(32)), Some([15; 32]));
    for bad in ["", "0f", &"0g".repeat(32), &"0f".repeat(33), &"é".repeat(32)] {
        assert_eq!(decode_hex(bad), None, "{bad}");
    }
}
