//! What is told of one delivery: only what is known, in every way in which its event or the record of it can be gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::{Answer, Delivery, Receiver, Relay, eventually};

const SMALL_LOG: &str = "[retention]\nmax_bytes = \"1MiB\"\n";

/// Publishes four times what the log may hold, and waits until it begins behind `seq`.
async fn trim(relay: &Relay, seq: u64) {
    for _ in 0..16 {
        relay.publish("padding", format!("\"{}\"", "x".repeat(256 * 1024))).await;
    }
    eventually("the first events to be trimmed", async || {
        let topics = relay.get("/v1/topics").await;
        topics["items"].as_array().unwrap().iter().all(|item| item["first_seq"].as_u64().unwrap() > seq).then_some(())
    })
    .await;
}

/// State and reason.
async fn told(relay: &Relay, id: &str, seq: u64) -> (Value, Value) {
    let mut view = relay.delivery(id, seq).await;
    (view["state"].take(), view["reason"].take())
}

#[tokio::test]
async fn what_is_not_known_any_more_is_said_to_be_unknown() {
    let forgetful = format!("{SMALL_LOG}[history]\nattempts = \"failures\"\n");
    for (config, state, reason) in [(SMALL_LOG, "delivered", Value::Null), (&*forgetful, "unknown", json!("event_gone"))] {
        let mut relay = Relay::start_with(config).await;
        let receiver = Receiver::start().await;
        relay.publish("t", "{}").await;
        relay.subscribe("a", receiver.url(), "t", json!({})).await;
        relay.subscribe("paused", receiver.url(), "t", json!({})).await;
        relay.must("POST", "/v1/subscriptions/paused/pause", json!({})).await;
        let seq = relay.publish("t", "{}").await;
        let other = relay.publish("other", "{}").await;
        relay.delivery_becomes("a", seq, "delivered").await;
        relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
        assert_eq!(told(&relay, "a", other).await.0, "filtered");
        trim(&relay, other).await;
        relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
        assert_eq!(told(&relay, "paused", seq).await.0, "expired", "the cursor did not reach it in time");
        // A process that starts now has nothing of it in memory.
        assert_eq!(relay.terminate().await, Some(0));
        relay.restart().await;
        assert_eq!(told(&relay, "a", seq).await, (json!(state), reason.clone()), "{config}");
        assert_eq!(told(&relay, "a", other).await, (json!("unknown"), json!("event_gone")), "whether it was wanted");
        assert_eq!(told(&relay, "a", 1).await.0, "before_start");
        assert_eq!(told(&relay, "paused", seq).await.0, "expired");
    }
}

#[tokio::test]
async fn positions_that_a_restore_jumped_over_never_were() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let last = relay.publish_numbers("t", 0..3).await[2];
    relay.status_becomes("a", json!({"cursor": last, "in_flight": 0})).await;
    let command = ["--config", "config.toml"];
    let (code, _, error) = relay.run(&[&["backup", "copy.db"], &command[..]].concat()).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(relay.terminate().await, Some(0));
    let (code, _, error) = relay.run(&[&["restore", "copy.db", "--force"], &command[..]].concat()).await;
    assert_eq!(code, Some(0), "{error}");
    relay.restart().await;
    let first = relay.publish("t", "{}").await;
    receiver.sees(4).await;
    relay.delivery_becomes("a", first, "delivered").await;
    for seq in [last + 1, last + 1000, first - 2] {
        let (status, _) = relay.ask("GET", &format!("/v1/subscriptions/a/deliveries/{seq}"), None).await;
        assert_eq!(status, 404, "{seq}");
    }
    assert_eq!(told(&relay, "a", last).await.0, "delivered");
}
