//! Slowing down for endpoints that say "too much", giving up on those that only fail, and starting again slowly.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually, for_a_while};

async fn holds_at(receiver: &Receiver, open: usize) {
    eventually(&format!("{open} in flight"), async || (receiver.open() == open).then_some(())).await;
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(receiver.open(), open);
}

#[tokio::test]
async fn too_much_halves_what_is_in_flight_and_successes_bring_it_back() {
    let relay = Relay::start().await;
    let receiver =
        Receiver::with(|_, n| if n < 8 { Answer::status(502).when_released() } else { Answer::ok().when_released() }).await;
    let fields = json!({"max_in_flight": 8, "retry": {"max_attempts": 3, "schedule": ["1h"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    relay.publish_numbers("t", 0..100).await;
    holds_at(&receiver, 8).await;
    // All eight say the same thing: that halves it once.
    receiver.release(8);
    receiver.sees(12).await;
    holds_at(&receiver, 4).await;
    receiver.release(4);
    receiver.sees(17).await;
    holds_at(&receiver, 5).await;
    receiver.release(1_000);
    relay.status_becomes("a", json!({"retrying": 8, "delivered_total": 92, "in_flight": 0})).await;
    assert_eq!(receiver.most_open(), 8);
}

#[tokio::test]
async fn nothing_but_failure_disables_and_enabling_starts_slowly() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let fields = json!({"disable_after": "1s", "retry": {"max_attempts": 1000, "schedule": ["300ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let first = relay.publish("t", "{}").await;
    relay.status_becomes("a", json!({"state": "disabled", "reason": "failing"})).await;
    let attempts = receiver.count();
    relay.publish_numbers("t", 0..30).await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    relay.status_becomes("a", json!({"state": "disabled", "reason": "failing"})).await;
    assert_eq!(receiver.count(), attempts, "a restart does not end it");
    receiver.change(|_, _| Answer::ok().when_released());
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": true})).await;
    holds_at(&receiver, 1).await;
    receiver.release(1);
    receiver.sees(attempts + 3).await;
    holds_at(&receiver, 2).await;
    receiver.release(1_000);
    relay.delivery_becomes("a", first, "delivered").await;
    relay.status_becomes("a", json!({"state": "active", "retrying": 0, "delivered_total": 31, "lag": 0})).await;
}

#[tokio::test]
async fn an_endpoint_that_takes_some_is_not_disabled() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if delivery.text() == "{\"n\":0}" { 500 } else { 200 })).await;
    let fields = json!({"disable_after": "3s", "retry": {"max_attempts": 1000, "schedule": ["100ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let seqs = relay.publish_numbers("t", 0..1).await;
    for n in 1..40 {
        relay.publish_numbers("t", n..n + 1).await;
        for_a_while(Duration::from_millis(100)).await;
    }
    let view: Value = relay.delivery("a", seqs[0]).await;
    assert_eq!(view["state"], "retrying");
    assert_eq!(relay.status("a").await["state"], "active");
}

#[tokio::test]
async fn the_beginning_of_failure_survives_a_kill() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let fields = json!({"disable_after": "6s", "retry": {"max_attempts": 1000, "schedule": ["500ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    relay.publish("t", "{}").await;
    // Nine half seconds.
    receiver.sees(10).await;
    relay.kill9().await;
    relay.restart().await;
    let restarted = Instant::now();
    relay.status_becomes("a", json!({"state": "disabled", "reason": "failing"})).await;
    let last = receiver.seen().pop().unwrap();
    // Counted from the start it would have been six seconds.
    assert!(last.at < restarted + Duration::from_millis(5_800), "{:?}", last.at - restarted);
}

#[tokio::test]
async fn words_of_an_old_address_say_nothing_of_a_new_one() {
    let relay = Relay::start().await;
    let old = Receiver::with(|_, _| Answer::status(500).when_released()).await;
    let new = Receiver::start().await;
    let fields = json!({"max_in_flight": 16, "retry": {"max_attempts": 50, "schedule": ["200ms"], "jitter": 0.0}});
    relay.subscribe("a", old.url(), "t", fields).await;
    relay.publish_numbers("t", 0..16).await;
    eventually("all in flight", async || (old.open() == 16).then_some(())).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": new.url()})).await;
    // Sixteen failures in a row, of which ten would open the circuit of the new address.
    old.release(16);
    relay.status_becomes("a", json!({"delivered_total": 16, "retrying": 0, "circuit": "closed"})).await;
    assert_eq!(new.count(), 16);
}
