//! Batches: many events in one request, cut by count, bytes and time, and retried as they were.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{Answer, Delivery, Receiver, Relay, for_a_while};

/// A definition that gathers, with quick retries.
fn batches(max_events: u32, max_wait: &str, format: &str) -> Value {
    json!({
        "batch": {"max_events": max_events, "max_bytes": 262_144, "max_wait": max_wait, "format": format},
        "retry": {"max_attempts": 1000, "schedule": ["200ms"], "jitter": 0.0},
    })
}

fn events(delivery: &Delivery) -> Vec<Value> {
    match delivery.header("content-type") {
        "application/x-ndjson" => delivery.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        _ => serde_json::from_slice(&delivery.body).unwrap(),
    }
}

fn seqs(delivery: &Delivery) -> Vec<u64> {
    events(delivery).iter().map(|event| event["seq"].as_str().unwrap().parse().unwrap()).collect()
}

/// First, last and subscription in a batch's `webhook-id`; the hash between them must be that of format and body.
fn span(delivery: &Delivery) -> (u64, u64, String) {
    let rest = delivery.id().strip_prefix("msg_").unwrap().split_once('_').unwrap().1;
    let (numbers, rest) = rest.split_once('_').unwrap();
    let (hash, subscription) = rest.split_once('_').unwrap();
    assert_eq!(hash, hash_of(delivery), "{}", delivery.id());
    let (first, last) = numbers.split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().unwrap(), subscription.to_owned())
}

fn hash_of(delivery: &Delivery) -> String {
    let format = match delivery.header("content-type") {
        "application/x-ndjson" => "ndjson",
        "application/cloudevents-batch+json" => "cloudevents",
        _ => "json-array",
    };
    let seqs: Vec<String> = seqs(delivery).iter().map(u64::to_string).collect();
    let hash = Sha256::digest(format!("{format}\n{}", seqs.join(",")));
    let bits: String = hash.iter().take(5).map(|byte| format!("{byte:08b}")).collect();
    let letter = |bits: &[u8]| {
        let number = usize::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[number])
    };
    bits.as_bytes().chunks(5).map(letter).collect()
}

/// Every body that came under each id.
fn bodies(receiver: &Receiver) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let mut bodies: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for delivery in receiver.seen() {
        bodies.entry(delivery.id().to_owned()).or_default().insert(delivery.body.clone());
    }
    bodies
}

#[tokio::test]
async fn a_batch_goes_when_it_is_full_and_what_is_left_when_it_has_waited() {
    for (format, content_type) in [
        ("json-array", "application/json"),
        ("ndjson", "application/x-ndjson"),
        ("cloudevents", "application/cloudevents-batch+json"),
    ] {
        let relay = Relay::start().await;
        let receiver = Receiver::start().await;
        // Longer than a slow machine needs to bring the events.
        let mut more = batches(100, "2s", format);
        more["max_in_flight"] = json!(1);
        relay.subscribe("a_1", receiver.url(), "t", more).await;
        relay.publish_numbers("t", 0..250).await;
        relay.status_becomes("a_1", json!({"delivered_total": 250, "lag": 0, "failed_attempts_total": 0})).await;
        let seen = receiver.seen();
        assert_eq!(seen.iter().map(|one| seqs(one).len()).collect::<Vec<_>>(), [100, 100, 50], "{format}");
        assert_eq!(seen.iter().flat_map(seqs).collect::<Vec<_>>(), (1..=250).collect::<Vec<_>>());
        for delivery in &seen {
            delivery.verify();
            let of = seqs(delivery);
            assert_eq!(span(delivery), (of[0], *of.last().unwrap(), "a_1".to_owned()));
            assert_eq!(delivery.header("content-type"), content_type);
            assert_eq!(delivery.header("hookcast-subscription"), "a_1");
            assert_eq!((delivery.attempt(), delivery.header("hookcast-hops")), (1, "1"));
            assert!(delivery.headers.keys().all(|name| !name.starts_with("ce-")), "{:?}", delivery.headers);
            assert_eq!(events(delivery)[0]["data"]["n"], of[0] - 1);
        }
    }
}

