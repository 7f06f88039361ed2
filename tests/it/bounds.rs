//! How many requests are open at once, whatever is asked for meanwhile: what was called off counts until it has ended, for its
//! endpoint does not know it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually, for_a_while};

/// Time in which what goes out too early would have come.
const WHILE: Duration = Duration::from_millis(300);

/// A relay and an endpoint that holds every request, with `open` of a subscription to six events of one key.
async fn held(fields: Value, open: usize) -> (Relay, Receiver) {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let lines: Vec<String> = (0..6).map(|n| format!("{{\"n\":{n},\"k\":\"x\"}}")).collect();
    relay.publish_lines("t", &lines).await;
    eventually("as many open as may be", async || (receiver.open() == open).then_some(())).await;
    (relay, receiver)
}

async fn seek_to_the_beginning(relay: &Relay) {
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "earliest"})).await;
}

/// Lets everything go, and waits until nothing is left.
async fn run_down(relay: &Relay, receiver: &Receiver) {
    receiver.release(10_000);
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "retrying": 0})).await;
}

/// Fails when more than `bound` were open at once, now or before everything was delivered.
async fn stays_within(bound: usize, relay: &Relay, receiver: &Receiver, what: &str) {
    for_a_while(WHILE).await;
    assert!(receiver.most_open() <= bound, "{what}: {} open at once", receiver.most_open());
    run_down(relay, receiver).await;
    assert!(receiver.most_open() <= bound, "{what}: {} open at once in the end", receiver.most_open());
}

/// What keeps one open at a time, and what keeps two.
fn kinds() -> Vec<(Value, usize)> {
    let gathers = json!({"max_events": 1, "max_wait": "1ms"});
    vec![
        (json!({"max_in_flight": 2}), 2),
        (json!({"max_in_flight": 2, "batch": gathers}), 2),
        (json!({"ordering": "strict"}), 1),
        (json!({"ordering": {"key": "/k"}}), 1),
        (json!({"ordering": "strict", "batch": gathers}), 1),
        (json!({"ordering": {"key": "/k"}, "batch": gathers}), 1),
    ]
}

#[tokio::test]
async fn seeks_and_skips_open_no_more_than_may_be() {
    for (fields, bound) in kinds() {
        let (relay, receiver) = held(fields.clone(), bound).await;
        for _ in 0..2 {
            seek_to_the_beginning(&relay).await;
            relay.must("POST", "/v1/subscriptions/a/skip", json!({"to": 1})).await;
        }
        seek_to_the_beginning(&relay).await;
        stays_within(bound, &relay, &receiver, &fields.to_string()).await;
    }
}

#[tokio::test]
async fn a_replay_waits_for_what_it_is_ordered_with() {
    for (fields, bound) in kinds() {
        let (relay, receiver) = held(fields.clone(), bound).await;
        let job = json!({"from": {"seq": 1}, "to": {"seq": 6}, "only": "all"});
        let job = relay.must("POST", "/v1/subscriptions/a/replay", job).await;
        stays_within(bound, &relay, &receiver, &fields.to_string()).await;
        let path = format!("/v1/subscriptions/a/jobs/{}", job["job"].as_str().unwrap());
        eventually("the end of the job", async || (relay.get(&path).await["state"] == "done").then_some(())).await;
        let replayed = receiver.seen().iter().filter(|one| !one.header("hookcast-replay").is_empty()).count();
        assert_eq!(replayed, 6, "{fields}");
        assert!(receiver.most_open() <= bound, "{fields}: {} open at once", receiver.most_open());
    }
}

#[tokio::test]
async fn another_key_goes_on_beside_a_replay() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok()).await;
    relay.subscribe("a", receiver.url(), "t", json!({"ordering": {"key": "/k"}})).await;
    relay.publish("t", "{\"k\":\"x\"}").await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    receiver.change(|one, _| if one.header("hookcast-replay").is_empty() { Answer::ok() } else { Answer::ok().when_released() });
    relay.must("POST", "/v1/subscriptions/a/replay", json!({"from": {"seq": 1}, "to": {"seq": 1}, "only": "all"})).await;
    eventually("the replay on its way", async || (receiver.open() == 1).then_some(())).await;
    let same = relay.publish("t", "{\"k\":\"x\"}").await;
    let other = relay.publish("t", "{\"k\":\"y\"}").await;
    relay.delivery_becomes("a", other, "delivered").await;
    assert_eq!(relay.delivery("a", same).await["state"], "pending", "its key is taken");
    receiver.release(1);
    relay.delivery_becomes("a", same, "delivered").await;
}

