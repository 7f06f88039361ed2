//! Secrets and header values stay inside: no log line, no answer, no metric and no problem shows them.
//!
//! The database itself is not looked at: what is at rest is as safe as its file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, SECRET, eventually};

const HEADER: &str = "Bearer s3cret-header-value";
/// Base64 of text, so that a leak of the raw bytes is a text too.
const RAW: &str = "raw-key-bytes-of-the-tests-0123456789";

fn needles() -> Vec<String> {
    let raw = base64::engine::general_purpose::STANDARD.encode(RAW);
    vec![SECRET.strip_prefix("whsec_").unwrap().to_owned(), raw, RAW.to_owned(), "s3cret-header-value".to_owned()]
}

fn check(what: &str, text: &str) {
    for needle in needles() {
        assert!(!text.contains(&needle), "{what} shows {needle}");
    }
}

async fn text(relay: &Relay, method: &str, path: &str, body: Option<Value>) -> String {
    let mut request = relay.client.request(method.parse().unwrap(), format!("{}{path}", relay.url));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    format!("{:?} {}", response.headers().clone(), response.text().await.unwrap())
}

#[tokio::test]
async fn secrets_and_header_values_are_shown_nowhere() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let raw = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(RAW));
    let more = json!({"headers": {"Authorization": HEADER, "X-Key": HEADER},
        "retry": {"max_attempts": 2, "schedule": ["10ms"]}});
    relay.subscribe("a", receiver.url(), "t", more.clone()).await;
    relay.must("POST", "/v1/subscriptions/a/secret/rotate", json!({"secret": raw, "overlap": "1h"})).await;
    relay
        .must(
            "POST",
            "/v1/sources",
            json!({"name": "up", "protocol": "sse", "topic": "feed",
        "url": receiver.url(), "headers": {"Authorization": HEADER}}),
        )
        .await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    relay.delivery_becomes("a", seq, "dead").await;
    relay.must("POST", "/v1/subscriptions/a/ping", json!({})).await;
    eventually("an error of the source", async || (!relay.get("/v1/sources/up").await["last_error"].is_null()).then_some(()))
        .await;
    // The values do go out; else nothing below would mean anything.
    assert!(receiver.seen().iter().any(|delivery| delivery.header("authorization") == HEADER));
    for path in [
        "/v1/subscriptions",
        "/v1/subscriptions/a",
        "/v1/subscriptions/a/status",
        "/v1/subscriptions/a/dead-letters",
        "/v1/subscriptions/a/undelivered",
        "/v1/sources",
        "/v1/sources/up",
        "/metrics",
        "/openapi.json",
        "/v1/topics/**/stream?since=earliest&limit=1",
    ] {
        check(path, &text(&relay, "GET", path, None).await);
    }
    check("a delivery", &text(&relay, "GET", &format!("/v1/subscriptions/a/deliveries/{seq}"), None).await);
    // Changes that keep the keys, and changes that are refused.
    check("a patch", &text(&relay, "PATCH", "/v1/subscriptions/a", Some(json!({"description": "x"}))).await);
    let put = json!({"url": receiver.url(), "topics": ["t"], "headers": {"Authorization": HEADER}});
    check("a put", &text(&relay, "PUT", "/v1/subscriptions/a", Some(put)).await);
    for bad in [
        json!({"signature": {"scheme": "standard", "secret": format!("{SECRET}!")}}),
        json!({"signature": {"scheme": SECRET, "secret": SECRET}}),
        json!({"signature": SECRET}),
        json!({"headers": {"Authorization": format!("{HEADER}\n")}}),
        json!({"headers": {"Authorization": [HEADER]}}),
        json!({"headers": HEADER}),
    ] {
        let answer = text(&relay, "PATCH", "/v1/subscriptions/a", Some(bad.clone())).await;
        assert!(answer.contains("/problems/"), "{bad}: {answer}");
        check(&format!("the problem of {bad}"), &answer);
    }
    assert_eq!(relay.terminate().await, Some(0));
    // A configuration that is refused does not print them either.
    relay.configure(&format!(
        "[[subscriptions]]\nid = \"b\"\nurl = \"http://127.0.0.1/\"\ntopics = [\"t\"]\nheaders = {{ authorization = \"{HEADER}\\n\" }}\n\
         signature = {{ scheme = \"standard\", secret = \"{SECRET}!\" }}\n"
    ));
    assert_eq!(relay.second_process().await, Some(78));
    let log = relay.log();
    assert!(log.contains("signature"), "the mistake is told: {log}");
    check("the log", &log);
}
