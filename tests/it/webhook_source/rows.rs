//! The rows `signature` of the collection of bad inputs, as far as they are about receiving.

use serde_json::{Value, json};

use super::source;
use crate::support::{Relay, SECRET};

const ROWS: &str = include_str!("../../data/webhooks/bad-inputs.csv");
const BODY: &str = "{\"test\": 2432232314}";

fn rows() -> Vec<(String, String)> {
    let unquoted = |text: &str| text.replace("\"\"", "\"");
    let split = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        (unquoted(cells[1]), unquoted(cells[2]))
    };
    ROWS.lines().skip(1).map(split).collect()
}

fn signature(secret: &str, id: &str, at: &str, body: &str) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = base64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    format!("v1,{}", base64.encode(mac.finalize().into_bytes()))
}

/// What is sent for a row: id, time, signatures, body; none for rows about definitions.
fn message(input: &str) -> Option<[String; 4]> {
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let now = jiff::Timestamp::now().as_second();
    let at = now.to_string();
    let good = signature(SECRET, id, &at, BODY);
    let text = str::to_owned;
    // Ten seconds beyond, for the time that this takes.
    let beyond = |seconds: i64| {
        let at = (now + seconds).to_string();
        [text(id), at.clone(), signature(SECRET, id, &at, BODY), text(BODY)]
    };
    Some(match input {
        _ if input.starts_with("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw; id") => {
            [text(id), text("1614265330"), signature(SECRET, id, "1614265330", BODY), text(BODY)]
        }
        "body with one space changed" => [text(id), at, good, BODY.replace(": ", ":  ")],
        "timestamp now-301" => beyond(-301),
        "timestamp now+301" => beyond(311),
        "timestamp abc" => [text(id), text("abc"), signature(SECRET, id, "abc", BODY), text(BODY)],
        "signature list `v1,bad v1,good`" => [text(id), at, format!("v1,bad {good}"), text(BODY)],
        "signature cut to 4 chars" => [text(id), at, good[..7].to_owned(), text(BODY)],
        "empty signature header" => [text(id), at, String::new(), text(BODY)],
        "id from another message" => [text("msg_another"), at, good, text(BODY)],
        _ => return None,
    })
}

fn secret_of(input: &str) -> Option<String> {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let bytes = |count: usize| Some(format!("whsec_{}", base64.encode(vec![7; count])));
    match input {
        "secret empty" => Some(String::new()),
        "secret whsec_ + 23 bytes" => bytes(23),
        "secret whsec_ + 64 bytes" => bytes(64),
        "secret whsec_ + 65 bytes" => bytes(65),
        "secret whsec_%%%" => Some("whsec_%%%".to_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn every_row_about_receiving_is_answered_as_it_says() {
    let relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "standard", "secret": SECRET}), json!({})).await;
    let (mut sent, mut defined, mut shown) = (0, 0, 0);
    for (input, expected) in rows() {
        if let Some([id, at, signatures, body]) = message(&input) {
            sent += 1;
            let request = relay.client.post(&url).header("webhook-id", id).header("webhook-timestamp", at);
            let status = request.header("webhook-signature", &signatures).body(body).send().await.unwrap().status().as_u16();
            match expected.strip_prefix("SIGN:") {
                // The signature that the row says; its time is long past, so that it is not taken all the same.
                Some(wanted) => assert_eq!((signatures.as_str(), status), (wanted, 401)),
                None if expected == "VERIFY_OK" => assert_eq!(status, 200, "{input}"),
                None => assert!(expected.starts_with("VERIFY_FAIL") && status == 401, "{input}: {expected}, {status}"),
            }
        } else if let Some(secret) = secret_of(&input) {
            defined += 1;
            let body =
                json!({"protocol": "webhook", "topic": "in", "settings": {"verify": {"scheme": "standard", "secret": secret}}});
            let (status, answer) = relay.ask("PUT", "/v1/sources/b", Some(&body)).await;
            if expected == "ACCEPT" {
                assert_eq!(status, 201, "{input}: {answer}");
            } else {
                let wanted = expected.split(' ').next().unwrap().strip_prefix("REJECT:422:").unwrap();
                assert_eq!((status, &answer["type"]), (422, &json!(format!("/problems/{wanted}"))), "{input}");
            }
        } else {
            assert_eq!(input, "GET subscription", "a row that nothing judges");
            shown += 1;
            let text = [relay.get("/v1/sources/a").await, relay.get("/v1/sources").await].map(|value: Value| value.to_string());
            assert!(!text.concat().contains("whsec_"), "{expected}");
        }
    }
    assert_eq!((sent, defined, shown), (9, 5, 1));
}