#[tokio::test]
async fn a_single_event_is_a_batch_of_one_that_waits_no_longer_than_it_may() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", batches(100, "50ms", "json-array")).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    let seen = receiver.sees(1).await;
    assert_eq!(span(&seen[0]), (seq, seq, "a".to_owned()));
    assert_eq!(seqs(&seen[0]), [seq]);
    relay.delivery_becomes("a", seq, "delivered").await;
}

#[tokio::test]
async fn a_batch_ends_before_it_has_too_many_bytes() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let mut more = batches(100, "50ms", "ndjson");
    more["batch"]["max_bytes"] = json!(4096);
    relay.subscribe("a", receiver.url(), "t", more).await;
    for _ in 0..20 {
        relay.publish("t", format!("\"{}\"", "x".repeat(1000))).await;
    }
    let large = relay.publish("t", format!("\"{}\"", "x".repeat(9000))).await;
    relay.status_becomes("a", json!({"delivered_total": 21})).await;
    for delivery in receiver.seen() {
        assert!(delivery.body.len() <= 4096 || seqs(&delivery) == [large], "{} bytes", delivery.body.len());
    }
    assert!(receiver.seen().iter().any(|delivery| seqs(delivery).len() == 3), "they are gathered all the same");
}

#[tokio::test]
async fn a_failed_batch_is_retried_as_it_was_also_after_a_crash() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let mut more = batches(10, "50ms", "json-array");
    more["retry"]["schedule"] = json!(["1s"]);
    more["max_in_flight"] = json!(2);
    relay.subscribe("a", receiver.url(), "t", more).await;
    let all = relay.publish_numbers("t", 0..20).await;
    let status = relay.status_becomes("a", json!({"retrying": 20})).await;
    assert_eq!(status["failed_attempts_total"], 20, "an attempt an event: {status}");
    for seq in [all[0], all[9], all[10], all[19]] {
        let view = relay.delivery("a", seq).await;
        assert_eq!((&view["state"], &view["reason"]), (&json!("retrying"), &json!("status_500")), "{view}");
        assert_eq!(view["attempts"][0]["seq"], seq);
    }
    receiver.sees(4).await;
    for_a_while(Duration::from_millis(400)).await;
    relay.kill9().await;
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    relay.status_becomes("a", json!({"retrying": 0, "lag": 0})).await;
    let seen = receiver.seen();
    let ids = |from: usize| {
        let mut ids: Vec<_> = seen[from..].iter().map(|one| (one.id().to_owned(), one.body.clone())).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    assert_eq!(ids(0).len(), 2, "the same two batches all the time: {:?}", receiver.of_each(|one| one.id().to_owned()));
    assert_eq!(ids(seen.len() - 2), ids(0));
    assert!(seen.last().unwrap().attempt() >= 3, "it knows how often it was tried");
    seen.iter().for_each(Delivery::verify);
}

#[tokio::test]
async fn what_was_in_flight_in_a_crash_comes_again() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::never()).await;
    relay.subscribe("a", receiver.url(), "t", batches(100, "50ms", "json-array")).await;
    let all = relay.publish_numbers("t", 0..600).await;
    receiver.sees(6).await;
    relay.kill9().await;
    receiver.change(|_, _| Answer::ok());
    let before = receiver.count();
    relay.restart().await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "retrying": 0})).await;
    let mut again: Vec<u64> = receiver.seen()[before..].iter().flat_map(seqs).collect();
    again.sort_unstable();
    assert_eq!(again, all);
}

