//! Signatures against the published vectors and against the reference library.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use hookcast_core::clock::{Clock, SystemClock, Timestamp};
use hookcast_core::model::subscription::parse::{generate_secret, parse_secret};
use hookcast_core::model::subscription::{Secret, Signature, SignatureScheme, SigningKey};
use hookcast_core::signature::standard::{PreparedKey, Received, verify};
use hookcast_core::signature::{Message, Signer};
use serde_json::Value;

fn header(secret: Secret, message: &Message<'_>) -> String {
    let keys = vec![SigningKey { secret, expires_at: None }];
    let signer = Signer::prepare(&Signature { scheme: SignatureScheme::Standard, keys }).unwrap();
    let mut out = Vec::new();
    assert_eq!(signer.sign(message, &mut out), Some("webhook-signature"));
    String::from_utf8(out).unwrap()
}

#[test]
fn the_published_vectors_are_judged_as_published() {
    let file: Value = serde_json::from_str(include_str!("../data/signatures/standard-webhooks.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() > 10);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let field = |name: &str| vector["headers"][name].as_str().unwrap_or_default();
        let received = Received {
            id: field("webhook-id"),
            timestamp: field("webhook-timestamp"),
            signatures: field("webhook-signature"),
            body: vector["payload"].as_str().unwrap().as_bytes(),
        };
        let key = PreparedKey::parse(vector["secret"].as_str().unwrap()).unwrap();
        let now = Timestamp(vector["now"].as_i64().unwrap() * 1000);
        assert_eq!(verify(&[key], &received, now).is_ok(), vector["valid"] == true, "{name}");
    }
}

#[test]
fn a_published_message_is_signed_as_published() {
    let at = Timestamp(1_649_367_553_000);
    let body = br#"{"email":"test@example.com","username":"test_user"}"#;
    let message = Message { id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", at, body };
    let secret = parse_secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
    assert_eq!(header(secret, &message), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
}

#[test]
fn the_reference_library_believes_our_signatures_and_we_believe_its() {
    let secret = generate_secret(&mut |key| fill(key));
    let reference = standardwebhooks::Webhook::new(secret.expose()).unwrap();
    let now = SystemClock.now();
    for body in [&b""[..], b"{}", b"{\"a\":\"\xc3\xa9\"}", &vec![b'x'; 100_000]] {
        let message = Message { id: "msg_abcdefgh_42", at: now, body };
        let ours = header(secret.clone(), &message);
        let headers = reqwest::header::HeaderMap::from_iter([
            ("webhook-id".parse().unwrap(), "msg_abcdefgh_42".parse().unwrap()),
            ("webhook-timestamp".parse().unwrap(), now.as_secs().to_string().parse().unwrap()),
            ("webhook-signature".parse().unwrap(), ours.parse::<reqwest::header::HeaderValue>().unwrap()),
        ]);
        reference.verify(body, &headers).unwrap();
        let theirs = reference.sign("msg_abcdefgh_42", now.as_secs(), body).unwrap();
        let (key, timestamp) = (PreparedKey::new(&secret).unwrap(), now.as_secs().to_string());
        let received = Received { id: "msg_abcdefgh_42", timestamp: &timestamp, signatures: &theirs, body };
        assert_eq!(verify(&[key], &received, now), Ok(()));
    }
}

fn fill(buffer: &mut [u8]) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = u8::try_from(index * 7 % 251).unwrap();
    }
}
