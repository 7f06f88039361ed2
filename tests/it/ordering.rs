//! Order: one at a time, of everything or of a key; what is stuck stops only itself, and a crash changes nothing of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Delivery, Receiver, Relay, eventually, for_a_while};

/// The fields of a subscription that orders by `/k`, with retries after `every`.
fn by_key(every: &str, attempts: u32) -> Value {
    json!({"ordering": {"key": "/k"}, "retry": {"max_attempts": attempts, "schedule": [every], "jitter": 0.0}})
}

fn key(delivery: &Delivery) -> String {
    let data: Value = serde_json::from_slice(&delivery.body).unwrap();
    data["k"].as_str().unwrap_or_default().to_owned()
}

/// Publishes an event a key; the seqs.
async fn publish_keys(relay: &Relay, keys: impl Iterator<Item = &str>) -> Vec<u64> {
    let mut seqs = Vec::new();
    let lines: Vec<String> = keys.map(|key| format!("{{\"k\":\"{key}\"}}\n")).collect();
    for lines in lines.chunks(1000) {
        let url = format!("{}/v1/topics/t/events", relay.url);
        let request = relay.client.post(url).header("content-type", "application/x-ndjson").body(lines.concat());
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        seqs.extend(answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()));
    }
    seqs
}

/// Seqs of those that passed `wanted`, each at its first time, in the order in which they came.
fn firsts(seen: &[Delivery], wanted: impl Fn(&Delivery) -> bool) -> Vec<u64> {
    let mut seqs = Vec::new();
    for delivery in seen.iter().filter(|delivery| wanted(delivery)) {
        if !seqs.contains(&delivery.seq()) {
            seqs.push(delivery.seq());
        }
    }
    seqs
}

#[tokio::test]
async fn in_strict_order_one_is_in_flight_and_a_retry_holds_up_what_is_behind_it() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| {
        let fails = delivery.seq() == 3 && delivery.attempt() < 3;
        Answer::status(if fails { 500 } else { 200 }).after(Duration::from_millis(2))
    })
    .await;
    let more = json!({"ordering": "strict", "retry": {"max_attempts": 9, "schedule": ["100ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..400).await;
    relay.status_becomes("a", json!({"delivered_total": 400, "retrying": 0, "lag": 0})).await;
    let seen = receiver.of_each(|delivery| (delivery.seq(), delivery.attempt()));
    let wanted: Vec<(u64, u32)> = (1..=2).chain([3, 3, 3]).chain(4..=400).map(|seq| (seq, 1)).collect();
    assert_eq!(seen.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), wanted.iter().map(|(seq, _)| *seq).collect::<Vec<_>>());
    assert_eq!(seen[2..5].iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(receiver.most_open(), 1);
}

#[tokio::test]
async fn a_stuck_key_stops_only_itself_and_comes_in_order_after_a_crash() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if key(delivery) == "bad" { 500 } else { 200 })).await;
    relay.subscribe("a", receiver.url(), "t", by_key("1s", 1000)).await;
    // More than wait in memory, of the stuck key and of the others.
    let names = ["bad", "one", "bad", "two"];
    let seqs = publish_keys(&relay, (0..1600).map(|n| names[n % 4])).await;
    relay.status_becomes("a", json!({"delivered_total": 800, "retrying": 1})).await;
    let status = relay.status("a").await;
    assert_eq!(status["cursor"], seqs[1], "the first of the key is a retry, the cursor stands before the second: {status}");
    assert_eq!(firsts(&receiver.seen(), |delivery| key(delivery) == "bad"), [seqs[0]]);
    for name in ["one", "two"] {
        assert!(firsts(&receiver.seen(), |delivery| key(delivery) == name).is_sorted());
    }
    assert_eq!(relay.delivery("a", seqs[2]).await["state"], "pending");
    assert_eq!(relay.delivery("a", seqs[1]).await["state"], "delivered");
    // Progress that was not saved is repeated; wait for it, so that what comes twice is known.
    for_a_while(Duration::from_millis(400)).await;
    relay.kill9().await;
    relay.restart().await;
    let before = receiver.count();
    // Whatever comes first of the key after the crash, it is the retry.
    eventually("the retry", async || receiver.seen()[before..].iter().find(|one| key(one) == "bad").cloned()).await;
    assert!(receiver.seen()[before..].iter().filter(|one| key(one) == "bad").all(|one| one.seq() == seqs[0]));
    receiver.change(|_, _| Answer::ok());
    relay.status_becomes("a", json!({"retrying": 0, "lag": 0, "in_flight": 0})).await;
    let bad = firsts(&receiver.seen(), |delivery| key(delivery) == "bad");
    assert_eq!(bad.len(), 800);
    assert!(bad.is_sorted());
    assert_eq!(relay.status("a").await["dead"], 0);
}