#[tokio::test]
async fn each_event_of_a_dead_batch_is_a_letter_of_its_own() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500).header("webhook-delivery", "abort")).await;
    relay.subscribe("a", receiver.url(), "t", batches(5, "50ms", "json-array")).await;
    let all = relay.publish_numbers("t", 0..10).await;
    relay.status_becomes("a", json!({"dead": 10, "retrying": 0})).await;
    relay.delivery_becomes("a", all[7], "dead").await;
    receiver.change(|_, _| Answer::ok());
    let redrive = async |which: Value| relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", which).await;
    redrive(json!({"seqs": [all[3]]})).await;
    relay.status_becomes("a", json!({"dead": 9, "retrying": 0, "delivered_total": 1})).await;
    assert_eq!(seqs(receiver.seen().last().unwrap()), [all[3]]);
    redrive(json!({"all": true})).await;
    relay.status_becomes("a", json!({"dead": 0, "retrying": 0, "delivered_total": 10})).await;
    let seen = receiver.seen();
    assert!(seen.len() <= 6, "two, one, and the nine in batches: {}", seen.len());
    relay.delivery_becomes("a", all[7], "delivered").await;
    let list = relay.get("/v1/subscriptions/a/dead-letters").await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_receiver_that_is_gone_leaves_every_event_pending() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(410)).await;
    let mut more = batches(5, "50ms", "json-array");
    more["max_in_flight"] = json!(1);
    relay.subscribe("a", receiver.url(), "t", more).await;
    let all = relay.publish_numbers("t", 0..10).await;
    relay.status_becomes("a", json!({"state": "disabled", "reason": "gone", "dead": 0, "delivered_total": 0})).await;
    assert_eq!(receiver.count(), 1);
    receiver.change(|_, _| Answer::ok());
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": true})).await;
    relay.status_becomes("a", json!({"delivered_total": 10, "retrying": 0, "lag": 0})).await;
    let mut got: Vec<u64> = receiver.seen()[1..].iter().flat_map(seqs).collect();
    got.sort_unstable();
    assert_eq!(got, all);
}

#[tokio::test]
async fn a_batch_spends_one_token_and_one_place() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    let mut more = batches(50, "500ms", "json-array");
    more["max_in_flight"] = json!(2);
    more["rate_limit"] = json!({"per_second": 1, "burst": 4});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..400).await;
    let status = relay.status_becomes("a", json!({"in_flight": 2})).await;
    assert_eq!(status["delivered_total"], 0);
    receiver.sees(2).await;
    for_a_while(Duration::from_millis(100)).await;
    assert_eq!(receiver.count(), 2);
    receiver.release(1000);
    // With a token an event this would take minutes.
    relay.status_becomes("a", json!({"delivered_total": 400})).await;
    assert_eq!(receiver.count(), 8);
    assert_eq!(receiver.most_open(), 2);
}

