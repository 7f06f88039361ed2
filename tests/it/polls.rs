//! Upstreams that are asked again and again: long polls, polls, feeds, and what a request to an upstream carries.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod access;
mod rows;
mod servers;

use serde_json::{Value, json};

use crate::support::{Relay, eventually};

/// Makes the source `up`, which feeds the topic `up.events`.
async fn source(relay: &Relay, protocol: &str, url: &str, settings: Value) {
    source_with(relay, protocol, url, settings, json!({})).await;
}

async fn source_with(relay: &Relay, protocol: &str, url: &str, settings: Value, more: Value) {
    let mut body = json!({"protocol": protocol, "url": url, "topic": "up.events", "settings": settings});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    relay.must("PUT", "/v1/sources/up", body).await;
}

async fn shown(relay: &Relay) -> Value {
    relay.get("/v1/sources/up").await
}

/// Waits until GET of the source shows this.
async fn shows(relay: &Relay, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || Some(shown(relay).await).filter(|shown| check(shown))).await
}

/// The word of its last error, without its sentence.
fn error_of(shown: &Value) -> &str {
    shown["last_error"].as_str().unwrap_or_default().split(':').next().unwrap_or_default()
}

/// How many events the log has of a topic.
async fn stored(relay: &Relay, topic: &str) -> u64 {
    let topics = relay.get("/v1/topics").await;
    let found = topics["items"].as_array().unwrap().iter().find(|item| item["topic"] == topic || item["name"] == topic);
    found.map_or(0, |item| item["events"].as_u64().unwrap())
}

async fn stores(relay: &Relay, events: u64) {
    eventually(&format!("{events} events"), async || (stored(relay, "up.events").await >= events).then_some(())).await;
    assert_eq!(stored(relay, "up.events").await, events);
}

/// The data of all events of the source, by seq.
async fn data(relay: &Relay) -> Vec<Value> {
    let (mut found, mut seq) = (Vec::new(), 1);
    while let (200, event) = relay.ask("GET", &format!("/v1/events/{seq}"), None).await {
        if event["topic"] == "up.events" {
            found.push(event["data"].clone());
        }
        seq += 1;
    }
    found
}
