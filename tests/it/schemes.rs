//! Every signature scheme as receivers meet it: judged by the libraries that receivers use, through rotations and moves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::cli::Running;
use crate::support::judge::{all_judged, judge, question};
use crate::support::{Answer, Delivery, Receiver, Relay, SECRET, eventually};

/// Makes a subscription and gives the secrets that were shown, by scheme.
async fn subscribe(relay: &Relay, id: &str, url: &str, signature: Value) -> Vec<(String, String)> {
    let body = json!({"id": id, "url": url, "topics": ["t"], "signature": signature});
    let made = relay.must("POST", "/v1/subscriptions", body).await;
    let shown = made["signature"].as_array().cloned().unwrap_or_else(|| vec![made["signature"].clone()]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    shown.iter().map(|one| (text(&one["scheme"]), text(&one["secret"]))).collect()
}

/// The library that judges a scheme, and what the receiver must know for it.
async fn known(relay: &Relay, id: &str, scheme: &str, secret: &str) -> (&'static str, String) {
    match scheme {
        "standard" => ("standardwebhooks", secret.to_owned()),
        "standard-ed25519" => {
            let shown = relay.get(&format!("/v1/subscriptions/{id}")).await["signature"].clone();
            let one = |value: &Value| value["scheme"] == "standard-ed25519";
            let found =
                shown.as_array().map_or_else(|| shown.clone(), |all| all.iter().find(|value| one(value)).unwrap().clone());
            ("cryptography", found["public_key"].as_str().unwrap().to_owned())
        }
        "hub" => ("hmac", secret.to_owned()),
        "stripe" => ("stripe", secret.to_owned()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
#[ignore = "needs python"]
async fn every_scheme_is_believed_by_the_library_of_its_receivers() {
    let relay = Relay::start().await;
    let mut questions = Vec::new();
    for scheme in ["standard", "standard-ed25519", "hub", "stripe"] {
        let receiver = Receiver::start().await;
        let secrets = subscribe(&relay, scheme, receiver.url(), json!({"scheme": scheme})).await;
        let (library, secret) = known(&relay, scheme, scheme, &secrets[0].1).await;
        relay.publish("t", "{\"text\":\"h\u{e4}h\", \"n\":  1}").await;
        let delivery = receiver.sees(1).await.remove(0);
        questions.push((question(library, &delivery, &secret), true));
        let mut changed = delivery.clone();
        changed.body.push(b' ');
        questions.push((question(library, &changed, &secret), false));
        assert_eq!(relay.ask("DELETE", &format!("/v1/subscriptions/{scheme}"), None).await.0, 204);
    }
    let unsigned = Receiver::start().await;
    subscribe(&relay, "none", unsigned.url(), json!({"scheme": "none"})).await;
    relay.publish("t", "{}").await;
    let delivery = unsigned.sees(1).await.remove(0);
    let is_signature = |name: &&String| name.contains("signature");
    assert_eq!(delivery.headers.keys().find(is_signature), None);
    all_judged(&questions).await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn three_schemes_sign_one_delivery_and_those_of_one_standard_share_a_header() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let list = json!([{"scheme": "standard", "secret": SECRET}, {"scheme": "standard-ed25519"}, {"scheme": "stripe"}]);
    let secrets = subscribe(&relay, "a", receiver.url(), list).await;
    relay.publish("t", "{\"n\":1}").await;
    let delivery = receiver.sees(1).await.remove(0);
    let parts: Vec<&str> = delivery.header("webhook-signature").split(' ').map(|part| &part[..part.find(',').unwrap()]).collect();
    assert_eq!(parts, ["v1", "v1a"]);
    delivery.verify();
    let mut questions = Vec::new();
    for (scheme, secret) in &secrets {
        let (library, secret) = known(&relay, "a", scheme, secret).await;
        questions.push((question(library, &delivery, &secret), true));
    }
    all_judged(&questions).await;
    // The move ends with one scheme; the keys of those that stay are kept.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"signature": {"scheme": "standard-ed25519"}})).await;
    relay.publish("t", "{\"n\":2}").await;
    let moved = receiver.sees(2).await.remove(1);
    assert!(moved.header("webhook-signature").starts_with("v1a,") && moved.header("stripe-signature").is_empty());
    let (library, key) = known(&relay, "a", "standard-ed25519", "").await;
    all_judged(&[(question(library, &moved, &key), true)]).await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn each_scheme_rotates_on_its_own() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let list = json!([{"scheme": "standard-ed25519"}, {"scheme": "stripe"}, {"scheme": "hub"}]);
    let old = subscribe(&relay, "a", receiver.url(), list).await;
    let (_, old_public) = known(&relay, "a", "standard-ed25519", "").await;
    let (status, _) = relay.ask("POST", "/v1/subscriptions/a/secret/rotate", Some(&json!({"overlap": "1h"}))).await;
    assert_eq!(status, 422, "which of the three?");
    let mut new = Vec::new();
    for (scheme, _) in &old {
        let body = json!({"overlap": "1h", "scheme": scheme});
        let rotated = relay.must("POST", "/v1/subscriptions/a/secret/rotate", body).await;
        new.push(rotated["signature"]["secret"].as_str().unwrap().to_owned());
    }
    let shown = relay.get("/v1/subscriptions/a").await["signature"][0].clone();
    let public: Vec<&Value> = shown["public_keys"].as_array().unwrap().iter().map(|key| &key["public_key"]).collect();
    assert_eq!((public[0], public[1]), (&shown["public_key"], &json!(old_public)), "{shown}");
    assert!(shown["public_keys"][0]["expires_at"].is_null() && shown["public_keys"][1]["expires_at"].is_string(), "{shown}");
    relay.publish("t", "{\"n\":1}").await;
    let delivery = receiver.sees(1).await.remove(0);
    assert_eq!(delivery.header("webhook-signature").matches("v1a,").count(), 2);
    assert_eq!(delivery.header("stripe-signature").matches(",v1=").count(), 2);
    let new_public = public[0].as_str().unwrap();
    all_judged(&[
        (question("cryptography", &delivery, new_public), true),
        (question("cryptography", &delivery, &old_public), true),
        (question("stripe", &delivery, &new[1]), true),
        (question("stripe", &delivery, &old[1].1), true),
        // One header, one signature: the newest.
        (question("hmac", &delivery, &new[2]), true),
        (question("hmac", &delivery, &old[2].1), false),
    ])
    .await;
    for (n, (scheme, _)) in old.iter().enumerate() {
        let body = json!({"overlap": "0s", "scheme": scheme});
        let rotated = relay.must("POST", "/v1/subscriptions/a/secret/rotate", body).await;
        new[n] = rotated["signature"]["secret"].as_str().unwrap().to_owned();
    }
    relay.publish("t", "{\"n\":2}").await;
    let delivery = receiver.sees(2).await.remove(1);
    assert_eq!(delivery.header("webhook-signature").split(' ').count(), 1);
    assert_eq!(delivery.header("stripe-signature").matches(",v1=").count(), 1);
    let shown = relay.get("/v1/subscriptions/a").await["signature"][0].clone();
    assert!(shown["public_keys"].is_null(), "{shown}");
    all_judged(&[
        (question("cryptography", &delivery, new_public), false),
        (question("stripe", &delivery, &new[1]), true),
        (question("hmac", &delivery, &new[2]), true),
    ])
    .await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn a_retry_is_signed_anew_by_every_scheme() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, n| Answer::status(if n == 0 { 500 } else { 200 })).await;
    let list = json!([{"scheme": "standard", "secret": SECRET}, {"scheme": "standard-ed25519"}, {"scheme": "stripe"}]);
    let body = json!({"id": "a", "url": receiver.url(), "topics": ["t"], "signature": list,
        "retry": {"max_attempts": 3, "schedule": ["1500ms"], "jitter": 0.0}});
    relay.must("POST", "/v1/subscriptions", body).await;
    relay.publish("t", "{}").await;
    let seen = receiver.sees(2).await;
    assert_eq!(seen[0].id(), seen[1].id());
    for name in ["webhook-timestamp", "webhook-signature", "stripe-signature"] {
        assert_ne!(seen[0].header(name), seen[1].header(name), "{name}");
    }
    let (library, key) = known(&relay, "a", "standard-ed25519", "").await;
    all_judged(&[(question(library, &seen[0], &key), true), (question(library, &seen[1], &key), true)]).await;
    seen.iter().for_each(Delivery::verify);
}

#[tokio::test]
#[ignore = "needs python"]
async fn a_header_that_only_looks_like_a_signature_gives_way_to_it() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let secret = "a-secret-of-the-receiver";
    let body = json!({"id": "a", "url": receiver.url(), "topics": ["t"], "signature": {"scheme": "hub", "secret": secret},
        "headers": {"X-Hub-Signature-256": "sha256=00", "X-Kept": "1"}});
    relay.must("POST", "/v1/subscriptions", body).await;
    relay.publish("t", "{}").await;
    let delivery = receiver.sees(1).await.remove(0);
    assert_eq!(delivery.header("x-kept"), "1");
    all_judged(&[(question("hmac", &delivery, secret), true)]).await;
}

/// An event with everything that a CloudEvents library can get wrong.
async fn publish_event(relay: &Relay) {
    let event = json!({"specversion": "1.0", "id": "order 7/\u{e4}", "source": "/shops/1", "type": "order.created",
        "subject": "a \"subject\" of 100%", "time": "2026-01-02T03:04:05.678Z", "region": "eu", "datacontenttype": "application/json",
        "data": {"n": 1, "text": "gr\u{fc}n"}});
    let url = format!("{}/v1/topics/t/events", relay.url);
    let request = relay.client.post(url).header("content-type", "application/cloudevents+json").body(event.to_string());
    assert_eq!(request.send().await.unwrap().status(), 202);
}

fn check_event(event: &Value) {
    let attributes = &event["attributes"];
    for (name, wanted) in [
        ("specversion", "1.0"),
        ("id", "order 7/\u{e4}"),
        ("source", "/shops/1"),
        ("type", "order.created"),
        ("subject", "a \"subject\" of 100%"),
        ("region", "eu"),
        ("topic", "t"),
        ("seq", "1"),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(attributes[name], wanted, "{name}: {event}");
    }
    assert!(attributes["time"].as_str().unwrap().starts_with("2026-01-02 03:04:05.678"), "{event}");
    assert_eq!(event["data"], json!({"n": 1, "text": "gr\u{fc}n"}), "{event}");
}

#[tokio::test]
#[ignore = "needs python"]
async fn deliveries_are_cloud_events_to_a_library_that_is_not_ours() {
    let relay = Relay::start().await;
    let mut questions = Vec::new();
    let mut receivers = Vec::new();
    for payload in ["binary", "structured"] {
        let receiver = Receiver::start().await;
        relay.subscribe(payload, receiver.url(), "t", json!({"payload": payload})).await;
        receivers.push(receiver);
    }
    publish_event(&relay).await;
    for receiver in &receivers {
        let delivery = receiver.sees(1).await.remove(0);
        delivery.verify();
        questions.push(question("cloudevents", &delivery, ""));
    }
    for answer in judge(&questions).await {
        assert_eq!(answer["ok"], true, "{answer}");
        check_event(&answer["events"][0]);
    }
}

#[tokio::test]
#[ignore = "needs python"]
async fn batches_are_signed_as_one_and_hold_cloud_events() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let more = json!({"batch": {"max_events": 2, "max_wait": "10s", "format": "cloudevents"},
        "signature": [{"scheme": "standard", "secret": SECRET}, {"scheme": "standard-ed25519"}, {"scheme": "stripe"}]});
    relay.subscribe("a", receiver.url(), "t", more).await;
    publish_event(&relay).await;
    relay.publish("t", "[1, 2]").await;
    let delivery = receiver.sees(1).await.remove(0);
    delivery.verify();
    let (library, key) = known(&relay, "a", "standard-ed25519", "").await;
    all_judged(&[(question(library, &delivery, &key), true)]).await;
    let answer = judge(&[question("cloudevents_batch", &delivery, "")]).await.remove(0);
    assert_eq!(answer["ok"], true, "{answer}");
    check_event(&answer["events"][0]);
    assert_eq!((&answer["events"][1]["data"], &answer["events"][2]), (&json!([1, 2]), &Value::Null));
}

#[tokio::test]
async fn listen_verifies_every_scheme() {
    let relay = Relay::start().await;
    let mut listeners = Vec::new();
    for scheme in ["standard", "standard-ed25519", "hub", "stripe"] {
        let receiver = Receiver::start().await;
        let secrets = subscribe(&relay, scheme, receiver.url(), json!({"scheme": scheme})).await;
        let secret = match scheme {
            // Nothing secret is needed to verify this one.
            "standard-ed25519" => known(&relay, scheme, scheme, "").await.1,
            _ => secrets[0].1.clone(),
        };
        let mut listener = Running::start(&["listen", "--secret", &secret]);
        let url = listener.url().await;
        relay.must("PATCH", &format!("/v1/subscriptions/{scheme}"), json!({"url": url})).await;
        listeners.push((scheme, listener));
    }
    let mut stranger = Running::start(&["listen", "--secret", "a-secret-of-somebody-else"]);
    subscribe(&relay, "stranger", &stranger.url().await, json!({"scheme": "hub"})).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    for (scheme, listener) in &mut listeners {
        let line = listener.line().await;
        assert!(line.contains(" ok "), "{scheme}: {line}");
        relay.delivery_becomes(scheme, seq, "delivered").await;
    }
    eventually("a refusal", async || {
        let view = relay.delivery("stranger", seq).await;
        (view["attempts"][0]["status"] == 401).then_some(())
    })
    .await;
}