#[tokio::test]
async fn batches_in_order_go_one_at_a_time_and_a_stuck_one_holds_up_its_keys() {
    let relay = Relay::start().await;
    let bad = |delivery: &Delivery| seqs(delivery).contains(&1);
    let receiver = Receiver::with(move |delivery, _| Answer::status(if bad(delivery) { 500 } else { 200 })).await;
    let mut more = batches(10, "20ms", "json-array");
    more["ordering"] = json!({"key": "/k"});
    more["retry"]["schedule"] = json!(["500ms"]);
    relay.subscribe("a", receiver.url(), "t", more).await;
    // The first batch has the keys 0 and 1; of what follows those wait, and the others go on.
    for n in 0..10 {
        relay.publish("t", format!("{{\"k\":{}}}", n % 2)).await;
    }
    receiver.sees(1).await;
    let first = seqs(&receiver.seen()[0]);
    for n in 0..600 {
        relay.publish("t", format!("{{\"k\":{}}}", n % 4)).await;
    }
    let held = first.iter().map(|seq| (seq - 1) % 2).collect::<std::collections::BTreeSet<_>>();
    relay.status_becomes("a", json!({"retrying": first.len()})).await;
    crate::support::eventually("the other keys", async || {
        let others = receiver.seen().iter().filter(|one| !bad(one)).flat_map(events).count();
        (others >= 300).then_some(())
    })
    .await;
    let keys_of = |one: &Delivery| events(one).iter().map(|event| event["data"]["k"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(receiver.seen().iter().filter(|one| !bad(one)).all(|one| keys_of(one).iter().all(|key| !held.contains(key))));
    receiver.change(|_, _| Answer::ok());
    relay.status_becomes("a", json!({"delivered_total": 610, "retrying": 0, "lag": 0})).await;
    let mut last = std::collections::BTreeMap::new();
    for event in receiver.seen().iter().skip_while(|one| bad(one)).flat_map(events) {
        let (seq, key): (u64, u64) = (event["seq"].as_str().unwrap().parse().unwrap(), event["data"]["k"].as_u64().unwrap());
        if seq > 10 {
            let before = last.insert(key, seq).unwrap_or(0);
            assert!(before < seq, "{key}: {before} before {seq}");
        }
    }
}

#[tokio::test]
async fn strict_batches_are_the_log_cut_into_pieces() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, n| Answer::status(if n % 3 == 1 { 500 } else { 200 })).await;
    let mut more = batches(20, "20ms", "ndjson");
    more["ordering"] = json!("strict");
    more["retry"]["schedule"] = json!(["20ms"]);
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..500).await;
    relay.status_becomes("a", json!({"delivered_total": 500, "retrying": 0, "lag": 0})).await;
    let seen = receiver.seen();
    let taken: Vec<u64> = seen.iter().enumerate().filter(|(n, _)| n % 3 != 1).flat_map(|(_, one)| seqs(one)).collect();
    assert_eq!(taken, (1..=500).collect::<Vec<_>>());
    for (n, one) in seen.iter().enumerate().filter(|(n, _)| n % 3 == 1) {
        assert_eq!(seen[n + 1].id(), one.id(), "what failed is next");
    }
    assert_eq!(receiver.most_open(), 1);
}

#[tokio::test]
async fn a_cloudevents_batch_is_read_by_the_published_library() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", batches(100, "100ms", "cloudevents")).await;
    relay.publish_numbers("t", 0..10).await;
    relay.must("POST", "/v1/topics/t/events", json!("text with \"quotes\" and \u{2028}")).await;
    relay.status_becomes("a", json!({"delivered_total": 11})).await;
    let mut count = 0;
    for delivery in receiver.seen() {
        let read: Vec<cloudevents::Event> = serde_json::from_slice(&delivery.body).unwrap();
        for (event, raw) in read.iter().zip(events(&delivery)) {
            use cloudevents::AttributesReader as _;
            assert_eq!(event.id(), raw["id"]);
            assert_eq!(event.extension("seq").unwrap().to_string(), raw["seq"].as_str().unwrap());
            assert!(event.data().is_some());
            count += 1;
        }
    }
    assert_eq!(count, 11);
}