#[tokio::test]
async fn a_stop_in_the_middle_keeps_order_too() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, n| Answer::status(if n % 7 == 3 { 500 } else { 200 })).await;
    relay.subscribe("a", receiver.url(), "t", by_key("20ms", 1000)).await;
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    publish_keys(&relay, (0..2000).map(|n| &*names[n % 10])).await;
    for stop_at in [200, 900, 1500] {
        eventually("some", async || (receiver.count() >= stop_at).then_some(())).await;
        assert_eq!(relay.terminate().await, Some(0));
        relay.restart().await;
    }
    relay.status_becomes("a", json!({"retrying": 0, "lag": 0, "in_flight": 0})).await;
    for name in names {
        let first = firsts(&receiver.seen(), |delivery| key(delivery) == name);
        assert_eq!(first.len(), 200);
        assert!(first.is_sorted(), "{name}: {first:?}");
    }
}

#[tokio::test]
async fn a_dead_letter_blocks_its_key_until_it_is_redriven_also_after_a_restart() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if key(delivery) == "bad" { 500 } else { 200 })).await;
    let mut more = by_key("20ms", 2);
    more["on_dead"] = json!("block");
    relay.subscribe("a", receiver.url(), "t", more).await;
    let seqs = publish_keys(&relay, ["bad", "bad", "good", "bad", "good"].into_iter()).await;
    relay.status_becomes("a", json!({"dead": 1, "delivered_total": 2})).await;
    relay.delivery_becomes("a", seqs[0], "dead").await;
    receiver.change(|_, _| Answer::ok());
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(relay.delivery("a", seqs[1]).await["state"], "pending");
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    let more = publish_keys(&relay, ["good", "bad"].into_iter()).await;
    relay.delivery_becomes("a", more[0], "delivered").await;
    for_a_while(Duration::from_millis(200)).await;
    for seq in [seqs[1], seqs[3], more[1]] {
        assert_eq!(relay.delivery("a", seq).await["state"], "pending");
    }
    relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"all": true})).await;
    relay.status_becomes("a", json!({"dead": 0, "retrying": 0, "lag": 0})).await;
    assert_eq!(firsts(&receiver.seen(), |delivery| key(delivery) == "bad"), [seqs[0], seqs[1], seqs[3], more[1]]);
}

