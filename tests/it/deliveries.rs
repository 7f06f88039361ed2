//! What a subscription may ask for, seen from its receiver: limits, order, choice of events, keys, pauses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, SECRET, eventually, for_a_while};

#[tokio::test]
async fn a_rate_limit_holds_at_the_receiver() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"rate_limit": {"per_second": 20, "burst": 5}})).await;
    let began = Instant::now();
    relay.publish_numbers("t", 0..65).await;
    let seen = receiver.sees(65).await;
    // Never earlier than a burst and then the rate allow; a busy machine only makes it later.
    for (index, delivery) in (0..).zip(&seen) {
        let earliest = Duration::from_millis(50) * u32::saturating_sub(index, 5);
        assert!(delivery.at - began >= earliest, "{index} after {:?}", delivery.at - began);
    }
}

#[tokio::test]
async fn no_more_than_max_in_flight_are_open_at_once() {
    let (relay, receiver) = (Relay::start().await, Receiver::with(|_, _| Answer::ok().when_released()).await);
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 3})).await;
    relay.publish_numbers("t", 0..30).await;
    eventually("three open requests", async || (receiver.open() == 3).then_some(())).await;
    assert_eq!(relay.status_becomes("a", json!({"in_flight": 3})).await["cursor"], 0);
    receiver.release(30);
    relay.status_becomes("a", json!({"cursor": 30, "in_flight": 0})).await;
    assert_eq!((receiver.most_open(), receiver.count()), (3, 30));
}

#[tokio::test]
async fn a_pause_keeps_order_and_loses_nothing() {
    let (mut relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 1})).await;
    relay.publish_numbers("t", 0..20).await;
    receiver.sees(5).await;
    assert_eq!(relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await["state"], "paused");
    eventually("nothing in flight", async || (relay.status("a").await["in_flight"] == 0).then_some(())).await;
    let before = receiver.count();
    relay.publish_numbers("t", 20..600).await;
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(receiver.count(), before);
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    assert_eq!(relay.get("/v1/subscriptions/a").await["state"], "paused");
    relay.publish_numbers("t", 600..620).await;
    assert_eq!(receiver.count(), before);
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    let seen = receiver.sees(620).await;
    let bodies: Vec<_> = seen.iter().map(|delivery| delivery.text().to_owned()).collect();
    assert_eq!(bodies, (0..620).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_goes_out_after_a_deletion() {
    let (relay, receiver) = (Relay::start().await, Receiver::with(|_, _| Answer::ok().after(Duration::from_millis(2))).await);
    for round in 0..5 {
        let from = receiver.count();
        relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 4})).await;
        relay.publish_numbers("t", 0..2000).await;
        receiver.sees(from + 20).await;
        assert_eq!(relay.ask("DELETE", "/v1/subscriptions/a", None).await.0, 204);
        let at_deletion = receiver.count();
        for_a_while(Duration::from_millis(150)).await;
        assert!(receiver.count() <= at_deletion + 4, "round {round}: {} after the deletion", receiver.count() - at_deletion);
        assert_eq!(relay.ask("GET", "/v1/subscriptions/a/status", None).await.0, 404);
    }
}

#[tokio::test]
async fn what_was_answered_is_in_force() {
    let relay = Relay::start().await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    for round in 1..=20 {
        relay.subscribe("a", old.url(), "t", json!({})).await;
        assert_eq!(relay.ask("GET", "/v1/subscriptions/a/status", None).await.0, 200, "round {round}");
        relay.must("PATCH", "/v1/subscriptions/a", json!({"url": new.url()})).await;
        relay.publish("t", "{}").await;
        new.sees(round).await;
        relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
        let paused = relay.publish("t", "{}").await;
        assert_eq!(relay.delivery("a", paused).await["state"], "pending");
        assert_eq!(relay.ask("DELETE", "/v1/subscriptions/a", None).await.0, 204);
    }
    assert_eq!((old.count(), new.count()), (0, 20));
}

#[tokio::test]
async fn a_deleted_id_made_again_starts_anew() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let once = json!({"retry": {"max_attempts": 1, "schedule": ["1s"]}});
    let later = json!({"retry": {"max_attempts": 3, "schedule": ["1s"], "jitter": 0.0}});
    relay.subscribe("dead", receiver.url(), "t", once.clone()).await;
    relay.subscribe("late", receiver.url(), "t", later.clone()).await;
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("dead", seq, "dead").await;
    relay.delivery_becomes("late", seq, "retrying").await;
    for (id, more) in [("dead", once), ("late", later)] {
        assert_eq!(relay.ask("DELETE", &format!("/v1/subscriptions/{id}"), None).await.0, 204);
        relay.subscribe(id, receiver.url(), "t", more).await;
        let status = relay.status(id).await;
        assert_eq!((&status["dead"], &status["retrying"]), (&json!(0), &json!(0)), "{id}");
        let view = relay.delivery(id, seq).await;
        assert_eq!((&view["state"], &view["attempts"]), (&json!("before_start"), &json!([])), "{id}");
        let list = relay.get(&format!("/v1/subscriptions/{id}/undelivered")).await;
        assert_eq!(list["items"], json!([]), "{id}");
    }
    // Longer than the old retry would have waited.
    let before = receiver.count();
    for_a_while(Duration::from_millis(1300)).await;
    assert_eq!(receiver.count(), before);
}