#[tokio::test]
async fn an_id_never_names_two_bodies() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let mut more = batches(3, "50ms", "json-array");
    more["filter"] = json!("topic == \"t\"");
    relay.subscribe("s", receiver.url(), "*", more).await;
    let publish = async |topic: &str| relay.publish(topic, "{}").await;
    let all = [publish("t").await, publish("u").await, publish("t").await];
    relay.status_becomes("s", json!({"lag": 0, "delivered_total": 2})).await;
    // The same first and last, but other events between them, or another format.
    relay.must("PATCH", "/v1/subscriptions/s", json!({"filter": null, "batch": {"max_wait": "1s"}})).await;
    let expected = [vec![all[0], all[1], all[2]], vec![all[0], all[1], all[2]]];
    for (format, wanted) in ["json-array", "ndjson"].into_iter().zip(expected) {
        let before = receiver.count();
        relay.must("PATCH", "/v1/subscriptions/s", json!({"batch": {"format": format}})).await;
        relay.must("POST", "/v1/subscriptions/s/seek", json!({"to": "earliest"})).await;
        let seen = receiver.sees(before + 1).await;
        assert_eq!(seen[before..].iter().flat_map(seqs).collect::<Vec<_>>(), wanted, "{format}");
        relay.status_becomes("s", json!({"lag": 0, "in_flight": 0})).await;
    }
    // A part of a dead batch.
    receiver.change(|_, _| Answer::status(500).header("webhook-delivery", "abort"));
    let dead = [publish("t").await, publish("t").await, publish("t").await];
    relay.status_becomes("s", json!({"dead": 3})).await;
    receiver.change(|_, _| Answer::ok());
    for which in [vec![dead[0], dead[2]], vec![dead[1]]] {
        let before = receiver.count();
        relay.must("POST", "/v1/subscriptions/s/dead-letters/redrive", json!({"seqs": which})).await;
        let seen = receiver.sees(before + 1).await;
        assert_eq!(seen[before..].iter().flat_map(seqs).collect::<Vec<_>>(), which);
        span(&seen[before]);
    }
    relay.status_becomes("s", json!({"dead": 0})).await;
    let before = receiver.count();
    relay.must("POST", "/v1/subscriptions/s/replay", json!({"from": {"seq": dead[0]}, "to": {"seq": dead[2]}})).await;
    receiver.sees(before + 1).await;
    relay.status_becomes("s", json!({"lag": 0, "in_flight": 0})).await;
    for (id, bodies) in bodies(&receiver) {
        assert_eq!(bodies.len(), 1, "{id} names {} bodies", bodies.len());
    }
}

#[tokio::test]
async fn a_batch_that_is_retried_across_an_upgrade_keeps_its_old_id() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let mut more = batches(3, "50ms", "json-array");
    more["max_in_flight"] = json!(1);
    relay.subscribe("s", receiver.url(), "t", more).await;
    let all = relay.publish_numbers("t", 0..6).await;
    relay.status_becomes("s", json!({"retrying": 6})).await;
    assert_eq!(relay.terminate().await, Some(0));
    // As a build left it that knew nothing of the hash.
    let path = relay.path("data/hookcast.db");
    let mut database = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let changed = sqlx::query("UPDATE exceptions SET batch_ids = 0").execute(&mut database).await.unwrap();
    assert_eq!(changed.rows_affected(), 6);
    sqlx::Connection::close(database).await.unwrap();
    let before = receiver.count();
    relay.restart().await;
    // Over several attempts, and over another restart.
    receiver.sees(before + 4).await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    let seen = receiver.sees(receiver.count() + 2).await;
    let old = |from: usize, to: usize| format!("_{}-{}_s", all[from], all[to]);
    for delivery in &seen[before..] {
        let wanted = if seqs(delivery)[0] == all[0] { old(0, 2) } else { old(3, 5) };
        assert!(delivery.id().ends_with(&wanted), "{} {:?}", delivery.id(), seqs(delivery));
    }
    // Without one of its events it is another body.
    relay.must("POST", "/v1/subscriptions/s/skip", json!({"to": all[0]})).await;
    relay.status_becomes("s", json!({"retrying": 5})).await;
    receiver.change(|_, _| Answer::ok());
    relay.status_becomes("s", json!({"retrying": 0, "in_flight": 0})).await;
    let seen = receiver.seen();
    let rest = seen.iter().find(|delivery| seqs(delivery) == [all[1], all[2]]).expect("the rest of the first batch");
    assert_eq!(span(rest), (all[1], all[2], "s".to_owned()));
    // What is new has the new ids.
    let before = receiver.count();
    let fresh = relay.publish("t", "{}").await;
    let seen = receiver.sees(before + 1).await;
    assert_eq!(span(&seen[before]), (fresh, fresh, "s".to_owned()));
    for (id, bodies) in bodies(&receiver) {
        assert_eq!(bodies.len(), 1, "{id}");
    }
}