#[tokio::test]
async fn with_skip_the_next_goes_on_after_a_dead_letter() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if delivery.seq() == 1 { 500 } else { 200 })).await;
    let more = json!({"ordering": "strict", "retry": {"max_attempts": 2, "schedule": ["20ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..3).await;
    relay.status_becomes("a", json!({"dead": 1, "delivered_total": 2, "lag": 0})).await;
    assert_eq!(receiver.of_each(Delivery::seq), [1, 1, 2, 3]);
}

#[tokio::test]
async fn an_attribute_is_a_key_and_what_has_none_is_not_ordered() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| match delivery.header("ce-subject") {
        "stuck" => Answer::status(500),
        _ => Answer::ok(),
    })
    .await;
    let mut more = by_key("60s", 9);
    more["ordering"] = json!({"key": "ce-subject"});
    relay.subscribe("a", receiver.url(), "t", more).await;
    let publish = async |subject: Option<&str>| {
        let url = format!("{}/v1/topics/t/events", relay.url);
        let mut request = relay.client.post(url).header("content-type", "text/plain").body("x");
        for (name, value) in [("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-source", "/s")] {
            request = request.header(name, value);
        }
        request = request.header("ce-id", uuid::Uuid::new_v4().to_string());
        let request = subject.into_iter().fold(request, |request, subject| request.header("ce-subject", subject));
        assert_eq!(request.send().await.unwrap().status(), 202);
    };
    for subject in [Some("stuck"), None, Some("stuck"), Some("free"), None] {
        publish(subject).await;
    }
    relay.status_becomes("a", json!({"delivered_total": 3, "retrying": 1})).await;
    assert_eq!(relay.delivery("a", 3).await["state"], "pending");
}

#[tokio::test]
async fn without_order_again_what_stood_aside_goes_out() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if delivery.seq() == 1 { 500 } else { 200 })).await;
    relay.subscribe("a", receiver.url(), "t", by_key("60s", 9)).await;
    publish_keys(&relay, ["x"; 300].into_iter()).await;
    relay.status_becomes("a", json!({"retrying": 1})).await;
    assert_eq!(receiver.count(), 1);
    relay.must("PATCH", "/v1/subscriptions/a", json!({"ordering": "none"})).await;
    relay.status_becomes("a", json!({"delivered_total": 299, "lag": 0, "retrying": 1})).await;
    // And the other way round: the retry is of the same key as what comes now.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"ordering": "strict"})).await;
    let seqs = publish_keys(&relay, ["y"; 2].into_iter()).await;
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(relay.delivery("a", seqs[0]).await["state"], "pending");
}

#[tokio::test]
async fn stuck_keys_fill_the_retries_and_the_rest_waits_and_is_not_lost() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if key(delivery).starts_with("bad") { 422 } else { 200 })).await;
    let mut more = by_key("200ms", 1000);
    more["max_retrying"] = json!(3);
    relay.subscribe("a", receiver.url(), "t", more).await;
    publish_keys(&relay, ["bad1", "ok", "bad2", "bad3", "bad4", "ok", "bad1"].into_iter()).await;
    relay.status_becomes("a", json!({"retrying": 3, "state": "failing"})).await;
    receiver.change(|_, _| Answer::ok());
    relay.status_becomes("a", json!({"retrying": 0, "delivered_total": 7, "lag": 0})).await;
}

#[tokio::test]
async fn a_seek_back_begins_in_order_again() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if key(delivery) == "bad" { 500 } else { 200 })).await;
    relay.subscribe("a", receiver.url(), "t", by_key("60s", 9)).await;
    let seqs = publish_keys(&relay, ["good", "bad", "bad", "good", "bad"].into_iter()).await;
    relay.status_becomes("a", json!({"retrying": 1, "delivered_total": 2})).await;
    receiver.change(|_, _| Answer::ok());
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[0]}})).await;
    relay.status_becomes("a", json!({"retrying": 0, "delivered_total": 7, "lag": 0})).await;
    let again = receiver.seen().split_off(3);
    assert_eq!(firsts(&again, |delivery| key(delivery) == "bad"), [seqs[1], seqs[2], seqs[4]]);
}

#[tokio::test]
async fn an_endpoint_that_is_down_leaves_one_retry_in_strict_order() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(503)).await;
    let more = json!({"ordering": "strict", "retry": {"max_attempts": 1000, "schedule": ["10ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..2000).await;
    let status = relay.status_becomes("a", json!({"circuit": "open", "retrying": 1})).await;
    assert_eq!((&status["dead"], &status["delivered_total"]), (&json!(0), &json!(0)));
    assert!(receiver.of_each(Delivery::seq).iter().all(|seq| *seq == 1));
    // A definition with another address forgets the circuit.
    let well = Receiver::start().await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": well.url()})).await;
    relay.status_becomes("a", json!({"delivered_total": 2000, "retrying": 0, "lag": 0})).await;
    assert_eq!(well.of_each(Delivery::seq), (1..=2000).collect::<Vec<u64>>());
}
