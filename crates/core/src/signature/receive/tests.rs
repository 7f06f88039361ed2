//! Each scheme with what its sender sends, and with what others might.

use super::*;
use crate::model::source::own::webhook::TOLERANCE_DEFAULT;

const NOW: Timestamp = Timestamp(1_531_420_618_000);
const BODY: &[u8] = b"{}";
const TEXT: &str = "a secret of somebody";

fn lock(scheme: SenderScheme, secrets: &[&str], header: Option<&str>) -> Lock {
    let secrets = secrets.iter().map(|text| Secret::trusted((*text).to_owned())).collect();
    Lock::new(&SenderProof { scheme, secrets, tolerance: TOLERANCE_DEFAULT, header: header.map(str::to_owned) }).unwrap()
}

fn judged(lock: &Lock, headers: &[(&str, &str)], body: &[u8]) -> Result<(), VerifyError> {
    let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| *value);
    let glance = lock.glance(&header, NOW);
    let whole = lock.open(&header, body, NOW);
    assert!(glance.is_ok() || whole.is_err(), "what does not pass a glance is never good");
    glance.and(whole)
}

fn hex(secret: &str, parts: &[&[u8]]) -> String {
    let mut digits = Vec::new();
    put_hex(&PreparedKey::from_bytes(secret.as_bytes()).mac_of(parts).finalize().into_bytes(), &mut digits);
    String::from_utf8(digits).unwrap()
}

#[test]
fn digits_stand_with_or_without_their_method_and_only_whole() {
    let (github, own) =
        (lock(SenderScheme::Github, &["other secret here", TEXT], None), lock(SenderScheme::Hub, &[TEXT], Some("x-own")));
    let good = hex(TEXT, &[BODY]);
    let prefixed = format!("sha256={good}");
    assert_eq!(judged(&github, &[("x-hub-signature-256", &prefixed)], BODY), Ok(()));
    assert_eq!(judged(&own, &[("x-own", &good)], BODY), Ok(()));
    assert_eq!(judged(&own, &[("x-own", &good.to_uppercase())], BODY), Ok(()));
    assert_eq!(judged(&own, &[("x-hub-signature-256", &prefixed)], BODY), Err(VerifyError::NoSignature));
    for bad in [&good[..63], "sha256=", "sha1=757107ea", &format!("{good}00"), &hex("x", &[BODY])] {
        assert_eq!(judged(&github, &[("x-hub-signature-256", bad)], BODY), Err(VerifyError::Mismatch), "{bad}");
    }
    assert_eq!(judged(&github, &[("x-hub-signature-256", &prefixed)], b"{ }"), Err(VerifyError::Mismatch));
    assert_eq!(judged(&github, &[], BODY), Err(VerifyError::NoSignature));
}

#[test]
fn shopify_signs_in_base64() {
    let shopify = lock(SenderScheme::Shopify, &[TEXT], None);
    let mac = PreparedKey::from_bytes(TEXT.as_bytes()).mac_of(&[BODY]).finalize().into_bytes();
    let good = BASE64.encode(mac);
    assert_eq!(judged(&shopify, &[("x-shopify-hmac-sha256", &good)], BODY), Ok(()));
    for bad in [BASE64.encode(&mac[..16]), hex(TEXT, &[BODY]), "=".to_owned()] {
        assert_eq!(judged(&shopify, &[("x-shopify-hmac-sha256", &bad)], BODY), Err(VerifyError::Mismatch), "{bad}");
    }
}

#[test]
fn a_token_is_the_whole_value_or_a_bearer_of_it() {
    let gitlab = lock(SenderScheme::Gitlab, &[TEXT], None);
    assert_eq!(judged(&gitlab, &[("x-gitlab-token", TEXT)], BODY), Ok(()));
    assert_eq!(judged(&gitlab, &[("x-gitlab-token", &TEXT[1..])], BODY), Err(VerifyError::Mismatch));
    assert_eq!(judged(&gitlab, &[("x-gitlab-token", &format!("Bearer {TEXT}"))], BODY), Err(VerifyError::Mismatch));
    let bearer = lock(SenderScheme::Token, &["one that was before", TEXT], Some("authorization"));
    for good in [TEXT.to_owned(), format!("Bearer {TEXT}"), format!("bearer  {TEXT}")] {
        assert_eq!(judged(&bearer, &[("authorization", &good)], BODY), Ok(()), "{good}");
    }
    for bad in ["Bearer ", "Bearer", "é", &format!("Basic {TEXT}")] {
        assert_eq!(judged(&bearer, &[("authorization", bad)], BODY), Err(VerifyError::Mismatch), "{bad}");
    }
    assert_eq!(judged(&bearer, &[("authorization", "")], BODY), Err(VerifyError::NoSignature));
}

#[test]
fn a_signed_time_names_what_has_no_name_whatever_else_the_header_says() {
    let stripe = lock(SenderScheme::Stripe, &[TEXT], None);
    let value = format!("t=1531420618,v1={}", hex(TEXT, &[b"1531420618.", BODY]));
    let name = |value: &str, body: &[u8]| stripe.name_of(&|_: &str| -> &'static str { value.to_owned().leak() }, body).unwrap();
    assert_eq!(judged(&stripe, &[("stripe-signature", &value)], BODY), Ok(()));
    assert_eq!(name(&value, BODY), name(&format!("{value},v1=00"), BODY));
    assert_ne!(name(&value, BODY), name(&value, b"{ }"));
    assert_ne!(name(&value, BODY), name("t=1531420619,v1=00", BODY));
    assert!(lock(SenderScheme::Github, &[TEXT], None).name_of(&|_: &str| "", BODY).is_none());
}

#[test]
fn every_time_has_to_be_near() {
    for (scheme, secret) in [
        (SenderScheme::Stripe, TEXT),
        (SenderScheme::Slack, TEXT),
        (SenderScheme::Standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ] {
        let lock = lock(scheme, &[secret], None);
        for (time, wanted) in [
            ("1531420317", Err(VerifyError::TooOld)),
            ("1531420919", Err(VerifyError::TooNew)),
            ("", Err(VerifyError::MalformedTimestamp)),
            ("1531420618.0", Err(VerifyError::MalformedTimestamp)),
            ("1531420318", Ok(())),
            ("1531420918", Ok(())),
        ] {
            let stripe = format!("t={time},v1=00");
            let headers = [
                ("stripe-signature", stripe.as_str()),
                ("x-slack-signature", "v0=00"),
                ("x-slack-request-timestamp", time),
                ("webhook-signature", "v1,00"),
                ("webhook-id", "a"),
                ("webhook-timestamp", time),
            ];
            let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| *value);
            assert_eq!(lock.glance(&header, NOW), wanted, "{scheme:?} {time}");
        }
    }
}
