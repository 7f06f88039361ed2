//! Rows about signatures and their keys.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::parse::parse_secret;
use hookcast_core::model::subscription::{Signature, SignatureScheme, SigningKey};
use hookcast_core::signature::verify::Verifier;
use hookcast_core::signature::{Message, Signer};
use serde_json::json;

use super::{is_not_here, rows};
use crate::support::{Answer, Receiver, Relay, SECRET};

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const NOW_S: i64 = 1_614_265_330;
const BODY: &str = r#"{"test": 2432232314}"#;
const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

/// Whether the receiver of the first row believes a message.
fn is_believed(id: &str, timestamp: &str, signatures: &str, body: &str) -> bool {
    let mut verifier = Verifier::default();
    verifier.add(SECRET).unwrap();
    let header = |name: &str| match name {
        "webhook-id" => id,
        "webhook-timestamp" => timestamp,
        "webhook-signature" => signatures,
        _ => "",
    };
    verifier.verify(&header, body.as_bytes(), Timestamp(NOW_S * 1000)).is_ok()
}

/// The first row: this message gets exactly this signature.
fn is_signed_as(wanted: &str) -> bool {
    let keys = vec![SigningKey { secret: parse_secret(SECRET).unwrap(), expires_at: None }];
    let signer = Signer::prepare(&Signature { scheme: SignatureScheme::Standard, keys }).unwrap();
    let mut made = Vec::new();
    signer.sign(&Message { id: ID, at: Timestamp(NOW_S * 1000), body: BODY.as_bytes() }, &mut made);
    made == wanted.as_bytes()
}

/// The verdict of a row about one message; `None` if it is about more than that.
fn verdict(input: &str) -> Option<bool> {
    let (now, text) = (NOW_S, |seconds: i64| seconds.to_string());
    Some(match input {
        "body with one space changed" => is_believed(ID, &text(now), GOOD, r#"{"test":  2432232314}"#),
        "timestamp now-301" => is_believed(ID, &text(now - 301), GOOD, BODY),
        "timestamp now+301" => is_believed(ID, &text(now + 301), GOOD, BODY),
        "timestamp abc" => is_believed(ID, "abc", GOOD, BODY),
        "signature list `v1,bad v1,good`" => is_believed(ID, &text(now), &format!("v1,bad {GOOD}"), BODY),
        "signature cut to 4 chars" => is_believed(ID, &text(now), &GOOD[..7], BODY),
        "empty signature header" => is_believed(ID, &text(now), "", BODY),
        "id from another message" => is_believed("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", &text(now), GOOD, BODY),
        _ => return None,
    })
}

/// Carries out a row about keys on a relay; false if there is no such case.
async fn is_carried_out(relay: &Relay, name: &str, input: &str) -> bool {
    let receiver = Receiver::with(|_, n| Answer::status(if n == 0 { 500 } else { 200 })).await;
    let retry = json!({"retry": {"max_attempts": 3, "schedule": ["1100ms"], "jitter": 0.0}});
    relay.subscribe(name, receiver.url(), name, retry).await;
    let path = format!("/v1/subscriptions/{name}");
    let rotate = format!("{path}/secret/rotate");
    match input {
        "rotate; delivery inside overlap" | "rotate; delivery after overlap" => {
            let is_inside = input.ends_with("inside overlap");
            let overlap = if is_inside { "1h" } else { "0s" };
            let rotated = relay.must("POST", &rotate, json!({"overlap": overlap})).await;
            let secret = rotated["signature"]["secret"].as_str().unwrap();
            relay.publish(name, "{}").await;
            let delivery = receiver.sees(1).await.remove(0);
            let signatures: Vec<&str> = delivery.header("webhook-signature").split(' ').collect();
            assert_eq!(signatures.len(), 1 + usize::from(is_inside));
            assert!(delivery.is_signed_with(secret) && delivery.is_signed_with(SECRET) == is_inside);
            let mut first = delivery.clone();
            first.headers.insert("webhook-signature".to_owned(), signatures[0].to_owned());
            assert!(first.is_signed_with(secret), "the new key comes first");
        }
        "rotate 11 times in the overlap" => {
            let mut refused = Vec::new();
            for n in 1..=11 {
                let (status, answer) = relay.ask("POST", &rotate, Some(&json!({"overlap": "1h"}))).await;
                if status != 200 {
                    assert_eq!((status, &answer["type"]), (429, &json!("/problems/too_many_keys")), "{answer}");
                    refused.push(n);
                }
            }
            assert_eq!(refused, [10, 11], "ten keys sign at most, the first one included");
            relay.publish(name, "{}").await;
            assert_eq!(receiver.sees(1).await[0].header("webhook-signature").split(' ').count(), 10);
        }
        "GET subscription" => {
            let shown = relay.get(&path).await;
            assert!(!shown.to_string().contains("whsec_"), "{shown}");
        }
        "retry of one event after 1 h" => {
            relay.publish(name, "{\"a\":  1}").await;
            let seen = receiver.sees(2).await;
            assert_eq!((seen[0].id(), &seen[0].body), (seen[1].id(), &seen[1].body));
            assert_ne!(seen[0].header("webhook-timestamp"), seen[1].header("webhook-timestamp"));
            seen.iter().for_each(crate::support::Delivery::verify);
        }
        _ => return false,
    }
    true
}

#[tokio::test]
async fn every_signature_row_holds() {
    assert!(is_believed(ID, &NOW_S.to_string(), GOOD, BODY), "else no refusal means anything");
    let relay = Relay::start().await;
    for (index, row) in rows("signature").iter().enumerate().filter(|(_, row)| !is_not_here(row)) {
        if let Some(is_good) = verdict(&row.input) {
            let wanted = row.expected.starts_with("VERIFY_OK");
            assert!(wanted || row.expected.starts_with("VERIFY_FAIL"), "{}", row.expected);
            assert_eq!(is_good, wanted, "{}", row.input);
        } else if let Some(signature) = row.expected.strip_prefix("SIGN:") {
            assert!(row.input.contains(ID) && row.input.contains(BODY) && row.input.contains(SECRET));
            assert!(is_signed_as(signature), "{}", row.input);
        } else {
            assert!(is_carried_out(&relay, &format!("row-{index}"), &row.input).await, "no case for signature {:?}", row.input);
        }
    }
}