#[tokio::test]
async fn a_ping_is_signed_and_stays_outside_the_log() {
    let (relay, receiver) = (Relay::start().await, Receiver::with(|_, n| Answer::status(if n == 0 { 204 } else { 500 })).await);
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let attempt = relay.must("POST", "/v1/subscriptions/a/ping", json!({})).await;
    assert_eq!((&attempt["outcome"], &attempt["status"]), (&json!("success"), &json!(204)));
    let attempt = relay.must("POST", "/v1/subscriptions/a/ping", json!({})).await;
    assert_eq!((&attempt["outcome"], &attempt["status"]), (&json!("failure"), &json!(500)));
    for delivery in receiver.sees(2).await {
        assert!(delivery.id().starts_with("ping_"), "{}", delivery.id());
        delivery.verify();
    }
    let status = relay.status("a").await;
    assert_eq!((&status["head"], &status["retrying"], &status["dead"]), (&json!(0), &json!(0), &json!(0)));
}

#[tokio::test]
async fn both_keys_sign_during_an_overlap_and_the_new_one_after_it() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let rotate = "/v1/subscriptions/a/secret/rotate";
    let answer = relay.must("POST", rotate, json!({"overlap": "1h"})).await;
    let new = answer["signature"]["secret"].as_str().unwrap().to_owned();
    assert!(answer["old_expires_at"].is_string());
    relay.publish("t", "{\"n\":1}").await;
    let seen = receiver.sees(1).await;
    assert_eq!(seen[0].header("webhook-signature").split(' ').count(), 2);
    assert!(seen[0].is_signed_with(SECRET) && seen[0].is_signed_with(&new));
    // New first: the first signature alone is good under the new key.
    let mut first_only = seen[0].clone();
    let first = seen[0].header("webhook-signature").split(' ').next().unwrap().to_owned();
    first_only.headers.insert("webhook-signature".to_owned(), first);
    assert!(first_only.is_signed_with(&new) && !first_only.is_signed_with(SECRET));
    // An overlap that ends: the old keys fail then.
    relay.must("POST", rotate, json!({"overlap": "1s", "secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="})).await;
    let last = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    eventually("one signature of the newest key", async || {
        let before = receiver.count();
        relay.publish("t", "{\"n\":2}").await;
        let newest = receiver.sees(before + 1).await.pop().unwrap();
        assert!(newest.is_signed_with(last));
        (!newest.is_signed_with(&new)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_say_where_they_stand_and_why() {
    let (relay, receiver) = (Relay::start().await, Receiver::with(|_, _| Answer::ok().when_released()).await);
    let before = relay.publish("t.a", "{\"n\":0}").await;
    relay.subscribe("a", receiver.url(), "t.*", json!({"types": ["x"], "max_in_flight": 1})).await;
    let typed = async |topic: &str, kind: &str| {
        let url = format!("{}/v1/topics/{topic}/events", relay.url);
        let request = relay.client.post(url).header("ce-type", kind).header("content-type", "application/json").body("{}");
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["events"][0]["seq"].as_u64().unwrap()
    };
    let (other_type, other_topic, first, second) =
        (typed("t.a", "y").await, typed("u.a", "x").await, typed("t.a", "x").await, typed("t.b", "x").await);
    eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
    for (seq, state) in
        [(before, "before_start"), (other_type, "filtered"), (other_topic, "filtered"), (first, "pending"), (second, "pending")]
    {
        assert_eq!(relay.delivery("a", seq).await["state"], state, "{seq}");
    }
    assert!(relay.delivery("a", other_type).await["reason"].as_str().unwrap().contains("type"));
    receiver.release(2);
    relay.delivery_becomes("a", first, "delivered").await;
    relay.delivery_becomes("a", second, "delivered").await;
    assert_eq!(relay.ask("GET", "/v1/subscriptions/a/deliveries/99", None).await.0, 404);
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn from_chooses_where_a_subscription_begins() {
    let relay = Relay::start().await;
    relay.publish_numbers("t", 0..3).await;
    // Times are kept in milliseconds.
    for_a_while(Duration::from_millis(20)).await;
    let between = jiff::Timestamp::now().to_string();
    for_a_while(Duration::from_millis(20)).await;
    relay.publish_numbers("t", 3..6).await;
    for (id, from, first) in [
        ("latest", json!("latest"), 7),
        ("earliest", json!("earliest"), 1),
        ("seq", json!({"seq": 3}), 3),
        ("next", json!({"seq": 7}), 7),
        ("time", json!({"time": between}), 4),
    ] {
        let receiver = Receiver::start().await;
        relay.subscribe(id, receiver.url(), "t", json!({"from": from, "max_in_flight": 1})).await;
        if first == 7 {
            for_a_while(Duration::from_millis(100)).await;
            assert_eq!(receiver.count(), 0, "{id}");
            continue;
        }
        receiver.sees(7 - first).await;
        let seqs = receiver.of_each(super::support::Delivery::seq);
        assert_eq!(seqs, (first as u64..=6).collect::<Vec<_>>(), "{id}");
    }
    let beyond = json!({"id": "b", "url": "http://127.0.0.1:1/", "topics": ["t"], "from": {"seq": 8}});
    assert_eq!(relay.ask("POST", "/v1/subscriptions", Some(&beyond)).await.0, 422);
}

#[tokio::test]
async fn a_change_of_topics_takes_effect_at_the_cursor() {
    let (relay, receiver) = (Relay::start().await, Receiver::with(|_, _| Answer::ok().when_released()).await);
    relay.subscribe("a", receiver.url(), "old", json!({"max_in_flight": 1})).await;
    let (first, skipped) = (relay.publish("old", "{\"n\":1}").await, relay.publish("old", "{\"n\":2}").await);
    let wanted = relay.publish("new", "{\"n\":3}").await;
    eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"topics": ["new"]})).await;
    receiver.release(10);
    relay.delivery_becomes("a", wanted, "delivered").await;
    relay.status_becomes("a", json!({"cursor": wanted, "in_flight": 0})).await;
    assert_eq!(receiver.of_each(super::support::Delivery::seq), [first, wanted]);
    assert_eq!(relay.delivery("a", skipped).await["state"], "filtered");
    // PATCH of `from` is refused; PUT ignores it and keeps key and cursor.
    assert_eq!(relay.ask("PATCH", "/v1/subscriptions/a", Some(&json!({"from": "earliest"}))).await.0, 422);
    let put = json!({"url": receiver.url(), "topics": ["new", "old"], "from": "earliest"});
    let answer = relay.must("PUT", "/v1/subscriptions/a", put).await;
    assert!(answer["signature"].get("secret").is_none_or(Value::is_null), "{answer}");
    let last = relay.publish("old", "{\"n\":4}").await;
    relay.delivery_becomes("a", last, "delivered").await;
    let seen = receiver.seen();
    assert_eq!(seen.iter().map(super::support::Delivery::seq).collect::<Vec<_>>(), [first, wanted, last]);
    seen[2].verify();
}

#[tokio::test]
async fn a_change_of_address_and_headers_acts_from_the_next_attempt() {
    let relay = Relay::start().await;
    let old = Receiver::with(|_, _| Answer::status(500)).await;
    let new = Receiver::start().await;
    let retry = json!({"headers": {"X-Team": "one"}, "retry": {"max_attempts": 5, "schedule": ["1s"], "jitter": 0.0}});
    relay.subscribe("a", old.url(), "t", retry).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    old.sees(1).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": new.url(), "headers": {"x-team": "two"}})).await;
    let seen = new.sees(1).await;
    assert_eq!((old.seen()[0].header("x-team"), seen[0].header("x-team")), ("one", "two"));
    assert_eq!((seen[0].attempt(), seen[0].id()), (2, old.seen()[0].id()));
    relay.delivery_becomes("a", seq, "delivered").await;
    assert_eq!(relay.get("/v1/subscriptions/a").await["header_names"], json!(["x-team"]));
}

#[tokio::test]
async fn a_seek_goes_back_and_forth() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 1})).await;
    relay.publish_numbers("t", 0..10).await;
    receiver.sees(10).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": 8}})).await;
    receiver.sees(13).await;
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    relay.publish_numbers("t", 10..20).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "latest"})).await;
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    let last = relay.publish("t", "{}").await;
    receiver.sees(14).await;
    let seqs = receiver.of_each(super::support::Delivery::seq);
    assert_eq!(seqs, (1..=10).chain(8..=10).chain([last]).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_subscription_switched_off_keeps_its_cursor() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 1})).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": false})).await;
    relay.publish_numbers("t", 0..300).await;
    let status = relay.status("a").await;
    assert_eq!((&status["state"], &status["reason"], &status["cursor"]), (&json!("disabled"), &json!("manual"), &json!(0)));
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": true})).await;
    receiver.sees(300).await;
    assert_eq!(receiver.of_each(super::support::Delivery::seq), (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_than_ten_keys_sign_at_once() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let mut refused = 0;
    for _ in 0..12 {
        let (status, answer) = relay.ask("POST", "/v1/subscriptions/a/secret/rotate", Some(&json!({"overlap": "1h"}))).await;
        assert!(matches!(status, 200 | 409 | 422 | 429), "{status} {answer}");
        refused += usize::from(status != 200);
    }
    relay.publish("t", "{}").await;
    let signatures = receiver.sees(1).await[0].header("webhook-signature").split(' ').count();
    assert!((2..=10).contains(&signatures), "{signatures} signatures, {refused} refused");
}