#[tokio::test]
async fn another_batch_begins_when_what_is_open_has_ended() {
    let gathers = json!({"max_events": 1, "max_wait": "1ms"});
    let (relay, receiver) = held(json!({"max_in_flight": 2, "batch": gathers}), 2).await;
    for max_events in [2, 1, 3] {
        relay.must("PATCH", "/v1/subscriptions/a", json!({"batch": {"max_events": max_events}})).await;
    }
    stays_within(2, &relay, &receiver, "a changed batch").await;
    let (relay, receiver) = held(json!({"max_in_flight": 2, "batch": gathers}), 2).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"batch": null})).await;
    stays_within(2, &relay, &receiver, "no batches any more").await;
    let (relay, receiver) = held(json!({"max_in_flight": 2}), 2).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"batch": gathers})).await;
    stays_within(2, &relay, &receiver, "batches from now on").await;
}

#[tokio::test]
async fn a_failed_batch_stays_one_when_its_terms_change() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let retry = json!({"max_attempts": 9, "schedule": ["1s"], "jitter": 0.0});
    let fields = json!({"batch": {"max_events": 6, "max_wait": "5s"}, "retry": retry});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    relay.publish_numbers("t", 0..6).await;
    relay.status_becomes("a", json!({"retrying": 6, "in_flight": 0})).await;
    let before = receiver.count();
    receiver.change(|_, _| Answer::ok());
    relay.must("PATCH", "/v1/subscriptions/a", json!({"batch": {"max_events": 10}})).await;
    relay.status_becomes("a", json!({"retrying": 0})).await;
    let seen = receiver.seen();
    assert_eq!(seen.len() - before, 1, "as it was cut");
    assert_eq!(seen[before].id(), seen[0].id());
}

#[tokio::test]
async fn another_order_begins_when_what_is_open_has_ended() {
    for ordering in [json!("strict"), json!({"key": "/k"})] {
        let (relay, receiver) = held(json!({"max_in_flight": 4}), 4).await;
        relay.must("PATCH", "/v1/subscriptions/a", json!({"ordering": ordering})).await;
        receiver.release(3);
        eventually("three of four ended", async || (receiver.open() == 1).then_some(())).await;
        for_a_while(WHILE).await;
        assert_eq!((receiver.open(), receiver.count()), (1, 4), "{ordering}: what was open ends first");
        receiver.release(1);
        eventually("the next", async || (receiver.count() == 5).then_some(())).await;
        for_a_while(WHILE).await;
        assert_eq!((receiver.open(), receiver.count()), (1, 5), "{ordering}: one at a time");
        run_down(&relay, &receiver).await;
        assert_eq!(receiver.count(), 6);
    }
}

#[tokio::test]
async fn a_lower_limit_begins_when_enough_has_ended() {
    let (relay, receiver) = held(json!({"max_in_flight": 4}), 4).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"max_in_flight": 1})).await;
    receiver.release(3);
    eventually("three of four ended", async || (receiver.open() == 1).then_some(())).await;
    for_a_while(WHILE).await;
    assert_eq!((receiver.open(), receiver.count()), (1, 4));
    run_down(&relay, &receiver).await;
}

#[tokio::test]
async fn what_was_called_off_decides_nothing_of_a_new_attempt_of_its_event() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, n| Answer::status(if n == 0 { 500 } else { 200 }).when_released()).await;
    let fields = json!({"max_in_flight": 2, "retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let seq = relay.publish("t", "{}").await;
    receiver.sees(1).await;
    seek_to_the_beginning(&relay).await;
    receiver.sees(2).await;
    // The first, which nobody waits for, fails.
    receiver.release(1);
    let status = relay.status_becomes("a", json!({"in_flight": 1})).await;
    assert_eq!((&status["dead"], &status["retrying"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(relay.delivery("a", seq).await["state"], "pending");
    receiver.release(1);
    relay.delivery_becomes("a", seq, "delivered").await;
    assert_eq!(receiver.count(), 2);
}
